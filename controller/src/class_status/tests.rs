use super::*;
use crate::fixtures::{id, second};

fn arcs(services: &[ServiceView]) -> Vec<Arc<ServiceView>> {
    services.iter().cloned().map(Arc::new).collect()
}

fn usage_of(services: &[ServiceView], ledger: &Ledger) -> Usage {
    let classes = Classes::test([ClassView::test("local")]);
    usage(&classes, &arcs(services), ledger)
        .remove("local")
        .unwrap()
}

fn said(
    class: &ClassView,
    classes: &Classes,
    usage: &Usage,
    kind: &str,
) -> (String, String, String) {
    let status = report(class, classes, usage, second(9));
    let condition = status
        .conditions
        .into_iter()
        .find(|condition| condition.type_ == kind)
        .unwrap();
    (condition.status, condition.reason, condition.message)
}

#[test]
fn users_are_counted_and_named() {
    let services: Vec<ServiceView> = (0..7)
        .map(|n| ServiceView::test(&format!("s{n}")).held_by(&["local"]))
        .collect();
    let usage = usage_of(&services, &Ledger::default());
    assert_eq!((usage.held, usage.wanted, usage.names.len()), (7, 7, NAMED));
    let classes = Classes::test([ClassView::test("local")]);
    let (status, _, message) = said(&ClassView::test("local"), &classes, &usage, "InUse");
    assert_eq!(status, "True");
    assert_eq!(
        message,
        "Used by shop/s0, shop/s1, shop/s2, shop/s3, shop/s4 and 2 more"
    );
}

#[test]
fn a_reservation_that_no_finalizer_shows_yet_counts() {
    let ledger = Ledger::default();
    ledger.record(&id("web"), "local");
    assert_eq!(usage_of(&[], &ledger).held, 1);
}

#[test]
fn the_finalizer_goes_on_before_the_first_use_and_off_after_the_last() {
    let bare = ClassView {
        finalizers: vec![],
        ..ClassView::test("local")
    };
    let leaving = |class: ClassView| ClassView {
        deleting: true,
        ..class
    };
    let wanted = Usage {
        wanted: 1,
        ..Usage::default()
    };
    let held = Usage {
        held: 1,
        ..Usage::default()
    };
    for (what, class, usage, expected) in [
        ("nobody", bare.clone(), Usage::default(), Guard::Keep),
        (
            "somebody wants it",
            bare.clone(),
            wanted.clone(),
            Guard::Add,
        ),
        (
            "in use",
            ClassView::test("local"),
            held.clone(),
            Guard::Keep,
        ),
        (
            "no longer used",
            ClassView::test("local"),
            Usage::default(),
            Guard::Remove,
        ),
        (
            "wanted and not yet held",
            ClassView::test("local"),
            wanted.clone(),
            Guard::Keep,
        ),
        (
            "deleted while in use",
            leaving(ClassView::test("local")),
            held,
            Guard::Keep,
        ),
        (
            "deleted, only refused ones want it",
            leaving(ClassView::test("local")),
            wanted.clone(),
            Guard::Remove,
        ),
        (
            "deleted before it was held",
            leaving(bare.clone()),
            wanted.clone(),
            Guard::Keep,
        ),
        (
            "unusable",
            ClassView {
                provider: Err("torn".into()),
                ..bare
            },
            wanted,
            Guard::Keep,
        ),
    ] {
        assert_eq!(guard(&class, &usage, true, false), expected, "{what}");
    }
}

#[test]
fn a_class_is_not_let_go_before_its_cloud_was_looked_at() {
    let (class, nobody) = (ClassView::test("local"), Usage::default());
    assert_eq!(guard(&class, &nobody, false, false), Guard::Keep);
    assert_eq!(guard(&class, &nobody, true, false), Guard::Remove);
}

#[test]
fn a_removal_that_may_have_failed_is_taken_back_when_somebody_comes() {
    let wanted = Usage {
        wanted: 1,
        ..Usage::default()
    };
    assert_eq!(
        guard(&ClassView::test("local"), &wanted, true, true),
        Guard::Add
    );
}

#[test]
fn a_class_says_why_it_does_not_serve() {
    let aws = ClassView {
        provider: Ok(ballast_crds::ProviderSettings::Aws(
            ballast_crds::AwsSettings {
                region: "eu-central-1".into(),
            },
        )),
        ..ClassView::test("local")
    };
    let classes = Classes::test([aws.clone()]);
    assert_eq!(
        said(&aws, &classes, &Usage::default(), "Accepted").1,
        "Unsupported"
    );
    let mut classes = Classes::test([ClassView::test("local")]);
    classes
        .instances
        .insert("local".into(), Instance::Failing("no answer".into()));
    let (status, reason, message) = said(
        &ClassView::test("local"),
        &classes,
        &Usage::default(),
        "Ready",
    );
    assert_eq!(
        (status.as_str(), reason.as_str(), message.as_str()),
        ("False", "CloudError", "no answer")
    );
}

#[test]
fn a_second_report_is_the_first() {
    let classes = Classes::test([ClassView::test("local")]);
    let class = ClassView::test("local");
    let first = report(&class, &classes, &Usage::default(), second(1));
    let later = ClassView {
        status: first.clone(),
        ..class
    };
    assert_eq!(
        report(&later, &classes, &Usage::default(), second(99)),
        first
    );
}
