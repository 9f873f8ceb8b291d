//! The process's single [`Allocator`]. All of its `l2` classes share it, because they share
//! pools.
//!
//! Owns the lock and the wake-up; makes no choices. It is closed until [`Addresses::open`], so
//! no address is assigned before all Services and pools are known. [`Addresses::woken`] returns
//! the Services that may try again, each once, to one task of the controller.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ballast_provider::ServiceId;
use jiff::Timestamp;
use tokio::sync::Notify;

use crate::allocator::{Allocator, PoolReport, Resting, Snapshot};
use crate::claim::Claim;
use crate::holder::Holder;
use crate::pool::Pool;
use crate::verdict::{Denial, Grant};

/// The allocator behind a lock; see the module documentation.
#[derive(Debug, Default)]
pub struct Addresses {
    state: Mutex<Option<State>>,
    news: Notify,
}

#[derive(Debug)]
struct State {
    allocator: Allocator,
    /// The class of each Service that has claimed.
    classes: HashMap<ServiceId, String>,
    woken: Vec<ServiceId>,
}

// === impl Addresses ===

impl Addresses {
    /// Starts from the addresses in the status of Services; `classes` is the class of each
    /// Service.
    pub fn open(&self, snapshot: Snapshot, classes: HashMap<ServiceId, String>, now: Timestamp) {
        *self.lock() = Some(State {
            allocator: Allocator::restore(snapshot, now),
            classes,
            woken: Vec::new(),
        });
    }

    /// Whether everything is known, so that addresses may be assigned.
    pub fn is_open(&self) -> bool {
        self.lock().is_some()
    }

    /// Whether a Service has claimed, or was in the snapshot at the start.
    pub fn knows(&self, id: &ServiceId) -> bool {
        self.with(|state| state.allocator.knows(id))
            .unwrap_or_default()
    }

    /// See [`Allocator::allocate`]; `None` before [`Addresses::open`].
    pub fn allocate(
        &self,
        class: &str,
        claim: Claim,
        now: Timestamp,
    ) -> Option<Result<Grant, Denial>> {
        self.with(|state| {
            if state
                .classes
                .get(&claim.id)
                .is_none_or(|known| known != class)
            {
                state.classes.insert(claim.id.clone(), class.to_owned());
            }
            state.allocator.allocate(claim, now)
        })
    }

    /// See [`Allocator::release`]. Does nothing if the Service has its addresses from another
    /// class: one allocator serves all classes, and anybody who may edit a Service can add a
    /// finalizer of any class.
    pub fn release(&self, class: &str, id: &ServiceId, now: Timestamp) {
        self.with(|state| {
            if state.classes.get(id).is_some_and(|known| known != class) {
                return;
            }
            state.classes.remove(id);
            state.allocator.release(id, now);
        });
    }

    /// See [`Allocator::set_pools`].
    pub fn set_pools(&self, pools: Vec<Pool>, now: Timestamp) {
        self.with(|state| state.allocator.set_pools(pools, now));
    }

    /// See [`Allocator::set_skipped`].
    pub fn set_skipped(&self, addresses: &BTreeSet<IpAddr>, now: Timestamp) {
        self.with(|state| state.allocator.set_skipped(addresses, now));
    }

    /// See [`Allocator::set_held`].
    pub fn set_held(&self, by: &Holder, addresses: &BTreeSet<IpAddr>, now: Timestamp) {
        self.with(|state| state.allocator.set_held(by, addresses, now));
    }

    /// Advances the time; returns when to call it again at the latest.
    pub fn advance(&self, now: Timestamp) -> Option<Timestamp> {
        self.with(|state| {
            state.allocator.advance(now);
            state.allocator.wake_at()
        })
        .flatten()
    }

    /// Waits until Services may try again, and returns them, each once. Cancel safe: it takes
    /// the Services and returns them in one step.
    pub async fn woken(&self) -> Vec<ServiceId> {
        loop {
            let news = self.news.notified();
            let woken = self.with(|state| std::mem::take(&mut state.woken));
            match woken {
                Some(woken) if !woken.is_empty() => return woken,
                _ => news.await,
            }
        }
    }

    /// The Services that have claimed through a class.
    pub fn of_class(&self, class: &str) -> Vec<ServiceId> {
        let of_class = |state: &mut State| {
            let all = state.classes.iter();
            all.filter(|(_, of)| *of == class)
                .map(|(id, _)| id.clone())
                .collect()
        };
        self.with(of_class).unwrap_or_default()
    }

    /// The state of all pools, with the first `limit` resting addresses of each.
    pub fn pools(&self, limit: usize) -> Vec<(PoolReport, Vec<Resting>)> {
        let pools = |state: &mut State| {
            let pools = state.allocator.pools().into_iter();
            pools
                .map(|pool| {
                    let mut resting = Vec::new();
                    if limit > 0 {
                        resting = state.allocator.resting(&pool.name);
                        resting.sort_by_key(|rest| (rest.until, rest.address));
                        resting.truncate(limit);
                    }
                    (pool, resting)
                })
                .collect()
        };
        self.with(pools).unwrap_or_default()
    }

    fn with<R>(&self, work: impl FnOnce(&mut State) -> R) -> Option<R> {
        let mut guard = self.lock();
        let state = guard.as_mut()?;
        let result = work(state);
        state.woken.extend(state.allocator.drain_woken());
        if !state.woken.is_empty() {
            self.news.notify_one();
        }
        Some(result)
    }

    // The allocator does not panic half-way, and a poisoned lock would stop every class.
    fn lock(&self) -> MutexGuard<'_, Option<State>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Edges, range};

    /// Anybody who may edit a Service can add the finalizer of another class, and that class
    /// then releases the Service.
    #[test]
    fn only_the_class_that_assigned_an_address_frees_it() {
        let now = Timestamp::UNIX_EPOCH;
        let id = ServiceId {
            namespace: "shop".into(),
            name: "web".into(),
            uid: "uid-web".into(),
        };
        let pool = Pool {
            entries: range::parse(&["192.0.2.1"]).unwrap(),
            edges: Edges::Use,
            ..Pool::new("lan", now)
        };
        let snapshot = Snapshot {
            pools: vec![pool],
            ..Snapshot::default()
        };
        let addresses = Addresses::default();
        addresses.open(snapshot, HashMap::new(), now);
        let claim = Claim::new(id.clone(), now);
        let assigned = addresses.allocate("metal", claim, now).unwrap().unwrap();
        assert_eq!(assigned.addresses, ["192.0.2.1".parse::<IpAddr>().unwrap()]);
        let used = || addresses.pools(0)[0].0.v4.assigned;
        addresses.release("other", &id, now);
        assert_eq!((used(), addresses.of_class("metal")), (1, vec![id.clone()]));
        addresses.release("metal", &id, now);
        assert_eq!((used(), addresses.of_class("metal")), (0, vec![]));
    }
}
