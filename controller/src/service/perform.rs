//! Performs the step that [`crate::service::decide`] chose. Only this module writes Services
//! and ensures or releases load balancers. (The task of a class sets its targets:
//! [`crate::class::instance`].) The order of effects makes every step safe:
//!
//! - Ensure: place in the ledger, finalizers, provider, status (invariants 1, 2, 5). A Service
//!   leaves its former balancer only when traffic flows through the new one.
//! - Release: provider, finalizers, ledger. With [`Traits::unpublish_first`]: status and
//!   finalizers, provider, ledger, because a published address must not be free.
//!
//! After a crash between two effects, the next decision is the same step again. The caller
//! holds the lock of every balancer that the decision names ([`KeyLocks`]). Cancelling a call
//! has the same effect as a crash.

mod apply;
mod locks;
mod outcome;
mod release;
mod shares;
mod waits;
mod write;

use std::sync::Arc;
use std::time::Duration;

use ballast_provider::{
    Address, Balancer, Key, Member, Observed, Provider, ProviderError, Refusal, ServiceId, State,
    Traits,
};
use jiff::Timestamp;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tracing::warn;

use crate::class::Classes;
use crate::cluster::eligibility::{Backing, Eligible};
use crate::cluster::ledger::Ledger;
use crate::cluster::metrics::{ProviderMetrics, ServiceMetrics};
use crate::cluster::store::Store;
use crate::cluster::view::{Name, ServiceView};
use crate::cluster::writer::{WriteError, Writer, Written};
use crate::process::queue::Queue;
use crate::service::contests::{Contests, Purpose};
use crate::service::decide::{Decision, Keep, quota_exceeded};
use crate::service::deletion::Deletions;
use crate::service::gates::{self, Gates};
use crate::service::missing::Missing;
use crate::service::recorder::Recorder;
use crate::service::status::{self, Desired, Event};
use crate::service::times::Times;

pub use self::locks::{KeyLocks, Turn, places};
pub use self::outcome::Outcome;
use self::write::Marks;

/// Work that takes longer than this gets an event.
const SLOW: Duration = Duration::from_secs(2);
/// The same for a Service that has a host name. A cloud that gives one needs minutes, which is no news,
/// and the name shows that work goes on.
const SLOW_WITH_NAME: Duration = Duration::from_mins(5);
/// How long to wait for a store that lags behind the API server.
const STALE_RETRY: Duration = Duration::from_secs(1);
/// How long to wait for a place that is taken but not counted, or a class that closes.
const PLACE_RETRY: Duration = Duration::from_secs(1);
/// After this time a pending load balancer is looked at, in case a change was lost.
const SAFETY_RETRY: Duration = Duration::from_secs(30);

/// Performs decisions.
pub struct Performer {
    /// Writes Services.
    pub writer: Writer,
    /// The Services, as watched.
    pub services: Arc<Store<Name, ServiceView>>,
    /// Sends events.
    pub recorder: Recorder,
    /// Remembers which Services have effects.
    pub ledger: Arc<Ledger>,
    /// The eligible nodes; read only to know whether there is one.
    pub targets: watch::Receiver<Eligible>,
    /// Notified when a Service waits for its class to become usable.
    pub finalizer_requested: Arc<Notify>,
    /// Counts reconciles and addresses.
    pub metrics: ServiceMetrics,
    /// Counts failed calls.
    pub provider_metrics: ProviderMetrics,
    /// Serialises Services that share a balancer.
    pub locks: KeyLocks,
    /// Where the other members of a balancer are woken when it reports something new.
    pub queue: Queue<Name>,
    /// The Services whose pool has not arrived.
    pub pool_missing: Missing,
    /// Since when each release has waited.
    pub deletions: Deletions,
    /// Slows down writes that somebody else keeps undoing.
    pub contests: Contests,
    /// The times of conditions.
    pub times: Times,
    /// Opens the readiness gates of pods, if that is wanted.
    pub gates: Option<Gates>,
}

