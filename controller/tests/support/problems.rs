//! Finds the differences between what users want and what exists. It does not know how the
//! controller works.

use std::collections::{BTreeMap, BTreeSet};

use ballast_provider::{Key, mark};
use serde_json::Value;

use super::api::{Kind, texts};
use super::lab::Lab;

const STANDARD: &str = "service.kubernetes.io/load-balancer-cleanup";

/// All differences from the wanted state.
pub fn of(lab: &Lab) -> Vec<String> {
    let mut problems = Vec::new();
    let services = lab.api.all(Kind::Service);
    let classes = lab.api.all(Kind::Class);
    let mut wanted = BTreeMap::new();
    for (key, service) in &services {
        let mut say = |what: String| problems.push(format!("{key}: {what}"));
        let class = class_of(service, &classes);
        if let Some(class) = class.as_ref().filter(|class| drains(&classes, class)) {
            drained(lab, key, service, class, &mut say);
            continue;
        }
        match class.filter(|_| !lab.refused.contains_key(key)) {
            Some(class) => {
                if is_l2(&classes, &class) {
                    from_a_pool(lab, key, service, &class, &mut say);
                    continue;
                }
                wanted.insert(text(&service["metadata"]["uid"]), class.clone());
                served(lab, key, service, &class, &mut say);
            }
            None => unserved(lab, key, service, &classes, &mut say),
        }
    }
    cloud(lab, &wanted, &mut |what| problems.push(what));
    for (name, class) in &classes {
        let served = |key: &str, service: &Value| {
            is_l2(&classes, name)
                && class_of(service, &classes).as_ref() == Some(name)
                && ((lab.denied.contains_key(key) && !drains(&classes, name))
                    || !lab.addresses(key).is_empty())
        };
        let holders = services
            .iter()
            .filter(|(key, service)| ours(service).contains(name) || served(key, service))
            .count();
        let conditions = class["status"]["conditions"].as_array();
        if conditions.is_some_and(|all| all.iter().any(|it| it["type"] == "Orphaned")) {
            problems.push(format!("class {name} reports orphans"));
        }
        let guarded =
            texts(&class["metadata"]["finalizers"]).contains(&"ballast.dev/in-use".to_owned());
        if guarded != (holders > 0) {
            problems.push(format!(
                "class {name}: guarded: {guarded}, holders: {holders}"
            ));
        }
        if class["metadata"].get("deletionTimestamp").is_some() && holders == 0 {
            problems.push(format!("class {name} is still there"));
        }
    }
    problems
}

/// The class that must serve a Service now.
fn class_of(service: &Value, classes: &BTreeMap<String, Value>) -> Option<String> {
    let deleting = service["metadata"].get("deletionTimestamp").is_some();
    if service["spec"]["type"] != "LoadBalancer" || deleting {
        return None;
    }
    let class = match service["spec"]["loadBalancerClass"].as_str() {
        Some(class) => class.strip_prefix("ballast.dev/")?.to_owned(),
        None => match ours(service)
            .first()
            .filter(|_| finalizers(service).contains(STANDARD))
        {
            Some(class) => class.clone(),
            None => oldest_default(classes)?,
        },
    };
    classes.contains_key(&class).then_some(class)
}

fn oldest_default(classes: &BTreeMap<String, Value>) -> Option<String> {
    let alive = |class: &&Value| {
        class["spec"]["default"] == true && class["metadata"].get("deletionTimestamp").is_none()
    };
    let age = |class: &&Value| {
        (
            text(&class["metadata"]["creationTimestamp"]),
            text(&class["metadata"]["name"]),
        )
    };
    let oldest = classes.values().filter(alive).min_by_key(age)?;
    Some(text(&oldest["metadata"]["name"]))
}

fn is_l2(classes: &BTreeMap<String, Value>, name: &str) -> bool {
    classes
        .get(name)
        .is_some_and(|class| class["spec"].get("l2").is_some())
}

/// Whether the drain switch of a class is set.
fn drains(classes: &BTreeMap<String, Value>, name: &str) -> bool {
    classes
        .get(name)
        .is_some_and(|class| !class["status"]["draining"].is_null())
}

/// Checks a Service of a draining class: nothing of ours is on it but the reason.
fn drained(lab: &Lab, key: &str, service: &Value, class: &str, say: &mut dyn FnMut(String)) {
    let held = finalizers(service);
    if held.contains(STANDARD) || held.iter().any(|it| it.starts_with("ballast.dev/")) {
        say(format!("{class} is drained, and holds it still: {held:?}"));
    }
    if !lab.addresses(key).is_empty() {
        say(format!("{class} is drained: {:?}", lab.addresses(key)));
    }
    let accepted = lab.condition(key, "Accepted").unwrap_or_default();
    if accepted["status"] != "False" || accepted["reason"] != "Draining" {
        say(format!("{class} is drained, and it says {accepted}"));
    }
    let programmed = lab.condition(key, "Programmed").unwrap_or_default();
    if !programmed.is_null() && programmed["status"] != "False" {
        say(format!("{class} is drained, and it says {programmed}"));
    }
}

