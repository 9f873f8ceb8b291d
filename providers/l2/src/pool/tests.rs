use super::*;
use crate::range::{self, address};

fn pool(name: &str, created: i64, entries: &[&str]) -> Pool {
    Pool {
        entries: range::parse(entries).unwrap(),
        ..Pool::new(name, Timestamp::from_second(created).unwrap())
    }
}

#[test]
fn the_newer_of_two_pools_that_overlap_is_in_conflict() {
    let serves = || "serves".to_owned();
    let lost = |with: &str, range: &str| format!("{with} {range}");
    for (pools, expected) in [
        (
            vec![
                pool("a", 1, &["10.0.0.0/24"]),
                pool("b", 2, &["10.0.1.0/24"]),
            ],
            vec![serves(), serves()],
        ),
        // The order of the list does not matter, the age does.
        (
            vec![pool("a", 2, &["10.0.0.0/24"]), pool("b", 1, &["10.0.0.9"])],
            vec![lost("b", "10.0.0.9"), serves()],
        ),
        // Of the same age, the name decides.
        (
            vec![pool("b", 1, &["fd00::/64"]), pool("a", 1, &["fd00::/126"])],
            vec![lost("a", "fd00::-fd00::3"), serves()],
        ),
        // b lost to a, so it takes nothing from c.
        (
            vec![
                pool("a", 1, &["10.0.0.0/25"]),
                pool("b", 2, &["10.0.0.0/24"]),
                pool("c", 3, &["10.0.0.128/25"]),
            ],
            vec![serves(), lost("a", "10.0.0.0-10.0.0.127"), serves()],
        ),
        // A pool does not conflict with itself.
        (
            vec![pool("a", 1, &["10.0.0.0/24", "10.0.0.7"])],
            vec![serves()],
        ),
        // IPv4 10.0.0.1 and the IPv6 address with the same number are different addresses.
        (
            vec![pool("a", 1, &["10.0.0.1"]), pool("b", 2, &["::a00:1"])],
            vec![serves(), serves()],
        ),
    ] {
        let judged: Vec<String> = judge(&pools)
            .into_iter()
            .map(|standing| match standing {
                Standing::Serves => serves(),
                Standing::Conflict { with, range } => format!("{with} {range}"),
            })
            .collect();
        assert_eq!(judged, expected, "{pools:?}");
    }
}

#[test]
fn the_order_in_which_pools_are_asked() {
    let with = |name, created, priority, selective: bool| Pool {
        priority,
        service_selector: selective.then(Selector::default),
        ..pool(name, created, &[])
    };
    let mut pools = [
        with("young", 9, None, false),
        with("b-old", 1, None, false),
        with("a-old", 1, None, false),
        with("zero", 0, Some(0), false),
        with("selective", 5, None, true),
        with("second", 0, Some(20), false),
        with("first-for-all", 0, Some(10), false),
        with("first-selective", 3, Some(10), true),
    ];
    pools.sort_by(|a, b| a.rank().cmp(&b.rank()));
    let names: Vec<&str> = pools.iter().map(|pool| pool.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "first-selective",
            "first-for-all",
            "second",
            "selective",
            "zero",
            "a-old",
            "b-old",
            "young"
        ]
    );
}

#[test]
fn sizes_are_right_for_both_families() {
    for (entries, edges, covered, given) in [
        (&["10.0.0.0/16"][..], Edges::Use, [65_536, 0], [65_536, 0]),
        (&["10.0.0.0/16"], Edges::Skip, [65_536, 0], [65_534, 0]),
        (
            &["10.0.0.0/16"],
            Edges::SkipOctets,
            [65_536, 0],
            [65_024, 0],
        ),
        (
            &["fd00::/64"],
            Edges::Skip,
            [0, 1 << 64],
            [0, (1 << 64) - 1],
        ),
        (&["fc00::/7"], Edges::Use, [0, 1 << 121], [0, 1 << 121]),
        (
            &[
                "10.0.0.0/24",
                "10.0.0.128/25",
                "10.0.1.1",
                "fd00::1-fd00::4",
            ],
            Edges::Use,
            [257, 4],
            [257, 4],
        ),
        // The single address was listed explicitly, although the CIDR skips it.
        (&["10.0.0.0/30", "10.0.0.3"], Edges::Skip, [4, 0], [3, 0]),
    ] {
        let pool = Pool {
            edges,
            ..pool("a", 0, entries)
        };
        let families = [Family::V4, Family::V6];
        assert_eq!(families.map(|f| pool.covered(f).count()), covered);
        assert_eq!(families.map(|f| pool.given(f).count()), given);
    }
}

