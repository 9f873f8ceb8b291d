//! Clusters, their API servers and controllers, people, and time.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Add, AddAssign};
use std::time::Duration;

use ballast::class::orphans::{Halt, Look, Memory, Policy, decide};
use ballast::cli::orphans::choose::{Choice, ChoiceError, choose, is_alive};
use ballast::cli::orphans::report::{Live, Report};
use ballast::cli::orphans::sweep::{Terms, sweep};
use ballast_provider::mark::{self, CLUSTER, KEEP, LAST_SEEN, ORPHANED_AT, RETAINED};
use ballast_provider::{Inventory as _, Key, Kind, Mark, Provider as _, Removal, ServiceId};
use jiff::{SignedDuration, Timestamp};
use rand::rngs::SmallRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};

use super::account::{Account, Object};

const CLASS: &str = "edge";
const GRACE: SignedDuration = SignedDuration::from_hours(24);
/// Surveys come more often; the model makes one in so much time.
const STEP: SignedDuration = SignedDuration::from_hours(6);
const SILENCE: Duration = Duration::from_hours(72);
const NAMES: u32 = 4;

/// What happened in all histories.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub histories: u64,
    pub steps: u64,
    pub crashes: u64,
    pub deleted_by_class: u64,
    pub deleted_by_command: u64,
    pub shared: u64,
    pub breakers: u64,
    pub refused_alive: u64,
    pub refused_serving: u64,
}

