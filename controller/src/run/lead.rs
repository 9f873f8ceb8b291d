//! The tasks of the leader: the ledger, address pools, announcements, providers, the status of
//! classes, and the workers that reconcile Services. They start when every watch has its first list.

use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Api, Client};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tracing::info;

use super::{Options, Shared};
use crate::announcements::{Keeper, Leases};
use crate::class::board::Board;
use crate::class::contender::{self, LeaseName};
use crate::class::drain::Drains;
use crate::class::instance::{self, ClassNews};
use crate::class::status::writer::ClassStatus;
use crate::cluster::ledger::Ledger;
use crate::cluster::store::Store;
use crate::cluster::view::{Name, ServiceView, oldest_first};
use crate::cluster::writer::{Requests, Writer};
use crate::pools::{PoolKeeper, Start};
use crate::process::REQUEST_TIMEOUT;
use crate::process::lease::Fence;
use crate::service::contests::Contests;
use crate::service::deletion::Deletions;
use crate::service::gates::{Gates, Healthy};
use crate::service::missing::Missing;
use crate::service::perform::{KeyLocks, Performer};
use crate::service::reconcile::{Reconciler, Waiting};
use crate::service::recorder::{self, Recorder};
use crate::service::status::Event;
use crate::service::times::Times;

/// What the end of a leader waits for.
pub(super) struct Leading {
    /// Sends events. Ends when the last recorder is dropped and every event is sent.
    pub(super) sender: JoinHandle<()>,
}

/// The tasks of a leader, before they start.
struct LeaderTasks {
    reconciler: Arc<Reconciler>,
    instances: instance::Context,
    pools: PoolKeeper,
    announcements: Keeper,
    classes: ClassStatus,
    other_controllers: Vec<LeaseName>,
}

/// Starts the tasks of the leader.
pub(super) async fn lead(
    shared: &Shared,
    options: &Options,
    owner: Option<OwnerReference>,
    fence: Fence,
    tasks: &mut JoinSet<Result<()>>,
) -> Result<Leading> {
    let cluster = cluster_uid(&shared.client).await?;
    info!(cluster, "leading");
    let (recorder, sender) = recorder::recorder(
        shared.client.clone(),
        options.election.identity().to_owned(),
        Box::new({
            let fence = fence.clone();
            move || fence.epoch().is_some()
        }),
        Box::new({
            let queue = shared.queue.clone();
            move || queue.depth() + queue.in_flight() > 0
        }),
        shared.metrics.events.clone(),
    );
    let sender = tokio::spawn(sender.run());
    let led_before = fence.epoch() > Some(0);
    let leader = leader_tasks(shared, options, (cluster, owner), fence, recorder);
    shared.queue.open();
    tasks.spawn(work(shared.clone(), leader, options.workers, led_before));
    Ok(Leading { sender })
}

fn leader_tasks(
    shared: &Shared,
    options: &Options,
    (cluster, owner): (String, Option<OwnerReference>),
    fence: Fence,
    recorder: Recorder,
) -> LeaderTasks {
    let tag_writer = format!("{:016x}", rand::random::<u64>());
    info!(tag_writer, "signs its tags in clouds");
    let finalizer_requested = Arc::new(Notify::new());
    let writer = Writer::new(
        Requests::new(shared.client.clone(), shared.metrics.writes.clone()),
        fence.clone(),
    );
    let performer = Performer {
        writer: writer.clone(),
        services: Arc::clone(&shared.services),
        recorder: recorder.clone(),
        ledger: Arc::clone(&shared.ledger),
        targets: shared.targets.clone(),
        finalizer_requested: Arc::clone(&finalizer_requested),
        metrics: shared.metrics.services.clone(),
        provider_metrics: shared.metrics.providers.clone(),
        locks: KeyLocks::new(shared.queue.clone(), options.workers),
        queue: shared.queue.clone(),
        pool_missing: Missing::default(),
        deletions: Deletions::default(),
        contests: Contests::new(shared.metrics.contests.clone()),
        times: Times::default(),
        gates: options.readiness_gates.then(|| Gates {
            endpoints: shared.endpoints.clone(),
            services: Arc::clone(&shared.services),
            board: shared.board.clone(),
            writer: writer.clone(),
            healthy: Healthy::default(),
        }),
    };
    LeaderTasks {
        reconciler: Arc::new(Reconciler {
            services: Arc::clone(&shared.services),
            namespaces: Arc::clone(&shared.namespaces),
            endpoints: shared.endpoints.clone(),
            addresses: shared.addresses.clone(),
            board: shared.board.clone(),
            performer,
            queue: shared.queue.clone(),
            waiting: Waiting::default(),
            class_missing: Missing::default(),
        }),
        instances: instance::Context {
            drains: Drains::beside(shared.client.clone(), &options.lease)
                .owned_by(owner.into_iter().collect()),
            writer: writer.clone(),
            factory: Arc::clone(&options.factory),
            cluster: (cluster, options.cluster_name.clone()),
            tag_writer,
            services: Arc::clone(&shared.services),
            board: shared.board.clone(),
            queue: shared.queue.clone(),
            ledger: Arc::clone(&shared.ledger),
            targets: shared.targets.clone(),
            metrics: shared.metrics.providers.clone(),
            clock: Arc::clone(&options.clock),
            send_class_event: class_events(recorder.clone(), shared.board.clone()),
            send_changed: Arc::new(move |id, what| recorder.event(id, Event::changed(what))),
            fence,
        },
        pools: PoolKeeper {
            book: shared.addresses.clone(),
            pools: Arc::clone(&shared.pools),
            nodes: shared.node_addresses.clone(),
            queue: shared.queue.clone(),
            writer: writer.clone(),
            contests: shared.metrics.contests.clone(),
        },
        announcements: Keeper {
            announcers: Arc::clone(&shared.announcers),
            nodes: shared.reporting_nodes.clone(),
            leases: Leases {
                api: Api::namespaced(shared.client.clone(), &options.lease.0),
                announcers: Arc::clone(&shared.announcers),
            },
            book: shared.addresses.clone(),
            services: Arc::clone(&shared.services),
            board: shared.board.clone(),
            queue: shared.queue.clone(),
            began: Instant::now(),
        },
        classes: ClassStatus {
            board: shared.board.clone(),
            services: Arc::clone(&shared.services),
            ledger: Arc::clone(&shared.ledger),
            finalizer_requested,
            writer,
            contests: shared.metrics.contests.clone(),
        },
        other_controllers: options.other_controllers.clone(),
    }
}

