//! How long to wait before failed work is retried.
//!
//! This module only chooses the delay: a plain function of the attempt and a source of
//! randomness. [`crate::process::queue`] calls it and counts the attempts per key.
//!
//! Invariants: every delay lies between `base` and `cap`; the window of an attempt never lies
//! below that of an earlier one; every window spans a factor of two (less only if `cap` is less
//! than twice `base`), so that keys that failed together are not retried together, not even at
//! the cap.

use std::time::Duration;

use rand::{Rng, RngExt};

/// Exponential backoff with jitter, between two bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
}

// === impl Backoff ===

impl Backoff {
    /// Delays between `base` and `cap`. A `cap` below `base` counts as `base`.
    pub const fn new(base: Duration, cap: Duration) -> Self {
        let cap = if cap.as_nanos() < base.as_nanos() {
            base
        } else {
            cap
        };
        Self { base, cap }
    }

    /// The delay before the retry after failure number `attempt` (from 0).
    pub fn delay<R: Rng + ?Sized>(&self, attempt: u32, rng: &mut R) -> Duration {
        let (from, to) = self.window(attempt);
        rng.random_range(from..=to)
    }

    /// The bounds that [`Backoff::delay`] draws from: `base × 2ⁿ` up to twice that,
    /// or the upper half below the cap.
    fn window(&self, attempt: u32) -> (Duration, Duration) {
        let factor = 1_u32.checked_shl(attempt).unwrap_or(u32::MAX);
        let grown = self.base.saturating_mul(factor);
        let to = grown.saturating_mul(2).min(self.cap);
        let from = grown.min(self.cap / 2).max(self.base);
        (from, to)
    }
}

impl Default for Backoff {
    /// From one second to five minutes.
    fn default() -> Self {
        Self::new(Duration::from_secs(1), Duration::from_mins(5))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{SeedableRng, rngs::SmallRng};

    use super::*;

    #[test]
    fn windows_of_the_default() {
        let table = [
            (0, 1, 2),
            (1, 2, 4),
            (2, 4, 8),
            (3, 8, 16),
            (6, 64, 128),
            (7, 128, 256),
            (8, 150, 300),
            (9, 150, 300),
            (31, 150, 300),
            (32, 150, 300),
            (u32::MAX, 150, 300),
        ];
        for (attempt, from, to) in table {
            assert_eq!(
                Backoff::default().window(attempt),
                (Duration::from_secs(from), Duration::from_secs(to)),
                "attempt {attempt}"
            );
        }
    }

    #[test]
    fn odd_bounds() {
        let second = Duration::from_secs(1);
        // A cap below the base, a cap close to the base, and zero for both.
        assert_eq!(
            Backoff::new(second, Duration::ZERO).window(5),
            (second, second)
        );
        assert_eq!(
            Backoff::new(second, second * 3 / 2).window(5),
            (second, second * 3 / 2)
        );
        assert_eq!(
            Backoff::new(Duration::ZERO, Duration::ZERO).window(9),
            (Duration::ZERO, Duration::ZERO)
        );
    }

    #[test]
    fn the_seed_decides() {
        let draw = |seed| {
            let mut rng = SmallRng::seed_from_u64(seed);
            (0..12)
                .map(|attempt| Backoff::default().delay(attempt, &mut rng))
                .collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    proptest! {
        #[test]
        fn stays_within_the_bounds_and_never_shrinks(
            base_ms in 0_u64..10_000,
            cap_ms in 0_u64..1_000_000,
            attempt in 0_u32..80,
            seed: u64,
        ) {
            let base = Duration::from_millis(base_ms);
            let backoff = Backoff::new(base, Duration::from_millis(cap_ms));
            let delay = backoff.delay(attempt, &mut SmallRng::seed_from_u64(seed));
            let (from, to) = backoff.window(attempt);
            let (next_from, next_to) = backoff.window(attempt + 1);
            prop_assert!(from <= delay && delay <= to);
            prop_assert!(base <= from && to <= backoff.cap);
            prop_assert!(from <= next_from && to <= next_to);
            prop_assert!(to >= from * 2 || backoff.cap < base * 2);
        }
    }
}
