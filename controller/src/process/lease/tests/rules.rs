//! The table of [`decide`], and the bounds of the configuration.

use std::time::Duration;

use tokio::time::Instant;

use crate::process::lease::{
    Config, ConfigError, Loss, Timing,
    decide::{Observed, Record, Step, decide},
};

const ME: &str = "me";

fn config() -> Config {
    Config::with_identity(ME.to_owned(), Timing::default()).unwrap()
}

fn held_by(holder: &str, version: u64) -> Record {
    Record {
        version: version.to_string(),
        holder: (!holder.is_empty()).then(|| holder.to_owned()),
        duration: Some(Duration::from_secs(15)),
        transitions: 7,
    }
}

fn write(over: u64, epoch: u32) -> Step {
    Step::Write {
        over: Some(over.to_string()),
        epoch,
    }
}

/// A sequence of events at seconds from its start, then a check.
struct Story {
    start: Instant,
    config: Config,
    observed: Observed,
}

impl Story {
    fn new() -> Self {
        let start = Instant::now();
        Self {
            start,
            config: config(),
            observed: Observed::new(start),
        }
    }

    fn at(&self, seconds: f64) -> Instant {
        self.start + Duration::from_secs_f64(seconds)
    }

    fn looked(mut self, at: f64, record: Option<Record>) -> Self {
        let now = self.at(at);
        self.observed.begin(&Step::Look, now, &self.config);
        self.observed.looked(record, now);
        self
    }

    fn look_failed(mut self, at: f64) -> Self {
        let now = self.at(at);
        self.observed.begin(&Step::Look, now, &self.config);
        self
    }

    fn wrote(mut self, begun: f64, answered: f64, record: Record) -> Self {
        let epoch = record.transitions;
        let (begun, answered) = (self.at(begun), self.at(answered));
        self.observed.begin(&write(0, epoch), begun, &self.config);
        self.observed.wrote(record, epoch, begun, answered);
        self
    }

    fn write_unanswered(mut self, begun: f64) -> Self {
        let now = self.at(begun);
        self.observed.begin(&write(0, 0), now, &self.config);
        self
    }

    fn write_refused(self, begun: f64) -> Self {
        let now = self.at(begun);
        let mut story = self.write_unanswered(begun);
        story.observed.refused(now);
        story
    }

    /// Checks the decision at each of the times.
    #[track_caller]
    fn then(self, expected: &[(f64, Step)]) {
        for (at, step) in expected {
            let decided = decide(&self.observed, self.at(*at), &self.config);
            assert_eq!(&decided, step, "at {at} s of {:?}", self.observed);
        }
    }

    fn wait(&self, until: f64) -> Step {
        Step::Wait(self.at(until))
    }
}

#[test]
fn a_candidate_looks_first_and_creates_what_is_not_there() {
    Story::new().then(&[(0.0, Step::Look)]);
    let create = Step::Write {
        over: None,
        epoch: 0,
    };
    Story::new().looked(0.0, None).then(&[(0.0, create)]);
}

#[test]
fn a_candidate_waits_until_the_holder_has_not_moved_for_a_lease_duration() {
    let story = Story::new().looked(0.0, Some(held_by("other", 1)));
    let wait = story.wait(2.0);
    story.then(&[(0.0, wait.clone()), (1.9, wait), (2.0, Step::Look)]);

    // The same version again does not count as a renewal …
    let story = Story::new()
        .looked(0.0, Some(held_by("other", 1)))
        .looked(14.0, Some(held_by("other", 1)));
    let wait = story.wait(15.0);
    story.then(&[(14.0, wait.clone()), (14.9, wait), (15.0, write(1, 8))]);

    // … a new version does, whatever times it contains.
    let story = Story::new()
        .looked(0.0, Some(held_by("other", 1)))
        .looked(14.0, Some(held_by("other", 2)));
    let wait = story.wait(16.0);
    story.then(&[(15.0, wait), (28.9, Step::Look), (29.0, write(2, 8))]);
}

#[test]
fn the_holders_own_promise_counts() {
    let mut long = held_by("other", 1);
    long.duration = Some(Duration::from_mins(1));
    Story::new().looked(0.0, Some(long)).then(&[
        (15.0, Step::Look),
        (59.9, Step::Look),
        (60.0, write(1, 8)),
    ]);

    let mut none = held_by("other", 1);
    none.duration = None;
    Story::new()
        .looked(0.0, Some(none))
        .then(&[(14.9, Step::Look), (15.0, write(1, 8))]);
}

#[test]
fn a_released_lease_is_taken_at_once() {
    Story::new()
        .looked(0.0, Some(held_by("", 1)))
        .then(&[(0.0, write(1, 8))]);
}

#[test]
fn a_candidate_that_finds_its_own_name_writes_before_it_leads() {
    Story::new()
        .looked(0.0, Some(held_by(ME, 1)))
        .then(&[(0.0, write(1, 7))]);
}

