//! The tasks of every replica besides the election: the watches, the stores that they fill,
//! and the admin server.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use kube::Client;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{Metrics, Options, Shared};
use crate::class::board::Board;
use crate::cluster::eligibility::Eligible;
use crate::cluster::endpoints::Endpoints;
use crate::process::admin::{Admin, Health};
use crate::process::queue::Queue;
use crate::run::scrape::ScrapeMetrics;
use crate::run::watch::{self as watches, Watch};

/// A Service that waits this long for a worker is not behind a backlog; the process must be
/// restarted.
const STUCK: Duration = Duration::from_mins(10);

/// Starts these tasks. They never end by themselves.
pub(super) async fn follow(
    client: &Client,
    options: &Options,
    tasks: &mut JoinSet<Result<()>>,
) -> Result<Shared> {
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let (targets_sender, targets) = watch::channel(Eligible::default());
    let (addresses_sender, node_addresses) = watch::channel(BTreeSet::new());
    let (reporting_sender, reporting_nodes) = watch::channel(BTreeSet::new());
    let ledger = Arc::default();
    let shared = Shared {
        client: client.clone(),
        services: Arc::default(),
        board: Board::new(options.scope.clone(), Arc::clone(&ledger)),
        queue: Queue::idle(options.backoff),
        pools: Arc::default(),
        namespaces: Arc::default(),
        endpoints: Endpoints::default(),
        addresses: options.addresses.clone(),
        ledger,
        targets,
        node_addresses,
        reporting_nodes,
        announcers: Arc::default(),
        metrics,
        health: Health::default(),
    };
    registry.register_collector(Box::new(ScrapeMetrics {
        services: Arc::clone(&shared.services),
        board: shared.board.clone(),
        queue: shared.queue.clone(),
        book: shared.addresses.clone(),
    }));
    registry.register_collector(shared.addresses.collector());
    notice_standstill(&shared);
    // Before the admin server: it is ready when no gate is closed.
    let nodes = watches::NodeNews {
        targets: targets_sender,
        addresses: addresses_sender,
        reporting: reporting_sender,
        metrics: shared.metrics.targets.clone(),
    };
    let watch = shared.watch("nodes", "the list of Nodes");
    tasks.spawn(endless("nodes", watches::nodes(watch, nodes)));
    watch_objects(&shared, options, tasks);
    let admin = Admin::bind(options.admin, shared.health.clone(), Arc::new(registry))
        .await
        .with_context(|| format!("cannot listen on {} (--admin-address)", options.admin))?;
    tasks.spawn(async { Ok(admin.run(std::future::pending()).await?) });
    Ok(shared)
}

/// Fails liveness when no worker makes progress.
fn notice_standstill(shared: &Shared) {
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
}

fn watch_objects(shared: &Shared, options: &Options, tasks: &mut JoinSet<Result<()>>) {
    let factory = Arc::clone(&options.factory);
    let services = watches::ServiceWatch {
        store: Arc::clone(&shared.services),
        queue: shared.queue.clone(),
        ledger: Arc::clone(&shared.ledger),
        addresses: shared.addresses.clone(),
        board: shared.board.clone(),
        metrics: shared.metrics.services.clone(),
        dialect: watches::dialect(factory.as_ref()),
    };
    let services = services.run(shared.watch("services", "the list of Services"));
    let classes = watches::classes(
        shared.watch(
            "loadbalancerclasses",
            "the list of LoadBalancerClasses (is the CRD installed? ballast crds | kubectl apply -f -)",
        ),
        shared.board.clone(),
        factory,
    );
    let pools = watches::pools(
        shared.watch(
            "addresspools",
            "the list of AddressPools (is the CRD installed? ballast crds | kubectl apply -f -)",
        ),
        Arc::clone(&shared.pools),
    );
    let announcers = watches::announcers(
        shared.watch(
            "announcers",
            "the list of Announcers (is the CRD installed? ballast crds | kubectl apply -f -)",
        ),
        Arc::clone(&shared.announcers),
    );
    let namespaces = watches::namespaces(
        shared.watch("namespaces", "the list of Namespaces"),
        Arc::clone(&shared.namespaces),
        Arc::clone(&shared.services),
        shared.queue.clone(),
    );
    let endpoints = watches::EndpointWatch {
        endpoints: shared.endpoints.clone(),
        services: Arc::clone(&shared.services),
        board: shared.board.clone(),
        queue: shared.queue.clone(),
        gates: options.readiness_gates,
    };
    let endpoints = endpoints.run(shared.client.clone(), shared.metrics.watches.clone());
    tasks.spawn(endless("endpointslices", endpoints));
    tasks.spawn(endless("services", services));
    tasks.spawn(endless("classes", classes));
    tasks.spawn(endless("pools", pools));
    tasks.spawn(endless("announcers", announcers));
    tasks.spawn(endless("namespaces", namespaces));
}

// === impl Shared ===

impl Shared {
    /// The watch of one kind; `gate` is what readiness waits for.
    fn watch(&self, kind: &'static str, gate: &str) -> Watch {
        Watch {
            client: self.client.clone(),
            kind,
            gate: self.health.gate(gate),
            metrics: self.metrics.watches.clone(),
        }
    }
}

/// A task whose end is an error.
async fn endless(what: &'static str, task: impl Future<Output = ()>) -> Result<()> {
    task.await;
    Err(anyhow!("the watch of {what} ended"))
}
