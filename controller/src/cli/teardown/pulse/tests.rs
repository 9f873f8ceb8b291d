use serde_json::json;

use super::*;

fn lease(holder: &str, version: u64) -> Lease {
    serde_json::from_value(json!({
        "metadata": {"resourceVersion": version.to_string()},
        "spec": {
            "holderIdentity": holder, "leaseDurationSeconds": 15,
            "renewTime": "2026-03-01T12:00:00.000000Z",
        },
    }))
    .unwrap()
}

/// A few seconds after that renewal.
fn clock() -> Timestamp {
    "2026-03-01T12:00:05Z".parse().unwrap()
}

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn a_lease_that_moves_is_held_by_somebody_who_lives() {
    use Liveness::{Absent, Alive, Dead, Silent};
    let held = |version| Some(lease("ballast-1", version));
    let freed = |version| Some(lease("", version));
    for (what, looks, at, expected) in [
        ("the first look", vec![(0, held(1))], 0, Alive),
        ("renewed", vec![(0, held(1)), (14, held(2))], 28, Alive),
        ("not renewed", vec![(0, held(1)), (14, held(1))], 15, Silent),
        (
            "nor taken over",
            vec![(0, held(1)), (29, held(1))],
            30,
            Dead,
        ),
        (
            "taken over at last",
            vec![
                (0, held(1)),
                (20, held(1)),
                (21, Some(lease("ballast-2", 2))),
            ],
            22,
            Alive,
        ),
        ("given up", vec![(0, held(1)), (3, freed(2))], 4, Absent),
        (
            "given up, and nobody came",
            vec![(0, freed(2)), (9, freed(2))],
            30,
            Dead,
        ),
        ("no Lease", vec![(0, None)], 1, Absent),
        ("no Lease for long", vec![(0, None), (29, None)], 30, Dead),
        ("made meanwhile", vec![(0, None), (29, held(1))], 31, Alive),
    ] {
        let mut pulse = Pulse::default();
        for (now, lease) in looks {
            pulse.observe(lease.as_ref(), s(now));
        }
        assert_eq!(pulse.controller(s(at), clock()).state, expected, "{what}");
    }
    assert_eq!(
        Pulse::default().controller(s(99), clock()).state,
        Liveness::Unknown,
        "it cannot be read"
    );
}

/// After a single read only the Lease's own times are known, and clocks may differ a little.
#[test]
fn one_look_goes_by_the_clock() {
    let mut pulse = Pulse::default();
    pulse.observe(Some(&lease("ballast-1", 1)), s(0));
    let state = |at: &str| pulse.controller(s(1), at.parse().unwrap()).state;
    assert_eq!(state("2026-03-01T12:00:59Z"), Liveness::Alive);
    assert_eq!(
        state("2026-03-01T11:00:00Z"),
        Liveness::Alive,
        "a slow clock"
    );
    assert_eq!(state("2026-03-01T12:02:00Z"), Liveness::Silent);
    let mut twice = pulse.clone();
    twice.observe(Some(&lease("ballast-1", 2)), s(2));
    let late = "2026-03-01T13:00:00Z".parse().unwrap();
    assert_eq!(
        twice.controller(s(2), late).state,
        Liveness::Alive,
        "it moved"
    );
}

#[test]
fn it_is_said_whose_lease_it_is_and_since_when() {
    let of = |looks: &[(u64, Option<Lease>)], at| {
        let mut pulse = Pulse::default();
        for (now, lease) in looks {
            pulse.observe(lease.as_ref(), s(*now));
        }
        let place = ("ballast-system".to_owned(), "ballast-controller".to_owned());
        pulse.controller(s(at), clock()).told(&place)
    };
    let held = Some(lease("ballast-1_0a", 1));
    insta::assert_snapshot!(of(&[(0, held.clone())], 0), @"controller ballast-1_0a holds the Lease ballast-system/ballast-controller");
    insta::assert_snapshot!(of(&[(0, held)], 40), @"controller ballast-1_0a has not renewed the Lease ballast-system/ballast-controller since 2026-03-01T12:00:00Z");
    insta::assert_snapshot!(of(&[(0, None)], 0), @"no controller holds the Lease ballast-system/ballast-controller; check that a controller is running and that this is its Lease (--lease-namespace, --lease-name)");
    insta::assert_snapshot!(of(&[(0, None)], 30), @"no controller holds the Lease ballast-system/ballast-controller (for at least 30s); check that a controller is running and that this is its Lease (--lease-namespace, --lease-name)");
    insta::assert_snapshot!(of(&[], 30), @"the Lease ballast-system/ballast-controller cannot be read");
}
