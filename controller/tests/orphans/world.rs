//! One history: clusters, their API servers, and time. What happens in them is in [`people`], [`controller`]
//! and [`command`]; [`truth`] says what may be deleted.

mod command;
mod controller;
mod people;
mod truth;

use std::collections::{BTreeMap, BTreeSet};

use ballast::class::orphans::Memory;
use ballast_provider::Kind;
use ballast_provider::mark::{self, CLUSTER, KEEP};
use jiff::{SignedDuration, Timestamp};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use super::account::{Account, Object};
use super::tally::Tally;

/// Surveys come more often; the model makes one in so much time.
const STEP: SignedDuration = SignedDuration::from_hours(6);
const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

#[derive(Clone, Debug)]
struct Svc {
    uid: String,
    finalizer: bool,
    deleting: bool,
    created: Timestamp,
    /// It has a second port, and so a second target group.
    second_port: bool,
}

struct Controller {
    writer: String,
    memory: Memory,
    /// UIDs that are proven to be gone.
    gone: BTreeSet<String>,
    shared: bool,
}

#[expect(clippy::struct_excessive_bools, reason = "independent facts")]
struct Cluster {
    uid: String,
    name: String,
    /// The API server.
    services: BTreeMap<String, Svc>,
    backup: Option<(BTreeMap<String, Svc>, Option<Timestamp>)>,
    /// When a controller led last, as the API server knows it.
    lease: Option<Timestamp>,
    /// The condition `IdentityShared` of the class.
    published: bool,
    api: bool,
    /// The cluster exists.
    exists: bool,
    controller: Option<Controller>,
    /// No controller starts before.
    off_until: Timestamp,
    delete: bool,
    is_copied: bool,
}

/// The world of one history.
pub struct World {
    rng: SmallRng,
    account: Account,
    clusters: Vec<Cluster>,
    now: Timestamp,
    next: u32,
    /// Services that people have deleted in one of two clusters with the same UID. That is done once the other one
    /// has given no sign for three days.
    removed: BTreeSet<String>,
    log: Vec<String>,
    tally: Tally,
    runtime: tokio::runtime::Runtime,
}

impl World {
    /// One history. Panics with what happened if anything is wrong.
    pub fn history(seed: u64) -> Tally {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let mut world = Self {
            rng: SmallRng::seed_from_u64(seed),
            account: Account::default(),
            clusters: Vec::new(),
            now: "2026-01-01T00:00:00Z".parse().unwrap(),
            next: 0,
            removed: BTreeSet::new(),
            log: vec![format!("seed {seed}")],
            tally: Tally::default(),
            runtime,
        };
        world.plant_foreign();
        world.found();
        world.found();
        let steps = world.rng.random_range(15..50);
        for _ in 0..steps {
            world.act();
            world.look();
        }
        world.peace();
        world.tally
    }

    fn found(&mut self) {
        let number = self.clusters.len();
        let delete = self.rng.random();
        self.clusters.push(Cluster {
            uid: format!("c-{number}"),
            name: format!("cluster-{number}"),
            services: BTreeMap::new(),
            backup: None,
            lease: None,
            published: false,
            api: true,
            exists: true,
            controller: None,
            off_until: self.now,
            delete,
            is_copied: false,
        });
        // As in any cluster, some Services have been there for long.
        for name in ["a", "b"] {
            self.create(number, name);
        }
        self.turn(number);
        self.turn(number);
    }

    fn plant_foreign(&mut self) {
        let mut state = self.account.state();
        for (id, tags) in [
            ("theirs", vec![("kubernetes.io/cluster/x", "owned")]),
            ("untagged", vec![]),
        ] {
            let tags = tags.into_iter();
            let object = Object {
                kind: Kind::LoadBalancer,
                tags: tags.map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
                service: None,
                healthy: false,
            };
            state.objects.insert(id.to_owned(), object);
        }
    }

    fn unique(&mut self) -> u32 {
        self.next += 1;
        self.next
    }

