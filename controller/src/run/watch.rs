//! Fills the stores: one task per kind, from the first list until the process ends.
//!
//! Runs on followers too, so that a new leader begins with warm stores. Each task
//! says what changed to whoever must know: Service names go to the queue, nodes become
//! targets, classes go to the board, pools to their keeper, and a namespace whose labels
//! changed wakes its Services. Errors are retried by the watcher with back-off;
//! they are counted, and the readiness gate says what is missing until the first list.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ballast_crds::{AddressPool, LoadBalancerClass};
use ballast_provider::Exclusion;
use futures::{StreamExt, pin_mut};
use k8s_openapi::api::core::v1::{Namespace, Node, Service};
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::runtime::WatchStreamExt;
use kube::runtime::utils;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use rand::rngs::SmallRng;
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::class::ClassView;
use crate::class::board::Board;
use crate::cluster::eligibility::{self, Eligible};
use crate::cluster::ledger::Ledger;
use crate::cluster::metrics::Metrics;
use crate::cluster::namespaces::Namespaces;
use crate::cluster::store::{Changed, Store};
use crate::cluster::view::{Name, NodeView, ServiceView};
use crate::pools::{PoolView, Pools};
use crate::process::admin::Gate;
use crate::process::backoff::Backoff;
use crate::process::causes::causes;
use crate::process::queue::Queue;

/// Objects per page of a list: bounds the memory of a start.
const PAGE: u32 = 500;

/// Between two tries of a watch. The usual 30 s and more would add themselves to each
/// outage of the API server; five watches that ask every few seconds hurt nobody.
const RETRY: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(5));

/// Counts the tries of one watch.
struct Retries {
    attempt: u32,
    rng: SmallRng,
}

/// Feeds Services into their store and their names into the queue.
pub struct ServiceWatch {
    /// Where they go.
    pub store: Arc<Store<Name, ServiceView>>,
    /// Who is told.
    pub queue: Queue<Name>,
    /// Whose recorded names are looked at after a relist.
    pub ledger: Arc<Ledger>,
    /// Whether this process leads. Nobody works off a follower's queue, and a new leader
    /// begins with every name in the store.
    pub leads: Arc<AtomicBool>,
    /// Counts errors and arrivals.
    pub metrics: Arc<Metrics>,
}

// === impl Retries ===

impl Retries {
    fn new() -> Self {
        Self {
            attempt: 0,
            rng: rand::make_rng(),
        }
    }
}

impl Iterator for Retries {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let delay = RETRY.delay(self.attempt, &mut self.rng);
        self.attempt = self.attempt.saturating_add(1);
        Some(delay)
    }
}

impl utils::Backoff for Retries {
    fn reset(&mut self) {
        self.attempt = 0;
    }
}

// === impl ServiceWatch ===

impl ServiceWatch {
    /// Watches for ever.
    pub async fn run(self, client: Client, gate: Gate) {
        let stream = watcher(Api::<Service>::all(client), config()).backoff(Retries::new());
        pin_mut!(stream);
        while let Some(event) = stream.next().await {
            match event {
                Ok(event) => self.take(event, &gate),
                Err(error) => failed(
                    "services",
                    &error,
                    &self.metrics,
                    &gate,
                    self.store.is_ready(),
                ),
            }
        }
    }

    fn take(&self, event: Event<Service>, gate: &Gate) {
        if matches!(event, Event::Init) {
            self.ledger.relisting();
        }
        let relisted = matches!(event, Event::InitDone);
        let live = matches!(event, Event::Apply(_));
        let changed = self.store.apply(event, |service| {
            (Name::of(&service.metadata), ServiceView::of(service))
        });
        if relisted {
            gate.ready();
            self.ledger.relisted();
            // What is recorded and not in the list any more is released by absence.
            self.ledger
                .names()
                .into_iter()
                .for_each(|name| self.queue.add(name));
        }
        if !self.leads.load(Ordering::Acquire) {
            return;
        }
        for name in changed.keys {
            if live {
                self.note_arrival(&name);
            }
            self.queue.add(name);
        }
    }

    fn note_arrival(&self, name: &Name) {
        let Some(service) = self.store.get(name) else {
            return;
        };
        if service.load_balancer.is_some() && service.ingress.is_empty() && !service.deleting {
            self.metrics.arrived(name, Instant::now());
        }
    }
}

/// Keeps the targets of all classes current, and the addresses of all nodes, targets or not.
pub async fn nodes(
    client: Client,
    targets: watch::Sender<Eligible>,
    addresses: watch::Sender<BTreeSet<IpAddr>>,
    gate: Gate,
    metrics: Arc<Metrics>,
) {
    let store: Store<String, NodeView> = Store::default();
    let stream = watcher(Api::<Node>::all(client), config()).backoff(Retries::new());
    pin_mut!(stream);
    while let Some(event) = stream.next().await {
        match event {
            Ok(event) => {
                let changed = store.apply(event, |node: &Node| {
                    let view = NodeView::of(node);
                    (view.target.name.clone(), view)
                });
                if is_news(&changed, store.is_ready()) {
                    let nodes = store.all();
                    let now = eligibility::eligible(&nodes);
                    metrics.set_targets(now.targets(Exclusion::Absolute).len());
                    replace(&targets, now);
                    let all = nodes.iter().flat_map(|node| &node.addresses);
                    replace(&addresses, all.copied().collect());
                    gate.ready();
                }
            }
            Err(error) => failed("nodes", &error, &metrics, &gate, store.is_ready()),
        }
    }
}

