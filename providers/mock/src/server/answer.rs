//! Answers that are being read: how many bytes of them there may be at a time.
//!
//! A client that reads slowly makes the cloud hold its answer. Large answers therefore
//! take their size from a budget until they are written, and the connection of a client
//! that takes too long is closed.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use hyper::body::{Body as _, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// Answers below this size are bounded by the number of connections.
const SMALL: usize = 16 * 1024;
/// Most bytes of larger answers at a time.
const BUDGET: usize = 32 * 1024 * 1024;
/// How long a client may take to read one of them.
const READ_TIME: Duration = Duration::from_mins(1);
/// An answer is handed on in pieces of this size, each a copy: what the connection still
/// has to write must not keep the whole answer in memory.
const PIECE: usize = 32 * 1024;

/// What is left of the budget, in bytes.
#[derive(Clone, Debug)]
pub(super) struct Answers(Arc<Semaphore>);

/// The rest of an answer.
struct Rest {
    bytes: Bytes,
    until: Instant,
    _share: OwnedSemaphorePermit,
}

/// Why an answer is given up: its reader is too slow.
#[derive(Debug, thiserror::Error)]
#[error("the answer was not read within {READ_TIME:?}")]
struct TooSlow;

// === impl Answers ===

impl Answers {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(BUDGET)))
    }

    /// The body to send; `None` where too many large answers are being read already.
    pub(super) fn send(&self, bytes: Bytes) -> Option<Body> {
        if bytes.len() <= SMALL {
            return Some(bytes.into());
        }
        // One that is larger than the budget takes all of it.
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

/// The bytes of a body that a handler has made whole.
pub(super) async fn whole(body: Body) -> Option<Bytes> {
    // Handlers answer with values, not with streams: nothing is waited for here.
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
        assert!(whole(third).await.is_none(), "its reader took too long");
    }

    #[tokio::test]
    async fn an_answer_larger_than_the_budget_is_sent_alone() {
        let answers = Answers::new();
        let huge = Bytes::from(vec![b'x'; BUDGET + 1]);
        assert_eq!(whole(answers.send(huge.clone()).unwrap()).await, Some(huge));
    }
}
