//! Which Services wait for what, and which are to be asked again.
//!
//! A Service waits for free addresses of pools, for one address, for an address to share, or
//! only for other pools. When one of these becomes available, the oldest Service that waits for
//! it is *called*: it leaves the index and enters the outbox, and the freed address is reserved
//! for it until it claims, is released, or does neither for [`RESERVED_FOR`]. So a freed
//! address wakes one Service, and no other overtakes it.
//!
//! Invariant: a Service is in at most one of `waits` and `called`; the other maps are inverted
//! indexes of `waits`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::ops::Bound;

use ballast_provider::{Family, ServiceId};
use jiff::{SignedDuration, Timestamp};

use super::table::SpaceKey;
use crate::claim::Turn;

/// How long a called Service has time to claim before it loses its reservation.
pub(super) const RESERVED_FOR: SignedDuration = SignedDuration::from_secs(30);

/// What could help a Service. A change of pools always could.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Waits {
    /// A free address in one of these.
    pub(super) spaces: BTreeSet<SpaceKey>,
    /// A change of one of these.
    pub(super) addresses: BTreeSet<IpAddr>,
    /// An address with this share key.
    pub(super) key: Option<String>,
}

/// The waiting Services; see the module documentation.
#[derive(Clone, Debug, Default)]
pub(super) struct Waiting {
    waits: HashMap<ServiceId, (Turn, Waits)>,
    all: BTreeSet<Turn>,
    by_space: BTreeMap<SpaceKey, BTreeSet<Turn>>,
    by_address: BTreeMap<IpAddr, BTreeSet<Turn>>,
    by_key: BTreeMap<String, BTreeSet<Turn>>,
    /// The number of each unanswered call, and its reservations.
    called: HashMap<ServiceId, (u64, Vec<SpaceKey>)>,
    /// When the unanswered calls were made.
    calls: BTreeMap<u64, (Timestamp, ServiceId)>,
    sequence: u64,
    outbox: Vec<ServiceId>,
}

fn drop_from<K: Ord + Clone>(map: &mut BTreeMap<K, BTreeSet<Turn>>, key: &K, turn: &Turn) {
    if let Some(turns) = map.get_mut(key) {
        turns.remove(turn);
        if turns.is_empty() {
            map.remove(key);
        }
    }
}

// === impl Waiting ===

impl Waiting {
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// All waiting Services, oldest first.
    pub(super) fn all(&self) -> impl Iterator<Item = &Turn> {
        self.all.iter()
    }

    pub(super) fn waits(&self, id: &ServiceId) -> Option<&Waits> {
        self.waits.get(id).map(|(_, waits)| waits)
    }

    pub(super) fn add(&mut self, turn: Turn, waits: Waits) {
        self.remove(&turn.1);
        for space in &waits.spaces {
            let turns = self.by_space.entry(space.clone()).or_default();
            turns.insert(turn.clone());
        }
        for address in &waits.addresses {
            let turns = self.by_address.entry(*address).or_default();
            turns.insert(turn.clone());
        }
        if let Some(key) = &waits.key {
            let turns = self.by_key.entry(key.clone()).or_default();
            turns.insert(turn.clone());
        }
        self.all.insert(turn.clone());
        self.waits.insert(turn.1.clone(), (turn, waits));
    }

    pub(super) fn remove(&mut self, id: &ServiceId) {
        // Usually none waits, and this check is cheaper than a hash.
        if self.waits.is_empty() {
            return;
        }
        let Some((turn, waits)) = self.waits.remove(id) else {
            return;
        };
        for space in &waits.spaces {
            drop_from(&mut self.by_space, space, &turn);
        }
        for address in &waits.addresses {
            drop_from(&mut self.by_address, address, &turn);
        }
        if let Some(key) = &waits.key {
            drop_from(&mut self.by_key, key, &turn);
        }
        self.all.remove(&turn);
    }

    /// The spaces that Services wait for.
    pub(super) fn spaces(&self) -> impl Iterator<Item = &SpaceKey> {
        self.by_space.keys()
    }

    /// The Service that has waited longest for a space, or the next one after `after`.
    pub(super) fn next_for(&self, space: &SpaceKey, after: Option<&Turn>) -> Option<&Turn> {
        let turns = self.by_space.get(space)?;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        turns.range((from, Bound::Unbounded)).next()
    }

    /// The Services that wait for an address, or for the share key that it has, oldest first.
    pub(super) fn for_address(&self, address: IpAddr, key: Option<&str>) -> BTreeSet<Turn> {
        let by_address = self.by_address.get(&address).into_iter();
        let by_key = key.and_then(|key| self.by_key.get(key)).into_iter();
        by_address.chain(by_key).flatten().cloned().collect()
    }

    /// Marks a Service to be asked again, without a reservation.
    pub(super) fn wake(&mut self, id: &ServiceId) {
        self.remove(id);
        self.outbox.push(id.clone());
    }

    /// Marks a Service to be asked again; the caller has reserved an address in each of the
    /// spaces.
    pub(super) fn call(&mut self, id: &ServiceId, spaces: Vec<SpaceKey>, now: Timestamp) {
        self.wake(id);
        self.sequence += 1;
        self.calls.insert(self.sequence, (now, id.clone()));
        self.called.insert(id.clone(), (self.sequence, spaces));
    }

    pub(super) fn is_called(&self, id: &ServiceId) -> bool {
        self.called.contains_key(id)
    }

    /// The number of reservations of the Service in a space.
    pub(super) fn reserved(&self, id: &ServiceId, pool: &str, family: Family) -> usize {
        let Some((_, spaces)) = self.called.get(id) else {
            return 0;
        };
        let here = spaces
            .iter()
            .filter(|(name, f)| **name == *pool && *f == family);
        here.count()
    }

    /// Records that the Service has claimed or is gone; returns its reservations.
    pub(super) fn answered(&mut self, id: &ServiceId) -> Vec<SpaceKey> {
        if self.called.is_empty() {
            return Vec::new();
        }
        let Some((call, spaces)) = self.called.remove(id) else {
            return Vec::new();
        };
        self.calls.remove(&call);
        // It came without being told, so it need not be told.
        self.outbox.retain(|other| other != id);
        spaces
    }

    /// A Service whose reservation has lapsed.
    pub(super) fn lapsed(&self, now: Timestamp) -> Option<ServiceId> {
        let (since, id) = self.calls.values().next()?;
        (now.duration_since(*since) >= RESERVED_FOR).then(|| id.clone())
    }

    /// When the oldest reservation lapses.
    pub(super) fn first_lapse(&self) -> Option<Timestamp> {
        let (since, _) = self.calls.values().next()?;
        since.checked_add(RESERVED_FOR).ok()
    }

    /// The clock went backwards.
    pub(super) fn rewind(&mut self, now: Timestamp) {
        for (since, _) in self.calls.values_mut() {
            *since = now.min(*since);
        }
    }

    /// The Services to ask again, in the order of their calls, each once.
    pub(super) fn drain(&mut self) -> Vec<ServiceId> {
        let mut seen = BTreeSet::new();
        let mut outbox = std::mem::take(&mut self.outbox);
        outbox.retain(|id| seen.insert(id.clone()));
        outbox
    }
}