/// Posts the classes on the board.
pub async fn classes(client: Client, board: Board, gate: Gate, metrics: Arc<Metrics>) {
    let store: Store<String, ClassView> = Store::default();
    let api: Api<DeserializeGuard<LoadBalancerClass>> = Api::all(client);
    let stream = watcher(api, config()).backoff(Retries::new());
    pin_mut!(stream);
    while let Some(event) = stream.next().await {
        match event {
            Ok(event) => {
                let changed = store.apply(event, |guard| {
                    let view = ClassView::of(guard);
                    (view.name.clone(), view)
                });
                if is_news(&changed, store.is_ready()) {
                    board.post_views(store.all());
                    gate.ready();
                }
            }
            Err(error) => failed(
                "loadbalancerclasses",
                &error,
                &metrics,
                &gate,
                store.is_ready(),
            ),
        }
    }
}

/// Tells of a value only if it is another.
fn replace<T: PartialEq>(sender: &watch::Sender<T>, now: T) {
    sender.send_if_modified(|before| {
        let differs = *before != now;
        *before = now;
        differs
    });
}

/// Keeps the address pools current.
pub async fn pools(client: Client, pools: Arc<Pools>, gate: Gate, metrics: Arc<Metrics>) {
    let api: Api<DeserializeGuard<AddressPool>> = Api::all(client);
    let stream = watcher(api, config()).backoff(Retries::new());
    pin_mut!(stream);
    while let Some(event) = stream.next().await {
        match event {
            Ok(event) => {
                let changed = pools.store.apply(event, |guard| {
                    let view = PoolView::of(guard);
                    (view.name.clone(), view)
                });
                if is_news(&changed, pools.store.is_ready()) {
                    pools.changed();
                    gate.ready();
                }
            }
            Err(error) => failed(
                "addresspools",
                &error,
                &metrics,
                &gate,
                pools.store.is_ready(),
            ),
        }
    }
}

/// Keeps the labels of namespaces current. Where they change, the Services of that
/// namespace are looked at again.
pub async fn namespaces(
    client: Client,
    namespaces: Arc<Namespaces>,
    services: Arc<Store<Name, ServiceView>>,
    queue: Queue<Name>,
    gate: Gate,
    metrics: Arc<Metrics>,
) {
    let stream =
        watcher(Api::<PartialObjectMeta<Namespace>>::all(client), config()).backoff(Retries::new());
    pin_mut!(stream);
    while let Some(event) = stream.next().await {
        match event {
            Ok(event) => {
                let changed = namespaces.apply(event, |object| {
                    let labels = object.metadata.labels.clone().unwrap_or_default();
                    (object.metadata.name.clone().unwrap_or_default(), labels)
                });
                if changed.became_ready {
                    gate.ready();
                } else if namespaces.is_ready() && !changed.keys.is_empty() {
                    let mut names = services.keys();
                    names.retain(|name| changed.keys.contains(&name.namespace));
                    for name in names {
                        queue.add(name);
                    }
                }
            }
            Err(error) => failed("namespaces", &error, &metrics, &gate, namespaces.is_ready()),
        }
    }
}

/// Half a list is no news: who reads it would see objects missing that are not.
fn is_news<K>(changed: &Changed<K>, ready: bool) -> bool {
    changed.became_ready || (ready && !changed.keys.is_empty())
}

fn config() -> watcher::Config {
    watcher::Config::default().page_size(PAGE)
}

fn failed(
    kind: &'static str,
    error: &watcher::Error,
    metrics: &Metrics,
    gate: &Gate,
    listed: bool,
) {
    metrics.watch_error(kind);
    let why = causes(error);
    warn!(kind, error = why, "watch interrupted");
    // Once there is a list, an interrupted watch is the API server's trouble, not ours.
    if !listed {
        gate.not_ready(&why);
    }
}

/// Waits until a value has changed and then kept still for `quiet`, but not longer than
/// `limit`: a wave of nodes becomes one call. False if the sender is gone.
pub async fn settled<T>(
    changes: &mut watch::Receiver<T>,
    quiet: Duration,
    limit: Duration,
) -> bool {
    if changes.changed().await.is_err() {
        return false;
    }
    let wave = async { while let Ok(Ok(())) = timeout(quiet, changes.changed()).await {} };
    if timeout(limit, wave).await.is_err() {
        info!("changes do not end; going on with what is known");
    }
    true
}

#[cfg(test)]
mod tests;
