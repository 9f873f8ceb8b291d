//! Snapshot: what a node knows and does at one moment, for people. Bounded, and without secrets: a node
//! has none.

use std::net::IpAddr;
use std::time::Duration;

use crate::claim::Claim;
use crate::holding::State;
use crate::host_check::State as CheckState;
use crate::io::{Method, Problem, Target};
use crate::membership::Process;
use crate::rebalance::Move;
use crate::responder::Entry;
use crate::{Mac, NodeName};

/// See the module. Each list has at most [`Snapshot::MOST`] entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The node.
    pub node: NodeName,
    /// The random number of the process.
    pub incarnation: u64,
    /// Another process of the node has started.
    pub replaced: bool,
    /// The API server can be reached.
    pub api_connected: bool,
    /// The addresses and the nodes of the view; `None` before the first one.
    pub view: Option<(usize, usize)>,
    /// The number of claims that are known, and of addresses that are answered for.
    pub counts: (usize, usize),
    /// Known claims.
    pub claims: Vec<Known>,
    /// The addresses that this node answers for.
    pub table: Vec<(IpAddr, Entry)>,
    /// The other nodes with an agent.
    pub peers: Vec<Peer>,
    /// The hosts that are checked.
    pub checks: Vec<HostState>,
    /// The interfaces.
    pub ports: Vec<Port>,
    /// What is wrong.
    pub problems: Vec<Problem>,
    /// The next move of a rebalance.
    pub rebalance: Option<Move>,
}

/// A claim, and what this node does about its address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The address.
    pub address: IpAddr,
    /// The best known claim.
    pub claim: Claim,
    /// What this node does.
    pub state: State,
    /// A Service has the address.
    pub wanted: bool,
}

/// Another node with an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its name.
    pub node: NodeName,
    /// Whether its process works.
    pub process: Process,
    /// How long ago its agent was heard, or renewed its Lease.
    pub last_sign: Option<Duration>,
    /// Its Lease has expired.
    pub lease_expired: bool,
    /// It failed, and was not heard since.
    pub suspect: bool,
    /// It owes this node beats.
    pub neighbour: bool,
}

/// A host that is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostState {
    /// The index of the interface.
    pub interface: u32,
    /// The host.
    pub host: NodeName,
    /// The state of the check.
    pub state: CheckState,
    /// How long ago the host was known to live.
    pub proven: Duration,
    /// Somebody else answers for it.
    pub intercepted: bool,
}

/// An interface of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its MAC.
    pub mac: Mac,
    /// It has a carrier.
    pub carrier: bool,
    /// The carrier came up a moment ago.
    pub held_down: bool,
    /// No host answers.
    pub cut_off: bool,
    /// How hosts are probed.
    pub method: Method,
    /// How long ago a host answered.
    pub answered: Option<Duration>,
    /// The hosts that can be witnesses.
    pub witnesses: Vec<Target>,
}

// === impl Snapshot ===

impl Snapshot {
    /// The entries of each list.
    pub const MOST: usize = 1000;
}
