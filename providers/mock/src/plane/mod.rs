//! The data plane: a proxy for TCP and UDP from the load balancers' addresses to
//! `node address:nodePort`.
//!
//! The server's follower calls [`Plane::apply`] for every load balancer that changed
//! and [`Plane::set_targets`] for every target set. What is chosen (which sockets to
//! open, which target, what health means) is in pure modules with `now` passed in:
//! `plan`, `balance`, `sticky`, `health`, `flows`. The drivers are `tcp`, `udp` and
//! `probe`: one task per open socket, one per TCP connection, one per UDP client, and
//! one for all health checks; `reach` knocks at the plane's own ports. All end with the
//! shutdown token.
//!
//! Invariants: a change of node ports, targets, policy, affinity or source ranges
//! neither closes a socket nor touches an established connection whose target stays;
//! an address and port is open if and only if its load balancer is active.

mod balance;
mod flows;
mod health;
mod node;
mod plan;
mod ports;
mod probe;
mod reach;
mod sticky;
mod tcp;
mod udp;

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api::{Affinity, Code, Family, Problem, Target, TargetHealthView};
use balance::Candidate;
use health::HealthTable;
pub(crate) use plan::{Config, Socket};
pub(crate) use ports::DEFAULT_RESERVED;
pub use ports::ReservedPorts;
use ports::{NodePorts, Refusal, Wildcard};
use reach::Knocks;
use sticky::StickyTable;

/// Clients remembered per load balancer with client affinity.
const STICKY_CLIENTS: usize = 16_384;

/// Delays and limits of the data plane.
#[derive(Clone, Debug)]
pub struct PlaneOptions {
    /// Between two checks of one target.
    pub health_interval: Duration,
    /// For one check.
    pub health_timeout: Duration,
    /// Where kube-proxy answers for its node.
    pub health_port: u16,
    /// How long an established connection outlives its target.
    pub drain: Duration,
    /// TCP connections of one load balancer.
    pub max_connections: usize,
    /// UDP clients of one listener.
    pub max_flows: usize,
    /// Silence after which a UDP client is forgotten.
    pub flow_idle: Duration,
    /// For connecting to one target before another one is tried.
    pub connect_timeout: Duration,
    /// Between attempts to open a port that was in use.
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
    /// Rises with everything that can change a choice.
    version: watch::Sender<u64>,
    /// The set of wanted checks may differ.
    rechecks: Notify,
    /// A check has ended.
    answered: Notify,
    knocks: Knocks,
    node_ports: Mutex<NodePorts>,
}

/// Why some ports of a load balancer are closed.
pub(crate) struct ClosedPorts {
    /// Of the first of them.
    pub(crate) problem: Problem,
    /// Whether one of them may be opened later.
    pub(crate) retry: bool,
}

/// Why one port is closed.
enum CannotOpen {
    /// It belongs to the node.
    Refused(Refusal),
    /// The system says no.
    Failed(std::io::Error),
}

/// One load balancer's open sockets.
struct Running {
    balancer: Arc<Balancer>,
    sockets: BTreeMap<Socket, CancellationToken>,
}

/// What the tasks of one load balancer share.
struct Balancer {
    name: String,
    shared: Arc<Shared>,
    config: RwLock<Arc<Config>>,
    connections: Arc<Semaphore>,
    sticky: Mutex<StickyTable>,
    /// Ends with the load balancer.
    gone: CancellationToken,
}

/// One listener's place in the round.
#[derive(Default)]
struct Cursor(AtomicUsize);

// === impl PlaneOptions ===

impl Default for PlaneOptions {
    fn default() -> Self {
        Self {
            health_interval: Duration::from_secs(2),
            health_timeout: Duration::from_secs(1),
            health_port: 10_256,
            drain: Duration::from_secs(30),
            max_connections: 4_096,
            max_flows: 1_024,
            flow_idle: Duration::from_mins(1),
            connect_timeout: Duration::from_secs(2),
            bind_retry: Duration::from_secs(1),
            reserved_ports: ReservedPorts::default(),
        }
    }
}

// === impl Plane ===

