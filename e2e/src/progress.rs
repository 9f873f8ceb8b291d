//! Progress lines for slow steps, with the time since the start.
//!
//! No step is silent for long: [`Progress::while_working`] and [`Progress::while_waiting`] print
//! a line every 10 seconds until the step ends. A quick step prints nothing of its own.

use std::future::Future;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

/// The time after which a step that still runs prints another line. Users wait 15 s at most,
/// also on a machine whose cores are all busy.
const SILENCE: Duration = Duration::from_secs(10);

/// Prints progress to standard error.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    start: Instant,
    on: bool,
    silence: Duration,
    print: fn(&str),
}

impl Progress {
    /// Starts the clock.
    pub fn new(on: bool) -> Self {
        Self {
            start: Instant::now(),
            on,
            silence: SILENCE,
            print: |line| eprintln!("{line}"),
        }
    }

    /// For tests: other lines, at other times.
    #[cfg(test)]
    pub(crate) fn every(silence: Duration, print: fn(&str)) -> Self {
        Self {
            silence,
            print,
            ..Self::new(true)
        }
    }

    /// Prints one line.
    pub fn say(&self, what: impl std::fmt::Display) {
        if self.on {
            let seconds = self.start.elapsed().as_secs_f32();
            (self.print)(&format!("[{seconds:5.1}s] {what}"));
        }
    }

    /// Seconds since the start.
    pub fn seconds(&self) -> f32 {
        self.start.elapsed().as_secs_f32()
    }

    /// Does work that blocks the thread. While it lasts, prints what `doing` returns: what is
    /// being done and what is left.
    pub fn while_working<T>(
        &self,
        doing: impl Fn() -> String + Send,
        work: impl FnOnce() -> T,
    ) -> T {
        if !self.on {
            return work();
        }
        let (working, ended) = oneshot::channel::<()>();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let clock = tokio::runtime::Builder::new_current_thread()
                    .enable_time()
                    .build();
                // Without a clock the work is silent, and is done all the same.
                if let Ok(clock) = clock {
                    let _ = clock.block_on(self.while_waiting(doing, ended));
                }
            });
            let done = work();
            drop(working);
            done
        })
    }

    /// The same for work that does not block.
    pub fn while_waiting<T>(
        &self,
        doing: impl Fn() -> String,
        work: impl Future<Output = T>,
    ) -> impl Future<Output = T> {
        remind_every(self.silence, work, move || self.say(doing()))
    }
}

/// Waits for work, and calls `say` after each [`SILENCE`] that it lasts.
pub(crate) fn remind<T>(
    work: impl Future<Output = T>,
    say: impl FnMut(),
) -> impl Future<Output = T> {
    remind_every(SILENCE, work, say)
}

fn remind_every<T>(
    silence: Duration,
    work: impl Future<Output = T>,
    mut say: impl FnMut(),
) -> impl Future<Output = T> {
    // Work of many steps is large.
    let mut work = Box::pin(work);
    async move {
        loop {
            match tokio::time::timeout(silence, work.as_mut()).await {
                Ok(done) => return done,
                Err(_) => say(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use tokio::time::{Instant, sleep};

    use super::*;

    /// The longest time that a user waits for a line.
    const PROMISE: Duration = Duration::from_secs(15);

    /// The times at which work of this length printed a line.
    async fn lines(work: Duration) -> Vec<Duration> {
        let start = Instant::now();
        let said = RefCell::new(Vec::new());
        remind(sleep(work), || said.borrow_mut().push(start.elapsed())).await;
        said.into_inner()
    }

    #[tokio::test(start_paused = true)]
    async fn long_work_prints_a_line_at_least_every_15_seconds() {
        let work = Duration::from_secs(604);
        let mut times = lines(work).await;
        times.insert(0, Duration::ZERO);
        times.push(work);
        for pair in times.windows(2) {
            assert!(pair[1] <= pair[0] + PROMISE, "{pair:?} of {times:?}");
        }
        // Nor does it flood the terminal.
        assert!(times.len() <= 64, "{} lines", times.len());
    }

    #[tokio::test(start_paused = true)]
    async fn quick_work_prints_nothing() {
        for millis in [0, 1, 900, 9_900] {
            let times = lines(Duration::from_millis(millis)).await;
            assert!(times.is_empty(), "{millis} ms: {times:?}");
        }
    }

    #[test]
    fn work_that_blocks_returns_its_result_at_once() {
        for on in [true, false] {
            let progress = Progress::new(on);
            let done = progress.while_working(|| panic!("it is done already"), || 7);
            assert_eq!(done, 7);
        }
    }

    #[test]
    fn work_that_panics_ends_its_lines() {
        let work = || Progress::new(true).while_working(String::new, || panic!("on purpose"));
        assert!(std::panic::catch_unwind(work).is_err());
    }
}
