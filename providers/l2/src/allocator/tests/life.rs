//! Addresses over time: rests, edits of pools, moves.

use super::*;

fn resting(pool: Pool, seconds: u64) -> Pool {
    Pool {
        reuse_after: Duration::from_secs(seconds),
        ..pool
    }
}

fn outside(pool: Pool) -> Pool {
    Pool {
        reallocate: true,
        ..pool
    }
}

#[test]
fn a_released_address_rests_and_comes_back_last() {
    let mut allocator = started(vec![resting(pool("a", 0, &["10.0.0.1-10.0.0.3"]), 60)]);
    for name in ["a", "b"] {
        allocator.ask(&claim(name, 0), 1);
    }
    allocator.release(&id("b"), at(10));
    allocator.release(&id("a"), at(20));
    assert_eq!(allocator.ask(&claim("c", 0), 30), "10.0.0.3");
    assert_eq!(allocator.ask(&claim("d", 0), 30), "NoAddressAvailable");
    assert_eq!(allocator.wake_at(), Some(at(70)));
    // A Service that requests the address need not wait.
    assert_eq!(
        allocator.ask(&asking(claim("e", 0), &["10.0.0.1"]), 31),
        "10.0.0.1"
    );
    allocator.release(&id("e"), at(40));
    allocator.advance(at(69));
    assert_eq!(allocator.woken(), Vec::<String>::new());
    allocator.advance(at(70));
    assert_eq!(allocator.woken(), ["d"]);
    // Released at 10 and at 40: the one that rested longer comes first.
    assert_eq!(allocator.ask(&claim("d", 0), 200), "10.0.0.2");
    assert_eq!(allocator.ask(&claim("f", 0), 200), "10.0.0.1");
}

#[test]
fn an_address_rests_from_when_its_last_agent_lets_go() {
    let mut allocator = started(vec![resting(pool("a", 0, &["10.0.0.1"]), 60)]);
    allocator.ask(&claim("a", 0), 1);
    allocator.set_held(&node("n"), &BTreeSet::from([ip("10.0.0.1")]), at(2));
    allocator.release(&id("a"), at(10));
    assert_eq!(allocator.ask(&claim("b", 0), 100), "NoAddressAvailable");
    allocator.set_held(&node("n"), &BTreeSet::new(), at(100));
    assert_eq!(allocator.wake_at(), Some(at(160)));
    allocator.advance(at(160));
    assert_eq!(allocator.woken(), ["b"]);
}

#[test]
fn a_rest_survives_its_pool_and_a_clock_that_jumps() {
    let pools = || vec![resting(pool("a", 0, &["10.0.0.1"]), 60)];
    let mut allocator = started(pools());
    allocator.ask(&claim("a", 0), 1);
    allocator.release(&id("a"), at(10));
    allocator.set_pools(vec![], at(11));
    allocator.set_pools(pools(), at(12));
    assert_eq!(allocator.ask(&claim("b", 0), 69), "NoAddressAvailable");
    // The clock goes back an hour: the rest lasts at most as long as from now on.
    allocator.advance(at(-3600));
    assert_eq!(allocator.wake_at(), Some(at(-3540)));
    allocator.advance(at(-3540));
    assert_eq!(allocator.woken(), ["b"]);
}

#[test]
fn unrelated_edits_change_nothing() {
    let pools = |more: Vec<Pool>| {
        let mut pools = vec![pool("a", 5, &["10.0.0.1-10.0.0.9"])];
        pools.extend(more);
        pools
    };
    let mut allocator = started(pools(vec![]));
    assert_eq!(allocator.ask(&claim("a", 0), 1), "10.0.0.1");
    assert_eq!(allocator.ask(&claim("b", 0), 1), "10.0.0.2");
    allocator.release(&id("a"), at(2));
    for more in [
        vec![pool("other", 1, &["10.1.0.0/24"])],
        vec![Pool {
            priority: Some(1),
            ..pool("other", 1, &["10.1.0.0/24"])
        }],
        vec![pool("newer", 9, &["10.0.0.0/24"])],
        vec![],
    ] {
        allocator.set_pools(pools(more), at(3));
        assert_eq!(allocator.woken(), Vec::<String>::new());
        assert_eq!(allocator.ask(&claim("b", 0), 4), "10.0.0.2");
        assert_eq!(allocator.woken(), Vec::<String>::new());
    }
    // Its labels, ports and policy too.
    let edited = Claim {
        labels: Arc::new(labels("x=y")),
        ..local(sharing(claim("b", 0), "", 443), "app=b")
    };
    assert_eq!(allocator.ask(&edited, 5), "10.0.0.2");
}

