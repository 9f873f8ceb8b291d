//! The stores of the announcer, and the watches that fill them.
//!
//! A change of anything that a view is built of marks the view as out of date
//! ([`Stores::changes`]). Leases and the claims in Announcer objects are no part of a view; they
//! are passed on as they come.
//!
//! Of Announcer objects only those count that announcers have written ([`Trust`]).

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ballast_agent::seal::Keyring;
use ballast_announce::{Input, NodeName};
use ballast_crds::{Announcer, LoadBalancerClass};
use jiff::Timestamp;
use kube::core::DeserializeGuard;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::warn;

use super::facts::{
    AnnouncerFacts, ClassFacts, NodeObject, ServiceFacts, SliceFacts, WatchedLease, WatchedNode,
    WatchedService,
};
use super::lease::{self, LABELS};
use super::metrics::AnnouncerMetrics;
use super::object::UNTRUSTED_FIX;
use super::seam::{Report, Sink};
use super::trust::{Refusal, Trust, Verdict};
use super::view::Cluster;
use crate::cluster::metrics::WatchMetrics;
use crate::cluster::slices::{OF_SERVICES, WatchedSlice};
use crate::cluster::store::{Changed, Key, Store};
use crate::cluster::view::Name;
use crate::process::admin::Health;
use crate::run::watch::{Selected, Watch, follow, follow_selected};

/// Everything that the watches deliver.
#[derive(Debug, Default)]
pub struct Stores {
    services: Store<Name, Option<ServiceFacts>>,
    slices: Store<Name, Option<SliceFacts>>,
    nodes: Store<Arc<str>, NodeObject>,
    classes: Store<Arc<str>, Option<ClassFacts>>,
    /// The Announcers, whether they count or not.
    announcers: Store<Arc<str>, AnnouncerFacts>,
    /// Those that count.
    trust: Mutex<Trust>,
    /// The stamp of each announcer's Lease.
    leases: Store<Arc<str>, u64>,
    /// Counts the changes of everything but Leases.
    changes: watch::Sender<u64>,
    /// Counts the renewals of the own Lease that its watch delivered.
    own_renewals: watch::Sender<u64>,
}

/// What every watch needs.
pub struct Watches {
    /// A client of the API server.
    pub client: Client,
    /// The namespace of the Leases.
    pub namespace: String,
    /// This node.
    pub me: NodeName,
    /// This process, as it writes itself into its objects.
    pub incarnation: String,
    /// Readiness.
    pub health: Health,
    /// Metrics of the watches.
    pub metrics: WatchMetrics,
    /// Metrics of the announcer.
    pub refused: AnnouncerMetrics,
    /// The keys that seal objects; [`Stores::new`] has them, too.
    pub keyring: Option<Arc<Keyring>>,
    /// Where Leases and claims go.
    pub sink: Sink,
}

// === impl Stores ===

impl Stores {
    /// Empty. Of Announcers those count that are sealed with one of these keys; all without keys.
    pub fn new(keyring: Option<Arc<Keyring>>) -> Self {
        Self {
            trust: Mutex::new(Trust::new(keyring)),
            ..Self::default()
        }
    }

    /// Changes of anything that a view is built of.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Renewals of the own Lease, as the watch delivers them.
    pub fn own_renewals(&self) -> watch::Receiver<u64> {
        self.own_renewals.subscribe()
    }

    /// Whether every list of which views are built is complete.
    pub fn are_ready(&self) -> bool {
        self.services.is_ready()
            && self.slices.is_ready()
            && self.nodes.is_ready()
            && self.classes.is_ready()
            && self.announcers.is_ready()
    }

    /// What they contain, with what this node reports about itself.
    pub fn cluster(&self, report: Option<&Report>, now: Instant) -> Cluster {
        let announcers = self.trust().counting(now);
        let interfaces = report.iter().flat_map(|report| &report.interfaces);
        Cluster {
            services: self.services.all(),
            slices: self.slices.all(),
            nodes: self.nodes.all(),
            classes: self.classes.all(),
            announcers,
            now: Timestamp::now(),
            interfaces: interfaces
                .map(|it| Arc::clone(&it.name))
                .collect::<BTreeSet<_>>(),
        }
    }

    /// When a view that is built now is out of date without a change.
    pub fn expiry(&self) -> Option<Instant> {
        self.trust().expiry()
    }

    /// The Announcers that do not count, or did not a while ago, and why; and when there are fewer
    /// without a change.
    pub fn refused(&self, now: Instant) -> (Vec<(Arc<str>, Refusal)>, Option<Instant>) {
        let mut trust = self.trust();
        (trust.refused(now), trust.next_report())
    }

