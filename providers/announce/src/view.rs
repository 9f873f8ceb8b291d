//! What the API server says, as plain values. The driver builds a [`View`] from Services,
//! `EndpointSlices`, Nodes and Announcer objects whenever one of them changes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::{Mac, NodeName};

/// All that the API server says. Complete: an address that is absent belongs to no Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// The addresses of Services of `l2` classes.
    pub wanted: BTreeMap<IpAddr, Arc<Wanted>>,
    /// All nodes of the cluster.
    pub nodes: BTreeMap<NodeName, NodeFacts>,
    /// The recent requests to rebalance, also of classes without a Service.
    pub requests: BTreeSet<u64>,
}

/// Which nodes may announce an address, and how their failure is detected. Services that share
/// an address have one value: the driver intersects their nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// `externalTrafficPolicy`
    pub policy: Policy,
    /// `failureDetection` of the class.
    pub detection: Detection,
    /// The nodes that match the class's `nodeSelector`; `None` is all.
    pub nodes: Option<BTreeSet<NodeName>>,
    /// The nodes that match the class's `preferredNodes`: they come first. `None` prefers none.
    pub preferred: Option<BTreeSet<NodeName>>,
    /// Whether the address may move to spread addresses evenly.
    pub rebalance: Rebalance,
    /// The interfaces that match the class's `interfaces`; `None` is all.
    pub interfaces: Option<BTreeSet<Arc<str>>>,
    /// The nodes with a serving endpoint.
    pub endpoints: BTreeSet<NodeName>,
    /// `refreshInterval` of the class: how often an announcement is repeated. `None` disables it.
    pub refresh: Option<Duration>,
}

/// Whether addresses of a class may move to spread them evenly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rebalance {
    /// `rebalance: Gradual`
    pub gradual: bool,
    /// Somebody asked for it not long ago. Each request has another number.
    pub asked: Option<u64>,
}

/// `externalTrafficPolicy` of a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Every node forwards to every endpoint.
    Cluster,
    /// A node forwards only to its own endpoints.
    Local,
}

/// `failureDetection` of a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Detection {
    /// Probes: less than a second.
    Fast,
    /// Probes: about 5 s, for hosts that stall.
    Tolerant,
    /// Leases only: about 20 s.
    Lease,
}

/// What the API server says about a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// It has the label `node.kubernetes.io/exclude-from-external-load-balancers`.
    pub excluded: bool,
    /// `spec.unschedulable`
    pub cordoned: bool,
    /// It has the taint `node.kubernetes.io/out-of-service`.
    pub out_of_service: bool,
    /// Its internal addresses, for messages.
    pub addresses: Vec<IpAddr>,
    /// The interfaces in its Announcer object; empty without an agent.
    pub interfaces: Vec<Interface>,
}

/// An interface on which a node can announce addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// The interface index on its own node.
    pub index: u32,
    /// `eth0`
    pub name: Arc<str>,
    /// Its MAC address.
    pub mac: Mac,
    /// The networks that it is connected to.
    pub nets: Vec<IpNet>,
    /// Of one's own interfaces: up, with a carrier. Of other nodes' interfaces, what their
    /// Announcer object says: the driver publishes [`Node::usable`](crate::Node::usable), `false`
    /// only after 2 s, so that a short loss moves nothing.
    pub carrier: bool,
}

// === impl Interface ===

impl Interface {
    /// Whether it may announce this address: the address is in one of its networks, and the
    /// class allows the interface.
    pub fn serves(&self, address: &IpAddr, wanted: &Wanted) -> bool {
        let allowed = wanted.interfaces.as_ref();
        allowed.is_none_or(|names| names.contains(&self.name))
            && self.nets.iter().any(|net| net.contains(address))
    }
}

// === impl NodeFacts ===

impl NodeFacts {
    /// The interface that announces this address.
    pub fn serving(&self, address: &IpAddr, wanted: &Wanted) -> Option<&Interface> {
        let serving = self
            .interfaces
            .iter()
            .filter(|interface| interface.serves(address, wanted));
        // The first one with a carrier.
        serving.min_by_key(|interface| !interface.carrier)
    }
}
