//! Fills the stores: one task per kind, from the first list until the process ends.
//!
//! Every replica runs these tasks, so that a new leader begins with warm stores. [`follow`]
//! is the same for every kind: it parses what the watch delivers, stores it, and reports what
//! changed. The functions below it pass that on: Service names go to the queue, nodes become
//! targets, classes go to the board, pools and announcers to their keepers, and a namespace whose
//! labels changed wakes its Services.
//!
//! The watcher retries errors with back-off; they are counted, and the readiness gate says
//! what is missing until the first list. A watch that misses changes without an error is
//! found by comparison with a list (`compare`), and begins again.

mod compare;
mod endpoints;

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ballast_crds::{AddressPool, LoadBalancerClass};
use ballast_provider::{Labels, Traits};
use futures::{StreamExt, pin_mut};
use k8s_openapi::api::core::v1::{Namespace, Node};
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::runtime::WatchStreamExt;
use kube::runtime::utils;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource};
use rand::rngs::SmallRng;
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, watch};
use tracing::warn;

pub use self::endpoints::EndpointWatch;
use crate::announcements::{Announcers, WatchedAnnouncer, report};
use crate::class::ClassView;
use crate::class::board::Board;
use crate::class::instance::Factory;
use crate::cluster::eligibility::{self, Eligible};
use crate::cluster::ledger::Ledger;
use crate::cluster::meta::version;
use crate::cluster::metrics::{ServiceMetrics, TargetMetrics, WatchMetrics};
use crate::cluster::namespaces::Namespaces;
use crate::cluster::store::{Changed, Key, Parsed, Phase, Store, Update};
use crate::cluster::texts;
use crate::cluster::translate::Dialect;
use crate::cluster::view::{Name, NodeView, ServiceView};
use crate::cluster::wire::WatchedService;
use crate::pools::{AddressBook, PoolView, Pools};
use crate::process::admin::Gate;
use crate::process::backoff::Backoff;
use crate::process::causes::causes;
use crate::process::queue::Queue;

/// Objects per page of a list. A page is in memory as text and as objects at once, and one
/// Service can have 256 KiB of annotations.
const PAGE: u32 = 100;

/// Between two tries of a watch. The usual 30 s and more would add themselves to each
/// outage of the API server; six watches that ask every few seconds hurt nobody.
const RETRY: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(5));

/// The watch of one kind.
#[derive(Clone)]
pub struct Watch {
    /// A client of the API server.
    pub client: Client,
    /// The kind's name in URLs, for logs and metrics.
    pub kind: &'static str,
    /// Opened by the first list.
    pub gate: Gate,
    /// Counts errors.
    pub metrics: WatchMetrics,
}

/// Which objects of a kind are watched.
#[derive(Clone, Debug)]
pub struct Selected<T> {
    /// All of the cluster, or those of one namespace.
    pub api: Api<T>,
    /// Only those with these labels.
    pub labels: Option<&'static str>,
}

/// Feeds Services into their store and their names into the queue.
pub struct ServiceWatch {
    /// Where they go.
    pub store: Arc<Store<Name, ServiceView>>,
    /// Who is told.
    pub queue: Queue<Name>,
    /// Whose recorded names are looked at after a relist.
    pub ledger: Arc<Ledger>,
    /// Where published addresses are recorded, before any Service can get them.
    pub addresses: AddressBook,
    /// Which class placed a Service.
    pub board: Board,
    /// Counts arrivals.
    pub metrics: ServiceMetrics,
    /// The annotations that the providers of this build read.
    pub dialect: Dialect,
}

/// Where the watch of nodes passes on what changed.
pub struct NodeNews {
    /// The targets of all classes.
    pub targets: watch::Sender<Eligible>,
    /// The addresses of all nodes, targets or not.
    pub addresses: watch::Sender<BTreeSet<IpAddr>>,
    /// The names of the nodes that report to the API server.
    pub reporting: watch::Sender<BTreeSet<Arc<str>>>,
    /// Counts targets.
    pub metrics: TargetMetrics,
}

/// The pauses between the tries of one watch.
struct Pauses {
    attempt: u32,
    rng: SmallRng,
}

/// The annotations that the providers of a factory read.
pub fn dialect(factory: &dyn Factory) -> Dialect {
    Dialect {
        setting_prefixes: factory.setting_prefixes(),
    }
}

