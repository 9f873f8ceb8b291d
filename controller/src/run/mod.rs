//! Starts the tasks of the controller and waits for the end.
//!
//! Every replica runs the admin server, the watches and the election. The leader also runs
//! the ledger, the providers, the workers and the writer of classes. They stop in reverse
//! order: no new work starts, work in flight ends, events are sent, and the Lease is released.
//! A process that loses its Lease, or one of its tasks, exits: only a fresh process is known
//! to be in a correct state.

mod aws;
pub mod factory;
mod follow;
mod lead;
pub mod scrape;
pub mod watch;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use futures::future::BoxFuture;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Client;
use prometheus_client::registry::Registry;
use tokio::sync::oneshot;
use tokio::sync::watch::Receiver;
use tokio::task::JoinSet;
use tracing::{info, warn};

use self::follow::follow;
pub(crate) use self::lead::cluster_uid;
use self::lead::{Leading, lead};
use crate::announcements::Announcers;
use crate::class::Scope;
use crate::class::board::Board;
use crate::class::contender::LeaseName;
use crate::class::instance::Factory;
use crate::class::orphans::Clock;
use crate::cluster::eligibility::Eligible;
use crate::cluster::endpoints::Endpoints;
use crate::cluster::ledger::Ledger;
use crate::cluster::metrics::{
    ContestMetrics, EventMetrics, LeaderMetrics, ProviderMetrics, ServiceMetrics, TargetMetrics,
    WatchMetrics, WriteMetrics,
};
use crate::cluster::namespaces::Namespaces;
use crate::cluster::store::Store;
use crate::cluster::view::{Name, ServiceView};
use crate::pools::{AddressBook, Pools};
use crate::process::admin::Health;
use crate::process::backoff::Backoff;
use crate::process::identity;
use crate::process::lease::{Config, Election, Ended, KubeLease, Leadership};
use crate::process::queue::Queue;

/// How long work in flight may take at the end.
const DRAIN: Duration = Duration::from_secs(10);
/// How long queued events may take at the end.
const FLUSH: Duration = Duration::from_secs(2);

/// How the controller runs.
pub struct Options {
    /// Which classes it serves.
    pub scope: Scope,
    /// The name of the cluster in tags, for people.
    pub cluster_name: String,
    /// The identity and the times of the leader election.
    pub election: Config,
    /// The namespace and name of the Lease.
    pub lease: (String, String),
    /// The number of Services that are reconciled at the same time.
    pub workers: usize,
    /// The pauses between tries of a Service.
    pub backoff: Backoff,
    /// The address of health and metrics.
    pub admin: SocketAddr,
    /// Builds providers.
    pub factory: Arc<dyn Factory>,
    /// The assigned addresses of the pools; the factory's `l2` classes use the same.
    pub addresses: AddressBook,
    /// Leases of other service controllers.
    pub other_controllers: Vec<LeaseName>,
    /// Whether the readiness gates of pods are opened.
    pub readiness_gates: bool,
    /// The time of tags in clouds.
    pub clock: Clock,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By a signal.
    Stopped,
    /// It lost the Lease: another process may be the leader.
    LeaseLost,
}

/// What followers and the leader share. A clone shares everything except what its receivers
/// have seen.
#[derive(Clone)]
struct Shared {
    client: Client,
    services: Arc<Store<Name, ServiceView>>,
    board: Board,
    queue: Queue<Name>,
    pools: Arc<Pools>,
    namespaces: Arc<Namespaces>,
    endpoints: Endpoints,
    addresses: AddressBook,
    ledger: Arc<Ledger>,
    targets: Receiver<Eligible>,
    node_addresses: Receiver<BTreeSet<IpAddr>>,
    reporting_nodes: Receiver<BTreeSet<Arc<str>>>,
    announcers: Arc<Announcers>,
    metrics: Metrics,
    health: Health,
}

/// The metrics of every component of a controller.
#[derive(Clone)]
struct Metrics {
    watches: WatchMetrics,
    targets: TargetMetrics,
    leader: LeaderMetrics,
    services: ServiceMetrics,
    providers: ProviderMetrics,
    writes: WriteMetrics,
    contests: ContestMetrics,
    events: EventMetrics,
}

// === impl Metrics ===

