//! Neighbour solicitations and advertisements, as whole Ethernet frames (RFC 4861). Pure.
//!
//! Invariants: [`parse`] accepts what a host must accept (RFC 4861 §7.1): a correct checksum,
//! code 0, complete options, no multicast target, and the rules for the unspecified source. It
//! does not judge the hop limit: the caller drops every message whose hop limit is not
//! [`HOP_LIMIT`], because it may have crossed a router. Messages with extension headers are not
//! parsed; no host sends such solicitations. What [`parse`] accepts is encoded to an equal
//! message, without the options that this module does not know.

use std::net::Ipv6Addr;

use crate::checksum::checksum;
use crate::ethernet::{HEADER, IPV6};
use crate::{Ethernet, Mac};

/// All nodes of the link (RFC 4291 §2.7.1).
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// The hop limit of every message (RFC 4861 §7.1).
pub const HOP_LIMIT: u8 = 255;

/// Next header of `ICMPv6`.
pub(crate) const ICMPV6: u8 = 58;
/// Types of `ICMPv6` messages (RFC 4861 §4.3, §4.4).
pub(crate) const SOLICITATION: u8 = 135;
pub(crate) const ADVERTISEMENT: u8 = 136;
/// Bytes of an IPv6 header.
const IPV6_HEADER: usize = 40;
/// Where the message begins in a frame.
pub(crate) const MESSAGE: usize = HEADER + IPV6_HEADER;
/// Bytes of a message without its options.
const HEAD: usize = 24;

/// Options with a link-layer address (RFC 4861 §4.6.1).
const SOURCE_MAC: u8 = 1;
const TARGET_MAC: u8 = 2;

/// Flags of an advertisement (RFC 4861 §4.4).
const ROUTER: u8 = 0x80;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;

/// A neighbour solicitation: which MAC has this address?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Solicitation {
    /// The addresses of the frame.
    pub ethernet: Ethernet,
    /// The source; `::` in duplicate address detection (RFC 4862 §5.4).
    pub source: Ipv6Addr,
    /// The solicited-node group of the target, or the target itself.
    pub destination: Ipv6Addr,
    /// The hop limit of the IPv6 header.
    pub hop_limit: u8,
    /// The address that is asked for.
    pub target: Ipv6Addr,
    /// The option with the source's MAC address.
    pub source_mac: Option<Mac>,
}

/// A neighbour advertisement: this MAC has this address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "the flags of the message")]
pub struct Advertisement {
    /// The addresses of the frame.
    pub ethernet: Ethernet,
    /// The source.
    pub source: Ipv6Addr,
    /// The host that asked, or all nodes.
    pub destination: Ipv6Addr,
    /// The hop limit of the IPv6 header.
    pub hop_limit: u8,
    /// The address that is advertised.
    pub target: Ipv6Addr,
    /// The option with the target's MAC address.
    pub target_mac: Option<Mac>,
    /// It answers a solicitation that the destination sent.
    pub solicited: bool,
    /// It replaces a cache entry with another MAC address.
    pub override_: bool,
    /// The sender is a router.
    pub router: bool,
}

/// A message of neighbour discovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// Which MAC has an address?
    Solicitation(Solicitation),
    /// A MAC has an address.
    Advertisement(Advertisement),
}

/// The group of an address (RFC 4291 §2.7.1): `ff02::1:ff` and the last 24 bits.
pub const fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    const PREFIX: u128 = 0xff02_0000_0000_0000_0000_0001_ff00_0000;
    Ipv6Addr::from_bits(PREFIX | address.to_bits() & 0x00ff_ffff)
}

/// The MAC address of an IPv6 multicast group (RFC 2464 §7).
pub const fn group_mac(group: Ipv6Addr) -> Mac {
    let [.., a, b, c, d] = group.octets();
    Mac([0x33, 0x33, a, b, c, d])
}

// === impl Solicitation ===

impl Solicitation {
    /// Asks all hosts for an address. With the source `::` it is the question of duplicate
    /// address detection, which has no option (RFC 4861 §4.3).
    pub fn multicast(from: Mac, source: Ipv6Addr, target: Ipv6Addr) -> Self {
        let destination = solicited_node(target);
        Self {
            ethernet: Ethernet {
                to: group_mac(destination),
                from,
            },
            source,
            destination,
            hop_limit: HOP_LIMIT,
            target,
            source_mac: (!source.is_unspecified()).then_some(from),
        }
    }

    /// Asks one host whether it still has an address (RFC 4861 §7.3.3).
    pub const fn unicast(from: Mac, to: Mac, source: Ipv6Addr, target: Ipv6Addr) -> Self {
        Self {
            ethernet: Ethernet { to, from },
            source,
            destination: target,
            hop_limit: HOP_LIMIT,
            target,
            source_mac: Some(from),
        }
    }

    /// The frame as it is sent.
    pub fn encode(&self) -> Vec<u8> {
        let mut message = head(SOLICITATION, 0, self.target);
        option(&mut message, SOURCE_MAC, self.source_mac);
        let ends = [self.source, self.destination];
        frame(self.ethernet, ends, self.hop_limit, message)
    }
}

// === impl Advertisement ===

impl Advertisement {
    /// Tells all hosts that `mac` has an address now (RFC 4861 §7.2.6). The frame is sent from
    /// `from`, which differs from `mac` if the sender speaks for another host.
    pub const fn unsolicited(from: Mac, target: Ipv6Addr, mac: Mac) -> Self {
        Self {
            ethernet: Ethernet {
                to: group_mac(ALL_NODES),
                from,
            },
            source: target,
            destination: ALL_NODES,
            hop_limit: HOP_LIMIT,
            target,
            target_mac: Some(mac),
            solicited: false,
            override_: true,
            router: false,
        }
    }

