//! One datagram, with the interface on which it arrived (`ip(7)`, `ipv6(7)`).

use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::AsRawFd as _;

use nix::cmsg_space;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// What arrived.
pub(super) struct Datagram<'a> {
    pub(super) from: SocketAddr,
    /// The index of the interface.
    pub(super) via: Option<u32>,
    pub(super) bytes: &'a [u8],
}

/// Waits for the next datagram. One that is longer than the buffer is cut to its length.
pub(super) async fn next<'a>(socket: &UdpSocket, buffer: &'a mut [u8]) -> io::Result<Datagram<'a>> {
    let (length, from, via) = socket
        .async_io(Interest::READABLE, || receive(socket, buffer))
        .await?;
    let bytes = buffer.get(..length).unwrap_or_default();
    Ok(Datagram { from, via, bytes })
}

fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr, Option<u32>)> {
    let mut slices = [IoSliceMut::new(buffer)];
    let mut control = cmsg_space!(libc::in6_pktinfo);
    let received = recvmsg::<SockaddrStorage>(
        socket.as_raw_fd(),
        &mut slices,
        Some(&mut control),
        MsgFlags::MSG_DONTWAIT,
    )?;
    let via = received.cmsgs()?.find_map(|message| match message {
        ControlMessageOwned::Ipv4PacketInfo(info) => u32::try_from(info.ipi_ifindex).ok(),
        ControlMessageOwned::Ipv6PacketInfo(info) => Some(info.ipi6_ifindex),
        _ => None,
    });
    let from = received.address.as_ref().and_then(address);
    let from = from.ok_or(io::ErrorKind::InvalidData)?;
    Ok((received.bytes, from, via.filter(|index| *index != 0)))
}

fn address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    let v6 = storage.as_sockaddr_in6();
    let v6 = v6.map(|it| SocketAddr::V6(SocketAddrV6::from(*it)));
    let v4 = storage.as_sockaddr_in();
    v6.or_else(|| v4.map(|it| SocketAddr::V4(SocketAddrV4::from(*it))))
}
