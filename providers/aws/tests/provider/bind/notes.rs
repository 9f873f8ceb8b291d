//! What notes say: which targets are Ballast's, after crashes and changes, too.

use ballast_aws::bind::{TARGET_GROUPS, TARGETS_FROM};
use ballast_aws::provider::AwsProvider;
use ballast_aws_fake::Fault;
use ballast_provider::{Key, LoadBalancer, Provider, Released, Removal};

use super::{
    ONE, OTHER, THREE, TWO, Theirs, at, bound, has, later, noted, of_another, pods, prepared, web,
};
use crate::bed::{Bed, delete, ensure, instance, service, settle, with, with_pods};

/// Two Services with the same pods in one target group, and what the second one asks for with other pods.
async fn twins() -> (Bed, AwsProvider, String, impl Fn(&[&str]) -> LoadBalancer) {
    let (bed, provider, arn) = prepared("ip").await;
    bed.fake.edit(|cloud, _| {
        let group = cloud.target_groups.get_mut(&arn).unwrap();
        group
            .tags
            .insert(TARGETS_FROM.into(), "shop/web shop/new".into());
    });
    let of = arn.clone();
    let new = move |all: &[&str]| bound(with_pods(service("new", &[(80, 30_090)]), all), &of);
    settle(&provider, &pods(&arn, &[ONE, TWO])).await.unwrap();
    settle(&provider, &new(&[ONE, TWO])).await.unwrap();
    (bed, provider, arn, new)
}

