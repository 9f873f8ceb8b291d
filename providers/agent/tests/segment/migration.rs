//! Another announcer has the addresses and ends, as during a migration from `MetalLB`. The kernel of a host
//! stands for its speaker: it answers for the address with the MAC of that host.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ballast_announce::io::Problem;
use ballast_link::Mac;
use ballast_link::testbed::{self, Host, index_of, netlink};

use crate::client::ask;
use crate::cluster::{Cluster, name, vip};
use crate::eventually;
use crate::life::{holder, mac_of};

/// Lets the kernel of a host answer for an address, or ends that.
fn speaks(host: &Host, address: IpAddr, speaks: bool) {
    testbed::on(host, async || {
        let eth0 = index_of(&netlink(), "eth0").await;
        let net = ipnet::IpNet::new(address, 32).unwrap();
        if speaks {
            testbed::add_address(eth0, net).await;
        } else {
            testbed::remove_address(eth0, net).await;
        }
    });
}

fn answers(cluster: &Cluster, address: IpAddr) -> BTreeSet<Mac> {
    let answers = ask(cluster.client(), address).into_iter();
    answers.map(|(named, _)| named).collect()
}

/// Clients keep the MAC address, and their connections: the node of the speaker holds the address afterwards.
#[test]
fn the_node_of_the_other_announcer_takes_the_address() {
    let mut cluster = Cluster::without_agents(3, 8);
    let speaker = 0;
    let mac = mac_of(&cluster, speaker);
    let all: Vec<IpAddr> = (0..8).map(|n| vip(n)[0]).collect();
    for address in &all {
        speaks(&cluster.lan.hosts[speaker], *address, true);
    }
    for node in 0..3 {
        cluster.start_agent(node);
    }
    let first = |address: &IpAddr| {
        eventually("a node holds it", || {
            let (node, _) = cluster.recorded(*address)?;
            let conflict = Problem::AddressConflict {
                address: *address,
                mac: ballast_announce::Mac(mac.0),
                node: Some(name(speaker)),
            };
            // Its own node does not hear it.
            let known = node == speaker || cluster.problems(node).contains(&conflict);
            known.then_some(node)
        })
    };
    let others = all.iter().filter(|address| first(address) != speaker);
    let others: Vec<IpAddr> = others.copied().collect();
    assert!(!others.is_empty(), "all are on the node of the speaker");
    for address in &others {
        speaks(&cluster.lan.hosts[speaker], *address, false);
    }
    for address in &others {
        assert_eq!(holder(&cluster, *address), speaker, "{address}");
        eventually("it is recorded", || {
            (cluster.recorded(*address) == Some((speaker, 2))).then_some(())
        });
    }
}

/// The speaker is on one of the nodes, which may not hold the address.
#[test]
fn an_address_is_taken_when_the_other_announcer_ends() {
    let mut cluster = Cluster::without_agents(3, 1);
    let address = vip(0)[0];
    let speaker = 0;
    let mac = mac_of(&cluster, speaker);
    speaks(&cluster.lan.hosts[speaker], address, true);
    // The other two nodes: otherwise the speaker's own node could hold the address, with the same MAC.
    cluster.add_service(vip(1)[0], |_| {});
    cluster.exclude(speaker, true);
    for node in 0..3 {
        cluster.start_agent(node);
    }
    let node = eventually("a node holds it, and reports the conflict", || {
        let (node, _) = cluster.recorded(address)?;
        let conflict = Problem::AddressConflict {
            address,
            mac: ballast_announce::Mac(mac.0),
            node: Some(name(speaker)),
        };
        cluster.problems(node).contains(&conflict).then_some(node)
    });
    assert_ne!(node, speaker);
    assert_eq!(cluster.announced_on(address), None);
    assert_eq!(answers(&cluster, address), BTreeSet::from([mac]));
    // Others are announced meanwhile.
    holder(&cluster, vip(1)[0]);
    speaks(&cluster.lan.hosts[speaker], address, false);
    assert_eq!(holder(&cluster, address), node);
    assert_eq!(cluster.recorded(address), Some((node, 1)), "nothing moved");
    eventually("the conflict is over", || {
        cluster.problems(node).is_empty().then_some(())
    });
}
