//! The table of requests and answers.

use proptest::prelude::*;

use super::*;

const V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
const V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0x12, 0x3456);
const OWN: Mac = Mac([2, 0, 0, 0, 0, 1]);
const HOLDER: Mac = Mac([2, 0, 0, 0, 0, 2]);
const CLIENT: Mac = Mac([2, 0, 0, 0, 0, 9]);
const CLIENT_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 99);
const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 9);
const ETH0: u32 = 2;

fn table(answer: Mac) -> Table {
    let mut table = Table::default();
    for address in [IpAddr::V4(V4), IpAddr::V6(V6)] {
        table.insert(
            address,
            Entry {
                interface: ETH0,
                own: OWN,
                answer,
            },
        );
    }
    table
}

fn arp(to: Mac, sender_mac: Mac, sender: Ipv4Addr, target: Ipv4Addr) -> Request {
    Request::Arp {
        to,
        sender_mac,
        sender,
        target,
    }
}

fn solicitation(to: Mac, source: Ipv6Addr, target: Ipv6Addr, hop_limit: u8) -> Request {
    Request::Solicitation {
        to,
        source_mac: CLIENT,
        source,
        target,
        hop_limit,
    }
}

#[test]
fn arp_requests() {
    let zero = Ipv4Addr::UNSPECIFIED;
    let other = Ipv4Addr::new(192, 0, 2, 8);
    for (request, answered) in [
        (arp(Mac::BROADCAST, CLIENT, CLIENT_V4, V4), true),
        (arp(OWN, CLIENT, CLIENT_V4, V4), true),
        (arp(Mac::BROADCAST, CLIENT, zero, V4), true),
        // Somebody else announces our address: our answer defends it once.
        (arp(Mac::BROADCAST, CLIENT, V4, V4), true),
        (arp(CLIENT, CLIENT, CLIENT_V4, V4), false),
        (arp(Mac::BROADCAST, CLIENT, CLIENT_V4, other), false),
        (arp(Mac::BROADCAST, OWN, V4, V4), false),
    ] {
        let reply = table(OWN).answer(ETH0, &request);
        assert_eq!(reply.is_some(), answered, "{request:?}");
        assert_eq!(table(OWN).answer(3, &request), None, "another interface");
        if let (Some(reply), Request::Arp { sender, .. }) = (reply, request) {
            let expected = Reply::Arp {
                to: CLIENT,
                target: sender,
                sender: V4,
                answer: OWN,
            };
            assert_eq!(reply, expected);
        }
    }
}

#[test]
fn neighbour_solicitations() {
    let group = Mac([0x33, 0x33, 0xff, 0x12, 0x34, 0x56]);
    let reply = |to, destination, solicited| {
        Some(Reply::Advertisement {
            to,
            destination,
            target: V6,
            answer: OWN,
            solicited,
        })
    };
    let unspecified = Ipv6Addr::UNSPECIFIED;
    let to_client = reply(CLIENT, CLIENT_V6, true);
    for (request, expected) in [
        (solicitation(group, CLIENT_V6, V6, 255), to_client),
        (solicitation(OWN, CLIENT_V6, V6, 255), to_client),
        (
            solicitation(group, unspecified, V6, 255),
            reply(ALL_NODES_MAC, ALL_NODES, false),
        ),
        (solicitation(group, CLIENT_V6, V6, 254), None),
        (solicitation(CLIENT, CLIENT_V6, V6, 255), None),
        (solicitation(group, CLIENT_V6, CLIENT_V6, 255), None),
    ] {
        assert_eq!(table(OWN).answer(ETH0, &request), expected, "{request:?}");
        assert_eq!(table(OWN).answer(3, &request), None, "another interface");
    }
}

#[test]
fn a_stand_in_answers_with_the_holders_mac() {
    let request = arp(Mac::BROADCAST, CLIENT, CLIENT_V4, V4);
    let Some(Reply::Arp { answer, .. }) = table(HOLDER).answer(ETH0, &request) else {
        panic!("no answer");
    };
    assert_eq!(answer, HOLDER);
}

#[test]
fn foreign_claims() {
    let (own, standing_in) = (table(OWN), table(HOLDER));
    let v4 = IpAddr::V4(V4);
    assert!(own.contradicts(ETH0, &v4, CLIENT));
    assert!(!own.contradicts(ETH0, &v4, OWN));
    assert!(!own.contradicts(3, &v4, CLIENT), "another segment");
    assert!(!own.contradicts(ETH0, &IpAddr::V4(CLIENT_V4), CLIENT));
    assert!(!standing_in.contradicts(ETH0, &v4, HOLDER));
}

#[test]
fn solicited_node_groups() {
    let group: Ipv6Addr = "ff02::1:ff12:3456".parse().unwrap();
    assert_eq!(table(OWN).groups(ETH0), BTreeSet::from([group]));
    assert_eq!(table(OWN).groups(3), BTreeSet::new());
}

proptest! {
    /// No frame of a table names an address that the table does not have.
    #[test]
    fn only_held_addresses_are_answered(target in any::<u32>(), sender in any::<u32>()) {
        let target = Ipv4Addr::from_bits(target);
        let request = arp(Mac::BROADCAST, CLIENT, Ipv4Addr::from_bits(sender), target);
        prop_assert_eq!(table(OWN).answer(ETH0, &request).is_some(), target == V4);
    }
}
