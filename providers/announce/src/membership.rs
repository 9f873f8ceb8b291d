//! Membership: which agents live, from messages, cables and Leases.
//!
//! Three sources with different meaning:
//!
//! | source | says | used for |
//! |---|---|---|
//! | a beat every 0.5 s between a holder and its successors | the agent's process works | standing in |
//! | the cable, a TCP connection between holder and first successor | closed: the process ended | the same, at once |
//! | the Lease of the node | the agent reaches the API server; the authority | candidates; takeover if nothing else is known |
//!
//! ```text
//!           message                    2 s without a message, or cable closed
//! Unknown ──────────▶ Alive ─────────────────────────────────────────────▶ Silent
//!                       ▲                                                    │
//!                       └───────── message, or cable connected ──────────────┘
//! ```
//!
//! - Silence is measured only while the other node is a *neighbour*, which owes us beats.
//! - A Lease expires on the observer's clock, after its stamp did not change for 15 s *while the
//!   API server was reachable*. The stamp is never compared with a clock. An outage expires
//!   nothing.
//! - Lease-only mode (`gossip = false`): every process is `Unknown`, and only Leases count.
//! - An incarnation is a random number per process. Nothing orders incarnations, so a wrong wall
//!   clock cannot make a restarted agent look old.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::slip::{Slips, slip};
use crate::timing::{CABLE_MAIL, LEASE, PEERS, SILENT};
use crate::{NodeName, Time};

/// All agents that this node knows.
#[derive(Clone, Debug)]
pub struct Membership {
    peers: BTreeMap<NodeName, Peer>,
    gossip: bool,
    api: Api,
    slips: Slips,
}

/// Whether an agent's process works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Process {
    /// It was never heard, or it owes us no beats.
    Unknown,
    /// It was heard a moment ago.
    Alive,
    /// It was heard before, and is silent.
    Silent {
        /// Since when.
        since: Time,
    },
}

/// A moment of an agent's life, as its messages name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// A random number per process.
    pub incarnation: u64,
    /// Counts the messages of the process, from 1.
    pub sequence: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Api {
    Away,
    Connected { since: Time },
}

#[derive(Clone, Debug, Default)]
struct Peer {
    incarnation: Option<u64>,
    /// The incarnation before: its messages may still be under way.
    previous: Option<u64>,
    window: Window,
    heard: Option<Time>,
    cable_closed: Option<Time>,
    /// Its latest beat says that nothing reaches it on the network that it shares with this node.
    cut_off: bool,
    neighbour_since: Option<Time>,
    lease: Lease,
}

#[derive(Clone, Debug, Default)]
struct Lease {
    stamp: Option<u64>,
    changed: Time,
    /// Stays until the stamp changes: the end of an outage does not revive a dead agent.
    expired: bool,
}

/// Which of the latest 64 messages were seen: a copy must not count twice.
#[derive(Clone, Debug, Default)]
struct Window {
    highest: u64,
    seen: u64,
}

// === impl Membership ===

impl Membership {
    /// Knows nobody, and the API server is not reachable yet.
    pub fn new(gossip: bool) -> Self {
        Self {
            peers: BTreeMap::new(),
            gossip,
            api: Api::Away,
            slips: Slips::default(),
        }
    }

    pub(crate) fn with_slips(self, slips: Slips) -> Self {
        Self { slips, ..self }
    }

    /// Whether nodes send each other messages.
    pub fn gossips(&self) -> bool {
        self.gossip
    }

    /// A message arrived. Returns `false` for a copy of an earlier one, or if there is no room.
    pub fn hear(&mut self, from: &NodeName, stamp: Stamp, now: Time) -> bool {
        let Some(peer) = self.entry(from) else {
            return false;
        };
        if peer.previous == Some(stamp.incarnation) {
            return false;
        }
        if peer.incarnation != Some(stamp.incarnation) {
            peer.previous = peer.incarnation.replace(stamp.incarnation);
            peer.window = Window::default();
            peer.cut_off = false;
        }
        if !peer.window.admit(stamp.sequence) {
            return false;
        }
        peer.heard = Some(now);
        // The last messages of a process that ended may still be under way.
        let just_closed = |closed: &Time| now.since(*closed) < CABLE_MAIL;
        peer.cable_closed = peer.cable_closed.filter(just_closed);
        true
    }

    /// A beat that was admitted says whether its sender is cut off. One that was overtaken says nothing.
    pub fn says(&mut self, from: &NodeName, stamp: Stamp, cut_off: bool) {
        let peer = self.peers.get_mut(from);
        if let Some(peer) = peer.filter(|peer| peer.window.highest == stamp.sequence) {
            peer.cut_off = cut_off;
        }
    }

    /// Whether a peer says that it is cut off.
    pub fn says_cut_off(&self, node: &NodeName) -> bool {
        self.peers.get(node).is_some_and(|peer| peer.cut_off)
    }

    /// The cable to a peer was connected, or closed by the other side.
    pub fn cable(&mut self, node: &NodeName, connected: bool, now: Time) {
        if let Some(peer) = self.entry(node) {
            peer.cable_closed = (!connected).then_some(now);
            if connected {
                peer.heard = Some(now);
            }
        }
    }

    /// A Lease was read. `stamp` is any number that differs after each renewal. Returns whether
    /// it was renewed.
    pub fn lease(&mut self, node: &NodeName, stamp: u64, now: Time) -> bool {
        let Some(peer) = self.entry(node) else {
            return false;
        };
        if peer.lease.stamp == Some(stamp) {
            return false;
        }
        peer.lease = Lease {
            stamp: Some(stamp),
            changed: now,
            expired: false,
        };
        true
    }

