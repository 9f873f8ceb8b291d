//! The owners of addresses, and the free addresses of each pool.
//!
//! Invariants: an address with a member, a holder or a node is in no space's free set; every
//! other address in `given` is in exactly one; the members of one address keep the sharing rule
//! (except for namespaces, which are checked only on joining); `events` has every address whose
//! members or freedom changed. The table never decides which Service gets an address: the plan
//! does.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::ops::Bound;
use std::sync::Arc;

use ballast_provider::{Family, ServiceId};
use jiff::Timestamp;

use super::space::{Rest, Space};
use crate::claim::{Claim, Clash};
use crate::pool::{Pool, Standing};
use crate::range::{address, number};

/// How many ripe addresses are remembered beyond the number of assigned ones.
const REMEMBERED: usize = 64;

/// How long a released address outside of all pools is remembered: a pool that is deleted and
/// created again must not assign it at once.
const LIMBO: jiff::SignedDuration = jiff::SignedDuration::from_hours(1);

/// Identifies the free addresses of one pool and family.
pub(super) type SpaceKey = (Arc<str>, Family);

/// The table; see the module documentation.
#[derive(Clone, Debug, Default)]
pub(super) struct AddressTable {
    /// In the order in which they are tried.
    pub(super) pools: Vec<Supply>,
    /// Per family: the first and last address, and the pool that serves them.
    pub(super) cover: [BTreeMap<u128, (u128, usize)>; 2],
    pub(super) slots: BTreeMap<IpAddr, Slot>,
    /// The addresses of each share key.
    shares: HashMap<String, Shared>,
    /// Addresses held outside the allocator, with the number of holders.
    pub(super) held: BTreeMap<IpAddr, usize>,
    /// Addresses of nodes.
    pub(super) skipped: BTreeSet<IpAddr>,
    /// The resting addresses outside of all pools.
    pub(super) limbo: BTreeMap<IpAddr, (u64, Timestamp)>,
    /// Above this size, search for addresses that can be forgotten.
    limbo_most: usize,
    sequence: u64,
    pub(super) events: BTreeSet<IpAddr>,
}

/// The addresses of one share key.
#[derive(Clone, Debug, Default)]
struct Shared {
    all: BTreeSet<IpAddr>,
    /// Addresses with a member in a namespace. Addresses with the same key in other namespaces,
    /// however many, do not hide them.
    by_namespace: HashMap<Arc<str>, BTreeSet<IpAddr>>,
}

/// A pool with its state.
#[derive(Clone, Debug)]
pub(super) struct Supply {
    pub(super) name: Arc<str>,
    pub(super) pool: Pool,
    pub(super) standing: Standing,
    pub(super) spaces: [Space; 2],
    pub(super) assigned: [usize; 2],
}

/// An address with an owner.
#[derive(Clone, Debug, Default)]
pub(super) struct Slot {
    /// At least one, in the order of joining; each with its last accepted claim.
    pub(super) members: Vec<Arc<Claim>>,
}

pub(super) const fn index(family: Family) -> usize {
    match family {
        Family::V4 => 0,
        Family::V6 => 1,
    }
}

// === impl Supply ===

impl Supply {
    pub(super) fn serves(&self) -> bool {
        self.standing == Standing::Serves
    }

    pub(super) fn space(&self, family: Family) -> &Space {
        &self.spaces[index(family)]
    }

    pub(super) fn key(&self, family: Family) -> SpaceKey {
        (self.name.clone(), family)
    }

    pub(super) fn ripen(&mut self, now: Timestamp) {
        for (space, assigned) in self.spaces.iter_mut().zip(self.assigned) {
            space.ripen(now, self.pool.reuse_after, assigned + REMEMBERED);
        }
    }
}

// === impl Slot ===

impl Slot {
    pub(super) fn has(&self, id: &ServiceId) -> bool {
        self.members.iter().any(|member| member.id == *id)
    }

    /// The first other member with which the claim cannot share.
    pub(super) fn clash(&self, claim: &Claim, across: bool) -> Option<(&Claim, Clash)> {
        let mut others = self.members.iter().filter(|member| member.id != claim.id);
        others.find_map(|member| Some((&**member, claim.clash(member, across)?)))
    }
}

