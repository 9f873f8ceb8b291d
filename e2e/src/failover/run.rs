//! The order of a run.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::Instant;

use super::bed::{self, Bed};
use super::terms::{Sample, Scene, Values};
use super::{agents, cost, machines, outages, plans};
use crate::{Lab, Progress, ProxyMode};

const SECOND: Duration = Duration::from_secs(1);
/// From the start of a round to that of the next one, at least. A takeover waits if its address has moved four
/// times within a minute; that is another thing than what is measured.
const SPACING: Duration = Duration::from_secs(21);

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The scenes.
    pub scenes: Vec<Scene>,
    /// How often each is measured.
    pub rounds: u32,
    /// The number of nodes.
    pub nodes: u8,
    /// How Services are done.
    pub proxy: ProxyMode,
    /// The lab's name.
    pub name: String,
}

/// The result of a run.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Every measurement.
    pub samples: Vec<Sample>,
    /// The rounds that could not be measured, and why.
    pub failures: Vec<(Scene, String)>,
}

/// Runs all requested measurements.
pub async fn run(options: &Options) -> Result<Outcome> {
    if options.rounds == 0 || options.nodes < 2 {
        bail!("nothing to measure: it takes a round and two nodes");
    }
    let progress = Progress::new(true);
    let booting = || format!("booting the lab {}", options.name);
    progress.say(booting());
    let lab = bed::options(&options.name, options.nodes, options.proxy);
    let lab = progress.while_waiting(booting, Lab::start(lab)).await?;
    let result = measure_all(&lab, options, progress).await;
    let result = lab.explain(result).await;
    lab.down().await?;
    result
}

async fn measure_all(lab: &Lab, options: &Options, progress: Progress) -> Result<Outcome> {
    let starting = || "starting announcers".to_owned();
    let bed = progress
        .while_waiting(starting, Bed::make(lab, &[]))
        .await?;
    let mut outcome = Outcome::default();
    let mut number = 0;
    for &scene in &options.scenes {
        for round in 1..=scene.rounds(options.rounds) {
            number += 1;
            let next = Instant::now() + SPACING;
            let doing = || format!("{}, round {round}", scene.title());
            let values = progress.while_waiting(doing, measure(&bed, scene, number));
            match values.await {
                Ok(values) => {
                    progress.say(format!("{}: {values:.2?}", doing()));
                    outcome.samples.push(Sample {
                        scene,
                        round,
                        values,
                    });
                }
                Err(error) => {
                    progress.say(format!("{}: {error:#}", doing()));
                    outcome.failures.push((scene, format!("{error:#}")));
                    // The next round needs a healthy cluster; without one the run ends.
                    bed.recover().await?;
                }
            }
            tokio::time::sleep_until(next).await;
        }
    }
    Ok(outcome)
}

/// One measurement; the number selects the address.
async fn measure(bed: &Bed<'_>, scene: Scene, number: u32) -> Result<Values> {
    let address: IpAddr = bed.address(number).await?;
    match scene {
        Scene::LinkCut => machines::link_cut(bed, address).await,
        Scene::NodeKilled => machines::node_killed(bed, address).await,
        Scene::DeafPort => machines::deaf_port(bed, address).await,
        Scene::Frozen300ms => machines::frozen(bed, address, 3 * SECOND / 10).await,
        Scene::Frozen1s => machines::frozen(bed, address, SECOND).await,
        Scene::Frozen3s => machines::frozen(bed, address, 3 * SECOND).await,
        Scene::Frozen10s => machines::frozen(bed, address, 10 * SECOND).await,
        Scene::AllLinks => {
            let nodes = u32::try_from(bed.nodes().len())?;
            // 0 to 5 s apart, another node first in each round.
            let apart = |node| 5 * SECOND * ((node + number) % nodes) / (nodes - 1).max(1);
            let back: Vec<Duration> = (0..nodes).map(apart).collect();
            machines::all_links(bed, address, 60 * SECOND, &back).await
        }
        Scene::AgentKilled => agents::killed(bed, address, Some(SECOND)).await,
        Scene::AgentGone => agents::killed(bed, address, None).await,
        Scene::AgentStopped => agents::stopped(bed, address, 8 * SECOND).await,
        Scene::AgentRestarted => agents::restarted(bed, address).await,
        Scene::AgentUpdated => agents::updated(bed, address).await,
        Scene::Drain => plans::drain(bed, address).await,
        Scene::Exclusion => plans::exclusion(bed, address).await,
        Scene::ApiDown => outages::api_down(bed, address, 60 * SECOND).await,
        Scene::Split => outages::split(bed, address).await,
        Scene::UplinkDead => outages::uplink_dead(bed, address).await,
        Scene::EndpointMoves => plans::endpoint_moves(bed, usize::try_from(number % 2)?).await,
        Scene::Loss => outages::loss(bed, 600 * SECOND).await,
        Scene::Busy => outages::busy(bed, address, 600 * SECOND).await,
        Scene::Idle => cost::idle(bed, 60 * SECOND).await,
        Scene::Latency => cost::latency(bed).await,
    }
}
