//! Which address a load balancer gets: requested ones, published ones, those of nodes and of other
//! clusters, and one family instead of two.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ballast_mock::MockProvider;
use ballast_provider::{
    Cause, Family, FamilyPolicy, Key, Mark, Provider, Published, Reason, Released, Removal, State,
    TargetSet,
};

use super::{calls, change, ensure, next, refused, restored, tcp};
use crate::support::{Cloud, balancer, call, get, id, options};

/// As docs/runbooks.md says.
#[tokio::test]
async fn the_cluster_that_has_an_address_is_named_and_the_address_can_be_freed() {
    let state = tempfile::tempdir().unwrap();
    let cloud = Cloud::start(options(&state)).await;
    let other = Mark {
        cluster: "0d1e".into(),
        cluster_name: "blue".into(),
        class: "local".into(),
        writer: "1".into(),
    };
    let theirs = MockProvider::new(&cloud.endpoint(), None, other).unwrap();
    theirs.restore(Vec::new()).await.unwrap();
    // The same namespace and name as here, which must not be confused.
    let address = ensure(&theirs, &balancer(tcp("web"))).await.ingress[0].ip();
    let holder = theirs.inventory().await.unwrap().remove(0).name;
    let expected = format!("belongs to load balancer {holder} of cluster blue (0d1e)");

    let ours = restored(&cloud).await;
    let mut changes = ours.changes();
    let mut new = balancer(tcp("new"));
    let mut served = balancer(tcp("served"));
    ensure(&ours, &served).await;
    for wish in [&mut new, &mut served] {
        wish.members[0].load_balancer.requested_addresses = address.into_iter().collect();
    }
    let (reason, message) = refused(&ours, &new).await;
    assert_eq!(reason, Reason::AddressInUse);
    assert!(message.contains(&expected), "{message}");
    let objection = ensure(&ours, &served).await.objection.unwrap();
    assert_eq!(objection.reason, Reason::AddressInUse);
    assert!(objection.message.contains(&expected), "{objection}");

    let path = format!("/v1/load-balancers/{holder}");
    let (_, view) = get(&cloud, &path).await;
    let tags = &view["desired"]["tags"];
    assert_eq!(tags["ballast.dev/service"], "shop/web");
    assert_eq!(call(&cloud, "DELETE", &path, None).await.0, 204);
    while next(&mut changes).await.id != id("new") {}
    let observed = ensure(&ours, &new).await;
    assert_eq!(observed.ingress[0].ip(), address);
}

/// A cloud that lost its state does not know the owner of an address; the Service does.
#[tokio::test]
async fn an_address_that_another_service_publishes_cannot_be_requested() {
    let state = tempfile::tempdir().unwrap();
    let options = options(&state);
    let address = options.addresses[0].to_string().replace("0/24", "77");
    let published: IpAddr = address.parse().unwrap();
    let cloud = Cloud::start(options).await;
    let provider = cloud.provider();
    let victim = Published {
        id: id("victim"),
        addresses: vec![published],
        hostnames: Vec::new(),
    };
    provider.restore(vec![victim]).await.unwrap();
    let mut thief = balancer(tcp("thief"));
    thief.members[0].load_balancer.requested_addresses = vec![published];
    let (reason, message) = refused(&provider, &thief).await;
    assert_eq!(reason, Reason::AddressInUse);
    assert!(message.contains("another Service"), "{message}");
    let mut victim = balancer(tcp("victim"));
    victim.members[0].published = vec![published];
    let observed = ensure(&provider, &victim).await;
    assert_eq!(observed.ingress[0].ip(), Some(published));
    assert_eq!(refused(&provider, &thief).await.0, Reason::AddressInUse);
}

/// Nodes that are no targets, such as excluded ones.
fn nodes_at(addresses: &[IpAddr]) -> TargetSet {
    TargetSet {
        nodes: BTreeSet::new(),
        addresses: addresses.iter().copied().collect(),
    }
}

#[tokio::test]
async fn an_address_of_any_node_is_not_assigned_whatever_the_service_publishes() {
    let state = tempfile::tempdir().unwrap();
    let cloud = Cloud::start(options(&state)).await;
    let provider = restored(&cloud).await;
    let web = balancer(tcp("web"));
    let first = ensure(&provider, &web).await.ingress[0].ip().unwrap();
    let (web_id, key) = (id("web"), Key::alone(&id("web")));
    let release = provider.release(&web_id, &key, Removal::Delete);
    assert_eq!(release.await.unwrap(), Released::Gone);
    provider.retarget(&nodes_at(&[first]), &[]).await.unwrap();
    let mut asks = balancer(tcp("asks"));
    asks.members[0].load_balancer.requested_addresses = vec![first];
    let (reason, message) = refused(&provider, &asks).await;
    assert_eq!(reason, Reason::AddressInUse);
    assert!(message.contains("node"), "{message}");
    // It is free as soon as the node is gone, and who waits for it is told.
    let mut changes = provider.changes();
    provider.retarget(&nodes_at(&[]), &[]).await.unwrap();
    assert_eq!(next(&mut changes).await, change("asks", Cause::Drifted));
    provider.retarget(&nodes_at(&[first]), &[]).await.unwrap();
    // Somebody else wrote the node's address into the status.
    let mut kept = web.clone();
    kept.members[0].published = vec![first];
    for publishes_it in [true, false] {
        let observed = ensure(&provider, &kept).await;
        let now = observed.ingress[0].ip().unwrap();
        assert_ne!(now, first);
        let said = format!("{first} in the status cannot be used: it is the address of a node");
        let objection = observed.objection.map(|it| (it.reason, it.message));
        if publishes_it {
            assert_eq!(objection, Some((Reason::AddressInUse, said)));
        } else {
            assert_eq!((objection, observed.remarks), (None, vec![said]));
        }
        kept.members[0].published = vec![now];
    }
    // The reason is still there after a restart of the controller and an edit.
    let provider = restored(&cloud).await;
    kept.members[0].load_balancer.listeners[0].node_port = 31_999;
    assert_eq!(ensure(&provider, &kept).await.remarks.len(), 1);
}

