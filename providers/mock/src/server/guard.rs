//! Who may change something, and how often. Pure but for the token's digest.

use std::time::Duration;

use ballast_provider::mark::digest;
use tokio::time::Instant;

/// What mutating calls must carry.
pub(super) struct Guard {
    /// Digest of the whole header's value: comparing digests of equal length takes the
    /// same time wherever they differ.
    expected: Option<String>,
}

/// A bucket of permissions that fills over time.
#[derive(Debug)]
pub(super) struct Limiter {
    per_second: u32,
    tokens: f64,
    filled: Option<Instant>,
}

// === impl Guard ===

impl Guard {
    pub(super) fn new(token: Option<&str>) -> Self {
        Self {
            expected: token.map(|token| digest([format!("Bearer {token}").as_str()])),
        }
    }

    /// Whether an `Authorization` header's value opens the door.
    pub(super) fn admits(&self, header: Option<&str>) -> bool {
        let Some(expected) = &self.expected else {
            return true;
        };
        let given = digest([header.unwrap_or_default()]);
        let pairs = expected.bytes().zip(given.bytes());
        pairs.fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
    }
}

// === impl Limiter ===

impl Limiter {
    /// A burst of one second's worth; 0 is no limit.
    pub(super) fn new(per_second: u32) -> Self {
        Self {
            per_second,
            tokens: f64::from(per_second),
            filled: None,
        }
    }

    /// Takes one permission, or says when there will be one.
    pub(super) fn take(&mut self, now: Instant) -> Result<(), Duration> {
        if self.per_second == 0 {
            return Ok(());
        }
        let rate = f64::from(self.per_second);
        let since = self
            .filled
            .map_or(Duration::ZERO, |at| now.duration_since(at));
        self.tokens = (self.tokens + since.as_secs_f64() * rate).min(rate);
        self.filled = Some(now);
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            Ok(())
        } else {
            Err(Duration::from_secs_f64((1.0 - self.tokens) / rate))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_token_opens() {
        let guard = Guard::new(Some("s3cret"));
        for (header, admitted) in [
            (Some("Bearer s3cret"), true),
            (Some("Bearer s3cre"), false),
            (Some("s3cret"), false),
            (Some(""), false),
            (None, false),
        ] {
            assert_eq!(guard.admits(header), admitted, "{header:?}");
        }
        assert!(Guard::new(None).admits(None));
    }

    #[test]
    fn the_limiter_lets_a_burst_through_and_says_when_to_come_back() {
        let mut limiter = Limiter::new(2);
        let now = Instant::now();
        assert_eq!(limiter.take(now), Ok(()));
        assert_eq!(limiter.take(now), Ok(()));
        assert_eq!(limiter.take(now), Err(Duration::from_millis(500)));
        assert_eq!(limiter.take(now + Duration::from_millis(500)), Ok(()));
        assert_eq!(Limiter::new(0).take(now), Ok(()));
    }
}
