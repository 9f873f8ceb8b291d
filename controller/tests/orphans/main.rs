//! Random histories of clusters that share one cloud account, and what `ballast orphans --delete`
//! leaves of them.
//!
//! The choices are the real ones: [`ballast::class::orphans::decide`] for the cluster's own survey, and
//! `ballast::cli::orphans` (report, choose, sweep) for the command. The cloud ([`account`]) and the
//! clusters with their API servers ([`world`]) are models that know the truth: whose each object is,
//! and which Service exists. Controllers as a whole, with the same faults, are in `invariants`.
//!
//! `ORPHAN_HISTORIES` sets the number of histories, `ORPHAN_SEED` the first seed.

#![allow(clippy::unwrap_used, clippy::panic)] // a failure is a panic
#![allow(unreachable_pub)] // one program

mod account;
mod tally;
mod world;

use std::time::Instant;

use self::tally::Tally;
use self::world::World;

/// Every change must pass so many.
const HISTORIES: u64 = 10_000;

fn number(name: &str, default: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Runs the histories on both cores, because each has a world of its own.
#[test]
fn whatever_happened_the_cloud_has_what_live_services_own() {
    let histories = number("ORPHAN_HISTORIES", HISTORIES);
    let first = number("ORPHAN_SEED", 1);
    let began = Instant::now();
    let half = |from: u64| {
        let mut tally = Tally::default();
        for seed in (first + from..first + histories).step_by(2) {
            tally += World::history(seed);
        }
        tally
    };
    let mut tally = std::thread::scope(|scope| {
        let other = scope.spawn(|| half(1));
        let mine = half(0);
        mine + other.join().unwrap()
    });
    tally.histories = histories;
    println!(
        "seeds {first}..{}: {tally:?} in {:.1?}",
        first + histories,
        began.elapsed()
    );
    // A world in which nothing happens proves nothing.
    let happened = [
        tally.deleted_by_class,
        tally.deleted_by_command,
        tally.crashes,
        tally.shared,
        tally.breakers,
        tally.refused_alive,
        tally.refused_serving,
    ];
    assert!(
        histories < 10_000 || happened.iter().all(|count| *count > 0),
        "{tally:?}"
    );
}
