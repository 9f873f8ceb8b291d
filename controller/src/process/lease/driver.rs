//! The task that follows the rules of [`super::decide`].
//!
//! Owns the loop, the clock and what is published. There is one task per election, the
//! caller's: [`Election::run`] spawns nothing.
//!
//! Invariants:
//! - What is published as leading ends no later than the deadline, even while a call
//!   hangs: no call outlasts it.
//! - [`Fence`] ends by the clock alone, so it holds even if this task is starved or gone.
//! - Dropping the future publishes [`Leadership::Lost`] if it led. A write may then
//!   still land; it only makes the others wait longer.

use std::future::Future;

use k8s_openapi::{api::coordination::v1::Lease, jiff::Timestamp};
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
    /// The Lease as last seen, with all that is not ours.
    base: Option<Lease>,
    published: Published,
    wall_clock: fn() -> Timestamp,
}

/// What the rest of the process is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leadership {
    /// Not the leader.
    Standby {
        /// Who is, as far as known.
        holder: Option<String>,
    },
    /// The leader.
    Leading {
        /// The number of this term; it grows with every term, as long as nobody deletes
        /// the Lease.
        epoch: u32,
    },
    /// Was the leader; the process must exit.
    Lost,
}

/// How an election ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By the shutdown; the Lease is released if it could be.
    Stopped,
    /// The Lease is lost: the process must exit.
    Lost(Loss),
}

/// Tells whether this process still leads, by the clock: for the last check before an
/// effect, where the published state may be late.
#[derive(Clone, Debug)]
pub struct Fence {
    term: watch::Receiver<Option<Term>>,
}

#[derive(Clone, Copy, Debug)]
struct Term {
    epoch: u32,
    until: Instant,
}

#[derive(Debug)]
struct Published {
    leadership: watch::Sender<Leadership>,
    term: watch::Sender<Option<Term>>,
}

// === impl Election ===

impl<A: LeaseApi> Election<A> {
    /// A candidate that does nothing until it is run.
    pub fn new(api: A, config: Config) -> Self {
        Self {
            api,
            config,
            observed: Observed::new(Instant::now()),
            base: None,
            published: Published::new(),
            wall_clock: Timestamp::now,
        }
    }

    /// Writes times of another clock into the Lease.
    #[cfg(test)]
    pub(super) fn with_wall_clock(self, wall_clock: fn() -> Timestamp) -> Self {
        Self { wall_clock, ..self }
    }

    /// The state of this candidate, now and as it changes.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.published.leadership.subscribe()
    }

    /// The check before an effect.
    pub fn fence(&self) -> Fence {
        Fence {
            term: self.published.term.subscribe(),
        }
    }

    /// Takes part until the lease is lost or `shutdown` completes; then releases it.
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

    /// Decides and acts until the lease is lost. Cancel safe: [`Observed`] knows of a
    /// write from before it is sent.
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
        let claim = Claim::Hold {
            identity: self.config.identity(),
            duration: self.config.lease_duration(),
            epoch,
        };
        let base = self.base.as_ref().filter(|_| replace);
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

    /// Gives up the lease, so that the next leader need not wait. If that fails, the
    /// next leader waits as after a crash.
    async fn release(&mut self) {
        self.observed.step_down();
        self.published
            .publish(Leadership::Standby { holder: None }, None);
        // A conflict can come from our own last write, if it landed after the look.
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

    /// One call, ended by its time-out or by the deadline, whichever is earlier.
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
                let until = renewed + self.config.renew_deadline();
                // Late by itself: an answer that comes after the end of its own term.
                if Instant::now() >= until {
                    return;
                }
                (Leadership::Leading { epoch }, Some(Term { epoch, until }))
            }
        };
        self.published.publish(leadership, term);
    }
}

// === impl Fence ===

impl Fence {
    /// The number of the term, if this process leads at this instant.
    pub fn epoch(&self) -> Option<u32> {
        let term = (*self.term.borrow())?;
        (Instant::now() < term.until).then_some(term.epoch)
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
        // First the fence: whoever is woken by the state finds it in place.
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
