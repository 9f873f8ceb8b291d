//! Metrics of the announcer. The agent counts, and what it reports is counted at a scrape. All labels
//! have few, fixed values.

use std::fmt::{Debug, Error};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ballast_agent::{BOUNDS, Counters, Durations, Report};
use ballast_announce::holding::Origin;
use ballast_announce::io::Problem;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::{Registry, Unit};
use tokio::sync::watch;
use tokio::time::Instant;

use super::checks::{self, Finding};
use super::object;
use super::stores::Stores;
use super::trust::Refusal;

/// Metrics of the part that speaks to the API server.
#[derive(Clone, Debug, Default)]
pub struct AnnouncerMetrics {
    connected: Gauge,
    /// Announcer objects that did not count, in the order of [`Refusal::ALL`].
    refused: [Counter; Refusal::ALL.len()],
    /// When the watch delivered a renewal of this node's Lease.
    renewed: Arc<Mutex<Option<Instant>>>,
}

/// Reads the agent's counters and its report at a scrape.
#[derive(Debug)]
pub struct AgentMetrics {
    /// What it counts.
    pub counters: Arc<Counters>,
    /// What it reports.
    pub reports: watch::Receiver<Option<Arc<Report>>>,
}

/// What the checks of the environment have found.
#[derive(Debug)]
pub(super) struct Findings(pub(super) watch::Receiver<Option<Arc<Vec<Finding>>>>);

/// The age of this node's Lease.
#[derive(Debug)]
struct LeaseAge(Arc<Mutex<Option<Instant>>>);

/// The Announcer objects that do not count.
#[derive(Debug)]
struct Objects {
    stores: Arc<Stores>,
    refused: [Counter; Refusal::ALL.len()],
}

/// The times of the moves with one cause.
struct Times(Durations);

// === impl AnnouncerMetrics ===

impl AnnouncerMetrics {
    /// Creates the metrics and registers them in `registry`.
    pub fn register(registry: &mut Registry, stores: &Arc<Stores>) -> Self {
        let metrics = Self::default();
        registry.register_collector(Box::new(Objects {
            stores: Arc::clone(stores),
            refused: metrics.refused.clone(),
        }));
        registry.register(
            "ballast_announcer_api_connected",
            "Whether the renewals of this node's Lease succeed and come back through the watch",
            metrics.connected.clone(),
        );
        registry.register_collector(Box::new(LeaseAge(Arc::clone(&metrics.renewed))));
        metrics
    }

    /// Records whether the API server can be reached.
    pub fn connected(&self, connected: bool) {
        self.connected.set(i64::from(connected));
    }

    /// An Announcer object does not count.
    pub fn refused(&self, why: Refusal) {
        let mut all = Refusal::ALL.iter().zip(&self.refused);
        if let Some((_, counter)) = all.find(|(it, _)| **it == why) {
            counter.inc();
        }
    }

    /// The watch delivered a renewal of this node's Lease.
    pub fn renewed(&self) {
        *lock(&self.renewed) = Some(Instant::now());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // It has one value, which is always complete.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl LeaseAge ===

impl Collector for LeaseAge {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let Some(renewed) = *lock(&self.0) else {
            return Ok(());
        };
        let encoder = encoder.encode_descriptor(
            "ballast_announcer_lease_age",
            "Time since the last renewal of this node's Lease that came back through the watch",
            Some(&Unit::Seconds),
            MetricType::Gauge,
        )?;
        ConstGauge::new(renewed.elapsed().as_secs_f64()).encode(encoder)
    }
}

// === impl Objects ===

impl Collector for Objects {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let refused = Refusal::ALL.iter().zip(&self.refused);
        let refused: Vec<_> = refused
            .map(|(why, counter)| (why.as_str(), counter.get()))
            .collect();
        family(
            &mut encoder,
            MetricType::Counter,
            "ballast_announcer_objects_refused",
            "Statuses of Announcers that this node ignored: without a seal (no_seal), with a wrong one (wrong_seal), or older than one that it knows (outdated)",
            "reason",
            &refused,
        )?;
        let untrusted = self.stores.refused(Instant::now()).0.len();
        let encoder = encoder.encode_descriptor(
            "ballast_announcer_untrusted_objects",
            "Announcers whose status had no valid seal in the last 5 minutes, so that this node ignored it",
            None,
            MetricType::Gauge,
        )?;
        ConstGauge::new(i64::try_from(untrusted).unwrap_or(i64::MAX)).encode(encoder)
    }
}

