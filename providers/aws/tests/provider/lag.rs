//! Lists that lag behind: a process starts a moment after the former one has crashed, and does not see what
//! that one has just made.

use std::time::Duration;

use ballast_aws::provider::AwsProvider;
use ballast_aws_fake::{Config, Fault, Time};
use ballast_provider::mark::RETAINED;
use ballast_provider::{Cause, Key, LoadBalancer, Provider, Released, Removal};
use futures::StreamExt;
use tokio::time::{Instant, sleep, timeout_at};

use crate::bed::{Bed, delete, service, settle};
use crate::crashes::{changes, finish, served};

/// A change of one Service is over long before.
pub(crate) const LAG: Duration = Duration::from_secs(30);
/// From a crash until the next process lists everything.
pub(crate) const START: Duration = Duration::from_secs(2);

pub(crate) fn lagging() -> Config {
    let mut config = Config::default();
    config.settings.lag = LAG;
    config
}

fn web() -> LoadBalancer {
    service("web", &[(80, 30_080), (443, 30_443)])
}

/// A process makes a new Service, and crashes after its nth write. `None`: it made no more.
async fn crashed(nth: u64) -> Option<Bed> {
    let bed = Bed::with(lagging()).await;
    let provider = bed.start().await.unwrap();
    bed.fake.fault(Fault::writes().nth(nth).drop_after());
    let _ = settle(&provider, &web()).await;
    drop(provider);
    bed.fake.clear_faults();
    bed.fake.advance(START);
    (bed.fake.counts().writes() >= nth).then_some(bed)
}

/// What the look finds that the controller does not know is released by its name.
async fn release_what_appears(bed: &Bed, provider: &AwsProvider) {
    bed.fake.advance(LAG);
    let changes = provider.look().await;
    if changes.iter().any(|change| change.cause == Cause::Appeared) {
        delete(bed, provider, &web()).await;
    }
    // The backend group, whose load balancer nobody knew of.
    bed.fake.advance(Duration::from_mins(2));
    provider.look().await;
}

/// No load balancer, which costs money and serves, is left for a moment longer than its Service. What has no name
/// that follows from the Service, the first look finds.
#[tokio::test]
async fn a_deletion_right_after_a_crash_deletes_what_no_list_shows_yet() {
    for nth in 1_u64.. {
        let Some(bed) = crashed(nth).await else {
            assert!(nth > 8, "{nth}");
            break;
        };
        let made = !bed.fake.snapshot().load_balancers.is_empty();
        let provider = bed.start().await.unwrap();
        let key = Key::alone(&web().id);
        let (first, calls) = bed
            .calls_of(provider.release(&web().id, &key, Removal::Delete))
            .await;
        let left = bed.fake.snapshot();
        assert!(left.load_balancers.is_empty(), "call {nth}: {calls:?}");
        if made {
            assert!(
                calls.contains(&"DeleteLoadBalancer".to_owned()),
                "{calls:?}"
            );
        }
        if first.unwrap() != Released::Gone {
            delete(&bed, &provider, &web()).await;
        }
        release_what_appears(&bed, &provider).await;
        assert!(bed.is_empty(), "call {nth}: {:?}", bed.fake.snapshot());
    }
}

/// The list shows the target groups and the security group, which was made long before. Without its load balancer
/// AWS would never let it go.
#[tokio::test]
async fn a_load_balancer_that_a_list_leaves_out_is_deleted_with_what_it_shows() {
    let bed = Bed::with(lagging()).await;
    let provider = bed.start().await.unwrap();
    let refused = Fault::on("CreateLoadBalancer").error("Some", "AWS has failed");
    bed.fake.fault(refused.times(1));
    settle(&provider, &web()).await.unwrap_err();
    bed.fake.advance(LAG);
    bed.fake.fault(Fault::on("CreateLoadBalancer").drop_after());
    settle(&provider, &web()).await.unwrap_err();
    drop(provider);
    bed.fake.clear_faults();
    assert_eq!(bed.fake.snapshot().load_balancers.len(), 1);
    let provider = bed.start().await.unwrap();
    delete(&bed, &provider, &web()).await;
    assert!(bed.is_empty(), "{:?}", bed.fake.snapshot());
}

/// Otherwise the first look would find a load balancer that belongs to nobody, and delete it.
#[tokio::test]
async fn what_no_list_shows_yet_is_kept_if_it_must_be() {
    for nth in 1_u64.. {
        let Some(bed) = crashed(nth).await else {
            assert!(nth > 8, "{nth}");
            break;
        };
        let before = bed.fake.snapshot();
        let provider = bed.start().await.unwrap();
        let key = Key::alone(&web().id);
        let kept = provider.release(&web().id, &key, Removal::Retain).await;
        assert_eq!(kept, Ok(Released::Gone));
        let all = bed.fake.snapshot();
        for one in all.load_balancers.values() {
            assert!(one.tags.contains_key(RETAINED), "call {nth}: {one:?}");
        }
        drop(provider);
        let provider = bed.start().await.unwrap();
        bed.fake.advance(LAG);
        let changes = provider.look().await;
        if !before.load_balancers.is_empty() {
            let appeared = changes.iter().any(|it| it.cause == Cause::Appeared);
            assert!(!appeared, "call {nth}: {changes:?}");
        }
    }
}

