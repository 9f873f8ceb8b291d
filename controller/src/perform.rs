//! Does what [`crate::decide`] says: the only place with effects on Services and on
//! clouds. It chooses nothing but the order, and the order is the safety:
//!
//! - to ensure: place in the ledger, finalizers, provider, status (invariants 1, 2, 5);
//! - to release: provider, finalizers, ledger.
//!
//! A crash between any two is followed by the same decision again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ballast_provider::{
    Balancer, Key, Observed, Provider, ProviderError, Record, Released, Removal, ServiceId, State,
    TargetSet,
};
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::class::Classes;
use crate::decide::{Decision, Keep, quota_exceeded};
use crate::ledger::{Entry, Ledger};
use crate::metrics::Metrics;
use crate::recorder::Recorder;
use crate::status::{self, Desired, Event, transition_event};
use crate::view::{Name, ServiceView};
use crate::writer::{WriteError, Writer, Written};

/// Work that takes longer than this is announced by an event.
const SLOW: Duration = Duration::from_secs(2);
/// A store that lags behind catches up within this time, or is asked again.
const STALE_RETRY: Duration = Duration::from_secs(1);
/// For one call of a provider, with all that it calls in turn.
const PROVIDER_LIMIT: Duration = Duration::from_secs(30);
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
    pub targets: watch::Receiver<TargetSet>,
    /// Rung when a Service waits for its class to become usable.
    pub class_wanted: Arc<Notify>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Serialises Services that share a balancer.
    pub locks: KeyLocks,
}

/// What became of one step, and with that when the Service is looked at again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing was to be done.
    Ignored,
    /// As the user wants it.
    Ensured,
    /// All gone.
    Released,
    /// Waits for the user, the class or another Service to change; they wake it.
    Waiting,
    /// Waits for the provider, which alone knows when there is news.
    Parked,
    /// Look again after this time; no failure.
    Pending(Duration),
    /// It failed; back off.
    Failed,
}

/// A Service with the class that serves it.
#[derive(Clone, Copy)]
struct Served<'a> {
    service: &'a ServiceView,
    class: &'a str,
    record: Record,
}

/// One lock per key while it is in use.
#[derive(Debug, Default)]
pub struct KeyLocks {
    locks: Mutex<HashMap<Key, Arc<tokio::sync::Mutex<()>>>>,
}

// === impl Outcome ===

