//! The phase of a load balancer, as a pure function of the clock.
//!
//! A phase contains the time at which it ends, not a remaining time, so after a restart of
//! the server the same function continues.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// A phase of a load balancer. After `Deleting`, the load balancer is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "phase")]
pub(crate) enum Phase {
    /// Addresses are held, ports are closed.
    Provisioning {
        /// When it becomes active.
        until: Timestamp,
    },
    /// Ports are open.
    Active,
    /// Ports are closed, addresses are still held.
    Deleting {
        /// When it is gone.
        until: Timestamp,
    },
}

/// What happens to a phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The phase continues.
    Stay,
    /// The next phase begins.
    To(Phase),
    /// The load balancer is gone.
    Gone,
}

// === impl Phase ===

impl Phase {
    /// The first phase of a new load balancer.
    pub(crate) fn born(now: Timestamp, latency: Duration) -> Self {
        let until = after(now, latency);
        if until <= now {
            Self::Active
        } else {
            Self::Provisioning { until }
        }
    }

    /// The result of a deletion request. A deletion in progress is not prolonged.
    pub(crate) fn deleted(self, now: Timestamp, latency: Duration) -> Step {
        match self {
            Self::Deleting { .. } => self.step(now),
            Self::Provisioning { .. } | Self::Active => {
                let until = after(now, latency);
                if until <= now {
                    Step::Gone
                } else {
                    Step::To(Self::Deleting { until })
                }
            }
        }
    }

    /// The result of the time that has passed.
    pub(crate) fn step(self, now: Timestamp) -> Step {
        match self {
            Self::Provisioning { until } if until <= now => Step::To(Self::Active),
            Self::Deleting { until } if until <= now => Step::Gone,
            _ => Step::Stay,
        }
    }

    /// When the phase ends.
    pub(crate) const fn deadline(self) -> Option<Timestamp> {
        match self {
            Self::Provisioning { until } | Self::Deleting { until } => Some(until),
            Self::Active => None,
        }
    }
}

fn after(now: Timestamp, latency: Duration) -> Timestamp {
    SignedDuration::try_from(latency)
        .ok()
        .and_then(|latency| now.checked_add(latency).ok())
        .unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn without_latency_there_is_no_waiting() {
        assert_eq!(Phase::born(at(0), Duration::ZERO), Phase::Active);
        assert_eq!(Phase::Active.deleted(at(0), Duration::ZERO), Step::Gone);
    }

    #[test]
    fn the_whole_table_of_steps() {
        let provisioning = Phase::Provisioning { until: at(10) };
        let deleting = Phase::Deleting { until: at(10) };
        for (phase, now, step) in [
            (provisioning, 9, Step::Stay),
            (provisioning, 10, Step::To(Phase::Active)),
            (Phase::Active, 99, Step::Stay),
            (deleting, 9, Step::Stay),
            (deleting, 10, Step::Gone),
        ] {
            assert_eq!(phase.step(at(now)), step, "{phase:?} at {now}");
        }
    }

    #[test]
    fn a_second_deletion_does_not_prolong_the_first() {
        let latency = Duration::from_secs(30);
        let first = Phase::Active.deleted(at(0), latency);
        assert_eq!(first, Step::To(Phase::Deleting { until: at(30) }));
        let Step::To(deleting) = first else { panic!() };
        assert_eq!(deleting.deleted(at(20), latency), Step::Stay);
        assert_eq!(deleting.deleted(at(30), latency), Step::Gone);
    }
}
