//! Metrics that are updated as things happen, one struct per component: each task gets the
//! struct of its own component, and a process registers only the components that it has.
//!
//! Labels have a small, fixed set of values (classes, kinds, outcomes, reasons), never names of
//! Services. Clones of a struct share its values.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::cluster::view::Name;
use crate::process::room::give_back;

/// Metrics of the watches.
#[derive(Clone, Debug, Default)]
pub struct WatchMetrics {
    errors: Family<Kind, Counter>,
    missed: Family<Kind, Counter>,
    compared: Family<Kind, Gauge>,
}

/// Metrics of the writer.
#[derive(Clone, Debug, Default)]
pub struct WriteMetrics {
    writes: Family<Kind, Counter>,
}

/// Metrics of the nodes as targets.
#[derive(Clone, Debug, Default)]
pub struct TargetMetrics {
    targets: Gauge,
}

/// Metrics of the leader election.
#[derive(Clone, Debug, Default)]
pub struct LeaderMetrics {
    leader: Gauge,
}

/// Metrics of the loop that reconciles Services.
#[derive(Clone, Debug)]
pub struct ServiceMetrics {
    reconciles: Family<Outcome, Counter>,
    durations: Family<Outcome, Histogram>,
    time_to_address: Histogram,
    arrivals: Arc<Mutex<HashMap<Name, Instant>>>,
}

/// Metrics of the calls to providers.
#[derive(Clone, Debug, Default)]
pub struct ProviderMetrics {
    retargets: Family<Retarget, Counter>,
    errors: Family<ClassReason, Counter>,
}

/// Metrics of the objects that somebody else keeps changing.
#[derive(Clone, Debug, Default)]
pub struct ContestMetrics {
    contested: Family<Kind, Gauge>,
}

/// Metrics of the sender of events.
#[derive(Clone, Debug, Default)]
pub struct EventMetrics {
    events: Family<Outcome, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Retarget {
    class: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClassReason {
    class: String,
    reason: &'static str,
}

// === impl WatchMetrics ===

impl WatchMetrics {
    /// Creates the metrics and registers them in `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "ballast_watch_errors",
            "Interrupted watches by kind",
            metrics.errors.clone(),
        );
        registry.register(
            "ballast_watch_missed",
            "Objects whose changes a watch did not deliver, found by comparison with a list",
            metrics.missed.clone(),
        );
        registry.register(
            "ballast_watch_compared_timestamp_seconds",
            "When a watch was last compared with a list; the start of the process before that",
            metrics.compared.clone(),
        );
        metrics
    }

    /// Counts an interruption of a watch.
    pub fn interrupted(&self, kind: &'static str) {
        self.errors.get_or_create(&Kind { kind }).inc();
    }

    /// Counts objects whose changes a watch did not deliver.
    pub fn missed(&self, kind: &'static str, objects: usize) {
        let objects = u64::try_from(objects).unwrap_or(u64::MAX);
        self.missed.get_or_create(&Kind { kind }).inc_by(objects);
    }

    /// Records that a watch was compared with a list.
    pub fn compared(&self, kind: &'static str, now: Timestamp) {
        self.compared
            .get_or_create(&Kind { kind })
            .set(now.as_second());
    }

    /// A kind is not watched any more.
    pub fn ended(&self, kind: &'static str) {
        self.compared.remove(&Kind { kind });
    }
}

// === impl WriteMetrics ===

impl WriteMetrics {
    /// Creates the metrics and registers them in `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "ballast_api_writes",
            "Writes to the API server by kind",
            metrics.writes.clone(),
        );
        metrics
    }

    /// Counts one write to the API server.
    pub fn wrote(&self, kind: &'static str) {
        self.writes.get_or_create(&Kind { kind }).inc();
    }
}

// === impl TargetMetrics ===

impl TargetMetrics {
    /// Creates the metrics and registers them in `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "ballast_targets",
            "Nodes eligible as targets",
            metrics.targets.clone(),
        );
        metrics
    }

    /// Sets the number of nodes that are targets.
    pub fn set(&self, targets: usize) {
        self.targets.set(i64::try_from(targets).unwrap_or(i64::MAX));
    }
}

// === impl LeaderMetrics ===

