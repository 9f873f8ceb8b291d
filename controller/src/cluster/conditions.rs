//! The parts that conditions are made of: the types that Services carry, and the times of
//! those of classes and pools. What a Service's conditions say is in
//! [`crate::service::status`]. Pure.

use ballast_crds::GROUP;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::process::text;

/// A Service's condition: a class of ours serves it, and its settings are valid.
pub const ACCEPTED: &str = "ballast.dev/Accepted";
/// A Service's condition: traffic can flow.
pub const PROGRAMMED: &str = "ballast.dev/Programmed";

/// Whether a condition is one of Ballast's: its type is `ballast.dev/NAME`.
pub fn is_ours(condition: &Condition) -> bool {
    let name = condition.type_.strip_prefix(GROUP);
    name.is_some_and(|name| name.starts_with('/'))
}

/// A condition whose time [`dated`] fills in. Its message is bounded here.
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

/// Gives each condition its time: that of before where its status did not change.
pub fn dated(conditions: &mut [Condition], before: &[Condition], now: &Time) {
    for condition in conditions {
        let mut before = before.iter();
        let unchanged = before
            .find(|before| before.type_ == condition.type_ && before.status == condition.status);
        let since = unchanged.map_or(now, |before| &before.last_transition_time);
        condition.last_transition_time = since.clone();
    }
}

/// Whole seconds, as the API server keeps condition times.
pub fn rfc3339(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
