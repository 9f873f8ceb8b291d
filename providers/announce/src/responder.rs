//! Responder: which request on which interface gets which answer.
//!
//! The [`Table`] has one entry per address that this node answers for. The node writes it, and
//! the driver's packet thread reads it, so an answer never waits for a decision.
//!
//! | request | answer |
//! |---|---|
//! | ARP request, broadcast or to our MAC, also a probe (sender 0.0.0.0) | ARP reply, unicast to the sender |
//! | ARP request with the address as its sender, from our own MAC | none: it is our announcement |
//! | ARP request to another unicast MAC (the interface is promiscuous) | none |
//! | neighbour solicitation, multicast or unicast, with or without a source link-layer option | advertisement to the sender: solicited, without override: a client that has another answer keeps it |
//! | the same from `::` (duplicate address detection) | advertisement to all nodes: not solicited, override |
//! | a solicitation with a hop limit below 255 | none: it may have crossed a router |
//!
//! Invariants: an answer leaves only on the interface of the entry. The Ethernet source is always
//! the interface's own MAC, also while this node stands in and the *answer* names the holder's
//! MAC, so switches never learn a MAC on the wrong port. The router flag is never set.

mod pacer;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub use pacer::Pacer;

use crate::timing::STALL;
use crate::{Mac, Time};

/// All nodes of the link (RFC 4291 §2.7.1).
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: Mac = Mac([0x33, 0x33, 0, 0, 0, 1]);
/// Hosts drop neighbour discovery with another hop limit (RFC 4861 §7.1.1).
const HOP_LIMIT: u8 = 255;

/// The addresses that this node answers for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    entries: BTreeMap<IpAddr, Entry>,
    /// Counts the changes.
    revision: u64,
}

/// How this node answers for an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The index of the interface.
    pub interface: u32,
    /// The MAC of that interface, the Ethernet source of every frame.
    pub own: Mac,
    /// The MAC in the answers: `own`, or the holder's while this node stands in.
    pub answer: Mac,
}

/// A question for the owner of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// An ARP request (RFC 826).
    Arp {
        /// The Ethernet destination.
        to: Mac,
        /// The sender's MAC, in the ARP packet.
        sender_mac: Mac,
        /// The sender's address; 0.0.0.0 in a probe (RFC 5227).
        sender: Ipv4Addr,
        /// The address that is asked for.
        target: Ipv4Addr,
    },
    /// A neighbour solicitation (RFC 4861 §4.3).
    Solicitation {
        /// The Ethernet destination.
        to: Mac,
        /// The source link-layer option if there is one, otherwise the Ethernet source.
        source_mac: Mac,
        /// The IPv6 source; `::` in duplicate address detection.
        source: Ipv6Addr,
        /// The address that is asked for.
        target: Ipv6Addr,
        /// The hop limit of the IPv6 header.
        hop_limit: u8,
    },
}

/// An answer. The driver sends it from the entry's own MAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// An ARP reply.
    Arp {
        /// The Ethernet destination, and the target's MAC in the packet.
        to: Mac,
        /// The target's address in the packet: the one that asked.
        target: Ipv4Addr,
        /// The address that was asked for.
        sender: Ipv4Addr,
        /// Its MAC.
        answer: Mac,
    },
    /// A neighbour advertisement with target link-layer option, hop limit 255, IPv6 source `target`. It has
    /// the override flag unless it is solicited.
    Advertisement {
        /// The Ethernet destination.
        to: Mac,
        /// The IPv6 destination.
        destination: Ipv6Addr,
        /// The address that was asked for.
        target: Ipv6Addr,
        /// Its MAC, for the option.
        answer: Mac,
        /// The solicited flag.
        solicited: bool,
    },
}

// === impl Table ===

impl Table {
    pub(crate) fn insert(&mut self, address: IpAddr, entry: Entry) {
        if self.entries.insert(address, entry) != Some(entry) {
            self.revision += 1;
        }
    }

