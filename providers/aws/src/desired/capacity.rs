//! The capacity that is reserved for a load balancer. Pure.
//!
//! Sources: "Capacity reservations for your Network Load Balancer" in AWS's documentation, and the least for a zone
//! that AWS's CDK checks.

use std::collections::BTreeSet;

use ballast_provider::{Reason, Refusal};

use crate::annotations::{PREFIX, invalid};
use crate::settings::Settings;

/// The least units for each zone.
const LEAST: u32 = 2_750;

/// The units that are reserved, if there are any.
pub(super) fn of(settings: &Settings, zones: usize) -> Result<Option<u32>, Refusal> {
    let Some(units) = wanted(settings) else {
        return Ok(None);
    };
    let least = u32::try_from(zones).map_or(u32::MAX, |zones| LEAST.saturating_mul(zones));
    if units < least {
        return Err(invalid(format!(
            "annotation {PREFIX}minimum-load-balancer-capacity: CapacityUnits={units} is too little for {zones} zones. AWS reserves at least {LEAST} units for each zone, {least} here"
        )));
    }
    Ok(Some(units))
}

/// Refuses a reservation for a load balancer that ends TLS on these ports.
pub(super) fn check(settings: &Settings, secure: &BTreeSet<u16>) -> Result<(), Refusal> {
    match (wanted(settings), secure.first()) {
        (Some(units), Some(port)) => Err(Refusal::new(
            Reason::Unsupported,
            format!(
                "annotation {PREFIX}minimum-load-balancer-capacity: CapacityUnits={units}: AWS reserves no capacity for load balancers with TLS listeners, and port {port} ends TLS. Remove it, or {PREFIX}ssl-cert"
            ),
        )),
        _ => Ok(()),
    }
}

/// 0 reserves nothing.
pub(super) fn wanted(settings: &Settings) -> Option<u32> {
    settings.capacity.filter(|units| *units > 0)
}
