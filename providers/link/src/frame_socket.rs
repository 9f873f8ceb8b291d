//! Whole frames of one protocol on one interface (packet(7), `SOCK_RAW`), for a thread that
//! polls. Not for Tokio.
//!
//! The frames may be divided between two sockets: those to this host's own addresses alone, which its
//! kernel answers or which answer it, and all others ([`Frames`]).
//!
//! A filter in the kernel drops everything else: own outgoing frames, frames to other hosts
//! (which a promiscuous interface receives), and frames of VLAN and macvlan interfaces above
//! this one. The filter is attached before the socket is bound, and a socket that is not bound
//! receives nothing, so no other frame is ever received.

use std::io::{self, Read as _};
use std::net::IpAddr;
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
    protocol: Protocols,
    socket: Socket,
    interface: u32,
}

/// Which frames of the protocol a socket receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frames<'a> {
    /// All.
    All,
    /// Frames to the MAC of the interface that concern one of these addresses: ARP packets whose target
    /// it is, and messages of neighbour discovery to it.
    To(&'a [IpAddr]),
    /// All others.
    Except(&'a [IpAddr]),
}

#[derive(Clone, Copy, Debug)]
enum Protocols {
    Arp,
    NeighbourDiscovery,
}

// === impl Frames ===

impl<'a> Frames<'a> {
    pub(crate) fn own(self) -> &'a [IpAddr] {
        match self {
            Self::All => &[],
            Self::To(own) | Self::Except(own) => own,
        }
    }
}

// === impl FrameSocket ===

impl FrameSocket {
    /// ARP requests and replies of an interface, by its index. Needs `CAP_NET_RAW`.
    pub fn arp(interface: u32) -> io::Result<Self> {
        Self::open(interface, Protocols::Arp)
    }

    /// Neighbour solicitations and advertisements of an interface, by its index. Needs
    /// `CAP_NET_RAW`.
    pub fn neighbour_discovery(interface: u32) -> io::Result<Self> {
        Self::open(interface, Protocols::NeighbourDiscovery)
    }

    fn open(interface: u32, protocol: Protocols) -> io::Result<Self> {
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
        socket.set_nonblocking(true)?;
        socket.attach_filter(&protocol.filter(interface, Frames::All))?;
        socket.bind(&link_address(
            interface,
            protocol.ether_type(),
            Mac::UNKNOWN,
        )?)?;
        Ok(Self {
            protocol,
            socket,
            interface,
        })
    }

    /// Asks for a receive buffer of this size; the kernel may allow less. Frames that do not fit are lost.
    pub fn set_receive_buffer(&self, bytes: usize) -> io::Result<()> {
        self.socket.set_recv_buffer_size(bytes)
    }

    /// Receives these frames from now on. Those that wait in the socket stay.
    pub fn divide(&self, frames: Frames<'_>) -> io::Result<()> {
        self.socket
            .attach_filter(&self.protocol.filter(self.interface, frames))
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

// === impl Protocols ===

impl Protocols {
    const fn ether_type(self) -> u16 {
        match self {
            Self::Arp => ARP,
            Self::NeighbourDiscovery => IPV6,
        }
    }

    fn filter(self, interface: u32, frames: Frames<'_>) -> Vec<SockFilter> {
        match self {
            Self::Arp => filter::arp(interface, frames),
            Self::NeighbourDiscovery => filter::neighbour_discovery(interface, frames),
        }
    }
}

impl AsFd for FrameSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
