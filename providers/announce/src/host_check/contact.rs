//! Contact: whether this node itself is connected, on one interface.
//!
//! Witnesses are other hosts of the segment: the gateway, peers, and recent clients. They must
//! *answer*: frames that arrive do not prove that frames leave.
//!
//! ```text
//!            answer                             1 s without an answer
//! Connected ◀────────── (any) ── asks a witness ─────────────────────▶ CutOff
//!     ▲  │                                                               ▲ │
//!     │  └── nothing arrives for 0.4 s ── asks in every tick for 0.3 s ──┘ │
//!     │                                                                    │
//!     └─ answer; of the second way, whatever arrives: regained, claim check ┘
//! ```
//!
//! - A node without any witness is not cut off: a single node must serve.
//! - The second way is for a node that can send and hears nothing, as one with a broken fibre does. Its
//!   messages would prove that it lives, so it must tell the others soon. It is watched while agents were
//!   heard not long ago: without them, silence is usual, and nobody could take over.
//! - A node that was cut off stays so until it hears from somebody, whatever else happens.

use crate::Time;
use crate::timing::{SILENCE, SILENCE_ASKED, TICK, WITNESS_FRESH, WITNESS_INTERVAL};

/// Contact with the segment of one interface.
#[derive(Clone, Debug, Default)]
pub struct Contact {
    answered: Option<Time>,
    unanswered_since: Option<Time>,
    /// When anything arrived last.
    heard: Option<Time>,
    /// Since when witnesses are asked because nothing arrives.
    silent_since: Option<Time>,
    /// Cut off at the latest poll, and nothing was heard since.
    lost: bool,
    next: Time,
}

/// What follows from a poll.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Polled {
    /// Probe witnesses now.
    pub ask: bool,
    /// This node is cut off from now on.
    pub lost: bool,
}

// === impl Contact ===

impl Contact {
    /// When a host answered last.
    pub fn answered_at(&self) -> Option<Time> {
        self.answered
    }

    /// Whether to probe witnesses now. Nothing is sent while probes of holders are answered. `company`:
    /// other agents were heard not long ago.
    pub fn poll(&mut self, now: Time, witnesses: usize, company: bool) -> Polled {
        if witnesses == 0 {
            self.unanswered_since = None;
            self.silent_since = None;
            self.lost = false;
            return Polled::default();
        }
        let silent = self.heard.is_some_and(|heard| now.since(heard) >= SILENCE);
        if company && silent && self.silent_since.is_none() {
            self.silent_since = Some(now);
            self.next = now;
        }
        let lost = self.cut_off(now);
        let polled = Polled {
            ask: self.ask(now),
            lost: lost && !self.lost,
        };
        self.lost = lost;
        polled
    }

    fn ask(&mut self, now: Time) -> bool {
        let fresh = self
            .answered
            .is_some_and(|answered| now.since(answered) < WITNESS_FRESH);
        let silent = self.silent_since;
        if (fresh && silent.is_none()) || now < self.next {
            return false;
        }
        let hurried = silent.is_some_and(|since| now.since(since) < SILENCE_ASKED);
        self.next = now + if hurried { TICK } else { WITNESS_INTERVAL };
        if !fresh {
            self.unanswered_since.get_or_insert(now);
        }
        true
    }

    /// Whether hosts answer, or none was asked.
    pub fn is_quiet(&self) -> bool {
        self.unanswered_since.is_none() && self.silent_since.is_none()
    }

    /// A host answered. Returns whether contact was regained.
    pub fn answered(&mut self, now: Time) -> bool {
        let regained = self.cut_off(now);
        self.heard(now);
        self.answered = Some(now);
        self.unanswered_since = None;
        self.lost = false;
        regained
    }

    /// Anything arrived from another host. Returns whether contact was regained.
    pub fn heard(&mut self, now: Time) -> bool {
        let before = self.cut_off(now);
        self.heard = Some(now);
        self.silent_since = None;
        let after = self.cut_off(now);
        self.lost &= after;
        before && !after
    }

