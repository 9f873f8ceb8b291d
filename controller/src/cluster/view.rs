//! What the stores keep of a Service and of a Node: the fields that decisions need, parsed
//! once, when the object arrives.
//!
//! A whole Service with its managed fields takes several kilobytes; 5,000 of them take more
//! memory than the rest of the process. Parsing never fails: a Service with invalid settings
//! becomes a view with a [`Refusal`].

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ballast_crds::class_of_key;
use ballast_provider::{
    Address, Ingress, IpMode, Labels, LoadBalancer, Placement, PortStatus, Protocol, Reason,
    Refusal, ServiceId, Target,
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    LoadBalancerIngress, Node, PortStatus as ApiPort, Service, ServiceSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::cluster::conditions::{is_ours, kinds};
use crate::cluster::deletion;
use crate::cluster::managers;
use crate::cluster::meta::{created, version};
use crate::cluster::store::Key;
use crate::cluster::texts;
use crate::cluster::translate::{self, Dialect};
use crate::process::{queue, text};

/// The finalizer of upstream's service controller, which only Services without a class have.
pub const STANDARD_FINALIZER: &str = "service.kubernetes.io/load-balancer-cleanup";

/// One class holds a Service, and two while it moves. A user can add finalizers until the
/// object is full; the ones beyond this number are read when the first ones are removed.
const MOST_HOLDERS: usize = 16;

/// Names a Service in the queue and the stores.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// `metadata.namespace`
    pub namespace: Arc<str>,
    /// `metadata.name`
    pub name: Arc<str>,
}

/// The fields of a Service that the controller keeps.
#[derive(Clone, Debug, PartialEq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a field of the Service"
)]
pub struct ServiceView {
    /// Namespace, name and UID.
    pub id: ServiceId,
    /// `metadata.resourceVersion`; versions of one object increase (KEP-5504).
    pub version: u64,
    /// `metadata.creationTimestamp`, whole seconds.
    pub created: Timestamp,
    /// `metadata.deletionTimestamp` is set.
    pub deleting: bool,
    /// `spec.type` is `LoadBalancer`.
    pub is_load_balancer: bool,
    /// `spec.loadBalancerClass`.
    pub class: Option<Arc<str>>,
    /// The Ballast classes whose finalizers it has, sorted; at most [`MOST_HOLDERS`].
    pub held_by: Vec<Arc<str>>,
    /// It has [`STANDARD_FINALIZER`].
    pub standard_finalizer: bool,
    /// Its finalizers that are neither a class's nor the standard one, as a message names them.
    pub other_finalizers: Option<Box<str>>,
    /// What it asks for, or why it is refused; `None` unless a Ballast class could serve it.
    pub load_balancer: Option<Result<LoadBalancer, Refusal>>,
    /// What decides which pool serves it.
    pub placement: Placement,
    /// For a refused Service: the part that was accepted before and is still published.
    pub accepted_before: Option<Box<LoadBalancer>>,
    /// Unknown annotations of our families, each with the nearest known key.
    pub unknown_annotations: Vec<String>,
    /// `status.loadBalancer.ingress` as published.
    pub ingress: Vec<Ingress>,
    /// `ingress` represents all that is published: no entry has a field or value that it
    /// cannot represent.
    pub ingress_is_exact: bool,
    /// The Ballast conditions that it has.
    pub conditions: Vec<ConditionView>,
    /// The other field manager that last set something that Ballast writes; bounded.
    pub rival: Option<Box<str>>,
}

/// A Ballast condition of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConditionView {
    /// `ballast.dev/…`
    pub kind: Cow<'static, str>,
    /// `True`, `False` or `Unknown`.
    pub status: Cow<'static, str>,
    /// `CamelCase`.
    pub reason: Cow<'static, str>,
    /// The message, for people.
    pub message: Arc<str>,
    /// When `status` last changed.
    pub since: Timestamp,
    /// It has no field that Ballast does not write (`observedGeneration`).
    pub is_exact: bool,
}

/// The fields of a Node that the controller keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeView {
    /// The node as a target of load balancers.
    pub target: Target,
    /// All of its addresses, of any type: no Service may use one of them.
    pub addresses: Vec<IpAddr>,
    /// `metadata.deletionTimestamp` is set.
    pub deleting: bool,
    /// The value of the exclusion label, if the node has it.
    pub excluded: Option<String>,
    /// It has the taint `ToBeDeletedByClusterAutoscaler`.
    pub doomed: bool,
    /// Its kubelet has not renewed the Node's Lease for a while: the node controller sets the
    /// condition `Ready` to `Unknown`.
    pub silent: bool,
}

