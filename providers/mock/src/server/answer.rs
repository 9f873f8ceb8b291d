//! Bounds the memory of answers that clients are still reading.
//!
//! A client that reads slowly makes the cloud hold its answer. Large answers therefore take
//! their size from a budget until they are written, and the connection of a client that
//! takes too long is closed.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use hyper::body::{Body as _, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// Smaller answers are bounded only by the number of connections.
const SMALL: usize = 16 * 1024;
/// The maximum number of bytes of large answers at the same time.
const BUDGET: usize = 32 * 1024 * 1024;
/// The time that a client may take to read a large answer.
const READ_TIME: Duration = Duration::from_mins(1);
/// An answer is passed on in pieces of this size. Each piece is a copy, so that what the
/// connection still has to write does not keep the whole answer in memory.
const PIECE: usize = 32 * 1024;

/// The rest of the budget, in bytes.
#[derive(Clone, Debug)]
pub(super) struct Answers(Arc<Semaphore>);

/// The rest of an answer that is not sent yet.
struct Rest {
    bytes: Bytes,
    until: Instant,
    _share: OwnedSemaphorePermit,
}

/// The answer was dropped because its client reads too slowly.
#[derive(Debug, thiserror::Error)]
#[error("the answer was not read within {READ_TIME:?}")]
struct TooSlow;

// === impl Answers ===

impl Answers {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(BUDGET)))
    }

    /// Returns the body to send, or `None` if clients are reading too many large answers.
    pub(super) fn send(&self, bytes: Bytes) -> Option<Body> {
        if bytes.len() <= SMALL {
            return Some(bytes.into());
        }
        // An answer that is larger than the budget takes all of it.
        let share = u32::try_from(bytes.len().min(BUDGET)).unwrap_or(u32::MAX);
        let share = Arc::clone(&self.0).try_acquire_many_owned(share).ok()?;
        Some(Body::new(Rest {
            bytes,
            until: Instant::now() + READ_TIME,
            _share: share,
        }))
    }
}

// === impl Rest ===

impl hyper::body::Body for Rest {
    type Data = Bytes;
    type Error = TooSlow;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, TooSlow>>> {
        if self.bytes.is_empty() {
            return Poll::Ready(None);
        }
        if Instant::now() > self.until {
            return Poll::Ready(Some(Err(TooSlow)));
        }
        let count = self.bytes.len().min(PIECE);
        let piece = Bytes::copy_from_slice(&self.bytes.split_to(count));
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.len() as u64)
    }
}

/// The bytes of a body, if its size is known.
pub(super) async fn whole(body: Body) -> Option<Bytes> {
    // Handlers return values, not streams, so this does not wait.
    body.size_hint().exact()?;
    axum::body::to_bytes(body, usize::MAX).await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn large_answers_share_a_budget_until_they_are_read() {
        let answers = Answers::new();
        let large = || Bytes::from(vec![b'x'; BUDGET / 2]);
        let first = answers.send(large()).unwrap();
        let _second = answers.send(large()).unwrap();
        assert!(answers.send(large()).is_none());
        assert!(answers.send(Bytes::from_static(b"small")).is_some());
        assert_eq!(whole(first).await.unwrap(), large());
        let third = answers.send(large()).unwrap();
        tokio::time::advance(READ_TIME + Duration::from_millis(1)).await;
        assert!(whole(third).await.is_none(), "the client took too long");
    }

    #[tokio::test]
    async fn an_answer_larger_than_the_budget_is_sent_alone() {
        let answers = Answers::new();
        let huge = Bytes::from(vec![b'x'; BUDGET + 1]);
        assert_eq!(whole(answers.send(huge.clone()).unwrap()).await, Some(huge));
    }
}
