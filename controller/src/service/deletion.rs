//! Deletions that wait: for how long, and when the Service says so. [`Deletions`] remembers; the
//! functions choose.
//!
//! A deletion that ends within [`EXPLAINED`] costs no write but the last one. After that the
//! condition says what it waits for, and after [`LONG`] an event says it, once. This process's
//! own clock counts, so a new leader begins anew.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ballast_provider::{Reason, ServiceId};
use jiff::Timestamp;
use tokio::time::Instant;

use crate::cluster::conditions::rfc3339;
use crate::cluster::deletion::next_step;
use crate::cluster::view::{ConditionView, Name};
use crate::process::room::give_back;
use crate::process::text;

/// After this time the condition says what a deletion waits for.
pub const EXPLAINED: Duration = Duration::from_secs(30);
/// After this time an event says that a deletion waits.
pub const LONG: Duration = Duration::from_mins(5);

/// What begins a message that names the time since when the cloud fails.
const SINCE: &str = "Since ";
const FAILS: &str = " the deletion fails: ";

/// Since when this process has tried to release each Service that is being released.
#[derive(Debug, Default)]
pub struct Deletions(Mutex<HashMap<Name, Waits>>);

#[derive(Debug)]
struct Waits {
    uid: Arc<str>,
    since: Instant,
    announced: bool,
}

/// After how long there is something new to say of a deletion that has waited so long.
pub fn next_look(waited: Duration) -> Option<Duration> {
    let mut times = [EXPLAINED, LONG].into_iter();
    times
        .find(|time| *time > waited)
        .map(|time| time.saturating_sub(waited))
}

/// What a Service says while its cloud deletes the load balancer.
pub fn progress(waits_for: Option<&str>) -> String {
    match waits_for {
        Some(what) => text::message(&format!(
            "The load balancer is being deleted; it waits for {what}"
        )),
        None => "The load balancer is being deleted".to_owned(),
    }
}

/// What a Service says whose release fails: why, since when the cloud fails, and how to go on.
/// `before` is its condition so far. The same on every retry.
pub fn failure(
    before: Option<&ConditionView>,
    reason: Reason,
    message: &str,
    class: &str,
    now: Timestamp,
) -> String {
    let why = if reason == Reason::CloudError {
        let named = before
            .filter(|before| before.reason == reason.as_str())
            .and_then(|before| since(&before.message));
        let since = named.map_or_else(|| rfc3339(now), str::to_owned);
        format!("{SINCE}{since}{FAILS}{message}")
    } else {
        message.to_owned()
    };
    // Other messages say it themselves.
    if !matches!(reason, Reason::CloudError | Reason::ClassNotReady) {
        return text::message(&why);
    }
    let whole = format!("{why}. {}", next_step(reason.as_str(), class));
    if whole.chars().count() <= text::MESSAGE {
        text::message(&whole)
    } else {
        text::message(&why)
    }
}

/// The time that a message of [`failure`] names.
fn since(message: &str) -> Option<&str> {
    let (time, _) = message.strip_prefix(SINCE)?.split_once(FAILS)?;
    time.parse::<Timestamp>().ok().map(|_| time)
}

/// The note of the event of a deletion that waits for long.
pub fn note(reason: Reason, why: &str, class: &str) -> String {
    format!(
        "The deletion of the load balancer has not ended after {} minutes: {why}. How to go on: {}",
        LONG.as_secs() / 60,
        next_step(reason.as_str(), class)
    )
}

// === impl Deletions ===

impl Deletions {
    /// For how long this process has tried to release the Service.
    pub fn look(&self, id: &ServiceId, now: Instant) -> Duration {
        let mut all = self.lock();
        let begins = || Waits {
            uid: Arc::clone(&id.uid),
            since: now,
            announced: false,
        };
        let waits = all.entry(Name::from(id)).or_insert_with(begins);
        if waits.uid != id.uid {
            *waits = begins();
        }
        now.saturating_duration_since(waits.since)
    }

    /// Whether to say that it takes long: true once.
    pub fn announce(&self, id: &ServiceId, waited: Duration) -> bool {
        let mut all = self.lock();
        let waits = all.get_mut(&Name::from(id));
        waits.is_some_and(|it| waited >= LONG && !std::mem::replace(&mut it.announced, true))
    }

