//! One node, driven by hand: what the simulator's hosts never meet.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod lone;
mod reassigned;
mod rebalance;
mod relief;
mod replaced;

use ballast_announce::claim::Claim;
use ballast_announce::holding::State;
use ballast_announce::io::{Body, Message, Problem, Target};
use ballast_announce::membership::Stamp;
use ballast_announce::timing::{CLAIMS, CLAIMS_PER_MESSAGE, QUIET_TICK, TICK};
use ballast_announce::view::Policy;
use ballast_announce::{Input, Mac, Output};
use std::collections::BTreeSet;

use lone::{
    ETH0, FOREIGN, Lone, OWN, address, announced, claim, cluster, eth0, interface, name, wanted,
};

#[test]
fn a_new_address_is_probed_three_times_and_then_announced() {
    let mut lone = Lone::with_services(1, &[(address(0), cluster())]);
    let out = lone.run(2000);
    let queries = out
        .iter()
        .filter(|output| matches!(output, Output::Query { .. }));
    assert_eq!(queries.count(), 3);
    assert_eq!(announced(&out), [OWN]);
    let records = out
        .iter()
        .filter(|output| matches!(output, Output::Record(_)));
    assert_eq!(records.count(), 1);
}

/// A foreign host, or another program on a node, such as the speaker of `MetalLB`: then the MAC is
/// that of an agent.
#[test]
fn an_address_that_another_host_uses_is_taken_soon_after_that_has_ended() {
    let agent = Mac([2, 0, 0, 0, 0, 2]);
    for (mac, node) in [(FOREIGN, None), (agent, Some(name(1)))] {
        let mut lone = Lone::with_services(2, &[(address(0), cluster())]);
        while !matches!(lone.node.state(&address(0)), State::Probing { .. }) {
            lone.run(50);
        }
        // The host answers each question.
        let answers = |lone: &mut Lone, milliseconds: u64| {
            let mut questions = 0;
            for _ in 0..milliseconds / 50 {
                let out = lone.run(50);
                assert_eq!(announced(&out), []);
                let asks = |it: &&Output| matches!(it, Output::Query { .. });
                if out.iter().any(|it| asks(&it)) {
                    questions += 1;
                    lone.hear(mac);
                }
            }
            questions
        };
        let questions = answers(&mut lone, 20_000);
        assert!((150..=210).contains(&questions), "{questions} in 20 s");
        assert!(!lone.answers(0));
        let conflict = Problem::AddressConflict {
            address: address(0),
            mac,
            node,
        };
        assert_eq!(lone.problems(), BTreeSet::from([conflict]));
        assert_eq!(announced(&lone.run(600)), [OWN], "the host is gone");
        lone.run(61_000);
        assert!(lone.problems().is_empty());
    }
}

/// A printer may have it for good.
#[test]
fn a_host_that_stays_is_asked_less_often() {
    let mut lone = Lone::with_services(1, &[(address(0), cluster())]);
    let mut count = 0;
    let mut questions = Vec::new();
    for tick in 0..20 * 60 * 15 {
        let out = lone.run(50);
        if out.iter().any(|it| matches!(it, Output::Query { .. })) {
            count += 1;
            lone.hear(FOREIGN);
        }
        if tick % (20 * 60) == 20 * 60 - 1 {
            questions.push(std::mem::take(&mut count));
        }
    }
    assert!(questions[1] >= 500, "{questions:?}");
    assert!(questions[14] <= 61, "{questions:?}");
    assert!(!lone.answers(0));
}

/// The other way: the speaker of `MetalLB` starts on another node.
#[test]
fn a_program_on_another_node_that_claims_an_address_is_reported() {
    let mut lone = Lone::with_services(2, &[(address(0), cluster())]);
    lone.run(10_000);
    let agent = Mac([2, 0, 0, 0, 0, 2]);
    lone.hear(agent);
    lone.run(500);
    lone.hear(agent);
    assert!(
        lone.problems().is_empty(),
        "two agents may disagree for a moment"
    );
    for _ in 0..8 {
        lone.run(500);
        lone.hear(agent);
    }
    let conflict = Problem::AddressConflict {
        address: address(0),
        mac: agent,
        node: Some(name(1)),
    };
    assert_eq!(lone.problems(), BTreeSet::from([conflict]));
    assert!(lone.answers(0));
    lone.run(11_000);
    assert!(lone.problems().is_empty());
}

