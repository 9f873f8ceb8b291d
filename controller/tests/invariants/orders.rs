//! Invariants 1 and 2: the order of effects, and the status in the meantime. (Every other test
//! checks them as well: the cloud checks for the finalizer before each call; the API server
//! checks that the load balancer is gone before a finalizer is removed, and that the address
//! stays when a status is replaced.)

use std::time::Duration;

use ballast_provider::{ProviderError, Reason, Refusal};
use serde_json::json;

use crate::support::api::{Kind, Port, Svc};
use crate::support::cloud::Call;
use crate::support::journal::{Effect, Target};
use crate::support::lab::{Lab, simulate};

const WEB: &str = "shop/web";

async fn serve(lab: &mut Lab) {
    lab.api.create_service(&Svc::new(WEB));
    lab.start();
    lab.served(WEB).await;
}

/// The position of the first such effect.
fn position(effects: &[Effect], target: Target, detail: &str) -> usize {
    let found = effects
        .iter()
        .position(|it| it.target == target && (it.verb == detail || it.detail.contains(detail)));
    found.unwrap_or_else(|| panic!("no {detail} in {effects:#?}"))
}

#[test]
fn invariant_1_the_finalizer_is_on_first_and_off_last() {
    simulate(1, async |lab| {
        lab.cloud
            .take_time(Duration::from_secs(7), Duration::from_secs(7));
        serve(lab).await;
        let effects = lab.journal.since(0);
        let on = position(
            &effects,
            Target::Service,
            "\"finalizers\":[\"ballast.dev/local\"]",
        );
        let class = position(&effects, Target::Class, "ballast.dev/in-use");
        let create = position(&effects, Target::Cloud, "create");
        assert!(class < on && on < create, "{effects:#?}");

        lab.api.delete(Kind::Service, WEB);
        lab.gone(Kind::Service, WEB).await;
        let effects = lab.journal.since(0);
        let off = position(&effects, Target::Service, "$deleteFromPrimitiveList");
        let gone = position(&effects, Target::Cloud, "delete");
        assert!(gone < off, "{effects:#?}");
        assert_eq!(
            off,
            effects
                .iter()
                .rposition(|it| it.target == Target::Service)
                .unwrap()
        );
    });
}

#[test]
fn invariant_1_a_release_that_fails_keeps_the_finalizer() {
    simulate(2, async |lab| {
        serve(lab).await;
        lab.cloud.fail(
            Call::Release,
            &ProviderError::transient("the cloud is down"),
            4,
        );
        lab.api.delete(Kind::Service, WEB);
        lab.until("the release fails", |lab| lab.cloud.faults_left() < 2)
            .await;
        assert_eq!(
            lab.service(WEB)["metadata"]["finalizers"],
            json!(["ballast.dev/local"])
        );
        let why = lab.condition(WEB, "Programmed").unwrap();
        assert_eq!(
            (&why["status"], &why["reason"]),
            (&json!("Unknown"), &json!("CloudError"))
        );
        lab.gone(Kind::Service, WEB).await;
        lab.settle().await;
    });
}

#[test]
fn invariant_1_a_service_without_a_class_gets_and_loses_both_finalizers_at_once() {
    simulate(3, async |lab| {
        lab.api.edit(Kind::Class, "local", |class| {
            class["spec"]["default"] = true.into();
        });
        lab.api.create_service(&Svc::new(WEB).classless());
        lab.start();
        lab.served(WEB).await;
        let both = json!([
            "ballast.dev/local",
            "service.kubernetes.io/load-balancer-cleanup"
        ]);
        assert_eq!(lab.service(WEB)["metadata"]["finalizers"], both);
        lab.api.set_type(WEB, "NodePort", None);
        lab.settle().await;
        assert!(lab.service(WEB)["metadata"].get("finalizers").is_none());
        assert_eq!(lab.effects(0, Target::Service).len(), 3, "{}", lab.dump());
    });
}

