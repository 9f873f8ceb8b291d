//! The address ranges of the cloud, and the choice of an address. Pure.
//!
//! The server's state calls [`Allocator`] inside the transaction that creates a load balancer.
//! Invariants: an address has at most one holder; the network and broadcast addresses of a
//! CIDR are never assigned; addresses that were never assigned are chosen first, then the one
//! that was released longest ago.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;

use crate::api::Family;

/// The maximum number of released addresses that are remembered; with that many, these are
/// preferred to fresh ones. This bounds the memory if a range is practically endless (IPv6).
pub(crate) const RESTING: usize = 65_536;

/// A CIDR, a `first-last` range or a single address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressRange {
    text: String,
    family: Family,
    first: u128,
    last: u128,
}

/// Why a range cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// Neither a CIDR nor a range nor an address.
    #[error(
        "address range {0:?} is neither a CIDR (127.77.0.0/16), nor first-last (10.0.0.10-10.0.0.20), nor an address"
    )]
    Syntax(String),
    /// The two ends have different families.
    #[error("address range {0:?} begins in one IP family and ends in the other")]
    Mixed(String),
    /// The ends are in the wrong order.
    #[error("address range {0:?} ends before it begins")]
    Reversed(String),
    /// It contains addresses that clients cannot connect to.
    #[error("address range {0:?} contains unspecified or multicast addresses")]
    Unusable(String),
}

/// The holders of addresses, and the released ("resting") addresses.
#[derive(Clone, Debug)]
pub(crate) struct Allocator {
    ranges: Vec<AddressRange>,
    /// Per range: every address before it is held or resting.
    cursors: Vec<u128>,
    held: HashMap<IpAddr, String>,
    resting: HashMap<IpAddr, u64>,
    /// Addresses of nodes. They are never assigned, whatever range they are in.
    nodes: HashSet<IpAddr>,
    /// The resting addresses, in the order of release.
    queue: BTreeSet<(Family, u64, IpAddr)>,
}

/// Why an address is not available.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Denied {
    /// Another load balancer has it.
    Held { address: IpAddr, holder: String },
    /// A node has it.
    Node { address: IpAddr },
    /// It is in none of the ranges.
    Outside { address: IpAddr },
    /// There is no range of this family, or none of its addresses is free.
    Exhausted { family: Family, has_range: bool },
}

// === impl AddressRange ===

impl AddressRange {
    /// The family of its addresses.
    pub const fn family(&self) -> Family {
        self.family
    }

    /// Whether the address can be assigned from this range.
    pub fn contains(&self, address: IpAddr) -> bool {
        Family::of(address) == self.family && (self.first..=self.last).contains(&to_number(address))
    }

    fn overlaps_multicast(&self) -> bool {
        let (first, last) = match self.family {
            Family::V4 => (
                Ipv4Addr::new(224, 0, 0, 0),
                Ipv4Addr::new(239, 255, 255, 255),
            ),
            // The rest of the family.
            Family::V6 => return self.last >> 120 == 0xff,
        };
        self.first <= to_number(last.into()) && to_number(first.into()) <= self.last
    }

    fn of_net(text: &str, net: IpNet) -> Self {
        let (first, last) = (to_number(net.network()), to_number(net.broadcast()));
        // The first address of an IPv6 subnet is the routers' anycast address. A
        // point-to-point net has neither this one nor a broadcast address.
        let (skip_first, skip_last) = match net {
            IpNet::V4(net) => (net.prefix_len() < 31, net.prefix_len() < 31),
            IpNet::V6(net) => (net.prefix_len() < 127, false),
        };
        Self {
            text: text.to_owned(),
            family: Family::of(net.network()),
            first: first + u128::from(skip_first),
            last: last - u128::from(skip_last),
        }
    }
}

impl FromStr for AddressRange {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let syntax = || RangeError::Syntax(text.to_owned());
        let range = if text.contains('/') {
            Self::of_net(text, text.parse::<IpNet>().map_err(|_| syntax())?)
        } else {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            let first: IpAddr = first.trim().parse().map_err(|_| syntax())?;
            let last: IpAddr = last.trim().parse().map_err(|_| syntax())?;
            if Family::of(first) != Family::of(last) {
                return Err(RangeError::Mixed(text.to_owned()));
            }
            Self {
                text: text.to_owned(),
                family: Family::of(first),
                first: to_number(first),
                last: to_number(last),
            }
        };
        if range.first > range.last {
            return Err(RangeError::Reversed(text.to_owned()));
        }
        if range.first == 0 || range.overlaps_multicast() {
            return Err(RangeError::Unusable(text.to_owned()));
        }
        Ok(range)
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

// === impl Allocator ===

impl Allocator {
    pub(crate) fn new(ranges: Vec<AddressRange>) -> Self {
        Self {
            cursors: ranges.iter().map(|range| range.first).collect(),
            ranges,
            held: HashMap::new(),
            resting: HashMap::new(),
            nodes: HashSet::new(),
            queue: BTreeSet::new(),
        }
    }

