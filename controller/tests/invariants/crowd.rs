//! Many objects at once: quotas, default classes, other controllers, and watches that miss
//! changes.

use std::collections::BTreeSet;

use serde_json::json;

use crate::support::api::{Kind, Port, Svc};
use crate::support::journal::Target;
use crate::support::lab::{Lab, simulate};

/// The Services, of 20, that have a load balancer; the others must be marked as refused.
fn admitted(lab: &mut Lab) -> BTreeSet<String> {
    let balanced = lab.balanced();
    let services = lab.api.all(Kind::Service);
    lab.refused.clear();
    let mut names = BTreeSet::new();
    for (key, service) in services {
        if balanced.contains(service["metadata"]["uid"].as_str().unwrap()) {
            names.insert(key);
        } else {
            lab.refused.insert(key, "QuotaExceeded");
        }
    }
    names
}

#[test]
fn a_quota_admits_exactly_so_many_and_one_more_for_each_that_goes() {
    simulate(51, async |lab| {
        lab.api.edit(Kind::Class, "local", |class| {
            class["spec"]["maxLoadBalancers"] = 3.into();
        });
        lab.start();
        lab.led().await;
        for number in 0..20 {
            lab.api
                .create_service(&Svc::new(&format!("shop/web-{number:02}")));
        }
        lab.until("three are in", |lab| lab.balanced().len() == 3)
            .await;
        let first = admitted(lab);
        lab.settle().await;
        lab.rest(60).await;
        assert_eq!(admitted(lab), first, "somebody was moved");
        let leaves = first.first().unwrap().clone();
        lab.api.delete(Kind::Service, &leaves);
        lab.gone(Kind::Service, &leaves).await;
        lab.until("another is in", |lab| lab.balanced().len() == 3)
            .await;
        let second = admitted(lab);
        lab.settle().await;
        lab.rest(60).await;
        assert_eq!(second.difference(&first).count(), 1);
        assert_eq!(lab.balanced().len(), 3);
        lab.assert_steady().await;
        lab.api.edit(Kind::Class, "local", |class| {
            class["spec"]["maxLoadBalancers"] = 5.into();
        });
        lab.until("five are in", |lab| lab.balanced().len() == 5)
            .await;
        admitted(lab);
        lab.settle().await;
    });
}

/// After a restart, Services with a place keep it, even if others are older.
#[test]
fn a_quota_that_is_lowered_evicts_nobody() {
    simulate(52, async |lab| {
        for number in 0..4 {
            lab.api
                .create_service(&Svc::new(&format!("shop/web-{number}")));
        }
        lab.start();
        lab.settle().await;
        lab.api.edit(Kind::Class, "local", |class| {
            class["spec"]["maxLoadBalancers"] = 2.into();
        });
        lab.assert_steady().await;
        assert_eq!(lab.balanced().len(), 4);
    });
}

