//! Rebalances: what one node takes, and when.

use std::net::IpAddr;
use std::sync::Arc;

use ballast_announce::holding::{Cause, Origin};
use ballast_announce::view::{Interface, Policy, Rebalance, Wanted};
use ballast_announce::{Input, Output};

use crate::lone::{
    ETH0, FOREIGN, Lone, OWN, address, claim, cluster, eth0, interface, name, wanted,
};

const ASKED: Rebalance = Rebalance {
    gradual: false,
    asked: Some(1),
};
const GRADUAL: Rebalance = Rebalance {
    gradual: true,
    asked: None,
};

fn with(rebalance: Rebalance, wanted: &Wanted) -> Arc<Wanted> {
    Arc::new(Wanted {
        rebalance,
        ..wanted.clone()
    })
}

/// Node 0, with addresses that node 1 holds.
fn uneven(services: &[Arc<Wanted>]) -> Lone {
    uneven_among(2, services)
}

fn uneven_among(nodes: usize, services: &[Arc<Wanted>]) -> Lone {
    let services: Vec<_> = (0..).map(address).zip(services.iter().cloned()).collect();
    let mut lone = Lone::with_services(nodes, &services);
    let claim = claim(1, 1, &[0]);
    let held = services.iter().map(|(at, _)| (*at, claim.clone()));
    lone.input(Input::Holdings(held.collect()));
    lone
}

/// Somebody asks for a rebalance.
fn ask(lone: &mut Lone, request: u64) {
    for wanted in lone.view.wanted.values_mut() {
        let asked = Rebalance {
            gradual: false,
            asked: Some(request),
        };
        *wanted = with(asked, wanted);
    }
    lone.see();
}

/// What node 0 claims within this time, while node 1 lives.
fn claims(lone: &mut Lone, seconds: u64) -> Vec<(IpAddr, Origin)> {
    let mut all = Vec::new();
    for _ in 0..seconds * 2 {
        let sequence = lone.next_sequence();
        lone.beat(1, sequence);
        let claimed = lone.run(500).into_iter().filter_map(|output| match output {
            Output::Claimed { address, cause, .. } => Some((address, cause.origin())),
            _ => None,
        });
        all.extend(claimed);
    }
    all
}

#[test]
fn half_of_the_addresses_move_once_somebody_asks() {
    let mut lone = uneven(&vec![cluster(); 20]);
    assert_eq!(claims(&mut lone, 60), [], "nobody asked");
    ask(&mut lone, 1);
    let first = claims(&mut lone, 4);
    assert!((3..=5).contains(&first.len()), "one per second: {first:?}");
    let mut moved = first;
    moved.extend(claims(&mut lone, 60));
    assert_eq!(moved.len(), 10, "{moved:?}");
    assert!(
        moved
            .iter()
            .all(|(_, origin)| *origin == Origin::Rebalanced)
    );
    // The request is still there, and it has ended.
    let services: Vec<_> = (20..30)
        .map(|n| (address(n), with(ASKED, &cluster())))
        .collect();
    let claim = claim(1, 1, &[0]);
    let held = services
        .iter()
        .map(|(at, _)| (*at, claim.clone()))
        .collect();
    lone.input(Input::Holdings(held));
    lone.view.wanted.extend(services);
    lone.see();
    assert_eq!(claims(&mut lone, 60), []);
}

/// An unused interface, or the bridge of local containers.
#[test]
fn an_interface_that_no_peer_shares_stops_no_rebalance() {
    let mut lone = uneven(&vec![cluster(); 10]);
    let unused = Interface {
        carrier: false,
        ..interface(ETH0 + 1, FOREIGN, "172.17.0.1/16")
    };
    lone.input(Input::Interfaces(vec![eth0(OWN), unused]));
    claims(&mut lone, 60);
    ask(&mut lone, 1);
    assert_eq!(claims(&mut lone, 60).len(), 5);
}

/// Addresses 0 and 1 have no endpoint on this node, and address 3 is not served by it yet.
#[test]
fn a_rebalance_moves_only_what_this_node_can_serve() {
    let elsewhere = wanted(Policy::Local, &[name(1)]);
    let here = wanted(Policy::Local, &[name(0), name(1)]);
    let mut lone = uneven(&[elsewhere.clone(), elsewhere, here.clone(), here]);
    lone.input(Input::Health {
        address: address(2),
        healthy: true,
    });
    ask(&mut lone, 1);
    let moved = claims(&mut lone, 90);
    assert_eq!(moved, [(address(2), Origin::Rebalanced)]);
}

#[test]
fn gradual_moves_wait_until_the_nodes_have_been_stable() {
    let mut lone = uneven(&vec![with(GRADUAL, &cluster()); 6]);
    assert_eq!(claims(&mut lone, 590), []);
    // Another node is cordoned for a moment.
    for cordoned in [true, false] {
        lone.view.nodes.entry(name(7)).or_default().cordoned = cordoned;
        lone.see();
        lone.run(500);
    }
    assert_eq!(claims(&mut lone, 590), []);
    let moved = claims(&mut lone, 25);
    assert!((1..=3).contains(&moved.len()), "one per 10 s: {moved:?}");
    assert_eq!(moved.len() + claims(&mut lone, 60).len(), 3);
}