    /// A cluster that exists.
    fn any(&mut self) -> Option<usize> {
        let all: Vec<usize> = (0..self.clusters.len())
            .filter(|it| self.clusters[*it].exists)
            .collect();
        (!all.is_empty()).then(|| all[self.rng.random_range(0..all.len())])
    }

    fn act(&mut self) {
        self.tally.steps += 1;
        let Some(c) = self.any() else {
            return self.wait(1);
        };
        let name = NAMES[self.rng.random_range(0..NAMES.len())];
        let what = self.rng.random_range(0..36_u32);
        self.log.push(format!("{} {what} on {c} {name}", self.now));
        match what {
            0..=5 => self.create(c, name),
            6..=8 => self.delete(c, name),
            9 => self.strip(c, name),
            10 => self.force_delete(c, name),
            11 => self.clear_namespace(c),
            12..=13 => {
                let left = self.rng.random_range(0..12);
                self.account.state().fuse = Some(left);
                self.turn(c);
                self.keep(c);
                self.account.state().fuse = None;
            }
            14 => self.clusters[c].controller = None,
            15 => {
                // A person's cluster without a controller: never longer while a copy of it lives.
                let hours = if self.clusters[c].is_copied { 20 } else { 120 };
                let hours = self.rng.random_range(1..hours);
                self.clusters[c].controller = None;
                self.clusters[c].off_until = self.now + SignedDuration::from_hours(hours);
            }
            // Nor for long without its API server: see "Limits" in docs/architecture.md.
            16 if self.clusters[c].is_copied => {}
            16 => self.clusters[c].api = !self.clusters[c].api,
            17 => self.destroy(c),
            18 => {
                let failing = self.rng.random_range(1..6);
                self.account.state().failing = failing;
            }
            19 => {
                let mut state = self.account.state();
                state.partial = !state.partial;
            }
            20 => {
                let cluster = &mut self.clusters[c];
                cluster.backup = Some((cluster.services.clone(), cluster.lease));
            }
            21 => self.copy(c),
            22 => self.tag_by_hand(KEEP, Some("please")),
            23 => self.tag_by_hand(CLUSTER, None),
            24 => self.tag_by_hand(mark::SERVICE_UID, None),
            25..=26 => self.command(None),
            27..=28 => self.edit(c, name),
            _ => {
                let steps = self.rng.random_range(1..9);
                self.wait(steps);
            }
        }
    }

    fn wait(&mut self, steps: i64) {
        for _ in 0..steps {
            self.now += STEP;
            self.account.state().now = self.now;
            let mut order: Vec<usize> = (0..self.clusters.len()).collect();
            if self.rng.random() {
                order.reverse();
            }
            for c in order {
                self.turn(c);
                self.keep(c);
            }
            self.look();
        }
    }

    /// All faults end. Copies go, or their originals. Then the command runs for every cluster.
    fn peace(&mut self) {
        {
            let mut state = self.account.state();
            (state.failing, state.partial, state.fuse) = (0, false, None);
        }
        for c in 0..self.clusters.len() {
            self.clusters[c].api = true;
            self.clusters[c].off_until = self.now;
            let uid = self.clusters[c].uid.clone();
            let other = self.clusters.iter().enumerate().skip(c + 1);
            let mut other = other.filter(|(_, it)| it.exists && it.uid == uid);
            if self.clusters[c].exists
                && let Some((copy, _)) = other.next()
            {
                let goes = if self.rng.random() { c } else { copy };
                self.log.push(format!("{goes} goes, because it is a copy"));
                self.destroy(goes);
            }
        }
        self.log.push(format!("{} peace", self.now));
        self.wait(20);
        for c in 0..self.clusters.len() {
            if self.clusters[c].exists {
                self.create(c, "last");
            }
        }
        self.wait(20);
        self.command(None);
        for c in 0..self.clusters.len() {
            if self.clusters[c].exists {
                self.command(Some(c));
            }
        }
        self.look();
        self.assert_clean();
    }

    fn story(&self) -> String {
        self.log.join("\n")
    }
}
