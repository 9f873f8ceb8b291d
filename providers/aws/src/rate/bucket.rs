//! A token bucket that somebody else empties, too. Pure.

use std::time::Duration;

use tokio::time::Instant;

use super::Limit;

/// By how much longer than the following ones the first call after a pause may be on its way: it opens
/// the connection.
pub const LATENCY: Duration = Duration::from_millis(300);
/// The most by which the filling of a bucket slows down.
const SLOWEST: u32 = 16;
/// After this time without `Throttling`, a bucket fills twice as fast, up to its full rate.
pub(super) const RECOVERY: Duration = Duration::from_mins(1);

/// A token bucket. Its content is a time: each token is worth one interval, and a full bucket
/// `burst` of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    limit: Limit,
    /// The content at `at`.
    credit: Duration,
    at: Instant,
    /// The factor by which it fills more slowly, and since when.
    slower: (u32, Instant),
}

// === impl Bucket ===

impl Bucket {
    pub(super) fn full(limit: Limit, now: Instant) -> Self {
        Self {
            limit,
            credit: limit.interval.saturating_mul(limit.burst),
            at: now,
            slower: (1, now),
        }
    }

    /// The factor by which it fills more slowly at this time.
    pub(super) fn factor(&self, now: Instant) -> u32 {
        let (factor, since) = self.slower;
        let passed = now.saturating_duration_since(since).as_secs() / RECOVERY.as_secs();
        let halved = factor.checked_shr(u32::try_from(passed).unwrap_or(u32::MAX));
        halved.unwrap_or(0).max(1)
    }

    /// The content now. From one change to the next the bucket fills evenly, so that the time
    /// of the next token does not change while a call waits for it.
    pub(super) fn credit(&self, now: Instant) -> Duration {
        let filled = now.saturating_duration_since(self.at) / self.factor(self.at);
        let full = self.limit.interval.saturating_mul(self.limit.burst);
        self.credit.saturating_add(filled).min(full)
    }

    /// How long until there is one token more than `tokens`.
    pub(super) fn until(&self, tokens: u32, now: Instant) -> Duration {
        let needed = self
            .limit
            .interval
            .saturating_mul(tokens.saturating_add(1))
            .saturating_sub(self.credit(now));
        if needed.is_zero() {
            return needed;
        }
        let begins = self.at.saturating_duration_since(now);
        begins + needed.saturating_mul(self.factor(self.at))
    }

    /// The earliest time at which there is a token; the past counts as now.
    pub(super) fn ready_at(&self, now: Instant) -> Instant {
        now + self.until(0, now)
    }

    pub(super) fn take(&mut self, now: Instant) {
        let credit = self.credit(now);
        let full = self.limit.interval.saturating_mul(self.limit.burst);
        self.credit = credit.saturating_sub(self.limit.interval);
        // AWS's may be full until the call arrives.
        let may_be_full = credit.saturating_add(LATENCY) >= full;
        let begins = if may_be_full { now + LATENCY } else { now };
        self.at = self.at.max(begins);
    }

    pub(super) fn throttled(&mut self, made: Instant, now: Instant) {
        let (factor, since) = self.slower;
        if factor > 1 && made < since {
            return;
        }
        let factor = self.factor(now).saturating_mul(2).min(SLOWEST);
        self.slower = (factor, now);
        (self.credit, self.at) = (Duration::ZERO, now);
    }
}
