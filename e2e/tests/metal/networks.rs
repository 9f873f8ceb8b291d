//! A second network: a class that announces on its interfaces alone, and nodes that get one while
//! announcers run.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use ballast_e2e::failover::bed::{Bed, SERVER};
use ballast_e2e::{Host, eventually};
use serde_json::json;

use super::{greeting, holders, says};
use crate::announcer::QUIET;
use crate::common::SOON;
use crate::common::outside;

/// A class of the second network's interfaces, and its pool.
const OBJECTS: &str = "
{apiVersion: ballast.dev/v1alpha1, kind: LoadBalancerClass, metadata: {name: office}, spec: {l2: {addressPools: [office], interfaces: ['^eth1$']}}}
---
{apiVersion: ballast.dev/v1alpha1, kind: AddressPool, metadata: {name: office}, spec: {addresses: [10.88.0.200-10.88.0.209]}}
";
const SERVICE: &str = "office";
/// The second network's bridge on the hub.
const BRIDGE: &str = "br1";

pub(crate) async fn a_class_has_a_network_of_its_own(bed: &Bed<'_>, _: IpAddr) -> Result<()> {
    let hub = format!(
        "ip link add {BRIDGE} type bridge && ip address add 10.88.0.1/24 dev {BRIDGE} && ip link set {BRIDGE} up"
    );
    bed.lab.exec(Host::Hub, ["sh", "-c", &hub]).await?.ok()?;
    let outcome = announced_on_it_alone(bed).await;
    bed.lab
        .kubectl(&["delete", "service", SERVICE, "--ignore-not-found"])
        .await?;
    for object in ["lbclass/office", "addresspool/office"] {
        let delete = ["delete", object, "--ignore-not-found", "--timeout=60s"];
        bed.lab.kubectl(&delete).await?;
    }
    for node in bed.nodes() {
        let delete = ["ip", "link", "delete", &cable(node)];
        // A failed test may not have come that far.
        let _ = bed.lab.exec(Host::Hub, delete).await?;
    }
    let delete = ["ip", "link", "delete", BRIDGE];
    bed.lab.exec(Host::Hub, delete).await?.ok()?;
    outcome
}

fn cable(node: Host) -> String {
    format!("w-{}", node.name())
}

/// Gives a node its second interface.
async fn connect(bed: &Bed<'_>, node: Host) -> Result<()> {
    let (lab, cable) = (bed.lab, cable(node));
    let process = format!("netns-of-{}", node.name());
    let pid = lab.spawn(&process, node, ["sleep", "600"], &[]).await?;
    let link = format!(
        "ip link add {cable} type veth peer name eth1 netns {pid} && ip link set {cable} master {BRIDGE} up"
    );
    lab.exec(Host::Hub, ["sh", "-c", &link]).await?.ok()?;
    let last = node.v4().octets()[3];
    let own = format!("ip address add 10.88.0.{last}/24 dev eth1 && ip link set eth1 up");
    lab.exec(node, ["sh", "-c", &own]).await?.ok()?;
    lab.stop(&process).await.map(drop)
}

async fn announced_on_it_alone(bed: &Bed<'_>) -> Result<()> {
    let lab = bed.lab;
    lab.apply(OBJECTS).await?;
    let spec = json!({"loadBalancerClass": "ballast.dev/office"});
    lab.apply(&outside::service(SERVICE, &["IPv4"], SERVER, &spec))
        .await?;
    let address = eventually(SOON, || async {
        let all = bed.addresses_of(SERVICE).await?;
        all.first().copied().context("no address")
    })
    .await?;
    // No node has an interface in that network yet.
    tokio::time::sleep(QUIET).await;
    let held = bed.announcers.held().await?;
    ensure!(!held.contains_key(&address), "{:?}", held.get(&address));

    let nodes = bed.nodes();
    for &node in &nodes {
        says(bed, node, "NoInterface", Some(&address.to_string())).await?;
    }
    let (first, later) = (nodes[1], [nodes[0], nodes[2]]);
    connect(bed, first).await?;
    let all = holders(bed, SERVICE).await?;
    ensure!(all == [(address, first)], "{all:?}");
    answers_on(bed, address, first).await?;
    for &node in &nodes {
        says(bed, node, "NoInterface", None).await?;
    }
    for node in later {
        connect(bed, node).await?;
    }
    let successors = || async {
        let held = bed.announcers.held().await?;
        let all = held.get(&address).context("nobody holds it")?;
        ensure!(all.len() == 1 && all[0].node == first, "{all:?}");
        ensure!(all[0].successors.len() == 2, "{all:?}");
        Ok(())
    };
    eventually(SOON, successors).await?;
    // The other class does not announce here, and this one not there.
    let lan = bed.addresses_of("web-3").await?[0];
    let mac = bed.lab.mac(bed.holder(lan).await?).await?;
    let answers = asked(bed, "br0", lan).await?;
    ensure!(answers == [mac], "{lan} on br0: {answers:?}");
    let answers = asked(bed, BRIDGE, lan).await?;
    ensure!(answers.is_empty(), "{lan} on {BRIDGE}: {answers:?}");
    let answers = asked(bed, "br0", address).await?;
    ensure!(answers.is_empty(), "{address} on br0: {answers:?}");

    // The failure of one network is none of the other.
    let epochs = bed.epochs().await?;
    let down = ["ip", "link", "set", &cable(first), "down"];
    lab.exec(Host::Hub, down).await?.ok()?;
    let next = eventually(SOON, || async {
        let all = holders(bed, SERVICE).await?;
        ensure!(all[0].1 != first, "still on {}", first.name());
        Ok(all[0].1)
    })
    .await?;
    answers_on(bed, address, next).await?;
    let mut others = epochs;
    others.remove(&address);
    let moves = bed.moves_since(&others).await?;
    ensure!(moves == 0, "{moves} moves in the other network");
    Ok(())
}

/// Waits until this node alone answers on the second network, and forwards.
async fn answers_on(bed: &Bed<'_>, address: IpAddr, node: Host) -> Result<()> {
    let mac = ["cat", "/sys/class/net/eth1/address"];
    let mac = bed.lab.exec(node, mac).await?.ok()?;
    eventually(SOON, || async {
        let answers = asked(bed, BRIDGE, address).await?;
        ensure!(answers == [mac.trim()], "{answers:?}, not {mac}");
        greeting(bed, Host::Hub, address).await
    })
    .await
    .map(drop)
}

/// The MAC addresses that answer two ARP requests of the hub, each once.
async fn asked(bed: &Bed<'_>, interface: &str, address: IpAddr) -> Result<Vec<String>> {
    let address = address.to_string();
    let argv = [
        "arping", "-r", "-i", interface, "-c", "2", "-W", "0.5", &address,
    ];
    // It ends with an error if nobody answers.
    let said = bed.lab.exec(Host::Hub, argv).await?;
    let mut all: Vec<String> = said.stdout.lines().map(str::to_owned).collect();
    all.sort();
    all.dedup();
    Ok(all)
}
