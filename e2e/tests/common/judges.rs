//! Programs of others that say who has an address: arping and ndisc6.

use std::collections::BTreeSet;
use std::net::IpAddr;

use anyhow::{Result, ensure};
use ballast_e2e::{Host, Lab};

/// The MAC addresses that answer ARP requests of a host, one an answer. `count` requests are sent, 50 ms apart.
pub(crate) async fn arping(lab: &Lab, from: Host, to: IpAddr, count: u32) -> Result<Vec<String>> {
    let interface = if from == Host::Hub { "br0" } else { "eth0" };
    let (count, to) = (count.to_string(), to.to_string());
    let argv = [
        "arping", "-r", "-i", interface, "-c", &count, "-W", "0.05", &to,
    ];
    // It ends with an error if nobody answers.
    let said = lab.exec(from, argv).await?;
    ensure!(!said.timed_out && said.exit.signal.is_none(), "{said:?}");
    Ok(said.stdout.lines().map(str::to_owned).collect())
}

/// The MAC addresses that answer a host, by ARP or by neighbour discovery, each once: answers to other programs of
/// the host may be among them.
pub(crate) async fn judged(lab: &Lab, from: Host, address: IpAddr) -> Result<BTreeSet<String>> {
    if address.is_ipv4() {
        // A busy host may answer one request later than arping waits.
        return Ok(arping(lab, from, address, 3).await?.into_iter().collect());
    }
    let address = address.to_string();
    // Multicast, one request, and every answer within the time.
    let argv = [
        "ndisc6", "-q", "-m", "-r", "1", "-w", "1000", &address, "eth0",
    ];
    let said = lab.exec(from, argv).await?;
    let macs = said.stdout.lines().map(|line| line.trim().to_lowercase());
    Ok(macs.filter(|line| !line.is_empty()).collect())
}
