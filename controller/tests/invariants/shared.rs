//! Several Services on one load balancer: they join, leave, move between share keys, are
//! deleted and vanish, with crashes. None of them harms another. The cloud reports two concurrent calls for one key, and a
//! call for a Service without a finalizer.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::api::{Kind, Port, Svc};
use crate::support::cloud::UNKNOWN;
use crate::support::lab::{Lab, crash_everywhere, simulate};

const SHARE_KEY: &str = "ballast.dev/share-key";
const A: &str = "shop/a";
const B: &str = "shop/b";
const C: &str = "shop/c";

/// A Service with its own port, on a share key or alone.
fn member(key: &str, port: u16, share_key: Option<&str>) -> Svc {
    let service = Svc::new(key).ports(&[Port(port, "TCP")]);
    match share_key {
        Some(share_key) => service.annotated(SHARE_KEY, share_key),
        None => service,
    }
}

/// Sets or removes an annotation.
fn annotate(lab: &Lab, key: &str, annotation: &str, value: Option<&str>) {
    lab.api.edit(Kind::Service, key, |service| {
        service["metadata"]["annotations"][annotation] = json!(value);
        let annotations = service["metadata"]["annotations"].as_object_mut();
        annotations
            .unwrap()
            .retain(|_, value| *value != Value::Null);
    });
}

/// The ports that a Service publishes.
fn published_ports(lab: &Lab, key: &str) -> Vec<u64> {
    let service = lab.service(key);
    let ports = service["status"]["loadBalancer"]["ingress"][0]["ports"].as_array();
    let ports = ports.into_iter().flatten();
    ports.filter_map(|port| port["port"].as_u64()).collect()
}

async fn both_share(lab: &mut Lab) {
    lab.api.create_service(&member(A, 80, Some("one")));
    lab.api.create_service(&member(B, 443, Some("one")));
    lab.start();
    lab.settle().await;
    assert_eq!(lab.addresses(A), lab.addresses(B), "one balancer");
}

#[test]
fn while_services_join_one_balancer() {
    crash_everywhere(async |lab| {
        both_share(lab).await;
        lab.api.create_service(&member(C, 53, Some("one")));
        lab.settle().await;
        assert_eq!(lab.addresses(A), lab.addresses(C));
    });
}

#[test]
fn while_a_member_is_deleted() {
    crash_everywhere(async |lab| {
        both_share(lab).await;
        let address = lab.addresses(B);
        lab.api.delete(Kind::Service, A);
        lab.gone(Kind::Service, A).await;
        lab.settle().await;
        assert_eq!(lab.addresses(B), address, "the other member stays");
    });
}

#[test]
fn while_a_member_moves_to_another_balancer_and_leaves_it() {
    crash_everywhere(async |lab| {
        both_share(lab).await;
        let address = lab.addresses(B);
        lab.api.share(A, Some("two"));
        lab.settle().await;
        lab.api.share(A, None);
        lab.settle().await;
        assert_eq!(lab.addresses(B), address, "the other member stays");
        assert_ne!(lab.addresses(A), address);
    });
}

/// Each takes the lock of the other's balancer: in the wrong order, both would wait forever.
#[test]
fn while_two_members_change_places() {
    crash_everywhere(async |lab| {
        lab.api.create_service(&member(A, 80, Some("one")));
        lab.api.create_service(&member(B, 443, Some("two")));
        lab.start();
        lab.settle().await;
        lab.api.share(A, Some("two"));
        lab.api.share(B, Some("one"));
        lab.settle().await;
    });
}

/// A user removes the finalizer and deletes one member while the other is reconciled.
#[test]
fn while_a_member_vanishes() {
    crash_everywhere(async |lab| {
        both_share(lab).await;
        lab.api.set_ports(B, &[Port(444, "TCP")]);
        lab.api.strip(A);
        lab.api.delete(Kind::Service, A);
        lab.gone(Kind::Service, A).await;
        younger_service(lab);
        lab.settle().await;
    });
}

