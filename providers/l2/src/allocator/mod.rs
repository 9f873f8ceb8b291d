//! Which Service has which address: the whole state, and every change to it.
//!
//! [`Allocator::restore`] builds the state from the addresses in the status of Services, which
//! is the only record; afterwards each event is one call. Every call takes `now`, does no I/O,
//! and costs the logarithm of the number of Services (plus a step per pool). After any call
//! [`Allocator::drain_woken`] returns the Services whose answer has changed; no other Service
//! needs to be asked.
//!
//! # Invariants
//! - An address belongs to one Service, or to several that keep the sharing rule
//!   (see [`crate::claim`]).
//! - A Service keeps its address until it is released or asks for something else; an edit of
//!   pools moves it only if a pool has `reallocate`.
//! - A denial changes nothing: the Service keeps what it had, as it was accepted.
//! - A woken Service gets a free address before others: first one that requests this address,
//!   then those that accept any, oldest first.
//! - Memory grows with the number of used and resting addresses, not with the size of pools.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use ballast_provider::{Family, Reason, ServiceId};
use jiff::Timestamp;

use crate::claim::Claim;
use crate::holder::Holder;
use crate::pool::Pool;
use crate::verdict::{Denial, Grant, Marker};
use adopt::Disputes;
use plan::{Plan, Refused};
use space::end_of_rest;
use table::{AddressTable, index};
use waiting::Waiting;

mod adopt;
mod edit;
mod plan;
mod report;
mod space;
mod table;
mod waiting;

pub use report::{Counts, PoolReport, Resting};

/// The allocator; see the module documentation.
#[derive(Clone, Debug)]
pub struct Allocator {
    table: AddressTable,
    services: HashMap<ServiceId, Service>,
    waiting: Waiting,
    /// Addresses held outside the allocator, by holder.
    /// The addresses of each holder, sorted. There can be as many as Services.
    holders: BTreeMap<Holder, Box<[IpAddr]>>,
    disputes: Disputes,
    /// The latest time seen.
    now: Timestamp,
}

/// Everything that must be known before the first decision.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Every pool.
    pub pools: Vec<Pool>,
    /// Every Service that publishes an address, with the address in `published`.
    pub claims: Vec<Claim>,
    /// Addresses that the allocator did not assign, by holder.
    pub held: BTreeMap<Holder, BTreeSet<IpAddr>>,
    /// The addresses of all nodes.
    pub skipped: BTreeSet<IpAddr>,
    /// Until when another leader may have released addresses: the instant of the change of
    /// leaders. For `reuse_after` from then on, free addresses are assigned starting at an
    /// arbitrary one instead of the lowest. `None`: there was no earlier leader.
    pub predecessor: Option<Timestamp>,
}

/// A Service that has claimed.
#[derive(Clone, Debug)]
struct Service {
    claim: Arc<Claim>,
    addresses: Vec<IpAddr>,
    /// Addresses that it publishes and an older Service owns.
    lost: Vec<(IpAddr, ServiceId)>,
    /// Addresses that it published at the start and that were not adopted, with the reason.
    rejected: Vec<(IpAddr, String)>,
    answer: Answer,
}

/// The last answer to the Service.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    Nothing,
    Granted(Vec<Marker>),
    Denied(Reason),
}

// === impl Allocator ===

impl Allocator {
    /// Creates an allocator from a snapshot. It is the only constructor, so nothing is decided
    /// before everything is known.
    ///
    /// A published address stays with its Service, in a pool or not, if it could have been
    /// assigned; otherwise the Service gets another one and [`Marker::NotAdopted`] reports it.
    /// If two Services that may not share publish one address, the older keeps it;
    /// [`Marker::Duplicate`] reports it to both until the status of the younger has changed.
    pub fn restore(snapshot: Snapshot, now: Timestamp) -> Self {
        let Snapshot {
            pools,
            mut claims,
            held,
            skipped,
            predecessor,
        } = snapshot;
        let mut allocator = Self {
            table: AddressTable::default(),
            services: HashMap::with_capacity(claims.len()),
            waiting: Waiting::default(),
            holders: BTreeMap::new(),
            disputes: Disputes::new(),
            now,
        };
        allocator.set_pools(pools, now);
        allocator.set_skipped(&skipped, now);
        for (holder, addresses) in held {
            allocator.set_held(&holder, &addresses, now);
        }
        claims.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
        for claim in claims {
            allocator.adopt(&Arc::new(claim));
        }
        if let Some(since) = predecessor {
            allocator.begin_doubt(since);
        }
        allocator.table.events.clear();
        allocator.waiting.drain();
        allocator
    }

