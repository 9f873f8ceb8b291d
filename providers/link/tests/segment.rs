//! Addresses, probes and announcements on a real link between two hosts. Each host is a network
//! namespace without an uplink. Needs root.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ballast_link::arp::{Operation, Packet};
use ballast_link::probe::{Timing, probe};
use ballast_link::testbed::{LONG, eth0, eventually, netlink, on, segment};
use ballast_link::{Interface, Links, Mac, Mark, PacketSocket, announce};
use socket2::{Domain, Protocol, Socket, Type};

const OURS: Mark = Mark::new(77);
const OTHERS: Mark = Mark::new(78);
/// The lifetime of the addresses.
const LIFETIME: Duration = Duration::from_mins(1);
const TIMING: Timing = Timing {
    probes: 3,
    interval: Duration::from_millis(100),
};

async fn addresses(links: &Links, mark: Option<Mark>) -> Vec<IpAddr> {
    let all = links.addresses().await.unwrap();
    let mut ips: Vec<IpAddr> = all
        .iter()
        .filter(|address| address.mark == mark)
        .map(|address| address.net.addr())
        .collect();
    ips.sort();
    ips
}

#[test]
fn addresses_are_added_with_our_mark_and_removed() {
    let (host, _other) = segment();
    on(&host, async || {
        let links = Links::connect().unwrap();
        let eth0 = eth0(&links).await;
        assert!(eth0.mac != Mac::UNKNOWN && !eth0.loopback, "{eth0:?}");
        let node: IpAddr = "192.0.2.1".parse().unwrap();
        let add = netlink().address().add(eth0.index, node, 24);
        add.execute().await.unwrap();
        let ours: [IpAddr; 2] = [
            "192.0.2.200".parse().unwrap(),
            "2001:db8::200".parse().unwrap(),
        ];
        for ip in ours {
            assert!(links.add(eth0.index, ip, OURS, LIFETIME).await.unwrap());
            let again = links.add(eth0.index, ip, OTHERS, LIFETIME).await;
            assert!(!again.unwrap(), "it exists already");
        }
        assert_eq!(addresses(&links, Some(OURS)).await, ours);
        assert_eq!(addresses(&links, Some(OTHERS)).await, [] as [IpAddr; 0]);
        assert!(addresses(&links, None).await.contains(&node));
        for ip in ours {
            links.remove(eth0.index, ip).await.unwrap();
            links.remove(eth0.index, ip).await.unwrap();
        }
        assert_eq!(addresses(&links, Some(OURS)).await, [] as [IpAddr; 0]);
        assert!(addresses(&links, None).await.contains(&node));
    });
}

#[test]
fn the_kernel_removes_an_address_whose_lifetime_ends() {
    let (host, _other) = segment();
    on(&host, async || {
        let links = Links::connect().unwrap();
        let eth0 = eth0(&links).await;
        let [short, long]: [IpAddr; 2] = [
            "192.0.2.200".parse().unwrap(),
            "192.0.2.201".parse().unwrap(),
        ];
        let second = Duration::from_secs(1);
        links.add(eth0.index, short, OURS, second).await.unwrap();
        links.add(eth0.index, long, OURS, second).await.unwrap();
        let prolonged = links.prolong(eth0.index, long, OURS, LIFETIME).await;
        prolonged.unwrap();
        eventually(
            "the address with the short lifetime is removed",
            async || {
                let left = addresses(&links, Some(OURS)).await;
                (left == [long]).then_some(())
            },
        )
        .await;
    });
}

#[test]
fn many_requests_at_once_are_answered() {
    let (host, _other) = segment();
    on(&host, async || {
        let links = Links::connect().unwrap();
        let requests = (0..200).map(|_| links.addresses());
        futures::future::try_join_all(requests).await.unwrap();
    });
}

#[test]
fn the_default_route_names_the_interface() {
    let (host, _other) = segment();
    on(&host, async || {
        let links = Links::connect().unwrap();
        let eth0 = eth0(&links).await;
        assert_eq!(links.default_interface().await.unwrap(), None);
        let handle = netlink();
        let node = "192.0.2.1".parse().unwrap();
        handle
            .address()
            .add(eth0.index, node, 24)
            .execute()
            .await
            .unwrap();
        let gateway = Ipv4Addr::new(192, 0, 2, 2);
        let route = rtnetlink::RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway);
        handle.route().add(route.build()).execute().await.unwrap();
        let found = links.default_interface().await.unwrap();
        assert_eq!(found, Some(eth0.index));
    });
}

