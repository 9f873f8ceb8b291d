//! The state is rebuilt from what the Services' status publishes.

use super::*;

fn restored(pools: Vec<Pool>, claims: Vec<Claim>) -> Allocator {
    let snapshot = Snapshot {
        pools,
        claims,
        ..Snapshot::default()
    };
    Allocator::restore(snapshot, at(0))
}

fn small() -> Vec<Pool> {
    vec![pool("a", 0, &["10.0.0.1-10.0.0.2", "fd00::1-fd00::9"])]
}

#[test]
fn recorded_addresses_stay_whoever_asks_first() {
    let has = |name, address| published(claim(name, 3), &[address]);
    for _ in 0..5 {
        let claims = vec![has("b", "10.0.0.2"), has("a", "10.0.0.1")];
        let mut allocator = restored(small(), claims);
        assert_eq!(allocator.woken(), Vec::<String>::new());
        // One that waits, older than all, comes first.
        assert_eq!(allocator.ask(&claim("waits", 0), 1), "NoAddressAvailable");
        assert_eq!(allocator.ask(&has("a", "10.0.0.1"), 1), "10.0.0.1");
        assert_eq!(allocator.ask(&has("b", "10.0.0.2"), 1), "10.0.0.2");
        assert_eq!(allocator.woken(), Vec::<String>::new());
    }
}

#[test]
fn of_two_with_one_address_the_older_keeps_it_and_both_are_told() {
    let young = |address: &str| published(claim("young", 2), &[address]);
    let old = || published(claim("old", 1), &["10.0.0.1"]);
    let mut allocator = restored(small(), vec![young("10.0.0.1"), old()]);
    assert_eq!(
        allocator.ask(&young("10.0.0.1"), 1),
        "10.0.0.2 AddressDuplicate"
    );
    assert_eq!(allocator.ask(&old(), 1), "10.0.0.1 AddressDuplicate");
    let grant = allocator.allocate(old(), at(2)).unwrap();
    let marker = Marker::Duplicate {
        address: ip("10.0.0.1"),
        other: id("young"),
        kept: true,
    };
    assert_eq!(grant.markers, [marker]);
    // The younger's status is written: both are well, the older is asked again.
    assert_eq!(allocator.ask(&young("10.0.0.2"), 3), "10.0.0.2");
    assert_eq!(allocator.woken(), ["old"]);
    assert_eq!(allocator.ask(&old(), 3), "10.0.0.1");
}

#[test]
fn the_younger_of_two_is_told_also_where_no_other_address_is_free() {
    let of = |name, age| published(claim(name, age), &["10.0.0.1"]);
    let pools = vec![pool("a", 0, &["10.0.0.1"])];
    let mut allocator = restored(pools, vec![of("young", 2), of("old", 1)]);
    let denial = allocator.allocate(of("young", 2), at(1)).unwrap_err();
    assert_eq!(denial.reason, Reason::NoAddressAvailable);
    let marker = Marker::Duplicate {
        address: ip("10.0.0.1"),
        other: id("old"),
        kept: false,
    };
    assert!(denial.message.ends_with(&format!("; {marker}")), "{denial}");
    // Once the older is gone there is nothing to tell.
    allocator.release(&id("old"), at(2));
    assert_eq!(allocator.woken(), ["young"]);
}

#[test]
fn one_that_lost_and_goes_leaves_no_trace() {
    let of = |name, age| published(claim(name, age), &["10.0.0.1"]);
    let mut allocator = restored(small(), vec![of("young", 2), of("old", 1)]);
    allocator.release(&id("young"), at(1));
    assert_eq!(allocator.ask(&of("old", 1), 2), "10.0.0.1");
    assert_eq!(allocator.pools()[0].v4.assigned, 1);
}

