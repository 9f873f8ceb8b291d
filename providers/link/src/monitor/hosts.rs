//! Which interfaces can announce addresses, from the kernel's lists. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{
    InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteType, RouteVia,
};

use super::HostInterface;
use crate::links::{address, interface};

/// Gateways that an interface keeps. A router can have a route to each of many hosts.
const GATEWAYS: usize = 16;

/// The interfaces that can announce, by index.
pub(super) fn hosts(
    links: &[LinkMessage],
    addresses: &[AddressMessage],
    gateways: &BTreeMap<u32, Vec<IpAddr>>,
) -> Vec<HostInterface> {
    let mut nets = nets(addresses);
    let mut all: Vec<_> = links
        .iter()
        .filter(|link| is_segment(link) && !is_port(link, links))
        .filter_map(|link| {
            let interface = interface(link);
            let nets = nets.remove(&interface.index).unwrap_or_default();
            let can = may_be_unaddressed(link) || nets.iter().any(has_neighbours);
            can.then(|| HostInterface {
                index: interface.index,
                name: interface.name,
                mac: interface.mac,
                carrier: interface.up,
                nets,
                gateways: gateways.get(&interface.index).cloned().unwrap_or_default(),
            })
        })
        .collect();
    all.sort_by_key(|host| host.index);
    all
}

/// Ethernet, on which every host hears a broadcast and answers ARP.
fn is_segment(link: &LinkMessage) -> bool {
    let flags = link.header.flags;
    let mac = interface(link).mac;
    link.header.link_layer_type == LinkLayerType::Ether
        && flags.contains(LinkFlags::Broadcast)
        && !flags.intersects(LinkFlags::Loopback | LinkFlags::Noarp | LinkFlags::Pointopoint)
        && mac != crate::Mac::UNKNOWN
        && !mac.is_group()
}

/// Whether the interface only carries the frames of another one. A VRF is a routing table.
fn is_port(link: &LinkMessage, links: &[LinkMessage]) -> bool {
    let above = link
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::Controller(index) if *index != 0 => Some(*index),
            _ => None,
        });
    above.is_some_and(|above| {
        let above = links.iter().find(|link| link.header.index == above);
        above.and_then(kind) != Some(&InfoKind::Vrf)
    })
}

/// Whether an interface of this kind can announce without an address of its own. Nodes have many
/// interfaces of the others, which lead to their pods.
fn may_be_unaddressed(link: &LinkMessage) -> bool {
    !matches!(
        kind(link),
        Some(
            InfoKind::Veth
                | InfoKind::Netkit
                | InfoKind::Tun
                | InfoKind::Vxlan
                | InfoKind::Geneve
                | InfoKind::GreTap
                | InfoKind::GreTap6
        )
    )
}

fn kind(link: &LinkMessage) -> Option<&InfoKind> {
    let all = link
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::LinkInfo(all) => Some(all),
            _ => None,
        });
    all?.iter().find_map(|info| match info {
        LinkInfo::Kind(kind) => Some(kind),
        _ => None,
    })
}

fn has_neighbours(net: &IpNet) -> bool {
    net.prefix_len() < net.max_prefix_len()
}

/// The addresses of each interface that other hosts can use to reach it.
fn nets(addresses: &[AddressMessage]) -> BTreeMap<u32, Vec<IpNet>> {
    let mut nets: BTreeMap<u32, Vec<IpNet>> = BTreeMap::new();
    let stable = addresses.iter().filter(|message| !is_temporary(message));
    for it in stable.filter_map(address) {
        if it.global && it.mark.is_none() && !it.tentative && !it.duplicate {
            nets.entry(it.interface).or_default().push(it.net);
        }
    }
    nets
}

/// Privacy addresses (RFC 8981) change every day. Their flag has another meaning for IPv4.
fn is_temporary(message: &AddressMessage) -> bool {
    let flags = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            AddressAttribute::Flags(flags) => Some(*flags),
            _ => None,
        });
    message.header.family == AddressFamily::Inet6
        && flags.is_some_and(|flags| flags.contains(AddressFlags::Secondary))
}

/// The gateways of each interface, those of default routes first.
pub(super) fn gateways(routes: &[RouteMessage]) -> BTreeMap<u32, Vec<IpAddr>> {
    let mut all: Vec<(bool, u32, IpAddr)> = routes
        .iter()
        .filter(|route| route.header.kind == RouteType::Unicast)
        .flat_map(|route| {
            let specific = route.header.destination_prefix_length != 0;
            let hops = hops(&route.attributes).into_iter();
            hops.map(move |(index, gateway)| (specific, index, gateway))
        })
        .collect();
    all.sort_unstable();
    let mut gateways: BTreeMap<u32, Vec<IpAddr>> = BTreeMap::new();
    for (_, index, gateway) in all {
        let known = gateways.entry(index).or_default();
        if known.len() < GATEWAYS && !known.contains(&gateway) {
            known.push(gateway);
        }
    }
    gateways
}

/// The interfaces and gateways of a route: its own, and those of a multipath route.
fn hops(attributes: &[RouteAttribute]) -> Vec<(u32, IpAddr)> {
    let (mut own, mut gateway, mut hops) = (None, None, Vec::new());
    for attribute in attributes {
        match attribute {
            RouteAttribute::Oif(index) => own = Some(*index),
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_) => gateway = ip(attribute),
            RouteAttribute::MultiPath(all) => hops.extend(all.iter().filter_map(|hop| {
                let gateway = hop.attributes.iter().find_map(ip)?;
                Some((hop.interface_index, gateway))
            })),
            _ => {}
        }
    }
    hops.extend(own.zip(gateway));
    hops
}

/// The gateway in an attribute. That of an IPv4 route can be an IPv6 address.
fn ip(attribute: &RouteAttribute) -> Option<IpAddr> {
    match attribute {
        RouteAttribute::Gateway(RouteAddress::Inet(ip))
        | RouteAttribute::Via(RouteVia::Inet(ip)) => Some((*ip).into()),
        RouteAttribute::Gateway(RouteAddress::Inet6(ip))
        | RouteAttribute::Via(RouteVia::Inet6(ip)) => Some((*ip).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