/// A process that has made the load balancer, or has looked long after its start, knows what there is.
#[tokio::test]
async fn a_release_asks_only_for_what_this_process_does_not_know() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    settle(&provider, &web()).await.unwrap();
    drop(provider);
    let provider = bed.start().await.unwrap();
    let key = Key::alone(&web().id);
    let (_, calls) = bed
        .calls_of(provider.release(&web().id, &key, Removal::Delete))
        .await;
    let asks: Vec<_> = calls.iter().filter(|it| it.starts_with("Desc")).collect();
    // Three for what may be there, and two for the tags of what is deleted.
    assert_eq!(asks.len(), 5, "{calls:?}");
    let (_, calls) = bed.calls_of(delete(&bed, &provider, &web())).await;
    assert!(
        calls.iter().all(|it| it != "DescribeLoadBalancers"),
        "{calls:?}"
    );
    // A Service that has nothing.
    let other = service("other", &[(80, 30_081)]);
    let (_, calls) = bed.calls_of(delete(&bed, &provider, &other)).await;
    assert_eq!(calls.len(), 3, "{calls:?}");
}

/// It finds what has no name that follows from the Service. From then on no release asks for anything but the tags
/// of what it deletes.
#[tokio::test(start_paused = true)]
async fn the_first_look_a_minute_after_the_start_shows_what_the_former_process_made() {
    let mut config = lagging();
    config.time = Time::Scaled(1.0);
    let bed = Bed::with(config).await;
    let provider = bed.start().await.unwrap();
    settle(&provider, &web()).await.unwrap();
    sleep(LAG).await;
    let other = service("other", &[(80, 30_081)]);
    // Its security group, the rules of that, and its target group.
    bed.fake.fault(Fault::writes().nth(3).drop_after());
    settle(&provider, &other).await.unwrap_err();
    drop(provider);
    bed.fake.clear_faults();
    let provider = bed.start().await.unwrap();
    delete(&bed, &provider, &other).await;
    assert_eq!(bed.fake.snapshot().target_groups.len(), 3);
    let mut changes = provider.changes();
    let soon = Instant::now() + Duration::from_secs(65);
    loop {
        let change = timeout_at(soon, changes.next()).await.unwrap().unwrap();
        if change.cause == Cause::Appeared {
            assert_eq!(change.id, other.id);
            break;
        }
    }
    for (service, expected) in [(&other, 4), (&web(), 6), (&service("third", &[]), 0)] {
        let key = Key::alone(&service.id);
        let (_, calls) = bed
            .calls_of(provider.release(&service.id, &key, Removal::Delete))
            .await;
        let reads = ["DescribeTags", "DescribeSecurityGroups"];
        let deletes = |it: &String| it.starts_with("Delete") || reads.contains(&it.as_str());
        assert!(calls.iter().all(deletes), "{calls:?}");
        assert_eq!(calls.len(), expected, "{calls:?}");
    }
}

#[tokio::test]
async fn a_crash_at_any_call_is_made_up_for_although_lists_lag_behind() {
    let some = [
        "a new Service",
        "a port more",
        "another scheme",
        "given groups",
        "its own group again",
    ];
    for change in changes() {
        if !some.contains(&change.what) {
            continue;
        }
        let wanted = &change.wanted;
        let bed = change.bed_with(lagging()).await;
        let provider = bed.start().await.unwrap();
        bed.fake.reset_calls();
        served(&provider, &bed, wanted).await;
        let calls = bed.fake.counts().total();
        drop(provider);
        let expected = finish(&bed, wanted).await;
        for (nth, after) in (1..=calls).flat_map(|nth| [(nth, true), (nth, false)]) {
            let what = format!("{}: call {nth} of {calls}, after: {after}", change.what);
            // The Service is deleted at once, or after the change was made up for.
            for deleted in [true, false] {
                let bed = change.bed_with(lagging()).await;
                let provider = bed.start().await.unwrap();
                bed.fake.fault(Fault::any().nth(nth).dropped(after));
                let _ = settle(&provider, wanted).await;
                drop(provider);
                bed.fake.clear_faults();
                bed.fake.advance(START);
                if !deleted {
                    assert_eq!(finish(&bed, wanted).await, expected, "{what}");
                }
                let provider = bed.start().await.unwrap();
                delete(&bed, &provider, wanted).await;
                let left = bed.fake.snapshot().load_balancers;
                assert!(left.is_empty(), "{what}: {left:?}");
                release_what_appears(&bed, &provider).await;
                assert!(bed.is_empty(), "{what}: {:?}", bed.fake.snapshot());
            }
        }
    }
}

#[tokio::test]
async fn a_crash_at_any_call_of_a_deletion_leaves_nothing_although_lists_lag_behind() {
    for (nth, after) in (1..12).flat_map(|nth| [(nth, true), (nth, false)]) {
        let bed = Bed::with(lagging()).await;
        let provider = bed.start().await.unwrap();
        settle(&provider, &web()).await.unwrap();
        bed.fake.advance(LAG);
        drop(provider);
        let provider = bed.start().await.unwrap();
        bed.fake.fault(Fault::any().nth(nth).dropped(after));
        let key = Key::alone(&web().id);
        let first = provider.release(&web().id, &key, Removal::Delete).await;
        drop(provider);
        bed.fake.clear_faults();
        bed.fake.advance(START);
        let provider = bed.start().await.unwrap();
        if first != Ok(Released::Gone) {
            delete(&bed, &provider, &web()).await;
        }
        release_what_appears(&bed, &provider).await;
        let left = bed.fake.snapshot();
        assert!(bed.is_empty(), "call {nth}, after: {after}: {left:?}");
    }
}
