//! The data plane: a proxy for TCP and UDP from the load balancers' addresses to
//! `node address:nodePort`.
//!
//! The server calls [`Plane::apply`] for every load balancer that changed,
//! [`Plane::set_targets`] for every target set, and [`Plane::knock`] to find out whether
//! clients arrive. Pure modules choose, with `now` passed in: `plan` (which sockets to
//! open), `ports` (which ports the node needs), `balance` and `sticky` (which target),
//! `health` (what health checks mean), `flows` (which UDP clients stay), `places` (who may
//! have another connection). The drivers are `open`, `tcp`, `udp`, `probe`, `node` and `reach`.
//!
//! Tasks: one per open port, one per TCP connection, one per UDP client, one for all health
//! checks with one per running check, and one that looks for listeners of the node. All end
//! with the shutdown token.
//!
//! Invariants: a change of node ports, targets, policy, affinity or source ranges
//! neither closes a socket nor affects an established connection whose target stays;
//! a port is open only while its load balancer is active, and never if the node needs it;
//! memory and descriptors are bounded, whatever the number of load balancers.

mod balance;
mod balancer;
mod buffer;
mod descriptors;
mod flows;
mod health;
mod node;
mod open;
mod places;
mod plan;
mod ports;
mod probe;
mod reach;
mod relay;
mod sticky;
mod tcp;
mod udp;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::ready;
use futures::stream;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::api::{Family, Problem, Target, TargetHealthView, TrafficPolicy};
use balance::Eligible;
use balancer::Balancer;
use health::HealthTable;
pub(crate) use open::ClosedPorts;
use open::{CannotOpen, cannot_open, intercepted, open};
use places::{Places, Share};
pub(crate) use plan::{Config, Socket};
pub(crate) use ports::DEFAULT_RESERVED;
use ports::NodePorts;
pub use ports::ReservedPorts;
pub(crate) use ports::Wildcard;
use reach::Knocks;

/// The most clients with affinity that one load balancer remembers.
const STICKY_CLIENTS: usize = 16_384;

/// The most clients with affinity that all load balancers remember.
const STICKY_TOTAL: usize = 65_536;

/// With this number of sets of eligible targets, those that no port uses are removed.
const KNOWN_SETS: usize = 64;

/// The number of ports of one load balancer that are tried at the same time.
const KNOCKS: usize = 4;

/// Delays and limits of the data plane.
#[derive(Clone, Debug)]
pub struct PlaneOptions {
    /// Time between two checks of one target.
    pub health_interval: Duration,
    /// Time-out of one check.
    pub health_timeout: Duration,
    /// The port of kube-proxy's `/healthz` on every node.
    pub health_port: u16,
    /// How long an established connection may outlive its target.
    pub drain: Duration,
    /// The most TCP connections of one load balancer.
    pub max_connections: usize,
    /// The most TCP connections of all load balancers.
    pub max_total_connections: usize,
    /// The most UDP clients of one listener.
    pub max_flows: usize,
    /// The most UDP clients of all listeners.
    pub max_total_flows: usize,
    /// The idle time-out of a UDP client.
    pub flow_idle: Duration,
    /// The idle time-out until its target has answered and the client has sent again.
    pub flow_new: Duration,
    /// Time-out for a connection to one target, before the next target is tried.
    pub connect_timeout: Duration,
    /// Time between attempts to open a port that was in use.
    pub bind_retry: Duration,
    /// Ports that are left to programs of the node.
    pub reserved_ports: ReservedPorts,
}

/// The running data plane.
#[derive(Clone)]
pub(crate) struct Plane {
    shared: Arc<Shared>,
    running: Arc<Mutex<HashMap<String, Running>>>,
    shutdown: CancellationToken,
}

/// What all load balancers share.
struct Shared {
    options: PlaneOptions,
    targets: RwLock<HashMap<String, Arc<Vec<Target>>>>,
    health: RwLock<HealthTable>,
    /// Increases with every change that can affect which targets are eligible.
    version: watch::Sender<u64>,
    /// Notified when the set of health checks may have changed.
    rechecks: Notify,
    /// Notified when a health check has ended.
    answered: Notify,
    knocks: Knocks,
    node_ports: Mutex<NodePorts>,
    /// Notified when listeners of the node were looked for.
    seen: Notify,
    /// TCP connections.
    connections: Arc<Places>,
    /// UDP clients.
    flows: Arc<Places>,
    /// Clients with affinity.
    sticky: Arc<Places>,
    /// The newest set of eligible targets of each kind; ports share it.
    eligible: Mutex<HashMap<SetKind, Arc<Eligible>>>,
    /// The number of times that a set was computed.
    computations: AtomicU64,
}

