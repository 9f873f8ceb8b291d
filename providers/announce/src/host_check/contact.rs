//! Contact: whether this node itself is connected, on one interface.
//!
//! Witnesses are other hosts of the segment: the gateway, peers, and recent clients. They must
//! *answer*: frames that arrive do not prove that frames leave.
//!
//! ```text
//!            answer                             1 s without an answer
//! Connected ◀────────── (any) ── asks a witness ─────────────────────▶ CutOff
//!     ▲                                                                  │
//!     └──────────── answer: contact regained, claim check ───────────────┘
//! ```
//!
//! A node without any witness is not cut off: a single node must serve.

use crate::Time;
use crate::timing::{WITNESS_FRESH, WITNESS_INTERVAL};

/// Contact with the segment of one interface.
#[derive(Clone, Debug, Default)]
pub struct Contact {
    answered: Option<Time>,
    unanswered_since: Option<Time>,
    next: Time,
}

// === impl Contact ===

impl Contact {
    /// When a host answered last.
    pub fn answered_at(&self) -> Option<Time> {
        self.answered
    }

    /// Whether to probe witnesses now. Nothing is sent while probes of holders are answered.
    pub fn poll(&mut self, now: Time, witnesses: usize) -> bool {
        if witnesses == 0 {
            self.unanswered_since = None;
            return false;
        }
        let fresh = self
            .answered
            .is_some_and(|answered| now.since(answered) < WITNESS_FRESH);
        if fresh || now < self.next {
            return false;
        }
        self.next = now + WITNESS_INTERVAL;
        self.unanswered_since.get_or_insert(now);
        true
    }

    /// Whether hosts answer, or none was asked.
    pub fn is_quiet(&self) -> bool {
        self.unanswered_since.is_none()
    }

    /// A host answered. Returns whether contact was regained.
    pub fn answered(&mut self, now: Time) -> bool {
        let regained = self.cut_off(now);
        self.answered = Some(now);
        self.unanswered_since = None;
        regained
    }

    /// Witnesses are known, and none has answered for a second although they were asked.
    pub fn cut_off(&self, now: Time) -> bool {
        self.unanswered_since
            .is_some_and(|since| now.since(since) >= WITNESS_FRESH)
    }

    /// This node was late, or its carrier came up: what was not answered proves nothing.
    pub fn discard(&mut self, now: Time) {
        if self.unanswered_since.is_some() {
            self.unanswered_since = Some(now);
        }
        self.next = now;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(ms: u64) -> Time {
        Time::after_start(Duration::from_millis(ms))
    }

    #[test]
    fn a_node_that_nobody_answers_is_cut_off_until_somebody_does() {
        let mut contact = Contact::default();
        assert!(contact.poll(at(0), 2));
        assert!(!contact.poll(at(50), 2), "asks at intervals");
        assert!(contact.poll(at(400), 2));
        assert!(!contact.cut_off(at(950)));
        assert!(contact.cut_off(at(1000)));
        assert!(contact.answered(at(1100)), "regained");
        assert!(!contact.cut_off(at(1100)));
        assert!(!contact.poll(at(1900), 2), "the answer is fresh");
        assert!(contact.poll(at(2100), 2));
        assert!(!contact.answered(at(2101)), "was not cut off");
    }

    #[test]
    fn a_node_without_witnesses_is_never_cut_off() {
        let mut contact = Contact::default();
        for ms in (0..5000).step_by(50) {
            assert!(!contact.poll(at(ms), 0));
            assert!(!contact.cut_off(at(ms)));
        }
    }

    #[test]
    fn a_late_tick_starts_the_time_again() {
        let mut contact = Contact::default();
        contact.poll(at(0), 1);
        contact.discard(at(3000));
        assert!(!contact.cut_off(at(3500)));
        assert!(contact.cut_off(at(4000)));
    }
}
