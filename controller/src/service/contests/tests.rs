use ballast_provider::Reason;
use prometheus_client::registry::Registry;
use proptest::prelude::*;

use super::*;
use crate::cluster::conditions::{ACCEPTED, PROGRAMMED};
use crate::cluster::contest::{FREE, LONGEST, QUIET};
use crate::fixtures::{condition, ingress, listener};

const OURS: &str = "192.0.2.1";

fn contests() -> Contests {
    Contests::new(ContestMetrics::register(&mut Registry::default()))
}

/// A served Service in this version.
fn web(version: u64) -> ServiceView {
    let mut web = ServiceView::test("web")
        .held_by(&["local"])
        .publishing(OURS)
        .saying(&[
            condition(ACCEPTED, "True", Reason::Accepted, "yes"),
            condition(PROGRAMMED, "True", Reason::Programmed, "yes"),
        ]);
    web.version = version;
    web
}

/// The same after somebody has changed what it publishes.
fn overwritten(version: u64) -> ServiceView {
    let mut web = web(version).publishing("203.0.113.9");
    web.rival = Some("k3s".into());
    web
}

/// Plans a write and sends it.
fn judge(
    contests: &Contests,
    service: &ServiceView,
    purpose: Purpose,
    now: Instant,
) -> Result<Step, Duration> {
    let plan = contests.plan(service, purpose, now)?;
    contests.sends(service, purpose, &plan, now);
    Ok(plan.step)
}

