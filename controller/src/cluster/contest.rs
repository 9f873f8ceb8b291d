//! Slows down writes that restore what somebody else keeps changing.
//!
//! Two controllers that write the same field overwrite each other as fast as the API server
//! answers, and neither ends it. A [`Contest`] is about one object. It counts *restorations*:
//! writes of what this process had already written, because somebody changed the object since.
//! Other writes are not its concern: the caller sends them at once and does not ask.
//!
//! | state | a restoration is needed | nothing to restore |
//! |---|---|---|
//! | `Calm`, fewer than [`FREE`] in [`WINDOW`] | write at once; count it | stays |
//! | `Calm`, [`FREE`] in [`WINDOW`] | write at once → `Contested` | stays |
//! | `Contested`, before `due` | wait until `due` | stays |
//! | `Contested`, at `due` | write; twice the pause, at most [`LONGEST`] | stays |
//! | `Contested`, as this process left it for [`QUIET`] | → `Calm`, then as there | → `Calm` |
//!
//! The caller reports with [`Contest::look`] whether the object is as this process left it.
//! While it is not, the other one has what it wants and may be silent, so that is no quiet
//! time. Pure: `now` is an argument.

use std::time::Duration;

use tokio::time::Instant;

/// Restorations within [`WINDOW`] that are written at once. Somebody may try things by hand.
pub const FREE: u8 = 3;
/// The time in which restorations are counted.
pub const WINDOW: Duration = Duration::from_mins(1);
/// A contest ends when the object has been as this process left it for this long.
pub const QUIET: Duration = Duration::from_mins(1);
/// The pause after the write that begins a contest.
const FIRST: Duration = Duration::from_secs(5);
/// The longest pause between two restorations.
pub const LONGEST: Duration = Duration::from_mins(2);

/// Whether somebody else keeps changing one object; see the module documentation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Contest(State);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Calm {
        /// Restorations since the first one of the window, and when that was.
        restored: Option<(u8, Instant)>,
    },
    Contested {
        /// When the next restoration may be written.
        due: Instant,
        /// The pause before `due`.
        pause: Duration,
        /// When the object was last seen as somebody else left it.
        changed: Instant,
        /// It was so at the last look.
        is_changed: bool,
    },
}

// === impl Contest ===

impl Contest {
    /// A contest that another process has reported before this one began.
    pub const fn resumed(now: Instant) -> Self {
        Self(State::Contested {
            due: now,
            pause: FIRST,
            changed: now,
            is_changed: false,
        })
    }

    /// Records whether the object is now as somebody else left it.
    pub fn look(&mut self, is_changed: bool, now: Instant) {
        self.settle(now);
        if let State::Contested {
            changed,
            is_changed: before,
            ..
        } = &mut self.0
        {
            if is_changed || *before {
                *changed = now;
            }
            *before = is_changed;
        }
    }

    /// Whether a restoration may be written now. `Err`: ask again after this time.
    pub fn may_restore(&self, now: Instant) -> Result<(), Duration> {
        let mut settled = *self;
        settled.settle(now);
        match settled.0 {
            State::Contested { due, .. } if now < due => Err(due - now),
            State::Contested { .. } | State::Calm { .. } => Ok(()),
        }
    }

    /// Records that a restoration is written now. Returns whether a contest begins with it.
    pub fn restored(&mut self, now: Instant) -> bool {
        self.settle(now);
        let paused = |pause| State::Contested {
            due: now + pause,
            pause,
            changed: now,
            is_changed: false,
        };
        let (next, begins) = match self.0 {
            State::Contested { pause, .. } => (paused((pause * 2).min(LONGEST)), false),
            State::Calm { restored } => {
                let recent = restored.filter(|(_, since)| now - *since < WINDOW);
                match recent.unwrap_or((0, now)) {
                    (FREE.., _) => (paused(FIRST), true),
                    (count, since) => {
                        let restored = Some((count + 1, since));
                        (State::Calm { restored }, false)
                    }
                }
            }
        };
        self.0 = next;
        begins
    }

    /// All of the above in one step: somebody else changed the object, and it is restored if it
    /// may be. Returns whether a contest begins; `Err`: it may not be restored yet.
    pub fn restore(&mut self, now: Instant) -> Result<bool, Duration> {
        self.look(true, now);
        self.may_restore(now)?;
        Ok(self.restored(now))
    }

    /// When the contest can end at the earliest; `None` while there is none.
    pub fn ends(&self, now: Instant) -> Option<Instant> {
        let mut settled = *self;
        settled.settle(now);
        match settled.0 {
            State::Contested {
                due,
                is_changed: true,
                ..
            } => Some(due.max(now) + QUIET),
            State::Contested { changed, .. } => Some(changed + QUIET),
            State::Calm { .. } => None,
        }
    }

