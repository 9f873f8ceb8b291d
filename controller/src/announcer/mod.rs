//! The announcer's part that speaks to the API server. The agent (`ballast-agent`) is the part
//! that speaks to the network; [`seam`] has its two ends.
//!
//! ```text
//!   API server
//!   Services, EndpointSlices, Nodes, classes        Announcers, Leases of other nodes
//!        │ watches                                       │ watches
//!        ▼                                               ▼
//!   stores ──▶ view::build (pure) ──▶ publish ──▶ Input ──▶ agent
//!                     │ ports                       ▲          │ Report
//!                     ▼                             │          ▼
//!                  health ─── healthCheckNodePort ──┘       object ──▶ Announcer object
//!                                                           lease  ──▶ Lease of this node
//! ```
//!
//! | module | owns |
//! |---|---|
//! | [`agent`] | the start of the agent, its metrics and its health |
//! | [`facts`] | what is kept of an object (what is read of it: [`crate::cluster::watched`]) |
//! | [`stores`] | the watches and what they delivered |
//! | [`trust`], [`sealed`] | which Announcer objects count, and what their seals prove |
//! | [`view`] | the view of the cluster |
//! | [`publish`] | what is passed to the agent, and when |
//! | [`lease`] | the Lease of the node, and whether the API server can be reached |
//! | [`object`] | the Announcer object of the node |
//! | [`checks`] | settings of the node and its network that break the announcement of addresses |
//! | [`unfit`] | what a process that cannot start says in that object |
//! | [`state`] | `/debug/state` |
//! | [`health`] | health check node ports |
//!
//! # Invariants
//!
//! - Every input is complete: no view is passed on before all lists are, and after an outage
//!   everything is passed on anew.
//! - Nothing is written while nothing changes, except the Lease.
//! - This process writes two objects, both named after its node.
//! - What the stores keep of an object is bounded; so is what a test of it may cost.

pub mod agent;
pub mod args;
pub mod checks;
pub mod command;
pub mod facts;
pub mod health;
pub mod lease;
pub mod metrics;
pub mod object;
pub mod publish;
pub mod sealed;
pub mod seam;
pub mod state;
pub mod stores;
pub mod trust;
pub mod unfit;
pub mod view;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use axum::Router;
use ballast_announce::NodeName;
use futures::future::BoxFuture;
use kube::Client;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use self::checks::{Checks, Proc};
use self::lease::Renewal;
use self::metrics::{AnnouncerMetrics, Findings};
use self::object::ObjectWriter;
use self::publish::{Publisher, Targets};
use self::seam::Agent;
use self::stores::{Stores, Watches};
use crate::cluster::metrics::{WatchMetrics, WriteMetrics};
use crate::cluster::writer::Requests;
use crate::process::admin::{Admin, Health};
use crate::process::socket;

/// The field manager of the announcer's writes.
pub const MANAGER: &str = "ballast-announcer";

/// How long a process that is asked to end waits for the one that replaces it. A `DaemonSet` without
/// surge starts it only afterwards.
const HANDOVER: Duration = Duration::from_secs(3);

/// Between two tries to serve health and metrics, and the tries between two warnings.
const BIND_AGAIN: Duration = Duration::from_millis(500);
const BIND_WARNS: u32 = 60;

/// How the announcer speaks to the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The node on which it runs.
    pub node: NodeName,
    /// The namespace of the Leases.
    pub namespace: String,
    /// The random number of this process; the agent has the same.
    pub incarnation: u64,
    /// The port for messages; `None`: there are none, and only Leases count.
    pub gossip_port: Option<u16>,
    /// The file with the keys of messages and Announcer objects.
    pub key_file: Option<PathBuf>,
    /// The address of health and metrics.
    pub admin: SocketAddr,
    /// The socket of health for probes that run a program in the container.
    pub health_socket: Option<PathBuf>,
}

/// Runs until `shutdown` completes. `registry` has the metrics of the agent, and `health` its
/// gates and checks.
pub async fn run(
    client: Client,
    options: Options,
    agent: Agent,
    mut registry: Registry,
    health: Health,
    shutdown: BoxFuture<'static, ()>,
) -> Result<()> {
    let mut tasks = JoinSet::new();
    let routes = state::routes(agent.inspector.clone());
    let stores = start(&client, &options, agent, &mut registry, &health, &mut tasks);
    let probes = probes(options.health_socket.clone(), health.clone());
    let admin = serve(options.admin, health, Arc::new(registry), routes);
    tokio::select! {
        () = async { shutdown.await; hand_over(&stores, &options).await } => Ok(()),
        served = admin => served.context("the server of health and metrics failed"),
        served = probes => served,
        Some(task) = tasks.join_next() => Err(match task {
            Ok(()) => anyhow!("a task of the announcer ended"),
            Err(error) => anyhow!("a task of the announcer failed: {error}"),
        }),
    }
}

