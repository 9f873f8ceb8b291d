//! Which attempts failed, and which of them were alone. Pure.
//!
//! An outage of an address keeps the attempts right before and after waiting, too. A single connection may also be
//! lost while all is well: a packet is dropped, or the connection begins at the moment when the nftables rules of its
//! Service are replaced (measured: 2 of 50,000 connections beside 1,655 such replacements in the form of
//! kube-proxy's, none beside as many of other rules). So an attempt that got no answer is excused if those right before
//! and after it were answered at once. Whoever is refused or reset has failed, also alone: somebody answered, and it
//! was the wrong one.

use std::time::Duration;

use super::super::connect::{Attempt, Outcome, PATIENCE};
use super::super::moment::Moment;

/// How long it may take from the start of the attempt before one that is alone to the answers to that one and to
/// the attempt after it: the pauses between three attempts, on a busy machine.
const CLOSE: Duration = Duration::from_millis(100);
/// One in so many attempts may be alone without an answer at most. If there are more, none is excused.
const ONE_IN: usize = 1000;
/// How many failures a message names.
const NAMED: usize = 5;

/// The attempts of a period that were not answered in time.
#[derive(Debug, Default)]
pub(super) struct Unanswered<'a> {
    /// They failed.
    pub(super) failed: Vec<&'a Attempt>,
    /// They got no answer, but those around them did.
    pub(super) alone: Vec<&'a Attempt>,
}

/// An attempt that was not answered in time, for messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// When it began, from the beginning of the period.
    pub after: Duration,
    /// How long it took until its outcome was known.
    pub took: Duration,
    /// Its outcome. An answer came too late.
    pub outcome: Outcome,
}

/// The attempts of one client that began between two moments and failed, in order.
pub fn failures(attempts: &[Attempt], from: Moment, until: Moment) -> Vec<&Attempt> {
    Unanswered::of(attempts, from, until).failed
}

// === impl Unanswered ===

impl<'a> Unanswered<'a> {
    pub(super) fn of(attempts: &'a [Attempt], from: Moment, until: Moment) -> Self {
        let mut all: Vec<&Attempt> = attempts.iter().collect();
        all.sort_by_key(|it| it.start);
        let (mut found, mut count) = (Self::default(), 0_usize);
        for (number, attempt) in all.iter().enumerate() {
            if attempt.start < from || attempt.start >= until {
                continue;
            }
            count += 1;
            if attempt.is_answered() {
                continue;
            }
            let before = number.checked_sub(1).and_then(|it| all.get(it));
            let silent = matches!(attempt.outcome, Outcome::Ok(_) | Outcome::Timeout);
            let excused = silent
                && before
                    .zip(all.get(number + 1))
                    .is_some_and(|(before, after)| answered_close(before, after));
            if excused {
                found.alone.push(attempt);
            } else {
                found.failed.push(attempt);
            }
        }
        if found.alone.len() > count.div_ceil(ONE_IN) {
            found.failed.append(&mut found.alone);
            found.failed.sort_by_key(|it| it.start);
        }
        found
    }

    /// The first ones, for messages: those that failed before those that were alone.
    pub(super) fn named(&self, from: Moment) -> Vec<Failure> {
        let all = self.failed.iter().chain(&self.alone).take(NAMED);
        all.map(|it| Failure {
            after: it.start.since(from),
            took: it.end.since(it.start),
            outcome: it.outcome.clone(),
        })
        .collect()
    }
}

/// Whether two attempts follow closely and were answered at once.
fn answered_close(before: &Attempt, after: &Attempt) -> bool {
    let end = before.end.max(after.end);
    before.is_answered() && after.is_answered() && end.since(before.start) <= CLOSE
}

// === impl Attempt ===

impl Attempt {
    /// Whether it was answered in time.
    pub fn is_answered(&self) -> bool {
        self.outcome.is_ok() && self.end.since(self.start) <= PATIENCE
    }
}

#[cfg(test)]
mod tests {
    use super::super::reachability;
    use super::*;

    const MS: u64 = 1_000_000;

    /// A client that connects every 10 ms and is answered after 1 ms.
    fn answered(count: u64) -> Vec<Attempt> {
        let attempt = |number| Attempt {
            start: Moment(number * 10 * MS),
            end: Moment((number * 10 + 1) * MS),
            outcome: Outcome::Ok("a".into()),
        };
        (0..count).map(attempt).collect()
    }