/// Sends events about classes.
fn class_events(recorder: Recorder, board: Board) -> instance::SendClassEvent {
    Arc::new(move |class, news| {
        let Some(uid) = board.snapshot().get(class).map(|it| it.uid.clone()) else {
            return;
        };
        let event = match news {
            ClassNews::Orphaned(what) => Event::Orphaned(what),
            ClassNews::IdentityShared(what) => Event::IdentityShared(what),
        };
        recorder.class_event(class, &uid, event);
    })
}

/// Runs until a task fails; that ends the process.
async fn work(shared: Shared, leader: LeaderTasks, workers: usize, led_before: bool) -> Result<()> {
    let reconciler = leader.reconciler;
    shared.health.opened().await;
    prime(&shared.ledger, &shared.services, &shared.board);
    open(&shared, led_before);
    leader.announcements.open();
    for service in oldest_first(shared.services.all()) {
        shared.queue.add(Name::from(&service.id));
    }
    let mut team: JoinSet<()> = JoinSet::new();
    for _ in 0..workers {
        team.spawn(Arc::clone(&reconciler).work());
    }
    team.spawn(instance::run(leader.instances));
    team.spawn(leader.classes.run());
    team.spawn(leader.pools.run());
    team.spawn(leader.announcements.run());
    team.spawn(contender::run(
        shared.client,
        shared.board,
        leader.other_controllers,
    ));
    match team.join_next().await {
        // Workers end when the queue is closed, which is the orderly end.
        Some(Ok(())) => std::future::pending().await,
        Some(Err(error)) => Err(anyhow!("a task of the leader failed: {error}")),
        None => Err(anyhow!("the leader has no tasks")),
    }
}

/// A Service with a finalizer of a class may have something in its cloud. It has no place
/// there before the cloud says so: anybody who may edit a Service can add a finalizer.
fn prime(ledger: &Ledger, services: &Store<Name, ServiceView>, board: &Board) {
    let classes = board.snapshot();
    for service in services.all() {
        for class in service
            .held_by
            .iter()
            .filter(|class| classes.scope.owns(class))
        {
            ledger.record_finalizer(&service.id, class);
        }
    }
}

/// Starts the assignment of addresses. All Services and pools are listed.
fn open(shared: &Shared, led_before: bool) {
    let start = Start {
        services: &shared.services.all(),
        classes: &shared.board.snapshot(),
        namespaces: &shared.namespaces,
        pools: &shared.pools,
        nodes: &shared.node_addresses.borrow().clone(),
        led_before,
    };
    shared.addresses.open(&start, Timestamp::now());
}

/// The identity of the cluster in tags: the UID of a namespace that cannot be deleted.
pub(crate) async fn cluster_uid(client: &Client) -> Result<String> {
    let api: Api<Namespace> = Api::all(client.clone());
    let namespace = tokio::time::timeout(REQUEST_TIMEOUT, api.get("kube-system"))
        .await
        .map_err(|_| {
            let seconds = REQUEST_TIMEOUT.as_secs();
            anyhow!("the API server did not answer in {seconds} s")
        })?
        .context("cannot read the namespace kube-system, whose UID identifies the cluster")?;
    namespace
        .metadata
        .uid
        .context("the namespace kube-system has no UID")
}