    /// The API server was reached, or lost.
    pub fn api(&mut self, connected: bool, now: Time) {
        self.api = match self.api {
            Api::Connected { .. } if connected => return,
            _ if connected => Api::Connected { since: now },
            _ => Api::Away,
        };
    }

    /// Whether the API server is reachable.
    pub fn api_connected(&self) -> bool {
        self.api != Api::Away
    }

    /// The nodes that owe this node beats.
    pub fn set_neighbours(&mut self, neighbours: &BTreeSet<NodeName>, now: Time) {
        for node in neighbours {
            self.entry(node);
        }
        for (node, peer) in &mut self.peers {
            if !neighbours.contains(node) {
                peer.neighbour_since = None;
            } else if peer.neighbour_since.is_none() {
                peer.neighbour_since = Some(now);
            }
        }
    }

    /// Keeps only these nodes: the Node objects.
    pub fn retain(&mut self, exists: impl Fn(&NodeName) -> bool) {
        self.peers.retain(|node, _| exists(node));
    }

    /// Marks Leases that expired meanwhile.
    pub fn poll(&mut self, now: Time) {
        let since = match self.api {
            Api::Connected { since } => since,
            Api::Away if slip!(self.slips, LeaseExpiresInOutage) => Time::default(),
            Api::Away => return,
        };
        for peer in self.peers.values_mut() {
            let observed = peer.lease.changed.max(since);
            peer.lease.expired |= now.since(observed) >= LEASE;
            if slip!(self.slips, LeaseStampIsTime) {
                let stamp = Duration::from_millis(peer.lease.stamp.unwrap_or(0));
                let stamp = Time::after_start(stamp);
                peer.lease.expired = now.since(stamp) >= LEASE;
            }
        }
    }

    /// Whether a node's Lease has expired.
    pub fn lease_expired(&self, node: &NodeName) -> bool {
        self.peers.get(node).is_some_and(|peer| peer.lease.expired)
    }

    /// Whether a node renewed its Lease after this moment, as far as this node knows.
    pub fn renewed_after(&self, node: &NodeName, moment: Time) -> bool {
        let peer = self.peers.get(node);
        peer.is_some_and(|peer| peer.lease.stamp.is_some() && peer.lease.changed > moment)
    }

    /// Whether the cable to a node was closed and nothing was heard since.
    pub fn cable_closed(&self, node: &NodeName) -> bool {
        let peer = self.peers.get(node);
        peer.is_some_and(|peer| peer.cable_closed.is_some())
    }

    /// Whether any agent but this one was heard a moment ago: our own port works.
    pub fn hears_another(&self, than: &NodeName, now: Time) -> bool {
        let mut others = self.peers.iter().filter(|(node, _)| *node != than);
        others.any(|(_, peer)| peer.heard.is_some_and(|heard| now.since(heard) < SILENT))
    }

    /// Whether an agent was heard within this time, whether or not it owes us beats.
    pub fn heard_within(&self, node: &NodeName, time: Duration, now: Time) -> bool {
        let heard = self.peers.get(node).and_then(|peer| peer.heard);
        heard.is_some_and(|heard| now.since(heard) < time)
    }

    /// The last sign of life of a node's agent: a message, or a renewal of its Lease.
    pub fn last_sign(&self, node: &NodeName) -> Option<Time> {
        let peer = self.peers.get(node)?;
        let renewed = peer.lease.stamp.map(|_| peer.lease.changed);
        peer.heard.max(renewed)
    }

    /// All nodes of which anything was heard.
    pub fn names(&self) -> impl Iterator<Item = &NodeName> {
        self.peers.keys()
    }

    /// Whether a node's process works.
    pub fn process(&self, node: &NodeName, now: Time) -> Process {
        let Some(peer) = self.peers.get(node).filter(|_| self.gossip) else {
            return Process::Unknown;
        };
        if let Some(since) = peer.cable_closed {
            return Process::Silent { since };
        }
        let (Some(heard), Some(neighbour)) = (peer.heard, peer.neighbour_since) else {
            return Process::Unknown;
        };
        let since = heard.max(neighbour);
        if now.since(since) < SILENT {
            Process::Alive
        } else {
            Process::Silent {
                since: since + SILENT,
            }
        }
    }

    /// This node was stopped: what it did not hear meanwhile proves nothing.
    pub fn discard(&mut self, now: Time) {
        if slip!(self.slips, KeepSuspicions) {
            return;
        }
        for peer in self.peers.values_mut() {
            peer.lease.changed = now;
            if peer.neighbour_since.is_some() {
                peer.neighbour_since = Some(now);
            }
        }
    }

    fn entry(&mut self, node: &NodeName) -> Option<&mut Peer> {
        if !self.peers.contains_key(node) {
            if self.peers.len() >= PEERS {
                return None;
            }
            self.peers.insert(node.clone(), Peer::default());
        }
        self.peers.get_mut(node)
    }
}

// === impl Window ===

impl Window {
    fn admit(&mut self, sequence: u64) -> bool {
        if sequence > self.highest {
            let shift = sequence - self.highest;
            self.seen = if shift < 64 { self.seen << shift } else { 0 } | 1;
            self.highest = sequence;
            return true;
        }
        let age = self.highest - sequence;
        let new = age < 64 && self.seen & (1 << age) == 0;
        if new {
            self.seen |= 1 << age;
        }
        new
    }
}

#[cfg(test)]
mod tests;
