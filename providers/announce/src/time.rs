//! Time on one node's monotonic clock.

use std::ops::Add;
use std::time::Duration;

/// A moment on the monotonic clock of this process, counted from an arbitrary start. Two nodes'
/// times cannot be compared, so no message contains one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(Duration);

// === impl Time ===

impl Time {
    /// The moment this long after the start.
    pub const fn after_start(duration: Duration) -> Self {
        Self(duration)
    }

    /// The moment this long before; the start if it would be earlier.
    #[must_use]
    pub const fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(duration))
    }

    /// The time that has passed since `earlier`; zero if `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Time {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }
}
