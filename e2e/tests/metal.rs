//! Bare metal as its users set it up: many addresses, classes with networks of their own, an
//! interface that comes later, IPv6 alone; and what becomes of packets that no Service wants.

#[path = "metal/endpoints.rs"]
pub(crate) mod endpoints;
#[path = "metal/findings.rs"]
pub(crate) mod findings;
#[path = "metal/networks.rs"]
pub(crate) mod networks;
#[path = "metal/strays.rs"]
pub(crate) mod strays;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use ballast_e2e::failover::bed::{Bed, NEWCOMER, SERVER};
use ballast_e2e::{Host, ProxyMode, eventually};
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use kube::api::ListParams;
use serde_json::json;

use crate::announcer::{cases, on_bed};
use crate::common::SOON;
use crate::common::judges::judged;
use crate::common::outside;

/// The class of the bed.
pub(crate) const CLASS: &str = "ballast.dev/lan";
/// More Services than the bed's.
const MORE: usize = 30;

#[tokio::test(flavor = "multi_thread")]
async fn as_users_set_it_up() -> Result<()> {
    on_bed("t-metal", 3, ProxyMode::Nftables, async |bed, all| {
        cases![
            bed,
            all,
            ipv6_alone,
            strays::what_no_service_wants_goes_in_no_circle,
            endpoints::without_endpoints_the_address_stays,
            networks::a_class_has_a_network_of_its_own,
            findings::what_is_wrong_with_a_node_is_said,
            findings::a_node_that_is_cut_off_says_so,
            many_addresses_are_spread,
        ];
        Ok(())
    })
    .await
}

/// The holders of the addresses of a Service, once all of them have one.
pub(crate) async fn holders(bed: &Bed<'_>, service: &str) -> Result<Vec<(IpAddr, Host)>> {
    eventually(SOON, || async {
        let held = bed.announcers.held().await?;
        let addresses = bed.addresses_of(service).await?;
        ensure!(!addresses.is_empty(), "{service} has no address");
        let one = |address: IpAddr| {
            let all = held.get(&address).map_or(&[][..], Vec::as_slice);
            ensure!(all.len() == 1, "{address} is held by {all:?}");
            Ok((address, all[0].node))
        };
        addresses.into_iter().map(one).collect()
    })
    .await
}

/// Waits until the Announcer of a node has this condition: true with this text in its message, or false.
pub(crate) async fn says(bed: &Bed<'_>, node: Host, kind: &str, about: Option<&str>) -> Result<()> {
    // Some are looked at once a minute.
    eventually(2 * SOON, || async {
        let objects = bed.announcers.objects().await?;
        let mut objects = objects.into_iter();
        let object = objects.find(|it| it.metadata.name.as_ref() == Some(&node.name()));
        let status = object.and_then(|it| it.status).context("no status")?;
        let found = status.conditions.iter().find(|it| it.type_ == kind);
        let found = found.with_context(|| format!("no condition {kind}"))?;
        let holds = match about {
            Some(text) => found.status == "True" && found.message.contains(text),
            None => found.status == "False",
        };
        ensure!(holds, "{found:?}");
        Ok(())
    })
    .await
}

/// The first line of what a server says at an address.
pub(crate) async fn greeting(bed: &Bed<'_>, from: Host, address: IpAddr) -> Result<String> {
    let script = "exec 3<>/dev/tcp/$0/80 && head -n 1 <&3";
    let argv = ["timeout", "3", "bash", "-c", script, &address.to_string()];
    bed.lab.exec(from, argv).await?.ok()
}

/// A Service without IPv4.
async fn ipv6_alone(bed: &Bed<'_>, _: IpAddr) -> Result<()> {
    let spec = json!({"loadBalancerClass": CLASS});
    bed.lab
        .apply(&outside::service("six", &["IPv6"], SERVER, &spec))
        .await?;
    let all = holders(bed, "six").await?;
    let [(address, holder)] = all[..] else {
        anyhow::bail!("{all:?}");
    };
    ensure!(address.is_ipv6(), "{address}");
    let mac = bed.lab.mac(holder).await?;
    eventually(SOON, || async {
        let answers = judged(bed.lab, NEWCOMER, address).await?;
        ensure!(answers.iter().eq([&mac]), "{answers:?}, not {mac}");
        greeting(bed, NEWCOMER, address).await
    })
    .await?;
    bed.lab
        .kubectl(&["delete", "service", "six"])
        .await
        .map(drop)
}

/// The number of addresses of each node.
pub(crate) async fn spread(bed: &Bed<'_>) -> Result<BTreeMap<Host, usize>> {
    let mut counts: BTreeMap<Host, usize> = bed.nodes().into_iter().map(|it| (it, 0)).collect();
    for (address, all) in bed.announcers.held().await? {
        ensure!(all.len() == 1, "{address} is held by {all:?}");
        *counts.entry(all[0].node).or_default() += 1;
    }
    Ok(counts)
}

/// Adds Services with one address each, until there are so many of this family; waits until every
/// address has a holder.
pub(crate) async fn many_services(
    bed: &Bed<'_>,
    family: &str,
    numbers: std::ops::RangeInclusive<usize>,
) -> Result<BTreeMap<Host, usize>> {
    let spec = json!({"loadBalancerClass": CLASS, "allocateLoadBalancerNodePorts": false});
    for number in numbers {
        let name = format!("many-{number}");
        bed.lab
            .apply(&outside::service(&name, &[family], SERVER, &spec))
            .await?;
    }
    eventually(4 * SOON, || async {
        let expected = published(bed).await?;
        let counts = spread(bed).await?;
        let sum: usize = counts.values().sum();
        ensure!(sum == expected, "{sum} of {expected} addresses");
        Ok(counts)
    })
    .await
}

/// The number of addresses of all Services, once each of the many has one. Announcers may still hold
/// addresses of Services that were just deleted.
async fn published(bed: &Bed<'_>) -> Result<usize> {
    let services: Api<Service> = Api::all(bed.lab.kube());
    let mut addresses = BTreeSet::new();
    for service in services.list(&ListParams::default()).await? {
        let name = service.metadata.name.unwrap_or_default();
        let balancer = service.status.and_then(|it| it.load_balancer);
        let ingress = balancer.and_then(|it| it.ingress).unwrap_or_default();
        ensure!(
            !ingress.is_empty() || !name.starts_with("many-"),
            "{name} has no address"
        );
        addresses.extend(ingress.into_iter().filter_map(|it| it.ip));
    }
    Ok(addresses.len())
}

async fn many_addresses_are_spread(bed: &Bed<'_>, _: IpAddr) -> Result<()> {
    let counts = many_services(bed, "IPv4", 1..=MORE).await?;
    println!("  addresses per node: {:?}", counts.values());
    let all: usize = counts.values().sum();
    let share = all.div_ceil(counts.len());
    let most = counts.values().max().context("no nodes")?;
    // A node with more than its share is the last to get another one. Nodes that claim at the same
    // time do not know of each other's claims.
    ensure!(*most <= share + share.div_ceil(4) + 3, "{counts:?}");
    ensure!(counts.values().all(|it| *it > 0), "{counts:?}");
    Ok(())
}