/// The process dies at each call, before or after it, and pods change meanwhile. No target is left behind, and none of
/// another cluster is touched.
#[tokio::test]
async fn a_crash_at_any_call_leaves_no_target() {
    let steps: [(&[&str], &[&str]); 2] = [(&[], &[ONE, TWO]), (&[ONE], &[TWO, THREE])];
    for (before, after_pods) in steps {
        for (nth, after) in (1_u64..).flat_map(|nth| [(nth, true), (nth, false)]) {
            let (bed, provider, arn) = prepared("ip").await;
            of_another(&bed, &arn);
            if !before.is_empty() {
                settle(&provider, &pods(&arn, before)).await.unwrap();
            }
            bed.fake.reset_calls();
            bed.fake.fault(Fault::any().nth(nth).dropped(after));
            let ended = settle(&provider, &pods(&arn, after_pods)).await;
            let done = bed.fake.counts().total() < nth;
            drop(provider);
            bed.fake.clear_faults();
            let provider = bed.start().await.unwrap();
            // Another pod has come, and one has gone.
            settle(&provider, &pods(&arn, &[THREE])).await.unwrap();
            let what = format!("{before:?}: call {nth}, after: {after}");
            assert_eq!(has(&bed, &arn), at(&[THREE, OTHER]), "{what}");
            assert_eq!(noted(&bed), at(&[THREE]), "{what}");
            delete(&bed, &provider, &web()).await;
            assert_eq!(has(&bed, &arn), at(&[OTHER]), "{what}");
            if done {
                ended.unwrap();
                assert!(nth > 4, "{what}");
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_crash_at_any_call_of_a_deletion_leaves_no_target() {
    for (nth, after) in (1_u64..).flat_map(|nth| [(nth, true), (nth, false)]) {
        let (bed, provider, arn) = prepared("ip").await;
        of_another(&bed, &arn);
        settle(&provider, &pods(&arn, &[ONE, TWO])).await.unwrap();
        drop(provider);
        let provider = bed.start().await.unwrap();
        bed.fake.reset_calls();
        bed.fake.fault(Fault::any().nth(nth).dropped(after));
        let key = Key::alone(&web().id);
        let first = provider.release(&web().id, &key, Removal::Delete).await;
        let done = bed.fake.counts().total() < nth;
        drop(provider);
        bed.fake.clear_faults();
        let provider = bed.start().await.unwrap();
        if first != Ok(Released::Gone) {
            delete(&bed, &provider, &web()).await;
        }
        assert_eq!(has(&bed, &arn), at(&[OTHER]), "call {nth}, after: {after}");
        assert_eq!(noted(&bed), [""; 0], "call {nth}, after: {after}");
        if done {
            assert!(nth > 6, "{nth}");
            break;
        }
    }
}

/// A Service gets another name: the new one has the same pods, and the former one is deleted.
#[tokio::test]
async fn a_target_of_two_services_stays_until_both_are_gone() {
    let (bed, provider, arn, new) = twins().await;
    let (_, calls) = bed.calls_of(delete(&bed, &provider, &web())).await;
    assert_eq!(has(&bed, &arn), at(&[ONE, TWO]));
    let count = calls.iter().filter(|it| *it == "DeregisterTargets").count();
    assert_eq!(count, 0, "nothing drains: {calls:?}");
    delete(&bed, &provider, &new(&[])).await;
    assert_eq!(has(&bed, &arn), [""; 0]);
}

/// Another port, another protocol: the targets that stay do not drain.
#[tokio::test]
async fn what_moves_to_another_note_stays_registered() {
    let (bed, provider, arn) = prepared("ip").await;
    settle(&provider, &pods(&arn, &[ONE, TWO])).await.unwrap();
    let mut other = with_pods(service("web", &[(8080, 30_080)]), &[ONE, TWO]);
    other.listeners[0].port = 8080;
    other
        .settings
        .insert(TARGET_GROUPS.into(), format!("8080={arn}"));
    // The fixture gives each port pods of its own ports: only the note changes for those that stay.
    settle(&provider, &other).await.unwrap();
    assert_eq!(noted(&bed).len(), 2);
    assert_eq!(has(&bed, &arn), noted(&bed));
}

/// Labels that the nodes need are tags of the note: a wave and a restart know them.
#[tokio::test]
async fn other_labels_select_other_nodes() {
    let (mut bed, provider, arn) = prepared("instance").await;
    settle(&provider, &bound(web(), &arn)).await.unwrap();
    let edge = with(bound(web(), &arn), "target-node-labels", "pool=edge");
    settle(&provider, &edge).await.unwrap();
    let first = [format!("{}:30080", instance(1))];
    assert_eq!(has(&bed, &arn), first);
    bed.add_node();
    bed.retarget(&provider).await.unwrap();
    assert_eq!(has(&bed, &arn), first);
    drop(provider);
    let provider = bed.start().await.unwrap();
    settle(&provider, &edge).await.unwrap();
    assert_eq!(has(&bed, &arn), first);
}

/// One target group that its owner has deleted holds up no other port.
#[tokio::test]
async fn each_port_has_its_own_fate() {
    let (bed, provider, arn) = prepared("ip").await;
    let other = Theirs::of("ip").make(&bed, "other");
    let both = |all: &[&str]| {
        let mut web = with_pods(service("web", &[(80, 30_080), (443, 30_443)]), all);
        let value = format!("80={arn},443={other}");
        web.settings.insert(TARGET_GROUPS.into(), value);
        web
    };
    settle(&provider, &both(&[ONE])).await.unwrap();
    bed.fake.edit(|cloud, _| {
        let group = cloud.target_groups.get_mut(&other).unwrap();
        group.tags.clear();
    });
    later(&bed, &provider).await;
    let why = ensure(&provider, &both(&[TWO]))
        .await
        .unwrap_err()
        .to_string();
    assert!(why.contains(&other), "{why}");
    assert_eq!(has(&bed, &arn), at(&[TWO]));
    assert_eq!(has(&bed, &other), [""; 0]);
}

/// Both lose a pod at once, and then both are deleted at once.
#[tokio::test]
async fn two_services_that_lose_a_target_at_once_leave_none() {
    let (bed, provider, arn, new) = twins().await;
    let (one, other) = (pods(&arn, &[ONE]), new(&[ONE]));
    let (first, second) = tokio::join!(settle(&provider, &one), settle(&provider, &other));
    first.unwrap();
    second.unwrap();
    assert_eq!(has(&bed, &arn), at(&[ONE]));
    tokio::join!(
        delete(&bed, &provider, &one),
        delete(&bed, &provider, &other)
    );
    assert_eq!(has(&bed, &arn), [""; 0]);
}

/// One has left its target to the other, and AWS refuses the call about its own note.
#[tokio::test]
async fn a_refused_call_about_a_note_leaves_no_target() {
    let (bed, provider, arn, new) = twins().await;
    bed.fake
        .fault(Fault::on("DeregisterTargets").times(2).error_with_status(
            403,
            "AccessDenied",
            "not authorized",
        ));
    settle(&provider, &pods(&arn, &[ONE])).await.unwrap_err();
    bed.fake.clear_faults();
    settle(&provider, &new(&[ONE])).await.unwrap();
    settle(&provider, &pods(&arn, &[ONE])).await.unwrap();
    assert_eq!(has(&bed, &arn), at(&[ONE]));
}

/// Who has got a load balancer instead holds no target for others.
#[tokio::test]
async fn who_has_left_holds_no_target() {
    let (bed, provider, arn, _) = twins().await;
    let alone = with_pods(service("new", &[(80, 30_090)]), &[ONE, TWO]);
    settle(&provider, &alone).await.unwrap();
    assert_eq!(has(&bed, &arn), at(&[ONE, TWO]));
    delete(&bed, &provider, &web()).await;
    assert_eq!(has(&bed, &arn), [""; 0]);
}

/// A process that has just started reads the notes of the others before it takes a target away.
#[tokio::test]
async fn a_target_of_two_services_stays_after_a_restart() {
    let (bed, provider, arn, new) = twins().await;
    drop(provider);
    let provider = bed.start().await.unwrap();
    delete(&bed, &provider, &web()).await;
    assert_eq!(has(&bed, &arn), at(&[ONE, TWO]));
    delete(&bed, &provider, &new(&[])).await;
    assert_eq!(has(&bed, &arn), [""; 0]);
    assert_eq!(noted(&bed), [""; 0]);
}
