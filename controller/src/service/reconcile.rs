//! One turn of the loop for one Service name: what vanished under this name is
//! released first, then the Service of that name, if there is one, gets its next step.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tracing::{Instrument, debug, info_span};

use crate::class::Classes;
use crate::class::board::Board;
use crate::cluster::ledger::Entry;
use crate::cluster::namespaces::Namespaces;
use crate::cluster::store::Store;
use crate::cluster::view::{Name, ServiceView};
use crate::pools::AddressBook;
use crate::process::queue::Queue;
use crate::service::decide::{World, decide};
use crate::service::perform::{Outcome, Performer, Turn, places};

/// What the workers of the loop share.
pub struct Reconciler {
    /// The Services, as watched.
    pub services: Arc<Store<Name, ServiceView>>,
    /// Labels of namespaces, as watched.
    pub namespaces: Arc<Namespaces>,
    /// Who has which address of the pools.
    pub addresses: AddressBook,
    /// The classes, as posted.
    pub board: Board,
    /// Does what is decided.
    pub performer: Performer,
    /// Who is next.
    pub queue: Queue<Name>,
    /// Who waits for something that another Service may hold.
    pub waiting: Waiting,
}

/// The Services that nothing but a change elsewhere can help.
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
        let outcome = self.reconcile(name).await;
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
        self.waiting.note(name, outcome == Outcome::Waiting);
        if self.performer.ledger.releases() != releases {
            // Places, ports and addresses came free, here or elsewhere while this one was
            // decided: whoever was refused one tries again.
            for name in self.waiting.drain() {
                self.queue.add(name);
            }
        }
    }

    async fn reconcile(&self, name: &Name) -> Outcome {
        let ledger = &self.performer.ledger;
        let (_turn, classes) = self.hold(name).await;
        let service = self.services.get(name);
        self.addresses.note(name, service.as_deref(), &classes);
        let uid = service.as_ref().map(|service| service.id.uid.as_str());
        let mut absent = Outcome::Ignored;
        for entry in ledger.left_behind(name, uid) {
            absent = absent.and(self.release_absent(&entry, &classes).await);
        }
        let Some(service) = service else {
            ledger.vanished(name);
            self.performer.metrics.departed(name);
            return absent;
        };
        if ledger.is_stale(name, service.version) {
            return absent.and(Outcome::Waiting);
        }
        let decision = decide(
            &service,
            &World {
                classes: &classes,
                ledger,
                namespaces: &self.namespaces,
                services: &|| self.services.all(),
            },
        );
        absent.and(self.performer.perform(&service, decision, &classes).await)
    }

    /// Waits for every balancer that this turn may touch, and for the classes as they are
    /// then. While it waits the Service may ask for another one: it begins again.
    async fn hold(&self, name: &Name) -> (Turn, Arc<Classes>) {
        let places_now = |classes: &Classes| {
            let service = self.services.get(name);
            places(name, service.as_deref(), classes, &self.performer.ledger)
        };
        loop {
            let turn = self
                .performer
                .locks
                .hold(places_now(&self.board.snapshot()))
                .await;
            let classes = self.board.snapshot();
            if turn.covers(&places_now(&classes)) {
                return (turn, classes);
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
            // The instance wakes every recorded name when it is ready.
            _ => Outcome::Waiting,
        }
    }
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
