//! Whether a controller is running, judged from its Lease as the election does: a Lease that
//! changes has a live holder. Clocks of different machines are not compared, except with a
//! margin after a single read. Pure.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use serde::Serialize;

use crate::cli::text::length;
use crate::cluster::conditions::rfc3339;

/// The default of client-go, if the Lease has no duration.
const USUAL: Duration = Duration::from_secs(15);
/// After a single read, a Lease older than this counts as not renewed. It is more than clocks
/// usually differ.
const OLD: Duration = Duration::from_mins(1);

/// What was read of the Lease so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pulse {
    seen: Option<Seen>,
    /// When it last changed, by the command's own clock.
    changed: Duration,
    looks: u32,
    changes: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen {
    version: Option<String>,
    holder: Option<String>,
    renewed: Option<Timestamp>,
    duration: Option<Duration>,
}

/// The state of the controller, as far as its Lease shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Controller {
    /// See [`Liveness`].
    pub state: Liveness,
    /// The holder of the Lease, or the last one.
    pub holder: Option<String>,
    /// The time of the last renewal, from the Lease.
    pub renewed: Option<Timestamp>,
    /// For how many seconds this command has seen no change of the Lease.
    pub silent_seconds: u64,
}

/// Whether a controller is running.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum Liveness {
    /// The Lease cannot be read.
    #[default]
    Unknown,
    /// It has a holder that has not missed a renewal so far.
    Alive,
    /// It has no holder.
    Absent,
    /// It has not changed for its duration, so other candidates may take it now.
    Silent,
    /// It has not changed for twice its duration: no candidate took it.
    Dead,
}

// === impl Pulse ===

impl Pulse {
    /// Records the Lease as read at `now`, by the command's own clock.
    pub fn observe(&mut self, lease: Option<&Lease>, now: Duration) {
        let seen = Seen::of(lease);
        let changed = self.seen.as_ref() != Some(&seen);
        if self.looks == 0 || changed {
            self.changed = now;
        }
        self.changes += u32::from(self.looks > 0 && changed);
        self.seen = Some(seen);
        self.looks = self.looks.saturating_add(1);
    }

    /// Whether it changed between two reads.
    pub fn has_changed(&self) -> bool {
        self.changes > 0
    }

    /// The state after all reads until `now`. `clock` is the time of day: after a single read,
    /// only the times in the Lease can be compared.
    pub fn controller(&self, now: Duration, clock: Timestamp) -> Controller {
        let Some(seen) = &self.seen else {
            return Controller::default();
        };
        // The duration of a Lease without a holder means nothing.
        let held = seen.holder.as_ref().and(seen.duration);
        let term = held.unwrap_or(USUAL);
        let silent = now.saturating_sub(self.changed);
        let old = seen.renewed.is_none_or(|at| {
            let age = clock.duration_since(at);
            Duration::try_from(age).is_ok_and(|age| age > OLD)
        });
        let state = match &seen.holder {
            _ if silent >= 2 * term => Liveness::Dead,
            None => Liveness::Absent,
            Some(_) if silent >= term || (self.looks == 1 && old) => Liveness::Silent,
            Some(_) => Liveness::Alive,
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
    /// Whether no controller acts on a switch that is set now. A controller that starts later
    /// finds it set.
    pub const fn is_away(&self) -> bool {
        matches!(
            self.state,
            Liveness::Absent | Liveness::Silent | Liveness::Dead
        )
    }

    /// The state as a sentence; `lease` is its namespace and name.
    pub fn told(&self, lease: &(String, String)) -> String {
        let lease = format!("the Lease {}/{}", lease.0, lease.1);
        let holder = self.holder.as_deref().unwrap_or_default();
        match (self.state, &self.holder) {
            (Liveness::Unknown, _) => format!("{lease} cannot be read"),
            (Liveness::Alive, _) => format!("controller {holder} holds {lease}"),
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
