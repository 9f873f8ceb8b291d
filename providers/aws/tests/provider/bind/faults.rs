//! Target groups of others that are full, gone or closed, and answers that are lost or late.

use std::collections::BTreeSet;
use std::time::Duration;

use ballast_aws::bind::TARGET_GROUPS;
use ballast_aws_fake::state::targets::Description;
use ballast_aws_fake::{Config, Fault};
use ballast_provider::{Cause, Key, LoadBalancer, Provider, Released, Removal};

use super::{ONE, THREE, TWO, Theirs, at, bound, has, later, prepared, web};
use crate::bed::{Bed, delete, ensure, ports, registered, service, settle, with_pods};
use crate::sharing::{leave, member};
use crate::support::settle_all;

/// A Service with two ports, each with a target group of its own.
fn two_ports(one: &str, other: &str, pods: &[&str]) -> LoadBalancer {
    let mut two = with_pods(service("web", &[(80, 30_080), (443, 30_443)]), pods);
    two.settings
        .insert(TARGET_GROUPS.into(), format!("80={one},443={other}"));
    two
}

/// What the Service names now gets its targets before what it named before loses them.
#[tokio::test]
async fn another_target_group_gets_the_targets_first() {
    let (bed, provider, arn) = prepared("ip").await;
    let other = Theirs::of("ip").make(&bed, "other");
    let web = with_pods(web(), &[ONE, TWO]);
    settle(&provider, &bound(web.clone(), &arn)).await.unwrap();
    let (ended, calls) = bed.calls_of(settle(&provider, &bound(web, &other))).await;
    ended.unwrap();
    let first = |action: &str| calls.iter().position(|it| it == action);
    assert!(
        first("RegisterTargets") < first("DeregisterTargets"),
        "{calls:?}"
    );
    assert_eq!(has(&bed, &other), at(&[ONE, TWO]));
    assert_eq!(has(&bed, &arn), [""; 0]);
    // Those of the others, and one note.
    assert_eq!(bed.fake.snapshot().target_groups.len(), 3);
}

/// What the Service does not name any more gets no new node, although AWS does not let the former ones leave.
#[tokio::test]
async fn a_former_target_group_gets_no_new_node() {
    let (mut bed, provider, arn) = prepared("instance").await;
    let other = Theirs::of("instance").make(&bed, "other");
    settle(&provider, &bound(web(), &arn)).await.unwrap();
    bed.fake
        .fault(Fault::on("DeregisterTargets").always().error_with_status(
            403,
            "AccessDenied",
            "not authorized",
        ));
    // It fails until AWS lets the former ones leave.
    let _ = settle(&provider, &bound(web(), &other)).await;
    assert_eq!(has(&bed, &other).len(), 3);
    bed.add_node();
    let _ = bed.retarget(&provider).await;
    assert_eq!(has(&bed, &other).len(), 4);
    assert_eq!(has(&bed, &arn).len(), 3);
}

/// AWS has room for two more, so two of three pods are targets.
#[tokio::test]
async fn as_many_are_targets_as_there_is_room_for() {
    let mut config = Config::default();
    config.settings.quotas.targets_per_load_balancer = 3;
    let bed = Bed::with(config).await;
    let arn = Theirs::of("ip").make(&bed, "theirs");
    bed.fake.advance(Duration::from_mins(10));
    let pod = Description {
        id: "10.0.100.99".into(),
        port: Some(8_080),
        zone: None,
    };
    bed.fake
        .edit(|cloud, now| cloud.register_targets(now, &arn, &[pod]))
        .unwrap();
    let provider = bed.start().await.unwrap();
    let web = bound(with_pods(web(), &[ONE, TWO, THREE]), &arn);
    // The message says that one has no room.
    let _ = settle(&provider, &web).await;
    assert_eq!(has(&bed, &arn).len(), 3);
}

