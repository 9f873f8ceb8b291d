mod drain;
mod missing;
mod places;
mod pods;
mod share;

use std::collections::BTreeSet;

use ballast_provider::{Family, LoadBalancer};

use super::*;
use crate::class::orphans::Found;
use crate::class::{Contender, Scope};
use crate::fixtures::id;

/// A decision as a test reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Ignore,
    Clean,
    Release(&'static str),
    /// A release because of the class; the Service stays.
    Drain(&'static str),
    Refuse(Reason),
    Wait(Option<Reason>),
    Later,
    Ensure(&'static str),
}

fn intern(class: &str) -> &'static str {
    ["local", "other", "default"]
        .into_iter()
        .find(|known| *known == class)
        .unwrap()
}

fn step_among(
    service: &ServiceView,
    classes: &Classes,
    ledger: &Ledger,
    all: &[ServiceView],
) -> Step {
    step_of(decision(service, classes, ledger, all))
}

fn decision(
    service: &ServiceView,
    classes: &Classes,
    ledger: &Ledger,
    all: &[ServiceView],
) -> Decision {
    let all: Vec<Arc<ServiceView>> = all.iter().cloned().map(Arc::new).collect();
    let world = World {
        classes,
        ledger,
        namespaces: &Namespaces::default(),
        endpoints: &Endpoints::default(),
        services: &|| all.clone(),
        class_missing_for: ARRIVAL_GRACE,
    };
    decide(service, &world)
}

fn step_of(decision: Decision) -> Step {
    match decision {
        Decision::Ignore => Step::Ignore,
        Decision::Clean => Step::Clean,
        Decision::Release { class, drained, .. } => match drained {
            None => Step::Release(intern(&class)),
            Some(drained) => {
                assert_eq!(drained.reason, Reason::Draining);
                Step::Drain(intern(&class))
            }
        },
        Decision::Refuse { refusal, .. } => Step::Refuse(refusal.reason),
        Decision::Wait { why, .. } => Step::Wait(why.map(|why| why.reason)),
        Decision::Later(_) => Step::Later,
        Decision::Ensure { class, .. } => Step::Ensure(intern(&class)),
    }
}

fn step(service: &ServiceView, classes: &Classes) -> Step {
    step_among(service, classes, &Ledger::default(), &[])
}

/// Whether a Service is served in a way that deletes nothing.
fn deletes_nothing(classes: &Classes) -> bool {
    match decision(&web(), classes, &Ledger::default(), &[]) {
        Decision::Ensure { balancer, .. } => balancer.deletes_nothing,
        _ => panic!("it is not served"),
    }
}

fn local() -> Classes {
    Classes::test([ClassView::test("local")])
}

fn with_default() -> Classes {
    let default = ClassView {
        default: true,
        ..ClassView::test("default")
    };
    Classes::test([ClassView::test("local"), default])
}

fn web() -> ServiceView {
    ServiceView::test("web")
}

#[test]
fn who_is_served_by_whom() {
    let classless = || web().class(None);
    for (what, service, expected) in [
        ("our class", web(), Step::Ensure("local")),
        (
            "a foreign class",
            web().class(Some("example.com/lb")),
            Step::Ignore,
        ),
        (
            "a foreign class that looks like ours",
            web().class(Some("ballast.devil/local")),
            Step::Ignore,
        ),
        (
            "no class: the default",
            classless(),
            Step::Ensure("default"),
        ),
        (
            "no class, held",
            classless().held_by(&["local"]).standard(),
            Step::Ensure("local"),
        ),
        (
            "no class, and held by a class that it once named",
            classless().held_by(&["local"]),
            Step::Release("local"),
        ),
        ("no load balancer wanted", web().cluster_ip(), Step::Ignore),
        (
            "our class, but it does not exist",
            web().class(Some("ballast.dev/nope")),
            Step::Refuse(Reason::ClassNotFound),
        ),
    ] {
        assert_eq!(step(&service, &with_default()), expected, "{what}");
    }
    assert_eq!(
        step(&classless(), &local()),
        Step::Ignore,
        "no class and no default"
    );
}

/// The rows of upstream's `TestSyncLoadBalancerIfNeeded` and `TestNeedsCleanup`.
#[test]
fn finalizers_say_what_is_to_be_released() {
    for (what, service, expected) in [
        (
            "deleted before anything was done",
            web().deleting(),
            Step::Ignore,
        ),
        (
            "deleted",
            web().held_by(&["local"]).deleting(),
            Step::Release("local"),
        ),
        (
            "changed to ClusterIP",
            web().held_by(&["local"]).cluster_ip(),
            Step::Release("local"),
        ),
        (
            "wanted again by its own class",
            web().held_by(&["local"]),
            Step::Ensure("local"),
        ),
        (
            "wanted by another class since",
            web().class(Some("ballast.dev/other")).held_by(&["local"]),
            Step::Release("local"),
        ),
        (
            "wanted by a foreign class since",
            web().class(Some("example.com/lb")).held_by(&["local"]),
            Step::Release("local"),
        ),
        (
            "both, one stale",
            web().held_by(&["local", "other"]),
            Step::Release("other"),
        ),
        (
            "only upstream's finalizer: not ours",
            web().cluster_ip().standard(),
            Step::Ignore,
        ),
    ] {
        let classes = Classes::test([ClassView::test("local"), ClassView::test("other")]);
        assert_eq!(step(&service, &classes), expected, "{what}");
    }
}

#[test]
fn the_ledger_speaks_where_a_finalizer_was_taken_off() {
    let classes = Classes::test([ClassView::test("local"), ClassView::test("other")]);
    let ledger = Ledger::default();
    ledger.record(&id("web"), "other");
    for (service, expected) in [
        (web(), Step::Release("other")),
        (web().cluster_ip(), Step::Release("other")),
        (
            web().class(Some("ballast.dev/other")),
            Step::Ensure("other"),
        ),
        (ServiceView::test("api"), Step::Ensure("local")),
    ] {
        assert_eq!(
            step_among(&service, &classes, &ledger, &[]),
            expected,
            "{service:?}"
        );
    }
}

#[test]
fn a_release_that_cannot_be_done_says_why_and_keeps_the_finalizer() {
    let held = web().held_by(&["other"]).deleting();
    assert_eq!(
        step(&held, &local()),
        Step::Wait(Some(Reason::ClassNotFound))
    );
    let mut classes = Classes::test([ClassView::test("other")]);
    classes.instances.insert(
        "other".into(),
        Instance::Failing(Reason::CloudError, "no answer".into()),
    );
    assert_eq!(step(&held, &classes), Step::Wait(Some(Reason::CloudError)));
    classes.instances.insert("other".into(), Instance::Starting);
    assert_eq!(step(&held, &classes), Step::Wait(None));
}

#[test]
fn conditions_of_ours_leave_with_the_claim() {
    let said = [crate::fixtures::condition(
        "ballast.dev/Accepted",
        "False",
        Reason::ClassNotFound,
        "",
    )];
    let foreign = web().class(Some("example.com/lb")).saying(&said);
    assert_eq!(step(&foreign, &local()), Step::Clean);
    assert_eq!(
        step(&web().cluster_ip().saying(&said), &local()),
        Step::Clean
    );
}

#[test]
fn another_scope_is_another_controllers_business() {
    let said = [crate::fixtures::condition(
        "ballast.dev/Accepted",
        "True",
        Reason::Accepted,
        "",
    )];
    let classes = Classes {
        scope: Scope::Only(BTreeSet::from(["other".to_owned()])),
        ..Classes::test([ClassView::test("local"), ClassView::test("other")])
    };
    for service in [
        web().saying(&said),
        web().held_by(&["local"]).saying(&said),
        web().held_by(&["local"]).deleting().saying(&said),
        web().held_by(&["local"]).cluster_ip().saying(&said),
    ] {
        assert_eq!(step(&service, &classes), Step::Ignore, "{service:?}");
    }
    assert_eq!(
        step(
            &web().class(Some("ballast.dev/other")).held_by(&["local"]),
            &classes
        ),
        Step::Wait(Some(Reason::Releasing)),
        "one installation after the other"
    );
    assert_eq!(
        step(&web().held_by(&["local", "other"]).cluster_ip(), &classes),
        Step::Release("other")
    );
}

#[test]
fn nothing_is_made_before_the_class_is_held_and_ready() {
    let unguarded = ClassView {
        finalizers: vec![],
        ..ClassView::test("local")
    };
    assert_eq!(step(&web(), &Classes::test([unguarded])), Step::Wait(None));
    let mut classes = local();
    classes.instances.insert(
        "local".into(),
        Instance::Failing(Reason::CloudError, "no answer".into()),
    );
    assert_eq!(step(&web(), &classes), Step::Wait(Some(Reason::CloudError)));
    classes.instances.clear();
    assert_eq!(step(&web(), &classes), Step::Wait(None));
}

#[test]
fn a_class_on_its_way_out_keeps_whom_it_has_and_takes_nobody() {
    let classes = Classes::test([ClassView {
        deleting: true,
        ..ClassView::test("local")
    }]);
    assert_eq!(step(&web(), &classes), Step::Refuse(Reason::ClassNotReady));
    assert_eq!(
        step(&web().held_by(&["local"]), &classes),
        Step::Ensure("local")
    );
}

#[test]
fn refusals_come_from_the_service_the_class_and_the_provider() {
    assert_eq!(
        step(&web().refused(Reason::Invalid), &local()),
        Step::Refuse(Reason::Invalid)
    );
    assert_eq!(
        step(
            &web().refused(Reason::Invalid).held_by(&["local"]),
            &local()
        ),
        Step::Refuse(Reason::Invalid),
        "a refused edit releases nothing"
    );
    let broken = ClassView::test("local").of_provider(Err("torn".into()));
    assert_eq!(
        step(&web(), &Classes::test([broken])),
        Step::Refuse(Reason::ClassNotReady)
    );
    assert_eq!(
        step(&web().shares("uid-web", 666), &local()),
        Step::Refuse(Reason::Unsupported)
    );
}

#[test]
fn the_oldest_default_wins_unless_contested() {
    let class = |name, created, default| ClassView {
        created: crate::fixtures::second(created),
        default,
        ..ClassView::test(name)
    };
    let mut classes = Classes::test([
        class("local", 2, true),
        class("other", 1, true),
        class("default", 0, false),
    ]);
    let classless = web().class(None);
    assert_eq!(step(&classless, &classes), Step::Ensure("other"));
    classes.contender = Contender::Unknown;
    assert_eq!(
        step(&classless, &classes),
        Step::Ignore,
        "nobody has looked"
    );
    classes.contender = Contender::Present("somebody".into());
    assert_eq!(step(&classless, &classes), Step::Ignore);
    assert_eq!(
        step(&classless.clone().held_by(&["local"]).standard(), &classes),
        Step::Ensure("local")
    );
    classes.views.insert(
        "other".into(),
        Arc::new(ClassView {
            force_default: true,
            ..class("other", 1, true)
        }),
    );
    assert_eq!(step(&classless, &classes), Step::Ensure("other"));
}

/// Who adds a port to an unnamed one must name both, and the named one gets a new node port.
#[test]
fn a_refused_edit_keeps_what_was_accepted_on_its_node_ports() {
    let kept = |service: &ServiceView, ledger: &Ledger| {
        let classes = local();
        let world = World {
            classes: &classes,
            ledger,
            namespaces: &Namespaces::default(),
            endpoints: &Endpoints::default(),
            services: &Vec::new,
            class_missing_for: ARRIVAL_GRACE,
        };
        match decide(service, &world) {
            Decision::Refuse { keep, .. } => keep.map(|keep| {
                let member = &keep.balancer.members[0];
                let listeners = member.load_balancer.listeners.iter();
                listeners
                    .map(|listener| (listener.port, listener.node_port))
                    .collect::<Vec<_>>()
            }),
            _ => panic!("not refused"),
        }
    };
    let holds = Ledger::default();
    holds.record(&id("web"), "local");
    let Some(Ok(moved)) = web().load_balancer else {
        panic!("valid")
    };
    let mut refused = web()
        .held_by(&["local"])
        .publishing("192.0.2.1")
        .refused(Reason::Unsupported);
    refused.accepted_before = Some(Box::new(moved));
    assert_eq!(kept(&refused, &holds), Some(vec![(80, 30_080)]));
    assert_eq!(kept(&refused, &Ledger::default()), None, "nothing was made");
    let with = |bend: fn(&mut LoadBalancer)| {
        let mut bent = refused.clone();
        bend(bent.accepted_before.as_mut().unwrap());
        kept(&bent, &holds)
    };
    let other =
        |wanted: &mut LoadBalancer| wanted.requested_addresses = vec!["192.0.2.2".parse().unwrap()];
    assert_eq!(
        with(other),
        None,
        "another address would move it while the status says nothing"
    );
    let dual = |wanted: &mut LoadBalancer| wanted.families.push(Family::V6);
    assert_eq!(with(dual), None, "another family");
    let fewer = |wanted: &mut LoadBalancer| wanted.listeners.clear();
    assert_eq!(with(fewer), None, "a published port is gone");
    let stripped = ServiceView {
        held_by: vec![],
        ..refused.clone()
    };
    assert_eq!(
        kept(&stripped, &holds),
        None,
        "no effect without the finalizer"
    );

    let mut beyond = web().held_by(&["local"]).publishing("192.0.2.1");
    if let Some(Ok(wanted)) = &mut beyond.load_balancer {
        wanted.listeners.push(crate::fixtures::listener(666));
    }
    assert_eq!(
        kept(&beyond, &holds),
        Some(vec![(80, 30_080)]),
        "refused by the provider"
    );
}

/// A copy of the cluster would delete what its original uses. So nothing is released before the first survey, nor while
/// there is a copy, also if only the former process knew of it.
#[test]
fn nothing_is_released_that_a_copy_may_use() {
    let deleted = web().held_by(&["local"]).deleting();
    let mut classes = local();
    assert_eq!(step(&deleted, &classes), Step::Release("local"));
    assert!(!deletes_nothing(&classes));
    let shared = Found {
        shared: Some("bl-1".to_owned()),
        ..Found::default()
    };
    let message = shared.shared_message().unwrap();
    classes.found.insert("local".to_owned(), Arc::new(shared));
    let waits = Step::Wait(Some(Reason::IdentityShared));
    assert_eq!(step(&deleted, &classes), waits);
    assert_eq!(step(&web(), &classes), Step::Ensure("local"), "it serves");
    assert!(deletes_nothing(&classes), "and deletes nothing");
    classes.found.clear();
    assert!(deletes_nothing(&classes), "nobody knows yet");
    assert_eq!(step(&deleted, &classes), Step::Wait(None), "not surveyed");
    let failed = Refusal::new(Reason::AccessDenied, "elasticloadbalancing:DescribeTags");
    classes.survey_errors.insert("local".to_owned(), failed);
    let denied = Step::Wait(Some(Reason::AccessDenied));
    assert_eq!(step(&deleted, &classes), denied, "and says why");
    classes.survey_errors.clear();
    let mut view = ClassView::test("local");
    view.status
        .conditions
        .push(k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition {
            type_: "IdentityShared".to_owned(),
            status: "True".to_owned(),
            message,
            reason: "ForeignSignOfLife".to_owned(),
            last_transition_time: k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
                jiff::Timestamp::UNIX_EPOCH,
            ),
            observed_generation: None,
        });
    classes.views.insert("local".to_owned(), Arc::new(view));
    assert_eq!(step(&deleted, &classes), waits, "the former process knew");
}
