//! What `ballast status` shows of Services, as values: which Services are Ballast's, and the
//! state of each. Pure. `-o json|yaml` prints these structs, so fields may be added, but never
//! renamed or removed.

use ballast_crds::{GROUP, class_of_key};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde::Serialize;

use super::announcers::AddressLine;
use super::classes::ClassUsage;
use super::deletions::WaitingDeletion;
pub use super::known::Classes;
use crate::cli::service::{addresses, is_load_balancer};
use crate::cluster::conditions::{CONTESTED, PROGRAMMED, is_ours, kinds};

/// All load balancers, or those of one name.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Sorted by namespace and name.
    pub services: Vec<ServiceStatus>,
    /// `NAMESPACE/NAME` of Services of type `LoadBalancer` that wait for an address, name no
    /// class, and are served by no class.
    pub unclaimed: Vec<String>,
    /// The deletions that wait, and why.
    pub deletions: Vec<WaitingDeletion>,
    /// Who uses each class, and what it costs; only if no Service was requested by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<ClassUsage>,
    /// The estimated cost of all classes that are billed, in US dollars.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub monthly_cost: Option<f64>,
}

/// One Service.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceStatus {
    /// `metadata.namespace`
    pub namespace: String,
    /// `metadata.name`
    pub name: String,
    /// The name of the class that serves or will serve it; for a class that is not Ballast's,
    /// the whole `spec.loadBalancerClass`.
    pub class: Option<String>,
    /// `aws`, `l2` or `mock`, if the class names its provider.
    pub provider: Option<String>,
    /// IP addresses and host names, in the order of the Service's status.
    pub addresses: Vec<String>,
    /// `Ready`; `Releasing`; `Pending`: the controller has not reported anything yet;
    /// `NotServed`: no class of Ballast serves it; or the reason of the first condition that is
    /// not true.
    pub state: String,
    /// `Programmed` is true: traffic can flow, possibly with settings from before the last
    /// edit.
    pub ready: bool,
    /// When the state began.
    pub since: Option<Timestamp>,
    /// Why it is not `Ready`; empty if it is.
    pub why: String,
    /// It has the finalizer of a class of Ballast.
    #[serde(skip)]
    pub held: bool,
    /// The ports that it listens on.
    pub ports: Vec<PortLine>,
    /// `Cluster` or `Local`.
    pub traffic_policy: Option<String>,
    /// Only Ballast's conditions.
    pub conditions: Vec<ConditionLine>,
    /// Where its addresses are announced; only of an `l2` class, and if the Announcers could be
    /// read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub announcements: Option<Vec<AddressLine>>,
    /// Newest first; only if one Service was requested and its events could be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events: Option<Vec<EventLine>>,
}

/// A port of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PortLine {
    /// `spec.ports[].name`
    pub name: Option<String>,
    /// `TCP`, `UDP`
    pub protocol: String,
    /// The port that clients connect to.
    pub port: i32,
    /// The port that the load balancer connects to on the nodes.
    pub node_port: Option<i32>,
    /// The error of this port.
    pub error: Option<String>,
}

/// A condition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConditionLine {
    /// `ballast.dev/…`
    pub r#type: String,
    /// `True`, `False` or `Unknown`
    pub status: String,
    /// For machines.
    pub reason: String,
    /// For people.
    pub message: String,
    /// When `status` last changed.
    pub since: Timestamp,
}

/// An event about a Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EventLine {
    /// When it last happened.
    pub time: Option<Timestamp>,
    /// `Normal` or `Warning`
    pub r#type: String,
    /// For machines.
    pub reason: String,
    /// For people.
    pub message: String,
    /// How often it happened.
    pub count: i32,
}

/// The state of a Service in one word, and the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Standing {
    state: String,
    since: Option<Timestamp>,
    why: String,
}

/// All of Ballast's Services, and those that no class serves.
pub fn report(services: &[Service], classes: &Classes) -> Report {
    let mut report = Report::default();
    for service in services {
        if let Some(status) = ServiceStatus::of(service, classes) {
            report.services.push(status);
        } else if is_unclaimed(service) && classes.known.is_some() {
            let meta = &service.metadata;
            let name = meta.name.as_deref().unwrap_or_default();
            let namespace = meta.namespace.as_deref().unwrap_or_default();
            report.unclaimed.push(format!("{namespace}/{name}"));
        }
    }
    let order = |a: &ServiceStatus, b: &ServiceStatus| {
        (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name))
    };
    report.services.sort_by(order);
    report.unclaimed.sort();
    report
}

