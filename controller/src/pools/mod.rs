//! Address pools, between the API and the allocator of [`ballast_l2`].
//!
//! Owns the settings of an `AddressPool` ([`PoolView`]), its status ([`mod@report`]), the rest
//! of the controller's access to the allocator ([`AddressBook`]), and the leader's task
//! ([`PoolKeeper`]). The task has two loops. One passes changes of pools, nodes and time to the
//! allocator and queues the Services that may try again. The other writes the status of pools
//! that changed, at most once per [`PACE`] and pool.
//!
//! Both loops run inside [`PoolKeeper::run`], which spawns no task, so dropping its future
//! stops them. That loses no wake-up: the allocator keeps a woken Service until the first loop
//! takes and queues it, in one step. A status write may still land.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ballast_crds::{AddressPool, AddressPoolStatus, Edges};
use ballast_l2::allocator::{PoolReport, Resting};
use ballast_l2::{Entry, Labels, Pool};
use jiff::Timestamp;
use kube::core::DeserializeGuard;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tracing::warn;

use crate::cluster::conditions::{contest_of, plausible, undated};
use crate::cluster::contest::Contest;
use crate::cluster::meta::{created, version};
use crate::cluster::metrics::ContestMetrics;
use crate::cluster::store::Store;
use crate::cluster::view::Name;
use crate::cluster::writer::{self, ECHO, Writer};
use crate::process::queue::Queue;

mod book;
mod metrics;
mod report;
pub mod selectors;
mod settings;
#[cfg(test)]
mod tests;

pub use book::{AddressBook, Start, placed_by};
pub use report::report;
pub use settings::{filter, validate_l2};

/// The minimum time between two status writes of one pool.
const PACE: Duration = Duration::from_secs(5);
/// The time between two checks for statuses to write. If checks were as far apart as writes,
/// the check after a write would come slightly too early, and statuses would be twice as old.
const LOOK: Duration = Duration::from_secs(1);
/// The maximum number of resting addresses in a status.
const RESTING: usize = 16;

/// What the controller keeps of an `AddressPool`.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolView {
    /// `metadata.name`
    pub name: String,
    /// `metadata.resourceVersion`
    pub version: u64,
    /// The settings, or why they are invalid.
    pub pool: Result<Pool, String>,
    /// The status as published.
    pub status: AddressPoolStatus,
}

/// All pools, from the watch, and a signal for each change.
#[derive(Debug)]
pub struct Pools {
    /// The views by name.
    pub store: Store<String, PoolView>,
    changes: watch::Sender<()>,
}

/// The leader's task for pools; see the module documentation.
pub struct PoolKeeper {
    /// The allocator.
    pub book: AddressBook,
    /// The pools, from the watch.
    pub pools: Arc<Pools>,
    /// The addresses of all nodes.
    pub nodes: watch::Receiver<BTreeSet<IpAddr>>,
    /// The queue for Services that may try again.
    pub queue: Queue<Name>,
    /// Writes the statuses.
    pub writer: Writer,
    /// Counts pools that somebody else keeps changing.
    pub contests: ContestMetrics,
}

/// The last status of a pool that was written.
struct Written {
    at: Instant,
    /// The pool's version after the write.
    version: u64,
    status: AddressPoolStatus,
}

/// What the task remembers, by pool.
#[derive(Default)]
struct Memory {
    written: BTreeMap<String, Written>,
    contests: BTreeMap<String, Contest>,
}

// === impl Memory ===

impl Memory {
    fn contest(&mut self, view: &PoolView) -> &mut Contest {
        let contest = self.contests.entry(view.name.clone());
        contest.or_insert_with(|| contest_of(&view.status.conditions, Instant::now()))
    }
}

// === impl PoolView ===

impl PoolView {
    /// Parses a pool; an invalid pool becomes a view with an error.
    pub fn of(guard: &DeserializeGuard<AddressPool>) -> Self {
        let (meta, object) = match &guard.0 {
            Ok(object) => (&object.metadata, Ok(object)),
            Err(invalid) => (&invalid.metadata, Err(invalid.error.clone())),
        };
        Self {
            name: meta.name.clone().unwrap_or_default(),
            version: version(meta),
            pool: match &object {
                Ok(object) => pool(object),
                Err(error) => Err(format!("the pool cannot be read: {error}")),
            },
            status: object
                .ok()
                .and_then(|object| object.status.clone())
                .unwrap_or_default(),
        }
    }
}

