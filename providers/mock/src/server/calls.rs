//! The call log: a bounded ring of the newest calls, and counters of all. In memory:
//! it says what this process was asked.

use std::collections::VecDeque;

use jiff::Timestamp;

use crate::api::{CallView, CallsPage};

/// Calls that are remembered.
const CAPACITY: usize = 10_000;

/// Calls per answer.
const PAGE: usize = 1_000;

/// What was called.
#[derive(Debug, Default)]
pub(super) struct CallLog {
    ring: VecDeque<CallView>,
    total: u64,
    mutating: u64,
}

// === impl CallLog ===

impl CallLog {
    pub(super) fn record(
        &mut self,
        now: Timestamp,
        method: &http::Method,
        path: String,
        status: u16,
    ) {
        let mutating = is_mutating(method);
        self.total += 1;
        self.mutating += u64::from(mutating);
        self.ring.push_back(CallView {
            seq: self.total,
            time: now,
            method: method.to_string(),
            path,
            status,
            mutating,
        });
        if self.ring.len() > CAPACITY {
            self.ring.pop_front();
        }
    }

    /// Calls after a number, oldest first.
    pub(super) fn since(&self, seq: u64) -> CallsPage {
        let items = self.ring.iter().filter(|call| call.seq > seq).take(PAGE);
        CallsPage {
            items: items.cloned().collect(),
            last: self.total,
            total: self.total,
            mutating: self.mutating,
        }
    }
}

/// Whether a method can change something.
pub(super) fn is_mutating(method: &http::Method) -> bool {
    !matches!(
        *method,
        http::Method::GET | http::Method::HEAD | http::Method::OPTIONS
    )
}