/// A Service with the class that serves it.
#[derive(Clone, Copy)]
struct Served<'a> {
    service: &'a ServiceView,
    class: &'a str,
    /// The class that serves it now; another one if it is released from `class`.
    claim: Option<&'a str>,
    provider: &'a dyn Provider,
    /// Why it is refused: the part that was accepted before is kept or, if its class is
    /// drained, released.
    refusal: Option<&'a Refusal>,
    /// It moves from another balancer, and traffic still flows through that one.
    moves: bool,
}

/// What the provider is asked for.
#[derive(Clone, Copy)]
struct Request<'a> {
    balancer: &'a Balancer,
    /// The same with less of the other members, in this order, if it is refused.
    fallbacks: &'a [Balancer],
}

/// What it reported, and for which member.
struct Report<'a> {
    key: &'a Key,
    member: &'a Member,
    observed: Observed,
}

/// Work that goes on.
struct Work {
    began: Instant,
    /// The time after which it is slow.
    slow: Duration,
    /// The event that says so.
    event: Event,
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
            Decision::Ignore => {
                self.releases_nothing(service);
                Outcome::Ignored
            }
            Decision::Later(wait) => Outcome::Pending(wait),
            Decision::Clean => self.clean(service).await,
            Decision::Refuse {
                refusal,
                keep,
                provisional,
            } => {
                self.releases_nothing(service);
                let refused = self.refuse(service, &refusal, keep.as_ref()).await;
                if provisional {
                    self.look_again(service);
                }
                refused
            }
            Decision::Wait {
                class,
                why,
                drained,
            } => match why {
                None => {
                    self.finalizer_requested.notify_one();
                    Outcome::Waiting
                }
                Some(why) => {
                    let claim = classes.claim(service);
                    let mut desired =
                        Desired::waiting(service, &class, claim, &why, drained.as_ref());
                    if claim == Some(&class) && drained.is_none() {
                        self.releases_nothing(service);
                    } else {
                        self.waits(service, &class, why.reason, &why.message);
                        desired = desired.explained(service, &class, Timestamp::now());
                    }
                    outcome_of(&self.publish(service, &desired).await, Outcome::Waiting)
                }
            },
            Decision::Ensure {
                class,
                provider,
                balancer,
                fallbacks,
                objection,
                leaves,
                removal,
                max,
            } => {
                self.releases_nothing(service);
                let key = &balancer.key;
                if !self.ledger.reserve(&service.id, &class, key, max) {
                    return self.refuse_without_place(service, &class, classes).await;
                }
                let served = Served {
                    service,
                    class: &class,
                    claim: Some(&class),
                    provider: provider.as_ref(),
                    refusal: objection.as_ref(),
                    moves: !leaves.is_empty(),
                };
                let request = Request {
                    balancer: &balancer,
                    fallbacks: &fallbacks,
                };
                let ensured = self.ensure(&served, request).await;
                if ensured != Outcome::Ensured {
                    return ensured;
                }
                let provider = provider.as_ref();
                let left = self.leave(&service.id, &class, provider, &leaves, removal);
                let ensured = ensured.and(left.await);
                match objection {
                    Some(_) => ensured.and(Outcome::Waiting),
                    None => ensured,
                }
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
                    claim: classes.claim(service),
                    provider: provider.as_ref(),
                    refusal: drained.as_ref(),
                    moves: false,
                };
                self.release(&served, &keys, removal).await
            }
        }
    }

    /// Keeps the existing load balancer up to date, and publishes its state.
    async fn refuse(
        &self,
        service: &ServiceView,
        refusal: &Refusal,
        keep: Option<&Keep>,
    ) -> Outcome {
        let desired = Desired::refused(service, refusal, keep.is_some());
        let now = Timestamp::now();
        let written = self.publish_over(service, &desired, None, now).await;
        let refused = outcome_of(&written, Outcome::of_refused(service, refusal));
        let Some(keep) = keep else { return refused };
        let service = match written {
            Ok(Written::Version(version)) => {
                let message = self.contests.message(service, Instant::now());
                ServiceView {
                    version,
                    ..desired.with_contest(message).applied_to(service, now)
                }
            }
            // Its load balancer is kept up to date all the same.
            Err(WriteError::Contested { .. }) => service.clone(),
            Ok(Written::Gone) | Err(_) => return refused,
        };
        let served = Served {
            service: &service,
            class: &keep.class,
            claim: Some(&keep.class),
            provider: keep.provider.as_ref(),
            refusal: Some(refusal),
            moves: false,
        };
        let request = Request {
            balancer: &keep.balancer,
            fallbacks: &keep.fallbacks,
        };
        refused.and(self.apply(&served, request).await)
    }

    /// Between decision and reservation, another Service took the place or the class closed.
    async fn refuse_without_place(
        &self,
        service: &ServiceView,
        class: &str,
        classes: &Classes,
    ) -> Outcome {
        let full = classes.get(class).and_then(|view| Some((view, view.max?)));
        match full {
            Some((view, max)) if self.ledger.places(class) >= max => {
                let all = self.services.all();
                let refusal = quota_exceeded(service, view, max, &all, &|other| {
                    self.ledger.has_place(&other.id, &view.name)
                });
                let desired = Desired::refused(service, &refusal, false);
                if self.ledger.refuses_any(class) {
                    self.look_again(service);
                }
                outcome_of(&self.publish(service, &desired).await, Outcome::Waiting)
            }
            _ => Outcome::Pending(PLACE_RETRY),
        }
    }

    /// Queues a Service that waits for a place. It is also told when a place becomes free. But a
    /// Service that the provider refuses has a place during each try, and that tells nobody.
    fn look_again(&self, service: &ServiceView) {
        let name = Name::from(&service.id);
        self.queue.add_after(name, SAFETY_RETRY);
    }

    async fn ensure(&self, served: &Served<'_>, request: Request<'_>) -> Outcome {
        let now = Timestamp::now();
        let mut service = served.service.clone();
        let class = served.class;
        // A Service without a class has the standard finalizer, whichever class serves it.
        let held = served.provider.traits().finalizer || service.class.is_none();
        if let Some(patch) = status::finalizer_patch(&service, class, now).filter(|_| held) {
            let left = status::with_finalizers(&service, class, now);
            let marks = Marks {
                kind: "finalizer",
                patch: &patch,
                purpose: Purpose::of("finalizer", &class),
                left: Some(&left),
            };
            match self.mark(&service, &marks).await {
                Ok((Written::Version(version), _)) => {
                    service = ServiceView { version, ..left };
                }
                written => {
                    let written = written.map(|(written, _)| written);
                    return outcome_of(&written, Outcome::Waiting);
                }
            }
        }
        let served = Served {
            service: &service,
            ..*served
        };
        self.apply(&served, request).await
    }

    async fn observed(&self, served: &Served<'_>, report: &Report<'_>, began: Instant) -> Outcome {
        let Served { service, class, .. } = *served;
        let observed = &report.observed;
        let traits = served.provider.traits();
        let backing = match &report.member.endpoints {
            Some(pods) => Backing::of_pods(pods),
            None => self.targets.borrow().backing(traits.exclusion),
        };
        let mut desired = Desired::observed(service, class, observed, backing);
        let missing = self.wait_for_pool(served, observed.objection.as_ref());
        if let Some(wait) = missing {
            if service.ingress.is_empty() {
                return Outcome::Pending(wait);
            }
            // The rest does not wait.
            desired.accepted = None;
        }
        let desired = desired.with_refusal(served.refusal);
        let arrived = !served.moves || observed.state == State::Programmed;
        let desired = if arrived {
            desired
        } else {
            desired.without_new_address(service)
        };
        // The other members must not get a port that this one may publish, even if the store
        // does not show it yet.
        let publishes = desired.ingress.is_some();
        if publishes {
            let (key, accepted) = (report.key, &report.member.load_balancer);
            self.ledger.publishing(key, class, accepted);
        }
        // The store can be stale: an address must not overwrite a version that this process
        // has not seen. (The fence prevents that two leaders assign one address twice.)
        let guarded = traits.claim_over_version && desired.claims(service);
        let over = guarded.then_some(service.version);
        let now = Timestamp::now();
        let held = match self.publish_over(service, &desired, over, now).await {
            Ok(Written::Version(_)) => Outcome::Ignored,
            // What follows does not wait for the other writer.
            Err(WriteError::Contested { retry_after }) => Outcome::Pending(retry_after),
            written => return outcome_of(&written, Outcome::Waiting),
        };
        if publishes && held == Outcome::Ignored {
            let (key, accepted) = (report.key, &report.member.load_balancer);
            self.ledger.published(key, class, accepted);
        }
        if report.member.endpoints.is_some()
            && let Some(gates) = &self.gates
            && gates.open(&service.id, observed.healthy.as_ref()).await
        {
            let name = Name::from(&service.id);
            self.queue.add_after(name, gates::RETRY);
        }
        let addressed = held == Outcome::Ignored && !observed.ingress.is_empty();
        if addressed && service.ingress.is_empty() {
            self.metrics.addressed(
                &Name::from(&service.id),
                Instant::now().into_std(),
                age(service),
            );
        }
        let held = held.and(missing.map_or(Outcome::Ignored, Outcome::Pending));
        held.and(match &observed.state {
            State::Programmed => {
                self.ledger.finished(&service.id, class);
                Outcome::Ensured
            }
            State::Pending {
                retry_after: None, ..
            } if traits.wakes_waiting => Outcome::Parked,
            State::Pending { retry_after, .. } => {
                let wait = retry_after.unwrap_or(SAFETY_RETRY);
                let mut entries = observed.ingress.iter().chain(&service.ingress);
                let named = entries.any(|it| matches!(it.address, Address::Hostname(_)));
                let work = Work {
                    began,
                    slow: if named { SLOW_WITH_NAME } else { SLOW },
                    event: Event::Ensuring,
                };
                Outcome::Pending(self.announce_if_slow(service, class, work, wait))
            }
        })
    }

    /// `releases`: what failed is the release of the Service.
    async fn failed(&self, served: &Served<'_>, error: &ProviderError, releases: bool) -> Outcome {
        let Served { service, class, .. } = *served;
        let outcome = self.provider_failed(&service.id, class, error, served.provider.traits());
        let now = Timestamp::now();
        let mut desired = Desired::failed(service, class, served.claim, error, now);
        if releases {
            self.waits(service, class, error.reason(), &error.to_string());
            desired = desired.explained(service, class, now);
        }
        let desired = desired.with_refusal(served.refusal);
        match self.publish(service, &desired).await {
            Err(error @ WriteError::Contested { .. }) => {
                outcome.and(outcome_of(&Err(error), outcome))
            }
            Err(error) => outcome_of(&Err(error), Outcome::Failed),
            Ok(_) => outcome,
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

    /// Sends one event if the work is slow. Returns when to look again.
    fn announce_if_slow(
        &self,
        service: &ServiceView,
        class: &str,
        work: Work,
        wait: Duration,
    ) -> Duration {
        let elapsed = work.began.elapsed();
        if elapsed < work.slow {
            return wait.min(work.slow.saturating_sub(elapsed));
        }
        if self.ledger.announce_slow(&service.id, class) {
            self.recorder.event(&service.id, work.event);
        }
        wait
    }
}

/// The age of a Service. Its creation time is in whole seconds.
fn age(service: &ServiceView) -> Duration {
    let age = Timestamp::now().duration_since(service.created);
    age.try_into().unwrap_or_default()
}

/// The outcome, if the write succeeded. After a conflict or a deletion the watch delivers
/// the change, and the Service is looked at again.
fn outcome_of(written: &Result<Written, WriteError>, outcome: Outcome) -> Outcome {
    match written {
        Ok(Written::Version(_)) => outcome,
        Ok(Written::Gone) | Err(WriteError::Conflict) => Outcome::Waiting,
        Err(WriteError::Contested { retry_after }) => Outcome::Pending(*retry_after),
        Err(_) => Outcome::Failed,
    }
}
