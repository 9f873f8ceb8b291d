//! The time and memory that an allocation costs. `cargo bench -p ballast-l2`.
//!
//! Targets: with 60,000 of 65,534 addresses used, allocate and release together take less than
//! 2 µs; 1,000,000 random operations in an IPv6 /64 leave only used and resting addresses in
//! memory.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use ballast_l2::{Allocator, Claim, Pool, Snapshot, range};
use ballast_provider::{Family, Protocol, ServiceId};
use divan::Bencher;
use jiff::Timestamp;

const USED: u32 = 60_000;

/// The current time in milliseconds; it advances with each operation.
struct Clock(i64);

/// The same random numbers in each run (xorshift).
struct Random(u64);

fn main() {
    divan::main();
    if std::env::args().any(|argument| argument == "--bench") {
        endless();
    }
}

/// One Service is created and deleted.
#[divan::bench(sample_size = 500)]
fn allocate_and_release(bencher: Bencher) {
    let mut allocator = used(&["10.0.0.0/16"], USED);
    let mut clock = Clock(0);
    let new = claim(USED, Family::V4);
    bencher
        .with_inputs(|| new.clone())
        .bench_local_values(|claim| {
            allocator.allocate(claim, clock.tick()).unwrap();
            black_box(allocator.release(&new.id, clock.tick()))
        });
}

/// One of the 60,000 Services, chosen at random, is deleted and created again: the memory
/// accesses are far apart.
#[divan::bench(sample_size = 500)]
fn release_and_allocate_any(bencher: Bencher) {
    let mut allocator = used(&["10.0.0.0/16"], USED);
    let (mut clock, mut random) = (Clock(0), Random(7));
    let claims: Vec<Claim> = (0..USED).map(|n| claim(n, Family::V4)).collect();
    bencher
        .with_inputs(|| claims[random.below(USED) as usize].clone())
        .bench_local_values(|claim| {
            allocator.release(&claim.id, clock.tick());
            black_box(allocator.allocate(claim, clock.tick()).unwrap())
        });
}

/// A Service with an address claims again, as in each reconcile.
#[divan::bench(sample_size = 500)]
fn nothing_changed(bencher: Bencher) {
    let mut allocator = used(&["10.0.0.0/16"], USED);
    let (mut clock, mut random) = (Clock(0), Random(7));
    let claims: Vec<Claim> = (0..USED).map(|n| claim(n, Family::V4)).collect();
    bencher
        .with_inputs(|| claims[random.below(USED) as usize].clone())
        .bench_local_values(|claim| black_box(allocator.allocate(claim, clock.tick()).unwrap()));
}

/// The same, in an IPv6 /64.
#[divan::bench(sample_size = 500)]
fn allocate_and_release_in_a_64(bencher: Bencher) {
    let mut allocator = used(&["fd00::/64"], 0);
    let mut clock = Clock(0);
    for n in 0..USED {
        allocator
            .allocate(claim(n, Family::V6), clock.tick())
            .unwrap();
    }
    let new = claim(USED, Family::V6);
    bencher
        .with_inputs(|| new.clone())
        .bench_local_values(|claim| {
            allocator.allocate(claim, clock.tick()).unwrap();
            black_box(allocator.release(&new.id, clock.tick()))
        });
}

/// A start with 5,000 Services.
#[divan::bench(sample_count = 20)]
fn restore_5000(bencher: Bencher) {
    bencher.bench_local(|| used(&["10.0.0.0/16"], 5_000));
}

/// 1,000,000 random operations in a /64. Prints the footprint, and fails if it grows beyond the
/// used and resting addresses.
fn endless() {
    const SERVICES: u32 = 2_000;
    const OPERATIONS: u32 = 1_000_000;
    let mut allocator = used(&["fd00::/64"], 0);
    let (mut clock, mut random) = (Clock(0), Random(11));
    let mut live = vec![false; SERVICES as usize];
    let (mut used, mut most_used, mut most) = (0, 0, 0);
    let began = Instant::now();
    for _ in 0..OPERATIONS {
        let n = random.below(SERVICES);
        let now = clock.tick();
        live[n as usize] ^= true;
        if live[n as usize] {
            allocator.allocate(claim(n, Family::V6), now).unwrap();
            used += 1;
        } else {
            allocator.release(&claim(n, Family::V6).id, now);
            used -= 1;
        }
        most_used = most_used.max(used);
        most = most.max(allocator.footprint());
    }
    // Two minutes of rest, with one operation per 100 ms, half of them releases.
    let resting = 600;
    println!(
        "/64: {OPERATIONS} operations in {:?}; at most {most_used} used, about {resting} resting, {most} intervals and released addresses remembered",
        began.elapsed()
    );
    assert!(most < 3 * most_used + 2 * resting + 200, "grows: {most}");
}

/// A pool with this many Services.
fn used(entries: &[&str], services: u32) -> Allocator {
    let start = Timestamp::UNIX_EPOCH;
    let first = u32::from_be_bytes([10, 0, 0, 1]);
    let published = |n: u32| Claim {
        published: vec![std::net::Ipv4Addr::from_bits(first + n).into()],
        ..claim(n, Family::V4)
    };
    let snapshot = Snapshot {
        pools: vec![Pool {
            entries: range::parse(entries).unwrap(),
            reuse_after: Duration::from_mins(2),
            ..Pool::new("pool", start)
        }],
        claims: (0..services).map(published).collect(),
        ..Snapshot::default()
    };
    Allocator::restore(snapshot, start)
}

fn claim(n: u32, family: Family) -> Claim {
    let id = ServiceId {
        namespace: "default".into(),
        name: format!("service-{n}").into(),
        uid: format!("{n:08x}-0000-4000-8000-000000000000").into(),
    };
    Claim {
        families: vec![family],
        ports: [(Protocol::Tcp, 80), (Protocol::Tcp, 443)].into(),
        ..Claim::new(id, Timestamp::UNIX_EPOCH)
    }
}

impl Clock {
    fn tick(&mut self) -> Timestamp {
        self.0 += 100;
        Timestamp::from_millisecond(self.0).unwrap()
    }
}

impl Random {
    fn below(&mut self, limit: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        u32::try_from(self.0 % u64::from(limit)).unwrap()
    }
}
