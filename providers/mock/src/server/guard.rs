//! Authorises and limits calls. Pure, except for the token file, which is read again when a
//! call carries another token: Secrets are replaced and rotated.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use ballast_provider::mark::digest;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::token::read_token;

/// The least time between two reads of the file, however many calls carry a wrong token.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The token that mutating calls must carry.
pub(super) struct Guard {
    /// The digest of the whole header value. Comparing digests of equal length takes the same
    /// time wherever they differ.
    expected: RwLock<Option<String>>,
    /// The file, if the token may change.
    file: Option<PathBuf>,
    looked: tokio::sync::Mutex<Option<Instant>>,
}

/// A token bucket, for the rate of calls.
#[derive(Debug)]
pub(super) struct Limiter {
    per_second: u32,
    tokens: f64,
    filled: Option<Instant>,
}

/// Reads per second and client, which is also the largest burst: a controller that starts
/// lists 5,000 load balancers in ten calls.
const READS: u32 = 500;
/// The maximum number of clients whose reads are counted; more than the nodes and pods that
/// use the cloud.
const MOST_READERS: usize = 1_024;

/// The rate of reads of each client.
#[derive(Debug, Default)]
pub(super) struct Readers(HashMap<IpAddr, Limiter>);

// === impl Guard ===

impl Guard {
    pub(super) fn new(token: Option<&str>, file: Option<PathBuf>) -> Self {
        Self {
            expected: RwLock::new(token.map(bearer)),
            file,
            looked: tokio::sync::Mutex::default(),
        }
    }

    /// Whether the value of an `Authorization` header has the token, which may be new in the
    /// file.
    pub(super) async fn admits(&self, header: Option<&str>) -> bool {
        self.opens(header) || (self.look_again().await && self.opens(header))
    }

    /// Reads the file again. Returns whether the token may have changed.
    async fn look_again(&self) -> bool {
        let Some(path) = self.file.clone() else {
            return false;
        };
        let mut looked = self.looked.lock().await;
        if looked.is_some_and(|at| at.elapsed() < LOOK_EVERY) {
            // Another call may have just read the file.
            return true;
        }
        *looked = Some(Instant::now());
        let read = tokio::task::spawn_blocking(move || read_token(&path)).await;
        match read {
            Ok(Ok(token)) => {
                let mut expected = self
                    .expected
                    .write()
                    .unwrap_or_else(PoisonError::into_inner);
                let new = Some(bearer(&token));
                if *expected != new {
                    info!("--token-file has a new token");
                    *expected = new;
                }
                true
            }
            Ok(Err(error)) => {
                warn!(%error, "cannot read --token-file; keeping the previous token");
                false
            }
            Err(_) => false,
        }
    }

    fn opens(&self, header: Option<&str>) -> bool {
        let expected = self.expected.read().unwrap_or_else(PoisonError::into_inner);
        let Some(expected) = expected.as_ref() else {
            return true;
        };
        let given = digest([header.unwrap_or_default()]);
        let pairs = expected.bytes().zip(given.bytes());
        pairs.fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
    }
}

fn bearer(token: &str) -> String {
    digest([format!("Bearer {token}").as_str()])
}

// === impl Limiter ===

impl Limiter {
    /// The burst is the limit of one second; 0 means no limit.
    pub(super) fn new(per_second: u32) -> Self {
        Self {
            per_second,
            tokens: f64::from(per_second),
            filled: None,
        }
    }

    /// Whether the bucket is full, as if it was never used.
    fn is_full(&self, now: Instant) -> bool {
        self.filled
            .is_none_or(|at| now.duration_since(at) >= Duration::from_secs(1))
    }

    /// Takes one permission, or returns the time until there is one.
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

// === impl Readers ===

impl Readers {
    /// Takes one permission to read, or returns the time until there is one.
    pub(super) fn take(&mut self, client: IpAddr, now: Instant) -> Result<(), Duration> {
        let client = network(client);
        if self.0.len() >= MOST_READERS && !self.0.contains_key(&client) {
            self.0.retain(|_, limiter| !limiter.is_full(now));
            if self.0.len() >= MOST_READERS {
                // This neither holds an unbounded number of clients nor refuses new ones.
                self.0.clear();
            }
        }
        let limiter = self.0.entry(client).or_insert_with(|| Limiter::new(READS));
        limiter.take(now)
    }
}

/// The network that counts as one client: an IPv6 host has a whole /64.
fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from(u128::from(ip) >> 64 << 64).into(),
        ip @ IpAddr::V4(_) => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_that_reads_without_end_does_not_keep_others_from_reading() {
        let mut readers = Readers::default();
        let now = Instant::now();
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        for _ in 0..READS {
            readers.take(ip("2001:db8::1"), now).unwrap();
        }
        assert!(readers.take(ip("2001:db8::2"), now).is_err(), "one host");
        assert_eq!(readers.take(ip("2001:db8:0:1::1"), now), Ok(()));
        assert_eq!(readers.take(ip("192.0.2.1"), now), Ok(()));
        for number in 0..3 * u32::try_from(MOST_READERS).unwrap() {
            let client = IpAddr::from(number.to_be_bytes());
            assert_eq!(readers.take(client, now), Ok(()));
            assert!(readers.0.len() <= MOST_READERS);
        }
    }

    #[tokio::test]
    async fn only_the_right_token_opens() {
        let guard = Guard::new(Some("s3cret"), None);
        for (header, admitted) in [
            (Some("Bearer s3cret"), true),
            (Some("Bearer s3cre"), false),
            (Some("s3cret"), false),
            (Some(""), false),
            (None, false),
        ] {
            assert_eq!(guard.admits(header).await, admitted, "{header:?}");
        }
        assert!(Guard::new(None, None).admits(None).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_that_was_rotated_opens_and_the_old_one_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        let put = |text: &str| std::fs::write(&file, text).unwrap();
        put("one\n");
        let guard = Guard::new(Some("one"), Some(file.clone()));
        assert!(!guard.admits(Some("Bearer two")).await, "unknown token");
        put("two\n");
        // The file is not read for each call.
        assert!(!guard.admits(Some("Bearer two")).await);
        tokio::time::advance(LOOK_EVERY).await;
        assert!(guard.admits(Some("Bearer two")).await);
        assert!(!guard.admits(Some("Bearer one")).await);
        // A file that is only partly written neither admits nor excludes a token.
        for damage in ["", " \n"] {
            put(damage);
            tokio::time::advance(LOOK_EVERY).await;
            assert!(!guard.admits(Some("Bearer ")).await);
            assert!(guard.admits(Some("Bearer two")).await);
        }
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
