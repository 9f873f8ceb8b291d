//! The stream of changes: a long poll in a loop, with back-off; after every
//! interruption a list that is compared with what was known.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use ballast_provider::Change;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use rand::RngExt;
use tokio::time::sleep;

use super::Inner;
use super::client::Failed;
use crate::api::{ChangeView, Position};

/// How long the cloud may hold a poll that has nothing to say.
const WAIT: Duration = Duration::from_secs(25);

/// Back-off after a failure: doubles from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LAST_PAUSE: Duration = Duration::from_secs(30);

struct Follower {
    inner: Arc<Inner>,
    /// `None`: list first.
    position: Option<Position>,
    ready: VecDeque<Change>,
    pause: Duration,
}

/// The endless stream.
pub(super) fn follow(inner: Arc<Inner>) -> BoxStream<'static, Change> {
    let position = inner.cache().position();
    let follower = Follower {
        position,
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
            if let Some(change) = self.ready.pop_front() {
                return change;
            }
            let stepped = match self.position.clone() {
                Some(position) => self.poll(position).await,
                None => self.relist().await,
            };
            match stepped {
                Ok(()) => self.pause = FIRST_PAUSE,
                Err(failed) => {
                    tracing::debug!(?failed, pause = ?self.pause, "changes cannot be followed");
                    self.position = None;
                    let jitter = rand::rng().random_range(0.5..1.0);
                    sleep(self.pause.mul_f64(jitter)).await;
                    self.pause = (self.pause * 2).min(LAST_PAUSE);
                }
            }
        }
    }

    async fn poll(&mut self, position: Position) -> Result<(), Failed> {
        let Some(page) = self.inner.client.changes(&position, WAIT).await? else {
            self.position = None;
            return Ok(());
        };
        for event in &page.items {
            self.hear(event).await;
        }
        self.position = Some(page.position);
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

    async fn relist(&mut self) -> Result<(), Failed> {
        let (views, position) = self.inner.client.list().await?;
        let before = self.inner.cache().position();
        if before.is_some_and(|before| before.epoch != position.epoch) {
            tracing::warn!("the mock cloud has lost its state; everything is made again");
            self.inner.retarget_again().await?;
        }
        let changes = self.inner.cache().relist(views, &position);
        self.ready.extend(changes);
        self.position = Some(position);
        Ok(())
    }
}
