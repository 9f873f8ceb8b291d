//! Releases load balancers: of Services, of Services that no longer exist, and of Services
//! that have moved to another balancer. Does I/O; cancelling a call has the same effect as a
//! crash.

use ballast_provider::{Key, Provider, ProviderError, Reason, Released, Removal, ServiceId};
use jiff::Timestamp;
use tokio::time::Instant;
use tracing::info;

use super::write::Marks;
use super::{Outcome, Performer, SLOW, STALE_RETRY, Served, Work, outcome_of};
use crate::class::patience::in_time;
use crate::cluster::ledger::Entry;
use crate::cluster::view::{Name, ServiceView};
use crate::cluster::writer::{WriteError, Written};
use crate::service::contests::{Purpose, Step};
use crate::service::deletion::{EXPLAINED, progress};
use crate::service::status::{self, Desired, Event};

// === impl Performer ===

impl Performer {
    /// Takes a Service off the balancers that it was on before.
    pub(super) async fn leave(
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
                Ok(Released::InProgress { retry_after, .. }) => Outcome::Pending(retry_after),
                Err(error) => self.provider_failed(id, class, &error, provider.traits()),
            };
            outcome = outcome.and(left);
        }
        outcome
    }

    pub(super) async fn release(
        &self,
        served: &Served<'_>,
        keys: &[Key],
        removal: Removal,
    ) -> Outcome {
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
        // Without a finalizer only the view says so, and the view can be old.
        if !service.is_held_by(class) && !self.is_current(service).await {
            return Outcome::Pending(STALE_RETRY);
        }
        // Somebody who keeps adding our finalizer must not cause a call for each.
        let purpose = purpose_of(served);
        if let Err(wait) = self.contests.may_write(service, purpose, Instant::now()) {
            return Outcome::Pending(wait);
        }
        // A finalizer alone proves no place.
        self.ledger.record_finalizer(&service.id, class);
        let began = self.ledger.began(&service.id, class, Instant::now());
        // If the status is the only record, no other Service may get the address before the
        // status is changed.
        let unpublish_first = provider.traits().unpublish_first;
        let unmarked = async || match self.remove_marks(served).await {
            Ok(step) => Ok(step),
            Err(error) => Err(outcome_of(&Err(error), Outcome::Failed)),
        };
        let mut step = None;
        if unpublish_first {
            match unmarked().await {
                Ok(done) => step = done,
                Err(outcome) => return outcome,
            }
        }
        match release_all(provider, &service.id, keys, removal).await {
            Ok(Released::Gone) => {
                if !unpublish_first {
                    match unmarked().await {
                        Ok(done) => step = done,
                        Err(outcome) => return outcome,
                    }
                }
                self.ledger.forget(&service.id, class);
                self.releases_nothing(service);
                // Only now: a retry is not another release.
                if step == Some(Step::New) {
                    self.recorder.event(&service.id, Event::Deleted);
                }
                info!(service = %service.id, class, "released");
                Outcome::Released
            }
            Ok(Released::InProgress {
                retry_after,
                waits_for,
            }) => {
                let work = Work {
                    began,
                    slow: SLOW,
                    event: Event::Deleting,
                };
                let wait = self.announce_if_slow(service, class, work, retry_after);
                let why = progress(waits_for.as_deref());
                let waited = self.waits(service, class, Reason::Releasing, &why);
                let desired = match drained {
                    Some(drained) if waited < EXPLAINED => Desired::draining(
                        service,
                        drained,
                        "The load balancer is being released".to_owned(),
                    ),
                    Some(drained) => Desired::draining(service, drained, why),
                    None if waited < EXPLAINED => return Outcome::Pending(wait),
                    None => Desired::releasing(service, class, served.claim, why),
                };
                outcome_of(
                    &self.publish(service, &desired).await,
                    Outcome::Pending(wait),
                )
            }
            Err(error) => self.failed(served, &error, true).await,
        }
    }

    /// Removes our finalizers and conditions. Returns what the write was, `None` if the Service
    /// no longer exists.
    async fn remove_marks(&self, served: &Served<'_>) -> Result<Option<Step>, WriteError> {
        let Served { service, class, .. } = *served;
        let patch = match served.refusal {
            None => status::released_patch(service, class, Timestamp::now()),
            Some(drained) => status::drained_patch(service, class, drained, Timestamp::now()),
        };
        let Some(patch) = patch else {
            return Ok(Some(Step::New));
        };
        let marks = Marks {
            kind: "release",
            patch: &patch,
            purpose: purpose_of(served),
            left: None,
        };
        let (written, step) = self.mark(service, &marks).await?;
        Ok(matches!(written, Written::Version(_)).then_some(step))
    }

    async fn is_current(&self, service: &ServiceView) -> bool {
        match self.writer.current(&Name::from(&service.id)).await {
            Ok(Some(now)) => *now.uid == *service.id.uid && now.version == service.version,
            Ok(None) | Err(_) => false,
        }
    }

    /// Asks the API server whether the Service is absent: a store that lags behind must not
    /// cause the release of a live Service.
    async fn is_absent(&self, entry: &Entry) -> bool {
        match self.writer.current(&Name::from(&entry.id)).await {
            Ok(now) => now.is_none_or(|now| *now.uid != *entry.id.uid),
            Err(_) => false,
        }
    }

    /// Releases the load balancer of a Service that no longer exists, so there is no status
    /// or event to write.
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
                info!(service = %entry.id, uid = %entry.id.uid, class = &*entry.class, "released after it had vanished");
                self.ledger.forget(&entry.id, &entry.class);
                Outcome::Released
            }
            Ok(Released::InProgress { retry_after, .. }) => Outcome::Pending(retry_after),
            Err(error) => self.provider_failed(&entry.id, &entry.class, &error, provider.traits()),
        }
    }
}

fn purpose_of(served: &Served<'_>) -> Purpose {
    Purpose::of("release", &(served.class, served.refusal))
}

/// Releases one Service from all of these balancers.
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
