//! The building blocks of conditions: the types of Service conditions, and the times of class
//! and pool conditions. [`crate::service::status`] decides what the conditions of Services say.
//! Pure.

use ballast_crds::GROUP;
use ballast_provider::ExtraKind;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::process::text;

/// A condition of Services: a Ballast class serves the Service, and its settings are valid.
pub const ACCEPTED: &str = "ballast.dev/Accepted";
/// A condition of Services: traffic can flow.
pub const PROGRAMMED: &str = "ballast.dev/Programmed";
/// A condition of Services: somebody else keeps changing what Ballast writes. There is none
/// while nobody does.
pub const CONTESTED: &str = "ballast.dev/Contested";
/// The reason of [`CONTESTED`].
pub const OVERWRITTEN: &str = "Overwritten";

/// The types of a Service's conditions, in the order in which they become true.
pub fn kinds() -> impl Iterator<Item = &'static str> {
    let extra = ExtraKind::ALL.map(ExtraKind::as_str);
    [ACCEPTED, PROGRAMMED, CONTESTED].into_iter().chain(extra)
}

/// Whether a condition is one of Ballast's: its type is `ballast.dev/NAME`.
pub fn is_ours(condition: &Condition) -> bool {
    let name = condition.type_.strip_prefix(GROUP);
    name.is_some_and(|name| name.starts_with('/'))
}

/// A condition without its time, which [`dated`] adds. The message is bounded here.
pub fn condition(kind: &str, status: bool, reason: &str, mut message: String) -> Condition {
    if message.len() > text::MESSAGE {
        message = text::message(&message);
    }
    Condition {
        type_: kind.to_owned(),
        status: if status { "True" } else { "False" }.to_owned(),
        reason: reason.to_owned(),
        message,
        last_transition_time: Time(Timestamp::UNIX_EPOCH),
        observed_generation: None,
    }
}

/// Sets the time of each condition: the previous time if its status did not change.
pub fn dated(conditions: &mut [Condition], before: &[Condition], now: &Time) {
    for condition in conditions {
        let mut before = before.iter();
        let unchanged = before
            .find(|before| before.type_ == condition.type_ && before.status == condition.status);
        let since = unchanged.map_or(now, |before| &before.last_transition_time);
        condition.last_transition_time = since.clone();
    }
}

/// The conditions without their times, to compare what they say.
pub fn undated(conditions: &[Condition]) -> Vec<Condition> {
    let mut conditions = conditions.to_vec();
    dated(&mut conditions, &[], &Time(Timestamp::UNIX_EPOCH));
    conditions
}

/// Whole seconds, because the API server keeps condition times in seconds.
pub fn rfc3339(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
