//! Does what [`crate::service::decide`] says: the only place that writes Services and that
//! ensures or releases load balancers. (Targets are the class's own task:
//! [`crate::class::instance`].) It chooses nothing but the order, and the order is the
//! safety:
//!
//! - to ensure: place in the ledger, finalizers, provider, status (invariants 1, 2, 5); to
//!   leave a former balancer: only when traffic flows through the new one;
//! - to release: provider, finalizers, ledger; with [`Traits::unpublish_first`]
//!   finalizers and conditions, provider, ledger, because an address must not be free
//!   while it is published.
//!
//! A crash between any two is followed by the same decision again. The caller holds the
//! lock of every balancer that the decision names ([`KeyLocks`]). Cancelling a call is a
//! crash.

mod locks;
mod outcome;

use std::sync::Arc;
use std::time::Duration;

use ballast_provider::{
    Balancer, Key, Observed, Provider, ProviderError, Refusal, Released, Removal, ServiceId, State,
    Traits,
};
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::class::Classes;
use crate::class::patience::in_time;
use crate::cluster::eligibility::Eligible;
use crate::cluster::ledger::{Entry, Ledger};
use crate::cluster::metrics::{ProviderMetrics, ServiceMetrics};
use crate::cluster::view::{Name, ServiceView};
use crate::cluster::writer::{WriteError, Writer, Written};
use crate::service::decide::{Decision, Keep, quota_exceeded};
use crate::service::recorder::Recorder;
use crate::service::status::{self, Desired, Event, transition_event};

pub use self::locks::{KeyLocks, Turn, places};
pub use self::outcome::Outcome;

/// Work that takes longer than this is announced by an event.
const SLOW: Duration = Duration::from_secs(2);
/// A store that lags behind catches up within this time, or is asked again.
const STALE_RETRY: Duration = Duration::from_secs(1);
/// A lost change of the provider heals after this time.
const SAFETY_RETRY: Duration = Duration::from_secs(30);

/// Performs decisions.
pub struct Performer {
    /// Writes Services.
    pub writer: Writer,
    /// Tells people.
    pub recorder: Recorder,
    /// Remembers what has effects.
    pub ledger: Arc<Ledger>,
    /// Who carries traffic; here only whether anybody does.
    pub targets: watch::Receiver<Eligible>,
    /// Rung when a Service waits for its class to become usable.
    pub class_wanted: Arc<Notify>,
    /// Counts reconciles and addresses.
    pub metrics: ServiceMetrics,
    /// Counts failed calls.
    pub provider_metrics: ProviderMetrics,
    /// Serialises Services that share a balancer.
    pub locks: KeyLocks,
}

/// A Service with the class that serves it.
#[derive(Clone, Copy)]
struct Served<'a> {
    service: &'a ServiceView,
    class: &'a str,
    provider: &'a dyn Provider,
    /// Why it gets nothing new: what was accepted before goes on, or, where its class is
    /// drained, is released.
    refusal: Option<&'a Refusal>,
    /// It comes from another balancer, and traffic flows through that one still.
    moves: bool,
}

// === impl Performer ===

impl Performer {
    /// Performs one decision about a Service.
    pub async fn perform(
        &self,
        service: &ServiceView,
        decision: Decision,
        classes: &Classes,
    ) -> Outcome {
        match decision {
            Decision::Ignore => Outcome::Ignored,
            Decision::Clean => {
                let written = self
                    .write(service, "clean", &status::clean_patch(service))
                    .await;
                settle(&written, Outcome::Released)
            }
            Decision::Refuse { refusal, keep } => {
                self.refuse(service, &refusal, keep.as_ref()).await
            }
            Decision::Wait {
                class,
                why,
                drained,
            } => match why {
                None => {
                    self.class_wanted.notify_one();
                    Outcome::Waiting
                }
                Some(why) => {
                    let desired = Desired::waiting(service, &class, &why, drained.as_ref());
                    settle(&self.publish(service, &desired).await, Outcome::Waiting)
                }
            },
            Decision::Ensure {
                class,
                provider,
                balancer,
                leaves,
                removal,
                max,
            } => {
                let key = &balancer.key;
                if !self.ledger.reserve(&service.id, &class, key, max) {
                    return self.no_place(service, &class, classes).await;
                }
                let provider = provider.as_ref();
                let ensured = self
                    .ensure(service, &class, provider, &balancer, !leaves.is_empty())
                    .await;
                if ensured != Outcome::Ensured {
                    return ensured;
                }
                let left = self.leave(&service.id, &class, provider, &leaves, removal);
                ensured.and(left.await)
            }
            Decision::Release {
                class,
                provider,
                keys,
                removal,
                drained,
            } => {
                let served = Served {
                    service,
                    class: &class,
                    provider: provider.as_ref(),
                    refusal: drained.as_ref(),
                    moves: false,
                };
                self.release(&served, &keys, removal).await
            }
        }
    }

