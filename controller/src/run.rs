//! Wires the controller together and keeps it running.
//!
//! On every replica: the admin server, the watches, the election. On the leader, from
//! the moment it leads: ledger, instances, workers, the writer of classes. The order of
//! the end is the reverse: no new work, work in flight ends, events are sent, the lease
//! is given up. A process that loses its lease, or any of whose tasks dies, exits: a
//! fresh process is the one state that is known to be right.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use ballast_l2::{Addresses, Inventory};
use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Api, Client};
use prometheus_client::registry::Registry;
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::admin::{Admin, Health};
use crate::backoff::Backoff;
use crate::board::Board;
use crate::census::Census;
use crate::class::Scope;
use crate::class_status::ClassStatus;
use crate::contender;
use crate::eligibility::Eligible;
use crate::identity::{self, SecretName, Token};
use crate::instance::{self, Factory};
use crate::lease::{Config, Election, Ended, Fence, KubeLease, Leadership};
use crate::ledger::Ledger;
use crate::metrics::Metrics;
use crate::namespaces::Namespaces;
use crate::perform::{KeyLocks, Performer};
use crate::pools::{self, PoolKeeper, Pools, Strangers};
use crate::queue::Queue;
use crate::reconcile::{Reconciler, Waiting};
use crate::recorder::{self, Recorder};
use crate::store::Store;
use crate::view::{Name, ServiceView, oldest_first};
use crate::watch as watches;
use crate::writer::Writer;

/// How long work in flight may take at the end.
const DRAIN: Duration = Duration::from_secs(10);
/// No backlog makes a Service wait this long for a worker; only a restart helps.
const STUCK: Duration = Duration::from_mins(10);
/// How long queued events may take at the end.
const FLUSH: Duration = Duration::from_secs(2);

/// How the controller runs.
pub struct Options {
    /// Which classes it serves.
    pub scope: Scope,
    /// For tags and people.
    pub cluster_name: String,
    /// Its part in the election.
    pub election: Config,
    /// Where the Lease is: namespace and name.
    pub lease: (String, String),
    /// Where the token of mock clouds is to come from, if from a Secret …
    pub mock_token_secret: Option<SecretName>,
    /// … and who is told; what the factory's mock classes use.
    pub mock_token: Token,
    /// Services reconciled at once.
    pub workers: usize,
    /// Retries of a failing Service or provider.
    pub backoff: Backoff,
    /// Where health and metrics are served.
    pub admin: SocketAddr,
    /// Builds providers.
    pub factory: Arc<dyn Factory>,
    /// Who has which address of the pools; what the factory's `l2` classes use.
    pub addresses: Arc<Addresses>,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It was asked to.
    Stopped,
    /// Another process may lead; this one must not go on.
    LeaseLost,
}

/// What both halves share.
struct Shared {
    client: Client,
    services: Arc<Store<Name, ServiceView>>,
    board: Board,
    queue: Queue<Name>,
    pools: Arc<Pools>,
    namespaces: Arc<Namespaces>,
    addresses: Arc<Addresses>,
    ledger: Arc<Ledger>,
    targets: watch::Receiver<Eligible>,
    node_addresses: watch::Receiver<BTreeSet<IpAddr>>,
    leads: Arc<AtomicBool>,
    metrics: Arc<Metrics>,
    health: Health,
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
    let lease = KubeLease::new(client, &options.lease.0, &options.lease.1).owned_by(owner);
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
                shared.metrics.set_leader(leads);
                if leads && leading.is_none() {
                    match lead(&shared, &options, fence.clone(), &mut tasks).await {
                        Ok(tasks) => leading = Some(tasks),
                        Err(error) => break End::Died(error),
                    }
                }
            }
        }
    };
    shared.metrics.set_leader(false);
    if let End::Election(ended) = end {
        return match ended.context("the election died")? {
            Ended::Lost(_) => Ok(Exit::LeaseLost),
            Ended::Stopped => Ok(Exit::Stopped),
        };
    }
    if leading.is_some() {
        stop(&shared, leading, tasks).await;
        // Only now: giving up the lease invites the next leader at once.
        drop(resign);
    } else {
        // At once: who is about to go must not take the lease that another gives up, nor
        // make it anew when all go because of an uninstall.
        drop(resign);
        stop(&shared, None, tasks).await;
    }
    let _ = candidate.await;
    match end {
        End::Died(error) => Err(error),
        End::Asked | End::Election(_) => Ok(Exit::Stopped),
    }
}

