//! What `ballast plan` says is what happens: the calls of a preview, and those of the provider.

use std::collections::BTreeMap;

use ballast_aws::preview;
use ballast_provider::{Key, LoadBalancer, Member, Placement, Target, TargetSet};

use crate::bed::{Bed, ensure, instance, service, settle, with, writes};

fn members(all: &[LoadBalancer]) -> Vec<Member> {
    all.iter()
        .map(|one| Member {
            load_balancer: one.clone(),
            published: Vec::new(),
            placement: Placement::default(),
            endpoints: None,
        })
        .collect()
}

fn targets() -> TargetSet {
    let node = |number| Target {
        name: format!("node-{number}"),
        addresses: Vec::new(),
        provider_id: Some(format!("aws:///a/{}", instance(number))),
        labels: std::sync::Arc::default(),
    };
    TargetSet {
        nodes: (1..=3).map(node).collect(),
        ..TargetSet::default()
    }
}

fn counted<'a>(actions: impl IntoIterator<Item = &'a str>) -> BTreeMap<&'a str, usize> {
    let mut all = BTreeMap::new();
    for action in actions {
        *all.entry(action).or_default() += 1;
    }
    all
}

#[tokio::test]
async fn what_a_preview_says_is_what_happens() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let plan = |before: &[LoadBalancer], after: &[LoadBalancer]| {
        let key = Key::alone(&after[0].id);
        let calls = preview::calls(
            &key,
            &members(before),
            &members(after),
            &bed.class,
            &targets(),
        );
        calls.unwrap()
    };
    let first = service("first", &[(80, 30_080)]);
    let (_, calls) = bed.calls_of(settle(&provider, &first)).await;
    let planned = plan(&[], &[first]);
    let planned = planned.iter().map(ballast_aws::Call::action);
    let planned = counted(planned.chain(preview::OF_CLASS));
    assert_eq!(counted(writes(&calls)), planned, "the first of the class");

    let steps = [
        service("web", &[(80, 30_180)]),
        service("web", &[(80, 30_180), (443, 30_443)]),
        with(
            service("web", &[(80, 30_180), (443, 30_443)]),
            "attributes",
            "load_balancing.cross_zone.enabled=true",
        ),
        service("web", &[(443, 30_443)]),
    ];
    let mut before: Vec<LoadBalancer> = Vec::new();
    for step in steps {
        let planned = plan(&before, std::slice::from_ref(&step));
        let planned = counted(planned.iter().map(ballast_aws::Call::action));
        let (_, calls) = bed.calls_of(settle(&provider, &step)).await;
        assert_eq!(counted(writes(&calls)), planned, "{step:?}");
        assert!(!planned.is_empty(), "{step:?}");
        before = vec![step];
    }
    let (_, calls) = bed.calls_of(ensure(&provider, &before[0])).await;
    assert_eq!(writes(&calls), Vec::<&str>::new());
    assert_eq!(plan(&before, &before), Vec::new());
}
