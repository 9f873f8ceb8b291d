//! Somebody else keeps undoing what this controller writes: few writes and events, and an end.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::api::{Kind, Svc};
use crate::support::journal::Target;
use crate::support::lab::{Lab, simulate};

/// Somebody changes an object 40 times in 5 s.
async fn fight(lab: &mut Lab, kind: Kind, key: &str, edit: &dyn Fn(&mut Value)) {
    for _ in 0..40 {
        lab.api.edit(kind, key, |object| edit(object));
        tokio::time::sleep(Duration::from_millis(125)).await;
        lab.supervise().await;
    }
}

/// As the API server records who set the addresses.
fn signed(service: &mut Value, manager: &str) {
    service["metadata"]["managedFields"] = json!([{
        "manager": manager, "operation": "Update", "apiVersion": "v1",
        "time": "2025-06-15T15:00:00Z", "fieldsType": "FieldsV1", "subresource": "status",
        "fieldsV1": {"f:status": {"f:loadBalancer": {"f:ingress": {}}}},
    }]);
}

fn overwrite(service: &mut Value) {
    service["status"]["loadBalancer"] = json!({"ingress": [{"ip": "192.0.2.1", "ipMode": "VIP"}]});
    signed(service, "k3s-servicelb");
}

fn contested(lab: &Lab, key: &str) -> Option<String> {
    let condition = lab.condition(key, "Contested")?;
    condition["message"].as_str().map(str::to_owned)
}

/// The events of one reason.
fn events(lab: &Lab, reason: &str) -> usize {
    let events = lab.api.events().into_iter();
    events.filter(|event| event.starts_with(reason)).count()
}

async fn served(lab: &mut Lab, service: &Svc, key: &str) {
    lab.api.create_service(service);
    lab.start();
    lab.served(key).await;
    lab.rest(12).await;
}

#[test]
fn a_service_whose_address_somebody_rewrites_is_written_and_reported_a_few_times() {
    simulate(51, async |lab| {
        served(lab, &Svc::new("shop/web"), "shop/web").await;
        let (mark, told) = (lab.journal.mark(), lab.api.events().len());
        fight(lab, Kind::Service, "shop/web", &overwrite).await;
        let message = contested(lab, "shop/web").expect("it says so");
        assert!(message.contains("\"k3s-servicelb\""), "{message}");
        let writes = lab.effects(mark, Target::Service).len();
        assert!((2..=7).contains(&writes), "{writes} writes\n{}", lab.dump());
        lab.until("it is restored", |lab| lab.problems().is_empty())
            .await;
        lab.until("the condition goes", |lab| {
            contested(lab, "shop/web").is_none()
        })
        .await;
        assert_eq!(events(lab, "LoadBalancerContested"), 1);
        assert!(lab.api.events().len() <= told + 2, "{:?}", lab.api.events());
        lab.assert_steady().await;
    });
}

/// Edits of the owner and changes in the cloud do not wait for the other controller.
#[test]
fn legitimate_changes_are_written_at_once_during_a_contest() {
    simulate(52, async |lab| {
        use crate::support::api::Port;
        served(lab, &Svc::new("shop/web"), "shop/web").await;
        fight(lab, Kind::Service, "shop/web", &overwrite).await;
        fight(lab, Kind::Service, "shop/web", &overwrite).await;
        let port = |lab: &Lab| {
            let ingress = &lab.service("shop/web")["status"]["loadBalancer"]["ingress"][0];
            ingress["ports"][0]["port"].clone()
        };
        for number in [8080, 80, 8080] {
            overwrite_in(lab);
            lab.rest(1).await;
            lab.api.set_ports("shop/web", &[Port(number, "TCP")]);
            let start = tokio::time::Instant::now();
            lab.until("the port is published", |lab| port(lab) == number)
                .await;
            assert!(start.elapsed() < Duration::from_secs(1), "{number}");
        }
        overwrite_in(lab);
        lab.rest(1).await;
        lab.api.delete(Kind::Service, "shop/web");
        let start = tokio::time::Instant::now();
        lab.gone(Kind::Service, "shop/web").await;
        assert!(start.elapsed() < Duration::from_secs(1));
    });
}