/// Every Service of this name, even if it is not Ballast's, so that the user learns why not.
pub fn named(services: &[Service], classes: &Classes, name: &str) -> Report {
    let called = services
        .iter()
        .filter(|service| service.metadata.name.as_deref() == Some(name));
    let one = |service: &Service| {
        ServiceStatus::of(service, classes)
            .unwrap_or_else(|| ServiceStatus::not_served(service, classes))
    };
    let mut services: Vec<ServiceStatus> = called.map(one).collect();
    services.sort_by(|a, b| a.namespace.cmp(&b.namespace));
    Report {
        services,
        ..Report::default()
    }
}

pub(super) fn is_deleting(service: &Service) -> bool {
    service.metadata.deletion_timestamp.is_some()
}

pub(super) fn spec_class(service: &Service) -> Option<&str> {
    let spec = service.spec.as_ref()?;
    spec.load_balancer_class.as_deref()
}

fn is_unclaimed(service: &Service) -> bool {
    is_load_balancer(service)
        && !is_deleting(service)
        && spec_class(service).is_none()
        && addresses(service).is_empty()
}

/// The Ballast class whose finalizer the Service has.
pub(super) fn holder(service: &Service) -> Option<&str> {
    let finalizers = service.metadata.finalizers.as_deref().unwrap_or_default();
    finalizers.iter().find_map(|one| class_of_key(one))
}

/// The condition of this type, if any.
pub(super) fn find<'c>(conditions: &'c [ConditionLine], kind: &str) -> Option<&'c ConditionLine> {
    conditions.iter().find(|one| one.r#type == kind)
}

