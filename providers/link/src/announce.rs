//! Announces an address on the network, so that neighbours replace an earlier holder in
//! their caches at once.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddrV6};

use socket2::{Domain, Protocol, Socket, Type};

use crate::arp::Packet;
use crate::ndp::{self, Advertisement};
use crate::{Interface, Mac, PacketSocket};

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
    socket.set_multicast_hops_v6(ndp::HOP_LIMIT.into())?;
    let from = SocketAddrV6::new(address, 0, 0, interface.index);
    socket.bind(&from.into())?;
    let to = SocketAddrV6::new(ndp::ALL_NODES, 0, 0, interface.index);
    let mut frame = Advertisement::unsolicited(interface.mac, address, interface.mac).encode();
    let message = frame.split_off(ndp::MESSAGE);
    socket.send_to(&message, &to.into()).map(drop)
}