/// Keeps `store` as the API server has it, and reports each change to `on_change`. Never
/// ends.
pub async fn follow<T, K, V>(
    watch: Watch,
    store: &Store<K, V>,
    parse: impl Fn(&K, &T) -> V,
    on_change: impl FnMut(&Changed<K>),
) where
    T: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
    K: Key,
    V: PartialEq,
{
    let all = Selected {
        api: Api::all(watch.client.clone()),
        labels: None,
    };
    follow_selected(watch, all, store, parse, on_change).await;
}

/// Like [`follow`], for some objects of the kind.
pub async fn follow_selected<T, K, V>(
    watch: Watch,
    selected: Selected<T>,
    store: &Store<K, V>,
    parse: impl Fn(&K, &T) -> V,
    on_change: impl FnMut(&Changed<K>),
) where
    T: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
    K: Key,
    V: PartialEq,
{
    let relist = Notify::new();
    let list = compare::List {
        url: selected.api.resource_url(),
        labels: selected.labels,
    };
    tokio::join!(
        deliver(&watch, &selected, store, parse, on_change, &relist),
        compare::run(&watch, list, store, &relist),
    );
}

/// Watches; begins again with a list when `relist` asks for one.
async fn deliver<T, K, V>(
    watch: &Watch,
    selected: &Selected<T>,
    store: &Store<K, V>,
    parse: impl Fn(&K, &T) -> V,
    mut on_change: impl FnMut(&Changed<K>),
    relist: &Notify,
) where
    T: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
    K: Key,
    V: PartialEq,
{
    let mut config = watcher::Config::default().page_size(PAGE);
    config.label_selector = selected.labels.map(str::to_owned);
    loop {
        let stream = watcher(selected.api.clone(), config.clone()).backoff(Pauses::new());
        pin_mut!(stream);
        loop {
            let event = tokio::select! {
                event = stream.next() => event,
                () = relist.notified() => break,
            };
            match event {
                Some(Ok(event)) => {
                    // Parsed before the store is locked.
                    let changed = store.apply(update(event, &parse));
                    on_change(&changed);
                    if changed.phase == (Phase::ListEnds { first: true }) {
                        watch.gate.ready();
                    }
                }
                Some(Err(error)) => watch.failed(&error, store.is_ready()),
                None => break,
            }
        }
    }
}

fn update<T, K, V>(event: Event<T>, parse: impl Fn(&K, &T) -> V) -> Update<K, V>
where
    T: Resource<DynamicType = ()>,
    K: Key,
{
    let key = |object: &T| {
        let meta = object.meta();
        K::named(meta.namespace.as_deref(), meta.name.as_deref())
    };
    let parsed = |object: &T| {
        let key = key(object);
        Parsed {
            version: version(object.meta()),
            view: parse(&key, object),
            key,
        }
    };
    match event {
        Event::Init => Update::ListBegins,
        Event::InitApply(object) => Update::Listed(parsed(&object)),
        Event::InitDone => Update::ListEnds,
        Event::Apply(object) => Update::Applied(parsed(&object)),
        Event::Delete(object) => Update::Deleted(key(&object)),
    }
}

// === impl Watch ===

impl Watch {
    fn failed(&self, error: &watcher::Error, listed: bool) {
        self.metrics.interrupted(self.kind);
        let why = causes(error);
        warn!(kind = self.kind, error = why, "watch interrupted");
        // Once there is a list, an interrupted watch is the API server's trouble, not ours.
        if !listed {
            self.gate.not_ready(&why);
        }
    }
}

// === impl ServiceWatch ===

impl ServiceWatch {
    /// Watches for ever.
    pub async fn run(self, watch: Watch) {
        let changed = |changed: &Changed<Name>| self.changed(changed);
        let parse = |name: &Name, service: &WatchedService| {
            ServiceView::read(name, &service.0, self.dialect)
        };
        follow(watch, &self.store, parse, changed).await;
    }

    fn changed(&self, changed: &Changed<Name>) {
        match changed.phase {
            Phase::ListBegins => self.ledger.relisting(),
            Phase::ListEnds { .. } => {
                self.ledger.relisted();
                // What is recorded and not in the list any more may be released by absence.
                for name in self.ledger.names() {
                    let uid = self.store.get(&name).map(|it| Arc::clone(&it.id.uid));
                    // Before anybody's turn: what they share with others must stay.
                    for entry in self.ledger.left_behind(&name, uid.as_deref()) {
                        self.ledger.absent(&entry.id, &entry.class);
                    }
                    self.queue.add(name);
                }
            }
            Phase::Listing | Phase::Live => {}
        }
        if let Some(service) = self.store.deleted() {
            self.ledger.deleted(&service.id);
        }
        let classes = self.board.snapshot();
        for name in &changed.keys {
            self.addresses.note(name, || self.store.get(name), &classes);
            if changed.phase == Phase::Live {
                self.note_arrival(name);
            }
            self.queue.add(name.clone());
        }
    }

