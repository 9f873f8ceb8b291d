//! The tag `ballast.dev/targets`: a process that starts believes it, so it must never be wrong.

use std::collections::BTreeSet;
use std::time::Duration;

use ballast_aws::provider::AwsProvider;
use ballast_aws_fake::{Config, Fault};
use ballast_provider::{Key, LoadBalancer, Provider, Released, Removal};

use crate::bed::{Bed, instance, registered, service, settle};

fn web() -> LoadBalancer {
    service("web", &[(80, 30_080)])
}

fn other() -> LoadBalancer {
    service("other", &[(80, 30_081)])
}

/// The instances that every target group has. Panics if two differ.
fn of_all_groups(bed: &Bed) -> Vec<String> {
    let groups = bed.fake.snapshot().target_groups;
    let all: BTreeSet<Vec<String>> = groups
        .values()
        .map(|group| registered(group).into_iter().map(str::to_owned).collect())
        .collect();
    assert_eq!(all.len(), 1, "{all:?}");
    all.into_iter().next().unwrap_or_default()
}

fn instances(numbers: impl IntoIterator<Item = u16>) -> Vec<String> {
    numbers.into_iter().map(instance).collect()
}

/// `web` is kept while its nodes are replaced, and a process has started since.
async fn kept_while_nodes_change() -> (Bed, AwsProvider) {
    let mut bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    for service in [&web(), &other()] {
        settle(&provider, service).await.unwrap();
    }
    let key = Key::alone(&web().id);
    let kept = provider.release(&web().id, &key, Removal::Retain).await;
    assert_eq!(kept, Ok(Released::Gone));
    for _ in 0..3 {
        bed.add_node();
    }
    bed.first_node = 4;
    bed.retarget(&provider).await.unwrap();
    drop(provider);
    let (provider, calls) = bed.calls_of(bed.start()).await;
    assert!(
        !calls.contains(&"DescribeTargetHealth".to_owned()),
        "the tag is believed: {calls:?}"
    );
    (bed, provider.unwrap())
}

/// Waves leave out what is kept, so the tag says nothing of it.
#[tokio::test]
async fn what_was_kept_gets_the_nodes_of_today() {
    let (bed, provider) = kept_while_nodes_change().await;
    settle(&provider, &web()).await.unwrap();
    assert_eq!(of_all_groups(&bed), instances(4..=6));
}

/// After a crash at any call of that the next process gives it its nodes: by its turn, or before.
#[tokio::test]
async fn what_was_kept_gets_its_nodes_after_a_crash_too() {
    for nth in 1_u64.. {
        let (bed, provider) = kept_while_nodes_change().await;
        bed.fake.reset_calls();
        bed.fake.fault(Fault::writes().nth(nth).drop_after());
        let _ = settle(&provider, &web()).await;
        drop(provider);
        bed.fake.clear_faults();
        let provider = bed.start().await.unwrap();
        settle(&provider, &web()).await.unwrap();
        assert_eq!(of_all_groups(&bed), instances(4..=6), "call {nth}");
        if bed.fake.counts().writes() < nth {
            assert!(nth > 3, "{nth}");
            break;
        }
    }
}

/// A list that leaves out the backend group does not take its tag away: the next wave does, before it changes
/// a target group.
#[tokio::test]
async fn a_list_that_lags_behind_leaves_no_wrong_tag() {
    let mut config = Config::default();
    config.settings.lag = Duration::from_secs(30);
    let mut bed = Bed::with(config).await;
    let provider = bed.start().await.unwrap();
    settle(&provider, &web()).await.unwrap();
    provider.look().await;
    bed.add_node();
    bed.retarget(&provider).await.unwrap();
    // It crashes, and the node is gone when the next process starts.
    drop(provider);
    bed.nodes -= 1;
    bed.fake.advance(Duration::from_secs(30));
    let provider = bed.start().await.unwrap();
    settle(&provider, &web()).await.unwrap();
    assert_eq!(of_all_groups(&bed), instances(1..=3));
}
