//! Several candidates with random faults, in virtual time, over many seeds.
//!
//! The log has the intervals of virtual time in which each candidate believes that it leads.
//! Safety means that no two intervals overlap. A failure names its seed.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use tokio::{
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, sleep},
};

use super::fake::{Faults, Link, Server};
use crate::process::lease::{Config, Election, Leadership, Timing};

/// One candidate led from the first instant to the second.
#[derive(Clone, Debug)]
struct Reign {
    who: String,
    epoch: u32,
    from: Instant,
    to: Instant,
}

#[derive(Clone, Default)]
struct Chronicle(Arc<Mutex<Vec<Reign>>>);

struct Candidate {
    link: Link,
    task: JoinHandle<()>,
    stop: Option<oneshot::Sender<()>>,
    leadership: tokio::sync::watch::Receiver<Leadership>,
}

struct World {
    rng: SmallRng,
    server: Server,
    chronicle: Chronicle,
    candidates: Vec<Candidate>,
    born: u64,
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
}

fn fast() -> Timestamp {
    Timestamp::now() + SignedDuration::from_hours(5)
}

fn slow() -> Timestamp {
    Timestamp::now() - SignedDuration::from_hours(5)
}

fn stuck() -> Timestamp {
    Timestamp::UNIX_EPOCH
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            rng: SmallRng::seed_from_u64(seed),
            server: Server::default(),
            chronicle: Chronicle::default(),
            candidates: Vec::new(),
            born: 0,
        }
    }

    fn link(&mut self) -> Link {
        let seed = self.rng.random();
        self.server.link(seed)
    }

    fn faults(&mut self) -> Faults {
        let latency = [1..5, 1..200, 500..4_000, 1..9_000];
        Faults {
            cut: self.rng.random_bool(0.2),
            lose_answer: [0.0, 0.1, 0.5][self.rng.random_range(0..3)],
            fail: [0.0, 0.1, 0.6][self.rng.random_range(0..3)],
            latency: latency[self.rng.random_range(0..latency.len())].clone(),
        }
    }

    /// Any times that the configuration allows. A margin of 100 ms stands for clocks that run
    /// at different rates, because in this test all rates are equal.
    fn timing(&mut self) -> Timing {
        let renew_deadline = Duration::from_millis(self.rng.random_range(4_000..=14_900));
        Timing {
            lease_duration: secs(15),
            renew_deadline,
            retry_period: renew_deadline.mul_f64(self.rng.random_range(0.05..0.5)),
        }
    }

    fn start(&mut self, timing: Timing) -> usize {
        self.born += 1;
        let name = format!("candidate-{}", self.born);
        let config = Config::with_identity(name.clone(), timing).unwrap();
        let link = self.link();
        let clock = [Timestamp::now, fast, slow, stuck][self.rng.random_range(0..4)];
        let election = Election::new(link.clone(), config).with_wall_clock(clock);
        let leadership = election.leadership();
        let (stop, stopped) = oneshot::channel::<()>();
        let chronicle = self.chronicle.clone();
        chronicle.follow(name, election.leadership());
        let task = tokio::spawn(async move {
            election.run(async { drop(stopped.await) }).await;
        });
        self.candidates.push(Candidate {
            link,
            task,
            stop: Some(stop),
            leadership,
        });
        self.candidates.len() - 1
    }

    fn leader(&self) -> Option<usize> {
        self.candidates.iter().position(|candidate| {
            let leading = matches!(*candidate.leadership.borrow(), Leadership::Leading { .. });
            leading && !candidate.task.is_finished()
        })
    }

    async fn wait_for_leader(&self, within: Duration) -> Option<(usize, Duration)> {
        let start = Instant::now();
        while start.elapsed() <= within {
            if let Some(leader) = self.leader() {
                return Some((leader, start.elapsed()));
            }
            sleep(Duration::from_millis(10)).await;
        }
        None
    }

    fn stop(&mut self, index: usize) {
        if let Some(stop) = self.candidates[index].stop.take() {
            // The Lease may be lost already.
            let _ = stop.send(());
        }
    }

    /// One random event.
    fn disturb(&mut self) {
        let index = self.rng.random_range(0..self.candidates.len());
        match self.rng.random_range(0..10) {
            0 => self.candidates[index].task.abort(),
            1 => self.stop(index),
            2..=4 => self.candidates[index].link.set(Faults::default()),
            _ => {
                let faults = self.faults();
                self.candidates[index].link.set(faults);
            }
        }
    }

    /// Candidates that ended restart as new processes.
    fn restart(&mut self) {
        let before = self.candidates.len();
        self.candidates
            .retain(|candidate| !candidate.task.is_finished());
        for _ in self.candidates.len()..before {
            let timing = self.timing();
            self.start(timing);
        }
    }
}

