//! Whole announcers on a simulated segment: the composed [`Node`](ballast_announce::Node)s, with
//! discrete time and seeded chance. Clients on every side of the segment ask for every address
//! every 25 ms. A seed is a history; the same seed gives the same history on every machine.
//!
//! # What must hold
//!
//! 1. *One answers*: within T after a failure a living node on each side answers for each address,
//!    if a node there could.
//! 2. *At most one answers*, but for the times in the table of `limits.rs`.
//! 3. *No move without a cause, no flapping*: the epoch grows at most once per failure, and not at
//!    all where the table says "none".
//!    Each claim names a cause that fits the failure; a rebalance only after a request.
//! 4. *No black hole*: with policy Local an answer counts only if its host has a serving endpoint, and
//!    nobody claims before its health port says 200.
//! 5. *Agreement*: at the end all agents know the same claims, and nobody writes.
//!
//! T per failure, with the numbers of moves: `limits.rs`.
//!
//! Clocks: every host's monotonic clock has its own offset and runs up to 0.05 % too fast; wall
//! clocks differ by up to 2 minutes.
//!
//! # To look into a failure
//!
//! A failed test prints `HISTORY="Split Chaos 151"`. With it in the environment, the test
//! `one_history` prints each change of that history. `SIMULATION_SEEDS` sets the number of seeds
//! (`make test-long`).

#![allow(unreachable_pub)] // A test is a crate of its own; nothing is reachable anyway.
#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::panic)] // These are tests, helpers included.

mod api;
mod faults;
mod judge;
mod limits;
mod network;
mod world;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use ballast_announce::random::Random;
use ballast_announce::slip::{Slip, Slips};

use faults::{FAULTS, Fault, history, three_hundred_addresses};

/// Histories that have failed, and what was wrong. A change of any random choice makes other histories of
/// them, so each rule that they taught has a test of its own, too.
const REGRESSIONS: [&str; 5] = [
    "Chaos ApiOutage 120",
    // Without endpoints no node was eligible, and nobody relieved a holder with a dead uplink.
    "EndpointMoves UplinkDead 346",
    // A holder whose messages arrived was judged dead just before the next one. It could not hear that.
    "OneWay 70",
    "AllLinksDown OneWay 113",
    // The simulator started an agent on a frozen host, and it never heard of its gateway.
    "Chaos SplitAndKilled 281",
];

/// A history, and its name in `HISTORY`.
struct Case {
    faults: Vec<Fault>,
    seed: u64,
}

impl Case {
    fn name(&self) -> String {
        let faults: Vec<_> = self
            .faults
            .iter()
            .map(|fault| format!("{fault:?}"))
            .collect();
        format!("HISTORY=\"{} {}\"", faults.join(" "), self.seed)
    }

    fn parse(text: &str) -> Self {
        let (faults, seed) = text.rsplit_once(' ').unwrap();
        let named = |name: &str| {
            FAULTS
                .into_iter()
                .find(|fault| format!("{fault:?}") == name)
        };
        Self {
            faults: faults.split(' ').map(|name| named(name).unwrap()).collect(),
            seed: seed.parse().unwrap(),
        }
    }
}

fn seeds(usual: u64) -> u64 {
    let many = std::env::var("SIMULATION_SEEDS");
    many.map_or(usual, |seeds| seeds.parse().unwrap())
}

/// For each fault how often it changed anything, and how often it happened.
type Effects = BTreeMap<Fault, (usize, usize)>;

