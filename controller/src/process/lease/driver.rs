//! The task that carries out the rules of [`super::decide`].
//!
//! Owns the loop, the clock and the published state. There is one task per election, and it is
//! the caller's: [`Election::run`] spawns nothing.
//!
//! Invariants:
//! - The published state stops being [`Leadership::Leading`] no later than the deadline, even
//!   while a call hangs: no call outlasts the deadline.
//! - [`Fence`] closes by the clock alone, so it works even if this task is starved or gone, and
//!   its clock also counts the time for which the machine was suspended.
//! - If the future is dropped while it leads, it publishes [`Leadership::Lost`]. A write may
//!   then still land; it only makes the other candidates wait longer.

use std::future::Future;
use std::time::Duration;

use k8s_openapi::{api::coordination::v1::Lease, jiff::Timestamp};
use nix::time::{ClockId, clock_gettime};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout_at},
};
use tracing::{debug, info, warn};

use super::{
    Config,
    api::{self, CallError, Claim, LeaseApi},
    decide::{Loss, Observed, Record, Role, Step, decide},
};
use crate::process::causes::causes;

/// One candidate's election.
#[derive(Debug)]
pub struct Election<A> {
    api: A,
    config: Config,
    observed: Observed,
    /// The Lease as last read, including the fields of others.
    base: Option<Lease>,
    published: Published,
    /// The start of the last write, and [`Suspended`] at that time.
    begun: Option<(Instant, Duration)>,
    /// When the former holder renewed the Lease last, by its own clock.
    former: Option<Timestamp>,
    wall_clock: fn() -> Timestamp,
    suspended: Suspended,
}

/// How long the machine has been suspended since it started. `Instant` (`CLOCK_MONOTONIC`)
/// stops during a suspension; with it alone, a term that ended long ago would continue after
/// one.
type Suspended = fn() -> Duration;

/// The state that the rest of the process sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leadership {
    /// Not the leader.
    Standby {
        /// The leader, if known.
        holder: Option<String>,
    },
    /// This process is the leader.
    Leading {
        /// The number of this term; it increases with every term unless someone deletes the
        /// Lease.
        epoch: u32,
    },
    /// This process was the leader; it must exit.
    Lost,
}

/// How an election ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By the shutdown; the Lease was released if possible.
    Stopped,
    /// The Lease is lost: the process must exit.
    Lost(Loss),
}

/// Tells by the clock whether this process still leads: the last check before an effect,
/// because the published state can be late.
#[derive(Clone, Debug)]
pub struct Fence {
    term: watch::Receiver<Option<Term>>,
    suspended: Suspended,
}

#[derive(Clone, Copy, Debug)]
struct Term {
    epoch: u32,
    until: Instant,
    /// [`Suspended`] when the term was last renewed.
    suspended: Duration,
    former: Option<Timestamp>,
}

#[derive(Debug)]
struct Published {
    leadership: watch::Sender<Leadership>,
    term: watch::Sender<Option<Term>>,
}

// === impl Election ===

impl<A: LeaseApi> Election<A> {
    /// A candidate. It does nothing until [`Self::run`].
    pub fn new(api: A, config: Config) -> Self {
        Self {
            api,
            config,
            observed: Observed::new(Instant::now()),
            base: None,
            published: Published::new(),
            begun: None,
            former: None,
            wall_clock: Timestamp::now,
            suspended,
        }
    }

    /// Takes the times in the Lease from another clock.
    #[cfg(test)]
    pub(super) fn with_wall_clock(self, wall_clock: fn() -> Timestamp) -> Self {
        Self { wall_clock, ..self }
    }

    /// Simulates a machine that was suspended for this long.
    #[cfg(test)]
    pub(super) fn with_suspended(self, suspended: Suspended) -> Self {
        Self { suspended, ..self }
    }

