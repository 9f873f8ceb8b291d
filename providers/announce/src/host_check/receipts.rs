//! Receipts: whether the answers to our probes come from the host itself.
//!
//! Some switches answer ARP for hosts (EVPN suppression, proxy ARP), also for dead ones. So each
//! agent counts the probes that it received from each prober and reports the counts in its beats.
//! Answers without receipts are not the host's: the prober switches to ICMP echo, which no switch
//! answers for a host, and reports `ProbesIntercepted`. A switch may also answer *and* pass the probe on,
//! as the Linux bridge does: each probe then has a receipt and two answers.

use crate::Time;
use crate::timing::{DOUBLED_ANSWERS, INTERCEPTED_ANSWERS, SILENT};

/// The comparison of answers and receipts of one host.
#[derive(Clone, Debug, Default)]
pub struct Receipts {
    /// The report from which answers are counted.
    base: Option<Report>,
    answers: u64,
    intercepted: bool,
}

#[derive(Clone, Copy, Debug)]
struct Report {
    incarnation: u64,
    received: u64,
    at: Time,
}

// === impl Receipts ===

impl Receipts {
    /// Whether somebody else answers for the host. Stays until its agent restarts.
    pub fn intercepted(&self) -> bool {
        self.intercepted
    }

    /// A peer found out.
    pub fn told(&mut self) {
        self.intercepted = true;
    }

    /// The host, or somebody else, answered an ARP request or a neighbour solicitation.
    pub fn answered(&mut self) {
        self.answers = self.answers.saturating_add(1);
    }

    /// The host's agent reports how many probes it has received from us in this life.
    pub fn reported(&mut self, incarnation: u64, received: u64, now: Time) {
        let report = Report {
            incarnation,
            received,
            at: now,
        };
        let Some(base) = self.base.filter(|base| base.incarnation == incarnation) else {
            *self = Self {
                base: Some(report),
                ..Self::default()
            };
            return;
        };
        // An agent that was stopped may have lost frames that its host answered.
        if now.since(base.at) > SILENT * 4 {
            self.base = Some(report);
            self.answers = 0;
            return;
        }
        if self.answers < INTERCEPTED_ANSWERS {
            return;
        }
        let received = received.saturating_sub(base.received);
        self.intercepted |= received.saturating_mul(2) < self.answers;
        if self.answers < DOUBLED_ANSWERS {
            return;
        }
        self.intercepted |= received.saturating_mul(4) < self.answers.saturating_mul(3);
        self.base = Some(report);
        self.answers = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> Time {
        Time::after_start(Duration::from_secs(seconds))
    }

    fn answers(receipts: &mut Receipts, count: u64) {
        (0..count).for_each(|_| receipts.answered());
    }

    #[test]
    fn answers_without_receipts_are_intercepted() {
        for (answered, received, intercepted) in [
            (10, 10, false),
            (10, 5, false),
            (10, 4, true),
            (10, 0, true),
            (9, 0, false),
            (24, 24, false),
            (24, 18, false),
            (24, 17, true),
            // Each probe has a receipt and two answers.
            (23, 12, false),
            (24, 12, true),
            (25, 13, true),
        ] {
            let mut receipts = Receipts::default();
            receipts.reported(1, 100, at(0));
            answers(&mut receipts, answered);
            receipts.reported(1, 100 + received, at(2));
            assert_eq!(receipts.intercepted(), intercepted, "{answered} {received}");
        }
    }

    #[test]
    fn a_restarted_or_stopped_agent_is_counted_anew() {
        let mut receipts = Receipts::default();
        receipts.reported(1, 100, at(0));
        answers(&mut receipts, 30);
        receipts.reported(2, 3, at(1));
        assert!(!receipts.intercepted(), "another life");
        answers(&mut receipts, 30);
        receipts.reported(2, 5, at(20));
        assert!(!receipts.intercepted(), "it was silent meanwhile");
        answers(&mut receipts, 30);
        receipts.reported(2, 5, at(22));
        assert!(receipts.intercepted());
        receipts.reported(3, 0, at(23));
        assert!(!receipts.intercepted());
        receipts.told();
        assert!(receipts.intercepted());
    }
}
