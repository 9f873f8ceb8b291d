//! Hosts without IPv4: messages, cables, probes and answers go by IPv6 alone.

use std::net::IpAddr;

use ballast_link::Links;
use ballast_link::testbed;

use crate::client::{ask, ask_patiently};
use crate::cluster::{Cluster, vip};
use crate::eventually;
use crate::life::{holder, mac_of};

#[test]
fn agents_without_ipv4_find_each_other_and_announce() {
    let mut cluster = Cluster::with_ipv6_alone(3, 3);
    for host in &cluster.lan.hosts {
        testbed::on(host, async || {
            let all = Links::connect().unwrap().addresses().await.unwrap();
            let mut all = all.iter().filter(|it| it.global);
            assert!(all.all(|it| it.net.addr().is_ipv6()), "IPv4 is left");
        });
    }
    let addresses: Vec<IpAddr> = (0..3).map(|n| vip(n)[1]).collect();
    let holders: Vec<usize> = addresses.iter().map(|it| holder(&cluster, *it)).collect();
    assert_eq!(cluster.announced_on(vip(0)[0]), None, "no Service has it");
    eventually("all are recorded", || {
        let mut all = addresses.iter().zip(&holders);
        all.all(|(address, node)| cluster.recorded(*address) == Some((*node, 1)))
            .then_some(())
    });
    for node in 0..3 {
        eventually("messages and cables arrive", || {
            let counters = cluster.counters(node)?;
            let received = counters
                .post
                .received
                .load(std::sync::atomic::Ordering::Relaxed);
            let connected = counters
                .cables
                .connected
                .load(std::sync::atomic::Ordering::Relaxed);
            (received > 0 && connected > 0).then_some(())
        });
    }
    // The end of a process shows by its cable: a successor answers with the MAC of the holder.
    let (address, node) = (addresses[0], holders[0]);
    let own = mac_of(&cluster, node);
    cluster.end_agent(node);
    eventually("a successor stands in", || {
        let answers: Vec<_> = ask(cluster.client(), address).into_iter().collect();
        matches!(answers[..], [(named, from)] if named == own && from != own).then_some(())
    });
    cluster.start_agent(node);
    assert_eq!(holder(&cluster, address), node);
    // The end of a host shows by probes, with witnesses.
    cluster.lan.plug(node, false);
    let next = eventually("another node answers", || {
        let (now, epoch) = cluster.recorded(address)?;
        (now != node && epoch == 2).then_some(now)
    });
    assert_eq!(holder(&cluster, address), next);
    cluster.lan.plug(node, true);
    // A planned move has no gap.
    assert_eq!(holder(&cluster, address), next);
    cluster.exclude(next, true);
    eventually("it moves", || {
        assert!(
            !ask_patiently(cluster.client(), address).is_empty(),
            "a gap"
        );
        let (now, epoch) = cluster.recorded(address)?;
        (now != next && epoch == 3).then_some(())
    });
}
