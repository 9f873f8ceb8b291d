//! Announcers on five nodes with kube-proxy in iptables mode, and what takes too long for
//! `make test`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use ballast_e2e::failover::bed::{Bed, LOCAL, NEWCOMER};
use ballast_e2e::{Host, ProxyMode, eventually};

use crate::announcer::{cases, failures, intercepted, on_bed, plans, reach};
use crate::common::SOON;
use crate::common::command::Ballast;
use crate::metal::{greeting, many_services, spread};

/// Addresses for a thousand Services. IPv4 has not so many in the nodes' network.
const POOL: &str = "
{apiVersion: ballast.dev/v1alpha1, kind: AddressPool, metadata: {name: many}, spec: {addresses: ['fd89::1000-fd89::1fff']}}
";
/// Of two nodes, the most addresses to the fewest.
const EVEN: f64 = 1.3;

#[tokio::test(flavor = "multi_thread")]
async fn five_nodes_with_iptables() -> Result<()> {
    on_bed(
        "t-announcer-long",
        5,
        ProxyMode::Iptables,
        async |bed, all| {
            cases![
                bed,
                all,
                reach::every_client_reaches_every_address,
                failures::link_cut,
                failures::one_way,
                failures::all_links,
                failures::api_down,
                failures::split,
                failures::node_killed,
                intercepted::probes_intercepted,
                plans::drain,
                plans::endpoint_moves,
            ];
            Ok(())
        },
    )
    .await
}

/// On three nodes, over and over: what is found out once may be due to chance.
#[tokio::test(flavor = "multi_thread")]
async fn a_switch_that_answers_is_found_out() -> Result<()> {
    let name = "t-announcer-switch";
    on_bed(name, 3, ProxyMode::Nftables, async |bed, all| {
        cases![
            bed,
            all,
            intercepted::probes_intercepted,
            intercepted::probes_intercepted,
            intercepted::probes_intercepted,
            intercepted::probes_intercepted,
            intercepted::probes_intercepted,
        ];
        Ok(())
    })
    .await
}

/// Planned moves again and again: whether a connection is lost may be due to chance.
#[tokio::test(flavor = "multi_thread")]
async fn planned_moves_lose_no_connection() -> Result<()> {
    let name = "t-announcer-planned";
    on_bed(name, 3, ProxyMode::Nftables, async |bed, all| {
        for _ in 0..4 {
            cases![
                bed,
                all,
                plans::drain,
                plans::exclusion,
                plans::out_of_service,
            ];
        }
        Ok(())
    })
    .await
}

/// Many addresses are spread over the nodes, also after all nodes were rebooted in turn.
#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_addresses_on_five_nodes() -> Result<()> {
    on_bed(
        "t-announcer-many",
        5,
        ProxyMode::Iptables,
        async |bed, all| {
            bed.lab.apply(POOL).await?;
            cases![bed, all, three_hundred_are_even, a_thousand_are_answered];
            Ok(())
        },
    )
    .await
}

async fn three_hundred_are_even(bed: &Bed<'_>, _: IpAddr) -> Result<()> {
    let counts = many_services(bed, "IPv6", 1..=290).await?;
    println!("  placed: {:?}", counts.values());
    even(&counts)?;
    for node in bed.nodes() {
        bed.lab.power_off(node).await?;
        let start = Instant::now();
        let moved = eventually(2 * SOON, || left(bed, node)).await;
        let took = start.elapsed();
        bed.power_on(node).await?;
        bed.heal().await?;
        moved?;
        println!("  {} was left after {took:.1?}", node.name());
    }
    let counts = eventually(SOON, || spread(bed)).await?;
    println!("  after reboots: {:?}", counts.values());
    rebalanced(bed).await
}

/// Nothing is on this node any more but the addresses with the policy Local, which wait for the node with
/// their endpoint.
async fn left(bed: &Bed<'_>, node: Host) -> Result<()> {
    let waiting = bed.addresses_of(LOCAL).await?;
    let held = bed.announcers.held().await?;
    let still = held.iter().filter(|(address, all)| {
        let first = all.first().is_some_and(|it| it.node == node);
        first && !waiting.contains(address)
    });
    let still: Vec<_> = still.map(|(address, _)| address).collect();
    ensure!(
        still.is_empty(),
        "{} addresses are still on {}: {still:?}",
        still.len(),
        node.name()
    );
    Ok(())
}

/// `ballast rebalance` waits until the addresses are even.
async fn rebalanced(bed: &Bed<'_>) -> Result<()> {
    let start = Instant::now();
    // One address a second.
    let said = Ballast::of(&bed.lab.kubeconfig())
        .within(8 * SOON)
        .run(&["rebalance", "lan"])
        .await?;
    let took = start.elapsed();
    let last = said.out.lines().last().unwrap_or_default();
    println!("  rebalanced in {took:.1?}: {last}");
    ensure!(said.code == Some(0), "{said:?}");
    let counts = eventually(SOON, || spread(bed)).await?;
    println!("  {:?}", counts.values());
    even(&counts)
}

fn even<K: std::fmt::Debug>(counts: &BTreeMap<K, usize>) -> Result<()> {
    let (fewest, most) = (counts.values().min(), counts.values().max());
    let (fewest, most) = fewest.zip(most).context("no nodes")?;
    let ratio = count(*most) / count(*fewest).max(1.0);
    ensure!(ratio <= EVEN, "the ratio is {ratio:.2}: {counts:?}");
    Ok(())
}

async fn a_thousand_are_answered(bed: &Bed<'_>, _: IpAddr) -> Result<()> {
    let start = Instant::now();
    let counts = many_services(bed, "IPv6", 291..=990).await?;
    println!("  {:?} after {:.1?}", counts.values(), start.elapsed());
    for number in (1..=990).step_by(97) {
        let all = bed.addresses_of(&format!("many-{number}")).await?;
        for address in all {
            eventually(SOON, || greeting(bed, NEWCOMER, address)).await?;
        }
    }
    Ok(())
}

fn count(number: usize) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}