/// The node that announces an address: of those that report to the API server, the one with the
/// best claim, if it answers.
fn announcer_of(lab: &Lab, address: &str) -> Option<String> {
    let nodes = lab.api.all(Kind::Node);
    let reports = |name: &str| {
        let node = nodes.get(name);
        node.is_some_and(|node| node["status"]["conditions"][0]["status"] != "Unknown")
    };
    let all = lab.api.all(Kind::Announcer).into_iter();
    let claims = all
        .filter(|(name, _)| reports(name))
        .flat_map(|(name, it)| {
            let holdings = it["status"]["holdings"].as_array().cloned();
            let of = holdings.unwrap_or_default().into_iter();
            of.filter(|it| it["address"] == address)
                .map(move |it| (it["epoch"].as_u64(), std::cmp::Reverse(name.clone()), it))
                .collect::<Vec<_>>()
        });
    let best = claims.max_by_key(|(epoch, name, _)| (*epoch, name.clone()))?;
    best.2["interface"].as_str().map(|_| best.1.0)
}

/// Checks a Service of an `l2` class: it has an address, and reports whether a node announces it,
/// or the reason why it has none.
fn from_a_pool(lab: &Lab, key: &str, service: &Value, class: &str, say: &mut dyn FnMut(String)) {
    held_as(
        service,
        class,
        service["spec"].get("loadBalancerClass").is_none(),
        say,
    );
    let programmed = lab.condition(key, "Programmed").unwrap_or_default();
    let accepted = lab.condition(key, "Accepted").unwrap_or_default();
    let addresses = lab.addresses(key);
    let nodes: Vec<Option<String>> = addresses
        .iter()
        .map(|address| announcer_of(lab, address))
        .collect();
    let (status, reason) = match lab.denied.get(key) {
        Some(reason) => ("False", *reason),
        None if nodes.iter().all(Option::is_some) => ("True", "Programmed"),
        None => ("False", "NotAnnounced"),
    };
    if accepted["status"] != "True"
        || programmed["status"] != status
        || programmed["reason"] != reason
    {
        say(format!("conditions {}", service["status"]["conditions"]));
    }
    let announced = lab.condition(key, "Announced").unwrap_or_default();
    if announced["status"] != status && !lab.denied.contains_key(key) {
        say(format!("announced by {nodes:?}, and it says {announced}"));
    }
    for (address, node) in addresses.iter().zip(&nodes) {
        let part = match node {
            Some(node) => format!("{address} by {node} on eth0"),
            None => format!("No node announces {address}"),
        };
        if !text(&announced["message"]).contains(&part) {
            say(format!("not \"{part}\", but {announced}"));
        }
    }
    if addresses.is_empty() != lab.denied.contains_key(key) {
        say(format!("publishes {addresses:?}"));
    }
    for entry in service["status"]["loadBalancer"]["ingress"]
        .as_array()
        .into_iter()
        .flatten()
    {
        if ports(&entry["ports"]) != ports(&service["spec"]["ports"]) || entry["ipMode"] != "VIP" {
            say(format!("publishes {entry}"));
        }
    }
}

fn served(lab: &Lab, key: &str, service: &Value, class: &str, say: &mut dyn FnMut(String)) {
    held_as(service, class, true, say);
    let lbs = lab.cloud.of(&text(&service["metadata"]["uid"]));
    let [lb] = lbs.as_slice() else {
        return say(format!("{} load balancers", lbs.len()));
    };
    let share_key = service["metadata"]["annotations"]["ballast.dev/share-key"].as_str();
    let home = share_key.map_or_else(
        || Key::Service(text(&service["metadata"]["uid"]).into()),
        |share_key| Key::Shared(share_key.into()),
    );
    if lb.key != home {
        say(format!("it is on {}, not on {home}", lb.key));
    }
    if lb.tag(mark::CLASS) != class {
        say(format!(
            "its load balancer is of the class {}",
            lb.tag(mark::CLASS)
        ));
    }
    let ports = ports(&service["spec"]["ports"]);
    let shape = lb.shape.iter().flat_map(|shape| &shape.listeners);
    let listeners: BTreeSet<(u64, String)> = shape
        .map(|listener| (u64::from(listener.port), listener.protocol.to_string()))
        .collect();
    if !lb.is_active() {
        say("its load balancer is not active".to_owned());
    }
    if ports != listeners || !lb.tags.contains_key(mark::APPLIED) {
        say(format!("listeners {listeners:?}, not {ports:?}"));
    }
    let ips: Vec<String> = lb.addresses.iter().map(ToString::to_string).collect();
    if lab.addresses(key) != ips {
        say(format!("publishes {:?}, not {ips:?}", lab.addresses(key)));
    }
    for entry in service["status"]["loadBalancer"]["ingress"]
        .as_array()
        .into_iter()
        .flatten()
    {
        if self::ports(&entry["ports"]) != ports {
            say(format!("publishes the ports {}", entry["ports"]));
        }
    }
    let status = |kind: &str| {
        lab.condition(key, kind)
            .map(|it| text(&it["status"]))
            .unwrap_or_default()
    };
    if (status("Accepted").as_str(), status("Programmed").as_str()) != ("True", "True") {
        say(format!("conditions {}", service["status"]["conditions"]));
    }
}