/// Who this replica is, and the token that it makes if there is none, before it takes part in
/// anything. Returns the owner of what it makes.
async fn identify(shared: &Shared, options: &Options) -> Option<OwnerReference> {
    let gate = |name: &str| shared.health.gate(name);
    let named = gate("the name of this process (SelfSubjectReview)");
    let secret = options.mock_token_secret.as_ref();
    let token = secret.map(|secret| gate(&format!("the token of mock clouds (Secret {secret})")));
    let owner = identity::identify(&shared.client, &options.lease.0, &named).await;
    if let (Some(secret), Some(gate)) = (secret, token) {
        let (client, known) = (&shared.client, &options.mock_token);
        identity::learn(client, secret, owner.as_ref(), known, &gate).await;
    }
    owner
}

/// Why the main loop ended.
enum End {
    /// By a signal.
    Asked,
    /// The election is over.
    Election(std::result::Result<Ended, tokio::task::JoinError>),
    /// A task that must not end did.
    Died(anyhow::Error),
}

fn died(task: std::result::Result<Result<()>, tokio::task::JoinError>) -> anyhow::Error {
    match task {
        Ok(Ok(())) => anyhow!("a task of the controller ended"),
        Ok(Err(error)) => error,
        Err(error) => anyhow!("a task of the controller died: {error}"),
    }
}

/// No new work, work in flight ends, tasks end, events are sent.
async fn stop(shared: &Shared, leading: Option<Leading>, mut tasks: JoinSet<Result<()>>) {
    info!("stopping: no new work");
    shared.queue.close();
    if tokio::time::timeout(DRAIN, shared.queue.drained())
        .await
        .is_err()
    {
        warn!(
            "work in flight did not end in {} s; the next leader goes on with it",
            DRAIN.as_secs()
        );
    }
    tasks.shutdown().await;
    if let Some(leading) = leading {
        let _ = tokio::time::timeout(FLUSH, leading.sender).await;
    }
}

