//! One turn for one Service name. First it releases what deleted Services of this name left
//! behind, then the current Service of that name gets its next step.
//!
//! Workers are tasks: each takes one name at a time from the queue until the queue closes.
//! Cancelling one is a crash, see [`crate::service::perform`].

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use tracing::{Instrument, debug, info_span};

use crate::class::Classes;
use crate::class::board::Board;
use crate::cluster::endpoints::Endpoints;
use crate::cluster::ledger::{Entry, Ledger};
use crate::cluster::namespaces::Namespaces;
use crate::cluster::store::Store;
use crate::cluster::view::{Name, ServiceView};
use crate::pools::AddressBook;
use crate::process::queue::Queue;
use crate::service::decide::{Decision, World, decide, lacks_class};
use crate::service::missing::Missing;
use crate::service::perform::{Outcome, Performer, Turn, places};

/// What the workers share.
pub struct Reconciler {
    /// The Services, as watched.
    pub services: Arc<Store<Name, ServiceView>>,
    /// Labels of namespaces, as watched.
    pub namespaces: Arc<Namespaces>,
    /// The pods behind Services, as watched.
    pub endpoints: Endpoints,
    /// Which Service has which address of the pools.
    pub addresses: AddressBook,
    /// The classes.
    pub board: Board,
    /// Performs decisions.
    pub performer: Performer,
    /// The names to reconcile.
    pub queue: Queue<Name>,
    /// The Services that wait for something that another Service may hold.
    pub waiting: Waiting,
    /// The Services whose class has not arrived.
    pub class_missing: Missing,
}

/// The Services that only a change elsewhere can help.
#[derive(Debug, Default)]
pub struct Waiting(Mutex<HashSet<Name>>);

// === impl Reconciler ===

impl Reconciler {
    /// Works until the queue is closed.
    pub async fn work(self: Arc<Self>) {
        while let Some(work) = self.queue.next().await {
            let name = work.key().clone();
            let span = info_span!("reconcile", service = %name);
            self.turn(&name).instrument(span).await;
        }
    }

    async fn turn(&self, name: &Name) {
        let start = Instant::now();
        let releases = self.performer.ledger.releases();
        let Some(outcome) = self.reconcile(name).await else {
            debug!("another turn uses the same load balancer; this one comes after it");
            return;
        };
        self.performer
            .metrics
            .reconciled(outcome.label(), start.elapsed());
        debug!(?outcome, "reconciled");
        match outcome {
            Outcome::Failed => {
                self.queue.add_backoff(name.clone());
            }
            Outcome::Pending(wait) => {
                self.queue.forget(name);
                self.queue.add_after(name.clone(), wait);
            }
            Outcome::Ignored
            | Outcome::Ensured
            | Outcome::Released
            | Outcome::Waiting
            | Outcome::Parked => self.queue.forget(name),
        }
        // A contest ends without a change of the Service.
        if let Some(wait) = self.performer.contests.look_again(name, Instant::now()) {
            self.queue.add_after(name.clone(), wait);
        }
        self.waiting.note(name, outcome == Outcome::Waiting);
        if self.performer.ledger.releases() != releases {
            // A place, a port or an address became free, in this turn or at the same time:
            // refused Services try again.
            for name in self.waiting.drain() {
                self.queue.add(name);
            }
        }
    }

    /// One turn. `None`: it could not begin, and the locks queue the Service again.
    async fn reconcile(&self, name: &Name) -> Option<Outcome> {
        let (turn, classes, service) = self.hold(name)?;
        Some(self.step(name, &turn, &classes, service).await)
    }