/// A wave of nodes for a Service whose target group its owner has deleted.
#[tokio::test]
async fn a_target_group_that_is_gone_holds_up_no_wave() {
    let (mut bed, provider, arn) = prepared("instance").await;
    settle(&provider, &bound(web(), &arn)).await.unwrap();
    settle(&provider, &service("other", &[(80, 30_090)]))
        .await
        .unwrap();
    bed.fake.edit(|cloud, now| {
        let listeners = cloud.listeners.values();
        let used = listeners.filter(|it| it.forwards_to(&arn));
        let used: Vec<String> = used.map(|it| it.arn.clone()).collect();
        for listener in used {
            cloud.delete_listener(now, &listener).unwrap();
        }
        cloud.delete_target_group(now, &arn).unwrap();
    });
    bed.add_node();
    bed.retarget(&provider).await.unwrap();
    let all = bed.fake.snapshot().target_groups;
    let of_other = |tags: &std::collections::BTreeMap<String, String>| {
        tags.get("ballast.dev/service")
            .is_some_and(|it| it == "shop/other")
    };
    let own = all.values().find(|it| of_other(&it.tags)).unwrap();
    assert_eq!(registered(own).len(), 4);
}

/// Lists lag, the process dies after it has registered a pod, and the Service wants a load balancer instead.
#[tokio::test]
async fn lists_that_lag_hide_no_target_for_ever() {
    let mut config = Config::default();
    config.settings.lag = Duration::from_secs(40);
    let bed = Bed::with(config).await;
    let arn = Theirs::of("ip").make(&bed, "theirs");
    bed.fake.advance(Duration::from_mins(10));
    let provider = bed.start().await.unwrap();
    let web = with_pods(web(), &[ONE]);
    // Lists do not show yet what it made.
    let _ = settle(&provider, &bound(web.clone(), &arn)).await;
    assert_eq!(has(&bed, &arn), at(&[ONE]));
    drop(provider);
    let provider = bed.start().await.unwrap();
    let _ = settle(&provider, &web).await;
    for _ in 0..8 {
        bed.fake.advance(Duration::from_mins(2));
        provider.look().await;
    }
    settle(&provider, &web).await.unwrap();
    assert_eq!(has(&bed, &arn), [""; 0]);
}

/// One answer of AWS is lost, and the process goes on: no pod that is gone stays a target.
#[tokio::test]
async fn a_lost_answer_leaves_no_target() {
    for (nth, after) in (1_u64..14).flat_map(|nth| [(nth, true), (nth, false)]) {
        let (bed, provider, arn) = prepared("ip").await;
        let other = Theirs::of("ip").make(&bed, "other");
        bed.fake.fault(Fault::writes().nth(nth).dropped(after));
        for pods in [&[ONE][..], &[TWO], &[THREE], &[ONE, TWO]] {
            let _ = settle(&provider, &two_ports(&arn, &other, pods)).await;
        }
        bed.fake.clear_faults();
        let last = two_ports(&arn, &other, &[ONE, TWO]);
        settle(&provider, &last).await.unwrap();
        for (arn, port) in [(&arn, 8_080), (&other, 8_443)] {
            let expected = [ONE, TWO].map(|pod| format!("{pod}:{port}"));
            assert_eq!(has(&bed, arn), expected, "{nth} {after}");
        }
    }
}

/// A Service leaves a shared load balancer for a target group of others, and comes back.
#[tokio::test]
async fn from_a_shared_load_balancer_and_back() {
    let (bed, provider, arn) = prepared("instance").await;
    let shared = member("web", 80);
    let next = member("next", 81);
    settle_all(&provider, &[shared.clone(), next.clone()])
        .await
        .unwrap();
    let alone = bound(web(), &arn);
    settle(&provider, &alone).await.unwrap();
    leave(&bed, &provider, &shared).await.unwrap();
    assert_eq!(has(&bed, &arn).len(), 3);
    settle(&provider, &alone).await.unwrap();
    settle_all(&provider, &[next, shared]).await.unwrap();
    delete(&bed, &provider, &alone).await;
    assert_eq!(has(&bed, &arn).len(), 0);
    // The listener of the others is on port 443.
    assert_eq!(ports(&bed), BTreeSet::from([80, 81, 443]));
}

