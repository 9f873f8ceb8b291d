//! What became of a step. A value: who acts on it is the queue.

use std::time::Duration;

use ballast_provider::{Reason, Refusal};

use crate::cluster::view::ServiceView;

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
    /// Of a refused Service. What is wrong in its own words only an edit of them mends, and
    /// that wakes it by name; a drain ends with a change of the class, which wakes all; all
    /// else may end with what somebody else gives up.
    pub fn of_refused(service: &ServiceView, refusal: &Refusal) -> Self {
        match &service.load_balancer {
            Some(Err(_)) => Self::Parked,
            Some(Ok(_)) | None if refusal.reason == Reason::Draining => Self::Parked,
            Some(Ok(_)) | None => Self::Waiting,
        }
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    /// 5,000 Services that are refused for their own sake must not be looked at again for
    /// each one that goes; who is refused for a quota, a port or a sharer must.
    #[test]
    fn a_release_wakes_only_whom_it_can_help() {
        let refused = |reason| Refusal::new(reason, "no");
        let own = ServiceView::test("web").refused(Reason::Invalid);
        let invalid = refused(Reason::Invalid);
        assert_eq!(Outcome::of_refused(&own, &invalid), Outcome::Parked);
        let valid = ServiceView::test("web");
        for (reason, expected) in [
            (Reason::QuotaExceeded, Outcome::Waiting),
            (Reason::Draining, Outcome::Parked),
        ] {
            assert_eq!(Outcome::of_refused(&valid, &refused(reason)), expected);
        }
    }
}
