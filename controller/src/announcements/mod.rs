//! Which nodes announce the addresses of Services, between the API and [`ballast_l2::announced`].
//!
//! Owns what is kept of Announcer objects ([`Announcers`]) and the leader's task ([`Keeper`]). It
//! is off the path of a failover: nodes agree among themselves who answers, and this task only
//! reports it. So it waits for a wave of changes to end, and hands the Services that concern it to
//! the queue a few at a time: a node with 1,000 addresses that fails must not delay the work for
//! other Services.
//!
//! An announcer that ended cannot write into its object that it announces nothing. Other nodes take
//! its addresses over, and their claims are better. If none does, the object of a Node counts that
//! does not exist, whose kubelet does not report to the API server ([`NodeView::silent`]), or whose
//! announcer does not renew its Lease ([`renewals`]) as a report of the past.
//!
//! [`NodeView::silent`]: crate::cluster::view::NodeView::silent

mod renewals;
mod wire;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ballast_l2::announced::Report;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until};

use crate::class::board::Board;
use crate::cluster::store::Store;
use crate::cluster::view::{Name, ServiceView};
use crate::pools::{AddressBook, placed_by};
use crate::process::queue::Queue;
use crate::process::wave::settled;

pub use self::renewals::Leases;
pub use self::wire::{WatchedAnnouncer, report};

/// A wave of changes ends when no change came for this long …
const QUIET: Duration = Duration::from_millis(300);
/// … or after this long in any case.
const WAVE: Duration = Duration::from_secs(2);
/// The Services that are handed to the queue at a time: 1,000 in 6 s.
const BATCH: usize = 16;
/// The time between two batches …
const PACE: Duration = Duration::from_millis(100);
/// … or up to this time, while Services wait for a worker.
const REST: Duration = Duration::from_secs(1);

/// All Announcer objects, from the watch, and a signal for each change.
#[derive(Debug)]
pub struct Announcers {
    /// What they report, by node.
    pub store: Store<Arc<str>, Report>,
    changes: watch::Sender<()>,
}

/// The leader's task; see the module documentation.
pub struct Keeper {
    /// The objects.
    pub announcers: Arc<Announcers>,
    /// The nodes that report to the API server.
    pub nodes: watch::Receiver<BTreeSet<Arc<str>>>,
    /// Where the announcers renew that they run.
    pub leases: Leases,
    /// Where the providers read the result.
    pub book: AddressBook,
    /// The Services, as watched.
    pub services: Arc<Store<Name, ServiceView>>,
    /// Which class serves them.
    pub board: Board,
    /// Where Services are woken.
    pub queue: Queue<Name>,
    /// The start of its time.
    pub began: Instant,
}

/// The Services that are not in the queue yet.
#[derive(Debug, Default)]
struct Pending {
    names: Mutex<BTreeSet<Name>>,
    more: Notify,
}

// === impl Announcers ===

impl Default for Announcers {
    fn default() -> Self {
        Self {
            store: Store::default(),
            changes: watch::Sender::new(()),
        }
    }
}

impl Announcers {
    /// Announces a change. Call it after the store has changed.
    pub fn changed(&self) {
        self.changes.send_replace(());
    }
}

// === impl Keeper ===

impl Keeper {
    /// Reads the objects before any Service is reconciled. All are listed.
    pub fn open(&self) {
        self.refresh(&Pending::default(), &BTreeSet::new());
    }

    /// Runs until the watches end.
    pub async fn run(self) {
        let pending = Pending::default();
        let (ended, have_ended) = watch::channel(BTreeSet::new());
        tokio::select! {
            () = self.follow(&pending, have_ended) => {}
            () = self.wake(&pending) => {}
            () = self.leases.clone().watch(ended) => {}
        }
    }

    async fn follow(&self, pending: &Pending, mut ended: watch::Receiver<BTreeSet<Arc<str>>>) {
        let mut changes = self.announcers.changes.subscribe();
        let mut nodes = self.nodes.clone();
        loop {
            let gone = ended.borrow_and_update().clone();
            let due = self.refresh(pending, &gone);
            let alarm = async {
                match due {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            // Each of them leads to a look at everything, so it does not matter which ends first.
            tokio::select! {
                is_open = settled(&mut changes, QUIET, WAVE) => if !is_open { return },
                is_open = nodes.changed() => if is_open.is_err() { return },
                is_open = ended.changed() => if is_open.is_err() { return },
                () = alarm => {}
            }
        }
    }

    /// Chooses anew who announces what, and notes the Services that report something else then.
    /// Returns when to look again at the latest.
    fn refresh(&self, pending: &Pending, ended: &BTreeSet<Arc<str>>) -> Option<Instant> {
        let reports = self.announcers.store.all();
        let nodes = self.nodes.borrow().clone();
        let table = self.book.announcements();
        let alive = |node: &str| nodes.contains(node) && !ended.contains(node);
        let (change, due) = table.update(reports, alive, self.began.elapsed());
        if !change.is_empty() {
            let classes = self.board.snapshot();
            let concerned = self.services.all().into_iter().filter(|service| {
                let addresses = service.addresses();
                let unannounced = addresses.iter().any(|it| !table.announces(*it));
                change.concerns(addresses, unannounced) && placed_by(service, &classes).is_some()
            });
            pending.add(concerned.map(|service| Name::from(&service.id)));
        }
        due.map(|due| self.began + due)
    }

    /// Queues what is pending, a few at a time.
    async fn wake(&self, pending: &Pending) {
        loop {
            for name in pending.take().await {
                self.queue.add(name);
            }
            let end = Instant::now() + REST;
            sleep(PACE).await;
            while self.queue.depth() > 0 && Instant::now() < end {
                sleep(PACE).await;
            }
        }
    }
}

// === impl Pending ===

impl Pending {
    fn add(&self, names: impl Iterator<Item = Name>) {
        self.lock().extend(names);
        self.more.notify_one();
    }

    /// The next ones, once there are some.
    async fn take(&self) -> Vec<Name> {
        loop {
            let batch: Vec<Name> = {
                let mut names = self.lock();
                std::iter::from_fn(|| names.pop_first())
                    .take(BATCH)
                    .collect()
            };
            if !batch.is_empty() {
                return batch;
            }
            self.more.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<Name>> {
        // Nothing in here panics half-way.
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
