//! Echo requests to hosts on one interface (RFC 792, RFC 4443 §4), for a thread that polls.
//! Not for Tokio.
//!
//! Requests never cross a router: their hop limit is 1. Only replies with the random identifier
//! and the random token of this [`Echo`] count, so several processes on a host do not read each
//! other's replies.

use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::atomic::{AtomicU16, Ordering};

use socket2::{Domain, Protocol, Socket, Type};

use crate::checksum::checksum;
use crate::filter;

/// Types of messages (RFC 792, RFC 4443 §4.1).
const REQUEST_V4: u8 = 8;
const REPLY_V4: u8 = 0;
const REQUEST_V6: u8 = 128;
const REPLY_V6: u8 = 129;
/// Type, code, checksum, identifier, sequence number, token.
const LENGTH: usize = 16;
/// Bytes of a reply with the longest IPv4 header.
const LONGEST: usize = 60 + LENGTH;

/// Two non-blocking raw sockets, for IPv4 and IPv6.
#[derive(Debug)]
pub struct Echo {
    v4: UdpSocket,
    /// `None` on a host without IPv6.
    v6: Option<UdpSocket>,
    interface: u32,
    token: [u8; 8],
    sequence: AtomicU16,
}

// === impl Echo ===

impl Echo {
    /// Opens the sockets for an interface, by its index and name. Needs `CAP_NET_RAW`.
    pub fn new(interface: u32, name: &str) -> io::Result<Self> {
        let token = RandomState::new().hash_one(interface).to_be_bytes();
        let identifier = identifier(token);
        let v4 = open(Domain::IPV4, Protocol::ICMPV4, name)?;
        v4.attach_filter(&filter::echo_reply_v4(identifier))?;
        v4.set_ttl_v4(1)?;
        let v6 = match open(Domain::IPV6, Protocol::ICMPV6, name) {
            Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => None,
            other => Some(other?),
        };
        if let Some(v6) = &v6 {
            v6.attach_filter(&filter::echo_reply_v6(identifier))?;
            v6.set_unicast_hops_v6(1)?;
        }
        Ok(Self {
            v4: v4.into(),
            v6: v6.map(UdpSocket::from),
            interface,
            token,
            sequence: AtomicU16::new(0),
        })
    }

    /// The sockets, to wait for replies.
    pub fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let all = std::iter::once(&self.v4).chain(&self.v6);
        all.map(UdpSocket::as_fd)
    }

    /// Sends one request. The kernel chooses the source address and asks for the MAC address.
    pub fn send(&self, to: IpAddr) -> io::Result<()> {
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed);
        let (socket, kind, to): (_, _, SocketAddr) = match to {
            IpAddr::V4(to) => (&self.v4, REQUEST_V4, SocketAddrV4::new(to, 0).into()),
            IpAddr::V6(to) => {
                let v6 = self.v6.as_ref().ok_or(ErrorKind::Unsupported)?;
                // The scope is for link-local addresses.
                let to = SocketAddrV6::new(to, 0, 0, self.interface);
                (v6, REQUEST_V6, to.into())
            }
        };
        let message = request(kind, self.token, sequence);
        socket.send_to(&message, to).map(drop)
    }

    /// The host that sent the next reply. Fails with `WouldBlock` if no reply is waiting.
    pub fn receive(&self) -> io::Result<IpAddr> {
        match self.next(&self.v4) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            other => return other,
        }
        let v6 = self.v6.as_ref().ok_or(ErrorKind::WouldBlock)?;
        self.next(v6)
    }

    /// Skips what the filter let through that is no reply to this [`Echo`].
    fn next(&self, socket: &UdpSocket) -> io::Result<IpAddr> {
        loop {
            let mut buffer = [0; LONGEST];
            let (length, from) = socket.recv_from(&mut buffer)?;
            let received = buffer.get(..length).unwrap_or_default();
            let message = match from {
                SocketAddr::V4(_) => without_header(received),
                SocketAddr::V6(_) => Some(received),
            };
            if message.is_some_and(|message| answers(message, from.is_ipv4(), self.token)) {
                return Ok(from.ip());
            }
        }
    }
}

/// `UdpSocket` reads and writes any socket whose addresses are those of IPv4 or IPv6.
fn open(domain: Domain, protocol: Protocol, name: &str) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
    socket.set_nonblocking(true)?;
    socket.bind_device(Some(name.as_bytes()))?;
    Ok(socket)
}

const fn identifier(token: [u8; 8]) -> u16 {
    u16::from_be_bytes([token[0], token[1]])
}

/// A request. For `ICMPv6` the kernel replaces the checksum.
fn request(kind: u8, token: [u8; 8], sequence: u16) -> [u8; LENGTH] {
    let mut message = [0; LENGTH];
    message[0] = kind;
    message[4..6].copy_from_slice(&identifier(token).to_be_bytes());
    message[6..8].copy_from_slice(&sequence.to_be_bytes());
    message[8..].copy_from_slice(&token);
    let sum = checksum(&[&message]);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

/// Whether a message is a reply to a request with this token. The kernel has checked the
/// checksum.
fn answers(message: &[u8], v4: bool, token: [u8; 8]) -> bool {
    let kind = if v4 { REPLY_V4 } else { REPLY_V6 };
    message.first() == Some(&kind)
        && message.get(4..6) == Some(&identifier(token).to_be_bytes())
        && message.get(8..) == Some(&token)
}

/// The payload of an IPv4 packet.
fn without_header(packet: &[u8]) -> Option<&[u8]> {
    let words = usize::from(packet.first()? & 0x0f);
    packet.get(words * 4..)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: [u8; 8] = [0xab, 0xcd, 3, 4, 5, 6, 7, 8];

    #[test]
    fn a_request_on_the_wire() {
        let expected = [
            8, 0, 0x91, 0x4b, 0xab, 0xcd, 0, 7, // type, checksum, identifier, sequence number
            0xab, 0xcd, 3, 4, 5, 6, 7, 8,
        ];
        assert_eq!(request(REQUEST_V4, TOKEN, 7), expected);
    }

    #[test]
    fn only_a_reply_to_this_token_counts() {
        let reply = |kind, token| request(kind, token, 7).to_vec();
        let mut other = TOKEN;
        other[7] = 9;
        for (name, message, v4, counts) in [
            ("reply", reply(REPLY_V4, TOKEN), true, true),
            ("reply of ICMPv6", reply(REPLY_V6, TOKEN), false, true),
            ("request", reply(REQUEST_V4, TOKEN), true, false),
            ("request of ICMPv6", reply(REQUEST_V6, TOKEN), false, false),
            ("of the other family", reply(REPLY_V6, TOKEN), true, false),
            ("another token", reply(REPLY_V4, other), true, false),
            (
                "truncated",
                reply(REPLY_V4, TOKEN)[..15].to_vec(),
                true,
                false,
            ),
            ("empty", vec![], true, false),
        ] {
            assert_eq!(answers(&message, v4, TOKEN), counts, "{name}");
        }
    }

    #[test]
    fn the_ipv4_header_can_have_options() {
        let packet = |words: u8| {
            let mut packet = vec![0; usize::from(words) * 4];
            packet[0] = 0x40 | words;
            packet.push(77);
            packet
        };
        for words in [5, 15] {
            assert_eq!(without_header(&packet(words)), Some(&[77][..]));
        }
        assert_eq!(without_header(&[]), None);
        assert_eq!(without_header(&[0x45, 0, 0]), None);
    }
}
