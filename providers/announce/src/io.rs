//! What goes into a [`Node`](crate::Node) and what comes out.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::claim::Claim;
use crate::holding::Cause;
use crate::membership::Stamp;
use crate::view::{Interface, View};
use crate::{Mac, NodeName, Time};

/// Something happened. The driver passes inputs in the order in which it learns of them.
#[derive(Clone, Debug)]
pub enum Input {
    /// The API server says this now. Replaces the former view.
    View(Arc<View>),
    /// An Announcer object records these claims. Also this node's own object, after a restart.
    Holdings(Vec<(IpAddr, Claim)>),
    /// A node's Lease was read. `stamp` is any number that differs after each renewal.
    Lease {
        /// The node.
        node: NodeName,
        /// Its renewal.
        stamp: u64,
    },
    /// The watches of the API server work, or fail.
    Api {
        /// They work.
        connected: bool,
    },
    /// This node's interfaces, from netlink. Replaces the former list.
    Interfaces(Vec<Interface>),
    /// Hosts that can be witnesses on an interface besides the peers: gateways, and clients that
    /// sent a request within the last minute. At most [`Node::WITNESSES`](crate::Node::WITNESSES)
    /// count.
    Witnesses {
        /// The index of the interface.
        interface: u32,
        /// Their addresses.
        hosts: Vec<IpAddr>,
    },
    /// `healthCheckNodePort` of an address with policy Local answered; `healthy` is status 200.
    Health {
        /// The address of the Service.
        address: IpAddr,
        /// Status 200.
        healthy: bool,
    },
    /// A host answered a probe.
    Answer {
        /// The index of the interface.
        interface: u32,
        /// Who.
        from: Target,
        /// Which kind of probe.
        method: Method,
    },
    /// An ARP request or neighbour solicitation for this node's own address came from an agent's
    /// MAC: a receipt.
    Probed {
        /// The index of the interface.
        interface: u32,
        /// The agent's node.
        by: NodeName,
    },
    /// An ARP packet or a neighbour advertisement names `mac` as the owner of an address.
    Heard {
        /// The index of the interface.
        interface: u32,
        /// The address.
        address: IpAddr,
        /// The owner.
        mac: Mac,
    },
    /// A message of another agent, decrypted and authenticated.
    Message {
        /// The interface on which it arrived, if the driver knows it.
        via: Option<u32>,
        /// The message.
        message: Message,
    },
    /// A cable of [`Node::cables`](crate::Node::cables), or one that a peer dialled, was connected
    /// or closed by the other side. Time-outs are not reported.
    Cable {
        /// The other side.
        peer: NodeName,
        /// It was connected.
        connected: bool,
    },
    /// Another process of this node has started, and receives all messages; or it has ended
    /// again. While replaced, this node decides nothing, sends nothing, records nothing, and
    /// answers for what it answers for until another node has a better claim.
    Replaced {
        /// It has started.
        replaced: bool,
    },
}

/// What the driver must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send a probe.
    Probe {
        /// The index of the interface.
        interface: u32,
        /// To whom.
        target: Target,
        /// Which kind.
        method: Method,
    },
    /// Ask the segment who has an address: an ARP probe, or a neighbour solicitation from `::`.
    /// Answers come as [`Input::Heard`].
    Query {
        /// The index of the interface.
        interface: u32,
        /// The address.
        address: IpAddr,
    },
    /// Announce an address: gratuitous ARP as request and as reply, or unsolicited advertisements.
    Announce {
        /// The index of the interface.
        interface: u32,
        /// The address.
        address: IpAddr,
        /// Its MAC.
        mac: Mac,
    },
    /// Send a message.
    Send {
        /// To whom.
        to: NodeName,
        /// The message.
        message: Message,
    },
    /// This node has claimed an address: for the log. What it does follows from other outputs.
    Claimed {
        /// The address.
        address: IpAddr,
        /// The epoch of the claim.
        epoch: u64,
        /// Who had it before.
        former: Option<NodeName>,
        /// Why.
        cause: Cause,
        /// When the outage began, or the move was decided: the last sign of life of the former
        /// holder, or the moment at which this node noticed the cause.
        since: Time,
    },
    /// This node answers for an address that another node had claimed at the same epoch: on
    /// another side of a split segment. This one wins. May be repeated.
    Healed {
        /// The address.
        address: IpAddr,
        /// The epoch of both claims.
        epoch: u64,
        /// The other node.
        rival: NodeName,
    },
    /// Write all of this node's claims into its Announcer object. Sent on change only; after a
    /// failure the driver repeats the latest one.
    Record(Vec<(IpAddr, Claim)>),
}

/// The target of a probe.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// A node's own address in the network of the interface.
    Node(NodeName),
    /// Another host.
    Host(IpAddr),
}

/// The kind of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// A unicast ARP request or neighbour solicitation.
    Neighbour,
    /// An ICMP echo request, where switches answer for hosts.
    Echo,
}

/// A message between two agents. The driver encodes and seals it; it fits into one datagram of
/// at most 16 KiB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The sender.
    pub from: NodeName,
    /// The moment in the sender's life.
    pub stamp: Stamp,
    /// What it says.
    pub body: Body,
}

/// The content of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// "I live." Regularly, and at once with claims that changed.
    Beat {
        /// Some claims that the sender knows; at most
        /// [`CLAIMS_PER_MESSAGE`](crate::timing::CLAIMS_PER_MESSAGE).
        claims: Vec<(IpAddr, Claim)>,
        /// The number of probes that the sender has received from the receiver.
        received: u64,
        /// "I am cut off": the sender hears nobody on the network that it shares with the receiver.
        cut_off: bool,
    },
    /// "Which claims do you know on these addresses?" The answer is a beat.
    Ask {
        /// The addresses; at most [`CLAIMS_PER_MESSAGE`](crate::timing::CLAIMS_PER_MESSAGE).
        addresses: Vec<IpAddr>,
    },
    /// "This host does not answer me. Does it answer you?"
    Doubt {
        /// The host.
        host: NodeName,
        /// What it does not answer.
        method: Method,
        /// How long ago it answered last.
        unanswered: Duration,
    },
    /// "This host has just answered me."
    Vouch {
        /// The host.
        host: NodeName,
    },
}

/// A problem that a condition or an event reports.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Problem {
    /// Another host uses an address.
    AddressConflict {
        /// The address.
        address: IpAddr,
        /// The MAC of the host.
        mac: Mac,
        /// The node with this MAC: another program on it announces the address, or its kernel
        /// does.
        node: Option<NodeName>,
    },
    /// Somebody else answers the probes of a host.
    ProbesIntercepted {
        /// The host.
        host: NodeName,
    },
    /// No node has a serving endpoint.
    NoEndpoints {
        /// The address.
        address: IpAddr,
    },
    /// There are more addresses than a node knows claims of. It claims none of those that are left over.
    TooManyAddresses {
        /// The number of addresses.
        wanted: usize,
    },
    /// No host on the segment answers this node.
    CutOff {
        /// The index of the interface.
        interface: u32,
    },
}
