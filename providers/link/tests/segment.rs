//! Two hosts on one segment, each in a network namespace of its own that nothing leads out
//! of: addresses, probes and announcements on a real wire. Needs root.

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
/// Of addresses.
const LIFETIME: Duration = Duration::from_mins(1);
const PATIENT: Timing = Timing {
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
fn addresses_bear_our_mark_and_come_and_go() {
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
            assert!(!again.unwrap(), "only the first gets it");
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
fn an_address_that_is_not_prolonged_is_removed_by_the_kernel() {
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
        eventually("the short one is gone", async || {
            let left = addresses(&links, Some(OURS)).await;
            (left == [long]).then_some(())
        })
        .await;
    });
}

#[test]
fn many_may_ask_at_once() {
    let (host, _other) = segment();
    on(&host, async || {
        let links = Links::connect().unwrap();
        let asked = (0..200).map(|_| links.addresses());
        futures::future::try_join_all(asked).await.unwrap();
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
        assert_eq!(probe(&eth0, taken, PATIENT).await.unwrap(), Some(mac));
        let free = Ipv4Addr::new(192, 0, 2, 10);
        assert_eq!(probe(&eth0, free, PATIENT).await.unwrap(), None);
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

/// What the kernel has found out about an IPv6 address that was added: one that somebody has
/// is marked, or gone.
async fn is_used_elsewhere(links: &Links, ip: IpAddr) -> bool {
    eventually("the kernel has asked for the address", async || {
        let all = links.addresses().await.unwrap();
        match all.into_iter().find(|it| it.net.addr() == ip) {
            None => Some(true),
            Some(it) => (it.duplicate || !it.tentative).then_some(it.duplicate),
        }
    })
    .await
}

/// What `listen` returns on the second host, which begins to hear before the first host
/// announces an address that it has; and the first host's station.
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
fn an_ipv4_address_is_announced_to_all() {
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
fn an_ipv6_address_is_announced_to_all() {
    let ip: Ipv6Addr = "2001:db8::9".parse().unwrap();
    let open = async |_| {
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6)).unwrap();
        socket.set_read_timeout(Some(LONG)).unwrap();
        socket
    };
    let hear = async |mut socket: Socket| {
        let mut buffer = [0; 128];
        // The kernel speaks too, of its own addresses.
        for _ in 0..100 {
            let length = socket.read(&mut buffer).unwrap();
            if buffer[0] == 136 && buffer[8..24] == ip.octets() {
                return buffer[4..length].to_vec();
            }
        }
        panic!("not among 100 messages");
    };
    let (mac, heard) = announced(ip.into(), open, hear);
    // Flag Override, then the address, then an option of 8 bytes: the station.
    let mut expected = vec![0x20, 0, 0, 0];
    expected.extend(ip.octets());
    expected.extend([2, 1]);
    expected.extend(mac.0);
    assert_eq!(heard, expected);
}