#[test]
fn a_probe_finds_the_holder_of_an_address_or_none() {
    let (one, two) = segment();
    let taken = Ipv4Addr::new(192, 0, 2, 9);
    let mac = on(&two, async || {
        let links = Links::connect().unwrap();
        let eth0 = eth0(&links).await;
        links
            .add(eth0.index, taken.into(), OURS, LIFETIME)
            .await
            .unwrap();
        eth0.mac
    });
    on(&one, async || {
        let eth0 = eth0(&Links::connect().unwrap()).await;
        assert_eq!(probe(&eth0, taken, TIMING).await.unwrap(), Some(mac));
        let free = Ipv4Addr::new(192, 0, 2, 10);
        assert_eq!(probe(&eth0, free, TIMING).await.unwrap(), None);
    });
}

#[test]
fn the_kernel_finds_an_ipv6_address_that_another_host_uses() {
    let (one, two) = segment();
    let taken: IpAddr = "2001:db8::9".parse().unwrap();
    for (host, duplicate) in [(&two, false), (&one, true)] {
        on(host, async || {
            let links = Links::connect().unwrap();
            let eth0 = eth0(&links).await;
            links.add(eth0.index, taken, OURS, LIFETIME).await.unwrap();
            assert_eq!(is_used_elsewhere(&links, taken).await, duplicate);
        });
    }
}

/// Waits until the kernel has checked an added IPv6 address. Returns whether another host has
/// it: the kernel then marks or removes it.
async fn is_used_elsewhere(links: &Links, ip: IpAddr) -> bool {
    eventually("the kernel has checked the address", async || {
        let all = links.addresses().await.unwrap();
        match all.into_iter().find(|it| it.net.addr() == ip) {
            None => Some(true),
            Some(it) => (it.duplicate || !it.tentative).then_some(it.duplicate),
        }
    })
    .await
}

/// The first host announces one of its addresses. Returns the host's MAC address, and what
/// `hear` returns on the second host, which opens its socket before the announcement.
fn announced<S: Send, T: Send>(
    ip: IpAddr,
    open: impl AsyncFnOnce(Interface) -> S + Send,
    hear: impl AsyncFnOnce(S) -> T + Send,
) -> (Mac, T) {
    let (one, two) = segment();
    let (ready, listening) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let two = &two;
        let heard = scope.spawn(move || {
            on(two, async move || {
                let eth0 = eth0(&Links::connect().unwrap()).await;
                let socket = open(eth0).await;
                ready.send(()).unwrap();
                hear(socket).await
            })
        });
        listening.recv().unwrap();
        let mac = on(&one, async || {
            let links = Links::connect().unwrap();
            let eth0 = eth0(&links).await;
            links.add(eth0.index, ip, OURS, LIFETIME).await.unwrap();
            assert!(!is_used_elsewhere(&links, ip).await);
            announce::announce(&eth0, ip).await.unwrap();
            eth0.mac
        });
        (mac, heard.join().unwrap())
    })
}

#[test]
fn an_ipv4_address_is_announced_to_the_link() {
    let ip = Ipv4Addr::new(192, 0, 2, 9);
    let open = async |eth0: Interface| PacketSocket::arp(eth0.index).unwrap();
    let hear = async |socket: PacketSocket| {
        let heard = tokio::time::timeout(LONG, socket.receive()).await;
        Packet::decode(&heard.unwrap().unwrap()).unwrap()
    };
    let (mac, heard) = announced(ip.into(), open, hear);
    assert_eq!(heard, Packet::announcement(mac, ip));
    assert_eq!(heard.operation, Operation::Request);
}

#[test]
fn an_ipv6_address_is_announced_to_the_link() {
    let ip: Ipv6Addr = "2001:db8::9".parse().unwrap();
    let open = async |_| {
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6)).unwrap();
        socket.set_read_timeout(Some(LONG)).unwrap();
        socket
    };
    let hear = async |mut socket: Socket| {
        let mut buffer = [0; 128];
        // The kernel sends messages about its own addresses, too.
        for _ in 0..100 {
            let length = socket.read(&mut buffer).unwrap();
            if buffer[0] == 136 && buffer[8..24] == ip.octets() {
                return buffer[4..length].to_vec();
            }
        }
        panic!("not among 100 messages");
    };
    let (mac, heard) = announced(ip.into(), open, hear);
    // The flag Override, the address, and an option of 8 bytes with the MAC address.
    let mut expected = vec![0x20, 0, 0, 0];
    expected.extend(ip.octets());
    expected.extend([2, 1]);
    expected.extend(mac.0);
    assert_eq!(heard, expected);
}
