//! Objects as the API server returns them, for the tests of this command.

use ballast_crds::{AddressPool, LoadBalancerClass};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use kube::core::DeserializeGuard;
use serde_json::{Value, json};

use super::render::View;
use super::report::Classes;
use crate::cli::text::Look;

/// The time of all tests.
pub(super) fn now() -> Timestamp {
    "2026-03-01T12:00:00Z".parse().unwrap()
}

/// A pipe.
pub(super) fn view() -> View<'static> {
    View {
        look: Look::default(),
        now: now(),
        program: "ballast",
    }
}

/// A terminal of this width.
pub(super) fn terminal(width: usize) -> View<'static> {
    View {
        look: Look {
            width: Some(width),
            ..Look::default()
        },
        ..view()
    }
}

/// `local` (mock) is the default, `edge` is an l2 class.
pub(super) fn classes() -> Classes {
    let class = |name: &str, provider: &str, effective: &str| {
        let conditions = json!([{"type": "Default", "status": effective, "reason": "Effective", "message": "", "lastTransitionTime": "2026-03-01T10:00:00Z"}]);
        let class: LoadBalancerClass = serde_json::from_value(json!({
            "apiVersion": "ballast.dev/v1alpha1", "kind": "LoadBalancerClass",
            "metadata": {"name": name},
            "spec": {provider: {"endpoint": "http://127.0.0.1:1"}},
            "status": {"provider": provider, "conditions": conditions},
        }))
        .unwrap();
        DeserializeGuard(Ok(class))
    };
    Classes::of(&[class("edge", "l2", "False"), class("local", "mock", "True")])
}

/// A Service of type `LoadBalancer`, created half an hour ago; later values override earlier
/// ones.
pub(super) fn service(name: &str, more: Value) -> Service {
    let mut all = json!({
        "metadata": {"namespace": "shop", "name": name, "creationTimestamp": "2026-03-01T11:30:00Z"},
        "spec": {"type": "LoadBalancer", "externalTrafficPolicy": "Cluster", "ports": [
            {"name": "http", "port": 80, "protocol": "TCP", "nodePort": 30080},
        ]},
    });
    merge(&mut all, more);
    serde_json::from_value(all).unwrap()
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

/// One of Ballast's conditions, changed ten minutes ago.
pub(super) fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({
        "type": format!("ballast.dev/{kind}"), "status": status, "reason": reason,
        "message": message, "lastTransitionTime": "2026-03-01T11:50:00Z",
    })
}

/// `status` with conditions and addresses.
pub(super) fn status(conditions: &[Value], addresses: &[&str]) -> Value {
    let entry = |address: &&str| match address.parse::<std::net::IpAddr>() {
        Ok(ip) => json!({"ip": ip.to_string(), "ports": [{"port": 80, "protocol": "TCP"}]}),
        Err(_) => json!({"hostname": address}),
    };
    let entries: Vec<Value> = addresses.iter().map(entry).collect();
    json!({"conditions": conditions, "loadBalancer": {"ingress": entries}})
}

/// A Service with working traffic.
pub(super) fn ready(name: &str, class: &str, addresses: &[&str]) -> Service {
    let conditions = [
        condition(
            "Accepted",
            "True",
            "Accepted",
            "LoadBalancerClass serves this Service",
        ),
        condition(
            "Programmed",
            "True",
            "Programmed",
            "The load balancer is active",
        ),
    ];
    service(
        name,
        json!({"spec": {"loadBalancerClass": class}, "status": status(&conditions, addresses)}),
    )
}

/// A pool with these addresses and that status.
pub(super) fn pool(
    name: &str,
    addresses: &[&str],
    status: &Value,
) -> DeserializeGuard<AddressPool> {
    let pool = serde_json::from_value(json!({
        "apiVersion": "ballast.dev/v1alpha1", "kind": "AddressPool",
        "metadata": {"name": name}, "spec": {"addresses": addresses}, "status": status,
    }));
    DeserializeGuard(Ok(pool.unwrap()))
}
