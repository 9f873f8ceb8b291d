//! What agents put on the wire.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use ballast_announce::io::Problem;
use ballast_announce::timing::{ADDRESS_PROBES, REPEATS};
use ballast_link::testbed::{self, Host};
use ballast_link::{FrameSocket, Links, Mac, arp, ndp};

use crate::capture::{Capture, Frame};
use crate::client::ask;
use crate::cluster::{Cluster, vip};
use crate::eventually;
use crate::life::{holder, mac_of};

/// Announcements of one address, and questions for it that claim nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    /// By this MAC: "who has it?"
    Question(Mac),
    /// ARP, as a request or as a reply; an advertisement.
    Announcement(Mac, Form),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Request,
    Reply,
    Advertisement,
}

/// What a frame to all hosts says about an address.
fn said(frame: &Frame, address: IpAddr) -> Option<Said> {
    match (frame, address) {
        (Frame::Arp(ethernet, packet), IpAddr::V4(address)) => {
            if ethernet.to != Mac::BROADCAST || packet.target != address {
                return None;
            }
            assert_eq!(ethernet.from, packet.sender_mac);
            let form = match packet.operation {
                arp::Operation::Request => Form::Request,
                arp::Operation::Reply => Form::Reply,
            };
            if packet.sender == address {
                Some(Said::Announcement(packet.sender_mac, form))
            } else {
                assert_eq!(packet.sender, Ipv4Addr::UNSPECIFIED);
                Some(Said::Question(packet.sender_mac))
            }
        }
        (Frame::Neighbour(ndp::Message::Solicitation(asked)), IpAddr::V6(address)) => {
            assert_eq!(asked.hop_limit, 255);
            let ours = asked.target == address && asked.source == Ipv6Addr::UNSPECIFIED;
            ours.then_some(Said::Question(asked.ethernet.from))
        }
        (Frame::Neighbour(ndp::Message::Advertisement(told)), IpAddr::V6(address)) => {
            if told.target != address || told.destination != ndp::ALL_NODES {
                return None;
            }
            let from = told.ethernet.from;
            let expected = ndp::Advertisement::unsolicited(from, address, from);
            assert_eq!(*told, expected);
            Some(Said::Announcement(from, Form::Advertisement))
        }
        _ => None,
    }
}

/// The MAC in a question for an IPv6 address that says who asks.
fn signed(frame: &Frame, address: IpAddr) -> Option<Mac> {
    match frame {
        Frame::Neighbour(ndp::Message::Solicitation(asked)) => {
            let ours = IpAddr::V6(asked.target) == address;
            asked.source_mac.filter(|_| ours)
        }
        _ => None,
    }
}

/// Three questions, nothing heard, and then a burst of announcements in every form.
#[test]
fn a_new_address_is_probed_for_and_then_announced() {
    let mut cluster = Cluster::without_agents(2, 1);
    let capture = Capture::start(cluster.client());
    cluster.start_agent(0);
    cluster.start_agent(1);
    for address in vip(0) {
        let node = holder(&cluster, address);
        let own = mac_of(&cluster, node);
        let forms = if address.is_ipv4() { 2 } else { 1 };
        let all = eventually("the burst is over", || {
            let all = capture.frames(|frame| said(frame, address));
            let enough = usize::from(ADDRESS_PROBES) + usize::from(REPEATS) * forms;
            (all.len() >= enough).then_some(all)
        });
        let (questions, announcements) = all.split_at(usize::from(ADDRESS_PROBES));
        for (_, question) in questions {
            assert_eq!(*question, Said::Question(own), "{all:?}");
        }
        let signed = capture.frames(|frame| signed(frame, address));
        let expected = if address.is_ipv4() {
            0
        } else {
            questions.len()
        };
        assert_eq!(signed.len(), expected, "{signed:?}");
        assert!(signed.iter().all(|(_, by)| *by == own), "{signed:?}");
        let rounds: Vec<_> = announcements.chunks(forms).collect();
        for round in &rounds {
            let expected = if address.is_ipv4() {
                vec![Form::Request, Form::Reply]
            } else {
                vec![Form::Advertisement]
            };
            let expected = expected
                .into_iter()
                .map(|form| Said::Announcement(own, form));
            assert!(round.iter().map(|(_, it)| *it).eq(expected), "{all:?}");
        }
        for pair in rounds.windows(2) {
            // A receiver that heard one a moment ago ignores the next for a second.
            let pause = pair[1][0].0 - pair[0][0].0;
            // It is 1.1 s; a busy machine notes the time of a frame late.
            assert!(pause > Duration::from_millis(700), "{pause:?}");
        }
    }
}

