//! The building blocks of conditions: the types of Service conditions, and the times of
//! conditions. [`crate::service::status`] decides what the conditions of Services say. Pure.
//!
//! All fields of a condition of Ballast are Ballast's, its time as well. While a process leads, it
//! restores the time that it wrote or first saw ([`crate::service::times`] for Services). What
//! it sees first was written by an earlier process, or changed since: only a time that is
//! missing or in the future is certainly not Ballast's and is replaced ([`is_plausible`]).

use ballast_crds::GROUP;
use ballast_provider::ExtraKind;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use tokio::time::Instant;

use crate::cluster::contest::Contest;
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

/// The type of [`contested`].
const DISPUTED: &str = "Contested";
/// How far the clocks of two replicas may differ.
const CLOCKS: SignedDuration = SignedDuration::from_mins(1);

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

/// The condition of a class or a pool that somebody else keeps changing. There is none while
/// nobody does. A new leader reads it, so that a contest does not begin anew with each.
pub fn contested() -> Condition {
    let message = "Another client keeps changing what Ballast writes to this object (kubectl get --show-managed-fields names it); Ballast restores it less often until that stops";
    condition(DISPUTED, true, OVERWRITTEN, message.to_owned())
}

/// The contest of a class or a pool that a process has just begun to write.
pub fn contest_of(conditions: &[Condition], now: Instant) -> Contest {
    let reported =
        |it: &Condition| it.type_ == DISPUTED && it.status == "True" && it.reason == OVERWRITTEN;
    if conditions.iter().any(reported) {
        Contest::resumed(now)
    } else {
        Contest::default()
    }
}

/// The time of a transition that happens now: conditions are compared with what the API server
/// keeps, which is whole seconds.
pub fn transition(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

/// Whether Ballast may have written this time of a condition: for a process that does not know
/// what an earlier one wrote. A time that is missing arrives as the epoch.
pub fn is_plausible(since: Timestamp, now: Timestamp) -> bool {
    since > Timestamp::UNIX_EPOCH && since.duration_since(now) <= CLOCKS
}

/// The conditions of an object that an earlier process wrote: those whose times it may have
/// written.
pub fn plausible(conditions: &[Condition], now: Timestamp) -> Vec<Condition> {
    let mut conditions = conditions.to_vec();
    conditions.retain(|it| is_plausible(it.last_transition_time.0, now));
    conditions
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
