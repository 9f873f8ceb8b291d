//! The provider on moto, a fake of AWS by other authors: a second opinion on the form of calls and
//! answers, and on what there is after them. `scripts/moto` installs it.
//!
//! moto accepts what AWS refuses: equal names, groups that are in use, protected load balancers. It
//! knows no limits, no provisioning, no draining, and makes no capacity reservations. What depends on those is tested on the
//! strict fake.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // These are tests.
#![allow(missing_docs)]

mod bed;
mod long;
#[path = "../support/mod.rs"]
mod support;

use ballast_provider::{Address, State};

use bed::Bed;
use support::{delete, service, settle, with_pods};

/// Each step with the number of calls that it may cost, and what there is after it.
#[tokio::test]
async fn a_service_lives_its_life() {
    let mut bed = Bed::new(2).await;
    let provider = bed.start().await;
    let first = service("first", &[(80, 30_080)]);
    settle(&provider, &first).await.unwrap();

    let web = service("web", &[(80, 30_081)]);
    let (observed, calls) = bed.calls_of(settle(&provider, &web)).await;
    let observed = observed.unwrap();
    assert!(calls.len() <= 7, "{calls:?}");
    let [ingress] = &observed.ingress[..] else {
        panic!("{observed:?}");
    };
    assert!(matches!(&ingress.address, Address::Hostname(name) if name.contains(".elb.")));
    assert_eq!(bed.targets().await, [2, 2]);

    let (_, calls) = bed.calls_of(settle(&provider, &web)).await;
    assert_eq!(calls, Vec::<String>::new());

    provider.look().await;
    let observed = settle(&provider, &web).await.unwrap();
    assert_eq!(observed.state, State::Programmed);
    assert_eq!(
        observed.conditions[0].message, "2 of 2 targets are healthy",
        "{observed:?}"
    );
    assert_eq!(provider.look().await, [], "moto and the records differ");

    let web = service("web", &[(80, 30_081), (443, 30_443)]);
    let (observed, calls) = bed.calls_of(settle(&provider, &web)).await;
    observed.unwrap();
    assert!(calls.len() <= 5, "{calls:?}");
    assert_eq!(bed.listeners().await, [80, 80, 443]);

    bed.add_node().await;
    let (_, calls) = bed.calls_of(bed.retarget(&provider)).await;
    // One for each target group, and two tags.
    assert_eq!(calls.len(), 5, "{calls:?}");
    assert_eq!(bed.targets().await, [3, 3, 3]);

    let (deleted, calls) = bed.calls_of(delete(&provider, &web, |_| {})).await;
    deleted.unwrap();
    // The tags of what goes are read just before: one call for the load balancer and its target
    // groups, one for the security group. Then one for each of the four.
    assert!(calls.len() <= 6, "{calls:?}");
    assert_eq!(bed.targets().await, [3]);
    // Load balancer, target group, its security group, that of all, and the rule in the nodes' one.
    assert_eq!(bed.left().await.len(), 5);
    delete(&provider, &first, |_| {}).await.unwrap();
    assert_eq!(bed.left().await, Vec::<String>::new());
}

/// A second opinion on targets that are addresses.
#[tokio::test]
async fn pods_are_targets() {
    let bed = Bed::new(2).await;
    let provider = bed.start().await;
    let web = |pods: &[&str]| with_pods(service("web", &[(80, 30_080)]), pods);
    let before = ["10.0.1.10", "10.0.1.11", "10.0.1.12"];
    settle(&provider, &web(&before)).await.unwrap();
    assert_eq!(bed.targets().await, [3]);
    // moto does not know the attribute `preserve_client_ip.enabled` before somebody sets it.
    provider.look().await;
    settle(&provider, &web(&before)).await.unwrap();
    assert_eq!(provider.look().await, [], "moto and the records differ");
    let (after, calls) = bed.calls_of(settle(&provider, &web(&before[1..]))).await;
    after.unwrap();
    assert_eq!(calls, ["DeregisterTargets"]);
    assert_eq!(bed.targets().await, [2]);
    drop(provider);
    let provider = bed.start().await;
    let (after, calls) = bed.calls_of(settle(&provider, &web(&before[1..]))).await;
    after.unwrap();
    assert_eq!(calls, ["DescribeTargetHealth"]);
    delete(&provider, &web(&[]), |_| {}).await.unwrap();
    assert_eq!(bed.left().await, Vec::<String>::new());
}