    async fn step(
        &self,
        name: &Name,
        turn: &Turn,
        classes: &Classes,
        service: Option<Arc<ServiceView>>,
    ) -> Outcome {
        let ledger = &self.performer.ledger;
        self.addresses
            .note(name, || self.services.get(name), classes);
        let uid = service.as_ref().map(|service| &*service.id.uid);
        // Nothing can be in a class that does not exist, if only a finalizer said so and it is
        // gone. What a class of that name has is found when it is created.
        ledger.retain_unproven(name, |entry| {
            let held =
                |service: &ServiceView| service.id == entry.id && service.is_held_by(&entry.class);
            classes.get(&entry.class).is_some() || service.as_deref().is_some_and(held)
        });
        let mut absent = Outcome::Ignored;
        for entry in ledger.left_behind(name, uid) {
            if !may_release_absent(&entry, classes, ledger) {
                ledger.absent(&entry.id, &entry.class);
                continue;
            }
            absent = absent.and(self.release_absent(&entry, classes).await);
        }
        let Some(service) = service else {
            ledger.vanished(name);
            self.performer.contests.forget(name, Instant::now());
            self.performer.times.forget(name);
            if let Some(gates) = &self.performer.gates {
                gates.forget(name);
            }
            self.class_missing.end(name);
            self.performer.pool_missing.end(name);
            self.performer.deletions.end(name);
            self.performer.metrics.departed(name);
            return absent;
        };
        if ledger.is_stale(name, service.version) {
            return absent.and(Outcome::Waiting);
        }
        let service = self.performer.times.own(service, Timestamp::now());
        let decision = decide(
            &service,
            &World {
                classes,
                ledger,
                namespaces: &self.namespaces,
                endpoints: &self.endpoints,
                services: &|| self.services.all(),
                class_missing_for: self.class_missing.look(
                    &service.id,
                    lacks_class(&service, classes),
                    Instant::now(),
                ),
            },
        );
        if matches!(decision, Decision::Ignore) {
            self.performer.times.forget(name);
        }
        // The task of a class may have recorded another balancer since the locks were taken.
        if !turn.covers(&places(name, Some(&service), classes, ledger)) {
            return absent.and(Outcome::Pending(Duration::ZERO));
        }
        absent.and(self.performer.perform(&service, decision, classes).await)
    }

    /// Locks every balancer that this turn can touch. Returns the classes and the Service for
    /// which the locks are right: the watch stores newer ones at any time, and those are for
    /// the next turn.
    fn hold(&self, name: &Name) -> Option<(Turn, Arc<Classes>, Option<Arc<ServiceView>>)> {
        let now = || (self.board.snapshot(), self.services.get(name));
        let places_of = |classes: &Classes, service: Option<&ServiceView>| {
            places(name, service, classes, &self.performer.ledger)
        };
        loop {
            let (classes, service) = now();
            let wanted = places_of(&classes, service.as_deref());
            let turn = self
                .performer
                .locks
                .hold(name, wanted, classes.views.len() <= 1)?;
            let (classes, service) = now();
            if turn.covers(&places_of(&classes, service.as_deref())) {
                return Some((turn, classes, service));
            }
        }
    }

    async fn release_absent(&self, entry: &Entry, classes: &Classes) -> Outcome {
        match (classes.provider(&entry.class), classes.get(&entry.class)) {
            (Some(provider), Some(class)) => {
                self.performer
                    .release_absent(entry, provider.as_ref(), class.removal)
                    .await
            }
            // When the instance is ready, it wakes every recorded name.
            _ => Outcome::Waiting,
        }
    }
}

/// Whether what a Service had may be released that does not exist, as far as the store says. A list
/// that lacks it proves nothing where the cloud outlives the cluster: then [`crate::class::orphans`]
/// finds out. Nothing is released that a copy of this cluster may use.
fn may_release_absent(entry: &Entry, classes: &Classes, ledger: &Ledger) -> bool {
    let Some(provider) = classes.provider(&entry.class) else {
        return true;
    };
    let outlives = provider.traits().finalizer;
    !outlives
        || (ledger.is_gone(&entry.id, &entry.class)
            && classes.is_surveyed(&entry.class)
            && classes.refusal_of_a_copy(&entry.class).is_none())
}

// === impl Waiting ===

impl Waiting {
    fn note(&self, name: &Name, waits: bool) {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if waits {
            names.insert(name.clone());
        } else {
            names.remove(name);
        }
    }

    fn drain(&self) -> HashSet<Name> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
