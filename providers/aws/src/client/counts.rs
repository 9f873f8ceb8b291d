//! How many calls were made, and how they ended. Only counts; nothing here decides.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::actions::Action;
use super::error::Cause;

/// The calls of one action with one result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// The action.
    pub action: Action,
    /// `ok`, or what [`Cause::as_str`] says. Each call to AWS counts, also those that are made
    /// again. `postponed` counts those that were not made, because AWS's limits left no room.
    pub result: &'static str,
    /// How many.
    pub calls: u64,
    /// The time from the request to the answer, of all of them together.
    pub took: Duration,
}

/// Calls, and the time that they took.
type Sum = (u64, Duration);

/// The counters.
#[derive(Debug, Default)]
pub(super) struct Counts(Mutex<BTreeMap<(Action, &'static str), Sum>>);

// === impl Counts ===

impl Counts {
    /// A call was made.
    pub(super) fn made(&self, action: Action, result: Result<(), Cause>, took: Duration) {
        let label = match result {
            Ok(()) => "ok",
            Err(cause) => cause.as_str(),
        };
        self.add(action, label, took);
    }

    /// A call was not made.
    pub(super) fn postponed(&self, action: Action) {
        self.add(action, "postponed", Duration::ZERO);
    }

    /// All counters that are not zero.
    pub(super) fn snapshot(&self) -> Vec<Count> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all = counts.iter();
        all.map(|(&(action, result), &(calls, took))| Count {
            action,
            result,
            calls,
            took,
        })
        .collect()
    }

    fn add(&self, action: Action, label: &'static str, took: Duration) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry((action, label)).or_default();
        count.0 += 1;
        count.1 += took;
    }
}