    /// The frame as it is sent.
    pub fn encode(&self) -> Vec<u8> {
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        let flags = flag(self.router, ROUTER)
            | flag(self.solicited, SOLICITED)
            | flag(self.override_, OVERRIDE);
        let mut message = head(ADVERTISEMENT, flags, self.target);
        option(&mut message, TARGET_MAC, self.target_mac);
        let ends = [self.source, self.destination];
        frame(self.ethernet, ends, self.hop_limit, message)
    }
}

/// A message without options and with checksum 0.
fn head(kind: u8, flags: u8, target: Ipv6Addr) -> Vec<u8> {
    let mut bytes = vec![kind, 0, 0, 0, flags, 0, 0, 0];
    bytes.extend(target.octets());
    bytes
}

fn option(message: &mut Vec<u8>, kind: u8, mac: Option<Mac>) {
    if let Some(mac) = mac {
        // The length is in units of 8 bytes.
        message.extend([kind, 1]);
        message.extend(mac.0);
    }
}

fn frame(ethernet: Ethernet, ends: [Ipv6Addr; 2], hop_limit: u8, mut message: Vec<u8>) -> Vec<u8> {
    let sum = message_checksum(ends, &message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let [_, _, high, low] = length(&message);
    let mut frame = ethernet.encode(IPV6).to_vec();
    // Version 6, traffic class and flow label 0.
    frame.extend([0x60, 0, 0, 0, high, low, ICMPV6, hop_limit]);
    frame.extend(ends.iter().flat_map(Ipv6Addr::octets));
    frame.extend(message);
    frame
}

fn length(message: &[u8]) -> [u8; 4] {
    u32::try_from(message.len())
        .unwrap_or(u32::MAX)
        .to_be_bytes()
}

/// The checksum with the pseudo-header of IPv6 (RFC 8200 §8.1).
fn message_checksum([source, destination]: [Ipv6Addr; 2], message: &[u8]) -> u16 {
    checksum(&[
        &source.octets(),
        &destination.octets(),
        &length(message),
        &[0, 0, 0, ICMPV6],
        message,
    ])
}

/// Parses a frame. Returns `None` if it is no valid solicitation or advertisement. Ignores
/// padding.
pub fn parse(frame: &[u8]) -> Option<Message> {
    let (ethernet, packet) = Ethernet::parse(frame, IPV6)?;
    let (header, payload) = packet.split_first_chunk::<IPV6_HEADER>()?;
    let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let message = payload.get(..length)?;
    let (source, destination) = (ip(&header[8..])?, ip(&header[24..])?);
    let is_icmp = header[0] >> 4 == 6 && header[6] == ICMPV6;
    if !is_icmp || message_checksum([source, destination], message) != 0 {
        return None;
    }
    let (head, options) = message.split_first_chunk::<HEAD>()?;
    let target = ip(&head[8..])?;
    if head[1] != 0 || target.is_multicast() || source.is_multicast() {
        return None;
    }
    let hop_limit = header[7];
    let message = match head[0] {
        SOLICITATION => Message::Solicitation(Solicitation {
            ethernet,
            source,
            destination,
            hop_limit,
            target,
            source_mac: mac_option(options, SOURCE_MAC).ok()?,
        }),
        ADVERTISEMENT => Message::Advertisement(Advertisement {
            ethernet,
            source,
            destination,
            hop_limit,
            target,
            target_mac: mac_option(options, TARGET_MAC).ok()?,
            solicited: head[4] & SOLICITED != 0,
            override_: head[4] & OVERRIDE != 0,
            router: head[4] & ROUTER != 0,
        }),
        _ => return None,
    };
    message.is_allowed().then_some(message)
}

fn ip(bytes: &[u8]) -> Option<Ipv6Addr> {
    let octets: [u8; 16] = *bytes.first_chunk()?;
    Some(Ipv6Addr::from(octets))
}

/// An option has the length 0, is longer than the message, or has no address of Ethernet
/// (RFC 4861 §4.6).
struct Malformed;

/// The MAC address in the first option of a kind, if there is one.
fn mac_option(mut options: &[u8], kind: u8) -> Result<Option<Mac>, Malformed> {
    let mut found = None;
    while let Some((&this, rest)) = options.split_first() {
        let units = usize::from(*rest.first().ok_or(Malformed)?);
        let (option, next) = options.split_at_checked(units * 8).ok_or(Malformed)?;
        if units == 0 {
            return Err(Malformed);
        }
        if this == kind && found.is_none() {
            let octets = option.get(2..).and_then(|it| it.try_into().ok());
            found = Some(Mac(octets.ok_or(Malformed)?));
        }
        options = next;
    }
    Ok(found)
}

// === impl Message ===

impl Message {
    /// The rules of RFC 4861 §7.1.1 and §7.1.2 that need several fields.
    fn is_allowed(&self) -> bool {
        match self {
            Self::Solicitation(it) if it.source.is_unspecified() => {
                it.source_mac.is_none() && it.destination == solicited_node(it.target)
            }
            Self::Solicitation(_) => true,
            Self::Advertisement(it) => !(it.destination.is_multicast() && it.solicited),
        }
    }
}

#[cfg(test)]
mod tests;
