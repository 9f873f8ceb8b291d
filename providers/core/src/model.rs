//! The domain model: plain values, complete enough that two equal [`Balancer`]s
//! mean the same cloud objects. Nothing here is optional "for now": a value that
//! is absent means what its documentation says.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use jiff::Timestamp;

use crate::error::{Reason, Refusal};

/// Which Service a load balancer belongs to. Two Services of one name that lived
/// one after the other differ in `uid`, and never share anything.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceId {
    /// `metadata.namespace`
    pub namespace: String,
    /// `metadata.name`
    pub name: String,
    /// `metadata.uid`; the identity, the names above are for people.
    pub uid: String,
}

/// Names one balancer of a class, the unit in which work is serialised.
///
/// The two kinds never meet: a share key that spells another Service's UID is still a
/// share key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// The balancer of one Service alone, by the Service's UID.
    Service(String),
    /// The balancer of all Services with this share key. The provider chooses the text,
    /// for example with the namespace in it.
    Shared(String),
}

/// Transport protocols a listener can have. SCTP is refused before it gets here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP
    Tcp,
    /// UDP
    Udp,
}

/// An IP family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4
    V4,
    /// IPv6
    V6,
}

/// One port of a Service: where clients connect and which node port answers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Listener {
    /// The port's name in the Service, if it has one.
    pub name: Option<String>,
    /// Transport protocol.
    pub protocol: Protocol,
    /// The port clients connect to.
    pub port: u16,
    /// The node port that carries it on every target; 0 where the Service has none
    /// (`allocateLoadBalancerNodePorts: false`).
    pub node_port: u16,
}

/// Which nodes may get traffic, and how to ask a node whether it wants some.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TrafficPolicy {
    /// Any node forwards to any endpoint; kube-proxy's own health decides.
    Cluster,
    /// Only nodes with a local endpoint; each answers for itself on this port
    /// (`spec.healthCheckNodePort`).
    Local {
        /// HTTP 200 on this node port means that the node has a ready endpoint.
        health_check_node_port: u16,
    },
}

/// Whether one client stays with one target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Affinity {
    /// Each connection is balanced anew.
    None,
    /// Connections of one client address go to one target until it was silent this long.
    ClientIp {
        /// Seconds, 1 to 86,400 (`sessionAffinityConfig.clientIP.timeoutSeconds`).
        timeout_seconds: u32,
    },
}

/// The load balancer one Service asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadBalancer {
    /// Whose it is.
    pub id: ServiceId,
    /// In the Service's order; (protocol, port) is unique.
    pub listeners: Vec<Listener>,
    /// Families to publish an address for, primary first; never empty.
    pub families: Vec<Family>,
    /// Which nodes get traffic.
    pub traffic_policy: TrafficPolicy,
    /// Client stickiness.
    pub affinity: Affinity,
    /// Clients that may connect; empty means everybody, on both families.
    pub source_ranges: Vec<IpNet>,
    /// Addresses the user asked for by name, at most one per family.
    pub requested_addresses: Vec<IpAddr>,
    /// Services with the same share key and class may live on one balancer.
    pub share_key: Option<String>,
    /// Settings that only the provider understands, by annotation key: those under the
    /// prefixes that the provider's crate claims.
    pub settings: Settings,
}

/// Settings of one Service for its provider, by annotation key.
pub type Settings = BTreeMap<String, String>;

/// One Service on a balancer, with the addresses that its status already publishes.
/// A provider gives those out again if it can, also after it lost its own memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// What the Service asks for.
    pub load_balancer: LoadBalancer,
    /// `status.loadBalancer.ingress[].ip` as published now.
    pub recorded: Vec<IpAddr>,
    /// For providers that choose among pools.
    pub placement: Placement,
}

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// What decides which pool serves a Service, and in which turn.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// `metadata.creationTimestamp`: the older is served first.
    pub created: Timestamp,
    /// `spec.ipFamilyPolicy`
    pub family_policy: FamilyPolicy,
    /// The pool asked for by name.
    pub pool: Option<String>,
    /// Stands for the set of endpoints (the selector, canonically written; the Service's
    /// own name if it has none); only compared.
    pub endpoints: String,
    /// `metadata.labels`
    pub labels: Arc<Labels>,
    /// Those of its namespace.
    pub namespace_labels: Arc<Labels>,
}

/// `spec.ipFamilyPolicy`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum FamilyPolicy {
    /// One address.
    #[default]
    SingleStack,
    /// One of each family if possible, else one.
    PreferDualStack,
    /// One of each family, or none.
    RequireDualStack,
}

/// Everything that lives under one [`Key`]; total: a member not listed is to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Balancer {
    /// The unit of serialisation.
    pub key: Key,
    /// At least one; in order of creation, so that an older Service wins a conflict.
    pub members: Vec<Member>,
}

/// A node: it carries node ports.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// The node's name.
    pub name: String,
    /// Its `InternalIP`s, both families, in the node's order.
    pub addresses: Vec<IpAddr>,
    /// `spec.providerID`, such as `aws:///eu-west-1a/i-0123456789abcdef0`: what the cloud
    /// that runs the node calls it.
    pub provider_id: Option<String>,
}