/// The target set, the family, and whether the traffic policy is `Cluster`.
type SetKind = (String, Family, bool);

/// One load balancer's open sockets.
struct Running {
    balancer: Arc<Balancer>,
    sockets: BTreeMap<Socket, CancellationToken>,
}

// === impl PlaneOptions ===

impl Default for PlaneOptions {
    fn default() -> Self {
        Self {
            health_interval: Duration::from_secs(2),
            health_timeout: Duration::from_secs(1),
            health_port: 10_256,
            drain: Duration::from_secs(30),
            max_connections: 4_096,
            max_total_connections: 8_192,
            max_flows: 1_024,
            max_total_flows: 8_192,
            flow_idle: Duration::from_mins(1),
            flow_new: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(2),
            bind_retry: Duration::from_secs(1),
            reserved_ports: ReservedPorts::default(),
        }
    }
}

// === impl Plane ===

impl Plane {
    /// Starts the health checks and the search for listeners of the node. Opens no port.
    /// `listeners`: those that an earlier process saw.
    pub(crate) fn start(
        options: PlaneOptions,
        listeners: &[Wildcard],
        shutdown: CancellationToken,
    ) -> Self {
        let reserved = options.reserved_ports.clone();
        let node_ports = NodePorts::new(reserved, node::ephemeral(), listeners);
        let (connections, flows) = within(&options, descriptors::limit());
        let shared = Arc::new(Shared {
            health: RwLock::new(HealthTable::new(options.health_interval)),
            options,
            targets: RwLock::default(),
            version: watch::channel(0).0,
            rechecks: Notify::new(),
            answered: Notify::new(),
            knocks: Knocks::default(),
            node_ports: Mutex::new(node_ports),
            seen: Notify::new(),
            connections: Places::new(connections),
            flows: Places::new(flows),
            sticky: Places::new(STICKY_TOTAL),
            eligible: Mutex::default(),
            computations: AtomicU64::new(0),
        });
        node::observe(&shared);
        tokio::spawn(node::watch(Arc::clone(&shared), shutdown.clone()));
        let plane = Self {
            shared,
            running: Arc::default(),
            shutdown,
        };
        tokio::spawn(probe::run(plane.clone(), plane.shutdown.clone()));
        plane
    }

    /// Opens, changes or (`None`) closes a load balancer. A port that cannot be opened does
    /// not prevent others from being opened.
    pub(crate) fn apply(&self, name: &str, config: Option<Config>) -> Result<(), ClosedPorts> {
        let mut running = self.running();
        let Some(config) = config else {
            if let Some(gone) = running.remove(name) {
                gone.balancer.gone.cancel();
                self.shared.rechecks.notify_one();
            }
            return Ok(());
        };
        let entry = running
            .entry(name.to_owned())
            .or_insert_with(|| self.running_as(name, &config));
        let changed = entry.balancer.replace(config);
        let result = Self::rebind(entry);
        drop(running);
        if changed {
            self.shared.bump();
        }
        self.shared.rechecks.notify_one();
        result
    }

    /// Replaces a target set.
    pub(crate) fn set_targets(&self, set: &str, targets: Vec<Target>) {
        let mut sets = write(&self.shared.targets);
        sets.insert(set.to_owned(), Arc::new(targets));
        drop(sets);
        self.shared.rechecks.notify_one();
        self.shared.bump();
    }

    /// Tries whether clients arrive at the open ports of a load balancer. A port that cannot
    /// be tried counts as reached.
    pub(crate) async fn knock(&self, name: &str) -> Result<(), Problem> {
        let sockets: Vec<Socket> = match self.running().get(name) {
            Some(entry) => entry.sockets.keys().copied().collect(),
            None => Vec::new(),
        };
        let knocks = sockets.into_iter().map(async |socket| {
            let arrives = reach::arrives(&self.shared.knocks, socket).await;
            let arrives = arrives.unwrap_or_else(|error| {
                tracing::debug!(%socket, %error, "cannot tell whether clients arrive");
                true
            });
            (!arrives).then_some(socket)
        });
        // One that is missed is enough.
        let mut knocks = pin!(stream::iter(knocks).buffered(KNOCKS).filter_map(ready));
        knocks
            .next()
            .await
            .map_or(Ok(()), |socket| Err(intercepted(socket)))
    }

    /// Waits for listeners of the node that were never seen before, and returns them.
    pub(crate) async fn new_listeners(&self) -> Vec<Wildcard> {
        loop {
            let new = self.unstored_listeners();
            if !new.is_empty() {
                return new;
            }
            self.shared.seen.notified().await;
        }
    }

