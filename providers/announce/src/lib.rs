//! Bare metal, node side: which node answers for which address of a Service.
//!
//! One [`Node`] per cluster node decides, together with its peers, which node answers ARP requests
//! and neighbour solicitations for an address, and moves the address when that node fails. This
//! crate owns all of these decisions. It does no I/O, has no task, no socket, no clock and no
//! Kubernetes type: the driver (`ballast announcer`) calls it and carries out what it says.
//!
//! ```text
//!   API server                 segment                    other agents           netlink
//!   Services, EndpointSlices,  answers to probes, ARP     messages (gossip),     interfaces,
//!   Nodes, Announcers, Leases  and ND that name owners    cables (TCP)           carrier, MAC
//!        │                          │                          │                    │
//!        └──────────────┬───────────┴──────────────┬───────────┴────────────────────┘
//!                       ▼ Input                    │
//!                 ┌───────────┐                    ▼ every 50 ms
//!                 │   Node    │◀────────────────  tick
//!                 └───────────┘
//!                       │ Output                              │ Table
//!        ┌──────────────┼──────────────┬──────────────┐       ▼
//!     Probe, Query   Announce        Send          Record   packet thread: request ──▶ reply
//!     (segment)      (segment)       (peers)       (own Announcer object, on change only)
//! ```
//!
//! The cores, each with its states in its header:
//!
//! | module | answers the question |
//! |---|---|
//! | [`candidates`] | Which nodes may hold an address? May this one claim now? |
//! | [`assignment`] | Who is asked first? Who succeeds, in which order? Who probes whom? |
//! | [`claim`] | Of two claims on one address, which one counts? |
//! | [`host_check`] | Is a holder's host gone, or am I cut off? Does a switch answer for it? |
//! | [`membership`] | Does an agent's process work? Is its Lease valid? |
//! | [`rebalance`] | Which address moves next, so that addresses spread evenly? |
//! | [`holding`] | What does this node do about one address? |
//! | [`responder`] | Which request gets which answer? What is announced when? |
//!
//! [`Node`] composes them; [`io`] has what goes in and out, [`view`] what the API server says, and
//! [`timing`] every duration with its reason.
//!
//! # Invariants
//!
//! - A node answers as the owner of an address only while it knows of no better claim by a node
//!   that it reaches ([`claim`], [`holding`]).
//! - Isolation, a lost Lease or a lost API server never ends an answer. A better claim does, or
//!   the end of the Service.
//! - A node that is cut off, or whose carrier came up a moment ago, claims nothing.
//! - A node that was stopped suspects nobody for what it missed, and answers only after a claim
//!   check.
//! - Nothing is recorded while nothing moves.
//! - A rebalance moves one address at a time, only when a class or a person asks for it, and never
//!   while the API server is away or a node is suspected.
//!
//! `tests/simulation` runs clusters of whole nodes through every failure that the design names,
//! and states how long each may be noticed.
//!
//! # What the driver must do
//!
//! - Call [`Node::tick`] at [`Node::next_tick`], with that time if it comes only a little later, so
//!   that durations of a few ticks do not take one more. If a tick is later than
//!   [`timing::LATE`], call it before passing on what arrived meanwhile.
//! - Answer requests from [`Node::table`] on a thread of its own, while [`Node::may_answer`] holds.
//! - Report an outage of the API server within 8 s (a renewal of the own Lease fails), so that no
//!   Lease expires only because nothing was read; after the outage, pass everything anew.
//! - Write `Announcer.status` after [`Output::Record`]; repeat the latest write until it succeeds.
//! - Publish [`Node::usable`] of each interface there, `false` only after 2 s.
//! - Pass frames, messages and cables of *other* hosts only: not its own announcements.
//! - List interfaces anew after lost netlink messages, and pass its own Announcer object at start.
//! - Pass [`Input::Replaced`] while another process of the node receives the messages.
//! - Seal messages and check their sender; the node trusts [`io::Message::from`].

pub mod assignment;
pub mod candidates;
pub mod claim;
pub mod holding;
pub mod host_check;
pub mod io;
pub mod membership;
mod node;
pub mod random;
pub mod rebalance;
pub mod responder;
pub mod slip;
pub mod snapshot;
mod time;
pub mod timing;
pub mod view;

use std::fmt;
use std::sync::Arc;

pub use io::{Input, Output};
pub use node::{Config, Node};
pub use time::Time;

/// The name of a Node object.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(Arc<str>);

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

// === impl NodeName ===

impl NodeName {
    /// A name; the API server has checked it.
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl Mac ===

impl Mac {
    /// All hosts of the segment.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// Broadcast or multicast.
    pub const fn is_group(self) -> bool {
        self.0[0] & 1 == 1
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let octets = self.0.map(|octet| format!("{octet:02x}"));
        f.write_str(&octets.join(":"))
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
