//! Two processes of one node, as during an update with surge.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ballast_link::Mac;

use crate::client::ask_patiently;
use crate::cluster::{Cluster, vip};
use crate::eventually;
use crate::life::{holder, mac_of};

/// Longer than a successor waits before it takes over, and than silence becomes suspicion.
const OVERLAP: Duration = Duration::from_secs(13);

/// Asks for the address for this long: only this MAC answers, and always.
fn answers_with(cluster: &Cluster, address: IpAddr, node: usize, mac: Mac, time: Duration) {
    let until = Instant::now() + time;
    while Instant::now() < until {
        let late = cluster.late_ticks(node);
        let answers = ask_patiently(cluster.client(), address);
        // An agent that the kernel did not run for long answers nothing before it knows what it holds.
        let stopped = || cluster.late_ticks(node) > late;
        assert!(!answers.is_empty() || stopped(), "a gap");
        let named: BTreeSet<Mac> = answers.into_iter().map(|(named, _)| named).collect();
        assert!(named.iter().all(|named| *named == mac), "{named:?}");
    }
}

#[test]
fn an_address_stays_while_two_processes_of_its_node_overlap() {
    let mut cluster = Cluster::start(3, 2);
    let address = vip(0)[0];
    let node = holder(&cluster, address);
    let own = mac_of(&cluster, node);
    let all: Vec<IpAddr> = (0..2).flat_map(vip).collect();
    let recorded = eventually("all are recorded", || {
        let all = all.iter().map(|it| cluster.recorded(*it));
        all.collect::<Option<Vec<_>>>()
    });
    // The former process is deaf from now on. It must suspect nobody.
    cluster.start_agent(node);
    eventually("the former process was replaced", || {
        cluster.replaced(node).then_some(())
    });
    answers_with(&cluster, address, node, own, OVERLAP);
    cluster.end_former_agents();
    answers_with(&cluster, address, node, own, Duration::from_secs(3));
    for (address, before) in all.iter().zip(&recorded) {
        assert_eq!(cluster.recorded(*address), Some(*before), "{address} moved");
    }
}

#[test]
fn the_former_process_resumes_when_the_newer_one_ends() {
    let mut cluster = Cluster::start(3, 1);
    let address = vip(0)[0];
    let node = holder(&cluster, address);
    let own = mac_of(&cluster, node);
    let recorded = eventually("it is recorded", || cluster.recorded(address));
    for _ in 0..2 {
        cluster.start_agent(node);
        eventually("the former process was replaced", || {
            cluster.replaced(node).then_some(())
        });
        cluster.end_agent(node);
        eventually("the former process resumes", || {
            (!cluster.replaced(node)).then_some(())
        });
    }
    // Its peers hear it: otherwise one of them takes over 10 s later.
    answers_with(&cluster, address, node, own, OVERLAP);
    assert_eq!(cluster.recorded(address), Some(recorded));
    // And it hears them.
    cluster.exclude(node, true);
    eventually("the address moves", || {
        let now = cluster.recorded(address)?.0;
        (now != node).then_some(())
    });
    assert_ne!(holder(&cluster, address), node);
}