/// A note is left because AWS does not permit to deregister its target. The Service has a load balancer meanwhile, which
/// is kept when the Service is deleted.
#[tokio::test]
async fn a_note_that_is_left_costs_no_load_balancer_that_is_kept() {
    let (bed, provider, arn) = prepared("ip").await;
    settle(&provider, &bound(with_pods(web(), &[ONE]), &arn))
        .await
        .unwrap();
    let denied = || {
        Fault::on("DeregisterTargets").always().error_with_status(
            403,
            "AccessDenied",
            "not authorized",
        )
    };
    bed.fake.fault(denied());
    let alone = with_pods(web(), &[ONE]);
    settle(&provider, &alone).await.unwrap();
    let balancers = || bed.fake.snapshot().load_balancers.len();
    assert_eq!(balancers(), 2);
    let key = Key::alone(&alone.id);
    let retain = || provider.release(&alone.id, &key, Removal::Retain);
    retain().await.unwrap_err();
    assert_eq!(balancers(), 2);
    bed.fake.clear_faults();
    assert_eq!(retain().await, Ok(Released::Gone));
    assert_eq!(balancers(), 2);
    assert_eq!(has(&bed, &arn), [""; 0]);
}

/// AWS does not permit to look at the target group: nodes that are gone leave it all the same.
#[tokio::test]
async fn a_look_that_fails_stops_no_wave() {
    let (mut bed, provider, arn) = prepared("instance").await;
    let web = bound(web(), &arn);
    settle(&provider, &web).await.unwrap();
    bed.fake.fault(
        Fault::on("DescribeTargetGroups")
            .always()
            .error_with_status(403, "AccessDenied", "not authorized"),
    );
    later(&bed, &provider).await;
    ensure(&provider, &web).await.unwrap_err();
    bed.first_node = 2;
    bed.retarget(&provider).await.unwrap();
    assert_eq!(has(&bed, &arn).len(), 2);
}

/// AWS does not let the targets leave: the Service gets no new ones, and its deletion is tried again by the controller
/// only.
#[tokio::test]
async fn a_deletion_that_waits_adds_no_target_and_asks_for_no_turn() {
    let (mut bed, provider, arn) = prepared("instance").await;
    let web = bound(web(), &arn);
    settle(&provider, &web).await.unwrap();
    bed.fake
        .fault(Fault::on("DeregisterTargets").always().error_with_status(
            403,
            "AccessDenied",
            "not authorized",
        ));
    let key = Key::alone(&web.id);
    let ended = provider.release(&web.id, &key, Removal::Delete).await;
    ended.unwrap_err();
    bed.add_node();
    bed.retarget(&provider).await.unwrap();
    assert_eq!(has(&bed, &arn).len(), 3);
    for _ in 0..2 {
        let changes = later(&bed, &provider).await;
        let due = changes.iter().find(|it| it.cause == Cause::Due);
        assert_eq!(due, None);
    }
}

/// One of two target groups is full: the pods of the other port are followed.
#[tokio::test]
async fn a_full_target_group_holds_up_no_other_port() {
    for full_first in [false, true] {
        let mut config = Config::default();
        config.settings.quotas.targets_per_load_balancer = 3;
        let bed = Bed::with(config).await;
        let [full, free] = ["full", "free"].map(|name| Theirs::of("ip").make(&bed, name));
        bed.fake.advance(Duration::from_mins(10));
        let pods: Vec<Description> = (97..100)
            .map(|last| Description {
                id: format!("10.0.100.{last}"),
                port: Some(8_080),
                zone: None,
            })
            .collect();
        bed.fake
            .edit(|cloud, now| cloud.register_targets(now, &full, &pods))
            .unwrap();
        let provider = bed.start().await.unwrap();
        let (one, other) = if full_first {
            (&full, &free)
        } else {
            (&free, &full)
        };
        for pod in [ONE, TWO] {
            // What was made in the first turn is read in the second one.
            for _ in 0..2 {
                let why = settle(&provider, &two_ports(one, other, &[pod])).await;
                let why = why.unwrap_err().to_string();
                assert!(why.contains("TooManyTargets"), "{why}");
            }
            let found = has(&bed, &free);
            assert!(found.len() == 1 && found[0].starts_with(pod), "{found:?}");
        }
    }
}
