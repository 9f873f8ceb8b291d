//! Whole agents on a network of their own: each on a host in its own network namespace, on one
//! switch, with a client. The API server is a table in memory ([`cluster`]); everything else is
//! real. Needs root.
//!
//! `ballast-announce`'s simulator tests the decisions in thousands of histories. These tests show
//! that frames, sockets, messages and threads carry them out.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod capture;
mod client;
mod cluster;
mod frames;
mod ipv6;
mod life;
mod migration;
mod modes;
mod networks;
mod update;

use std::time::{Duration, Instant};

/// A time-out for what takes seconds on a quiet machine.
const SOON: Duration = Duration::from_mins(1);

/// Looks until something is found.
fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + SOON;
    while Instant::now() < until {
        if let Some(found) = look() {
            return found;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("not within {SOON:?}: {what}");
}
