//! `make demo-l2`: an address on bare metal whose node fails. Three nodes, a Service, a client that
//! connects 100 times a second; the link of the node that answers is cut, and later connected
//! again. Every step prints what it does and how long it took; the first step that fails ends the
//! demo with a non-zero exit status.
//!
//! The web server is on a machine that is not a node, so that the outage is that of the address
//! and not that of a server.
//!
//! `KEEP=1` keeps the cluster running and prints how to use it. `BALLAST_LAB` names the lab.

use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ballast_e2e::failover::bed::{self, Bed};
use ballast_e2e::segment::judge::{self, Reachability};
use ballast_e2e::segment::{Moment, Visitor, Visits};
use ballast_e2e::story::{boot, keeps, lab_name, step, tell};
use ballast_e2e::{Host, Lab, ProxyMode, eventually};

const SOON: Duration = Duration::from_mins(1);
const NODES: u8 = 3;
/// The Service of the story.
const SERVICE: &str = "web-1";
/// How long nothing may move after the link is back.
const STILL: Duration = Duration::from_secs(5);
/// How long the client must be answered without a failure before something happens.
const CALM: Duration = Duration::from_millis(500);

#[tokio::main]
async fn main() -> ExitCode {
    tell(Box::pin(demo())).await
}

async fn demo() -> Result<()> {
    let keep = keeps();
    let options = bed::options(&lab_name("demo-l2"), NODES, ProxyMode::Nftables);
    let what = "Boot a real Kubernetes: three nodes in network namespaces, on one network segment";
    let lab = boot(what, options).await?;
    let shown = show(&lab).await;
    let shown = lab.explain(shown).await;
    if keep {
        let name = lab.name().to_owned();
        lab.detach().await?;
        println!("\nThe cluster stays up (KEEP=1):");
        println!("  target/debug/lab kubectl --name {name} -- get announcers,services");
        println!("  target/debug/lab exec --name {name} hub ip link set v-node1 down   # and up");
        println!("  target/debug/lab down --name {name}");
        return shown;
    }
    shown?;
    step("Take the cluster down", async {
        lab.down().await.map(|()| (String::new(), ()))
    })
    .await
}

async fn show(lab: &Lab) -> Result<()> {
    let bed = step(
        "Install Ballast: a controller, an announcer on each node, an address pool, a class",
        async {
            let bed = Bed::make(lab, &[]).await?;
            Ok((lab.kubectl(&["get", "announcers"]).await?, bed))
        },
    )
    .await?;
    let (address, holder) = step(
        "A Service of type LoadBalancer has an address of the pool, and one node answers for it",
        async {
            let all = bed.addresses_of(SERVICE).await?;
            let address = *all.first().context("no address")?;
            let holder = bed.holder(address).await?;
            let mac = lab.mac(holder).await?;
            let service = lab.kubectl(&["get", "service", SERVICE]).await?;
            let shown = format!(
                "{service}{} answers ARP requests for {address} with its MAC address {mac}",
                holder.name()
            );
            Ok((shown, (address, holder)))
        },
    )
    .await?;
    let to = SocketAddr::new(address, 80);
    let visits = step(
        "A client on the segment connects 100 times a second, each time with a new connection",
        async {
            let visits = lab.visit(bed::KNOWN, to, Visitor::Regular).await?;
            let (calm, seen) = calm(&visits).await?;
            let shown = format!(
                "{} of {} connections are answered",
                seen.attempts - seen.failed,
                seen.attempts
            );
            ensure!(
                bed.holder(address).await? == holder,
                "moved before {calm:?}"
            );
            Ok((shown, visits))
        },
    )
    .await?;
    let next = cut(&bed, &visits, address, holder).await?;
    back(&bed, &visits, address, holder, next).await?;
    visits.stop().await.map(drop)
}

/// The link of the node that answers is cut. Returns the node that answers afterwards.
async fn cut(bed: &Bed<'_>, visits: &Visits<'_>, address: IpAddr, holder: Host) -> Result<Host> {
    let (lab, name) = (bed.lab, holder.name());
    step(
        &format!("Cut the link of {name}: another node notices, and answers for {address}"),
        async {
            let start = Moment::now();
            lab.cut(holder).await?;
            let next = eventually(SOON, || async {
                let now = bed.holder(address).await?;
                ensure!(now != holder, "{address} is still on {name}");
                Ok(now)
            })
            .await?;
            let (until, _) = calm(visits).await?;
            let seen = judge::reachability(&visits.until(until).await?, start, until);
            let mac = lab.mac(next).await?;
            let shown = format!(
                "The client was not answered for {} ms ({} of {} connections failed).\n\
                 Now {} answers, with its MAC address {mac}. The address is the same.",
                seen.outage.as_millis(),
                seen.failed,
                seen.attempts,
                next.name(),
            );
            Ok((shown, next))
        },
    )
    .await
}

/// The link is connected again: an address does not move without need.
async fn back(
    bed: &Bed<'_>,
    visits: &Visits<'_>,
    address: IpAddr,
    holder: Host,
    next: Host,
) -> Result<()> {
    let (lab, name) = (bed.lab, holder.name());
    step(
        &format!("Connect {name} again: it is a successor now, and nothing moves back"),
        async {
            let start = Moment::now();
            lab.restore(holder).await?;
            bed.settled().await?;
            let until = Moment::now() + STILL;
            let seen = judge::reachability(&visits.until(until).await?, start, until);
            let now = bed.holder(address).await?;
            ensure!(now == next, "{address} moved to {}", now.name());
            ensure!(seen.moves == 0, "{seen:?}");
            let shown = format!(
                "{} of {} connections failed. {} still answers for {address}.\n{}",
                seen.failed,
                seen.attempts,
                next.name(),
                lab.kubectl(&["get", "announcers"]).await?,
            );
            Ok((shown, ()))
        },
    )
    .await
}

/// Waits until every connection of some time was answered. Returns its end, and what was seen.
async fn calm(visits: &Visits<'_>) -> Result<(Moment, Reachability)> {
    eventually(SOON, || async {
        let (from, until) = (Moment::now(), Moment::now() + CALM);
        let seen = judge::reachability(&visits.until(until).await?, from, until);
        ensure!(seen.failed == 0 && seen.attempts > 0, "{seen:?}");
        Ok((until, seen))
    })
    .await
}