/// What every replica does.
async fn follow(
    client: &Client,
    options: &Options,
    tasks: &mut JoinSet<Result<()>>,
) -> Result<Shared> {
    let mut registry = Registry::default();
    let metrics = Arc::new(Metrics::register(&mut registry));
    let (targets_sender, targets) = watch::channel(Eligible::default());
    let (nodes_sender, node_addresses) = watch::channel(BTreeSet::new());
    let shared = Shared {
        client: client.clone(),
        services: Arc::default(),
        board: Board::new(options.scope.clone()),
        queue: Queue::new(options.backoff),
        pools: Arc::default(),
        namespaces: Arc::default(),
        addresses: Arc::clone(&options.addresses),
        ledger: Arc::default(),
        targets,
        node_addresses,
        leads: Arc::default(),
        metrics,
        health: Health::default(),
    };
    registry.register_collector(Box::new(Census {
        services: Arc::clone(&shared.services),
        board: shared.board.clone(),
        queue: shared.queue.clone(),
        addresses: Arc::clone(&shared.addresses),
    }));
    let queue = shared.queue.clone();
    shared
        .health
        .liveness("work gets done", move || match queue.oldest_age() {
            Some(age) if age > STUCK => Err(format!(
                "a Service waits for a worker for {} s",
                age.as_secs()
            )),
            _ => Ok(()),
        });
    let admin = Admin::bind(options.admin, shared.health.clone(), Arc::new(registry))
        .await
        .with_context(|| format!("cannot listen on {} (--admin-address)", options.admin))?;
    tasks.spawn(async { Ok(admin.run(std::future::pending()).await?) });
    let services = watches::ServiceWatch {
        store: Arc::clone(&shared.services),
        queue: shared.queue.clone(),
        ledger: Arc::clone(&shared.ledger),
        leads: Arc::clone(&shared.leads),
        metrics: Arc::clone(&shared.metrics),
    };
    let gate = |name: &str| shared.health.gate(name);
    let metrics = || Arc::clone(&shared.metrics);
    let service_gate = gate("the list of Services");
    let nodes = watches::nodes(
        client.clone(),
        targets_sender,
        nodes_sender,
        gate("the list of Nodes"),
        metrics(),
    );
    let classes = watches::classes(
        client.clone(),
        shared.board.clone(),
        gate(
            "the list of LoadBalancerClasses (is the CRD installed? ballast crds | kubectl apply -f -)",
        ),
        metrics(),
    );
    let pools = watches::pools(
        client.clone(),
        Arc::clone(&shared.pools),
        gate("the list of AddressPools (is the CRD installed? ballast crds | kubectl apply -f -)"),
        metrics(),
    );
    let namespaces = watches::namespaces(
        client.clone(),
        Arc::clone(&shared.namespaces),
        Arc::clone(&shared.services),
        shared.queue.clone(),
        gate("the list of Namespaces"),
        metrics(),
    );
    let services = services.run(client.clone(), service_gate);
    tasks.spawn(ends("pools", pools));
    tasks.spawn(ends("namespaces", namespaces));
    tasks.spawn(ends("services", services));
    tasks.spawn(ends("nodes", nodes));
    tasks.spawn(ends("classes", classes));
    Ok(shared)
}

/// A task that must never end.
async fn ends(what: &'static str, task: impl Future<Output = ()>) -> Result<()> {
    task.await;
    Err(anyhow!("the watch of {what} ended"))
}

/// What the leader runs besides its tasks.
struct Leading {
    sender: tokio::task::JoinHandle<()>,
}

/// What the leader does.
async fn lead(
    shared: &Shared,
    options: &Options,
    fence: Fence,
    tasks: &mut JoinSet<Result<()>>,
) -> Result<Leading> {
    let cluster = cluster_uid(&shared.client).await?;
    info!(cluster, "leading");
    let (recorder, sender) = recorder::recorder(
        shared.client.clone(),
        options.election.identity().to_owned(),
        fence.clone(),
        Box::new({
            let queue = shared.queue.clone();
            move || queue.depth() + queue.in_flight() > 0
        }),
        Arc::clone(&shared.metrics),
    );
    let sender = tokio::spawn(sender.run());
    let class_wanted = Arc::new(Notify::new());
    let writer = Writer::new(shared.client.clone(), fence.clone());
    let services = Arc::clone(&shared.services);
    let reconciler = Arc::new(Reconciler {
        services: Arc::clone(&services),
        namespaces: Arc::clone(&shared.namespaces),
        addresses: Arc::clone(&shared.addresses),
        strangers: Strangers::default(),
        board: shared.board.clone(),
        performer: performer(shared, &writer, recorder, &class_wanted),
        queue: shared.queue.clone(),
        waiting: Waiting::default(),
    });
    let context = instance::Context {
        factory: Arc::clone(&options.factory),
        cluster: (cluster, options.cluster_name.clone()),
        services: Arc::clone(&services),
        board: shared.board.clone(),
        queue: shared.queue.clone(),
        ledger: Arc::clone(&shared.ledger),
        targets: shared.targets.clone(),
        metrics: Arc::clone(&shared.metrics),
        fence: fence.clone(),
    };
    let keeper = PoolKeeper {
        addresses: Arc::clone(&shared.addresses),
        pools: Arc::clone(&shared.pools),
        nodes: shared.node_addresses.clone(),
        queue: shared.queue.clone(),
        writer: writer.clone(),
        metrics: Arc::clone(&shared.metrics),
    };
    let class_status = ClassStatus {
        board: shared.board.clone(),
        services,
        ledger: Arc::clone(&shared.ledger),
        wanted: class_wanted,
        writer,
        metrics: Arc::clone(&shared.metrics),
    };
    let (health, workers) = (shared.health.clone(), options.workers);
    let (ledger, board, client) = (
        Arc::clone(&shared.ledger),
        shared.board.clone(),
        shared.client.clone(),
    );
    let (pools, nodes) = (Arc::clone(&shared.pools), shared.node_addresses.clone());
    let led_before = fence.epoch() > Some(0);
    shared.leads.store(true, Ordering::Release);
    tasks.spawn(async move {
        health.opened().await;
        prime(&ledger, &reconciler.services, &board);
        open(&pools, &nodes, &reconciler, led_before);
        for service in oldest_first(reconciler.services.all()) {
            reconciler.queue.add(Name::from(&service.id));
        }
        let mut team: JoinSet<()> = JoinSet::new();
        for _ in 0..workers {
            team.spawn(Arc::clone(&reconciler).work());
        }
        team.spawn(instance::run(context));
        team.spawn(class_status.run());
        team.spawn(keeper.run());
        team.spawn(contender::run(client, board));
        match team.join_next().await {
            // Workers end when the queue is closed, which is the orderly end.
            Some(Ok(())) => std::future::pending().await,
            Some(Err(error)) => Err(anyhow!("a task of the leader died: {error}")),
            None => Ok(()),
        }
    });
    Ok(Leading { sender })
}