impl LeaderMetrics {
    /// Creates the metrics and registers them in `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "ballast_leader",
            "1 on the leader, 0 elsewhere",
            metrics.leader.clone(),
        );
        metrics
    }

    /// Sets whether this process leads.
    pub fn set(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }
}

// === impl ServiceMetrics ===

impl ServiceMetrics {
    /// Creates the metrics and registers them in `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            reconciles: Family::default(),
            durations: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(0.0005, 2.0, 15))
            }),
            time_to_address: Histogram::new(exponential_buckets(0.002, 2.0, 17)),
            arrivals: Arc::default(),
        };
        registry.register(
            "ballast_reconciles",
            "Reconciles of Services by outcome",
            metrics.reconciles.clone(),
        );
        registry.register_with_unit(
            "ballast_reconcile_duration",
            "Time one reconcile took",
            Unit::Seconds,
            metrics.durations.clone(),
        );
        registry.register_with_unit(
            "ballast_time_to_address",
            "From the creation of a Service, or its change of type, to its published address",
            Unit::Seconds,
            metrics.time_to_address.clone(),
        );
        metrics
    }

    /// Counts a finished reconcile.
    pub fn reconciled(&self, outcome: &'static str, took: Duration) {
        let label = Outcome { outcome };
        self.reconciles.get_or_create(&label).inc();
        self.durations
            .get_or_create(&label)
            .observe(took.as_secs_f64());
    }

    /// Records that the watch delivered a Service without an address.
    pub fn arrived(&self, name: &Name, now: Instant) {
        self.arrivals().entry(name.clone()).or_insert(now);
    }

    /// Records the first address of a Service. `age` is used for a Service that is older than
    /// this process's watch.
    pub fn addressed(&self, name: &Name, now: Instant, age: Duration) {
        let arrived = self.end_arrival(name);
        let waited = arrived.map_or(age, |since| now - since);
        self.time_to_address.observe(waited.as_secs_f64());
    }

    /// Records that no Service of this name exists any more.
    pub fn departed(&self, name: &Name) {
        self.end_arrival(name);
    }

    /// When a Service arrived that had no address since.
    fn end_arrival(&self, name: &Name) -> Option<Instant> {
        let mut arrivals = self.arrivals();
        let arrived = arrivals.remove(name);
        give_back(&mut arrivals);
        arrived
    }

    fn arrivals(&self) -> MutexGuard<'_, HashMap<Name, Instant>> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl ProviderMetrics ===

impl ProviderMetrics {
    /// Creates the metrics and registers them in `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "ballast_retargets",
            "Changes of a class's targets by outcome",
            metrics.retargets.clone(),
        );
        registry.register(
            "ballast_provider_errors",
            "Failed provider calls by class and reason",
            metrics.errors.clone(),
        );
        metrics
    }

    /// Counts an update of a class's targets: `changed` or `failed`.
    pub fn retargeted(&self, class: &str, outcome: &'static str) {
        let class = class.to_owned();
        self.retargets
            .get_or_create(&Retarget { class, outcome })
            .inc();
    }

    /// Counts a failed provider call.
    pub fn failed(&self, class: &str, reason: &'static str) {
        let class = class.to_owned();
        self.errors
            .get_or_create(&ClassReason { class, reason })
            .inc();
    }
}

// === impl ContestMetrics ===

impl ContestMetrics {
    /// Creates the metrics and registers them in `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "ballast_contested_objects",
            "Objects that another client keeps changing back, by kind",
            metrics.contested.clone(),
        );
        metrics
    }

    /// Sets how many objects of a kind are contested.
    pub fn set(&self, kind: &'static str, objects: usize) {
        let objects = i64::try_from(objects).unwrap_or(i64::MAX);
        self.contested.get_or_create(&Kind { kind }).set(objects);
    }
}

// === impl EventMetrics ===

impl EventMetrics {
    /// Creates the metrics and registers them in `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "ballast_events",
            "Kubernetes events by what became of them",
            metrics.events.clone(),
        );
        metrics
    }

    /// Counts an event: `sent`, `refused`, `failed` or `dropped`.
    pub fn event(&self, outcome: &'static str) {
        self.events.get_or_create(&Outcome { outcome }).inc();
    }
}
