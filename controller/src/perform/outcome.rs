//! What became of a step. A value: who acts on it is the queue.

use std::time::Duration;

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
    /// The same, but nothing that another Service gives up can help.
    Parked,
    /// Look again after this time; no failure.
    Pending(Duration),
    /// It failed; back off.
    Failed,
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