#[test]
fn shared_addresses_come_back_shared_as_far_as_the_rule_goes() {
    let of = |name, age, port| published(sharing(claim(name, age), "web", port), &["10.0.0.1"]);
    let foreign = |port| Claim {
        id: id("other/d"),
        ..of("d", 4, port)
    };
    let claims = vec![of("a", 1, 80), of("b", 2, 443), of("c", 3, 80), foreign(22)];
    let mut allocator = restored(small(), claims);
    assert_eq!(
        allocator.ask(&of("a", 1, 80), 1),
        "10.0.0.1 AddressDuplicate"
    );
    // b and d have nothing to do with what c lost to a.
    assert_eq!(allocator.ask(&of("b", 2, 443), 1), "10.0.0.1");
    assert_eq!(
        allocator.ask(&of("c", 3, 80), 1),
        "10.0.0.2 AddressDuplicate"
    );
    assert_eq!(allocator.ask(&foreign(22), 1), "10.0.0.1");
}

#[test]
fn addresses_in_no_pool_and_of_both_families() {
    let claim = Claim {
        families: vec![Family::V6, Family::V4],
        policy: FamilyPolicy::PreferDualStack,
        ..published(claim("a", 0), &["192.0.2.1", "fd00::5", "10.0.0.1"])
    };
    let mut allocator = restored(small(), vec![claim.clone()]);
    assert_eq!(allocator.outside(), [(ip("192.0.2.1"), vec![id("a")])]);
    assert_eq!(
        allocator.ask(&claim, 1),
        "fd00::5 192.0.2.1 AddressOutsidePool"
    );
    // One record per family: the second IPv4 address is nobody's.
    assert_eq!(allocator.ask(&super::claim("b", 0), 1), "10.0.0.1");
}

#[test]
fn what_agents_announce_is_its_owners_and_nobody_elses() {
    let snapshot = Snapshot {
        pools: small(),
        claims: vec![published(claim("a", 0), &["10.0.0.1"])],
        held: BTreeMap::from([(
            "n".to_owned(),
            ips(&["10.0.0.1", "10.0.0.2"]).into_iter().collect(),
        )]),
        ..Snapshot::default()
    };
    let mut allocator = Allocator::restore(snapshot, at(0));
    assert_eq!(
        allocator.ask(&published(claim("a", 0), &["10.0.0.1"]), 1),
        "10.0.0.1"
    );
    assert_eq!(allocator.ask(&claim("b", 0), 1), "NoAddressAvailable");
    allocator.set_held("n", BTreeSet::from([ip("10.0.0.1")]), at(2));
    assert_eq!(allocator.woken(), ["b"]);
}

#[test]
fn a_service_met_late_keeps_what_it_publishes_if_it_can() {
    let mut allocator = restored(small(), vec![]);
    assert_eq!(
        allocator.ask(&published(claim("a", 5), &["10.0.0.2"]), 1),
        "10.0.0.2"
    );
    assert_eq!(
        allocator.ask(&published(claim("b", 1), &["10.0.0.2"]), 1),
        "10.0.0.1 AddressDuplicate"
    );
    assert_eq!(allocator.woken(), ["a"]);
}

#[test]
fn after_a_change_of_leaders_the_lowest_is_not_taken_at_once() {
    let pools = || {
        vec![Pool {
            reuse_after: Duration::from_mins(2),
            ..pool("a", 0, &["10.0.0.0/16"])
        }]
    };
    let claims = || vec![published(claim("a", 0), &["10.0.0.0"])];
    let mut places = BTreeSet::new();
    for second in 0..20 {
        let snapshot = Snapshot {
            pools: pools(),
            claims: claims(),
            predecessor: Some(at(second)),
            ..Snapshot::default()
        };
        let mut allocator = Allocator::restore(snapshot.clone(), at(second));
        let address = allocator.ask(&claim("b", 0), second + 1);
        places.insert(address.clone());
        // The same history, the same answer.
        let mut twin = Allocator::restore(snapshot, at(second));
        assert_eq!(twin.ask(&claim("b", 0), second + 1), address);
        // Two minutes later nothing can be fresh any more.
        assert_eq!(allocator.ask(&claim("c", 0), second + 120), "10.0.0.1");
    }
    assert!(places.len() > 15, "{places:?}");
    // A pool that has nothing else gives what it has.
    let snapshot = Snapshot {
        pools: small(),
        claims: vec![published(claim("a", 0), &["10.0.0.1"])],
        predecessor: Some(at(0)),
        ..Snapshot::default()
    };
    let mut allocator = Allocator::restore(snapshot, at(0));
    assert_eq!(allocator.ask(&claim("b", 0), 1), "10.0.0.2");
}
