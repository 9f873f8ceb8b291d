//! The work queue: passes each key to one worker at a time, when it is due.
//!
//! Owns the waiting and delayed keys and the number of failures per key. The watches and the
//! providers' changes add keys; the workers of the reconcile loop take them. [`rules`] has the
//! rules, without a clock and without I/O; this file adds the lock, the clock and the wake-ups.
//!
//! Invariants:
//! - A key waits at most once, so the number of distinct keys bounds the queue.
//! - Two workers never have the same key at once. A key that is added while a worker has it
//!   comes again afterwards.
//! - If a key is added with several times, the earliest applies.
//! - The groups of keys ([`Key::group`]) take turns, so one group with many keys delays the keys
//!   of others by one piece of work.
//! - Nothing polls. Each key that becomes due wakes one worker. One of the waiting
//!   workers, the holder of `timekeeper`, sleeps until the next delayed key is due;
//!   when it leaves, by work or by cancellation, another takes its place.
//! - [`Queue::next`] is cancel safe: a key leaves the queue only together with its
//!   guard, and the guard's drop marks it done, on panic and cancellation too.

use std::{
    fmt,
    hash::Hash,
    ops::Deref,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rand::rngs::SmallRng;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use crate::process::backoff::Backoff;

mod rules;
#[cfg(test)]
mod tests;

use self::rules::Core;

/// A deduplicating queue of keys with delays and backoff. Clones share one queue.
pub struct Queue<K: Key> {
    shared: Arc<Shared<K>>,
}

/// A key that is being worked on. Its drop marks the work as done.
#[must_use = "dropping it marks the key as done"]
pub struct Work<K: Key> {
    key: K,
    shared: Arc<Shared<K>>,
}

/// A key of a queue.
pub trait Key: Clone + Eq + Hash + Send + 'static {
    /// Keys of one group wait in one line, and the groups take turns.
    type Group: Clone + Eq + Hash + Send;

    /// The group of the key, such as the tenant that it belongs to.
    fn group(&self) -> Self::Group;
}

/// The queue is closed: no more keys are handed out.
struct Closed;

struct Shared<K: Key> {
    core: Mutex<Core<K>>,
    /// One wake-up per key that becomes due; all workers on close.
    due: Notify,
    /// The earliest delayed key has changed: the timekeeper must set its timer again.
    alarm: Notify,
    /// The worker that holds this lock watches the clock for all workers.
    timekeeper: tokio::sync::Mutex<()>,
    /// The last worker of a closed queue has finished.
    drained: Notify,
}

// === impl Queue ===

impl<K: Key> Queue<K> {
    /// An empty queue, with a random seed for the jitter.
    pub fn new(backoff: Backoff) -> Self {
        Self::with_rng(backoff, rand::make_rng())
    }

    /// An empty queue that ignores additions until [`Queue::open`]: for a process without
    /// workers, where keys would only age.
    pub fn idle(backoff: Backoff) -> Self {
        let queue = Self::new(backoff);
        queue.shared.with(|core, _| core.set_idle(true));
        queue
    }

    /// Accepts additions from now on. The caller then adds the keys that were ignored.
    pub fn open(&self) {
        self.shared.with(|core, _| core.set_idle(false));
    }

    /// An empty queue whose jitter comes from `rng`.
    pub fn with_rng(backoff: Backoff, rng: SmallRng) -> Self {
        Self {
            shared: Arc::new(Shared {
                core: Mutex::new(Core::new(backoff, rng)),
                due: Notify::new(),
                alarm: Notify::new(),
                timekeeper: tokio::sync::Mutex::new(()),
                drained: Notify::new(),
            }),
        }
    }

    /// Whether the queue ignores additions.
    pub fn is_idle(&self) -> bool {
        self.shared.with(|core, _| core.is_idle())
    }

    /// Adds `key`; it is due at once.
    pub fn add(&self, key: K) {
        self.shared.with(|core, now| core.add(key, now, now));
    }

    /// Adds `key`; it is due after `delay`, or earlier if it is waiting for an earlier time.
    /// Does not count as a failure.
    pub fn add_after(&self, key: K, delay: Duration) {
        self.shared
            .with(|core, now| core.add(key, saturating_add(now, delay), now));
    }

    /// Counts a failure of `key` and adds it after the backoff, which is returned. If it is
    /// waiting for an earlier time, that time still applies.
    pub fn add_backoff(&self, key: K) -> Duration {
        self.shared.with(|core, now| core.add_backoff(key, now))
    }

    /// Forgets the failures of `key`. Call it after each success, because a key with failures
    /// takes memory even if it does not wait.
    pub fn forget(&self, key: &K) {
        self.shared.with(|core, _| core.forget(key));
    }

    /// The number of [`Queue::add_backoff`] calls for `key` since its failures were forgotten.
    pub fn retries(&self, key: &K) -> u32 {
        self.shared.with(|core, _| core.retries(key))
    }

