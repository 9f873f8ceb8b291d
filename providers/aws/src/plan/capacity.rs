//! The capacity that is reserved for the load balancer. Pure.
//!
//! AWS takes the call only for a load balancer that is active, and may refuse it for long. It holds up nothing else: a
//! reservation comes after everything else, and the load balancer does not count as applied without it. One that is
//! cancelled goes before listeners get TLS, because AWS has no reservation for those.

use super::Situation;
use crate::call::{Call, Ref};
use crate::desired::Desired;
use crate::observed::{ObservedLoadBalancer, Reservation};

/// What is to be done.
pub(super) enum Step {
    /// It is right.
    Nothing,
    /// It is wrong, and nothing can be done yet.
    Wait,
    /// Before the listeners.
    Cancel(Call),
    /// After everything else.
    Reserve(Call),
}

pub(super) fn step(
    desired: &Desired,
    situation: &Situation,
    present: Option<&ObservedLoadBalancer>,
) -> Step {
    let there = present.and_then(|one| one.reservation.as_ref());
    let units = desired.capacity;
    let failed = there.is_some_and(|it| it.failed.is_some());
    let differs = there.map(|it: &Reservation| it.units) != units;
    if !differs && (units.is_none() || !failed) {
        return Step::Nothing;
    }
    match present.filter(|one| one.serves() && !situation.reservation_waits) {
        None => Step::Wait,
        Some(one) => {
            let load_balancer = Ref::Known(one.arn.clone());
            let call = Call::ModifyCapacityReservation {
                load_balancer,
                units,
            };
            if units.is_some() {
                Step::Reserve(call)
            } else {
                Step::Cancel(call)
            }
        }
    }
}