    pub(crate) fn remove(&mut self, address: &IpAddr) {
        if self.entries.remove(address).is_some() {
            self.revision += 1;
        }
    }

    /// Another number after each change, so that a copy is made only of what changed.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// How this node answers for an address, if it does.
    pub fn get(&self, address: &IpAddr) -> Option<&Entry> {
        self.entries.get(address)
    }

    /// All addresses that this node answers for.
    pub fn iter(&self) -> impl Iterator<Item = (&IpAddr, &Entry)> {
        self.entries.iter()
    }

    /// The answer to a request that arrived on an interface.
    pub fn answer(&self, interface: u32, request: &Request) -> Option<Reply> {
        match *request {
            Request::Arp {
                to,
                sender_mac,
                sender,
                target,
            } => {
                let entry = self.entry(interface, IpAddr::V4(target), to)?;
                let ours = sender_mac == entry.own || sender_mac == entry.answer;
                (!ours || sender != target).then_some(Reply::Arp {
                    to: sender_mac,
                    target: sender,
                    sender: target,
                    answer: entry.answer,
                })
            }
            Request::Solicitation {
                to,
                source_mac,
                source,
                target,
                hop_limit,
            } => {
                let entry = self.entry(interface, IpAddr::V6(target), to)?;
                let detection = source.is_unspecified();
                (hop_limit == HOP_LIMIT && source_mac != entry.own).then_some(
                    Reply::Advertisement {
                        to: if detection { ALL_NODES_MAC } else { source_mac },
                        destination: if detection { ALL_NODES } else { source },
                        target,
                        answer: entry.answer,
                        solicited: !detection,
                    },
                )
            }
        }
    }

    /// The entry of an address if the request was meant for this interface.
    fn entry(&self, interface: u32, target: IpAddr, to: Mac) -> Option<&Entry> {
        let entry = self.entries.get(&target)?;
        let meant = to == entry.own || to.is_group();
        (entry.interface == interface && meant).then_some(entry)
    }

    /// Whether a frame that names `mac` as the owner of an address contradicts this table.
    pub fn contradicts(&self, interface: u32, address: &IpAddr, mac: Mac) -> bool {
        self.entries.get(address).is_some_and(|entry| {
            entry.interface == interface && mac != entry.own && mac != entry.answer
        })
    }

    /// The solicited-node groups that the driver joins on an interface, with an IPv6 socket (so
    /// that the kernel sends MLD reports) and with the packet socket.
    pub fn groups(&self, interface: u32) -> BTreeSet<Ipv6Addr> {
        let entries = self.entries.iter();
        entries
            .filter(|(_, entry)| entry.interface == interface)
            .filter_map(|(address, _)| match address {
                IpAddr::V6(address) => Some(solicited_node(address)),
                IpAddr::V4(_) => None,
            })
            .collect()
    }
}

impl FromIterator<(IpAddr, Entry)> for Table {
    fn from_iter<T: IntoIterator<Item = (IpAddr, Entry)>>(entries: T) -> Self {
        let mut table = Self::default();
        for (address, entry) in entries {
            table.insert(address, entry);
        }
        table
    }
}

/// Whether the packet thread may answer: the last tick is not too long ago. Otherwise the process
/// was stopped, and another node may have taken over.
pub fn may_answer(last_tick: Option<Time>, now: Time) -> bool {
    last_tick.is_some_and(|last| now.since(last) <= STALL)
}

/// The group of an address (RFC 4291 §2.7.1): `ff02::1:ff` and the last 24 bits.
fn solicited_node(address: &Ipv6Addr) -> Ipv6Addr {
    const PREFIX: u128 = 0xff02_0000_0000_0000_0000_0001_ff00_0000;
    Ipv6Addr::from_bits(PREFIX | address.to_bits() & 0x00ff_ffff)
}

#[cfg(test)]
mod tests;
