//! Services of `l2` classes: what an address costs, which Service gets it and keeps it, and
//! that no other Service has it. The API server reports a violation if an address is claimed
//! twice, or over a version that the writer has not seen.
//!
//! The allocator uses the wall clock, which does not advance here: a rest of two minutes never
//! ends, and a rest of zero ends at once.

mod announced;
mod crash;
mod edits;
mod leader;
mod takeover;

use std::collections::BTreeSet;
use std::time::Duration;

use ballast::run::Exit;
use serde_json::{Value, json};

use crate::support::api::{Kind, Port, Svc};
use crate::support::journal::{Reach, Target};
use crate::support::lab::{Lab, simulate};

const LAN: &str = "ballast.dev/lan";
const WEB: &str = "shop/web";
/// Six addresses, from .1 to .6.
const SIX: &str = "203.0.113.0/29";
/// Two addresses.
const TWO: &str = "203.0.113.1-203.0.113.2";

fn svc(key: &str) -> Svc {
    Svc::new(key).class(LAN)
}

/// The class `lan`, and the pool `front`, whose released addresses do not rest.
fn lan(lab: &Lab, addresses: &str, spec: &Value) {
    lab.api.create_l2_class("lan", &json!({}));
    let mut all = json!({"reuseAfter": "0s"});
    for (field, value) in spec.as_object().unwrap() {
        all[field] = value.clone();
    }
    lab.api.create_pool("front", &[addresses], &all);
}

/// Waits until a Service reports why its class has no address for it.
async fn waits(lab: &mut Lab, key: &str, reason: &'static str) {
    lab.denied.insert(key.to_owned(), reason);
    lab.until(&format!("{key} waits: {reason}"), |lab| {
        lab.condition(key, "Programmed")
            .is_some_and(|it| it["reason"] == reason)
    })
    .await;
}

/// Waits until a Service has an address, and returns it.
async fn given(lab: &mut Lab, key: &str) -> String {
    lab.denied.remove(key);
    lab.until(&format!("{key} has an address"), |lab| {
        lab.condition(key, "Programmed")
            .is_some_and(|it| it["reason"] == "NotAnnounced")
            && !lab.addresses(key).is_empty()
    })
    .await;
    lab.addresses(key).remove(0)
}

/// Creates them one second apart, so that their ages differ.
async fn create(lab: &mut Lab, keys: &[&str]) {
    for key in keys {
        lab.api.create_service(&svc(key));
        lab.rest(1).await;
    }
}

fn pool_says(lab: &Lab, name: &str) -> String {
    let pool = lab.api.get(Kind::Pool, name).unwrap_or_default();
    let all = pool["status"]["conditions"].as_array().cloned();
    let accepted = all
        .into_iter()
        .flatten()
        .find(|it| it["type"] == "Accepted");
    accepted.map_or(String::new(), |it| {
        it["reason"].as_str().unwrap().to_owned()
    })
}

async fn pool_is(lab: &mut Lab, name: &str, reason: &str) {
    lab.until(&format!("pool {name} is {reason}"), |lab| {
        pool_says(lab, name) == reason
    })
    .await;
}

#[test]
fn a_fresh_service_costs_one_patch_no_finalizer_and_no_event() {
    simulate(71, async |lab| {
        lan(lab, "203.0.113.0/24", &json!({}));
        lab.start();
        lab.led().await;
        for number in 0..50 {
            lab.api.create_service(&svc(&format!("shop/web-{number}")));
        }
        lab.settle().await;
        let patches = lab.effects(0, Target::Service);
        assert_eq!(patches.len(), 50, "{}", lab.dump());
        for patch in &patches {
            let body: Value = serde_json::from_str(&patch.detail).unwrap();
            assert!(body["metadata"]["resourceVersion"].is_string(), "{body}");
            assert!(body["metadata"]["finalizers"].is_null(), "{body}");
            assert_eq!(body["status"]["conditions"].as_array().unwrap().len(), 3);
            assert_eq!(
                body["status"]["loadBalancer"]["ingress"][0]["ipMode"],
                "VIP"
            );
        }
        let all: BTreeSet<_> = (0..50)
            .map(|n| lab.addresses(&format!("shop/web-{n}")))
            .collect();
        assert_eq!(all.len(), 50, "one each: {all:?}");
        lab.assert_steady().await;
        assert_eq!(lab.effects(0, Target::Event).len(), 0, "{}", lab.dump());
        let class = lab.api.get(Kind::Class, "lan").unwrap()["status"].to_string();
        assert!(class.contains("Used by shop/web-0, "), "{class}");
        assert!(class.contains("\"loadBalancers\":50"), "{class}");
    });
}

