//! Which frames a [`FrameSocket`] receives, and echo requests, between hosts on a switch. Each
//! host is a network namespace without an uplink. Needs root.
//!
//! That a frame is *not* received is shown without a time-out: it is sent before one that is
//! received.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ballast_link::arp::{self, Packet};
use ballast_link::ndp::{self, Advertisement, Message, Solicitation};
use ballast_link::testbed::{
    Host, add_address, eth0, eventually, index_of, lan, netlink, on, segment, soon,
};
use ballast_link::{Echo, Ethernet, FrameSocket, Frames, Interface, Links, Mac};
use netlink_packet_route::link::MacVlanMode;
use rtnetlink::{LinkMacVlan, LinkUnspec};

const SENDER: Mac = Mac([2, 0, 0, 0, 0, 0x99]);
const NOBODY: Mac = Mac([2, 0, 0, 0, 0, 0x55]);
const IP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 9);
const IP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0x12, 0x3456);
const ASKER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);

type Open = fn(u32) -> std::io::Result<FrameSocket>;

fn interface(host: &Host) -> Interface {
    on(host, async || eth0(&Links::connect().unwrap()).await)
}

/// The next frame from [`SENDER`]. Kernels send frames about their own addresses, too.
fn next(socket: &FrameSocket) -> Vec<u8> {
    soon("a frame of the sender", || {
        let mut buffer = [0; 1514];
        match socket.receive(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            received => {
                let frame = &buffer[..received.unwrap()];
                (frame[6..12] == SENDER.0).then(|| frame.to_vec())
            }
        }
    })
}

fn send(socket: &FrameSocket, frames: &[Vec<u8>]) {
    for frame in frames {
        socket.send(frame).unwrap();
    }
}

/// Two hosts on a switch: the socket under test, its interface, and a sender.
fn listening(
    open: Open,
) -> (
    ballast_link::testbed::Lan,
    FrameSocket,
    Interface,
    FrameSocket,
) {
    let lan = lan(2);
    let (we, peer) = (interface(&lan.hosts[0]), interface(&lan.hosts[1]));
    let socket = on(&lan.hosts[0], async || open(we.index).unwrap());
    let sender = on(&lan.hosts[1], async || {
        FrameSocket::arp(peer.index).unwrap()
    });
    (lan, socket, we, sender)
}

/// Sends all frames. Those received are exactly `expected`, in this order; the last frame must
/// be among them.
fn receives(socket: &FrameSocket, sender: &FrameSocket, sent: &[Vec<u8>], expected: &[Vec<u8>]) {
    send(sender, sent);
    for (at, frame) in expected.iter().enumerate() {
        assert_eq!(&next(socket), frame, "frame {at}");
    }
}

fn with(mut frame: Vec<u8>, changes: &[(usize, u8)]) -> Vec<u8> {
    for (at, byte) in changes {
        frame[*at] = *byte;
    }
    frame
}

fn request(to: Mac) -> Vec<u8> {
    arp::frame(to, SENDER, &Packet::request(SENDER, IP, IP)).to_vec()
}

#[test]
fn arp_is_received_and_nothing_else() {
    let (_lan, socket, we, sender) = listening(FrameSocket::arp);
    let reply = Packet::reply(SENDER, IP, we.mac, IP);
    let probe = arp::frame(Mac::BROADCAST, SENDER, &Packet::probe(SENDER, IP));
    let good = [
        request(Mac::BROADCAST),
        request(we.mac),
        arp::frame(we.mac, SENDER, &reply).to_vec(),
        probe.to_vec(),
    ];
    let odd = [
        // Frames for another host, which the switch floods.
        request(NOBODY),
        // Reverse ARP, IPv4, 802.1Q with ARP inside.
        with(request(we.mac), &[(21, 3)]),
        with(request(we.mac), &[(12, 0x08), (13, 0x00)]),
        with(
            request(we.mac),
            &[(12, 0x81), (13, 0x00), (16, 0x08), (17, 0x06)],
        ),
        Solicitation::multicast(SENDER, ASKER, IP6).encode(),
    ];
    receives(&socket, &sender, &[&odd[..], &good[..]].concat(), &good);
}