    /// Assigns what a Service claims, or returns why not. Idempotent: without a change in
    /// between, the same claim gets the same answer. Call it for every new Service and whenever
    /// a part of its claim changes.
    pub fn allocate(&mut self, claim: Claim, now: Timestamp) -> Result<Grant, Denial> {
        self.advance(now);
        let claim = Arc::new(claim);
        if !self.services.contains_key(&claim.id) {
            self.adopt(&claim);
        }
        self.end_lost(&claim);
        let plan = self.plan(&claim);
        self.waiting.remove(&claim.id);
        self.unreserve(&claim.id);
        let answer = match plan {
            Ok(plan) => Ok(self.commit(&claim, plan)),
            Err(refused) => Err(self.refuse(&claim, *refused)),
        };
        self.end_lost(&claim);
        self.serve_waiting();
        answer
    }

    /// Forgets a Service. Its addresses begin to rest, and are returned.
    pub fn release(&mut self, id: &ServiceId, now: Timestamp) -> Vec<IpAddr> {
        self.advance(now);
        self.waiting.remove(id);
        self.unreserve(id);
        let Some(service) = self.services.remove(id) else {
            self.serve_waiting();
            return Vec::new();
        };
        for address in &service.addresses {
            self.vacate(*address, id);
        }
        for (address, owner) in &service.lost {
            self.end_dispute(*address, owner, id);
        }
        self.serve_waiting();
        service.addresses
    }

    /// Advances the time: rests end, unanswered calls lapse. Every other call does this too.
    pub fn advance(&mut self, now: Timestamp) {
        if now < self.now {
            self.table.rewind(now);
            self.waiting.rewind(now);
        }
        self.now = now;
        while let Some(id) = self.waiting.lapsed(now) {
            self.unreserve(&id);
        }
        self.serve_waiting();
    }

    /// When [`advance`](Self::advance) must be called at the latest if nothing else happens, so
    /// that waiting Services are woken in time; `None`: never.
    pub fn wake_at(&self) -> Option<Timestamp> {
        let rests = self.waiting.spaces().filter_map(|(name, family)| {
            let supply = &self.table.pools[self.table.find(name)?];
            supply.space(*family).first_ripe(supply.pool.reuse_after)
        });
        rests.chain(self.waiting.first_lapse()).min()
    }

    /// The Services to be asked again since the last call, in the order in which they are to be
    /// served. What was freed stays reserved for each until it claims.
    #[must_use]
    pub fn drain_woken(&mut self) -> Vec<ServiceId> {
        self.waiting.drain()
    }

    /// Whether a Service has claimed, or was in the snapshot.
    pub fn knows(&self, id: &ServiceId) -> bool {
        self.services.contains_key(id)
    }

    /// The addresses of a Service, in the order of its families.
    pub fn addresses(&self, id: &ServiceId) -> &[IpAddr] {
        self.services.get(id).map_or(&[], |s| &s.addresses)
    }

    fn commit(&mut self, claim: &Arc<Claim>, plan: Plan) -> Grant {
        let Plan {
            addresses,
            takes: _,
            markers,
            waits,
        } = plan;
        let mut before = Vec::new();
        if let Some(service) = self.services.get_mut(&claim.id) {
            service.claim = claim.clone();
            before = std::mem::replace(&mut service.addresses, addresses.clone());
            service.answer = Answer::Granted(markers.clone());
        }
        for address in before.iter().filter(|a| !addresses.contains(a)) {
            self.vacate(*address, &claim.id);
        }
        for address in &addresses {
            self.table.occupy(*address, claim);
        }
        if !markers.is_empty() {
            self.waiting.add(claim.turn(), waits);
        }
        Grant { addresses, markers }
    }

    fn vacate(&mut self, address: IpAddr, id: &ServiceId) {
        self.table.vacate(address, id, self.now);
        self.end_kept(address, id);
    }

