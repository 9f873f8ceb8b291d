//! What the tasks of one load balancer share, and what those of one open port do.
//!
//! Which targets a port may use is computed once for each version of everything it depends
//! on, however many connections and flows there are. A connection is told only of a set that
//! differs from the one before.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::balance::{self, Candidate, Eligible};
use super::places::Share;
use super::plan::{Config, Socket};
use super::sticky::StickyTable;
use super::{PlaneOptions, Shared, read, write};
use crate::api::{Affinity, Target, TargetHealthView};

/// Targets tried for one connection or flow.
const ATTEMPTS: usize = 3;

/// One load balancer.
pub(super) struct Balancer {
    pub(super) name: String,
    pub(super) shared: Arc<Shared>,
    config: RwLock<Arc<Config>>,
    /// Its TCP connections.
    pub(super) connections: Arc<Share>,
    sticky: Mutex<StickyTable>,
    /// Ends with the load balancer.
    pub(super) gone: CancellationToken,
}

/// One open port of a load balancer.
pub(super) struct Frontend {
    pub(super) socket: Socket,
    pub(super) balancer: Arc<Balancer>,
    /// Counts what is balanced.
    turn: AtomicUsize,
    /// The version of `eligible`.
    version: Mutex<Option<u64>>,
    eligible: watch::Sender<Arc<Eligible>>,
}

// === impl Balancer ===

impl Balancer {
    pub(super) fn new(
        name: &str,
        config: Config,
        shared: &Arc<Shared>,
        gone: CancellationToken,
    ) -> Self {
        let connections = shared.options.max_connections;
        Self {
            name: name.to_owned(),
            config: RwLock::new(Arc::new(config)),
            connections: shared.connections.share(connections),
            sticky: Mutex::new(StickyTable::new(shared.sticky_share())),
            shared: Arc::clone(shared),
            gone,
        }
    }

    pub(super) fn config(&self) -> Arc<Config> {
        Arc::clone(&read(&self.config))
    }

    /// Replaces the configuration. Returns whether it differs from the one before.
    pub(super) fn replace(&self, config: Config) -> bool {
        let mut present = write(&self.config);
        let differs = **present != config;
        if differs {
            *present = Arc::new(config);
        }
        differs
    }

    /// Whether a client may connect.
    pub(super) fn admits(&self, client: IpAddr) -> bool {
        balance::admits(&self.config().source_ranges, client)
    }

    /// Records that the client uses this target.
    pub(super) fn remember(&self, client: IpAddr, target: &Candidate) {
        if let Affinity::ClientIp { .. } = self.config().affinity {
            self.sticky().set(client, &target.name, Instant::now());
        }
    }

    /// The health of each target for each listener.
    pub(super) fn health(&self, options: &PlaneOptions) -> Vec<TargetHealthView> {
        let config = self.config();
        let targets = self.shared.targets(&config.target_set);
        let mut views = Vec::new();
        for socket in config.sockets() {
            let Some(listener) = config.listener(socket) else {
                continue;
            };
            let eligible = self.eligible(&config, socket);
            let health = read(&self.shared.health);
            for target in targets.iter() {
                let ip = balance::address_for(target, socket.ip);
                let candidate = ip.map(|ip| Candidate {
                    name: target.name.as_str().into(),
                    ip,
                });
                views.push(TargetHealthView {
                    target: target.name.clone(),
                    address: ip.map(|ip| SocketAddr::new(ip, listener.node_port)),
                    listener: format!("{}/{}", listener.protocol, listener.port),
                    check: health.describe(&config, listener, target, options),
                    health: health.verdict(&config, listener, target),
                    eligible: candidate.is_some_and(|it| eligible.contains(&it)),
                });
            }
        }
        views
    }

    /// Computes which targets may get new traffic of a port.
    fn eligible(&self, config: &Config, socket: Socket) -> Eligible {
        self.shared.count_computation();
        let Some(listener) = config.listener(socket) else {
            return Eligible::default();
        };
        let targets = self.shared.targets(&config.target_set);
        let health = read(&self.shared.health);
        let verdict = |target: &Target| health.verdict(config, listener, target);
        balance::eligible(&targets, socket.ip, config.policy, verdict)
    }

    fn sticky_target(&self, client: IpAddr) -> Option<Arc<str>> {
        let Affinity::ClientIp { timeout_seconds } = self.config().affinity else {
            return None;
        };
        let timeout = Duration::from_secs(timeout_seconds.into());
        self.sticky().get(client, Instant::now(), timeout)
    }

    fn sticky(&self) -> MutexGuard<'_, StickyTable> {
        self.sticky.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Frontend ===

impl Frontend {
    pub(super) fn new(socket: Socket, balancer: Arc<Balancer>) -> Self {
        Self {
            socket,
            balancer,
            turn: AtomicUsize::new(0),
            version: Mutex::new(None),
            eligible: watch::Sender::default(),
        }
    }

    /// The targets that may get new traffic now.
    pub(super) fn eligible(&self) -> Arc<Eligible> {
        let shared = &self.balancer.shared;
        let mut known = self.version.lock().unwrap_or_else(PoisonError::into_inner);
        let version = shared.version();
        if *known != Some(version) {
            let config = self.balancer.config();
            let now = self.balancer.eligible(&config, self.socket);
            let now = shared.unique(&config, self.socket.ip, now);
            *known = Some(version);
            self.eligible.send_if_modified(|before| {
                let differs = *before != now;
                *before = now;
                differs
            });
        }
        Arc::clone(&self.eligible.borrow())
    }

    /// Follows that set.
    pub(super) fn subscribe(&self) -> watch::Receiver<Arc<Eligible>> {
        self.eligible.subscribe()
    }

    /// Whether a connection follows it.
    pub(super) fn is_followed(&self) -> bool {
        self.eligible.receiver_count() > 0
    }

    /// The targets to try for a client, in this order.
    pub(super) fn order(&self, client: IpAddr, avoid: Option<&str>) -> Vec<Candidate> {
        let sticky = self.balancer.sticky_target(client);
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        self.eligible()
            .order(turn, sticky.as_deref(), avoid, ATTEMPTS)
    }

    /// Where a target takes the traffic of this port.
    pub(super) fn address(&self, target: &Candidate) -> Option<SocketAddr> {
        let config = self.balancer.config();
        let listener = config.listener(self.socket)?;
        Some(SocketAddr::new(target.ip, listener.node_port))
    }
}
