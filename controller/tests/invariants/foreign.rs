//! Invariants 4 and 6: objects that are not Ballast's, in the cluster and in the cloud, do not
//! change.

use std::collections::BTreeMap;

use ballast_provider::{Key, mark};
use serde_json::json;

use crate::support::api::{Kind, Svc};
use crate::support::cloud::Lb;
use crate::support::journal::Target;
use crate::support::lab::{Lab, simulate};

const FOREIGN: &str = "example.com/internal-vip";

fn condition(kind: &str) -> serde_json::Value {
    json!({"type": kind, "status": "True", "reason": "Yes", "message": "so it is", "lastTransitionTime": "2025-06-15T15:00:00Z"})
}

/// Upstream's "service status lifecycle": another controller serves the Service.
#[test]
fn invariant_4_a_service_of_a_foreign_class_is_never_written() {
    simulate(21, async |lab| {
        lab.api.edit(Kind::Class, "local", |class| {
            class["spec"]["default"] = true.into();
        });
        lab.start();
        lab.rest(5).await;
        lab.api.create_service(&Svc::new("shop/vip").class(FOREIGN));
        lab.rest(20).await;
        lab.api.edit(Kind::Service, "shop/vip", |service| {
            service["metadata"]["finalizers"] = json!(["example.com/cleanup"]);
            service["status"]["loadBalancer"] =
                json!({"ingress": [{"ip": "203.0.113.1", "ipMode": "VIP"}]});
            service["status"]["conditions"] = json!([condition("example.com/Ready")]);
        });
        lab.rest(20).await;
        lab.api.edit(Kind::Service, "shop/vip", |service| {
            service["status"] = json!({"loadBalancer": {}});
        });
        lab.rest(20).await;
        lab.api.delete(Kind::Service, "shop/vip");
        lab.rest(60).await;
        assert_eq!(lab.effects(0, Target::Service).len(), 0, "{}", lab.dump());
        assert_eq!(lab.effects(0, Target::Event).len(), 0);
        assert_eq!(
            lab.service("shop/vip")["metadata"]["finalizers"],
            json!(["example.com/cleanup"])
        );
    });
}

#[test]
fn invariant_4_other_types_and_class_less_services_without_a_default_are_not_written() {
    simulate(22, async |lab| {
        lab.api.create_service(&Svc::new("shop/none").classless());
        lab.api.create_service(
            &Svc::new("shop/internal")
                .with("type", json!("ClusterIP"))
                .classless(),
        );
        lab.start();
        lab.rest(60).await;
        assert_eq!(lab.effects(0, Target::Service).len(), 0, "{}", lab.dump());
    });
}

/// Ballast served it before, another controller does now: our finalizer and conditions are
/// removed, theirs stay.
#[test]
fn invariant_4_own_stale_marks_are_cleaned_and_nothing_else() {
    simulate(23, async |lab| {
        lab.api.create_service(&Svc::new("shop/web"));
        lab.start();
        lab.served("shop/web").await;
        lab.api.edit(Kind::Service, "shop/web", |service| {
            service["metadata"]["finalizers"]
                .as_array_mut()
                .unwrap()
                .push(json!("example.com/cleanup"));
            service["status"]["conditions"]
                .as_array_mut()
                .unwrap()
                .push(condition("example.com/Ready"));
        });
        lab.api.set_type("shop/web", "ClusterIP", None);
        lab.api.set_type("shop/web", "LoadBalancer", Some(FOREIGN));
        lab.settle().await;
        let service = lab.service("shop/web");
        assert_eq!(
            service["metadata"]["finalizers"],
            json!(["example.com/cleanup"])
        );
        assert_eq!(
            service["status"]["conditions"],
            json!([condition("example.com/Ready")])
        );
        lab.assert_steady().await;
    });
}

/// Conditions without a finalizer, for example of a refused Service.
#[test]
fn invariant_4_conditions_of_a_refused_service_go_with_its_type() {
    simulate(24, async |lab| {
        lab.api
            .create_service(&Svc::new("shop/web").class("ballast.dev/nowhere"));
        lab.start();
        lab.refusal("shop/web", "ClassNotFound").await;
        lab.api.set_type("shop/web", "ClusterIP", None);
        lab.settle().await;
        lab.assert_steady().await;
    });
}

fn planted(lab: &Lab, cluster: &str, class: &str, uid: &str) -> Lb {
    let mut tags = BTreeMap::new();
    for (key, value) in [
        (mark::CLUSTER, cluster),
        (mark::CLASS, class),
        (mark::SERVICE, "shop/web"),
        (mark::SERVICE_UID, uid),
    ] {
        tags.insert(key.to_owned(), value.to_owned());
    }
    assert_ne!((cluster, class), (lab.cloud.cluster().as_str(), "local"));
    Lb {
        key: Key::Service(uid.into()),
        tags,
        by: "somebody".to_owned(),
        addresses: vec!["203.0.113.9".parse().unwrap()],
        shape: None,
        active_at: None,
        gone_at: None,
    }
}

