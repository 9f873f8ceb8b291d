//! Counters of the agent. They only grow; whoever exports metrics reads them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ballast_announce::holding::Origin;

use crate::{cable, post};

/// What the agent has sent, received, dropped and moved since its start.
#[derive(Debug, Default)]
pub struct Counters {
    /// ARP replies sent.
    pub arp_replies: Counter,
    /// Neighbour advertisements sent as answers.
    pub advertisements: Counter,
    /// Announcements sent: gratuitous ARP packets and unsolicited advertisements.
    pub announcements: Counter,
    /// Probes of hosts sent: ARP requests, neighbour solicitations and echo requests.
    pub probes: Counter,
    /// Questions who has an address of a Service, sent.
    pub queries: Counter,
    /// Requests for addresses of this node that were not answered, because the process was
    /// stopped a moment ago and has not yet made sure that it still holds them.
    pub stopped: Counter,
    /// Frames that could not be sent.
    pub unsent: Counter,
    /// Frames that were ignored because too many arrived at once.
    pub flood: Counter,
    /// Frames of hosts without an agent that claim an address that this node announces.
    pub foreign_claims: Counter,
    /// Ticks that came late: this process, or its host, was stopped.
    pub late_ticks: Counter,
    /// Other agents that were heard a moment ago.
    pub members_alive: Level,
    /// Other agents that are silent.
    pub members_silent: Level,
    /// Other agents that were never heard, or owe this node no messages.
    pub members_unknown: Level,
    /// Addresses that this node began to announce.
    pub moves: Moves,
    /// Messages; zeros without messages.
    pub post: Arc<post::Counters>,
    /// Cables; zeros without messages.
    pub cables: Arc<cable::Counters>,
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

/// A number that rises and falls.
#[derive(Debug, Default)]
pub struct Level(AtomicU64);

/// The moves to this node, by their cause, with the time that each took: from the last sign of life
/// of the former holder, or from the decision, to the first announcement.
#[derive(Debug, Default)]
pub struct Moves(Mutex<[Durations; Origin::ALL.len()]>);

/// A histogram of times.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Durations {
    /// The number of times up to each of [`BOUNDS`], and of longer ones; not cumulative.
    pub counts: [u64; BOUNDS.len() + 1],
    /// The sum of all times, in seconds.
    pub sum: f64,
}

/// The upper bounds of the buckets of [`Durations`], in seconds.
pub const BOUNDS: [f64; 12] = [
    0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0, 20.0, 60.0,
];

// === impl Counter ===

impl Counter {
    /// Adds one.
    pub fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// The number.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

// === impl Level ===

impl Level {
    /// Sets the number.
    pub fn set(&self, number: usize) {
        let number = u64::try_from(number).unwrap_or(u64::MAX);
        self.0.store(number, Ordering::Relaxed);
    }

    /// The number.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

// === impl Moves ===

impl Moves {
    /// Counts a move that took this long.
    pub fn add(&self, cause: Origin, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = BOUNDS.iter().position(|bound| seconds <= *bound);
        if let Some(durations) = self.lock().get_mut(cause as usize) {
            if let Some(count) = durations.counts.get_mut(bucket.unwrap_or(BOUNDS.len())) {
                *count += 1;
            }
            durations.sum += seconds;
        }
    }

    /// The times of the moves with this cause.
    pub fn of(&self, cause: Origin) -> Durations {
        let all = self.lock();
        all.get(cause as usize).copied().unwrap_or_default()
    }

    // Each number is complete when a panic could happen.
    fn lock(&self) -> MutexGuard<'_, [Durations; Origin::ALL.len()]> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_counted_in_the_bucket_of_its_cause() {
        let moves = Moves::default();
        for ms in [50, 51, 800, 61_000] {
            moves.add(Origin::HostDown, Duration::from_millis(ms));
        }
        let found = moves.of(Origin::HostDown);
        let mut counts = [0; BOUNDS.len() + 1];
        for bucket in [0, 1, 5, 12] {
            counts[bucket] = 1;
        }
        assert_eq!(found.counts, counts);
        assert!((found.sum - 61.901).abs() < 1e-9, "{}", found.sum);
        assert_eq!(moves.of(Origin::New), Durations::default());
        for (nth, cause) in Origin::ALL.into_iter().enumerate() {
            assert_eq!(cause as usize, nth);
        }
    }
}