/// If the controller was down, only the cloud knows what a Service has left. It is deleted once a younger
/// Service shows that the API server is not one of before.
fn younger_service(lab: &mut Lab) {
    lab.api.create_service(&Svc::new("elsewhere/younger"));
}

/// A cloud that lags behind shows what was deleted once more.
#[test]
fn a_member_that_reappears_is_released_from_its_balancer() {
    simulate(7, async |lab| {
        both_share(lab).await;
        let uid = lab.uid(A);
        let all = lab.cloud.balancers().into_iter();
        let (name, lb) = all.into_iter().find(|(_, lb)| lb.is_of(&uid)).unwrap();
        lab.api.delete(Kind::Service, A);
        lab.gone(Kind::Service, A).await;
        lab.settle().await;
        lab.cloud.reappear(&name, lb);
        assert!(!lab.problems().is_empty(), "it is left over");
        younger_service(lab);
        lab.settle().await;
    });
}

/// All at once, with calls that are slow enough to overlap.
#[test]
fn calls_for_one_balancer_never_meet() {
    for seed in 0..20 {
        simulate(seed, async |lab| {
            lab.cloud
                .take_time(Duration::from_millis(50), Duration::from_millis(50));
            let names: Vec<String> = (0..6).map(|n| format!("shop/m{n}")).collect();
            for (n, name) in (0_u16..).zip(&names) {
                lab.api.create_service(&member(name, 1000 + n, Some("one")));
            }
            lab.start();
            lab.settle().await;
            // Joins, edits, a move, a deletion, a change of type and a removed finalizer at one
            // moment.
            lab.api
                .create_service(&member("shop/new", 2000, Some("one")));
            lab.api.set_ports(&names[0], &[Port(3000, "TCP")]);
            lab.api.share(&names[1], Some("two"));
            lab.api.delete(Kind::Service, &names[2]);
            lab.api.set_type(&names[3], "ClusterIP", None);
            lab.api.strip(&names[4]);
            lab.api.delete(Kind::Service, &names[4]);
            lab.api.set_ports(&names[5], &[Port(3001, "TCP")]);
            lab.settle().await;
            lab.assert_steady().await;
        });
    }
}

#[test]
fn every_member_publishes_a_new_address_of_the_balancer() {
    crash_everywhere(async |lab| {
        both_share(lab).await;
        for key in [A, B] {
            lab.api.may_move(key);
        }
        lab.rest(1).await;
        lab.cloud.renumber("one", "198.51.100.200");
        lab.api.set_ports(A, &[Port(81, "TCP")]);
        lab.settle().await;
        assert_eq!(lab.addresses(A), ["198.51.100.200"]);
        assert_eq!(lab.addresses(B), ["198.51.100.200"]);
    });
}

/// The cloud refuses the balancer as long as one member asks for too much.
#[test]
fn a_member_that_the_cloud_refuses_harms_only_itself() {
    const REQUEST: &str = "ballast.dev/addresses";
    simulate(3, async |lab| {
        both_share(lab).await;
        let address = lab.addresses(A);
        lab.cloud.deny("198.51.100.77");
        annotate(lab, B, REQUEST, Some("198.51.100.77"));
        lab.until("b is refused", |lab| {
            lab.condition(B, "Programmed")
                .is_some_and(|it| it["status"] == "Unknown" && it["reason"] == "AddressInUse")
        })
        .await;
        lab.api.set_ports(A, &[Port(81, "TCP")]);
        lab.until("a goes on", |lab| published_ports(lab, A) == [81])
            .await;
        lab.api.create_service(&member(C, 53, Some("one")));
        lab.served(C).await;
        for key in [A, B, C] {
            assert_eq!(lab.addresses(key), address, "{key}");
        }
        assert_eq!(lab.cloud.of(&lab.uid(B)).len(), 1, "b keeps what it has");
        annotate(lab, B, REQUEST, None);
        lab.settle().await;
        lab.assert_steady().await;
    });
}

