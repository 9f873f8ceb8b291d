//! Interfaces and their addresses, by netlink (rtnetlink(7)).

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use futures::TryStreamExt;
use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressMessage, AddressProtocol, AddressScope, CacheInfo,
};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::route::{RouteAttribute, RouteMessage};
use rtnetlink::{AddressAddRequest, Handle, RouteMessageBuilder};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use crate::Mac;

/// How the addresses of one owner are told from all others on the same host. The kernel
/// keeps the number with the address as its route priority (`IFA_RT_PRIORITY`, Linux 4.18),
/// which means nothing where an address brings no route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark(u32);

/// What `ip address` shows as the origin of marked addresses, for people (`IFA_PROTO`,
/// Linux 5.18). Below 5 are the kernel's own.
const ORIGIN: u8 = 77;

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// The kernel's number for it.
    pub index: u32,
    /// `eth0`
    pub name: String,
    /// Its own; unknown on what is no Ethernet.
    pub mac: Mac,
    /// Switched on, and its cable leads somewhere.
    pub up: bool,
    /// It is `lo`.
    pub loopback: bool,
}

/// An address of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Of which interface.
    pub interface: u32,
    /// With the length of its network's prefix.
    pub net: IpNet,
    /// Whose it is, if it bears a mark.
    pub mark: Option<Mark>,
    /// IPv6: not yet known to be free on the segment.
    pub tentative: bool,
    /// IPv6: somebody else on the segment has it; it is not used. One with a lifetime does
    /// not stay to say so: the kernel removes it.
    pub duplicate: bool,
    /// Reachable by others: neither of this host nor of this link alone.
    pub global: bool,
}

/// What netlink said no to.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// No connection to the kernel.
    #[error("no netlink socket")]
    Connect(#[source] io::Error),
    /// The right is missing.
    #[error("not allowed to change the addresses of interfaces: CAP_NET_ADMIN is missing")]
    NotPermitted,
    /// The interface speaks no IPv6.
    #[error("IPv6 is switched off on this interface (sysctl disable_ipv6)")]
    NoIpv6,
    /// Everything else.
    #[error("the kernel refuses: {0}")]
    Refused(#[source] rtnetlink::Error),
}

/// A conversation with the kernel, in the network namespace in which it was begun. Ends
/// when dropped.
#[derive(Debug)]
pub struct Links {
    handle: Handle,
    connection: JoinHandle<()>,
    /// The kernel lists one thing at a time for a socket, and refuses others with `EBUSY`.
    listing: Mutex<()>,
}

// === impl Mark ===

impl Mark {
    /// What all marks begin with; route priorities are small numbers elsewhere.
    const FIRST: u32 = 0x6200_0000;

    /// The mark of an owner; only the lower 24 bits of the number count.
    pub const fn new(owner: u32) -> Self {
        Self(Self::FIRST | (owner & 0x00ff_ffff))
    }

    const fn of(priority: u32) -> Option<Self> {
        if priority & 0xff00_0000 == Self::FIRST {
            Some(Self(priority))
        } else {
            None
        }
    }
}

// === impl Links ===

impl Drop for Links {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Links {
    /// Begins the conversation; needs a Tokio runtime.
    pub fn connect() -> Result<Self, LinkError> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(LinkError::Connect)?;
        Ok(Self {
            handle,
            connection: tokio::spawn(connection),
            listing: Mutex::default(),
        })
    }

    /// All interfaces.
    pub async fn interfaces(&self) -> Result<Vec<Interface>, LinkError> {
        let _turn = self.listing.lock().await;
        let links = self.handle.link().get().execute();
        Ok(links
            .map_ok(|message| interface(&message))
            .try_collect()
            .await?)
    }

    /// All addresses of all interfaces.
    pub async fn addresses(&self) -> Result<Vec<Address>, LinkError> {
        let _turn = self.listing.lock().await;
        let addresses = self.handle.address().get().execute();
        let all: Vec<_> = addresses
            .map_ok(|message| address(&message))
            .try_collect()
            .await?;
        Ok(all.into_iter().flatten().collect())
    }

    /// The interface by which the host reaches the rest of the world: that of the default
    /// route with the lowest metric, IPv4 first.
    pub async fn default_interface(&self) -> Result<Option<u32>, LinkError> {
        let _turn = self.listing.lock().await;
        let v4 = RouteMessageBuilder::<std::net::Ipv4Addr>::new().build();
        let v6 = RouteMessageBuilder::<std::net::Ipv6Addr>::new().build();
        for query in [v4, v6] {
            let routes = self.handle.route().get(query).execute();
            let routes: Vec<RouteMessage> = routes.try_collect().await?;
            let best = routes.iter().filter_map(default_route).min();
            if let Some((_, index)) = best {
                return Ok(Some(index));
            }
        }
        Ok(None)
    }

    /// Gives an interface an address for a lifetime, in whole seconds: a host address
    /// without a route of its own, with a mark. The kernel removes it when nobody prolongs
    /// it, so a process that dies for good leaves nothing behind. `false`: it was there
    /// before, whoever gave it. An IPv6 address is `tentative` at first, until the kernel
    /// has asked the segment for it.
    pub async fn add(
        &self,
        interface: u32,
        ip: IpAddr,
        mark: Mark,
        lifetime: Duration,
    ) -> Result<bool, LinkError> {
        let request = self.request(interface, ip, mark, lifetime);
        match request.execute().await {
            Err(error) if errno(&error) == Some(libc::EEXIST) => Ok(false),
            other => Ok(other.map(|()| true)?),
        }
    }

    /// The same, and prolongs it if it is there.
    pub async fn prolong(
        &self,
        interface: u32,
        ip: IpAddr,
        mark: Mark,
        lifetime: Duration,
    ) -> Result<(), LinkError> {
        let request = self.request(interface, ip, mark, lifetime);
        Ok(request.replace().execute().await?)
    }

    fn request(
        &self,
        interface: u32,
        ip: IpAddr,
        mark: Mark,
        lifetime: Duration,
    ) -> AddressAddRequest {
        let mut request = self.handle.address().add(interface, ip, host_prefix(ip));
        let attributes = &mut request.message_mut().attributes;
        attributes.push(AddressAttribute::Flags(AddressFlags::Noprefixroute));
        attributes.push(AddressAttribute::Protocol(AddressProtocol::Other(ORIGIN)));
        attributes.push(AddressAttribute::RoutePriority(mark.0));
        attributes.push(AddressAttribute::CacheInfo(valid_for(ip, lifetime)));
        request
    }

    /// Takes a host address away, whoever gave it. Nothing happens if it is not there.
    pub async fn remove(&self, interface: u32, ip: IpAddr) -> Result<(), LinkError> {
        let mut message = AddressMessage::default();
        message.header.family = match ip {
            IpAddr::V4(_) => AddressFamily::Inet,
            IpAddr::V6(_) => AddressFamily::Inet6,
        };
        message.header.prefix_len = host_prefix(ip);
        message.header.index = interface;
        message.attributes.push(AddressAttribute::Local(ip));
        match self.handle.address().del(message).execute().await {
            Err(error) if errno(&error) == Some(libc::EADDRNOTAVAIL) => Ok(()),
            other => Ok(other?),
        }
    }
}

fn valid_for(ip: IpAddr, lifetime: Duration) -> CacheInfo {
    let mut info = CacheInfo::default();
    info.ifa_valid = u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX);
    // "Deprecated" (RFC 4862 §5.5.4): the host itself is not to speak from it. IPv4 has no
    // such rule, and takes the address of the route's own network.
    info.ifa_preferred = if ip.is_ipv6() { 0 } else { info.ifa_valid };
    info
}

