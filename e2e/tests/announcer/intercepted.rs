//! A switch that answers for the nodes, whether they live or not.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use ballast_e2e::failover::announcers::Announcers;
use ballast_e2e::failover::bed::Bed;
use ballast_e2e::{Host, eventually};
use serde_json::Value;

use super::failures::{mac_of_holder, moved};
use crate::common::SOON;

/// Longer than any failover but the one of Leases.
const FAILOVER: Duration = Duration::from_secs(5);

/// A switch answers the probes in place of all nodes: each node that probes the holder finds out, and notices
/// its end in another way. Such a switch passes no broadcasts, so nobody asks for the address meanwhile.
pub(crate) async fn probes_intercepted(bed: &Bed<'_>, address: IpAddr) -> Result<()> {
    let before = mac_of_holder(bed, address).await?;
    let holder = bed.holder(address).await?;
    let nodes = bed.nodes();
    bed.lab.answer_for(&nodes, true).await?;
    let outcome = found_and_moved(bed, address, holder).await;
    bed.lab.answer_for(&nodes, false).await?;
    outcome?;
    bed.power_on(holder).await?;
    bed.heal().await?;
    moved(bed, address, &before).await?;
    // What a process has found out counts for its life.
    for node in nodes {
        bed.lab.restart(&Announcers::process(node)).await?;
    }
    // Until then the objects are those of the former ones.
    eventually(SOON, || async {
        let objects = bed.announcers.objects().await?;
        let mut conditions = objects.iter().filter_map(|it| it.status.as_ref());
        let fine = conditions.all(|it| !reported(&it.conditions));
        ensure!(fine, "new processes report what former ones found");
        Ok(())
    })
    .await?;
    bed.settled().await.map(drop)
}

async fn found_and_moved(bed: &Bed<'_>, address: IpAddr, holder: Host) -> Result<()> {
    let probers = probers(bed, holder).await?;
    let first = bed.first_successor(address).await?;
    ensure!(probers.contains(&first), "{probers:?} without {first:?}");
    ensure!((2..=3).contains(&probers.len()), "{probers:?} probe");
    let start = Instant::now();
    for &prober in &probers {
        eventually(2 * SOON, || found(bed, prober)).await?;
        let name = prober.name();
        println!("  {name} reports it after {:.1?}", start.elapsed());
    }
    bed.lab.power_off(holder).await?;
    let start = Instant::now();
    eventually(SOON, || async {
        let now = bed.holder(address).await?;
        ensure!(now != holder, "it is still on {}", now.name());
        Ok(())
    })
    .await?;
    let took = start.elapsed();
    println!("  moved after {took:.1?}");
    ensure!(took < FAILOVER, "it moved after {took:.1?}");
    Ok(())
}

/// What an announcer knows and does.
async fn state(bed: &Bed<'_>, node: Host) -> Result<Value> {
    let text = bed.announcers.admin(node, "/debug/state").await?;
    Ok(serde_json::from_str(&text)?)
}

/// The nodes that probe a host.
async fn probers(bed: &Bed<'_>, host: Host) -> Result<Vec<Host>> {
    let mut probers = vec![];
    for node in bed.nodes() {
        let state = state(bed, node).await?;
        let mut checks = state["hostChecks"].as_array().into_iter().flatten();
        if checks.any(|it| it["host"] == *host.name()) {
            probers.push(node);
        }
    }
    Ok(probers)
}

/// A node says in its object that somebody answers for others.
async fn found(bed: &Bed<'_>, node: Host) -> Result<()> {
    let name = node.name();
    let objects = bed.announcers.objects().await?;
    let mut objects = objects.iter();
    let object = objects.find(|it| it.metadata.name.as_ref() == Some(&name));
    let status = object.and_then(|it| it.status.as_ref());
    let status = status.with_context(|| format!("no announcer of {name}"))?;
    if reported(&status.conditions) {
        return Ok(());
    }
    let state = state(bed, node).await?;
    anyhow::bail!(
        "{name} does not report it: {} {} {}",
        state["hostChecks"],
        state["interfaces"],
        state["peers"]
    )
}

fn reported(conditions: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition]) -> bool {
    let mut all = conditions.iter();
    all.any(|it| it.type_ == "ProbesIntercepted" && it.status == "True")
}