// === impl AgentMetrics ===

impl Collector for AgentMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        frames(&self.counters, &mut encoder)?;
        messages(&self.counters, &mut encoder)?;
        moves(&self.counters, &mut encoder)?;
        let report = self.reports.borrow().clone();
        reported(&report.unwrap_or_default(), &mut encoder)?;
        let members = [
            ("alive", &self.counters.members_alive),
            ("silent", &self.counters.members_silent),
            ("unknown", &self.counters.members_unknown),
        ];
        let members = members.map(|(state, number)| (state, number.get()));
        family(
            &mut encoder,
            MetricType::Gauge,
            "ballast_announcer_members",
            "Announcers of other nodes: heard a moment ago, silent, or not heard and not expected to be",
            "state",
            &members,
        )
    }
}

fn frames(counters: &Counters, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
    let sent = [
        ("arp_reply", &counters.arp_replies),
        ("advertisement", &counters.advertisements),
        ("announcement", &counters.announcements),
        ("probe", &counters.probes),
        ("query", &counters.queries),
    ];
    family(
        encoder,
        MetricType::Counter,
        "ballast_announcer_frames_sent",
        "Frames sent: answers for addresses of Services (arp_reply, advertisement), announcements, probes of hosts, and questions who has an address",
        "kind",
        &sent.map(|(kind, counter)| (kind, counter.get())),
    )?;
    let dropped = [
        ("stopped", &counters.stopped),
        ("unsent", &counters.unsent),
        ("flood", &counters.flood),
    ];
    family(
        encoder,
        MetricType::Counter,
        "ballast_announcer_frames_dropped",
        "Frames that were not answered because the process was stopped a moment ago (stopped), could not be sent (unsent), or were ignored because too many arrived at once (flood)",
        "reason",
        &dropped.map(|(reason, counter)| (reason, counter.get())),
    )?;
    for (name, help, counter) in [
        (
            "ballast_announcer_foreign_claims",
            "Frames in which another host claims an address that this node announces",
            &counters.foreign_claims,
        ),
        (
            "ballast_announcer_late_ticks",
            "Ticks that came more than 70 ms late, because the process or its host did not run: probes that were under way count for nothing",
            &counters.late_ticks,
        ),
    ] {
        let encoder = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        ConstCounter::new(counter.get()).encode(encoder)?;
    }
    Ok(())
}

fn messages(counters: &Counters, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
    use std::sync::atomic::Ordering::Relaxed;
    let post = &counters.post;
    let messages = [
        ("sent", &post.sent),
        ("received", &post.received),
        ("not_sent", &post.not_sent),
        ("not_opened", &post.not_opened),
        ("malformed", &post.malformed),
        ("not_fresh", &post.not_fresh),
        ("dropped", &post.dropped),
    ];
    family(
        encoder,
        MetricType::Counter,
        "ballast_announcer_messages",
        "Messages between announcers: sent, received, and refused because they could not be sent, do not open with a known key (not_opened), are of another version (malformed), are copies or the first of a process (not_fresh), or came while too many waited (dropped)",
        "result",
        &messages.map(|(result, counter)| (result, counter.load(Relaxed))),
    )?;
    let cables = &counters.cables;
    let cables = [
        ("connected", &cables.connected),
        ("closed", &cables.closed),
        ("lost", &cables.lost),
        ("refused", &cables.refused),
        ("too_many", &cables.too_many),
        ("not_dialled", &cables.not_dialled),
        ("dropped", &cables.dropped),
    ];
    family(
        encoder,
        MetricType::Counter,
        "ballast_announcer_cables",
        "TCP connections between announcers: connected, closed by the end of a process, lost, refused without the key, ended because there were too many, not dialled, and changes that were dropped because too many events waited",
        "event",
        &cables.map(|(event, counter)| (event, counter.load(Relaxed))),
    )
}

