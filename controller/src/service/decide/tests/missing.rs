//! Services whose class does not exist, or not yet.

use super::*;
use crate::fixtures::condition;

/// Each kind has its own watch, so a Service can arrive before its class.
#[test]
fn a_missing_class_has_a_moment_to_arrive() {
    let nowhere = || web().class(Some("ballast.dev/nope"));
    let says = |reason| nowhere().saying(&[condition(ACCEPTED, "False", reason, "no")]);
    let refuse = Step::Refuse(Reason::ClassNotFound);
    let half = ARRIVAL_GRACE / 2;
    for (what, service, missing_for, expected) in [
        ("new", nowhere(), Duration::ZERO, Step::Later),
        ("a moment later", nowhere(), half, Step::Later),
        ("after the moment", nowhere(), ARRIVAL_GRACE, refuse),
        (
            "refused already",
            says(Reason::ClassNotFound),
            Duration::ZERO,
            Step::Refuse(Reason::ClassNotFound),
        ),
        (
            "refused for another reason",
            says(Reason::Invalid),
            Duration::ZERO,
            Step::Later,
        ),
        (
            "its class exists",
            web(),
            Duration::ZERO,
            Step::Ensure("local"),
        ),
        (
            "a foreign class",
            web().class(Some("example.com/lb")),
            Duration::ZERO,
            Step::Ignore,
        ),
        (
            "deleted meanwhile",
            nowhere().deleting(),
            Duration::ZERO,
            Step::Ignore,
        ),
    ] {
        let world = World {
            classes: &local(),
            ledger: &Ledger::default(),
            namespaces: &Namespaces::default(),
            endpoints: &Endpoints::default(),
            services: &Vec::new,
            class_missing_for: missing_for,
        };
        assert_eq!(step_of(decide(&service, &world)), expected, "{what}");
    }
}

/// Without `spec.loadBalancerClass` it is the finalizer that names the class.
#[test]
fn a_missing_class_is_said_to_be_named_by_what_names_it() {
    let message = |service: &ServiceView| match decision(service, &local(), &Ledger::default(), &[])
    {
        Decision::Refuse { refusal, .. } => refusal.message,
        _ => panic!("not refused"),
    };
    let by_field = message(&web().class(Some("ballast.dev/gone")));
    assert!(
        by_field.starts_with("spec.loadBalancerClass is ballast.dev/gone, "),
        "{by_field}"
    );
    let by_finalizer = message(&web().class(None).held_by(&["gone"]).standard());
    assert!(
        by_finalizer.starts_with("the finalizer ballast.dev/gone names the class"),
        "{by_finalizer}"
    );
    assert!(!by_finalizer.contains("loadBalancerClass is"));
}
