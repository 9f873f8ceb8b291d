//! Messages as the kernel sends them, also of kinds of interfaces that the machine that runs
//! the tests may not have: VLAN, bond, VRF, tunnels.

use std::net::Ipv4Addr;

use netlink_packet_route::address::AddressScope;
use netlink_packet_route::route::RouteNextHop;

use super::*;
use crate::{Mac, Mark};

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

fn segment_flags() -> LinkFlags {
    LinkFlags::Up
        | LinkFlags::LowerUp
        | LinkFlags::Running
        | LinkFlags::Broadcast
        | LinkFlags::Multicast
}

/// An Ethernet interface; `None` is a physical one, which has no kind.
fn link(index: u32, kind: Option<InfoKind>) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.header.index = index;
    link.header.link_layer_type = LinkLayerType::Ether;
    link.header.flags = segment_flags();
    link.attributes = vec![
        LinkAttribute::IfName(format!("if{index}")),
        LinkAttribute::Address(MAC.to_vec()),
    ];
    if let Some(kind) = kind {
        link.attributes
            .push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)]));
    }
    link
}

fn port_of(mut link: LinkMessage, above: u32) -> LinkMessage {
    link.attributes.push(LinkAttribute::Controller(above));
    link
}

fn address_of(index: u32, net: &str, flags: AddressFlags) -> AddressMessage {
    let net: IpNet = net.parse().unwrap();
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.header.prefix_len = net.prefix_len();
    message.header.scope = AddressScope::Universe;
    message.header.family = if net.addr().is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    message.attributes = vec![
        AddressAttribute::Address(net.addr()),
        AddressAttribute::Flags(flags),
    ];
    message
}

fn permanent(index: u32, net: &str) -> AddressMessage {
    address_of(index, net, AddressFlags::Permanent)
}

fn indices(links: &[LinkMessage], addresses: &[AddressMessage]) -> Vec<u32> {
    let all = hosts(links, addresses, &BTreeMap::new());
    all.iter().map(|host| host.index).collect()
}

#[test]
fn interfaces_that_can_announce() {
    let of_kind = |kind| link(1, Some(kind));
    let with_flags = |flags| {
        let mut link = link(1, None);
        link.header.flags = flags;
        link
    };
    let with_type = |kind| {
        let mut link = link(1, None);
        link.header.link_layer_type = kind;
        link
    };
    let with_mac = |mac: &[u8]| {
        let mut link = link(1, None);
        link.attributes[1] = LinkAttribute::Address(mac.to_vec());
        link
    };
    for (name, link, can) in [
        ("a network card", link(1, None), true),
        ("a VLAN", of_kind(InfoKind::Vlan), true),
        ("a bond", of_kind(InfoKind::Bond), true),
        ("a bridge", of_kind(InfoKind::Bridge), true),
        ("a macvlan interface", of_kind(InfoKind::MacVlan), true),
        (
            "without ARP",
            with_flags(segment_flags() | LinkFlags::Noarp),
            false,
        ),
        (
            "loopback",
            with_flags(segment_flags() | LinkFlags::Loopback),
            false,
        ),
        (
            "point-to-point",
            with_flags(segment_flags() | LinkFlags::Pointopoint),
            false,
        ),
        ("without broadcast", with_flags(LinkFlags::Up), false),
        ("InfiniBand", with_type(LinkLayerType::Infiniband), false),
        (
            "a tunnel without Ethernet",
            with_type(LinkLayerType::None),
            false,
        ),
        ("without a MAC address", with_mac(&[0; 6]), false),
        ("with a longer address", with_mac(&[2; 20]), false),
        (
            "with a group's address",
            with_mac(&[3, 0, 0, 0, 0, 1]),
            false,
        ),
    ] {
        assert_eq!(indices(&[link], &[]) == [1], can, "{name}");
    }
}

#[test]
fn ports_cannot_announce() {
    for (kind, can) in [
        (InfoKind::Bond, false),
        (InfoKind::Bridge, false),
        (InfoKind::Other("team".to_owned()), false),
        (InfoKind::Other("openvswitch".to_owned()), false),
        (InfoKind::Vrf, true),
    ] {
        let mut above = link(2, Some(kind.clone()));
        if kind == InfoKind::Vrf {
            above.header.flags |= LinkFlags::Noarp;
        }
        let expected: &[u32] = if can { &[1] } else { &[2] };
        assert_eq!(
            indices(&[port_of(link(1, None), 2), above], &[]),
            expected,
            "{kind:?}"
        );
    }
    assert_eq!(
        indices(&[port_of(link(1, None), 9)], &[]),
        [] as [u32; 0],
        "unknown"
    );
    assert_eq!(indices(&[port_of(link(1, None), 0)], &[]), [1], "none");
}

#[test]
fn interfaces_to_pods_need_a_network() {
    for kind in [
        InfoKind::Veth,
        InfoKind::Vxlan,
        InfoKind::Tun,
        InfoKind::Netkit,
    ] {
        let links = [link(1, Some(kind.clone()))];
        let link_local = {
            let mut message = permanent(1, "fe80::1/64");
            message.header.scope = AddressScope::Link;
            message
        };
        for (addresses, can) in [
            (vec![], false),
            (vec![link_local], false),
            // What some network plugins add for each pod, and to tunnels.
            (vec![permanent(1, "10.244.0.1/32")], false),
            (vec![permanent(1, "2001:db8::1/128")], false),
            (vec![permanent(2, "192.0.2.1/24")], false),
            (vec![permanent(1, "192.0.2.1/24")], true),
            (vec![permanent(1, "2001:db8::1/64")], true),
        ] {
            assert_eq!(
                indices(&links, &addresses) == [1],
                can,
                "{kind:?} {addresses:?}"
            );
        }
    }
}

