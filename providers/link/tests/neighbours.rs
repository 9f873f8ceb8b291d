//! The kernel of another host believes the answers and announcements of this crate: its
//! neighbour table is the judge. Needs root.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

use ballast_link::arp::{self, Operation, Packet};
use ballast_link::ndp::{self, Advertisement, Message};
use ballast_link::testbed::{
    Host, add_address, eth0, eventually, index_of, netlink, on, segment, soon,
};
use ballast_link::{FrameSocket, Links, Mac};
use futures::TryStreamExt as _;
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage};

const OTHER: Mac = Mac([2, 0, 0, 0, 0, 0x55]);
const IP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 9);
const IP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9);

/// The responder's sockets on one host, and the asker on the other.
struct Pair {
    _responder: Host,
    asker: Host,
    arp: FrameSocket,
    discovery: FrameSocket,
    mac: Mac,
}

fn pair() -> Pair {
    let (responder, asker) = segment();
    let (arp, discovery, mac) = on(&responder, async || {
        let eth0 = eth0(&Links::connect().unwrap()).await;
        let discovery = FrameSocket::neighbour_discovery(eth0.index).unwrap();
        discovery
            .join(ndp::group_mac(ndp::solicited_node(IP6)))
            .unwrap();
        (FrameSocket::arp(eth0.index).unwrap(), discovery, eth0.mac)
    });
    on(&asker, async || {
        let index = index_of(&netlink(), "eth0").await;
        for net in ["192.0.2.2/24", "2001:db8::2/64"] {
            add_address(index, net.parse().unwrap()).await;
        }
    });
    Pair {
        _responder: responder,
        asker,
        arp,
        discovery,
        mac,
    }
}

// === impl Pair ===

impl Pair {
    /// The other host's kernel asks for an address.
    fn ask(&self, ip: IpAddr) {
        on(&self.asker, async || {
            let any: IpAddr = match ip {
                IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
            };
            let socket = UdpSocket::bind((any, 0)).unwrap();
            socket.send_to(b"hello", (ip, 9)).unwrap();
        });
    }

    /// Waits until the other host's neighbour table has this entry.
    fn believes(&self, ip: IpAddr, mac: Mac) {
        on(&self.asker, async || {
            let handle = netlink();
            eventually("the neighbour table has the MAC", async || {
                let all = handle.neighbours().get().execute();
                let all: Vec<NeighbourMessage> = all.try_collect().await.unwrap();
                all.iter().any(|it| is(it, ip, mac)).then_some(())
            })
            .await;
        });
    }
}

fn is(entry: &NeighbourMessage, ip: IpAddr, mac: Mac) -> bool {
    let destination = match ip {
        IpAddr::V4(ip) => NeighbourAddress::Inet(ip),
        IpAddr::V6(ip) => NeighbourAddress::Inet6(ip),
    };
    let destination = NeighbourAttribute::Destination(destination);
    let mac = NeighbourAttribute::LinkLayerAddress(mac.0.to_vec());
    entry.attributes.contains(&destination) && entry.attributes.contains(&mac)
}

/// The next frame that `parse` finds something in.
fn next<T>(socket: &FrameSocket, parse: impl Fn(&[u8]) -> Option<T>) -> T {
    soon("a request", || {
        let mut buffer = [0; 1514];
        let length = socket.receive(&mut buffer).ok()?;
        parse(&buffer[..length])
    })
}

#[test]
fn arp_answers_and_announcements_are_believed() {
    let pair = pair();
    pair.ask(IP.into());
    let (ethernet, request) = next(&pair.arp, |frame| {
        arp::parse(frame).filter(|(_, it)| it.target == IP)
    });
    assert_eq!(request.operation, Operation::Request);
    assert_eq!(ethernet.to, Mac::BROADCAST);
    assert_eq!(ethernet.from, request.sender_mac);
    let reply = Packet::reply(pair.mac, IP, request.sender_mac, request.sender);
    let frame = arp::frame(request.sender_mac, pair.mac, &reply);
    pair.arp.send(&frame).unwrap();
    pair.believes(IP.into(), pair.mac);
    // Another host announces the address in one form, and this one in the other.
    for (packet, mac) in [
        (Packet::announcement(OTHER, IP), OTHER),
        (Packet::announcement_reply(pair.mac, IP), pair.mac),
    ] {
        let frame = arp::frame(Mac::BROADCAST, pair.mac, &packet);
        pair.arp.send(&frame).unwrap();
        pair.believes(IP.into(), mac);
    }
}

#[test]
fn advertisements_are_believed() {
    let pair = pair();
    pair.ask(IP6.into());
    let request = next(&pair.discovery, |frame| match ndp::parse(frame)? {
        Message::Solicitation(it) if it.target == IP6 => Some(it),
        _ => None,
    });
    assert_eq!(request.destination, ndp::solicited_node(IP6));
    assert_eq!(request.ethernet.to, ndp::group_mac(request.destination));
    assert_eq!(request.source_mac, Some(request.ethernet.from));
    assert_eq!(request.hop_limit, ndp::HOP_LIMIT);
    let to_all = Advertisement::unsolicited(pair.mac, IP6, pair.mac);
    let answer = Advertisement {
        ethernet: ballast_link::Ethernet {
            to: request.ethernet.from,
            from: pair.mac,
        },
        destination: request.source,
        solicited: true,
        ..to_all
    };
    pair.discovery.send(&answer.encode()).unwrap();
    pair.believes(IP6.into(), pair.mac);
    for mac in [OTHER, pair.mac] {
        let frame = Advertisement::unsolicited(pair.mac, IP6, mac).encode();
        pair.discovery.send(&frame).unwrap();
        pair.believes(IP6.into(), mac);
    }
}

/// The kernel's own messages, which this crate did not encode, are parsed: duplicate address
/// detection with a nonce, and an advertisement.
#[test]
fn messages_of_the_kernel_are_parsed() {
    let pair = pair();
    let ip: Ipv6Addr = "2001:db8::7".parse().unwrap();
    let mac = on(&pair.asker, async || {
        let index = index_of(&netlink(), "eth0").await;
        let add = netlink().address().add(index, ip.into(), 64);
        add.execute().await.unwrap();
        eth0(&Links::connect().unwrap()).await.mac
    });
    let detection = next(&pair.discovery, |frame| match ndp::parse(frame)? {
        Message::Solicitation(it) if it.target == ip => Some(it),
        _ => None,
    });
    let expected = ndp::Solicitation::multicast(mac, Ipv6Addr::UNSPECIFIED, ip);
    assert_eq!(detection, expected);
    // It answers our question about an address that works already.
    let target = "2001:db8::2".parse().unwrap();
    let question = ndp::Solicitation::multicast(pair.mac, Ipv6Addr::UNSPECIFIED, target);
    pair.discovery.send(&question.encode()).unwrap();
    let answer = next(&pair.discovery, |frame| match ndp::parse(frame)? {
        Message::Advertisement(it) if it.target == target => Some(it),
        _ => None,
    });
    assert_eq!(answer, Advertisement::unsolicited(mac, target, mac));
}
