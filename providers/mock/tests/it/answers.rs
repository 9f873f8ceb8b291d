//! The provider of a cloud that answers anything: what it keeps, returns and logs is bounded.

use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use ballast_mock::MockProvider;
use ballast_provider::text::LONGEST;
use ballast_provider::{Protocol, Provider, ProviderError, State};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{balancer, listener, load_balancer, mark};

/// A cloud that answers lists with one function and everything else with the other.
async fn cloud(list: fn(&str) -> Value, rest: fn(&Request) -> Response) -> MockProvider {
    let router = Router::new().fallback(async move |request: Request| {
        if request.method() == Method::GET && request.uri().path() == "/v1/load-balancers" {
            return axum::Json(list(request.uri().query().unwrap_or_default())).into_response();
        }
        rest(&request)
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    MockProvider::new(&format!("http://{address}"), None, mark()).unwrap()
}

fn empty(_: &str) -> Value {
    json!({"items": [], "position": {"epoch": "e", "seq": 0}})
}

fn web() -> ballast_provider::Balancer {
    balancer(load_balancer(
        "web",
        vec![listener(Protocol::Tcp, 20_080, 30_080)],
    ))
}

fn refuses(length: usize) -> Response {
    let message = format!("first\nsecond {}", "x".repeat(length));
    let problem = json!({"code": "addressInUse", "message": message});
    (StatusCode::CONFLICT, axum::Json(problem)).into_response()
}

#[tokio::test]
async fn the_message_of_a_refusal_is_one_short_line() {
    let provider = cloud(empty, |_| refuses(20_000)).await;
    provider.restore(Vec::new()).await.unwrap();
    let error = provider.ensure(&web()).await.unwrap_err();
    let ProviderError::Refused(refusal) = error else {
        panic!("{error:?}");
    };
    assert!(refusal.message.starts_with("first second xxx"));
    assert_eq!(refusal.message.chars().count(), LONGEST);
}

/// It is not even received.
#[tokio::test]
async fn a_refusal_of_megabytes_counts_as_an_internal_error() {
    let provider = cloud(empty, |_| refuses(4_000_000)).await;
    provider.restore(Vec::new()).await.unwrap();
    let error = provider.ensure(&web()).await.unwrap_err();
    assert!(
        matches!(error, ProviderError::Transient { .. }),
        "{error:?}"
    );
    assert!(error.to_string().contains("internal error"), "{error}");
}

#[tokio::test]
async fn a_problem_of_a_load_balancer_is_one_short_line() {
    let provider = cloud(empty, |_| {
        let view = json!({
            "name": "bl-1",
            "seq": 1,
            "createdAt": "2026-01-01T00:00:00Z",
            "state": "provisioning",
            "problem": {"code": "portInUse", "message": format!("a\nb {}", "x".repeat(50_000))},
            "addresses": ["127.0.0.9"],
            "desired": {
                "listeners": [{"protocol": "TCP", "port": 80, "nodePort": 1}],
                "families": ["IPv4"],
                "trafficPolicy": "cluster",
                "affinity": "none",
                "targetSet": "nodes",
            },
        });
        axum::Json(view).into_response()
    })
    .await;
    provider.restore(Vec::new()).await.unwrap();
    let observed = provider.ensure(&web()).await.unwrap().remove(0).1;
    let State::Pending { message, .. } = observed.state else {
        panic!("{observed:?}");
    };
    assert!(message.starts_with("a b xxx"));
    assert_eq!(message.chars().count(), LONGEST);
}

#[tokio::test]
async fn a_list_without_end_is_given_up() {
    let endless = |query: &str| {
        let page = query.len();
        json!({
            "items": [],
            "nextPageToken": page.to_string(),
            "position": {"epoch": "e", "seq": 0},
        })
    };
    let provider = cloud(endless, |_| StatusCode::OK.into_response()).await;
    let error = provider.restore(Vec::new()).await.unwrap_err();
    assert!(
        matches!(error, ProviderError::Transient { .. }),
        "{error:?}"
    );
}

/// A pause that the cloud asks for cannot stop the class for ever.
#[tokio::test]
async fn the_pause_that_a_cloud_asks_for_is_bounded() {
    let provider = cloud(empty, |_| {
        let problem = json!({"code": "throttled", "message": "slow down"});
        let head = [("retry-after", "999999999")];
        (StatusCode::TOO_MANY_REQUESTS, head, axum::Json(problem)).into_response()
    })
    .await;
    provider.restore(Vec::new()).await.unwrap();
    let error = provider.ensure(&web()).await.unwrap_err();
    let ProviderError::Throttled { retry_after } = error else {
        panic!("{error:?}");
    };
    assert_eq!(retry_after.as_secs(), 300);
}
