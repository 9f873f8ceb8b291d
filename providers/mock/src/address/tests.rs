use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

fn range(text: &str) -> AddressRange {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn none() -> HashSet<IpAddr> {
    HashSet::new()
}

#[test]
fn a_cidr_gives_no_network_and_no_broadcast_address() {
    for (text, first, last) in [
        ("10.0.0.0/30", "10.0.0.1", "10.0.0.2"),
        ("10.0.0.0/31", "10.0.0.0", "10.0.0.1"),
        ("10.0.0.7/32", "10.0.0.7", "10.0.0.7"),
        ("10.0.0.5-10.0.0.9", "10.0.0.5", "10.0.0.9"),
        ("10.0.0.5", "10.0.0.5", "10.0.0.5"),
        ("fd00::/126", "fd00::1", "fd00::3"),
        ("fd00::/127", "fd00::", "fd00::1"),
    ] {
        let range = range(text);
        assert_eq!(to_address(range.family, range.first), ip(first), "{text}");
        assert_eq!(to_address(range.family, range.last), ip(last), "{text}");
    }
}

#[test]
fn what_is_no_range_says_why() {
    for (text, needle) in [
        ("10.0.0.300/24", "neither a CIDR"),
        ("web", "neither a CIDR"),
        ("10.0.0.1-fd00::1", "one IP family"),
        ("10.0.0.9-10.0.0.1", "ends before"),
        ("224.0.0.0/8", "multicast"),
        ("10.0.0.0-250.0.0.0", "multicast"),
        ("0.0.0.0/0", "multicast"),
        ("2000::-ff02::1", "multicast"),
        ("::/0", "multicast"),
        ("0.0.0.0", "unspecified"),
    ] {
        let error = text.parse::<AddressRange>().unwrap_err().to_string();
        assert!(error.contains(needle) && error.contains(text), "{error}");
    }
}

#[test]
fn a_held_address_is_refused_by_its_holders_name() {
    let mut allocator = Allocator::new(vec![range("10.0.0.0/29")]);
    allocator.hold(ip("10.0.0.3"), "a");
    assert_eq!(allocator.request(ip("10.0.0.3"), "a"), Ok(ip("10.0.0.3")));
    assert_eq!(
        allocator.request(ip("10.0.0.3"), "b"),
        Err(Denied::Held {
            address: ip("10.0.0.3"),
            holder: "a".into()
        })
    );
    assert_eq!(
        allocator.request(ip("10.1.0.3"), "b"),
        Err(Denied::Outside {
            address: ip("10.1.0.3")
        })
    );
}

#[test]
fn the_address_that_rested_longest_comes_first() {
    let mut allocator = Allocator::new(vec![range("10.0.0.1-10.0.0.3")]);
    for (last, holder) in [(1, "a"), (2, "b"), (3, "c")] {
        let chosen = allocator.choose(Family::V4, &none()).unwrap();
        assert_eq!(chosen, ip(&format!("10.0.0.{last}")));
        allocator.hold(chosen, holder);
    }
    assert_eq!(
        allocator.choose(Family::V4, &none()),
        Err(Denied::Exhausted {
            family: Family::V4,
            has_range: true
        })
    );
    allocator.rest(ip("10.0.0.2"), 10);
    allocator.rest(ip("10.0.0.1"), 11);
    assert_eq!(allocator.choose(Family::V4, &none()), Ok(ip("10.0.0.2")));
    assert_eq!(
        allocator.choose(Family::V4, &HashSet::from([ip("10.0.0.2")])),
        Ok(ip("10.0.0.1"))
    );
    assert_eq!(
        allocator.choose(Family::V6, &none()),
        Err(Denied::Exhausted {
            family: Family::V6,
            has_range: false
        })
    );
}

/// Memory and time go by what is in use, not by the size of a range.
#[test]
fn a_range_of_any_size_costs_nothing() {
    let wide = |n: u16| range(&format!("fd00:{n:x}::/32"));
    let mut allocator = Allocator::new((0..1_000).map(wide).collect());
    let nth = |n: u32| IpAddr::from(Ipv6Addr::from((0xfd00 << 112) + u128::from(n)));
    // A controller whose cloud lost its state keeps the addresses of its Services free.
    allocator.exclude((1..=30_000).map(nth).collect());
    let avoid = (30_001..=100_000).map(nth).collect();
    for n in 100_001..=100_010 {
        let chosen = allocator.choose(Family::V6, &avoid);
        assert_eq!(chosen, Ok(nth(n)));
        allocator.hold(nth(n), "a");
    }
    assert_eq!(allocator.held.len() + allocator.resting.len(), 10);
}

/// One Service requests one address after the other.
#[test]
fn released_addresses_are_remembered_up_to_a_limit() {
    let mut allocator = Allocator::new(vec![range("fd00::/64"), range("10.0.0.1-10.0.0.2")]);
    let nth = |n: u64| IpAddr::from(Ipv6Addr::from((0xfd00 << 112) + u128::from(n)));
    let bound = RESTING as u64;
    allocator.hold(ip("10.0.0.1"), "a");
    allocator.rest(ip("10.0.0.1"), 0);
    for n in 1..=bound + 10 {
        let address = allocator.request(nth(n), "a").unwrap();
        allocator.hold(address, "a");
        allocator.rest(address, n);
    }
    assert_eq!(allocator.resting.len(), RESTING);
    assert_eq!(allocator.queue.len(), RESTING);
    // The first ones are fresh again, in both families.
    assert_eq!(
        allocator.cursors,
        [to_number(nth(1)), to_number(ip("10.0.0.1"))]
    );
    assert_eq!(allocator.choose(Family::V4, &none()), Ok(ip("10.0.0.1")));
    let next = allocator.choose(Family::V6, &none());
    assert_eq!(next, Ok(nth(11)), "it was released longest ago");
}

#[derive(Clone, Debug)]
enum Op {
    Choose,
    Request(u8),
    Release(usize),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => Just(Op::Choose),
        1 => (0u8..24).prop_map(Op::Request),
        3 => (0usize..16).prop_map(Op::Release),
    ]
}

