//! Who reaches an address, and what independent programs say about it.

use std::net::IpAddr;

use anyhow::{Context, Result, bail, ensure};
use ballast_e2e::failover::announcers::Announcers;
use ballast_e2e::failover::bed::{Bed, KNOWN, NEWCOMER, STRANGER};
use ballast_e2e::failover::watch::Watch;
use ballast_e2e::{Host, eventually};
use serde_json::Value;

use super::QUIET;
use crate::common::SOON;
use crate::common::judges::judged;

/// Over both families, from the segment and from behind a router.
pub(crate) async fn every_client_reaches_every_address(
    bed: &Bed<'_>,
    address: IpAddr,
) -> Result<()> {
    let mut all = bed.addresses_of("web-1").await?;
    all.retain(|it| it.is_ipv4() != address.is_ipv4());
    all.push(address);
    for address in all {
        let holder = bed.holder(address).await?;
        let mac = bed.lab.mac(holder).await?;
        let watch = Watch::of(bed, address).await?;
        eventually(SOON, || async {
            let answers = judged(bed.lab, NEWCOMER, address).await?;
            ensure!(
                answers.iter().eq([&mac]),
                "{address}: {answers:?}, not {mac}"
            );
            Ok(())
        })
        .await?;
        let known = bed.lab.neighbour(KNOWN, address).await?;
        ensure!(known == Some(mac.clone()), "the client knows {known:?}");
        confirmed_by_unicast(bed, address, &mac).await?;
        let seen = watch.for_a_while(QUIET / 5).await?;
        let (from, until) = seen.period();
        for of in [seen.known(from, until), seen.far(from, until)] {
            ensure!(of.failed == 0 && of.moves == 0, "{of:?}");
        }
        let macs = seen.holders(from, until);
        ensure!(macs.len() == 1 && macs[0].mac == mac, "{macs:?}, not {mac}");
    }
    Ok(())
}

/// A kernel that doubts an entry asks the host itself, not all.
async fn confirmed_by_unicast(bed: &Bed<'_>, address: IpAddr, mac: &str) -> Result<()> {
    let text = address.to_string();
    let entry = ["to", &text, "dev", "eth0"];
    let doubt = [
        "ip",
        "neighbour",
        "replace",
        &text,
        "lladdr",
        mac,
        "dev",
        "eth0",
        "nud",
        "probe",
    ];
    bed.lab.exec(STRANGER, doubt).await?.ok()?;
    eventually(SOON, || async {
        let show = ["ip", "-json", "neighbour", "show"]
            .into_iter()
            .chain(entry);
        let said = bed.lab.exec(STRANGER, show).await?.ok()?;
        let found: Value = serde_json::from_str(&said)?;
        let state = &found[0]["state"];
        ensure!(state[0] == "REACHABLE", "{address} is {state}");
        Ok(())
    })
    .await
}

/// Announcers write Leases and nothing else.
pub(crate) async fn nothing_is_written_while_nothing_happens(
    bed: &Bed<'_>,
    _: IpAddr,
) -> Result<()> {
    let users: Vec<String> = bed.nodes().into_iter().map(Announcers::user).collect();
    let written = || {
        let mut all = bed.lab.audit()?;
        all.retain(|it| users.contains(&it.user) && it.resource != "leases");
        anyhow::Ok(all)
    };
    bed.settled().await?;
    // What the start has left to write.
    eventually(SOON, || async {
        let before = written()?.len();
        tokio::time::sleep(QUIET).await;
        ensure!(written()?.len() == before, "they still write");
        Ok(())
    })
    .await?;
    // Longer than the periods of renewals and announcements.
    let before = written()?.len();
    tokio::time::sleep(6 * QUIET).await;
    let all = written()?;
    ensure!(all.len() == before, "{:#?}", &all[before..]);
    Ok(())
}

/// Duplicate address detection, by a kernel for IPv6 and by an ARP probe for IPv4.
pub(crate) async fn a_host_that_wants_the_address_hears_of_it(
    bed: &Bed<'_>,
    _: IpAddr,
) -> Result<()> {
    let all = bed.addresses_of("web-1").await?;
    let (v4, v6) = (all[0].to_string(), all[1].to_string());
    let mac = bed.lab.mac(bed.holder(all[0]).await?).await?;
    eventually(SOON, || async {
        let probe = ["arping", "-0", "-r", "-i", "eth0", "-c", "1", &v4];
        let said = bed.lab.exec(STRANGER, probe).await?.stdout;
        ensure!(
            said.lines().eq([mac.as_str()]),
            "a probe is answered by {said:?}"
        );
        Ok(())
    })
    .await?;
    duplicate(bed, STRANGER, &v6).await
}

async fn duplicate(bed: &Bed<'_>, host: Host, address: &str) -> Result<()> {
    let set = |value| format!("echo {value} >/proc/sys/net/ipv6/conf/eth0/accept_dad");
    let shell = async |script: &str| bed.lab.exec(host, ["sh", "-c", script]).await?.ok();
    shell(&set(1)).await?;
    let found = eventually(SOON, || async {
        let prefixed = format!("{address}/128");
        let argv = ["ip", "address", "replace", &prefixed, "dev", "eth0"];
        bed.lab.exec(host, argv).await?.ok()?;
        let show = format!("ip -6 address show dev eth0 to {prefixed}");
        let state = eventually(QUIET, || async {
            let said = shell(&show).await?;
            if said.contains("tentative") && !said.contains("dadfailed") {
                bail!("not decided: {said}");
            }
            Ok(said)
        })
        .await;
        let delete = ["ip", "address", "delete", &prefixed, "dev", "eth0"];
        bed.lab.exec(host, delete).await?.ok()?;
        let state = state?;
        ensure!(state.contains("dadfailed"), "not a duplicate: {state}");
        Ok(())
    })
    .await
    .context("duplicate address detection");
    shell(&set(0)).await?;
    found
}