#[test]
fn invariant_2_errors_never_clear_the_status() {
    let errors = [
        ProviderError::transient("the cloud is down"),
        ProviderError::Throttled {
            retry_after: Duration::from_secs(3),
        },
        Refusal::new(Reason::QuotaExceeded, "no more of these").into(),
    ];
    for error in errors {
        simulate(4, async |lab| {
            serve(lab).await;
            let address = lab.addresses(WEB);
            let published = lab.service(WEB)["status"]["loadBalancer"].clone();
            lab.cloud.fail(Call::Ensure, &error, 3);
            lab.api.set_ports(WEB, &[Port(80, "TCP"), Port(81, "TCP")]);
            lab.until("the error is told", |lab| {
                lab.condition(WEB, "Programmed").unwrap()["status"] == "Unknown"
            })
            .await;
            assert_eq!(lab.service(WEB)["status"]["loadBalancer"], published);
            lab.cloud.heal();
            // A refusal waits for a change.
            lab.api.set_ports(WEB, &[Port(81, "TCP")]);
            lab.settle().await;
            assert_eq!(lab.addresses(WEB), address);
        });
    }
}

#[test]
fn invariant_2_the_address_stays_over_edits_of_ports_nodes_and_policy() {
    simulate(5, async |lab| {
        serve(lab).await;
        let address = lab.addresses(WEB);
        let edits: [(&str, serde_json::Value); 4] = [
            ("externalTrafficPolicy", json!("Local")),
            ("sessionAffinity", json!("ClientIP")),
            ("loadBalancerSourceRanges", json!(["192.0.2.0/24"])),
            ("externalTrafficPolicy", json!("Cluster")),
        ];
        for (field, value) in edits {
            lab.api
                .edit(Kind::Service, WEB, |service| service["spec"][field] = value);
            lab.settle().await;
            assert_eq!(lab.addresses(WEB), address);
        }
        lab.api
            .set_ports(WEB, &[Port(443, "TCP"), Port(443, "UDP")]);
        lab.api.create_node("node-3", "192.0.2.3");
        lab.settle().await;
        for node in ["node-1", "node-2", "node-3"] {
            lab.api.delete(Kind::Node, node);
        }
        lab.until("no targets are told", |lab| {
            lab.condition(WEB, "Programmed").unwrap()["reason"] == "NoEligibleNodes"
        })
        .await;
        lab.api.create_node("node-4", "192.0.2.4");
        lab.settle().await;
        assert_eq!(lab.addresses(WEB), address);
    });
}

/// A Service that is edited into an invalid one keeps its load balancer.
#[test]
fn invariant_2_a_refused_edit_changes_only_the_condition() {
    simulate(6, async |lab| {
        serve(lab).await;
        let before = (lab.addresses(WEB), lab.cloud.balancers().len());
        lab.api.edit(Kind::Service, WEB, |service| {
            service["spec"]["loadBalancerSourceRanges"] = json!(["not a range"]);
        });
        lab.refusal(WEB, "Invalid").await;
        lab.rest(60).await;
        assert_eq!((lab.addresses(WEB), lab.cloud.balancers().len()), before);
        // The ranges that it had are unknown now, so they cannot be restored.
        assert_eq!(
            lab.condition(WEB, "Programmed").unwrap()["status"],
            "Unknown"
        );
        lab.api.create_node("node-3", "192.0.2.3");
        lab.until("its targets are still kept", |lab| {
            lab.cloud.targets("local").unwrap().len() == 3
        })
        .await;
        lab.api.edit(Kind::Service, WEB, |service| {
            service["spec"]["loadBalancerSourceRanges"] = json!([]);
        });
        lab.settle().await;
    });
}

/// The accepted settings continue to be served, and the Service reports their state.
#[test]
fn invariant_2_a_refused_service_still_says_how_its_load_balancer_is() {
    simulate(9, async |lab| {
        lab.cloud.take_time(Duration::from_secs(7), Duration::ZERO);
        lab.api.create_service(&Svc::new(WEB));
        lab.start();
        lab.until("its address is known", |lab| !lab.addresses(WEB).is_empty())
            .await;
        let address = lab.addresses(WEB);
        lab.api
            .set_ports(WEB, &[Port(80, "TCP"), Port(5060, "SCTP")]);
        lab.refusal(WEB, "Unsupported").await;
        let programmed = |lab: &Lab| lab.condition(WEB, "Programmed").unwrap();
        assert_eq!(programmed(lab)["reason"], "Provisioning");
        lab.until("it is made", |lab| programmed(lab)["status"] == "True")
            .await;

        lab.api.edit(Kind::Service, WEB, |service| {
            service["metadata"]["annotations"] = json!({"ballast.dev/addresses": "garbage"});
        });
        lab.refusal(WEB, "Unsupported").await;
        lab.cloud.vandalise(&lab.uid(WEB));
        lab.until("it is there again", |lab| {
            lab.cloud.ours().len() == 1 && programmed(lab)["status"] == "True"
        })
        .await;
        for node in ["node-1", "node-2"] {
            lab.api.delete(Kind::Node, node);
        }
        lab.until("nobody carries its traffic", |lab| {
            programmed(lab)["reason"] == "NoEligibleNodes"
        })
        .await;
        assert_eq!(lab.addresses(WEB), address);
        assert_eq!(
            lab.condition(WEB, "Accepted").unwrap()["reason"],
            "Unsupported"
        );
    });
}

