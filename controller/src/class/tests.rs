use super::*;
use crate::fixtures::second;
use crate::run::factory::Providers;

fn guard(yaml: &str) -> DeserializeGuard<LoadBalancerClass> {
    serde_yaml_ng::from_str(yaml).unwrap()
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
fn a_class_with_two_providers_or_none_or_an_unbuilt_one_serves_nobody() {
    for (spec, named) in [
        ("mock: {endpoint: 'http://a'}, l2: {}", "exactly one"),
        ("default: true", "exactly one"),
        ("aws: {region: eu-central-1}", "spec.aws"),
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
    assert!(Classes::test([view.clone()]).claims_as(&before));
    view.max = Some(1);
    assert!(!Classes::test([view]).claims_as(&before));
    assert!(!Classes::default().claims_as(&before));
}
