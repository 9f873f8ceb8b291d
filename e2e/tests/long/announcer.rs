//! Announcers on five nodes with kube-proxy in iptables mode, and what takes too long for
//! `make test`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ballast_e2e::failover::bed::{Bed, LOCAL, NEWCOMER, SERVER};
use ballast_e2e::failover::value::{KNOWN, KNOWN_MOVES, MOVES, NEWCOMER as NEW, RETURN, TWO};
use ballast_e2e::failover::watch::Watch;
use ballast_e2e::failover::{machines, outages};
use ballast_e2e::segment::Moment;
use ballast_e2e::{Host, ProxyMode, eventually};
use serde_json::json;

use crate::announcer::{
    ANSWER, OUTAGE, at_most, cases, failures, intercepted, on_bed, plans, reach,
};
use crate::common::SOON;
use crate::common::command::Ballast;
use crate::common::outside;
use crate::metal::{greeting, holders, many_services, spread};

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
                failures::deaf_port,
                intercepted::probes_intercepted,
                failures::agent_restarts,
                failures::agent_gone,
                failures::agent_stopped,
                failures::frozen,
                failures::uplink_dead,
                plans::drain,
                plans::exclusion,
                plans::endpoint_moves,
                plans::new_mac,
                plans::foreign_host,
            ];
            Ok(())
        },
    )
    .await
}

/// Freezes of all lengths, and the long outage of all links.
#[tokio::test(flavor = "multi_thread")]
async fn what_takes_long_on_three_nodes() -> Result<()> {
    let name = "t-announcer-lengths";
    on_bed(name, 3, ProxyMode::Nftables, async |bed, all| {
        cases![
            bed,
            all,
            frozen_for_300_ms,
            frozen_for_300_ms,
            frozen_for_1_s,
            frozen_for_10_s,
            all_links_for_a_minute,
            loss_moves_nothing,
        ];
        Ok(())
    })
    .await
}

async fn frozen_for_300_ms(bed: &Bed<'_>, address: IpAddr) -> Result<()> {
    let values = machines::frozen(bed, address, Duration::from_millis(300)).await?;
    at_most(&values, &[(KNOWN_MOVES, 0.0)])
}

async fn frozen_for_1_s(bed: &Bed<'_>, address: IpAddr) -> Result<()> {
    let values = machines::frozen(bed, address, Duration::from_secs(1)).await?;
    at_most(&values, &[(KNOWN_MOVES, 1.0), (TWO, 0.2)])
}

async fn frozen_for_10_s(bed: &Bed<'_>, address: IpAddr) -> Result<()> {
    let values = machines::frozen(bed, address, Duration::from_secs(10)).await?;
    at_most(
        &values,
        &[(NEW, OUTAGE), (KNOWN_MOVES, 1.0), (TWO, 0.2), ANSWER],
    )
}

async fn all_links_for_a_minute(bed: &Bed<'_>, address: IpAddr) -> Result<()> {
    let back = [0, 2, 5].map(Duration::from_secs);
    let values = machines::all_links(bed, address, Duration::from_mins(1), &back).await?;
    at_most(&values, &[(RETURN, 3.0), (MOVES, 0.0)])
}

#[tokio::test(flavor = "multi_thread")]
async fn other_ways_of_detection() -> Result<()> {
    let name = "t-announcer-ways";
    on_bed(name, 3, ProxyMode::Nftables, async |bed, all| {
        cases![bed, all, tolerant_and_lease_take_their_time];
        Ok(())
    })
    .await
}

/// How long an address of each `failureDetection` is without an answer after its node's link was cut, in
/// seconds: at least and at most.
const PATIENT: [(&str, f64, f64); 2] = [("Tolerant", 4.5, 8.0), ("Lease", 9.0, 25.0)];

async fn tolerant_and_lease_take_their_time(bed: &Bed<'_>, _: IpAddr) -> Result<()> {
    for (number, (detection, least, most)) in PATIENT.into_iter().enumerate() {
        let name = detection.to_lowercase();
        let objects = format!(
            "
{{apiVersion: ballast.dev/v1alpha1, kind: LoadBalancerClass, metadata: {{name: {name}}}, spec: {{l2: {{addressPools: [{name}], failureDetection: {detection}}}}}}}
---
{{apiVersion: ballast.dev/v1alpha1, kind: AddressPool, metadata: {{name: {name}}}, spec: {{addresses: [10.89.0.25{number}/32]}}}}
"
        );
        bed.lab.apply(&objects).await?;
        let spec = json!({"loadBalancerClass": format!("ballast.dev/{name}")});
        bed.lab
            .apply(&outside::service(&name, &["IPv4"], SERVER, &spec))
            .await?;
        let holder = holders(bed, &name).await?[0];
        let (address, holder) = holder;
        let watch = Watch::of(bed, address).await?;
        let cut = Moment::now();
        bed.lab.cut(holder).await?;
        tokio::time::sleep(Duration::from_secs_f64(most)).await;
        let seen = watch.until(Moment::now()).await?;
        bed.heal().await?;
        let newcomer = seen.newcomer(cut, seen.period().1);
        let outage = newcomer.outage.as_secs_f64();
        println!("  {detection}: {outage:.2} s");
        ensure!((least..most).contains(&outage), "{detection}: {newcomer:?}");
        ensure!(
            holders(bed, &name).await?[0].1 != holder,
            "it has not moved"
        );
        bed.lab.kubectl(&["delete", "service", &name]).await?;
    }
    Ok(())
}

async fn loss_moves_nothing(bed: &Bed<'_>, _: IpAddr) -> Result<()> {
    let values = outages::loss(bed, Duration::from_mins(10)).await?;
    at_most(&values, &[(MOVES, 0.0)])
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
    all_fail_over_in_time(bed).await?;
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

/// The addresses of a node are taken over one after the other: the first and the last of them in time.
async fn all_fail_over_in_time(bed: &Bed<'_>) -> Result<()> {
    for last in [false, true] {
        let mut of_node: BTreeMap<Host, Vec<IpAddr>> = BTreeMap::new();
        let waiting = bed.addresses_of(LOCAL).await?;
        for (address, all) in bed.announcers.held().await? {
            if let Some(holding) = all.first()
                && !waiting.contains(&address)
            {
                of_node.entry(holding.node).or_default().push(address);
            }
        }
        let most = of_node.into_values().max_by_key(Vec::len);
        let mut most = most.context("no nodes")?;
        most.sort();
        let address = if last { most.last() } else { most.first() };
        let address = *address.context("no addresses")?;
        println!("  one of {} addresses of a node: {address}", most.len());
        let values = machines::link_cut(bed, address).await?;
        at_most(&values, &[(KNOWN, OUTAGE), (NEW, OUTAGE), ANSWER])?;
    }
    Ok(())
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
