//! Who may call AWS now: the driver of [`Waiting`]. It owns the clock and the callers; which of
//! them goes next, [`Waiting`] decides.
//!
//! Whoever makes a call takes a [`turn`](Pace::turn) first, also for a retry, and reports an answer
//! `Throttling` with [`throttled`](Pace::throttled). A turn is given at once if the buckets have
//! tokens and nobody more urgent waits. A caller waits no longer than it wants to. Then, or if it
//! is dropped, it leaves the queue, and learns about when its turn would have come. One that comes
//! back can keep its place ([`Seat`]), and does not wait in vain: it learns at once that its turn does
//! not come in time.
//!
//! One `Pace` serves all callers of an account and region. It never calls AWS itself. Its task
//! ends with it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::rate::{Category, Limits, Next, Owner, Ticket, Urgency, Waiting};

/// Gives out turns.
#[derive(Debug)]
pub struct Pace {
    shared: Arc<Shared>,
    driver: JoinHandle<()>,
}

/// There was no turn in the time that the caller had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy {
    /// About when there will be one, if nobody else comes before.
    pub retry_after: Duration,
    /// The place that is kept.
    pub place: Option<Ticket>,
}

/// What becomes of the place of a caller that gives up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Seat {
    /// It is lost.
    #[default]
    Lost,
    /// It is kept, as it was the last time, if there was one.
    Kept(Option<Ticket>),
}

/// By how much earlier whoever keeps a place comes back, so as to be there when the token comes.
const EARLY: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    /// The time of the next turn may be another one.
    changed: Notify,
}

#[derive(Debug)]
struct Queue {
    waiting: Waiting,
    callers: BTreeMap<Ticket, oneshot::Sender<()>>,
}

/// A place in the queue. Dropped, it is given up.
struct Place<'a> {
    shared: &'a Shared,
    ticket: Ticket,
    /// About when its turn comes, as it was expected at the beginning. Whoever gives up comes back
    /// at that time: if all went by the length of the queue when they leave it, those that leave it
    /// together would come back together.
    expected: Instant,
}

// === impl Pace ===

impl Pace {
    /// Full buckets, and nobody waits. Must be called within a tokio runtime.
    pub fn new(limits: &Limits) -> Self {
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue {
                waiting: Waiting::new(limits, Instant::now()),
                callers: BTreeMap::new(),
            }),
            changed: Notify::new(),
        });
        let driver = tokio::spawn(drive(Arc::clone(&shared)));
        Self { shared, driver }
    }

    /// Waits for a turn until `deadline`. A deadline in the past means: now or not at all.
    pub async fn turn(
        &self,
        category: Category,
        urgency: Urgency,
        deadline: Instant,
        seat: Seat,
        owner: Owner,
    ) -> Result<(), Busy> {
        let (turn, mut given) = oneshot::channel();
        let place = self.shared.enter((category, urgency, owner), seat, turn)?;
        if given.try_recv().is_ok() {
            return Ok(());
        }
        if seat != Seat::Lost && place.expected > deadline {
            return Err(place.keep());
        }
        self.shared.changed.notify_one();
        if let Ok(Ok(())) = timeout_at(deadline, &mut given).await {
            return Ok(());
        }
        // The deadline and the turn may come at the same time.
        self.shared.lock().release(Instant::now());
        match given.try_recv() {
            Ok(()) => Ok(()),
            Err(_) if seat == Seat::Lost => Err(place.busy()),
            Err(_) => Err(place.keep()),
        }
    }

    /// AWS has answered a call of this category, which was made at `made`, with `Throttling`.
    pub fn throttled(&self, category: Category, made: Instant) {
        let mut queue = self.shared.lock();
        queue.waiting.throttled(category, made, Instant::now());
        drop(queue);
        self.shared.changed.notify_one();
    }

    /// About how long a call would wait if it came now.
    pub fn about(&self, category: Category, urgency: Urgency) -> Duration {
        let queue = self.shared.lock();
        queue.waiting.about(category, urgency, Instant::now())
    }

    /// The number of callers that wait.
    pub fn waiting(&self) -> usize {
        self.shared.lock().waiting.len()
    }
}

impl Drop for Pace {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Gives turns when their time comes.
async fn drive(shared: Arc<Shared>) {
    loop {
        let next = shared.lock().release(Instant::now());
        match next {
            None => shared.changed.notified().await,
            Some(at) => {
                tokio::select! {
                    () = sleep_until(at) => {}
                    () = shared.changed.notified() => {}
                }
            }
        }
    }
}

// === impl Shared ===

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters the queue, and gives all turns that are possible now.
    fn enter(
        &self,
        (category, urgency, owner): (Category, Urgency, Owner),
        seat: Seat,
        turn: oneshot::Sender<()>,
    ) -> Result<Place<'_>, Busy> {
        let now = Instant::now();
        let mut queue = self.lock();
        let before = match seat {
            Seat::Kept(before) => before,
            Seat::Lost => None,
        };
        let before = before.filter(|it| queue.waiting.come_back(*it, category, urgency));
        let Some(ticket) = before.or_else(|| queue.waiting.enter(category, urgency, owner)) else {
            let retry_after = queue.waiting.about(category, urgency, now);
            return Err(Busy {
                retry_after,
                place: None,
            });
        };
        let left = queue.waiting.remaining(ticket, now);
        queue.callers.insert(ticket, turn);
        queue.release(now);
        drop(queue);
        Ok(Place {
            shared: self,
            ticket,
            expected: now + left,
        })
    }
}

// === impl Queue ===

impl Queue {
    /// Gives all turns that are possible now. Returns the time of the next one.
    fn release(&mut self, now: Instant) -> Option<Instant> {
        loop {
            match self.waiting.next(now) {
                Next::Go(ticket) => {
                    // A caller that is gone has left the queue before, so this one takes it.
                    if let Some(turn) = self.callers.remove(&ticket) {
                        let _ = turn.send(());
                    }
                }
                Next::At(at) => return Some(at),
                Next::Idle => return None,
            }
        }
    }
}

// === impl Place ===

impl Place<'_> {
    /// Why there is no turn.
    fn busy(&self) -> Busy {
        let now = Instant::now();
        let queue = self.shared.lock();
        let left = queue.waiting.remaining(self.ticket, now);
        Busy {
            retry_after: left.max(self.expected.saturating_duration_since(now)),
            place: None,
        }
    }

    /// Leaves and keeps it.
    fn keep(self) -> Busy {
        let now = Instant::now();
        let ticket = self.ticket;
        let mut queue = self.shared.lock();
        let left = queue.waiting.remaining(ticket, now);
        queue.callers.remove(&ticket);
        let kept = queue.waiting.go_away(ticket, left, now);
        Busy {
            retry_after: if left > 2 * EARLY {
                left.saturating_sub(EARLY)
            } else {
                left
            },
            place: kept.then_some(ticket),
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut queue = self.shared.lock();
        if queue.callers.remove(&self.ticket).is_some() {
            queue.waiting.leave(self.ticket);
        }
    }
}

#[cfg(test)]
mod tests;
