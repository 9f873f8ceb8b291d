//! The domain model: plain values, complete enough that two equal [`Balancer`]s mean the same
//! cloud objects. The documentation of each optional value says what its absence means.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use jiff::Timestamp;

use crate::error::{Reason, Refusal};
use crate::labels::Labels;

/// Identifies the Service of a load balancer. Two Services that had the same name one after
/// the other differ in `uid`, and never share anything. Many tables have a copy, so copies
/// share their texts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceId {
    /// `metadata.namespace`
    pub namespace: Arc<str>,
    /// `metadata.name`
    pub name: Arc<str>,
    /// `metadata.uid`, which is the identity; the names above are for display.
    pub uid: Arc<str>,
}

/// Identifies one balancer of a class, the unit in which work is serialised.
///
/// The two kinds never collide: a share key that equals another Service's UID is still a share
/// key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// The balancer of a single Service, by the Service's UID.
    Service(Arc<str>),
    /// The balancer of all Services with this share key. The provider chooses the text, which
    /// may for example contain the namespace.
    Shared(Arc<str>),
}

/// Transport protocols of a listener. SCTP is refused earlier.
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

/// One port of a Service: the port for clients and the node port behind it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Listener {
    /// The port's name in the Service, if it has one.
    pub name: Option<String>,
    /// Transport protocol.
    pub protocol: Protocol,
    /// The port clients connect to.
    pub port: u16,
    /// The node port on every target; 0 if the Service has none
    /// (`allocateLoadBalancerNodePorts: false`).
    pub node_port: u16,
}

/// Which nodes may get traffic, and how to check whether a node accepts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TrafficPolicy {
    /// Any node forwards to any endpoint; the health of kube-proxy decides.
    Cluster,
    /// Only nodes with a local endpoint. Each node reports this on its port
    /// `spec.healthCheckNodePort`.
    Local {
        /// HTTP 200 on this node port means that the node has a ready endpoint.
        health_check_node_port: u16,
    },
}

/// Whether a client stays with one target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Affinity {
    /// Each connection is balanced independently.
    None,
    /// Connections of one client address go to one target, until the client was silent for
    /// this long.
    ClientIp {
        /// Seconds, 1 to 86,400 (`sessionAffinityConfig.clientIP.timeoutSeconds`).
        timeout_seconds: u32,
    },
}

/// The load balancer that one Service requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadBalancer {
    /// The Service.
    pub id: ServiceId,
    /// In the Service's order; (protocol, port) is unique.
    pub listeners: Vec<Listener>,
    /// The families to publish an address for, primary first; never empty.
    pub families: Vec<Family>,
    /// Which nodes get traffic.
    pub traffic_policy: TrafficPolicy,
    /// Session affinity.
    pub affinity: Affinity,
    /// Clients that may connect; if empty, all clients of both families.
    pub source_ranges: Vec<IpNet>,
    /// Addresses that the user requested, at most one per family.
    pub requested_addresses: Vec<IpAddr>,
    /// Services with the same share key and class may share one balancer.
    pub share_key: Option<String>,
    /// Settings that only the provider interprets, by annotation key. They have the
    /// prefixes that the provider's crate claims.
    pub settings: Settings,
}

/// A Service's settings for its provider, by annotation key.
pub type Settings = BTreeMap<String, String>;

/// One Service on a balancer, with the addresses that its status already publishes. A
/// provider assigns those again if it can, even after it lost its own state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// What the Service requests.
    pub load_balancer: LoadBalancer,
    /// `status.loadBalancer.ingress[].ip` as currently published.
    pub published: Vec<IpAddr>,
    /// For providers that choose among pools.
    pub placement: Placement,
    /// The pods behind the Service, of both families, with those that are not ready. `None` if
    /// the provider has not asked for them ([`crate::Provider::uses_endpoints`]).
    pub endpoints: Option<Arc<BTreeSet<Endpoint>>>,
}

/// What decides which pool serves a Service, and in which order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// `metadata.creationTimestamp`; older Services are served first.
    pub created: Timestamp,
    /// `spec.ipFamilyPolicy`
    pub family_policy: FamilyPolicy,
    /// The pool requested by name.
    pub pool: Option<String>,
    /// Identifies the set of endpoints: the selector in canonical form, or the Service's
    /// own name if it has none. It is only compared.
    pub endpoints: String,
    /// `metadata.labels`
    pub labels: Arc<Labels>,
    /// The labels of its namespace.
    pub namespace_labels: Arc<Labels>,
}

/// `spec.ipFamilyPolicy`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum FamilyPolicy {
    /// One address.
    #[default]
    SingleStack,
    /// One address of each family if possible, otherwise one.
    PreferDualStack,
    /// One address of each family, or none.
    RequireDualStack,
}

/// Everything under one [`Key`]. The lists are complete: a Service that is in neither is
/// removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Balancer {
    /// The unit of serialisation.
    pub key: Key,
    /// At least one, in order of creation, so that an older Service wins a conflict.
    pub members: Vec<Member>,
    /// Services that have a part of the balancer which must stay as it is: they are refused now,
    /// and nobody knows what was accepted of them. Never one of `members`.
    pub kept: BTreeSet<ServiceId>,
    /// Nothing in the cloud is deleted: a copy of this cluster may use the same balancers. What nothing
    /// uses any more stays until this ends.
    pub deletes_nothing: bool,
}

