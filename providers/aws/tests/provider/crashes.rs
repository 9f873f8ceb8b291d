//! A crash after each call, and before each call: whatever the process was doing, the next one ends
//! where an undisturbed one does, and deletes everything.

use std::time::Duration;

use ballast_aws_fake::Fault;
use ballast_aws_fake::state::seed::NODE_GROUP;
use ballast_provider::{Key, LoadBalancer, Provider, Released, Removal};

use crate::bed::{Bed, delete, essence, service, settle, with};

/// From what a Service has to what it wants.
type Change = (&'static str, Option<LoadBalancer>, LoadBalancer);

fn changes() -> Vec<Change> {
    let web = || service("web", &[(80, 30_080)]);
    let two = || service("web", &[(80, 30_080), (443, 30_443)]);
    let internet = || with(web(), "scheme", "internet-facing");
    let ranges = |mut service: LoadBalancer| {
        service.source_ranges = vec!["10.9.0.0/16".parse().unwrap()];
        service
    };
    vec![
        ("a new Service", None, two()),
        ("a port more", Some(web()), two()),
        ("a port less", Some(two()), web()),
        (
            "another node port",
            Some(web()),
            service("web", &[(80, 30_081)]),
        ),
        ("another scheme", Some(web()), internet()),
        ("other clients", Some(web()), ranges(web())),
        (
            "attributes",
            Some(web()),
            with(
                with(
                    web(),
                    "attributes",
                    "load_balancing.cross_zone.enabled=true",
                ),
                "target-group-attributes",
                "deregistration_delay.timeout_seconds=30",
            ),
        ),
        (
            "attributes gone",
            Some(with(
                web(),
                "attributes",
                "load_balancing.cross_zone.enabled=true",
            )),
            web(),
        ),
        (
            "tags",
            Some(web()),
            with(web(), "additional-resource-tags", "team=shop"),
        ),
        (
            "fewer nodes",
            Some(web()),
            with(web(), "target-node-labels", "pool=edge"),
        ),
        (
            "all nodes again",
            Some(with(web(), "target-node-labels", "pool=edge")),
            web(),
        ),
        (
            "a check",
            Some(web()),
            with(web(), "healthcheck-interval", "30"),
        ),
        (
            "fewer subnets",
            Some(web()),
            with(web(), "subnets", "subnet-private-a,subnet-private-b"),
        ),
    ]
}

/// All turns until nothing is left to do, with the cloud's clock moving on.
async fn finish(bed: &Bed, wanted: &LoadBalancer) -> Vec<String> {
    let provider = bed.start().await.unwrap();
    settle(&provider, wanted).await.unwrap();
    // What was in use is deleted, and what drifted is repaired.
    bed.fake.advance(Duration::from_mins(10));
    provider.look().await;
    settle(&provider, wanted).await.unwrap();
    essence(&bed.fake.snapshot())
}

async fn prepare(before: Option<&LoadBalancer>) -> Bed {
    let bed = Bed::new().await;
    bed.fake.remember_foreign();
    if let Some(before) = before {
        let provider = bed.start().await.unwrap();
        settle(&provider, before).await.unwrap();
    }
    bed
}

#[tokio::test]
async fn a_crash_at_any_call_of_any_change_is_made_up_for() {
    for (what, before, wanted) in changes() {
        let bed = prepare(before.as_ref()).await;
        let provider = bed.start().await.unwrap();
        bed.fake.reset_calls();
        settle(&provider, &wanted).await.unwrap();
        let calls = bed.fake.counts().total();
        drop(provider);
        let expected = finish(&bed, &wanted).await;
        for (nth, after) in (1..=calls).flat_map(|nth| [(nth, true), (nth, false)]) {
            let bed = prepare(before.as_ref()).await;
            let provider = bed.start().await.unwrap();
            let fault = Fault::any().nth(nth);
            bed.fake.fault(if after {
                fault.drop_after()
            } else {
                fault.drop_before()
            });
            let _ = settle(&provider, &wanted).await;
            drop(provider);
            bed.fake.clear_faults();
            let found = finish(&bed, &wanted).await;
            assert_eq!(
                found, expected,
                "{what}: call {nth} of {calls}, after: {after}"
            );
            let provider = bed.start().await.unwrap();
            delete(&bed, &provider, &wanted).await;
            assert!(bed.is_empty(), "{what}: call {nth}, after: {after}");
        }
    }
}

/// The same process goes on: it makes up for an answer that it did not get.
#[tokio::test]
async fn a_lost_answer_at_any_call_is_made_up_for_by_the_same_process() {
    for (what, before, wanted) in changes() {
        let bed = prepare(before.as_ref()).await;
        let expected = finish(&bed, &wanted).await;
        let bed = prepare(before.as_ref()).await;
        let provider = bed.start().await.unwrap();
        bed.fake.reset_calls();
        settle(&provider, &wanted).await.unwrap();
        let calls = bed.fake.counts().total();
        for nth in 1..=calls {
            let bed = prepare(before.as_ref()).await;
            let provider = bed.start().await.unwrap();
            bed.fake.fault(Fault::any().nth(nth).drop_after());
            let mut ended = settle(&provider, &wanted).await;
            for _ in 0..3 {
                if ended.is_ok() {
                    break;
                }
                ended = settle(&provider, &wanted).await;
            }
            ended.unwrap();
            bed.fake.clear_faults();
            bed.fake.advance(Duration::from_mins(10));
            provider.look().await;
            settle(&provider, &wanted).await.unwrap();
            let found = essence(&bed.fake.snapshot());
            assert_eq!(found, expected, "{what}: call {nth}");
        }
    }
}

/// Nobody knows what the call has made, and the Service is deleted before anybody asks again.
#[tokio::test]
async fn what_had_no_answer_is_deleted_by_the_same_process() {
    let web = service("web", &[(80, 30_080), (443, 30_443)]);
    for nth in 1_u64.. {
        let bed = prepare(None).await;
        let provider = bed.start().await.unwrap();
        bed.fake.fault(Fault::writes().nth(nth).drop_after());
        let ended = settle(&provider, &web).await;
        if bed.fake.counts().writes() < nth {
            ended.unwrap();
            assert!(nth > 8, "{nth}");
            break;
        }
        delete(&bed, &provider, &web).await;
        assert!(bed.is_empty(), "call {nth}: {:?}", bed.fake.snapshot());
    }
}

/// The controller gives up a turn that takes too long, while a call is under way, and goes on. A turn with given
/// security groups has no group of its own that would be found by its tags.
#[tokio::test]
async fn a_turn_that_is_given_up_at_any_call_is_made_up_for_by_the_same_process() {
    let web = || service("web", &[(80, 30_080)]);
    let given = with(web(), "security-groups", NODE_GROUP);
    let more = with(
        service("web", &[(80, 30_080), (443, 30_443)]),
        "attributes",
        "load_balancing.cross_zone.enabled=true",
    );
    for (before, wanted) in [(None, web()), (None, given), (Some(web()), more)] {
        let bed = prepare(before.as_ref()).await;
        let expected = finish(&bed, &wanted).await;
        for (nth, made) in (1_u64..).flat_map(|nth| [(nth, true), (nth, false)]) {
            let mut ended = false;
            for deleted in [true, false] {
                let bed = prepare(before.as_ref()).await;
                let provider = bed.start().await.unwrap();
                let fault = Fault::writes().nth(nth);
                bed.fake.fault(if made {
                    fault.hold_after()
                } else {
                    fault.hold_before()
                });
                tokio::select! {
                    settled = settle(&provider, &wanted) => {
                        settled.unwrap();
                        ended = true;
                    }
                    () = bed.fake.held() => {}
                }
                bed.fake.idle().await;
                bed.fake.clear_faults();
                if !deleted {
                    settle(&provider, &wanted).await.unwrap();
                    bed.fake.advance(Duration::from_mins(10));
                    provider.look().await;
                    settle(&provider, &wanted).await.unwrap();
                    let found = essence(&bed.fake.snapshot());
                    assert_eq!(found, expected, "call {nth}, made: {made}");
                }
                delete(&bed, &provider, &wanted).await;
                let left = bed.fake.snapshot();
                assert!(bed.is_empty(), "call {nth}, made: {made}: {left:?}");
            }
            if ended {
                assert!(nth > 3, "{nth}");
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_crash_at_any_call_of_a_deletion_leaves_nothing() {
    let web = service("web", &[(80, 30_080), (443, 30_443)]);
    for (nth, after) in (1..12).flat_map(|nth| [(nth, true), (nth, false)]) {
        let bed = prepare(Some(&web)).await;
        let provider = bed.start().await.unwrap();
        let fault = Fault::any().nth(nth);
        bed.fake.fault(if after {
            fault.drop_after()
        } else {
            fault.drop_before()
        });
        let key = Key::alone(&web.id);
        let first = provider.release(&web.id, &key, Removal::Delete).await;
        drop(provider);
        bed.fake.clear_faults();
        let provider = bed.start().await.unwrap();
        if first != Ok(Released::Gone) {
            delete(&bed, &provider, &web).await;
        }
        assert!(
            bed.is_empty(),
            "call {nth}, after: {after}: {:?}",
            bed.fake.snapshot()
        );
    }
}

#[tokio::test]
async fn a_crash_at_any_call_of_a_wave_leaves_no_group_behind() {
    let all: Vec<_> = (0..3)
        .map(|number| service(&format!("web-{number}"), &[(80, 30_100 + number)]))
        .collect();
    for (nth, after) in (1..8).flat_map(|nth| [(nth, true), (nth, false)]) {
        let mut bed = Bed::new().await;
        let provider = bed.start().await.unwrap();
        for one in &all {
            settle(&provider, one).await.unwrap();
        }
        bed.add_node();
        let fault = Fault::any().nth(nth);
        bed.fake.fault(if after {
            fault.drop_after()
        } else {
            fault.drop_before()
        });
        let _ = bed.retarget(&provider).await;
        drop(provider);
        bed.fake.clear_faults();
        // The new node goes again while nobody looks.
        bed.nodes -= 1;
        let provider = bed.start().await.unwrap();
        for one in &all {
            settle(&provider, one).await.unwrap();
        }
        for group in bed.fake.snapshot().target_groups.keys() {
            let health = bed
                .fake
                .edit(|cloud, now| cloud.describe_target_health(now, group, &[]));
            let health = health.unwrap();
            let used = health.iter().filter(|one| one.state != "draining").count();
            assert_eq!(used, 3, "call {nth}, after: {after}: {health:?}");
        }
    }
}