/// A takeover must not wait for an answer to a probe, and a probe of an address that clients use
/// could make them doubt it.
#[test]
fn a_takeover_announces_at_once_and_asks_nothing() {
    let cluster = Cluster::start(2, 1);
    let [v4, v6] = vip(0);
    let (first, other) = (holder(&cluster, v4), holder(&cluster, v6));
    // One node has both after its peer was cut off.
    cluster.lan.plug(first, false);
    let next = 1 - first;
    let macs = [mac_of(&cluster, next)];
    let capture = Capture::start(cluster.client());
    let moved: Vec<IpAddr> = [(v4, first), (v6, other)]
        .into_iter()
        .filter_map(|(address, node)| (node == first).then_some(address))
        .collect();
    for address in &moved {
        assert_eq!(holder(&cluster, *address), next);
        for (_, said) in capture.frames(|frame| said(frame, *address)) {
            assert!(
                matches!(said, Said::Announcement(mac, _) if macs.contains(&mac)),
                "{said:?}"
            );
        }
    }
}

/// Sends the announcements of an address from a host that is no node.
fn claim(host: &Host, address: Ipv4Addr) -> Mac {
    testbed::on(host, async || {
        let eth0 = testbed::eth0(&Links::connect().unwrap()).await;
        let socket = FrameSocket::arp(eth0.index).unwrap();
        let packet = arp::Packet::announcement(eth0.mac, address);
        let frame = arp::frame(Mac::BROADCAST, eth0.mac, &packet);
        socket.send(&frame).unwrap();
        eth0.mac
    })
}

/// Two hosts that defend an address would answer each other for ever (RFC 5227 §2.4 (c)).
#[test]
fn a_foreign_claim_is_reported_and_not_fought() {
    let cluster = Cluster::start(2, 1);
    let [IpAddr::V4(address), _] = vip(0) else {
        panic!("IPv4 first");
    };
    let node = holder(&cluster, address.into());
    let own = mac_of(&cluster, node);
    let capture = Capture::start(cluster.client());
    let mut foreign = None;
    for _ in 0..20 {
        foreign = Some(claim(cluster.client(), address));
    }
    let mac = ballast_announce::Mac(foreign.unwrap().0);
    let expected = Problem::AddressConflict {
        address: address.into(),
        mac,
        node: None,
    };
    eventually("the conflict is reported", || {
        cluster.problems(node).contains(&expected).then_some(())
    });
    let announcements: Vec<Instant> = capture
        .frames(|frame| said(frame, address.into()))
        .into_iter()
        .map(|(at, _)| at)
        .collect();
    assert!(
        announcements.len() <= usize::from(REPEATS) * 2,
        "only the burst of its first announcement: {announcements:?}"
    );
    assert_eq!(
        ask(cluster.client(), address.into()),
        BTreeSet::from([(own, own)]),
        "it still answers"
    );
}

/// A printer that has the address before any Service.
#[test]
fn an_address_that_a_foreign_host_uses_is_not_announced() {
    let mut cluster = Cluster::without_agents(1, 1);
    let [IpAddr::V4(address), _] = vip(0) else {
        panic!("IPv4 first");
    };
    testbed::on(cluster.client(), async || {
        let eth0 = testbed::index_of(&testbed::netlink(), "eth0").await;
        let net = ipnet::IpNet::new(address.into(), 24).unwrap();
        testbed::add_address(eth0, net).await;
    });
    let capture = Capture::start(cluster.client());
    cluster.start_agent(0);
    eventually("the conflict is reported", || {
        let problems = cluster.problems(0);
        let found = problems.iter().any(|problem| {
            matches!(problem, Problem::AddressConflict { address: of, .. } if *of == IpAddr::V4(address))
        });
        found.then_some(())
    });
    let said = capture.frames(|frame| said(frame, address.into()));
    assert!(!said.is_empty());
    for (_, said) in said {
        assert!(matches!(said, Said::Question(_)), "{said:?}");
    }
}
