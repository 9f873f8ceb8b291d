//! Waits for a condition, and reports what was wrong if it does not become true.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

/// The pause between two tries.
const PAUSE: Duration = Duration::from_millis(100);

/// Tries until it succeeds, for at most `timeout`; then fails with the last error.
///
/// A try that hangs is cut off at the same limit.
pub async fn eventually<T, F, Fut>(timeout: Duration, mut attempt: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T>>,
{
    let start = Instant::now();
    let (mut tries, mut last) = (0u32, anyhow!("the first try did not end"));
    loop {
        tries += 1;
        let left = timeout.saturating_sub(start.elapsed());
        match tokio::time::timeout(left, attempt()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => last = error,
            Err(_) => {}
        }
        if start.elapsed() + PAUSE >= timeout {
            return Err(last.context(format!(
                "not within {:.1} s ({tries} tries)",
                timeout.as_secs_f32()
            )));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn returns_what_succeeded() {
        let tries = AtomicU32::new(0);
        let third = || async {
            let now = tries.fetch_add(1, Ordering::Relaxed);
            if now < 2 {
                Err(anyhow!("not yet"))
            } else {
                Ok(now)
            }
        };
        assert_eq!(eventually(Duration::from_secs(5), third).await.unwrap(), 2);
    }

    #[tokio::test]
    async fn fails_with_the_last_reason() {
        let error = eventually(Duration::from_millis(250), || async {
            Err::<(), _>(anyhow!("still red"))
        })
        .await
        .unwrap_err();
        let text = format!("{error:#}");
        assert!(
            text.starts_with("not within 0.2 s") && text.ends_with("still red"),
            "{text}"
        );
    }

    #[tokio::test]
    async fn cuts_off_a_try_that_hangs() {
        let hang = || std::future::pending::<Result<()>>();
        assert!(eventually(Duration::from_millis(120), hang).await.is_err());
    }
}
