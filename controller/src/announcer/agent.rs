//! Starts the agent, and connects it: its keys, its ends, its metrics, and a check that it is not stuck.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use ballast_agent::seal::Keyring;
use ballast_agent::{Agent, Gossip};
use prometheus_client::registry::Registry;
use tracing::warn;

use super::Options;
use super::metrics::AgentMetrics;
use super::seam::{self, Inspector, Sink};
use crate::process::admin::Health;

/// The agent looks at the clock at least six times in a second. Without a look for this long it is stuck,
/// and the process must be started again; another node answers for its addresses meanwhile.
const STUCK: Duration = Duration::from_secs(10);

/// Starts the agent.
pub async fn start(
    options: &Options,
    registry: &mut Registry,
    health: &Health,
) -> Result<seam::Agent> {
    let keyring = keyring(options)?;
    let gossip = match (options.gossip_port, &keyring) {
        (Some(port), Some(keyring)) => {
            let keyring = Arc::clone(keyring);
            Some(Gossip { port, keyring })
        }
        _ => None,
    };
    let agent = Agent::start(ballast_agent::Options {
        node: options.node.clone(),
        incarnation: options.incarnation,
        gossip,
    })
    .await?;
    let reports = agent.report();
    registry.register_collector(Box::new(AgentMetrics {
        counters: agent.counters(),
        reports: reports.clone(),
    }));
    let agent = Arc::new(agent);
    let watched = Arc::clone(&agent);
    health.liveness("the announcer ticks", move || match watched.idle_for() {
        Some(idle) if idle > STUCK => Err(format!("no tick for {} s", idle.as_secs())),
        _ => Ok(()),
    });
    let asked = Arc::clone(&agent);
    let inspector = Inspector::new(move || Box::pin(asked.snapshot()));
    let sink = Sink::new(move |input| agent.input(input));
    Ok(seam::Agent {
        sink,
        reports,
        inspector,
        keyring,
    })
}

fn keyring(options: &Options) -> Result<Option<Arc<Keyring>>> {
    let Some(path) = &options.key_file else {
        warn!(
            "there is no key (--gossip-key-file): this announcer believes every Announcer object, so whoever has the token of one can move all addresses to its node"
        );
        return Ok(None);
    };
    let keyring = Keyring::open_file(path);
    let keyring =
        keyring.with_context(|| format!("cannot use {} (--gossip-key-file)", path.display()))?;
    Ok(Some(Arc::new(keyring)))
}
