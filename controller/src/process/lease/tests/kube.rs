//! [`KubeLease`] over real HTTP, against the strict server.

use std::net::SocketAddr;

use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use k8s_openapi::{
    api::coordination::v1::Lease, apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{Client, Config};
use tokio::net::TcpListener;

use super::fake::{Request, Server};
use crate::process::lease::{
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
    // The version that it replaces no longer exists.
    assert!(matches!(
        api.replace(second).await,
        Err(CallError::Conflict)
    ));
    // Never without a resource version.
    assert!(matches!(
        api.replace(first).await,
        Err(CallError::NoVersion)
    ));

    // Deleted since it was read.
    server.edit(|lease| *lease = None);
    assert!(matches!(
        api.replace(replaced).await,
        Err(CallError::Conflict)
    ));
}

/// Ballast was installed again before the garbage collector ran: the Lease belongs to the
/// previous installation, and would be deleted with it.
#[tokio::test]
async fn a_lease_of_a_predecessor_is_adopted_and_no_other() {
    let account = |name: &str, uid: &str| OwnerReference {
        api_version: "v1".into(),
        kind: "ServiceAccount".into(),
        name: name.into(),
        uid: uid.into(),
        ..OwnerReference::default()
    };
    let mine = account("ballast", "new");
    for (what, owners, expected) in [
        (
            "a predecessor's",
            vec![account("ballast", "old")],
            vec![mine.clone()],
        ),
        ("its own", vec![mine.clone()], vec![mine.clone()]),
        (
            "somebody else's",
            vec![account("other", "old")],
            vec![account("other", "old")],
        ),
    ] {
        let server = Server::default();
        let bare = lease(&server).await;
        let first = claim(None, hold("a", 1), k8s_openapi::jiff::Timestamp::now());
        bare.create(first).await.unwrap();
        let lease = bare.owned_by(Some(mine.clone()));
        let mut there = lease.get().await.unwrap().unwrap();
        there.metadata.owner_references = Some(owners);
        let next = claim(
            Some(&there),
            hold("b", 2),
            k8s_openapi::jiff::Timestamp::now(),
        );
        let replaced = lease.replace(next).await.unwrap();
        assert_eq!(replaced.metadata.owner_references, Some(expected), "{what}");
    }
}