#[test]
fn a_foreign_claim_is_reported_and_not_fought() {
    let mut lone = Lone::with_services(1, &[(address(0), cluster())]);
    lone.run(10_000);
    for _ in 0..20 {
        lone.hear(FOREIGN);
        assert_eq!(announced(&lone.run(100)), [], "no fight");
        assert!(lone.answers(0), "no withdrawal");
    }
    let conflict = Problem::AddressConflict {
        address: address(0),
        mac: FOREIGN,
        node: None,
    };
    assert_eq!(lone.problems(), BTreeSet::from([conflict]));
    lone.run(61_000);
    assert!(lone.problems().is_empty(), "it is gone");
}

#[test]
fn a_new_mac_is_announced_at_once() {
    let mut lone = Lone::with_services(1, &[(address(0), cluster())]);
    lone.run(10_000);
    let other = Mac([2, 0, 0, 0, 1, 1]);
    lone.input(Input::Interfaces(vec![eth0(other)]));
    assert_eq!(announced(&lone.run(50)), [other]);
    assert_eq!(lone.node.table().get(&address(0)).unwrap().answer, other);
}

#[test]
fn the_interface_in_the_subnet_of_the_address_answers() {
    let mut lone = Lone::with_services(1, &[(address(0), cluster())]);
    let both = vec![interface(ETH0 + 1, FOREIGN, "172.16.0.1/16"), eth0(OWN)];
    lone.view.nodes.get_mut(&name(0)).unwrap().interfaces = both.clone();
    lone.input(Input::Interfaces(both));
    lone.see();
    lone.run(3000);
    assert_eq!(lone.node.table().get(&address(0)).unwrap().interface, ETH0);
}

#[test]
fn policy_local_waits_for_the_health_port() {
    let services = [(address(0), wanted(Policy::Local, &[name(0)]))];
    let mut lone = Lone::with_services(1, &services);
    assert_eq!(announced(&lone.run(10_000)), []);
    lone.input(Input::Health {
        address: address(0),
        healthy: true,
    });
    assert_eq!(announced(&lone.run(500)), [OWN]);
    // Nothing is withdrawn when it fails: there is no better node.
    lone.input(Input::Health {
        address: address(0),
        healthy: false,
    });
    lone.run(5000);
    assert!(lone.answers(0));
}

#[test]
fn an_address_without_endpoints_is_announced_and_reported() {
    let services = [(address(0), wanted(Policy::Local, &[]))];
    let mut lone = Lone::with_services(1, &services);
    assert_eq!(announced(&lone.run(2000)), [OWN]);
    let address = address(0);
    assert_eq!(
        lone.problems(),
        BTreeSet::from([Problem::NoEndpoints { address }])
    );
}

#[test]
fn a_deleted_service_is_withdrawn_and_its_address_forgotten() {
    let mut lone = Lone::with_services(1, &[(address(0), cluster())]);
    lone.run(3000);
    lone.view.wanted.clear();
    lone.see();
    lone.run(50);
    assert!(!lone.answers(0));
    let out = lone.run(67_000);
    assert_eq!(lone.node.claims().get(&address(0)), None);
    let recorded = out.iter().rev().find_map(|output| match output {
        Output::Record(claims) => Some(claims.len()),
        _ => None,
    });
    assert_eq!(recorded, Some(0), "its object does not bring it back");
}

/// A claim of its own may be old by then.
#[test]
fn an_interface_that_comes_back_answers_only_after_a_claim_check() {
    let mut lone = Lone::with_services(2, &[(address(0), cluster())]);
    lone.run(5000);
    assert!(lone.answers(0));
    lone.input(Input::Interfaces(Vec::new()));
    lone.run(1000);
    assert!(!lone.answers(0));
    lone.input(Input::Interfaces(vec![eth0(OWN)]));
    assert!(!lone.answers(0));
    lone.run(50);
    assert!(!lone.answers(0), "it asks first");
    lone.run(3000);
    assert!(lone.answers(0));
}

/// Clients may have the loser's MAC since both answered, on the loser's side of a split.
#[test]
fn a_node_that_withdraws_announces_the_winner_once() {
    let mut lone = Lone::with_services(2, &[(address(0), cluster())]);
    lone.run(5000);
    let claim = claim(9, 1, &[0]);
    lone.beat(1, 1);
    lone.input(Input::Holdings(vec![(address(0), claim)]));
    lone.beat(1, 2);
    let winner = Mac([2, 0, 0, 0, 0, 2]);
    assert_eq!(announced(&lone.run(1000)), [winner]);
    assert!(!lone.answers(0));
}

#[test]
fn after_a_restart_without_the_api_server_a_node_resumes_what_its_peers_know() {
    let mut lone = Lone::start(0);
    lone.run(1000);
    let claim = Claim {
        revision: 2,
        ..claim(7, 0, &[1])
    };
    let stamp = Stamp {
        incarnation: 5,
        sequence: 1,
    };
    let claims = vec![(address(0), claim)];
    let message = Message {
        from: name(1),
        stamp,
        body: Body::Beat {
            claims,
            received: 0,
            cut_off: false,
        },
    };
    let via = Some(ETH0);
    lone.input(Input::Message { via, message });
    assert!(!lone.answers(0), "a claim check comes first");
    assert!(announced(&lone.run(2500)).contains(&OWN));
    assert!(lone.answers(0));
}