#[test]
fn neighbour_discovery_is_received_and_nothing_else() {
    let (_lan, socket, we, sender) = listening(FrameSocket::neighbour_discovery);
    let solicitation = Solicitation::multicast(SENDER, ASKER, IP6);
    let to_broadcast = Ethernet {
        to: Mac::BROADCAST,
        from: SENDER,
    };
    let good = [
        solicitation.encode(),
        Solicitation {
            ethernet: to_broadcast,
            ..solicitation
        }
        .encode(),
        // For an address that this host does not have: the kernel ignores it.
        Solicitation::unicast(SENDER, we.mac, ASKER, IP6).encode(),
        Solicitation::multicast(SENDER, Ipv6Addr::UNSPECIFIED, IP6).encode(),
        Advertisement::unsolicited(SENDER, IP6, SENDER).encode(),
    ];
    let mut odd: Vec<_> = [128, 129, 131, 133, 134, 137, 143]
        .map(|kind| with(good[0].clone(), &[(54, kind)]))
        .to_vec();
    odd.extend([
        Solicitation::unicast(SENDER, NOBODY, ASKER, IP6).encode(),
        // UDP whose first byte looks like a solicitation, IPv4, ARP.
        with(good[0].clone(), &[(20, 17)]),
        with(good[0].clone(), &[(12, 0x08), (13, 0x00)]),
        request(Mac::BROADCAST),
    ]);
    let sent = [&odd[..], &good[..]].concat();
    receives(&socket, &sender, &sent, &good);
    // All of them are parsed as they were sent.
    send(&sender, &good[..1]);
    let parsed = ndp::parse(&next(&socket));
    assert_eq!(parsed, Some(Message::Solicitation(solicitation)));
}

#[test]
fn own_frames_are_not_received() {
    let lan = lan(2);
    let [we, peer] = [0, 1].map(|at| interface(&lan.hosts[at]).index);
    let sockets = |at: usize, index: u32| {
        on(&lan.hosts[at], async || {
            let arp = FrameSocket::arp(index).unwrap();
            (arp, FrameSocket::neighbour_discovery(index).unwrap())
        })
    };
    let (own, peers) = (sockets(0, we), sockets(1, peer));
    let (a, b) = (
        request(Mac::BROADCAST),
        Solicitation::multicast(SENDER, ASKER, IP6).encode(),
    );
    // Both sockets of the interface see neither frame; the peer's do.
    send(&own.0, &[a.clone(), b.clone()]);
    assert_eq!((next(&peers.0), next(&peers.1)), (a, b));
    let marker = arp::frame(Mac::BROADCAST, SENDER, &Packet::probe(SENDER, IP)).to_vec();
    let marker6 = Advertisement::unsolicited(SENDER, IP6, SENDER).encode();
    send(&peers.0, &[marker.clone(), marker6.clone()]);
    assert_eq!((next(&own.0), next(&own.1)), (marker, marker6));
}

/// The kernel passes a frame for a macvlan interface to sockets of the interface below it, too.
#[test]
fn frames_of_an_interface_above_are_not_received() {
    let (lan, socket, we, sender) = listening(FrameSocket::arp);
    let above = on(&lan.hosts[0], async || {
        let handle = netlink();
        let above = LinkMacVlan::new("above", we.index, MacVlanMode::Bridge);
        let above = above.up().build();
        handle.link().add(above).execute().await.unwrap();
        let links = Links::connect().unwrap();
        eventually("the macvlan interface is up", async || {
            let all = links.interfaces().await.unwrap();
            all.into_iter().find(|it| it.name == "above" && it.up)
        })
        .await
    });
    let upper = on(&lan.hosts[0], async || {
        FrameSocket::arp(above.index).unwrap()
    });
    let sent = [request(above.mac), request(we.mac)];
    receives(&socket, &sender, &sent, &[request(we.mac)]);
    assert_eq!(next(&upper), request(above.mac));
}

#[test]
fn a_group_is_joined_and_left() {
    let (host, _other) = segment();
    let group = ndp::group_mac(ndp::solicited_node(IP6));
    let joined = async || {
        let groups = std::fs::read_to_string("/proc/thread-self/net/dev_mcast").unwrap();
        groups.contains("3333ff123456")
    };
    on(&host, async || {
        let eth0 = eth0(&Links::connect().unwrap()).await;
        let socket = FrameSocket::neighbour_discovery(eth0.index).unwrap();
        assert!(!joined().await);
        socket.join(group).unwrap();
        assert!(joined().await);
        socket.leave(group).unwrap();
        assert!(!joined().await);
        // Of a group that was not joined.
        socket.leave(group).unwrap();
        socket.join(group).unwrap();
        drop(socket);
        assert!(!joined().await);
    });
}

#[test]
fn a_socket_works_again_when_its_interface_is_up() {
    let (lan, socket, we, sender) = listening(FrameSocket::arp);
    let set = |up: bool| {
        on(&lan.hosts[0], async || {
            let link = LinkUnspec::new_with_index(we.index);
            let link = if up { link.up() } else { link.down() };
            netlink().link().set(link.build()).execute().await.unwrap();
            if up {
                eth0(&Links::connect().unwrap()).await;
            }
        });
    };
    let down = Some(libc::ENETDOWN);
    set(false);
    assert_eq!(
        socket.send(&request(NOBODY)).unwrap_err().raw_os_error(),
        down
    );
    set(true);
    // At once: it may be the announcement of an address.
    socket.send(&request(NOBODY)).unwrap();
    soon("the port forwards frames again", || {
        send(&sender, &[request(Mac::BROADCAST)]);
        let mut buffer = [0; 64];
        socket.receive(&mut buffer).ok()
    });
}

