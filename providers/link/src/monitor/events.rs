//! Events of the kernel about interfaces, addresses and routes (rtnetlink(7)). What a
//! message says is not read.

use std::io::{self, ErrorKind};

use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket as _, AsyncSocketExt as _, SocketAddr, TokioSocket};
use rtnetlink::MulticastGroup;

const GROUPS: [MulticastGroup; 5] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
];

/// Events that are read at once; the others are read after the next list.
const MOST: usize = 10_000;

/// A subscription.
pub(super) struct Events {
    socket: TokioSocket,
}

// === impl Events ===

impl Events {
    /// Subscribes in the network namespace of this thread.
    pub(super) fn subscribe() -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        let groups = GROUPS.iter().fold(0, |all, group| all | bit(*group));
        socket.socket_mut().bind(&SocketAddr::new(0, groups))?;
        Ok(Self { socket })
    }

    /// Waits for an event. The kernel loses events when its buffer is full, and says so once
    /// (`ENOBUFS`); that is an event, too. Can be cancelled.
    pub(super) async fn next(&self) {
        let mut buffer = [0; 1];
        let _ = self.socket.recv(&mut &mut buffer[..]).await;
    }

    /// Reads the events that have arrived.
    pub(super) fn drain(&self) {
        for _ in 0..MOST {
            let mut buffer = [0; 1];
            match self.socket.socket_ref().recv(&mut &mut buffer[..], 0) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                _ => {}
            }
        }
    }
}

const fn bit(group: MulticastGroup) -> u32 {
    1 << (group as u32 - 1)
}
