use serde_json::{Value, json};

use super::*;
use crate::api::{Code, Desired, PutLoadBalancer};

/// A desired state with a value in every field, in the current spelling.
fn today() -> Value {
    json!({
        "listeners": [{"name": "http", "protocol": "TCP", "port": 80, "nodePort": 30_080}],
        "families": ["IPv4", "IPv6"],
        "trafficPolicy": {"local": {"healthCheckNodePort": 32_000}},
        "affinity": {"clientIp": {"timeoutSeconds": 60}},
        "sourceRanges": ["10.0.0.0/8"],
        "targetSet": "nodes",
        "requestedAddresses": ["10.0.0.1"],
        "tags": {"ballast.dev/class": "local"},
    })
}

/// The same in the spelling of the first version.
fn first() -> Value {
    json!({
        "listeners": [{"name": "http", "protocol": "TCP", "port": 80, "node_port": 30_080}],
        "families": ["IPv4", "IPv6"],
        "trafficPolicy": {"Local": {"health_check_node_port": 32_000}},
        "affinity": {"ClientIp": {"timeout_seconds": 60}},
        "sourceRanges": ["10.0.0.0/8"],
        "targetSet": "nodes",
        "requestedAddresses": ["10.0.0.1"],
        "tags": {"ballast.dev/class": "local"},
    })
}

/// The keys of all objects in a JSON value, except those that users choose.
fn keys(value: &Value) -> Vec<String> {
    match value {
        Value::Object(map) => map
            .iter()
            .flat_map(|(key, value)| {
                let below = if key == "tags" {
                    Vec::new()
                } else {
                    keys(value)
                };
                std::iter::once(key.clone()).chain(below)
            })
            .collect(),
        Value::Array(items) => items.iter().flat_map(keys).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn one_spelling_is_written_and_the_first_one_is_still_read() {
    let read: Desired = serde_json::from_value(first()).unwrap();
    assert_eq!(read, serde_json::from_value(today()).unwrap());
    let written = serde_json::to_value(&read).unwrap();
    assert_eq!(written, today());
    for key in keys(&written) {
        let camel = key.starts_with(|c: char| c.is_ascii_lowercase()) && !key.contains(['_', '-']);
        assert!(camel, "{key}");
    }
    for (old, new) in [
        (json!("Cluster"), TrafficPolicy::Cluster),
        (json!("cluster"), TrafficPolicy::Cluster),
    ] {
        assert_eq!(serde_json::from_value::<TrafficPolicy>(old).unwrap(), new);
    }
    assert_eq!(
        serde_json::from_value::<Affinity>(json!("None")).unwrap(),
        Affinity::None
    );
    for (old, new, code) in [
        ("not_found", "notFound", Code::NotFound),
        ("not_owner", "notOwner", Code::NotOwner),
        ("quota_exceeded", "quotaExceeded", Code::QuotaExceeded),
        ("address_in_use", "addressInUse", Code::AddressInUse),
        (
            "no_address_available",
            "noAddressAvailable",
            Code::NoAddressAvailable,
        ),
        ("port_in_use", "portInUse", Code::PortInUse),
        ("sequence_unknown", "sequenceUnknown", Code::SequenceUnknown),
    ] {
        assert_eq!(serde_json::from_value::<Code>(json!(old)).unwrap(), code);
        assert_eq!(serde_json::to_value(code).unwrap(), json!(new));
    }
}

#[test]
fn an_unknown_field_of_a_desired_state_is_refused() {
    let mut wrong = today();
    wrong["colour"] = json!("red");
    let read = serde_json::from_value::<PutLoadBalancer>(json!({"desired": wrong}));
    assert!(read.unwrap_err().to_string().contains("colour"));
}

/// Values that differ in the model also differ on the wire.
#[test]
fn nothing_of_the_model_is_lost() {
    let listener = model::Listener {
        name: Some("http".into()),
        protocol: model::Protocol::Udp,
        port: 53,
        node_port: 30_053,
    };
    let wire = Listener::from(&listener);
    assert_eq!(
        serde_json::to_value(&wire).unwrap(),
        json!({"name": "http", "protocol": "UDP", "port": 53, "nodePort": 30_053})
    );
    let local = model::TrafficPolicy::Local {
        health_check_node_port: 32_000,
    };
    assert_eq!(
        serde_json::to_value(TrafficPolicy::from(local)).unwrap(),
        json!({"local": {"healthCheckNodePort": 32_000}})
    );
    let sticky = model::Affinity::ClientIp { timeout_seconds: 7 };
    assert_eq!(
        serde_json::to_value(Affinity::from(sticky)).unwrap(),
        json!({"clientIp": {"timeoutSeconds": 7}})
    );
    let targets = ballast_provider::conformance::targets(2);
    assert_eq!(
        serde_json::to_value(targets.nodes.iter().map(Target::from).collect::<Vec<_>>()).unwrap(),
        json!([
            {"name": "node-1", "addresses": ["127.0.10.1"]},
            {"name": "node-2", "addresses": ["127.0.10.2"]},
        ])
    );
}
