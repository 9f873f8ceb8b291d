//! What is known of each Service's objects. No I/O.
//!
//! ```text
//!             restore                 read                       a call without an answer
//!  (nothing) ────────▶ Names ────────────────▶ Full ────────────────────────▶ Doubtful
//!                        │                      ▲  ▲ effect of a call             │
//!                        │ finished: no call    │  └──┘                            │ read
//!                        └──────────────────    └──────────────────────────────────┘
//! ```
//!
//! After `restore` an absent record means that the Service has nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ballast_provider::mark::service_of;
use ballast_provider::{Key, Owned, ServiceId};
use tokio::time::Instant;

use super::ensure::REMAKE;
use super::health::Watch;
use crate::call::Call;
use crate::desired::Source;
use crate::nodes::{Nodes, Selector};
use crate::observed::{LoadBalancerState, Observed, ObservedTargetGroup};
use crate::rate::Ticket;

/// The least time between two such requests for one Service: the controller may wait between its turns.
const ASK: Duration = Duration::from_secs(30);

/// How much is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Depth {
    /// Names, tags and states of all objects.
    Names,
    /// Everything.
    Full,
    /// Nobody knows whether a call had an effect.
    Doubtful,
}

/// One Service's objects.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) depth: Depth,
    pub(super) observed: Observed,
    /// The Service; `None` if no tag names it in full.
    pub(super) id: Option<ServiceId>,
    /// The targets of all target groups are known, although the rest may not be.
    pub(super) targets_known: bool,
    /// It was kept on purpose, and belongs to nobody.
    pub(super) retained: bool,
    /// What may exist beside what is known.
    pub(super) tried: Tried,
    /// When what nothing uses may be deleted again, and how long to wait after that.
    pub(super) cleanup: Option<(Instant, Duration)>,
    /// When a load balancer that AWS could not make was deleted last.
    pub(super) remade: Option<Instant>,
    /// When the controller was last asked for a turn that only time gives a reason for.
    pub(super) asked: Option<Instant>,
    /// The health of its targets.
    pub(super) health: Watch,
    /// The place of the call that waits for AWS's limits.
    pub(super) place: Option<Ticket>,
}

/// Names of objects whose creation had no answer, or failed because the name is taken. The next read
/// looks for them, too: nothing else names them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tried {
    pub(super) target_groups: BTreeSet<String>,
    pub(super) security_groups: BTreeSet<String>,
}

/// All records by the UID of the Service.
#[derive(Default)]
pub(super) struct Records {
    all: Mutex<BTreeMap<Arc<str>, Cell>>,
}

pub(super) type Cell = Arc<tokio::sync::Mutex<Record>>;

// === impl Record ===

impl Record {
    /// Nothing exists.
    pub(super) fn empty() -> Self {
        Self {
            depth: Depth::Full,
            observed: Observed::default(),
            id: None,
            targets_known: true,
            retained: false,
            tried: Tried::default(),
            cleanup: None,
            remade: None,
            asked: None,
            health: Watch::default(),
            place: None,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.observed == Observed::default() && self.depth != Depth::Doubtful
    }

    /// When the Service needs a turn although nothing changes: its objects must be read again, something
    /// that was in use may be free, or a load balancer that AWS could not make is made again. `None`:
    /// it does not.
    pub(super) fn turn_at(&self, now: Instant) -> Option<Instant> {
        if self.retained {
            return None;
        }
        let doubtful = (self.depth == Depth::Doubtful).then_some(now);
        let cleanup = self.cleanup.map(|(due, _)| due);
        let mut all = self.observed.load_balancers.values();
        let failed = all.any(|one| one.state == LoadBalancerState::Failed);
        let remake = failed.then(|| self.remade.map_or(now, |at| at + REMAKE));
        let first = [doubtful, cleanup, remake].into_iter().flatten().min()?;
        Some(self.asked.map_or(first, |asked| first.max(asked + ASK)))
    }

    /// What its target groups say of their nodes.
    pub(super) fn selectors(&self) -> impl Iterator<Item = Selector> {
        let groups = self.observed.target_groups.values();
        groups
            .filter(|_| !self.retained)
            .map(|group| Selector::of(&group.tags))
    }

    /// The prefix lists in the rules of its security groups.
    pub(super) fn prefix_lists(&self) -> BTreeSet<String> {
        let rules = self.observed.groups.values().flat_map(|group| &group.rules);
        let lists = rules.filter_map(|rule| match &rule.source {
            Source::PrefixList(id) => Some(id.clone()),
            Source::Range(_) | Source::Group(_) => None,
        });
        lists.collect()
    }

    /// Whether all its target groups are known to have their targets.
    pub(super) fn has_targets(&self, nodes: &Nodes) -> bool {
        let mut groups = self.observed.target_groups.values();
        let has = |group: &ObservedTargetGroup| {
            group.targets == nodes.selected(&Selector::of(&group.tags))
        };
        self.retained || (self.targets_known && groups.all(has))
    }

    /// A creation of which nobody knows what it has made.
    pub(super) fn tried(&mut self, call: &Call) {
        match call {
            Call::CreateTargetGroup { target_group, .. } => {
                self.tried.target_groups.insert(target_group.name.clone());
            }
            Call::CreateSecurityGroup { name, .. } => {
                self.tried.security_groups.insert(name.clone());
            }
            // The names of load balancers follow from the Service.
            _ => {}
        }
    }

    /// A call may have had an effect.
    pub(super) fn doubt(&mut self) {
        self.depth = Depth::Doubtful;
    }
}

// === impl Records ===

impl Records {
    fn all(&self) -> std::sync::MutexGuard<'_, BTreeMap<Arc<str>, Cell>> {
        // Each change is one insertion or removal.
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The record of a Service, made if it is not there.
    pub(super) fn of(&self, uid: &Arc<str>) -> Cell {
        let mut all = self.all();
        let made = || Arc::new(tokio::sync::Mutex::new(Record::empty()));
        Arc::clone(all.entry(Arc::clone(uid)).or_insert_with(made))
    }

    /// All of them at this moment.
    pub(super) fn cells(&self) -> Vec<(Arc<str>, Cell)> {
        let all = self.all();
        all.iter()
            .map(|(uid, cell)| (Arc::clone(uid), Arc::clone(cell)))
            .collect()
    }

    /// Forgets a Service that has nothing.
    pub(super) fn forget(&self, uid: &str) {
        self.all().remove(uid);
    }

    pub(super) fn replace(&self, records: BTreeMap<Arc<str>, Record>) {
        let cells = records
            .into_iter()
            .map(|(uid, record)| (uid, Arc::new(tokio::sync::Mutex::new(record))));
        *self.all() = cells.collect();
    }

    /// What the inventory reports: every object of every Service, with its tags.
    pub(super) async fn owned(&self) -> Vec<Owned> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_asked_for_where_only_time_passes_and_not_too_often() {
        let now = Instant::now();
        let mut record = Record::empty();
        assert_eq!(record.turn_at(now), None);
        let due = now + Duration::from_secs(15);
        record.cleanup = Some((due, Duration::from_secs(15)));
        assert_eq!(record.turn_at(now), Some(due));
        record.doubt();
        assert_eq!(record.turn_at(now), Some(now));
        record.asked = Some(now);
        assert_eq!(record.turn_at(now), Some(now + ASK));
        record.retained = true;
        assert_eq!(record.turn_at(now), None);
    }
}
