//! Reserved capacity of load balancers.
//!
//! Sources: the model of `ModifyCapacityReservation` with its errors \[model\], and "Capacity reservations for your
//! Network Load Balancer" \[docs\]. The numbers for a zone are those that AWS's CDK checks \[seen\].
//!
//! What AWS does not document is strict here: only an active load balancer gets a reservation, cancelling one waits for
//! the request before it and counts as a decrease, a day is 24 hours from each decrease on, and a load balancer with a
//! reservation gets no TLS listener. Capacity in a new zone is there at once.

use std::time::Duration;

use super::LoadBalancer;
use crate::state::{Cloud, Moment, Refusal, Result};

/// The least for each zone \[seen\].
const LEAST: u64 = 2_750;
/// So many decreases in a day \[docs\].
const DECREASES: usize = 2;
const DAY: Duration = Duration::from_hours(24);

/// A reservation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// The units that were asked for.
    pub units: u32,
    /// When they are or were there.
    pub ready: Moment,
    /// Why AWS could not provide them, if a test has set it.
    pub trouble: Option<String>,
}

// === impl Reservation ===

impl Reservation {
    /// Its state.
    pub fn state(&self, now: Moment) -> &'static str {
        match &self.trouble {
            Some(_) => "failed",
            None if self.ready <= now => "provisioned",
            None => "pending",
        }
    }
}

// === impl LoadBalancer ===

impl LoadBalancer {
    /// So many decreases are left for today.
    pub fn decreases_left(&self, now: Moment) -> usize {
        let today = |at: &&Moment| now < **at + DAY;
        DECREASES.saturating_sub(self.decreases.iter().filter(today).count())
    }
}

// === impl Cloud ===

impl Cloud {
    /// `ModifyCapacityReservation`. `None` cancels the reservation; without one, nothing changes.
    pub fn modify_capacity_reservation(
        &mut self,
        now: Moment,
        arn: &str,
        units: Option<u32>,
    ) -> Result<&LoadBalancer> {
        let there = self.load_balancer(arn)?;
        let before = there.capacity.as_ref().map(|it| it.units);
        if units == before && units.is_none() {
            return self.load_balancer(arn);
        }
        if there.state(now) != "active" {
            return Err(Refusal::new(
                "PriorRequestNotComplete",
                format!("Load balancer '{arn}' is not active"),
            )
            .status(429));
        }
        if (there.capacity.as_ref()).is_some_and(|it| it.state(now) == "pending") {
            return Err(Refusal::new(
                "CapacityReservationPending",
                format!("Load balancer '{arn}' has a pending capacity reservation"),
            ));
        }
        if let Some(units) = units {
            self.check_units(there, units)?;
        }
        let decreases = units.unwrap_or(0) < before.unwrap_or(0);
        if decreases && there.decreases_left(now) == 0 {
            return Err(Refusal::new(
                "CapacityDecreaseRequestLimitExceeded",
                format!("The capacity of a load balancer can decrease {DECREASES} times a day"),
            ));
        }
        let ready = now + self.settings.reserving;
        if let Some(there) = self.load_balancers.get_mut(arn) {
            if decreases {
                there.decreases.push(now);
            }
            there.capacity = units.map(|units| Reservation {
                units,
                ready,
                trouble: None,
            });
        }
        self.load_balancer(arn)
    }

    fn check_units(&self, there: &LoadBalancer, units: u32) -> Result<()> {
        // \[docs\]
        let mut listeners = self.listeners.values();
        if listeners.any(|one| one.load_balancer == there.arn && one.protocol == "TLS") {
            return Err(Refusal::new(
                "InvalidConfigurationRequest",
                "Capacity reservations are not supported on load balancers with TLS listeners",
            ));
        }
        let zones = u64::try_from(there.zones.len()).unwrap_or(u64::MAX);
        let least = LEAST.saturating_mul(zones);
        if u64::from(units) < least {
            return Err(Refusal::new(
                "InvalidConfigurationRequest",
                format!("The capacity must be at least {least} units in {zones} zones"),
            ));
        }
        let quotas = &self.settings.quotas;
        let most = quotas.capacity_per_zone.saturating_mul(zones);
        let mut others = self.load_balancers.values();
        let others = others.by_ref().filter(|one| one.arn != there.arn);
        let others = others.filter_map(|one| one.capacity.as_ref());
        let together = others.map(|it| u64::from(it.units)).sum::<u64>() + u64::from(units);
        if u64::from(units) > most || together > quotas.capacity {
            return Err(Refusal::new(
                "CapacityUnitsLimitExceeded",
                "You've exceeded the capacity units limit",
            ));
        }
        Ok(())
    }
}