// === impl AddressTable ===

impl AddressTable {
    /// The pool that serves the address.
    pub(super) fn pool_of(&self, address: IpAddr) -> Option<usize> {
        let number = number(address);
        let cover = &self.cover[index(Family::of(address))];
        let (_, (last, pool)) = cover.range(..=number).next_back()?;
        (number <= *last).then_some(*pool)
    }

    pub(super) fn find(&self, name: &str) -> Option<usize> {
        self.pools.iter().position(|supply| &*supply.name == name)
    }

    pub(super) fn space(&self, (pool, family): &SpaceKey) -> Option<&Space> {
        let pool = self.find(pool)?;
        Some(self.pools[pool].space(*family))
    }

    pub(super) fn space_mut(&mut self, key: &SpaceKey) -> Option<&mut Space> {
        let pool = self.find(&key.0)?;
        Some(&mut self.pools[pool].spaces[index(key.1)])
    }

    pub(super) fn is_held(&self, address: IpAddr) -> bool {
        self.held.contains_key(&address)
    }

    /// Addresses of a share key in one family, lowest first: up to a limit, those with a member
    /// in the namespace, and up to the same limit, all.
    pub(super) fn shared(
        &self,
        key: &str,
        namespace: &str,
        family: Family,
        most: usize,
    ) -> BTreeSet<IpAddr> {
        let Some(shared) = self.shares.get(key) else {
            return BTreeSet::new();
        };
        let v6 = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        let ends = match family {
            Family::V4 => (Bound::Unbounded, Bound::Excluded(v6)),
            Family::V6 => (Bound::Included(v6), Bound::Unbounded),
        };
        let own = shared.by_namespace.get(namespace).into_iter();
        let sets = own.chain([&shared.all]);
        sets.flat_map(|set| set.range(ends).take(most).copied())
            .collect()
    }

    /// Adds the Service to the address, or renews its claim there.
    pub(super) fn occupy(&mut self, address: IpAddr, claim: &Arc<Claim>) {
        let slot = self.slots.entry(address).or_default();
        let first = slot.members.is_empty();
        let mut old = None;
        match slot.members.iter_mut().find(|m| m.id == claim.id) {
            Some(member) if **member == **claim => return,
            Some(member) => old = Some(std::mem::replace(member, claim.clone())),
            None => slot.members.push(claim.clone()),
        }
        // Only a sole owner ever changes its key.
        let old_key = old.as_ref().and_then(|old| old.key());
        if let Some(old_key) = old_key.filter(|key| Some(*key) != claim.key()) {
            self.unshare(old_key, &claim.id.namespace, address);
        }
        if let Some(key) = claim.key() {
            let shared = self.shares.entry(key.to_owned()).or_default();
            shared.all.insert(address);
            let namespace = claim.id.namespace.clone();
            let own = shared.by_namespace.entry(namespace).or_default();
            own.insert(address);
        }
        if first {
            self.withdraw(address);
            if let Some(pool) = self.pool_of(address) {
                self.pools[pool].assigned[index(Family::of(address))] += 1;
            }
        }
        self.events.insert(address);
    }

    /// Removes the Service from the address.
    pub(super) fn vacate(&mut self, address: IpAddr, id: &ServiceId, now: Timestamp) {
        let Some(slot) = self.slots.get_mut(&address) else {
            return;
        };
        let Some(place) = slot.members.iter().position(|member| member.id == *id) else {
            return;
        };
        let claim = slot.members.remove(place);
        let empty = slot.members.is_empty();
        let namespace = &claim.id.namespace;
        let last_of_namespace = !slot.members.iter().any(|m| m.id.namespace == *namespace);
        self.events.insert(address);
        if let Some(key) = claim.key().filter(|_| last_of_namespace) {
            self.unshare(key, namespace, address);
        }
        if !empty {
            return;
        }
        self.slots.remove(&address);
        if let Some(pool) = self.pool_of(address) {
            let assigned = &mut self.pools[pool].assigned[index(Family::of(address))];
            *assigned = assigned.saturating_sub(1);
        }
        self.free(address, now);
    }