#[test]
fn a_vanished_interface_is_an_error() {
    let (lan, socket, we, _sender) = listening(FrameSocket::arp);
    on(&lan.hosts[0], async || {
        netlink().link().del(we.index).execute().await.unwrap();
    });
    soon("the socket has no interface", || {
        let error = socket.send(&request(NOBODY)).unwrap_err();
        (error.raw_os_error() == Some(libc::ENXIO)).then_some(())
    });
}

#[test]
fn a_host_answers_an_echo_request() {
    let lan = lan(3);
    let nets = |at: usize| [format!("192.0.2.{at}/24"), format!("2001:db8::{at}/64")];
    for (at, host) in (1..).zip(&lan.hosts) {
        on(host, async || {
            let index = index_of(&netlink(), "eth0").await;
            for net in nets(at) {
                add_address(index, net.parse().unwrap()).await;
            }
        });
    }
    let open = || {
        on(&lan.hosts[0], async || {
            let index = index_of(&netlink(), "eth0").await;
            Echo::new(index, "eth0").unwrap()
        })
    };
    // Another process on the host, which asks for the same.
    let (echo, other) = (open(), open());
    assert_eq!(echo.sockets().count(), 2);
    let [absent, absent6]: [IpAddr; 2] = [
        "192.0.2.77".parse().unwrap(),
        "2001:db8::77".parse().unwrap(),
    ];
    let _ = (echo.send(absent), echo.send(absent6));
    for to in ["192.0.2.2", "2001:db8::2", "192.0.2.3", "2001:db8::3"] {
        let to: IpAddr = to.parse().unwrap();
        other.send(to).unwrap();
        echo.send(to).unwrap();
        let from = soon("a reply", || echo.receive().ok());
        assert_eq!(from, to);
    }
    let empty = echo.receive().unwrap_err();
    assert_eq!(empty.kind(), ErrorKind::WouldBlock);
}

/// Two sockets share the frames: what concerns an own address alone, and the rest.
#[test]
fn frames_to_own_addresses_alone_can_be_put_aside() {
    let own: [IpAddr; 4] = [
        Ipv4Addr::new(192, 0, 2, 7).into(),
        IP.into(),
        ASKER.into(),
        IP6.into(),
    ];
    let (lan, rest, we, sender) = listening(FrameSocket::arp);
    let aside = on(&lan.hosts[0], async || FrameSocket::arp(we.index).unwrap());
    rest.divide(Frames::Except(&own)).unwrap();
    aside.divide(Frames::To(&own)).unwrap();
    let foreign = Packet::request(SENDER, IP, Ipv4Addr::new(192, 0, 2, 8));
    let to_us = [
        request(we.mac),
        arp::frame(we.mac, SENDER, &Packet::reply(SENDER, IP, we.mac, IP)).to_vec(),
    ];
    let others = [
        request(Mac::BROADCAST),
        arp::frame(we.mac, SENDER, &foreign).to_vec(),
        arp::frame(Mac::BROADCAST, SENDER, &Packet::probe(SENDER, IP)).to_vec(),
    ];
    send(&sender, &[&to_us[..], &others[..], &to_us[..1]].concat());
    let expected = [&to_us[..], &to_us[..1]].concat();
    receives(&aside, &sender, &[], &expected);
    receives(&rest, &sender, &[], &others);

    let (lan, rest, we, sender) = listening(FrameSocket::neighbour_discovery);
    let aside = on(&lan.hosts[0], async || {
        FrameSocket::neighbour_discovery(we.index).unwrap()
    });
    rest.divide(Frames::Except(&own)).unwrap();
    aside.divide(Frames::To(&own)).unwrap();
    let other = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0x12, 0x3457);
    let to_us = [
        Solicitation::unicast(SENDER, we.mac, ASKER, IP6).encode(),
        Solicitation::unicast(SENDER, we.mac, other, ASKER).encode(),
    ];
    let others = [
        Solicitation::multicast(SENDER, ASKER, IP6).encode(),
        Solicitation::unicast(SENDER, we.mac, ASKER, other).encode(),
    ];
    on(&lan.hosts[0], async || {
        rest.join(ndp::group_mac(ndp::solicited_node(IP6))).unwrap();
    });
    send(&sender, &[&to_us[..], &others[..], &to_us[..1]].concat());
    let expected = [&to_us[..], &to_us[..1]].concat();
    receives(&aside, &sender, &[], &expected);
    receives(&rest, &sender, &[], &others);
}