fn status(content: &str) -> Purpose {
    Purpose::of("status", &content)
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Somebody overwrites the Service until a contest begins. Returns the last version.
fn begin(contests: &Contests, now: Instant) -> u64 {
    contests.wrote(&web(1), status("A"), 2, Some(&web(2)), now);
    for round in 0..u64::from(FREE) {
        let version = 3 + 2 * round;
        let judged = judge(contests, &overwritten(version), status("A"), now);
        assert_eq!(judged, Ok(Step::Restores));
        let left = web(version + 1);
        contests.wrote(
            &overwritten(version),
            status("A"),
            version + 1,
            Some(&left),
            now,
        );
    }
    let judged = judge(contests, &overwritten(9), status("A"), now);
    assert_eq!(judged, Ok(Step::Begins));
    contests.wrote(&overwritten(9), status("A"), 10, Some(&web(10)), now);
    10
}

#[test]
fn a_service_that_somebody_keeps_overwriting_says_who_and_is_restored_less_often() {
    let (contests, now) = (contests(), Instant::now());
    assert_eq!(contests.message(&web(1), now), None);
    let version = begin(&contests, now);
    let message = contests.message(&web(version), now).unwrap();
    assert!(
        message.contains("\"k3s\"") && message.len() < 320,
        "{message}"
    );
    let again = overwritten(version + 1);
    assert_eq!(judge(&contests, &again, status("A"), now), Err(seconds(5)));
    let due = now + seconds(5);
    assert_eq!(
        judge(&contests, &again, status("A"), due),
        Ok(Step::Restores)
    );
    assert_eq!(
        contests.message(&again, due),
        Some(message),
        "the name stays"
    );
    contests.wrote(&again, status("A"), 12, Some(&web(12)), due);
    assert_eq!(
        contests.look_again(&Name::from(&again.id), due),
        Some(QUIET)
    );
    assert_eq!(contests.message(&web(12), due + QUIET), None, "it is quiet");
}

/// An API server that refuses writes for a while is nobody's contest.
#[test]
fn a_restoration_that_fails_is_counted_once() {
    let (contests, now) = (contests(), Instant::now());
    contests.wrote(&web(1), status("A"), 2, Some(&web(2)), now);
    for _ in 0..10 {
        let judged = judge(&contests, &overwritten(3), status("A"), now);
        assert_eq!(judged, Ok(Step::Restores));
    }
    assert_eq!(contests.message(&overwritten(3), now), None);
}

/// Only a repetition of what was already written counts, and only if somebody undid it.
#[test]
fn legitimate_changes_are_written_at_once() {
    let (contests, now) = (contests(), Instant::now());
    let version = begin(&contests, now);
    let held = overwritten(version + 1);
    assert!(judge(&contests, &held, status("A"), now).is_err());
    let new = |service: &ServiceView, purpose| {
        assert_eq!(judge(&contests, service, purpose, now), Ok(Step::New));
    };
    new(&held, status("the cloud has another address"));
    new(&web(version), status("A"));
    let mut edited = held.clone();
    if let Some(Ok(wanted)) = &mut edited.load_balancer {
        wanted.listeners.push(listener(443));
    }
    assert!(
        judge(&contests, &edited, status("A"), now).is_err(),
        "an edit that changes nothing of what is written"
    );
    new(&edited, status("with port 443"));
    let left = web(version + 2);
    contests.wrote(
        &edited,
        status("with port 443"),
        version + 2,
        Some(&left),
        now,
    );
    let held = overwritten(version + 3);
    new(&held, status("A"));
    let mut deleted = held;
    deleted.deleting = true;
    new(&deleted, Purpose::of("release", &()));
}

/// Its state flips, and nobody else writes.
#[test]
fn a_service_that_flips_by_itself_is_not_contested() {
    let (contests, now) = (contests(), Instant::now());
    let flipped = |version| {
        let failed = condition(PROGRAMMED, "False", Reason::CloudError, "no");
        let mut flipped = web(version);
        flipped.conditions[1] = failed;
        flipped
    };
    for round in 0..40 {
        let (was, is) = (web(2 * round + 1), flipped(2 * round + 2));
        for (from, purpose, to) in [(&was, "B", &is), (&is, "A", &web(2 * round + 3))] {
            let purpose = status(purpose);
            assert_eq!(
                judge(&contests, from, purpose, now),
                Ok(Step::New),
                "{round}"
            );
            contests.wrote(from, purpose, to.version, Some(to), now);
        }
    }
}

/// What somebody writes can change what Ballast says about it, so that no write repeats one.
#[test]
fn ever_new_reactions_to_somebody_else_count_as_repetitions() {
    let (contests, now) = (contests(), Instant::now());
    let mut written = 0;
    for round in 0..40 {
        let version = 2 * round + 1;
        let purpose = status(&format!("{round} is not an address of ours"));
        if judge(&contests, &overwritten(version), purpose, now).is_ok() {
            let left = web(version + 1);
            contests.wrote(
                &overwritten(version),
                purpose,
                version + 1,
                Some(&left),
                now,
            );
            written += 1;
        }
    }
    assert_eq!(written, KNOWN + usize::from(FREE) + 1);
}

/// Somebody who overwrites the status can change the Service each time as well: something that
/// does not matter, or something that changes what Ballast writes.
#[test]
fn whoever_also_changes_the_service_each_time_is_contested() {
    for matters in [false, true] {
        let (contests, now) = (contests(), Instant::now());
        let (mut written, mut begun) = (0, 0);
        for round in 0..40_u64 {
            let version = 2 * round + 1;
            let mut service = overwritten(version);
            service.unknown_annotations = vec![format!("ballast.dev/x-{round}")];
            let purpose = if matters { round } else { 0 };
            let purpose = status(&format!("unknown annotation {purpose}"));
            let Ok(step) = judge(&contests, &service, purpose, now) else {
                continue;
            };
            let left = web(version + 1);
            contests.wrote(&service, purpose, version + 1, Some(&left), now);
            written += 1;
            begun += usize::from(step == Step::Begins);
        }
        let free = if matters { usize::from(EDITS) } else { 0 };
        assert_eq!(
            written,
            1 + free + usize::from(FREE) + 1,
            "matters: {matters}"
        );
        assert_eq!(begun, 1, "matters: {matters}");
    }
}

/// The write that removes the condition is about a Service that still has it.
#[test]
fn a_contest_that_is_over_does_not_begin_again_with_its_last_write() {
    let (contests, now) = (contests(), Instant::now());
    let version = begin(&contests, now);
    let mut contested = condition(CONTESTED, "True", Reason::Accepted, "somebody");
    contested.reason = OVERWRITTEN.into();
    let mut reported = web(version);
    reported.conditions.push(contested);
    let over = now + QUIET + WINDOW;
    // Another write of the process forgets what is over.
    let other = ServiceView::test("other");
    contests.wrote(&other, status("A"), 2, None, over);
    assert_eq!(contests.message(&reported, over), None);
    contests.wrote(&other, status("A"), 3, None, over + WINDOW);
    let left = web(version + 1);
    let (purpose, now) = (status("A"), over + WINDOW);
    contests.wrote(&reported, purpose, version + 1, Some(&left), now);
    assert_eq!(contests.message(&left, now), None);
    assert_eq!(contests.look_again(&Name::from(&left.id), now), None);
}

/// What is only planned is not counted: the patch can turn out to be empty.
#[test]
fn a_write_that_is_not_sent_does_not_count() {
    let (contests, now) = (contests(), Instant::now());
    contests.wrote(&web(1), status("A"), 2, Some(&web(2)), now);
    for version in 3..40 {
        let plan = contests.plan(&overwritten(version), status("A"), now);
        assert_eq!(plan.map(|plan| plan.step), Ok(Step::Restores));
    }
    assert_eq!(contests.message(&overwritten(40), now), None);
}

/// The first write of a process is one of finalizers.
#[test]
fn a_contest_survives_a_write_of_finalizers_after_a_restart() {
    let (contests, now) = (contests(), Instant::now());
    let mut reported = web(1);
    let mut contested = condition(CONTESTED, "True", Reason::Accepted, "somebody");
    contested.reason = OVERWRITTEN.into();
    reported.conditions.push(contested);
    let stripped = |version| {
        let mut stripped = reported.clone().held_by(&[]);
        stripped.version = version;
        stripped
    };
    let finalizer = Purpose::of("finalizer", &"local");
    let service = stripped(2);
    assert_eq!(judge(&contests, &service, finalizer, now), Ok(Step::New));
    let mut left = reported.clone();
    left.version = 3;
    contests.wrote(&service, finalizer, 3, Some(&left), now);
    assert_eq!(contests.message(&left, now).as_deref(), Some("somebody"));
    let first = judge(&contests, &stripped(4), finalizer, now);
    assert_eq!(first, Ok(Step::Restores), "the first one is free");
    left.version = 5;
    contests.wrote(&stripped(4), finalizer, 5, Some(&left), now);
    assert!(judge(&contests, &stripped(6), finalizer, now).is_err());
}

#[test]
fn every_part_that_is_ours_counts_and_nothing_else() {
    type Edit = fn(&mut ServiceView);
    let edits: [(&str, bool, Edit); 9] = [
        ("another address", true, |it| {
            it.ingress[0] = ingress("203.0.113.9", 80);
        }),
        ("no address", true, |it| it.ingress.clear()),
        ("a field of an entry", true, |it| {
            it.ingress_is_exact = false;
        }),
        ("a condition goes", true, |it| it.conditions.truncate(1)),
        ("a condition of ours comes", true, |it| {
            it.conditions
                .push(condition("ballast.dev/X", "True", Reason::Accepted, "x"));
        }),
        ("our finalizer goes", true, |it| it.held_by.clear()),
        ("the standard finalizer comes", true, |it| {
            it.standard_finalizer = true;
        }),
        ("order of conditions", false, |it| it.conditions.reverse()),
        ("a finalizer of somebody else", false, |it| {
            it.other_finalizers = Some("a/b".into());
        }),
    ];
    for (what, counts, edit) in edits {
        let (contests, now) = (contests(), Instant::now());
        contests.wrote(&web(1), status("A"), 2, Some(&web(2)), now);
        let mut edited = web(3);
        edit(&mut edited);
        let step = if counts { Step::Restores } else { Step::New };
        assert_eq!(
            judge(&contests, &edited, status("A"), now),
            Ok(step),
            "{what}"
        );
    }
}

#[test]
fn a_release_that_is_undone_is_recognised_without_a_prediction() {
    let (contests, now) = (contests(), Instant::now());
    let (held, bare) = (
        |version| {
            let mut held = ServiceView::test("web").held_by(&["old"]);
            held.version = version;
            held
        },
        |version| {
            let mut bare = ServiceView::test("web");
            bare.version = version;
            bare
        },
    );
    let release = Purpose::of("release", &"old");
    contests.wrote(&held(1), release, 2, None, now);
    assert_eq!(contests.may_write(&bare(2), release, now), Ok(()));
    assert_eq!(judge(&contests, &held(3), release, now), Ok(Step::Restores));
}

#[test]
fn a_contest_survives_a_restart_and_a_later_service_of_the_name_has_none() {
    let (before, now) = (contests(), Instant::now());
    let version = begin(&before, now);
    let message = before.message(&web(version), now).unwrap();
    let mut reported = web(version);
    reported
        .conditions
        .push(condition(CONTESTED, "True", Reason::Accepted, &message));
    reported.conditions[2].reason = OVERWRITTEN.into();
    let after = contests();
    assert_eq!(
        after.message(&reported, now),
        Some(message),
        "nothing to write"
    );
    assert_eq!(
        after.look_again(&Name::from(&reported.id), now),
        Some(QUIET)
    );
    assert_eq!(after.message(&reported, now + QUIET), None);
    let mut later = overwritten(version + 1);
    later.id.uid = "uid-later".into();
    assert_eq!(judge(&before, &later, status("A"), now), Ok(Step::New));
}

#[test]
fn records_of_quiet_services_are_forgotten() {
    let (contests, now) = (contests(), Instant::now());
    for number in 0..100 {
        let service = ServiceView::test(&format!("web-{number}"));
        contests.wrote(&service, status("A"), 2, None, now);
    }
    assert_eq!(contests.lock().records.len(), 100);
    contests.wrote(&web(1), status("A"), 2, None, now + WINDOW);
    assert_eq!(contests.lock().records.len(), 1);
    contests.forget(&Name::from(&web(1).id), now + WINDOW);
    assert!(contests.lock().records.is_empty());
}

/// One thing that happens to a Service.
#[derive(Clone, Debug)]
enum Act {
    /// Somebody else changes our part.
    Overwrite,
    /// The owner edits the spec.
    Edit,
    /// The cloud reports something else, the first time of several states.
    Change(u8),
    /// Time passes.
    Pass(u64),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => Just(Act::Overwrite),
        1 => Just(Act::Edit),
        1 => (0_u8..3).prop_map(Act::Change),
        4 => (1_u64..30_000).prop_map(Act::Pass),
    ]
}