/// Where the traffic of load balancers goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetSet {
    /// One set for the whole class: the eligible nodes, on their node ports.
    Nodes(BTreeSet<Target>),
    /// The pods of one Service, on their own ports. For providers whose
    /// [`crate::Traits::endpoints`] asks for them.
    Endpoints {
        /// Whose endpoints.
        service: ServiceId,
        /// All of them, of both families; also those that are not ready.
        endpoints: BTreeSet<Endpoint>,
    },
}

/// One address and port of a pod behind a Service (`discovery.k8s.io/v1`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// The Service's listener that it answers for.
    pub listener: (Protocol, u16),
    /// The pod's address.
    pub address: IpAddr,
    /// The pod's port.
    pub port: u16,
    /// The pod's name, in the Service's namespace.
    pub pod: Option<String>,
    /// The node it runs on.
    pub node: Option<String>,
    /// The node's zone.
    pub zone: Option<String>,
    /// `conditions.ready`
    pub ready: bool,
    /// `conditions.serving`: ready, or ready but terminating.
    pub serving: bool,
    /// `conditions.terminating`
    pub terminating: bool,
}

/// How in-cluster clients reach an address (KEP-1860).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IpMode {
    /// Packets arrive at the node with the load balancer's address as destination.
    Vip,
    /// The load balancer connects to the node by itself.
    Proxy,
}

/// Where clients connect.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// An address, with the mode Kubernetes requires beside it.
    Ip(IpAddr, IpMode),
    /// A DNS name; it never has a mode.
    Hostname(String),
}

/// The state of one port of a published address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PortStatus {
    /// The Service port.
    pub port: u16,
    /// Its protocol.
    pub protocol: Protocol,
    /// `ballast.dev/CamelCase` where this port does not work; `None` is fine.
    pub error: Option<String>,
}

/// One entry of `status.loadBalancer.ingress`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ingress {
    /// Where clients connect.
    pub address: Address,
    /// Every port of the Service, in its order (the API wants all or none).
    pub ports: Vec<PortStatus>,
}

// === impl ServiceId ===

impl fmt::Display for ServiceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

// === impl Key ===

impl Key {
    /// Of a balancer for this Service alone.
    pub fn alone(id: &ServiceId) -> Self {
        Self::Service(id.uid.clone())
    }

    /// Whether this is the balancer of this Service alone.
    pub fn is_of(&self, id: &ServiceId) -> bool {
        matches!(self, Self::Service(uid) if *uid == id.uid)
    }
}

/// A Service's UID, or `share/` and the share key. A UID has no slash, so the text is
/// unique as well.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(uid) => f.write_str(uid),
            Self::Shared(key) => write!(f, "share/{key}"),
        }
    }
}

// === impl Protocol ===

impl Protocol {
    /// The spelling of the Kubernetes API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl Family ===

impl Family {
    /// The family of an address.
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

// === impl LoadBalancer ===

impl LoadBalancer {
    /// For providers that reach the nodes through node ports: refuses a port without one.
    pub fn require_node_ports(&self) -> Result<(), Refusal> {
        let missing: Vec<String> = self
            .listeners
            .iter()
            .filter(|listener| listener.node_port == 0)
            .map(|listener| format!("{}/{}", listener.port, listener.protocol))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        let ServiceId {
            namespace, name, ..
        } = &self.id;
        Err(Refusal::new(
            Reason::NodePortsMissing,
            format!(
                "no node port for {}: traffic reaches the nodes through node ports. Switch them on: kubectl patch service {name} -n {namespace} \
                 -p '{{\"spec\":{{\"allocateLoadBalancerNodePorts\":true}}}}'",
                missing.join(", ")
            ),
        ))
    }

    /// What its status publishes for these addresses: each with every port, none failing.
    pub fn ingress(
        &self,
        addresses: impl IntoIterator<Item = IpAddr>,
        mode: IpMode,
    ) -> Vec<Ingress> {
        let ports: Vec<PortStatus> = self
            .listeners
            .iter()
            .map(|listener| PortStatus {
                port: listener.port,
                protocol: listener.protocol,
                error: None,
            })
            .collect();
        let entry = |address| Ingress {
            address: Address::Ip(address, mode),
            ports: ports.clone(),
        };
        addresses.into_iter().map(entry).collect()
    }
}

// === impl TargetSet ===

impl TargetSet {
    /// How many targets it has.
    pub fn len(&self) -> usize {
        match self {
            Self::Nodes(nodes) => nodes.len(),
            Self::Endpoints { endpoints, .. } => endpoints.len(),
        }
    }

    /// The nodes, for providers that reach nothing else.
    pub fn nodes(&self) -> Result<&BTreeSet<Target>, Refusal> {
        match self {
            Self::Nodes(nodes) => Ok(nodes),
            Self::Endpoints { service, .. } => Err(Refusal::new(
                Reason::Unsupported,
                format!("Service {service}: this provider sends traffic to nodes, not to pods"),
            )),
        }
    }

    /// Whether nothing could take traffic.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

// === impl Ingress ===

impl Ingress {
    /// The IP address, if it is one.
    pub const fn ip(&self) -> Option<IpAddr> {
        match self.address {
            Address::Ip(ip, _) => Some(ip),
            Address::Hostname(_) => None,
        }
    }
}
