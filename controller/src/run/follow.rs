//! What every replica does besides the election: the stores, the watches that fill them, and
//! the admin server.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use kube::Client;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{Options, Shared};
use crate::class::board::Board;
use crate::cluster::eligibility::Eligible;
use crate::cluster::metrics::Metrics;
use crate::process::admin::{Admin, Health};
use crate::process::queue::Queue;
use crate::run::scrape::ScrapeMetrics;
use crate::run::watch as watches;

/// No backlog makes a Service wait this long for a worker; only a restart helps.
const STUCK: Duration = Duration::from_mins(10);

/// Begins all of it. The tasks never end by themselves.
pub(super) async fn follow(
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
        addresses: options.addresses.clone(),
        ledger: Arc::default(),
        targets,
        node_addresses,
        leads: Arc::default(),
        metrics,
        health: Health::default(),
    };
    registry.register_collector(Box::new(ScrapeMetrics {
        services: Arc::clone(&shared.services),
        board: shared.board.clone(),
        queue: shared.queue.clone(),
    }));
    registry.register_collector(shared.addresses.collector());
    notice_standstill(&shared);
    // Before the admin server, which is ready when no gate is closed.
    watch_nodes(&shared, targets_sender, nodes_sender, tasks);
    watch_objects(&shared, tasks);
    let admin = Admin::bind(options.admin, shared.health.clone(), Arc::new(registry))
        .await
        .with_context(|| format!("cannot listen on {} (--admin-address)", options.admin))?;
    tasks.spawn(async { Ok(admin.run(std::future::pending()).await?) });
    Ok(shared)
}

/// Lets the process be restarted when nothing moves any more.
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

fn watch_nodes(
    shared: &Shared,
    targets: watch::Sender<Eligible>,
    addresses: watch::Sender<BTreeSet<IpAddr>>,
    tasks: &mut JoinSet<Result<()>>,
) {
    let nodes = watches::nodes(
        shared.client.clone(),
        targets,
        addresses,
        shared.health.gate("the list of Nodes"),
        Arc::clone(&shared.metrics),
    );
    tasks.spawn(endless("nodes", nodes));
}

fn watch_objects(shared: &Shared, tasks: &mut JoinSet<Result<()>>) {
    let client = || shared.client.clone();
    let gate = |name: &str| shared.health.gate(name);
    let metrics = || Arc::clone(&shared.metrics);
    let services = watches::ServiceWatch {
        store: Arc::clone(&shared.services),
        queue: shared.queue.clone(),
        ledger: Arc::clone(&shared.ledger),
        leads: Arc::clone(&shared.leads),
        metrics: metrics(),
    };
    let services = services.run(client(), gate("the list of Services"));
    let classes = watches::classes(
        client(),
        shared.board.clone(),
        gate(
            "the list of LoadBalancerClasses (is the CRD installed? ballast crds | kubectl apply -f -)",
        ),
        metrics(),
    );
    let pools = watches::pools(
        client(),
        Arc::clone(&shared.pools),
        gate("the list of AddressPools (is the CRD installed? ballast crds | kubectl apply -f -)"),
        metrics(),
    );
    let namespaces = watches::namespaces(
        client(),
        Arc::clone(&shared.namespaces),
        Arc::clone(&shared.services),
        shared.queue.clone(),
        gate("the list of Namespaces"),
        metrics(),
    );
    tasks.spawn(endless("services", services));
    tasks.spawn(endless("classes", classes));
    tasks.spawn(endless("pools", pools));
    tasks.spawn(endless("namespaces", namespaces));
}

/// A task whose end is an error.
async fn endless(what: &'static str, task: impl Future<Output = ()>) -> Result<()> {
    task.await;
    Err(anyhow!("the watch of {what} ended"))
}
