//! A strict fake of Elastic Load Balancing (version 2) and EC2, at the level of the wire: HTTP, the
//! AWS Query protocol and its XML, signatures of version 4. The real SDK runs against it. It is for
//! tests and the lab, and no part of a release.
//!
//! ```text
//!   client ──▶ server ──▶ signature ──▶ throttle ──▶ fault ──▶ wire ──▶ state ──▶ wire ──▶ client
//!              (hyper)    (SigV4)       (buckets)    (plan)    (parse)  (rules)   (XML)
//! ```
//!
//! `state` and its rules, `throttle`, `fault` and `wire` do no I/O, and take the time as an
//! argument. `server` does the rest, and [`Fake`] is what a test holds.
//!
//! It is strict in two ways. It refuses what AWS refuses, also where other fakes do not: duplicate
//! names, dependencies, quotas, deletion protection, what needs time. And it refuses what it does
//! not know: an unknown action or parameter is an error and not a success.
//!
//! AWS itself was not at hand. `state` says for its rules where they come from.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

mod clock;
mod fault;
mod log;
mod server;
pub mod state;
mod throttle;
mod wire;

pub use self::clock::Time;
pub use self::fault::Fault;
pub use self::log::{Call, Counts, Outcome};
pub use self::throttle::{Bucket, Throttle};
pub use self::wire::Service;
pub use self::wire::signature::Credentials;

use self::clock::Clock;
use self::fault::Plan;
use self::log::Log;
use self::server::{Inner, Shared};
use self::state::seed::Network;
use self::state::{Cloud, Moment, Settings, Snapshot};
use self::throttle::Buckets;

/// How a fake is.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it listens. Port 0 means any.
    pub listen: SocketAddr,
    /// How the cloud behaves.
    pub settings: Settings,
    /// The network that it starts with.
    pub network: Option<Network>,
    /// How time passes.
    pub time: Time,
    /// The limits for the rate of calls; `None` means that there are none.
    pub throttle: Option<Throttle>,
    /// The time that each call takes, by the fake's clock.
    pub latency: Duration,
    /// Who may call.
    pub credentials: Vec<Credentials>,
    /// How many calls the log holds.
    pub log: usize,
}

/// A fake that runs. It ends when it is dropped.
#[derive(Debug)]
pub struct Fake {
    shared: Arc<Shared>,
    address: SocketAddr,
    task: JoinHandle<()>,
}

// === impl Config ===

impl Default for Config {
    /// On loopback, with a network of three zones and three nodes, and a clock that stands still.
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            settings: Settings::default(),
            network: Some(Network::default()),
            time: Time::Manual,
            throttle: None,
            latency: Duration::ZERO,
            credentials: vec![Credentials {
                access_key: "AKIAFAKEFAKEFAKEFAKE".into(),
                secret: "fake/secret+key".into(),
                session_token: None,
            }],
            log: 10_000,
        }
    }
}

// === impl Fake ===

impl Fake {
    /// Starts a fake.
    pub async fn start(config: Config) -> std::io::Result<Self> {
        let listener = TcpListener::bind(config.listen).await?;
        let address = listener.local_addr()?;
        let mut cloud = Cloud::new(config.settings);
        if let Some(network) = &config.network {
            cloud.seed(network);
        }
        let shared = Arc::new(Shared {
            clock: Clock::new(config.time),
            credentials: config.credentials,
            inner: Mutex::new(Inner {
                cloud,
                buckets: config.throttle.map(Buckets::new),
                plan: Plan::default(),
                log: Log::new(config.log),
                latency: config.latency,
                foreign: Snapshot::default(),
            }),
            open: watch::Sender::default(),
            held: watch::Sender::default(),
            released: watch::Sender::default(),
        });
        let task = tokio::spawn(server::serve(listener, Arc::clone(&shared)));
        Ok(Self {
            shared,
            address,
            task,
        })
    }

    /// The address of both services, for `AWS_ENDPOINT_URL`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What a client may sign with.
    pub fn credentials(&self) -> &[Credentials] {
        &self.shared.credentials
    }

    /// The region, for `AWS_REGION`.
    pub fn region(&self) -> String {
        self.shared.lock().cloud.settings.region.clone()
    }

    /// The time of the fake.
    pub fn now(&self) -> Moment {
        self.shared.clock.now()
    }

    /// Moves the clock, and does what becomes due.
    pub fn advance(&self, by: Duration) {
        self.shared.clock.advance(by);
        self.edit(Cloud::tick);
    }

    /// Looks at the cloud or changes it, for example to add objects of somebody else. Calls of its
    /// methods count nowhere.
    pub fn edit<T>(&self, change: impl FnOnce(&mut Cloud, Moment) -> T) -> T {
        let mut inner = self.shared.lock();
        let now = self.now();
        change(&mut inner.cloud, now)
    }

    /// All objects as they are.
    pub fn snapshot(&self) -> Snapshot {
        self.edit(|cloud, now| {
            cloud.tick(now);
            cloud.snapshot()
        })
    }

    /// Declares all objects that exist now to be somebody else's.
    pub fn remember_foreign(&self) {
        let snapshot = self.snapshot();
        self.shared.lock().foreign = snapshot;
    }

    /// Declares one object, by its ARN or ID, to be one that may change after all, such as the
    /// security group of the nodes.
    pub fn forget_foreign(&self, key: &str) {
        let mut inner = self.shared.lock();
        let foreign = &mut inner.foreign;
        foreign.load_balancers.remove(key);
        foreign.target_groups.remove(key);
        foreign.listeners.remove(key);
        foreign.security_groups.remove(key);
    }

    /// What happened to somebody else's objects since then, one line each.
    pub fn foreign_changes(&self) -> Vec<String> {
        let now = self.snapshot();
        self.shared.lock().foreign.changes(&now)
    }

    /// Whether nothing happened to them.
    pub fn foreign_unchanged(&self) -> bool {
        self.foreign_changes().is_empty()
    }

    /// Plans a fault.
    pub fn fault(&self, fault: Fault) {
        self.shared.lock().plan.add(fault);
    }

    /// Forgets all faults that are planned, and releases all calls that are held.
    pub fn clear_faults(&self) {
        self.shared.lock().plan.clear();
        self.release();
    }

    /// Waits until a call is held.
    pub async fn held(&self) {
        let mut held = self.shared.held.subscribe();
        let _ = held.wait_for(|held| *held > 0).await;
    }

    /// Waits until no request is in progress. After a client was killed, whatever it had asked for
    /// has happened then, or never will.
    pub async fn idle(&self) {
        let mut open = self.shared.open.subscribe();
        let _ = open.wait_for(|open| *open == 0).await;
    }

    /// Releases the calls that are held.
    pub fn release(&self) {
        self.shared
            .released
            .send_modify(|generation| *generation += 1);
    }

    /// Sets the time that each call takes.
    pub fn set_latency(&self, latency: Duration) {
        self.shared.lock().latency = latency;
    }

    /// Sets the limits for the rate of calls, with full buckets.
    pub fn set_throttle(&self, throttle: Option<Throttle>) {
        self.shared.lock().buckets = throttle.map(Buckets::new);
    }

    /// The last calls.
    pub fn calls(&self) -> Vec<Call> {
        self.shared.lock().log.calls()
    }

    /// How many calls there were.
    pub fn counts(&self) -> Counts {
        self.shared.lock().log.counts().clone()
    }

    /// Forgets the calls so far.
    pub fn reset_calls(&self) {
        self.shared.lock().log.reset();
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}
