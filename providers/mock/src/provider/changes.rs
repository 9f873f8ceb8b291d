//! The stream of changes: a loop of long polls with back-off. After every interruption, the
//! provider lists its load balancers and compares the list with the cache.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ballast_provider::{Cause, Change, Key, ServiceId};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use rand::RngExt;
use tokio::sync::Notify;
use tokio::time::sleep;

use super::Inner;
use super::client::Failed;
use crate::api::{ChangeView, Position};

/// The time that the cloud may hold a poll without changes.
const WAIT: Duration = Duration::from_secs(25);

/// The back-off after a failure, which doubles from the first to the last value.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LAST_PAUSE: Duration = Duration::from_secs(30);

/// Changes that lists have shown and the stream has not sent yet. It is a set, because
/// possibly nothing follows the stream.
#[derive(Debug, Default)]
pub(super) struct Told {
    set: Mutex<BTreeSet<(ServiceId, Cause)>>,
    added: Notify,
}

struct Follower {
    inner: Arc<Inner>,
    /// No change was missed since the last list.
    listed: bool,
    ready: VecDeque<Change>,
    pause: Duration,
}

/// The stream, which never ends.
pub(super) fn follow(inner: Arc<Inner>) -> BoxStream<'static, Change> {
    let listed = inner.cache().position().is_some();
    let follower = Follower {
        listed,
        inner,
        ready: VecDeque::new(),
        pause: FIRST_PAUSE,
    };
    stream::unfold(follower, |mut follower| async move {
        let change = follower.next().await;
        Some((change, follower))
    })
    .boxed()
}

// === impl Follower ===

impl Follower {
    async fn next(&mut self) -> Change {
        loop {
            self.ready.extend(self.inner.told.take());
            if let Some(change) = self.ready.pop_front() {
                return change;
            }
            let inner = Arc::clone(&self.inner);
            let position = inner.cache().position().filter(|_| self.listed);
            let stepped = match position {
                Some(position) => tokio::select! {
                    // Another task has taken a list, so the stream continues from a newer
                    // position.
                    () = inner.told.changed() => Ok(()),
                    polled = self.poll(position) => polled,
                },
                None => inner.relist(None).await.map(|()| self.listed = true),
            };
            match stepped {
                Ok(()) => self.pause = FIRST_PAUSE,
                Err(failed) => {
                    tracing::debug!(?failed, pause = ?self.pause, "cannot follow the changes");
                    self.listed = false;
                    let jitter = rand::rng().random_range(0.5..1.0);
                    sleep(self.pause.mul_f64(jitter)).await;
                    self.pause = (self.pause * 2).min(LAST_PAUSE);
                }
            }
        }
    }

    async fn poll(&mut self, position: Position) -> Result<(), Failed> {
        let Some(page) = self.inner.client.changes(&position, WAIT).await? else {
            self.listed = false;
            return Ok(());
        };
        for event in &page.items {
            self.hear(event).await;
        }
        self.inner.cache().advance(&position, page.position);
        Ok(())
    }

    /// Waits until our own call for this load balancer is done: before that, the meaning of
    /// the event is unknown.
    async fn hear(&mut self, event: &ChangeView) {
        let inner = Arc::clone(&self.inner);
        loop {
            let landed = inner.landed.notified();
            tokio::pin!(landed);
            landed.as_mut().enable();
            if !inner.cache().is_in_flight(&event.name) {
                break;
            }
            landed.await;
        }
        let heard = inner.cache().hear(&inner.mark, event);
        self.ready.extend(heard);
    }
}

// === impl Told ===

impl Told {
    pub(super) fn add(&self, changes: Vec<Change>) {
        let changes = changes.into_iter().map(|change| (change.id, change.cause));
        self.set().extend(changes);
        self.added.notify_one();
    }

    fn take(&self) -> impl Iterator<Item = Change> + use<> {
        let all = std::mem::take(&mut *self.set());
        all.into_iter().map(|(id, cause)| Change {
            key: Some(Key::alone(&id)),
            id,
            cause,
            difference: String::new(),
        })
    }

    async fn changed(&self) {
        self.added.notified().await;
    }

    fn set(&self) -> MutexGuard<'_, BTreeSet<(ServiceId, Cause)>> {
        // Each change is an insertion, so a panic leaves a valid set.
        self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
