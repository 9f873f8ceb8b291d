//! Several Services on one load balancer: they join, leave, move between share keys, are
//! deleted and vanish, with crashes. The cloud reports two concurrent calls for one key, and a
//! call for a Service without a finalizer.

use std::time::Duration;

use crate::support::api::{Kind, Port, Svc};
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
        lab.settle().await;
    });
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