/// Runs all cases on all cores, prints the worst times, and fails with the violations.
fn run(cases: &[Case]) -> Effects {
    let next = AtomicUsize::new(0);
    let violations = Mutex::new(Vec::new());
    let worst: Mutex<BTreeMap<String, (u64, u64)>> = Mutex::default();
    let effects = Mutex::new(Effects::new());
    let start = std::time::Instant::now();
    let work = || {
        while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            let world = history(case.seed, &case.faults, Slips::default());
            let detection = world.shape.detection;
            let mut worst = worst.lock().unwrap();
            for (phase, (gap, dual)) in &world.judge.worst {
                let entry = worst.entry(format!("{phase} ({detection:?})")).or_default();
                *entry = (entry.0.max(*gap), entry.1.max(*dual));
            }
            let mut effects = effects.lock().unwrap();
            for (fault, effect) in &world.effects {
                let entry = effects.entry(*fault).or_default();
                *entry = (entry.0 + usize::from(*effect), entry.1 + 1);
            }
            if let Some(verdict) = world.judge.verdict {
                let text = format!("{}: {verdict}\n    {:?}", case.name(), world.shape);
                violations.lock().unwrap().push(text);
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    println!(
        "{} histories in {:.1} s",
        cases.len(),
        start.elapsed().as_secs_f32()
    );
    for (phase, (gap, dual)) in worst.into_inner().unwrap() {
        println!(
            "{phase:55} no answer {:6} ms, two {:6} ms",
            gap / 1000,
            dual / 1000
        );
    }
    let violations = violations.into_inner().unwrap();
    let first = violations.iter().take(10).cloned().collect::<Vec<_>>();
    assert!(
        violations.is_empty(),
        "{} histories:\n{}",
        violations.len(),
        first.join("\n")
    );
    effects.into_inner().unwrap()
}

#[test]
fn after_each_failure_one_node_answers() {
    let cases = |fault| (0..seeds(90)).map(move |seed| (fault, seed));
    let cases: Vec<_> = FAULTS
        .into_iter()
        .flat_map(cases)
        .map(|(fault, seed)| Case {
            faults: vec![fault],
            seed,
        })
        .collect();
    // A fault that strikes nobody tests nothing.
    for (fault, (effective, all)) in run(&cases) {
        println!("{fault:?}: {effective} of {all} changed anything");
        assert!(
            effective * 5 >= all * 4,
            "{fault:?}: only {effective} of {all} changed anything"
        );
    }
}

#[test]
fn after_two_failures_one_node_answers() {
    let mut cases = Vec::new();
    for seed in 0..seeds(40) {
        let mut random = Random::new(seed);
        for first in FAULTS {
            let second = FAULTS[random.below(FAULTS.len())];
            let faults = vec![first, second];
            cases.push(Case { faults, seed });
        }
    }
    run(&cases);
}

#[test]
fn chaos_ends() {
    let cases = (1000..1000 + seeds(250)).map(|seed| Case {
        faults: vec![Fault::Chaos],
        seed,
    });
    run(&cases.collect::<Vec<_>>());
}

/// On three nodes, after a start, after all nodes were rebooted in turn, and after a rebalance.
#[test]
fn three_hundred_addresses_are_spread_evenly() {
    let world = three_hundred_addresses(7);
    assert_eq!(world.judge.verdict, None);
}

/// The history that `HISTORY` names, with every change; without it, those that have failed before.
#[test]
fn one_history() {
    match std::env::var("HISTORY") {
        Ok(text) => drop(run(&[Case::parse(&text)])),
        Err(_) => drop(run(&REGRESSIONS.map(Case::parse))),
    }
}

/// Equal seeds give equal histories, or a failure could not be looked into.
#[test]
fn a_seed_is_a_history() {
    let worst = || history(7, &[Fault::Chaos], Slips::default()).judge.worst;
    assert_eq!(worst(), worst());
}

/// Every known defect violates one of the rules, and the simulator notices.
#[test]
fn every_slip_is_found() {
    let found: Vec<_> = Slip::ALL
        .into_iter()
        .map(|slip| (slip, find(slip)))
        .collect();
    for (slip, found) in &found {
        println!("{slip:?}: {}", found.as_deref().unwrap_or("NOT FOUND"));
    }
    let missed: Vec<_> = found.iter().filter(|(_, found)| found.is_none()).collect();
    assert!(missed.is_empty(), "{missed:?}");
}

fn find(slip: Slip) -> Option<String> {
    // Some defects only show in histories that have failed because of them.
    let regressions = REGRESSIONS.map(Case::parse).into_iter();
    let usual = (0..40).flat_map(|seed| {
        FAULTS.map(|fault| Case {
            faults: vec![fault],
            seed,
        })
    });
    regressions.chain(usual).find_map(|case| {
        let world = history(case.seed, &case.faults, Slips::one(slip));
        let verdict = world.judge.verdict?;
        Some(format!("{}: {verdict}", case.name()))
    })
}
