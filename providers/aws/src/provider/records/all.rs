//! The records of all Services of a class, and since when lists show everything that a former process made.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ballast_provider::mark::service_of;
use ballast_provider::{Key, Owned};
use tokio::time::Instant;

use super::{Extent, Record};
use crate::observed::Observed;

/// So long after the start lists show everything that the former process made. In AWS it takes seconds.
pub(in crate::provider) const LAG: Duration = Duration::from_mins(1);

/// All records by the UID of the Service.
#[derive(Default)]
pub(in crate::provider) struct Records {
    all: Mutex<BTreeMap<Arc<str>, Cell>>,
    /// When the lists of the start were complete.
    restored: Mutex<Option<Instant>>,
    /// Everything was listed since, late enough to show all that the former process made.
    listed: AtomicBool,
    /// The names of objects that look like ours and have no owner, in the last list.
    strangers: Mutex<BTreeSet<String>>,
    /// The UID of the Service that was read in full last.
    read: Mutex<Option<Arc<str>>>,
}

pub(in crate::provider) type Cell = Arc<tokio::sync::Mutex<Record>>;

// === impl Records ===

impl Records {
    fn all(&self) -> std::sync::MutexGuard<'_, BTreeMap<Arc<str>, Cell>> {
        // Each change is one insertion or removal.
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The record of a Service, made if it is not there.
    pub(in crate::provider) fn of(&self, uid: &Arc<str>) -> Cell {
        let mut all = self.all();
        let made = || {
            let mut record = Record::empty();
            if self.are_listed() {
                record.extent = Extent::All;
            }
            Arc::new(tokio::sync::Mutex::new(record))
        };
        Arc::clone(all.entry(Arc::clone(uid)).or_insert_with(made))
    }

    /// A record of something that nobody knew of. One that came meanwhile stays.
    pub(in crate::provider) fn add(&self, uid: &Arc<str>, record: Record) {
        let made = || Arc::new(tokio::sync::Mutex::new(record));
        self.all().entry(Arc::clone(uid)).or_insert_with(made);
    }

    /// The record of a Service, if there is one.
    pub(in crate::provider) fn get(&self, uid: &str) -> Option<Cell> {
        self.all().get(uid).map(Arc::clone)
    }

    /// All of them at this moment.
    pub(in crate::provider) fn cells(&self) -> Vec<(Arc<str>, Cell)> {
        let all = self.all();
        all.iter()
            .map(|(uid, cell)| (Arc::clone(uid), Arc::clone(cell)))
            .collect()
    }

    /// Forgets a Service that has nothing.
    pub(in crate::provider) fn forget(&self, uid: &str) {
        self.all().remove(uid);
    }

    fn strangers(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        // Each change is one assignment.
        (self.strangers.lock()).unwrap_or_else(PoisonError::into_inner)
    }

    /// The last list shows these objects, whose names look like ours and which have no owner.
    pub(in crate::provider) fn meet(&self, strangers: BTreeSet<String>) {
        *self.strangers() = strangers;
    }

    /// Whether AWS may return somebody else's object if one of this name is made. Whoever asks reads it, so
    /// nobody else needs to.
    pub(in crate::provider) fn is_stranger(&self, name: &str) -> bool {
        self.strangers().remove(name)
    }

    /// Forgets a Service that nobody else works on, or is about to.
    pub(in crate::provider) fn forget_unused(&self, uid: &str, cell: &Cell) {
        let mut all = self.all();
        let same = all.get(uid).is_some_and(|it| Arc::ptr_eq(it, cell));
        // This map and the caller. Whoever comes now makes another one.
        if same && Arc::strong_count(cell) == 2 {
            all.remove(uid);
        }
    }

    /// The Service to read in full after the last one, round and round.
    pub(in crate::provider) fn next_to_read(&self) -> Option<(Arc<str>, Cell)> {
        // Each change is one assignment.
        let mut last = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let all = self.all();
        let after = |(uid, _): &(&Arc<str>, _)| last.as_ref().is_none_or(|last| *uid > last);
        let next = all.iter().find(after).or_else(|| all.iter().next());
        let (uid, cell) = next?;
        *last = Some(Arc::clone(uid));
        Some((Arc::clone(uid), Arc::clone(cell)))
    }

    pub(in crate::provider) fn replace(&self, records: BTreeMap<Arc<str>, Record>) {
        let cells = records
            .into_iter()
            .map(|(uid, record)| (uid, Arc::new(tokio::sync::Mutex::new(record))));
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

    /// Whether a Service without a record has nothing.
    pub(in crate::provider) fn are_listed(&self) -> bool {
        self.listed.load(Ordering::Relaxed)
    }

    /// What the inventory reports: every object of every Service, with its tags.
    pub(in crate::provider) async fn owned(&self) -> Vec<Owned> {
        let mut owned = Vec::new();
        for (uid, cell) in self.cells() {
            let record = cell.lock().await;
            let Observed {
                groups,
                load_balancers,
                target_groups,
            } = &record.observed;
            let balancers = load_balancers.iter().map(|(name, one)| (name, &one.tags));
            let targets = target_groups.iter().map(|(name, one)| (name, &one.tags));
            let security = groups.iter().map(|(name, one)| (name, &one.tags));
            let all = balancers.chain(targets).chain(security);
            owned.extend(all.map(|(name, tags)| Owned {
                key: Some(Key::Service(Arc::clone(&uid))),
                services: service_of(tags).into_iter().collect(),
                name: name.clone(),
                tags: tags.clone(),
            }));
        }
        owned
    }
}