#[test]
fn which_ends_are_skipped() {
    for (text, edges, skipped) in [
        ("10.0.0.0/30", Edges::Use, vec![]),
        ("10.0.0.0/30", Edges::Skip, vec!["10.0.0.0", "10.0.0.3"]),
        ("10.0.0.0/31", Edges::Skip, vec![]),
        ("10.0.0.0/32", Edges::Skip, vec![]),
        ("10.0.0.0-10.0.0.255", Edges::Skip, vec![]),
        ("10.0.0.0", Edges::Skip, vec![]),
        ("fd00::/64", Edges::Skip, vec!["fd00::"]),
        ("fd00::/127", Edges::Skip, vec![]),
        (
            "10.0.0.0-10.0.0.255",
            Edges::SkipOctets,
            vec!["10.0.0.0", "10.0.0.255"],
        ),
        (
            "10.0.0.9-10.0.1.7",
            Edges::SkipOctets,
            vec!["10.0.0.255", "10.0.1.0"],
        ),
        ("10.0.0.0", Edges::SkipOctets, vec![]),
        ("10.0.0.0/32", Edges::SkipOctets, vec!["10.0.0.0"]),
        (
            "10.0.0.240/28",
            Edges::SkipOctets,
            vec!["10.0.0.240", "10.0.0.255"],
        ),
        ("fd00::/120", Edges::SkipOctets, vec!["fd00::"]),
    ] {
        let pool = Pool {
            edges,
            ..pool("a", 0, &[text])
        };
        let range = pool.entries[0].range();
        let given = pool.given(range.family());
        let (first, last) = range.numbers();
        // The addresses of a /64 are not visited one by one.
        let got: Vec<_> = (first..=last.min(first + 1_000))
            .filter(|number| !given.contains(*number))
            .map(|number| address(range.family(), number).to_string())
            .collect();
        assert_eq!(got, skipped, "{text} {edges:?}");
    }
}

/// Memory grows with the entries of a pool, not with its addresses.
#[test]
fn a_pool_of_half_the_internet_takes_as_little_memory_as_one_address() {
    for edges in [Edges::Use, Edges::Skip, Edges::SkipOctets] {
        for entry in ["11.0.0.10-110.0.0.20", "11.0.0.0/8", "10.0.0.7", "fd00::/8"] {
            let pool = Pool {
                edges,
                ..pool("a", 0, &[entry])
            };
            for family in [Family::V4, Family::V6] {
                let intervals = (pool.given(family).footprint(), pool.covered(family).spans());
                assert!(intervals <= (1, 1), "{entry} {edges:?}: {intervals:?}");
            }
        }
    }
}

/// Each entry of the last pool overlaps all 64 entries of each other pool.
#[test]
fn the_oldest_of_many_pools_that_overlap_is_named() {
    let entries = |pool: u32| -> Vec<String> {
        (0..64_u32)
            .map(|n| format!("10.{}.{n}.0/24", 100 - pool))
            .collect()
    };
    let mut pools: Vec<Pool> = (0..50)
        .map(|n| {
            let entries = entries(n);
            let entries: Vec<&str> = entries.iter().map(String::as_str).collect();
            pool(&format!("pool-{n:02}"), i64::from(n), &entries)
        })
        .collect();
    pools.push(pool("all", 60, &["10.0.0.0/8"; 64]));
    let standing = judge(&pools);
    assert!(standing[..50].iter().all(|it| *it == Standing::Serves));
    let Standing::Conflict { with, range } = &standing[50] else {
        panic!("it overlaps all");
    };
    assert_eq!(
        (with.as_str(), range.to_string().as_str()),
        ("pool-00", "10.100.0.0-10.100.0.255")
    );
}