    /// Only where somebody works: nobody else notes the address that ends the wait.
    fn note_arrival(&self, name: &Name) {
        let Some(service) = self.store.get(name).filter(|_| !self.queue.is_idle()) else {
            return;
        };
        if service.load_balancer.is_some() && service.ingress.is_empty() && !service.deleting {
            self.metrics.arrived(name, Instant::now());
        }
    }
}

/// Keeps what others need of nodes current.
pub async fn nodes(watch: Watch, news: NodeNews) {
    let store: Store<String, NodeView> = Store::default();
    let changed = |changed: &Changed<String>| {
        if is_news(changed, &store) {
            let nodes = store.all();
            let now = eligibility::eligible(&nodes);
            news.metrics.set(now.targets(Traits::CLOUD).len());
            replace(&news.targets, now);
            let all = nodes.iter().flat_map(|node| &node.addresses);
            replace(&news.addresses, all.copied().collect());
            let reporting = nodes.iter().filter(|node| !node.silent);
            let names = reporting.map(|node| texts::shared(&node.target.name));
            replace(&news.reporting, names.collect());
        }
    };
    let parse = |_: &String, node: &Node| NodeView::of(node);
    follow(watch, &store, parse, changed).await;
}

/// Posts the classes on the board.
pub async fn classes(watch: Watch, board: Board, factory: Arc<dyn Factory>) {
    let store: Store<String, ClassView> = Store::default();
    let changed = |changed: &Changed<String>| {
        if is_news(changed, &store) {
            board.post_views(store.all());
        }
    };
    let parse = |_: &String, guard: &DeserializeGuard<LoadBalancerClass>| {
        ClassView::of(guard, factory.as_ref())
    };
    follow(watch, &store, parse, changed).await;
}

/// Keeps the address pools current.
pub async fn pools(watch: Watch, pools: Arc<Pools>) {
    let changed = |changed: &Changed<String>| {
        if is_news(changed, &pools.store) {
            pools.changed();
        }
    };
    let parse = |_: &String, guard: &DeserializeGuard<AddressPool>| PoolView::of(guard);
    follow(watch, &pools.store, parse, changed).await;
}

/// Keeps what announcers report current.
pub async fn announcers(watch: Watch, announcers: Arc<Announcers>) {
    let changed = |changed: &Changed<Arc<str>>| {
        if is_news(changed, &announcers.store) {
            announcers.changed();
        }
    };
    let parse = |node: &Arc<str>, object: &WatchedAnnouncer| report(node, object);
    follow(watch, &announcers.store, parse, changed).await;
}

/// Keeps the labels of namespaces current. Where they change, the Services of that
/// namespace are looked at again.
pub async fn namespaces(
    watch: Watch,
    namespaces: Arc<Namespaces>,
    services: Arc<Store<Name, ServiceView>>,
    queue: Queue<Name>,
) {
    let changed = |changed: &Changed<Arc<str>>| {
        if !namespaces.is_ready() || changed.keys.is_empty() {
            return;
        }
        let names = services.keys().into_iter();
        for name in names.filter(|name| changed.keys.contains(&name.namespace)) {
            queue.add(name);
        }
    };
    let parse = |_: &Arc<str>, object: &PartialObjectMeta<Namespace>| {
        let labels = object.metadata.labels.as_ref();
        labels.map(Labels::from).unwrap_or_default()
    };
    follow(watch, &namespaces, parse, changed).await;
}

/// Whether a change is one of a complete list. Whoever reads half a list would see objects
/// missing that are not.
fn is_news<K: Key, V: PartialEq>(changed: &Changed<K>, store: &Store<K, V>) -> bool {
    let first = changed.phase == (Phase::ListEnds { first: true });
    first || (store.is_ready() && !changed.keys.is_empty())
}

/// Tells of a value only if it is another.
fn replace<T: PartialEq>(sender: &watch::Sender<T>, now: T) {
    sender.send_if_modified(|before| {
        let differs = *before != now;
        *before = now;
        differs
    });
}

// === impl Pauses ===

impl Pauses {
    fn new() -> Self {
        Self {
            attempt: 0,
            rng: rand::make_rng(),
        }
    }
}

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let delay = RETRY.delay(self.attempt, &mut self.rng);
        self.attempt = self.attempt.saturating_add(1);
        Some(delay)
    }
}

impl utils::Backoff for Pauses {
    fn reset(&mut self) {
        self.attempt = 0;
    }
}

#[cfg(test)]
mod tests;