    /// The state of this candidate, with its changes.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.published.leadership.subscribe()
    }

    /// The check before an effect.
    pub fn fence(&self) -> Fence {
        Fence {
            term: self.published.term.subscribe(),
            suspended: self.suspended,
        }
    }

    /// Takes part until the Lease is lost or `shutdown` completes, then releases it.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) -> Ended {
        info!(
            identity = self.config.identity(),
            "taking part in the election"
        );
        let ended = {
            let follow = self.follow();
            tokio::pin!(follow, shutdown);
            tokio::select! {
                biased;
                () = shutdown => None,
                loss = follow => Some(loss),
            }
        };
        let Some(loss) = ended else {
            self.release().await;
            return Ended::Stopped;
        };
        warn!(%loss, "lost the lease");
        self.published.publish(Leadership::Lost, None);
        Ended::Lost(loss)
    }

    /// Decides and acts until the Lease is lost. Cancel safe: [`Observed`] records a write
    /// before it is sent.
    async fn follow(&mut self) -> Loss {
        loop {
            let now = Instant::now();
            match decide(&self.observed, now, &self.config) {
                Step::Lose(loss) => return loss,
                Step::Wait(until) => sleep_until(until).await,
                Step::Look => self.look().await,
                Step::Write { over, epoch } => self.write(over.is_some(), epoch).await,
            }
            self.publish();
        }
    }

    async fn look(&mut self) {
        self.observed
            .begin(&Step::Look, Instant::now(), &self.config);
        let answer = self.call(self.api.get()).await;
        let seen = answer.and_then(|lease| {
            let record = lease.as_ref().map(api::record).transpose()?;
            Ok((lease, record))
        });
        match seen {
            Ok((lease, record)) => {
                self.observed.looked(record, Instant::now());
                self.base = lease;
            }
            Err(error) => warn!(error = causes(&error), "cannot read the lease"),
        }
    }

    async fn write(&mut self, replace: bool, epoch: u32) {
        let begun = Instant::now();
        self.begun = Some((begun, (self.suspended)()));
        let claim = Claim::Hold {
            identity: self.config.identity(),
            duration: self.config.lease_duration(),
            epoch,
        };
        let base = self.base.as_ref().filter(|_| replace);
        if matches!(self.observed.role(), Role::Standby) {
            let renewed = base.and_then(|lease| lease.spec.as_ref()?.renew_time.as_ref());
            self.former = renewed.map(|at| at.0);
        }
        let lease = api::claim(base, claim, (self.wall_clock)());
        match self.send(lease, replace).await {
            Ok((lease, record)) => {
                self.base = Some(lease);
                self.observed.wrote(record, epoch, begun, Instant::now());
            }
            Err(CallError::Conflict) => {
                debug!("the lease was changed by another");
                self.observed.refused(Instant::now());
            }
            Err(error) => warn!(error = causes(&error), "cannot write the lease"),
        }
    }

    async fn send(&mut self, lease: Lease, replace: bool) -> Result<(Lease, Record), CallError> {
        let step = Step::Write {
            over: None,
            epoch: 0,
        };
        self.observed.begin(&step, Instant::now(), &self.config);
        let lease = if replace {
            self.call(self.api.replace(lease)).await?
        } else {
            self.call(self.api.create(lease)).await?
        };
        let record = api::record(&lease)?;
        Ok((lease, record))
    }

    /// Releases the Lease, so that the next leader need not wait. If that fails, the next
    /// leader waits as after a crash.
    async fn release(&mut self) {
        self.observed.step_down();
        self.published
            .publish(Leadership::Standby { holder: None }, None);
        // The conflict can come from our own last write, if it landed after the read.
        for _ in 0..3 {
            if self.observed.is_stale() {
                self.look().await;
            }
            if self.observed.is_stale() {
                continue;
            }
            if self.observed.holder() != Some(self.config.identity()) {
                return;
            }
            let lease = api::claim(self.base.as_ref(), Claim::Release, (self.wall_clock)());
            match self.send(lease, true).await {
                Ok(_) => return info!("released the lease"),
                Err(error) => {
                    warn!(error = causes(&error), "cannot release the lease");
                }
            }
        }
    }

    /// One call; it ends at its time-out or the deadline, whichever is earlier.
    async fn call<T>(
        &self,
        call: impl Future<Output = Result<T, CallError>>,
    ) -> Result<T, CallError> {
        let now = Instant::now();
        let end = now + self.config.call_timeout();
        let deadline = self.observed.deadline(&self.config).unwrap_or(end);
        timeout_at(end.min(deadline), call)
            .await
            .unwrap_or_else(|_| Err(CallError::TimedOut(now.elapsed())))
    }

    fn publish(&self) {
        let (leadership, term) = match self.observed.role() {
            Role::Standby => {
                let holder = self.observed.holder().map(str::to_owned);
                (Leadership::Standby { holder }, None)
            }
            Role::Leading { epoch, renewed } => {
                let begun = self.begun.filter(|(begun, _)| *begun == renewed);
                let Some((_, suspended)) = begun else {
                    return;
                };
                let term = Term {
                    epoch,
                    until: renewed + self.config.renew_deadline(),
                    suspended,
                    former: self.former,
                };
                // The answer came after the end of its own term.
                if !term.lasts((self.suspended)()) {
                    return;
                }
                (Leadership::Leading { epoch }, Some(term))
            }
        };
        self.published.publish(leadership, term);
    }
}

// === impl Fence ===

impl Fence {
    /// The fence of a process that leads for as long as a test lasts.
    #[cfg(test)]
    pub(crate) fn leading() -> Self {
        let term = Term {
            epoch: 1,
            until: Instant::now() + Duration::from_hours(24),
            suspended: suspended(),
            former: None,
        };
        Self {
            term: watch::channel(Some(term)).1,
            suspended,
        }
    }

    /// The number of the term, if this process leads at this instant.
    pub fn epoch(&self) -> Option<u32> {
        let term = (*self.term.borrow())?;
        term.lasts((self.suspended)()).then_some(term.epoch)
    }

    /// When the former holder of the Lease renewed it last, by its own clock, as this API server knows
    /// it. `None`: nobody held it before.
    pub fn former(&self) -> Option<Timestamp> {
        (*self.term.borrow())?.former
    }
}

// === impl Term ===

impl Term {
    /// Whether the term continues.
    fn lasts(&self, suspended: Duration) -> bool {
        let asleep = suspended.saturating_sub(self.suspended);
        asleep < self.until.saturating_duration_since(Instant::now())
    }
}

fn suspended() -> Duration {
    let read = |clock| clock_gettime(clock).map(Duration::from);
    match (
        read(ClockId::CLOCK_BOOTTIME),
        read(ClockId::CLOCK_MONOTONIC),
    ) {
        (Ok(boot), Ok(monotonic)) => boot.saturating_sub(monotonic),
        // Linux has both clocks since 2.6.39. Without them, no term is valid.
        _ => Duration::MAX,
    }
}

// === impl Published ===

impl Published {
    fn new() -> Self {
        Self {
            leadership: watch::Sender::new(Leadership::Standby { holder: None }),
            term: watch::Sender::new(None),
        }
    }

    fn publish(&self, leadership: Leadership, term: Option<Term>) {
        // The fence first: a task that the state wakes finds it set.
        self.term.send_replace(term);
        self.leadership.send_if_modified(|published| {
            let changed = *published != leadership;
            if changed {
                info!(?leadership, "leadership changed");
                *published = leadership;
            }
            changed
        });
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        let leading = matches!(*self.leadership.borrow(), Leadership::Leading { .. });
        if leading {
            self.publish(Leadership::Lost, None);
        }
    }
}
