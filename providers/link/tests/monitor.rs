//! What a [`Monitor`] reports about real interfaces. Each host is a network namespace without an
//! uplink. Needs root.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::net::{IpAddr, Ipv4Addr};

use ballast_link::testbed::{
    LONG, add_address, eth0, eventually, index_of, lan, netlink, on, segment,
};
use ballast_link::{HostInterface, Links, Mac, Mark, Monitor};
use futures::TryStreamExt as _;
use ipnet::IpNet;
use netlink_packet_route::link::MacVlanMode;
use rtnetlink::{LinkBridge, LinkMacVlan, LinkMessageBuilder, LinkUnspec, LinkVeth};

/// Reads lists until one is as it should be.
async fn report<T>(
    monitor: &mut Monitor,
    what: &str,
    mut look: impl FnMut(&[HostInterface]) -> Option<T>,
) -> T {
    let read = async {
        loop {
            let list = monitor.next().await.unwrap();
            if let Some(found) = look(&list) {
                return found;
            }
        }
    };
    let found = tokio::time::timeout(LONG, read).await;
    found.unwrap_or_else(|_| panic!("not within {LONG:?}: {what}"))
}

fn named<'a>(list: &'a [HostInterface], name: &str) -> Option<&'a HostInterface> {
    list.iter().find(|it| it.name == name)
}

async fn eth0_is(
    monitor: &mut Monitor,
    what: &str,
    mut is: impl FnMut(&HostInterface) -> bool,
) -> HostInterface {
    report(monitor, what, |list| {
        named(list, "eth0").filter(|it| is(it)).cloned()
    })
    .await
}

async fn change(
    index: u32,
    change: impl FnOnce(LinkMessageBuilder<LinkUnspec>) -> LinkMessageBuilder<LinkUnspec>,
) {
    let link = change(LinkUnspec::new_with_index(index)).build();
    netlink().link().set(link).execute().await.unwrap();
}

#[test]
fn changes_of_an_interface_are_reported() {
    let lan = lan(2);
    on(&lan.hosts[0], async || {
        let mut monitor = Monitor::new().unwrap();
        let index = index_of(&netlink(), "eth0").await;
        let net = "192.0.2.1/24".parse().unwrap();
        add_address(index, net).await;
        let first = eth0_is(&mut monitor, "an address", |it| it.nets == [net]).await;
        assert_eq!((first.index, first.carrier), (index, true));

        lan.plug(0, false);
        eth0_is(&mut monitor, "the carrier is lost", |it| !it.carrier).await;
        lan.plug(0, true);
        eth0_is(&mut monitor, "the carrier is back", |it| it.carrier).await;

        let mac = Mac([2, 0, 0, 0, 0, 0x42]);
        change(index, |link| link.address(mac.0.to_vec())).await;
        eth0_is(&mut monitor, "the new MAC", |it| it.mac == mac).await;

        change(index, LinkMessageBuilder::down).await;
        eth0_is(&mut monitor, "down", |it| !it.carrier).await;
        change(index, LinkMessageBuilder::up).await;
        eth0_is(&mut monitor, "up", |it| it.carrier).await;

        // The kernel checks this one for duplicates first, which takes over a second.
        let v6: IpAddr = "2001:db8::1".parse().unwrap();
        let add = netlink().address().add(index, v6, 64);
        add.execute().await.unwrap();
        eth0_is(&mut monitor, "the IPv6 address", |it| it.nets.len() == 2).await;
    });
}

#[test]
fn addresses_and_gateways_are_reported() {
    let (host, _other) = segment();
    on(&host, async || {
        let links = Links::connect().unwrap();
        let index = eth0(&links).await.index;
        let net = "192.0.2.1/24".parse().unwrap();
        add_address(index, net).await;
        // The kernel has checked its link-local address, so no event is on its way.
        eventually("no address is tentative", async || {
            let all = links.addresses().await.unwrap();
            let v6 = all
                .iter()
                .any(|it| it.interface == index && it.net.addr().is_ipv6());
            (v6 && all.iter().all(|it| !it.tentative)).then_some(())
        })
        .await;
        let mut monitor = Monitor::new().unwrap();
        let first = monitor.next().await.unwrap();
        assert_eq!(named(&first, "eth0").unwrap().nets, [net]);

        let gateway = Ipv4Addr::new(192, 0, 2, 254);
        let route = rtnetlink::RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway);
        netlink()
            .route()
            .add(route.build())
            .execute()
            .await
            .unwrap();
        let is = |it: &HostInterface| it.gateways == [IpAddr::V4(gateway)];
        eth0_is(&mut monitor, "the gateway", is).await;

        // An address of Ballast changes nothing, so the next list is that of the other one.
        let vip = "192.0.2.200".parse().unwrap();
        let minute = std::time::Duration::from_mins(1);
        links.add(index, vip, Mark::new(1), minute).await.unwrap();
        let second = "198.51.100.1/24".parse().unwrap();
        add_address(index, second).await;
        let list = monitor.next().await.unwrap();
        assert_eq!(named(&list, "eth0").unwrap().nets, [net, second]);

        delete(net).await;
        eth0_is(&mut monitor, "one address", |it| it.nets == [second]).await;
        // Its routes are gone, for which there is no event.
        change(index, LinkMessageBuilder::down).await;
        eth0_is(&mut monitor, "no gateway", |it| it.gateways.is_empty()).await;
    });
}

