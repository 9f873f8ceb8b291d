//! Sockets: those of one interface. The core thread sends through them, and the packet thread
//! receives what must not wait. What concerns this node's own addresses alone can wait for a tick: the
//! kernel answers questions for them, and answers to probes are judged in ticks. The core thread reads
//! it in its turn, so that no frame of this kind wakes a thread.

use std::io::{self, ErrorKind};
use std::net::IpAddr;

use ballast_announce::Mac;
use ballast_link::{Echo, FrameSocket, Frames, HostInterface};
use ipnet::IpNet;

use crate::counters::Counters;
use crate::frames::mac;

/// Longer than any frame that matters.
pub(crate) const FRAME: usize = 2048;
/// Frames that the core thread reads from one of the sockets for own addresses in a tick. A node that ten
/// others probe, and that probes ten, receives 20. With more it is a flood, and the packet thread reads.
const ASIDE: usize = 64;
/// Asked for, for these sockets; the kernel allows as much as `net.core.rmem_max` says. A frame takes 768
/// to 2,304 bytes of it.
const ASIDE_BUFFER: usize = 1024 * 1024;

/// See the module.
#[derive(Debug)]
pub(crate) struct Sockets {
    /// The interface index.
    pub(crate) index: u32,
    /// Its MAC, the Ethernet source of every frame.
    pub(crate) own: Mac,
    pub(crate) arp: FrameSocket,
    pub(crate) neighbours: FrameSocket,
    /// What concerns own addresses alone, of both protocols.
    pub(crate) own_arp: FrameSocket,
    pub(crate) own_neighbours: FrameSocket,
    pub(crate) echo: Echo,
}

// === impl Sockets ===

impl Sockets {
    /// Opens the sockets. Needs `CAP_NET_RAW`.
    pub(crate) fn open(interface: &HostInterface) -> io::Result<Self> {
        let sockets = Self {
            index: interface.index,
            own: mac(interface.mac),
            arp: FrameSocket::arp(interface.index)?,
            neighbours: FrameSocket::neighbour_discovery(interface.index)?,
            own_arp: FrameSocket::arp(interface.index)?,
            own_neighbours: FrameSocket::neighbour_discovery(interface.index)?,
            echo: Echo::new(interface.index, &interface.name)?,
        };
        for aside in [&sockets.own_arp, &sockets.own_neighbours] {
            aside.set_receive_buffer(ASIDE_BUFFER)?;
        }
        sockets.divide(interface)?;
        Ok(sockets)
    }

    /// Puts frames to the interface's present addresses aside.
    pub(crate) fn divide(&self, interface: &HostInterface) -> io::Result<()> {
        let own: Vec<IpAddr> = interface.nets.iter().map(IpNet::addr).collect();
        // In this order a frame may come twice, but is not lost.
        for (aside, rest) in [
            (&self.own_arp, &self.arp),
            (&self.own_neighbours, &self.neighbours),
        ] {
            aside.divide(Frames::To(&own))?;
            rest.divide(Frames::Except(&own))?;
        }
        Ok(())
    }

    /// Passes on frames that were put aside. Returns whether there are so many that the sockets may lose
    /// some before the next tick.
    pub(crate) fn drain_own(&self, mut pass: impl FnMut(&[u8])) -> bool {
        let mut buffer = [0; FRAME];
        let mut flood = false;
        for socket in [&self.own_arp, &self.own_neighbours] {
            let mut left = ASIDE;
            while left > 0 {
                match socket.receive(&mut buffer) {
                    Ok(length) => pass(buffer.get(..length).unwrap_or_default()),
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    // Empty, or the interface went down, which netlink says, too.
                    Err(_) => break,
                }
                left -= 1;
            }
            flood |= left == 0;
        }
        flood
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