#[test]
fn a_pool_that_shrinks_or_goes_takes_nothing_away() {
    let there = || pool("a", 0, &["10.0.0.1-10.0.0.9"]);
    let other = || pool("b", 1, &["10.1.0.1-10.1.0.9"]);
    let red = |pool| selecting(pool, Some("team=red"), None);
    let kept = "10.0.0.5 AddressOutsidePool";
    for (what, pools, expected) in [
        ("gone", vec![], kept),
        ("gone, with another", vec![other()], kept),
        (
            "shrunk",
            vec![pool("a", 0, &["10.0.0.1-10.0.0.4"]), other()],
            kept,
        ),
        ("selects others", vec![red(there()), other()], kept),
        ("gone, another takes in", vec![outside(other())], "10.1.0.1"),
        (
            "shrunk, takes in itself",
            vec![outside(pool("a", 0, &["10.0.0.1"])), other()],
            "10.0.0.1",
        ),
        (
            "selects others and allows go",
            vec![outside(red(there())), other()],
            "10.1.0.1",
        ),
        (
            "takes in, but not this one",
            vec![red(outside(other()))],
            kept,
        ),
        (
            "in conflict, though another takes in",
            vec![pool("c", -1, &["10.0.0.9"]), there(), outside(other())],
            kept,
        ),
        (
            "manual now",
            vec![
                Pool {
                    auto_assign: false,
                    ..there()
                },
                other(),
            ],
            "10.0.0.5",
        ),
        ("renamed", vec![pool("z", 3, &["10.0.0.0/24"])], "10.0.0.5"),
    ] {
        let claim = published(claim("s", 0), &["10.0.0.5"]);
        let mut allocator = started(vec![there()]);
        assert_eq!(allocator.ask(&claim, 1), "10.0.0.5");
        allocator.set_pools(pools.clone(), at(2));
        let woken = if expected == "10.0.0.5" {
            vec![]
        } else {
            vec!["s"]
        };
        assert_eq!(allocator.woken(), woken, "{what}");
        assert_eq!(allocator.ask(&claim, 3), expected, "{what}");
        // A restart of the process gives the same result.
        let snapshot = Snapshot {
            pools,
            claims: vec![claim.clone()],
            ..Snapshot::default()
        };
        let mut anew = Allocator::restore(snapshot, at(4));
        assert_eq!(anew.ask(&claim, 5), expected, "{what}, restarted");
        // The pool is back: nothing is wrong any more, and nothing moves back.
        allocator.set_pools(vec![there(), other()], at(6));
        let back = if expected == kept { vec!["s"] } else { vec![] };
        assert_eq!(allocator.woken(), back, "{what}");
        let after = expected.split(' ').next().unwrap();
        assert_eq!(allocator.ask(&claim, 7), after, "{what}");
    }
}

#[test]
fn who_cannot_move_yet_is_moved_when_there_is_room() {
    let mut allocator = started(vec![pool("a", 0, &["10.0.0.1"])]);
    allocator.ask(&claim("s", 0), 1);
    let small = outside(pool("b", 1, &["10.1.0.1"]));
    allocator.ask(&claim("t", 0), 1);
    allocator.set_pools(vec![small.clone()], at(2));
    assert_eq!(
        allocator.woken(),
        ["s"],
        "the older of two who want one address"
    );
    assert_eq!(allocator.ask(&claim("s", 0), 2), "10.1.0.1");
    assert_eq!(allocator.ask(&claim("t", 0), 2), "NoAddressAvailable");
    allocator.set_pools(vec![small, pool("c", 2, &["10.2.0.1"])], at(3));
    assert_eq!(allocator.woken(), ["t"]);
    assert_eq!(allocator.ask(&claim("t", 0), 3), "10.2.0.1");
}