    /// Checks a requested address: it must be free or already belong to this holder.
    pub(crate) fn request(&self, address: IpAddr, holder: &str) -> Result<IpAddr, Denied> {
        match self.held.get(&address) {
            Some(present) if present == holder => Ok(address),
            Some(present) => Err(Denied::Held {
                address,
                holder: present.clone(),
            }),
            None if self.nodes.contains(&address) => Err(Denied::Node { address }),
            None if self.ranges.iter().any(|range| range.contains(address)) => Ok(address),
            None => Err(Denied::Outside { address }),
        }
    }

    /// Chooses an address of the family that is not one of `avoid`.
    pub(crate) fn choose(&self, family: Family, avoid: &HashSet<IpAddr>) -> Result<IpAddr, Denied> {
        let resting = (family, 0, lowest(family))..=(family, u64::MAX, highest(family));
        let crowded = self.resting.len() >= RESTING;
        let fresh = || self.fresh(family, avoid);
        let rested = || {
            self.queue
                .range(resting.clone())
                .map(|(_, _, address)| *address)
                // The range may have been removed since the address was assigned.
                .find(|address| self.may_choose(*address, avoid) && self.in_ranges(*address))
        };
        let chosen = if crowded {
            rested().or_else(fresh)
        } else {
            fresh().or_else(rested)
        };
        chosen.ok_or_else(|| Denied::Exhausted {
            family,
            has_range: self.ranges.iter().any(|range| range.family == family),
        })
    }

    /// Records the holder of an address that was just chosen or requested.
    pub(crate) fn hold(&mut self, address: IpAddr, holder: &str) {
        self.held.insert(address, holder.to_owned());
        if let Some(at) = self.resting.remove(&address) {
            self.queue.remove(&(Family::of(address), at, address));
        }
        self.advance();
    }

    /// Releases an address; `at` rises with every release.
    pub(crate) fn rest(&mut self, address: IpAddr, at: u64) {
        self.held.remove(&address);
        if let Some(before) = self.resting.insert(address, at) {
            self.queue.remove(&(Family::of(address), before, address));
        }
        self.queue.insert((Family::of(address), at, address));
        if self.resting.len() > RESTING {
            self.forget_oldest();
        }
        self.advance();
    }

    /// Addresses that Services request one after the other must not fill the memory. The one
    /// that was released first counts as fresh again.
    fn forget_oldest(&mut self) {
        let first = |family| {
            let all = (family, 0, lowest(family))..=(family, u64::MAX, highest(family));
            self.queue.range(all).next().copied()
        };
        let firsts = [Family::V4, Family::V6].into_iter().filter_map(first);
        let Some(oldest) = firsts.min_by_key(|(_, at, _)| *at) else {
            return;
        };
        let (_, _, address) = oldest;
        self.queue.remove(&oldest);
        self.resting.remove(&address);
        let ranges = self.ranges.iter().zip(&mut self.cursors);
        for (_, cursor) in ranges.filter(|(range, _)| range.contains(address)) {
            *cursor = to_number(address).min(*cursor);
        }
    }

    /// Excludes the addresses of all nodes from assignment.
    pub(crate) fn exclude(&mut self, nodes: HashSet<IpAddr>) {
        self.nodes = nodes;
    }

    fn may_choose(&self, address: IpAddr, avoid: &HashSet<IpAddr>) -> bool {
        !self.nodes.contains(&address) && !avoid.contains(&address)
    }

    fn in_ranges(&self, address: IpAddr) -> bool {
        self.ranges.iter().any(|range| range.contains(address))
    }

    fn known(&self, address: IpAddr) -> bool {
        self.held.contains_key(&address) || self.resting.contains_key(&address)
    }

    fn fresh(&self, family: Family, avoid: &HashSet<IpAddr>) -> Option<IpAddr> {
        self.ranges
            .iter()
            .zip(&self.cursors)
            .filter(|(range, _)| range.family == family)
            .find_map(|(range, cursor)| {
                (*cursor..=range.last)
                    .map(|number| to_address(family, number))
                    .find(|address| !self.known(*address) && self.may_choose(*address, avoid))
            })
    }

    /// Keeps the search for fresh addresses short.
    fn advance(&mut self) {
        for index in 0..self.ranges.len() {
            let (family, last) = (self.ranges[index].family, self.ranges[index].last);
            let mut cursor = self.cursors[index];
            while cursor <= last && self.known(to_address(family, cursor)) {
                cursor += 1;
            }
            self.cursors[index] = cursor;
        }
    }
}

/// The ranges as the user wrote them.
pub(crate) fn describe(ranges: &[AddressRange]) -> String {
    let texts: Vec<&str> = ranges.iter().map(|range| range.text.as_str()).collect();
    texts.join(", ")
}

fn to_number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

#[allow(clippy::cast_possible_truncation)] // an IPv4 number came from 32 bits
fn to_address(family: Family, number: u128) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::from(number as u32)),
        Family::V6 => IpAddr::V6(Ipv6Addr::from(number)),
    }
}

fn lowest(family: Family) -> IpAddr {
    to_address(family, 0)
}

fn highest(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::BROADCAST),
        Family::V6 => IpAddr::V6(Ipv6Addr::from(u128::MAX)),
    }
}

#[cfg(test)]
mod tests;
