use proptest::prelude::*;

use super::*;

const ADDRESS: &str = "192.0.2.10";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn claim(address: &str, epoch: u64) -> Holding {
    Holding {
        address: ip(address),
        epoch,
        interface: Some("eth0".into()),
        cause: None,
        previous: None,
    }
}

/// A claim of an address that the node does not announce.
fn silent(epoch: u64) -> Holding {
    Holding {
        interface: None,
        ..claim(ADDRESS, epoch)
    }
}

fn report(node: &str, holdings: Vec<Holding>) -> Report {
    Report {
        node: node.into(),
        holdings,
        ..Report::default()
    }
}

/// A node that announces [`ADDRESS`].
fn announces(node: &str, epoch: u64) -> Report {
    report(node, vec![claim(ADDRESS, epoch)])
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn after(before: &Table, reports: &[Report], now: u64) -> Table {
    let alive = |node: &str| !node.starts_with("dead");
    let reports: Vec<Arc<Report>> = reports.iter().cloned().map(Arc::new).collect();
    before.next(&reports, alive, seconds(now))
}

fn first(reports: &[Report]) -> Table {
    after(&Table::default(), reports, 0)
}

/// The node that announces [`ADDRESS`], and the remark.
fn said(table: &Table) -> (Option<String>, Option<String>) {
    let place = table.place(ip(ADDRESS));
    (place.spot.map(|spot| spot.node), place.remark)
}

fn by(table: &Table) -> Option<String> {
    said(table).0
}

#[test]
fn the_best_claim_of_the_living_counts() {
    for (what, reports, node, remark) in [
        (
            "nobody reports",
            vec![],
            None,
            Some("no announcer runs in this cluster"),
        ),
        ("nobody has it", vec![report("a", vec![])], None, None),
        ("one", vec![announces("a", 1)], Some("a"), None),
        (
            "the higher epoch",
            vec![announces("a", 1), announces("b", 2)],
            Some("b"),
            None,
        ),
        (
            "the lower name",
            vec![announces("b", 2), announces("a", 2)],
            Some("a"),
            None,
        ),
        (
            "the better claim is silent",
            vec![announces("a", 1), report("b", vec![silent(2)])],
            None,
            None,
        ),
        (
            "the dead has the higher epoch",
            vec![announces("a", 1), announces("dead", 2)],
            Some("a"),
            None,
        ),
        (
            "only the dead",
            vec![announces("dead", 2)],
            None,
            Some("dead announced it and does not report to the API server any more"),
        ),
        (
            "another address",
            vec![report("a", vec![claim("192.0.2.11", 1)])],
            None,
            None,
        ),
    ] {
        let mut turned = reports.clone();
        turned.reverse();
        for reports in [reports, turned] {
            let table = first(&reports);
            let expected = (node.map(str::to_owned), remark.map(str::to_owned));
            assert_eq!(said(&table), expected, "{what}");
            assert_eq!(table.announces(ip(ADDRESS)), node.is_some(), "{what}");
        }
    }
}

#[test]
fn the_owner_of_a_service_learns_what_concerns_it() {
    let a = || announces("a", 1);
    let mac: Arc<str> = "02:00:00:00:00:09".into();
    let conflict = vec![(ip(ADDRESS), mac)];
    for (what, reported, expected) in [
        (
            "another host has it, too",
            Report {
                conflicts: conflict.clone(),
                ..a()
            },
            Some("another host on the network uses 192.0.2.10 (02:00:00:00:00:09)"),
        ),
        (
            "another host keeps the node from announcing it",
            Report {
                conflicts: conflict.clone(),
                ..report("a", vec![silent(1)])
            },
            Some("another host on the network uses 192.0.2.10 (02:00:00:00:00:09)"),
        ),
        (
            "another host keeps the node from claiming it",
            Report {
                conflicts: conflict,
                ..report("a", vec![])
            },
            Some("another host on the network uses 192.0.2.10 (02:00:00:00:00:09)"),
        ),
        (
            "cut off",
            Report {
                cut_off: vec!["eth0".into()],
                ..a()
            },
            Some("no other host on the network responds to a on eth0"),
        ),
        (
            "cut off elsewhere",
            Report {
                cut_off: vec!["eth1".into()],
                ..a()
            },
            None,
        ),
        (
            "no endpoint",
            Report {
                idle: vec![ip(ADDRESS)],
                ..a()
            },
            Some("no endpoint of the Service serves"),
        ),
        (
            "no endpoint of another one",
            Report {
                idle: vec![ip("192.0.2.11")],
                ..a()
            },
            None,
        ),
    ] {
        let table = first(&[reported]);
        assert_eq!(said(&table).1.as_deref(), expected, "{what}");
    }
}

#[test]
fn a_move_counts_at_once_and_a_loss_only_when_it_lasts() {
    let start = first(&[announces("a", 1)]);
    let moved = after(&start, &[announces("a", 1), announces("b", 2)], 1);
    assert_eq!((by(&moved).as_deref(), moved.due()), (Some("b"), None));
    // An announcer restarts: its object has no interface for a moment.
    let restarts = after(&start, &[report("a", vec![silent(1)])], 10);
    assert_eq!(by(&restarts).as_deref(), Some("a"));
    assert_eq!(restarts.due(), Some(seconds(15)));
    assert!(restarts.change_since(&start).is_empty());
    let again = after(&restarts, &[announces("a", 1)], 12);
    assert_eq!(again, start, "nothing is left of it");
    // Its object is deleted, and nobody takes over.
    let other = || report("b", vec![]);
    let lost = after(&restarts, &[other()], 14);
    assert_eq!(by(&lost).as_deref(), Some("a"), "it has been lost for 4 s");
    let gone = after(&lost, &[other()], 15);
    assert_eq!((by(&gone), gone.due()), (None, None));
    assert_eq!(
        gone.change_since(&lost).addresses,
        [ip(ADDRESS)].into(),
        "and Services learn of it"
    );
    assert_eq!(gone, first(&[other()]), "no memory of it is left");
}

#[test]
fn a_remark_that_comes_and_goes_is_not_shown() {
    let idle = || Report {
        idle: vec![ip(ADDRESS)],
        ..announces("a", 1)
    };
    let mut table = first(&[announces("a", 1)]);
    for now in 1..60 {
        let report = if now % 4 < 2 {
            idle()
        } else {
            announces("a", 1)
        };
        let next = after(&table, &[report], now);
        assert!(next.change_since(&table).is_empty(), "{now}");
        table = next;
    }
    let shown = after(&after(&table, &[idle()], 60), &[idle()], 65);
    assert!(said(&shown).1.is_some());
    // A move shows it at once.
    let moved = Report {
        node: "b".into(),
        ..idle()
    };
    assert!(said(&after(&table, &[moved], 61)).1.is_some());
}

/// Otherwise a Service could say for ever that its address is announced.
#[test]
fn news_that_alternate_are_shown_after_the_same_time() {
    let mut table = first(&[announces("a", 1)]);
    let idle = Report {
        idle: [ip(ADDRESS)].into(),
        ..report("a", vec![silent(1)])
    };
    for second in 1..=6 {
        let other = second % 2 == 0;
        let now = if other {
            idle.clone()
        } else {
            report("a", vec![])
        };
        assert!(by(&table).is_some(), "after {second} s");
        table = after(&table, &[now], second);
    }
    assert_eq!(by(&table), None);
}

#[test]
fn the_cause_of_a_move_is_told() {
    let caused = |cause: &str| Holding {
        cause: Some(cause.into()),
        previous: Some("b".into()),
        ..claim(ADDRESS, 2)
    };
    let told = |cause: &str| {
        let table = first(&[report("a", vec![caused(cause)])]);
        let spot = table.place(ip(ADDRESS)).spot.unwrap();
        assert_eq!(spot.previous.as_deref(), Some("b"));
        spot.why.map(|why| (why.text, why.is_failure))
    };
    assert_eq!(told("New"), None);
    let expected = |text: &str, is_failure| Some((text.to_owned(), is_failure));
    assert_eq!(told("HostDown"), expected("the host did not answer", true));
    assert_eq!(
        told("Rebalanced"),
        expected("the addresses were rebalanced", false)
    );
    assert_eq!(told("FullMoon"), expected("FullMoon", false));
    // The same place for another reason is nothing that conditions say.
    let first_of = |cause: &str| first(&[report("a", vec![caused(cause)])]);
    let (one, two) = (first_of("New"), first_of("HostDown"));
    assert!(two.change_since(&one).is_empty());
}

#[test]
fn the_first_and_the_last_announcer_concern_whoever_is_not_announced() {
    let nobody = first(&[]);
    let some = after(&nobody, &[report("a", vec![])], 1);
    let change = some.change_since(&nobody);
    assert!(change.concerns([ip(ADDRESS)], true));
    assert!(!change.concerns([ip(ADDRESS)], false));
    let more = after(&some, &[report("a", vec![]), report("b", vec![])], 2);
    assert!(more.change_since(&some).is_empty());
}

#[test]
fn the_table_is_bounded() {
    let holding = |number: u32| Holding {
        address: IpAddr::from(std::net::Ipv4Addr::from(number)),
        ..claim(ADDRESS, 1)
    };
    let many = u32::try_from(MOST).unwrap() + 100;
    let table = first(&[report("a", (0..many).map(holding).collect())]);
    assert_eq!(table.entries.len(), MOST);
}

fn any_report(node: &'static str) -> impl Strategy<Value = Report> {
    let address = (1_u8..4).prop_map(|last| IpAddr::from([192, 0, 2, last]));
    let holding =
        (address, 1_u64..4, any::<bool>()).prop_map(|(address, epoch, answers)| Holding {
            address,
            epoch,
            interface: answers.then(|| "eth0".into()),
            cause: None,
            previous: None,
        });
    (
        prop::collection::vec(holding, 0..3),
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(move |(holdings, idle, cut_off)| Report {
            node: node.into(),
            idle: if idle {
                vec![IpAddr::from([192, 0, 2, 1])]
            } else {
                vec![]
            },
            cut_off: if cut_off { vec!["eth0".into()] } else { vec![] },
            holdings,
            ..Report::default()
        })
}

proptest! {
    /// Whatever happened before: the node that announces an address is shown at once, everything
    /// else when it has lasted, and then nothing changes any more.
    #[test]
    fn what_lasts_is_shown(
        histories in prop::collection::vec(
            (any_report("a"), any_report("b"), any_report("dead"), 0_u64..7),
            1..8,
        )
    ) {
        let (mut table, mut now) = (Table::default(), 0);
        for (a, b, dead, wait) in &histories {
            now += wait;
            let reports = [a.clone(), b.clone(), dead.clone()];
            let next = after(&table, &reports, now);
            let plain = first(&reports);
            for last in 1..4 {
                let address = IpAddr::from([192, 0, 2, last]);
                if plain.announces(address) {
                    let node = |table: &Table| table.place(address).spot.map(|spot| spot.node);
                    prop_assert_eq!(node(&next), node(&plain));
                }
            }
            prop_assert!(next.due().is_none_or(|due| due > seconds(now)));
            table = next;
        }
        let (a, b, dead, _) = histories.last().unwrap().clone();
        let reports = [a, b, dead];
        let settled = after(&table, &reports, now + PATIENCE.as_secs());
        prop_assert_eq!(&settled, &first(&reports));
        prop_assert_eq!(settled.due(), None);
        let later = after(&settled, &reports, now + 100);
        prop_assert!(later.change_since(&settled).is_empty());
    }
}
