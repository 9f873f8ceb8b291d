//! Whole frames of one protocol on one interface (packet(7), `SOCK_RAW`), for a thread that
//! polls. Not for Tokio.
//!
//! A filter in the kernel drops everything else: own outgoing frames, frames to other hosts
//! (which a promiscuous interface receives), and frames of VLAN and macvlan interfaces above
//! this one. The filter is attached before the socket is bound, and a socket that is not bound
//! receives nothing, so no other frame is ever received.

use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd};

use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use crate::Mac;
use crate::ethernet::{ARP, IPV6};
use crate::filter;
use crate::sys::{link_address, membership};

/// A non-blocking socket for the ARP or the neighbour discovery of an interface.
///
/// While the interface is down, calls can fail with `ENETDOWN`; the socket works again when the
/// interface is up. After the interface has vanished they fail with `ENXIO`.
#[derive(Debug)]
pub struct FrameSocket {
    socket: Socket,
    interface: u32,
}

// === impl FrameSocket ===

impl FrameSocket {
    /// ARP requests and replies of an interface, by its index. Needs `CAP_NET_RAW`.
    pub fn arp(interface: u32) -> io::Result<Self> {
        Self::open(interface, ARP, &filter::arp(interface))
    }

    /// Neighbour solicitations and advertisements of an interface, by its index. Needs
    /// `CAP_NET_RAW`.
    pub fn neighbour_discovery(interface: u32) -> io::Result<Self> {
        Self::open(interface, IPV6, &filter::neighbour_discovery(interface))
    }

    fn open(interface: u32, ether_type: u16, filter: &[SockFilter]) -> io::Result<Self> {
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
        socket.set_nonblocking(true)?;
        socket.attach_filter(filter)?;
        socket.bind(&link_address(interface, ether_type, Mac::UNKNOWN)?)?;
        Ok(Self { socket, interface })
    }

    /// The index of the interface.
    pub const fn interface(&self) -> u32 {
        self.interface
    }

    /// Sends a whole frame. Fails with `WouldBlock` while the socket's buffer is full.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        match self.socket.send(frame) {
            // A socket keeps the error of an interface that was down until a call returns it. The
            // interface may be up again, and this frame the announcement of an address.
            Err(error) if error.raw_os_error() == Some(libc::ENETDOWN) => {
                self.socket.take_error()?;
                self.socket.send(frame).map(drop)
            }
            sent => sent.map(drop),
        }
    }

    /// Receives the next frame and returns its length. The part that does not fit into the
    /// buffer is lost. Fails with `WouldBlock` if no frame is waiting.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        (&self.socket).read(buffer)
    }

    /// Receives frames to a group from now on. The kernel counts memberships: each one is left
    /// on its own. It sends no MLD report; [`Groups`](crate::Groups) does.
    pub fn join(&self, group: Mac) -> io::Result<()> {
        membership(&self.socket, self.interface, group, true)
    }

    /// Ends a membership. Does nothing if there is none.
    pub fn leave(&self, group: Mac) -> io::Result<()> {
        membership(&self.socket, self.interface, group, false)
    }
}

impl AsFd for FrameSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