    // Its maps change entry by entry, and a panic leaves no entry half changed.
    fn trust(&self) -> MutexGuard<'_, Trust> {
        self.trust.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A Node.
    pub fn node(&self, name: &NodeName) -> Option<Arc<NodeObject>> {
        self.nodes.get(&Arc::from(name.as_str()))
    }

    /// Whether the Nodes are known and this one does not exist.
    pub fn misses(&self, name: &NodeName) -> bool {
        self.nodes.is_ready() && self.node(name).is_none()
    }

    /// The Announcer object of a node, whether it counts or not; `None` also before the first list.
    pub fn announcer(&self, name: &NodeName) -> Option<Arc<AnnouncerFacts>> {
        self.announcers.get(&Arc::from(name.as_str()))
    }

    /// The latest Announcer object of a node that counts.
    pub fn trusted(&self, name: &NodeName) -> Option<Arc<AnnouncerFacts>> {
        self.trust().get(name.as_str())
    }

    /// Whether the first list of Announcers is complete.
    pub fn lists_announcers(&self) -> bool {
        self.announcers.is_ready()
    }

    /// The claims of all nodes, except those that this process wrote itself, and the Leases of
    /// all other nodes.
    pub fn inputs(&self, me: &NodeName, incarnation: &str) -> Vec<Input> {
        let announcers = self.trust().counting(Instant::now());
        let written = announcers.iter().filter_map(|it| claims(it, incarnation));
        let leases = self.leases.keys().into_iter();
        let leases = leases.filter_map(|name| lease_input(&name, *self.leases.get(&name)?, me));
        written.chain(leases).collect()
    }

    fn changed(&self) {
        self.changes
            .send_modify(|count| *count = count.wrapping_add(1));
    }
}

/// The claims of an Announcer, if another process wrote them. A process of this node that was
/// replaced by this one, or will replace it, is another process.
fn claims(facts: &AnnouncerFacts, incarnation: &str) -> Option<Input> {
    let own = facts.own.is_some() && facts.incarnation.as_deref() == Some(incarnation);
    (!own && !facts.claims.is_empty()).then(|| Input::Holdings(facts.claims.clone()))
}

/// The renewal of another node's Lease.
fn lease_input(name: &str, stamp: u64, me: &NodeName) -> Option<Input> {
    let node = NodeName::new(lease::node_of(name)?);
    (node != *me).then_some(Input::Lease { node, stamp })
}

/// A number that differs after each renewal.
fn stamp(lease: &WatchedLease) -> u64 {
    let renewed = lease
        .spec
        .as_ref()
        .and_then(|spec| spec.renew_time.as_deref());
    let version = lease.metadata.resource_version.as_deref();
    let mut hasher = DefaultHasher::new();
    (renewed, version).hash(&mut hasher);
    hasher.finish()
}

// === impl Watches ===

impl Watches {
    /// Starts one task per kind. They never end by themselves.
    pub fn start(self, stores: &Arc<Stores>, tasks: &mut JoinSet<()>) {
        let watches = Arc::new(self);
        let watch = |kind, gate: &str| Watch {
            client: watches.client.clone(),
            kind,
            gate: watches.health.gate(gate),
            metrics: watches.metrics.clone(),
        };
        let ours = |what: &str| {
            format!("the list of {what} (is the CRD installed? ballast crds | kubectl apply -f -)")
        };
        // Announcers and Leases first: their claims belong before the first view.
        let task = announcers(watch("announcers", &ours("Announcers")), &watches, stores);
        tasks.spawn(task);
        tasks.spawn(leases(
            watch("leases", "the list of Leases"),
            &watches,
            stores,
        ));
        tasks.spawn(services(watch("services", "the list of Services"), stores));
        let slices = watch("endpointslices", "the list of EndpointSlices");
        tasks.spawn(self::slices(slices, stores));
        tasks.spawn(nodes(watch("nodes", "the list of Nodes"), stores));
        let classes = watch("loadbalancerclasses", &ours("LoadBalancerClasses"));
        tasks.spawn(self::classes(classes, stores));
    }
}

impl Watches {
    /// Decides whether an Announcer counts, and passes on what it claims.
    fn judge(&self, stores: &Stores, name: &Arc<str>) {
        let facts = stores.announcers.get(name);
        let verdict = stores.trust().change(name, facts.clone(), Instant::now());
        match (verdict, facts) {
            (Verdict::Counts, Some(facts)) => {
                if let Some(claims) = claims(&facts, &self.incarnation) {
                    self.sink.pass(claims);
                }
            }
            (Verdict::Refused(why, is_news), _) => {
                self.refused.refused(why);
                if is_news && why != Refusal::Outdated {
                    warn!(
                        announcer = &**name,
                        why = why.as_str(),
                        "the status of an Announcer has no valid seal; ignoring it. {UNTRUSTED_FIX}"
                    );
                }
            }
            _ => {}
        }
    }