#[tokio::test]
async fn an_address_that_becomes_a_nodes_later_stays_and_the_service_says_so() {
    let state = tempfile::tempdir().unwrap();
    let cloud = Cloud::start(options(&state)).await;
    let provider = restored(&cloud).await;
    let web = balancer(tcp("web"));
    let before = ensure(&provider, &web).await;
    let address = before.ingress[0].ip().unwrap();
    let others = "192.0.2.9".parse().unwrap();
    provider
        .retarget(&nodes_at(&[others, address]), &[])
        .await
        .unwrap();
    let calls_before = calls(&cloud).await.1;
    let observed = ensure(&provider, &web).await;
    let objection = observed.objection.unwrap();
    assert_eq!(objection.reason, Reason::AddressInUse);
    assert!(objection.message.contains(&address.to_string()));
    assert_eq!(
        (observed.ingress, observed.state),
        (before.ingress.clone(), State::Programmed)
    );
    // An edit does not move it.
    let mut edited = web.clone();
    edited.members[0].load_balancer.listeners[0].node_port = 31_999;
    assert_eq!(ensure(&provider, &edited).await.ingress, before.ingress);
    assert_eq!(calls(&cloud).await.1, calls_before + 1);
    provider.retarget(&nodes_at(&[others]), &[]).await.unwrap();
    assert_eq!(ensure(&provider, &edited).await, before);
}

#[tokio::test]
async fn a_wish_that_cannot_be_met_does_not_hold_up_the_rest() {
    let state = tempfile::tempdir().unwrap();
    let cloud = Cloud::start(options(&state)).await;
    let provider = restored(&cloud).await;
    let mut changes = provider.changes();
    let taken = ensure(&provider, &balancer(tcp("other"))).await.ingress[0].ip();
    let mut web = balancer(tcp("web"));
    let before = ensure(&provider, &web).await;
    let wanted = &mut web.members[0].load_balancer;
    wanted.requested_addresses = taken.into_iter().collect();
    wanted.listeners[0].node_port = 31_999;
    let edited = ensure(&provider, &web).await;
    let objection = edited.objection.clone().unwrap();
    assert_eq!(objection.reason, Reason::AddressInUse);
    assert_eq!(
        (edited.state.clone(), &edited.ingress),
        (State::Programmed, &before.ingress)
    );
    let name = ballast_provider::mark::service_of;
    let (_, page) = get(&cloud, "/v1/load-balancers").await;
    let items: Vec<ballast_mock::api::LoadBalancerView> =
        serde_json::from_value(page["items"].clone()).unwrap();
    let there = items
        .iter()
        .find(|it| name(&it.desired.tags) == Some(id("web")));
    assert_eq!(there.unwrap().desired.listeners[0].node_port, 31_999);
    let made = calls(&cloud).await;
    assert_eq!(ensure(&provider, &web).await, edited);
    assert_eq!(
        calls(&cloud).await.1,
        made.1,
        "nothing is tried again before there is room"
    );
    provider
        .release(&id("other"), &Key::alone(&id("other")), Removal::Delete)
        .await
        .unwrap();
    while next(&mut changes).await.id != id("web") {}
    let moved = ensure(&provider, &web).await;
    assert_eq!((moved.ingress[0].ip(), moved.objection), (taken, None));
}

#[tokio::test]
async fn one_family_is_enough_for_who_prefers_two() {
    let state = tempfile::tempdir().unwrap();
    let mut options = options(&state);
    let cloud = Cloud::start(options.clone()).await;
    let provider = restored(&cloud).await;
    let mut changes = provider.changes();
    let mut both = balancer(tcp("both"));
    both.members[0].load_balancer.families = vec![Family::V4, Family::V6];
    both.members[0].placement.family_policy = FamilyPolicy::RequireDualStack;
    assert_eq!(
        refused(&provider, &both).await.0,
        Reason::NoAddressAvailable
    );
    both.members[0].placement.family_policy = FamilyPolicy::PreferDualStack;
    let one = ensure(&provider, &both).await;
    assert_eq!(
        (one.state.clone(), one.ingress.len()),
        (State::Programmed, 1)
    );
    assert!(
        one.remarks[0].contains("no IPv6 address"),
        "{:?}",
        one.remarks
    );
    let made = calls(&cloud).await;
    assert_eq!(ensure(&provider, &both).await, one);
    assert_eq!(calls(&cloud).await.1, made.1);
    let listen = cloud.address;
    cloud.stop().await;
    options.listen = listen;
    options.addresses.push("::1".parse().unwrap());
    let _cloud = Cloud::start(options).await;
    while next(&mut changes).await.id != id("both") {}
    let two = ensure(&provider, &both).await;
    assert_eq!((two.ingress.len(), two.remarks.len()), (2, 0));
    assert_eq!(two.ingress[0], one.ingress[0]);
}
