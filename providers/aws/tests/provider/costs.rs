//! What each event costs in calls.

use std::time::Duration;

use ballast_aws_fake::Config;
use ballast_provider::{Address, State};

use crate::bed::{Bed, delete, ensure, service, settle, with};

#[tokio::test]
async fn the_first_service_of_a_cold_process_takes_twelve_calls_until_its_hostname() {
    let bed = Bed::new().await;
    let web = service("web", &[(80, 30_080)]);
    let (observed, calls) = bed
        .calls_of(async {
            let provider = bed.start().await.unwrap();
            ensure(&provider, &web).await.unwrap()
        })
        .await;
    let [ingress] = &observed.ingress[..] else {
        panic!("{observed:?}");
    };
    assert!(matches!(&ingress.address, Address::Hostname(name) if name.contains(".elb.")));
    insta::assert_debug_snapshot!(calls);
    assert!(calls.len() <= 12, "{calls:?}");
}

#[tokio::test]
async fn a_further_service_takes_seven_calls() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    settle(&provider, &service("first", &[(80, 30_080)]))
        .await
        .unwrap();
    let web = service("web", &[(80, 30_081)]);
    let (_, calls) = bed.calls_of(settle(&provider, &web)).await;
    insta::assert_debug_snapshot!(calls);
    let (_, calls) = bed.calls_of(settle(&provider, &web)).await;
    assert_eq!(calls, Vec::<String>::new());
    let same = with(web, "target-node-labels-typo", "x");
    let (refused, calls) = bed.calls_of(ensure(&provider, &same)).await;
    refused.unwrap_err();
    assert_eq!(calls, Vec::<String>::new());
}

#[tokio::test]
async fn a_start_with_unchanged_services_only_lists() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let all: Vec<_> = (0..50)
        .map(|number| service(&format!("web-{number}"), &[(80, 30_100 + number)]))
        .collect();
    for one in &all {
        settle(&provider, one).await.unwrap();
    }
    drop(provider);
    let (provider, calls) = bed
        .calls_of(async {
            let provider = bed.start().await.unwrap();
            for one in &all {
                settle(&provider, one).await.unwrap();
            }
            provider
        })
        .await;
    // 3 lists, and the tags of 100 objects in calls of 20.
    assert_eq!(calls.len(), 8, "{calls:?}");
    drop(provider);
    // A node came while nobody looked.
    let mut bed = bed;
    bed.add_node();
    let (provider, calls) = bed
        .calls_of(async {
            let provider = bed.start().await.unwrap();
            for one in &all {
                settle(&provider, one).await.unwrap();
            }
            provider
        })
        .await;
    let of = |action: &str| calls.iter().filter(|call| *call == action).count();
    assert_eq!(of("RegisterTargets"), 50);
    assert_eq!(of("DescribeTargetHealth"), 50);
    // The lists, and two tags around the wave.
    assert_eq!(calls.len(), 110, "{calls:?}");
    // A node comes while the process runs: no look at what each group has.
    bed.add_node();
    let (retargeted, calls) = bed.calls_of(bed.retarget(&provider)).await;
    retargeted.unwrap();
    assert_eq!(calls.len(), 52, "{calls:?}");
    let (retargeted, calls) = bed.calls_of(bed.retarget(&provider)).await;
    retargeted.unwrap();
    assert_eq!(calls, Vec::<String>::new());
}

#[tokio::test]
async fn another_port_takes_five_calls() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    settle(&provider, &service("web", &[(80, 30_080)]))
        .await
        .unwrap();
    let more = service("web", &[(80, 30_080), (443, 30_443)]);
    let (_, calls) = bed.calls_of(settle(&provider, &more)).await;
    insta::assert_debug_snapshot!(calls);
    assert!(calls.len() <= 5, "{calls:?}");
}

#[tokio::test]
async fn a_deletion_takes_few_calls_although_interfaces_linger() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let (web, other) = (
        service("web", &[(80, 30_080)]),
        service("other", &[(80, 30_081)]),
    );
    settle(&provider, &web).await.unwrap();
    settle(&provider, &other).await.unwrap();
    let (_, calls) = bed.calls_of(delete(&bed, &provider, &web)).await;
    assert!(calls.len() <= 8, "{calls:?}");
    let (_, calls) = bed.calls_of(delete(&bed, &provider, &other)).await;
    assert!(bed.is_empty(), "{:?}", bed.fake.snapshot());
    println!("the last one: {calls:?}");
    let mut config = Config::default();
    config.settings.interfaces_linger = Duration::ZERO;
    let bed = Bed::with(config).await;
    let provider = bed.start().await.unwrap();
    settle(&provider, &web).await.unwrap();
    let (_, calls) = bed.calls_of(delete(&bed, &provider, &web)).await;
    // Three read tags once more: people may have asked to keep it, or the security group of the class.
    assert!(calls.len() <= 8, "{calls:?}");
    assert!(bed.is_empty());
}

#[tokio::test]
async fn it_becomes_active_and_its_targets_healthy() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let web = service("web", &[(80, 30_080)]);
    let observed = settle(&provider, &web).await.unwrap();
    assert!(
        matches!(observed.state, State::Pending { .. }),
        "{observed:?}"
    );
    provider.look().await;
    bed.fake.advance(Duration::from_mins(10));
    let changes = provider.look().await;
    assert!(!changes.is_empty());
    let observed = settle(&provider, &web).await.unwrap();
    assert_eq!(observed.state, State::Programmed);
    let [condition] = &observed.conditions[..] else {
        panic!("{observed:?}");
    };
    assert_eq!(condition.message, "3 of 3 targets are healthy");
    let changes = provider.look().await;
    assert_eq!(changes, []);
}

/// No traffic flows before: one write to the Service says both. Whether the checks succeed or fail, it is
/// told when they have ended.
#[tokio::test]
async fn that_it_is_active_is_reported_with_the_health_of_its_targets() {
    for (healthy, expected) in [
        (true, "3 of 3 targets are healthy"),
        (false, "0 of 3 targets are healthy; 3: Health checks failed"),
    ] {
        let bed = Bed::new().await;
        bed.fake.edit(|cloud, _| {
            for node in cloud.instances.values_mut() {
                node.healthy = healthy;
            }
        });
        let provider = bed.start().await.unwrap();
        let web = service("web", &[(80, 30_080)]);
        settle(&provider, &web).await.unwrap();
        bed.fake.advance(Duration::from_secs(121));
        assert_eq!(provider.look().await, [], "its targets are examined");
        let observed = settle(&provider, &web).await.unwrap();
        assert!(!observed.ingress.is_empty(), "{observed:?}");
        assert!(
            matches!(observed.state, State::Pending { .. }),
            "{observed:?}"
        );
        assert_eq!(observed.conditions, []);
        bed.fake.advance(Duration::from_secs(90));
        let changes = provider.look().await;
        assert_eq!(changes.len(), 1, "{changes:?}");
        let observed = settle(&provider, &web).await.unwrap();
        assert_eq!(observed.state, State::Programmed);
        assert_eq!(observed.conditions[0].message, expected);
    }
}