#[test]
fn what_its_own_edits_do_to_a_service() {
    let pools = || {
        vec![
            pool("a", 0, &["10.0.0.1-10.0.0.3"]),
            pool("b", 1, &["10.1.0.1"]),
            pool("full", 2, &["10.2.0.1"]),
        ]
    };
    let by = |name: &str| Claim {
        pool: Some(name.to_owned()),
        ..claim("s", 0)
    };
    for (what, edited, expected) in [
        ("another pool", by("b"), "10.1.0.1"),
        ("its own pool", by("a"), "10.0.0.1"),
        ("a full pool", by("full"), "NoAddressAvailable 10.0.0.1"),
        ("no such pool", by("none"), "PoolNotFound 10.0.0.1"),
        (
            "another address",
            asking(claim("s", 0), &["10.0.0.3"]),
            "10.0.0.3",
        ),
        (
            "its own address",
            asking(claim("s", 0), &["10.0.0.1"]),
            "10.0.0.1",
        ),
        (
            "a foreign address",
            asking(claim("s", 0), &["10.2.0.1"]),
            "AddressInUse 10.0.0.1",
        ),
        (
            "an address of nobody",
            asking(claim("s", 0), &["10.9.0.1"]),
            "AddressOutsidePool 10.0.0.1",
        ),
    ] {
        let mut allocator = started(pools());
        assert_eq!(allocator.ask(&claim("s", 0), 1), "10.0.0.1");
        assert_eq!(
            allocator.ask(&asking(claim("x", 0), &["10.2.0.1"]), 1),
            "10.2.0.1"
        );
        assert_eq!(allocator.ask(&edited, 2), expected, "{what}");
        // Without a request again, it stays where it is.
        let now = expected.rsplit(' ').next().unwrap();
        assert_eq!(allocator.ask(&claim("s", 0), 3), now, "{what}");
    }
}

#[test]
fn messages_do_not_differ_from_retry_to_retry() {
    let mut allocator = started(vec![resting(pool("a", 0, &["10.0.0.1"]), 60)]);
    allocator.ask(&claim("a", 0), 1);
    let first = allocator.allocate(claim("b", 0), at(2));
    allocator.release(&id("a"), at(3));
    assert_eq!(allocator.allocate(claim("b", 0), at(4)), first);
    assert_eq!(allocator.allocate(claim("b", 0), at(50)), first);
}

#[test]
fn memory_is_bounded_by_what_is_used_and_what_rests() {
    let mut allocator = started(vec![resting(pool("a", 0, &["fd00::/64"]), 10)]);
    let six = |n: i64| Claim {
        families: vec![Family::V6],
        ..claim(&format!("s{n}"), 0)
    };
    for n in 0..50 {
        allocator.ask(&six(n), 0);
    }
    let mut given = BTreeSet::new();
    for second in 1..5_000 {
        let mut churned = allocator
            .allocate(six(1_000), at(second))
            .unwrap()
            .addresses;
        allocator.release(&id("s1000"), at(second));
        given.extend(churned.pop());
        // 50 used, 10 resting, and as many remembered as are used plus 64.
        assert!(allocator.footprint() < 200, "{}", allocator.footprint());
    }
    // Forgotten addresses come first again; before that every address was assigned once.
    assert!((100..200).contains(&given.len()), "{}", given.len());
}

/// Memory grows with the entries of pools and the assigned addresses, not with their size.
#[test]
fn fifty_pools_of_half_the_internet_take_as_little_as_fifty_addresses() {
    let edges = crate::Edges::SkipOctets;
    let pools: Vec<Pool> = (0..50_i64)
        .map(|n| Pool {
            edges,
            ..pool(
                &format!("p{n:02}"),
                n,
                &[&format!("{0}.0.0.10-{0}.255.255.20", 11 + n)],
            )
        })
        .chain([Pool {
            edges,
            ..pool("wide", 90, &["64.0.0.10-110.0.0.20"])
        }])
        .collect();
    let mut allocator = started(pools.clone());
    assert!(allocator.footprint() <= 2 * 51, "{}", allocator.footprint());
    assert_eq!(allocator.ask(&claim("a", 0), 1), "11.0.0.10");
    assert_eq!(
        allocator.ask(&asking(claim("b", 0), &["11.0.0.255"]), 1),
        "11.0.0.255"
    );
    // An edit of all pools makes no difference.
    let narrower = |pool: Pool| Pool {
        reuse_after: Duration::from_secs(1),
        ..pool
    };
    allocator.set_pools(pools.into_iter().map(narrower).collect(), at(2));
    assert!(
        allocator.footprint() <= 2 * 51 + 2,
        "{}",
        allocator.footprint()
    );
    let wide = allocator.pools().pop().unwrap();
    assert_eq!(wide.next, ips(&["64.0.0.10"]));
    // 46 /8 and a bit, without two of each 256.
    assert_eq!(wide.v4.total, 46 * 65_536 * 254 - 9 + 20);
}