impl Metrics {
    fn register(registry: &mut Registry) -> Self {
        Self {
            services: ServiceMetrics::register(registry),
            events: EventMetrics::register(registry),
            writes: WriteMetrics::register(registry),
            contests: ContestMetrics::register(registry),
            providers: ProviderMetrics::register(registry),
            watches: WatchMetrics::register(registry),
            targets: TargetMetrics::register(registry),
            leader: LeaderMetrics::register(registry),
        }
    }
}

/// Runs until `shutdown` completes or the lease is lost.
pub async fn run(
    client: Client,
    options: Options,
    shutdown: BoxFuture<'static, ()>,
) -> Result<Exit> {
    let mut tasks: JoinSet<Result<()>> = JoinSet::new();
    let shared = follow(&client, &options, &mut tasks).await?;
    tokio::pin!(shutdown);
    let owner = tokio::select! {
        owner = identify(&shared, &options) => owner,
        () = &mut shutdown => return Ok(Exit::Stopped),
        Some(task) = tasks.join_next() => return Err(died(task)),
    };
    let lease = KubeLease::new(client, &options.lease.0, &options.lease.1).owned_by(owner.clone());
    let election = Election::new(lease, options.election.clone());
    let (mut leadership, fence) = (election.leadership(), election.fence());
    let (resign, resigned) = oneshot::channel::<()>();
    let mut candidate = tokio::spawn(election.run(async move { drop(resigned.await) }));
    let mut leading = None;
    let end = loop {
        tokio::select! {
            biased;
            ended = &mut candidate => break End::Election(ended),
            () = &mut shutdown => break End::Asked,
            Some(task) = tasks.join_next() => break End::Died(died(task)),
            Ok(()) = leadership.changed() => {
                let leads = matches!(*leadership.borrow_and_update(), Leadership::Leading { .. });
                shared.metrics.leader.set(leads);
                if leads && leading.is_none() {
                    match lead(&shared, &options, owner.clone(), fence.clone(), &mut tasks).await {
                        Ok(tasks) => leading = Some(tasks),
                        Err(error) => break End::Died(error),
                    }
                }
            }
        }
    };
    shared.metrics.leader.set(false);
    if let End::Election(ended) = end {
        return match ended.context("the leader election failed")? {
            Ended::Lost(_) => Ok(Exit::LeaseLost),
            Ended::Stopped => Ok(Exit::Stopped),
        };
    }
    if leading.is_some() {
        stop(&shared, leading, tasks).await;
        // Only now: the next leader starts as soon as the Lease is released.
        drop(resign);
    } else {
        // At once: a replica that stops must not acquire the Lease that another releases, nor
        // create it again when all replicas stop because of an uninstall.
        drop(resign);
        stop(&shared, None, tasks).await;
    }
    let _ = candidate.await;
    match end {
        End::Died(error) => Err(error),
        End::Asked | End::Election(_) => Ok(Exit::Stopped),
    }
}

/// Asks the API server for the name of this process. Returns the owner of its Lease.
async fn identify(shared: &Shared, options: &Options) -> Option<OwnerReference> {
    let gate = shared
        .health
        .gate("the name of this process (SelfSubjectReview)");
    identity::identify(&shared.client, &options.lease.0, &gate).await
}

/// Why the main loop ended.
enum End {
    /// A signal came.
    Asked,
    /// The election ended.
    Election(std::result::Result<Ended, tokio::task::JoinError>),
    /// A task ended that must not end.
    Died(anyhow::Error),
}

fn died(task: std::result::Result<Result<()>, tokio::task::JoinError>) -> anyhow::Error {
    match task {
        Ok(Ok(())) => anyhow!("a task of the controller ended"),
        Ok(Err(error)) => error,
        Err(error) => anyhow!("a task of the controller failed: {error}"),
    }
}

/// Starts no new work, waits for work in flight, ends the tasks, and sends the events.
async fn stop(shared: &Shared, leading: Option<Leading>, mut tasks: JoinSet<Result<()>>) {
    info!("stopping: no new work");
    shared.queue.close();
    if tokio::time::timeout(DRAIN, shared.queue.drained())
        .await
        .is_err()
    {
        warn!(
            "work in flight did not end in {} s; the next leader continues it",
            DRAIN.as_secs()
        );
    }
    tasks.shutdown().await;
    if let Some(leading) = leading {
        let _ = tokio::time::timeout(FLUSH, leading.sender).await;
    }
}