    fn refuse(&mut self, claim: &Arc<Claim>, refused: Refused) -> Denial {
        self.waiting.add(claim.turn(), refused.waits);
        if let Some(service) = self.services.get_mut(&claim.id) {
            service.claim = claim.clone();
            service.answer = Answer::Denied(refused.denial.reason);
        }
        refused.denial
    }

    /// Frees what was reserved for a Service, because it has claimed or is gone.
    fn unreserve(&mut self, id: &ServiceId) {
        for space in self.waiting.answered(id) {
            if let Some(space) = self.table.space_mut(&space) {
                space.reserved = space.reserved.saturating_sub(1);
            }
        }
    }

    /// Ends the rests that are over, then calls the Services that wait for free addresses.
    fn serve_waiting(&mut self) {
        for supply in &mut self.table.pools {
            supply.ripen(self.now);
        }
        let events = std::mem::take(&mut self.table.events);
        if self.waiting.is_empty() {
            return;
        }
        for address in events {
            self.serve_address(address);
        }
        let spaces: Vec<_> = self.waiting.spaces().cloned().collect();
        for key in spaces {
            let mut last = None;
            while self.table.space(&key).is_some_and(|space| space.is_open(0)) {
                let Some(turn) = self.waiting.next_for(&key, last.as_ref()).cloned() else {
                    break;
                };
                // It may lack something else by now; then it continues to wait for that.
                self.reconsider(&turn.1);
                last = Some(turn);
            }
        }
    }

    /// Calls or wakes a Service whose claim would get a different answer now.
    fn reconsider(&mut self, id: &ServiceId) {
        let Some(service) = self.services.get(id) else {
            return;
        };
        if self.waiting.is_called(id) || service.answer == Answer::Nothing {
            return;
        }
        let claim = service.claim.clone();
        match self.plan(&claim) {
            Ok(plan) if !plan.takes.is_empty() => self.call(id, &plan),
            Ok(plan) => {
                if service.answer != Answer::Granted(plan.markers.clone()) {
                    self.waiting.wake(id);
                } else if !plan.markers.is_empty() {
                    self.waiting.add(claim.turn(), plan.waits);
                }
            }
            Err(refused) => {
                if service.answer == Answer::Denied(refused.denial.reason) {
                    self.waiting.add(claim.turn(), refused.waits);
                } else {
                    self.waiting.wake(id);
                }
            }
        }
    }

    /// Requests a new claim from a Service, and reserves all that it would take: with only one
    /// address reserved, two Services that need two families would alternate forever.
    fn call(&mut self, id: &ServiceId, plan: &Plan) {
        let mut spaces = Vec::new();
        for taken in &plan.takes {
            let family = Family::of(*taken);
            let joins = self.table.slots.contains_key(taken);
            let Some(pool) = self.table.pool_of(*taken).filter(|_| !joins) else {
                continue;
            };
            let supply = &mut self.table.pools[pool];
            supply.spaces[index(family)].reserved += 1;
            spaces.push(supply.key(family));
        }
        self.waiting.call(id, spaces, self.now);
    }

    /// Wakes the Services that wait for this address and could now have it together, and those
    /// that would be denied for another reason.
    fn serve_address(&mut self, address: IpAddr) {
        let slot = self.table.slots.get(&address);
        let key = slot.and_then(|slot| slot.members.first()?.key());
        let mut served: Vec<Arc<Claim>> = Vec::new();
        for (_, id) in self.waiting.for_address(address, key) {
            let Some(service) = self.services.get(&id) else {
                continue;
            };
            let claim = service.claim.clone();
            if self
                .plan(&claim)
                .is_ok_and(|plan| plan.addresses.contains(&address))
            {
                if served
                    .iter()
                    .any(|other| claim.clash(other, true).is_some())
                {
                    continue;
                }
                served.push(claim);
            }
            self.reconsider(&id);
        }
    }

    fn begin_doubt(&mut self, since: Timestamp) {
        let seed = since.as_nanosecond().to_le_bytes();
        let seed = u64::from_le_bytes(std::array::from_fn(|i| seed[i]));
        for supply in &mut self.table.pools {
            let until = end_of_rest(since, supply.pool.reuse_after);
            for space in &mut supply.spaces {
                space.begin_doubt(until, seed);
            }
        }
    }
}

#[cfg(test)]
mod tests;
