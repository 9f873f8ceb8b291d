//! Progress lines for slow steps, with the time since the start.

use std::time::Instant;

/// Prints progress to standard error.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    start: Instant,
    on: bool,
}

impl Progress {
    /// Starts the clock.
    pub fn new(on: bool) -> Self {
        Self {
            start: Instant::now(),
            on,
        }
    }

    /// Prints one line.
    pub fn say(&self, what: impl std::fmt::Display) {
        if self.on {
            eprintln!("[{:5.1}s] {what}", self.start.elapsed().as_secs_f32());
        }
    }

    /// Seconds since the start.
    pub fn seconds(&self) -> f32 {
        self.start.elapsed().as_secs_f32()
    }
}