proptest! {
    /// Whatever happens: the first edits in a minute are written at once, the writes are bounded by
    /// what happened and by time, and when the other one stops, the Service has what it should have
    /// and no condition within the longest pause and a quiet time.
    #[test]
    fn a_fight_ends_well(acts in prop::collection::vec(act(), 1..200)) {
        let (contests, start) = (contests(), Instant::now());
        let (mut now, mut version) = (start, 1);
        let mut edited: Vec<Instant> = Vec::new();
        let (mut port, mut state, mut shown) = (1_u16, 0_u8, None::<(u16, u8)>);
        let (writes, mut causes) = (std::cell::Cell::new(0_u64), 0_u64);
        let view = |version, port: u16, shown: Option<(u16, u8)>| {
            let mut view = ServiceView::test("web");
            view.version = version;
            if let Some(Ok(wanted)) = &mut view.load_balancer {
                wanted.listeners = vec![listener(port)];
            }
            view.ingress = match shown {
                Some((port, state)) => vec![ingress(&format!("192.0.2.{state}"), port)],
                None => vec![ingress("203.0.113.9", 1)],
            };
            view
        };
        // The Service is looked at: returns whether it is as it should be afterwards.
        let turn = |now, version: &mut u64, port, state, shown: &mut Option<(u16, u8)>| {
            if *shown == Some((port, state)) {
                return true;
            }
            let service = view(*version, port, *shown);
            let purpose = Purpose::of("status", &(port, state));
            if judge(&contests, &service, purpose, now).is_err() {
                return false;
            }
            writes.set(writes.get() + 1);
            *version += 1;
            *shown = Some((port, state));
            let left = view(*version, port, *shown);
            contests.wrote(&service, purpose, *version, Some(&left), now);
            true
        };
        turn(now, &mut version, port, state, &mut shown);
        for act in acts {
            let edits = matches!(act, Act::Edit);
            match act {
                Act::Overwrite => { version += 1; shown = None; }
                Act::Edit => { version += 1; causes += 1; port += 1; }
                Act::Change(to) => { causes += u64::from(state != to); state = to; }
                Act::Pass(millis) => now += Duration::from_millis(millis),
            }
            let written = turn(now, &mut version, port, state, &mut shown);
            if edits {
                edited.push(now);
                let recent = edited.iter().filter(|at| now - **at < WINDOW);
                let few = recent.count() <= usize::from(EDITS);
                prop_assert!(written || !few, "an edit waits");
            }
        }
        let minutes = (now - start).as_secs() / 60 + 1;
        // After an edit, everything is new once more.
        let bound = 1 + causes * (KNOWN as u64 + 1) + minutes * (2 * u64::from(FREE) + 4);
        let writes = writes.get();
        prop_assert!(writes <= bound, "{writes} writes, {causes} causes, {minutes} minutes");
        let name = Name::from(&view(0, 1, None).id);
        for _ in 0..2 {
            now += LONGEST;
            turn(now, &mut version, port, state, &mut shown);
        }
        prop_assert_eq!(shown, Some((port, state)));
        now += QUIET;
        prop_assert_eq!(contests.message(&view(version, port, shown), now), None);
        prop_assert_eq!(contests.look_again(&name, now), None);
    }
}