/// The settings of a pool.
fn pool(object: &AddressPool) -> Result<Pool, String> {
    let (meta, spec) = (&object.metadata, &object.spec);
    let entries = spec.addresses.iter().map(|entry| entry.0.parse::<Entry>());
    let selector = |field: &str, selector: &Option<_>| {
        let parsed = selector.as_ref().map(selectors::parse).transpose();
        parsed.map_err(|error| format!("spec.{field}: {error}"))
    };
    let labels = meta.labels.as_ref();
    Ok(Pool {
        labels: labels.map(Labels::from).unwrap_or_default(),
        entries: entries
            .collect::<Result<_, _>>()
            .map_err(|error| format!("spec.addresses: {error}"))?,
        edges: match spec.edges {
            Edges::Skip => ballast_l2::Edges::Skip,
            Edges::SkipOctets => ballast_l2::Edges::SkipOctets,
            Edges::Use => ballast_l2::Edges::Use,
        },
        auto_assign: spec.auto_assign,
        priority: u32::try_from(spec.priority).ok(),
        namespace_selector: selector("namespaceSelector", &spec.namespace_selector)?,
        service_selector: selector("serviceSelector", &spec.service_selector)?,
        reuse_after: spec.reuse_after.into(),
        share_across_namespaces: spec.share_across_namespaces,
        reallocate: spec.reallocate,
        ..Pool::new(meta.name.clone().unwrap_or_default(), created(meta))
    })
}

// === impl Pools ===

impl Default for Pools {
    fn default() -> Self {
        Self {
            store: Store::default(),
            changes: watch::Sender::new(()),
        }
    }
}

impl Pools {
    /// Announces a change. Call it after the store has changed.
    pub fn changed(&self) {
        self.changes.send_replace(());
    }

    /// The valid pools. While any pool is invalid, no Service is moved: an address that is in
    /// no other pool may belong to the invalid one.
    pub fn readable(&self) -> Vec<Pool> {
        let views = self.store.all();
        let all_known = views.iter().all(|view| view.pool.is_ok());
        let known = views.iter().filter_map(|view| view.pool.clone().ok());
        let mut pools: Vec<Pool> = known
            .map(|pool| Pool {
                reallocate: pool.reallocate && all_known,
                ..pool
            })
            .collect();
        pools.sort_by(|a, b| a.name.cmp(&b.name));
        pools
    }
}

// === impl PoolKeeper ===

impl PoolKeeper {
    /// Runs until the watches end. Writes have a loop of their own, so that a slow API server
    /// does not delay the assignment of addresses.
    pub async fn run(self) {
        let told = Notify::new();
        tokio::select! {
            () = self.tell(&told) => {}
            () = self.report(&told) => {}
        }
    }

    /// Passes pools, nodes and time to the allocator, queues the Services that it wakes, and
    /// signals `told` after each change of pools.
    async fn tell(&self, told: &Notify) {
        let mut pools = self.pools.changes.subscribe();
        let mut nodes = self.nodes.clone();
        let mut known = Vec::new();
        pools.mark_changed();
        loop {
            let alarm = self.alarm();
            tokio::select! {
                woken = self.book.allocator().woken() => {
                    for id in &woken {
                        self.queue.add(Name::from(id));
                    }
                }
                changed = pools.changed() => {
                    if changed.is_err() { return }
                    let now = self.pools.readable();
                    if now != known {
                        self.book.allocator().set_pools(now.clone(), Timestamp::now());
                        known = now;
                    }
                    told.notify_one();
                }
                changed = nodes.changed() => {
                    if changed.is_err() { return }
                    let nodes = nodes.borrow_and_update().clone();
                    self.book.allocator().set_skipped(&nodes, Timestamp::now());
                }
                () = alarm => {}
            }
        }
    }