    /// Witnesses are known and were asked. None has answered for a second, or nothing at all has arrived.
    pub fn cut_off(&self, now: Time) -> bool {
        let for_long = |since: Option<Time>, time| since.is_some_and(|it| now.since(it) >= time);
        for_long(self.unanswered_since, WITNESS_FRESH) || for_long(self.silent_since, SILENCE_ASKED)
    }

    /// Whether this node found at its latest poll that it is cut off, and has heard nothing since.
    pub fn is_lost(&self) -> bool {
        self.lost
    }

    /// This node was late, or its carrier came up: what was not answered proves nothing.
    pub fn discard(&mut self, now: Time) {
        self.next = now;
        if self.lost {
            return;
        }
        for since in [&mut self.unanswered_since, &mut self.silent_since] {
            if since.is_some() {
                *since = Some(now);
            }
        }
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
        assert!(contact.poll(at(0), 2, false).ask);
        assert!(!contact.poll(at(50), 2, false).ask, "asks at intervals");
        assert!(contact.poll(at(400), 2, false).ask);
        assert!(!contact.cut_off(at(950)));
        assert!(contact.cut_off(at(1000)));
        assert!(contact.poll(at(1000), 2, false).lost);
        assert!(!contact.poll(at(1050), 2, false).lost, "said once");
        assert!(!contact.heard(at(1060)), "frames need not leave");
        assert!(contact.answered(at(1100)), "regained");
        assert!(!contact.cut_off(at(1100)));
        assert!(!contact.poll(at(1900), 2, false).ask, "the answer is fresh");
        assert!(contact.poll(at(2100), 2, false).ask);
        assert!(!contact.answered(at(2101)), "was not cut off");
    }

    /// Polls every 50 ms. Returns the times of its questions, and when it was cut off.
    fn polled(contact: &mut Contact, times: std::ops::Range<u64>) -> (Vec<u64>, Option<u64>) {
        let (mut asked, mut lost) = (Vec::new(), None);
        for ms in times.step_by(50) {
            let polled = contact.poll(at(ms), 2, true);
            asked.extend(polled.ask.then_some(ms));
            lost = lost.or(polled.lost.then_some(ms));
        }
        (asked, lost)
    }

    #[test]
    fn a_node_that_hears_nothing_knows_it_after_700_ms() {
        let mut contact = Contact::default();
        contact.answered(at(0));
        let (asked, lost) = polled(&mut contact, 50..1000);
        assert_eq!(asked, [400, 450, 500, 550, 600, 650, 700]);
        assert_eq!(lost, Some(700));
        contact.discard(at(1000));
        assert!(contact.is_lost(), "a late tick is no contact");
        assert!(contact.heard(at(1010)), "regained");
        assert!(!contact.is_lost() && !contact.cut_off(at(1010)));
    }

    #[test]
    fn whatever_arrives_ends_the_questions() {
        let mut contact = Contact::default();
        contact.answered(at(0));
        polled(&mut contact, 50..600);
        assert!(!contact.heard(at(610)), "was not cut off");
        let (asked, lost) = polled(&mut contact, 650..1000);
        assert_eq!((asked, lost), (vec![], None));
    }

    #[test]
    fn silence_is_usual_without_other_agents() {
        let mut contact = Contact::default();
        contact.answered(at(0));
        for ms in (50..950).step_by(50) {
            assert_eq!(contact.poll(at(ms), 2, false), Polled::default());
        }
    }

    #[test]
    fn a_node_without_witnesses_is_never_cut_off() {
        let mut contact = Contact::default();
        for ms in (0..5000).step_by(50) {
            assert_eq!(contact.poll(at(ms), 0, true), Polled::default());
            assert!(!contact.cut_off(at(ms)));
        }
    }

    #[test]
    fn a_late_tick_starts_the_time_again() {
        let mut contact = Contact::default();
        contact.poll(at(0), 1, true);
        contact.discard(at(3000));
        assert!(!contact.cut_off(at(3500)));
        assert!(contact.cut_off(at(4000)));
    }
}
