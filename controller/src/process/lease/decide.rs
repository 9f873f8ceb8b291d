//! The rules of leader election, without a clock, a task or I/O.
//!
//! Owns what one candidate knows ([`Observed`]) and what it does next ([`decide`]);
//! [`super::driver`] passes in the answers of the API server and carries out the steps.
//!
//! These invariants ensure that no two candidates lead at the same instant, as long as their
//! monotonic clocks run at about the same rate (`lease_duration` minus `renew_deadline` is the
//! margin) and nobody else edits the Lease:
//! - Only local monotonic times are compared. A Lease expires when this candidate has seen its
//!   resource version unchanged for as long as its holder promised.
//! - A leader measures from the *start* of its last successful write. The write landed later
//!   than that, so every other candidate measures from a later time.
//! - A write always replaces the last seen version, and after a write of unknown outcome
//!   nothing is written before the Lease was read again.
//! - A candidate leads only after a successful write of its own, never because it finds its
//!   name in the Lease.

use std::time::Duration;

use tokio::time::Instant;

use super::Config;

/// What one candidate knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    role: Role,
    seen: Option<Seen>,
    /// The outcome of a write is unknown, or the version is known to be old: read first.
    stale: bool,
    /// The earliest time of the next read.
    look_at: Instant,
    /// The earliest time of the next write.
    write_at: Instant,
}

/// Whether this candidate leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Another candidate leads, or none.
    Standby,
    /// This candidate leads.
    Leading {
        /// The number of the term: the Lease's `leaseTransitions`.
        epoch: u32,
        /// When the last successful write began.
        renewed: Instant,
    },
}

/// The Lease, and since when this candidate has seen it unchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    record: Option<Record>,
    since: Instant,
}

/// The relevant part of a Lease; `Option::None` if there is no Lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The resource version, which guards the next write.
    pub version: String,
    /// The holder; `None` after a release.
    pub holder: Option<String>,
    /// How long the holder may go without a renewal, as it promised.
    pub duration: Option<Duration>,
    /// How often the holder changed.
    pub transitions: u32,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Do nothing before this time.
    Wait(Instant),
    /// Read the Lease.
    Look,
    /// Write the Lease in place of the given version; create it if there is none.
    Write {
        /// The version to replace.
        over: Option<String>,
        /// The number of the term that the write begins or continues.
        epoch: u32,
    },
    /// Stop leading, for good.
    Lose(Loss),
}

/// Why a leader lost its Lease.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Loss {
    /// No write succeeded before the renew deadline.
    #[error("could not renew the lease before the deadline")]
    Deadline,
    /// Another process wrote the Lease.
    #[error("the lease was taken by {by:?}")]
    Taken {
        /// The new holder, if any.
        by: Option<String>,
    },
    /// The Lease was deleted.
    #[error("the lease was deleted")]
    Deleted,
}

/// What this candidate does at `now`.
pub fn decide(observed: &Observed, now: Instant, config: &Config) -> Step {
    match observed.role {
        Role::Leading { epoch, renewed } => lead(observed, epoch, renewed, now, config),
        Role::Standby => stand_by(observed, now, config),
    }
}

fn lead(observed: &Observed, epoch: u32, renewed: Instant, now: Instant, config: &Config) -> Step {
    let deadline = renewed + config.renew_deadline();
    if now >= deadline {
        return Step::Lose(Loss::Deadline);
    }
    let record = match &observed.seen {
        Some(Seen { record: None, .. }) => return Step::Lose(Loss::Deleted),
        Some(Seen {
            record: Some(record),
            ..
        }) => record,
        None => return read(observed, now, deadline),
    };
    if !is_ours(record, config) {
        return Step::Lose(Loss::Taken {
            by: record.holder.clone(),
        });
    }
    if observed.stale {
        return read(observed, now, deadline);
    }
    if now < observed.write_at {
        return Step::Wait(observed.write_at.min(deadline));
    }
    Step::Write {
        over: Some(record.version.clone()),
        epoch,
    }
}

