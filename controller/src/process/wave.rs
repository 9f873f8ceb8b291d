//! Waits for a wave of changes to end, so that many changes become one piece of work.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;
use tracing::info;

/// Waits for a change, and then until nothing changes for `quiet`, at most for `limit`. Returns
/// false if the sender is dropped. If it is cancelled during the wave, the change that began it
/// counts as seen.
pub async fn settled<T>(
    changes: &mut watch::Receiver<T>,
    quiet: Duration,
    limit: Duration,
) -> bool {
    if changes.changed().await.is_err() {
        return false;
    }
    let wave = async { while let Ok(Ok(())) = timeout(quiet, changes.changed()).await {} };
    if timeout(limit, wave).await.is_err() {
        info!("changes keep arriving; they are handled now");
    }
    true
}