fn conditions(service: &Service) -> Vec<ConditionLine> {
    let status = service.status.as_ref();
    let all = status.and_then(|status| status.conditions.as_deref());
    let ours = all.unwrap_or_default().iter().filter(|it| is_ours(it));
    let mut lines: Vec<ConditionLine> = ours.map(ConditionLine::of).collect();
    let place = |kind: &str| kinds().position(|one| one == kind).unwrap_or(usize::MAX);
    lines.sort_by(|a, b| (place(&a.r#type), &a.r#type).cmp(&(place(&b.r#type), &b.r#type)));
    lines
}

fn ports(service: &Service) -> Vec<PortLine> {
    let spec = service.spec.as_ref();
    let ports = spec.and_then(|spec| spec.ports.as_deref());
    let line = |port: &ServicePort| {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        PortLine {
            name: port.name.clone(),
            protocol: protocol.to_owned(),
            port: port.port,
            node_port: port.node_port.filter(|number| *number != 0),
            error: port_error(service, port.port, protocol),
        }
    };
    ports.unwrap_or_default().iter().map(line).collect()
}

fn port_error(service: &Service, number: i32, protocol: &str) -> Option<String> {
    let status = service.status.as_ref()?.load_balancer.as_ref()?;
    let entries = status.ingress.as_deref().unwrap_or_default().iter();
    let mut ports = entries.flat_map(|entry| entry.ports.as_deref().unwrap_or_default());
    ports
        .find(|port| port.port == number && port.protocol == protocol && port.error.is_some())
        .and_then(|port| port.error.clone())
}

// === impl ServiceStatus ===

impl ServiceStatus {
    /// `None` if the Service is not Ballast's.
    fn of(service: &Service, classes: &Classes) -> Option<Self> {
        let serving = classes.serving(service);
        let conditions = conditions(service);
        if serving.is_none() && (conditions.is_empty() || !is_load_balancer(service)) {
            return None;
        }
        let standing = Standing::of(service, serving.as_deref(), &conditions, classes);
        let ready = find(&conditions, PROGRAMMED).is_some_and(|one| one.status == "True");
        Some(Self {
            provider: serving.as_deref().and_then(|name| classes.provider(name)),
            class: serving.or_else(|| spec_class(service).map(str::to_owned)),
            ready: ready && is_load_balancer(service) && !is_deleting(service),
            ..Self::plain(service, conditions, standing)
        })
    }

    /// A Service that was requested by name and is not Ballast's.
    fn not_served(service: &Service, classes: &Classes) -> Self {
        let class = spec_class(service);
        let why = match class {
            _ if !is_load_balancer(service) => "the Service is not of type LoadBalancer".to_owned(),
            Some(class) => format!(
                "spec.loadBalancerClass is {class}; the classes of Ballast are {GROUP}/NAME"
            ),
            None if classes.known.is_none() => {
                "spec.loadBalancerClass is not set, and the default class is unknown"
                    .to_owned()
            }
            None => "spec.loadBalancerClass is not set, and no class of Ballast is the default; see: kubectl get lbclass"
                .to_owned(),
        };
        let standing = Standing {
            state: "NotServed".to_owned(),
            since: created(service),
            why,
        };
        Self {
            class: class.map(str::to_owned),
            ..Self::plain(service, conditions(service), standing)
        }
    }

    fn plain(service: &Service, conditions: Vec<ConditionLine>, standing: Standing) -> Self {
        let meta = &service.metadata;
        let spec = service.spec.as_ref();
        Self {
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            addresses: addresses(service),
            state: standing.state,
            since: standing.since,
            why: standing.why,
            held: holder(service).is_some(),
            ports: ports(service),
            traffic_policy: spec.and_then(|spec| spec.external_traffic_policy.clone()),
            conditions,
            ..Self::default()
        }
    }

    /// `Ready`: traffic flows, with the latest settings.
    pub fn is_well(&self) -> bool {
        self.state == "Ready"
    }
}

fn created(service: &Service) -> Option<Timestamp> {
    let time = service.metadata.creation_timestamp.as_ref();
    time.map(|time| time.0)
}

// === impl Standing ===

impl Standing {
    fn of(
        service: &Service,
        class: Option<&str>,
        conditions: &[ConditionLine],
        classes: &Classes,
    ) -> Self {
        if is_deleting(service) || !is_load_balancer(service) {
            return Self::releasing(service, conditions);
        }
        let mut reported = kinds().filter_map(|kind| find(conditions, kind));
        if let Some(obstacle) = reported.find(|one| one.status != "True") {
            return Self {
                state: obstacle.reason.clone(),
                since: Some(obstacle.since),
                why: obstacle.message.clone(),
            };
        }
        if let Some(programmed) = find(conditions, PROGRAMMED) {
            return Self {
                state: "Ready".to_owned(),
                since: Some(programmed.since),
                why: find(conditions, CONTESTED)
                    .map_or_else(String::new, |contested| contested.message.clone()),
            };
        }
        let why = match class {
            Some(class) if classes.is_missing(class) => {
                format!("LoadBalancerClass {class} does not exist")
            }
            _ => {
                "the controller has not reported anything yet; check that it is running".to_owned()
            }
        };
        Self {
            state: "Pending".to_owned(),
            since: created(service),
            why,
        }
    }

    /// Only the provider's present message explains why a release is not finished. Conditions
    /// from before the deletion do not.
    fn releasing(service: &Service, conditions: &[ConditionLine]) -> Self {
        let deleted = service.metadata.deletion_timestamp.as_ref();
        let obstacle = find(conditions, PROGRAMMED).filter(|one| one.status != "True");
        let why = match (obstacle, holder(service)) {
            (Some(obstacle), _) => obstacle.message.clone(),
            (None, Some(class)) => {
                format!("the controller has not yet deleted the load balancer of class {class}")
            }
            (None, None) => "a finalizer of another controller keeps the Service".to_owned(),
        };
        Self {
            state: "Releasing".to_owned(),
            since: deleted.map(|time| time.0).or(obstacle.map(|one| one.since)),
            why,
        }
    }
}

// === impl ConditionLine ===

impl ConditionLine {
    /// A condition as it is on an object.
    pub fn of(condition: &Condition) -> Self {
        Self {
            r#type: condition.type_.clone(),
            status: condition.status.clone(),
            reason: condition.reason.clone(),
            message: condition.message.clone(),
            since: condition.last_transition_time.0,
        }
    }
}

// === impl EventLine ===

impl EventLine {
    /// The events of one object, newest first.
    pub fn all(events: &[Event]) -> Vec<Self> {
        let mut lines: Vec<Self> = events.iter().map(Self::of).collect();
        lines.sort_by_key(|line| std::cmp::Reverse(line.time));
        lines
    }

    fn of(event: &Event) -> Self {
        let series = event.series.as_ref();
        let observed = series.and_then(|series| series.last_observed_time.as_ref());
        let time = observed
            .or(event.event_time.as_ref())
            .map(|time| time.0)
            .or(event.last_timestamp.as_ref().map(|time| time.0))
            .or(event.metadata.creation_timestamp.as_ref().map(|t| t.0));
        let count = series.and_then(|series| series.count).or(event.count);
        Self {
            time,
            r#type: event.type_.clone().unwrap_or_default(),
            reason: event.reason.clone().unwrap_or_default(),
            message: event.message.clone().unwrap_or_default(),
            count: count.unwrap_or(1).max(1),
        }
    }
}

#[cfg(test)]
mod tests;