    /// Adds a holder of the address.
    pub(super) fn hold(&mut self, address: IpAddr) {
        *self.held.entry(address).or_default() += 1;
        self.withdraw(address);
    }

    /// Removes a holder of the address; without holders it begins to rest.
    pub(super) fn unhold(&mut self, address: IpAddr, now: Timestamp) {
        let Some(holders) = self.held.get_mut(&address) else {
            return;
        };
        *holders -= 1;
        if *holders == 0 {
            self.held.remove(&address);
            self.free(address, now);
            self.events.insert(address);
        }
    }

    /// A node has the address now.
    pub(super) fn skip(&mut self, address: IpAddr) {
        self.skipped.insert(address);
        self.withdraw(address);
    }

    /// No node has it any more; it begins to rest.
    pub(super) fn unskip(&mut self, address: IpAddr, now: Timestamp) {
        self.skipped.remove(&address);
        self.free(address, now);
        self.events.insert(address);
    }

    /// Whether the address can be assigned.
    pub(super) fn is_free(&self, address: IpAddr) -> bool {
        !self.slots.contains_key(&address)
            && !self.is_held(address)
            && !self.skipped.contains(&address)
    }

    /// The clock went backwards.
    pub(super) fn rewind(&mut self, now: Timestamp) {
        for supply in &mut self.pools {
            for space in &mut supply.spaces {
                space.rewind(now, supply.pool.reuse_after);
            }
        }
        for (_, since) in self.limbo.values_mut() {
            *since = now.min(*since);
        }
    }

    fn withdraw(&mut self, address: IpAddr) {
        self.limbo.remove(&address);
        if let Some(pool) = self.pool_of(address) {
            self.pools[pool].spaces[index(Family::of(address))].take(number(address));
        }
    }

    fn free(&mut self, address: IpAddr, now: Timestamp) {
        if !self.is_free(address) {
            return;
        }
        self.sequence += 1;
        self.rest(address, self.sequence, now);
    }

    /// Lets a free address rest, in the space that assigns it or outside of all pools.
    pub(super) fn rest(&mut self, address: IpAddr, place: u64, since: Timestamp) {
        let rest = Rest {
            number: number(address),
            since,
        };
        let rests = self.pool_of(address).is_some_and(|pool| {
            self.pools[pool].spaces[index(Family::of(address))].put_back(place, rest)
        });
        if rests {
            return;
        }
        self.limbo.insert(address, (place, since));
        // A full search each time their number doubles costs almost nothing.
        if self.limbo.len() > self.limbo_most.max(REMEMBERED) {
            self.limbo
                .retain(|_, (_, begun)| since.duration_since(*begun) < LIMBO);
            self.limbo_most = self.limbo.len() * 2;
        }
    }

    /// Records that no member of the namespace shares the address any more.
    fn unshare(&mut self, key: &str, namespace: &str, address: IpAddr) {
        let Some(shared) = self.shares.get_mut(key) else {
            return;
        };
        if let Some(own) = shared.by_namespace.get_mut(namespace) {
            own.remove(&address);
            if own.is_empty() {
                shared.by_namespace.remove(namespace);
            }
        }
        if !shared
            .by_namespace
            .values()
            .any(|own| own.contains(&address))
        {
            shared.all.remove(&address);
        }
        if shared.all.is_empty() {
            self.shares.remove(key);
        }
    }
}

impl Supply {
    /// A pool whose addresses are all free.
    pub(super) fn new(pool: Pool, standing: Standing) -> Self {
        let given = |family| match standing {
            Standing::Serves => Space::new(pool.given(family)),
            Standing::Conflict { .. } => Space::default(),
        };
        Self {
            name: pool.name.as_str().into(),
            spaces: [given(Family::V4), given(Family::V6)],
            assigned: [0; 2],
            pool,
            standing,
        }
    }
}

/// The addresses of an interval that are keys of a map.
pub(super) fn within<V>(
    map: &BTreeMap<IpAddr, V>,
    family: Family,
    (first, last): (u128, u128),
) -> impl Iterator<Item = (IpAddr, &V)> {
    map.range(address(family, first)..=address(family, last))
        .map(|(address, value)| (*address, value))
}
