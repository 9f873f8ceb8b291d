//! Failures of hosts, links, announcers and the segment, each for real.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use ballast_e2e::failover::bed::{Bed, NEWCOMER};
use ballast_e2e::failover::value::{
    BACK_FAILED, BACK_MOVES, BACK_TWO, CLAIMS, FAILED, FAR, KNOWN, KNOWN_MOVES, MOVES, NEW_FAILED,
    NEWCOMER as NEW, OTHER_SIDE, RETURN, SIDE_OF_HOLDER, STALE, TWO,
};
use ballast_e2e::failover::watch::Watch;
use ballast_e2e::failover::{Values, agents, machines, outages};
use ballast_e2e::{Faults, eventually};

use super::{ANSWER, OUTAGE, at_most, value};
use crate::common::SOON;
use crate::common::judges::judged;

const SECOND: Duration = Duration::from_secs(1);
/// The longest outage if the holder's port only sends, in seconds: it takes 0.7 s until the node says so.
const DEAF: f64 = 2.0;
/// How long newcomers wait for the successor of an agent that ended, in seconds.
const STAND_IN: f64 = 0.5;

/// Checks who answers: another node than before, and it alone.
pub(super) async fn moved(bed: &Bed<'_>, address: IpAddr, before: &str) -> Result<()> {
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

pub(super) async fn mac_of_holder(bed: &Bed<'_>, address: IpAddr) -> Result<String> {
    bed.lab.mac(bed.holder(address).await?).await
}

/// Checks how long a failure lasted, and that its end moves nothing.
fn moved_and_stays(values: &Values, outage: f64) -> Result<()> {
    let limits = [
        (KNOWN, outage),
        (NEW, outage),
        (FAR, outage),
        ANSWER,
        (BACK_FAILED, 0.0),
        (BACK_MOVES, 0.0),
        (BACK_TWO, 3.0),
    ];
    at_most(values, &limits)
}

pub(crate) async fn link_cut(bed: &Bed<'_>, address: IpAddr) -> Result<()> {
    let before = mac_of_holder(bed, address).await?;
    let values = machines::link_cut(bed, address).await?;
    moved_and_stays(&values, OUTAGE)?;
    moved(bed, address, &before).await
}

pub(crate) async fn node_killed(bed: &Bed<'_>, address: IpAddr) -> Result<()> {
    let before = mac_of_holder(bed, address).await?;
    let values = machines::node_killed(bed, address).await?;
    let limits = [(KNOWN, OUTAGE), (NEW, OUTAGE), (FAR, OUTAGE), ANSWER];
    at_most(&values, &limits)?;
    moved(bed, address, &before).await
}

/// The messages of such a node arrive, and clients get no answer.
pub(crate) async fn deaf_port(bed: &Bed<'_>, address: IpAddr) -> Result<()> {
    let before = mac_of_holder(bed, address).await?;
    let values = machines::deaf_port(bed, address).await?;
    moved_and_stays(&values, DEAF)?;
    moved(bed, address, &before).await
}

/// Long enough for a move, which stays.
pub(crate) async fn frozen(bed: &Bed<'_>, address: IpAddr) -> Result<()> {
    let before = mac_of_holder(bed, address).await?;
    let values = machines::frozen(bed, address, 3 * SECOND).await?;
    at_most(
        &values,
        &[(NEW, OUTAGE), (KNOWN_MOVES, 1.0), (TWO, 0.2), ANSWER],
    )?;
    moved(bed, address, &before).await
}

/// Whoever knows the MAC of a node whose announcer ends loses nothing: the kernel forwards. A successor
/// answers for the others, and nothing moves.
fn only_the_agent_ends(values: &Values) -> Result<()> {
    at_most(
        values,
        &[(FAILED, 0.0), (NEW, STAND_IN), (MOVES, 0.0), ANSWER],
    )
}

/// Without surge.
pub(crate) async fn agent_restarted(bed: &Bed<'_>, address: IpAddr) -> Result<()> {
    let values = agents::restarted(bed, address).await?;
    only_the_agent_ends(&values)
}

/// With surge, as the chart does it.
pub(crate) async fn agent_updated(bed: &Bed<'_>, address: IpAddr) -> Result<()> {
    let values = agents::updated(bed, address).await?;
    only_the_agent_ends(&values)
}

/// Neither at once nor when they come back, and all of them at once.
pub(crate) async fn agent_restarts(bed: &Bed<'_>, address: IpAddr) -> Result<()> {
    let values = agents::killed(bed, address, Some(SECOND)).await?;
    only_the_agent_ends(&values)?;
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
    only_the_agent_ends(&values)?;
    moved(bed, address, &before).await
}

pub(crate) async fn agent_stopped(bed: &Bed<'_>, address: IpAddr) -> Result<()> {
    let values = agents::stopped(bed, address, 6 * SECOND).await?;
    // The silence of an agent whose host answers is judged after 2 s.
    at_most(&values, &[(FAILED, 0.0), (NEW, 4.0), (TWO, 0.2), ANSWER])
}

pub(crate) async fn split(bed: &Bed<'_>, address: IpAddr) -> Result<()> {
    let values = outages::split(bed, address).await?;
    at_most(&values, &[(TWO, 3.0), (STALE, 0.0), ANSWER])?;
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

/// The holder hears its first successor, which does not hear the holder.
pub(crate) async fn one_way(bed: &Bed<'_>, address: IpAddr) -> Result<()> {
    let holder = bed.holder(address).await?;
    let deaf = bed.first_successor(address).await?;
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
    at_most(&values, &[(RETURN, 3.0), (MOVES, 0.0)])
}

pub(crate) async fn api_down(bed: &Bed<'_>, address: IpAddr) -> Result<()> {
    use ballast_e2e::failover::value::{CUT_KNOWN, CUT_NEWCOMER};
    // Longer than the announcers wait before they call it an outage.
    let values = outages::api_down(bed, address, 9 * SECOND).await?;
    let limits = [
        (FAILED, 0.0),
        (NEW_FAILED, 0.0),
        (MOVES, 0.0),
        (CUT_KNOWN, OUTAGE),
        (CUT_NEWCOMER, OUTAGE),
        ANSWER,
    ];
    at_most(&values, &limits)
}
