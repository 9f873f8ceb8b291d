//! Metrics that are counted at scrape time: Services by state, their addresses, the queue, and the
//! calls to clouds.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ballast_provider::Prices;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::class::board::Board;
use crate::class::orphans::Found;
use crate::class::{Classes, Instance};
use crate::cluster::conditions::{ACCEPTED, PROGRAMMED};
use crate::cluster::store::Store;
use crate::cluster::view::{Name, ServiceView};
use crate::pools::{AddressBook, placed_by};
use crate::process::queue::Queue;

/// Counts at scrape time.
pub struct ScrapeMetrics {
    /// The Services, as watched.
    pub services: Arc<Store<Name, ServiceView>>,
    /// The classes.
    pub board: Board,
    /// The work queue.
    pub queue: Queue<Name>,
    /// Which node announces which address.
    pub book: AddressBook,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, EncodeLabelSet)]
struct Labels {
    class: String,
    reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, EncodeLabelSet)]
struct AddressLabels {
    class: String,
    announced: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, EncodeLabelSet)]
struct CallLabels {
    class: String,
    action: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, EncodeLabelSet)]
struct ClassLabels {
    class: String,
}

/// Services that wait, by class and reason.
fn pending(classes: &Classes, services: &[Arc<ServiceView>]) -> BTreeMap<(String, String), i64> {
    let mut counts = BTreeMap::new();
    for service in services {
        let Some(class) = classes.claim(service) else {
            continue;
        };
        // Only existing classes become labels, so users cannot create metrics.
        let class = if classes.views.contains_key(class) {
            class
        } else {
            ""
        };
        if let Some(reason) = pending_reason(service) {
            *counts
                .entry((class.to_owned(), reason.to_owned()))
                .or_insert(0) += 1;
        }
    }
    counts
}

/// The addresses that Services of `l2` classes publish, by class and whether a node announces
/// them. An address that Services share counts once.
fn addresses(
    classes: &Classes,
    services: &[Arc<ServiceView>],
    announces: impl Fn(IpAddr) -> bool,
) -> BTreeMap<(String, bool), i64> {
    let mut counts = BTreeMap::new();
    // A class without an address that is not announced has that series, too: an alert must end.
    for class in classes.views.values().filter(|class| class.uses_pools()) {
        for announced in [false, true] {
            counts.insert((class.name.clone(), announced), 0);
        }
    }
    let mut seen = HashSet::new();
    for service in services {
        let Some(class) = placed_by(service, classes) else {
            continue;
        };
        for address in service.addresses() {
            if seen.insert(address) {
                let count = counts.entry((class.to_owned(), announces(address)));
                *count.or_insert(0) += 1;
            }
        }
    }
    counts
}

/// Why a Service has no working load balancer; `None` if it has one.
pub fn pending_reason(service: &ServiceView) -> Option<&str> {
    let refused = service
        .condition(ACCEPTED)
        .filter(|it| it.status == "False");
    let unprogrammed = service
        .condition(PROGRAMMED)
        .filter(|it| it.status != "True");
    match (refused.or(unprogrammed), service.condition(PROGRAMMED)) {
        (Some(condition), _) => Some(&condition.reason),
        (None, Some(_)) => None,
        (None, None) => Some("Unseen"),
    }
}

// === impl ScrapeMetrics ===

impl fmt::Debug for ScrapeMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScrapeMetrics").finish_non_exhaustive()
    }
}

impl Collector for ScrapeMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let as_i64 = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let depth = ConstGauge::new(as_i64(self.queue.depth()));
        let in_flight = ConstGauge::new(as_i64(self.queue.in_flight()));
        let oldest = ConstGauge::new(self.queue.oldest_age().unwrap_or_default().as_secs_f64());
        gauge(
            &mut encoder,
            "ballast_queue_depth",
            "Services due for a reconcile",
            &depth,
        )?;
        gauge(
            &mut encoder,
            "ballast_queue_in_flight",
            "Services being reconciled",
            &in_flight,
        )?;
        gauge(
            &mut encoder,
            "ballast_queue_oldest_age_seconds",
            "How long the Service that waits longest for a worker has waited",
            &oldest,
        )?;
        let name = "ballast_services_pending";
        let help = "Services without a working load balancer, by class and reason";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for ((class, reason), count) in pending(&self.board.snapshot(), &self.services.all()) {
            let labels = Labels { class, reason };
            ConstGauge::new(count).encode(family.encode_family(&labels)?)?;
        }
        provider_calls(&mut encoder, &self.board.snapshot())?;
        orphans(&mut encoder, &self.board.snapshot())?;
        let table = self.book.announcements();
        // Only a leader knows.
        if !table.is_open() {
            return Ok(());
        }
        let name = "ballast_service_addresses";
        let help =
            "Addresses of Services of l2 classes, by class and whether a node announces them";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        let classes = self.board.snapshot();
        let counts = addresses(&classes, &self.services.all(), |it| table.announces(it));
        for ((class, is_announced), count) in counts {
            let announced = if is_announced { "true" } else { "false" };
            let labels = AddressLabels { class, announced };
            ConstGauge::new(count).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

/// The calls to clouds. The counts of a class begin anew when its settings change.
fn provider_calls(
    encoder: &mut DescriptorEncoder<'_>,
    classes: &Classes,
) -> Result<(), fmt::Error> {
    let mut all = Vec::new();
    for (class, instance) in &classes.instances {
        let Instance::Ready(provider) = instance else {
            continue;
        };
        all.extend(provider.calls().into_iter().map(|count| {
            let labels = CallLabels {
                class: class.clone(),
                action: count.action,
                result: count.result,
            };
            (labels, count)
        }));
    }
    let name = "ballast_provider_calls";
    let help = "Calls to the clouds of classes, by action and result";
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, count) in &all {
        ConstCounter::new(count.calls).encode(family.encode_family(labels)?)?;
    }
    let name = "ballast_provider_call_seconds";
    let help = "The time that calls to the clouds of classes took, all together";
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, count) in &all {
        let took = count.took.as_secs_f64();
        ConstCounter::new(took).encode(family.encode_family(labels)?)?;
    }
    Ok(())
}

