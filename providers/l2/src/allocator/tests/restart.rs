//! The state is rebuilt from the addresses in the status of Services.

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
        // A waiting Service that is older than all others comes first.
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
        other: "Service default/young".to_owned(),
        kept: true,
    };
    assert_eq!(grant.markers, [marker]);
    // The younger's status is written: both are valid, and the older is asked again.
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
        other: "Service default/old".to_owned(),
        kept: false,
    };
    assert!(denial.message.ends_with(&format!("; {marker}")), "{denial}");
    // Once the older is gone there is nothing to report.
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
    // b and d are not involved in what c lost to a.
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
    // One address per family: the second IPv4 address is not adopted.
    assert_eq!(allocator.ask(&super::claim("b", 0), 1), "10.0.0.1");
}

#[test]
fn what_agents_announce_is_its_owners_and_nobody_elses() {
    let snapshot = Snapshot {
        pools: small(),
        claims: vec![published(claim("a", 0), &["10.0.0.1"])],
        held: BTreeMap::from([(
            node("n"),
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
    allocator.set_held(&node("n"), &BTreeSet::from([ip("10.0.0.1")]), at(2));
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
        // Two minutes later no address can have been released recently.
        assert_eq!(allocator.ask(&claim("c", 0), second + 120), "10.0.0.1");
    }
    assert!(places.len() > 15, "{places:?}");
    // A pool with no other address assigns this one.
    let snapshot = Snapshot {
        pools: small(),
        claims: vec![published(claim("a", 0), &["10.0.0.1"])],
        predecessor: Some(at(0)),
        ..Snapshot::default()
    };
    let mut allocator = Allocator::restore(snapshot, at(0));
    assert_eq!(allocator.ask(&claim("b", 0), 1), "10.0.0.2");
}

fn confirmed(claim: Claim, addresses: &[&str]) -> Claim {
    Claim {
        confirmed: ips(addresses).into_iter().collect(),
        ..published(claim, addresses)
    }
}

/// An address that another writer put into the status is adopted only if it could be assigned.
#[test]
fn a_published_address_that_could_not_be_assigned_is_replaced() {
    let start = || Snapshot {
        pools: vec![
            pool("a", 0, &["10.0.0.1-10.0.0.9"]),
            Pool {
                edges: crate::Edges::SkipOctets,
                ..pool("edgy", 1, &["10.1.0.0-10.1.0.9"])
            },
        ],
        skipped: ips(&["10.0.0.7", "192.0.2.7"]).into_iter().collect(),
        held: BTreeMap::from([(
            Holder::Service {
                namespace: "other".into(),
                name: "web".into(),
                elsewhere: true,
            },
            ips(&["10.0.0.8"]).into_iter().collect(),
        )]),
        ..Snapshot::default()
    };
    let replaced = "10.0.0.1 NotAdopted";
    for (address, answer, why) in [
        ("10.0.0.7", replaced, "it is the address of a node"),
        ("192.0.2.7", replaced, "it is the address of a node"),
        ("10.0.0.8", replaced, "it is in use by another Service"),
        ("10.1.0.0", replaced, "assigned only on request"),
        ("127.0.0.1", replaced, "it is a loopback address"),
        // The rules allow these.
        ("10.0.0.5", "10.0.0.5", ""),
        ("192.0.2.1", "192.0.2.1 AddressOutsidePool", ""),
    ] {
        let has = published(claim("s", 0), &[address]);
        for late in [false, true] {
            let claims = if late { vec![] } else { vec![has.clone()] };
            let snapshot = Snapshot { claims, ..start() };
            let mut allocator = Allocator::restore(snapshot, at(0));
            let grant = allocator.allocate(has.clone(), at(1));
            assert_eq!(outcome(&grant), answer, "{address}");
            let told = format!(
                "{:?} {}",
                grant,
                grant
                    .as_ref()
                    .unwrap()
                    .markers
                    .first()
                    .map_or(String::new(), ToString::to_string)
            );
            assert!(told.contains(why), "{told}");
            // Once the status has the new address, the Service still reports why.
            if answer == replaced {
                let now = published(claim("s", 0), &["10.0.0.1"]);
                assert_eq!(allocator.ask(&now, 2), "10.0.0.1 Replaced");
                assert_eq!(allocator.ask(&now, 3), "10.0.0.1 Replaced");
            }
        }
        // An address that our own conditions confirm stays, whatever has changed since, unless
        // it can never work.
        let own = confirmed(claim("s", 0), &[address]);
        let snapshot = Snapshot {
            claims: vec![own.clone()],
            ..start()
        };
        let answer = Allocator::restore(snapshot, at(0)).ask(&own, 1);
        let stays = answer.starts_with(address);
        assert_eq!(stays, address != "127.0.0.1", "{answer}");
    }
    // An edge that the Service requests is one that it would get.
    let asked = asking(published(claim("s", 0), &["10.1.0.0"]), &["10.1.0.0"]);
    let snapshot = Snapshot {
        claims: vec![asked.clone()],
        ..start()
    };
    assert_eq!(
        Allocator::restore(snapshot, at(0)).ask(&asked, 1),
        "10.1.0.0"
    );
}

/// Of several addresses, as k3s publishes those of its nodes, the first usable one is kept.
#[test]
fn of_several_published_addresses_the_node_addresses_are_left_out() {
    let claim = published(claim("a", 0), &["10.0.0.1", "10.0.0.2"]);
    let snapshot = Snapshot {
        pools: small(),
        claims: vec![claim.clone()],
        skipped: ips(&["10.0.0.1"]).into_iter().collect(),
        ..Snapshot::default()
    };
    let mut allocator = Allocator::restore(snapshot, at(0));
    assert_eq!(allocator.ask(&claim, 1), "10.0.0.2 NotAdopted");
}

/// A move would break what may still work, and a single node could move every Service.
#[test]
fn an_address_that_becomes_a_nodes_is_kept_and_the_service_says_so() {
    let mut allocator = started(small());
    assert_eq!(allocator.ask(&claim("a", 0), 1), "10.0.0.1");
    allocator.set_skipped(&ips(&["10.0.0.1"]).into_iter().collect(), at(2));
    assert_eq!(allocator.woken(), ["a"]);
    let now = published(claim("a", 0), &["10.0.0.1"]);
    assert_eq!(allocator.ask(&now, 3), "10.0.0.1 NodeAddress");
    assert_eq!(allocator.woken(), Vec::<String>::new());
    // No other Service joins it there.
    let other = sharing(asking(claim("b", 1), &["10.0.0.1"]), "key", 443);
    assert_eq!(allocator.ask(&other, 3), "AddressInUse");
    // The same after a restart.
    let own = confirmed(claim("a", 0), &["10.0.0.1"]);
    let snapshot = Snapshot {
        pools: small(),
        claims: vec![own.clone()],
        skipped: ips(&["10.0.0.1"]).into_iter().collect(),
        ..Snapshot::default()
    };
    let mut restarted = Allocator::restore(snapshot, at(3));
    assert_eq!(restarted.ask(&own, 4), "10.0.0.1 NodeAddress");
    // The node gives the address up: the Service is told.
    allocator.set_skipped(&BTreeSet::new(), at(5));
    assert!(allocator.woken().contains(&"a".to_owned()));
    assert_eq!(allocator.ask(&now, 6), "10.0.0.1");
}

#[test]
fn a_service_that_waits_for_an_address_is_told_when_a_node_has_it() {
    let mut allocator = started(small());
    let holds = sharing(asking(claim("a", 0), &["10.0.0.1"]), "key", 80);
    assert_eq!(allocator.ask(&holds, 1), "10.0.0.1");
    let waits = sharing(asking(claim("b", 1), &["10.0.0.1"]), "key", 80);
    assert_eq!(allocator.ask(&waits, 1), "PortInUse");
    allocator.set_skipped(&ips(&["10.0.0.1"]).into_iter().collect(), at(2));
    assert_eq!(allocator.woken(), ["a", "b"]);
    assert_eq!(allocator.ask(&waits, 2), "AddressInUse");
    allocator.set_skipped(&BTreeSet::new(), at(3));
    assert!(allocator.woken().contains(&"b".to_owned()));
    assert_eq!(allocator.ask(&waits, 3), "PortInUse");
}

/// Readers of one namespace must not learn what another namespace has.
#[test]
fn messages_name_services_of_the_readers_namespace_only() {
    let mut allocator = started(vec![Pool {
        share_across_namespaces: true,
        ..pool("a", 0, &["10.0.0.1"])
    }]);
    allocator.ask(&sharing(claim("victim/secret", 0), "web", 80), 0);
    for (name, key, port) in [
        ("own/a", "other", 443),
        ("own/a", "", 443),
        ("own/a", "web", 80),
    ] {
        let asks = asking(sharing(claim(name, 1), key, port), &["10.0.0.1"]);
        let denial = allocator.allocate(asks, at(1)).unwrap_err();
        assert!(!denial.message.contains("secret"), "{denial}");
        assert!(denial.message.contains("another Service"), "{denial}");
        let neighbour = asking(sharing(claim("victim/b", 1), key, port), &["10.0.0.1"]);
        let denial = allocator.allocate(neighbour, at(1)).unwrap_err();
        assert!(denial.message.contains("victim/secret"), "{denial}");
    }
    let thief = Claim {
        share_key: None,
        ..published(claim("own/late", 5), &["10.0.0.1"])
    };
    let denial = allocator.allocate(thief, at(2)).unwrap_err();
    assert!(!denial.message.contains("secret"), "{denial}");
}