fn moves(counters: &Counters, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
    let all = Origin::ALL.map(|cause| (cause.as_str(), counters.moves.of(cause)));
    let counts = all.map(|(cause, times)| (cause, times.counts.iter().sum()));
    family(
        encoder,
        MetricType::Counter,
        "ballast_announcer_moves",
        "Addresses that this node began to announce, by cause",
        "cause",
        &counts,
    )?;
    let mut encoder = encoder.encode_descriptor(
        "ballast_announcer_failover",
        "Time from the last sign of life of the former node, or from the decision, to the first announcement by this node",
        Some(&Unit::Seconds),
        MetricType::Histogram,
    )?;
    for (cause, times) in all {
        let labels = [("cause", cause)];
        Times(times).encode(encoder.encode_family(&labels)?)?;
    }
    Ok(())
}

fn reported(report: &Report, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
    let count = |kind: fn(&Problem) -> bool| {
        let found = report.problems.iter().filter(|problem| kind(problem));
        u64::try_from(found.count()).unwrap_or(u64::MAX)
    };
    let problems = [
        (
            object::ADDRESS_CONFLICT,
            count(|it| matches!(it, Problem::AddressConflict { .. })),
        ),
        (
            object::PROBES_INTERCEPTED,
            count(|it| matches!(it, Problem::ProbesIntercepted { .. })),
        ),
        (
            object::CUT_OFF,
            count(|it| matches!(it, Problem::CutOff { .. })),
        ),
        (
            object::NO_ENDPOINTS,
            count(|it| matches!(it, Problem::NoEndpoints { .. })),
        ),
        (
            object::TOO_MANY_ADDRESSES,
            count(|it| matches!(it, Problem::TooManyAddresses { .. })),
        ),
    ];
    family(
        encoder,
        MetricType::Gauge,
        "ballast_announcer_problems",
        "Addresses, hosts or interfaces with a problem, by the condition of the Announcer object that names them",
        "condition",
        &problems,
    )?;
    let held = report.claims.as_ref().map_or(0, |claims| claims.len());
    let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    let addresses = [
        ("held", number(held)),
        ("announced", number(report.announced.len())),
    ];
    family(
        encoder,
        MetricType::Gauge,
        "ballast_announcer_addresses",
        "Addresses that this node holds, and those that it answers for now",
        "state",
        &addresses,
    )
}

impl Collector for Findings {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let found = self.0.borrow().clone();
        // Nothing is known before the first check.
        let Some(found) = found else {
            return Ok(());
        };
        let all: Vec<(&str, u64)> = checks::kinds()
            .map(|kind| (kind, u64::from(found.iter().any(|it| it.kind == kind))))
            .collect();
        family(
            &mut encoder,
            MetricType::Gauge,
            "ballast_announcer_findings",
            "1 if a check of the node's environment has found something, by the condition of the Announcer object",
            "condition",
            &all,
        )
    }
}

/// Counters or gauges that differ in one label.
fn family(
    encoder: &mut DescriptorEncoder<'_>,
    kind: MetricType,
    name: &str,
    help: &str,
    label: &str,
    values: &[(&str, u64)],
) -> Result<(), Error> {
    let mut encoder = encoder.encode_descriptor(name, help, None, kind)?;
    for (value, number) in values {
        let labels = [(label, *value)];
        let encoder = encoder.encode_family(&labels)?;
        if let MetricType::Gauge = kind {
            ConstGauge::new(i64::try_from(*number).unwrap_or(i64::MAX)).encode(encoder)?;
        } else {
            ConstCounter::new(*number).encode(encoder)?;
        }
    }
    Ok(())
}

