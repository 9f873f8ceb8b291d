//! What became of the capacity that a load balancer reserves. Pure.
//!
//! AWS refuses a reservation for reasons that only people or time can change, such as a quota. So a refusal
//! ends no turn: the Service says it, and is tried again with growing pauses.

use std::time::Duration;

use ballast_provider::{Reason, Refusal};
use tokio::time::Instant;

use super::execute::error;
use crate::call::Call;
use crate::client::{CallError, Cause};
use crate::observed::ObservedLoadBalancer;

/// The first and the longest pause after a refusal.
const PAUSE: (Duration, Duration) = (Duration::from_mins(1), Duration::from_hours(1));
/// AWS's code for capacity that it does not have. It comes with the status of a failure.
const TOO_LITTLE: &str = "InsufficientCapacity";

/// The reservation of one load balancer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Capacity {
    tried: Option<Tried>,
    /// When the Service needs a turn for it, once its load balancer is active.
    due: Option<Instant>,
    /// None is wanted, and none is there: nobody needs to ask AWS.
    none: bool,
}

/// The last try.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Tried {
    units: Option<u32>,
    /// Not again before.
    due: Instant,
    pause: Duration,
    refused: Option<Refused>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Refused {
    /// AWS still works on the reservation before.
    Pending(String),
    Refused(Refusal),
}

// === impl Capacity ===

impl Capacity {
    /// The Service wants so many units.
    pub(super) const fn want(&mut self, units: Option<u32>) {
        self.none &= units.is_none();
    }

    /// The load balancer has what it wants, or `there` as far as that is known.
    pub(super) fn settle(&mut self, units: Option<u32>, there: Option<&ObservedLoadBalancer>) {
        let has = there.is_some_and(|one| one.reservation.is_some());
        self.none = units.is_none() && !has;
    }

    /// Whether looks leave out the reservation.
    pub(super) const fn is_none(&self) -> bool {
        self.none
    }

    /// Until when AWS is not asked for so many units, because it has just refused or failed.
    pub(super) fn waits(
        &self,
        units: Option<u32>,
        there: Option<&ObservedLoadBalancer>,
        now: Instant,
    ) -> Option<Instant> {
        let tried = self.tried.as_ref().filter(|it| it.units == units)?;
        let failed = failure(there).is_some() || tried.refused.is_some();
        (failed && now < tried.due).then_some(tried.due)
    }

    /// A plan says whether the reservation must wait.
    pub(super) fn planned(&mut self, waits: bool, until: Option<Instant>, now: Instant) {
        self.due = waits.then(|| until.unwrap_or(now));
        if !waits && let Some(tried) = &mut self.tried {
            tried.refused = None;
        }
    }

    /// AWS has accepted the call.
    pub(super) fn made(&mut self, call: &Call, now: Instant) {
        if let Call::ModifyCapacityReservation { units, .. } = call {
            let (_, pause) = PAUSE;
            self.tried = Some(Tried {
                units: *units,
                due: now + pause,
                pause,
                refused: None,
            });
        }
    }

    /// AWS has refused the call. False if it is another one, or the failure is none of the reservation.
    pub(super) fn refused(&mut self, call: &Call, why: &CallError, now: Instant) -> bool {
        let Call::ModifyCapacityReservation { units, .. } = call else {
            return false;
        };
        let other = matches!(why.cause, Cause::Throttled { .. } | Cause::NotFound);
        if other || (why.cause.uncertain() && why.code != TOO_LITTLE) {
            return false;
        }
        let (first, longest) = PAUSE;
        let before = self.tried.as_ref().filter(|it| it.units == *units);
        let pause = before.map_or(first, |it| (it.pause * 2).min(longest));
        self.due = Some(now + pause);
        self.tried = Some(Tried {
            units: *units,
            due: now + pause,
            pause,
            refused: Some(Refused::of(*units, why)),
        });
        true
    }

    /// When the Service needs a turn for it.
    pub(super) const fn due(&self) -> Option<Instant> {
        self.due
    }

    /// What its owner should know.
    pub(super) fn remark(&self) -> Option<String> {
        match self.tried.as_ref()?.refused.as_ref()? {
            Refused::Pending(text) => Some(text.clone()),
            Refused::Refused(_) => None,
        }
    }

    /// Why the load balancer has not what its Services want.
    pub(super) fn objection(&self, there: Option<&ObservedLoadBalancer>) -> Option<Refusal> {
        let tried = self.tried.as_ref().and_then(|it| it.refused.as_ref());
        if let Some(Refused::Refused(refusal)) = tried {
            return Some(refusal.clone());
        }
        let (units, why) = failure(there).filter(|_| self.due.is_some())?;
        Some(Refusal::new(
            Reason::CloudError,
            format!(
                "minimum-load-balancer-capacity: AWS could not reserve {units} capacity units, in {why}. Ballast asks again each hour; everything else is as it should be"
            ),
        ))
    }
}

// === impl Refused ===

impl Refused {
    fn of(units: Option<u32>, why: &CallError) -> Self {
        if why.cause == Cause::InUse {
            let then = units.map_or_else(
                || "it is cancelled".to_owned(),
                |units| format!("{units} units are asked for"),
            );
            return Self::Pending(format!(
                "minimum-load-balancer-capacity: AWS still works on the former reservation, which can take hours; {then} after that"
            ));
        }
        let what = units.map_or_else(
            || "the reservation stays, and costs money".to_owned(),
            |units| format!("{units} capacity units are not reserved"),
        );
        let error = error(why);
        Self::Refused(Refusal::new(
            error.reason(),
            format!(
                "minimum-load-balancer-capacity: {what}; everything else is as it should be. {error}"
            ),
        ))
    }
}

/// The units that AWS could not provide, and why.
fn failure(there: Option<&ObservedLoadBalancer>) -> Option<(u32, &str)> {
    let reservation = there?.reservation.as_ref()?;
    Some((reservation.units, reservation.failed.as_deref()?))
}