/// The two sides of a split segment, when it heals: clients on the side of the loser have its MAC
/// address.
#[test]
fn of_two_that_answered_the_winner_announces_again() {
    let claim = |epoch, holder| claim(epoch, holder, &[]);
    let mut lone = Lone::with_services(3, &[(address(0), cluster())]);
    let started = lone.run(20_000);
    assert!(!announced(&started).is_empty());
    let mut recorded = started.iter().rev().filter_map(|output| match output {
        Output::Record(claims) => claims.first().map(|it| it.1.clone()),
        _ => None,
    });
    let before = recorded.next().unwrap();
    assert!(announced(&lone.run(5_000)).is_empty(), "the burst is over");
    // A third node's memory is no news.
    lone.beat_with(2, 1, vec![(address(0), claim(0, 1))]);
    assert!(announced(&lone.run(1_000)).is_empty());
    lone.beat_with(1, 1, vec![(address(0), claim(0, 1))]);
    assert_eq!(announced(&lone.run(100)), [OWN]);
    assert!(announced(&lone.run(10_000)).len() > 1, "more than once");
    // The other one wins, as a third node says. This one answers until it is reached.
    lone.beat_with(2, 2, vec![(address(0), claim(before.epoch + 1, 1))]);
    lone.beat(1, 2);
    let told = lone.run(100).into_iter().find_map(|output| match output {
        Output::Send { to, message } if to == name(1) => match message.body {
            Body::Beat { claims, .. } if !claims.is_empty() => Some(claims),
            _ => None,
        },
        _ => None,
    });
    assert_eq!(told, Some(vec![(address(0), before)]));
    assert!(!lone.answers(0));
}

/// The order of the objects of two nodes is random.
#[test]
fn a_record_of_this_node_that_lost_while_it_was_away_is_replaced() {
    let claim = |epoch, holder| claim(epoch, holder, &[]);
    let (own, better) = (claim(1, 0), claim(2, 1));
    for claims in [[own.clone(), better.clone()], [better.clone(), own.clone()]] {
        let services = [(address(0), wanted(Policy::Cluster, &[]))];
        let mut lone = Lone::with_services(2, &services);
        let holdings = claims.map(|claim| (address(0), claim)).to_vec();
        lone.input(Input::Holdings(holdings));
        let out = lone.run(200);
        let recorded = out.iter().filter_map(|it| match it {
            Output::Record(claims) => Some(claims.len()),
            _ => None,
        });
        assert_eq!(recorded.collect::<Vec<_>>(), [0]);
    }
}

#[test]
fn a_switch_that_answers_for_others_is_found_and_avoided() {
    let mut lone = Lone::with_services(2, &[]);
    lone.view
        .wanted
        .insert(address(0), wanted(Policy::Cluster, &[]));
    lone.see();
    let claim = claim(1, 1, &[0]);
    lone.input(Input::Holdings(vec![(address(0), claim)]));
    // The holder's agent lives, and reports no receipts.
    for sequence in 1..20 {
        lone.input(Input::Message {
            via: Some(ETH0),
            message: Message {
                from: name(1),
                stamp: Stamp {
                    incarnation: 5,
                    sequence,
                },
                body: Body::Beat {
                    claims: Vec::new(),
                    received: 0,
                    cut_off: false,
                },
            },
        });
        lone.run(500);
    }
    let host = name(1);
    assert_eq!(
        lone.problems(),
        BTreeSet::from([Problem::ProbesIntercepted { host }])
    );
    let out = lone.run(1000);
    let probes = out.iter().filter_map(|output| match output {
        Output::Probe { target, method, .. } => Some((target, method)),
        _ => None,
    });
    let probes: Vec<_> = probes.collect();
    let echo = ballast_announce::io::Method::Echo;
    assert!(!probes.is_empty());
    for probe in probes {
        assert_eq!(probe, (&Target::Node(name(1)), &echo));
    }
}

