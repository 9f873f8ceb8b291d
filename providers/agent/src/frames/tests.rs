use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use ballast_announce::responder::{Entry, Table};
use ballast_announce::view::{Detection, Interface, NodeFacts, Policy, Wanted};

use super::*;

const ETH0: u32 = 2;
const OURS: Mac = mac_of(1);
const AGENT: Mac = mac_of(2);
const CLIENT: Mac = mac_of(9);
const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 100);
const OTHER_VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 101);
const OWN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const PEER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 9);

const fn mac_of(last: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, last])
}

fn vip6() -> Ipv6Addr {
    "2001:db8::100".parse().unwrap()
}

fn host6() -> Ipv6Addr {
    "2001:db8::9".parse().unwrap()
}

fn interface(mac: Mac, nets: [&str; 2]) -> Interface {
    Interface {
        index: ETH0,
        name: "eth0".into(),
        mac,
        nets: nets.iter().map(|net| net.parse().unwrap()).collect(),
        carrier: true,
    }
}

/// This node answers for `VIP` and its IPv6 counterpart; another node has `OTHER_VIP`.
fn known() -> Known {
    let entry = Entry {
        interface: ETH0,
        own: OURS,
        answer: OURS,
    };
    let table: Table = [(VIP.into(), entry), (vip6().into(), entry)]
        .into_iter()
        .collect();
    let wanted = Wanted {
        policy: Policy::Cluster,
        detection: Detection::Fast,
        nodes: None,
        preferred: None,
        rebalance: ballast_announce::view::Rebalance::default(),
        interfaces: None,
        endpoints: BTreeSet::new(),
        refresh: None,
    };
    let wanted = Arc::new(wanted);
    let mut view = View::default();
    for address in [VIP.into(), OTHER_VIP.into(), IpAddr::V6(vip6())] {
        view.wanted.insert(address, Arc::clone(&wanted));
    }
    let ours = interface(OURS, ["192.0.2.1/24", "2001:db8::1/64"]);
    let facts = NodeFacts {
        interfaces: vec![interface(AGENT, ["192.0.2.2/24", "2001:db8::2/64"])],
        ..NodeFacts::default()
    };
    view.nodes.insert(NodeName::new("b"), facts);
    let mut witnesses = Witnesses::default();
    witnesses.set_gateways(ETH0, &[HOST.into()]);
    Known {
        table: Arc::new(table),
        directory: Arc::new(Directory::new(&NodeName::new("a"), Some(&view), &[ours])),
        view: Some(Arc::new(view)),
        witnesses: Arc::new(witnesses),
    }
}

fn arp(to: Mac, packet: &arp::Packet) -> Frame {
    let bytes = arp::frame(link(to), packet.sender_mac, packet);
    Frame::parse(&bytes).unwrap()
}

fn request(from: Mac, sender: Ipv4Addr, target: Ipv4Addr) -> arp::Packet {
    arp::Packet::request(link(from), sender, target)
}

fn sighted(frame: &Frame) -> Vec<Sighting> {
    read(&known(), ETH0, frame).sightings
}

#[test]
fn a_client_is_answered_and_is_a_witness() {
    let frame = arp(Mac::BROADCAST, &request(CLIENT, HOST, VIP));
    let reading = read(&known(), ETH0, &frame);
    let bytes = reply(OURS, &reading.reply.unwrap());
    let expected = arp::Packet::reply(link(OURS), VIP, link(CLIENT), HOST);
    assert_eq!(bytes, arp::frame(link(CLIENT), link(OURS), &expected));
    let client = Sighting::Client {
        address: HOST.into(),
        mac: CLIENT,
    };
    assert_eq!(reading.sightings, [client]);
}

#[test]
fn on_another_interface_nothing_is_answered() {
    let frame = arp(Mac::BROADCAST, &request(CLIENT, HOST, VIP));
    assert_eq!(read(&known(), 7, &frame).reply, None);
}

#[test]
fn a_question_for_another_node_shows_a_client() {
    let frame = arp(Mac::BROADCAST, &request(CLIENT, HOST, OTHER_VIP));
    let reading = read(&known(), ETH0, &frame);
    assert_eq!(reading.reply, None);
    let client = Sighting::Client {
        address: HOST.into(),
        mac: CLIENT,
    };
    assert_eq!(reading.sightings, [client]);
    for (mac, target) in [(CLIENT, Ipv4Addr::new(192, 0, 2, 50)), (AGENT, OTHER_VIP)] {
        let frame = arp(Mac::BROADCAST, &request(mac, HOST, target));
        assert_eq!(read(&known(), ETH0, &frame), Reading::default(), "{mac}");
    }
}

#[test]
fn a_solicitation_is_answered_with_a_valid_advertisement() {
    let known = known();
    for (question, solicited) in [
        (
            ndp::Solicitation::multicast(link(CLIENT), host6(), vip6()),
            true,
        ),
        (
            ndp::Solicitation::unicast(link(CLIENT), link(OURS), host6(), vip6()),
            true,
        ),
        (
            ndp::Solicitation::multicast(link(CLIENT), Ipv6Addr::UNSPECIFIED, vip6()),
            false,
        ),
    ] {
        let frame = Frame::parse(&question.encode()).unwrap();
        let answer = read(&known, ETH0, &frame).reply.unwrap();
        let bytes = reply(OURS, &answer);
        let Some(Message::Advertisement(said)) = ndp::parse(&bytes) else {
            panic!("no advertisement");
        };
        let (to, destination) = if solicited {
            (link(CLIENT), host6())
        } else {
            (ndp::group_mac(ndp::ALL_NODES), ndp::ALL_NODES)
        };
        let expected = ndp::Advertisement {
            ethernet: Ethernet {
                to,
                from: link(OURS),
            },
            source: vip6(),
            destination,
            hop_limit: 255,
            target: vip6(),
            target_mac: Some(link(OURS)),
            solicited,
            override_: !solicited,
            router: false,
        };
        assert_eq!(said, expected);
    }
}

