use ballast_crds::{AnnouncerCounts, InterfaceAddress, Successor};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proptest::option;
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn interfaces() -> impl Strategy<Value = Vec<AnnouncerInterface>> {
    let addresses = proptest::collection::vec("[0-9.]{2,6}", 0..3);
    let one = ("[a-z]{1,3}", "[0-9a-f:]{1,3}", addresses, any::<bool>());
    let one = one.prop_map(|(name, mac, addresses, usable)| AnnouncerInterface {
        name,
        mac,
        addresses: addresses.into_iter().map(InterfaceAddress).collect(),
        usable,
    });
    proptest::collection::vec(one, 0..3)
}

fn holdings() -> impl Strategy<Value = Vec<Holding>> {
    let numbers = (1..i64::MAX, 0..4_i64, option::of(0..2_000_000_000_i64));
    let texts = proptest::array::uniform4(option::of("[a-z]{1,3}"));
    let successors = proptest::collection::vec("[a-z]{1,3}", 0..3);
    let one = ("[0-9.]{2,6}", numbers, texts, successors).prop_map(
        |(address, (epoch, revision, since), [interface, mac, cause, previous], successors)| {
            Holding {
                address,
                epoch,
                revision,
                interface,
                mac,
                successors: successors.into_iter().map(Successor).collect(),
                since: since.map(|second| Time(Timestamp::from_second(second).unwrap())),
                cause,
                previous,
            }
        },
    );
    proptest::collection::vec(one, 0..3)
}

fn statuses() -> impl Strategy<Value = AnnouncerStatus> {
    let head = (option::of("[0-9a-f]{1,3}"), option::of(1..4_i64));
    (head, interfaces(), holdings()).prop_map(|((incarnation, serial), interfaces, holdings)| {
        AnnouncerStatus {
            incarnation,
            serial,
            interfaces,
            holdings,
            ..AnnouncerStatus::default()
        }
    })
}

/// What readers get from the API server.
fn read(status: &AnnouncerStatus) -> AnnouncerStatus {
    serde_json::from_value(json!(status)).unwrap()
}

proptest! {
    #[test]
    fn the_api_server_changes_nothing_and_everything_else_does(
        one in statuses(),
        other in statuses(),
        names in proptest::array::uniform4("[ab]{0,2}"),
    ) {
        let [node, uid, other_node, other_uid] = &names;
        prop_assert_eq!(content(node, uid, &one), content(node, uid, &read(&one)));
        prop_assert_eq!(content(node, uid, &one) == content(node, uid, &other), one == other);
        let same = (node, uid) == (other_node, other_uid);
        prop_assert_eq!(content(node, uid, &one) == content(other_node, other_uid, &one), same);
    }
}

/// What only people and the controller read is not sealed.
#[test]
fn conditions_and_counts_are_not_sealed() {
    let plain = AnnouncerStatus::default();
    let mut more = AnnouncerStatus {
        counts: AnnouncerCounts {
            addresses: 7,
            ..AnnouncerCounts::default()
        },
        seals: vec![Seal("00".repeat(32))],
        ..AnnouncerStatus::default()
    };
    more.problems.untrusted.push(Successor("b".to_owned()));
    assert_eq!(content("a", "u", &plain), content("a", "u", &more));
}

#[test]
fn what_is_no_seal_is_left_out() {
    let seal = "0f".repeat(32);
    let status = AnnouncerStatus {
        seals: vec![Seal("x".to_owned()), Seal(seal.clone())],
        ..AnnouncerStatus::default()
    };
    assert_eq!(written(&seals(&status)), [Seal(seal.clone())]);
    let many = AnnouncerStatus {
        seals: vec![Seal(seal); 1000],
        ..AnnouncerStatus::default()
    };
    assert_eq!(seals(&many).len(), ballast_agent::seal::MAX_KNOWN);
}
