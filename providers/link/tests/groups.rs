//! Group memberships on a real link, and the MLD reports on the wire. Each host is a network
//! namespace without an uplink. Needs root.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read as _};
use std::net::Ipv6Addr;

use ballast_link::testbed::{LONG, eth0, netlink, on, segment};
use ballast_link::{Groups, Links, ndp};
use rtnetlink::LinkVeth;
use socket2::{Domain, Protocol, Socket, Type};

/// All routers that speak `MLDv2` (RFC 3810 §5.2.14): the destination of reports.
const REPORTS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16);
/// Types of records for a group that is joined: the state is, or becomes, "exclude no source".
const JOINED: [u8; 2] = [2, 4];
/// The state becomes "include no source".
const LEFT: [u8; 1] = [3];

fn group(number: u32) -> Ipv6Addr {
    ndp::solicited_node(Ipv6Addr::from_bits(number.into()))
}

fn groups(numbers: impl IntoIterator<Item = u32>) -> BTreeSet<Ipv6Addr> {
    numbers.into_iter().map(group).collect()
}

/// The groups that the kernel has joined on all interfaces of this host, of those of the test.
fn joined() -> BTreeSet<Ipv6Addr> {
    let table = std::fs::read_to_string("/proc/thread-self/net/igmp6").unwrap();
    let all = table
        .lines()
        .filter_map(|line| line.split_whitespace().nth(2));
    all.map(|hex| Ipv6Addr::from_bits(u128::from_str_radix(hex, 16).unwrap()))
        .filter(|group| group.octets()[12..14] == [0xff, 0])
        .collect()
}

/// Reads reports until one has a record of one of these types for the group.
fn reported(socket: &mut Socket, group: Ipv6Addr, types: &[u8]) {
    let mut buffer = [0; 1500];
    for _ in 0..1000 {
        let length = socket.read(&mut buffer).unwrap();
        // MLDv2 reports: the number of records, then for each its type, 3 bytes, and the group.
        if buffer[0] == 143 {
            let records = buffer[8..length].chunks_exact(20);
            let found = records.filter(|record| record[4..] == group.octets());
            if found.into_iter().any(|record| types.contains(&record[0])) {
                return;
            }
        }
    }
    panic!("not among 1,000 messages");
}

#[test]
fn a_report_is_sent_for_a_group_that_is_joined_or_left() {
    let (one, two) = segment();
    let mut listener = on(&two, async || {
        let eth0 = eth0(&Links::connect().unwrap()).await;
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6)).unwrap();
        socket.set_read_timeout(Some(LONG)).unwrap();
        socket.join_multicast_v6(&REPORTS, eth0.index).unwrap();
        socket
    });
    on(&one, async || {
        let eth0 = eth0(&Links::connect().unwrap()).await;
        let mut all = Groups::new(5_000);
        all.set(eth0.index, &groups([1, 2])).unwrap();
        reported(&mut listener, group(1), &JOINED);
        reported(&mut listener, group(2), &JOINED);
        all.set(eth0.index, &groups([2, 3])).unwrap();
        reported(&mut listener, group(1), &LEFT);
        reported(&mut listener, group(3), &JOINED);
        assert_eq!(joined(), groups([2, 3]));
        drop(all);
        assert_eq!(joined(), groups([]));
    });
}

#[test]
fn five_thousand_groups_are_joined() {
    let (host, _other) = segment();
    on(&host, async || {
        let eth0 = eth0(&Links::connect().unwrap()).await;
        let mut all = Groups::new(5_000);
        all.set(eth0.index, &groups(0..5_000)).unwrap();
        assert_eq!(joined(), groups(0..5_000));
        // The second half stays, and others take the places of the first.
        all.set(eth0.index, &groups(2_500..7_500)).unwrap();
        assert_eq!(joined(), groups(2_500..7_500));
        assert_eq!(all.of(eth0.index), groups(2_500..7_500));
        all.set(eth0.index, &groups([])).unwrap();
        assert_eq!(joined(), groups([]));
    });
}

#[test]
fn memberships_are_bounded() {
    let (host, _other) = segment();
    on(&host, async || {
        let eth0 = eth0(&Links::connect().unwrap()).await;
        let mut all = Groups::new(300);
        let error = all.set(eth0.index, &groups(0..301)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::QuotaExceeded);
        assert_eq!(all.of(eth0.index).len(), 300);
        // There is room again.
        all.set(eth0.index, &groups(1..301)).unwrap();
        assert_eq!(joined(), groups(1..301));
    });
}

#[test]
fn a_vanished_interface_is_forgotten() {
    let (host, _other) = segment();
    on(&host, async || {
        let eth0 = eth0(&Links::connect().unwrap()).await;
        let handle = netlink();
        let veth = || LinkVeth::new("more", "peer").index(77).up().build();
        handle.link().add(veth()).execute().await.unwrap();
        let mut all = Groups::new(5_000);
        all.set(eth0.index, &groups([1])).unwrap();
        all.set(77, &groups([2])).unwrap();
        handle.link().del(77).execute().await.unwrap();
        assert_eq!(joined(), groups([1]));
        let error = all.set(77, &groups([2, 3])).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
        assert_eq!(all.of(77), groups([]));
        // A new interface can have the same index.
        handle.link().add(veth()).execute().await.unwrap();
        all.set(77, &groups([2, 3])).unwrap();
        assert_eq!(joined(), groups([1, 2, 3]));
        assert_eq!(all.of(eth0.index), groups([1]));
    });
}
