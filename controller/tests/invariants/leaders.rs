//! Invariant 7: only the leader writes; a process that loses its Lease exits.

use std::time::Duration;

use ballast::run::Exit;
use serde_json::json;

use crate::support::api::{Kind, Port, Svc};
use crate::support::journal::{Reach, Target};
use crate::support::lab::{Lab, simulate};

const WEB: &str = "shop/web";

/// The effects of an instance, without the election, as times.
fn times(lab: &Lab, by: &str) -> Vec<Duration> {
    let effects = lab.journal.since(0).into_iter();
    effects
        .filter(|effect| effect.by == by)
        .map(|effect| effect.at)
        .collect()
}

async fn two(lab: &mut Lab) {
    lab.start();
    lab.led().await;
    lab.start();
    for number in 0..10 {
        lab.api
            .create_service(&Svc::new(&format!("shop/web-{number}")));
    }
    lab.settle().await;
}

async fn exits(lab: &mut Lab) {
    lab.until("the old leader exits", |lab| {
        lab.instances[0].task.is_finished()
    })
    .await;
    let old = lab.instances.remove(0);
    assert_eq!(old.task.await.unwrap().unwrap(), Exit::LeaseLost);
}

#[test]
fn invariant_7_a_follower_writes_nothing() {
    simulate(31, async |lab| {
        two(lab).await;
        lab.rest(60).await;
        assert!(times(lab, "c2").is_empty(), "{}", lab.dump());
    });
}

#[test]
fn invariant_7_a_leader_that_is_cut_off_exits_before_another_writes() {
    for reach in [Reach::CloudOnly, Reach::NoLease] {
        simulate(32, async |lab| {
            two(lab).await;
            lab.may_end(0);
            let cut = lab.journal.age();
            lab.instances[0].link.set(reach);
            // Work for both at all times.
            for round in 0..120 {
                lab.api.set_ports(
                    &format!("shop/web-{}", round % 10),
                    &[Port(1000 + round, "TCP")],
                );
                lab.api
                    .create_service(&Svc::new(&format!("shop/new-{round}")));
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
            exits(lab).await;
            lab.settle().await;
            let (old, new) = (times(lab, "c1"), times(lab, "c2"));
            let (last, first) = (*old.last().unwrap(), new[0]);
            assert!(
                last < first,
                "the old one at {last:?}, the new one from {first:?} on"
            );
            assert!(
                last <= cut + Duration::from_secs(10),
                "{last:?}, cut off at {cut:?}"
            );
            lab.assert_steady().await;
        });
    }
}

#[test]
fn invariant_7_a_lease_that_another_takes_ends_the_leader() {
    simulate(33, async |lab| {
        two(lab).await;
        lab.may_end(0);
        lab.api
            .edit(Kind::Lease, "kube-system/ballast-controller", |lease| {
                lease["spec"]["holderIdentity"] = json!("somebody");
                lease["spec"]["leaseDurationSeconds"] = json!(15);
            });
        exits(lab).await;
        lab.led().await;
        lab.assert_steady().await;
    });
}

/// An orderly stop hands over at once, and work in progress is finished.
#[test]
fn a_leader_that_is_stopped_hands_over() {
    simulate(34, async |lab| {
        lab.cloud
            .take_time(Duration::from_secs(5), Duration::from_secs(5));
        lab.start();
        lab.led().await;
        for number in 0..10 {
            lab.api
                .create_service(&Svc::new(&format!("shop/web-{number}")));
        }
        lab.until("work has begun", |lab| lab.cloud.balancers().len() > 2)
            .await;
        let start = tokio::time::Instant::now();
        lab.restart().await;
        lab.led().await;
        assert!(
            start.elapsed() < Duration::from_secs(13),
            "{:?}",
            start.elapsed()
        );
        lab.settle().await;
        assert_eq!(
            lab.effects(0, Target::Cloud)
                .iter()
                .filter(|it| it.verb == "create")
                .count(),
            10
        );
    });
}

/// A new leader whose API server lags behind does not know the newest Services or their latest
/// state, but finds their load balancers in the cloud. It must not release those.
#[test]
fn what_lives_is_not_released_by_a_leader_that_sees_the_past() {
    // The old state of the Service, and what has happened to it since.
    type Story = (fn(&mut Lab), fn(&mut Lab));
    let stories: [Story; 3] = [
        (
            |_| {},
            |lab| {
                lab.api.create_service(&Svc::new(WEB));
            },
        ),
        (
            |lab| {
                lab.api.create_service(&Svc::new(WEB));
                lab.api.set_type(WEB, "ClusterIP", None);
            },
            |lab| {
                let class = Some("ballast.dev/local");
                lab.api.set_type(WEB, "LoadBalancer", class);
            },
        ),
        (
            |lab| {
                lab.api.create_service(&Svc::new(WEB));
                lab.api.set_type(WEB, "ClusterIP", None);
            },
            |lab| {
                lab.api.delete(Kind::Service, WEB);
                lab.api.create_service(&Svc::new(WEB));
            },
        ),
    ];
    for (seed, (before, since)) in (70..).zip(stories) {
        simulate(seed, async |lab| {
            before(lab);
            let past = lab.api.remember();
            since(lab);
            lab.start();
            lab.served(WEB).await;
            let address = lab.addresses(WEB);
            lab.stop().await;
            lab.api.lag(Some(past));
            let mark = lab.journal.mark();
            lab.start();
            lab.rest(60).await;
            let cloud = lab.effects(mark, Target::Cloud);
            assert!(!cloud.iter().any(|it| it.verb == "delete"), "{cloud:#?}");
            lab.api.lag(None);
            lab.settle().await;
            assert_eq!(lab.addresses(WEB), address);
        });
    }
}