#[test]
fn a_probe_by_an_agent_is_a_receipt() {
    let probed = || {
        vec![Sighting::Probed {
            by: NodeName::new("b"),
        }]
    };
    assert_eq!(sighted(&arp(OURS, &request(AGENT, PEER, OWN))), probed());
    let peer6 = "2001:db8::2".parse().unwrap();
    let own6 = "2001:db8::1".parse().unwrap();
    let question = ndp::Solicitation::unicast(link(AGENT), link(OURS), peer6, own6);
    let frame = Frame::parse(&question.encode()).unwrap();
    assert_eq!(sighted(&frame), probed());
    // Somebody else's question is none.
    assert_eq!(sighted(&arp(OURS, &request(CLIENT, HOST, OWN))), []);
}

#[test]
fn only_an_answer_to_us_proves_that_a_host_lives() {
    let answer = |to, mac, sender| {
        let packet = arp::Packet::reply(link(mac), sender, link(OURS), OWN);
        sighted(&arp(to, &packet))
    };
    let node = Sighting::Answer {
        from: Target::Node(NodeName::new("b")),
        mac: AGENT,
    };
    assert_eq!(answer(OURS, AGENT, PEER), [node]);
    let gateway = Sighting::Answer {
        from: Target::Host(HOST.into()),
        mac: CLIENT,
    };
    assert_eq!(answer(OURS, CLIENT, HOST), [gateway]);
    assert_eq!(answer(Mac::BROADCAST, AGENT, PEER), []);
    assert_eq!(answer(OURS, CLIENT, Ipv4Addr::new(192, 0, 2, 77)), []);
}

#[test]
fn whoever_names_itself_the_owner_of_an_address_is_heard() {
    let heard = |address: IpAddr, mac| vec![Sighting::Heard { address, mac }];
    for bytes in announcements(AGENT, OTHER_VIP.into(), AGENT) {
        let frame = Frame::parse(&bytes).unwrap();
        assert_eq!(sighted(&frame), heard(OTHER_VIP.into(), AGENT), "{frame:?}");
    }
    for bytes in announcements(CLIENT, vip6().into(), CLIENT) {
        let frame = Frame::parse(&bytes).unwrap();
        assert_eq!(sighted(&frame), heard(vip6().into(), CLIENT), "{frame:?}");
    }
    // Also in an ordinary question, and while we answer for it.
    let question = arp(Mac::BROADCAST, &request(CLIENT, VIP, OWN));
    assert_eq!(sighted(&question), heard(VIP.into(), CLIENT));
    // A query claims nothing, and an address of no Service is nobody's business.
    for address in [IpAddr::V4(OTHER_VIP), IpAddr::V6(vip6())] {
        let frame = Frame::parse(&query(AGENT, address)).unwrap();
        assert_eq!(sighted(&frame), [], "{address}");
    }
    let other = announcements(CLIENT, HOST.into(), CLIENT);
    assert_eq!(sighted(&Frame::parse(&other[0]).unwrap()), []);
}

#[test]
fn before_the_services_are_known_every_address_may_be_one() {
    let bytes = &announcements(CLIENT, HOST.into(), CLIENT)[0];
    let unknown = Known {
        view: None,
        ..known()
    };
    let reading = read(&unknown, ETH0, &Frame::parse(bytes).unwrap());
    assert_eq!(reading.sightings.len(), 1);
}

#[test]
fn a_probe_goes_to_one_host_and_to_all_if_its_mac_is_unknown() {
    let probe = |mac, own: &str, address: &str| {
        let neighbour = Neighbour {
            address: address.parse().unwrap(),
            mac,
            own: own.parse().unwrap(),
        };
        super::probe(OURS, &neighbour)
    };
    let Frame::Arp(ethernet, packet) =
        Frame::parse(&probe(AGENT, "192.0.2.1", "192.0.2.2").unwrap()).unwrap()
    else {
        panic!("no ARP");
    };
    assert_eq!(ethernet.to, link(AGENT));
    assert_eq!(packet, request(OURS, OWN, PEER));
    let Frame::Neighbour(Message::Solicitation(asked)) =
        Frame::parse(&probe(Mac::BROADCAST, "2001:db8::1", "2001:db8::9").unwrap()).unwrap()
    else {
        panic!("no solicitation");
    };
    assert_eq!(asked.destination, ndp::solicited_node(host6()));
    assert_eq!(asked.source_mac, Some(link(OURS)));
    assert_eq!(probe(AGENT, "192.0.2.1", "2001:db8::9"), None);
}

#[test]
fn what_may_have_crossed_a_router_means_nothing() {
    let far = ndp::Solicitation {
        hop_limit: 254,
        ..ndp::Solicitation::multicast(link(CLIENT), host6(), vip6())
    };
    assert_eq!(Frame::parse(&far.encode()), None);
    let far = ndp::Advertisement {
        hop_limit: 254,
        ..ndp::Advertisement::unsolicited(link(CLIENT), vip6(), link(CLIENT))
    };
    assert_eq!(Frame::parse(&far.encode()), None);
}