/// Name, help and value of a gauge.
type Count = (&'static str, &'static str, fn(&Found) -> usize);

/// What the last survey of each class has found. Only the leader surveys.
fn orphans(encoder: &mut DescriptorEncoder<'_>, classes: &Classes) -> Result<(), fmt::Error> {
    let all = || {
        let found = classes.found.iter();
        found.map(|(class, found)| {
            let class = class.clone();
            (ClassLabels { class }, found)
        })
    };
    let counts: [Count; 4] = [
        (
            "ballast_orphans",
            "Services that do not exist and still have a load balancer, by class, as of the last survey",
            |found| found.orphans.len(),
        ),
        (
            "ballast_load_balancers_retained",
            "Load balancers that were kept when their Service was deleted (deletionPolicy: Retain), by class",
            |found| found.retained.len(),
        ),
        (
            "ballast_load_balancers_kept",
            "Load balancers with the tag ballast.dev/keep, by class",
            |found| found.kept.len(),
        ),
        (
            "ballast_identity_shared",
            "1 if a copy of this cluster uses the load balancers of the class, so that nothing is deleted",
            |found| usize::from(found.shared.is_some()),
        ),
    ];
    for (name, help, count) in counts {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, found) in all() {
            let count = i64::try_from(count(found)).unwrap_or(i64::MAX);
            ConstGauge::new(count).encode(family.encode_family(&labels)?)?;
        }
    }
    let name = "ballast_orphans_cost_dollars_per_month";
    let help =
        "What load balancers without a Service cost in a month at AWS's list prices, by class";
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, found) in all() {
        let cost = Prices::default().per_month(found.billed()).dollars();
        ConstGauge::new(cost).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    metric: &impl EncodeMetric,
) -> Result<(), fmt::Error> {
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::class::ClassView;

    #[derive(Debug)]
    struct Calls(Classes);

    impl Collector for Calls {
        fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
            provider_calls(&mut encoder, &self.0)
        }
    }

    #[derive(Debug)]
    struct Orphans(Classes);

    impl Collector for Orphans {
        fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
            orphans(&mut encoder, &self.0)
        }
    }

    #[test]
    fn orphans_are_counted_with_their_cost() {
        let mut registry = Registry::default();
        let mut classes = Classes::test(["a", "b"].map(ClassView::test));
        let found = Found {
            orphans: vec![crate::class::orphans::Orphan::test("web")],
            retained: vec!["kept-1".to_owned()],
            ..Found::default()
        };
        classes.found.insert("a".to_owned(), Arc::new(found));
        classes.found.remove("b");
        registry.register_collector(Box::new(Orphans(classes)));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            r#"ballast_orphans{class="a"} 1"#,
            r#"ballast_load_balancers_retained{class="a"} 1"#,
            r#"ballast_load_balancers_kept{class="a"} 0"#,
            r#"ballast_identity_shared{class="a"} 0"#,
            r#"ballast_orphans_cost_dollars_per_month{class="a"} 16.425"#,
        ] {
            assert!(text.contains(line), "{text}");
        }
        assert!(!text.contains(r#"class="b""#), "nothing was surveyed there");
    }

    #[test]
    fn calls_to_clouds_are_counted_by_class() {
        let mut registry = Registry::default();
        let classes = Classes::test(["a", "b"].map(ClassView::test));
        registry.register_collector(Box::new(Calls(classes)));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            r#"ballast_provider_calls_total{class="a",action="Look",result="ok"} 2"#,
            r#"ballast_provider_calls_total{class="b",action="Look",result="ok"} 2"#,
            r#"ballast_provider_call_seconds_total{class="a",action="Look",result="ok"} 0.25"#,
        ] {
            assert!(text.contains(line), "{text}");
        }
    }
}
