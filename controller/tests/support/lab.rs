//! A world with controllers: starts, stops, crashes and restarts them, and waits in virtual
//! time until the world is in the wanted state.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use ballast::class::Scope;
use ballast::class::contender::leases;
use ballast::process::backoff::Backoff;
use ballast::process::lease::{Config, Timing};
use ballast::run::factory::Providers;
use ballast::run::{self, Exit, Options};
use futures::FutureExt;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::api::{Api, Kind};
use super::cloud::{Cloud, CloudFactory};
use super::journal::{Cut, Effect, Fuse, Journal, Link, Target};
use super::problems;

/// Longer than any backoff: what has not happened by then never will.
const PATIENCE: Duration = Duration::from_mins(20);
/// How often states that change only with time are checked.
const LOOK: Duration = Duration::from_secs(5);

/// The world.
pub struct Lab {
    pub journal: Arc<Journal>,
    pub api: Arc<Api>,
    pub cloud: Arc<Cloud>,
    pub instances: Vec<Instance>,
    /// Services that must be refused, each with the reason.
    pub refused: BTreeMap<String, &'static str>,
    /// Services of `l2` classes without an available address, each with the reason.
    pub denied: BTreeMap<String, &'static str>,
    /// Where the next controllers serve health and metrics; any port by default.
    pub admin: std::net::SocketAddr,
    started: usize,
}

/// One controller process.
pub struct Instance {
    pub link: Link,
    pub task: JoinHandle<Result<Exit>>,
    stop: Option<oneshot::Sender<()>>,
    scope: Option<Vec<&'static str>>,
    /// It may end by itself.
    expendable: bool,
}

/// Runs a scenario in its own world, on one thread and in virtual time.
pub fn simulate<R>(seed: u64, story: impl AsyncFnOnce(&mut Lab) -> R) -> R {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut lab = Lab::new(seed);
        let result = story(&mut lab).await;
        lab.supervise().await;
        result
    })
}

/// Runs a scenario repeatedly, each time with a crash at the next effect, until there is none;
/// after each crash the world must reach the same state and become quiet.
#[allow(clippy::needless_pass_by_value)] // Stories are written in place.
pub fn crash_everywhere(story: impl AsyncFn(&mut Lab)) {
    let mut points = 0;
    for cut in [Cut::Before, Cut::After] {
        for at in 1.. {
            let reached = simulate(at as u64, async |lab| {
                lab.journal.arm(Fuse { at, cut });
                story(lab).await;
                lab.settle().await;
                let reached = lab.journal.disarm();
                // Without a cut, it was quiet before as well.
                lab.assert_steady().await;
                reached
            });
            if !reached {
                break;
            }
            points += 1;
            assert!(at < 200, "the story has no end");
        }
    }
    assert!(points >= 4, "only {points} crash points");
}

// === impl Lab ===

impl Lab {
    /// A world with two nodes, the class `local` and no controller.
    pub fn new(seed: u64) -> Self {
        let journal = Journal::new();
        let api = Api::new(&journal, seed);
        let cloud = Cloud::new(&api);
        api.create_node("node-1", "192.0.2.1");
        api.create_node("node-2", "192.0.2.2");
        api.create_class("local", &json!({}));
        Self {
            journal,
            api,
            cloud,
            instances: Vec::new(),
            refused: BTreeMap::new(),
            denied: BTreeMap::new(),
            admin: ([127, 0, 0, 1], 0).into(),
            started: 0,
        }
    }

    /// Starts a controller for all classes.
    pub fn start(&mut self) -> usize {
        self.launch(None)
    }