    /// What it already has goes on, and the Service says how that is.
    async fn refuse(
        &self,
        service: &ServiceView,
        refusal: &Refusal,
        keep: Option<&Keep>,
    ) -> Outcome {
        let desired = Desired::refused(service, refusal, keep.is_some());
        let written = self.publish(service, &desired).await;
        let refused = settle(&written, Outcome::of_refused(service, refusal));
        let (Some(keep), Ok(Written::Version(version))) = (keep, written) else {
            return refused;
        };
        let mut service = desired.applied_to(service, Timestamp::now());
        service.version = version;
        let served = Served {
            service: &service,
            class: &keep.class,
            provider: keep.provider.as_ref(),
            refusal: Some(refusal),
            moves: false,
        };
        refused.and(self.bring(&served, &keep.balancer).await)
    }

    /// The place was taken between decision and reservation, or the class closes.
    async fn no_place(&self, service: &ServiceView, class: &str, classes: &Classes) -> Outcome {
        let full = classes.get(class).and_then(|view| Some((view, view.max?)));
        match full {
            Some((view, max)) if self.ledger.count(class) >= max => {
                let desired = Desired::refused(service, &quota_exceeded(view, max), false);
                settle(&self.publish(service, &desired).await, Outcome::Waiting)
            }
            _ => Outcome::Pending(Duration::from_secs(1)),
        }
    }

    async fn ensure(
        &self,
        service: &ServiceView,
        class: &str,
        provider: &dyn Provider,
        balancer: &Balancer,
        moves: bool,
    ) -> Outcome {
        let now = Timestamp::now();
        let mut service = service.clone();
        // A Service without a class carries the standard finalizer, whoever serves it.
        let held = provider.traits().finalizer || service.class.is_none();
        if let Some(patch) = status::finalizer_patch(&service, class, now).filter(|_| held) {
            match self.write(&service, "finalizer", &patch).await {
                Ok(Written::Version(version)) => {
                    service = Desired::first(&service, class).applied_to(&service, now);
                    service.version = version;
                }
                written => return settle(&written, Outcome::Waiting),
            }
        }
        let served = Served {
            service: &service,
            class,
            provider,
            refusal: None,
            moves,
        };
        self.bring(&served, balancer).await
    }

    /// Brings the balancer to the desired state and publishes what comes of it.
    async fn bring(&self, served: &Served<'_>, balancer: &Balancer) -> Outcome {
        if !self.writer.leads() {
            return Outcome::Failed;
        }
        let id = &served.service.id;
        let began = self.ledger.began(id, served.class, Instant::now());
        match in_time(served.provider.ensure(balancer)).await {
            Ok(all) => {
                let Some((_, observed)) = all.into_iter().find(|(reported, _)| reported == id)
                else {
                    let silent =
                        ProviderError::transient("the provider did not report this Service");
                    return self.failed(served, &silent).await;
                };
                self.observed(served, &observed, began).await
            }
            Err(error) => self.failed(served, &error).await,
        }
    }

    async fn observed(&self, served: &Served<'_>, observed: &Observed, began: Instant) -> Outcome {
        let Served { service, class, .. } = *served;
        let traits = served.provider.traits();
        let backing = self.targets.borrow().backing(traits.exclusion);
        let desired = Desired::observed(service, class, observed, backing);
        let desired = desired.despite(served.refusal);
        let arrived = !served.moves || observed.state == State::Programmed;
        let desired = if arrived {
            desired
        } else {
            desired.keeping(service)
        };
        // A stale store: an address must not be claimed over a version that nobody here
        // has seen. (That two leaders give one address to two Services, the fence prevents.)
        let guarded = traits.claim_over_version && desired.claims(service);
        let over = guarded.then_some(service.version);
        match self.publish_over(service, &desired, over).await {
            Ok(Written::Version(_)) => {}
            written => return settle(&written, Outcome::Waiting),
        }
        if service.ingress.is_empty() && !observed.ingress.is_empty() {
            self.metrics.addressed(
                &Name::from(&service.id),
                Instant::now().into_std(),
                age(service),
            );
        }
        match &observed.state {
            State::Programmed => {
                self.ledger.finished(&service.id, class);
                Outcome::Ensured
            }
            State::Pending {
                retry_after: None, ..
            } if traits.wakes_waiting => Outcome::Parked,
            State::Pending { retry_after, .. } => {
                let wait = retry_after.unwrap_or(SAFETY_RETRY);
                Outcome::Pending(self.slow(service, class, began, Event::Ensuring, wait))
            }
        }
    }

