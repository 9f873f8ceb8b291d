//! What is left of the draining classes, and why; what has changed since the last report;
//! whether the command is finished. Pure. `-o json` prints these structs, so fields may be
//! added, but never renamed or removed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ballast_crds::{GROUP, LoadBalancerClass, class_of_key};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::core::DeserializeGuard;
use serde::Serialize;

use super::pulse::{Controller, Liveness};
use crate::class::{ClassView, IN_USE_FINALIZER, Scope};
use crate::cli::service::{addresses, is_load_balancer};
use crate::cluster::conditions::{ACCEPTED, PROGRAMMED};
use crate::run::factory::Providers;

/// The class of a Service without a class, while there is no default class.
const NO_CLASS: &str = "none";

/// What the command reads of the cluster.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    /// All classes; `None`: the cluster does not serve the kind.
    pub classes: Option<Vec<DeserializeGuard<LoadBalancerClass>>>,
    /// All Services.
    pub services: Vec<Service>,
}

/// The selected classes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// Every class.
    All,
    /// The classes with these names that exist.
    Named(BTreeSet<String>),
}

/// The state at one time.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The selected classes that exist, sorted by name.
    pub classes: Vec<ClassLine>,
    /// What is left, Services first.
    pub left: Vec<Left>,
    /// The controller that releases it.
    pub controller: Controller,
}

/// A class.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClassLine {
    /// `metadata.name`
    pub name: String,
    /// `metadata.uid`: a new class of the same name is a different one.
    #[serde(skip)]
    pub uid: String,
    /// When the drain switch was set.
    pub draining: Option<Timestamp>,
    /// The controller has reported that it has seen the switch.
    pub seen: bool,
    /// It has the finalizer of a class in use, or its status says so: a tool that replaces
    /// objects as a whole takes finalizers away.
    pub in_use: bool,
}

/// Something that has, or may have, a load balancer.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Left {
    /// The namespace of a Service; `None` for a class.
    pub namespace: Option<String>,
    /// `metadata.name`
    pub name: String,
    /// The class whose load balancer it is.
    pub class: String,
    /// The addresses that it publishes.
    pub addresses: Vec<String>,
    /// Why it is still there.
    pub why: String,
}

/// How long the command may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Whether to wait at all.
    pub wait: bool,
    /// The longest time to wait.
    pub timeout: Duration,
}

/// What to do after a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing is left.
    Done,
    /// Read again.
    GoOn,
    /// Something is left, and the time is over.
    Left,
    /// Something is left, and no controller is running to release it.
    Dead,
}

/// Whether to go on after `elapsed`. A hook needs a clear message before its own time-out ends
/// it, so the command does not wait for a dead controller; a later run continues where this one
/// ended.
pub fn verdict(report: &Report, elapsed: Duration, limits: Limits) -> Verdict {
    let over = !limits.wait || elapsed >= limits.timeout;
    match report.controller.state {
        _ if report.left.is_empty() => Verdict::Done,
        Liveness::Dead => Verdict::Dead,
        Liveness::Silent | Liveness::Absent if over => Verdict::Dead,
        _ if over => Verdict::Left,
        _ => Verdict::GoOn,
    }
}

/// What is new since the last report, one line each; `brief`: without the Services, which a
/// progress bar counts.
pub fn changes(before: Option<&Report>, now: &Report, brief: bool) -> Vec<String> {
    let Some(before) = before else {
        return Vec::new();
    };
    let mut lines = Vec::new();
    let key = |it: &Left| (it.namespace.clone(), it.name.clone(), it.class.clone());
    let rest: BTreeMap<_, &Left> = now.left.iter().map(|it| (key(it), it)).collect();
    for gone in before.left.iter().filter(|_| !brief) {
        match (rest.get(&key(gone)), &gone.namespace) {
            (None, Some(_)) => lines.push(format!("{gone}: released")),
            (Some(left), Some(_)) if left.why != gone.why => {
                lines.push(format!("{gone}: {}", left.why));
            }
            _ => {}
        }
    }
    for class in &before.classes {
        match now.classes.iter().find(|it| it.name == class.name) {
            None => lines.push(format!("class {}: deleted", class.name)),
            Some(it) if it.is_free() && !class.is_free() => {
                lines.push(format!("class {}: no longer in use", class.name));
            }
            Some(it) if it.seen && !class.seen => {
                lines.push(format!(
                    "class {}: the controller has started the drain",
                    class.name
                ));
            }
            Some(_) => {}
        }
    }
    if now.controller.state != before.controller.state && now.controller.state == Liveness::Alive {
        let holder = now.controller.holder.as_deref().unwrap_or_default();
        lines.push(format!("controller {holder} is the leader"));
    }
    lines
}