/// 5,000 addresses, 1,000 of them here: no message names more than the limit, and a node in quiet
/// times writes nothing and sends little.
#[test]
fn an_idle_node_does_little() {
    let services: Vec<_> = (0..5000).map(|n| (address(n), cluster())).collect();
    let mut lone = Lone::with_services(5, &services);
    let out = lone.run(10_000);
    for output in &out {
        if let Output::Send { message, .. } = output
            && let Body::Beat { claims, .. } = &message.body
        {
            assert!(claims.len() <= CLAIMS_PER_MESSAGE);
        }
    }
    let held = lone.node.table().iter().count();
    assert!(held >= 1000, "{held}");
    lone.run(60_000);
    let idle = lone.run(10_000);
    let count = |which: fn(&Output) -> bool| idle.iter().filter(|output| which(output)).count();
    assert_eq!(
        count(|output| matches!(output, Output::Record(_) | Output::Query { .. })),
        0
    );
    // At most 4 neighbours, twice a second; a witness is asked once a second.
    assert!(count(|output| matches!(output, Output::Send { .. })) <= 80);
    assert!(count(|output| matches!(output, Output::Probe { .. })) <= 40);
    // At most 10 frames per tick.
    assert!(count(|output| matches!(output, Output::Announce { .. })) <= 2000);
}

/// Found on a lab: a write that had waited in a cut connection arrived after the link was back, and
/// said that the interface was not usable.
#[test]
fn a_holder_that_is_reached_keeps_its_addresses_whatever_its_object_says() {
    let mut lone = Lone::with_services(2, &[(address(0), cluster())]);
    let claim = claim(1, 1, &[0]);
    lone.input(Input::Holdings(vec![(address(0), claim)]));
    let mut sequence = 0;
    let mut beats = |lone: &mut Lone, count: usize| {
        for _ in 0..count {
            sequence += 1;
            lone.beat(1, sequence);
            lone.run(500);
        }
    };
    beats(&mut lone, 10);
    let says = |lone: &mut Lone, carrier: bool| {
        let facts = lone.view.nodes.get_mut(&name(1)).unwrap();
        facts.interfaces[0].carrier = carrier;
        lone.see();
    };
    says(&mut lone, false);
    beats(&mut lone, 20);
    assert!(!lone.answers(0), "old news");
    says(&mut lone, true);
    beats(&mut lone, 20);
    assert!(!lone.answers(0));
    says(&mut lone, false);
    beats(&mut lone, 40);
    assert!(lone.answers(0), "what it says for 20 s counts");
}

#[test]
fn a_quiet_node_ticks_seldom_until_something_happens() {
    let mut lone = Lone::with_services(3, &[(address(0), cluster())]);
    let pause = |lone: &Lone| lone.node.next_tick().since(lone.time());
    lone.run(50);
    assert_eq!(pause(&lone), TICK, "it has just started");
    // Every second it asks a host and waits for the answer, but not now.
    lone.run(10_100);
    assert_eq!(pause(&lone), QUIET_TICK);
    lone.hear(FOREIGN);
    assert_eq!(
        pause(&lone),
        QUIET_TICK,
        "nothing follows from a foreign claim"
    );
    lone.cut_off(1500);
    assert_eq!(pause(&lone), TICK, "no host answers");
    lone.run(10_100);
    assert_eq!(pause(&lone), QUIET_TICK);
    lone.view.wanted.clear();
    lone.see();
    assert_eq!(pause(&lone), TICK, "an address must be withdrawn");
}

/// Found on a lab: after its uplink was back, a node answered for the holder until the holder's
/// next message, up to half a second later.
#[test]
fn a_node_that_was_cut_off_does_not_stand_in_for_what_it_missed() {
    let mut lone = Lone::with_services(3, &[(address(0), cluster())]);
    let claim = claim(1, 1, &[0, 2]);
    lone.input(Input::Holdings(vec![(address(0), claim)]));
    for sequence in 1..10 {
        lone.beat(1, sequence);
        lone.run(500);
        assert!(!lone.answers(0), "beat {sequence}");
    }
    lone.cut_off(4000);
    lone.run(1000);
    assert!(!lone.answers(0), "it could hear nobody");
    lone.run(2000);
    assert!(lone.answers(0), "now it could");
}

/// Claims are bounded: what is left over is reported, not claimed again and again.
#[test]
fn more_addresses_than_can_be_known_are_reported() {
    let wanted = CLAIMS + 10;
    let numbers = 0..u32::try_from(wanted).unwrap();
    let services: Vec<_> = numbers.map(|n| (address(n), cluster())).collect();
    let mut lone = Lone::with_services(1, &services);
    let claims = |out: &[Output]| {
        let claimed = out.iter().filter(|it| matches!(it, Output::Claimed { .. }));
        claimed.count()
    };
    let first = lone.run(30_000);
    assert_eq!(claims(&first), CLAIMS);
    assert_eq!(claims(&lone.run(60_000)), 0);
    assert_eq!(
        lone.problems(),
        BTreeSet::from([Problem::TooManyAddresses { wanted }])
    );
}
