//! Failures of hosts, links, announcers and the segment, each for real.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ballast_crds::Announcer;
use ballast_e2e::failover::bed::{Bed, NEWCOMER};
use ballast_e2e::failover::value::{
    BACK_MOVES, BLIND, CLAIMS, FAILED, FAR, KNOWN, MOVES, NEWCOMER as NEW, OTHER_SIDE, RETURN,
    SIDE_OF_HOLDER, STALE, TWO,
};
use ballast_e2e::failover::watch::Watch;
use ballast_e2e::failover::{Values, agents, machines, outages};
use ballast_e2e::{Faults, eventually};

use super::{OUTAGE, at_most, value};
use crate::common::SOON;
use crate::common::judges::judged;

const SECOND: Duration = Duration::from_secs(1);

/// Checks who answers: another node than before, and it alone.
async fn moved(bed: &Bed<'_>, address: IpAddr, before: &str) -> Result<()> {
    eventually(SOON, || async {
        let holder = bed.holder(address).await?;
        let mac = bed.lab.mac(holder).await?;
        let answers = judged(bed.lab, NEWCOMER, address).await?;
        ensure!(answers.iter().eq([&mac]), "{answers:?}, not {mac}");
        ensure!(mac != before, "it has not moved");
        Ok(())
    })
    .await
}

async fn mac_of_holder(bed: &Bed<'_>, address: IpAddr) -> Result<String> {
    bed.lab.mac(bed.holder(address).await?).await
}

pub(crate) async fn link_cut(bed: &Bed<'_>, address: IpAddr) -> Result<()> {
    let before = mac_of_holder(bed, address).await?;
    let values = machines::link_cut(bed, address).await?;
    at_most(
        &values,
        &[
            (KNOWN, OUTAGE),
            (NEW, OUTAGE),
            (FAR, OUTAGE),
            (BACK_MOVES, 0.0),
        ],
    )?;
    moved(bed, address, &before).await
}

pub(crate) async fn node_killed(bed: &Bed<'_>, address: IpAddr) -> Result<()> {
    let before = mac_of_holder(bed, address).await?;
    let values = machines::node_killed(bed, address).await?;
    at_most(&values, &[(KNOWN, OUTAGE), (NEW, OUTAGE), (FAR, OUTAGE)])?;
    moved(bed, address, &before).await
}

/// Long enough for a move, which stays.
pub(crate) async fn frozen(bed: &Bed<'_>, address: IpAddr) -> Result<()> {
    let before = mac_of_holder(bed, address).await?;
    let values = machines::frozen(bed, address, 3 * SECOND).await?;
    at_most(&values, &[(NEW, OUTAGE), (MOVES, 1.0), (TWO, 1.0)])?;
    moved(bed, address, &before).await
}

/// Whoever knows the MAC of a node whose announcer ends loses nothing: the kernel forwards. A connection
/// fails after 1 s, so a client that did not run for long may have lost some.
fn known_clients_lose_nothing(values: &Values) -> Result<()> {
    let stalled = value(values, BLIND) > 0.5;
    at_most(values, &[(FAILED, if stalled { 3.0 } else { 0.0 })])
}

/// Without surge.
pub(crate) async fn agent_restarted(bed: &Bed<'_>, address: IpAddr) -> Result<()> {
    let values = agents::restarted(bed, address).await?;
    known_clients_lose_nothing(&values)?;
    at_most(&values, &[(NEW, OUTAGE), (MOVES, 0.0)])
}

/// With surge, as the chart does it.
pub(crate) async fn agent_updated(bed: &Bed<'_>, address: IpAddr) -> Result<()> {
    let values = agents::updated(bed, address).await?;
    known_clients_lose_nothing(&values)?;
    at_most(&values, &[(NEW, OUTAGE), (MOVES, 0.0)])
}

/// Neither at once nor when they come back, and all of them at once.
pub(crate) async fn agent_restarts(bed: &Bed<'_>, address: IpAddr) -> Result<()> {
    let values = agents::killed(bed, address, Some(SECOND)).await?;
    known_clients_lose_nothing(&values)?;
    at_most(&values, &[(NEW, OUTAGE), (MOVES, 0.0)])?;
    let epochs = bed.epochs().await?;
    for node in bed.nodes() {
        bed.lab
            .restart(&ballast_e2e::failover::announcers::Announcers::process(
                node,
            ))
            .await?;
    }
    bed.settled().await?;
    let moves = bed.moves_since(&epochs).await?;
    ensure!(moves == 0, "{moves} moves when all announcers restart");
    Ok(())
}

pub(crate) async fn agent_gone(bed: &Bed<'_>, address: IpAddr) -> Result<()> {
    let before = mac_of_holder(bed, address).await?;
    let values = agents::killed(bed, address, None).await?;
    known_clients_lose_nothing(&values)?;
    at_most(&values, &[(NEW, OUTAGE), (MOVES, 0.0)])?;
    moved(bed, address, &before).await
}

pub(crate) async fn agent_stopped(bed: &Bed<'_>, address: IpAddr) -> Result<()> {
    let values = agents::stopped(bed, address, 6 * SECOND).await?;
    // The silence of an agent whose host answers is judged after 2 s.
    at_most(&values, &[(NEW, 2.0 * OUTAGE)])
}