/// The most addresses of a node that are kept: a kubelet writes its own, and must not fill the
/// target sets of all classes.
const MOST_ADDRESSES: usize = 64;
/// The most labels of a node that are kept, for the same reason. A label has at most 380 characters.
const MOST_LABELS: usize = 256;
/// The label that keeps a node out of load balancers.
pub const EXCLUDE_LABEL: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
/// The taint of a node that the autoscaler is about to delete.
pub const AUTOSCALER_TAINT: &str = "ToBeDeletedByClusterAutoscaler";

// === impl Name ===

impl Name {
    /// The name from an object's metadata.
    pub fn of(meta: &ObjectMeta) -> Self {
        Key::named(meta.namespace.as_deref(), meta.name.as_deref())
    }
}

impl Key for Name {
    fn named(namespace: Option<&str>, name: Option<&str>) -> Self {
        Self {
            namespace: texts::shared(namespace.unwrap_or_default()),
            name: name.unwrap_or_default().into(),
        }
    }
}

/// The namespaces take turns, so a tenant with many Services does not hold up the others.
impl queue::Key for Name {
    type Group = Arc<str>;

    fn group(&self) -> Arc<str> {
        Arc::clone(&self.namespace)
    }
}

impl From<&ServiceId> for Name {
    fn from(id: &ServiceId) -> Self {
        Self {
            namespace: id.namespace.clone(),
            name: id.name.clone(),
        }
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

// === impl ServiceView ===

impl ServiceView {
    /// Parses a Service for a build whose providers have no settings; never fails.
    pub fn of(service: &Service) -> Self {
        Self::read(&Name::of(&service.metadata), service, Dialect::default())
    }

    /// Parses a Service of this name; never fails.
    pub fn read(name: &Name, service: &Service, dialect: Dialect) -> Self {
        let meta = &service.metadata;
        let spec = service.spec.as_ref();
        let id = ServiceId {
            namespace: Arc::clone(&name.namespace),
            name: Arc::clone(&name.name),
            uid: meta.uid.as_deref().unwrap_or_default().into(),
        };
        let is_load_balancer = spec.and_then(|spec| spec.type_.as_deref()) == Some("LoadBalancer");
        let class = spec.and_then(|spec| spec.load_balancer_class.as_deref());
        let finalizers = meta.finalizers.as_deref().unwrap_or_default();
        let held_by = finalizers
            .iter()
            .filter_map(|finalizer| class_of_key(finalizer));
        let mut held_by: Vec<&str> = held_by.collect();
        held_by.sort_unstable();
        held_by.truncate(MOST_HOLDERS);
        let held_by = exact(held_by.into_iter().map(texts::shared));
        let could_be_ours =
            is_load_balancer && class.is_none_or(|class| class_of_key(class).is_some());
        let none = BTreeMap::new();
        let annotations = meta.annotations.as_ref().unwrap_or(&none);
        let (nothing, published) = (ServiceSpec::default(), published(service));
        let ingress = exact(published.iter().filter_map(ingress));
        let spec = spec.unwrap_or(&nothing);
        let load_balancer = could_be_ours.then(|| {
            translate::labels(meta)?;
            translate::load_balancer(&id, spec, annotations, dialect)
        });
        let refused = matches!(load_balancer, Some(Err(_)));
        Self {
            accepted_before: refused
                .then(|| translate::accepted_before(&id, spec, annotations, &ingress, dialect))
                .flatten()
                .map(Box::new),
            load_balancer,
            unknown_annotations: if could_be_ours {
                translate::unknown_annotations(annotations, dialect)
            } else {
                Vec::new()
            },
            version: version(meta),
            placement: if could_be_ours {
                translate::placement(meta, spec)
            } else {
                Placement::default()
            },
            created: created(meta),
            deleting: meta.deletion_timestamp.is_some(),
            standard_finalizer: finalizers
                .iter()
                .any(|finalizer| finalizer == STANDARD_FINALIZER),
            other_finalizers: deletion::others(finalizers.iter().map(String::as_str).filter(
                |finalizer| *finalizer != STANDARD_FINALIZER && class_of_key(finalizer).is_none(),
            ))
            .map(String::into_boxed_str),
            ingress_is_exact: is_exact(published, &ingress),
            ingress,
            conditions: conditions(service),
            rival: managers::rival(meta),
            id,
            is_load_balancer,
            class: class.map(texts::shared),
            held_by,
        }
    }

    /// Sorts Services by age, the oldest first. The UID decides between equal times.
    pub fn age(&self) -> (Timestamp, &str) {
        (self.created, &self.id.uid)
    }

    /// The addresses that it publishes.
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.ingress.iter().filter_map(Ingress::ip).collect()
    }

    /// The hostnames that it publishes.
    pub fn hostnames(&self) -> Vec<String> {
        let all = self.ingress.iter().filter_map(Ingress::hostname);
        all.map(str::to_owned).collect()
    }

    /// A condition by its full type.
    pub fn condition(&self, kind: &str) -> Option<&ConditionView> {
        self.conditions
            .iter()
            .find(|condition| condition.kind == kind)
    }

    /// What it asks for or, if that is refused, the part that was accepted before.
    pub fn shapes(&self) -> impl Iterator<Item = &LoadBalancer> {
        let wanted = self.load_balancer.iter().flatten();
        wanted.chain(self.accepted_before.as_deref())
    }

    /// The Ballast classes whose finalizers it has.
    pub fn holders(&self) -> impl Iterator<Item = &str> {
        self.held_by.iter().map(|class| &**class)
    }

    /// Whether it has the finalizer of this class.
    pub fn is_held_by(&self, class: &str) -> bool {
        self.holders().any(|held| held == class)
    }
}

/// The order in which Services get a scarce resource: the oldest first.
pub fn oldest_first(mut services: Vec<Arc<ServiceView>>) -> Vec<Arc<ServiceView>> {
    services.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
    services
}

fn published(service: &Service) -> &[LoadBalancerIngress] {
    let status = service.status.as_ref();
    let load_balancer = status.and_then(|status| status.load_balancer.as_ref());
    let ingress = load_balancer.and_then(|load_balancer| load_balancer.ingress.as_deref());
    ingress.unwrap_or_default()
}

/// Whether the values represent the entries exactly, in the form in which Ballast writes
/// them. (No `ipMode` means `VIP`.)
fn is_exact(entries: &[LoadBalancerIngress], values: &[Ingress]) -> bool {
    let same = |(entry, value): (&LoadBalancerIngress, &Ingress)| {
        let (ip, hostname, mode) = match &value.address {
            Address::Ip(ip, IpMode::Vip) => (Some(ip.to_string()), None, "VIP"),
            Address::Ip(ip, IpMode::Proxy) => (Some(ip.to_string()), None, "Proxy"),
            Address::Hostname(name) => (None, Some(name), ""),
        };
        let written_mode = entry.ip_mode.as_deref();
        let ports = entry.ports.as_deref().unwrap_or_default();
        entry.ip == ip
            && entry.hostname.as_ref() == hostname
            && written_mode.is_none_or(|written| written == mode)
            && ports.len() == value.ports.len()
    };
    entries.len() == values.len() && entries.iter().zip(values).all(same)
}

fn ingress(entry: &LoadBalancerIngress) -> Option<Ingress> {
    let address = match (&entry.ip, &entry.hostname) {
        (Some(ip), _) => Address::Ip(
            ip.parse().ok()?,
            if entry.ip_mode.as_deref() == Some("Proxy") {
                IpMode::Proxy
            } else {
                IpMode::Vip
            },
        ),
        (None, Some(hostname)) => Address::Hostname(hostname.clone()),
        (None, None) => return None,
    };
    let ports = entry.ports.as_deref().unwrap_or_default();
    Some(Ingress {
        address,
        ports: exact(ports.iter().filter_map(port_status)),
    })
}

/// The labels of a node, in the order of their keys.
fn labels_of(node: &ObjectMeta) -> Arc<Labels> {
    let labels = node.labels.iter().flatten().take(MOST_LABELS);
    let labels: Labels = labels
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect();
    Arc::new(labels)
}

/// Without the spare capacity of a growing `Vec`: there are many views, and they stay in
/// memory.
fn exact<T>(values: impl Iterator<Item = T>) -> Vec<T> {
    let mut values: Vec<T> = values.collect();
    values.shrink_to_fit();
    values
}

fn port_status(port: &ApiPort) -> Option<PortStatus> {
    Some(PortStatus {
        port: u16::try_from(port.port).ok()?,
        protocol: match port.protocol.as_str() {
            "TCP" => Protocol::Tcp,
            "UDP" => Protocol::Udp,
            _ => return None,
        },
        error: port.error.clone(),
    })
}

fn conditions(service: &Service) -> Vec<ConditionView> {
    let all = service
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_deref());
    let ours = all
        .unwrap_or_default()
        .iter()
        .filter(|condition| is_ours(condition))
        .map(|condition| ConditionView {
            kind: common(&condition.type_),
            status: common(&condition.status),
            reason: common(&condition.reason),
            // Cut only if it is longer than any text of ours, so that it still differs from
            // ours.
            message: texts::shared(&text::shortened(&condition.message, text::MESSAGE + 1)),
            since: condition.last_transition_time.0,
            is_exact: condition.observed_generation.is_none(),
        });
    exact(ours)
}