// === impl Times ===

impl EncodeMetric for Times {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), Error> {
        let bounds = BOUNDS.into_iter().chain([f64::INFINITY]);
        let buckets: Vec<_> = bounds.zip(self.0.counts).collect();
        let count = self.0.counts.iter().sum();
        encoder.encode_histogram::<NoLabelSet>(self.0.sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ballast_announce::Mac;
    use prometheus_client::encoding::text::encode;

    use super::*;

    fn scrape(registry: &Registry) -> String {
        let mut text = String::new();
        encode(&mut text, registry).unwrap();
        text
    }

    #[test]
    fn what_the_agent_counts_and_reports_is_shown() {
        let counters = Arc::new(Counters::default());
        counters.arp_replies.add();
        counters.members_silent.set(2);
        counters
            .moves
            .add(Origin::HostDown, Duration::from_millis(700));
        counters.moves.add(Origin::HostDown, Duration::from_mins(2));
        let conflict = |last| Problem::AddressConflict {
            address: [192, 0, 2, last].into(),
            mac: Mac([2, 0, 0, 0, 0, 9]),
            node: None,
        };
        let report = Report {
            problems: [conflict(1), conflict(2)].into(),
            ..Report::default()
        };
        let (_sender, reports) = watch::channel(Some(Arc::new(report)));
        let mut registry = Registry::default();
        registry.register_collector(Box::new(AgentMetrics { counters, reports }));
        let text = scrape(&registry);
        for line in [
            r#"ballast_announcer_frames_sent_total{kind="arp_reply"} 1"#,
            r#"ballast_announcer_messages_total{result="not_opened"} 0"#,
            r#"ballast_announcer_moves_total{cause="HostDown"} 2"#,
            r#"ballast_announcer_failover_seconds_bucket{le="0.5",cause="HostDown"} 0"#,
            r#"ballast_announcer_failover_seconds_bucket{le="0.75",cause="HostDown"} 1"#,
            r#"ballast_announcer_failover_seconds_bucket{le="+Inf",cause="HostDown"} 2"#,
            r#"ballast_announcer_failover_seconds_count{cause="New"} 0"#,
            r#"ballast_announcer_problems{condition="AddressConflict"} 2"#,
            r#"ballast_announcer_problems{condition="CutOff"} 0"#,
            r#"ballast_announcer_members{state="silent"} 2"#,
            r#"ballast_announcer_addresses{state="held"} 0"#,
        ] {
            assert!(text.lines().any(|it| it == line), "{line} not in:\n{text}");
        }
    }

    #[test]
    fn findings_are_counted_once_they_are_known() {
        let (sender, found) = watch::channel(None);
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Findings(found)));
        assert!(!scrape(&registry).contains("ballast_announcer_findings"));
        let finding = Finding {
            kind: "NoInterface",
            reason: "NoSubnet",
            message: String::new(),
        };
        sender.send_replace(Some(Arc::new(vec![finding])));
        let text = scrape(&registry);
        for line in [
            r#"ballast_announcer_findings{condition="NoInterface"} 1"#,
            r#"ballast_announcer_findings{condition="Wireless"} 0"#,
        ] {
            assert!(text.contains(line), "{text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_age_of_the_lease_counts_from_its_last_renewal() {
        let mut registry = Registry::default();
        let metrics = AnnouncerMetrics::register(&mut registry, &Arc::default());
        assert!(!scrape(&registry).contains("lease_age_seconds "));
        metrics.renewed();
        tokio::time::advance(Duration::from_secs(7)).await;
        let text = scrape(&registry);
        assert!(
            text.contains("ballast_announcer_lease_age_seconds 7.0"),
            "{text}"
        );
    }
}