/// Checks that a served Service has the right finalizers.
fn held_as(service: &Value, class: &str, any: bool, say: &mut dyn FnMut(String)) {
    let mut expected = BTreeSet::new();
    if any {
        expected.insert(format!("ballast.dev/{class}"));
    }
    if service["spec"].get("loadBalancerClass").is_none() {
        expected.insert(STANDARD.to_owned());
    }
    // A Service that had no class and now names the same class keeps the standard finalizer
    // until its release: another controller may still need it.
    let named = !expected.contains(STANDARD);
    let finalizers: BTreeSet<String> = finalizers(service)
        .into_iter()
        .filter(|it| it.starts_with("ballast.dev/") || (it == STANDARD && !named))
        .collect();
    if finalizers != expected {
        say(format!("finalizers {finalizers:?}, not {expected:?}"));
    }
}

fn unserved(
    lab: &Lab,
    key: &str,
    service: &Value,
    classes: &BTreeMap<String, Value>,
    say: &mut dyn FnMut(String),
) {
    let held: Vec<String> = ours(service)
        .into_iter()
        .filter(|class| classes.contains_key(class))
        .collect();
    if !held.is_empty() {
        say(format!("held by {held:?}"));
    }
    let meta = &service["metadata"];
    if meta.get("deletionTimestamp").is_some()
        && finalizers(service)
            .iter()
            .all(|it| it.starts_with("ballast.dev/"))
    {
        say("still there".to_owned());
    }
    if let Some(reason) = lab.refused.get(key) {
        let accepted = lab.condition(key, "Accepted").unwrap_or_default();
        if accepted["status"] != "False" || accepted["reason"] != *reason {
            say(format!("not refused as {reason}: {accepted}"));
        }
    } else {
        let conditions = service["status"]["conditions"].as_array();
        let stale = |it: &Value| text(&it["type"]).starts_with("ballast.dev/");
        if conditions.is_some_and(|all| all.iter().any(stale))
            && meta.get("deletionTimestamp").is_none()
        {
            say(format!(
                "stale conditions {}",
                service["status"]["conditions"]
            ));
        }
    }
}

/// Checks that nothing leaked, and that the targets are the eligible nodes.
fn cloud(lab: &Lab, wanted: &BTreeMap<String, String>, say: &mut dyn FnMut(String)) {
    for lb in lab.cloud.ours() {
        let uid = lb.tag(mark::SERVICE_UID);
        if wanted.get(&uid) != Some(&lb.tag(mark::CLASS)) {
            say(format!(
                "leaked: a load balancer of {} for {uid} ({})",
                lb.tag(mark::CLASS),
                lb.tag(mark::SERVICE)
            ));
        }
    }
    let nodes: BTreeSet<String> = lab
        .api
        .all(Kind::Node)
        .into_iter()
        .filter(|(_, node)| {
            let label = &node["metadata"]["labels"]["node.kubernetes.io/exclude-from-external-load-balancers"];
            label.is_null() || label == "false"
        })
        .map(|(name, _)| name)
        .collect();
    for class in wanted.values() {
        let targets = lab.cloud.targets(class).unwrap_or_default().nodes;
        let targets: BTreeSet<String> = targets.into_iter().map(|target| target.name).collect();
        if targets != nodes {
            say(format!("targets of {class} are {targets:?}, not {nodes:?}"));
        }
    }
}

/// The classes whose finalizers a Service has.
fn ours(service: &Value) -> Vec<String> {
    let all = finalizers(service).into_iter();
    all.filter_map(|it| it.strip_prefix("ballast.dev/").map(str::to_owned))
        .collect()
}

fn finalizers(object: &Value) -> BTreeSet<String> {
    texts(&object["metadata"]["finalizers"])
        .into_iter()
        .collect()
}

fn ports(list: &Value) -> BTreeSet<(u64, String)> {
    let all = list.as_array().into_iter().flatten();
    all.map(|port| {
        (
            port["port"].as_u64().unwrap_or_default(),
            text(&port["protocol"]),
        )
    })
    .collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