/// The text; those that nearly every Service has take no memory of their own.
fn common(text: &str) -> Cow<'static, str> {
    let statuses = ["True", "False", "Unknown"].into_iter();
    let reasons = [Reason::Accepted, Reason::Programmed].map(Reason::as_str);
    let mut all = kinds().chain(statuses).chain(reasons);
    let found = all.find(|common| *common == text);
    found.map_or_else(|| Cow::Owned(text.to_owned()), Cow::Borrowed)
}

// === impl NodeView ===

impl NodeView {
    /// Parses a Node; never fails.
    pub fn of(node: &Node) -> Self {
        let meta = &node.metadata;
        let labels: Option<&BTreeMap<String, String>> = meta.labels.as_ref();
        let addresses = node
            .status
            .as_ref()
            .and_then(|status| status.addresses.as_deref());
        let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref());
        Self {
            target: Target {
                provider_id: node.spec.as_ref().and_then(|spec| spec.provider_id.clone()),
                name: meta.name.clone().unwrap_or_default(),
                addresses: addresses
                    .unwrap_or_default()
                    .iter()
                    .filter(|address| address.type_ == "InternalIP")
                    .filter_map(|address| address.address.parse().ok())
                    .take(MOST_ADDRESSES)
                    .collect(),
                labels: labels_of(meta),
            },
            addresses: addresses
                .unwrap_or_default()
                .iter()
                .filter_map(|address| address.address.parse().ok())
                .take(MOST_ADDRESSES)
                .collect(),
            deleting: meta.deletion_timestamp.is_some(),
            excluded: labels.and_then(|labels| labels.get(EXCLUDE_LABEL)).cloned(),
            doomed: taints
                .unwrap_or_default()
                .iter()
                .any(|taint| taint.key == AUTOSCALER_TAINT),
            silent: node
                .status
                .as_ref()
                .and_then(|status| status.conditions.as_deref())
                .unwrap_or_default()
                .iter()
                .any(|it| it.type_ == "Ready" && it.status == "Unknown"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_addresses_of_a_node_that_are_kept_are_bounded() {
        let addresses: Vec<_> = (0..10_000)
            .map(|n| serde_json::json!({"type": "InternalIP", "address": format!("fd00::{n:x}")}))
            .collect();
        let node = serde_json::json!({"status": {"addresses": addresses}});
        let view = NodeView::of(&serde_json::from_value(node).unwrap());
        let counts = (view.target.addresses.len(), view.addresses.len());
        assert_eq!(counts, (MOST_ADDRESSES, MOST_ADDRESSES));
    }

    #[test]
    fn the_labels_of_a_node_that_are_kept_are_bounded() {
        let labels: BTreeMap<_, _> = (0..10_000).map(|n| (format!("l{n:05}"), "v")).collect();
        let node = serde_json::json!({"metadata": {"labels": labels}});
        let view = NodeView::of(&serde_json::from_value(node).unwrap());
        assert_eq!(view.target.labels.iter().count(), MOST_LABELS);
        assert_eq!(view.target.labels.get("l00007"), Some("v"));
    }

    #[test]
    fn the_finalizers_that_are_kept_are_bounded() {
        let finalizers = (0..10_000).map(|n| format!("ballast.dev/c{n}")).collect();
        let service = Service {
            metadata: ObjectMeta {
                finalizers: Some(finalizers),
                ..ObjectMeta::default()
            },
            ..Service::default()
        };
        assert_eq!(ServiceView::of(&service).held_by.len(), MOST_HOLDERS);
    }
}
