//! Which Services are asked again, and in which order.

use super::*;

fn full(addresses: usize) -> Allocator {
    let entry = format!("10.0.0.1-10.0.0.{addresses}");
    let mut allocator = started(vec![pool("a", 0, &[&entry])]);
    for n in 0..addresses {
        allocator.ask(&claim(&format!("has-{n}"), 0), 1);
    }
    allocator
}

#[test]
fn one_freed_address_wakes_one_and_the_oldest() {
    let mut allocator = full(3);
    for (name, age) in [("young", 9), ("old", 3), ("middle", 5)] {
        assert_eq!(allocator.ask(&claim(name, age), 1), "NoAddressAvailable");
    }
    allocator.release(&id("has-1"), at(2));
    assert_eq!(allocator.woken(), ["old"]);
    // Two more are freed before it claims: two more Services are woken.
    allocator.release(&id("has-0"), at(2));
    allocator.release(&id("has-2"), at(2));
    assert_eq!(allocator.woken(), ["middle", "young"]);
    // A new Service does not overtake them.
    assert_eq!(allocator.ask(&claim("new", 0), 3), "NoAddressAvailable");
    for (name, age) in [("young", 9), ("old", 3), ("middle", 5)] {
        assert!(allocator.ask(&claim(name, age), 3).starts_with("10.0.0."));
    }
    assert_eq!(allocator.woken(), Vec::<String>::new());
    assert_eq!(allocator.waiting(), [id("new")]);
}

#[test]
fn a_chance_that_is_not_taken_goes_to_the_next() {
    let fill = || {
        let mut allocator = full(1);
        for name in ["a", "b", "c"] {
            allocator.ask(&claim(name, 0), 1);
        }
        allocator.release(&id("has-0"), at(2));
        assert_eq!(allocator.woken(), ["a"]);
        allocator
    };
    // It is deleted.
    let mut allocator = fill();
    allocator.release(&id("a"), at(3));
    assert_eq!(allocator.woken(), ["b"]);
    // It asks for something else now.
    let mut allocator = fill();
    let elsewhere = Claim {
        pool: Some("none".to_owned()),
        ..claim("a", 0)
    };
    assert_eq!(allocator.ask(&elsewhere, 3), "PoolNotFound");
    assert_eq!(allocator.woken(), ["b"]);
    // It never claims.
    let mut allocator = fill();
    assert_eq!(allocator.wake_at(), Some(at(32)));
    allocator.advance(at(31));
    assert_eq!(allocator.woken(), Vec::<String>::new());
    allocator.advance(at(32));
    assert_eq!(allocator.woken(), ["b"]);
    // Late, but treated like any other.
    assert_eq!(allocator.ask(&claim("a", 0), 40), "NoAddressAvailable");
    assert_eq!(allocator.ask(&claim("b", 0), 40), "10.0.0.1");
}

#[test]
fn pools_wake_whom_they_can_serve() {
    let mut allocator = started(vec![pool("a", 0, &["10.0.0.1"])]);
    allocator.ask(&claim("has", 0), 1);
    let v6 = Claim {
        families: vec![Family::V6],
        ..claim("six", 0)
    };
    let named = |name: &str| Claim {
        pool: Some("named".to_owned()),
        ..claim(name, 0)
    };
    for claim in [
        claim("four", 1),
        claim("five", 2),
        v6,
        named("seven"),
        asking(claim("eight", 0), &["10.9.0.9"]),
    ] {
        assert!(allocator.allocate(claim, at(1)).is_err());
    }
    let a = || pool("a", 0, &["10.0.0.1"]);
    for (what, pools, woken) in [
        ("nothing new", vec![a()], vec![]),
        (
            "for others",
            vec![
                a(),
                selecting(pool("b", 1, &["10.1.0.1"]), Some("x=y"), None),
            ],
            vec![],
        ),
        (
            "one address",
            vec![a(), pool("b", 1, &["10.1.0.1"])],
            vec!["four"],
        ),
        (
            "another family",
            vec![a(), pool("b", 1, &["fd00::1"])],
            vec!["six"],
        ),
        (
            "the pool that was asked for",
            vec![
                a(),
                Pool {
                    auto_assign: false,
                    ..pool("named", 1, &["10.3.0.1-10.3.0.9"])
                },
            ],
            vec!["seven"],
        ),
        (
            "the address that was asked for",
            vec![
                a(),
                Pool {
                    auto_assign: false,
                    ..pool("b", 1, &["10.9.0.0/24"])
                },
            ],
            vec!["eight"],
        ),
        (
            "its own pool grows",
            vec![pool("a", 0, &["10.0.0.0/30"])],
            vec!["four", "five"],
        ),
        (
            "no pools at all",
            vec![],
            vec!["has", "six", "four", "five"],
        ),
    ] {
        let mut allocator = allocator.clone();
        allocator.set_pools(pools, at(2));
        let mut expected = woken;
        let mut got = allocator.woken();
        expected.sort_unstable();
        got.sort_unstable();
        assert_eq!(got, expected, "{what}");
    }
}

#[test]
fn a_large_backlog_is_woken_as_far_as_it_can_be_served() {
    let mut allocator = full(2);
    for n in 0..500 {
        allocator.ask(&claim(&format!("w{n:03}"), 10 + n), 1);
    }
    allocator.set_pools(vec![pool("a", 0, &["10.0.0.1-10.0.0.6"])], at(2));
    assert_eq!(allocator.woken(), ["w000", "w001", "w002", "w003"]);
    // A pool that they also wait for from now on.
    allocator.set_pools(
        vec![
            pool("a", 0, &["10.0.0.1-10.0.0.6"]),
            Pool {
                reuse_after: Duration::from_secs(1),
                ..pool("b", 1, &["10.1.0.1"])
            },
        ],
        at(2),
    );
    assert_eq!(allocator.woken(), ["w004"]);
    assert_eq!(allocator.ask(&claim("w004", 14), 2), "10.1.0.1");
    allocator.release(&id("w004"), at(3));
    allocator.advance(at(4));
    assert_eq!(allocator.woken(), ["w005"]);
}

#[test]
fn who_waits_to_share_is_woken_by_an_address_to_share() {
    let mut allocator = full(2);
    assert_eq!(
        allocator.ask(&sharing(claim("w", 0), "web", 443), 1),
        "NoAddressAvailable"
    );
    // A Service with an address joins the key.
    allocator.ask(&sharing(claim("has-1", 0), "web", 80), 2);
    assert_eq!(allocator.woken(), ["w"]);
    assert_eq!(
        allocator.ask(&sharing(claim("w", 0), "web", 443), 2),
        "10.0.0.2"
    );
}
