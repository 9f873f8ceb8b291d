//! Checks whether clients arrive at open ports ("knocks"). This runs concurrently with the
//! follower: a failed knock takes seconds, and other load balancers must not wait for it.
//!
//! Invariants: at most [`AGAIN_AT_ONCE`] repeated knocks run at the same time; a first knock
//! has a result after [`DOUBT`] at the latest, however many others are running.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::api::Problem;

/// The time-out of a first knock. A load balancer without a result counts as reached.
const DOUBT: Duration = Duration::from_secs(5);

/// The maximum number of repeated knocks at the same time.
const AGAIN_AT_ONCE: usize = 32;

/// Knocks at the load balancer with this name.
pub(super) type Knock =
    Arc<dyn Fn(String) -> BoxFuture<'static, Result<(), Problem>> + Send + Sync>;

/// All knocks.
pub(super) struct Knocker {
    knock: Knock,
    running: JoinSet<Answer>,
    /// Load balancers whose knock is running or queued.
    busy: BTreeSet<String>,
    /// Load balancers that wait for a repeated knock.
    queue: BTreeSet<String>,
    /// The number of repeated knocks that are running.
    again: usize,
    results: HashMap<String, Result<(), Problem>>,
}

struct Answer {
    name: String,
    first: bool,
    result: Result<(), Problem>,
}

// === impl Knocker ===

impl Knocker {
    pub(super) fn new(knock: Knock) -> Self {
        Self {
            knock,
            running: JoinSet::new(),
            busy: BTreeSet::new(),
            queue: BTreeSet::new(),
            again: 0,
            results: HashMap::new(),
        }
    }

    /// The result of the last knock.
    pub(super) fn result(&self, name: &str) -> Option<&Result<(), Problem>> {
        self.results.get(name)
    }

    /// Forgets the results of a load balancer that is not open.
    pub(super) fn forget(&mut self, name: &str) {
        self.results.remove(name);
        self.busy.remove(name);
        self.queue.remove(name);
    }

    /// Starts a knock: the first one at once, a repeated one in its turn.
    pub(super) fn start(&mut self, name: &str) {
        if !self.busy.insert(name.to_owned()) {
            return;
        }
        if self.results.contains_key(name) {
            self.queue.insert(name.to_owned());
            self.fill();
            return;
        }
        let (knock, name) = (Arc::clone(&self.knock), name.to_owned());
        self.running.spawn(async move {
            let result = timeout(DOUBT, knock(name.clone())).await;
            Answer {
                name,
                first: true,
                result: result.unwrap_or(Ok(())),
            }
        });
    }

    /// Returns the next load balancer that has a result; waits forever if no knock is running.
    /// Cancel safe.
    pub(super) async fn next(&mut self) -> String {
        loop {
            match self.running.join_next().await {
                Some(Ok(answer)) => {
                    if !answer.first {
                        self.again -= 1;
                    }
                    self.fill();
                    // Unless it was forgotten meanwhile.
                    if self.busy.remove(&answer.name) {
                        self.results.insert(answer.name.clone(), answer.result);
                        return answer.name;
                    }
                }
                Some(Err(error)) => tracing::error!(%error, "a knock has failed"),
                None => std::future::pending().await,
            }
        }
    }

    fn fill(&mut self) {
        while self.again < AGAIN_AT_ONCE
            && let Some(name) = self.queue.pop_first()
        {
            self.again += 1;
            let knock = Arc::clone(&self.knock);
            self.running.spawn(async move {
                let result = knock(name.clone()).await;
                Answer {
                    name,
                    first: false,
                    result,
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::time::{Instant, sleep};

    use super::*;
    use crate::api::Code;

    const SLOW: Duration = Duration::from_secs(3);

    /// Load balancers named `slow…` are never reached; the knock at `stuck` does not end in
    /// time.
    fn knocker(most: &Arc<AtomicUsize>) -> Knocker {
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::clone(most));
        Knocker::new(Arc::new(move |name| {
            let (now, most) = (Arc::clone(&now), Arc::clone(&most));
            Box::pin(async move {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                let result = match name.as_str() {
                    "stuck" => std::future::pending().await,
                    name if name.starts_with("slow") => {
                        sleep(SLOW).await;
                        Err(Problem::new(Code::PortInUse, "not reached"))
                    }
                    _ => Ok(()),
                };
                now.fetch_sub(1, Ordering::SeqCst);
                result
            })
        }))
    }

    fn slow() -> Vec<String> {
        (0..1_000).map(|number| format!("slow-{number}")).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn many_slow_ones_delay_neither_a_first_try_nor_each_other() {
        let most = Arc::default();
        let mut knocker = knocker(&most);
        let begun = Instant::now();
        for name in slow() {
            knocker.start(&name);
        }
        knocker.start("web");
        assert_eq!(knocker.next().await, "web");
        assert_eq!(knocker.result("web"), Some(&Ok(())));
        assert_eq!(begun.elapsed(), Duration::ZERO);
        for _ in 0..1_000 {
            let name = knocker.next().await;
            assert!(knocker.result(&name).unwrap().is_err());
        }
        assert_eq!(begun.elapsed(), SLOW);
        // The others are retried a few at a time, and a new one does not wait for them.
        most.store(0, Ordering::SeqCst);
        for name in slow() {
            knocker.start(&name);
        }
        knocker.start("api");
        assert_eq!(knocker.next().await, "api");
        for _ in 0..1_000 {
            knocker.next().await;
        }
        assert_eq!(most.load(Ordering::SeqCst), AGAIN_AT_ONCE + 1);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_cannot_be_tried_counts_as_reached() {
        let mut knocker = knocker(&Arc::default());
        let begun = Instant::now();
        knocker.start("stuck");
        assert_eq!(knocker.result("stuck"), None);
        assert_eq!(knocker.next().await, "stuck");
        assert_eq!(knocker.result("stuck"), Some(&Ok(())));
        assert_eq!(begun.elapsed(), DOUBT);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_gone_has_no_result() {
        let mut knocker = knocker(&Arc::default());
        knocker.start("slow-1");
        knocker.start("slow-1");
        knocker.start("slow-2");
        knocker.forget("slow-1");
        assert_eq!(knocker.next().await, "slow-2");
        assert_eq!(knocker.result("slow-1"), None);
        assert!(timeout(SLOW, knocker.next()).await.is_err());
    }
}