    /// Whether nothing is remembered that a later restoration depends on.
    pub fn is_over(&self, now: Instant) -> bool {
        match self.0 {
            State::Calm { restored } => restored.is_none_or(|(_, since)| now - since >= WINDOW),
            State::Contested { .. } => self.ends(now).is_none(),
        }
    }

    /// Ends a contest after the quiet time.
    fn settle(&mut self, now: Instant) {
        if let State::Contested {
            changed,
            is_changed: false,
            ..
        } = self.0
            && now - changed >= QUIET
        {
            *self = Self::default();
        }
    }
}

impl Default for State {
    fn default() -> Self {
        Self::Calm { restored: None }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Somebody changes the object all the time. Returns the times of restorations.
    fn fight(start: Instant, length: Duration, every: Duration) -> (Vec<Duration>, Contest) {
        let (mut contest, mut written) = (Contest::default(), Vec::new());
        let mut at = Duration::ZERO;
        while at < length {
            if contest.restore(start + at).is_ok() {
                written.push(at);
            }
            at += every;
        }
        (written, contest)
    }

    #[test]
    fn a_few_restorations_are_free_and_then_the_pauses_grow() {
        let start = Instant::now();
        let (written, contest) = fight(start, seconds(1_000), seconds(1));
        let at: Vec<u64> = written.iter().map(Duration::as_secs).collect();
        let expected = [
            0, 1, 2, 3, 8, 18, 38, 78, 158, 278, 398, 518, 638, 758, 878, 998,
        ];
        assert_eq!(at, expected);
        assert!(contest.ends(start + seconds(1_000)).is_some());
    }

    #[test]
    fn the_transition_table() {
        let start = Instant::now();
        let at = |second| start + seconds(second);
        let mut contest = Contest::default();
        for second in 0..3 {
            assert_eq!(contest.may_restore(at(second)), Ok(()));
            assert!(!contest.restored(at(second)), "free");
            assert_eq!(contest.ends(at(second)), None);
        }
        let mut rare = contest;
        assert!(!rare.restored(at(60)), "another window");
        assert_eq!(rare.ends(at(60)), None);
        assert!(contest.restored(at(3)), "it begins");
        assert_eq!(contest.may_restore(at(4)), Err(seconds(4)), "before due");
        assert_eq!(contest.may_restore(at(8)), Ok(()), "at due");
        assert!(!contest.restored(at(8)), "it goes on");
        assert_eq!(contest.may_restore(at(9)), Err(seconds(9)), "twice as long");
        contest.look(true, at(9));
        assert_eq!(contest.ends(at(9)), Some(at(78)), "after the next one");
        assert_eq!(contest.ends(at(90)), Some(at(150)), "the other one has won");
        contest.look(false, at(90));
        assert_eq!(contest.ends(at(149)), Some(at(150)), "it is as it was left");
        assert_eq!(contest.ends(at(150)), None, "quiet");
        assert!(contest.is_over(at(150)));
        assert!(!contest.restored(at(150)), "as at the start");
        assert_eq!(contest.ends(at(150)), None);
        assert!(!contest.is_over(at(151)) && contest.is_over(at(210)));
    }

    #[test]
    fn a_contest_that_was_reported_before_ends_when_it_is_quiet() {
        let now = Instant::now();
        let contest = Contest::resumed(now);
        assert_eq!(contest.may_restore(now), Ok(()));
        assert_eq!(contest.ends(now), Some(now + QUIET));
        assert_eq!(contest.ends(now + QUIET), None);
    }

    proptest! {
        /// However somebody else behaves: in no minute are more restorations written than the
        /// free ones and those of the shortest pauses, the wait is never longer than the
        /// longest pause, and after a quiet time nothing is left.
        #[test]
        fn restorations_are_bounded_and_the_end_is_noticed(
            steps in prop::collection::vec(0_u64..200_000, 1..400),
        ) {
            let start = Instant::now();
            let (mut now, mut contest, mut written) = (start, Contest::default(), Vec::new());
            for step in steps {
                now += Duration::from_millis(if step % 3 == 0 { step } else { step / 1000 });
                match contest.restore(now) {
                    Ok(_) => written.push(now),
                    Err(wait) => {
                        prop_assert!(wait > Duration::ZERO && wait <= LONGEST);
                        // Nothing else happens: it may be written then.
                        prop_assert_eq!(contest.may_restore(now + wait), Ok(()));
                    }
                }
            }
            for (index, first) in written.iter().enumerate() {
                let minute = written[index..].iter().take_while(|at| **at - *first < WINDOW);
                // Free ones of two windows, the one that begins, and those after 5, 10, 20 s.
                prop_assert!(minute.count() <= 2 * usize::from(FREE) + 4);
            }
            now += LONGEST;
            prop_assert!(contest.restore(now).is_ok());
            contest.look(false, now + QUIET);
            prop_assert_eq!(contest.ends(now + QUIET), None);
            prop_assert!(contest.is_over(now + QUIET.max(WINDOW)));
        }
    }
}