/// Drift: a load balancer that someone deletes in the cloud is created again, with the same
/// address.
#[test]
fn invariant_2_what_vanishes_in_the_cloud_comes_back_with_its_address() {
    simulate(7, async |lab| {
        serve(lab).await;
        let address = lab.addresses(WEB);
        lab.cloud.vandalise(&lab.uid(WEB));
        lab.settle().await;
        assert_eq!(lab.addresses(WEB), address);
        // Its people hear of it.
        lab.until("it is told", |lab| {
            lab.api
                .events()
                .contains(&"LoadBalancerChanged shop/web".to_owned())
        })
        .await;
    });
}

/// A status that a user cleared is published again.
#[test]
fn invariant_2_a_status_wiped_by_hand_comes_back() {
    simulate(8, async |lab| {
        serve(lab).await;
        let address = lab.addresses(WEB);
        lab.api.edit(Kind::Service, WEB, |service| {
            service["status"] = json!({"loadBalancer": {}});
        });
        lab.settle().await;
        assert_eq!(lab.addresses(WEB), address);
    });
}

/// One `kubectl apply` creates a class and its Services, and the watch of Services is first.
#[test]
fn a_class_that_arrives_after_its_service_costs_no_refusal() {
    simulate(6, async |lab| {
        lab.start();
        lab.led().await;
        lab.rest(5).await;
        let mark = lab.journal.mark();
        lab.api.delay_watches(Kind::Class, true);
        lab.api.create_class("late", &json!({}));
        lab.api
            .create_service(&Svc::new(WEB).class("ballast.dev/late"));
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        assert_eq!(
            lab.effects(mark, Target::Service).len(),
            0,
            "{}",
            lab.dump()
        );
        lab.api.delay_watches(Kind::Class, false);
        lab.served(WEB).await;
        lab.until("the event is sent", |lab| !lab.api.events().is_empty())
            .await;
        assert_eq!(
            lab.effects(mark, Target::Service).len(),
            2,
            "{}",
            lab.dump()
        );
        assert_eq!(lab.api.events(), ["EnsuredLoadBalancer shop/web"]);
        lab.assert_steady().await;
    });
}

/// The same for a pool. The Service is woken when the pool arrives.
#[test]
fn a_pool_that_arrives_after_its_service_costs_no_refusal() {
    simulate(8, async |lab| {
        lab.api.create_l2_class("lan", &json!({}));
        lab.start();
        lab.led().await;
        lab.rest(5).await;
        for (n, request) in [None, Some(("ballast.dev/address-pool", "p1"))]
            .iter()
            .enumerate()
        {
            let (key, mark) = (format!("shop/s{n}"), lab.journal.mark());
            let service = Svc::new(&key).class("ballast.dev/lan");
            lab.api.create_service(&match request {
                None => service,
                Some((key, value)) => service.annotated(key, value),
            });
            tokio::time::sleep(Duration::from_millis(1_500)).await;
            let early = lab.effects(mark, Target::Service);
            assert!(early.is_empty(), "{early:#?}\n{}", lab.dump());
            let range = format!("203.0.113.{n}");
            let spec = json!({"edges": "Use", "autoAssign": n == 0});
            lab.api.create_pool(&format!("p{n}"), &[&range], &spec);
            lab.settle().await;
            let all = lab.effects(mark, Target::Service);
            assert_eq!(all.len(), 1, "{all:#?}");
        }
        assert_eq!(lab.api.events(), [""; 0]);
        lab.assert_steady().await;
    });
}

/// What a Service refers to, with the object that is missing at first, and the edit that brings
/// it.
struct Late {
    what: &'static str,
    before: fn(&Lab),
    arrive: fn(&Lab),
}

fn label_namespace(lab: &Lab) {
    lab.api.edit(Kind::Namespace, "shop", |namespace| {
        namespace["metadata"]["labels"] = json!({"tier": "front"});
    });
}

