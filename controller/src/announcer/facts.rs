//! What the stores keep of each object: the values that the view is built of. Parsing never
//! fails; a part that is invalid is left out.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ballast_agent::seal::object::{Content, ObjectSeal};
use ballast_announce::claim::Claim;
use ballast_announce::timing;
use ballast_announce::view::{Detection, Interface, Policy};
use ballast_announce::{Mac, NodeName};
use ballast_crds::{
    Announcer, AnnouncerInterface, AnnouncerStatus, FailureDetection, Holding, L2Settings,
    LoadBalancerClass, REBALANCE_AT, Rebalance, class_key, class_of_key,
};
use ballast_l2::{Labels, Selector};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::ResourceExt as _;
use kube::core::DeserializeGuard;
use regex::{Regex, RegexBuilder};
use tracing::warn;

use super::sealed;
use crate::cluster::conditions::ACCEPTED;
use crate::cluster::eligibility::excludes;
use crate::cluster::slices::{SERVICE_NAME, WatchedSlice};
use crate::cluster::store::Key;
use crate::cluster::texts;
use crate::cluster::view::{AUTOSCALER_TAINT, EXCLUDE_LABEL, Name};
use crate::cluster::watched::{
    LeaseSpec, NodeSpec, NodeStatus, ServiceSpec, ServiceStatus, Watched,
};
use crate::pools::selectors;

/// The taint of a node that was shut down without notice.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
/// The addresses that are kept of one Service, and of one node.
const MOST_ADDRESSES: usize = 64;
/// The nodes that are kept of one slice. The API server allows 1,000 endpoints.
const MOST_ENDPOINTS: usize = 1_000;
/// The classes that are kept of one Service: one, and two while it moves.
const MOST_CLASSES: usize = 4;
/// What one regular expression may take when it is compiled, in bytes.
const PATTERN_SIZE: usize = 256 * 1024;
/// More frequent repetitions would be a flood.
const SHORTEST_REFRESH: Duration = Duration::from_secs(1);

/// A Service, as the watch reads it.
pub type WatchedService = Watched<Service, ServiceSpec, ServiceStatus>;
/// A Node.
pub type WatchedNode = Watched<Node, NodeSpec, NodeStatus>;
/// A Lease.
pub type WatchedLease = Watched<Lease, LeaseSpec>;

/// A Service that publishes addresses of a Ballast class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceFacts {
    /// Its name.
    pub name: Name,
    /// The class that it names, then those whose finalizers it has.
    pub classes: Vec<Arc<str>>,
    /// `externalTrafficPolicy`
    pub policy: Policy,
    /// `healthCheckNodePort`; only with policy Local.
    pub health_port: Option<u16>,
    /// The published addresses that nodes must answer for.
    pub addresses: Vec<IpAddr>,
}

/// The endpoints in one `EndpointSlice`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceFacts {
    /// The Service.
    pub service: Name,
    /// The nodes with ready endpoints, sorted.
    pub ready: Vec<NodeName>,
    /// The nodes with endpoints that still serve but are not ready: they terminate. Sorted.
    pub ending: Vec<NodeName>,
    /// Whether any endpoint serves, also one without a node.
    pub serves: bool,
}

/// A Node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeObject {
    /// Its name.
    pub name: NodeName,
    /// Its UID.
    pub uid: Box<str>,
    /// For selectors.
    pub labels: Labels,
    /// The exclusion label says so.
    pub excluded: bool,
    /// It is unschedulable, about to be removed by the autoscaler, or being deleted.
    pub cordoned: bool,
    /// It has the out-of-service taint.
    pub out_of_service: bool,
    /// Its internal addresses.
    pub addresses: Vec<IpAddr>,
}

/// An `l2` class.
#[derive(Clone, Debug, PartialEq)]
pub struct ClassFacts {
    /// Its name.
    pub name: Arc<str>,
    /// `nodeSelector`; `None` is all nodes.
    pub nodes: Option<NodeSelector>,
    /// `preferredNodes`; `None` prefers none.
    pub preferred: Option<NodeSelector>,
    /// `rebalance: Gradual`
    pub gradual: bool,
    /// The request of `ballast rebalance`: its time.
    pub asked: Option<Timestamp>,
    /// `interfaces`; none is all interfaces.
    pub interfaces: Vec<Pattern>,
    /// `failureDetection`
    pub detection: Detection,
    /// `refreshInterval`; `None` disables it.
    pub refresh: Option<Duration>,
}

