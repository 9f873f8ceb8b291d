//! Whether a controller is alive, told from its Lease as the election tells it: a Lease
//! that changes is held by somebody who lives. No clock is compared with another. Pure.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use serde::Serialize;

use crate::cli::text::length;
use crate::cluster::conditions::rfc3339;

/// client-go's, where the Lease says nothing.
const USUAL: Duration = Duration::from_secs(15);
/// Where there is but one look, a Lease older than this is held by nobody: more than
/// clocks differ.
const OLD: Duration = Duration::from_mins(1);

/// What was seen of the Lease so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pulse {
    seen: Option<Seen>,
    /// When it last changed, on the command's own clock.
    changed: Duration,
    looks: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen {
    version: Option<String>,
    holder: Option<String>,
    renewed: Option<Timestamp>,
    duration: Option<Duration>,
}

/// The controller, as far as its Lease tells.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Controller {
    /// See [`Life`].
    pub state: Life,
    /// Who holds the Lease, or held it last.
    pub holder: Option<String>,
    /// What the Lease says of its last renewal.
    pub renewed: Option<Timestamp>,
    /// For how many seconds this command has seen no change of the Lease.
    pub silent_seconds: u64,
}

/// How sure it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum Life {
    /// The Lease may not or cannot be read.
    #[default]
    Unknown,
    /// It is held, and nobody has failed to renew it so far.
    Alive,
    /// Nobody holds it.
    Absent,
    /// It has not changed for its duration: others may take over now.
    Silent,
    /// Nor for as long again: nobody did.
    Dead,
}

// === impl Pulse ===

impl Pulse {
    /// Takes note of the Lease as it is at `now`, on the command's own clock.
    pub fn observe(&mut self, lease: Option<&Lease>, now: Duration) {
        let seen = Seen::of(lease);
        if self.looks == 0 || self.seen.as_ref() != Some(&seen) {
            self.changed = now;
        }
        self.seen = Some(seen);
        self.looks = self.looks.saturating_add(1);
    }

    /// What follows from all looks until `now`. `clock` is the time of day: where there was
    /// but one look, the times that the Lease itself tells must do.
    pub fn controller(&self, now: Duration, clock: Timestamp) -> Controller {
        let Some(seen) = &self.seen else {
            return Controller::default();
        };
        // Of a Lease that was given up the duration means nothing.
        let held = seen.holder.as_ref().and(seen.duration);
        let term = held.unwrap_or(USUAL);
        let silent = now.saturating_sub(self.changed);
        let old = seen.renewed.is_none_or(|at| {
            let age = clock.duration_since(at);
            Duration::try_from(age).is_ok_and(|age| age > OLD)
        });
        let state = match &seen.holder {
            _ if silent >= 2 * term => Life::Dead,
            None => Life::Absent,
            Some(_) if silent >= term || (self.looks == 1 && old) => Life::Silent,
            Some(_) => Life::Alive,
        };
        Controller {
            state,
            holder: seen.holder.clone(),
            renewed: seen.renewed,
            silent_seconds: silent.as_secs(),
        }
    }
}

// === impl Seen ===

impl Seen {
    fn of(lease: Option<&Lease>) -> Self {
        let Some(lease) = lease else {
            return Self::default();
        };
        let spec = lease.spec.as_ref();
        let holder = spec.and_then(|spec| spec.holder_identity.clone());
        let seconds = spec.and_then(|spec| u64::try_from(spec.lease_duration_seconds?).ok());
        Self {
            version: lease.metadata.resource_version.clone(),
            holder: holder.filter(|holder| !holder.is_empty()),
            renewed: spec.and_then(|spec| Some(spec.renew_time.as_ref()?.0)),
            duration: seconds.map(Duration::from_secs),
        }
    }
}

// === impl Controller ===

impl Controller {
    /// Nobody will act on a switch that is put on now, unless somebody starts; and who
    /// starts finds it on.
    pub const fn is_away(&self) -> bool {
        matches!(self.state, Life::Absent | Life::Silent | Life::Dead)
    }

    /// In words; `lease` is its namespace and name.
    pub fn told(&self, lease: &(String, String)) -> String {
        let lease = format!("the Lease {}/{}", lease.0, lease.1);
        let holder = self.holder.as_deref().unwrap_or_default();
        match (self.state, &self.holder) {
            (Life::Unknown, _) => format!("{lease} cannot be read"),
            (Life::Alive, _) => format!("controller {holder} holds {lease}"),
            (_, None) => format!(
                "no controller holds {lease}{}; check that a controller is running and that this is its Lease (--lease-namespace, --lease-name)",
                match self.silent_seconds {
                    0..5 => String::new(),
                    seconds => format!(" (for at least {})", length(seconds.cast_signed())),
                }
            ),
            (_, Some(_)) => format!(
                "controller {holder} has not renewed {lease}{}",
                self.renewed
                    .map_or(String::new(), |at| format!(" since {}", rfc3339(at)))
            ),
        }
    }
}

#[cfg(test)]
mod tests;
