//! Packets to an address that are for no port of its Service: no host has the address, so the
//! kernel of the node that answers ARP requests for it forwards them to nobody.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use ballast_e2e::failover::bed::{Bed, KNOWN};
use ballast_e2e::{Host, eventually};

use super::greeting;
use crate::common::SOON;

/// How many connections to a closed port, and pings.
const CONNECTIONS: usize = 20;
const PINGS: usize = 5;
/// A packet that circles passes nodes until its hops are used up: 64 times.
const MOST_FORWARDED: u64 = 10 * (CONNECTIONS + PINGS) as u64;
/// Linux sends a client at most nine redirects, and then none for 20 s. One more node may answer
/// while an address moves.
const MOST_REDIRECTS: u64 = 20;

/// Pings and connections to closed ports fail, no packet goes in a circle, and redirects do not
/// keep the client from the open port.
pub(crate) async fn what_no_service_wants_goes_in_no_circle(
    bed: &Bed<'_>,
    _: IpAddr,
) -> Result<()> {
    let redirects = |value: &str| {
        format!(
            "for it in all eth0; do echo {value} >/proc/sys/net/ipv4/conf/$it/send_redirects; \
         echo {value} >/proc/sys/net/ipv4/conf/$it/accept_redirects; done"
        )
    };
    // As a distribution sets them, unlike the lab.
    let hosts: Vec<Host> = bed.nodes().into_iter().chain([KNOWN]).collect();
    for &host in &hosts {
        bed.lab
            .exec(host, ["sh", "-c", &redirects("1")])
            .await?
            .ok()?;
    }
    let mut outcome = Ok(());
    for address in bed.addresses_of("web-2").await? {
        outcome = outcome.and(
            strays(bed, address)
                .await
                .with_context(|| address.to_string()),
        );
    }
    for &host in &hosts {
        bed.lab
            .exec(host, ["sh", "-c", &redirects("0")])
            .await?
            .ok()?;
    }
    outcome
}

async fn strays(bed: &Bed<'_>, address: IpAddr) -> Result<()> {
    let before = counters(bed).await?;
    let to = address.to_string();
    let ping = ["busybox", "ping", "-c", &PINGS.to_string(), "-W", "1", &to];
    let ping = bed.lab.exec(KNOWN, ping).await?;
    ensure!(!ping.exit.success(), "a ping is answered: {}", ping.stdout);
    let script = "for n in $(seq $1); do timeout 3 bash -c 'exec 3<>/dev/tcp/$0/81' $0 2>/dev/null && echo open & done; wait";
    let connect = ["bash", "-c", script, &to, &CONNECTIONS.to_string()];
    let said = bed.lab.exec(KNOWN, connect).await?.ok()?;
    ensure!(said.is_empty(), "port 81 is open: {said}");
    let after = counters(bed).await?;
    let more = |name: &str| -> Result<u64> {
        let value = |of: &BTreeMap<String, u64>| of.get(name).copied();
        let (before, after) = (
            value(&before).context("no value")?,
            value(&after).context("no value")?,
        );
        Ok(after - before)
    };
    let (forwarded, redirects, circles) = if address.is_ipv4() {
        (
            more("Ip.ForwDatagrams")?,
            more("Icmp.OutRedirects")?,
            more("Icmp.OutTimeExcds")?,
        )
    } else {
        (
            more("Ip6OutForwDatagrams")?,
            more("Icmp6OutRedirects")?,
            more("Icmp6OutTimeExcds")?,
        )
    };
    println!("  {address}: {forwarded} packets forwarded, {redirects} redirects");
    ensure!(
        forwarded <= MOST_FORWARDED,
        "{forwarded} packets were forwarded"
    );
    ensure!(circles == 0, "{circles} packets went in a circle");
    ensure!(redirects <= MOST_REDIRECTS, "{redirects} redirects");
    eventually(SOON, || greeting(bed, KNOWN, address))
        .await
        .map(drop)
}

/// The sums of the nodes' counters.
async fn counters(bed: &Bed<'_>) -> Result<BTreeMap<String, u64>> {
    let mut sums = BTreeMap::new();
    for node in bed.nodes() {
        let argv = ["cat", "/proc/net/snmp", "/proc/net/snmp6"];
        let text = bed.lab.exec(node, argv).await?.ok()?;
        for (name, value) in parse(&text) {
            *sums.entry(name).or_default() += value;
        }
    }
    Ok(sums)
}

/// `Ip: A B` above `Ip: 1 2` is `Ip.A` and `Ip.B`; of IPv6, a line is a name and a value.
fn parse(text: &str) -> Vec<(String, u64)> {
    let lines: Vec<Vec<&str>> = text
        .lines()
        .map(|line| line.split_ascii_whitespace().collect())
        .collect();
    let mut all = vec![];
    for (number, line) in lines.iter().enumerate() {
        if let [name, value] = line[..]
            && let Ok(value) = value.parse()
        {
            all.push((name.to_owned(), value));
        }
        let Some(next) = lines.get(number + 1) else {
            continue;
        };
        if line.first() == next.first() && line.first().is_some_and(|it| it.ends_with(':')) {
            let group = line[0].trim_end_matches(':');
            for (name, value) in line.iter().zip(next).skip(1) {
                if let Ok(value) = value.parse() {
                    all.push((format!("{group}.{name}"), value));
                }
            }
        }
    }
    all
}

#[test]
fn counters_are_parsed() {
    let text = "Ip: Forwarding ForwDatagrams\nIp: 1 7\nIcmp: InMsgs OutRedirects\nIcmp: 3 2\nIp6OutForwDatagrams     \t5\n";
    let all: BTreeMap<String, u64> = parse(text).into_iter().collect();
    assert_eq!(all["Ip.ForwDatagrams"], 7);
    assert_eq!(all["Icmp.OutRedirects"], 2);
    assert_eq!(all["Ip6OutForwDatagrams"], 5);
}