pub(crate) async fn split(bed: &Bed<'_>, address: IpAddr) -> Result<()> {
    let values = outages::split(bed, address).await?;
    at_most(&values, &[(TWO, 3.0), (STALE, 0.0)])?;
    for side in [SIDE_OF_HOLDER, OTHER_SIDE] {
        let answer = value(&values, side);
        ensure!((answer - 1.0).abs() < f64::EPSILON, "{side}: {answer}");
    }
    Ok(())
}

pub(crate) async fn uplink_dead(bed: &Bed<'_>, address: IpAddr) -> Result<()> {
    let values = outages::uplink_dead(bed, address).await?;
    at_most(&values, &[(CLAIMS, 0.0), (MOVES, 0.0)])
}

/// The holder hears a successor that does not hear the holder.
pub(crate) async fn one_way(bed: &Bed<'_>, address: IpAddr) -> Result<()> {
    let holder = bed.holder(address).await?;
    let deaf = bed.another(address).await?;
    let epochs = bed.epochs().await?;
    let watch = Watch::of(bed, address).await?;
    bed.lab
        .set_faults(&Faults::none().one_way(holder, deaf))
        .await?;
    // The others hear it, so it is alive for all.
    let seen = watch.for_a_while(5 * SECOND).await?;
    bed.heal().await?;
    let (from, until) = seen.period();
    let macs = seen.holders(from, until);
    ensure!(macs.len() == 1, "{macs:?} answered");
    let moves = bed.moves_since(&epochs).await?;
    ensure!(moves == 0, "{moves} moves");
    Ok(())
}

/// Carriers lost together move nothing.
pub(crate) async fn all_links(bed: &Bed<'_>, address: IpAddr) -> Result<()> {
    let nodes = u32::try_from(bed.nodes().len())?;
    let back: Vec<Duration> = (0..nodes).map(|number| number * SECOND).collect();
    let values = machines::all_links(bed, address, 4 * SECOND, &back).await?;
    at_most(&values, &[(RETURN, 10.0), (MOVES, 0.0)])
}

pub(crate) async fn api_down(bed: &Bed<'_>, address: IpAddr) -> Result<()> {
    use ballast_e2e::failover::value::{CUT_KNOWN, CUT_NEWCOMER};
    // Longer than the announcers wait before they call it an outage.
    let values = outages::api_down(bed, address, 9 * SECOND).await?;
    let limits = [(MOVES, 0.0), (CUT_KNOWN, OUTAGE), (CUT_NEWCOMER, OUTAGE)];
    at_most(&values, &limits)
}

/// A switch answers the probes in place of all nodes: each node that probes the holder finds out, and notices
/// its end in another way. Such a switch passes no broadcasts, so nobody asks for the address meanwhile.
pub(crate) async fn probes_intercepted(bed: &Bed<'_>, address: IpAddr) -> Result<()> {
    let before = mac_of_holder(bed, address).await?;
    let holder = bed.holder(address).await?;
    let nodes = bed.nodes();
    bed.lab.answer_for(&nodes, true).await?;
    let noticed = eventually(2 * SOON, || async {
        let objects = bed.announcers.objects().await?;
        for prober in successors(&objects, address)? {
            let mut objects = objects.iter();
            let object = objects.find(|it| it.metadata.name.as_ref() == Some(&prober));
            let status = object.and_then(|it| it.status.as_ref());
            let status = status.context("a successor has no announcer")?;
            let mut all = status.conditions.iter();
            let found = all.any(|it| it.type_ == "ProbesIntercepted" && it.status == "True");
            ensure!(found, "{prober}: {:?}", status.conditions);
        }
        Ok(())
    })
    .await;
    if let Err(error) = noticed {
        bed.lab.answer_for(&nodes, false).await?;
        bed.heal().await?;
        return Err(error);
    }
    bed.lab.power_off(holder).await?;
    let start = std::time::Instant::now();
    let outcome = eventually(SOON, || async {
        let now = bed.holder(address).await?;
        ensure!(now != holder, "it is still on {}", now.name());
        Ok(start.elapsed())
    })
    .await;
    bed.lab.answer_for(&nodes, false).await?;
    bed.power_on(holder).await?;
    bed.heal().await?;
    let took = outcome?;
    println!("  moved after {took:.1?}");
    // Lease alone takes longer.
    ensure!(took < 10 * SECOND, "it moved after {took:.1?}");
    moved(bed, address, &before).await
}

/// The recorded successors of an address.
fn successors(objects: &[Announcer], address: IpAddr) -> Result<Vec<String>> {
    let holdings = objects.iter().filter_map(|it| it.status.as_ref());
    let holdings = holdings.flat_map(|status| &status.holdings);
    let holdings = holdings.filter(|it| it.address.parse() == Ok(address));
    let holding = holdings.max_by_key(|it| it.epoch);
    let holding = holding.context("nobody holds the address")?;
    ensure!(!holding.successors.is_empty(), "{holding:?}");
    Ok(holding.successors.iter().map(|it| it.0.clone()).collect())
}