/// Answers probes that run a program in the container.
async fn probes(path: Option<PathBuf>, health: Health) -> Result<()> {
    let Some(path) = path else {
        return std::future::pending().await;
    };
    let served = socket::serve(&path, &health).await;
    served.with_context(|| format!("cannot listen on {} (--health-socket)", path.display()))
}

/// Serves health and metrics. While a `DaemonSet` is updated, the former process of this node may have
/// the address for a moment: that must not keep this one from answering.
async fn serve(
    address: SocketAddr,
    health: Health,
    registry: Arc<Registry>,
    routes: Router,
) -> Result<()> {
    let mut tries = 0_u32;
    let admin = loop {
        match Admin::bind(address, health.clone(), Arc::clone(&registry)).await {
            Ok(admin) => break admin,
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
                if tries.is_multiple_of(BIND_WARNS) {
                    warn!(%address, "another process has the address of --admin-address; trying again");
                }
                tries = tries.wrapping_add(1);
                sleep(BIND_AGAIN).await;
            }
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("cannot listen on {address} (--admin-address)"));
            }
        }
    };
    Ok(admin.with(routes).run(std::future::pending()).await?)
}

/// Starts the tasks. They never end by themselves.
fn start(
    client: &Client,
    options: &Options,
    agent: Agent,
    registry: &mut Registry,
    health: &Health,
    tasks: &mut JoinSet<()>,
) -> Arc<Stores> {
    let keyring = agent.keyring.clone();
    let stores = Arc::new(Stores::new(keyring.clone()));
    let metrics = AnnouncerMetrics::register(registry, &stores);
    let me = options.node.clone();
    let incarnation = options.incarnation();
    let requests = Requests::new(client.clone(), WriteMetrics::register(registry));
    let (targets, checked) = watch::channel(Targets::default());
    let (views, viewed) = watch::channel(None);
    let (findings, found) = watch::channel(None);
    registry.register_collector(Box::new(Findings(found.clone())));
    let renewal = Renewal {
        requests: requests.clone(),
        namespace: options.namespace.clone(),
        node: me.clone(),
        incarnation: incarnation.clone(),
        stores: Arc::clone(&stores),
    };
    let writer = ObjectWriter {
        requests,
        me: me.clone(),
        incarnation: incarnation.clone(),
        stores: Arc::clone(&stores),
        keyring: keyring.clone(),
        reports: agent.reports.clone(),
        findings: found,
    };
    let checks = Checks {
        proc: Proc::default(),
        me: me.clone(),
        reports: agent.reports.clone(),
        views: viewed,
        findings,
    };
    let watches = Watches {
        client: client.clone(),
        namespace: options.namespace.clone(),
        me: me.clone(),
        incarnation: incarnation.clone(),
        health: health.clone(),
        metrics: WatchMetrics::register(registry),
        refused: metrics.clone(),
        keyring: keyring.clone(),
        sink: agent.sink.clone(),
    };
    tasks.spawn(health::run(checked, agent.sink.clone()));
    let publisher = Publisher {
        me,
        incarnation,
        stores: Arc::clone(&stores),
        agent,
        views,
        targets,
        gate: health.gate("the first renewal of this node's Lease"),
        metrics,
    };
    if let Some(keyring) = keyring {
        tasks.spawn(async move { keyring.watch().await });
    }
    watches.start(&stores, tasks);
    tasks.spawn(publisher.run());
    tasks.spawn(renewal.run());
    tasks.spawn(writer.run());
    tasks.spawn(checks.run());
    stores
}

/// Keeps answering until another process of this node has written the Announcer object, which it
/// does once it knows what the node holds. Without one, the successors stand in afterwards.
async fn hand_over(stores: &Stores, options: &Options) {
    let incarnation = options.incarnation();
    let mut changes = stores.changes();
    let replaced = async {
        loop {
            let written = stores.trusted(&options.node);
            let by = written.and_then(|facts| facts.incarnation.clone());
            if by.is_some_and(|by| *by != *incarnation) {
                info!("another announcer of this node has started; ending");
                return;
            }
            if changes.changed().await.is_err() {
                return;
            }
        }
    };
    info!(
        "asked to end; answering until another announcer of this node has started, for at most {} s",
        HANDOVER.as_secs()
    );
    let _ = timeout(HANDOVER, replaced).await;
}

// === impl Options ===

impl Options {
    /// The random number of this process as the Announcer object has it.
    fn incarnation(&self) -> String {
        format!("{:016x}", self.incarnation)
    }
}

#[cfg(test)]
mod tests;