    /// Starts a controller for some classes.
    pub fn start_for(&mut self, classes: &[&'static str]) -> usize {
        self.launch(Some(classes.to_vec()))
    }

    fn launch(&mut self, scope: Option<Vec<&'static str>>) -> usize {
        self.started += 1;
        let name = format!("c{}", self.started);
        let link = Link::new(&name, &self.journal);
        let lease = format!(
            "ballast-{}",
            scope
                .as_ref()
                .map_or("controller".to_owned(), |scope| scope.join("-"))
        );
        let own = Providers::default();
        let options = Options {
            readiness_gates: false,
            clock: Arc::new({
                let api = Arc::clone(&self.api);
                move || api.time()
            }),
            scope: match &scope {
                None => Scope::All,
                Some(names) => Scope::Only(names.iter().map(|&name| name.to_owned()).collect()),
            },
            cluster_name: "lab".to_owned(),
            election: Config::new(&name, Timing::default()).unwrap(),
            lease: ("kube-system".to_owned(), lease),
            workers: 4,
            backoff: Backoff::default(),
            admin: self.admin,
            addresses: own.addresses.clone(),
            other_controllers: leases(None),
            factory: Arc::new(CloudFactory {
                cloud: Arc::clone(&self.cloud),
                link: link.clone(),
                own,
            }),
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let client = self.api.client(&link);
        let asked = async move {
            if stopped.await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let journal = Arc::clone(&self.journal);
        let task = tokio::spawn(async move {
            let exit = run::run(client, options, asked.boxed()).await;
            journal.changed();
            exit
        });
        self.instances.push(Instance {
            link,
            task,
            stop: Some(stop),
            scope,
            expendable: false,
        });
        self.instances.len() - 1
    }

    /// Stops all controllers in an orderly way.
    pub async fn stop(&mut self) {
        self.supervise().await;
        for mut instance in std::mem::take(&mut self.instances) {
            let _ = instance.stop.take().unwrap().send(());
            let ended = tokio::time::timeout(Duration::from_mins(1), &mut instance.task).await;
            // The fuse may blow during the stop.
            if instance.link.is_dead() {
                instance.task.abort();
                continue;
            }
            let exit = ended.unwrap_or_else(|_| {
                panic!("{} does not stop\n{}", instance.link.name(), self.dump())
            });
            assert_eq!(
                exit.unwrap().unwrap(),
                Exit::Stopped,
                "{}",
                instance.link.name()
            );
        }
    }

    /// Ends all controllers, like `kill -9`.
    pub async fn kill(&mut self) {
        for instance in std::mem::take(&mut self.instances) {
            instance.kill().await;
        }
    }

    /// Stops all controllers and starts as many.
    pub async fn restart(&mut self) {
        let scopes: Vec<_> = self
            .instances
            .iter()
            .map(|instance| instance.scope.clone())
            .collect();
        self.stop().await;
        for scope in scopes {
            self.launch(scope);
        }
    }

    /// An instance that may lose its Lease and exit.
    pub fn may_end(&mut self, instance: usize) {
        self.instances[instance].expendable = true;
    }

    /// Replaces controllers that the fuse has cut off; fails if one ended by itself or
    /// something forbidden happened.
    pub async fn supervise(&mut self) {
        let violations = self.journal.violations();
        assert!(
            violations.is_empty(),
            "{}\n{}",
            violations.join("\n"),
            self.dump()
        );
        while let Some(at) = self
            .instances
            .iter()
            .position(|instance| instance.link.is_dead())
        {
            let instance = self.instances.remove(at);
            let scope = instance.scope.clone();
            instance.kill().await;
            self.launch(scope);
        }
        let ended = self
            .instances
            .iter()
            .position(|it| it.task.is_finished() && !it.expendable);
        if let Some(at) = ended {
            let instance = self.instances.remove(at);
            panic!(
                "{} ended by itself: {:?}\n{}",
                instance.link.name(),
                instance.task.await,
                self.dump()
            );
        }
    }

    /// Waits until the condition holds.
    pub async fn until(&mut self, what: &str, mut so: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        let mut changed = self.journal.subscribe();
        loop {
            changed.mark_unchanged();
            self.supervise().await;
            if so(self) {
                return;
            }
            tokio::select! {
                _ = changed.changed() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
            if Instant::now() > deadline {
                let problems = self.problems().join("\n");
                panic!("never happened: {what}\n{problems}\n{}", self.dump());
            }
        }
    }

    /// Waits until the world is in the state that the users want.
    pub async fn settle(&mut self) {
        self.until("the world is in order", |lab| lab.problems().is_empty())
            .await;
    }

    /// Waits until one Service has its address and is programmed.
    pub async fn served(&mut self, key: &str) {
        self.until(&format!("{key} is served"), |lab| {
            lab.condition(key, "Programmed")
                .is_some_and(|condition| condition["status"] == "True")
        })
        .await;
    }

    /// Waits until an object is gone.
    pub async fn gone(&mut self, kind: Kind, key: &str) {
        self.until(&format!("{key} is gone"), |lab| {
            lab.api.get(kind, key).is_none()
        })
        .await;
    }

    /// Waits until a Service reports that it is refused, and why.
    pub async fn refusal(&mut self, key: &str, reason: &'static str) {
        self.until(&format!("{key} is refused: {reason}"), |lab| {
            lab.condition(key, "Accepted")
                .is_some_and(|it| it["status"] == "False" && it["reason"] == reason)
        })
        .await;
    }

    /// Advances the time.
    pub async fn rest(&mut self, seconds: u64) {
        let end = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < end {
            tokio::time::sleep(LOOK.min(end - Instant::now())).await;
            self.supervise().await;
        }
    }

    /// The differences from the state that the users want.
    pub fn problems(&self) -> Vec<String> {
        problems::of(self)
    }

    /// Checks that nothing is written, now and after a restart (invariant 3).
    pub async fn assert_steady(&mut self) {
        // The counters of a class, and what a survey has found, are written with a delay.
        self.led().await;
        self.rest(25).await;
        let mark = self.journal.mark();
        self.restart().await;
        self.led().await;
        self.rest(16).await;
        // After a change of leaders a pool's next address differs, and its status is written
        // once.
        let pools = self.effects(mark, Target::Pool);
        assert!(pools.len() <= self.api.all(Kind::Pool).len(), "{pools:#?}");
        let effects = self.journal.since(mark).into_iter();
        let others: Vec<Effect> = effects.filter(|it| it.target != Target::Pool).collect();
        assert!(others.is_empty(), "not quiet: {others:#?}\n{}", self.dump());
        assert!(self.problems().is_empty(), "{:#?}", self.problems());
    }

    /// Waits until every running instance leads.
    pub async fn led(&mut self) {
        self.until("there are leaders", |lab| {
            let leases = lab.api.all(Kind::Lease);
            lab.instances.iter().all(|instance| {
                let prefix = format!("{}_", instance.link.name());
                let held = |lease: &Value| {
                    lease["spec"]["holderIdentity"]
                        .as_str()
                        .is_some_and(|it| it.starts_with(&prefix))
                };
                leases.values().any(held)
            })
        })
        .await;
    }

    /// Checks that no effect follows the mark, except those of the election.
    pub fn assert_quiet(&self, mark: usize) {
        let effects = self.journal.since(mark);
        assert!(
            effects.is_empty(),
            "not quiet: {effects:#?}\n{}",
            self.dump()
        );
    }

    /// The effects after a mark on one kind of target.
    pub fn effects(&self, mark: usize, target: Target) -> Vec<Effect> {
        let effects = self.journal.since(mark).into_iter();
        effects.filter(|effect| effect.target == target).collect()
    }

    pub fn service(&self, key: &str) -> Value {
        self.api.get(Kind::Service, key).unwrap_or_default()
    }

    pub fn uid(&self, key: &str) -> String {
        self.service(key)["metadata"]["uid"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// One of our conditions.
    pub fn condition(&self, key: &str, kind: &str) -> Option<Value> {
        let service = self.service(key);
        let all = service["status"]["conditions"].as_array()?;
        all.iter()
            .find(|condition| condition["type"] == format!("ballast.dev/{kind}"))
            .cloned()
    }

    /// The published addresses.
    pub fn addresses(&self, key: &str) -> Vec<String> {
        let service = self.service(key);
        let entries = service["status"]["loadBalancer"]["ingress"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        entries
            .iter()
            .filter_map(|entry| entry["ip"].as_str().map(str::to_owned))
            .collect()
    }

    /// Everything that helps to explain a failure.
    pub fn dump(&self) -> String {
        let mut text = String::from("--- effects\n");
        for effect in self
            .journal
            .effects()
            .iter()
            .filter(|effect| effect.target != Target::Lease)
        {
            let _ = writeln!(text, "{effect:?}");
        }
        for kind in [Kind::Service, Kind::Class, Kind::Pool] {
            let _ = writeln!(text, "--- {kind:?}");
            for (key, object) in self.api.all(kind).into_iter().take(20) {
                let _ = writeln!(text, "{key}: {object}");
            }
        }
        let _ = writeln!(text, "--- cloud");
        for (name, lb) in self.cloud.balancers().into_iter().take(20) {
            let _ = writeln!(text, "{name}: {lb:?}");
        }
        text
    }

    /// UIDs with a load balancer.
    pub fn balanced(&self) -> BTreeSet<String> {
        super::cloud::uids(&self.cloud.ours())
    }
}

// === impl Instance ===

impl Instance {
    async fn kill(self) {
        self.link.set(super::journal::Reach::Nothing);
        self.task.abort();
        let _ = self.task.await;
    }
}
