//! What a cloud refuses, and errors that pass.

use std::time::Duration;

use ballast_mock::MockProvider;
use ballast_provider::{
    Key, Listener, LoadBalancer, Protocol, Provider, ProviderError, Reason, Removal,
};

use super::{ensure, next, refused, restored, tcp};
use crate::support::{Cloud, balancer, eventually, id, listener, load_balancer, options};

#[tokio::test]
async fn refusals_name_the_reason_and_those_who_wait_are_woken() {
    let state = tempfile::tempdir().unwrap();
    let mut options = options(&state);
    options.addresses = vec!["127.77.78.1-127.77.78.2".parse().unwrap()];
    options.max_load_balancers = 3;
    let cloud = Cloud::start(options).await;
    let provider = restored(&cloud).await;
    let mut changes = provider.changes();
    let first = ensure(&provider, &balancer(tcp("a"))).await;
    let taken = first.ingress[0].ip().unwrap();

    let mut wants = tcp("wants");
    wants.requested_addresses = vec![taken];
    let (reason, message) = refused(&provider, &balancer(wants)).await;
    assert_eq!(reason, Reason::AddressInUse);
    assert!(
        message.contains(&taken.to_string()) && message.contains("shop/a"),
        "{message}"
    );

    let mut outside = tcp("outside");
    outside.requested_addresses = vec!["127.99.0.1".parse().unwrap()];
    let (reason, message) = refused(&provider, &balancer(outside)).await;
    assert_eq!(reason, Reason::NoAddressAvailable);
    assert!(message.contains("127.99.0.1") && message.contains("127.77.78.1-127.77.78.2"));

    let mut v6 = tcp("v6");
    v6.families = vec![ballast_provider::Family::V6];
    let (reason, message) = refused(&provider, &balancer(v6)).await;
    assert_eq!(reason, Reason::NoAddressAvailable);
    assert!(message.contains("IPv6"), "{message}");

    ensure(&provider, &balancer(tcp("b"))).await;
    assert_eq!(
        refused(&provider, &balancer(tcp("c"))).await.0,
        Reason::NoAddressAvailable
    );
    provider
        .release(&id("a"), &Key::alone(&id("a")), Removal::Delete)
        .await
        .unwrap();
    let mut woken: Vec<String> = Vec::new();
    while woken.len() < 4 {
        woken.push(next(&mut changes).await.id.name.to_string());
    }
    woken.sort();
    assert_eq!(woken, ["c", "outside", "v6", "wants"]);
}

#[tokio::test]
async fn the_quota_is_named() {
    let state = tempfile::tempdir().unwrap();
    let mut options = options(&state);
    options.max_load_balancers = 1;
    options.max_listeners = 1;
    let cloud = Cloud::start(options).await;
    let provider = restored(&cloud).await;
    ensure(&provider, &balancer(tcp("a"))).await;
    let (reason, message) = refused(&provider, &balancer(tcp("b"))).await;
    assert_eq!(reason, Reason::QuotaExceeded);
    assert!(message.contains("--max-load-balancers"), "{message}");
    let mut two = tcp("a");
    two.listeners.push(listener(Protocol::Udp, 53, 30_053));
    let (reason, message) = refused(&provider, &balancer(two)).await;
    assert_eq!(reason, Reason::QuotaExceeded);
    assert!(message.contains("2 listeners"), "{message}");
}

