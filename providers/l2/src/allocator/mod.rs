//! Which Service has which address: the whole state, and every change to it.
//!
//! [`Allocator::restore`] builds it from what the Services' status publishes, the only
//! record there is; afterwards each event is one call. Every call takes `now`, does
//! no I/O, and costs the logarithm of the number of Services (and a step per pool).
//! After any call [`Allocator::drain_woken`] names the Services whose answer would now
//! be another; nobody else need be asked.
//!
//! # Invariants
//! - An address belongs to one Service, or to several that keep the sharing rule
//!   (see [`crate::claim`]).
//! - A Service keeps its address until it is released or itself asks for something
//!   else; an edit of pools moves it only where a pool says `reallocate`.
//! - A denial changes nothing: the Service keeps what it had, as it was accepted.
//! - A free address is given to a woken Service before others: first to one that asks for
//!   it by name, then to those that take any, oldest first.
//! - Memory grows with what is used and what rests, not with the size of pools.

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

/// See the head of the module.
#[derive(Clone, Debug)]
pub struct Allocator {
    table: AddressTable,
    services: HashMap<ServiceId, Service>,
    waiting: Waiting,
    /// Addresses that others hold, by holder.
    holders: BTreeMap<Holder, BTreeSet<IpAddr>>,
    disputes: Disputes,
    /// The latest time seen.
    now: Timestamp,
}

/// All that must be known before the first decision.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Every pool.
    pub pools: Vec<Pool>,
    /// Every Service that publishes an address, with it in `published`.
    pub claims: Vec<Claim>,
    /// Addresses that the allocator did not assign, by holder.
    pub held: BTreeMap<Holder, BTreeSet<IpAddr>>,
    /// The addresses of all nodes.
    pub skipped: BTreeSet<IpAddr>,
    /// Until when somebody else may have released addresses: the instant of the change
    /// of leaders. For `reuse_after` from then on, free addresses are given from an
    /// arbitrary place on instead of from the lowest. `None`: nobody was there before.
    pub predecessor: Option<Timestamp>,
}

/// A Service that has claimed.
#[derive(Clone, Debug)]
struct Service {
    claim: Arc<Claim>,
    addresses: Vec<IpAddr>,
    /// Published by it, but owned by an older Service.
    lost: Vec<(IpAddr, ServiceId)>,
    /// Published by it when it was met, and not adopted, with the reason.
    rejected: Vec<(IpAddr, String)>,
    answer: Answer,
}

/// What a Service was told last.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    Nothing,
    Granted(Vec<Marker>),
    Denied(Reason),
}

// === impl Allocator ===

impl Allocator {
    /// The only way to make one, so that nothing is decided before everything is known.
    ///
    /// A published address stays with its Service, in a pool or not, if it could have
    /// been assigned; otherwise the Service gets another one and is told by
    /// [`Marker::NotAdopted`]. Where two
    /// Services that may not share publish one address, the older keeps it; both are
    /// told by [`Marker::Duplicate`] until the status of the younger has changed.
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
            allocator.set_held(&holder, addresses, now);
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

    /// Gives a Service what it asks for, or says why not. Idempotent: asked again
    /// without a change in between, the answer is the same. To be called for every
    /// new Service and whenever one of its claim's parts changes.
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

    /// Forgets a Service; its addresses begin to rest. Returns them.
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

    /// Lets time pass: rests end, unanswered calls lapse. Every other call does it too.
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

    /// When [`advance`](Self::advance) is to be called at the latest if nothing else
    /// happens, so that who waits is woken in time; `None`: never.
    pub fn wake_at(&self) -> Option<Timestamp> {
        let rests = self.waiting.spaces().filter_map(|(name, family)| {
            let supply = &self.table.pools[self.table.find(name)?];
            supply.space(*family).first_ripe(supply.pool.reuse_after)
        });
        rests.chain(self.waiting.first_lapse()).min()
    }

    /// The Services to be asked again since the last call, in the order in which they
    /// are to be served. Until it claims, what was freed is reserved for each.
    #[must_use]
    pub fn drain_woken(&mut self) -> Vec<ServiceId> {
        self.waiting.drain()
    }

    /// Whether a Service has claimed, or was met at the start.
    pub fn knows(&self, id: &ServiceId) -> bool {
        self.services.contains_key(id)
    }

    /// The addresses a Service has, in the order of its families.
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

    /// The Service has claimed or is gone: what was reserved for it is free for others.
    fn unreserve(&mut self, id: &ServiceId) {
        for space in self.waiting.answered(id) {
            if let Some(space) = self.table.space_mut(&space) {
                space.reserved = space.reserved.saturating_sub(1);
            }
        }
    }

    /// Ends the rests that are over, then calls who waits for what is free.
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
                // It may lack something else by now; then it goes on to wait for that.
                self.reconsider(&turn.1);
                last = Some(turn);
            }
        }
    }

    /// Calls or wakes a Service whose claim would be answered differently now.
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

    /// Has a Service asked again, and reserves all that it would take: with half of it
    /// reserved, two that need two families would take turns for ever.
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

    /// Wakes those who wait for this address and could have it now, together, and
    /// those who are denied for another reason now.
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
