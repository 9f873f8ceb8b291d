//! The time of the fake: one that a test moves, or the real one, faster.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::state::Moment;

/// How time passes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Time {
    /// Only when the test says so.
    Manual,
    /// As on tokio's clock, this many times faster.
    Scaled(f64),
}

#[derive(Debug)]
pub(crate) struct Clock {
    time: Time,
    start: Instant,
    /// By how much the test has moved it.
    moved: watch::Sender<Duration>,
}

// === impl Clock ===

impl Clock {
    pub(crate) fn new(time: Time) -> Self {
        Self {
            time,
            start: Instant::now(),
            moved: watch::Sender::default(),
        }
    }

    pub(crate) fn now(&self) -> Moment {
        let moved = *self.moved.borrow();
        match self.time {
            Time::Manual => moved,
            Time::Scaled(factor) => self.start.elapsed().mul_f64(factor) + moved,
        }
    }

    /// Moves it.
    pub(crate) fn advance(&self, by: Duration) {
        self.moved.send_modify(|moved| *moved += by);
    }

    /// Waits until it shows a time.
    pub(crate) async fn wait_until(&self, moment: Moment) {
        let mut moved = self.moved.subscribe();
        loop {
            let Some(rest) = moment.checked_sub(self.now()).filter(|it| !it.is_zero()) else {
                return;
            };
            match self.time {
                Time::Manual => {
                    if moved.changed().await.is_err() {
                        return;
                    }
                }
                Time::Scaled(factor) => {
                    // A little more, so that rounding does not wake it early again and again.
                    let real = rest.div_f64(factor) + Duration::from_micros(100);
                    tokio::select! {
                        () = sleep_until(Instant::now() + real) => {}
                        _ = moved.changed() => {}
                    }
                }
            }
        }
    }
}