/// Objects of another cluster, of another class, and without an owner; some have names of
/// Services that are created and deleted.
#[test]
fn invariant_6_foreign_objects_in_the_cloud_are_not_touched() {
    simulate(25, async |lab| {
        let cluster = lab.cloud.cluster();
        let uid = lab.api.create_service(&Svc::new("shop/web"));
        let foreign = [
            (
                "other-cluster",
                planted(lab, "another-cluster", "local", "uid-x"),
            ),
            ("other-class", planted(lab, &cluster, "elsewhere", "uid-y")),
            (
                "nobody",
                Lb {
                    tags: BTreeMap::new(),
                    ..planted(lab, "", "", "")
                },
            ),
        ];
        for (name, lb) in &foreign {
            lab.cloud.plant(name, lb.clone());
        }
        lab.start();
        lab.served("shop/web").await;
        assert_eq!(lab.cloud.of(&uid).len(), 1);
        lab.restart().await;
        lab.led().await;
        lab.api.delete(Kind::Service, "shop/web");
        lab.gone(Kind::Service, "shop/web").await;
        lab.rest(60).await;
        for (name, lb) in &foreign {
            let now = &lab.cloud.balancers()[*name];
            assert_eq!((&now.tags, &now.addresses), (&lb.tags, &lb.addresses));
        }
        assert_eq!(lab.cloud.balancers().len(), foreign.len());
    });
}

/// `deletionPolicy: Retain`: the load balancer stays, is marked, and belongs to no Service any
/// more.
#[test]
fn what_is_to_be_retained_stays_in_the_cloud() {
    simulate(26, async |lab| {
        lab.api.edit(Kind::Class, "local", |class| {
            class["spec"]["deletionPolicy"] = "Retain".into();
        });
        let uid = lab.api.create_service(&Svc::new("shop/web"));
        lab.start();
        lab.served("shop/web").await;
        lab.api.delete(Kind::Service, "shop/web");
        lab.gone(Kind::Service, "shop/web").await;
        let all = lab.cloud.balancers();
        assert!(all.values().all(|lb| lb.is_of(&uid) && lb.retained()) && all.len() == 1);
        lab.assert_steady().await;
    });
}

/// What the status publishes is what the cloud reports, and nothing that somebody adds.
#[test]
fn what_somebody_adds_to_our_part_of_the_status_goes() {
    type Edit = fn(&mut serde_json::Value);
    let edits: [(&str, Edit); 4] = [
        ("a hostname", |status| {
            status["loadBalancer"]["ingress"][0]["hostname"] = json!("evil.example.com");
        }),
        ("an entry", |status| {
            let entry = json!({"hostname": "evil.example.com"});
            let ingress = status["loadBalancer"]["ingress"].as_array_mut();
            ingress.unwrap().push(entry);
        }),
        ("an error on a port", |status| {
            status["loadBalancer"]["ingress"][0]["ports"][0]["error"] = json!("example.com/Shut");
        }),
        ("a field of a condition", |status| {
            status["conditions"][0]["observedGeneration"] = json!(7);
        }),
    ];
    for (what, edit) in edits {
        simulate(25, async |lab| {
            lab.api.create_service(&Svc::new("shop/web"));
            lab.start();
            lab.served("shop/web").await;
            lab.rest(12).await;
            let before = lab.service("shop/web")["status"].clone();
            let mark = lab.journal.mark();
            lab.api.edit(Kind::Service, "shop/web", |service| {
                edit(&mut service["status"]);
            });
            lab.until(&format!("{what} is gone"), |lab| {
                let now = &lab.service("shop/web")["status"];
                let sorted = |status: &serde_json::Value| {
                    let conditions = status["conditions"].as_array().unwrap().iter();
                    let mut all: Vec<String> = conditions.map(ToString::to_string).collect();
                    all.sort();
                    all
                };
                now["loadBalancer"] == before["loadBalancer"] && sorted(now) == sorted(&before)
            })
            .await;
            assert_eq!(lab.effects(mark, Target::Service).len(), 1, "{what}");
            lab.assert_steady().await;
        });
    }
}

/// Somebody's finalizer keeps a deleted Service after its release: it claims nothing.
#[test]
fn a_released_service_that_a_foreign_finalizer_keeps_claims_nothing() {
    for class in ["local", "lan"] {
        simulate(26, async |lab| {
            lab.api.create_l2_class("lan", &json!({}));
            lab.api
                .create_pool("front", &["203.0.113.0/29"], &json!({"reuseAfter": "0s"}));
            let key = format!("ballast.dev/{class}");
            lab.api.create_service(&Svc::new("shop/web").class(&key));
            lab.start();
            lab.until("it has an address", |lab| {
                !lab.addresses("shop/web").is_empty()
            })
            .await;
            lab.settle().await;
            lab.api.edit(Kind::Service, "shop/web", |service| {
                let finalizers = &mut service["metadata"]["finalizers"];
                let mut all = finalizers.as_array().cloned().unwrap_or_default();
                all.push(json!("example.com/cleanup"));
                *finalizers = all.into();
            });
            lab.rest(12).await;
            let mark = lab.journal.mark();
            lab.api.delete(Kind::Service, "shop/web");
            lab.until(&format!("{class}: it only says who holds it"), |lab| {
                let service = lab.service("shop/web");
                let conditions = service["status"]["conditions"].as_array();
                let reasons: Vec<_> = conditions.into_iter().flatten().collect();
                lab.addresses("shop/web").is_empty()
                    && reasons.len() == 1
                    && reasons[0]["reason"] == "Released"
                    && service["metadata"]["finalizers"] == json!(["example.com/cleanup"])
            })
            .await;
            let patches = lab.effects(mark, Target::Service);
            assert_eq!(patches.len(), 1, "{class}: {patches:#?}");
            lab.assert_steady().await;
        });
    }
}
