//! Packet sockets: one interface, one `EtherType`, payloads without the Ethernet header
//! (packet(7), `SOCK_DGRAM`). The only unsafe code of the workspace is here, a few lines.

use std::io::{self, ErrorKind, Read as _};

use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};
use tokio::io::unix::AsyncFd;

use crate::Mac;

/// The `EtherType` of ARP.
const ARP: u16 = 0x0806;

/// A socket that sends and receives ARP packets on one interface.
#[derive(Debug)]
pub struct PacketSocket {
    socket: AsyncFd<Socket>,
    interface: i32,
}

// === impl PacketSocket ===

impl PacketSocket {
    /// Opens a socket for the ARP of an interface, by its index. Needs `CAP_NET_RAW`.
    pub fn arp(interface: u32) -> io::Result<Self> {
        let interface = i32::try_from(interface).map_err(|_| ErrorKind::InvalidInput)?;
        // With protocol 0 the socket receives nothing before it is bound, so no packet of
        // another interface gets in.
        let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(Protocol::from(0)))?;
        socket.set_nonblocking(true)?;
        socket.bind(&address(interface, Mac::UNKNOWN)?)?;
        // SAFETY: a `Socket` owns one open file descriptor and returns no other.
        #[allow(unsafe_code)]
        let socket = unsafe { AsyncFd::register(socket) }?;
        Ok(Self { socket, interface })
    }

    /// Sends a payload to one host, or to all.
    pub async fn send(&self, to: Mac, payload: &[u8]) -> io::Result<()> {
        let to = address(self.interface, to)?;
        loop {
            let mut ready = self.socket.writable().await?;
            if let Ok(sent) = ready.try_io(|socket| socket.get_ref().send_to(payload, &to)) {
                return sent.map(drop);
            }
        }
    }

    /// Receives the next payload.
    pub async fn receive(&self) -> io::Result<Vec<u8>> {
        let mut buffer = [0; 128];
        loop {
            let mut ready = self.socket.readable().await?;
            if let Ok(length) = ready.try_io(|socket| socket.get_ref().read(&mut buffer)) {
                return Ok(buffer[..length?].to_vec());
            }
        }
    }
}

/// The address of a host on an interface, for ARP.
fn address(interface: i32, to: Mac) -> io::Result<SockAddr> {
    let mut storage = SockAddrStorage::zeroed();
    let length = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>())
        .map_err(|_| ErrorKind::InvalidInput)?;
    // SAFETY: a zeroed storage is large enough and aligned for every address type, and
    // all of `sockaddr_ll` may be zero.
    #[allow(unsafe_code)]
    let link = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    link.sll_family =
        libc::sa_family_t::try_from(libc::AF_PACKET).map_err(|_| ErrorKind::InvalidInput)?;
    link.sll_protocol = ARP.to_be();
    link.sll_ifindex = interface;
    link.sll_halen = 6;
    link.sll_addr[..6].copy_from_slice(&to.0);
    // SAFETY: the storage holds a `sockaddr_ll` of exactly this length.
    #[allow(unsafe_code)]
    Ok(unsafe { SockAddr::new(storage, length) })
}