#[test]
fn addresses_that_other_hosts_can_use() {
    let marked = {
        let mut message = permanent(1, "192.0.2.200/32");
        let mark = AddressAttribute::RoutePriority(Mark::new(7).number());
        message.attributes.push(mark);
        message
    };
    let local = {
        let mut message = permanent(1, "169.254.0.1/16");
        message.header.scope = AddressScope::Link;
        message
    };
    let flagged = |net, flag| address_of(1, net, flag);
    let addresses = [
        permanent(1, "192.0.2.2/24"),
        permanent(1, "192.0.2.1/24"),
        flagged("192.0.2.3/24", AddressFlags::Secondary),
        flagged("2001:db8::2/64", AddressFlags::empty()),
        flagged("2001:db8::3/64", AddressFlags::Deprecated),
        // None of these:
        flagged("2001:db8::4/64", AddressFlags::Tentative),
        flagged(
            "2001:db8::5/64",
            AddressFlags::Tentative | AddressFlags::Optimistic,
        ),
        flagged("2001:db8::6/64", AddressFlags::Dadfailed),
        flagged("2001:db8::7/64", AddressFlags::Secondary),
        permanent(2, "198.51.100.1/24"),
        marked,
        local,
    ];
    let all = hosts(&[link(1, None)], &addresses, &BTreeMap::new());
    let expected = [
        "192.0.2.2/24",
        "192.0.2.1/24",
        "192.0.2.3/24",
        "2001:db8::2/64",
        "2001:db8::3/64",
    ];
    assert_eq!(all[0].nets, expected.map(|net| net.parse().unwrap()));
}

#[test]
fn an_interface_is_described() {
    let mut down = link(3, None);
    down.header
        .flags
        .remove(LinkFlags::LowerUp | LinkFlags::Running);
    let gateway: IpAddr = "192.0.2.254".parse().unwrap();
    let gateways = BTreeMap::from([(2, vec![gateway]), (9, vec![gateway])]);
    let all = hosts(
        &[down, link(2, None)],
        &[permanent(2, "192.0.2.1/24")],
        &gateways,
    );
    let described = |index, carrier| HostInterface {
        index,
        name: format!("if{index}"),
        mac: Mac(MAC),
        carrier,
        nets: vec![],
        gateways: vec![],
    };
    let addressed = HostInterface {
        nets: vec!["192.0.2.1/24".parse().unwrap()],
        gateways: vec![gateway],
        ..described(2, true)
    };
    assert_eq!(all, [addressed, described(3, false)]);
}

fn route(prefix: u8, attributes: Vec<RouteAttribute>) -> RouteMessage {
    let mut route = RouteMessage::default();
    route.header.kind = RouteType::Unicast;
    route.header.destination_prefix_length = prefix;
    route.attributes = attributes;
    route
}

fn through(index: u32, gateway: &str) -> Vec<RouteAttribute> {
    let gateway: IpAddr = gateway.parse().unwrap();
    vec![
        RouteAttribute::Gateway(gateway.into()),
        RouteAttribute::Oif(index),
    ]
}

#[test]
fn gateways_of_routes() {
    let hop = |index, gateway| {
        let mut hop = RouteNextHop::default();
        hop.interface_index = index;
        hop.attributes = vec![RouteAttribute::Gateway(gateway)];
        hop
    };
    let multipath = vec![
        hop(1, RouteAddress::Inet(Ipv4Addr::new(192, 0, 2, 4))),
        hop(2, RouteAddress::Inet(Ipv4Addr::new(192, 0, 2, 5))),
    ];
    let v6 = RouteVia::Inet6("fe80::1".parse().unwrap());
    let mut unreachable = route(0, through(1, "192.0.2.99"));
    unreachable.header.kind = RouteType::Unreachable;
    let routes = [
        route(24, through(1, "192.0.2.1")),
        route(24, vec![RouteAttribute::Oif(1)]),
        route(8, vec![RouteAttribute::MultiPath(multipath)]),
        route(0, through(1, "192.0.2.254")),
        route(0, through(1, "192.0.2.254")),
        route(0, vec![RouteAttribute::Via(v6), RouteAttribute::Oif(1)]),
        route(48, through(1, "192.0.2.254")),
        unreachable,
    ];
    let expect =
        |all: &[&str]| -> Vec<IpAddr> { all.iter().map(|ip| ip.parse().unwrap()).collect() };
    let expected = BTreeMap::from([
        (
            1,
            expect(&["192.0.2.254", "fe80::1", "192.0.2.1", "192.0.2.4"]),
        ),
        (2, expect(&["192.0.2.5"])),
    ]);
    assert_eq!(gateways(&routes), expected);
}

#[test]
fn gateways_are_bounded() {
    let mut routes: Vec<_> = (0..200)
        .map(|last| route(24, through(1, &format!("192.0.2.{last}"))))
        .collect();
    routes.push(route(0, through(1, "192.0.2.254")));
    let all = &gateways(&routes)[&1];
    assert_eq!(all.len(), GATEWAYS);
    assert_eq!(all[0], "192.0.2.254".parse::<IpAddr>().unwrap());
}