fn performer(
    shared: &Shared,
    writer: &Writer,
    recorder: Recorder,
    class_wanted: &Arc<Notify>,
) -> Performer {
    Performer {
        writer: writer.clone(),
        recorder,
        ledger: Arc::clone(&shared.ledger),
        targets: shared.targets.clone(),
        class_wanted: Arc::clone(class_wanted),
        metrics: Arc::clone(&shared.metrics),
        locks: KeyLocks::default(),
    }
}

/// Every finalizer of ours in the store says: this may have something in a cloud.
fn prime(ledger: &Ledger, services: &Store<Name, ServiceView>, board: &Board) {
    let classes = board.snapshot();
    for service in services.all() {
        for class in service
            .held_by
            .iter()
            .filter(|class| classes.scope.owns(class))
        {
            ledger.record(&service.id, class);
        }
    }
}

/// Addresses are given from here on: all Services and pools are listed.
fn open(
    pools: &Pools,
    nodes: &watch::Receiver<BTreeSet<IpAddr>>,
    reconciler: &Reconciler,
    led_before: bool,
) {
    let now = Timestamp::now();
    let (inventory, served) = pools::inventory(
        &reconciler.services.all(),
        &reconciler.board.snapshot(),
        &reconciler.namespaces,
    );
    let inventory = Inventory {
        pools: pools.readable(),
        skipped: nodes.borrow().clone(),
        // What the one before released in its last moments is not written anywhere.
        predecessor: led_before.then_some(now),
        ..inventory
    };
    reconciler.strangers.begin(&inventory);
    reconciler.addresses.open(inventory, served, now);
}

/// The cluster's identity in tags: the UID of a namespace that nobody can delete.
async fn cluster_uid(client: &Client) -> Result<String> {
    let api: Api<Namespace> = Api::all(client.clone());
    let namespace = tokio::time::timeout(Duration::from_secs(5), api.get("kube-system"))
        .await
        .map_err(|_| anyhow!("the API server did not answer in 5 s"))?
        .context("cannot read the namespace kube-system, whose UID identifies the cluster")?;
    namespace
        .metadata
        .uid
        .context("the namespace kube-system has no UID")
}
