//! Which pool serves which Service: the allocation matrix of `MetalLB`'s end-to-end tests.

use super::*;

const TEAM: &str = "team=red";

fn labelled(name: &str, namespace: &str, service: &str) -> Claim {
    Claim {
        namespace_labels: Arc::new(labels(namespace)),
        labels: Arc::new(labels(service)),
        ..claim(name, 0)
    }
}

fn manual(pool: Pool) -> Pool {
    Pool {
        auto_assign: false,
        ..pool
    }
}

fn priority(pool: Pool, priority: u32) -> Pool {
    Pool {
        priority: Some(priority),
        ..pool
    }
}

#[test]
fn pools_by_selector_and_priority() {
    let plain = || pool("plain", 0, &["10.0.0.1-10.0.0.9"]);
    let one = || pool("one", 1, &["10.0.1.1-10.0.1.9"]);
    let two = || pool("two", 2, &["10.0.2.1-10.0.2.9"]);
    let small = |name, address| pool(name, 3, &[address]);
    for (what, pools, claim, expected) in [
        ("the only pool", vec![plain()], claim("a", 0), "10.0.0.1"),
        ("no pool", vec![], claim("a", 0), "NoPool"),
        (
            "equal pools: the older",
            vec![two(), one()],
            claim("a", 0),
            "10.0.1.1",
        ),
        (
            "priority only: lower first",
            vec![priority(one(), 20), priority(two(), 10)],
            claim("a", 0),
            "10.0.2.1",
        ),
        (
            "priority 0 is none, and comes last",
            vec![priority(one(), 0), priority(two(), 10)],
            claim("a", 0),
            "10.0.2.1",
        ),
        (
            "a pool with priority before one without",
            vec![plain(), priority(two(), 90)],
            claim("a", 0),
            "10.0.2.1",
        ),
        (
            "namespace selector matches: before the pool for all",
            vec![plain(), selecting(one(), Some(TEAM), None)],
            labelled("a", TEAM, ""),
            "10.0.1.1",
        ),
        (
            "namespace selector does not match",
            vec![plain(), selecting(one(), Some(TEAM), None)],
            labelled("a", "team=blue", TEAM),
            "10.0.0.1",
        ),
        (
            "service selector matches",
            vec![plain(), selecting(one(), None, Some(TEAM))],
            labelled("a", "", TEAM),
            "10.0.1.1",
        ),
        (
            "both selectors must match",
            vec![plain(), selecting(one(), Some(TEAM), Some(TEAM))],
            labelled("a", TEAM, ""),
            "10.0.0.1",
        ),
        (
            "both do",
            vec![plain(), selecting(one(), Some(TEAM), Some(TEAM))],
            labelled("a", TEAM, TEAM),
            "10.0.1.1",
        ),
        (
            "two match: by priority",
            vec![
                priority(selecting(one(), Some(TEAM), None), 20),
                priority(selecting(two(), None, Some(TEAM)), 10),
            ],
            labelled("a", TEAM, TEAM),
            "10.0.2.1",
        ),
        (
            "only foreign pools",
            vec![selecting(one(), Some(TEAM), None)],
            claim("a", 0),
            "NoPool",
        ),
        (
            "a manual pool serves nobody unasked",
            vec![manual(one())],
            claim("a", 0),
            "NoPool",
        ),
        (
            "the preferred is full: the next",
            vec![priority(small("s", "10.0.3.1"), 1), plain()],
            published(claim("b", 0), &[]),
            "10.0.3.1",
        ),
    ] {
        let mut allocator = started(pools);
        assert_eq!(allocator.ask(&claim, 1), expected, "{what}");
    }
}

#[test]
fn pools_and_addresses_asked_for_by_name() {
    let in_pool = |name: &str, claim: Claim| Claim {
        pool: Some(name.to_owned()),
        ..claim
    };
    let pools = || {
        vec![
            pool("plain", 0, &["10.0.0.1-10.0.0.9", "fd00::1-fd00::9"]),
            manual(pool("manual", 1, &["10.0.1.0/30", "fd00::1:1"])),
            selecting(pool("red", 2, &["10.0.2.1"]), Some(TEAM), None),
            pool("lost", 3, &["10.0.0.9-10.0.0.20"]),
        ]
    };
    let v6 = |claim: Claim| Claim {
        families: vec![Family::V6],
        ..claim
    };
    let a = || claim("a", 0);
    for (claim, expected) in [
        (in_pool("plain", a()), "10.0.0.1"),
        (in_pool("manual", a()), "10.0.1.0"),
        (in_pool("manual", v6(a())), "fd00::1:1"),
        (in_pool("plain", v6(a())), "fd00::1"),
        (in_pool("nowhere", a()), "PoolNotFound"),
        (in_pool("red", a()), "PoolNotPermitted"),
        (in_pool("red", labelled("a", TEAM, "")), "10.0.2.1"),
        (
            in_pool("red", v6(labelled("a", TEAM, ""))),
            "NoAddressAvailable",
        ),
        (in_pool("lost", a()), "PoolConflict"),
        (asking(a(), &["10.0.0.5"]), "10.0.0.5"),
        (asking(a(), &["10.0.1.2"]), "10.0.1.2"),
        (asking(a(), &["10.0.2.1"]), "PoolNotPermitted"),
        (asking(labelled("a", TEAM, ""), &["10.0.2.1"]), "10.0.2.1"),
        (asking(a(), &["10.9.9.9"]), "AddressOutsidePool"),
        (asking(a(), &["10.0.0.15"]), "AddressOutsidePool"),
        (asking(a(), &["10.0.0.7"]), "AddressInUse"),
        (asking(a(), &["fd00::5"]), "Invalid"),
        (asking(a(), &["10.0.0.5", "10.0.0.6"]), "Invalid"),
        (asking(v6(a()), &["fd00::5"]), "fd00::5"),
        (in_pool("plain", asking(a(), &["10.0.0.5"])), "10.0.0.5"),
        (
            in_pool("manual", asking(a(), &["10.0.0.5"])),
            "AddressOutsidePool",
        ),
    ] {
        let mut allocator = started(pools());
        allocator.ask(&asking(self::claim("other", 0), &["10.0.0.7"]), 1);
        assert_eq!(allocator.ask(&claim, 1), expected, "{claim:?}");
        assert_eq!(allocator.ask(&claim, 2), expected, "asked again: {claim:?}");
    }
}

