//! What a Service says that waits for a cloud's limit of calls. Pure.
//!
//! The message says about when the wait ends, and it must not differ from one retry to the next: each
//! difference is a write. So it names a minute, and a name that is still nearly right stays.

use std::time::Duration;

use ballast_provider::Reason;
use jiff::Timestamp;

use crate::cluster::view::ConditionView;

const WHY: &str = "the cloud limits the rate of calls";
const SOON: &str = "Ballast continues within a minute";
const LATER: &str = "Ballast continues at about";
const ZONE: &str = "UTC";

/// In minutes. A name that is off by no more stays.
const TOLERANCE: i64 = 2;
const DAY: i64 = 24 * 60;

/// The message of a Service that waits so long; `before` is its condition so far.
pub(super) fn message(before: Option<&ConditionView>, wait: Duration, now: Timestamp) -> String {
    let seconds = i64::try_from(wait.as_secs()).unwrap_or(i64::MAX);
    let end = now.as_second().saturating_add(seconds).saturating_add(59);
    let (now, end) = (now.as_second().div_euclid(60), end.div_euclid(60));
    let named = before
        .filter(|before| before.reason == Reason::Throttled.as_str())
        .and_then(|before| minute_in(&before.message))
        .filter(|named| apart(*named, now) > 0 && apart(*named, end).abs() <= TOLERANCE);
    let minute = match named {
        Some(named) => named,
        None if wait < Duration::from_mins(1) => return format!("{WHY}; {SOON}"),
        None => end.rem_euclid(DAY),
    };
    let (hour, minute) = (minute / 60, minute % 60);
    format!("{WHY}; {LATER} {hour:02}:{minute:02} {ZONE}")
}

/// The minute of the day that a message names.
fn minute_in(message: &str) -> Option<i64> {
    let (_, rest) = message.split_once(LATER)?;
    let (time, _) = rest.trim().split_once(' ')?;
    let (hour, minute) = time.split_once(':')?;
    let (hour, minute): (i64, i64) = (hour.parse().ok()?, minute.parse().ok()?);
    ((0..24).contains(&hour) && (0..60).contains(&minute)).then_some(hour * 60 + minute)
}

/// How many minutes one minute of a day is after another one, over midnight if that is nearer.
fn apart(one: i64, other: i64) -> i64 {
    (one - other + DAY / 2).rem_euclid(DAY) - DAY / 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    fn at(time: &str) -> Timestamp {
        format!("2026-11-26T{time}Z").parse().unwrap()
    }

    fn condition(reason: Reason, message: &str) -> ConditionView {
        ConditionView {
            since: at("18:00:00"),
            ..fixtures::condition("ballast.dev/Programmed", "False", reason, message)
        }
    }

    fn said(before: Option<&str>, wait: u64, now: &str) -> String {
        let before = before.map(|message| condition(Reason::Throttled, message));
        message(before.as_ref(), Duration::from_secs(wait), at(now))
    }

    fn until(time: &str) -> String {
        format!("{WHY}; Ballast continues at about {time} UTC")
    }

    #[test]
    fn it_says_about_when() {
        for (wait, now, expected) in [
            (0, "18:40:10", format!("{WHY}; {SOON}")),
            (59, "18:40:10", format!("{WHY}; {SOON}")),
            (60, "18:40:10", until("18:42")),
            (60, "18:40:00", until("18:41")),
            (950, "18:40:00", until("18:56")),
            (120, "23:59:30", until("00:02")),
        ] {
            assert_eq!(said(None, wait, now), expected, "{wait} s at {now}");
        }
    }

    #[test]
    fn what_was_said_stays_while_it_is_nearly_right() {
        let before = until("18:56");
        for (wait, now, expected) in [
            (950, "18:40:20", "18:56"),
            (700, "18:43:00", "18:56"),
            (180, "18:55:00", "18:56"),
            (20, "18:55:10", "18:56"),
            // It is wrong.
            (180, "18:40:00", "18:43"),
            (1_200, "18:40:00", "19:00"),
            // Its time has come.
            (90, "18:56:00", "18:58"),
        ] {
            let found = said(Some(&before), wait, now);
            assert_eq!(found, until(expected), "{wait} s at {now}");
        }
        assert_eq!(said(Some(&until("00:02")), 120, "23:59:50"), until("00:02"));
        assert_eq!(
            said(Some("something else"), 120, "18:40:00"),
            until("18:42")
        );
        let other = condition(Reason::CloudError, &before);
        let found = message(Some(&other), Duration::from_secs(950), at("18:39:00"));
        assert_eq!(found, until("18:55"));
    }
}
