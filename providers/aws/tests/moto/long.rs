//! More stories, for `make test-long`: every kind of change, a crash at each call that changes
//! something, and processes that start.

use ballast_aws_fake::Fault;
use ballast_provider::LoadBalancer;

use crate::bed::Bed;
use crate::support::{delete, service, services, settle, with};

/// From what a Service has to what it wants.
type Change = (&'static str, LoadBalancer, LoadBalancer);

fn web() -> LoadBalancer {
    service("web", &[(80, 30_080)])
}

fn two() -> LoadBalancer {
    service("web", &[(80, 30_080), (443, 30_443)])
}

fn changes() -> Vec<Change> {
    let mut ranges = web();
    ranges.source_ranges = vec!["10.9.0.0/16".parse().unwrap()];
    let attributes = with(
        with(
            web(),
            "attributes",
            "load_balancing.cross_zone.enabled=true",
        ),
        "target-group-attributes",
        "deregistration_delay.timeout_seconds=30",
    );
    vec![
        ("a port more", web(), two()),
        ("a port less", two(), web()),
        ("another node port", web(), service("web", &[(80, 30_081)])),
        ("other clients", web(), ranges),
        ("attributes", web(), attributes.clone()),
        ("attributes gone", attributes, web()),
        (
            "tags",
            web(),
            with(web(), "additional-resource-tags", "team=shop"),
        ),
        ("a check", web(), with(web(), "healthcheck-interval", "30")),
        ("proxy protocol", web(), with(web(), "proxy-protocol", "*")),
    ]
}

/// What a process knows after a change is what another one reads, and there is nothing to do.
#[tokio::test]
async fn after_each_change_moto_has_what_was_wanted() {
    let bed = Bed::new(2).await;
    for (what, before, wanted) in changes() {
        let provider = bed.start().await;
        settle(&provider, &before).await.expect(what);
        provider.look().await;
        settle(&provider, &wanted).await.expect(what);
        provider.look().await;
        assert_eq!(provider.look().await, [], "{what}");
        let (settled, calls) = bed.calls_of(settle(&provider, &wanted)).await;
        settled.expect(what);
        assert_eq!(calls, Vec::<String>::new(), "{what}");
        let ports: Vec<u16> = wanted.listeners.iter().map(|one| one.port).collect();
        assert_eq!(bed.listeners().await, ports, "{what}");
        // A process that starts reads everything, and finds nothing to do either.
        let provider = bed.start().await;
        provider.look().await;
        bed.moto.reset_calls();
        settle(&provider, &wanted).await.expect(what);
        assert_eq!(bed.moto.counts().writes(), 0, "{what}");
        assert_ne!(bed.left().await, Vec::<String>::new());
        delete(&provider, &wanted, |_| {}).await.expect(what);
        assert_eq!(bed.left().await, Vec::<String>::new(), "{what}");
    }
}

#[tokio::test]
async fn a_crash_at_any_call_is_made_up_for() {
    let bed = Bed::new(2).await;
    let provider = bed.start().await;
    bed.moto.reset_calls();
    settle(&provider, &two()).await.unwrap();
    let writes = bed.moto.counts().writes();
    assert!(writes > 7, "{writes}");
    delete(&provider, &two(), |_| {}).await.unwrap();
    for (nth, after) in (1..=writes).flat_map(|nth| [(nth, true), (nth, false)]) {
        let fault = Fault::writes().nth(nth);
        bed.moto.fault(if after {
            fault.drop_after()
        } else {
            fault.drop_before()
        });
        let provider = bed.start().await;
        let _ = settle(&provider, &two()).await;
        drop(provider);
        bed.moto.clear_faults();
        let provider = bed.start().await;
        settle(&provider, &two()).await.unwrap();
        assert_eq!(bed.listeners().await, [80, 443], "call {nth}, {after}");
        assert_eq!(bed.targets().await, [2, 2], "call {nth}, {after}");
        delete(&provider, &two(), |_| {}).await.unwrap();
        let left = bed.left().await;
        assert_eq!(left, Vec::<String>::new(), "call {nth}, {after}");
    }
}

#[tokio::test]
async fn a_process_that_starts_reads_and_changes_only_what_differs() {
    let mut bed = Bed::new(2).await;
    let all = services(30);
    let provider = bed.start().await;
    for one in &all {
        settle(&provider, one).await.unwrap();
    }
    drop(provider);
    let ((), calls) = bed.calls_of(turns(&bed, &all)).await;
    // Three lists, and the tags of 60 objects in calls of 20.
    assert_eq!(calls.len(), 6, "{calls:?}");
    bed.add_node().await;
    let ((), calls) = bed.calls_of(turns(&bed, &all)).await;
    // Each target group is read and changed, and two tags are written.
    assert_eq!(calls.len(), 6 + 60 + 2, "{calls:?}");
    assert_eq!(bed.targets().await, [3; 30]);
    let provider = bed.start().await;
    for one in &all {
        delete(&provider, one, |_| {}).await.unwrap();
    }
    assert_eq!(bed.left().await, Vec::<String>::new());
}

/// A process starts, and each Service has its turns.
async fn turns(bed: &Bed, all: &[LoadBalancer]) {
    let provider = bed.start().await;
    for one in all {
        settle(&provider, one).await.unwrap();
    }
}