#[test]
fn a_pool_counts_within_seconds() {
    simulate(70, async |lab| {
        lan(lab, SIX, &json!({}));
        lab.start();
        lab.led().await;
        for number in 1..=4 {
            let key = format!("shop/web-{number}");
            lab.api.create_service(&svc(&key));
            given(lab, &key).await;
            // A status is written at most once in 5 s.
            lab.rest(7).await;
            let pool = lab.api.get(Kind::Pool, "front").unwrap();
            assert_eq!(pool["status"]["used"], number.to_string(), "{}", lab.dump());
        }
    });
}

#[test]
fn a_service_without_a_class_carries_both_finalizers_and_is_released() {
    simulate(72, async |lab| {
        lan(lab, "203.0.113.1", &json!({}));
        lab.api.edit(Kind::Class, "lan", |class| {
            class["spec"]["default"] = true.into();
        });
        lab.api.create_service(&Svc::new(WEB).classless());
        lab.start();
        let address = given(lab, WEB).await;
        lab.settle().await;
        let mut held = crate::support::api::texts(&lab.service(WEB)["metadata"]["finalizers"]);
        held.sort();
        assert_eq!(held, [LAN, "service.kubernetes.io/load-balancer-cleanup"]);
        lab.assert_steady().await;
        let mark = lab.journal.mark();
        lab.api.delete(Kind::Service, WEB);
        lab.gone(Kind::Service, WEB).await;
        assert_eq!(
            lab.effects(mark, Target::Service).len(),
            1,
            "{}",
            lab.dump()
        );
        lab.api.create_service(&svc("shop/next"));
        assert_eq!(given(lab, "shop/next").await, address);
    });
}

#[test]
fn what_becomes_free_goes_to_the_oldest_who_waits_and_touches_nobody_else() {
    simulate(73, async |lab| {
        lan(lab, TWO, &json!({}));
        let keys = ["shop/a", "shop/b", "shop/c", "shop/d", "shop/e"];
        create(lab, &keys).await;
        lab.start();
        let first = given(lab, "shop/a").await;
        for key in &keys[2..] {
            waits(lab, key, "NoAddressAvailable").await;
        }
        lab.settle().await;
        lab.assert_steady().await;
        let mark = lab.journal.mark();
        lab.api.delete(Kind::Service, "shop/a");
        assert_eq!(given(lab, "shop/c").await, first);
        lab.settle().await;
        lab.rest(60).await;
        let patches = lab.effects(mark, Target::Service);
        let touched: Vec<&str> = patches.iter().map(|it| it.subject.as_str()).collect();
        assert_eq!(touched, ["shop/c"], "{}", lab.dump());
        lab.assert_steady().await;
    });
}

#[test]
fn a_service_keeps_the_address_of_a_deleted_pool_until_another_takes_it_in() {
    simulate(74, async |lab| {
        lan(lab, SIX, &json!({}));
        lab.api.create_service(&svc(WEB));
        lab.start();
        let address = given(lab, WEB).await;
        lab.api.delete(Kind::Pool, "front");
        lab.refusal(WEB, "AddressOutsidePool").await;
        lab.restart().await;
        lab.led().await;
        lab.rest(20).await;
        assert_eq!(lab.addresses(WEB), [address.as_str()]);
        lab.refusal(WEB, "AddressOutsidePool").await;
        lab.api
            .create_pool("back", &["198.18.0.0/28"], &json!({"reallocate": true}));
        lab.until("it has moved", |lab| {
            lab.addresses(WEB)
                .first()
                .is_some_and(|it| it.starts_with("198.18."))
        })
        .await;
        lab.settle().await;
        lab.assert_steady().await;
    });
}

#[test]
fn of_two_pools_that_overlap_only_the_newer_stops() {
    simulate(75, async |lab| {
        lan(lab, SIX, &json!({}));
        lab.rest(2).await;
        lab.api
            .create_pool("newer", &["203.0.113.4-203.0.113.20"], &json!({}));
        lab.api
            .create_pool("apart", &["198.18.0.0/28"], &json!({"autoAssign": false}));
        let in_pool = |key: &str, pool: &str| svc(key).annotated("ballast.dev/address-pool", pool);
        lab.api.create_service(&svc(WEB));
        lab.api.create_service(&in_pool("shop/newer", "newer"));
        lab.api.create_service(&in_pool("shop/apart", "apart"));
        lab.start();
        for (name, reason) in [
            ("front", "Accepted"),
            ("newer", "Conflict"),
            ("apart", "Accepted"),
        ] {
            pool_is(lab, name, reason).await;
        }
        waits(lab, "shop/newer", "PoolConflict").await;
        assert!(given(lab, WEB).await.starts_with("203.0.113."));
        assert!(given(lab, "shop/apart").await.starts_with("198.18."));
        lab.settle().await;
        lab.assert_steady().await;
        lab.api.edit(Kind::Pool, "front", |pool| {
            pool["spec"]["addresses"] = json!(["203.0.113.0-203.0.113.3"]);
        });
        pool_is(lab, "newer", "Accepted").await;
        given(lab, "shop/newer").await;
        lab.settle().await;
    });
}