    /// An attempt whose first packet is lost.
    fn loses(attempts: &mut [Attempt], number: usize) {
        attempts[number].end = attempts[number].start + PATIENCE + Duration::from_millis(5);
    }

    /// How many failed, and how many were alone.
    fn judged(attempts: &[Attempt]) -> (usize, usize) {
        let seen = reachability(attempts, Moment(0), Moment(u64::MAX));
        assert_eq!(
            seen.failed,
            failures(attempts, Moment(0), Moment(u64::MAX)).len()
        );
        (seen.failed, seen.alone)
    }

    #[test]
    fn one_attempt_alone_is_no_outage() {
        let mut attempts = answered(60);
        assert_eq!(judged(&attempts), (0, 0));
        // Answered when the kernel repeats the packet.
        loses(&mut attempts, 30);
        assert_eq!(judged(&attempts), (0, 1));
        attempts[30].outcome = Outcome::Timeout;
        assert_eq!(judged(&attempts), (0, 1));
        // The answers around it are those of before.
        let seen = reachability(&attempts, Moment(0), Moment(600 * MS));
        assert_eq!(seen.outage, Duration::from_millis(20));
    }

    #[test]
    fn two_attempts_in_a_row_are_an_outage() {
        let mut attempts = answered(60);
        loses(&mut attempts, 30);
        loses(&mut attempts, 31);
        assert_eq!(judged(&attempts), (2, 0));
    }

    #[test]
    fn a_wrong_answer_is_a_failure_also_alone() {
        for outcome in [
            Outcome::Refused,
            Outcome::Reset,
            Outcome::Unreachable,
            Outcome::Other("why".into()),
        ] {
            for took in [1, 1_500] {
                let mut attempts = answered(60);
                attempts[30].outcome = outcome.clone();
                attempts[30].end = attempts[30].start + Duration::from_millis(took);
                assert_eq!(judged(&attempts), (1, 0), "{outcome:?}");
            }
        }
    }

    #[test]
    fn more_than_one_in_a_thousand_are_not_excused() {
        let mut attempts = answered(1_001);
        loses(&mut attempts, 30);
        loses(&mut attempts, 60);
        assert_eq!(judged(&attempts), (0, 2));
        loses(&mut attempts, 90);
        assert_eq!(judged(&attempts), (3, 0));
    }

    #[test]
    fn nobody_is_alone_beside_attempts_that_wait_or_are_missing() {
        let mut late = answered(60);
        loses(&mut late, 30);
        late.drain(31..40);
        assert_eq!(judged(&late), (1, 0), "the next attempt is far away");
        for number in [29, 31] {
            let mut slow = answered(60);
            loses(&mut slow, 30);
            slow[number].end = slow[number].start + Duration::from_millis(200);
            assert_eq!(judged(&slow), (1, 0), "{number} waited, too");
        }
        for number in [0, 59] {
            let mut edge = answered(60);
            loses(&mut edge, number);
            assert_eq!(judged(&edge), (1, 0), "nobody knows what was beside it");
        }
    }

    #[test]
    fn attempts_beside_a_period_show_what_was_around_its_edges() {
        let mut attempts = answered(60);
        loses(&mut attempts, 30);
        let (from, until) = (attempts[30].start, attempts[31].start);
        let seen = reachability(&attempts, from, until);
        assert_eq!((seen.attempts, seen.failed, seen.alone), (1, 0, 1));
        assert!(failures(&attempts, until, Moment(u64::MAX)).is_empty());
    }

    #[test]
    fn a_message_names_the_first_failures() {
        let mut attempts = answered(60);
        for attempt in &mut attempts[20..30] {
            attempt.outcome = Outcome::Reset;
        }
        let seen = reachability(&attempts, Moment(100 * MS), Moment(600 * MS));
        assert_eq!((seen.failed, seen.failures.len()), (10, NAMED));
        let first = Failure {
            after: Duration::from_millis(100),
            took: Duration::from_millis(1),
            outcome: Outcome::Reset,
        };
        assert_eq!(seen.failures[0], first);
    }
}
