//! Conditions that only some providers report.

use super::*;

fn announced(holds: Option<bool>, message: &str) -> ExtraCondition {
    ExtraCondition {
        kind: ExtraKind::Announced,
        holds,
        reason: "Announced",
        message: message.to_owned(),
        places: Vec::new(),
    }
}

fn observed(conditions: Vec<ExtraCondition>) -> Observed {
    Observed {
        conditions,
        ..programmed("192.0.2.1")
    }
}

fn after(service: &ServiceView, conditions: Vec<ExtraCondition>, at: i64) -> ServiceView {
    let desired = Desired::observed(service, "local", &observed(conditions), Backing::Nodes);
    desired.applied_to(service, second(at))
}

#[test]
fn the_status_has_exactly_the_conditions_that_the_provider_reports() {
    let node_1 = || announced(Some(true), "node-1 announces 192.0.2.1");
    let with = |condition| after(&settled(), vec![condition], 6);
    let stranger = condition("ballast.dev/Other", "True", Reason::Accepted, "so it is");
    let kind = ExtraKind::Announced.as_str();
    for (what, service, reported, expected) in [
        ("steady without", settled(), vec![], None),
        ("steady with", with(node_1()), vec![node_1()], None),
        ("new", settled(), vec![node_1()], Some(vec![(kind, "True")])),
        (
            "another message",
            with(node_1()),
            vec![announced(Some(true), "node-2 announces 192.0.2.1")],
            Some(vec![(kind, "True")]),
        ),
        (
            "does not hold any more",
            with(node_1()),
            vec![announced(Some(false), "no node announces it")],
            Some(vec![(kind, "False")]),
        ),
        (
            "not known",
            with(node_1()),
            vec![announced(None, "not known")],
            Some(vec![(kind, "Unknown")]),
        ),
        (
            "not reported any more",
            with(node_1()),
            vec![],
            Some(vec![(kind, "delete")]),
        ),
        (
            "somebody's under our name",
            settled().saying(&[stranger]),
            vec![],
            Some(vec![("ballast.dev/Other", "delete")]),
        ),
        (
            "twice the same",
            settled(),
            vec![node_1(), announced(Some(false), "no")],
            Some(vec![(kind, "True")]),
        ),
    ] {
        let desired = Desired::observed(&service, "local", &observed(reported), Backing::Nodes);
        let patch = patch(&service, &desired, second(9));
        let written = patch.as_ref().map(|patch| {
            let conditions = patch["status"]["conditions"].as_array().unwrap().iter();
            let change = |it: &Value| {
                let value = it.get("$patch").unwrap_or(&it["status"]).clone();
                (it["type"].clone(), value)
            };
            conditions.map(change).collect::<Vec<_>>()
        });
        let expected = expected.map(|all: Vec<(&str, &str)>| {
            let all = all.into_iter();
            all.map(|(kind, change)| (json!(kind), json!(change)))
                .collect()
        });
        assert_eq!(written, expected, "{what}");
        let applied = desired.applied_to(&service, second(9));
        assert_eq!(super::patch(&applied, &desired, second(10)), None, "{what}");
        assert_eq!(transition_event(&service, &desired), None, "{what}");
    }
}

#[test]
fn its_time_changes_only_with_its_status() {
    let begun = after(&settled(), vec![announced(Some(true), "node-1")], 6);
    let since = |service: &ServiceView| service.condition("ballast.dev/Announced").unwrap().since;
    assert_eq!(since(&begun), second(6));
    let moved = after(&begun, vec![announced(Some(true), "node-2")], 7);
    assert_eq!(since(&moved), second(6));
    let silent = after(&moved, vec![announced(Some(false), "none")], 8);
    assert_eq!(since(&silent), second(8));
}

#[test]
fn messages_are_bounded() {
    let long = after(
        &settled(),
        vec![announced(Some(true), &"x".repeat(50_000))],
        6,
    );
    let message = &long.condition("ballast.dev/Announced").unwrap().message;
    assert!(message.len() < 1_000, "{}", message.len());
}

/// Of a Service that nobody keeps up to date, nothing is claimed; a failure changes nothing.
#[test]
fn it_goes_with_a_refusal_and_stays_with_a_failure() {
    let service = after(&settled(), vec![announced(Some(true), "node-1")], 6);
    let no = refusal("no");
    for (what, desired, stays) in [
        ("refused", Desired::refused(&service, &no, false), false),
        (
            "refused and kept",
            Desired::refused(&service, &no, true),
            true,
        ),
        (
            "failed",
            Desired::failed(&service, "local", Some("local"), &transient(), second(9)),
            true,
        ),
        ("first", Desired::first(&service, "local"), true),
    ] {
        let after = desired.applied_to(&service, second(9));
        let has = after.condition("ballast.dev/Announced").is_some();
        assert_eq!(has, stays, "{what}");
    }
    let released = released_patch(&service.cluster_ip(), "local", second(9)).unwrap();
    let dropped = released["status"]["conditions"].as_array().unwrap().iter();
    assert!(
        dropped
            .map(|it| &it["type"])
            .any(|kind| kind == "ballast.dev/Announced")
    );
}

#[test]
fn a_condition_of_which_the_provider_knows_nothing_new_stays() {
    let kind = ExtraKind::Announced;
    let service = after(&settled(), vec![announced(Some(true), "node-1")], 6);
    let quiet = Observed {
        unchanged: vec![kind],
        ..observed(Vec::new())
    };
    let desired = Desired::observed(&service, "local", &quiet, Backing::Nodes);
    assert_eq!(patch(&service, &desired, second(7)), None);
}
