//! The stream of changes: a long poll in a loop, with back-off; after every
//! interruption a list that is compared with what was known.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ballast_provider::{Cause, Change, ServiceId};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use rand::RngExt;
use tokio::sync::Notify;
use tokio::time::sleep;

use super::Inner;
use super::client::Failed;
use crate::api::{ChangeView, Position};

/// How long the cloud may hold a poll that has nothing to say.
const WAIT: Duration = Duration::from_secs(25);

/// Back-off after a failure: doubles from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LAST_PAUSE: Duration = Duration::from_secs(30);

/// What lists have shown and the stream has not told yet. A set: nobody may be following.
#[derive(Debug, Default)]
pub(super) struct Told {
    set: Mutex<BTreeSet<(ServiceId, Cause)>>,
    added: Notify,
}

struct Follower {
    inner: Arc<Inner>,
    /// Nothing was missed since the last list.
    listed: bool,
    ready: VecDeque<Change>,
    pause: Duration,
}

/// The endless stream.
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
                    // A list that somebody else asked for is the newer place to go on from.
                    () = inner.told.changed() => Ok(()),
                    polled = self.poll(position) => polled,
                },
                None => inner.relist(None).await.map(|()| self.listed = true),
            };
            match stepped {
                Ok(()) => self.pause = FIRST_PAUSE,
                Err(failed) => {
                    tracing::debug!(?failed, pause = ?self.pause, "changes cannot be followed");
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

    /// An event about an object we are just changing says nothing before we know the
    /// outcome of our own call.
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
        all.into_iter().map(|(id, cause)| Change { id, cause })
    }

    async fn changed(&self) {
        self.added.notified().await;
    }

    fn set(&self) -> MutexGuard<'_, BTreeSet<(ServiceId, Cause)>> {
        // Each change is an insertion: good after a panic too.
        self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
