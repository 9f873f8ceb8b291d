//! Starts the agent, and connects it: its ends, its metrics, and a check that it is not stuck.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use ballast_agent::{Agent, Counters, Gossip};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::registry::Registry;

use super::Options;
use super::seam::{self, Sink};
use crate::process::admin::Health;

/// The agent looks at the clock 20 times in a second. Without a look for this long it is stuck,
/// and the process must be started again; another node answers for its addresses meanwhile.
const STUCK: Duration = Duration::from_secs(10);

/// Reads the agent's counters at scrape time.
#[derive(Debug)]
struct AgentMetrics(Arc<Counters>);

/// Starts the agent.
pub async fn start(
    options: &Options,
    gossip: Option<Gossip>,
    registry: &mut Registry,
    health: &Health,
) -> Result<seam::Agent> {
    let agent = Agent::start(ballast_agent::Options {
        node: options.node.clone(),
        incarnation: options.incarnation,
        gossip,
    })
    .await?;
    registry.register_collector(Box::new(AgentMetrics(agent.counters())));
    let reports = agent.report();
    let agent = Arc::new(agent);
    let watched = Arc::clone(&agent);
    health.liveness("the agent ticks", move || match watched.idle_for() {
        Some(idle) if idle > STUCK => Err(format!("no tick for {} s", idle.as_secs())),
        _ => Ok(()),
    });
    let sink = Sink::new(move |input| agent.input(input));
    Ok(seam::Agent { sink, reports })
}

// === impl AgentMetrics ===

impl Collector for AgentMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Counters {
            arp_replies,
            advertisements,
            silent,
            unsent,
            dropped,
            late_ticks,
        } = &*self.0;
        for (name, help, counter) in [
            (
                "ballast_announcer_arp_replies",
                "ARP replies for addresses of Services",
                arp_replies,
            ),
            (
                "ballast_announcer_advertisements",
                "Neighbour advertisements in reply to solicitations for addresses of Services",
                advertisements,
            ),
            (
                "ballast_announcer_silent",
                "Requests that were not answered because the process was stopped a moment ago",
                silent,
            ),
            (
                "ballast_announcer_frames_unsent",
                "Frames that could not be sent",
                unsent,
            ),
            (
                "ballast_announcer_events_dropped",
                "Observations of the network that were dropped because too many arrived at once",
                dropped,
            ),
            (
                "ballast_announcer_late_ticks",
                "Ticks that came late because the process or its host was stopped",
                late_ticks,
            ),
        ] {
            let metric = ConstCounter::new(counter.get());
            let encoder = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            metric.encode(encoder)?;
        }
        Ok(())
    }
}