/// A selector of nodes.
#[derive(Clone, Debug, PartialEq)]
pub enum NodeSelector {
    /// It is valid.
    Valid(Selector),
    /// It is not: it matches no node. Why.
    Invalid(String),
}

/// A regular expression of interface names.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: Box<str>,
    /// `None` if it is invalid: it matches nothing.
    regex: Option<Regex>,
}

/// An Announcer object.
#[derive(Clone, Debug, PartialEq)]
pub struct AnnouncerFacts {
    /// The name of its node.
    pub name: NodeName,
    /// The process that wrote the status.
    pub incarnation: Option<Box<str>>,
    /// The interfaces.
    pub interfaces: Vec<Interface>,
    /// The claims.
    pub claims: Vec<(IpAddr, Claim)>,
    /// The whole status, of this node's own object alone.
    pub own: Option<Box<AnnouncerStatus>>,
    /// The UID of the object.
    pub uid: Box<str>,
    /// Whether it has a status.
    pub written: bool,
    /// Increases with each status.
    pub serial: i64,
    /// What the seals prove.
    pub content: Content,
    /// The seals.
    pub seals: Vec<ObjectSeal>,
}

// === impl ServiceFacts ===

impl ServiceFacts {
    /// `None` for a Service without an address that nodes must answer for.
    ///
    /// A Service belongs to the class that it names, or to one whose finalizer the controller has
    /// added. (With a class of kind `l2`, only a Service that names none gets the finalizer.) The
    /// controller writes the condition together with the addresses, so a Service that has both got
    /// its addresses from Ballast. `Accepted` may be `False`: after a change that is refused, the
    /// addresses stay.
    pub fn of(name: &Name, service: &WatchedService) -> Option<Self> {
        let spec = service.spec.as_ref()?;
        let status = service.status.as_ref()?;
        let mut conditions = status.conditions.iter().flatten();
        if spec.kind.as_deref() != Some("LoadBalancer") || !conditions.any(|it| it.kind == ACCEPTED)
        {
            return None;
        }
        let own = spec.load_balancer_class.as_deref();
        let finalizers = service.metadata.finalizers.as_deref().unwrap_or_default();
        let mut classes: Vec<&str> = finalizers
            .iter()
            .map(String::as_str)
            .chain(own)
            .filter_map(class_of_key)
            .collect();
        classes.sort_by_key(|class| (own != Some(&class_key(class)), *class));
        classes.dedup();
        classes.truncate(MOST_CLASSES);
        let ingress = status.load_balancer.iter();
        let ingress = ingress.flat_map(|balancer| balancer.ingress.iter().flatten());
        let mut addresses: Vec<IpAddr> = ingress
            .filter(|entry| entry.ip_mode.as_deref().is_none_or(|mode| mode == "VIP"))
            .filter_map(|entry| entry.ip.as_deref()?.parse().ok())
            .take(MOST_ADDRESSES)
            .collect();
        addresses.shrink_to_fit();
        let local = spec.external_traffic_policy.as_deref() == Some("Local");
        let port = spec.health_check_node_port.filter(|_| local);
        (!classes.is_empty() && !addresses.is_empty()).then(|| Self {
            name: name.clone(),
            classes: classes.into_iter().map(texts::shared).collect(),
            policy: if local {
                Policy::Local
            } else {
                Policy::Cluster
            },
            health_port: port
                .and_then(|port| u16::try_from(port).ok())
                .filter(|port| *port != 0),
            addresses,
        })
    }
}

// === impl SliceFacts ===

