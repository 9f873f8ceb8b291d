//! Planned moves, and changes that are none.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ballast_e2e::eventually;
use ballast_e2e::failover::bed::{Bed, NEWCOMER, STRANGER};
use ballast_e2e::failover::value::{
    FAILED, HEALTHY, KNOWN_MOVES, LOST, NEW_FAILED, NEWCOMER as NEW, RESET,
};
use ballast_e2e::failover::watch::Watch;
use ballast_e2e::failover::{Values, plans};
use ballast_e2e::segment::Moment;

use super::{ANSWER, at_most};
use crate::common::SOON;
use crate::common::judges::judged;

/// The longest time without an answer for newcomers in a planned move, in seconds: the new node announces
/// first.
const GAP: f64 = 0.2;
/// New connections that may be reset while both nodes answer.
const RESETS: f64 = 2.0;
/// How long clients may get no answer from an interface whose MAC address changes: until the announcer has
/// announced it.
const NEW_MAC: Duration = Duration::from_secs(2);

fn planned(values: &Values) -> Result<()> {
    let limits = [
        (FAILED, 0.0),
        (NEW_FAILED, 0.0),
        (KNOWN_MOVES, 1.0),
        (LOST, 1.0),
        (RESET, RESETS),
        (NEW, GAP),
        ANSWER,
    ];
    at_most(values, &limits)
}

pub(crate) async fn drain(bed: &Bed<'_>, address: IpAddr) -> Result<()> {
    planned(&plans::drain(bed, address).await?)
}

pub(crate) async fn exclusion(bed: &Bed<'_>, address: IpAddr) -> Result<()> {
    planned(&plans::exclusion(bed, address).await?)
}

pub(crate) async fn out_of_service(bed: &Bed<'_>, address: IpAddr) -> Result<()> {
    planned(&plans::out_of_service(bed, address).await?)
}

/// Over both families, there and back, more often in a minute than a dispute between nodes may move an address.
/// The new node does not answer before its health port says 200.
pub(crate) async fn endpoint_moves(bed: &Bed<'_>, _: IpAddr) -> Result<()> {
    for family in [0, 1, 0, 1, 0, 1] {
        let values = plans::endpoint_moves(bed, family).await?;
        at_most(&values, &[(HEALTHY, 1.0)])?;
    }
    Ok(())
}

/// A node whose interface gets another MAC address keeps its addresses and names the new one.
pub(crate) async fn new_mac(bed: &Bed<'_>, address: IpAddr) -> Result<()> {
    let holder = bed.holder(address).await?;
    // Its own address moves with it, by the kernel's announcement.
    for file in ["ipv4/conf/eth0/arp_notify", "ipv6/conf/eth0/ndisc_notify"] {
        let script = format!("echo 1 >/proc/sys/net/{file}");
        bed.lab.exec(holder, ["sh", "-c", &script]).await?.ok()?;
    }
    let epochs = bed.epochs().await?;
    let watch = Watch::of(bed, address).await?;
    let start = Moment::now();
    let mac = "02:00:00:ba:11:a5";
    let argv = ["ip", "link", "set", "eth0", "address", mac];
    bed.lab.exec(holder, argv).await?.ok()?;
    eventually(SOON, || async {
        let answers = judged(bed.lab, NEWCOMER, address).await?;
        ensure!(answers.iter().eq([mac]), "{answers:?}, not {mac}");
        Ok(())
    })
    .await?;
    let seen = watch.for_a_while(Duration::from_secs(2)).await?;
    let until = seen.period().1;
    let (known, newcomer) = (seen.known(start, until), seen.newcomer(start, until));
    println!("  {known:?} {newcomer:?}");
    for outage in [known.outage, newcomer.outage] {
        ensure!(outage <= NEW_MAC, "{known:?} {newcomer:?}");
    }
    bed.settled().await?;
    let moves = bed.moves_since(&epochs).await?;
    ensure!(moves == 0, "{moves} moves");
    Ok(())
}

/// An announcer that may not open packet sockets says so in the object of its node, and in its log, with the
/// fix; one that may takes it back.
pub(crate) async fn without_net_raw(bed: &Bed<'_>, _: IpAddr) -> Result<()> {
    const PROCESS: &str = "announcer-without-net-raw";
    const FIX: &str = "securityContext.capabilities.add";
    let node = bed.nodes()[0];
    let name = node.name();
    let said = || async {
        let objects = bed.announcers.objects().await?;
        let mut objects = objects.into_iter();
        let object = objects.find(|it| it.metadata.name.as_ref() == Some(&name));
        let status = object.and_then(|it| it.status).context("no status")?;
        let mut all = status.conditions.into_iter();
        let found = all.find(|it| it.type_ == "NetRawMissing");
        found.context("no condition")
    };
    ensure!(said().await?.status == "False");
    bed.announcers.kill(node).await?;
    bed.announcers.start_without_net_raw(PROCESS, node).await?;
    let exit = bed.lab.wait_exit(PROCESS, SOON).await?;
    ensure!(!exit.success(), "it ended with {exit}");
    let log = bed.lab.log(PROCESS)?;
    ensure!(log.contains("NetRawMissing") && log.contains(FIX), "{log}");
    let found = said().await?;
    ensure!(
        found.status == "True" && found.message.contains(FIX),
        "{found:?}"
    );
    let objects = bed.announcers.objects().await?;
    let mut all = objects
        .iter()
        .filter_map(|it| it.status.as_ref())
        .flat_map(|it| &it.conditions);
    let untrusted = all.any(|it| it.type_ == "UntrustedAnnouncer" && it.status == "True");
    ensure!(!untrusted, "its object is not trusted: {objects:?}");
    bed.announcers.start_again(node).await?;
    eventually(SOON, || async {
        let found = said().await?;
        ensure!(found.status == "False", "{found:?}");
        Ok(())
    })
    .await?;
    bed.settled().await.map(drop)
}

/// A host that is no node uses an address of a Service: reported, not fought over.
pub(crate) async fn foreign_host(bed: &Bed<'_>, _: IpAddr) -> Result<()> {
    let all = bed.addresses_of("web-4").await?;
    let foreign = all[0];
    let (text, mac) = (foreign.to_string(), bed.lab.mac(STRANGER).await?);
    let prefixed = format!("{text}/32");
    let set = |verb| ["ip", "address", verb, &prefixed, "dev", "eth0"].map(str::to_owned);
    bed.lab.exec(STRANGER, set("add")).await?.ok()?;
    let claim = ["arping", "-U", "-S", &text, "-c", "2", "-i", "eth0", &text];
    let reported = eventually(SOON, || async {
        bed.lab.exec(STRANGER, claim).await?;
        let objects = bed.announcers.objects().await?;
        let conditions = objects.into_iter().filter_map(|it| it.status);
        let mut conditions = conditions.flat_map(|it| it.conditions);
        let found = conditions.find(|it| it.type_ == "AddressConflict" && it.status == "True");
        let found = found.context("no announcer reports a conflict")?;
        let (message, named) = (&found.message, [text.as_str(), mac.as_str()]);
        ensure!(named.iter().all(|it| message.contains(it)), "{message}");
        Ok(())
    })
    .await;
    bed.lab.exec(STRANGER, set("delete")).await?.ok()?;
    reported?;
    // The holder is the only one that answers again.
    let holder = bed.lab.mac(bed.holder(foreign).await?).await?;
    eventually(SOON, || async {
        let answers = judged(bed.lab, NEWCOMER, foreign).await?;
        ensure!(answers.iter().eq([&holder]), "{answers:?}, not {holder}");
        Ok(())
    })
    .await
}