    /// Nothing is released any more.
    pub fn end(&self, name: &Name) {
        let mut all = self.lock();
        if all.remove(name).is_some() {
            give_back(&mut all);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Name, Waits>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{self, id};

    fn at(time: &str) -> Timestamp {
        format!("2026-11-26T{time}Z").parse().unwrap()
    }

    fn condition(reason: Reason, message: &str) -> ConditionView {
        ConditionView {
            since: at("18:00:00"),
            ..fixtures::condition("ballast.dev/Programmed", "Unknown", reason, message)
        }
    }

    #[test]
    fn there_is_news_twice() {
        for (waited, look) in [
            (0, Some(30)),
            (29, Some(1)),
            (30, Some(270)),
            (299, Some(1)),
            (300, None),
            (9_999, None),
        ] {
            let expected = look.map(Duration::from_secs);
            assert_eq!(next_look(Duration::from_secs(waited)), expected, "{waited}");
        }
    }

    #[test]
    fn since_when_the_cloud_fails_stays_over_retries() {
        let reason = Reason::CloudError;
        let said = |before: Option<&ConditionView>, message, now| {
            failure(before, reason, message, "edge", at(now))
        };
        let first = said(None, "AWS does not answer", "18:40:00");
        assert_eq!(
            first,
            "Since 2026-11-26T18:40:00Z the deletion fails: AWS does not answer. Ballast tries again by itself; check that the cloud of LoadBalancerClass edge can be reached"
        );
        let before = condition(reason, &first);
        assert_eq!(
            said(Some(&before), "AWS does not answer", "19:10:00"),
            first
        );
        // Another failure is no other beginning.
        let other = said(Some(&before), "AWS has failed", "19:10:00");
        assert!(other.starts_with("Since 2026-11-26T18:40:00Z the deletion fails: AWS has failed"));
        // A message that is cut names the time all the same.
        let text = "x".repeat(2_000);
        let long = said(None, &text, "18:40:00");
        let before = condition(reason, &long);
        assert_eq!(said(Some(&before), &text, "20:00:00"), long);
        // A condition of something else, or by somebody else.
        for before in [
            condition(Reason::AccessDenied, &first),
            condition(reason, "Since ever the deletion fails: no"),
            condition(reason, "AWS does not answer"),
        ] {
            let anew = said(Some(&before), "AWS does not answer", "19:10:00");
            assert!(anew.starts_with("Since 2026-11-26T19:10:00Z"), "{anew}");
        }
    }

    #[test]
    fn a_failure_says_how_to_go_on() {
        for (reason, message, said) in [
            (
                Reason::ClassNotReady,
                "LoadBalancerClass edge: no",
                "LoadBalancerClass edge: no. Correct LoadBalancerClass edge: kubectl describe lbclass edge",
            ),
            // It has said so itself.
            (
                Reason::AccessDenied,
                "AWS refuses it: switch it off in AWS",
                "AWS refuses it: switch it off in AWS",
            ),
        ] {
            let found = failure(None, reason, message, "edge", at("18:00:00"));
            assert_eq!(found, said);
        }
    }

    #[test]
    fn it_is_said_once_of_each_service() {
        let deletions = Deletions::default();
        let begin = Instant::now();
        let web = id("web");
        assert_eq!(deletions.look(&web, begin), Duration::ZERO);
        let short = deletions.look(&web, begin + EXPLAINED);
        assert_eq!(short, EXPLAINED);
        assert!(!deletions.announce(&web, short));
        let long = deletions.look(&web, begin + LONG);
        assert!(deletions.announce(&web, long));
        assert!(!deletions.announce(&web, long));
        // A later Service of this name.
        let mut later = web.clone();
        later.uid = "another".into();
        assert_eq!(deletions.look(&later, begin + LONG), Duration::ZERO);
        deletions.end(&Name::from(&later));
        assert_eq!(deletions.look(&later, begin + 2 * LONG), Duration::ZERO);
        assert!(!deletions.announce(&web, Duration::ZERO));
    }
}