    /// The same, without waiting.
    pub(crate) fn unstored_listeners(&self) -> Vec<Wildcard> {
        self.shared.node_ports().take_new()
    }

    /// The names of all load balancers that are open or should be.
    pub(crate) fn names(&self) -> Vec<String> {
        self.running().keys().cloned().collect()
    }

    /// The health of each target for each listener.
    pub(crate) fn health(&self, name: &str) -> Vec<TargetHealthView> {
        let balancer = self
            .running()
            .get(name)
            .map(|entry| Arc::clone(&entry.balancer));
        balancer
            .map(|balancer| balancer.health(&self.shared.options))
            .unwrap_or_default()
    }

    /// Time between attempts to open a port that was in use.
    pub(crate) fn bind_retry(&self) -> Duration {
        self.shared.options.bind_retry
    }

    fn running(&self) -> MutexGuard<'_, HashMap<String, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn running_as(&self, name: &str, config: &Config) -> Running {
        let gone = self.shutdown.child_token();
        let balancer = Balancer::new(name, config.clone(), &self.shared, gone);
        Running {
            balancer: Arc::new(balancer),
            sockets: BTreeMap::new(),
        }
    }

    fn rebind(entry: &mut Running) -> Result<(), ClosedPorts> {
        let config = entry.balancer.config();
        let diff = plan::diff(entry.sockets.keys().copied(), &config);
        for socket in diff.close {
            if let Some(closed) = entry.sockets.remove(&socket) {
                closed.cancel();
            }
        }
        let mut closed_ports: Option<ClosedPorts> = None;
        for socket in diff.open {
            let closed = entry.balancer.gone.child_token();
            match open(socket, &entry.balancer, &closed) {
                Ok(()) => {
                    entry.sockets.insert(socket, closed);
                }
                Err(error) => {
                    let retry = matches!(error, CannotOpen::Failed(_));
                    let problem = cannot_open(socket, &error);
                    if retry {
                        tracing::warn!(load_balancer = entry.balancer.name, %socket, %problem, "cannot open a port");
                    }
                    let first = closed_ports.get_or_insert(ClosedPorts { problem, retry });
                    first.retry |= retry;
                }
            }
        }
        closed_ports.map_or(Ok(()), Err)
    }
}

// === impl Shared ===

impl Shared {
    fn bump(&self) {
        self.version.send_modify(|version| *version += 1);
    }

    /// Increases with every change that can affect which targets are eligible.
    fn version(&self) -> u64 {
        *self.version.borrow()
    }

    fn versions(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    fn sticky_share(&self) -> Arc<Share> {
        self.sticky.share(STICKY_CLIENTS)
    }

    /// The same set, in one copy for all ports that have it.
    fn unique(&self, config: &Config, listener: IpAddr, set: Eligible) -> Arc<Eligible> {
        let cluster = config.policy == TrafficPolicy::Cluster;
        let kind = (config.target_set.clone(), Family::of(listener), cluster);
        let mut known = self.eligible.lock().unwrap_or_else(PoisonError::into_inner);
        match known.get(&kind) {
            Some(known) if **known == set => Arc::clone(known),
            _ => {
                let set = Arc::new(set);
                if known.len() >= KNOWN_SETS {
                    // Those of target sets that no port uses any more.
                    known.retain(|_, set| Arc::strong_count(set) > 1);
                }
                known.insert(kind, Arc::clone(&set));
                set
            }
        }
    }

    fn count_computation(&self) {
        self.computations.fetch_add(1, Ordering::Relaxed);
    }

    fn node_ports(&self) -> MutexGuard<'_, NodePorts> {
        // Each change is one insertion or removal: good after a panic too.
        self.node_ports
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn targets(&self, set: &str) -> Arc<Vec<Target>> {
        read(&self.targets)
            .get(set)
            .map(Arc::clone)
            .unwrap_or_default()
    }
}

/// The most connections and flows: the values of the flags, unless the limit of open files
/// is too low for them. A connection has two sockets. A quarter is left for everything else.
fn within(options: &PlaneOptions, descriptors: usize) -> (usize, usize) {
    let quarter = descriptors / 4;
    let wanted = (options.max_total_connections, options.max_total_flows);
    let possible = (wanted.0.min(quarter), wanted.1.min(quarter));
    if possible != wanted {
        tracing::warn!(
            descriptors,
            connections = possible.0,
            flows = possible.1,
            "the limit of open files allows fewer connections and UDP clients than the flags"
        );
    }
    possible
}

// Nothing below a lock can be left half done: every critical section is one
// assignment or insertion, so data behind a poisoned lock is still good.
fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
