//! The host's network interfaces, for components that serve addresses of their networks.
//!
//! [`Links`] lists interfaces, and adds addresses with a [`Mark`] (netlink). [`arp`] has the
//! packets, and [`PacketSocket`] sends and receives them (`AF_PACKET`).
//! [`probe`](probe::probe) finds out whether another host uses an address, and
//! [`announce`](announce::announce) announces one. The mock cloud uses this crate with
//! `--interface`.
//!
//! This crate never decides which address is added or removed: the caller recognises its own
//! addresses by their mark. It never changes routes, neighbours or the state of an interface.
//!
//! Capabilities: `CAP_NET_ADMIN` to add and remove addresses, `CAP_NET_RAW` to probe and to
//! announce; none to list.

pub mod announce;
pub mod arp;
mod links;
pub mod probe;
mod socket;
#[cfg(feature = "testbed")]
pub mod testbed;

pub use links::{Address, Interface, LinkError, Links, Mark};
pub use socket::PacketSocket;

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

// === impl Mac ===

impl Mac {
    /// All hosts on the network.
    pub const BROADCAST: Self = Self([0xff; 6]);
    /// All zeros: unknown, as in ARP requests.
    pub const UNKNOWN: Self = Self([0; 6]);
}

impl std::fmt::Display for Mac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let octets = self.0.map(|octet| format!("{octet:02x}"));
        f.write_str(&octets.join(":"))
    }
}
