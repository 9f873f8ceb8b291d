//! The outcome of a step, which decides when the queue returns the Service.

use std::time::Duration;

use ballast_provider::{Reason, Refusal};

use crate::cluster::view::ServiceView;

/// The outcome of one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing was to be done.
    Ignored,
    /// The load balancer is as desired.
    Ensured,
    /// The load balancer is released.
    Released,
    /// A change of the Service, its class or another Service wakes it.
    Waiting,
    /// A change of the Service or its class wakes it; no release of another Service can help.
    Parked,
    /// Look again after this time. This is not a failure.
    Pending(Duration),
    /// It failed. Try again with back-off.
    Failed,
}

// === impl Outcome ===

impl Outcome {
    /// The outcome for a refused Service. An invalid spec is fixed only by editing it, and the
    /// edit wakes the Service. A drain ends with a change of the class, which wakes all its
    /// Services. All other refusals can end when another Service is released.
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

    /// Of the outcomes of two steps for one name, the one that is looked at sooner.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let urgency = |outcome: Self| match outcome {
            Self::Ignored => 0,
            Self::Ensured => 1,
            Self::Released => 2,
            Self::Parked => 3,
            // Only a Service whose outcome is this one is woken by what becomes free.
            Self::Waiting => 4,
            Self::Pending(_) => 5,
            Self::Failed => 6,
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

    /// 5,000 Services with an invalid spec must not be looked at again for each release.
    /// Services that are refused because of a quota or a port must be.
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

    /// The release of an earlier Service of this name must not hide that this one waits.
    #[test]
    fn a_waiting_service_is_not_forgotten_beside_a_release() {
        for other in [Outcome::Ignored, Outcome::Released, Outcome::Parked] {
            assert_eq!(other.and(Outcome::Waiting), Outcome::Waiting);
            assert_eq!(Outcome::Waiting.and(other), Outcome::Waiting);
        }
    }
}
