//! The free addresses of one pool and family, and the order in which they are assigned.
//!
//! Addresses that were never assigned come first, lowest first; then the one released longest
//! ago. A released address first rests, and is *ripe* afterwards. Only a limited number of ripe
//! addresses is remembered; beyond that, the one released longest ago counts as never assigned.
//! This keeps the order and bounds the memory by the used and resting addresses, however large
//! the pool is.
//!
//! Invariants: a free address is in exactly one of `fresh`, `ripe` and `resting`; an address
//! that is not free is in none (the table knows why); only numbers in `given` are in one of
//! them; `ripe` and `resting` are in the order of release, and so are their times.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::numbers::Numbers;

/// The free addresses; see the module documentation.
#[derive(Clone, Debug, Default)]
pub(super) struct Space {
    given: Numbers,
    fresh: Numbers,
    ripe: BTreeMap<u64, Rest>,
    resting: BTreeMap<u64, Rest>,
    /// The place of a number in `ripe` or `resting`.
    places: HashMap<u128, u64>,
    doubt: Option<UnknownRest>,
    /// How many of the available addresses are reserved for woken Services.
    pub(super) reserved: usize,
}

/// An address that was released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rest {
    pub(super) number: u128,
    pub(super) since: Timestamp,
}

/// After a change of leaders, the addresses that were released last are unknown. So all free
/// addresses count as resting. Because no others are free, they are assigned anyway, but
/// starting at an arbitrary one: the lowest is likely the one released last, and with frequent
/// changes of leaders so is any fixed place.
#[derive(Clone, Copy, Debug)]
struct UnknownRest {
    until: Timestamp,
    from: u128,
}

/// When a rest ends that began at `since`.
pub(super) fn end_of_rest(since: Timestamp, reuse_after: Duration) -> Timestamp {
    SignedDuration::try_from(reuse_after)
        .ok()
        .and_then(|rest| since.checked_add(rest).ok())
        .unwrap_or(Timestamp::MAX)
}

// === impl Space ===

impl Space {
    /// A space in which everything is fresh.
    pub(super) fn new(given: Numbers) -> Self {
        Self {
            fresh: given.clone(),
            given,
            ..Self::default()
        }
    }

    /// The part of this space that a later edit of pools keeps.
    pub(super) fn inherit(&mut self, old: &Self) {
        self.doubt = old.doubt;
        self.reserved = old.reserved;
    }

    /// All addresses that it assigns automatically, free or not.
    pub(super) const fn given(&self) -> &Numbers {
        &self.given
    }

    /// The number of addresses that can be assigned now.
    pub(super) fn available(&self) -> u128 {
        self.fresh.count().saturating_add(self.ripe.len() as u128)
    }

    /// Whether an address is available besides the reserved ones, `own` of which are the
    /// Service's.
    pub(super) fn is_open(&self, own: usize) -> bool {
        self.available() > self.reserved.saturating_sub(own) as u128
    }

    /// The address that would be assigned next.
    pub(super) fn next(&self, now: Timestamp) -> Option<u128> {
        let doubt = self.doubt.filter(|doubt| now < doubt.until);
        doubt
            .and_then(|doubt| self.fresh.first_from(doubt.from))
            .or_else(|| self.fresh.first())
            .or_else(|| self.ripe.values().next().map(|rest| rest.number))
    }

    /// Removes a free address from whichever set it is in; returns whether it was free.
    pub(super) fn take(&mut self, number: u128) -> bool {
        if let Some(place) = self.places.remove(&number) {
            return self.ripe.remove(&place).is_some() || self.resting.remove(&place).is_some();
        }
        self.fresh.remove(number)
    }

    /// Adds a freed address, which begins to rest; false if it is not assigned automatically.
    pub(super) fn put_back(&mut self, place: u64, rest: Rest) -> bool {
        if !self.given.contains(rest.number) {
            return false;
        }
        self.fresh.remove(rest.number);
        self.places.insert(rest.number, place);
        self.resting.insert(place, rest);
        true
    }

    /// Ends the rests that are over, and forgets ripe addresses beyond `remembered`.
    pub(super) fn ripen(&mut self, now: Timestamp, reuse_after: Duration, remembered: usize) {
        while let Some(first) = self.resting.first_entry() {
            if end_of_rest(first.get().since, reuse_after) > now {
                break;
            }
            let (place, rest) = first.remove_entry();
            self.ripe.insert(place, rest);
        }
        while self.ripe.len() > remembered {
            let Some((_, rest)) = self.ripe.pop_first() else {
                break;
            };
            self.places.remove(&rest.number);
            self.fresh.insert_single(rest.number);
        }
    }

    /// The clock went backwards: no rest may have begun in the future.
    pub(super) fn rewind(&mut self, now: Timestamp, reuse_after: Duration) {
        for rest in self.resting.values_mut().chain(self.ripe.values_mut()) {
            rest.since = rest.since.min(now);
        }
        if let Some(doubt) = &mut self.doubt {
            doubt.until = doubt.until.min(end_of_rest(now, reuse_after));
        }
    }

    /// Until `until`, the addresses that were released earlier are unknown.
    pub(super) fn begin_doubt(&mut self, until: Timestamp, seed: u64) {
        let (Some(first), Some(last)) = (self.fresh.first(), self.fresh.last()) else {
            return;
        };
        let from = match (last - first).checked_add(1) {
            Some(size) => first + u128::from(scatter(seed)) % size,
            None => u128::from(scatter(seed)),
        };
        self.doubt = Some(UnknownRest { until, from });
    }

    /// When the first rest ends, if any address rests.
    pub(super) fn first_ripe(&self, reuse_after: Duration) -> Option<Timestamp> {
        let first = self.resting.values().next()?;
        Some(end_of_rest(first.since, reuse_after))
    }

    /// The resting addresses, in the order of release.
    pub(super) fn resting(&self) -> impl Iterator<Item = Rest> + '_ {
        self.resting.values().copied()
    }

    /// All remembered addresses, each with its place in the order of release.
    pub(super) fn remembered(&self) -> impl Iterator<Item = (u64, Rest)> + '_ {
        let both = self.ripe.iter().chain(&self.resting);
        both.map(|(place, rest)| (*place, *rest))
    }

    /// The number of intervals and remembered addresses, to which the memory is proportional.
    pub(super) fn footprint(&self) -> usize {
        self.given.footprint() + self.fresh.footprint() + self.places.len()
    }
}

/// Distributes adjacent seeds over all numbers (the finaliser of `SplitMix64`).
const fn scatter(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