fn stand_by(observed: &Observed, now: Instant, config: &Config) -> Step {
    let (Some(seen), false) = (&observed.seen, observed.stale) else {
        return read(observed, now, observed.look_at);
    };
    let free_at = seen.free_at(config);
    if now < free_at {
        return read(observed, now, free_at);
    }
    if now < observed.write_at {
        return Step::Wait(observed.write_at);
    }
    let Some(record) = &seen.record else {
        return Step::Write {
            over: None,
            epoch: 0,
        };
    };
    // The Lease names us already: a take-over whose answer was lost. Same term, but we do not
    // lead yet.
    let epoch = if is_ours(record, config) {
        record.transitions
    } else {
        record.transitions.saturating_add(1)
    };
    Step::Write {
        over: Some(record.version.clone()),
        epoch,
    }
}

fn read(observed: &Observed, now: Instant, latest: Instant) -> Step {
    if now < observed.look_at {
        Step::Wait(observed.look_at.min(latest))
    } else {
        Step::Look
    }
}

fn is_ours(record: &Record, config: &Config) -> bool {
    record.holder.as_deref() == Some(config.identity())
}

// === impl Observed ===

impl Observed {
    /// A candidate that has seen nothing yet.
    pub fn new(now: Instant) -> Self {
        Self {
            role: Role::Standby,
            seen: None,
            stale: false,
            look_at: now,
            write_at: now,
        }
    }

    /// Whether this candidate leads.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The holder, if known.
    pub fn holder(&self) -> Option<&str> {
        self.record()?.holder.as_deref()
    }

    /// The Lease as last read.
    pub fn record(&self) -> Option<&Record> {
        self.seen.as_ref()?.record.as_ref()
    }

    /// Whether the Lease may name us without our knowing.
    pub fn is_stale(&self) -> bool {
        self.stale
    }

    /// The deadline for a leader's next successful write.
    pub fn deadline(&self, config: &Config) -> Option<Instant> {
        match self.role {
            Role::Leading { renewed, .. } => Some(renewed + config.renew_deadline()),
            Role::Standby => None,
        }
    }

    /// Records that a read or write begins. Until it is answered nothing is known, even if it
    /// is cancelled: a write may land without an answer.
    pub fn begin(&mut self, step: &Step, now: Instant, config: &Config) {
        match step {
            Step::Look => self.look_at = now + config.retry_period(),
            Step::Write { .. } => {
                self.stale = true;
                self.write_at = now + config.retry_period();
                self.look_at = self.write_at;
            }
            Step::Wait(_) | Step::Lose(_) => {}
        }
    }

    /// Records a read that was answered at `now`.
    pub fn looked(&mut self, record: Option<Record>, now: Instant) {
        self.stale = false;
        self.see(record, now);
    }

    /// Records a write that began at `begun` and succeeded at `now`.
    pub fn wrote(&mut self, record: Record, epoch: u32, begun: Instant, now: Instant) {
        self.stale = false;
        self.role = Role::Leading {
            epoch,
            renewed: begun,
        };
        self.see(Some(record), now);
    }

    /// Records a conflict at `now`: the Lease has changed since it was read.
    pub fn refused(&mut self, now: Instant) {
        self.look_at = now;
    }

    /// Stops leading.
    pub fn step_down(&mut self) {
        self.role = Role::Standby;
    }

    fn see(&mut self, record: Option<Record>, now: Instant) {
        match &self.seen {
            // The same version of the same Lease: its time continues.
            Some(seen) if seen.record == record => {}
            _ => self.seen = Some(Seen { record, since: now }),
        }
    }
}

// === impl Seen ===

impl Seen {
    /// When any candidate may write.
    fn free_at(&self, config: &Config) -> Instant {
        match &self.record {
            Some(record) if record.holder.is_some() && !is_ours(record, config) => {
                self.since + record.duration.unwrap_or(config.lease_duration())
            }
            _ => self.since,
        }
    }
}