#[test]
fn a_failed_take_over_is_looked_at_and_not_repeated_before_its_time() {
    let expired = || Story::new().looked(0.0, Some(held_by("other", 1)));
    let story = expired().write_unanswered(15.0);
    let wait = story.wait(17.0);
    story.then(&[(15.0, wait), (17.0, Step::Look)]);

    // The write did not land: the holder's silence continues from before.
    expired()
        .write_unanswered(15.0)
        .looked(17.0, Some(held_by("other", 1)))
        .then(&[(17.0, write(1, 8))]);

    // The write landed without an answer: same term.
    expired()
        .write_unanswered(15.0)
        .looked(17.0, Some(held_by(ME, 2)))
        .then(&[(17.0, write(2, 7))]);

    // Another candidate was faster.
    expired().write_refused(15.0).then(&[(15.0, Step::Look)]);
    let story = expired()
        .write_refused(15.0)
        .looked(15.0, Some(held_by("third", 2)));
    let wait = story.wait(17.0);
    story.then(&[(15.0, wait), (17.0, Step::Look)]);

    // Released by someone else: free, but not before the next write is due.
    let story = expired()
        .write_refused(15.0)
        .looked(15.0, Some(held_by("", 2)));
    let wait = story.wait(17.0);
    story.then(&[(15.0, wait), (17.0, write(2, 8))]);
}

#[test]
fn a_leader_renews_every_retry_period() {
    let story = Story::new().wrote(0.0, 1.0, held_by(ME, 1));
    let wait = story.wait(2.0);
    story.then(&[(1.0, wait), (2.0, write(1, 7)), (9.9, write(1, 7))]);
}

#[test]
fn a_leader_counts_from_the_start_of_its_last_write() {
    Story::new()
        .wrote(0.0, 3.0, held_by(ME, 1))
        .then(&[(9.9, write(1, 7)), (10.0, Step::Lose(Loss::Deadline))]);
    // Answered after its own end: it never led.
    Story::new()
        .wrote(0.0, 11.0, held_by(ME, 1))
        .then(&[(11.0, Step::Lose(Loss::Deadline))]);
}

#[test]
fn a_leader_that_cannot_renew_looks_and_then_gives_up() {
    let leading = || Story::new().wrote(0.0, 0.0, held_by(ME, 1));
    let story = leading().write_unanswered(2.0);
    let wait = story.wait(4.0);
    story.then(&[
        (2.0, wait),
        (5.3, Step::Look),
        (10.0, Step::Lose(Loss::Deadline)),
    ]);

    // The unanswered write landed: it does not count, and the next one replaces it.
    leading()
        .write_unanswered(2.0)
        .looked(5.3, Some(held_by(ME, 2)))
        .then(&[(5.3, write(2, 7)), (10.0, Step::Lose(Loss::Deadline))]);

    // The wait never ends after the deadline.
    let story = leading().write_unanswered(8.5).look_failed(8.6);
    let wait = story.wait(10.0);
    story.then(&[(9.0, wait)]);
}

#[test]
fn a_leader_looks_at_once_when_somebody_else_wrote() {
    let refused = || {
        Story::new()
            .wrote(0.0, 0.0, held_by(ME, 1))
            .write_refused(2.0)
    };
    refused().then(&[(2.0, Step::Look)]);
    // Only an annotation changed, for example: no hurry, and no busy loop.
    let story = refused().looked(2.0, Some(held_by(ME, 2)));
    let wait = story.wait(4.0);
    story.then(&[(2.0, wait), (4.0, write(2, 7))]);

    let taken = |by: &str| {
        Step::Lose(Loss::Taken {
            by: (!by.is_empty()).then(|| by.to_owned()),
        })
    };
    for by in ["other", ""] {
        refused()
            .looked(2.0, Some(held_by(by, 2)))
            .then(&[(2.0, taken(by))]);
    }
    refused()
        .looked(2.0, None)
        .then(&[(2.0, Step::Lose(Loss::Deleted))]);
}

#[test]
fn times_that_cannot_work_are_refused() {
    let timing = |lease, renew, retry| Timing {
        lease_duration: Duration::from_millis(lease),
        renew_deadline: Duration::from_millis(renew),
        retry_period: Duration::from_millis(retry),
    };
    assert!(Config::new("a", Timing::default()).is_ok());
    assert!(Config::new("a", timing(1000, 900, 450)).is_ok());
    for lease in [0, 999, 1500, 86_401_000] {
        assert!(matches!(
            Config::new("a", timing(lease, 1, 1)),
            Err(ConfigError::LeaseDuration(_))
        ));
    }
    for renew in [15_000, 16_000] {
        assert!(matches!(
            Config::new("a", timing(15_000, renew, 2_000)),
            Err(ConfigError::RenewDeadline { .. })
        ));
    }
    for retry in [0, 5_001] {
        assert!(matches!(
            Config::new("a", timing(15_000, 10_000, retry)),
            Err(ConfigError::RetryPeriod { .. })
        ));
    }
    assert_eq!(Config::new("", Timing::default()), Err(ConfigError::Name));
}

#[test]
fn every_process_has_its_own_identity() {
    let identity = || Config::new("pod-0", Timing::default()).unwrap();
    assert_ne!(identity().identity(), identity().identity());
    assert!(identity().identity().starts_with("pod-0_"));
}

#[test]
fn a_call_leaves_time_for_another_and_for_the_next_leader() {
    let call = config().call_timeout();
    assert!(call * 3 <= Duration::from_secs(10));
    assert!(call < Duration::from_secs(15 - 10));
    let tight = Timing {
        renew_deadline: Duration::from_millis(14_900),
        ..Timing::default()
    };
    let call = Config::new("a", tight).unwrap().call_timeout();
    assert!(call < Duration::from_millis(100));
}
