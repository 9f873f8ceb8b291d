use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::time::{advance, sleep};

use super::*;

/// A source that counts how often it is asked.
#[derive(Clone, Debug)]
struct Source {
    asked: Arc<AtomicU32>,
    /// How long what it gives is valid.
    valid: Duration,
    /// From this time on it fails.
    fails: Arc<AtomicU32>,
    takes: Duration,
}

impl ProvideCredentials for Source {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async {
            let number = self.asked.fetch_add(1, Ordering::Relaxed);
            sleep(self.takes).await;
            if number >= self.fails.load(Ordering::Relaxed) {
                let inner = std::io::Error::other("no route to 169.254.169.254");
                return Err(CredentialsError::provider_error(inner));
            }
            let end = SystemTime::now() + self.valid;
            Ok(Credentials::new(
                format!("key{number}"),
                "secret",
                None,
                Some(end),
                "test",
            ))
        })
    }
}

fn source(valid: Duration, fails: u32) -> Source {
    Source {
        asked: Arc::default(),
        valid,
        fails: Arc::new(AtomicU32::new(fails)),
        takes: Duration::ZERO,
    }
}

fn cached(source: &Source) -> Cached {
    Cached::new(Some(SharedCredentialsProvider::new(source.clone())))
}

async fn key(cached: &Cached) -> String {
    let got = cached.get().await.unwrap();
    got.access_key_id().to_owned()
}

#[tokio::test(start_paused = true)]
async fn a_source_is_asked_once_by_any_number_of_callers() {
    let source = Source {
        takes: Duration::from_secs(1),
        ..source(Duration::from_hours(1), u32::MAX)
    };
    let cached = Arc::new(cached(&source));
    let callers: Vec<_> = (0..50)
        .map(|_| {
            let cached = Arc::clone(&cached);
            tokio::spawn(async move { key(&cached).await })
        })
        .collect();
    for caller in callers {
        assert_eq!(caller.await.unwrap(), "key0");
    }
    assert_eq!(source.asked.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn new_ones_are_asked_for_before_the_end_and_old_ones_used_until_then() {
    // They are valid for less than EARLY, so each call asks.
    let source = source(Duration::from_mins(4), 2);
    let cached = cached(&source);
    assert_eq!(key(&cached).await, "key0");
    assert_eq!(key(&cached).await, "key1");
    // Now the source fails, and is left alone for a while.
    assert_eq!(key(&cached).await, "key1");
    assert_eq!(key(&cached).await, "key1");
    assert_eq!(source.asked.load(Ordering::Relaxed), 3);
    advance(PAUSE_EARLY).await;
    assert_eq!(key(&cached).await, "key1");
    assert_eq!(source.asked.load(Ordering::Relaxed), 4);
    source.fails.store(u32::MAX, Ordering::Relaxed);
    advance(PAUSE_EARLY).await;
    assert_eq!(key(&cached).await, "key4");
}

#[tokio::test(start_paused = true)]
async fn a_failing_source_is_not_flooded_and_its_reason_is_told() {
    let source = source(Duration::from_hours(1), 0);
    let cached = cached(&source);
    for _ in 0..100 {
        let why = cached.get().await.unwrap_err();
        assert_eq!(why, "no route to 169.254.169.254");
    }
    assert_eq!(source.asked.load(Ordering::Relaxed), 1);
    advance(PAUSE).await;
    assert!(cached.get().await.is_err());
    assert_eq!(source.asked.load(Ordering::Relaxed), 2);
    let why = Cached::new(None).get().await.unwrap_err();
    assert_eq!(why, "none are configured");
}

#[tokio::test(start_paused = true)]
async fn a_source_that_does_not_answer_is_given_up() {
    let source = Source {
        takes: Duration::from_hours(1),
        ..source(Duration::from_hours(1), u32::MAX)
    };
    let start = Instant::now();
    let why = cached(&source).get().await.unwrap_err();
    assert_eq!(why, "their source does not answer");
    assert_eq!(start.elapsed(), LIMIT);
}

#[tokio::test(start_paused = true)]
async fn refused_ones_are_replaced_but_not_each_time() {
    let source = source(Duration::from_hours(1), u32::MAX);
    let cached = cached(&source);
    assert_eq!(key(&cached).await, "key0");
    cached.refused("key0").await;
    assert_eq!(key(&cached).await, "key0", "they are new");
    advance(PAUSE_EARLY).await;
    cached.refused("older").await;
    assert_eq!(key(&cached).await, "key0");
    cached.refused("key0").await;
    assert_eq!(key(&cached).await, "key1");
}