fn overwrite_in(lab: &Lab) {
    lab.api.edit(Kind::Service, "shop/web", overwrite);
}

/// A contest outlives the leader: its successor writes nothing because of it, and ends it.
#[test]
fn a_restart_during_a_contest_writes_nothing() {
    simulate(53, async |lab| {
        served(lab, &Svc::new("shop/web"), "shop/web").await;
        fight(lab, Kind::Service, "shop/web", &overwrite).await;
        lab.until("it is restored", |lab| lab.problems().is_empty())
            .await;
        assert!(contested(lab, "shop/web").is_some());
        lab.rest(6).await;
        let mark = lab.journal.mark();
        lab.restart().await;
        lab.led().await;
        lab.rest(16).await;
        lab.assert_quiet(mark);
        lab.until("the condition goes", |lab| {
            contested(lab, "shop/web").is_none()
        })
        .await;
        assert_eq!(lab.effects(mark, Target::Service).len(), 1);
    });
}

/// Somebody who also edits the Service each time, in a part that Ballast reads.
#[test]
fn whoever_also_edits_the_service_each_time_is_contested() {
    for what in [
        "a label",
        "an unknown annotation",
        "an annotation of Ballast",
        "finalizers",
    ] {
        simulate(59, async |lab| {
            served(lab, &Svc::new("shop/web"), "shop/web").await;
            let mark = lab.journal.mark();
            for round in 0..40 {
                lab.api.edit(Kind::Service, "shop/web", |service| {
                    overwrite(service);
                    let meta = &mut service["metadata"];
                    match what {
                        "a label" => meta["labels"] = json!({"round": round.to_string()}),
                        "an unknown annotation" => {
                            let key = format!("ballast.dev/x-{round}");
                            meta["annotations"] = json!({key: "x"});
                        }
                        "an annotation of Ballast" => {
                            let address = format!("not-an-address-{round}");
                            meta["annotations"] = json!({"ballast.dev/addresses": address});
                            // The address of a refused Service stays.
                            service["status"]["conditions"][0]["message"] = "no".into();
                        }
                        _ => {
                            meta["labels"] = json!({"round": round.to_string()});
                            meta["finalizers"] = json!([]);
                        }
                    }
                });
                tokio::time::sleep(Duration::from_millis(125)).await;
                lab.supervise().await;
            }
            let message = contested(lab, "shop/web");
            assert!(message.is_some(), "{what}: {}", lab.dump());
            let writes = lab.effects(mark, Target::Service).len();
            assert!((2..=16).contains(&writes), "{what}: {writes} writes");
            lab.api.edit(Kind::Service, "shop/web", |service| {
                service["metadata"]["annotations"] = json!({});
            });
            lab.settle().await;
            lab.until("the condition goes", |lab| {
                contested(lab, "shop/web").is_none()
            })
            .await;
            assert_eq!(events(lab, "LoadBalancerContested"), 1, "{what}");
        });
    }
}

