//! Dual-stack Services.

use super::*;
use FamilyPolicy::{PreferDualStack as Prefer, RequireDualStack as Require};

const V46: [Family; 2] = [Family::V4, Family::V6];
const V64: [Family; 2] = [Family::V6, Family::V4];

fn four() -> Pool {
    pool("four", 0, &["10.0.0.1"])
}

fn six() -> Pool {
    pool("six", 1, &["fd00::1"])
}

fn both() -> Pool {
    pool("both", 2, &["10.0.2.1", "fd00:2::1"])
}

#[test]
fn from_which_pools() {
    for (what, pools, claim, expected) in [
        (
            "one pool has both, though asked last",
            vec![four(), six(), both()],
            dual("a", Prefer, V46),
            "10.0.2.1 fd00:2::1",
        ),
        (
            "the order of the families",
            vec![both()],
            dual("a", Prefer, V64),
            "fd00:2::1 10.0.2.1",
        ),
        (
            "require, one pool",
            vec![four(), both()],
            dual("a", Require, V64),
            "fd00:2::1 10.0.2.1",
        ),
        (
            "no pool has both: one each",
            vec![four(), six()],
            dual("a", Prefer, V64),
            "fd00::1 10.0.0.1",
        ),
        (
            "require, one each",
            vec![four(), six()],
            dual("a", Require, V46),
            "10.0.0.1 fd00::1",
        ),
        (
            "prefer, only IPv4",
            vec![four()],
            dual("a", Prefer, V46),
            "10.0.0.1 NoAddressAvailable",
        ),
        (
            "prefer, only the second family",
            vec![four()],
            dual("a", Prefer, V64),
            "10.0.0.1 NoAddressAvailable",
        ),
        (
            "require, only IPv4",
            vec![four()],
            dual("a", Require, V46),
            "NoAddressAvailable",
        ),
        (
            "single: the first family",
            vec![both()],
            dual("a", FamilyPolicy::SingleStack, V64),
            "fd00:2::1",
        ),
        (
            "one asked for: the other from the same pool",
            vec![six(), both()],
            asking(dual("a", Prefer, V46), &["10.0.2.1"]),
            "10.0.2.1 fd00:2::1",
        ),
        (
            "one asked for, its pool has no other",
            vec![four(), both()],
            asking(dual("a", Prefer, V46), &["10.0.0.1"]),
            "10.0.0.1 fd00:2::1",
        ),
        (
            "both asked for",
            vec![four(), both()],
            asking(dual("a", Prefer, V46), &["fd00:2::1", "10.0.0.1"]),
            "10.0.0.1 fd00:2::1",
        ),
        (
            "prefer, one asked for is nowhere",
            vec![both()],
            asking(dual("a", Prefer, V46), &["10.7.7.7"]),
            "AddressOutsidePool",
        ),
    ] {
        let mut allocator = started(pools);
        assert_eq!(allocator.ask(&claim, 1), expected, "{what}");
        assert_eq!(allocator.ask(&claim, 2), expected, "{what}, again");
        if claim.policy == Require && expected == "NoAddressAvailable" {
            assert_eq!(
                allocator.pools()[0].v4.assigned,
                0,
                "half a pair stays taken"
            );
        }
    }
}

#[test]
fn families_that_come_and_go_leave_the_other_address() {
    let mut allocator = started(vec![four(), both()]);
    let single = |family| Claim {
        families: vec![family],
        ..claim("a", 0)
    };
    assert_eq!(allocator.ask(&single(Family::V4), 1), "10.0.0.1");
    // Its own pool has no IPv6, so the address comes from another.
    assert_eq!(
        allocator.ask(&dual("a", Require, V46), 2),
        "10.0.0.1 fd00:2::1"
    );
    assert_eq!(
        allocator.ask(&dual("a", Prefer, V46), 3),
        "10.0.0.1 fd00:2::1"
    );
    assert_eq!(
        allocator.ask(&dual("a", Prefer, V64), 4),
        "fd00:2::1 10.0.0.1"
    );
    assert_eq!(allocator.ask(&single(Family::V6), 5), "fd00:2::1");
    assert_eq!(allocator.pools()[0].v4.assigned, 0);
}

#[test]
fn the_second_address_comes_when_a_pool_has_one() {
    let mut allocator = started(vec![four()]);
    assert_eq!(
        allocator.ask(&dual("a", Prefer, V46), 1),
        "10.0.0.1 NoAddressAvailable"
    );
    assert_eq!(allocator.waiting(), [id("a")]);
    // The policy is raised: denied, and the address stays.
    assert_eq!(
        allocator.ask(&dual("a", Require, V46), 1),
        "NoAddressAvailable 10.0.0.1"
    );
    assert_eq!(
        allocator.ask(&dual("a", Prefer, V46), 1),
        "10.0.0.1 NoAddressAvailable"
    );
    // Another pool alone does not move it, but the second address may come from there.
    allocator.set_pools(vec![four(), six()], at(2));
    assert_eq!(allocator.woken(), ["a"]);
    assert_eq!(
        allocator.ask(&dual("a", Prefer, V46), 2),
        "10.0.0.1 fd00::1"
    );
    assert_eq!(allocator.waiting(), []);
    // The pool becomes single-stack again: the address stays, and its owner is told.
    allocator.set_pools(vec![four()], at(3));
    assert_eq!(allocator.woken(), ["a"]);
    assert_eq!(
        allocator.ask(&dual("a", Prefer, V46), 3),
        "10.0.0.1 fd00::1 AddressOutsidePool"
    );
}
