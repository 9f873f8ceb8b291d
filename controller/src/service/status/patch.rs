//! The patches that give a Service its status: strategic-merge patches to `services/status`.
//! Conditions merge by type, so other controllers' conditions stay, and no patch contains
//! `spec`. Each patch contains the UID, so it cannot change a later Service of the same name.
//! Pure.

use ballast_crds::class_key;
use ballast_provider::{Address, Ingress, IpMode, Refusal};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Desired, Difference};
use crate::cluster::conditions::PROGRAMMED;
use crate::cluster::view::{STANDARD_FINALIZER, ServiceView};

/// The patch before the first effect: the class's finalizer (and for a class-less
/// Service the standard one) together with the first conditions. `None` if the Service has
/// the finalizers.
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
    patch["metadata"] = json!({"uid": &*service.id.uid, "finalizers": missing});
    Some(patch)
}

/// The Service after its [`finalizer_patch`].
pub fn with_finalizers(service: &ServiceView, class: &str, now: Timestamp) -> ServiceView {
    let mut after = Desired::first(service, class).applied_to(service, now);
    if !after.is_held_by(class) {
        after.held_by.push(class.into());
        after.held_by.sort();
    }
    after.standard_finalizer |= after.class.is_none();
    after
}

/// The patch that gives the Service the desired status; `None` if it has it.
pub fn patch(service: &ServiceView, desired: &Desired, now: Timestamp) -> Option<Value> {
    let difference = desired.difference(service);
    (!difference.is_empty()).then(|| {
        let mut patch = status_json(&difference, service, now);
        patch["metadata"] = json!({"uid": &*service.id.uid});
        patch
    })
}

/// The patch after a release. It removes our finalizers and, if the object stays, our
/// conditions. A deleted Service stays while it has finalizers of others: its address is
/// released, so the patch removes that, too, and one condition says who holds it. `None` if there
/// is nothing to remove.
pub fn released_patch(service: &ServiceView, class: &str, now: Timestamp) -> Option<Value> {
    let mut finalizers = Vec::new();
    if service.is_held_by(class) {
        finalizers.push(class_key(class));
    }
    // On a Service that wants a class-less load balancer now, another controller may need it.
    let standard_is_ours = service.deleting || !service.is_load_balancer || service.class.is_some();
    if service.standard_finalizer && standard_is_ours {
        finalizers.push(STANDARD_FINALIZER.to_owned());
    }
    let stays = !service.deleting || service.other_finalizers.is_some();
    let status = if stays {
        bare_status(service, now)
    } else {
        json!({})
    };
    if finalizers.is_empty() && is_empty(&status) {
        return None;
    }
    let mut patch = json!({"metadata": {"uid": &*service.id.uid}});
    if !finalizers.is_empty() {
        patch["metadata"]["$deleteFromPrimitiveList/finalizers"] = json!(finalizers);
    }
    if !is_empty(&status) {
        patch["status"] = status;
    }
    Some(patch)
}

/// The patch after the release of a Service whose class is drained. It removes our
/// finalizers and the address, and the conditions give the reason. `None` if nothing differs.
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
    // The Service had a load balancer of ours, so the standard finalizer is ours as well.
    if service.standard_finalizer {
        finalizers.push(STANDARD_FINALIZER.to_owned());
    }
    let bare = ServiceView {
        ingress: Vec::new(),
        ..service.clone()
    };
    let desired = Desired::refused(&bare, drained, false);
    let mut patch = status_json(&desired.difference(service), service, now);
    if publishes(service) {
        patch["status"]["loadBalancer"] = json!({"ingress": null});
    }
    if finalizers.is_empty() && is_empty(&patch["status"]) {
        return None;
    }
    patch["metadata"] = json!({"uid": &*service.id.uid});
    if !finalizers.is_empty() {
        patch["metadata"]["$deleteFromPrimitiveList/finalizers"] = json!(finalizers);
    }
    Some(patch)
}

/// The patch that removes our conditions from a Service that is not ours any more, and the
/// address if the Service is deleted and stays. Then one condition says who holds it. `None` if
/// there is nothing to change.
pub fn clean_patch(service: &ServiceView, now: Timestamp) -> Option<Value> {
    let status = bare_status(service, now);
    let patch = || json!({"metadata": {"uid": &*service.id.uid}, "status": status});
    (!is_empty(&status)).then(patch)
}

/// Nothing of ours, but for who holds a deleted Service. Only a deleted Service loses its
/// address: on any other, the API server removes it with the type, or it can be another
/// controller's by now.
fn bare_status(service: &ServiceView, now: Timestamp) -> Value {
    let mut status = json!({});
    let held = Desired::held(service);
    let difference = held.difference(service);
    let mut conditions: Vec<Value> = difference
        .changed
        .iter()
        .map(|fields| fields.to_json(service, now))
        .collect();
    let stays = |kind: &str| held.programmed.is_some() && kind == PROGRAMMED;
    let dropped = service.conditions.iter().filter(|it| !stays(&it.kind));
    conditions.extend(dropped.map(|it| dropped_condition(&it.kind)));
    if !conditions.is_empty() {
        status["conditions"] = conditions.into();
    }
    if service.deleting && service.is_load_balancer && publishes(service) {
        status["loadBalancer"] = json!({"ingress": null});
    }
    status
}

fn publishes(service: &ServiceView) -> bool {
    !service.ingress.is_empty() || !service.ingress_is_exact
}

fn is_empty(status: &Value) -> bool {
    status.as_object().is_some_and(serde_json::Map::is_empty)
}

fn dropped_condition(kind: &str) -> Value {
    json!({"type": kind, "$patch": "delete"})
}

fn status_json(difference: &Difference<'_>, service: &ServiceView, now: Timestamp) -> Value {
    let mut status = json!({});
    if let Some(ingress) = difference.ingress {
        let entries: Vec<Value> = ingress.iter().map(ingress_json).collect();
        status["loadBalancer"] = json!({"ingress": entries});
    }
    let changed = difference.changed.iter();
    let changed = changed.map(|fields| fields.to_json(service, now));
    let removed = difference.removed.iter();
    let removed = removed.map(|kind| dropped_condition(kind));
    let conditions: Vec<Value> = changed.chain(removed).collect();
    if !conditions.is_empty() {
        status["conditions"] = conditions.into();
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