/// Everything of ours that somebody can take away or add.
#[test]
fn no_part_of_a_service_is_fought_over_without_bound() {
    type Edit = fn(&mut Value);
    let edits: [(&str, Edit); 5] = [
        ("addresses are removed", |service| {
            service["status"]["loadBalancer"] = json!({});
        }),
        ("conditions are removed", |service| {
            service["status"]["conditions"] = json!([]);
        }),
        ("a condition is added", |service| {
            let all = service["status"]["conditions"].as_array_mut().unwrap();
            all.push(json!({
                "type": "ballast.dev/Other", "status": "True", "reason": "Yes", "message": "yes",
                "lastTransitionTime": "2025-06-15T15:00:00Z",
            }));
        }),
        ("a condition is changed", |service| {
            service["status"]["conditions"][0]["message"] = "no".into();
        }),
        ("everything is replaced", |service| {
            overwrite(service);
            service["status"]["conditions"] = json!([]);
        }),
    ];
    for (what, edit) in edits {
        simulate(54, async |lab| {
            served(lab, &Svc::new("shop/web"), "shop/web").await;
            let (mark, told) = (lab.journal.mark(), lab.api.events().len());
            fight(lab, Kind::Service, "shop/web", &edit).await;
            let writes = lab.effects(mark, Target::Service).len();
            assert!((2..=9).contains(&writes), "{what}: {writes} writes");
            lab.settle().await;
            lab.until("the condition goes", |lab| {
                contested(lab, "shop/web").is_none()
            })
            .await;
            assert_eq!(events(lab, "LoadBalancerContested"), 1, "{what}");
            assert!(lab.api.events().len() <= told + 3, "{:?}", lab.api.events());
            lab.assert_steady().await;
        });
    }
}

#[test]
fn finalizers_are_not_fought_over_without_bound() {
    simulate(55, async |lab| {
        served(lab, &Svc::new("shop/web"), "shop/web").await;
        let mark = lab.journal.mark();
        for _ in 0..40 {
            lab.api.strip("shop/web");
            tokio::time::sleep(Duration::from_millis(125)).await;
            lab.supervise().await;
        }
        let writes = lab.effects(mark, Target::Service).len();
        assert!((2..=9).contains(&writes), "{writes} writes");
        lab.settle().await;
        lab.rest(180).await;
        assert_eq!(contested(lab, "shop/web"), None);
        assert_eq!(events(lab, "LoadBalancerContested"), 1);
        lab.assert_steady().await;
    });
}

/// What is not ours, and gets our marks again and again.
#[test]
fn marks_that_somebody_adds_to_a_foreign_service_are_not_fought_over_without_bound() {
    type Edit = fn(&mut Value);
    let edits: [(&str, Edit); 2] = [
        ("a finalizer", |service| {
            service["metadata"]["finalizers"] = json!(["ballast.dev/local"]);
        }),
        ("a condition", |service| {
            service["status"]["conditions"] = json!([{
                "type": "ballast.dev/Programmed", "status": "True", "reason": "Yes", "message": "yes",
                "lastTransitionTime": "2025-06-15T15:00:00Z",
            }]);
        }),
    ];
    for (what, edit) in edits {
        simulate(56, async |lab| {
            lab.api
                .create_service(&Svc::new("shop/vip").class("example.com/internal-vip"));
            lab.start();
            lab.led().await;
            lab.rest(12).await;
            let mark = lab.journal.mark();
            fight(lab, Kind::Service, "shop/vip", &edit).await;
            let writes = lab.effects(mark, Target::Service).len();
            assert!((2..=7).contains(&writes), "{what}: {writes} writes");
            assert!(
                lab.api.events().len() <= 2,
                "{what}: {:?}",
                lab.api.events()
            );
            lab.rest(180).await;
            let service = lab.service("shop/vip");
            assert_eq!(service["metadata"]["finalizers"], Value::Null, "{what}");
            assert!(lab.condition("shop/vip", "Programmed").is_none(), "{what}");
            lab.assert_steady().await;
        });
    }
}

/// Addresses of pools: the status is their only record.
#[test]
fn an_l2_service_keeps_its_address_in_a_contest() {
    simulate(57, async |lab| {
        lab.api.create_l2_class("lan", &json!({}));
        lab.api
            .create_pool("front", &["203.0.113.0/29"], &json!({}));
        lab.api
            .create_service(&Svc::new("shop/web").class("ballast.dev/lan"));
        lab.start();
        lab.until("it has an address", |lab| {
            !lab.addresses("shop/web").is_empty()
        })
        .await;
        lab.rest(12).await;
        let (mark, address) = (lab.journal.mark(), lab.addresses("shop/web"));
        fight(lab, Kind::Service, "shop/web", &overwrite).await;
        let writes = lab.effects(mark, Target::Service).len();
        assert!((2..=8).contains(&writes), "{writes} writes");
        lab.until("the condition goes", |lab| {
            lab.addresses("shop/web") == address && contested(lab, "shop/web").is_none()
        })
        .await;
        lab.assert_steady().await;
    });
}

