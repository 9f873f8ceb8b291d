//! What the core thread and the packet thread share.

use std::io::{self, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ballast_announce::{Time, responder};
use ballast_link::HostInterface;

use crate::counters::Counters;
use crate::frames::{Known, Sighting};
use crate::sockets::Sockets;

/// Sightings that wait for a tick. The packet thread's budgets allow fewer, unless a tick is late.
const WAITING: usize = 4096;

/// How long the packet thread reads frames to own addresses after too many arrived within a tick.
const FLOOD: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug)]
pub(crate) struct Shared {
    known: Mutex<Arc<Known>>,
    ports: Mutex<Arc<Vec<Arc<Sockets>>>>,
    /// The time of the core thread's last tick, in nanoseconds; 0 before the first one.
    last_tick: AtomicU64,
    ended: AtomicBool,
    /// Until then the packet thread also reads frames to own addresses, in nanoseconds.
    flood_until: AtomicU64,
    /// What can wait for the next tick, oldest first.
    waiting: Mutex<Vec<(u32, Sighting)>>,
    news: Mutex<News>,
    wake: UnixStream,
    pub(crate) counters: Arc<Counters>,
}

/// What the core thread has not seen yet, and must not lose. Of each only the latest counts, so nobody has
/// to wait for room.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct News {
    /// This host's interfaces, from netlink.
    pub(crate) interfaces: Option<Vec<HostInterface>>,
    /// Whether a newer process of this node runs.
    pub(crate) replaced: Option<bool>,
}

// === impl Shared ===

impl Shared {
    /// Knows nothing yet. The packet thread waits on the returned stream.
    pub(crate) fn new(counters: Arc<Counters>) -> io::Result<(Self, UnixStream)> {
        let (wake, woken) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        let shared = Self {
            known: Mutex::default(),
            ports: Mutex::default(),
            last_tick: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            flood_until: AtomicU64::new(0),
            waiting: Mutex::default(),
            news: Mutex::default(),
            wake,
            counters,
        };
        Ok((shared, woken))
    }

    pub(crate) fn known(&self) -> Arc<Known> {
        Arc::clone(&lock(&self.known))
    }

    pub(crate) fn set_known(&self, known: Known) {
        *lock(&self.known) = Arc::new(known);
    }

    pub(crate) fn ports(&self) -> Arc<Vec<Arc<Sockets>>> {
        Arc::clone(&lock(&self.ports))
    }

    /// Replaces the ports, and wakes the packet thread.
    pub(crate) fn set_ports(&self, ports: Vec<Arc<Sockets>>) {
        *lock(&self.ports) = Arc::new(ports);
        self.wake();
    }

    /// Keeps a sighting for the next tick, unless there are too many.
    pub(crate) fn wait(&self, interface: u32, sighting: Sighting) {
        let mut waiting = lock(&self.waiting);
        if waiting.len() < WAITING {
            waiting.push((interface, sighting));
        } else {
            self.counters.flood.add();
        }
    }

    /// Takes what waited. `into` must be empty; its room is used for what waits next.
    pub(crate) fn take_waiting(&self, into: &mut Vec<(u32, Sighting)>) {
        std::mem::swap(&mut *lock(&self.waiting), into);
    }

    /// Changes what the core thread has to see. [`Event::News`](crate::event::Event::News) wakes it.
    pub(crate) fn tell(&self, change: impl FnOnce(&mut News)) {
        change(&mut lock(&self.news));
    }

    pub(crate) fn take_news(&self) -> News {
        std::mem::take(&mut *lock(&self.news))
    }

    pub(crate) fn ticked(&self, now: Time) {
        self.last_tick.store(nanoseconds(now), Ordering::Release);
    }

    /// So many frames to own addresses arrive that they must not wait for ticks.
    pub(crate) fn flooded(&self, now: Time) {
        let until = nanoseconds(now + FLOOD);
        let before = self.flood_until.swap(until, Ordering::AcqRel);
        if before < nanoseconds(now) {
            self.wake();
        }
    }

    /// Whether the packet thread reads frames to own addresses, too.
    pub(crate) fn is_flooded(&self, now: Time) -> bool {
        nanoseconds(now) < self.flood_until.load(Ordering::Acquire)
    }

    /// When the last tick was; `None` before the first one.
    pub(crate) fn last_tick(&self) -> Option<Time> {
        let last = self.last_tick.load(Ordering::Acquire);
        (last != 0).then(|| Time::after_start(Duration::from_nanos(last)))
    }

    /// Whether the packet thread may answer: this process was not stopped since the last tick.
    pub(crate) fn may_answer(&self, now: Time) -> bool {
        responder::may_answer(self.last_tick(), now)
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Ends the packet thread.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.wake();
    }

    fn wake(&self) {
        // If the stream is full, the thread wakes up anyway.
        let _ = (&self.wake).write(&[0]);
    }
}

fn nanoseconds(time: Time) -> u64 {
    let nanoseconds = time.since(Time::default()).as_nanos();
    u64::try_from(nanoseconds).unwrap_or(u64::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No holder of these locks can panic between two writes.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use ballast_announce::timing::STALL;

    use super::*;

    #[test]
    fn a_process_that_was_stopped_does_not_answer() {
        let (shared, _woken) = Shared::new(Arc::default()).unwrap();
        let at = |ms| Time::after_start(Duration::from_millis(ms));
        assert!(!shared.may_answer(at(1000)), "before the first tick");
        shared.ticked(at(1000));
        assert!(shared.may_answer(at(1000)));
        assert!(shared.may_answer(at(1000) + STALL));
        assert!(!shared.may_answer(at(1001) + STALL));
        shared.ticked(at(2000));
        assert!(shared.may_answer(at(2001)));
    }

    #[test]
    fn after_a_flood_the_packet_thread_reads_for_a_while() {
        let (shared, mut woken) = Shared::new(Arc::default()).unwrap();
        let at = |ms| Time::after_start(Duration::from_millis(ms));
        assert!(!shared.is_flooded(at(1000)));
        shared.flooded(at(1000));
        shared.flooded(at(1150));
        assert!(shared.is_flooded(at(1149) + FLOOD));
        assert!(!shared.is_flooded(at(1150) + FLOOD));
        assert_eq!(woken.read(&mut [0; 8]).unwrap(), 1, "once");
        shared.flooded(at(9000));
        assert_eq!(woken.read(&mut [0; 8]).unwrap(), 1);
    }
}
