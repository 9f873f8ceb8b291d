//! ARP for IPv4 over Ethernet (RFC 826) and address conflict detection (RFC 5227). Pure.
//!
//! A [`Packet`] has no Ethernet header; [`frame`] and [`parse`] handle whole frames.

use std::net::Ipv4Addr;

use crate::ethernet::{self, ARP};
use crate::{Ethernet, Mac};

/// Bytes of an ARP packet of IPv4 over Ethernet, without the Ethernet header.
pub const LENGTH: usize = 28;
/// Bytes of a whole frame, without padding.
pub const FRAME: usize = ethernet::HEADER + LENGTH;

/// Hardware type Ethernet, protocol type IPv4, lengths 6 and 4.
const HEAD: [u8; 6] = [0, 1, 8, 0, 6, 4];

/// The kind of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Who has the target address?
    Request,
    /// The sender has the sender address.
    Reply,
}

/// An ARP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Request or reply.
    pub operation: Operation,
    /// The sender's MAC address.
    pub sender_mac: Mac,
    /// The sender's IP address; unspecified in a probe.
    pub sender: Ipv4Addr,
    /// The MAC address that a reply is for.
    pub target_mac: Mac,
    /// The requested address.
    pub target: Ipv4Addr,
}

/// The frame of a packet as it is sent. The network card pads it to the length that Ethernet
/// requires.
pub fn frame(to: Mac, from: Mac, packet: &Packet) -> [u8; FRAME] {
    let mut bytes = [0; FRAME];
    bytes[..ethernet::HEADER].copy_from_slice(&Ethernet { to, from }.encode(ARP));
    bytes[ethernet::HEADER..].copy_from_slice(&packet.encode());
    bytes
}

/// Parses a frame. Returns `None` if it is not ARP for IPv4 over Ethernet. Ignores padding.
pub fn parse(frame: &[u8]) -> Option<(Ethernet, Packet)> {
    let (ethernet, payload) = Ethernet::parse(frame, ARP)?;
    Some((ethernet, Packet::decode(payload)?))
}

// === impl Packet ===

impl Packet {
    /// A request for `address` that does not claim it (RFC 5227 §1.1).
    pub const fn probe(mac: Mac, address: Ipv4Addr) -> Self {
        Self::request(mac, Ipv4Addr::UNSPECIFIED, address)
    }

    /// An announcement that `mac` has `address` (RFC 5227 §1.1, RFC 5944 §4.6).
    pub const fn announcement(mac: Mac, address: Ipv4Addr) -> Self {
        Self::request(mac, address, address)
    }

    /// The reply form of an announcement, for hosts that ignore requests (RFC 5944 §4.6).
    pub const fn announcement_reply(mac: Mac, address: Ipv4Addr) -> Self {
        Self::reply(mac, address, mac, address)
    }

    /// A reply to `asker` at `asker_mac`: `mac` has `address`.
    pub const fn reply(mac: Mac, address: Ipv4Addr, asker_mac: Mac, asker: Ipv4Addr) -> Self {
        Self {
            operation: Operation::Reply,
            sender_mac: mac,
            sender: address,
            target_mac: asker_mac,
            target: asker,
        }
    }

    /// A request for `address` from a host that has `sender`.
    pub const fn request(mac: Mac, sender: Ipv4Addr, address: Ipv4Addr) -> Self {
        Self {
            operation: Operation::Request,
            sender_mac: mac,
            sender,
            target_mac: Mac::UNKNOWN,
            target: address,
        }
    }

    /// Whether the sender of this packet, other than `mac`, uses `address` or probes for it
    /// (RFC 5227 §2.1.1).
    pub fn conflicts(&self, mac: Mac, address: Ipv4Addr) -> bool {
        let uses = self.sender == address;
        let probes = self.operation == Operation::Request
            && self.sender.is_unspecified()
            && self.target == address;
        self.sender_mac != mac && (uses || probes)
    }

