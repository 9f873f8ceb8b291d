//! The one thread that changes the cloud's state.
//!
//! Requests are jobs in a bounded channel, which run one after another: decide (pure,
//! `cloud.rs`), commit (`SQLite`), apply, notify the followers. Handlers wait for the answer
//! to their job; readers never wait for the disk. The thread ends when the last [`Writer`] is
//! dropped.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::thread;

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};

use super::cloud::{Cloud, Edit};
use super::store::Store;
use crate::api::{Code, Problem};

/// The maximum number of jobs that wait; more than the concurrent calls of a busy controller.
const QUEUE: usize = 256;

type Job = Box<dyn FnOnce(&mut Thread) + Send>;

/// The handle that handlers and followers share.
#[derive(Clone)]
pub(super) struct Writer {
    jobs: mpsc::Sender<Job>,
    cloud: Arc<RwLock<Cloud>>,
    seq: watch::Receiver<u64>,
}

struct Thread {
    store: Store,
    cloud: Arc<RwLock<Cloud>>,
    seq: watch::Sender<u64>,
}

// === impl Writer ===

impl Writer {
    /// Starts the thread.
    pub(super) fn start(store: Store, cloud: Cloud) -> std::io::Result<Self> {
        let (jobs, mut queue) = mpsc::channel::<Job>(QUEUE);
        let (sender, seq) = watch::channel(cloud.position().seq);
        let cloud = Arc::new(RwLock::new(cloud));
        let mut state = Thread {
            store,
            cloud: Arc::clone(&cloud),
            seq: sender,
        };
        thread::Builder::new()
            .name("mock-writer".to_owned())
            .spawn(move || {
                while let Some(job) = queue.blocking_recv() {
                    job(&mut state);
                }
            })?;
        Ok(Self { jobs, cloud, seq })
    }

    /// The last committed state.
    pub(super) fn read(&self) -> RwLockReadGuard<'_, Cloud> {
        // A reader cannot damage the state, and the writer applies only complete decisions,
        // so the state is valid even if the lock is poisoned.
        self.cloud.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The sequence number of the last change. Every change notifies the receivers.
    pub(super) fn seq(&self) -> watch::Receiver<u64> {
        self.seq.clone()
    }

    /// Decides, commits and applies. Returns the answer of the decision.
    pub(super) async fn change<T, F>(&self, decide: F) -> Result<T, Problem>
    where
        T: Send + 'static,
        F: FnOnce(&Cloud, Timestamp) -> Result<(Vec<Edit>, T), Problem> + Send + 'static,
    {
        let (answer, done) = oneshot::channel();
        let job: Job = Box::new(move |thread| {
            // The caller may no longer wait for the answer; the change is done anyway.
            let _ = answer.send(thread.run(decide));
        });
        let stopped = || Problem::new(Code::Internal, "the mock cloud is shutting down");
        self.jobs.send(job).await.map_err(|_| stopped())?;
        done.await.map_err(|_| stopped())?
    }
}

// === impl Thread ===

impl Thread {
    fn run<T>(
        &mut self,
        decide: impl FnOnce(&Cloud, Timestamp) -> Result<(Vec<Edit>, T), Problem>,
    ) -> Result<T, Problem> {
        let (edits, answer) = {
            let cloud = self.cloud.read().unwrap_or_else(PoisonError::into_inner);
            decide(&cloud, Timestamp::now())?
        };
        if edits.is_empty() {
            return Ok(answer);
        }
        self.store.commit(&edits).map_err(|error| {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "the state cannot be written"
            );
            Problem::new(
                Code::Internal,
                "the mock cloud cannot write its state; see its log",
            )
        })?;
        let seq = {
            let mut cloud = self.cloud.write().unwrap_or_else(PoisonError::into_inner);
            cloud.apply(edits);
            cloud.position().seq
        };
        self.seq.send_replace(seq);
        Ok(answer)
    }
}
