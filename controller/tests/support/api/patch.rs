//! The effect of patches on objects: strategic merge for Services (finalizers by value,
//! conditions by type, ingress as a whole), JSON merge for classes and pools.

use std::net::IpAddr;

use serde_json::{Map, Value, json};

use super::requests::conflict;
use super::{Api, Kind, Refused, texts};
use crate::support::journal::Link;

/// An annotation of Services that a user moved to another share key.
pub(super) const MOVED: &str = "example.com/moved";

const DELETE_FINALIZERS: &str = "$deleteFromPrimitiveList/finalizers";
const STANDARD: &str = "service.kubernetes.io/load-balancer-cleanup";

/// A Service after a patch of its status.
pub(super) fn service(
    api: &Api,
    link: &Link,
    object: &Value,
    patch: &Value,
) -> Result<Value, Refused> {
    let forbid = |what: String| {
        api.journal
            .violation(format!("{}: {what}: {patch}", link.name()));
    };
    for key in keys(patch) {
        if !["metadata", "status"].contains(&key.as_str()) {
            forbid(format!("a patch of {key}"));
        }
    }
    for key in keys(&patch["metadata"]) {
        if !["uid", "resourceVersion", "finalizers", DELETE_FINALIZERS].contains(&key.as_str()) {
            forbid(format!("a patch of metadata.{key}"));
        }
    }
    for key in keys(&patch["status"]) {
        if !["loadBalancer", "conditions"].contains(&key.as_str()) {
            forbid(format!("a patch of status.{key}"));
        }
    }
    if patch["metadata"]["uid"].is_null() {
        forbid("a patch that could hit another Service of the name".to_owned());
    }
    preconditions(Kind::Service, object, &patch["metadata"])?;
    let mut object = object.clone();
    finalizers(api, link, &mut object, &patch["metadata"])?;
    conditions(&mut object, &patch["status"]["conditions"], &forbid);
    let before = object.clone();
    if is_taken_back(api, &object, patch) {
        object["status"]["loadBalancer"] = json!({});
        return Ok(object);
    }
    ingress(&mut object, &patch["status"], &forbid)?;
    claims(api, &before, &object, &patch["metadata"], &forbid);
    Ok(object)
}

fn preconditions(kind: Kind, object: &Value, meta: &Value) -> Result<(), Refused> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    if let Some(uid) = meta["uid"]
        .as_str()
        .filter(|uid| object["metadata"]["uid"] != *uid)
    {
        return Err((
            422,
            "Invalid",
            format!(
                "{} \"{name}\" is invalid: metadata.uid: Invalid value: \"{uid}\": field is immutable",
                kind.name()
            ),
        ));
    }
    if meta["resourceVersion"].is_string()
        && meta["resourceVersion"] != object["metadata"]["resourceVersion"]
    {
        return Err(conflict(kind, name));
    }
    Ok(())
}