const fn host_prefix(ip: IpAddr) -> u8 {
    match ip {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// The error of the kernel, as a positive number.
fn errno(error: &rtnetlink::Error) -> Option<i32> {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.code.map(|code| code.get().abs()),
        _ => None,
    }
}

fn interface(message: &LinkMessage) -> Interface {
    let mut interface = Interface {
        index: message.header.index,
        name: String::new(),
        mac: Mac::UNKNOWN,
        up: message
            .header
            .flags
            .contains(LinkFlags::LowerUp | LinkFlags::Up | LinkFlags::Running),
        loopback: message.header.flags.contains(LinkFlags::Loopback),
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => interface.name.clone_from(name),
            LinkAttribute::Address(bytes) => {
                interface.mac = bytes.as_slice().try_into().map_or(Mac::UNKNOWN, Mac);
            }
            _ => {}
        }
    }
    interface
}

fn address(message: &AddressMessage) -> Option<Address> {
    let (mut local, mut peer, mut mark) = (None, None, None);
    let mut flags = AddressFlags::empty();
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => peer = Some(*ip),
            AddressAttribute::Flags(all) => flags = *all,
            AddressAttribute::RoutePriority(priority) => mark = Mark::of(*priority),
            _ => {}
        }
    }
    // IPv6 has `IFA_LOCAL` only on links between two.
    let ip = local.or(peer)?;
    Some(Address {
        interface: message.header.index,
        net: IpNet::new(ip, message.header.prefix_len).ok()?,
        mark,
        tentative: flags.contains(AddressFlags::Tentative),
        duplicate: flags.contains(AddressFlags::Dadfailed),
        global: message.header.scope == AddressScope::Universe,
    })
}

/// Metric and interface of a default route.
fn default_route(route: &RouteMessage) -> Option<(u32, u32)> {
    if route.header.destination_prefix_length != 0 {
        return None;
    }
    let (mut metric, mut index) = (0, None);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Priority(priority) => metric = *priority,
            RouteAttribute::Oif(oif) => index = Some(*oif),
            _ => {}
        }
    }
    Some((metric, index?))
}

// === impl LinkError ===

impl From<rtnetlink::Error> for LinkError {
    fn from(error: rtnetlink::Error) -> Self {
        match errno(&error) {
            Some(libc::EPERM) => Self::NotPermitted,
            // RTM_NEWADDR of IPv6 where `disable_ipv6` is set.
            Some(libc::EACCES) => Self::NoIpv6,
            _ => Self::Refused(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn many_can_ask_at_once() {
        let links = Links::connect().unwrap();
        for _ in 0..20 {
            let asked = (0..64).map(|_| links.addresses());
            futures::future::try_join_all(asked).await.unwrap();
        }
    }
}
