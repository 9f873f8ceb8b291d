//! The host's network interfaces, for components that serve addresses of their networks.
//!
//! [`Links`] lists interfaces, and adds addresses with a [`Mark`] (netlink). [`arp`] and [`ndp`]
//! have the packets. [`FrameSocket`] sends and receives whole frames for a thread that polls,
//! [`PacketSocket`] ARP packets for Tokio (`AF_PACKET`). [`Groups`] joins multicast groups, and
//! [`Echo`] asks hosts for an echo, and [`power_save`] the kernel about wireless interfaces. [`Monitor`] reports the interfaces that can announce addresses.
//! [`probe`](probe::probe) finds out whether another host uses an address, and
//! [`announce`](announce::announce) announces one. The mock cloud uses this crate with
//! `--interface`.
//!
//! This crate never decides which address is added or removed: the caller recognises its own
//! addresses by their mark. It never changes routes, neighbours or the state of an interface.
//!
//! Capabilities: `CAP_NET_ADMIN` to add and remove addresses, `CAP_NET_RAW` to probe, to
//! announce, and for frames and echo requests; none to list.

pub mod announce;
pub mod arp;
mod checksum;
mod echo;
mod ethernet;
mod filter;
mod frame_socket;
mod groups;
mod links;
mod monitor;
pub mod ndp;
pub mod probe;
mod socket;
mod sys;
#[cfg(feature = "testbed")]
pub mod testbed;
mod wireless;

pub use echo::Echo;
pub use ethernet::{Ethernet, Mac};
pub use frame_socket::{FrameSocket, Frames};
pub use groups::Groups;
pub use links::{Address, Interface, LinkError, Links, Mark};
pub use monitor::{HostInterface, Monitor};
pub use socket::PacketSocket;
pub use wireless::power_save;
