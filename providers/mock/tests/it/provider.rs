//! Tests of the provider with a server in the same process: calls, errors, changes.

use std::net::IpAddr;
use std::time::Duration;

use crate::support::nodes::port;
use crate::support::{
    Cloud, balancer, call, eventually, get, id, listener, load_balancer, mark, options,
};
use ballast_mock::{MockInventory, MockProvider, Token};
use ballast_provider::{
    Balancer, Cause, Change, Inventory, Key, LoadBalancer, Mark, Observed, Protocol, Provider,
    ProviderError, Published, Reason, Released, Removal, State,
};
use futures::StreamExt;
use futures::stream::BoxStream;
use serde_json::json;

mod addresses;
mod notes;
mod refusals;

fn tcp(name: &str) -> LoadBalancer {
    load_balancer(name, vec![listener(Protocol::Tcp, port(), 30_080)])
}

async fn restored(cloud: &Cloud) -> MockProvider {
    let provider = cloud.provider();
    provider.restore(Vec::new()).await.unwrap();
    provider
}

async fn ensure(provider: &MockProvider, wanted: &Balancer) -> Observed {
    provider.ensure(wanted).await.unwrap().remove(0).1
}

async fn refused(provider: &MockProvider, wanted: &Balancer) -> (Reason, String) {
    match provider.ensure(wanted).await {
        Err(ProviderError::Refused(refusal)) => (refusal.reason, refusal.message),
        other => panic!("not refused: {other:?}"),
    }
}

async fn calls(cloud: &Cloud) -> (u64, u64) {
    let (_, page) = get(cloud, "/v1/calls").await;
    // The log does not contain the current call yet.
    (
        page["total"].as_u64().unwrap(),
        page["mutating"].as_u64().unwrap(),
    )
}

async fn next(changes: &mut BoxStream<'static, Change>) -> Change {
    let next = tokio::time::timeout(crate::support::DEADLINE, changes.next());
    next.await.unwrap().unwrap()
}

fn change(name: &str, cause: Cause) -> Change {
    Change {
        id: id(name),
        key: Some(Key::alone(&id(name))),
        cause,
        difference: String::new(),
    }
}