#[derive(Clone, Debug)]
struct Svc {
    uid: String,
    finalizer: bool,
    deleting: bool,
    created: Timestamp,
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
        let name = ["a", "b", "c", "d"][self.rng.random_range(0..NAMES) as usize];
        let what = self.rng.random_range(0..34_u32);
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
            _ => {
                let steps = self.rng.random_range(1..9);
                self.wait(steps);
            }
        }
    }

    fn create(&mut self, c: usize, name: &str) {
        let number = self.unique();
        let cluster = &mut self.clusters[c];
        if cluster.api && !cluster.services.contains_key(name) {
            let service = Svc {
                uid: format!("u-{number}"),
                finalizer: false,
                deleting: false,
                created: self.now,
            };
            cluster.services.insert(name.to_owned(), service);
        }
    }

    /// In a copy, nobody deletes what the original has before Ballast says that it is one: that is no
    /// orphan, and no controller could know.
    fn delete(&mut self, c: usize, name: &str) {
        let cluster = &mut self.clusters[c];
        if !cluster.api || (cluster.is_copied && !cluster.published) {
            return;
        }
        match cluster.services.get_mut(name) {
            Some(service) if service.finalizer => {
                service.deleting = true;
                if cluster.is_copied {
                    self.removed.insert(service.uid.clone());
                }
            }
            Some(_) => self.vanish(c, name),
            None => {}
        }
    }

    fn strip(&mut self, c: usize, name: &str) {
        let cluster = &mut self.clusters[c];
        if let Some(service) = cluster.services.get_mut(name) {
            service.finalizer = false;
            if service.deleting {
                self.vanish(c, name);
            }
        }
    }

    fn force_delete(&mut self, c: usize, name: &str) {
        if !self.clusters[c].is_copied {
            self.vanish(c, name);
        }
    }

    fn clear_namespace(&mut self, c: usize) {
        let names: Vec<String> = self.clusters[c].services.keys().cloned().collect();
        for name in names.iter().skip(1) {
            self.force_delete(c, name);
        }
    }

    /// The object is gone; whoever watches hears it.
    fn vanish(&mut self, c: usize, name: &str) {
        let cluster = &mut self.clusters[c];
        let Some(service) = cluster.services.remove(name) else {
            return;
        };
        if cluster.api
            && let Some(controller) = &mut cluster.controller
        {
            controller.gone.insert(service.uid.clone());
        }
        self.sicken(&service.uid);
    }

    /// Nothing listens on the node port any more, unless a copy has the Service.
    fn sicken(&mut self, uid: &str) {
        if self.is_wanted(uid) {
            return;
        }
        let mut state = self.account.state();
        let of = state.objects.values_mut();
        for object in of.filter(|it| it.service.as_deref() == Some(uid)) {
            object.healthy = false;
        }
    }

    fn destroy(&mut self, c: usize) {
        // One of them must be there in the end.
        let others = self.clusters.iter().filter(|it| it.exists).count();
        if others < 2 {
            return;
        }
        let cluster = &mut self.clusters[c];
        cluster.exists = false;
        cluster.controller = None;
        let uids: Vec<String> = cluster.services.values().map(|it| it.uid.clone()).collect();
        for uid in uids {
            self.sicken(&uid);
        }
    }

    /// A second cluster from the backup of the first.
    fn copy(&mut self, c: usize) {
        let number = self.clusters.len();
        let Some((mut services, lease)) = self.clusters[c].backup.clone() else {
            return;
        };
        // What people have deleted before is on its way out, whoever restores it.
        let original = &self.clusters[c].services;
        services.retain(|_, it| {
            let mut there = original.values();
            there.any(|other| other.uid == it.uid && !other.deleting)
        });
        if self.clusters[c].is_copied {
            return;
        }
        self.clusters[c].is_copied = true;
        self.clusters.push(Cluster {
            uid: self.clusters[c].uid.clone(),
            name: self.clusters[c].name.clone(),
            services,
            backup: None,
            lease,
            published: false,
            api: true,
            exists: true,
            controller: None,
            off_until: self.now,
            delete: self.clusters[c].delete,
            is_copied: true,
        });
        self.log.push(format!("{number} is a copy of {c}"));
        // Its first leader surveys once. If it died before, the Lease of the copy would look as if the original
        // had written its signs before it: see "Limits" in docs/architecture.md.
        let (failing, partial) = {
            let mut state = self.account.state();
            (
                std::mem::take(&mut state.failing),
                std::mem::take(&mut state.partial),
            )
        };
        self.keep(number);
        let mut state = self.account.state();
        (state.failing, state.partial) = (failing, partial);
    }

    fn tag_by_hand(&mut self, key: &str, value: Option<&str>) {
        let mut state = self.account.state();
        let ids: Vec<String> = state.objects.keys().cloned().collect();
        let id = &ids[self.rng.random_range(0..ids.len())];
        let object = state.objects.get_mut(id).unwrap();
        if object.service.is_none() {
            return;
        }
        match value {
            Some(value) => object.tags.insert(key.to_owned(), value.to_owned()),
            None => object.tags.remove(key),
        };
        self.log.push(format!("  {id}: {key} {value:?}"));
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

    fn mark(&self, c: usize) -> Mark {
        let cluster = &self.clusters[c];
        Mark {
            cluster: cluster.uid.clone(),
            cluster_name: cluster.name.clone(),
            class: CLASS.to_owned(),
            writer: cluster
                .controller
                .as_ref()
                .map_or_else(String::new, |it| it.writer.clone()),
        }
    }

    /// The controller works, if it can. False: it cannot.
    fn starts(&mut self, c: usize) -> bool {
        let number = self.rng.next_u32();
        let cluster = &mut self.clusters[c];
        if !cluster.exists || !cluster.api || self.now < cluster.off_until {
            return false;
        }
        if cluster.controller.is_none() {
            cluster.controller = Some(Controller {
                writer: format!("w-{number}"),
                memory: Memory::new(cluster.lease).with_foreign(
                    cluster
                        .published
                        .then(|| (self.now, "an object".to_owned())),
                ),
                gone: BTreeSet::new(),
                // Nothing is deleted before the first survey.
                shared: true,
            });
        }
        cluster.lease = Some(self.now);
        true
    }

    fn dies(&mut self, c: usize) {
        self.tally.crashes += 1;
        self.log.push(format!("  the controller of {c} dies"));
        self.clusters[c].controller = None;
    }

    /// Each Service has a turn.
    fn turn(&mut self, c: usize) {
        if !self.starts(c) {
            return;
        }
        let names: Vec<String> = self.clusters[c].services.keys().cloned().collect();
        for name in names {
            if self.turn_of(c, &name).is_none() {
                return self.dies(c);
            }
        }
        let Some(controller) = &self.clusters[c].controller else {
            return;
        };
        if controller.shared {
            return;
        }
        for uid in controller.gone.clone() {
            match self.release(c, &uid) {
                Some(true) => {
                    if let Some(controller) = &mut self.clusters[c].controller {
                        controller.gone.remove(&uid);
                    }
                }
                Some(false) => {}
                None => return self.dies(c),
            }
        }
    }

    /// `None`: the process died.
    fn turn_of(&mut self, c: usize, name: &str) -> Option<()> {
        let service = self.clusters[c].services.get(name)?.clone();
        let shared = self.clusters[c].controller.as_ref()?.shared;
        if service.deleting {
            if shared || !self.release(c, &service.uid)? {
                return Some(());
            }
            self.account.state().change().ok()?;
            self.clusters[c].services.remove(name);
            self.sicken(&service.uid);
            return Some(());
        }
        if !service.finalizer {
            self.account.state().change().ok()?;
            let service = self.clusters[c].services.get_mut(name)?;
            service.finalizer = true;
        }
        let mark = self.mark(c);
        let id = id_of(name, &service.uid);
        for (kind, what) in [
            (Kind::SecurityGroup, "sg"),
            (Kind::TargetGroup, "tg"),
            (Kind::LoadBalancer, "lb"),
        ] {
            let mut state = self.account.state();
            let object_id = format!("{}-{what}", service.uid);
            if state.objects.contains_key(&object_id) || state.failing > 0 {
                continue;
            }
            state.change().ok()?;
            let mut tags = mark.tags(&id);
            tags.extend(mark.birth(self.now));
            let object = Object {
                kind,
                tags,
                service: Some(service.uid.clone()),
                healthy: true,
            };
            state.objects.insert(object_id, object);
        }
        Some(())
    }

    /// Whether it is released. `None`: the process died.
    fn release(&mut self, c: usize, uid: &str) -> Option<bool> {
        let provider = self.account.provider_of(self.mark(c));
        let id = id_of("", uid);
        let key = Key::alone(&id);
        let released = self
            .runtime
            .block_on(provider.release(&id, &key, Removal::Delete));
        let died = self.account.state().fuse == Some(0);
        match released {
            Ok(_) => Some(true),
            Err(_) if died => None,
            Err(_) => Some(false),
        }
    }

    /// One survey of the class.
    fn keep(&mut self, c: usize) {
        if !self.starts(c) {
            return;
        }
        let mark = self.mark(c);
        let provider = self.account.provider_of(mark.clone());
        let Ok(objects) = self.runtime.block_on(provider.survey()) else {
            return;
        };
        let cluster = &mut self.clusters[c];
        let Some(controller) = &mut cluster.controller else {
            return;
        };
        let uids: BTreeSet<&str> = cluster.services.values().map(|it| &*it.uid).collect();
        let gone = controller.gone.clone();
        let look = Look {
            objects: &objects,
            exists: &|id| uids.contains(&*id.uid),
            going: &|id| gone.contains(&*id.uid),
            newest: cluster.services.values().map(|it| it.created).max(),
            writer: &controller.writer,
            policy: Policy {
                delete: cluster.delete,
                grace: GRACE,
                draining: false,
            },
            now: self.now,
        };
        let steps = decide(&look, &mut controller.memory);
        controller.shared = steps.found.shared.is_some();
        cluster.published = controller.shared;
        self.tally.shared += u64::from(controller.shared);
        let halted = matches!(steps.found.halt, Some(Halt::Breaker { .. }));
        self.tally.breakers += u64::from(halted);
        let sign = mark.sign(self.now).to_string();
        for (some, key, value) in [
            (&steps.sign, LAST_SEEN, Some(sign.clone())),
            (&steps.clear, ORPHANED_AT, None),
            (&steps.tag, ORPHANED_AT, Some(sign.clone())),
        ] {
            let tags = BTreeMap::from([(key.to_owned(), value)]);
            let tagged = self.runtime.block_on(provider.tag(some, &tags));
            if tagged.is_err() {
                if self.account.state().fuse == Some(0) {
                    self.dies(c);
                }
                return;
            }
        }
        for (id, _) in steps.gone {
            self.log
                .push(format!("  {c} knows that {} is gone", id.uid));
            self.tally.deleted_by_class += 1;
            if let Some(controller) = &mut self.clusters[c].controller {
                controller.gone.insert(id.uid.to_string());
            }
        }
        self.turn(c);
    }

    /// Somebody runs `ballast orphans --delete`, for one cluster after the other; with `live`, beside
    /// that cluster's API server.
    fn command(&mut self, live: Option<usize>) {
        let all = self.runtime.block_on(self.account.all());
        let Ok(objects) = all else {
            return;
        };
        let compare = live.map(|c| {
            let services = self.clusters[c].services.values();
            Live {
                cluster: self.clusters[c].uid.clone(),
                services: services.map(|it| it.uid.clone()).collect(),
            }
        });
        let now = self.now;
        let report = Report::of(
            "account".to_owned(),
            &objects,
            compare.as_ref(),
            SILENCE,
            now,
        );
        let uids: Vec<String> = match &compare {
            Some(live) => vec![live.cluster.clone()],
            None => report.clusters.iter().map(|it| it.uid.clone()).collect(),
        };
        for uid in uids {
            let choice = Choice {
                cluster: Some(&uid),
                force_live: false,
                compare: live.is_some(),
            };
            let plan = match choose(&report, &choice) {
                Ok(Some(plan)) => plan,
                Ok(None) => continue,
                Err(ChoiceError::Alive(..) | ChoiceError::Fresh(..)) => {
                    self.tally.refused_alive += 1;
                    continue;
                }
                Err(error) => panic!("{error}\n{}", self.story()),
            };
            let terms = Terms {
                force_live: false,
                timeout: Duration::from_mins(15),
                is_alive: &|sign| is_alive(sign, SILENCE, now),
            };
            let stop = std::future::pending();
            let account = self.account.clone();
            let swept = sweep(&account, &plan, &terms, &|_| {}, stop);
            let swept = self.runtime.block_on(swept);
            self.log.push(format!("  command for {uid}: {swept:?}"));
            self.tally.deleted_by_command += swept.deleted.len() as u64;
            let serves = |why: &String| why.contains("healthy");
            let serving = swept.left.iter().any(|(_, why)| serves(why));
            self.tally.refused_serving += u64::from(serving);
        }
    }

    /// Whether a Service with this UID exists anywhere, and stays.
    fn is_wanted(&self, uid: &str) -> bool {
        if !self.removed.contains(uid) {
            return self.exists(uid);
        }
        // Signs are half a day apart, so the last one may be so much older than the last work.
        let silence = SignedDuration::from_hours(60);
        let works = |it: &&Cluster| {
            it.lease
                .is_some_and(|at| self.now.duration_since(at) < silence)
        };
        let living = self.clusters.iter().filter(|it| it.exists).filter(works);
        let mut services = living.flat_map(|it| it.services.values());
        services.any(|it| it.uid == uid && !it.deleting)
    }

    fn exists(&self, uid: &str) -> bool {
        let living = self.clusters.iter().filter(|it| it.exists);
        living
            .flat_map(|it| it.services.values())
            .any(|it| it.uid == uid && !it.deleting)
    }

    /// Nothing was deleted that should stay.
    fn look(&mut self) {
        let deleted = std::mem::take(&mut self.account.state().deleted);
        for (id, object) in deleted {
            let wrong = match &object.service {
                None => Some("somebody else's"),
                Some(_) if !object.tags.contains_key(CLUSTER) => Some("relinquished"),
                Some(_) if object.tags.contains_key(KEEP) => Some("kept"),
                // Half of a load balancer that never came up says nothing of its cluster.
                Some(uid)
                    if self.is_wanted(uid)
                        && (object.kind == Kind::LoadBalancer || self.has_balancer(uid)) =>
                {
                    Some("in use")
                }
                Some(_) => None,
            };
            if let Some(wrong) = wrong {
                panic!("deleted {id}, which is {wrong}\n{}", self.story());
            }
        }
    }

    fn has_balancer(&self, uid: &str) -> bool {
        let balancer = format!("{uid}-lb");
        self.account.state().objects.contains_key(&balancer)
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
        // Where a copy was, people end the condition, as the runbook says.
        for cluster in &mut self.clusters {
            cluster.controller = None;
            cluster.published = false;
        }
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

    fn assert_clean(&self) {
        let state = self.account.state();
        for (id, object) in &state.objects {
            let tags = &object.tags;
            let may_stay = match &object.service {
                None => true,
                Some(uid) => {
                    self.exists(uid)
                        || tags.contains_key(RETAINED)
                        || !tags.contains_key(CLUSTER)
                        || !tags.contains_key(mark::SERVICE_UID)
                        || Self::has_a_kept_part(&state.objects, uid)
                        || Self::is_used_by_a_stranger(&state.objects, uid)
                }
            };
            assert!(may_stay, "{id} is left: {tags:?}\n{}", self.story());
        }
        for cluster in self.clusters.iter().filter(|it| it.exists) {
            for service in cluster.services.values().filter(|it| !it.deleting) {
                let balancer = format!("{}-lb", service.uid);
                let there = state.objects.contains_key(&balancer);
                assert!(there, "{balancer} is gone\n{}", self.story());
            }
        }
        for id in ["theirs", "untagged"] {
            assert!(state.objects.contains_key(id), "{id}\n{}", self.story());
        }
    }

    /// A load balancer that lost its tags is nobody's, and what it uses cannot be deleted.
    fn is_used_by_a_stranger(objects: &BTreeMap<String, Object>, uid: &str) -> bool {
        let balancer = objects.get(&format!("{uid}-lb"));
        balancer.is_some_and(|it| {
            let tags = &it.tags;
            !tags.contains_key(CLUSTER) || !tags.contains_key(mark::SERVICE_UID)
        })
    }

    /// Whoever keeps one part keeps all of it.
    fn has_a_kept_part(objects: &BTreeMap<String, Object>, uid: &str) -> bool {
        let of = objects.values();
        let mut of = of.filter(|it| it.service.as_deref() == Some(uid));
        of.any(|it| it.tags.contains_key(KEEP) && it.tags.contains_key(CLUSTER))
    }

    fn story(&self) -> String {
        self.log.join("\n")
    }
}

fn id_of(name: &str, uid: &str) -> ServiceId {
    ServiceId {
        namespace: "shop".into(),
        name: name.into(),
        uid: uid.into(),
    }
}

impl Add for Tally {
    type Output = Self;

    fn add(mut self, other: Self) -> Self {
        self += other;
        self
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.histories += other.histories;
        self.steps += other.steps;
        self.crashes += other.crashes;
        self.deleted_by_class += other.deleted_by_class;
        self.deleted_by_command += other.deleted_by_command;
        self.shared += other.shared;
        self.breakers += other.breakers;
        self.refused_alive += other.refused_alive;
        self.refused_serving += other.refused_serving;
    }
}