/// Classes and pools have no events; they are only bounded.
#[test]
fn classes_and_pools_are_not_fought_over_without_bound() {
    type Edit = fn(&mut Value);
    let edits: [(&str, Kind, &str, Target, Edit); 4] = [
        (
            "the status of a class",
            Kind::Class,
            "local",
            Target::Class,
            |it| {
                it["status"]["loadBalancers"] = 77.into();
            },
        ),
        (
            "conditions of a class",
            Kind::Class,
            "local",
            Target::Class,
            |it| {
                it["status"]["conditions"] = json!([]);
            },
        ),
        (
            "the finalizer of a class",
            Kind::Class,
            "local",
            Target::Class,
            |it| {
                it["metadata"]["finalizers"] = json!([]);
            },
        ),
        (
            "the status of a pool",
            Kind::Pool,
            "front",
            Target::Pool,
            |it| {
                it["status"]["used"] = "77".into();
            },
        ),
    ];
    for (what, kind, key, target, edit) in edits {
        simulate(58, async |lab| {
            lab.api
                .create_pool("front", &["203.0.113.0/29"], &json!({}));
            served(lab, &Svc::new("shop/web"), "shop/web").await;
            let mark = lab.journal.mark();
            // Ten minutes, a change per second.
            for _ in 0..600 {
                lab.api.edit(kind, key, edit);
                tokio::time::sleep(Duration::from_secs(1)).await;
                lab.supervise().await;
            }
            let writes = lab.effects(mark, target).len();
            assert!((3..=14).contains(&writes), "{what}: {writes} writes");
            lab.settle().await;
            lab.rest(180).await;
            lab.assert_steady().await;
        });
    }
}

/// A contest about a class or a pool outlives the leader: its successor does not begin with free
/// writes, writes nothing because of it, and ends it.
#[test]
fn a_contest_about_a_class_or_a_pool_survives_a_restart() {
    type Edit = fn(&mut Value);
    let edits: [(&str, Kind, &str, Target, Edit); 3] = [
        ("status", Kind::Class, "local", Target::Class, |it| {
            it["status"]["loadBalancers"] = 77.into();
        }),
        ("finalizer", Kind::Class, "local", Target::Class, |it| {
            it["metadata"]["finalizers"] = json!([]);
        }),
        ("status", Kind::Pool, "front", Target::Pool, |it| {
            it["status"]["used"] = "77".into();
        }),
    ];
    for (what, kind, key, target, edit) in edits {
        simulate(61, async |lab| {
            lab.api
                .create_pool("front", &["203.0.113.0/29"], &json!({}));
            served(lab, &Svc::new("shop/web"), "shop/web").await;
            let says_so = |lab: &Lab| {
                let object = lab.api.get(kind, key).unwrap();
                let conditions = object["status"]["conditions"].as_array().cloned();
                let mut conditions = conditions.into_iter().flatten();
                conditions.any(|it| it["type"] == "Contested" && it["status"] == "True")
            };
            let fought = |lab: &Lab| {
                let object = lab.api.get(kind, key).unwrap();
                let status = &object["status"];
                [
                    object["metadata"]["finalizers"].clone(),
                    status["loadBalancers"].clone(),
                    status["used"].clone(),
                ]
            };
            let before = fought(lab);
            for _ in 0..120 {
                lab.api.edit(kind, key, edit);
                tokio::time::sleep(Duration::from_secs(1)).await;
                lab.supervise().await;
            }
            lab.until(&format!("{what} of {key}: it says so"), |lab| {
                says_so(lab) && fought(lab) == before
            })
            .await;
            lab.rest(6).await;
            let mark = lab.journal.mark();
            lab.restart().await;
            lab.led().await;
            lab.rest(12).await;
            let writes = lab.effects(mark, target);
            // After a change of leaders a pool's next address differs.
            let most = usize::from(kind == Kind::Pool);
            assert!(writes.len() <= most, "{what} of {key}: {writes:#?}");
            assert!(says_so(lab), "{what} of {key}");
            for _ in 0..60 {
                lab.api.edit(kind, key, edit);
                tokio::time::sleep(Duration::from_secs(1)).await;
                lab.supervise().await;
            }
            let writes = lab.effects(mark, target).len();
            assert!((1..=4).contains(&writes), "{what} of {key}: {writes}");
            lab.until(&format!("{what} of {key}: it ends"), |lab| {
                !says_so(lab) && fought(lab) == before
            })
            .await;
            lab.assert_steady().await;
        });
    }
}

