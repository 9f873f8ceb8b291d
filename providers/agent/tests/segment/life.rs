//! The life of an address: it is announced by one node, and moves when that node fails.

use std::net::IpAddr;

use ballast_link::testbed::{self, index_of, netlink};
use ballast_link::{Links, Mac};

use crate::client::{ask, ask_patiently};
use crate::cluster::{Cluster, vip};
use crate::eventually;

/// The node that answers, once exactly one does, with its own MAC.
pub(crate) fn holder(cluster: &Cluster, address: IpAddr) -> usize {
    eventually(&format!("one node answers for {address}"), || {
        let answers: Vec<_> = ask(cluster.client(), address).into_iter().collect();
        match answers[..] {
            [(named, from)] if named == from => node_of(cluster, named),
            _ => None,
        }
    })
}

fn node_of(cluster: &Cluster, mac: Mac) -> Option<usize> {
    (0..cluster.nodes).find(|node| mac_of(cluster, *node) == mac)
}

pub(crate) fn mac_of(cluster: &Cluster, node: usize) -> Mac {
    testbed::on(&cluster.lan.hosts[node], async || {
        let links = Links::connect().unwrap();
        let all = links.interfaces().await.unwrap();
        all.into_iter().find(|it| it.name == "eth0").unwrap().mac
    })
}

#[test]
fn one_node_answers_for_each_address_and_another_one_after_its_cable_is_cut() {
    let cluster = Cluster::start(3, 3);
    let addresses: Vec<IpAddr> = (0..3).flat_map(vip).collect();
    let holders: Vec<usize> = addresses.iter().map(|it| holder(&cluster, *it)).collect();
    for node in 0..3 {
        let count = holders.iter().filter(|holder| **holder == node).count();
        assert!(count <= 3, "addresses spread: {holders:?}");
    }
    eventually("all are recorded", || {
        let mut all = addresses.iter().zip(&holders);
        let recorded =
            |address: &IpAddr, node: usize| cluster.recorded(*address) == Some((node, 1));
        all.all(|(address, node)| recorded(address, *node))
            .then_some(())
    });
    let dead = holders[0];
    cluster.lan.plug(dead, false);
    for (address, former) in addresses.iter().zip(&holders) {
        let now = holder(&cluster, *address);
        if *former == dead {
            assert_ne!(now, dead, "{address}");
        } else {
            assert_eq!(now, *former, "{address} has no reason to move");
        }
    }
    cluster.lan.plug(dead, true);
    for (address, former) in addresses.iter().zip(&holders) {
        let now = holder(&cluster, *address);
        assert_ne!(now, dead, "{address} moved back from {now}, first {former}");
    }
}

#[test]
fn an_excluded_node_hands_its_address_over_without_a_gap() {
    let cluster = Cluster::start(2, 1);
    let address = vip(0)[0];
    let former = holder(&cluster, address);
    cluster.exclude(former, true);
    let mut answered = 0;
    let next = eventually("it moves", || {
        let answers = ask_patiently(cluster.client(), address);
        assert!(!answers.is_empty(), "a gap after {answered} answers");
        answered += answers.len();
        let moved = answers
            .iter()
            .all(|(named, _)| *named != mac_of(&cluster, former));
        moved.then(|| node_of(&cluster, answers.first().unwrap().0).unwrap())
    });
    assert_ne!(next, former);
}

/// As in a pod without it: the error says where to add it. This test runs itself in a process without it.
#[test]
fn without_net_raw_an_agent_says_what_to_do() {
    const INSIDE: &str = "BALLAST_TEST_WITHOUT_NET_RAW";
    if std::env::var_os(INSIDE).is_none() {
        let mut inside = std::process::Command::new("setpriv");
        inside.args(["--bounding-set=-net_raw", "--inh-caps=-net_raw", "--"]);
        inside.arg(std::env::current_exe().unwrap());
        inside.args(["--exact", "life::without_net_raw_an_agent_says_what_to_do"]);
        let done = inside.env(INSIDE, "1").output().unwrap();
        let said = String::from_utf8_lossy(&done.stdout);
        assert!(done.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    let cluster = Cluster::without_agents(1, 1);
    let error = testbed::on(&cluster.lan.hosts[0], async || {
        let options = ballast_agent::Options {
            node: crate::cluster::name(0),
            incarnation: 1,
            gossip: None,
        };
        ballast_agent::Agent::start(options).await.unwrap_err()
    });
    let said = error.to_string();
    let helps = ["NET_RAW", "securityContext.capabilities.add"];
    assert!(helps.iter().all(|it| said.contains(it)), "{said}");
}

#[test]
fn a_new_mac_is_answered_with() {
    let cluster = Cluster::start(2, 1);
    for (nth, address) in (0x77..).zip(vip(0)) {
        let node = holder(&cluster, address);
        let mac = Mac([0x02, 0xba, 0, 0, 0, nth]);
        testbed::on(&cluster.lan.hosts[node], async || {
            let handle = netlink();
            let eth0 = index_of(&handle, "eth0").await;
            let link = rtnetlink::LinkUnspec::new_with_index(eth0);
            let link = link.address(mac.0.to_vec()).build();
            handle.link().set(link).execute().await.unwrap();
        });
        assert_eq!(holder(&cluster, address), node, "no move");
    }
}

#[test]
fn an_agent_that_comes_back_holds_what_it_held() {
    let mut cluster = Cluster::start(3, 1);
    let address = vip(0)[1];
    let node = holder(&cluster, address);
    let recorded = eventually("it is recorded", || cluster.recorded(address));
    cluster.end_agent(node);
    // Meanwhile a successor answers with the MAC of the holder.
    let own = mac_of(&cluster, node);
    eventually("a successor stands in", || {
        let answers: Vec<_> = ask(cluster.client(), address).into_iter().collect();
        matches!(answers[..], [(named, from)] if named == own && from != own).then_some(())
    });
    cluster.start_agent(node);
    assert_eq!(holder(&cluster, address), node);
    assert_eq!(cluster.recorded(address), Some(recorded));
}
