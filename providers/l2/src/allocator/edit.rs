//! Changes of the environment: pools, node addresses, and addresses that others hold.
//!
//! Invariant: a resting address continues to rest, even if its pool is deleted and created
//! again. An unchanged pool costs nothing, and its Services are not asked again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ballast_provider::{Family, ServiceId};
use jiff::Timestamp;

use super::Allocator;
use super::table::{AddressTable, Supply, index, within};
use crate::claim::{Claim, Turn};
use crate::holder::Holder;
use crate::pool::{Pool, judge};
use crate::range::{address, number};

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

// === impl Allocator ===

impl Allocator {
    /// Replaces all pools. Wakes the Services whose answer changes, and as many waiting
    /// Services as can be served, oldest first.
    pub fn set_pools(&mut self, pools: Vec<Pool>, now: Timestamp) {
        self.advance(now);
        let standing = judge(&pools);
        let mut supplies: Vec<_> = pools.into_iter().zip(standing).collect();
        supplies.sort_by(|(a, _), (b, _)| a.rank().cmp(&b.rank()));
        let new: BTreeMap<&str, _> = supplies.iter().map(|s| (s.0.name.as_str(), s)).collect();
        let mut changed: BTreeSet<String> = BTreeSet::new();
        for supply in &self.table.pools {
            let same =
                |(pool, standing): &(Pool, _)| *pool == supply.pool && *standing == supply.standing;
            if !new.get(&*supply.name).is_some_and(|new| same(new)) {
                changed.insert(supply.name.to_string());
            }
        }
        let added = new.keys().filter(|name| self.table.find(name).is_none());
        changed.extend(added.map(|name| (*name).to_owned()));
        if changed.is_empty() {
            return;
        }
        // The Services that the pools concern, before and after the change.
        let mut concerned = self.concerned(&changed);
        let supplies = supplies.into_iter().map(|(pool, s)| Supply::new(pool, s));
        self.table.replace(supplies.collect(), &changed);
        concerned.extend(self.concerned(&changed));
        self.serve_waiting();
        for (_, id) in concerned {
            self.reconsider(&id);
        }
        self.serve_waiting();
    }

    /// Replaces the addresses of all nodes. They are not assigned to Services.
    pub fn set_skipped(&mut self, addresses: &BTreeSet<IpAddr>, now: Timestamp) {
        self.advance(now);
        let before = self.table.skipped.clone();
        for address in before.difference(addresses) {
            self.table.unskip(*address, now);
        }
        for address in addresses.difference(&before) {
            self.table.skip(*address);
        }
        self.serve_waiting();
        // A Service keeps an address that becomes a node's, and reports it. A Service that
        // waits for such an address has another reason to wait.
        let mut turns: BTreeSet<Turn> = BTreeSet::new();
        for address in before.symmetric_difference(addresses) {
            let slot = self.table.slots.get(address);
            let members = slot.into_iter().flat_map(|slot| &slot.members);
            turns.extend(members.map(|member| member.turn()));
            turns.extend(self.waiting.for_address(*address, None));
        }
        for (_, id) in turns {
            self.reconsider(&id);
        }
    }

    /// Replaces the addresses of one holder; an empty set means that it is gone. A held address
    /// is not assigned to any Service, except to one that has it already. Costs one look-up if
    /// nothing changes.
    pub fn set_held(&mut self, holder: &Holder, addresses: &BTreeSet<IpAddr>, now: Timestamp) {
        let before = self.holders.get(holder).into_iter().flatten();
        if before.eq(addresses) {
            return;
        }
        self.advance(now);
        let before = self.holders.remove(holder).unwrap_or_default();
        for address in addresses.iter().filter(|it| !before.contains(it)) {
            self.table.hold(*address);
        }
        for address in before.iter().filter(|it| !addresses.contains(it)) {
            self.table.unhold(*address, now);
        }
        if !addresses.is_empty() {
            let addresses = addresses.iter().copied().collect();
            self.holders.insert(holder.clone(), addresses);
        }
        self.serve_waiting();
    }