/// A watch that is late shows our own writes late: that is nobody else.
#[test]
fn a_late_watch_is_no_contest() {
    simulate(63, async |lab| {
        served(lab, &Svc::new("shop/web"), "shop/web").await;
        lab.api.delay_watches(Kind::Class, true);
        let mark = lab.journal.mark();
        lab.api.create_service(&Svc::new("shop/more"));
        lab.rest(100).await;
        let writes = lab.effects(mark, Target::Class);
        let contested = writes.iter().any(|it| it.detail.contains("Contested"));
        assert!(!contested && writes.len() <= 5, "{writes:#?}");
        lab.api.delay_watches(Kind::Class, false);
        lab.settle().await;
        lab.assert_steady().await;
    });
}

/// The time of a condition is ours as well. While a process leads, any other time than its own
/// goes; a time of the future goes after a restart, too.
#[test]
fn a_time_of_a_condition_that_somebody_rewrites_is_restored() {
    for (kind, key, target) in [
        (Kind::Service, "shop/web", Target::Service),
        (Kind::Class, "local", Target::Class),
        (Kind::Pool, "front", Target::Pool),
    ] {
        for time in ["2099-01-01T00:00:00Z", "2001-01-01T00:00:00Z"] {
            simulate(62, async |lab| {
                lab.api
                    .create_pool("front", &["203.0.113.0/29"], &json!({}));
                served(lab, &Svc::new("shop/web"), "shop/web").await;
                let object = |lab: &Lab| {
                    let mut object = lab.api.get(kind, key).unwrap();
                    object["metadata"]["resourceVersion"] = Value::Null;
                    object
                };
                let rewrite = |lab: &Lab| {
                    lab.api.edit(kind, key, |object| {
                        object["status"]["conditions"][0]["lastTransitionTime"] = time.into();
                    });
                };
                let (before, mark) = (object(lab), lab.journal.mark());
                rewrite(lab);
                lab.rest(12).await;
                assert_eq!(object(lab), before, "{key} {time}");
                assert_eq!(lab.effects(mark, target).len(), 1, "{key} {time}");
                // A new leader does not know which time it was.
                lab.stop().await;
                let mark = lab.journal.mark();
                rewrite(lab);
                lab.start();
                lab.led().await;
                lab.rest(12).await;
                let future = usize::from(time.starts_with("2099"));
                let writes = lab.effects(mark, target).len();
                // After a change of leaders a pool's next address differs.
                let most = future.max(usize::from(kind == Kind::Pool));
                assert!((future..=most).contains(&writes), "{key} {time}: {writes}");
                let now = &object(lab)["status"]["conditions"][0]["lastTransitionTime"];
                assert_eq!(*now != time, future == 1, "{key} {time}: {now}");
            });
        }
    }
}