/// Everything that lets a pool serve a Service can arrive after the request for the pool: the
/// pool, its settings, and the labels of the namespace. The Service is new, or it is served and
/// edited.
#[test]
fn what_a_pool_needs_may_arrive_after_the_request_for_it() {
    const REQUEST: &str = "ballast.dev/address-pool";
    let all = [
        Late {
            what: "the pool",
            before: |_| {},
            arrive: |lab| {
                let spec = json!({"edges": "Use"});
                lab.api.create_pool("late", &["203.0.113.9"], &spec);
            },
        },
        Late {
            what: "the labels of the namespace",
            before: |lab| {
                let mut spec = json!({"namespaceSelector": {"matchLabels": {"tier": "front"}}});
                spec["edges"] = "Use".into();
                lab.api.create_pool("late", &["203.0.113.9"], &spec);
            },
            arrive: label_namespace,
        },
        Late {
            what: "the selector of the pool",
            before: |lab| {
                let mut spec = json!({"serviceSelector": {"matchLabels": {"a": "b"}}});
                spec["edges"] = "Use".into();
                lab.api.create_pool("late", &["203.0.113.9"], &spec);
            },
            arrive: |lab| {
                lab.api.edit(Kind::Pool, "late", |pool| {
                    pool["spec"]["serviceSelector"] = serde_json::Value::Null;
                });
            },
        },
    ];
    for (late, served) in all.iter().flat_map(|late| [(late, false), (late, true)]) {
        for arrives_first in [true, false] {
            simulate(10, async |lab| {
                let case = format!("{}, served: {served}, first: {arrives_first}", late.what);
                lab.api.create_l2_class("lan", &json!({}));
                lab.api.create_pool(
                    "old",
                    &["203.0.113.1"],
                    &json!({"edges": "Use", "reallocate": true}),
                );
                (late.before)(lab);
                lab.start();
                lab.led().await;
                let service = Svc::new(WEB).class("ballast.dev/lan");
                if served {
                    lab.api.create_service(&service);
                    lab.settle().await;
                    lab.api.may_move(WEB);
                }
                lab.rest(12).await;
                let mark = lab.journal.mark();
                if arrives_first {
                    (late.arrive)(lab);
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
                if served {
                    lab.api.edit(Kind::Service, WEB, |service| {
                        service["metadata"]["annotations"][REQUEST] = "late".into();
                    });
                } else {
                    lab.api.create_service(&service.annotated(REQUEST, "late"));
                }
                if !arrives_first {
                    tokio::time::sleep(Duration::from_millis(1_500)).await;
                    let early = lab.effects(mark, Target::Service);
                    assert!(early.is_empty(), "{case}: {early:#?}");
                    (late.arrive)(lab);
                }
                lab.until(&format!("{case}: it has the address"), |lab| {
                    lab.addresses(WEB) == ["203.0.113.9"]
                })
                .await;
                lab.settle().await;
                lab.rest(12).await;
                let all = lab.effects(mark, Target::Service);
                assert_eq!(all.len(), 1, "{case}: {all:#?}");
                let events = lab.api.events();
                assert!(
                    !events.iter().any(|it| it.contains("Failed")),
                    "{case}: {events:?}"
                );
                lab.assert_steady().await;
            });
        }
    }
}

/// A pool that does not arrive is reported once, soon.
#[test]
fn a_pool_that_does_not_arrive_is_reported_within_seconds() {
    simulate(9, async |lab| {
        lab.api.create_l2_class("lan", &json!({}));
        lab.start();
        lab.led().await;
        let begin = tokio::time::Instant::now();
        lab.api
            .create_service(&Svc::new(WEB).class("ballast.dev/lan"));
        lab.denied.insert(WEB.to_owned(), "NoPool");
        lab.settle().await;
        let took = begin.elapsed();
        assert!(took < Duration::from_secs(6), "{took:?}");
        lab.assert_steady().await;
    });
}

/// A class that does not arrive is reported once, soon.
#[test]
fn a_class_that_does_not_arrive_is_reported_within_seconds() {
    simulate(7, async |lab| {
        lab.start();
        lab.led().await;
        let begin = tokio::time::Instant::now();
        lab.api
            .create_service(&Svc::new(WEB).class("ballast.dev/nowhere"));
        lab.refused.insert(WEB.to_owned(), "ClassNotFound");
        lab.refusal(WEB, "ClassNotFound").await;
        let took = begin.elapsed();
        assert!(took < Duration::from_secs(4), "{took:?}");
        lab.assert_steady().await;
    });
}
