//! Every metric of the controller, registered in one place. Labels are closed sets:
//! classes, outcomes and reasons, never names of Services.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::cluster::view::Name;

/// The metrics; cheap to update from anywhere.
pub struct Metrics {
    reconciles: Family<Outcome, Counter>,
    durations: Family<Outcome, Histogram>,
    time_to_address: Histogram,
    events: Family<Outcome, Counter>,
    writes: Family<Kind, Counter>,
    retargets: Family<Retarget, Counter>,
    provider_errors: Family<ClassReason, Counter>,
    watch_errors: Family<Kind, Counter>,
    targets: Gauge,
    leader: Gauge,
    arrivals: Mutex<HashMap<Name, Instant>>,
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

// === impl Metrics ===

impl Metrics {
    /// All metrics, registered.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            reconciles: Family::default(),
            durations: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(0.0005, 2.0, 15))
            }),
            time_to_address: Histogram::new(exponential_buckets(0.002, 2.0, 17)),
            events: Family::default(),
            writes: Family::default(),
            retargets: Family::default(),
            provider_errors: Family::default(),
            watch_errors: Family::default(),
            targets: Gauge::default(),
            leader: Gauge::default(),
            arrivals: Mutex::default(),
        };
        metrics.describe(registry);
        metrics
    }

    fn describe(&self, registry: &mut Registry) {
        registry.register(
            "ballast_reconciles",
            "Reconciles of Services by outcome",
            self.reconciles.clone(),
        );
        registry.register_with_unit(
            "ballast_reconcile_duration",
            "Time one reconcile took",
            Unit::Seconds,
            self.durations.clone(),
        );
        registry.register_with_unit(
            "ballast_time_to_address",
            "From the creation of a Service, or its change of type, to its published address",
            Unit::Seconds,
            self.time_to_address.clone(),
        );
        registry.register(
            "ballast_events",
            "Kubernetes events by what became of them",
            self.events.clone(),
        );
        registry.register(
            "ballast_api_writes",
            "Writes to the API server by kind",
            self.writes.clone(),
        );
        registry.register(
            "ballast_retargets",
            "Changes of a class's targets by outcome",
            self.retargets.clone(),
        );
        registry.register(
            "ballast_provider_errors",
            "Failed provider calls by class and reason",
            self.provider_errors.clone(),
        );
        registry.register(
            "ballast_watch_errors",
            "Interrupted watches by kind",
            self.watch_errors.clone(),
        );
        registry.register(
            "ballast_targets",
            "Nodes eligible as targets",
            self.targets.clone(),
        );
        registry.register(
            "ballast_leader",
            "1 on the leader, 0 elsewhere",
            self.leader.clone(),
        );
    }

    /// A reconcile ended.
    pub fn reconciled(&self, outcome: &'static str, took: Duration) {
        let label = Outcome { outcome };
        self.reconciles.get_or_create(&label).inc();
        self.durations
            .get_or_create(&label)
            .observe(took.as_secs_f64());
    }

    /// An event was `sent`, `refused`, `failed` or `dropped`.
    pub fn event(&self, outcome: &'static str) {
        self.events.get_or_create(&Outcome { outcome }).inc();
    }

    /// One write to the API server.
    pub fn wrote(&self, kind: &'static str) {
        self.writes.get_or_create(&Kind { kind }).inc();
    }

    /// The targets of a class were `changed`, or that `failed`.
    pub fn retargeted(&self, class: &str, outcome: &'static str) {
        let class = class.to_owned();
        self.retargets
            .get_or_create(&Retarget { class, outcome })
            .inc();
    }

    /// A provider call failed.
    pub fn provider_error(&self, class: &str, reason: &'static str) {
        let class = class.to_owned();
        self.provider_errors
            .get_or_create(&ClassReason { class, reason })
            .inc();
    }

    /// A watch was interrupted.
    pub fn watch_error(&self, kind: &'static str) {
        self.watch_errors.get_or_create(&Kind { kind }).inc();
    }

    /// How many nodes are targets now.
    pub fn set_targets(&self, targets: usize) {
        self.targets.set(i64::try_from(targets).unwrap_or(i64::MAX));
    }

    /// Whether this process leads.
    pub fn set_leader(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// A Service without an address arrived in the watch.
    pub fn arrived(&self, name: &Name, now: Instant) {
        self.arrivals().entry(name.clone()).or_insert(now);
    }

    /// Its first address is published. `age` counts for a Service that was there before
    /// this process watched: one that waited for a leader has waited all the same.
    pub fn addressed(&self, name: &Name, now: Instant, age: Duration) {
        let arrived = self.arrivals().remove(name);
        let waited = arrived.map_or(age, |since| now - since);
        self.time_to_address.observe(waited.as_secs_f64());
    }

    /// There is no Service of this name any more.
    pub fn departed(&self, name: &Name) {
        self.arrivals().remove(name);
    }

    fn arrivals(&self) -> std::sync::MutexGuard<'_, HashMap<Name, Instant>> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