    /// The number of keys that are due and wait for a worker.
    pub fn depth(&self) -> usize {
        self.shared.with(|core, _| core.depth())
    }

    /// The number of keys that wait for their time.
    pub fn delayed(&self) -> usize {
        self.shared.with(|core, _| core.delayed())
    }

    /// The number of keys in progress.
    pub fn in_flight(&self) -> usize {
        self.shared.with(|core, _| core.in_flight())
    }

    /// How long the longest waiting key has been available: since it was due or, if it was in
    /// progress then, since that work ended.
    pub fn oldest_age(&self) -> Option<Duration> {
        self.shared
            .with(|core, now| core.oldest().map(|since| now - since))
    }

    /// Waits for the next key; `None` once the queue is closed.
    pub async fn next(&self) -> Option<Work<K>> {
        let shared = &self.shared;
        loop {
            // Subscribed before the check, so that a key that becomes due in between is not
            // missed.
            let due = shared.due.notified();
            tokio::pin!(due);
            due.as_mut().enable();
            match self.try_next() {
                Err(Closed) => return None,
                Ok(Some(work)) => return Some(work),
                Ok(None) => {}
            }
            tokio::select! {
                () = &mut due => {}
                () = shared.keep_time() => {}
            }
        }
    }

    /// Closes the queue: waiting keys are dropped, later additions are ignored, and every
    /// [`Queue::next`] returns `None`. Work in progress continues.
    pub fn close(&self) {
        self.shared.with(|core, _| core.close());
        self.shared.due.notify_waiters();
        self.shared.notify_if_drained();
    }

    /// Waits until the queue is closed and the last work in progress is done.
    pub async fn drained(&self) {
        loop {
            let drained = self.shared.drained.notified();
            tokio::pin!(drained);
            drained.as_mut().enable();
            if self.shared.with(|core, _| core.is_drained()) {
                return;
            }
            drained.await;
        }
    }

    /// The next key, if one is due.
    fn try_next(&self) -> Result<Option<Work<K>>, Closed> {
        self.shared.with(|core, _| {
            if core.is_closed() {
                return Err(Closed);
            }
            let work = |key| Work {
                key,
                shared: Arc::clone(&self.shared),
            };
            Ok(core.take().map(work))
        })
    }
}

impl<K: Key> Clone for Queue<K> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<K: Key> fmt::Debug for Queue<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("depth", &self.depth())
            .field("delayed", &self.delayed())
            .field("in_flight", &self.in_flight())
            .finish()
    }
}

// === impl Work ===

impl<K: Key> Work<K> {
    /// The key to work on.
    pub fn key(&self) -> &K {
        &self.key
    }
}

impl<K: Key> Deref for Work<K> {
    type Target = K;

    fn deref(&self) -> &K {
        &self.key
    }
}

impl<K: Key + fmt::Debug> fmt::Debug for Work<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Work").field(&self.key).finish()
    }
}

impl<K: Key> Drop for Work<K> {
    fn drop(&mut self) {
        self.shared.with(|core, now| core.done(&self.key, now));
        self.shared.notify_if_drained();
    }
}

// === impl Shared ===

impl<K: Key> Shared<K> {
    /// Runs `f` on the present state, then wakes the tasks that it concerns.
    fn with<R>(&self, f: impl FnOnce(&mut Core<K>, Instant) -> R) -> R {
        let (result, wakes) = {
            // The rules never panic half-way, and a poisoned lock would stop the whole loop.
            let mut core = self.core.lock().unwrap_or_else(PoisonError::into_inner);
            // Read under the lock, so that times never decrease between callers.
            let now = Instant::now();
            core.promote(now);
            let result = f(&mut core, now);
            (result, core.take_wakes())
        };
        for _ in 0..wakes.due {
            self.due.notify_one();
        }
        if wakes.alarm {
            self.alarm.notify_one();
        }
        result
    }

    /// Waits to become the timekeeper, then promotes keys as they become due. It never
    /// completes; it ends when the caller's wake-up cancels it.
    async fn keep_time(&self) {
        let _token = self.timekeeper.lock().await;
        loop {
            let alarm = self.alarm.notified();
            // Reading the next due time also promotes due keys, and so wakes workers for them.
            match self.with(|core, _| core.next_due()) {
                Some(at) => {
                    tokio::select! {
                        () = alarm => {}
                        () = sleep_until(at) => {}
                    }
                }
                None => alarm.await,
            }
        }
    }

    fn notify_if_drained(&self) {
        if self.with(|core, _| core.is_drained()) {
            self.drained.notify_waiters();
        }
    }
}

/// A time that cannot be represented becomes one a century away.
fn saturating_add(now: Instant, delay: Duration) -> Instant {
    const CENTURY: Duration = Duration::from_hours(100 * 365 * 24);
    now + delay.min(CENTURY)
}
