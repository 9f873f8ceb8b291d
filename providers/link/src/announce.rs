//! Announces an address on the network, so that neighbours replace an earlier holder in
//! their caches at once.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddrV6};

use socket2::{Domain, Protocol, Socket, Type};

use crate::arp::Packet;
use crate::{Interface, Mac, PacketSocket};

/// All nodes of the link (RFC 4291 §2.7.1).
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// Type of `ICMPv6` (RFC 4861 §4.4).
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
/// The override flag: replaces an existing cache entry (RFC 4861 §4.4).
const OVERRIDE: u8 = 0x20;
/// Option: the sender's link-layer address follows (RFC 4861 §4.6.1).
const TARGET_LINK_LAYER_ADDRESS: u8 = 2;

/// Announces once, to all neighbours, that this interface has the address. An IPv6 address
/// must not be tentative any more: the advertisement is sent from it.
pub async fn announce(interface: &Interface, address: IpAddr) -> io::Result<()> {
    match address {
        IpAddr::V4(address) => {
            let socket = PacketSocket::arp(interface.index)?;
            let packet = Packet::announcement(interface.mac, address).encode();
            socket.send(Mac::BROADCAST, &packet).await
        }
        IpAddr::V6(address) => advertise(interface, address),
    }
}

/// An unsolicited neighbour advertisement (RFC 4861 §7.2.6). The kernel adds the checksum.
fn advertise(interface: &Interface, address: Ipv6Addr) -> io::Result<()> {
    let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
    socket.set_nonblocking(true)?;
    socket.set_multicast_if_v6(interface.index)?;
    // Receivers drop anything that may have crossed a router.
    socket.set_multicast_hops_v6(255)?;
    let from = SocketAddrV6::new(address, 0, 0, interface.index);
    socket.bind(&from.into())?;
    let to = SocketAddrV6::new(ALL_NODES, 0, 0, interface.index);
    socket
        .send_to(&advertisement(interface.mac, address), &to.into())
        .map(drop)
}

fn advertisement(mac: Mac, address: Ipv6Addr) -> Vec<u8> {
    let mut bytes = vec![NEIGHBOUR_ADVERTISEMENT, 0, 0, 0, OVERRIDE, 0, 0, 0];
    bytes.extend(address.octets());
    // In units of 8 bytes.
    bytes.extend([TARGET_LINK_LAYER_ADDRESS, 1]);
    bytes.extend(mac.0);
    bytes
}
