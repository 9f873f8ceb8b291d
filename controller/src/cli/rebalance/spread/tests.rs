use serde_json::{Value, json};

use super::*;

const REQUESTED: Timestamp = Timestamp::UNIX_EPOCH;

/// What each announcer says about the request.
fn ended(mut spread: Spread, ended: &[bool]) -> Spread {
    let ended = ended.iter().enumerate();
    spread.ended = ended.map(|(n, it)| (format!("node-{n}"), *it)).collect();
    spread
}

fn announcer(node: &str, usable: bool, holdings: &[(&str, i64)]) -> DeserializeGuard<Announcer> {
    let holdings: Vec<Value> = holdings
        .iter()
        .map(|(address, epoch)| json!({"address": address, "epoch": epoch}))
        .collect();
    let object = json!({
        "apiVersion": "ballast.dev/v1alpha1", "kind": "Announcer", "metadata": {"name": node},
        "status": {
            "interfaces": [{"name": "eth0", "mac": "02:00:00:00:00:01", "usable": usable}],
            "holdings": holdings,
        },
    });
    DeserializeGuard(Ok(serde_json::from_value(object).unwrap()))
}

/// Nodes with this many addresses each.
fn spread(counts: &[usize]) -> Spread {
    let all = counts.iter().enumerate().map(|(number, count)| {
        let holdings: Vec<String> = (0..*count).map(|n| format!("10.0.{number}.{n}")).collect();
        let holdings: Vec<(&str, i64)> = holdings.iter().map(|it| (it.as_str(), 1)).collect();
        announcer(&format!("node-{number}"), true, &holdings)
    });
    Spread::of(&all.collect::<Vec<_>>(), REQUESTED)
}

#[test]
fn the_best_claim_of_an_address_counts() {
    let announcers = [
        announcer("a", true, &[("192.0.2.1", 1), ("192.0.2.2", 2)]),
        announcer("b", true, &[("192.0.2.1", 2), ("192.0.2.2", 2)]),
        announcer("c", false, &[]),
    ];
    let spread = Spread::of(&announcers, REQUESTED);
    let counts = spread.counts();
    assert_eq!(counts, [("a", 1), ("b", 1)].into(), "c cannot announce");
    assert!(!spread.is_empty());
    assert!(Spread::of(&[], REQUESTED).is_empty());
}

#[test]
fn a_spread_is_even_within_a_third_or_one() {
    for (counts, even) in [
        (&[][..], true),
        (&[5], true),
        (&[0, 1, 1], true),
        (&[0, 2], false),
        (&[100, 130], true),
        (&[100, 131], false),
        (&[3, 4, 4], true),
    ] {
        assert_eq!(spread(counts).is_even(), even, "{counts:?}");
    }
}