#[tokio::test]
async fn errors_that_pass_are_transient_and_stable() {
    let state = tempfile::tempdir().unwrap();
    let mut options = options(&state);
    options.token = Some("right".into());
    options.rate_limit = 1;
    let cloud = Cloud::start(options).await;
    // Each message says what to do: the controller has no token, or not the cloud's.
    for (token, words) in [
        (None, ["the controller has none", "--mock-token-file"]),
        (
            Some("wrong".to_owned()),
            ["does not accept", "--token-file of the cloud"],
        ),
    ] {
        let wrong = MockProvider::new(&cloud.endpoint(), token, crate::support::mark()).unwrap();
        wrong.restore(Vec::new()).await.unwrap();
        let error = wrong.ensure(&balancer(tcp("a"))).await.unwrap_err();
        assert!(
            matches!(&error, ProviderError::Transient { message, .. } if words.iter().all(|it| message.contains(it))),
            "{error:?}"
        );
    }
    let right = MockProvider::new(
        &cloud.endpoint(),
        Some("right".to_owned()),
        crate::support::mark(),
    );
    let right = right.unwrap();
    right.restore(Vec::new()).await.unwrap();
    ensure(&right, &balancer(tcp("a"))).await;
    let error = right.ensure(&balancer(tcp("b"))).await.unwrap_err();
    let expected = ProviderError::Throttled {
        retry_after: Duration::from_secs(1),
    };
    assert_eq!(error, expected);
    let endpoint = cloud.endpoint();
    cloud.stop().await;
    let expected = format!("the mock cloud at {endpoint} cannot be reached");
    for _ in 0..2 {
        let error = right.ensure(&balancer(tcp("c"))).await.unwrap_err();
        assert_eq!(error, ProviderError::transient(expected.clone()));
    }
}

/// A Secret is rotated without a restart of the controller.
#[tokio::test]
async fn a_token_file_is_read_again_when_the_cloud_refuses() {
    let state = tempfile::tempdir().unwrap();
    let [ours, theirs] = ["ours", "theirs"].map(|name| state.path().join(name));
    std::fs::write(&theirs, "one").unwrap();
    let mut options = options(&state);
    options.token = Some("one".into());
    options.token_file = Some(theirs.clone());
    let cloud = Cloud::start(options).await;
    // The controller starts before its copy of the token exists.
    let token = ballast_mock::Token::file(ours.clone());
    let provider = MockProvider::new(&cloud.endpoint(), token, crate::support::mark()).unwrap();
    provider.restore(Vec::new()).await.unwrap();
    let missing = provider.ensure(&balancer(tcp("a"))).await.unwrap_err();
    let said = missing.to_string();
    assert!(said.contains("found none in --mock-token-file"), "{said}");
    std::fs::write(&ours, "one\n").unwrap();
    eventually("the first token", async || {
        provider.ensure(&balancer(tcp("a"))).await.ok().map(drop)
    })
    .await;
    std::fs::write(&theirs, "two").unwrap();
    // The cloud accepts the old token until a client sends the new one.
    ensure(&provider, &balancer(tcp("b"))).await;
    let new = MockProvider::new(
        &cloud.endpoint(),
        Some("two".to_owned()),
        crate::support::mark(),
    );
    let new = new.unwrap();
    new.restore(Vec::new()).await.unwrap();
    eventually("the cloud reads its file", async || {
        new.ensure(&balancer(tcp("z"))).await.ok().map(drop)
    })
    .await;
    let refused = provider.ensure(&balancer(tcp("c"))).await.unwrap_err();
    let said = refused.to_string();
    assert!(said.contains("does not accept"), "{said}");
    std::fs::write(&ours, "two\n").unwrap();
    eventually("the second token", async || {
        provider.ensure(&balancer(tcp("c"))).await.ok().map(drop)
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_is_refused_without_a_call() {
    let provider = MockProvider::new("http://127.0.0.1:9", None, crate::support::mark()).unwrap();
    let zero = Listener {
        node_port: 0,
        ..listener(Protocol::Tcp, 80, 1)
    };
    for (wrong, reason, needle) in [
        (
            load_balancer("a", vec![]),
            Reason::Invalid,
            "spec.ports is empty",
        ),
        (
            load_balancer("a", vec![zero]),
            Reason::NodePortsMissing,
            "80/TCP",
        ),
        (
            load_balancer(
                "a",
                vec![
                    listener(Protocol::Udp, 53, 1),
                    listener(Protocol::Udp, 53, 2),
                ],
            ),
            Reason::Invalid,
            "UDP/53",
        ),
        (
            LoadBalancer {
                requested_addresses: vec!["fd00::1".parse().unwrap()],
                ..tcp("a")
            },
            Reason::Invalid,
            "fd00::1",
        ),
    ] {
        let refusal = provider.validate(&balancer(wrong)).unwrap_err();
        assert_eq!(refusal.reason, reason);
        assert!(refusal.message.contains(needle), "{refusal}");
    }
    assert!(provider.validate(&balancer(tcp("a"))).is_ok());
}