#[test]
fn the_address_of_a_service_that_becomes_a_cluster_ip_rests() {
    simulate(76, async |lab| {
        lan(lab, SIX, &json!({"reuseAfter": "2m"}));
        lab.api.create_service(&svc(WEB));
        lab.start();
        let address = given(lab, WEB).await;
        lab.settle().await;
        lab.api.set_type(WEB, "ClusterIP", None);
        lab.settle().await;
        for key in ["shop/a", "shop/b", "shop/c", "shop/d", "shop/e"] {
            lab.api.create_service(&svc(key));
            assert_ne!(given(lab, key).await, address);
        }
        lab.api.create_service(&svc("shop/f"));
        waits(lab, "shop/f", "NoAddressAvailable").await;
        lab.settle().await;
    });
}

#[test]
fn a_service_that_became_a_cluster_ip_while_nobody_watched_loses_our_conditions() {
    simulate(77, async |lab| {
        lan(lab, SIX, &json!({}));
        create(lab, &[WEB, "shop/other"]).await;
        lab.start();
        given(lab, WEB).await;
        let other = given(lab, "shop/other").await;
        lab.settle().await;
        lab.stop().await;
        lab.api.set_type(WEB, "ClusterIP", None);
        lab.start();
        lab.settle().await;
        assert!(lab.condition(WEB, "Accepted").is_none());
        assert_eq!(lab.addresses("shop/other"), [other]);
        lab.api.set_type(WEB, "LoadBalancer", Some(LAN));
        given(lab, WEB).await;
        lab.assert_steady().await;
    });
}

#[test]
fn of_two_services_that_publish_one_address_the_older_keeps_it() {
    simulate(78, async |lab| {
        lan(lab, SIX, &json!({}));
        create(lab, &["shop/z-older", "shop/a-younger"]).await;
        for key in ["shop/z-older", "shop/a-younger"] {
            lab.api.edit(Kind::Service, key, |service| {
                service["status"]["loadBalancer"] = json!({"ingress": [{
                    "ip": "203.0.113.3", "ipMode": "VIP", "ports": [{"port": 80, "protocol": "TCP"}]}]});
            });
        }
        lab.start();
        lab.until("the younger has moved", |lab| {
            lab.addresses("shop/a-younger") != ["203.0.113.3"]
        })
        .await;
        lab.settle().await;
        assert_eq!(lab.addresses("shop/z-older"), ["203.0.113.3"]);
        let told = |key: &str, other: &str| {
            let effects = lab.effects(0, Target::Service).into_iter();
            let words = format!("Service {other}");
            effects
                .filter(|it| it.subject == key && it.detail.contains("203.0.113.3"))
                .any(|it| it.detail.contains(&words))
        };
        assert!(told("shop/a-younger", "shop/z-older"), "{}", lab.dump());
        assert!(told("shop/z-older", "shop/a-younger"), "{}", lab.dump());
        lab.assert_steady().await;
    });
}

/// Before the controller starts, and while it runs.
#[test]
fn an_address_that_somebody_elses_service_publishes_is_not_free() {
    simulate(79, async |lab| {
        let publish = |lab: &Lab, key: &str, ip: &str| {
            lab.api
                .create_service(&Svc::new(key).class("example.com/vip"));
            lab.api.edit(Kind::Service, key, |service| {
                service["status"]["loadBalancer"] = json!({"ingress": [{"ip": ip}]});
            });
        };
        lan(lab, "203.0.113.1-203.0.113.3", &json!({}));
        publish(lab, "shop/early", "203.0.113.1");
        lab.start();
        lab.led().await;
        publish(lab, "shop/late", "203.0.113.2");
        lab.rest(5).await;
        lab.api.create_service(&svc(WEB));
        assert_eq!(given(lab, WEB).await, "203.0.113.3");
        lab.api.create_service(&svc("shop/next"));
        waits(lab, "shop/next", "NoAddressAvailable").await;
        lab.settle().await;
        lab.api.delete(Kind::Service, "shop/late");
        assert_eq!(given(lab, "shop/next").await, "203.0.113.2");
        let written = lab.effects(0, Target::Service).into_iter();
        assert!(
            written
                .into_iter()
                .all(|it| !["shop/early", "shop/late"].contains(&it.subject.as_str())),
            "{}",
            lab.dump()
        );
    });
}