    /// Writes the status of pools: after each signal, and every [`LOOK`].
    async fn report(&self, told: &Notify) {
        let mut memory = Memory::default();
        let mut pace = tokio::time::interval(LOOK);
        pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = told.notified() => {}
                _ = pace.tick() => {}
            }
            self.write_statuses(&mut memory).await;
        }
    }

    /// Completes when the rest of an address ends that a Service waits for.
    fn alarm(&self) -> impl Future<Output = ()> + use<> {
        let now = Timestamp::now();
        let next = self.book.allocator().advance(now);
        async move {
            match next {
                Some(at) => {
                    let wait = Duration::try_from(at.duration_since(now)).unwrap_or_default();
                    // A minimum wait: with a clock that stands still, this loop would spin.
                    tokio::time::sleep(wait.max(Duration::from_millis(10))).await;
                }
                None => std::future::pending().await,
            }
        }
    }

    async fn write_statuses(&self, memory: &mut Memory) {
        let reports: HashMap<String, _> = self
            .book
            .allocator()
            .pools(RESTING)
            .into_iter()
            .map(|(pool, resting)| (pool.name.clone(), (pool, resting)))
            .collect();
        let views = self.pools.store.all();
        for view in &views {
            let Some(status) = next_status(view, reports.get(&view.name), memory) else {
                continue;
            };
            match self.writer.patch_pool_status(&view.name, &status).await {
                Ok(answer) => {
                    let version = match answer {
                        writer::Written::Version(version) => version,
                        writer::Written::Gone => view.version,
                    };
                    let now = Written {
                        at: Instant::now(),
                        version,
                        status,
                    };
                    memory.written.insert(view.name.clone(), now);
                }
                Err(error) => warn!(pool = view.name, %error, "status of the pool not written"),
            }
        }
        let exists = |name: &String| views.iter().any(|view| view.name == *name);
        memory.written.retain(|name, _| exists(name));
        memory.contests.retain(|name, _| exists(name));
        let now = Instant::now();
        let contests = memory.contests.values();
        let contested = contests.filter_map(|contest| contest.ends(now)).count();
        self.contests.set("pool", contested);
    }
}

/// The status of a pool that is to be written now, if any. If somebody has overwritten the last
/// one, this counts as a restoration.
fn next_status(
    view: &PoolView,
    reported: Option<&(PoolReport, Vec<Resting>)>,
    memory: &mut Memory,
) -> Option<AddressPoolStatus> {
    let (start, now) = (Instant::now(), Timestamp::now());
    let is_contested = memory.contest(view).ends(start).is_some();
    let last = memory.written.get(&view.name);
    let before = match last {
        Some(last) => last.status.conditions.clone(),
        None => plausible(&view.status.conditions, now),
    };
    let full = |is_contested| report(view, reported, is_contested, &before, now);
    let status = full(is_contested);
    let suffices = last.is_some_and(|last| last.suffices(view, &status));
    let restores = last.is_some_and(|last| last.is_repeated(&status));
    let contest = memory.contest(view);
    if status == view.status {
        contest.look(false, start);
        return None;
    }
    if suffices || (restores && !may_restore(contest, view)) {
        return None;
    }
    Some(full(contest.ends(start).is_some()))
}

/// Whether a status that somebody has overwritten may be written again now.
fn may_restore(contest: &mut Contest, view: &PoolView) -> bool {
    let restored = contest.restore(Instant::now());
    if restored == Ok(true) {
        warn!(
            pool = view.name,
            "somebody else keeps changing the status of the pool; it is restored less often"
        );
    }
    restored.is_ok()
}

// === impl Written ===

impl Written {
    /// Whether nothing needs to be written now: the last write was less than [`PACE`] ago, or
    /// it wrote the same status and the watch has not delivered it yet. A status that another
    /// writer overwrote, or that the API server lost, is written again.
    fn suffices(&self, view: &PoolView, status: &AddressPoolStatus) -> bool {
        let age = self.at.elapsed();
        let unseen = view.version < self.version && self.status == *status;
        age < PACE || (unseen && age < ECHO)
    }

    /// Whether this status says the same as the last one. Their times can differ.
    fn is_repeated(&self, status: &AddressPoolStatus) -> bool {
        let said = |status: &AddressPoolStatus| AddressPoolStatus {
            conditions: undated(&status.conditions),
            ..status.clone()
        };
        said(&self.status) == said(status)
    }
}
