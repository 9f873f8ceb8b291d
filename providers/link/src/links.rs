//! Interfaces and their addresses, by netlink (rtnetlink(7)).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
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

/// Identifies the addresses of one owner on a host. The kernel stores the number with the
/// address as its route priority (`IFA_RT_PRIORITY`, Linux 4.18), which has no effect for an
/// address without a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark(u32);

/// The origin that `ip address` shows for marked addresses (`IFA_PROTO`, Linux 5.18). The
/// kernel uses the numbers below 5.
const ORIGIN: u8 = 77;

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// The interface index.
    pub index: u32,
    /// `eth0`
    pub name: String,
    /// Its MAC address; unknown if it is not Ethernet.
    pub mac: Mac,
    /// Up, with a carrier.
    pub up: bool,
    /// The loopback interface.
    pub loopback: bool,
}

/// An address of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The interface index.
    pub interface: u32,
    /// The address with the prefix length of its network.
    pub net: IpNet,
    /// The mark of its owner, if it has one.
    pub mark: Option<Mark>,
    /// IPv6: duplicate address detection has not finished.
    pub tentative: bool,
    /// IPv6: another host uses it, so this host does not. The kernel removes a duplicate that
    /// has a lifetime.
    pub duplicate: bool,
    /// The scope is global: neither this host nor this link.
    pub global: bool,
}

/// Why a netlink request failed.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The socket.
    #[error("cannot open a netlink socket")]
    Connect(#[source] io::Error),
    /// A capability is missing.
    #[error("cannot change addresses of interfaces without CAP_NET_ADMIN")]
    NotPermitted,
    /// IPv6 is disabled.
    #[error("IPv6 is disabled on this interface (sysctl disable_ipv6)")]
    NoIpv6,
    /// The kernel did not answer in time.
    #[error("the kernel did not answer in time")]
    NoAnswer,
    /// Any other error.
    #[error("the kernel refused the request: {0}")]
    Refused(#[source] rtnetlink::Error),
}

/// A netlink connection to the kernel, in the network namespace of the thread that opened it.
/// Closed when dropped.
#[derive(Debug)]
pub struct Links {
    handle: Handle,
    connection: JoinHandle<()>,
    /// The kernel serves one listing at a time for a socket, and refuses others (`EBUSY`).
    listing: Mutex<()>,
}

// === impl Mark ===

impl Mark {
    /// The upper 8 bits of all marks. Other route priorities are small numbers.
    const FIRST: u32 = 0x6200_0000;

    /// The mark of an owner; only the lower 24 bits of the number count.
    pub const fn new(owner: u32) -> Self {
        Self(Self::FIRST | (owner & 0x00ff_ffff))
    }

    #[cfg(test)]
    pub(crate) const fn number(self) -> u32 {
        self.0
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
    /// Opens the connection. Must be called within a Tokio runtime.
    pub fn connect() -> Result<Self, LinkError> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(LinkError::Connect)?;
        Ok(Self {
            handle,
            connection: tokio::spawn(connection),
            listing: Mutex::default(),
        })
    }

    /// Lists all interfaces.
    pub async fn interfaces(&self) -> Result<Vec<Interface>, LinkError> {
        Ok(self.all_links().await?.iter().map(interface).collect())
    }

    /// Lists all addresses of all interfaces.
    pub async fn addresses(&self) -> Result<Vec<Address>, LinkError> {
        let all = self.all_addresses().await?;
        Ok(all.iter().filter_map(address).collect())
    }

    pub(crate) async fn all_links(&self) -> Result<Vec<LinkMessage>, LinkError> {
        let _turn = self.listing.lock().await;
        Ok(self.handle.link().get().execute().try_collect().await?)
    }

    pub(crate) async fn all_addresses(&self) -> Result<Vec<AddressMessage>, LinkError> {
        let _turn = self.listing.lock().await;
        Ok(self.handle.address().get().execute().try_collect().await?)
    }

    /// Of all tables and both families, IPv4 first.
    pub(crate) async fn all_routes(&self) -> Result<Vec<RouteMessage>, LinkError> {
        let [v4, v6] = [self.routes(v4_routes()), self.routes(v6_routes())];
        let mut all = v4.await?;
        all.extend(v6.await?);
        Ok(all)
    }

    async fn routes(&self, of: RouteMessage) -> Result<Vec<RouteMessage>, LinkError> {
        let _turn = self.listing.lock().await;
        Ok(self.handle.route().get(of).execute().try_collect().await?)
    }

    /// The interface of the default route with the lowest metric, IPv4 first.
    pub async fn default_interface(&self) -> Result<Option<u32>, LinkError> {
        for family in [v4_routes(), v6_routes()] {
            let routes = self.routes(family).await?;
            let best = routes.iter().filter_map(default_route).min();
            if let Some((_, index)) = best {
                return Ok(Some(index));
            }
        }
        Ok(None)
    }

    /// Adds a host address with a mark and without a route to an interface. The kernel removes
    /// it after `lifetime` (in whole seconds) unless [`Self::prolong`] extends it, so a process
    /// that does not come back leaves nothing behind. Returns `false` if the interface has the
    /// address already, whoever added it. An IPv6 address is `tentative` until duplicate
    /// address detection has finished.
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

    /// Sets the lifetime of an address, and adds the address if it is missing.
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

    /// Removes a host address, whoever added it. Does nothing if it is not there.
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

fn v4_routes() -> RouteMessage {
    RouteMessageBuilder::<Ipv4Addr>::new().build()
}

fn v6_routes() -> RouteMessage {
    RouteMessageBuilder::<Ipv6Addr>::new().build()
}

fn valid_for(ip: IpAddr, lifetime: Duration) -> CacheInfo {
    let mut info = CacheInfo::default();
    info.ifa_valid = u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX);
    // Deprecated (RFC 4862 §5.5.4): the host does not choose it as a source address. IPv4 has
    // no such state, and chooses the address of the route's network.
    info.ifa_preferred = if ip.is_ipv6() { 0 } else { info.ifa_valid };
    info
}

const fn host_prefix(ip: IpAddr) -> u8 {
    match ip {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// The kernel's error number, positive.
fn errno(error: &rtnetlink::Error) -> Option<i32> {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.code.map(|code| code.get().abs()),
        _ => None,
    }
}

pub(crate) fn interface(message: &LinkMessage) -> Interface {
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

pub(crate) fn address(message: &AddressMessage) -> Option<Address> {
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
    // IPv6 has `IFA_LOCAL` only on point-to-point links.
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

/// The metric and interface of a default route.
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
            // The answer to RTM_NEWADDR if `disable_ipv6` is set.
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
