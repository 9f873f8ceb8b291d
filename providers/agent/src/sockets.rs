//! Sockets: those of one interface. The core thread sends through them, and the packet thread
//! receives.

use std::io::{self, ErrorKind};
use std::net::IpAddr;

use ballast_announce::Mac;
use ballast_link::{Echo, FrameSocket, HostInterface};

use crate::counters::Counters;
use crate::frames::mac;

/// See the module.
#[derive(Debug)]
pub(crate) struct Sockets {
    /// The interface index.
    pub(crate) index: u32,
    /// Its MAC, the Ethernet source of every frame.
    pub(crate) own: Mac,
    pub(crate) arp: FrameSocket,
    pub(crate) neighbours: FrameSocket,
    pub(crate) echo: Echo,
}

// === impl Sockets ===

impl Sockets {
    /// Opens the sockets. Needs `CAP_NET_RAW`.
    pub(crate) fn open(interface: &HostInterface) -> io::Result<Self> {
        Ok(Self {
            index: interface.index,
            own: mac(interface.mac),
            arp: FrameSocket::arp(interface.index)?,
            neighbours: FrameSocket::neighbour_discovery(interface.index)?,
            echo: Echo::new(interface.index, &interface.name)?,
        })
    }

    /// Sends a frame about an address.
    pub(crate) fn send(&self, address: IpAddr, frame: &[u8], counters: &Counters) -> bool {
        let socket = match address {
            IpAddr::V4(_) => &self.arp,
            IpAddr::V6(_) => &self.neighbours,
        };
        self.note(socket.send(frame), counters)
    }

    /// Sends an ICMP echo request.
    pub(crate) fn echo(&self, to: IpAddr, counters: &Counters) {
        self.note(self.echo.send(to), counters);
    }

    fn note(&self, sent: io::Result<()>, counters: &Counters) -> bool {
        let Err(error) = sent else { return true };
        counters.unsent.add();
        // The interface is down, or its queue is full. Whatever it was is sent again.
        let usual = matches!(
            error.kind(),
            ErrorKind::NetworkDown | ErrorKind::WouldBlock | ErrorKind::NetworkUnreachable
        ) || error.raw_os_error() == Some(nix::errno::Errno::ENOBUFS as i32);
        if !usual {
            tracing::debug!(interface = self.index, %error, "a frame was not sent");
        }
        false
    }
}