#[test]
fn a_pool_for_some_namespaces_follows_their_labels() {
    simulate(80, async |lab| {
        lan(
            lab,
            SIX,
            &json!({"namespaceSelector": {"matchLabels": {"team": "shop"}}}),
        );
        lab.api.create_service(&svc(WEB));
        lab.start();
        waits(lab, WEB, "NoPool").await;
        lab.settle().await;
        let label = |lab: &Lab, value: &str| {
            lab.api.edit(Kind::Namespace, "shop", |namespace| {
                namespace["metadata"]["labels"] = json!({"team": value});
            })
        };
        label(lab, "shop");
        let address = given(lab, WEB).await;
        lab.settle().await;
        // An address in use is not withdrawn silently.
        label(lab, "other");
        lab.refusal(WEB, "AddressOutsidePool").await;
        assert_eq!(lab.addresses(WEB), [address.as_str()]);
        label(lab, "shop");
        lab.settle().await;
        assert_eq!(lab.addresses(WEB), [address.as_str()]);
        lab.assert_steady().await;
    });
}

#[test]
fn invariant_8_an_invalid_pool_harms_only_itself() {
    simulate(81, async |lab| {
        lan(lab, SIX, &json!({}));
        lab.api.create_pool("words", &["anything"], &json!({}));
        lab.api.create_pool("broken", &[], &json!({"addresses": 7}));
        let in_pool = svc("shop/words").annotated("ballast.dev/address-pool", "words");
        lab.api.create_service(&in_pool);
        lab.api.create_service(&svc(WEB));
        lab.start();
        given(lab, WEB).await;
        waits(lab, "shop/words", "PoolNotFound").await;
        pool_is(lab, "words", "Invalid").await;
        pool_is(lab, "broken", "Invalid").await;
        pool_is(lab, "front", "Accepted").await;
        lab.settle().await;
        lab.assert_steady().await;
        lab.api.edit(Kind::Pool, "words", |pool| {
            pool["spec"]["addresses"] = json!(["198.18.0.1"]);
        });
        assert_eq!(given(lab, "shop/words").await, "198.18.0.1");
        lab.settle().await;
    });
}

/// Two leaders overlap for as long as the election allows; the server checks every claim.
#[test]
fn invariant_7_no_address_is_published_twice_when_leaders_change() {
    for reach in [Reach::CloudOnly, Reach::NoLease] {
        simulate(82, async |lab| {
            lan(lab, "203.0.113.0/25", &json!({}));
            lab.start();
            lab.led().await;
            lab.start();
            create(lab, &[WEB]).await;
            given(lab, WEB).await;
            lab.may_end(0);
            lab.instances[0].link.set(reach);
            for round in 0..200_u16 {
                lab.api.create_service(&svc(&format!("shop/new-{round}")));
                if round % 2 == 1 {
                    lab.api
                        .delete(Kind::Service, &format!("shop/new-{}", round - 1));
                }
                tokio::time::sleep(Duration::from_millis(150)).await;
            }
            lab.until("the old leader exits", |lab| {
                lab.instances[0].task.is_finished()
            })
            .await;
            let old = lab.instances.remove(0);
            assert_eq!(old.task.await.unwrap().unwrap(), Exit::LeaseLost);
            lab.settle().await;
            lab.assert_steady().await;
        });
    }
}

/// A write over a version that this process has not seen changes nothing.
#[test]
fn a_claim_over_a_version_that_has_passed_is_made_again_over_the_new_one() {
    simulate(83, async |lab| {
        lan(lab, SIX, &json!({}));
        lab.start();
        lab.led().await;
        lab.api.freeze_watches(true);
        lab.api.create_service(&svc(WEB));
        lab.api.freeze_watches(false);
        for port in 1..60 {
            lab.api.set_ports(WEB, &[Port(1000 + port, "TCP")]);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        lab.settle().await;
        lab.assert_steady().await;
    });
}

/// The status is changed before the provider releases. A retry of the second step is not
/// another release.
#[test]
fn a_release_that_is_tried_again_is_told_once() {
    simulate(47, async |lab| {
        lan(lab, "203.0.113.0/29", &json!({}));
        lab.api.create_service(&svc("shop/web"));
        lab.start();
        given(lab, "shop/web").await;
        lab.settle().await;
        let error = ballast_provider::ProviderError::transient("not now");
        lab.cloud
            .fail(crate::support::cloud::Call::Release, &error, 4);
        lab.api.set_type("shop/web", "ClusterIP", None);
        lab.until("it is released", |lab| lab.cloud.faults_left() == 0)
            .await;
        lab.settle().await;
        lab.rest(60).await;
        let events = lab.api.events().into_iter();
        let deleted = events.filter(|event| event.starts_with("DeletedLoadBalancer"));
        assert_eq!(deleted.count(), 1, "{:?}", lab.api.events());
        lab.assert_steady().await;
    });
}
