use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

fn range(text: &str) -> AddressRange {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
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
        let chosen = allocator.choose(Family::V4, &[]).unwrap();
        assert_eq!(chosen, ip(&format!("10.0.0.{last}")));
        allocator.hold(chosen, holder);
    }
    assert_eq!(
        allocator.choose(Family::V4, &[]),
        Err(Denied::Exhausted {
            family: Family::V4,
            has_range: true
        })
    );
    allocator.rest(ip("10.0.0.2"), 10);
    allocator.rest(ip("10.0.0.1"), 11);
    assert_eq!(allocator.choose(Family::V4, &[]), Ok(ip("10.0.0.2")));
    assert_eq!(
        allocator.choose(Family::V4, &[ip("10.0.0.2")]),
        Ok(ip("10.0.0.1"))
    );
    assert_eq!(
        allocator.choose(Family::V6, &[]),
        Err(Denied::Exhausted {
            family: Family::V6,
            has_range: false
        })
    );
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
                    let chosen = allocator.choose(Family::V4, &[]).ok();
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