/// Nobody knows any more what was accepted of it. What it has stays while the other one changes.
#[test]
fn while_a_refused_member_outlives_a_restart() {
    const SETTING: &str = "service.beta.kubernetes.io/aws-load-balancer-attributes";
    for deleted in [false, true] {
        crash_everywhere(async |lab| {
            both_share(lab).await;
            let (address, uid) = (lab.addresses(B), lab.uid(B));
            let part = |lab: &Lab| lab.cloud.of(&uid).pop().map(|lb| lb.shape);
            let before = part(lab);
            annotate(lab, B, SETTING, Some(UNKNOWN));
            lab.refusal(B, "Unsupported").await;
            lab.restart().await;
            lab.api.set_ports(A, &[Port(81, "TCP")]);
            lab.until("a goes on", |lab| published_ports(lab, A) == [81])
                .await;
            lab.api.create_service(&member(C, 53, Some("one")));
            lab.served(C).await;
            assert_eq!(part(lab), before, "{}", lab.dump());
            for key in [A, B, C] {
                assert_eq!(lab.addresses(key), address, "{key}");
            }
            if deleted {
                lab.api.delete(Kind::Service, B);
                lab.gone(Kind::Service, B).await;
            } else {
                annotate(lab, B, SETTING, None);
            }
            lab.settle().await;
        });
    }
}

/// Nothing else happens to the waiting Service.
#[test]
fn a_port_that_a_member_gives_up_goes_to_who_waits_for_it() {
    simulate(4, async |lab| {
        both_share(lab).await;
        lab.api.create_service(&member(C, 80, Some("one")));
        lab.refused.insert(C.to_owned(), "PortInUse");
        lab.refusal(C, "PortInUse").await;
        lab.settle().await;
        lab.refused.clear();
        let begin = Instant::now();
        lab.api.set_ports(A, &[Port(81, "TCP")]);
        lab.settle().await;
        let took = begin.elapsed();
        assert!(took < Duration::from_secs(10), "{took:?}");
        lab.assert_steady().await;
    });
}

/// Between the cloud's two balancers, a user breaks the Service.
#[test]
fn a_refusal_during_a_move_changes_no_address() {
    const REQUEST: &str = "ballast.dev/addresses";
    simulate(5, async |lab| {
        both_share(lab).await;
        let address = lab.addresses(A);
        lab.cloud.take_time(Duration::from_mins(1), Duration::ZERO);
        lab.api.share(A, Some("two"));
        let uid = lab.uid(A);
        lab.until("a is on both", |lab| {
            let lbs = lab.cloud.of(&uid);
            lbs.len() == 2 && lbs.iter().all(|lb| lb.shape.is_some())
        })
        .await;
        annotate(lab, A, REQUEST, Some("nonsense"));
        lab.refusal(A, "Invalid").await;
        lab.rest(5).await;
        assert_eq!(lab.addresses(A), address, "{}", lab.dump());
        lab.rest(90).await;
        assert_eq!(lab.addresses(A), address, "{}", lab.dump());
        annotate(lab, A, REQUEST, None);
        lab.settle().await;
        assert_ne!(lab.addresses(A), address);
        lab.assert_steady().await;
    });
}

/// There are more members than workers.
#[test]
fn a_balancer_whose_calls_hang_takes_one_worker() {
    simulate(6, async |lab| {
        let names: Vec<String> = (0..8).map(|n| format!("shop/m{n}")).collect();
        for (n, name) in (0_u16..).zip(&names) {
            lab.api.create_service(&member(name, 1000 + n, Some("one")));
        }
        lab.start();
        lab.settle().await;
        lab.cloud.hang("one", true);
        for (n, name) in (0_u16..).zip(&names) {
            lab.api.set_ports(name, &[Port(2000 + n, "TCP")]);
        }
        lab.rest(5).await;
        let begin = Instant::now();
        lab.api.create_service(&member(A, 80, None));
        lab.served(A).await;
        let took = begin.elapsed();
        assert!(took < Duration::from_secs(5), "{took:?}");
        lab.cloud.hang("one", false);
        lab.settle().await;
        lab.assert_steady().await;
    });
}