    /// The packet as it is sent.
    pub fn encode(&self) -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        bytes[..6].copy_from_slice(&HEAD);
        bytes[7] = match self.operation {
            Operation::Request => 1,
            Operation::Reply => 2,
        };
        bytes[8..14].copy_from_slice(&self.sender_mac.0);
        bytes[14..18].copy_from_slice(&self.sender.octets());
        bytes[18..24].copy_from_slice(&self.target_mac.0);
        bytes[24..28].copy_from_slice(&self.target.octets());
        bytes
    }

    /// Parses a packet. Returns `None` if it is not ARP for IPv4 over Ethernet. Ignores
    /// padding, which Ethernet adds to short frames.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; LENGTH] = bytes.first_chunk()?;
        if bytes[..6] != HEAD {
            return None;
        }
        let operation = match (bytes[6], bytes[7]) {
            (0, 1) => Operation::Request,
            (0, 2) => Operation::Reply,
            _ => return None,
        };
        let mac = |from: usize| Some(Mac(*bytes.get(from..)?.first_chunk()?));
        let address = |from: usize| {
            let octets: [u8; 4] = *bytes.get(from..)?.first_chunk()?;
            Some(Ipv4Addr::from(octets))
        };
        Some(Self {
            operation,
            sender_mac: mac(8)?,
            sender: address(14)?,
            target_mac: mac(18)?,
            target: address(24)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WE: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const OTHER: Mac = Mac([2, 0, 0, 0, 0, 2]);
    const IP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);

    fn packet() -> impl Strategy<Value = Packet> {
        let operation = prop_oneof![Just(Operation::Request), Just(Operation::Reply)];
        let parts = (operation, any::<[u8; 6]>(), any::<[u8; 6]>());
        (parts, any::<Ipv4Addr>(), any::<Ipv4Addr>()).prop_map(
            |((operation, sender_mac, target_mac), sender, target)| Packet {
                operation,
                sender_mac: Mac(sender_mac),
                sender,
                target_mac: Mac(target_mac),
                target,
            },
        )
    }

    #[test]
    fn a_probe_on_the_wire() {
        let wire = Packet::probe(WE, IP).encode();
        let expected = [
            0, 1, 8, 0, 6, 4, 0, 1, // Ethernet, IPv4, lengths, request
            2, 0, 0, 0, 0, 1, 0, 0, 0, 0, // from us, without an address
            0, 0, 0, 0, 0, 0, 192, 0, 2, 7,
        ];
        assert_eq!(wire, expected);
    }

    #[test]
    fn a_reply_on_the_wire() {
        let asker = Ipv4Addr::new(192, 0, 2, 8);
        let reply = Packet::reply(WE, IP, OTHER, asker);
        #[rustfmt::skip]
        let expected = [
            2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 6, // to, from, ARP
            0, 1, 8, 0, 6, 4, 0, 2,
            2, 0, 0, 0, 0, 1, 192, 0, 2, 7,
            2, 0, 0, 0, 0, 2, 192, 0, 2, 8,
        ];
        assert_eq!(frame(OTHER, WE, &reply), expected);
        let ethernet = Ethernet {
            to: OTHER,
            from: WE,
        };
        assert_eq!(parse(&expected), Some((ethernet, reply)));
    }

    #[test]
    fn an_announcement_names_the_address_twice() {
        for packet in [
            Packet::announcement(WE, IP),
            Packet::announcement_reply(WE, IP),
        ] {
            assert_eq!((packet.sender, packet.target), (IP, IP));
            assert!(packet.conflicts(OTHER, IP));
        }
        let request = Packet::announcement(WE, IP);
        assert_eq!(
            (request.operation, request.target_mac),
            (Operation::Request, Mac::UNKNOWN)
        );
        let reply = Packet::announcement_reply(WE, IP);
        assert_eq!((reply.operation, reply.target_mac), (Operation::Reply, WE));
    }

    #[test]
    fn a_frame_of_another_type_is_not_parsed() {
        let good = frame(Mac::BROADCAST, WE, &Packet::probe(WE, IP));
        assert!(parse(&good).is_some());
        for length in 0..FRAME {
            assert_eq!(parse(&good[..length]), None);
        }
        // 802.1Q.
        let mut tagged = good;
        tagged[12..14].copy_from_slice(&[0x81, 0x00]);
        assert_eq!(parse(&tagged), None);
    }

    #[test]
    fn a_conflict_is_a_use_or_a_probe_by_another_host() {
        let packet = |operation, sender_mac, sender, target| Packet {
            operation,
            sender_mac,
            sender,
            target_mac: Mac::UNKNOWN,
            target,
        };
        let (request, reply) = (Operation::Request, Operation::Reply);
        let (none, else_) = (Ipv4Addr::UNSPECIFIED, Ipv4Addr::new(192, 0, 2, 8));
        for (said, conflicts) in [
            (packet(reply, OTHER, IP, none), true),
            (packet(request, OTHER, IP, IP), true),
            (packet(request, OTHER, IP, else_), true),
            (packet(request, OTHER, none, IP), true),
            // An ordinary request by a host with another address is no conflict.
            (packet(request, OTHER, else_, IP), false),
            (packet(request, OTHER, none, else_), false),
            (packet(reply, OTHER, else_, IP), false),
            // Our own packets.
            (Packet::probe(WE, IP), false),
            (Packet::announcement(WE, IP), false),
        ] {
            assert_eq!(said.conflicts(WE, IP), conflicts, "{said:?}");
        }
    }

    #[test]
    fn other_packets_are_not_parsed() {
        let good = Packet::announcement(WE, IP).encode();
        assert_eq!(Packet::decode(&good[..27]), None);
        for (at, odd) in [(1, 6), (2, 0x86), (4, 8), (5, 16), (6, 1), (7, 0), (7, 3)] {
            let mut bytes = good;
            bytes[at] = odd;
            assert_eq!(Packet::decode(&bytes), None, "byte {at} is {odd}");
        }
    }

    proptest! {
        #[test]
        fn an_encoded_packet_is_parsed(packet in packet(), padding in 0..40usize) {
            let mut wire = packet.encode().to_vec();
            wire.resize(LENGTH + padding, 0);
            prop_assert_eq!(Packet::decode(&wire), Some(packet));
        }

        #[test]
        fn an_encoded_frame_is_parsed(
            packet in packet(), to in any::<[u8; 6]>(), from in any::<[u8; 6]>(), padding in 0..40usize
        ) {
            let ethernet = Ethernet { to: Mac(to), from: Mac(from) };
            let mut wire = frame(ethernet.to, ethernet.from, &packet).to_vec();
            wire.resize(FRAME + padding, 0);
            prop_assert_eq!(parse(&wire), Some((ethernet, packet)));
        }

        #[test]
        fn any_frame_can_be_parsed(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            parse(&bytes);
        }

        #[test]
        fn any_bytes_can_be_parsed(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Some(packet) = Packet::decode(&bytes) {
                prop_assert_eq!(&packet.encode()[..], &bytes[..LENGTH]);
            }
        }
    }
}
