//! The spread that follows, and the moment of each move.

use proptest::prelude::*;

use super::*;

fn node(n: usize) -> NodeName {
    NodeName::new(&format!("node-{n}"))
}

fn address(n: usize) -> IpAddr {
    let n = u32::try_from(n).unwrap();
    IpAddr::V4(std::net::Ipv4Addr::from_bits(0x0a00_0000 + n))
}

fn held(n: usize, holder: usize, candidates: &[usize]) -> Held {
    Held {
        address: address(n),
        holder: node(holder),
        candidates: candidates.iter().copied().map(node).collect(),
    }
}

fn loads(held: &[Held]) -> BTreeMap<NodeName, usize> {
    let mut loads = BTreeMap::new();
    for it in held {
        *loads.entry(it.holder.clone()).or_default() += 1;
    }
    loads
}

/// Carries out moves until none is left. Returns their number.
fn run(held: &mut [Held]) -> usize {
    for count in 0..=held.len() {
        let Some(step) = next(held, &BTreeSet::new()) else {
            return count;
        };
        let moved = held.iter_mut().find(|it| it.address == step.address);
        moved.unwrap().holder = step.to;
    }
    panic!("it does not end: {:?}", loads(held));
}

fn at(seconds: u64) -> Time {
    Time::after_start(Duration::from_secs(seconds))
}

