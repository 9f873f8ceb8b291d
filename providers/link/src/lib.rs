//! The host's network interfaces, for whoever serves addresses of their networks.
//!
//! Owns [`Links`], which reads interfaces and gives them addresses that bear a [`Mark`]
//! (netlink), [`arp`], the packets, and [`PacketSocket`], which sends and hears them
//! (`AF_PACKET`). [`probe`](probe::probe) asks whether somebody else has an address,
//! [`announce`](announce::announce) tells everybody who has it now. The mock cloud calls
//! it in its in-cluster form.
//!
//! It never decides which address is used or removed (who removes one knows that it is its
//! own, by its mark), and never changes routes, neighbours or the state of an interface.
//!
//! Needed: `CAP_NET_ADMIN` to add and remove addresses, `CAP_NET_RAW` to probe and to
//! announce; reading needs nothing.

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
    /// Everybody on the segment.
    pub const BROADCAST: Self = Self([0xff; 6]);
    /// "Not known", as ARP writes it.
    pub const UNKNOWN: Self = Self([0; 6]);
}

impl std::fmt::Display for Mac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let octets = self.0.map(|octet| format!("{octet:02x}"));
        f.write_str(&octets.join(":"))
    }
}
