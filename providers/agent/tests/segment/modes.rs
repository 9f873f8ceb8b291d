//! `failureDetection` and `--no-gossip` over real sockets, and keys that change.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use ballast_announce::view::Detection;

use crate::client::ask;
use crate::cluster::{Cluster, KEY, vip};
use crate::eventually;
use crate::life::holder;

const OTHER_KEY: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";

/// The node that answers for an address, once that is recorded.
fn recorded_holder(cluster: &Cluster, address: IpAddr) -> usize {
    let node = holder(cluster, address);
    eventually("it is recorded", || {
        let recorded = cluster.recorded(address)?;
        (recorded == (node, 1)).then_some(())
    });
    node
}

/// When another node has recorded the address.
fn moved(cluster: &Cluster, address: IpAddr, from: usize) -> Instant {
    eventually("it moves", || {
        let (node, epoch) = cluster.recorded(address)?;
        assert!(epoch <= 2, "it moved more than once");
        (node != from).then(Instant::now)
    })
}

/// For hosts that stall, and for networks that are gone for a moment: less than 5 s without an answer are too
/// few. The last answer came up to 0.15 s before the cut.
#[test]
fn a_tolerant_class_waits_before_an_address_moves() {
    let cluster = Cluster::start(3, 1);
    cluster.set_wanted(|wanted| wanted.detection = Detection::Tolerant);
    let address = vip(0)[0];
    let node = recorded_holder(&cluster, address);
    let cut = Instant::now();
    cluster.lan.isolate(node, true);
    let took = moved(&cluster, address, node) - cut;
    assert!(took >= Duration::from_millis(4_800), "after {took:?}");
    assert!(took <= Duration::from_secs(8), "after {took:?}");
    assert_ne!(holder(&cluster, address), node);
}

/// Only the Lease counts, not the end of the agent: with `Fast` a successor would stand in at once, and take
/// over after 10 s.
#[test]
fn a_lease_class_moves_an_address_when_the_lease_has_expired() {
    let mut cluster = Cluster::start(3, 1);
    cluster.set_wanted(|wanted| wanted.detection = Detection::Lease);
    let address = vip(0)[0];
    let node = recorded_holder(&cluster, address);
    cluster.end_agent(node);
    let ended = Instant::now();
    assert_eq!(
        ask(cluster.client(), address),
        [].into(),
        "nobody stands in"
    );
    let took = moved(&cluster, address, node) - ended;
    assert!(took >= Duration::from_secs(12), "after {took:?}");
    assert_ne!(holder(&cluster, address), node);
}

/// Nobody says anything, and nobody answers twice.
#[test]
fn without_messages_the_leases_decide() {
    let mut cluster = Cluster::without_agents(3, 2).without_gossip();
    for node in 0..3 {
        cluster.start_agent(node);
    }
    let address = vip(0)[0];
    let node = recorded_holder(&cluster, address);
    cluster.end_agent(node);
    let ended = Instant::now();
    let took = moved(&cluster, address, node) - ended;
    assert!(took >= Duration::from_secs(12), "after {took:?}");
    let next = holder(&cluster, address);
    assert_ne!(next, node);
    // It comes back, and takes nothing.
    cluster.start_agent(node);
    for address in (0..2).flat_map(vip) {
        holder(&cluster, address);
    }
    assert_eq!(cluster.recorded(address), Some((next, 2)));
    for node in 0..3 {
        let counters = cluster.counters(node).unwrap();
        let sent = &counters.post.sent;
        assert_eq!(sent.load(std::sync::atomic::Ordering::Relaxed), 0);
    }
}

/// As docs/operations.md says: the new key above the old one, and then the old one leaves. Nodes
/// read their files at different times. In each state every agent hears the other one.
#[test]
fn keys_change_while_agents_run() {
    use std::sync::atomic::Ordering::Relaxed;
    let cluster = Cluster::start(2, 1);
    let address = vip(0)[0];
    let node = recorded_holder(&cluster, address);
    let received = |node| {
        let counters = cluster.counters(node).unwrap();
        counters.post.received.load(Relaxed)
    };
    let both_hear = |state: &str| {
        for node in 0..2 {
            let before = received(node);
            eventually(state, || (received(node) >= before + 12).then_some(()));
        }
        for node in 0..2 {
            let counters = cluster.counters(node).unwrap();
            assert_eq!(counters.members_silent.get(), 0, "{state}");
        }
    };
    // A message sealed with the new key makes an agent read its file.
    let both = [OTHER_KEY, KEY];
    for (step, keys) in [
        (0, &both[..]),
        (1, &both[..]),
        (0, &[OTHER_KEY]),
        (1, &[OTHER_KEY]),
    ] {
        cluster.set_keys(step, keys);
        both_hear(&format!("{keys:?} on node {step}"));
    }
    assert_eq!(cluster.recorded(address), Some((node, 1)), "nothing moved");
}