    /// The Services with an address in one of these pools, and the waiting Services whose
    /// answer these pools could change.
    fn concerned(&self, pools: &BTreeSet<String>) -> BTreeSet<Turn> {
        let waits = |(_, id): &&Turn| self.is_concerned(id, pools);
        let mut residents: BTreeSet<Turn> = self.waiting.all().filter(waits).cloned().collect();
        let supplies = self.table.pools.iter();
        for supply in supplies.filter(|supply| pools.contains(&*supply.name)) {
            for family in FAMILIES {
                for span in supply.pool.covered(family).iter() {
                    let slots = within(&self.table.slots, family, span);
                    let members = slots.flat_map(|(_, slot)| &slot.members);
                    residents.extend(members.map(|member| member.turn()));
                }
            }
        }
        residents
    }

    /// Whether the answer to a waiting Service could change.
    fn is_concerned(&self, id: &ServiceId, changed: &BTreeSet<String>) -> bool {
        let waits = self.waiting.waits(id);
        if waits.is_some_and(|w| w.spaces.iter().any(|(pool, _)| changed.contains(&**pool))) {
            return true;
        }
        let Some(service) = self.services.get(id) else {
            return false;
        };
        let claim = &service.claim;
        if claim
            .pool
            .as_ref()
            .is_some_and(|name| changed.contains(name))
        {
            return true;
        }
        let mut supplies = self.table.pools.iter();
        supplies.any(|s| changed.contains(&*s.name) && concerns(&s.pool, claim))
    }
}

/// Whether a pool is relevant to what a Service asks for.
fn concerns(pool: &Pool, claim: &Claim) -> bool {
    pool.permits(claim)
        || claim
            .requested
            .iter()
            .any(|address| pool.contains(*address))
}

// === impl AddressTable ===

impl AddressTable {
    /// Replaces all pools. Unchanged pools keep their spaces.
    fn replace(&mut self, mut supplies: Vec<Supply>, changed: &BTreeSet<String>) {
        let mut old: BTreeMap<_, _> = std::mem::take(&mut self.pools)
            .into_iter()
            .map(|supply| (supply.name.clone(), supply))
            .collect();
        for supply in &mut supplies {
            let Some(before) = old.remove(&supply.name) else {
                continue;
            };
            if changed.contains(&*supply.name) {
                for (space, before) in supply.spaces.iter_mut().zip(&before.spaces) {
                    space.inherit(before);
                }
                old.insert(before.name.clone(), before);
            } else {
                *supply = before;
            }
        }
        self.pools = supplies;
        self.cover = self.covered();
        for pool in 0..self.pools.len() {
            if changed.contains(&*self.pools[pool].name) && self.pools[pool].serves() {
                self.settle(pool);
            }
        }
        self.rest_on(old.into_values());
    }

    fn covered(&self) -> [BTreeMap<u128, (u128, usize)>; 2] {
        FAMILIES.map(|family| {
            let serving = self.pools.iter().enumerate().filter(|(_, s)| s.serves());
            let spans = serving.flat_map(|(index, supply)| {
                let covered = supply.pool.covered(family);
                let spans: Vec<_> = covered.iter().collect();
                spans
                    .into_iter()
                    .map(move |(first, last)| (first, (last, index)))
            });
            spans.collect()
        })
    }

    /// Removes addresses that are not free from a new space.
    fn settle(&mut self, pool: usize) {
        for family in FAMILIES {
            let covered = self.pools[pool].pool.covered(family);
            let supply = &mut self.pools[pool];
            let space = &mut supply.spaces[index(family)];
            for span in covered.iter() {
                for (address, _) in within(&self.slots, family, span) {
                    space.take(number(address));
                    supply.assigned[index(family)] += 1;
                }
                let ends = address(family, span.0)..=address(family, span.1);
                let held = self.held.range(ends.clone()).map(|(address, _)| address);
                for address in held.chain(self.skipped.range(ends)) {
                    space.take(number(*address));
                }
            }
        }
    }

    /// Addresses that rested in changed or deleted pools, or outside of all pools, continue to
    /// rest in their present pool, in the same order.
    fn rest_on(&mut self, old: impl Iterator<Item = Supply>) {
        let mut resting: Vec<(u64, IpAddr, Timestamp)> = std::mem::take(&mut self.limbo)
            .into_iter()
            .map(|(address, (place, since))| (place, address, since))
            .collect();
        for supply in old {
            for family in FAMILIES {
                let remembered = supply.space(family).remembered();
                resting.extend(
                    remembered
                        .map(|(place, rest)| (place, address(family, rest.number), rest.since)),
                );
            }
        }
        resting.sort_unstable();
        for (place, address, since) in resting {
            self.rest(address, place, since);
        }
    }
}
