//! Listeners that divide their connections among Services of one load balancer.

mod faults;

use std::time::Duration;

use ballast_aws::annotations::ACTIONS;
use ballast_provider::{LoadBalancer, Protocol, Provider};

use crate::bed::{Bed, writes};
use crate::sharing::{leave, member, turn};
use crate::support::settle_all;

/// Port 80 of this Service is divided by these weights.
fn divided(name: &str, shares: &[(&str, u16, u32)]) -> LoadBalancer {
    weighted(member(name, 80), "TCP-80", shares)
}

/// A listener of this Service, such as `TCP-80`, is divided by these weights.
fn weighted(mut one: LoadBalancer, listener: &str, shares: &[(&str, u16, u32)]) -> LoadBalancer {
    let groups = shares.iter().map(|(service, port, weight)| {
        format!(r#"{{"serviceName":"{service}","servicePort":{port},"weight":{weight}}}"#)
    });
    let groups = groups.collect::<Vec<_>>().join(",");
    let value = format!(r#"{{"type":"forward","forwardConfig":{{"targetGroups":[{groups}]}}}}"#);
    one.settings.insert(format!("{ACTIONS}{listener}"), value);
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

/// `web` and a third one have the weight 0, and the one with all of it leaves.
#[tokio::test]
async fn who_leaves_with_all_connections_stops_no_other() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let web = divided(
        "web",
        &[("web", 80, 0), ("next", 81, 100), ("third", 82, 0)],
    );
    let (next, third) = (member("next", 81), member("third", 82));
    let all = [web.clone(), next.clone(), third.clone()];
    settle_all(&provider, &all).await.unwrap();
    leave(&bed, &provider, &next).await.unwrap();
    let get = |all: &[(String, Option<u32>)]| all.iter().any(|(_, it)| it.unwrap_or(1) > 0);
    let left = weights(&bed);
    assert!(get(&left), "{left:?}");
    settle_all(&provider, &[web, third]).await.unwrap();
    let left = weights(&bed);
    assert!(get(&left), "{left:?}");
}

/// A Service gets another number for its port, comes back, and the weights are removed.
#[tokio::test]
async fn a_service_without_the_port_gets_nothing() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let web = divided("web", &[("web", 80, 0), ("next", 81, 100)]);
    let both = [web.clone(), member("next", 81)];
    settle_all(&provider, &both).await.unwrap();
    let moved = [web.clone(), member("next", 83)];
    let seen = settle_all(&provider, &moved).await.unwrap();
    let said = seen[0].1.remarks.join(" ");
    assert!(said.contains("has no port 81"), "{said}");
    assert_eq!(weights(&bed).len(), 1);
    settle_all(&provider, &both).await.unwrap();
    assert_eq!(weights(&bed).len(), 2);
    let mut plain = web;
    plain.settings.retain(|key, _| !key.starts_with(ACTIONS));
    settle_all(&provider, &[plain, member("next", 81)])
        .await
        .unwrap();
    assert_eq!(weights(&bed).len(), 1);
}

/// Weights that somebody changes by hand are undone by looks.
#[tokio::test]
async fn changes_of_weights_by_hand_are_undone() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let both = [
        divided("web", &[("web", 80, 0), ("next", 81, 100)]),
        member("next", 81),
    ];
    settle_all(&provider, &both).await.unwrap();
    let before = weights(&bed);
    bed.fake.edit(|cloud, _| {
        let mut listeners = cloud.listeners.values_mut();
        let listener = listeners.find(|it| it.port == 80).unwrap();
        for (_, weight) in &mut listener.forward {
            *weight = Some(7);
        }
    });
    bed.fake.advance(Duration::from_mins(10));
    for _ in 0..6 {
        provider.look().await;
    }
    settle_all(&provider, &both).await.unwrap();
    assert_eq!(weights(&bed), before);
}

/// TCP and UDP on one port are one listener, so two annotations for it contradict each other.
#[tokio::test]
async fn two_annotations_for_one_listener_are_refused() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let both_protocols = |name, port| {
        let mut one = member(name, port);
        let mut second = one.listeners[0].clone();
        second.protocol = Protocol::Udp;
        one.listeners.push(second);
        one
    };
    let web = both_protocols("web", 80);
    let web = weighted(web, "TCP-80", &[("web", 80, 90), ("next", 81, 10)]);
    let web = weighted(web, "UDP-80", &[("web", 80, 30), ("next", 81, 10)]);
    let why = turn(&provider, &[web, both_protocols("next", 81)]).await;
    let why = why.unwrap_err().to_string();
    assert!(why.contains("UDP-80"), "{why}");
}