    async fn failed(&self, served: &Served<'_>, error: &ProviderError) -> Outcome {
        let Served { service, class, .. } = *served;
        let outcome = self.provider_failed(&service.id, class, error, served.provider.traits());
        let desired = Desired::failed(service, class, error).despite(served.refusal);
        match self.publish(service, &desired).await {
            Err(error) => settle(&Err(error), Outcome::Failed),
            Ok(_) => outcome,
        }
    }

    /// Takes a Service off the balancers that it was on before.
    async fn leave(
        &self,
        id: &ServiceId,
        class: &str,
        provider: &dyn Provider,
        keys: &[Key],
        removal: Removal,
    ) -> Outcome {
        let mut outcome = Outcome::Ignored;
        for key in keys {
            if !self.writer.leads() {
                return Outcome::Failed;
            }
            let left = match in_time(provider.release(id, key, removal)).await {
                Ok(Released::Gone) => {
                    self.ledger.left(id, class, key);
                    info!(service = %id, class, %key, "left its former load balancer");
                    Outcome::Ensured
                }
                Ok(Released::InProgress { retry_after }) => Outcome::Pending(retry_after),
                Err(error) => self.provider_failed(id, class, &error, provider.traits()),
            };
            outcome = outcome.and(left);
        }
        outcome
    }

    async fn release(&self, served: &Served<'_>, keys: &[Key], removal: Removal) -> Outcome {
        let Served {
            service,
            class,
            provider,
            refusal: drained,
            ..
        } = *served;
        if !self.writer.leads() {
            return Outcome::Failed;
        }
        // No finalizer vouches for what the view says, and the view may be old.
        if !service.is_held_by(class) && !self.is_current(service).await {
            return Outcome::Pending(STALE_RETRY);
        }
        self.ledger.record(&service.id, class);
        let began = self.ledger.began(&service.id, class, Instant::now());
        // What is recorded nowhere else is published until the Service says so no more, and
        // nobody else may have it before.
        let unpublish_first = provider.traits().unpublish_first;
        if unpublish_first && let Err(error) = self.unmark(served).await {
            return settle(&Err(error), Outcome::Failed);
        }
        match release_all(provider, &service.id, keys, removal).await {
            Ok(Released::Gone) => {
                if !unpublish_first && let Err(error) = self.unmark(served).await {
                    return settle(&Err(error), Outcome::Failed);
                }
                self.ledger.forget(&service.id, class);
                Outcome::Released
            }
            Ok(Released::InProgress { retry_after }) => {
                let wait = self.slow(service, class, began, Event::Deleting, retry_after);
                let Some(drained) = drained else {
                    return Outcome::Pending(wait);
                };
                let desired = Desired::draining(service, drained);
                settle(
                    &self.publish(service, &desired).await,
                    Outcome::Pending(wait),
                )
            }
            Err(error) => self.failed(served, &error).await,
        }
    }

    /// Takes our marks off a Service that has nothing of this class any more, and says so.
    async fn unmark(&self, served: &Served<'_>) -> Result<(), WriteError> {
        let Served { service, class, .. } = *served;
        let patch = match served.refusal {
            None => status::released_patch(service, class),
            Some(drained) => status::drained_patch(service, class, drained, Timestamp::now()),
        };
        let written = match patch {
            Some(patch) => self.write(service, "release", &patch).await?,
            None => Written::Version(service.version),
        };
        if let Written::Version(_) = written {
            self.recorder.event(&service.id, Event::Deleted);
            info!(service = %service.id, class, "released");
        }
        Ok(())
    }

    async fn is_current(&self, service: &ServiceView) -> bool {
        match self.writer.current(&Name::from(&service.id)).await {
            Ok(Some(now)) => now.uid == service.id.uid && now.version == service.version,
            Ok(None) | Err(_) => false,
        }
    }

    /// Whether the API server, too, has no such Service: a store that lags behind must
    /// not take the load balancer of a Service that lives.
    async fn is_absent(&self, entry: &Entry) -> bool {
        match self.writer.current(&Name::from(&entry.id)).await {
            Ok(now) => now.is_none_or(|now| now.uid != entry.id.uid),
            Err(_) => false,
        }
    }

