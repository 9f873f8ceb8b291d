//! Of a class that is drained: nothing new, and back what it gave.

use super::*;

/// `local` is drained, and `default`, too, if it says so.
fn drained(default: bool) -> Classes {
    let view = ClassView {
        default: true,
        ..ClassView::test("default")
    };
    let view = if default { view.drains(None) } else { view };
    Classes::test([ClassView::test("local").drains(None), view])
}

#[test]
fn a_drained_class_takes_back_what_it_gave_and_gives_nothing() {
    let classless = || web().class(None);
    let refused = Step::Refuse(Reason::Draining);
    for (what, service, expected) in [
        ("new", web(), refused),
        (
            "has a load balancer",
            web().held_by(&["local"]).publishing("10.0.0.1"),
            Step::Drain("local"),
        ),
        (
            "an edit spoilt it since",
            web().held_by(&["local"]).refused(Reason::Invalid),
            Step::Drain("local"),
        ),
        (
            "an address and no finalizer, as of a pool",
            web().publishing("10.0.0.1"),
            Step::Drain("local"),
        ),
        (
            "goes by itself",
            web().held_by(&["local"]).deleting(),
            Step::Release("local"),
        ),
        (
            "changed to ClusterIP",
            web().held_by(&["local"]).cluster_ip(),
            Step::Release("local"),
        ),
        (
            "left the class before",
            web().class(Some("ballast.dev/default")).held_by(&["local"]),
            Step::Release("local"),
        ),
        (
            "no class, and once taken by this one",
            classless().held_by(&["local"]).standard(),
            Step::Drain("local"),
        ),
        (
            "no class, and the default is not drained",
            classless(),
            Step::Ensure("default"),
        ),
    ] {
        assert_eq!(step(&service, &drained(false)), expected, "{what}");
    }
}

/// It stays the default: a Service without a class does not wander to the next one, and
/// comes back to it when the drain is over.
#[test]
fn a_drained_default_class_keeps_the_others_away() {
    let younger = ClassView {
        default: true,
        created: crate::fixtures::second(99),
        ..ClassView::test("other")
    };
    let mut classes = drained(true);
    classes
        .views
        .insert("other".to_owned(), Arc::new(younger.clone()));
    let ready = Instance::Ready(Arc::new(crate::fixtures::PureProvider(&[])));
    classes.instances.insert("other".to_owned(), ready);
    let classless = || web().class(None);
    for (what, service, expected) in [
        ("new", classless(), Step::Refuse(Reason::Draining)),
        (
            "has one",
            classless()
                .held_by(&["default"])
                .standard()
                .publishing("10.0.0.1"),
            Step::Drain("default"),
        ),
        (
            "somebody else's address",
            classless().publishing("192.0.2.1"),
            Step::Refuse(Reason::Draining),
        ),
        (
            "somebody else's address and finalizer",
            classless().standard().publishing("192.0.2.1"),
            Step::Refuse(Reason::Draining),
        ),
        (
            "has one of the younger",
            classless().held_by(&["other"]).standard(),
            Step::Ensure("other"),
        ),
    ] {
        assert_eq!(step(&service, &classes), expected, "{what}");
    }
    classes.views.remove("default");
    assert_eq!(
        step(&classless(), &classes),
        Step::Ensure("other"),
        "with the class the switch is gone"
    );
}

#[test]
fn a_drain_waits_for_the_cloud_and_says_so() {
    let mut classes = drained(false);
    let held = web().held_by(&["local"]);
    for (instance, expected) in [
        (None, None),
        (Some(Instance::Starting), None),
        (
            Some(Instance::Failing(
                Reason::CloudError,
                "the cloud is down".into(),
            )),
            Some(Reason::CloudError),
        ),
    ] {
        match instance {
            None => drop(classes.instances.remove("local")),
            Some(instance) => drop(classes.instances.insert("local".to_owned(), instance)),
        }
        assert_eq!(step(&held, &classes), Step::Wait(expected));
    }
    assert_eq!(
        step(&web(), &classes),
        Step::Refuse(Reason::Draining),
        "nothing has to be asked to refuse"
    );
}

#[test]
fn what_the_ledger_knows_is_taken_back_too() {
    let ledger = Ledger::default();
    ledger.record(&id("web"), "local");
    assert_eq!(
        step_among(&web(), &drained(false), &ledger, &[]),
        Step::Drain("local"),
        "somebody took the finalizer off"
    );
}

/// Two installations: what the other's default class refuses says so in its words, and
/// the two do not write over each other.
#[test]
fn the_drained_default_of_another_installation_is_its_own_affair() {
    let mut classes = drained(true);
    classes.scope = Scope::Only(BTreeSet::from(["local".to_owned()]));
    let refused = web().class(None).saying(&[crate::fixtures::condition(
        crate::cluster::conditions::ACCEPTED,
        "False",
        Reason::Draining,
        "drained",
    )]);
    assert_eq!(step(&refused, &classes), Step::Ignore);
    classes.scope = Scope::All;
    assert_eq!(step(&refused, &classes), Step::Refuse(Reason::Draining));
}

#[test]
fn the_message_says_by_what_and_how_to_undo_it() {
    let class = ClassView::test("local");
    assert_eq!(class.drained(), None);
    let drained = |reason| class.clone().drains(reason).drained().unwrap().message;
    insta::assert_snapshot!(drained(None), @"LoadBalancerClass local has been draining since 1970-01-01T00:00:50Z (ballast teardown); it creates no load balancers and releases existing ones. To undo: ballast teardown --undo --classes local");
    insta::assert_snapshot!(drained(Some("helm uninstall")), @"LoadBalancerClass local has been draining since 1970-01-01T00:00:50Z (ballast teardown: helm uninstall); it creates no load balancers and releases existing ones. To undo: ballast teardown --undo --classes local");
}