/// An even spread is no end: the announcers go on until the numbers differ by one at most.
#[test]
fn it_ends_when_the_announcers_have_ended() {
    let seconds = Duration::from_secs;
    let mut progress = Progress::begin(spread(&[4, 0]));
    assert_eq!(progress.state(seconds(29)), State::Moving);
    assert_eq!(
        progress.state(seconds(30)),
        State::Ignored,
        "nobody knows it"
    );
    let mut moved = ended(spread(&[4, 0]), &[false, false]);
    moved.addresses.insert("10.0.0.0".into(), "node-1".into());
    progress.observe(moved.clone(), seconds(10));
    assert_eq!(
        progress.line(),
        "1 moved; addresses per node: node-0 3, node-1 1"
    );
    assert!(!progress.has_news());
    assert_eq!(progress.state(seconds(999)), State::Moving, "they go on");
    moved.addresses.insert("10.0.0.1".into(), "node-1".into());
    progress.observe(moved.clone(), seconds(20));
    assert_eq!(progress.state(seconds(20)), State::Moving, "even");
    assert!(progress.has_news());
    progress.observe(ended(moved.clone(), &[true, false]), seconds(31));
    assert_eq!(progress.state(seconds(49)), State::Moving);
    assert_eq!(progress.state(seconds(50)), State::Even, "a node is gone");
    progress.observe(ended(moved, &[true, true]), seconds(31));
    assert_eq!(progress.state(seconds(31)), State::Even);
    let report = Report::of(&progress, State::Even, REQUESTED, &[]);
    assert_eq!((report.moves, report.even), (2, true));
    insta::assert_snapshot!(table(&report), @r"
    NODE     ADDRESSES
    node-0   2
    node-1   2
    ");
    let uneven = Progress::begin(ended(spread(&[4, 0]), &[true, true]));
    assert_eq!(uneven.state(seconds(1)), State::Settled);
}

#[test]
fn an_announcer_that_cannot_announce_is_not_awaited() {
    let ended = |node: &str, usable, ended: bool| {
        let mut announcer = announcer(node, usable, &[]).0.unwrap();
        let requested = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(REQUESTED);
        announcer.status.as_mut().unwrap().rebalances =
            vec![ballast_crds::AnnouncerRebalance { requested, ended }];
        DeserializeGuard(Ok(announcer))
    };
    for (all, expected) in [
        ([ended("a", true, true), ended("b", false, false)], true),
        ([ended("a", true, true), ended("b", true, false)], false),
        ([ended("a", true, true), announcer("b", true, &[])], false),
    ] {
        assert_eq!(Spread::of(&all, REQUESTED).all_ended(), expected);
        let later = REQUESTED + ONE_SECOND;
        assert!(Spread::of(&all, later).ended.is_empty(), "another request");
    }
}

/// The clock of this machine does not matter.
#[test]
fn a_request_has_the_time_of_the_api_server_and_a_time_of_its_own() {
    let at = |text: &str| text.parse::<Timestamp>().unwrap();
    let now = server_time("Thu, 26 Nov 2026 10:47:16 GMT").unwrap();
    assert_eq!(now, at("2026-11-26T10:47:16Z"));
    assert_eq!(server_time("yesterday"), None);
    for (last, expected) in [
        (None, "2026-11-26T10:47:16Z"),
        (Some("2026-11-26T10:47:15.9Z"), "2026-11-26T10:47:16Z"),
        (Some("2026-11-26T10:47:16Z"), "2026-11-26T10:47:17Z"),
        (Some("2026-11-26T10:48:00Z"), "2026-11-26T10:48:01Z"),
        (Some("2027-11-26T10:47:16Z"), "2026-11-26T10:47:16Z"),
    ] {
        let found = request(at("2026-11-26T10:47:16.5Z"), last.map(at));
        assert_eq!(found, at(expected), "after {last:?}");
    }
}

#[test]
fn classes_are_found_by_name_or_provider() {
    let class = |name: &str, spec: Value| {
        let class = serde_json::from_value(json!({
            "apiVersion": "ballast.dev/v1alpha1", "kind": "LoadBalancerClass",
            "metadata": {"name": name}, "spec": spec,
        }));
        DeserializeGuard(Ok(class.unwrap()))
    };
    let all = [
        class("lan", json!({"l2": {}})),
        class(
            "edge",
            json!({"l2": {"preferredNodes": {"matchLabels": {"a": "b"}}}}),
        ),
        class("cloud", json!({"mock": {"endpoint": "http://127.0.0.1:1"}})),
    ];
    let of = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|&it| it.to_owned()).collect();
        choose(&all, &names)
    };
    let lan = of(&["lan"]);
    assert_eq!((lan.classes, lan.asked), (vec!["lan".to_owned()], None));
    let every = of(&[]);
    assert_eq!(every.classes, ["edge", "lan"]);
    assert!(every.others.is_empty() && every.missing.is_empty());
    assert_eq!(of(&["cloud"]).others, ["cloud"]);
    assert_eq!(of(&["lan", "nothing"]).missing, ["nothing"]);
}
