//! [`KubeLease`] over real HTTP, against the strict server.

use std::net::SocketAddr;

use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Client, Config};
use tokio::net::TcpListener;

use super::fake::{Request, Server};
use crate::lease::{
    CallError, KubeLease, LeaseApi,
    api::{Claim, claim, record},
};

const PATH: &str = "/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases";

fn answer(server: &Server, request: Request) -> Response {
    let status = |code: StatusCode, reason: &str| {
        let status = serde_json::json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": reason, "reason": reason, "code": code.as_u16(),
        });
        (code, Json(status)).into_response()
    };
    match server.answer(request) {
        Ok(Some(lease)) => Json(lease).into_response(),
        Ok(None) => status(StatusCode::NOT_FOUND, "NotFound"),
        Err(_) if server.lease().is_none() => status(StatusCode::NOT_FOUND, "NotFound"),
        Err(_) => status(StatusCode::CONFLICT, "Conflict"),
    }
}

/// A client of a server that knows one Lease, `ballast` in `ballast-system`.
async fn lease(server: &Server) -> KubeLease {
    let of = |(namespace, name): (String, String)| {
        assert_eq!(
            (namespace.as_str(), name.as_str()),
            ("ballast-system", "ballast")
        );
    };
    let one = get(async move |State(server): State<Server>, Path(path)| {
        of(path);
        answer(&server, Request::Get)
    })
    .put(
        async move |State(server): State<Server>, Path(path), Json(lease)| {
            of(path);
            answer(&server, Request::Replace(lease))
        },
    );
    let all = post(
        async move |State(server): State<Server>, Path(namespace), Json(lease): Json<Lease>| {
            of((namespace, lease.metadata.name.clone().unwrap()));
            answer(&server, Request::Create(lease))
        },
    );
    let router = Router::new()
        .route(PATH, all)
        .route(&format!("{PATH}/{{name}}"), one)
        .with_state(server.clone());
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = TcpListener::bind(any).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let client = Client::try_from(Config::new(url.parse().unwrap())).unwrap();
    KubeLease::new(client, "ballast-system", "ballast")
}

fn hold(identity: &str, epoch: u32) -> Claim<'_> {
    Claim::Hold {
        identity,
        duration: std::time::Duration::from_secs(15),
        epoch,
    }
}

#[tokio::test]
async fn creates_reads_and_replaces_with_a_guard() {
    let server = Server::default();
    let api = lease(&server).await;
    assert_eq!(api.get().await.unwrap(), None);

    let now = k8s_openapi::jiff::Timestamp::now();
    let first = claim(None, hold("a", 0), now);
    let created = api.create(first.clone()).await.unwrap();
    let seen = record(&created).unwrap();
    assert_eq!((seen.holder.as_deref(), seen.transitions), (Some("a"), 0));
    assert_eq!(api.get().await.unwrap(), Some(created.clone()));
    assert!(matches!(
        api.create(first.clone()).await,
        Err(CallError::Conflict)
    ));

    let second = claim(Some(&created), hold("b", 1), now);
    let replaced = api.replace(second.clone()).await.unwrap();
    assert_eq!(record(&replaced).unwrap().transitions, 1);
    // The version it builds on is gone.
    assert!(matches!(
        api.replace(second).await,
        Err(CallError::Conflict)
    ));
    // Never without a guard.
    assert!(matches!(
        api.replace(first).await,
        Err(CallError::NoVersion)
    ));

    // Gone since it was read.
    server.edit(|lease| *lease = None);
    assert!(matches!(
        api.replace(replaced).await,
        Err(CallError::Conflict)
    ));
}