    /// Releases what a vanished Service left behind; there is nobody to tell.
    pub async fn release_absent(
        &self,
        entry: &Entry,
        provider: &dyn Provider,
        removal: Removal,
    ) -> Outcome {
        if !self.writer.leads() {
            return Outcome::Failed;
        }
        if !self.is_absent(entry).await {
            return Outcome::Pending(STALE_RETRY);
        }
        let alone = [Key::alone(&entry.id)];
        let keys = if entry.keys.is_empty() {
            &alone
        } else {
            entry.keys.as_slice()
        };
        match release_all(provider, &entry.id, keys, removal).await {
            Ok(Released::Gone) => {
                info!(service = %entry.id, uid = entry.id.uid, class = entry.class, "released after it had vanished");
                self.ledger.forget(&entry.id, &entry.class);
                Outcome::Released
            }
            Ok(Released::InProgress { retry_after }) => Outcome::Pending(retry_after),
            Err(error) => self.provider_failed(&entry.id, &entry.class, &error, provider.traits()),
        }
    }

    /// Counts and logs a failed call; says when to try again.
    fn provider_failed(
        &self,
        id: &ServiceId,
        class: &str,
        error: &ProviderError,
        traits: Traits,
    ) -> Outcome {
        self.provider_metrics.failed(class, error.reason().as_str());
        warn!(service = %id, class, reason = %error.reason(), %error, "provider call failed");
        match error {
            ProviderError::Refused(_) if traits.wakes_waiting => Outcome::Parked,
            ProviderError::Refused(_) => Outcome::Waiting,
            ProviderError::Throttled { retry_after } => Outcome::Pending(*retry_after),
            ProviderError::Transient { .. } => Outcome::Failed,
        }
    }

    /// Announces slow work once; says when to look again.
    fn slow(
        &self,
        service: &ServiceView,
        class: &str,
        began: Instant,
        event: Event,
        wait: Duration,
    ) -> Duration {
        let elapsed = began.elapsed();
        if elapsed < SLOW {
            return wait.min(SLOW.saturating_sub(elapsed));
        }
        if self.ledger.announce_slow(&service.id, class) {
            self.recorder.event(&service.id, event);
        }
        wait
    }

    /// Writes what differs, and the event that belongs to it.
    async fn publish(
        &self,
        service: &ServiceView,
        desired: &Desired,
    ) -> Result<Written, WriteError> {
        self.publish_over(service, desired, None).await
    }

    /// Like [`Performer::publish`], but only over this version.
    async fn publish_over(
        &self,
        service: &ServiceView,
        desired: &Desired,
        version: Option<u64>,
    ) -> Result<Written, WriteError> {
        let Some(mut patch) = status::patch(service, desired, Timestamp::now()) else {
            return Ok(Written::Version(service.version));
        };
        if let Some(version) = version {
            patch["metadata"]["resourceVersion"] = version.to_string().into();
        }
        let written = self.write(service, "status", &patch).await?;
        if let (Written::Version(_), Some(event)) = (written, transition_event(service, desired)) {
            self.recorder.event(&service.id, event);
        }
        Ok(written)
    }

    async fn write(
        &self,
        service: &ServiceView,
        kind: &'static str,
        patch: &Value,
    ) -> Result<Written, WriteError> {
        let name = Name::from(&service.id);
        let written = self.writer.patch_service(&name, kind, patch).await;
        match &written {
            Ok(Written::Version(version)) => self.ledger.wrote(&name, *version),
            Ok(Written::Gone) => {}
            Err(error) => warn!(service = %service.id, kind, %error, "write failed"),
        }
        written
    }
}

/// Releases one Service from each of these balancers; gone when it is gone from all.
async fn release_all(
    provider: &dyn Provider,
    id: &ServiceId,
    keys: &[Key],
    removal: Removal,
) -> Result<Released, ProviderError> {
    let mut all = Released::Gone;
    for key in keys {
        all = all.and(in_time(provider.release(id, key, removal)).await?);
    }
    Ok(all)
}

/// In whole seconds, as the API server counts them.
fn age(service: &ServiceView) -> Duration {
    let age = Timestamp::now().duration_since(service.created);
    age.try_into().unwrap_or_default()
}

/// A Service that is gone comes back as an absence, if it left anything.
fn settle(written: &Result<Written, WriteError>, outcome: Outcome) -> Outcome {
    match written {
        Ok(Written::Version(_)) => outcome,
        Ok(Written::Gone) | Err(WriteError::Conflict) => Outcome::Waiting,
        Err(_) => Outcome::Failed,
    }
}