impl SliceFacts {
    /// `None` for a slice that belongs to no Service or serves nothing.
    pub fn of(name: &Name, slice: &WatchedSlice) -> Option<Self> {
        let labels = slice.metadata.labels.as_ref()?;
        let service = Name::named(
            Some(&name.namespace),
            labels.get(SERVICE_NAME).map(|it| &**it),
        );
        let (mut ready, mut ending) = (BTreeSet::new(), BTreeSet::new());
        let mut serves = false;
        for endpoint in slice.endpoints.iter().flatten().take(MOST_ENDPOINTS) {
            let conditions = endpoint.conditions.unwrap_or_default();
            let is_ready = conditions.ready.unwrap_or(true);
            if !is_ready && !conditions.serving.unwrap_or(false) {
                continue;
            }
            serves = true;
            if let Some(node) = &endpoint.node_name {
                let nodes = if is_ready { &mut ready } else { &mut ending };
                nodes.insert(node.as_str());
            }
        }
        let names = |nodes: BTreeSet<&str>| nodes.into_iter().map(NodeName::new).collect();
        (serves && !service.name.is_empty()).then(|| Self {
            service,
            ready: names(ready),
            ending: names(ending),
            serves,
        })
    }
}

// === impl NodeObject ===

impl NodeObject {
    /// Parses a Node.
    pub fn of(node: &WatchedNode) -> Self {
        let meta = &node.metadata;
        let labels = meta.labels.as_ref().map(Labels::from).unwrap_or_default();
        let spec = node.spec.as_ref();
        let taints = spec.and_then(|spec| spec.taints.as_deref());
        let tainted = |key: &str| taints.unwrap_or_default().iter().any(|it| it.key == key);
        let addresses = node.status.iter();
        let addresses = addresses.flat_map(|status| status.addresses.iter().flatten());
        Self {
            name: NodeName::new(meta.name.as_deref().unwrap_or_default()),
            uid: meta.uid.as_deref().unwrap_or_default().into(),
            excluded: excludes(labels.get(EXCLUDE_LABEL)),
            labels,
            cordoned: spec.is_some_and(|spec| spec.unschedulable == Some(true))
                || tainted(AUTOSCALER_TAINT)
                || meta.deletion_timestamp.is_some(),
            out_of_service: tainted(OUT_OF_SERVICE),
            addresses: addresses
                .filter(|address| address.kind == "InternalIP")
                .filter_map(|address| address.address.parse().ok())
                .take(MOST_ADDRESSES)
                .collect(),
        }
    }
}

// === impl ClassFacts ===

impl ClassFacts {
    /// `None` for a class of another provider.
    pub fn of(name: &Arc<str>, guard: &DeserializeGuard<LoadBalancerClass>) -> Option<Self> {
        match &guard.0 {
            Ok(class) => {
                let asked = class.annotations().get(REBALANCE_AT);
                let facts = Self::from_settings(name, class.spec.l2.as_ref()?);
                Some(Self {
                    asked: asked.and_then(|time| time.parse().ok()),
                    ..facts
                })
            }
            Err(error) => {
                warn!(class = &**name, %error, "cannot read the LoadBalancerClass (is its CRD of another version?)");
                None
            }
        }
    }

    fn from_settings(name: &Arc<str>, settings: &L2Settings) -> Self {
        let patterns = settings.interfaces.iter();
        let refresh = Duration::from(settings.refresh_interval);
        let repeats = !refresh.is_zero() && !settings.refresh_interval.is_negative();
        Self {
            name: Arc::clone(name),
            nodes: settings.node_selector.as_ref().map(NodeSelector::of),
            preferred: settings.preferred_nodes.as_ref().map(NodeSelector::of),
            gradual: settings.rebalance == Rebalance::Gradual,
            asked: None,
            interfaces: patterns.map(|text| Pattern::new(text)).collect(),
            detection: match settings.failure_detection {
                FailureDetection::Fast => Detection::Fast,
                FailureDetection::Tolerant => Detection::Tolerant,
                FailureDetection::Lease => Detection::Lease,
            },
            refresh: repeats.then(|| refresh.max(SHORTEST_REFRESH)),
        }
    }

