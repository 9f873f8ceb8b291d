//! What announcers cost while nothing happens, and how soon they answer while all cores are busy.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::announcers::Announcers;
use super::bed::{self, Bed, cluster_service};
use super::machines::{number, seconds};
use super::outages::Load;
use super::terms::Values;
use super::terms::value::{CORE, ECHO_P99, RATIO, REPLY_P99, RESIDENT, WRITES};
use crate::bench::usage::Usage;
use crate::eventually;
use crate::segment::judge::{p99, reply_times};

/// The number of addresses of the idle measurement.
const ADDRESSES: usize = 100;
/// How long announcers settle after the last change, before the measurement.
const SETTLE: Duration = Duration::from_secs(20);
/// How long the creation of the Services may take.
const SOON: Duration = Duration::from_mins(3);
/// The address of the echo thread.
const ECHO: Ipv4Addr = Ipv4Addr::new(10, 89, 0, 251);
/// Requests to each of the two.
const REQUESTS: &str = "3000";

/// 100 addresses and nothing to do for this long.
pub async fn idle(bed: &Bed<'_>, time: Duration) -> Result<Values> {
    let there = bed.epochs().await?.len();
    let names: Vec<String> = (1..=(ADDRESSES - there) / 2)
        .map(|number| format!("idle-{number}"))
        .collect();
    let objects = names.iter().flat_map(|name| cluster_service(name));
    let objects: Vec<String> = objects.map(|it: Value| it.to_string()).collect();
    bed.lab.apply(&objects.join("\n---\n")).await?;
    eventually(SOON, || async {
        let held = bed.epochs().await?.len();
        ensure!(held == ADDRESSES, "{held} addresses are held");
        Ok(())
    })
    .await?;
    bed.settled().await?;
    tokio::time::sleep(SETTLE).await;
    let (before, since) = (usages(bed).await?, bed.lab.audit()?.len());
    tokio::time::sleep(time).await;
    let (after, audit) = (usages(bed).await?, bed.lab.audit()?);
    let users: Vec<String> = bed.nodes().into_iter().map(Announcers::user).collect();
    let mut writes = audit[since..].to_vec();
    writes.retain(|it| users.contains(&it.user) && it.resource != "leases");
    let resident = after.iter().map(|it| it.resident).fold(0.0, f64::max);
    let used = after
        .iter()
        .zip(&before)
        .map(|(it, then)| it.cpu - then.cpu);
    let used = used.fold(0.0, f64::max);
    for name in &names {
        let argv = ["delete", "service", name, "--wait=false"];
        bed.lab.kubectl(&argv).await?;
    }
    Ok(Values::from([
        (RESIDENT, resident),
        (CORE, 100.0 * used / time.as_secs_f64()),
        (WRITES, number(writes.len())),
    ]))
}

async fn usages(bed: &Bed<'_>) -> Result<Vec<Usage>> {
    let mut all = vec![];
    for node in bed.nodes() {
        all.push(Usage::of(bed.lab, &Announcers::process(node)).await?);
    }
    Ok(all)
}

/// How long ARP replies take while all cores are busy, compared with a thread that does nothing
/// else. Both answer the same client in the same period.
pub async fn latency(bed: &Bed<'_>) -> Result<Values> {
    // The first one is of IPv4.
    let address = bed.address(0).await?;
    let holder = bed.holder(address).await?;
    let echo = bed.lab.echo_arp(bed::STRANGER, ECHO).await?;
    let capture = bed.lab.capture(&[holder, bed::STRANGER]).await?;
    let load = Load::start(bed.lab).await?;
    let ask = async |target: IpAddr| {
        let target = target.to_string();
        let argv = ["arping", "-q", "-i", "eth0", "-c", REQUESTS, "-W", "0.01"];
        let argv = argv.into_iter().chain([target.as_str()]);
        let time = Duration::from_mins(5);
        bed.lab.exec_for(bed::NEWCOMER, argv, time).await?;
        anyhow::Ok(())
    };
    let asked = tokio::try_join!(ask(address), ask(ECHO.into()));
    load.stop().await?;
    asked?;
    let frames = capture.frames().await?;
    capture.stop().await?;
    bed.lab.stop(&echo).await?;
    let of = |host: String, address| {
        let times = reply_times(&frames, &host, address);
        p99(&times).with_context(|| format!("{host} has not answered for {address}"))
    };
    let reply = of(holder.name(), address)?;
    let echo = of(bed::STRANGER.name(), ECHO.into())?;
    Ok(Values::from([
        (REPLY_P99, 1000.0 * seconds(reply)),
        (ECHO_P99, 1000.0 * seconds(echo)),
        (RATIO, seconds(reply) / seconds(echo)),
    ]))
}