/// Removes an address with its network.
async fn delete(net: IpNet) {
    let handle = netlink();
    let request = handle.address().get();
    let mut all = request.set_address_filter(net.addr()).execute();
    let message = all.try_next().await.unwrap().unwrap();
    handle.address().del(message).execute().await.unwrap();
}

#[test]
fn interfaces_appear_and_vanish() {
    let (host, _other) = segment();
    on(&host, async || {
        let eth0 = eth0(&Links::connect().unwrap()).await;
        // Without an address the end of a `veth` pair is taken for the way to a pod.
        let mut monitor = Monitor::new().unwrap();
        assert_eq!(monitor.next().await.unwrap(), []);
        add_address(eth0.index, "192.0.2.1/24".parse().unwrap()).await;
        eth0_is(&mut monitor, "an address", |_| true).await;
        let handle = netlink();
        let add = async |link| handle.link().add(link).execute().await.unwrap();

        add(LinkMacVlan::new("upper", eth0.index, MacVlanMode::Bridge)
            .up()
            .build())
        .await;
        let upper = report(&mut monitor, "the macvlan interface", |list| {
            named(list, "upper").filter(|it| it.carrier).cloned()
        })
        .await;
        assert_ne!(upper.mac, eth0.mac);
        add(LinkBridge::new("bridge").up().build()).await;
        report(&mut monitor, "the bridge", |list| {
            named(list, "bridge").map(drop)
        })
        .await;

        // A port of the bridge, although it has an address.
        add(LinkVeth::new("port", "pod").build()).await;
        let port = index_of(&handle, "port").await;
        add_address(port, "198.51.100.1/24".parse().unwrap()).await;
        report(&mut monitor, "no port yet", |list| {
            named(list, "port").map(drop)
        })
        .await;
        let bridge = index_of(&handle, "bridge").await;
        change(port, |link| link.controller(bridge)).await;
        let gone = |name: &'static str| {
            move |list: &[HostInterface]| named(list, name).is_none().then_some(list.len())
        };
        assert_eq!(report(&mut monitor, "a port", gone("port")).await, 3);
        change(port, LinkMessageBuilder::nocontroller).await;
        report(&mut monitor, "no port", |list| {
            named(list, "port").map(drop)
        })
        .await;

        handle.link().del(upper.index).execute().await.unwrap();
        report(&mut monitor, "no macvlan interface", gone("upper")).await;
        change(port, |link| link.name("renamed")).await;
        report(&mut monitor, "another name", |list| {
            named(list, "renamed").map(drop)
        })
        .await;
    });
}

/// Lost events, as the kernel counts them for all sockets of this host.
fn lost() -> u64 {
    let table = std::fs::read_to_string("/proc/thread-self/net/netlink").unwrap();
    let drops = table.lines().skip(1).map(|line| {
        let drops = line.split_whitespace().nth(8).unwrap();
        drops.parse::<u64>().unwrap()
    });
    drops.sum()
}

#[test]
fn lost_events_are_made_up_for() {
    let (host, _other) = segment();
    on(&host, async || {
        let index = eth0(&Links::connect().unwrap()).await.index;
        add_address(index, "192.0.2.1/24".parse().unwrap()).await;
        let mut monitor = Monitor::new().unwrap();
        eth0_is(&mut monitor, "an address", |_| true).await;
        // This blocks the thread of the monitor, so nobody reads its socket.
        on(&host, async || {
            for _ in 0..2_000 {
                change(index, |link| link.mtu(1400)).await;
                change(index, |link| link.mtu(1500)).await;
                if lost() > 0 {
                    break;
                }
            }
            assert!(lost() > 0, "the kernel lost no event");
            let mac = vec![2, 0, 0, 0, 0, 0x42];
            change(index, |link| link.address(mac)).await;
        });
        let is = |it: &HostInterface| it.mac == Mac([2, 0, 0, 0, 0, 0x42]);
        eth0_is(&mut monitor, "the MAC that was set last", is).await;
        // It still listens.
        change(index, LinkMessageBuilder::down).await;
        eth0_is(&mut monitor, "down", |it| !it.carrier).await;
    });
}

#[test]
fn a_call_can_be_cancelled() {
    let (host, _other) = segment();
    on(&host, async || {
        let index = eth0(&Links::connect().unwrap()).await.index;
        add_address(index, "192.0.2.1/24".parse().unwrap()).await;
        let mut monitor = Monitor::new().unwrap();
        for last in 2..30 {
            // Cancelled before it can return anything.
            assert!(futures::poll!(std::pin::pin!(monitor.next())).is_pending());
            let net = format!("192.0.2.{last}/24").parse().unwrap();
            add_address(index, net).await;
            eth0_is(&mut monitor, "the next address", |it| {
                it.nets.contains(&net)
            })
            .await;
        }
    });
}