    /// Names in the log what is invalid. For a class that changed: its status changes often.
    pub fn complain(&self) {
        let class = &*self.name;
        for pattern in self.interfaces.iter().filter(|it| it.regex.is_none()) {
            let pattern = &*pattern.text;
            warn!(
                class,
                pattern,
                "spec.l2.interfaces has an invalid regular expression; it matches no interface"
            );
        }
        for (field, selector) in [
            ("nodeSelector", &self.nodes),
            ("preferredNodes", &self.preferred),
        ] {
            if let Some(NodeSelector::Invalid(why)) = selector {
                warn!(class, why, "spec.l2.{field} is invalid; it matches no node");
            }
        }
    }
}

// === impl NodeSelector ===

impl NodeSelector {
    fn of(selector: &LabelSelector) -> Self {
        selectors::parse(selector).map_or_else(Self::Invalid, Self::Valid)
    }

    /// Whether it matches a node with these labels.
    pub fn matches(&self, labels: &Labels) -> bool {
        match self {
            Self::Valid(selector) => selector.matches(labels),
            Self::Invalid(_) => false,
        }
    }
}

// === impl Pattern ===

impl Pattern {
    /// Compiles a regular expression.
    pub fn new(text: &str) -> Self {
        let mut builder = RegexBuilder::new(text);
        builder
            .size_limit(PATTERN_SIZE)
            .dfa_size_limit(PATTERN_SIZE);
        Self {
            text: text.into(),
            regex: builder.build().ok(),
        }
    }

    /// Whether it matches the name of an interface.
    pub fn matches(&self, name: &str) -> bool {
        self.regex.as_ref().is_some_and(|it| it.is_match(name))
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

// === impl AnnouncerFacts ===

impl AnnouncerFacts {
    /// Parses an Announcer. `me` is the node of this process.
    pub fn of(name: &NodeName, guard: &DeserializeGuard<Announcer>, me: &NodeName) -> Self {
        let object = guard.0.as_ref().inspect_err(|error| {
            warn!(announcer = %name, %error, "cannot read the Announcer (is its CRD of another version?)");
        });
        let uid = match &guard.0 {
            Ok(object) => object.metadata.uid.as_deref(),
            Err(error) => error.metadata.uid.as_deref(),
        };
        let uid = uid.unwrap_or_default();
        let status = object.ok().and_then(|object| object.status.as_ref());
        let written = status.is_some();
        let nothing = AnnouncerStatus::default();
        let status = status.unwrap_or(&nothing);
        let interfaces = status.interfaces.iter().take(MOST_ADDRESSES).zip(1..);
        let holdings = status.holdings.iter().take(timing::CLAIMS);
        Self {
            name: name.clone(),
            incarnation: status.incarnation.as_deref().map(Into::into),
            interfaces: interfaces
                .filter_map(|(interface, index)| parsed(interface, index))
                .collect(),
            claims: holdings
                .filter_map(|holding| claim(holding, name))
                .collect(),
            own: (name == me).then(|| Box::new(status.clone())),
            uid: uid.into(),
            written,
            serial: status.serial.unwrap_or_default(),
            content: sealed::content(name.as_str(), uid, status),
            seals: sealed::seals(status),
        }
    }
}

fn parsed(interface: &AnnouncerInterface, index: u32) -> Option<Interface> {
    let nets = interface.addresses.iter().take(MOST_ADDRESSES);
    Some(Interface {
        index,
        name: texts::shared(&interface.name),
        mac: mac(&interface.mac)?,
        nets: nets.filter_map(|net| net.0.parse().ok()).collect(),
        carrier: interface.usable,
    })
}

/// `02:00:00:00:00:01`
fn mac(text: &str) -> Option<Mac> {
    let mut octets = [0; 6];
    let mut parts = text.split(':');
    for octet in &mut octets {
        *octet = u8::from_str_radix(parts.next()?, 16).ok()?;
    }
    parts.next().is_none().then_some(Mac(octets))
}

fn claim(holding: &Holding, holder: &NodeName) -> Option<(IpAddr, Claim)> {
    let successors = holding.successors.iter().take(timing::SUCCESSORS);
    let claim = Claim {
        epoch: u64::try_from(holding.epoch).ok()?,
        holder: holder.clone(),
        revision: u32::try_from(holding.revision).ok()?,
        successors: successors.map(|node| NodeName::new(&node.0)).collect(),
    };
    Some((holding.address.parse().ok()?, claim))
}

#[cfg(test)]
mod tests;