#[tokio::test]
async fn a_load_balancer_is_made_seen_again_and_released() {
    let state = tempfile::tempdir().unwrap();
    let cloud = Cloud::start(options(&state)).await;
    let provider = restored(&cloud).await;
    let web = balancer(tcp("web"));
    let first = ensure(&provider, &web).await;
    assert_eq!(first.state, State::Programmed);
    let before = calls(&cloud).await;
    assert_eq!(ensure(&provider, &web).await, first);
    assert_eq!(
        calls(&cloud).await,
        (before.0 + 1, before.1),
        "no call at all but ours"
    );
    assert_eq!(provider.inventory().await.unwrap()[0].services, [id("web")]);
    let released = provider
        .release(&id("web"), &Key::alone(&id("web")), Removal::Delete)
        .await
        .unwrap();
    assert_eq!(released, Released::Gone);
    assert!(provider.inventory().await.unwrap().is_empty());
    tokio::time::timeout(Duration::from_secs(10), cloud.stop())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_restart_of_both_sides_costs_two_reads() {
    let state = tempfile::tempdir().unwrap();
    let options = options(&state);
    let cloud = Cloud::start(options.clone()).await;
    let provider = restored(&cloud).await;
    let services: Vec<Balancer> = (0..20).map(|n| balancer(tcp(&format!("s{n}")))).collect();
    let mut before = Vec::new();
    for service in &services {
        before.push(ensure(&provider, service).await);
    }
    cloud.stop().await;
    let cloud = Cloud::start(options).await;
    let provider = restored(&cloud).await;
    for (service, observed) in services.iter().zip(&before) {
        assert_eq!(ensure(&provider, service).await, *observed);
    }
    assert_eq!(
        calls(&cloud).await,
        (1, 0),
        "one page is listed, that is all"
    );
}

#[tokio::test]
async fn provisioning_is_followed_to_its_end_without_another_write() {
    let state = tempfile::tempdir().unwrap();
    let mut options = options(&state);
    options.provisioning_latency = Duration::from_millis(150);
    options.deletion_latency = Duration::from_millis(150);
    let cloud = Cloud::start(options).await;
    let provider = restored(&cloud).await;
    let mut changes = provider.changes();
    let web = balancer(tcp("web"));
    let first = ensure(&provider, &web).await;
    let State::Pending { reason, .. } = &first.state else {
        panic!("{first:?}");
    };
    assert_eq!(*reason, Reason::Provisioning);
    let mutating = calls(&cloud).await.1;
    loop {
        let change = next(&mut changes).await;
        assert_eq!(change.id, id("web"));
        if change.cause == Cause::Active {
            break;
        }
    }
    let active = ensure(&provider, &web).await;
    assert_eq!(
        (active.state, &active.ingress),
        (State::Programmed, &first.ingress)
    );
    assert_eq!(calls(&cloud).await.1, mutating);

    let released = provider
        .release(&id("web"), &Key::alone(&id("web")), Removal::Delete)
        .await
        .unwrap();
    assert!(matches!(released, Released::InProgress { .. }));
    let again = ensure(&provider, &web).await;
    assert!(
        matches!(
            again.state,
            State::Pending {
                reason: Reason::Releasing,
                ..
            }
        ),
        "{again:?}"
    );
    while next(&mut changes).await != change("web", Cause::Gone) {}
    let released = provider
        .release(&id("web"), &Key::alone(&id("web")), Removal::Delete)
        .await
        .unwrap();
    assert_eq!(released, Released::Gone);
}

#[tokio::test]
async fn what_others_do_to_our_load_balancer_is_told_and_repaired() {
    let state = tempfile::tempdir().unwrap();
    let cloud = Cloud::start(options(&state)).await;
    let provider = restored(&cloud).await;
    let mut changes = provider.changes();
    let web = balancer(tcp("web"));
    let first = ensure(&provider, &web).await;
    let name = provider.inventory().await.unwrap().remove(0).name;
    let path = format!("/v1/load-balancers/{name}");

    let mut desired = get(&cloud, &path).await.1["desired"].clone();
    desired["affinity"] = json!({"clientIp": {"timeoutSeconds": 5}});
    let (status, _) = call(&cloud, "PUT", &path, Some(json!({"desired": desired}))).await;
    assert_eq!(status, 200);
    assert_eq!(next(&mut changes).await, change("web", Cause::Drifted));
    assert_eq!(ensure(&provider, &web).await, first);
    assert_eq!(
        get(&cloud, &path).await.1["desired"]["affinity"],
        "none",
        "repaired"
    );

    assert_eq!(call(&cloud, "DELETE", &path, None).await.0, 204);
    assert_eq!(next(&mut changes).await, change("web", Cause::Gone));
    let mut published = web.clone();
    published.members[0].published = first
        .ingress
        .iter()
        .filter_map(ballast_provider::Ingress::ip)
        .collect();
    assert_eq!(
        ensure(&provider, &published).await,
        first,
        "made again with its address"
    );
}

#[tokio::test]
async fn a_cloud_that_lost_its_state_is_filled_again_with_the_same_addresses() {
    let state = tempfile::tempdir().unwrap();
    let mut options = options(&state);
    let cloud = Cloud::start(options.clone()).await;
    options.listen = cloud.address;
    let provider = restored(&cloud).await;
    provider
        .retarget(&ballast_provider::conformance::targets(2), &[])
        .await
        .unwrap();
    let mut services = vec![balancer(tcp("a")), balancer(tcp("b"))];
    let mut before = Vec::new();
    for service in &mut services {
        let observed = ensure(&provider, service).await;
        service.members[0].published = vec![observed.ingress[0].ip().unwrap()];
        before.push(observed);
    }
    let mut changes = provider.changes();
    cloud.stop().await;
    let empty = tempfile::tempdir().unwrap();
    options.state_dir = empty.path().to_owned();
    let cloud = Cloud::start(options).await;
    // So early that the provider has not noticed the loss: it lists the cloud first, and the
    // Service gets no address of another one.
    let early = ensure(&provider, &balancer(tcp("new"))).await;
    for observed in &before {
        assert_ne!(early.ingress[0].ip(), observed.ingress[0].ip());
    }
    let mut gone = vec![next(&mut changes).await, next(&mut changes).await];
    gone.sort_by(|a, b| a.id.cmp(&b.id));
    assert_eq!(gone, [change("a", Cause::Gone), change("b", Cause::Gone)]);
    // A new Service comes before the old load balancers exist again: it gets none of their
    // addresses.
    let new = ensure(&provider, &balancer(tcp("new"))).await;
    for (service, observed) in services.iter().zip(&before) {
        assert_eq!(ensure(&provider, service).await, *observed);
        assert_ne!(new.ingress[0].ip(), observed.ingress[0].ip());
    }
    let targets = get(&cloud, "/v1/calls").await.1;
    let put = |call: &serde_json::Value| {
        call["method"] == "PUT"
            && call["path"]
                .as_str()
                .unwrap()
                .starts_with("/v1/target-sets/")
    };
    assert!(
        targets["items"].as_array().unwrap().iter().any(put),
        "targets are put again"
    );
}

#[tokio::test]
async fn after_a_restart_of_the_controller_published_addresses_are_reserved() {
    let state = tempfile::tempdir().unwrap();
    let mut options = options(&state);
    options.addresses = vec!["127.77.77.1-127.77.77.3".parse().unwrap()];
    let cloud = Cloud::start(options).await;
    let provider = cloud.provider();
    let published: IpAddr = "127.77.77.1".parse().unwrap();
    let old = Published {
        id: id("old"),
        addresses: vec![published],
        hostnames: Vec::new(),
    };
    provider.restore(vec![old]).await.unwrap();
    let new = ensure(&provider, &balancer(tcp("new"))).await;
    assert_eq!(new.ingress[0].ip(), Some("127.77.77.2".parse().unwrap()));
    // The old Service is gone, so its address is free.
    provider
        .release(&id("old"), &Key::alone(&id("old")), Removal::Delete)
        .await
        .unwrap();
    let next = ensure(&provider, &balancer(tcp("next"))).await;
    assert_eq!(next.ingress[0].ip(), Some(published));
}

#[tokio::test]
async fn a_class_keeps_one_target_set_for_all() {
    let state = tempfile::tempdir().unwrap();
    let cloud = Cloud::start(options(&state)).await;
    let provider = restored(&cloud).await;
    for name in ["a", "b", "c"] {
        ensure(&provider, &balancer(tcp(name))).await;
    }
    let before = calls(&cloud).await.1;
    let targets = ballast_provider::conformance::targets(3);
    provider.retarget(&targets, &[]).await.unwrap();
    assert_eq!(
        calls(&cloud).await.1,
        before + 1,
        "one call for a change of nodes"
    );
    let name = provider.inventory().await.unwrap().remove(0).name;
    let health = eventually("3 targets", async || {
        let health = get(&cloud, &format!("/v1/load-balancers/{name}/targets"))
            .await
            .1;
        (health.as_array()?.len() == 3).then_some(health)
    })
    .await;
    assert_eq!(
        health[0]["listener"].as_str().unwrap().split('/').next(),
        Some("TCP")
    );
}

/// Two classes use one cloud under two URLs.
#[tokio::test]
async fn a_cloud_has_one_identity_under_all_its_urls() {
    let state = tempfile::tempdir().unwrap();
    let options = options(&state);
    let cloud = Cloud::start(options.clone()).await;
    let port = cloud.address.port();
    let urls = ["http://127.0.0.1", "HTTP://LocalHost"].map(|host| format!("{host}:{port}/"));
    let [one, two] = urls.map(|url| MockProvider::new(&url, None, mark()).unwrap());
    assert_eq!(one.clouds(), [""; 0], "unknown before the first list");
    for provider in [&one, &two] {
        provider.restore(Vec::new()).await.unwrap();
    }
    let first = one.clouds();
    assert_eq!(first.len(), 1);
    assert_eq!(two.clouds(), first);
    cloud.stop().await;
    // The identity is part of the state.
    let elsewhere = tempfile::tempdir().unwrap();
    let other = Cloud::start(ballast_mock::server::ServerOptions {
        state_dir: elsewhere.path().to_owned(),
        ..options
    })
    .await;
    let fresh = restored(&other).await;
    assert_ne!(fresh.clouds(), first);
    let one = MockProvider::new(&other.endpoint(), None, mark()).unwrap();
    one.restore(Vec::new()).await.unwrap();
    assert_eq!(one.clouds(), fresh.clouds());
}

/// For commands that know no cluster: whatever carries the tags of any of them.
#[tokio::test]
async fn the_inventory_of_a_cloud_lists_every_cluster_and_class() {
    let state = tempfile::tempdir().unwrap();
    let cloud = Cloud::start(options(&state)).await;
    let others = [
        ("c-1", "local"),
        ("c-1", "second"),
        ("c-2", "local"),
        ("", ""),
    ];
    let mut expected = Vec::new();
    for (number, (cluster, class)) in others.into_iter().enumerate() {
        let own = Mark {
            cluster: cluster.to_owned(),
            cluster_name: String::new(),
            class: class.to_owned(),
            writer: "1".into(),
        };
        let provider = MockProvider::new(&cloud.endpoint(), Token::default(), own).unwrap();
        provider.restore(Vec::new()).await.unwrap();
        let web = balancer(tcp(&format!("s{number}")));
        ensure(&provider, &web).await;
        let id = web.members[0].load_balancer.id.clone();
        expected.push((Some(Key::alone(&id)), vec![id]));
    }
    let (_, page) = get(&cloud, "/v1/load-balancers").await;
    let mut by_hand = page["items"][0]["desired"].clone();
    by_hand["tags"] = json!({"owner": "somebody"});
    by_hand["listeners"][0]["port"] = port().into();
    let body = Some(json!({"desired": by_hand}));
    let (status, answer) = call(&cloud, "PUT", "/v1/load-balancers/by-hand", body).await;
    assert!(status < 300, "{status} {answer}");

    let inventory = MockInventory::new(&cloud.endpoint(), Token::default()).unwrap();
    let mut all = inventory.all().await.unwrap();
    all.sort_by(|a, b| a.services.cmp(&b.services));
    let named: Vec<_> = all
        .iter()
        .map(|owned| (owned.key.clone(), owned.services.clone()))
        .collect();
    assert_eq!(named, expected);
    for (owned, (cluster, class)) in all.iter().zip(others) {
        let mark = Mark::of(&owned.tags).unwrap();
        assert_eq!(
            (mark.cluster.as_str(), mark.class.as_str()),
            (cluster, class)
        );
        assert!(owned.name.starts_with("bl-"), "{}", owned.name);
    }
    cloud.stop().await;
}