impl Chronicle {
    /// Logs the belief of one candidate. Virtual time stops while any task can run, so each
    /// change is seen at its own instant.
    fn follow(&self, who: String, mut leadership: tokio::sync::watch::Receiver<Leadership>) {
        let log = Arc::clone(&self.0);
        tokio::spawn(async move {
            let mut reign: Option<Reign> = None;
            loop {
                let now = Instant::now();
                let state = leadership.borrow_and_update().clone();
                if let Some(reign) = reign.take() {
                    log.lock().unwrap().push(Reign { to: now, ..reign });
                }
                if let Leadership::Leading { epoch } = state {
                    reign = Some(Reign {
                        who: who.clone(),
                        epoch,
                        from: now,
                        to: now,
                    });
                }
                if leadership.changed().await.is_err() {
                    break;
                }
            }
        });
    }

    fn check(&self, seed: u64) -> usize {
        let mut reigns = self.0.lock().unwrap().clone();
        reigns.sort_by_key(|reign| (reign.from, reign.to));
        for pair in reigns.windows(2) {
            assert!(
                pair[0].to <= pair[1].from && pair[0].epoch < pair[1].epoch,
                "seed {seed}: {} and {} led, {pair:?}",
                pair[0].who,
                pair[1].who
            );
        }
        reigns.len()
    }
}

async fn chaos(seed: u64) -> usize {
    let mut world = World::new(seed);
    for _ in 0..3 {
        let timing = world.timing();
        world.start(timing);
    }
    for _ in 0..120 {
        world.disturb();
        let pause = world.rng.random_range(0..10_000);
        sleep(Duration::from_millis(pause)).await;
        world.restart();
    }
    // All faults end. The slowest call in progress takes two times 9 s to land and return.
    for candidate in &world.candidates {
        candidate.link.set(Faults::default());
    }
    let healed = world.wait_for_leader(secs(18 + 15 + 2 * 8)).await;
    assert!(healed.is_some(), "seed {seed}: nobody leads");
    for index in 0..world.candidates.len() {
        world.stop(index);
    }
    for candidate in &mut world.candidates {
        (&mut candidate.task).await.unwrap_or_default();
    }
    // The log tasks write their last interval.
    sleep(secs(1)).await;
    world.chronicle.check(seed)
}

#[test]
fn never_two_leaders_under_chaos() {
    let reigns: usize = (0..150).map(|seed| runtime().block_on(chaos(seed))).sum();
    // The test proves nothing if no candidate ever leads.
    assert!(reigns > 150 * 3, "{reigns}");
}

#[test]
fn a_dead_leader_is_replaced_in_time() {
    let timing = Timing::default();
    let bound = timing.lease_duration + 2 * timing.retry_period;
    for seed in 0..200 {
        runtime().block_on(async {
            let mut world = World::new(seed);
            for _ in 0..3 {
                let index = world.start(timing);
                world.candidates[index].link.set(Faults {
                    latency: 1..200,
                    ..Faults::default()
                });
            }
            for _ in 0..3 {
                let (leader, _) = world.wait_for_leader(secs(5)).await.unwrap();
                let pause = world.rng.random_range(20_000..40_000);
                sleep(Duration::from_millis(pause)).await;
                world.candidates[leader].task.abort();
                sleep(Duration::from_millis(1)).await;
                let next = world.wait_for_leader(bound).await;
                assert!(next.is_some(), "seed {seed}: nobody within {bound:?}");
                world.restart();
            }
        });
    }
}

#[test]
fn a_release_is_followed_up_within_a_retry_period() {
    let timing = Timing::default();
    // The next read comes at most this late; then it and the write each take both directions.
    let bound = timing.retry_period + Duration::from_millis(4 * 100 + 20);
    for seed in 0..200 {
        runtime().block_on(async {
            let mut world = World::new(seed);
            for _ in 0..3 {
                let index = world.start(timing);
                world.candidates[index].link.set(Faults {
                    latency: 1..100,
                    ..Faults::default()
                });
            }
            let (leader, _) = world.wait_for_leader(secs(5)).await.unwrap();
            let pause = world.rng.random_range(20_000..40_000);
            sleep(Duration::from_millis(pause)).await;
            world.stop(leader);
            (&mut world.candidates[leader].task).await.unwrap();
            let next = world.wait_for_leader(bound).await;
            assert!(next.is_some(), "seed {seed}: nobody within {bound:?}");
        });
    }
}