/// The next move is chosen already: the node waits until it can serve the address.
#[test]
fn nothing_moves_any_more_after_the_class_is_manual_again() {
    let here = with(GRADUAL, &wanted(Policy::Local, &[name(0), name(1)]));
    let mut lone = uneven(&[here.clone(), here.clone(), here]);
    let healthy = |lone: &mut Lone| {
        for n in 0..3 {
            lone.input(Input::Health {
                address: address(n),
                healthy: true,
            });
        }
    };
    assert_eq!(claims(&mut lone, 605), []);
    let chosen = |lone: &Lone| lone.node.snapshot(lone.time()).rebalance.is_some();
    assert!(chosen(&lone));
    for wanted in lone.view.wanted.values_mut() {
        *wanted = with(Rebalance::default(), wanted);
    }
    lone.see();
    healthy(&mut lone);
    assert_eq!(claims(&mut lone, 60), []);
    assert!(!chosen(&lone));
    // Also if only a request asked for it.
    ask(&mut lone, 1);
    assert_eq!(claims(&mut lone, 10).len(), 1);
}

/// An old request, seen by a process that started before the class had a Service.
#[test]
fn a_later_service_does_not_carry_out_an_old_request() {
    let mut lone = Lone::start(2);
    lone.view.requests = [1].into();
    lone.input(Input::Api { connected: true });
    lone.see();
    let claim = claim(1, 1, &[0]);
    let held: Vec<_> = (0..6).map(|n| (address(n), claim.clone())).collect();
    for (at, _) in &held {
        lone.view.wanted.insert(*at, with(ASKED, &cluster()));
    }
    lone.input(Input::Holdings(held));
    lone.see();
    assert_eq!(claims(&mut lone, 60), []);
    let requests = |lone: &Lone| lone.node.requests(lone.time()).collect::<Vec<_>>();
    assert_eq!(requests(&lone), [(1, true)]);
    lone.view.requests = [1, 2].into();
    ask(&mut lone, 2);
    let first = claims(&mut lone, 1);
    assert_eq!(requests(&lone), [(1, true), (2, false)]);
    assert_eq!(first.len() + claims(&mut lone, 30).len(), 3);
    assert_eq!(requests(&lone), [(1, true), (2, true)]);
}

#[test]
fn nothing_moves_without_the_api_server_or_while_a_node_is_suspected() {
    let services = vec![cluster(); 6];
    let mut lone = uneven(&services);
    ask(&mut lone, 1);
    lone.input(Input::Api { connected: false });
    assert_eq!(claims(&mut lone, 60), []);
    lone.input(Input::Api { connected: true });
    assert_eq!(claims(&mut lone, 30).len(), 3);
    let mut lone = uneven(&services);
    ask(&mut lone, 1);
    lone.beat(1, 1);
    let out = lone.run(9000);
    let claimed = out.iter().any(|it| matches!(it, Output::Claimed { .. }));
    assert!(!claimed, "the agent of node 1 is silent");
}

/// It is preferred, and has been away.
#[test]
fn a_preferred_node_takes_nothing_back_unless_somebody_asks() {
    let preferring = Arc::new(Wanted {
        preferred: Some([name(0)].into()),
        ..Wanted::clone(&cluster())
    });
    let mut lone = uneven(&vec![preferring; 4]);
    assert_eq!(claims(&mut lone, 60), []);
    ask(&mut lone, 1);
    assert_eq!(claims(&mut lone, 60).len(), 4, "all of them");
}

/// The names are part of the API.
#[test]
fn each_cause_has_an_origin() {
    for (cause, origin) in [
        (Cause::First, "New"),
        (Cause::HostDead, "HostDown"),
        (Cause::Unusable, "HostDown"),
        (Cause::AgentGone, "AnnouncerDown"),
        (Cause::LeaseExpired, "LeaseExpired"),
        (Cause::NodeDeleted, "NotEligible"),
        (Cause::NotCandidate, "NotEligible"),
        (Cause::EndpointsMoved, "EndpointsMoved"),
        (Cause::Rebalance, "Rebalanced"),
    ] {
        assert_eq!(cause.origin().as_str(), origin);
    }
    let valid = |name: &str| {
        let mut letters = name.chars();
        letters
            .next()
            .is_some_and(|first| first.is_ascii_uppercase())
            && letters.all(|letter| letter.is_ascii_alphabetic())
    };
    assert!(Origin::ALL.iter().all(|origin| valid(origin.as_str())));
}

/// The failover is measured from the last sign of life of the former holder.
#[test]
fn a_claim_says_since_when_the_holder_has_been_gone() {
    let mut lone = uneven_among(3, &[cluster()]);
    for sequence in 1..8 {
        lone.beat(1, sequence);
        lone.run(500);
    }
    let alive = lone.time();
    let mut claimed = None;
    while claimed.is_none() {
        let out = lone.run_without(1, 50);
        claimed = out.into_iter().find_map(|output| match output {
            Output::Claimed { cause, since, .. } => Some((cause, since)),
            _ => None,
        });
        assert!(lone.time().since(alive).as_secs() < 5, "no takeover");
    }
    let (cause, since) = claimed.unwrap();
    assert_eq!(cause, Cause::HostDead);
    let before = alive.since(since).max(since.since(alive));
    assert!(before.as_millis() <= 150, "{before:?}");
}
