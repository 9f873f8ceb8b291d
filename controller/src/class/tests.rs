use ballast_crds::LoadBalancerClass;
use ballast_provider::Removal;
use kube::core::DeserializeGuard;

use super::*;
use crate::fixtures::second;
use crate::run::factory::Providers;

fn guard(yaml: &str) -> DeserializeGuard<LoadBalancerClass> {
    serde_saphyr::from_str(yaml).unwrap()
}

const GOOD: &str = "
apiVersion: ballast.dev/v1alpha1
kind: LoadBalancerClass
metadata: {name: local, uid: u, finalizers: [ballast.dev/in-use]}
spec: {default: true, maxLoadBalancers: 3, deletionPolicy: Retain, mock: {endpoint: 'http://127.0.0.1:8111'}}
";

#[test]
fn a_class_is_read_whole() {
    let class = ClassView::of(&guard(GOOD), &Providers::default());
    assert!(class.is_guarded() && class.default && !class.force_default);
    assert_eq!((class.max, class.removal), (Some(3), Removal::Retain));
    assert_eq!(class.unusable(), None);
}

#[test]
fn a_class_that_cannot_be_read_serves_nobody_and_deletes_nothing() {
    let torn = GOOD.replace("maxLoadBalancers: 3", "maxLoadBalancers: many");
    let class = ClassView::of(&guard(&torn), &Providers::default());
    assert_eq!(class.name, "local");
    assert!(
        class.unusable().unwrap().contains("cannot be read"),
        "{class:?}"
    );
    assert_eq!(class.removal, Removal::Retain);
}

#[test]
fn a_class_with_two_providers_or_none_or_a_refused_setting_serves_nobody() {
    for (spec, named) in [
        ("mock: {endpoint: 'http://a'}, l2: {}", "exactly one"),
        ("default: true", "exactly one"),
        (
            "aws: {region: eu-central-1, healthCheck: {protocol: grpc}}",
            "spec.aws.healthCheck.protocol",
        ),
    ] {
        let yaml = format!(
            "{{apiVersion: ballast.dev/v1alpha1, kind: LoadBalancerClass, metadata: {{name: c}}, spec: {{{spec}}}}}"
        );
        let message = ClassView::of(&guard(&yaml), &Providers::default())
            .unusable()
            .unwrap();
        assert!(message.contains(named), "{message}");
    }
}

#[test]
fn only_one_default_is_effective_and_the_others_say_why() {
    let class = |name: &str, created| ClassView {
        default: true,
        created: second(created),
        ..ClassView::test(name)
    };
    let mut classes = Classes::test([class("a", 2), class("b", 1)]);
    let state = |classes: &Classes, name| classes.default_state(classes.get(name).unwrap());
    assert_eq!(
        state(&classes, "a"),
        Some(DefaultState::Conflict("b".into()))
    );
    assert_eq!(state(&classes, "b"), Some(DefaultState::Effective));
    classes.contender = Contender::Present("ccm".into());
    assert_eq!(
        state(&classes, "b"),
        Some(DefaultState::Contested("ccm".into()))
    );
    let leaving = ClassView {
        deleting: true,
        ..class("b", 1)
    };
    classes.views.insert("b".into(), Arc::new(leaving));
    classes.contender = Contender::Nobody;
    assert_eq!(
        state(&classes, "a"),
        Some(DefaultState::Effective),
        "the next oldest follows"
    );
    assert_eq!(state(&classes, "b"), None);
}

#[test]
fn a_new_status_alone_changes_nothing_for_services() {
    let before = Classes::test([ClassView::test("a")]);
    let mut view = ClassView::test("a");
    view.version = 9;
    view.status.load_balancers = 4;
    assert!(Classes::test([view.clone()]).are_same_for_services(&before));
    view.max = Some(1);
    assert!(!Classes::test([view]).are_same_for_services(&before));
    assert!(!Classes::default().are_same_for_services(&before));
}

/// What a class-less Service publishes, it has from the class that has it on record. Its
/// finalizers can be edited by whoever may edit the Service.
#[test]
fn records_are_asked_before_finalizers() {
    let class = |name: &str, default| ClassView {
        default,
        ..ClassView::test(name)
    };
    let classes = Classes::test([class("local", false), class("second", true)]);
    let web = || ServiceView::test("web").class(None).publishing("192.0.2.1");
    let served = |classes: &Classes, service: &ServiceView| {
        (
            classes.claim(service).map(str::to_owned),
            classes.may_claim(service),
        )
    };
    let by = |class: &str| (Some(class.to_owned()), false);
    let stripped = web();
    let moved = web().held_by(&["second"]).standard();
    let both = web().held_by(&["local", "a-second"]).standard();
    assert_eq!(served(&classes, &stripped), by("second"), "nobody has it");
    classes.ledger.record_on(
        &stripped.id,
        "local",
        &ballast_provider::Key::alone(&stripped.id),
    );
    for service in [&stripped, &moved, &both] {
        assert_eq!(served(&classes, service), by("local"), "{service:?}");
    }
    let mut unpublished = moved;
    unpublished.ingress.clear();
    assert_eq!(served(&classes, &unpublished), by("second"));
    classes.ledger.forget(&stripped.id, "local");
    classes.ledger.record_finalizer(&stripped.id, "local");
    assert_eq!(
        served(&classes, &stripped),
        by("second"),
        "a finalizer is no record"
    );
}

/// A Service of ours without a finalizer, or with one that no cloud confirms, waits until the
/// clouds of the other classes are listed.
#[test]
fn a_published_service_waits_until_every_cloud_was_asked() {
    use ballast_provider::Reason::Accepted;

    use crate::cluster::conditions::ACCEPTED;
    use crate::fixtures::condition;

    let class = |name: &str, default| ClassView {
        default,
        ..ClassView::test(name)
    };
    let with_local = |instance: Option<Instance>| {
        let mut classes = Classes::test([class("local", false), class("second", true)]);
        match instance {
            Some(instance) => classes.instances.insert("local".into(), instance),
            None => classes.instances.remove("local"),
        };
        classes
    };
    let ours = condition(ACCEPTED, "True", Accepted, "yes");
    let web = || {
        let web = ServiceView::test("web").class(None).publishing("192.0.2.1");
        web.saying(std::slice::from_ref(&ours))
    };
    let failing = || {
        Some(Instance::Failing(
            ballast_provider::Reason::CloudError,
            "no answer".into(),
        ))
    };
    let foreign = ServiceView::test("web").class(None).publishing("192.0.2.1");
    let lone = |class: &str| web().held_by(&[class]).standard();
    for (what, classes, service, expected) in [
        ("stripped", with_local(None), web(), None),
        ("stripped, failing", with_local(failing()), web(), None),
        ("not ours before", with_local(None), foreign, Some("second")),
        ("it starts", with_local(None), lone("local"), Some("local")),
        ("not confirmed", with_local(None), lone("second"), None),
        (
            "the cloud of another class fails",
            with_local(failing()),
            lone("second"),
            Some("second"),
        ),
        (
            "two finalizers",
            with_local(None),
            web().held_by(&["local", "second"]).standard(),
            None,
        ),
    ] {
        assert_eq!(classes.claim(&service), expected, "{what}");
        assert_eq!(classes.may_claim(&service), expected.is_none(), "{what}");
    }
}