#[test]
fn of_two_default_classes_the_older_one_serves() {
    simulate(53, async |lab| {
        lab.api.edit(Kind::Class, "local", |class| {
            class["spec"]["default"] = true.into();
        });
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        lab.api.create_class("another", &json!({"default": true}));
        lab.start();
        lab.api.create_service(&Svc::new("shop/web").classless());
        lab.settle().await;
        lab.until("the younger says so", |lab| {
            let class = lab.api.get(Kind::Class, "another").unwrap();
            let conditions = class["status"]["conditions"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            conditions
                .iter()
                .any(|it| it["type"] == "Default" && it["reason"] == "Conflict")
        })
        .await;
        // A new default class moves no existing Service.
        lab.api.edit(Kind::Class, "local", |class| {
            class["spec"]["default"] = false.into();
        });
        lab.api.create_service(&Svc::new("shop/next").classless());
        lab.settle().await;
        let class = |lab: &Lab, key: &str| lab.cloud.of(&lab.uid(key))[0].tag("ballast.dev/class");
        assert_eq!(
            (
                class(lab, "shop/web").as_str(),
                class(lab, "shop/next").as_str()
            ),
            ("local", "another")
        );
        lab.assert_steady().await;
    });
}

#[test]
fn a_default_class_takes_nothing_while_another_controller_runs() {
    for name in ["cloud-controller-manager", "k3s-cloud-controller-manager"] {
        simulate(54, async |lab| {
            let lease = format!("kube-system/{name}");
            lab.api.edit(Kind::Class, "local", |class| {
                class["spec"]["default"] = true.into();
            });
            lab.api.create_service(&Svc::new("shop/web").classless());
            lab.api.renew_foreign_lease(&lease, "ccm-1", 0);
            lab.start();
            for beat in 1..30 {
                lab.rest(5).await;
                lab.api.renew_foreign_lease(&lease, "ccm-1", beat);
            }
            assert_eq!(lab.effects(0, Target::Service).len(), 0, "{}", lab.dump());
            // It stops, and after two looks nobody contends any more.
            lab.settle().await;
            assert_eq!(lab.addresses("shop/web").len(), 1);
        });
    }
}

#[test]
fn a_watch_that_is_cut_and_relisted_misses_nothing() {
    simulate(55, async |lab| {
        for number in 0..6 {
            lab.api
                .create_service(&Svc::new(&format!("shop/web-{number}")));
        }
        lab.start();
        lab.settle().await;
        lab.api.freeze_watches(true);
        // One vanishes without a finalizer, one is deleted with it, one is replaced, one is
        // new.
        lab.api.strip("shop/web-0");
        lab.api.delete(Kind::Service, "shop/web-0");
        lab.api.delete(Kind::Service, "shop/web-1");
        lab.api.strip("shop/web-2");
        lab.api.delete(Kind::Service, "shop/web-2");
        lab.api
            .create_service(&Svc::new("shop/web-2").ports(&[Port(99, "TCP")]));
        lab.api.create_service(&Svc::new("shop/web-9"));
        lab.rest(30).await;
        lab.api.freeze_watches(false);
        lab.api.compact();
        lab.settle().await;
        lab.assert_steady().await;
    });
}

#[test]
fn a_list_that_comes_in_pages_is_whole() {
    simulate(56, async |lab| {
        lab.api.limit_pages(7);
        for number in 0..40 {
            lab.api
                .create_service(&Svc::new(&format!("shop/web-{number:02}")));
        }
        lab.start();
        lab.settle().await;
        let mark = lab.journal.mark();
        lab.rest(12).await;
        lab.api.compact();
        lab.rest(60).await;
        lab.assert_steady().await;
        assert_eq!(lab.effects(mark, Target::Service).len(), 0);
    });
}

/// The controller does not act on a view that is older than its own write.
#[test]
fn a_watch_that_lags_makes_nothing_twice() {
    simulate(57, async |lab| {
        lab.start();
        lab.led().await;
        lab.api.create_service(&Svc::new("shop/web"));
        lab.until("the finalizer is on", |lab| {
            lab.service("shop/web")["metadata"]["finalizers"].is_array()
        })
        .await;
        lab.api.freeze_watches(true);
        lab.served("shop/web").await;
        lab.cloud.vandalise("nobody");
        lab.rest(120).await;
        assert_eq!(lab.effects(0, Target::Service).len(), 2, "{}", lab.dump());
        lab.api.freeze_watches(false);
        lab.settle().await;
        assert_eq!(lab.effects(0, Target::Service).len(), 2, "{}", lab.dump());
    });
}

#[test]
fn two_controllers_with_different_classes_leave_each_other_alone() {
    simulate(58, async |lab| {
        lab.api.create_class("other", &json!({}));
        lab.start_for(&["local"]);
        lab.start_for(&["other"]);
        lab.led().await;
        lab.api.create_service(&Svc::new("shop/a"));
        lab.api
            .create_service(&Svc::new("shop/b").class("ballast.dev/other"));
        lab.settle().await;
        for key in ["shop/a", "shop/b"] {
            lab.api.set_type(key, "ClusterIP", None);
        }
        lab.settle().await;
        // The same with the roles exchanged.
        lab.api
            .set_type("shop/a", "LoadBalancer", Some("ballast.dev/other"));
        lab.settle().await;
        lab.api.delete(Kind::Service, "shop/a");
        lab.gone(Kind::Service, "shop/a").await;
        let by = |subject: &str, uid: bool| -> BTreeSet<String> {
            let effects = lab.effects(0, if uid { Target::Cloud } else { Target::Service });
            effects
                .into_iter()
                .filter(|it| it.subject == subject)
                .map(|it| it.by)
                .collect()
        };
        assert_eq!(
            by("shop/b", false),
            BTreeSet::from(["c2".to_owned()]),
            "{}",
            lab.dump()
        );
        assert_eq!(
            by("shop/a", false),
            BTreeSet::from(["c1".to_owned(), "c2".to_owned()])
        );
        lab.assert_steady().await;
    });
}

/// Between the two: the type changes and changes back for the other controller's class before
/// either has seen it.
#[test]
fn a_service_that_changes_hands_between_two_controllers_is_released_by_the_first() {
    simulate(59, async |lab| {
        lab.api.create_class("other", &json!({}));
        lab.start_for(&["local"]);
        lab.start_for(&["other"]);
        lab.led().await;
        for round in 0..6 {
            let key = format!("shop/web-{round}");
            lab.api.create_service(&Svc::new(&key));
            lab.settle().await;
            lab.api.set_type(&key, "ClusterIP", None);
            tokio::time::sleep(std::time::Duration::from_millis(round * 3)).await;
            lab.api
                .set_type(&key, "LoadBalancer", Some("ballast.dev/other"));
            lab.settle().await;
        }
        lab.assert_steady().await;
    });
}

/// The default moves, and somebody takes the finalizers off: the Service stays with the class
/// that has its load balancer, also across a restart.
#[test]
fn a_live_service_without_finalizers_does_not_move() {
    for restarts in [false, true] {
        simulate(57 + u64::from(restarts), async |lab| {
            lab.api.edit(Kind::Class, "local", |class| {
                class["spec"]["default"] = true.into();
            });
            lab.start();
            lab.rest(5).await;
            lab.api.create_service(&Svc::new("shop/web").classless());
            lab.served("shop/web").await;
            lab.api.create_class("another", &json!({"default": true}));
            lab.api.edit(Kind::Class, "local", |class| {
                class["spec"]["default"] = false.into();
            });
            lab.settle().await;
            let (before, uid) = (lab.addresses("shop/web"), lab.uid("shop/web"));
            if restarts {
                lab.stop().await;
            }
            lab.api.strip("shop/web");
            if restarts {
                lab.start();
            }
            lab.settle().await;
            assert_eq!(lab.addresses("shop/web"), before, "{}", lab.dump());
            let balancers = lab.cloud.of(&uid);
            assert_eq!(balancers.len(), 1, "{}", lab.dump());
            assert_eq!(balancers[0].tag("ballast.dev/class"), "local");
            lab.assert_steady().await;
        });
    }
}

/// A Service that is refused for the quota gets a finalizer from its owner, and another
/// leader comes.
#[test]
fn a_finalizer_that_a_user_adds_takes_no_place() {
    simulate(59, async |lab| {
        lab.api.edit(Kind::Class, "local", |class| {
            class["spec"]["maxLoadBalancers"] = 1.into();
        });
        lab.api.create_service(&Svc::new("shop/first"));
        lab.start();
        lab.served("shop/first").await;
        lab.api.create_service(&Svc::new("shop/greedy"));
        lab.refusal("shop/greedy", "QuotaExceeded").await;
        lab.stop().await;
        lab.api.edit(Kind::Service, "shop/greedy", |service| {
            service["metadata"]["finalizers"] = json!(["ballast.dev/local"]);
        });
        lab.start();
        lab.led().await;
        lab.rest(60).await;
        assert_eq!(lab.cloud.ours().len(), 1, "{}", lab.dump());
        lab.refusal("shop/greedy", "QuotaExceeded").await;
        assert_eq!(lab.addresses("shop/first").len(), 1);
        // A free place is its own in its turn, and it goes without a trace.
        lab.api.delete(Kind::Service, "shop/first");
        lab.served("shop/greedy").await;
        lab.api.delete(Kind::Service, "shop/greedy");
        lab.gone(Kind::Service, "shop/greedy").await;
        assert_eq!(lab.cloud.ours().len(), 0, "{}", lab.dump());
    });
}

/// Each call of a cloud that hangs keeps a worker until its time-out, and there are four workers.
#[test]
fn a_cloud_that_hangs_delays_no_other_class() {
    simulate(77, async |lab| {
        let hanging = ["one", "two"];
        for class in hanging {
            lab.api.create_class(class, &json!({}));
            lab.cloud.hang_class(class);
        }
        lab.start();
        lab.led().await;
        lab.rest(5).await;
        for (index, class) in hanging.iter().enumerate() {
            for n in 0..20 {
                let service = Svc::new(&format!("shop/{class}-{n}"));
                let class = format!("ballast.dev/{class}");
                lab.api.create_service(&service.class(&class));
            }
            lab.rest(7).await;
            for n in 0..3 {
                let key = format!("shop/web-{index}-{n}");
                let begin = tokio::time::Instant::now();
                lab.api.create_service(&Svc::new(&key));
                lab.served(&key).await;
                let took = begin.elapsed();
                assert!(
                    took < std::time::Duration::from_secs(1),
                    "{class}: {took:?}"
                );
            }
        }
        // Nobody of a class that hangs is forgotten.
        lab.until("every Service has had its turn", |lab| {
            lab.cloud.hung() == 40
        })
        .await;
    });
}

/// A Service that the cloud refuses for ever keeps no place from the others.
#[test]
fn who_the_cloud_refuses_takes_no_place() {
    simulate(78, async |lab| {
        const REQUEST: &str = "ballast.dev/addresses";
        lab.cloud.deny("198.51.100.77");
        lab.api.edit(Kind::Class, "local", |class| {
            class["spec"]["maxLoadBalancers"] = 2.into();
        });
        lab.start();
        lab.led().await;
        for n in 0..3 {
            let squatter = Svc::new(&format!("shop/squatter-{n}"));
            lab.api
                .create_service(&squatter.annotated(REQUEST, "198.51.100.77"));
        }
        lab.rest(10).await;
        for n in 0..2 {
            let key = format!("shop/web-{n}");
            lab.api.create_service(&Svc::new(&key));
            lab.served(&key).await;
        }
        lab.rest(10).await;
        let calls = lab.cloud.calls("ensure");
        lab.rest(20).await;
        assert_eq!(lab.cloud.calls("ensure"), calls, "nobody wakes anybody");
        // They are mended, and there is no place for them.
        lab.api.edit(Kind::Service, "shop/squatter-0", |service| {
            service["metadata"]["annotations"] = json!({});
        });
        lab.refusal("shop/squatter-0", "QuotaExceeded").await;
        assert_eq!(lab.cloud.ours().len(), 2);
        lab.api.delete(Kind::Service, "shop/web-0");
        lab.served("shop/squatter-0").await;
        assert_eq!(lab.cloud.ours().len(), 2);
    });
}

/// With the places taken, and a new leader, which has to find out who is refused.
#[test]
fn a_new_leader_gives_the_places_of_refused_services_to_others() {
    simulate(79, async |lab| {
        const REQUEST: &str = "ballast.dev/addresses";
        lab.cloud.deny("198.51.100.77");
        lab.api.edit(Kind::Class, "local", |class| {
            class["spec"]["maxLoadBalancers"] = 1.into();
        });
        for n in 0..3 {
            let squatter = Svc::new(&format!("shop/squatter-{n}"));
            lab.api
                .create_service(&squatter.annotated(REQUEST, "198.51.100.77"));
        }
        lab.start();
        lab.rest(20).await;
        lab.stop().await;
        lab.api.create_service(&Svc::new("shop/web"));
        lab.start();
        lab.served("shop/web").await;
    });
}
