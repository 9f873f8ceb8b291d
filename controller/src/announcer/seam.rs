//! The two ends of the agent: where its inputs go, and what it reports. Plain types; this
//! module knows no socket, and the agent knows no Kubernetes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ballast_announce::claim::Claim;
use ballast_announce::io::Problem;
use ballast_announce::{Input, Mac};
use ipnet::IpNet;
use tokio::sync::watch;

/// The agent, as this module sees it.
#[derive(Clone, Debug)]
pub struct Agent {
    /// Where inputs go.
    pub sink: Sink,
    /// What the agent reports. `None` before it has listed the node's interfaces: nothing is
    /// published until then, so that a restart does not look like a node without interfaces.
    pub reports: watch::Receiver<Option<Arc<Report>>>,
}

/// Takes inputs, in the order in which they are passed. It never blocks.
#[derive(Clone)]
pub struct Sink(Arc<dyn Fn(Input) + Send + Sync>);

/// What the Announcer object says about this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The latest [`Output::Record`](ballast_announce::Output::Record); `None` before the first
    /// one. Until then the holdings in the object stay, because an earlier process wrote them.
    pub claims: Option<Arc<Vec<(IpAddr, Claim)>>>,
    /// Where each address is announced, while it is.
    pub announced: BTreeMap<IpAddr, Announced>,
    /// The interfaces, in any order.
    pub interfaces: Vec<ReportedInterface>,
    /// What is wrong.
    pub problems: BTreeSet<Problem>,
}

/// Where an address is announced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announced {
    /// The name of the interface.
    pub interface: Arc<str>,
    /// The MAC in the answers.
    pub mac: Mac,
}

/// An interface that can announce addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportedInterface {
    /// The index on this node.
    pub index: u32,
    /// `eth0`
    pub name: Arc<str>,
    /// Its MAC address.
    pub mac: Mac,
    /// Its networks, each with the node's own address in it.
    pub nets: Vec<IpNet>,
    /// [`Node::usable`](ballast_announce::Node::usable); `false` only after 2 s.
    pub usable: bool,
}

// === impl Sink ===

impl Sink {
    /// Inputs go to this function.
    pub fn new(sink: impl Fn(Input) + Send + Sync + 'static) -> Self {
        Self(Arc::new(sink))
    }

    /// Passes one input on.
    pub fn pass(&self, input: Input) {
        (self.0)(input);
    }
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sink")
    }
}