proptest! {
    /// Compares with a model that is only a list: fresh addresses in order, then the one
    /// that was released first; none twice, and none outside the ranges.
    #[test]
    fn the_allocator_agrees_with_a_plain_list(ops in prop::collection::vec(op(), 1..120)) {
        // Two overlapping ranges: an address in both is still one address.
        let ranges = vec![range("10.0.0.0/28"), range("10.0.0.10-10.0.0.19")];
        let order: Vec<IpAddr> = (1..=14).chain(15..=19).map(|last| ip(&format!("10.0.0.{last}"))).collect();
        let mut allocator = Allocator::new(ranges);
        let mut held: Vec<IpAddr> = Vec::new();
        let mut used: HashSet<IpAddr> = HashSet::new();
        let mut resting: Vec<IpAddr> = Vec::new();
        for (at, op) in ops.into_iter().enumerate() {
            match op {
                Op::Choose => {
                    let expected = order
                        .iter()
                        .find(|address| !used.contains(address))
                        .or_else(|| resting.first())
                        .copied();
                    let chosen = allocator.choose(Family::V4, &none()).ok();
                    prop_assert_eq!(chosen, expected);
                    if let Some(address) = chosen {
                        allocator.hold(address, "x");
                        held.push(address);
                        used.insert(address);
                        resting.retain(|rested| *rested != address);
                    }
                }
                Op::Request(last) => {
                    let address = ip(&format!("10.0.0.{last}"));
                    let free = order.contains(&address) && !held.contains(&address);
                    let holder = at.to_string();
                    let answer = allocator.request(address, &holder);
                    prop_assert_eq!(answer.is_ok(), free);
                    if free {
                        allocator.hold(address, &holder);
                        held.push(address);
                        used.insert(address);
                        resting.retain(|rested| *rested != address);
                    }
                }
                Op::Release(index) => {
                    if !held.is_empty() {
                        let address = held.remove(index % held.len());
                        allocator.rest(address, at as u64);
                        resting.push(address);
                    }
                }
            }
        }
    }
}