impl Plane {
    /// Starts the health checks and the look-out for the node's own listeners; no socket is
    /// open yet.
    pub(crate) fn start(options: PlaneOptions, shutdown: CancellationToken) -> Self {
        let node_ports = NodePorts::new(options.reserved_ports.clone(), node::ephemeral());
        let shared = Arc::new(Shared {
            health: RwLock::new(HealthTable::new(options.health_interval)),
            options,
            targets: RwLock::default(),
            version: watch::channel(0).0,
            rechecks: Notify::new(),
            answered: Notify::new(),
            knocks: Knocks::default(),
            node_ports: Mutex::new(node_ports),
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

    /// Opens, changes or (`None`) closes a load balancer. What can be opened is open
    /// afterwards, also if some other port fails.
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

    /// Whether clients arrive at the open ports of a load balancer, as far as this machine
    /// can tell; a port that cannot be tried is given the benefit of the doubt.
    pub(crate) async fn knock(&self, name: &str) -> Result<(), Problem> {
        let sockets: Vec<Socket> = match self.running().get(name) {
            Some(entry) => entry.sockets.keys().copied().collect(),
            None => Vec::new(),
        };
        let knocks = sockets.iter().map(async |socket| {
            let arrives = reach::arrives(&self.shared.knocks, *socket).await;
            arrives.unwrap_or_else(|error| {
                tracing::debug!(%socket, %error, "not known whether clients arrive");
                true
            })
        });
        let arrived = join_all(knocks).await;
        let missed = sockets.iter().zip(arrived).find(|(_, arrives)| !arrives);
        missed.map_or(Ok(()), |(socket, _)| Err(intercepted(*socket)))
    }

    /// Names of all load balancers that are open or should be.
    pub(crate) fn names(&self) -> Vec<String> {
        self.running().keys().cloned().collect()
    }

    /// What the health checks say of each target of each listener.
    pub(crate) fn health(&self, name: &str) -> Vec<TargetHealthView> {
        let balancer = self
            .running()
            .get(name)
            .map(|entry| Arc::clone(&entry.balancer));
        balancer
            .map(|balancer| balancer.health())
            .unwrap_or_default()
    }

    /// Between attempts to open a port that was in use.
    pub(crate) fn bind_retry(&self) -> Duration {
        self.shared.options.bind_retry
    }

    fn running(&self) -> MutexGuard<'_, HashMap<String, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn running_as(&self, name: &str, config: &Config) -> Running {
        let balancer = Balancer {
            name: name.to_owned(),
            shared: Arc::clone(&self.shared),
            config: RwLock::new(Arc::new(config.clone())),
            connections: Arc::new(Semaphore::new(self.shared.options.max_connections)),
            sticky: Mutex::new(StickyTable::new(STICKY_CLIENTS)),
            gone: self.shutdown.child_token(),
        };
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

/// Opens a port and starts to serve it, unless it belongs to the node.
fn open(
    socket: Socket,
    balancer: &Arc<Balancer>,
    closed: &CancellationToken,
) -> Result<(), CannotOpen> {
    let shared = &balancer.shared;
    if let Some(refusal) = shared.node_ports().refusal(socket) {
        return Err(CannotOpen::Refused(refusal));
    }
    match bind(socket, balancer, closed) {
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            if node::has_wildcard(socket) {
                let listener = Wildcard {
                    protocol: socket.protocol,
                    family: Family::of(socket.ip),
                    port: socket.port,
                };
                let mut ports = shared.node_ports();
                ports.observe(listener, Instant::now());
                if let Some(refusal) = ports.refusal(socket) {
                    return Err(CannotOpen::Refused(refusal));
                }
            }
            Err(CannotOpen::Failed(error))
        }
        other => other.map_err(CannotOpen::Failed),
    }
}

fn bind(
    socket: Socket,
    balancer: &Arc<Balancer>,
    closed: &CancellationToken,
) -> std::io::Result<()> {
    use crate::api::Protocol::{Tcp, Udp};
    let (balancer, closed) = (Arc::clone(balancer), closed.clone());
    match socket.protocol {
        Tcp => {
            let listener = tcp::bind(socket.address())?;
            tokio::spawn(tcp::serve(listener, socket, balancer, closed));
        }
        Udp => {
            let bound = udp::bind(socket.address())?;
            tokio::spawn(udp::serve(bound, socket, balancer, closed));
        }
    }
    Ok(())
}

fn cannot_open(socket: Socket, error: &CannotOpen) -> Problem {
    use std::io::ErrorKind::{AddrInUse, AddrNotAvailable, PermissionDenied};
    let (code, why) = match error {
        CannotOpen::Refused(Refusal::Reserved) => (
            Code::PortInUse,
            "the port is reserved for programs of the mock cloud's node (--reserved-ports); choose another port",
        ),
        CannotOpen::Refused(Refusal::Listener) => (
            Code::PortInUse,
            "a program on the mock cloud's node listens on this port of all addresses, and an open port would keep it from restarting; choose another port, or restart the mock cloud after you remove the program",
        ),
        CannotOpen::Failed(error) => match error.kind() {
            AddrInUse => (
                Code::PortInUse,
                "another program on the mock cloud's node uses it",
            ),
            PermissionDenied => (
                Code::PortInUse,
                "the mock cloud may not open ports below 1024 (it needs NET_BIND_SERVICE)",
            ),
            AddrNotAvailable => (
                Code::NoAddressAvailable,
                "the address is on none of the interfaces of the mock cloud's node",
            ),
            _ => (Code::Internal, "see the mock cloud's log"),
        },
    };
    let (protocol, address) = (socket.protocol, socket.address());
    Problem::new(
        code,
        format!("{protocol} port {address} cannot be opened: {why}"),
    )
}

fn intercepted(socket: Socket) -> Problem {
    Problem::new(
        Code::PortInUse,
        format!(
            "{} port {} is open and no connection arrives: something on the mock cloud's node takes them first, most likely because {} is a node port of some Service; choose another port",
            socket.protocol,
            socket.address(),
            socket.port
        ),
    )
}

// === impl Shared ===

impl Shared {
    fn bump(&self) {
        self.version.send_modify(|version| *version += 1);
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

// === impl Balancer ===

impl Balancer {
    fn config(&self) -> Arc<Config> {
        Arc::clone(&read(&self.config))
    }

    /// Whether it differs from before.
    fn replace(&self, config: Config) -> bool {
        let mut present = write(&self.config);
        let differs = **present != config;
        if differs {
            *present = Arc::new(config);
        }
        differs
    }

    /// Whether a client may connect.
    fn admits(&self, client: IpAddr) -> bool {
        balance::admits(&self.config().source_ranges, client)
    }

    /// Targets that may get new traffic of this listener now.
    fn eligible(&self, socket: Socket) -> Vec<Candidate> {
        let config = self.config();
        let Some(listener) = config.listener(socket) else {
            return Vec::new();
        };
        let targets = self.shared.targets(&config.target_set);
        let health = read(&self.shared.health);
        let verdict = |target: &Target| health.verdict(&config, listener, target);
        balance::eligible(
            &targets,
            listener.node_port,
            socket.ip,
            config.policy,
            verdict,
        )
    }

    /// The same, in the order in which to try them for this client.
    fn order(&self, socket: Socket, client: IpAddr, cursor: &Cursor) -> Vec<Candidate> {
        let eligible = self.eligible(socket);
        let sticky = match self.config().affinity {
            Affinity::None => None,
            Affinity::ClientIp { timeout_seconds } => {
                let timeout = Duration::from_secs(timeout_seconds.into());
                self.sticky().get(client, Instant::now(), timeout)
            }
        };
        let turn = cursor.0.fetch_add(1, Ordering::Relaxed);
        balance::order(eligible, turn, sticky.as_deref())
    }

    /// The client got this target, or was heard of through it.
    fn remember(&self, client: IpAddr, target: &str) {
        if let Affinity::ClientIp { .. } = self.config().affinity {
            self.sticky().set(client, target, Instant::now());
        }
    }

    fn sticky(&self) -> MutexGuard<'_, StickyTable> {
        self.sticky.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn health(&self) -> Vec<TargetHealthView> {
        let config = self.config();
        let targets = self.shared.targets(&config.target_set);
        let mut views = Vec::new();
        for socket in config.sockets() {
            let Some(listener) = config.listener(socket) else {
                continue;
            };
            let eligible = self.eligible(socket);
            let health = read(&self.shared.health);
            for target in targets.iter() {
                let ip = balance::address_for(target, socket.ip);
                views.push(TargetHealthView {
                    target: target.name.clone(),
                    address: ip.map(|ip| SocketAddr::new(ip, listener.node_port)),
                    listener: format!("{}/{}", listener.protocol, listener.port),
                    check: health.describe(&config, listener, target, &self.shared.options),
                    health: health.verdict(&config, listener, target),
                    eligible: eligible
                        .iter()
                        .any(|candidate| candidate.name == target.name),
                });
            }
        }
        views
    }
}

// Nothing below a lock can be left half done: every critical section is one
// assignment or insertion, so data behind a poisoned lock is still good.
fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
