//! Services whose load balancer sends only to nodes with some labels.

use std::sync::Arc;

use ballast_provider::LoadBalancer;

use crate::bed::{Bed, instance, registered, service, settle, with};

fn edge(name: &str, port: u16) -> LoadBalancer {
    with(
        service(name, &[(80, port)]),
        "target-node-labels",
        "pool=edge",
    )
}

/// The targets of the only target group.
fn targets(bed: &Bed) -> Vec<String> {
    let all = bed.fake.snapshot().target_groups;
    let [group] = &all.values().collect::<Vec<_>>()[..] else {
        panic!("{all:?}");
    };
    registered(group).into_iter().map(str::to_owned).collect()
}

fn label(bed: &mut Bed, node: u16, pool: &str) {
    let labels = Arc::new([("pool", pool)].into());
    bed.labels.insert(node, labels);
}

#[tokio::test]
async fn targets_are_the_nodes_with_the_labels() {
    let mut bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    settle(&provider, &edge("web", 30_080)).await.unwrap();
    assert_eq!(targets(&bed), [instance(1)]);
    // A node gets the label, and another one loses it.
    label(&mut bed, 2, "edge");
    bed.retarget(&provider).await.unwrap();
    assert_eq!(targets(&bed), [instance(1), instance(2)]);
    label(&mut bed, 1, "core");
    bed.retarget(&provider).await.unwrap();
    assert_eq!(targets(&bed), [instance(2)]);
    settle(&provider, &service("web", &[(80, 30_080)]))
        .await
        .unwrap();
    assert_eq!(targets(&bed), [instance(1), instance(2), instance(3)]);
}

#[tokio::test]
async fn a_label_that_no_service_names_costs_no_call() {
    let mut bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    settle(&provider, &edge("web", 30_080)).await.unwrap();
    label(&mut bed, 2, "other");
    let (retargeted, calls) = bed.calls_of(bed.retarget(&provider)).await;
    retargeted.unwrap();
    assert_eq!(calls, Vec::<String>::new());
}

#[tokio::test]
async fn a_restart_knows_without_a_call_whether_labels_have_changed() {
    let mut bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    settle(&provider, &service("all", &[(80, 30_080)]))
        .await
        .unwrap();
    settle(&provider, &edge("web", 30_081)).await.unwrap();
    drop(provider);
    let (provider, calls) = bed.calls_of(bed.start()).await;
    provider.unwrap();
    let asked = |calls: &[String], action: &str| calls.iter().any(|call| call == action);
    assert!(!asked(&calls, "DescribeTargetHealth"), "{calls:?}");
    label(&mut bed, 3, "edge");
    let (provider, calls) = bed.calls_of(bed.start()).await;
    provider.unwrap();
    assert!(asked(&calls, "RegisterTargets"), "{calls:?}");
    let (provider, calls) = bed.calls_of(bed.start()).await;
    provider.unwrap();
    assert!(!asked(&calls, "DescribeTargetHealth"), "{calls:?}");
}

#[tokio::test]
async fn labels_that_no_node_has_are_said() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let web = with(
        service("web", &[(80, 30_080)]),
        "target-node-labels",
        "pool=none",
    );
    let observed = settle(&provider, &web).await.unwrap();
    assert_eq!(targets(&bed), Vec::<String>::new());
    let said = |text: &String| text.contains("target-node-labels") && text.contains("pool=none");
    assert!(observed.remarks.iter().any(said), "{observed:?}");
    for bad in ["pool", "pool=a b", "po ol=a", "=a"] {
        let web = with(service("web", &[(80, 30_080)]), "target-node-labels", bad);
        let why = settle(&provider, &web).await.unwrap_err();
        assert!(why.to_string().contains("target-node-labels"), "{why}");
    }
}

/// The load balancer of another scheme that it replaces keeps the nodes that it had.
#[tokio::test]
async fn a_load_balancer_that_is_replaced_keeps_its_own_choice_of_nodes() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let web = service("web", &[(80, 30_080)]);
    settle(&provider, &web).await.unwrap();
    let other = with(web, "target-node-labels", "pool=edge");
    let other = with(other, "scheme", "internet-facing");
    settle(&provider, &other).await.unwrap();
    for process in [&provider, &bed.start().await.unwrap()] {
        let groups = bed.fake.snapshot().target_groups;
        let mut counts: Vec<usize> = groups.values().map(|one| registered(one).len()).collect();
        counts.sort_unstable();
        assert_eq!(counts, [1, 3]);
        bed.fake.reset_calls();
        settle(process, &other).await.unwrap();
        bed.retarget(process).await.unwrap();
        assert_eq!(bed.fake.counts().writes(), 0);
    }
}
