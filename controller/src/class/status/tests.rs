use super::*;
use crate::fixtures::{PureProvider, id, second};
use crate::run::factory::samples;

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
    let status = report(
        class,
        classes,
        usage,
        false,
        &class.status.conditions,
        second(9),
    );
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
    assert_eq!(
        (usage.held, usage.requested, usage.names.len()),
        (7, 7, NAMED)
    );
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
        requested: 1,
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
            bare.of_provider(Err("torn".into())),
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
        requested: 1,
        ..Usage::default()
    };
    assert_eq!(
        guard(&ClassView::test("local"), &wanted, true, true),
        Guard::Add
    );
}

#[test]
fn a_class_says_why_it_does_not_serve() {
    let aws = ClassView::test("local").of_provider(Ok(samples::not_accepted()));
    let classes = Classes::test([aws.clone()]);
    assert_eq!(
        said(&aws, &classes, &Usage::default(), "Accepted").1,
        "Unsupported"
    );
    for expected in [Reason::CloudError, Reason::AccessDenied] {
        let mut classes = Classes::test([ClassView::test("local")]);
        classes
            .instances
            .insert("local".into(), Instance::Failing(expected, "no".into()));
        let (status, reason, message) = said(
            &ClassView::test("local"),
            &classes,
            &Usage::default(),
            "Ready",
        );
        assert_eq!(
            (status.as_str(), reason.as_str(), message.as_str()),
            ("False", expected.as_str(), "no")
        );
    }
}

#[test]
fn a_class_says_what_its_provider_remarks() {
    for (clouds, expected) in [
        (&[][..], "The provider is ready"),
        (
            &["one", "two"][..],
            "The provider is ready. It uses one. It uses two",
        ),
    ] {
        let class = ClassView::test("local");
        let mut classes = Classes::test([class.clone()]);
        let ready = Instance::Ready(Arc::new(PureProvider(clouds)));
        classes.instances.insert("local".into(), ready);
        let said = said(&class, &classes, &Usage::default(), "Ready");
        assert_eq!(said, ("True".into(), "Ready".into(), expected.into()));
    }
}

#[test]
fn a_second_report_is_the_first() {
    let classes = Classes::test([ClassView::test("local")]);
    let class = ClassView::test("local");
    let first = report(
        &class,
        &classes,
        &Usage::default(),
        false,
        &class.status.conditions,
        second(1),
    );
    let later = ClassView {
        status: first.clone(),
        ..class
    };
    assert_eq!(
        report(
            &later,
            &classes,
            &Usage::default(),
            false,
            &later.status.conditions,
            second(99)
        ),
        first
    );
}

/// What is in the way of a helm uninstall is the class's own finalizer: it goes when the
/// last load balancer has, whoever still waits for one.
#[test]
fn a_drained_class_is_wanted_by_nobody() {
    let drained = ClassView::test("local").drains(None);
    let classes = Classes::test([drained.clone()]);
    let of = |service: ServiceView| {
        usage(&classes, &arcs(&[service]), &Ledger::default())
            .remove("local")
            .unwrap()
    };
    let waiting = of(ServiceView::test("web"));
    assert_eq!((waiting.requested, waiting.held), (0, 0));
    assert_eq!(guard(&drained, &waiting, true, false), Guard::Remove);
    let held = of(ServiceView::test("web").held_by(&["local"]));
    assert_eq!((held.requested, held.held), (0, 1));
    assert_eq!(guard(&drained, &held, true, false), Guard::Keep);
}

#[test]
fn a_drained_class_with_pools_is_held_by_addresses_alone() {
    let view = ClassView::test("local").of_provider(Ok(samples::from_pools()));
    let accepted = crate::fixtures::condition(ACCEPTED, "True", Reason::Accepted, "yes");
    let waits = || ServiceView::test("web").saying(std::slice::from_ref(&accepted));
    for (what, class, service, expected) in [
        ("waits for an address", view.clone(), waits(), 1),
        ("drained", view.clone().drains(None), waits(), 0),
        (
            "drained, and it still has one",
            view.drains(None),
            waits().publishing("192.0.2.1"),
            1,
        ),
    ] {
        let classes = Classes::test([class]);
        let usage = usage(&classes, &arcs(&[service]), &Ledger::default());
        assert_eq!(usage["local"].held, expected, "{what}");
    }
}

#[test]
fn a_drained_class_says_so_at_once_and_leaves_the_switch_alone() {
    let class = ClassView {
        default: true,
        ..ClassView::test("local").drains(Some("helm uninstall"))
    };
    let classes = Classes::test([class.clone()]);
    let nobody = Usage::default();
    let (status, reason, message) = said(&class, &classes, &nobody, "Accepted");
    assert_eq!((status.as_str(), reason.as_str()), ("False", "Draining"));
    assert!(message.contains("--undo --classes local"), "{message}");
    let (status, reason, message) = said(&class, &classes, &nobody, "Default");
    assert_eq!((status.as_str(), reason.as_str()), ("True", "Effective"));
    assert!(message.contains("no class serves them"), "{message}");

    let before = ClassView::test("local");
    let calm = report(
        &before,
        &Classes::test([before.clone()]),
        &nobody,
        false,
        &before.status.conditions,
        second(1),
    );
    let told = report(
        &class,
        &classes,
        &nobody,
        false,
        &class.status.conditions,
        second(9),
    );
    assert!(!reports_draining(&class, &calm), "news does not wait");
    assert!(reports_draining(&class, &told));
    assert!(!reports_draining(&before, &told), "the end of it as well");
    assert!(reports_draining(&before, &calm));

    assert_eq!(
        told.draining, class.status.draining,
        "a second report is the first"
    );
    let sent = serde_json::to_value(own_part(&told)).unwrap();
    assert_eq!(sent.get("draining"), None, "{sent}");
}

/// `ballast teardown` believes this condition, because a tool can take the finalizer away.
#[test]
fn the_end_of_the_use_of_a_drained_class_is_reported_at_once() {
    let used = Usage {
        held: 1,
        ..Usage::default()
    };
    let published = |class: &ClassView, usage: &Usage| {
        let classes = Classes::test([class.clone()]);
        report(class, &classes, usage, false, &[], second(1))
    };
    for (what, drains, before, now, expected) in [
        ("still in use", true, &used, &used, false),
        ("the last one is gone", true, &used, &Usage::default(), true),
        (
            "it was reported",
            true,
            &Usage::default(),
            &Usage::default(),
            false,
        ),
        (
            "not drained, so nobody waits",
            false,
            &used,
            &Usage::default(),
            false,
        ),
    ] {
        let class = ClassView::test("local");
        let class = if drains { class.drains(None) } else { class };
        let before = published(&class, before);
        let classes = Classes::test([class.clone()]);
        assert_eq!(has_news(&class, &classes, &before, now), expected, "{what}");
        let mut bare = ClassView {
            finalizers: Vec::new(),
            ..class
        };
        bare.status.conditions = before.conditions;
        let busy = drains && reports_use(&bare.status);
        assert_eq!(is_releasing(&Classes::test([bare])), busy, "{what}");
    }
}
