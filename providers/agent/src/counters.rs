//! Counters of the agent. They only grow; whoever exports metrics reads them.

use std::sync::atomic::{AtomicU64, Ordering};

/// What the agent has sent, received and dropped since its start.
#[derive(Debug, Default)]
pub struct Counters {
    /// ARP replies sent.
    pub arp_replies: Counter,
    /// Neighbour advertisements sent as answers.
    pub advertisements: Counter,
    /// Requests for addresses of this node that were not answered, because the process was
    /// stopped a moment ago and has not yet made sure that it still holds them.
    pub silent: Counter,
    /// Frames that could not be sent.
    pub unsent: Counter,
    /// Events that were dropped because too many arrived at once.
    pub dropped: Counter,
    /// Ticks that came late: this process, or its host, was stopped.
    pub late_ticks: Counter,
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

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
