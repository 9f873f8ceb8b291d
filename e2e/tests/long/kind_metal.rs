//! Bare metal on real kind, with the chart: a Service gets an address of a pool, the node that
//! answers for it stops, and another one answers. An uninstall leaves nothing.

use std::net::IpAddr;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use ballast_e2e::kind::installed::Installed;
use ballast_e2e::kind::{Cluster, ClusterOptions};
use ballast_e2e::{Families, eventually};
use serde_json::Value;

use crate::kind::{SOON, on_cluster, web_is_ready};

#[tokio::test(flavor = "multi_thread")]
async fn an_address_moves_when_its_node_stops() -> Result<()> {
    let options = ClusterOptions {
        workers: 2,
        families: Families::Ipv4,
        ..ClusterOptions::default()
    };
    on_cluster("t-kind-metal", options, async |cluster| {
        web_is_ready(cluster).await?;
        let pool = format!("pools.lan.addresses={{{}}}", pool(cluster).await?);
        let class = "classes.local=null,classes.lan.default=true,classes.lan.l2.addressPools={lan}";
        let flags = ["--set", class, "--set", &pool, "--wait", "--timeout=120s"];
        let ballast = Installed::install_with(cluster, &flags).await?;
        let address = ballast.addresses("web").await?.remove(0);
        ballast.answers(&address).await?;
        moves(cluster, &ballast, &address).await?;
        ballast.uninstall().await?;
        ballast.nothing_is_left().await?;
        ensure!(ballast.curl(&address).await.is_err(), "still answers");
        Ok(())
    })
    .await
}

/// Addresses at the top of the network of the nodes.
async fn pool(cluster: &Cluster<'_>) -> Result<String> {
    let all = cluster.addresses(&cluster.control_plane()).await?;
    let octets = all.iter().find_map(|it| match it {
        IpAddr::V4(it) => Some(it.octets()),
        IpAddr::V6(_) => None,
    });
    let [a, b, ..] = octets.context("the node has no IPv4 address")?;
    Ok(format!("{a}.{b}.255.200-{a}.{b}.255.219"))
}

/// The node that announces the address.
async fn holder(cluster: &Cluster<'_>, address: &str) -> Result<String> {
    let text = cluster
        .kubectl(&["get", "announcers", "-o", "json"])
        .await?;
    let list: Value = serde_json::from_str(&text)?;
    let mut all: Vec<&str> = vec![];
    for object in list["items"].as_array().into_iter().flatten() {
        let holdings = object["status"]["holdings"].as_array();
        let mut holdings = holdings.into_iter().flatten();
        if holdings.any(|it| it["address"] == address) {
            all.extend(object["metadata"]["name"].as_str());
        }
    }
    // The object of a node that is dead still names what it held.
    let best = |name: &&str| {
        let items = list["items"].as_array().into_iter().flatten();
        let mut holdings = items
            .filter(|it| it["metadata"]["name"] == **name)
            .flat_map(|it| it["status"]["holdings"].as_array().into_iter().flatten());
        let found = holdings.find(|it| it["address"] == address);
        found.and_then(|it| it["epoch"].as_i64())
    };
    let first = all.iter().copied().max_by_key(best);
    Ok(first.context("no node announces it")?.to_owned())
}

async fn moves(cluster: &Cluster<'_>, ballast: &Installed<'_>, address: &str) -> Result<()> {
    let before = eventually(SOON, || holder(cluster, address)).await?;
    let start = Instant::now();
    cluster.host().docker(&["stop", "-t", "1", &before]).await?;
    let stopped = start.elapsed();
    let now = eventually(SOON, || async {
        let now = holder(cluster, address).await?;
        ensure!(now != before, "still on {before}");
        Ok(now)
    })
    .await?;
    ballast.answers(address).await?;
    println!(
        "{before} was stopped after {stopped:.1?}; {now} answers after {:.1?}",
        start.elapsed()
    );
    cluster.host().docker(&["start", &before]).await?;
    cluster.nodes_ready(SOON).await?;
    let back = || async {
        let pods = ["rollout", "status", "daemonset/ballast-announcer"];
        let flags = ["-n", "ballast-system", "--timeout=20s"];
        cluster.kubectl(&[&pods[..], &flags].concat()).await
    };
    eventually(SOON, back).await?;
    let still = holder(cluster, address).await?;
    ensure!(still == now, "moved to {still} when {before} came back");
    ballast.answers(address).await.map(drop)
}
