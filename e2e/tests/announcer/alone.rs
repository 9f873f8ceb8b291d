//! A cluster of one node: nobody watches it, and nothing may stop it.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use ballast_e2e::failover::bed::Bed;
use ballast_e2e::failover::watch::Watch;
use ballast_e2e::{Component, ProxyMode};

use super::{cases, on_bed};

/// How long clients that ask for the MAC address wait while neither API server nor agent is there: 2 s, and
/// the starts of both.
const NEWCOMERS: Duration = Duration::from_secs(15);
/// Longer than the announcers wait before they call it an outage.
const OUTAGE: Duration = Duration::from_secs(12);

#[tokio::test(flavor = "multi_thread")]
async fn a_single_node_answers_whatever_the_api_server_does() -> Result<()> {
    on_bed(
        "t-announcer-alone",
        1,
        ProxyMode::Nftables,
        async |bed, all| {
            cases![
                bed,
                all,
                the_api_server_restarts,
                the_agent_restarts_without_it
            ];
            Ok(())
        },
    )
    .await
}

async fn the_api_server_restarts(bed: &Bed<'_>, address: IpAddr) -> Result<()> {
    let epochs = bed.epochs().await?;
    let watch = Watch::of(bed, address).await?;
    bed.lab.stop_component(Component::ApiServer).await?;
    tokio::time::sleep(OUTAGE).await;
    bed.lab.start_component(Component::ApiServer).await?;
    let seen = watch.for_a_while(Duration::from_secs(2)).await?;
    bed.settled().await?;
    let (from, until) = seen.period();
    let (known, newcomer) = (seen.known(from, until), seen.newcomer(from, until));
    println!("  {known:?} {newcomer:?}");
    // The kernel forwards for the one; the announcer must answer the other.
    ensure!(known.failed == 0, "{known:?}");
    ensure!(newcomer.failed == 0, "{newcomer:?}");
    ensure!(bed.moves_since(&epochs).await? == 0);
    Ok(())
}

/// The kernel forwards for clients that know the MAC address; others wait for the API server.
async fn the_agent_restarts_without_it(bed: &Bed<'_>, address: IpAddr) -> Result<()> {
    let holder = bed.holder(address).await?;
    let epochs = bed.epochs().await?;
    let watch = Watch::of(bed, address).await?;
    bed.lab.stop_component(Component::ApiServer).await?;
    bed.announcers.kill(holder).await?;
    bed.announcers.start_again(holder).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    bed.lab.start_component(Component::ApiServer).await?;
    let seen = watch.for_a_while(Duration::from_secs(2)).await?;
    bed.settled().await?;
    let (from, until) = seen.period();
    let (known, newcomer) = (seen.known(from, until), seen.newcomer(from, until));
    println!("  {newcomer:?}");
    ensure!(known.failed == 0, "{known:?}");
    ensure!(newcomer.outage < NEWCOMERS, "{newcomer:?}");
    ensure!(bed.moves_since(&epochs).await? == 0);
    Ok(())
}