#[test]
fn moves() {
    type Row = (&'static str, Vec<Held>, Option<(usize, usize)>);
    let all = &[1, 2];
    let table: [Row; 7] = [
        ("even", vec![held(1, 1, all), held(2, 2, all)], None),
        ("one more is even", vec![held(1, 1, all)], None),
        (
            "a node has nothing",
            vec![held(1, 1, all), held(2, 1, &[])],
            Some((1, 2)),
        ),
        (
            "no other candidate",
            vec![held(1, 1, &[1]), held(2, 1, &[1])],
            None,
        ),
        (
            "what may not move counts",
            vec![held(1, 1, all), held(2, 1, &[]), held(3, 2, &[])],
            None,
        ),
        (
            "a preferred node takes what another one holds",
            vec![held(1, 1, &[2])],
            Some((1, 2)),
        ),
        (
            "preferred nodes come before an even spread",
            vec![held(1, 1, all), held(2, 1, all), held(3, 3, &[2])],
            Some((3, 2)),
        ),
    ];
    for (what, held, expected) in table {
        let found = next(&held, &BTreeSet::new());
        let expected = expected.map(|(n, to)| Move {
            address: address(n),
            to: node(to),
        });
        assert_eq!(found, expected, "{what}");
    }
}

#[test]
fn three_hundred_addresses_of_one_node_spread_over_three() {
    let mut all: Vec<_> = (0..300).map(|n| held(n, 1, &[1, 2, 3])).collect();
    assert_eq!(run(&mut all), 200, "none moves twice");
    assert!(loads(&all).values().all(|load| *load == 100));
}

/// A request is carried out after a moment, 1 s apart, and ends.
#[test]
fn a_request_ends_when_nothing_is_left() {
    let asked = view::Rebalance {
        gradual: false,
        asked: Some(5),
    };
    let mut rebalance = Rebalance::new(at(0));
    assert!(!rebalance.is_due(asked, at(60)), "it is not known");
    rebalance.set_requests(&[5].into(), &[5].into(), false, at(60));
    rebalance.unsettle(at(60));
    assert!(!rebalance.is_due(asked, at(62)));
    assert!(rebalance.is_due(asked, at(63)));
    let uneven = [held(1, 1, &[1, 2]), held(2, 1, &[1, 2])];
    assert!(rebalance.is_stale(at(63)));
    rebalance.look(&uneven, at(63));
    assert!(rebalance.head().is_some());
    rebalance.moved(at(63));
    assert!(rebalance.head().is_none());
    assert!(!rebalance.is_due(asked, at(63)));
    assert!(rebalance.is_due(asked, at(64)));
    rebalance.look(&[held(1, 1, &[1, 2]), held(2, 2, &[1, 2])], at(64));
    assert!(!rebalance.is_stale(at(73)));
    assert!(rebalance.is_due(asked, at(73)), "a late change counts");
    rebalance.is_stale(at(74));
    assert!(!rebalance.is_due(asked, at(74)), "it has ended");
    // Whatever happens then: only another request.
    rebalance.set_requests(&[5].into(), &[5].into(), false, at(80));
    rebalance.changed();
    assert!(!rebalance.is_due(asked, at(100)));
    let again = view::Rebalance {
        asked: Some(6),
        ..asked
    };
    rebalance.set_requests(&[6].into(), &[6].into(), false, at(100));
    assert!(rebalance.is_due(again, at(100)));
    let hour = REBALANCE_REQUEST.as_secs();
    assert!(!rebalance.is_due(again, at(100 + hour)), "or after an hour");
}

/// It may have been carried out long ago.
#[test]
fn a_request_that_a_process_finds_at_its_start_is_over() {
    let asked = |asked| view::Rebalance {
        gradual: false,
        asked: Some(asked),
    };
    let mut rebalance = Rebalance::new(at(0));
    rebalance.set_requests(&[5].into(), &[5].into(), true, at(0));
    rebalance.set_requests(&[5].into(), &[5].into(), false, at(1));
    assert!(!rebalance.is_due(asked(5), at(60)));
    rebalance.set_requests(&[5, 6].into(), &[5, 6].into(), false, at(60));
    assert!(!rebalance.is_due(asked(5), at(60)));
    assert!(rebalance.is_due(asked(6), at(60)));
}

/// The class has no Service when somebody asks.
#[test]
fn a_request_that_no_address_has_is_over() {
    let asked = |asked| view::Rebalance {
        gradual: false,
        asked: Some(asked),
    };
    let mut rebalance = Rebalance::new(at(0));
    rebalance.set_requests(&[5].into(), &[].into(), false, at(10));
    assert_eq!(rebalance.requests(at(10)).collect::<Vec<_>>(), [(5, true)]);
    rebalance.set_requests(&[5].into(), &[5].into(), false, at(20));
    assert!(!rebalance.is_due(asked(5), at(60)), "a Service came later");
    rebalance.set_requests(&[6].into(), &[6].into(), false, at(60));
    assert_eq!(rebalance.requests(at(60)).collect::<Vec<_>>(), [(6, false)]);
    rebalance.set_requests(&[6].into(), &[].into(), false, at(70));
    rebalance.set_requests(&[6].into(), &[6].into(), false, at(80));
    assert!(!rebalance.is_due(asked(6), at(90)), "the last Service left");
}

#[test]
fn gradual_moves_wait_for_stable_nodes() {
    let gradual = view::Rebalance {
        gradual: true,
        asked: None,
    };
    let mut rebalance = Rebalance::new(at(0));
    assert!(!rebalance.is_due(gradual, at(599)));
    assert!(rebalance.is_due(gradual, at(600)));
    rebalance.moved(at(600));
    assert!(!rebalance.is_due(gradual, at(609)));
    assert!(rebalance.is_due(gradual, at(610)));
    rebalance.unsettle(at(620));
    assert!(!rebalance.is_due(gradual, at(1219)));
    assert!(rebalance.is_due(gradual, at(1220)));
    let manual = view::Rebalance::default();
    assert!(!rebalance.is_due(manual, at(9999)));
}

#[test]
fn a_node_that_does_not_take_its_address_is_left_out() {
    let mut rebalance = Rebalance::new(at(0));
    let three = [1, 2, 3];
    let uneven = [held(1, 1, &three), held(2, 1, &three), held(3, 1, &three)];
    rebalance.look(&uneven, at(10));
    let first = rebalance.head().unwrap().clone();
    assert!(!rebalance.is_stale(at(24)));
    assert!(rebalance.is_stale(at(25)));
    rebalance.look(&uneven, at(25));
    let second = rebalance.head().unwrap().clone();
    assert_ne!(first, second);
    rebalance.unsettle(at(30));
    rebalance.look(&uneven, at(30));
    assert_eq!(*rebalance.head().unwrap(), first, "something changed");
    // A node that takes nothing.
    let both: Vec<_> = (0..20).map(|n| held(n, 1, &three)).collect();
    let mut tried = BTreeSet::new();
    for second in (30..).step_by(15).take(12) {
        rebalance.is_stale(at(second));
        rebalance.look(&both, at(second));
        tried.extend(rebalance.head().map(|step| step.to.clone()));
    }
    assert_eq!(tried.len(), 2);
    assert_eq!(rebalance.head(), None, "three of each");
}

fn some_held() -> impl Strategy<Value = Vec<Held>> {
    let one = (1..6usize, proptest::collection::btree_set(1..6usize, 0..5));
    proptest::collection::vec(one, 1..60).prop_map(|all| {
        let all = all.into_iter().enumerate();
        let held = all.map(|(n, (holder, candidates))| {
            let candidates: Vec<_> = candidates.into_iter().collect();
            held(n, holder, &candidates)
        });
        held.collect()
    })
}

proptest! {
    /// It ends, and then the numbers of two candidates of an address differ by at most one.
    #[test]
    fn it_ends_and_is_even(start in some_held()) {
        let mut all = start.clone();
        let mut steps = 0;
        while let Some(step) = next(&all, &BTreeSet::new()) {
            let moved = all.iter_mut().find(|it| it.address == step.address).unwrap();
            prop_assert!(moved.candidates.contains(&step.to), "only to a candidate");
            moved.holder = step.to;
            steps += 1;
            prop_assert!(steps <= 60 * 60, "it does not end");
        }
        let loads = loads(&all);
        let load = |node: &NodeName| loads.get(node).copied().unwrap_or(0);
        for (it, before) in all.iter().zip(&start) {
            if it.candidates.is_empty() {
                prop_assert_eq!(&it.holder, &before.holder);
                continue;
            }
            prop_assert!(it.candidates.contains(&it.holder));
            for other in &it.candidates {
                prop_assert!(load(&it.holder) <= load(other) + 1);
            }
        }
    }

    /// Where every node can hold every address, no address moves twice, and the spread is even.
    #[test]
    fn no_address_moves_twice(holders in proptest::collection::vec(1..5usize, 1..80)) {
        let mut all: Vec<_> = holders
            .iter()
            .enumerate()
            .map(|(n, holder)| held(n, *holder, &[1, 2, 3, 4]))
            .collect();
        let mut moved = BTreeSet::new();
        while let Some(step) = next(&all, &BTreeSet::new()) {
            prop_assert!(moved.insert(step.address), "{} moves again", step.address);
            all.iter_mut().find(|it| it.address == step.address).unwrap().holder = step.to;
        }
        let loads = loads(&all);
        let counts: Vec<_> = (1..5).map(|n| loads.get(&node(n)).copied().unwrap_or(0)).collect();
        let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
        prop_assert!(most - least <= 1, "{:?}", counts);
    }

    /// The order in which a node lists addresses does not matter.
    #[test]
    fn nodes_agree(all in some_held()) {
        let mut other = all.clone();
        other.reverse();
        prop_assert_eq!(next(&all, &BTreeSet::new()), next(&other, &BTreeSet::new()));
    }
}