/// A node, which forwards node ports.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// The node's name.
    pub name: String,
    /// Its `InternalIP`s, both families, in the node's order.
    pub addresses: Vec<IpAddr>,
    /// `spec.providerID`, such as `aws:///eu-west-1a/i-0123456789abcdef0`: the node's
    /// identifier in the cloud that runs it.
    pub provider_id: Option<String>,
    /// `metadata.labels`, for providers that set [`crate::Traits::node_labels`]; otherwise empty.
    pub labels: Arc<Labels>,
}

/// The nodes, to which all load balancers of a class send traffic. (Load balancers whose targets
/// are pods have them in [`Member::endpoints`].)
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetSet {
    /// The eligible nodes, on their node ports.
    pub nodes: BTreeSet<Target>,
    /// The addresses of all nodes of the cluster, of any type, whether they are targets
    /// or not. No load balancer may get one of them.
    pub addresses: BTreeSet<IpAddr>,
}

/// One address and port of a pod behind a Service (`discovery.k8s.io/v1`). A set has one for
/// each listener, address and port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// The Service's listener that it serves.
    pub listener: (Protocol, u16),
    /// The pod's address.
    pub address: IpAddr,
    /// The pod's port.
    pub port: u16,
    /// Whether it accepts connections.
    pub readiness: Readiness,
}

/// Whether a pod accepts connections. The order is that of preference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Readiness {
    /// It is ready.
    Ready,
    /// It would be ready if its gate `ballast.dev/target-healthy` were open, or the gate has just
    /// opened. It opens when the load balancer finds the pod healthy, so the pod must be a target
    /// before it is ready.
    Gated,
    /// It terminates and still serves. kube-proxy uses such pods where no other is left.
    Ending,
    /// None of these.
    Unready,
}

/// How in-cluster clients reach an address (KEP-1860).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IpMode {
    /// Packets arrive at the node with the load balancer's address as destination.
    Vip,
    /// The load balancer opens its own connection to the node.
    Proxy,
}

/// Where clients connect.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    /// An address, with the mode that Kubernetes requires for it.
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
    /// The error of this port as `ballast.dev/CamelCase`; `None` if the port works.
    pub error: Option<String>,
}

/// One entry of `status.loadBalancer.ingress`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ingress {
    /// Where clients connect.
    pub address: Address,
    /// Every port of the Service, in its order (the API requires all or none).
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
    /// The key of the balancer of this Service alone.
    pub fn alone(id: &ServiceId) -> Self {
        Self::Service(id.uid.clone())
    }

    /// Whether this is the balancer of this Service alone.
    pub fn is_of(&self, id: &ServiceId) -> bool {
        matches!(self, Self::Service(uid) if *uid == id.uid)
    }
}

/// A Service's UID, or `share/` and the share key. A UID has no slash, so the texts
/// of different keys differ.
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
    /// Refuses a port without a node port, for providers that reach nodes through node
    /// ports.
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

    /// What the status publishes for these IP addresses: each with every port and no errors.
    pub fn ingress(
        &self,
        addresses: impl IntoIterator<Item = IpAddr>,
        mode: IpMode,
    ) -> Vec<Ingress> {
        let addresses = addresses.into_iter();
        self.ingress_at(addresses.map(|address| Address::Ip(address, mode)))
    }

    /// The same for addresses of any kind.
    pub fn ingress_at(&self, addresses: impl IntoIterator<Item = Address>) -> Vec<Ingress> {
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
            address,
            ports: ports.clone(),
        };
        addresses.into_iter().map(entry).collect()
    }
}

// === impl TargetSet ===

impl TargetSet {
    /// These targets, if they are all nodes of the cluster.
    pub fn of_nodes(nodes: BTreeSet<Target>) -> Self {
        let addresses = nodes.iter().flat_map(|target| &target.addresses);
        Self {
            addresses: addresses.copied().collect(),
            nodes,
        }
    }

    /// The number of targets.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there are no targets.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }
}

// === impl Endpoint ===

impl Endpoint {
    /// Whether a load balancer should open new connections to it, or find out whether it can.
    pub const fn usable(&self) -> bool {
        matches!(self.readiness, Readiness::Ready | Readiness::Gated)
    }
}

// === impl Address ===

impl Address {
    /// The IP address, if it is one.
    pub const fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Ip(ip, _) => Some(*ip),
            Self::Hostname(_) => None,
        }
    }

    /// The hostname, if it is one.
    pub fn hostname(&self) -> Option<&str> {
        match self {
            Self::Hostname(name) => Some(name),
            Self::Ip(..) => None,
        }
    }
}

// === impl Ingress ===

impl Ingress {
    /// The IP address, if it is one.
    pub const fn ip(&self) -> Option<IpAddr> {
        self.address.ip()
    }

    /// The hostname, if it is one.
    pub fn hostname(&self) -> Option<&str> {
        self.address.hostname()
    }
}