impl Outcome {
    /// The label of metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Ignored => "ignored",
            Self::Ensured => "ensured",
            Self::Released => "released",
            Self::Waiting | Self::Parked => "waiting",
            Self::Pending(_) => "pending",
            Self::Failed => "failed",
        }
    }

    /// Of two steps under one name, the outcome that needs to be looked at sooner.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let urgency = |outcome: Self| match outcome {
            Self::Ignored => 0,
            Self::Ensured => 1,
            Self::Waiting | Self::Parked => 2,
            Self::Released => 3,
            Self::Pending(_) => 4,
            Self::Failed => 5,
        };
        match (self, other) {
            (Self::Pending(one), Self::Pending(two)) => Self::Pending(one.min(two)),
            _ if urgency(other) >= urgency(self) => other,
            _ => self,
        }
    }
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
                let written = self.publish(service, &Desired::refused(&refusal)).await;
                let refused = settle(&written, Outcome::Waiting);
                match (keep, written) {
                    (Some(keep), Ok(Written::Version(_))) => {
                        refused.and(self.keep(service, &keep).await)
                    }
                    _ => refused,
                }
            }
            Decision::Wait { class, why } => match why {
                None => {
                    self.class_wanted.notify_one();
                    Outcome::Waiting
                }
                Some(why) => {
                    let desired = Desired::waiting(service, &class, &why);
                    settle(&self.publish(service, &desired).await, Outcome::Waiting)
                }
            },
            Decision::Ensure {
                class,
                provider,
                balancer,
                max,
            } => {
                if !self.ledger.reserve(&service.id, &class, max) {
                    return self.no_place(service, &class, classes).await;
                }
                self.ensure(service, &class, provider.as_ref(), &balancer)
                    .await
            }
            Decision::Release {
                class,
                provider,
                removal,
            } => {
                self.release(service, &class, provider.as_ref(), removal)
                    .await
            }
        }
    }

    /// What it already has goes on; what the provider says of that is not published, for
    /// the Service says that it is refused.
    async fn keep(&self, service: &ServiceView, keep: &Keep) -> Outcome {
        if !self.writer.leads() {
            return Outcome::Failed;
        }
        match in_time(keep.provider.ensure(&keep.balancer)).await {
            Ok(_) => Outcome::Waiting,
            Err(error) => {
                let record = keep.provider.record();
                self.provider_failed(&service.id, &keep.class, &error, record)
            }
        }
    }

    /// The place was taken between decision and reservation, or the class closes.
    async fn no_place(&self, service: &ServiceView, class: &str, classes: &Classes) -> Outcome {
        let full = classes.get(class).and_then(|view| Some((view, view.max?)));
        match full {
            Some((view, max)) if self.ledger.count(class) >= max => {
                let desired = Desired::refused(&quota_exceeded(view, max));
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
    ) -> Outcome {
        let now = Timestamp::now();
        let mut service = service.clone();
        // A Service without a class carries the standard finalizer, whoever serves it.
        let held = provider.record() == Record::Cloud || service.class.is_none();
        if let Some(patch) = status::finalizer_patch(&service, class, now).filter(|_| held) {
            match self.write(&service, "finalizer", &patch).await {
                Ok(Written::Version(version)) => {
                    service = Desired::provisioning(&service, class).applied_to(&service, now);
                    service.version = version;
                }
                written => return settle(&written, Outcome::Waiting),
            }
        }
        if !self.writer.leads() {
            return Outcome::Failed;
        }
        let began = self.ledger.began(&service.id, class, Instant::now());
        match in_time(provider.ensure(balancer)).await {
            Ok(all) => {
                let Some((_, observed)) = all.into_iter().find(|(id, _)| *id == service.id) else {
                    let silent =
                        ProviderError::transient("the provider did not report this Service");
                    return self
                        .failed(&service, class, &silent, provider.record())
                        .await;
                };
                let served = Served {
                    service: &service,
                    class,
                    record: provider.record(),
                };
                self.observed(&served, &observed, began).await
            }
            Err(error) => {
                self.failed(&service, class, &error, provider.record())
                    .await
            }
        }
    }

    async fn observed(&self, served: &Served<'_>, observed: &Observed, began: Instant) -> Outcome {
        let Served {
            service,
            class,
            record,
        } = *served;
        let no_targets = self.targets.borrow().is_empty();
        let desired = Desired::observed(service, class, observed, no_targets);
        // Two leaders for a moment, or a stale store: an address must not be claimed over
        // a version that nobody here has seen.
        let over = (record == Record::Status && desired.claims(service)).then_some(service.version);
        match self.publish_over(service, &desired, over).await {
            Ok(Written::Version(_)) => {}
            written => return settle(&written, Outcome::Waiting),
        }
        if !observed.ingress.is_empty() {
            self.metrics
                .addressed(&Name::from(&service.id), Instant::now().into_std());
        }
        match &observed.state {
            State::Programmed => {
                self.ledger.finished(&service.id, class);
                Outcome::Ensured
            }
            State::Pending {
                retry_after: None, ..
            } if record == Record::Status => Outcome::Parked,
            State::Pending { retry_after, .. } => {
                let wait = retry_after.unwrap_or(SAFETY_RETRY);
                Outcome::Pending(self.slow(service, class, began, Event::Ensuring, wait))
            }
        }
    }

    async fn failed(
        &self,
        service: &ServiceView,
        class: &str,
        error: &ProviderError,
        record: Record,
    ) -> Outcome {
        let outcome = self.provider_failed(&service.id, class, error, record);
        let desired = Desired::failed(service, class, error);
        match self.publish(service, &desired).await {
            Err(error) => settle(&Err(error), Outcome::Failed),
            Ok(_) => outcome,
        }
    }

    async fn release(
        &self,
        service: &ServiceView,
        class: &str,
        provider: &dyn Provider,
        removal: Removal,
    ) -> Outcome {
        if !self.writer.leads() {
            return Outcome::Failed;
        }
        // No finalizer vouches for what the view says, and the view may be old.
        if !service.is_held_by(class) && !self.is_current(service).await {
            return Outcome::Pending(STALE_RETRY);
        }
        self.ledger.record(&service.id, class);
        let began = self.ledger.began(&service.id, class, Instant::now());
        match in_time(provider.release(&service.id, removal)).await {
            Ok(Released::Gone) => {
                let written = match status::released_patch(service, class) {
                    Some(patch) => self.write(service, "release", &patch).await,
                    None => Ok(Written::Version(service.version)),
                };
                match written {
                    Ok(Written::Version(_)) => {
                        self.recorder.event(&service.id, Event::Deleted);
                        info!(service = %service.id, class, "released");
                    }
                    Ok(Written::Gone) => {}
                    Err(error) => return settle(&Err(error), Outcome::Failed),
                }
                self.ledger.forget(&service.id, class);
                Outcome::Released
            }
            Ok(Released::InProgress { retry_after }) => {
                Outcome::Pending(self.slow(service, class, began, Event::Deleting, retry_after))
            }
            Err(error) => self.failed(service, class, &error, provider.record()).await,
        }
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
        match in_time(provider.release(&entry.id, removal)).await {
            Ok(Released::Gone) => {
                info!(service = %entry.id, uid = entry.id.uid, class = entry.class, "released after it had vanished");
                self.ledger.forget(&entry.id, &entry.class);
                Outcome::Released
            }
            Ok(Released::InProgress { retry_after }) => Outcome::Pending(retry_after),
            Err(error) => self.provider_failed(&entry.id, &entry.class, &error, provider.record()),
        }
    }

    /// Counts and logs a failed call; says when to try again.
    fn provider_failed(
        &self,
        id: &ServiceId,
        class: &str,
        error: &ProviderError,
        record: Record,
    ) -> Outcome {
        self.metrics.provider_error(class, error.reason().as_str());
        warn!(service = %id, class, reason = %error.reason(), %error, "provider call failed");
        match error {
            ProviderError::Refused(_) if record == Record::Status => Outcome::Parked,
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
        self.metrics.wrote(kind);
        let written = self.writer.patch_service(&name, patch).await;
        match &written {
            Ok(Written::Version(version)) => self.ledger.wrote(&name, *version),
            Ok(Written::Gone) => {}
            Err(error) => warn!(service = %service.id, kind, %error, "write failed"),
        }
        written
    }
}

/// A provider that hangs must not hold a worker for ever; its own calls have shorter limits.
async fn in_time<T>(
    call: impl Future<Output = Result<T, ProviderError>>,
) -> Result<T, ProviderError> {
    match tokio::time::timeout(PROVIDER_LIMIT, call).await {
        Ok(result) => result,
        Err(_) => Err(ProviderError::transient(format!(
            "the provider did not answer in {} s",
            PROVIDER_LIMIT.as_secs()
        ))),
    }
}

/// A Service that is gone comes back as an absence, if it left anything.
fn settle(written: &Result<Written, WriteError>, outcome: Outcome) -> Outcome {
    match written {
        Ok(Written::Version(_)) => outcome,
        Ok(Written::Gone) | Err(WriteError::Conflict) => Outcome::Waiting,
        Err(_) => Outcome::Failed,
    }
}

// === impl KeyLocks ===

impl KeyLocks {
    /// Waits for the turn of a shared balancer. A Service alone on its balancer has it
    /// already: the queue never hands one Service to two workers.
    ///
    /// To be taken before deciding: a decision lists all members, and one made while
    /// another worker was adding a member would take that member off again.
    pub async fn turn(
        &self,
        service: &ServiceView,
        classes: &Classes,
    ) -> Option<tokio::sync::OwnedMutexGuard<()>> {
        let Some(Ok(wanted)) = &service.load_balancer else {
            return None;
        };
        let key = classes.provider(classes.claim(service)?)?.key(wanted);
        if key.0 == service.id.uid {
            return None;
        }
        let lock = {
            let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
            locks.retain(|_, lock| Arc::strong_count(lock) > 1);
            Arc::clone(locks.entry(key).or_default())
        };
        Some(lock.lock_owned().await)
    }
}