/// A short summary of what is left.
pub fn summary(report: &Report) -> String {
    let services = report.left.iter().filter(|it| it.namespace.is_some());
    let services = services.count();
    let classes = report.left.len() - services;
    let count = |number: usize, one: &str, many: &str| match number {
        0 => None,
        1 => Some(format!("1 {one}")),
        more => Some(format!("{more} {many}")),
    };
    let parts = [
        count(services, "Service", "Services"),
        count(classes, "class", "classes"),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    parts.join(" and ")
}

fn of_service(
    service: &Service,
    selection: &Selection,
    known: &BTreeSet<&str>,
    default: Option<&str>,
) -> Option<Left> {
    let meta = &service.metadata;
    let finalizers = meta.finalizers.as_deref().unwrap_or_default();
    let mut held = finalizers.iter().filter_map(|one| class_of_key(one));
    let published = addresses(service);
    // A tool that replaces objects as a whole takes finalizers away, but not what Ballast
    // publishes. Ballast removes that when the load balancer is gone.
    let serves = is_load_balancer(service) && !published.is_empty();
    let ours = says(service, PROGRAMMED).is_some();
    let named = service.spec.as_ref();
    let named = match named.and_then(|spec| spec.load_balancer_class.as_deref()) {
        Some(key) => class_of_key(key).filter(|class| ours || known.contains(class)),
        None => default.filter(|_| ours),
    };
    let named = named.filter(|class| serves && selection.has(class));
    let class = held.find(|class| selection.has(class)).or(named)?;
    Some(Left {
        namespace: meta.namespace.clone(),
        name: meta.name.clone().unwrap_or_default(),
        class: class.to_owned(),
        why: why(service, class, known),
        addresses: published,
    })
}

fn why(service: &Service, class: &str, known: &BTreeSet<&str>) -> String {
    if class != NO_CLASS && !known.contains(class) {
        return format!(
            "LoadBalancerClass {class} does not exist, so the controller cannot find the load balancer; create the class again, or check its cloud and remove the finalizer {GROUP}/{class} from the Service"
        );
    }
    let drained = says(service, ACCEPTED).is_some_and(|it| it.reason == "Draining");
    let begun = drained || service.metadata.deletion_timestamp.is_some();
    match says(service, PROGRAMMED) {
        Some(said) if begun && said.status != "True" => said.message.clone(),
        _ => "the controller has not started to release it".to_owned(),
    }
}

fn says<'a>(service: &'a Service, kind: &str) -> Option<&'a Condition> {
    let status = service.status.as_ref()?;
    let mut all = status.conditions.as_deref()?.iter();
    all.find(|it| it.type_ == kind)
}

// === impl Selection ===

impl Selection {
    /// Whether a class is selected.
    pub fn has(&self, class: &str) -> bool {
        match self {
            Self::All => true,
            Self::Named(names) => names.contains(class),
        }
    }

    /// The same for a controller.
    pub fn scope(&self) -> Scope {
        match self {
            Self::All => Scope::All,
            Self::Named(names) => Scope::Only(names.clone()),
        }
    }
}

// === impl Report ===

impl Report {
    /// Computes the report.
    pub fn of(cluster: &Cluster, selection: &Selection, controller: Controller) -> Self {
        let classes = cluster.classes.as_deref().unwrap_or_default();
        let factory = Providers::default();
        let view = |class| ClassView::of(class, &factory);
        let views: Vec<ClassView> = classes.iter().map(view).collect();
        let known: BTreeSet<&str> = views.iter().map(|class| class.name.as_str()).collect();
        let mut defaults: Vec<&ClassView> = views.iter().filter(|it| it.default).collect();
        defaults.sort_by_key(|it| (it.created, &it.name));
        // While a tool has deleted the default class, its Services still say that they are ours.
        let default = defaults.first().map_or(NO_CLASS, |it| it.name.as_str());
        let default = Some(default).filter(|it| *it != NO_CLASS || *selection == Selection::All);
        let mut left: Vec<Left> = cluster
            .services
            .iter()
            .filter_map(|service| of_service(service, selection, &known, default))
            .collect();
        left.sort();
        let mut chosen: Vec<&ClassView> = views.iter().collect();
        chosen.retain(|class| selection.has(&class.name));
        chosen.sort_by(|a, b| a.name.cmp(&b.name));
        let mut lines = Vec::new();
        for class in chosen {
            let line = ClassLine::of(class);
            left.extend(line.left(class, &controller));
            lines.push(line);
        }
        Self {
            classes: lines,
            left,
            controller,
        }
    }
}

// === impl ClassLine ===

impl ClassLine {
    fn of(class: &ClassView) -> Self {
        let mut conditions = class.status.conditions.iter();
        let accepted = conditions.find(|it| it.type_ == "Accepted");
        let answer = class.drained().map(|it| it.message);
        Self {
            name: class.name.clone(),
            uid: class.uid.clone(),
            draining: class.draining().map(|it| it.since.0),
            // If the class cannot be parsed, neither can its status.
            seen: class.provider.is_err()
                || (answer.is_some()
                    && accepted.map(|it| it.message.clone()) == answer
                    // It does not know yet what its cloud holds.
                    && !class.is_starting()),
            in_use: class.is_guarded() || class.reports_use(),
        }
    }

    const fn is_free(&self) -> bool {
        self.seen && !self.in_use
    }

    /// A class is left until its finalizer is removed. Until a running controller has seen the
    /// switch, it may be about to use the class.
    fn left(&self, class: &ClassView, controller: &Controller) -> Option<Left> {
        let why = if !self.seen && (self.in_use || !controller.is_away()) {
            "the controller has not seen the drain yet".to_owned()
        } else if self.in_use {
            let mut conditions = class.status.conditions.iter();
            let blocks = |it: &&Condition| {
                matches!(
                    (it.type_.as_str(), it.status.as_str()),
                    ("InUse", "True") | ("Ready", "False")
                )
            };
            let said = conditions.by_ref().filter(blocks);
            let said: Vec<&str> = said.map(|it| it.message.as_str()).collect();
            if said.is_empty() {
                format!("the class still has the finalizer {IN_USE_FINALIZER}")
            } else {
                said.join("; ")
            }
        } else {
            return None;
        };
        Some(Left {
            namespace: None,
            name: self.name.clone(),
            class: self.name.clone(),
            addresses: Vec::new(),
            why,
        })
    }
}

// === impl Left ===

impl std::fmt::Display for Left {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{namespace}/{} ({})", self.name, self.class),
            None => write!(f, "class {}", self.name),
        }
    }
}

#[cfg(test)]
mod tests;