fn finalizers(api: &Api, link: &Link, object: &mut Value, meta: &Value) -> Result<(), Refused> {
    let uid = object["metadata"]["uid"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let mut all = texts(&object["metadata"]["finalizers"]);
    let new: Vec<String> = texts(&meta["finalizers"])
        .into_iter()
        .filter(|it| !all.contains(it))
        .collect();
    if !new.is_empty() && object["metadata"].get("deletionTimestamp").is_some() {
        let what = format!(
            "Service \"{}\" is invalid: metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers {new:?}",
            object["metadata"]["name"]
        );
        return Err((422, "Invalid", what));
    }
    all.extend(new);
    for gone in texts(&meta[DELETE_FINALIZERS]) {
        if !gone.starts_with("ballast.dev/") && gone != STANDARD {
            api.journal.violation(format!(
                "{} takes off the foreign finalizer {gone}",
                link.name()
            ));
        }
        // Invariant 1: removed only after everything in the cloud is gone.
        let class = gone
            .strip_prefix("ballast.dev/")
            .filter(|class| api.cloud_holds(&uid, class));
        if let Some(class) = class {
            let what = format!(
                "{} takes {gone} off, and class {class} still has a load balancer for {uid}",
                link.name()
            );
            api.journal.violation(what);
        }
        all.retain(|finalizer| *finalizer != gone);
    }
    set_finalizers(object, all);
    Ok(())
}

/// An empty list counts as no list.
pub(super) fn set_finalizers(object: &mut Value, all: Vec<String>) {
    if all.is_empty() {
        object["metadata"]
            .as_object_mut()
            .unwrap()
            .remove("finalizers");
    } else {
        object["metadata"]["finalizers"] = all.into();
    }
}

fn conditions(object: &mut Value, patch: &Value, forbid: &dyn Fn(String)) {
    let Some(changes) = patch.as_array() else {
        return;
    };
    let mut all = object["status"]["conditions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    for change in changes.iter().rev() {
        let kind = change["type"].as_str().unwrap_or_default();
        if !kind.starts_with("ballast.dev/") {
            forbid(format!("a foreign condition {kind:?}"));
        }
        let at = all.iter().position(|condition| condition["type"] == kind);
        if change["$patch"] == "delete" {
            all.retain(|condition| condition["type"] != kind);
            continue;
        }
        if !is_sound(change) {
            forbid(format!("a condition that is not valid: {change}"));
        }
        match at {
            Some(at) => merge(&mut all[at], change),
            None => all.insert(0, change.clone()),
        }
    }
    if all.is_empty() {
        object["status"]
            .as_object_mut()
            .unwrap()
            .remove("conditions");
    } else {
        object["status"]["conditions"] = all.into();
    }
}

/// Requirements of `metav1.Condition` that the real server does not check.
fn is_sound(condition: &Value) -> bool {
    let text = |field: &str| condition[field].as_str().unwrap_or_default();
    ["True", "False", "Unknown"].contains(&text("status"))
        && text("reason").starts_with(|first: char| first.is_ascii_uppercase())
        && text("reason").chars().all(char::is_alphanumeric)
        && !text("message").is_empty()
        && text("message").len() <= 32_768
        && text("lastTransitionTime")
            .parse::<jiff::Timestamp>()
            .is_ok()
}

/// The only cases in which a status is cleared, both with nothing left in a cloud: the class
/// is draining, or the Service is deleted and another controller's finalizer keeps it. A Service that is deleted
/// in the very moment in which it is taken back may still be told that its class is draining.
fn is_taken_back(api: &Api, object: &Value, patch: &Value) -> bool {
    let balancer = patch["status"]["loadBalancer"].as_object();
    let clears = balancer.is_some_and(|it| it.get("ingress") == Some(&Value::Null));
    let uid = object["metadata"]["uid"].as_str().unwrap_or_default();
    let all = object["status"]["conditions"].as_array();
    // Nothing, but for who else holds it.
    let nothing_said = all.is_none_or(|all| all.iter().all(|it| it["reason"] == "Released"));
    let says = all.into_iter().flatten().any(|it| {
        it["type"] == "ballast.dev/Accepted"
            && it["status"] == "False"
            && it["reason"] == "Draining"
    });
    let drained = api.lock().drained.clone();
    if !object["metadata"]["deletionTimestamp"].is_null() {
        let classes = api.all(Kind::Class);
        let held = classes.keys().any(|class| api.cloud_holds(uid, class));
        return clears && (nothing_said || (says && !drained.is_empty())) && !held;
    }
    clears && says && !drained.is_empty() && drained.iter().all(|it| !api.cloud_holds(uid, it))
}

fn ingress(object: &mut Value, patch: &Value, forbid: &dyn Fn(String)) -> Result<(), Refused> {
    let Some(balancer) = patch.get("loadBalancer") else {
        return Ok(());
    };
    for key in keys(balancer) {
        if key != "ingress" {
            forbid(format!("a patch of status.loadBalancer.{key}"));
        }
    }
    let entries = balancer["ingress"].as_array().cloned().unwrap_or_default();
    // Invariant 2: a patch never removes an address.
    if entries.is_empty() {
        forbid("status.loadBalancer is cleared".to_owned());
    }
    if object["spec"]["type"] != "LoadBalancer" {
        let what = format!(
            "Service {} is invalid: status.loadBalancer.ingress: Forbidden: may only be used when `spec.type` is 'LoadBalancer'",
            object["metadata"]["name"]
        );
        return Err((422, "Invalid", what));
    }
    for entry in &entries {
        let ip = entry["ip"].as_str().map(|ip| ip.parse::<IpAddr>().is_ok());
        let mode = entry["ipMode"]
            .as_str()
            .map(|mode| ["VIP", "Proxy"].contains(&mode));
        let sound = match (ip, entry["hostname"].as_str()) {
            (Some(true), None) => mode == Some(true),
            (None, Some(_)) => mode.is_none(),
            _ => false,
        };
        if !sound {
            forbid(format!("an ingress that is not valid: {entry}"));
        }
    }
    // Invariant 2: clouds here never change an address, so neither does a status, unless the
    // user moved the Service to another balancer.
    let moved = !object["metadata"]["annotations"][MOVED].is_null();
    let (old, new) = (ips(object, "Proxy"), entries.clone());
    object["status"]["loadBalancer"]["ingress"] = new.into();
    if !old.is_empty() && !moved && old != ips(object, "Proxy") {
        forbid(format!("the address changes from {old:?}"));
    }
    Ok(())
}

/// Addresses of pools: claimed over the version that the writer has seen, and never twice.
fn claims(api: &Api, before: &Value, after: &Value, meta: &Value, forbid: &dyn Fn(String)) {
    let had = ips(before, "VIP");
    let claimed: Vec<String> = ips(after, "VIP")
        .into_iter()
        .filter(|ip| !had.contains(ip))
        .collect();
    if claimed.is_empty() {
        return;
    }
    if meta["resourceVersion"].is_null() {
        forbid(format!("{claimed:?} is claimed over any version"));
    }
    let key = |service: &Value| service["metadata"]["annotations"]["ballast.dev/share-key"].clone();
    for other in api.all(Kind::Service).into_values() {
        if other["metadata"]["uid"] == before["metadata"]["uid"] {
            continue;
        }
        let shared = key(&other).is_string() && key(&other) == key(after);
        let theirs = [ips(&other, "VIP"), ips(&other, "Proxy")].concat();
        if !shared && claimed.iter().any(|ip| theirs.contains(ip)) {
            let owner = &other["metadata"]["name"];
            forbid(format!("{claimed:?} is published by {owner} already"));
        }
    }
}

/// The published addresses with one `ipMode`.
fn ips(service: &Value, mode: &str) -> Vec<String> {
    let entries = service["status"]["loadBalancer"]["ingress"].as_array();
    entries
        .into_iter()
        .flatten()
        .filter(|entry| entry["ipMode"] == mode)
        .filter_map(|entry| entry["ip"].as_str().map(str::to_owned))
        .collect()
}

/// A class after a merge patch of it or of its status.
pub(super) fn class(
    api: &Api,
    object: &Value,
    of_status: bool,
    patch: &Value,
) -> Result<Value, Refused> {
    let allowed: &[&str] = if of_status {
        &["status"]
    } else {
        &["metadata"]
    };
    let meta: &[&str] = &["resourceVersion", "finalizers"];
    if keys(patch)
        .iter()
        .any(|key| !allowed.contains(&key.as_str()))
        || keys(&patch["metadata"])
            .iter()
            .any(|key| !meta.contains(&key.as_str()))
    {
        api.journal
            .violation(format!("a patch of more of a class than is ours: {patch}"));
    }
    if patch["status"].get("draining").is_some() {
        api.journal
            .violation(format!("the drain switch is not ours to flip: {patch}"));
    }
    let mut after = object.clone();
    if of_status {
        merge(&mut after, patch);
        return Ok(after);
    }
    if patch["metadata"]["resourceVersion"].is_null() {
        api.journal.violation(format!(
            "finalizers of a class replaced without a guard: {patch}"
        ));
    }
    preconditions(Kind::Class, object, &patch["metadata"])?;
    let (before, now) = (
        texts(&object["metadata"]["finalizers"]),
        texts(&patch["metadata"]["finalizers"]),
    );
    let foreign = |all: &[String]| {
        all.iter()
            .filter(|it| !it.starts_with("ballast.dev/"))
            .cloned()
            .collect::<Vec<_>>()
    };
    if foreign(&before) != foreign(&now) {
        api.journal.violation(format!(
            "foreign finalizers of a class changed: {before:?} to {now:?}"
        ));
    }
    set_finalizers(&mut after, now);
    Ok(after)
}

/// A pool after a merge patch of its status.
pub(super) fn pool(api: &Api, object: &Value, patch: &Value) -> Result<Value, Refused> {
    preconditions(Kind::Pool, object, &patch["metadata"])?;
    if keys(patch) != ["status"] {
        api.journal.violation(format!(
            "a patch of more of a pool than its status: {patch}"
        ));
    }
    let unsound = |it: &Value| it["type"] == Value::Null || !is_sound(it);
    let conditions = patch["status"]["conditions"].as_array();
    if conditions.is_none_or(|all| all.is_empty() || all.iter().any(unsound)) {
        api.journal
            .violation(format!("conditions of a pool that are not valid: {patch}"));
    }
    let mut after = object.clone();
    merge(&mut after, patch);
    Ok(after)
}

/// RFC 7386.
fn merge(object: &mut Value, patch: &Value) {
    let Some(changes) = patch.as_object() else {
        *object = patch.clone();
        return;
    };
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    for (key, change) in changes {
        if change.is_null() {
            object.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut object[key], change);
        }
    }
}

fn keys(value: &Value) -> Vec<String> {
    value
        .as_object()
        .map(|object| object.keys().cloned().collect())
        .unwrap_or_default()
}
