//! Two networks per node, and classes that select interfaces.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ballast_link::testbed::{self, add_address, index_of, netlink};

use crate::client::{ask, ask_on};
use crate::cluster::{Cluster, vip};
use crate::eventually;

/// Adds a network 198.51.100.0/24 with `eth1` on each host.
fn connect(cluster: &Cluster) {
    cluster.lan.add_network("eth1");
    for (at, host) in cluster.lan.hosts.iter().enumerate() {
        let last = u8::try_from(at + 1).unwrap();
        testbed::on(host, async || {
            let eth1 = index_of(&netlink(), "eth1").await;
            let net = ipnet::IpNet::new(IpAddr::from([198, 51, 100, last]), 24).unwrap();
            add_address(eth1, net).await;
        });
    }
}

fn eth1() -> BTreeSet<std::sync::Arc<str>> {
    ["eth1".into()].into()
}

/// An address is announced on the interface in its subnet that its class allows, also if that
/// interface is added later, and on no other one.
#[test]
fn a_class_selects_the_interfaces_of_its_addresses() {
    let cluster = Cluster::start(2, 1);
    let here = vip(0)[0];
    let there = IpAddr::from([198, 51, 100, 100]);
    let elsewhere = IpAddr::from([192, 0, 2, 120]);
    cluster.add_service(there, |wanted| wanted.interfaces = Some(eth1()));
    // No interface is both allowed and in its subnet.
    cluster.add_service(elsewhere, |wanted| wanted.interfaces = Some(eth1()));
    eventually("the first network has its address", || {
        let (_, interface) = cluster.announced_on(here)?;
        (*interface == *"eth0").then_some(())
    });
    assert_eq!(cluster.announced_on(there), None);
    connect(&cluster);
    eventually("the second network has its address", || {
        let (_, interface) = cluster.announced_on(there)?;
        (*interface == *"eth1").then_some(())
    });
    eventually("one node answers there", || {
        let answers = ask_on(cluster.client(), "eth1", there);
        (answers.len() == 1).then_some(())
    });
    assert!(ask(cluster.client(), elsewhere).is_empty());
    assert_eq!(cluster.announced_on(elsewhere), None);
    let (_, interface) = cluster.announced_on(here).unwrap();
    assert_eq!(*interface, *"eth0", "it did not move");
    // The class is edited: no interface is left for the first address, and it ends nowhere.
    let holder = cluster.recorded(here);
    cluster.set_wanted(|wanted| {
        if wanted.interfaces.is_none() {
            wanted.interfaces = Some(eth1());
        }
    });
    eventually("it is not announced any more", || {
        cluster.announced_on(here).is_none().then_some(())
    });
    assert_eq!(
        cluster.recorded(here),
        holder,
        "nobody else can announce it"
    );
}
