//! Leader election: at most one controller works, and another takes over when it dies.
//!
//! Owns the rules ([`decide`]), the task that carries them out ([`Election::run`]) and the
//! access to the Lease ([`LeaseApi`]). The start-up code runs one election per process, waits
//! for [`Leadership::Leading`] and then starts the leader's tasks.
//!
//! Contract with the caller:
//! - A process that sees [`Leadership::Lost`], or whose [`Election::run`] returns
//!   [`Ended::Lost`], exits. An election leads for at most one term.
//! - At least `lease_duration − renew_deadline` passes between the end of one term and the
//!   start of the next. Every external call is shorter than that, so none is still running when
//!   another process leads.
//! - `shutdown` completes only after the caller has finished its work as leader, because the
//!   release lets the next leader start at once.
//!
//! The rules are client-go's, stricter in four points: a leader measures from the start of its
//! last write, not from the answer; it never leads because it finds its name in the Lease; it
//! loses the Lease when the Lease is deleted; and its identity is unique per process, so that a
//! restarted pod never takes its predecessor for itself.

use std::time::Duration;

mod api;
pub mod decide;
mod driver;
#[cfg(test)]
mod tests;

pub use self::{
    api::{CallError, KubeLease, LeaseApi},
    decide::Loss,
    driver::{Election, Ended, Fence, Leadership},
};

/// The candidate and the times of an election.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    identity: String,
    timing: Timing,
}

/// The three times of an election. The defaults are client-go's: 15 s, 10 s, 2 s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How long after the last renewal another candidate may take over, in whole seconds.
    pub lease_duration: Duration,
    /// How long after the last successful renewal a leader gives up.
    pub renew_deadline: Duration,
    /// How often a leader renews and a candidate reads.
    pub retry_period: Duration,
}

/// An invalid configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The Lease counts in whole seconds.
    #[error("the lease duration must be whole seconds, from 1 s to a day, not {0:?}")]
    LeaseDuration(Duration),
    /// A leader would continue after another candidate may take over.
    #[error("the renew deadline ({renew:?}) must be shorter than the lease duration ({lease:?})")]
    RenewDeadline {
        /// The renew deadline.
        renew: Duration,
        /// The lease duration.
        lease: Duration,
    },
    /// A leader would have no time for a second try.
    #[error(
        "the retry period ({retry:?}) must be above 0 and at most half of the renew deadline ({renew:?})"
    )]
    RetryPeriod {
        /// The retry period.
        retry: Duration,
        /// The renew deadline.
        renew: Duration,
    },
    /// Candidates are distinguished by their names.
    #[error("the name of the candidate is empty")]
    Name,
}

// === impl Config ===

impl Config {
    /// A candidate called `name` (for example the pod's name) with a random suffix: no two
    /// processes share an identity, even after a restart under the same name.
    pub fn new(name: &str, timing: Timing) -> Result<Self, ConfigError> {
        Self::with_identity(format!("{name}_{:016x}", rand::random::<u64>()), timing).and_then(
            |config| {
                (!name.is_empty())
                    .then_some(config)
                    .ok_or(ConfigError::Name)
            },
        )
    }

    fn with_identity(identity: String, timing: Timing) -> Result<Self, ConfigError> {
        timing.validate()?;
        Ok(Self { identity, timing })
    }

    /// The name under which this process holds the Lease.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// See [`Timing::lease_duration`].
    pub fn lease_duration(&self) -> Duration {
        self.timing.lease_duration
    }

    /// See [`Timing::renew_deadline`].
    pub fn renew_deadline(&self) -> Duration {
        self.timing.renew_deadline
    }

    /// See [`Timing::retry_period`].
    pub fn retry_period(&self) -> Duration {
        self.timing.retry_period
    }

    /// How long one call to the API server may take.
    ///
    /// It is a third of the renew deadline, so that a leader can try again when a call hangs.
    /// It is also less than the time between the loss of a term and the next one, so a write
    /// that began just before the loss is over when another process leads. It also ends the
    /// client's own retries, which hide an outage for minutes.
    pub fn call_timeout(&self) -> Duration {
        let Timing {
            lease_duration,
            renew_deadline,
            ..
        } = self.timing;
        let margin = lease_duration.saturating_sub(renew_deadline);
        (renew_deadline / 3).min(margin * 4 / 5)
    }
}

// === impl Timing ===

impl Default for Timing {
    fn default() -> Self {
        Self {
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }
}

impl Timing {
    fn validate(self) -> Result<(), ConfigError> {
        let Self {
            lease_duration: lease,
            renew_deadline: renew,
            retry_period: retry,
        } = self;
        if lease.subsec_nanos() != 0 || !(1..=86_400).contains(&lease.as_secs()) {
            return Err(ConfigError::LeaseDuration(lease));
        }
        if renew >= lease {
            return Err(ConfigError::RenewDeadline { renew, lease });
        }
        if retry.is_zero() || retry > renew / 2 {
            return Err(ConfigError::RetryPeriod { retry, renew });
        }
        Ok(())
    }
}
