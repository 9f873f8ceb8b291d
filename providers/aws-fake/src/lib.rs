//! A strict fake of Elastic Load Balancing (version 2) and EC2, at the level of the wire: HTTP, the
//! AWS Query protocol and its XML, signatures of version 4. The real SDK runs against it. It is for
//! tests and the lab, and no part of a release.
//!
//! ```text
//!   client ──▶ server ──▶ signature ──▶ throttle ──▶ fault ─┬▶ wire ──▶ state ──▶ wire ──▶ client
//!              (hyper)    (SigV4)       (buckets)    (plan) │  (parse)  (rules)   (XML)
//!                                                           └▶ proxy ──▶ moto
//! ```
//!
//! `state` and its rules, `throttle`, `fault` and `wire` do no I/O, and take the time as an
//! argument. `server` does the rest, and [`Fake`] is what a test holds.
//!
//! The same counts, limits, delays and faults can stand before a cloud that somebody else wrote: a
//! [`Proxy`] with [`Moto`] behind it is a second opinion on what AWS does.
//!
//! It is strict in two ways. It refuses what AWS refuses, also where other fakes do not: duplicate
//! names, dependencies, quotas, deletion protection, what needs time. And it refuses what it does
//! not know: an unknown action or parameter is an error and not a success.
//!
//! AWS itself was not at hand. `state` says for its rules where they come from.

use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

mod clock;
mod fault;
mod front;
mod log;
mod moto;
mod proxy;
mod server;
pub mod state;
mod throttle;
mod wire;

pub use self::clock::Time;
pub use self::fault::Fault;
pub use self::front::Front;
pub use self::log::{Call, Counts, Outcome};
pub use self::moto::{Moto, MotoError};
pub use self::proxy::Proxy;
pub use self::throttle::{Bucket, Throttle};
pub use self::wire::Service;
pub use self::wire::signature::Credentials;

use self::front::Terms;
use self::server::{Accepted, Backend, Soon};
use self::state::seed::Network;
use self::state::{Cloud, Moment, Settings, Snapshot};

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
    front: Front,
    own: Arc<Own>,
}

/// The fake cloud. A call is made while it is locked, without waiting in between, so calls of
/// several connections follow one another.
#[derive(Debug)]
struct Own(Mutex<Objects>);

#[derive(Debug)]
struct Objects {
    cloud: Cloud,
    /// The objects that nobody may touch.
    foreign: Snapshot,
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
        let mut cloud = Cloud::new(config.settings);
        if let Some(network) = &config.network {
            cloud.seed(network);
        }
        let terms = Terms {
            listen: config.listen,
            region: cloud.settings.region.clone(),
            time: config.time,
            throttle: config.throttle,
            latency: config.latency,
            credentials: config.credentials,
            log: config.log,
        };
        let own = Arc::new(Own(Mutex::new(Objects {
            cloud,
            foreign: Snapshot::default(),
        })));
        let front = Front::start(terms, own.clone()).await?;
        Ok(Self { front, own })
    }

    /// Moves the clock, and does what becomes due.
    pub fn advance(&self, by: Duration) {
        self.front.advance(by);
        self.edit(Cloud::tick);
    }

    /// Looks at the cloud or changes it, for example to add objects of somebody else. Calls of its
    /// methods count nowhere.
    pub fn edit<T>(&self, change: impl FnOnce(&mut Cloud, Moment) -> T) -> T {
        let now = self.now();
        change(&mut self.own.lock().cloud, now)
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
        self.own.lock().foreign = snapshot;
    }

    /// Declares one object, by its ARN or ID, to be one that may change after all, such as the
    /// security group of the nodes.
    pub fn forget_foreign(&self, key: &str) {
        let mut own = self.own.lock();
        let foreign = &mut own.foreign;
        foreign.load_balancers.remove(key);
        foreign.target_groups.remove(key);
        foreign.listeners.remove(key);
        foreign.rules.remove(key);
        foreign.security_groups.remove(key);
    }

    /// What happened to somebody else's objects since then, one line each.
    pub fn foreign_changes(&self) -> Vec<String> {
        let now = self.snapshot();
        self.own.lock().foreign.changes(&now)
    }

    /// Whether nothing happened to them.
    pub fn foreign_unchanged(&self) -> bool {
        self.foreign_changes().is_empty()
    }
}

impl Deref for Fake {
    type Target = Front;

    fn deref(&self) -> &Front {
        &self.front
    }
}

// === impl Own ===

impl Own {
    fn lock(&self) -> MutexGuard<'_, Objects> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backend for Own {
    fn answer<'a>(&'a self, call: Accepted<'a>, now: Moment) -> Soon<'a> {
        let Accepted {
            service,
            action,
            form,
            id,
            ..
        } = call;
        let result = wire::call(service, action, form, &mut self.lock().cloud, now);
        let answered = match result {
            Ok(xml) => (Outcome::Done, wire::success(service, action, &xml, &id)),
            Err(refusal) => {
                let answer = wire::failure(service, &refusal, &id);
                (Outcome::Refused(refusal.code), answer)
            }
        };
        Box::pin(std::future::ready(Ok(answered)))
    }
}