    /// A key may arrive later than an object that is sealed with it.
    async fn judge_again(&self, stores: &Stores) {
        let Some(keyring) = &self.keyring else {
            return std::future::pending().await;
        };
        let mut changes = keyring.changes();
        while changes.changed().await.is_ok() {
            let refused = stores.trust().refused_now();
            for name in &refused {
                self.judge(stores, name);
            }
            // Also without one: this node may have to seal its object again.
            stores.changed();
        }
    }
}

/// Calls `then` for changes of a complete list.
fn on_news<K: Key, V: PartialEq>(store: &Store<K, V>, then: impl Fn()) -> impl Fn(&Changed<K>) {
    move |changed| {
        let first = changed.phase == (crate::cluster::store::Phase::ListEnds { first: true });
        if first || store.is_ready() && !changed.keys.is_empty() {
            then();
        }
    }
}

fn services(watch: Watch, stores: &Arc<Stores>) -> impl Future<Output = ()> + use<> {
    let stores = Arc::clone(stores);
    async move {
        let news = on_news(&stores.services, || stores.changed());
        let parse = |name: &Name, service: &WatchedService| ServiceFacts::of(name, service);
        follow(watch, &stores.services, parse, news).await;
    }
}

fn slices(watch: Watch, stores: &Arc<Stores>) -> impl Future<Output = ()> + use<> {
    let stores = Arc::clone(stores);
    async move {
        let selected = Selected {
            api: Api::<WatchedSlice>::all(watch.client.clone()),
            labels: Some(OF_SERVICES),
        };
        let news = on_news(&stores.slices, || stores.changed());
        let parse = |name: &Name, slice: &WatchedSlice| SliceFacts::of(name, slice);
        follow_selected(watch, selected, &stores.slices, parse, news).await;
    }
}

fn nodes(watch: Watch, stores: &Arc<Stores>) -> impl Future<Output = ()> + use<> {
    let stores = Arc::clone(stores);
    async move {
        let news = on_news(&stores.nodes, || stores.changed());
        let parse = |_: &Arc<str>, node: &WatchedNode| NodeObject::of(node);
        follow(watch, &stores.nodes, parse, news).await;
    }
}

fn classes(watch: Watch, stores: &Arc<Stores>) -> impl Future<Output = ()> + use<> {
    let stores = Arc::clone(stores);
    async move {
        let news = on_news(&stores.classes, || stores.changed());
        let changed = |changed: &Changed<Arc<str>>| {
            for class in changed.keys.iter().filter_map(|it| stores.classes.get(it)) {
                class.iter().for_each(ClassFacts::complain);
            }
            news(changed);
        };
        let parse = |name: &Arc<str>, guard: &DeserializeGuard<LoadBalancerClass>| {
            ClassFacts::of(name, guard)
        };
        follow(watch, &stores.classes, parse, changed).await;
    }
}

fn announcers(
    watch: Watch,
    watches: &Arc<Watches>,
    stores: &Arc<Stores>,
) -> impl Future<Output = ()> + use<> {
    let (watches, stores) = (Arc::clone(watches), Arc::clone(stores));
    async move {
        let news = on_news(&stores.announcers, || stores.changed());
        let changed = |changed: &Changed<Arc<str>>| {
            for name in &changed.keys {
                watches.judge(&stores, name);
            }
            news(changed);
        };
        let parse = |name: &Arc<str>, guard: &DeserializeGuard<Announcer>| {
            AnnouncerFacts::of(&NodeName::new(name), guard, &watches.me)
        };
        tokio::select! {
            () = follow(watch, &stores.announcers, parse, changed) => {}
            () = watches.judge_again(&stores) => {}
        }
    }
}

fn leases(
    watch: Watch,
    watches: &Arc<Watches>,
    stores: &Arc<Stores>,
) -> impl Future<Output = ()> + use<> {
    let (watches, stores) = (Arc::clone(watches), Arc::clone(stores));
    async move {
        let selected = Selected {
            api: Api::<WatchedLease>::namespaced(watch.client.clone(), &watches.namespace),
            labels: Some(LABELS),
        };
        let changed = |changed: &Changed<Arc<str>>| {
            for name in &changed.keys {
                let Some(stamp) = stores.leases.get(name) else {
                    continue;
                };
                if lease::node_of(name) == Some(watches.me.as_str()) {
                    let renewals = &stores.own_renewals;
                    renewals.send_modify(|count| *count = count.wrapping_add(1));
                } else if let Some(input) = lease_input(name, *stamp, &watches.me) {
                    watches.sink.pass(input);
                }
            }
        };
        let parse = |_: &Arc<str>, lease: &WatchedLease| stamp(lease);
        follow_selected(watch, selected, &stores.leases, parse, changed).await;
    }
}
