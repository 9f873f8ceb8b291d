//! Listeners that divide their connections among Services of one load balancer.

use ballast_aws::annotations::ACTIONS;
use ballast_provider::{LoadBalancer, Provider};

use crate::bed::{Bed, writes};
use crate::sharing::{leave, member, turn};
use crate::support::settle_all;

/// Port 80 of this Service is divided by these weights.
fn divided(name: &str, shares: &[(&str, u16, u32)]) -> LoadBalancer {
    let mut one = member(name, 80);
    let groups = shares.iter().map(|(service, port, weight)| {
        format!(r#"{{"serviceName":"{service}","servicePort":{port},"weight":{weight}}}"#)
    });
    let groups = groups.collect::<Vec<_>>().join(",");
    let value = format!(r#"{{"type":"forward","forwardConfig":{{"targetGroups":[{groups}]}}}}"#);
    one.settings.insert(format!("{ACTIONS}TCP-80"), value);
    one
}

/// The weights of port 80, by the Service of each target group.
fn weights(bed: &Bed) -> Vec<(String, Option<u32>)> {
    let all = bed.fake.snapshot();
    let listener = all.listeners.values().find(|it| it.port == 80).unwrap();
    let mut found: Vec<_> = listener
        .forward
        .iter()
        .map(|(arn, weight)| {
            let tags = &all.target_groups[arn].tags;
            (tags["ballast.dev/service"].clone(), *weight)
        })
        .collect();
    found.sort();
    found
}

fn expected(all: &[(&str, Option<u32>)]) -> Vec<(String, Option<u32>)> {
    let all = all
        .iter()
        .map(|(name, weight)| ((*name).to_owned(), *weight));
    all.collect()
}

#[tokio::test]
async fn a_new_version_gets_more_and_more() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let next = member("next", 81);
    let shares = |own, other| divided("web", &[("web", 80, own), ("next", 81, other)]);
    // It does not share yet, so the other one gets everything.
    let seen = turn(&provider, &[shares(90, 10)]).await.unwrap();
    let said = seen[0].remarks.join(" ");
    assert!(
        said.contains("next does not share this load balancer"),
        "{said}"
    );
    assert_eq!(weights(&bed).len(), 1);
    settle_all(&provider, &[shares(90, 10), next.clone()])
        .await
        .unwrap();
    let of = |own, other| expected(&[("shop/next", Some(other)), ("shop/web", Some(own))]);
    assert_eq!(weights(&bed), of(90, 10));
    for (own, other) in [(50, 50), (0, 100)] {
        let both = [shares(own, other), next.clone()];
        let (_, calls) = bed.calls_of(settle_all(&provider, &both)).await;
        assert_eq!(writes(&calls), ["RemoveTags", "ModifyListener", "AddTags"]);
        assert_eq!(weights(&bed), of(own, other));
        let (_, calls) = bed.calls_of(settle_all(&provider, &both)).await;
        assert_eq!(calls, [""; 0]);
    }
    // The same after a restart.
    drop(provider);
    let provider = bed.start().await.unwrap();
    let both = [shares(0, 100), next.clone()];
    let (_, calls) = bed.calls_of(settle_all(&provider, &both)).await;
    assert_eq!(writes(&calls), [""; 0]);
}

/// Who leaves takes its listeners and targets with it, and the other one serves on.
#[tokio::test]
async fn who_leaves_stops_no_other() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let (web, next) = (
        divided("web", &[("web", 80, 0), ("next", 81, 100)]),
        member("next", 81),
    );
    settle_all(&provider, &[web.clone(), next.clone()])
        .await
        .unwrap();
    leave(&bed, &provider, &next).await.unwrap();
    assert_eq!(weights(&bed).len(), 1);
    assert_eq!(weights(&bed)[0].0, "shop/web");
    assert_eq!(bed.fake.snapshot().target_groups.len(), 1);
    let seen = turn(&provider, std::slice::from_ref(&web)).await.unwrap();
    assert!(seen[0].remarks.join(" ").contains("next"), "{seen:?}");
    // Its load balancer, its target group and its security group.
    assert_eq!(provider.inventory().await.unwrap().len(), 3);
}