#[test]
fn a_pool_that_is_full_is_not_left_by_who_asked_for_it() {
    let mut allocator = started(vec![
        pool("big", 0, &["10.0.0.0/24"]),
        pool("one", 1, &["10.0.1.1"]),
    ]);
    let in_one = |name| Claim {
        pool: Some("one".to_owned()),
        ..claim(name, 0)
    };
    assert_eq!(allocator.ask(&in_one("a"), 1), "10.0.1.1");
    let denial = allocator.allocate(in_one("b"), at(1)).unwrap_err();
    assert_eq!(denial.reason, Reason::NoAddressAvailable);
    assert!(denial.message.contains("exhausted: one"), "{denial}");
    // A Service without a request takes another.
    assert_eq!(allocator.ask(&claim("c", 0), 1), "10.0.0.0");
}

#[test]
fn node_addresses_announced_ones_and_edges_are_not_given() {
    let mut allocator = started(vec![Pool {
        edges: crate::Edges::Skip,
        ..pool("a", 0, &["10.0.0.0/29"])
    }]);
    allocator.set_skipped(&BTreeSet::from([ip("10.0.0.1")]), at(0));
    allocator.set_held(&node("node-1"), &BTreeSet::from([ip("10.0.0.2")]), at(0));
    allocator.set_held(&node("node-2"), &BTreeSet::from([ip("10.0.0.2")]), at(0));
    assert_eq!(allocator.ask(&claim("a", 0), 1), "10.0.0.3");
    let mut refused = |name, address, needle: &str| {
        let claim = asking(claim(name, 0), &[address]);
        let denial = allocator.allocate(claim, at(1)).unwrap_err();
        assert_eq!(denial.reason, Reason::AddressInUse);
        assert!(denial.message.contains(needle), "{denial}");
    };
    refused("b", "10.0.0.1", "of a node");
    refused("c", "10.0.0.2", "in use by node node-1");
    // The edge belongs to the pool, and a Service can request it.
    assert_eq!(
        allocator.ask(&asking(claim("d", 0), &["10.0.0.7"]), 1),
        "10.0.0.7"
    );
    let report = &allocator.pools()[0];
    assert_eq!(report.skipped, ips(&["10.0.0.1"]));
    assert_eq!(report.next, ips(&["10.0.0.4"]));
    assert_eq!(
        report.v4,
        Counts {
            total: 6,
            assigned: 2,
            available: 3,
            resting: 0,
            held: 1
        }
    );
    // One agent stops holding it, the other still does. When both have stopped, it is free.
    allocator.set_held(&node("node-1"), &BTreeSet::new(), at(2));
    assert_eq!(allocator.woken(), Vec::<String>::new());
    allocator.set_held(&node("node-2"), &BTreeSet::new(), at(2));
    assert_eq!(allocator.woken(), ["c"]);
    assert_eq!(
        allocator.ask(&asking(claim("c", 0), &["10.0.0.2"]), 2),
        "10.0.0.2"
    );
    allocator.set_skipped(&BTreeSet::new(), at(3));
    assert_eq!(allocator.woken(), ["b"]);
}

#[test]
fn counters_follow() {
    let mut allocator = started(vec![
        Pool {
            reuse_after: Duration::from_mins(1),
            ..pool("both", 0, &["10.0.0.0/30", "fd00::/64"])
        },
        pool("lost", 1, &["10.0.0.0/24"]),
    ]);
    let both = dual(
        "a",
        FamilyPolicy::RequireDualStack,
        [Family::V4, Family::V6],
    );
    allocator.ask(&both, 1);
    allocator.ask(&claim("b", 0), 1);
    allocator.release(&id("b"), at(10));
    let reports = allocator.pools();
    let report = &reports[0];
    assert_eq!((report.v4.total, report.v4.assigned), (4, 1));
    assert_eq!((report.v4.available, report.v4.resting), (2, 1));
    assert_eq!((report.v6.total, report.v6.assigned), (1 << 64, 1));
    assert_eq!(Counts::saturated(report.v6.total), i64::MAX);
    assert_eq!(Counts::saturated(report.v4.total), 4);
    assert_eq!(report.next, ips(&["10.0.0.2", "fd00::1"]));
    assert_eq!(
        allocator.resting("both"),
        [Resting {
            address: ip("10.0.0.1"),
            until: at(70)
        }]
    );
    assert_eq!(
        allocator.assigned("both"),
        [
            (ip("10.0.0.0"), vec![id("a")]),
            (ip("fd00::"), vec![id("a")])
        ]
    );
    assert!(matches!(
        reports[1].standing,
        crate::Standing::Conflict { .. }
    ));
    assert_eq!(reports[1].v4, Counts::default());
}
