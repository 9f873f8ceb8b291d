//! The patches that make a Service say it: strategic-merge patches to `services/status`.
//! Conditions merge by type, so other controllers' stay, and `spec` is never part of them.
//! Each carries the UID, so that it cannot hit a later Service of the same name. Pure.

use ballast_crds::class_key;
use ballast_provider::{Address, Ingress, IpMode, Refusal};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::Desired;
use crate::cluster::view::{STANDARD_FINALIZER, ServiceView};

/// The patch before the first effect: the class's finalizer (and for a class-less
/// Service the standard one) together with the first conditions. `None` if all is there.
pub fn finalizer_patch(service: &ServiceView, class: &str, now: Timestamp) -> Option<Value> {
    let mut missing = Vec::new();
    if !service.is_held_by(class) {
        missing.push(class_key(class));
    }
    if service.class.is_none() && !service.standard_finalizer {
        missing.push(STANDARD_FINALIZER.to_owned());
    }
    if missing.is_empty() {
        return None;
    }
    let desired = Desired::first(service, class);
    let mut patch = status_json(&desired.difference(service), service, now);
    patch["metadata"] = json!({"uid": service.id.uid, "finalizers": missing});
    Some(patch)
}

/// The patch that makes the Service say what it is to say; `None` if it does.
pub fn patch(service: &ServiceView, desired: &Desired, now: Timestamp) -> Option<Value> {
    let difference = desired.difference(service);
    (!difference.is_empty()).then(|| {
        let mut patch = status_json(&difference, service, now);
        patch["metadata"] = json!({"uid": service.id.uid});
        patch
    })
}

/// The patch after a release: finalizers off, and our conditions where the object stays.
/// `None` if neither is there.
pub fn released_patch(service: &ServiceView, class: &str) -> Option<Value> {
    let mut finalizers = Vec::new();
    if service.is_held_by(class) {
        finalizers.push(class_key(class));
    }
    // Another controller's, if the Service wants a class-less load balancer by now.
    let standard_is_ours = service.deleting || !service.is_load_balancer || service.class.is_some();
    if service.standard_finalizer && standard_is_ours {
        finalizers.push(STANDARD_FINALIZER.to_owned());
    }
    let conditions = !service.deleting && !service.conditions.is_empty();
    if finalizers.is_empty() && !conditions {
        return None;
    }
    let mut patch = json!({"metadata": {"uid": service.id.uid}});
    if !finalizers.is_empty() {
        patch["metadata"]["$deleteFromPrimitiveList/finalizers"] = json!(finalizers);
    }
    if conditions {
        patch["status"] = json!({"conditions": dropped_conditions(service)});
    }
    Some(patch)
}

/// The patch after the release of a Service whose class is drained: finalizers off, no
/// address any more, and why. `None` if it is so.
pub fn drained_patch(
    service: &ServiceView,
    class: &str,
    drained: &Refusal,
    now: Timestamp,
) -> Option<Value> {
    let mut finalizers = Vec::new();
    if service.is_held_by(class) {
        finalizers.push(class_key(class));
    }
    // It had a load balancer of ours, so the standard one is ours as well.
    if service.standard_finalizer {
        finalizers.push(STANDARD_FINALIZER.to_owned());
    }
    let bare = ServiceView {
        ingress: Vec::new(),
        ..service.clone()
    };
    let desired = Desired::refused(&bare, drained, false);
    let mut patch = status_json(&desired.difference(service), service, now);
    if !service.ingress.is_empty() {
        patch["status"]["loadBalancer"] = json!({"ingress": null});
    }
    let unchanged = patch["status"]
        .as_object()
        .is_some_and(serde_json::Map::is_empty);
    if finalizers.is_empty() && unchanged {
        return None;
    }
    patch["metadata"] = json!({"uid": service.id.uid});
    if !finalizers.is_empty() {
        patch["metadata"]["$deleteFromPrimitiveList/finalizers"] = json!(finalizers);
    }
    Some(patch)
}

/// The patch that takes our conditions off a Service that is not ours any more.
pub fn clean_patch(service: &ServiceView) -> Value {
    json!({
        "metadata": {"uid": service.id.uid},
        "status": {"conditions": dropped_conditions(service)},
    })
}

fn dropped_conditions(service: &ServiceView) -> Vec<Value> {
    let kinds = service.conditions.iter().map(|condition| &condition.kind);
    kinds
        .map(|kind| json!({"type": kind, "$patch": "delete"}))
        .collect()
}

fn status_json(difference: &Desired, service: &ServiceView, now: Timestamp) -> Value {
    let mut status = json!({});
    if let Some(ingress) = &difference.ingress {
        let entries: Vec<Value> = ingress.iter().map(ingress_json).collect();
        status["loadBalancer"] = json!({"ingress": entries});
    }
    let changed: Vec<Value> = difference
        .conditions()
        .map(|(kind, condition)| condition.to_json(kind, service, now))
        .collect();
    if !changed.is_empty() {
        status["conditions"] = changed.into();
    }
    json!({"status": status})
}

fn ingress_json(ingress: &Ingress) -> Value {
    let ports: Vec<Value> = ingress
        .ports
        .iter()
        .map(|port| match &port.error {
            None => json!({"port": port.port, "protocol": port.protocol.as_str()}),
            Some(error) => {
                json!({"port": port.port, "protocol": port.protocol.as_str(), "error": error})
            }
        })
        .collect();
    match &ingress.address {
        Address::Ip(ip, mode) => json!({
            "ip": ip.to_string(),
            "ipMode": match mode { IpMode::Vip => "VIP", IpMode::Proxy => "Proxy" },
            "ports": ports,
        }),
        Address::Hostname(hostname) => json!({"hostname": hostname, "ports": ports}),
    }
}
