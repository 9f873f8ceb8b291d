//! The state of the allocator for people, status counters and metrics. Changes nothing.

use std::net::IpAddr;

use ballast_provider::Family;
use jiff::Timestamp;

use super::Allocator;
use super::space::end_of_rest;
use super::table::{Supply, index, within};
use crate::holder::Holder;
use crate::pool::{Pool, Standing};
use crate::range::{address, number};

/// The state of one pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolReport {
    /// Its name.
    pub name: String,
    /// Whether it serves.
    pub standing: Standing,
    /// Its IPv4 addresses.
    pub v4: Counts,
    /// Its IPv6 addresses.
    pub v6: Counts,
    /// The next address for a Service that asks for none in particular, for each family of the
    /// pool.
    pub next: Vec<IpAddr>,
    /// Node addresses in the pool. They are not assigned, and the user should know.
    pub skipped: Vec<IpAddr>,
}

/// The number of addresses of one family in a pool. Edge and node addresses count only while
/// they are in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All addresses: the sum of the others.
    pub total: u128,
    /// Addresses of Services.
    pub assigned: u128,
    /// Addresses that can be assigned now.
    pub available: u128,
    /// Resting addresses.
    pub resting: u128,
    /// Addresses held outside the allocator, for example by Services of other controllers.
    pub held: u128,
}

/// A resting address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resting {
    /// The address.
    pub address: IpAddr,
    /// When it can be assigned again.
    pub until: Timestamp,
}

// === impl Counts ===

impl Counts {
    /// A count in the API's type; a larger count becomes the maximum.
    pub fn saturated(count: u128) -> i64 {
        i64::try_from(count).unwrap_or(i64::MAX)
    }
}

// === impl Allocator ===

impl Allocator {
    /// All pools, in the order in which they are tried.
    pub fn pools(&self) -> Vec<PoolReport> {
        let report = |supply: &Supply| {
            let families = [Family::V4, Family::V6];
            let next = families.into_iter().filter_map(|family| {
                let next = supply.space(family).next(self.now)?;
                Some(address(family, next))
            });
            PoolReport {
                name: supply.name.to_string(),
                standing: supply.standing.clone(),
                v4: self.counts(supply, Family::V4),
                v6: self.counts(supply, Family::V6),
                next: next.collect(),
                skipped: self.nodes_in(&supply.pool),
            }
        };
        self.table.pools.iter().map(report).collect()
    }

    /// The resting addresses of a pool, first to end first, per family.
    pub fn resting(&self, pool: &str) -> Vec<Resting> {
        let Some(supply) = self.supply(pool) else {
            return Vec::new();
        };
        let families = [Family::V4, Family::V6].into_iter();
        let resting = families.flat_map(|family| {
            let resting = supply.space(family).resting();
            resting.map(move |rest| Resting {
                address: address(family, rest.number),
                until: end_of_rest(rest.since, supply.pool.reuse_after),
            })
        });
        resting.collect()
    }

    /// The number of items that store the free addresses of all pools: intervals and released
    /// addresses. Memory is proportional to this and to the number of assigned addresses.
    pub fn footprint(&self) -> usize {
        let spaces = self.table.pools.iter().flat_map(|supply| &supply.spaces);
        spaces.map(super::space::Space::footprint).sum::<usize>() + self.table.limbo.len()
    }

    /// The holders of an address that the allocator must not assign.
    pub(super) fn holders(&self, address: IpAddr) -> impl Iterator<Item = &Holder> {
        // Usually there are none, and the index shows that at once.
        let held = self.table.is_held(address);
        let holders = self.holders.iter().filter(move |_| held);
        let found = holders.filter(move |(_, addresses)| addresses.contains(&address));
        found.map(|(holder, _)| holder)
    }

    /// The addresses of nodes in a pool: one look-up per entry, not one step per node.
    fn nodes_in(&self, pool: &Pool) -> Vec<IpAddr> {
        let families = [Family::V4, Family::V6].into_iter();
        let nodes = families.flat_map(|family| {
            let covered = pool.covered(family);
            let ends = |(first, last)| address(family, first)..=address(family, last);
            let nodes = covered.iter().map(ends);
            nodes
                .flat_map(|ends| self.table.skipped.range(ends).copied())
                .collect::<Vec<_>>()
        });
        nodes.collect()
    }

    fn supply(&self, pool: &str) -> Option<&Supply> {
        let supply = &self.table.pools[self.table.find(pool)?];
        supply.serves().then_some(supply)
    }

    fn counts(&self, supply: &Supply, family: Family) -> Counts {
        let space = supply.space(family);
        let assigned = supply.assigned[index(family)] as u128;
        let resting = space.resting().count() as u128;
        let of_nobody = |held: &IpAddr| {
            let given = space.given().contains(number(*held));
            given && !self.table.slots.contains_key(held) && !self.table.skipped.contains(held)
        };
        let covered = supply.pool.covered(family);
        let held = covered
            .iter()
            .flat_map(|span| within(&self.table.held, family, span))
            .filter(|(held, _)| of_nobody(held))
            .count() as u128;
        let available = space.available();
        Counts {
            total: available.saturating_add(assigned + resting + held),
            assigned,
            available,
            resting,
            held,
        }
    }
}

/// For tests only.
#[cfg(test)]
mod seen {
    use super::super::table::{Slot, within};
    use ballast_provider::ServiceId;

    use super::{Allocator, Family, IpAddr};

    impl Allocator {
        /// The owners of addresses in a pool, in the order of the addresses.
        pub fn assigned(&self, pool: &str) -> Vec<(IpAddr, Vec<ServiceId>)> {
            let Some(supply) = self.supply(pool) else {
                return Vec::new();
            };
            let mut assigned = Vec::new();
            for family in [Family::V4, Family::V6] {
                for span in supply.pool.covered(family).iter() {
                    let slots = within(&self.table.slots, family, span);
                    assigned.extend(slots.map(|(address, slot)| (address, ids(slot))));
                }
            }
            assigned
        }

        /// The owners of addresses that no pool serves, in the order of the addresses.
        pub fn outside(&self) -> Vec<(IpAddr, Vec<ServiceId>)> {
            let slots = self.table.slots.iter();
            let outside = slots.filter(|(address, _)| self.table.pool_of(**address).is_none());
            outside
                .map(|(address, slot)| (*address, ids(slot)))
                .collect()
        }

        /// All Services that wait for an address or a better one, oldest first.
        pub fn waiting(&self) -> Vec<ServiceId> {
            self.waiting.all().map(|(_, id)| id.clone()).collect()
        }
    }

    fn ids(slot: &Slot) -> Vec<ServiceId> {
        slot.members
            .iter()
            .map(|member| member.id.clone())
            .collect()
    }
}
