//! The records of all load balancers of a class, and since when lists show everything that a former process made.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ballast_provider::{Key, Kind, Owned, ServiceId};
use tokio::time::Instant;

use super::{Extent, Record, members};
use crate::observed::Observed;

/// So long after the start lists show everything that the former process made. In AWS it takes seconds.
pub(in crate::provider) const LAG: Duration = Duration::from_mins(1);

/// All records by the key of the load balancer.
#[derive(Default)]
pub(in crate::provider) struct Records {
    all: Mutex<BTreeMap<Key, Cell>>,
    /// When the lists of the start were complete.
    restored: Mutex<Option<Instant>>,
    /// Everything was listed since, late enough to show all that the former process made.
    listed: AtomicBool,
    /// The names of objects that look like ours and have no owner, in the last list.
    strangers: Mutex<BTreeSet<String>>,
    /// The load balancer that was read in full last.
    read: Mutex<Option<Key>>,
}

pub(in crate::provider) type Cell = Arc<tokio::sync::Mutex<Record>>;

// === impl Records ===

impl Records {
    fn all(&self) -> std::sync::MutexGuard<'_, BTreeMap<Key, Cell>> {
        // Each change is one insertion or removal.
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The record of a load balancer, made if it is not there.
    pub(in crate::provider) fn of(&self, key: &Key) -> Cell {
        let mut all = self.all();
        let made = || {
            let mut record = Record::empty(key.clone());
            if self.are_listed() {
                record.extent = Extent::All;
            }
            Arc::new(tokio::sync::Mutex::new(record))
        };
        Arc::clone(all.entry(key.clone()).or_insert_with(made))
    }

    /// A record of something that nobody knew of. One that came meanwhile stays.
    pub(in crate::provider) fn add(&self, record: Record) {
        let key = record.key.clone();
        let made = || Arc::new(tokio::sync::Mutex::new(record));
        self.all().entry(key).or_insert_with(made);
    }

    /// The record of a load balancer, if there is one.
    pub(in crate::provider) fn get(&self, key: &Key) -> Option<Cell> {
        self.all().get(key).map(Arc::clone)
    }

    /// All of them at this moment.
    pub(in crate::provider) fn cells(&self) -> Vec<(Key, Cell)> {
        let all = self.all();
        all.iter()
            .map(|(key, cell)| (key.clone(), Arc::clone(cell)))
            .collect()
    }

    /// Forgets a load balancer of which nothing is left.
    pub(in crate::provider) fn forget(&self, key: &Key) {
        self.all().remove(key);
    }

    fn strangers(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        // Each change is one assignment.
        (self.strangers.lock()).unwrap_or_else(PoisonError::into_inner)
    }

    /// The last list shows these objects, whose names look like ours and which have no owner.
    pub(in crate::provider) fn meet(&self, strangers: BTreeSet<String>) {
        *self.strangers() = strangers;
    }

    /// Whether AWS may return somebody else's object if one of this name is made. Whoever asks reads it first.
    pub(in crate::provider) fn is_stranger(&self, name: &str) -> bool {
        self.strangers().contains(name)
    }

    /// A read has shown that nobody else has this name.
    pub(in crate::provider) fn is_free(&self, name: &str) {
        self.strangers().remove(name);
    }

    /// Forgets a load balancer that nobody else works on, or is about to.
    pub(in crate::provider) fn forget_unused(&self, key: &Key, cell: &Cell) {
        let mut all = self.all();
        let same = all.get(key).is_some_and(|it| Arc::ptr_eq(it, cell));
        // This map and the caller. Whoever comes now makes another one.
        if same && Arc::strong_count(cell) == 2 {
            all.remove(key);
        }
    }

    /// The load balancer to read in full after the last one, round and round.
    pub(in crate::provider) fn next_to_read(&self) -> Option<Cell> {
        // Each change is one assignment.
        let mut last = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let all = self.all();
        let after = |(key, _): &(&Key, _)| last.as_ref().is_none_or(|last| *key > last);
        let next = all.iter().find(after).or_else(|| all.iter().next());
        let (key, cell) = next?;
        *last = Some(key.clone());
        Some(Arc::clone(cell))
    }

    pub(in crate::provider) fn replace(&self, records: BTreeMap<Key, Record>) {
        let cells = records
            .into_iter()
            .map(|(key, record)| (key, Arc::new(tokio::sync::Mutex::new(record))));
        *self.all() = cells.collect();
        self.listed.store(false, Ordering::Relaxed);
        *self.restored_at() = Some(Instant::now());
    }

    fn restored_at(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        // Each change is one assignment.
        self.restored.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything was listed, from then on. Whether the list shows all that the former process made.
    pub(in crate::provider) fn listed(&self, begun: Instant) -> bool {
        let late = self.restored_at().is_some_and(|at| at + LAG <= begun);
        self.listed.fetch_or(late, Ordering::Relaxed);
        late
    }

    /// Whether a load balancer without a record does not exist.
    pub(in crate::provider) fn are_listed(&self) -> bool {
        self.listed.load(Ordering::Relaxed)
    }

    /// What the inventory reports: every object of every load balancer, with its tags.
    pub(in crate::provider) async fn owned(&self) -> Vec<Owned> {
        let mut owned = Vec::new();
        for (key, cell) in self.cells() {
            let record = cell.lock().await;
            let Observed {
                groups,
                load_balancers,
                target_groups,
            } = &record.observed;
            // Those of the load balancer name only one of several Services.
            let members: Vec<ServiceId> = members(&record.observed).into_iter().collect();
            let balancers = load_balancers.iter();
            let balancers = balancers.map(|(name, one)| {
                Owned::new(Kind::LoadBalancer, &one.arn, name, one.tags.clone())
            });
            let security = groups.iter();
            let security = security.map(|(name, one)| {
                Owned::new(Kind::SecurityGroup, &one.id, name, one.tags.clone())
            });
            let common = balancers.chain(security).map(|one| Owned {
                services: members.clone(),
                ..one
            });
            let targets = target_groups.iter();
            let targets = targets
                .map(|(name, one)| Owned::new(Kind::TargetGroup, &one.arn, name, one.tags.clone()));
            owned.extend(common.chain(targets).map(|one| Owned {
                key: Some(key.clone()),
                ..one
            }));
        }
        owned
    }
}
