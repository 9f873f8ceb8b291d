//! `/debug/state`: what the agent knows and does, as JSON. For people who look into a failure; the fields
//! may change with each version.

use axum::Router;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use ballast_announce::NodeName;
use ballast_announce::io::{Method, Target};
use ballast_announce::snapshot::{Port, Snapshot};
use serde_json::{Value, json};

use super::seam::Inspector;

/// The route.
pub fn routes(inspector: Inspector) -> Router {
    Router::new().route("/debug/state", get(move || show(inspector.clone())))
}

async fn show(inspector: Inspector) -> Response {
    match inspector.look().await {
        Some(snapshot) => axum::Json(json(&snapshot)).into_response(),
        None => (
            StatusCode::SERVICE_UNAVAILABLE,
            "the announcer is too busy to say what it does\n",
        )
            .into_response(),
    }
}

/// The snapshot as JSON. Times are ages, in seconds.
fn json(snapshot: &Snapshot) -> Value {
    let claims = snapshot.claims.iter().map(|known| {
        let successors = known.claim.successors.iter().map(NodeName::as_str);
        json!({
            "address": known.address,
            "holder": known.claim.holder.as_str(),
            "epoch": known.claim.epoch,
            "revision": known.claim.revision,
            "successors": successors.collect::<Vec<_>>(),
            "state": format!("{:?}", known.state),
            "wanted": known.wanted,
        })
    });
    let table = snapshot.table.iter().map(|(address, entry)| {
        json!({
            "address": address,
            "interface": entry.interface,
            "mac": entry.answer.to_string(),
            "standsIn": entry.answer != entry.own,
        })
    });
    let peers = snapshot.peers.iter().map(|peer| {
        json!({
            "node": peer.node.as_str(),
            "process": format!("{:?}", peer.process),
            "lastSign": peer.last_sign.map(|age| age.as_secs_f64()),
            "leaseExpired": peer.lease_expired,
            "suspect": peer.suspect,
            "neighbour": peer.neighbour,
        })
    });
    let checks = snapshot.checks.iter().map(|check| {
        json!({
            "interface": check.interface,
            "host": check.host.as_str(),
            "state": format!("{:?}", check.state),
            "proven": check.proven.as_secs_f64(),
            "intercepted": check.intercepted,
        })
    });
    let next = snapshot.rebalance.as_ref();
    json!({
        "node": snapshot.node.as_str(),
        "incarnation": format!("{:016x}", snapshot.incarnation),
        "replaced": snapshot.replaced,
        "apiConnected": snapshot.api_connected,
        "view": snapshot.view.map(|(addresses, nodes)| json!({"addresses": addresses, "nodes": nodes})),
        "counts": {"claims": snapshot.counts.0, "announced": snapshot.counts.1},
        "claims": claims.collect::<Vec<_>>(),
        "table": table.collect::<Vec<_>>(),
        "peers": peers.collect::<Vec<_>>(),
        "hostChecks": checks.collect::<Vec<_>>(),
        "interfaces": snapshot.ports.iter().map(port).collect::<Vec<_>>(),
        "problems": snapshot.problems.iter().map(|it| format!("{it:?}")).collect::<Vec<_>>(),
        "rebalance": next.map(|next| json!({"address": next.address, "to": next.to.as_str()})),
    })
}

fn port(port: &Port) -> Value {
    let witnesses = port.witnesses.iter().map(|witness| match witness {
        Target::Node(node) => node.to_string(),
        Target::Host(address) => address.to_string(),
    });
    json!({
        "index": port.index,
        "name": port.name,
        "mac": port.mac.to_string(),
        "carrier": port.carrier,
        "heldDown": port.held_down,
        "cutOff": port.cut_off,
        "probes": match port.method { Method::Neighbour => "neighbour", Method::Echo => "echo" },
        "answered": port.answered.map(|age| age.as_secs_f64()),
        "witnesses": witnesses.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use ballast_announce::slip::Slips;
    use ballast_announce::{Config, Node, Time};
    use tower::ServiceExt as _;

    use super::*;

    async fn get(inspector: Inspector) -> (StatusCode, String) {
        let request = Request::get("/debug/state").body(Body::empty()).unwrap();
        let response = routes(inspector).oneshot(request).await.unwrap();
        let status = response.status();
        let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn the_state_is_shown_as_json() {
        let config = Config {
            name: NodeName::new("a"),
            incarnation: 7,
            gossip: true,
            slips: Slips::default(),
        };
        let node = Node::new(config, Time::default());
        let (status, text) = get(Inspector::new(move || {
            let snapshot = node.snapshot(Time::default());
            Box::pin(async move { Some(snapshot) })
        }))
        .await;
        assert_eq!(status, StatusCode::OK);
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["node"], "a");
        assert_eq!(value["incarnation"], "0000000000000007");
        for list in [
            "claims",
            "table",
            "peers",
            "hostChecks",
            "interfaces",
            "problems",
        ] {
            assert_eq!(value[list], json!([]), "{list}");
        }
        let (status, _) = get(Inspector::new(|| Box::pin(async { None }))).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    }
}
