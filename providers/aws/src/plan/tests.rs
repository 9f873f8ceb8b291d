use ballast_provider::Protocol;
use proptest::prelude::*;

use self::cloud::Cloud;
use super::*;
use crate::desired::tests::{WEB, desired, service};

mod cloud;

fn instances(count: usize) -> BTreeSet<String> {
    (0..count).map(|number| format!("i-{number:04}")).collect()
}

fn applied(all: &[(&str, &str)]) -> (Cloud, Desired) {
    let mut cloud = Cloud::default();
    let desired = desired(&service(&[WEB]), all);
    cloud.apply(&desired, &instances(2));
    (cloud, desired)
}

#[test]
fn a_service_with_one_port_takes_seven_calls() {
    let mut cloud = Cloud::default();
    let desired = desired(&service(&[WEB]), &[]);
    let calls = plan(&desired, &instances(3), &cloud.now);
    insta::assert_debug_snapshot!(calls);
    assert_eq!(cloud.apply(&desired, &instances(3)).len(), 7);
    assert!(cloud.looks_finished(&desired));
}

#[test]
fn without_a_change_there_is_no_call() {
    let (cloud, desired) = applied(&[("attributes", "load_balancing.cross_zone.enabled=true")]);
    assert_eq!(plan(&desired, &instances(2), &cloud.now), Plan::default());
}

/// What changes, and ports, annotations and calls after it.
type Row = (
    &'static str,
    &'static [(Protocol, u16, u16)],
    &'static [(&'static str, &'static str)],
    &'static [&'static str],
);

const NONE: &[(&str, &str)] = &[];
const TWO: &[(Protocol, u16, u16)] = &[WEB, (Protocol::Tcp, 443, 30_443)];

const CHANGES: &[Row] = &[
    (
        "a port added",
        TWO,
        NONE,
        &[
            "CreateTargetGroup",
            "AuthorizeSecurityGroupIngress",
            "CreateListener",
            "RegisterTargets",
            "AddTags",
        ],
    ),
    (
        "another port",
        &[(Protocol::Tcp, 81, 30_080)],
        NONE,
        &[
            "CreateTargetGroup",
            "AuthorizeSecurityGroupIngress",
            "CreateListener",
            "DeleteListener",
            "RegisterTargets",
            "RevokeSecurityGroupIngress",
            "DeleteTargetGroup",
            "AddTags",
        ],
    ),
    (
        "another node port",
        &[(Protocol::Tcp, 80, 30_081)],
        NONE,
        &[
            "CreateTargetGroup",
            "ModifyListener",
            "RegisterTargets",
            "DeleteTargetGroup",
            "AddTags",
        ],
    ),
    (
        "another protocol",
        &[(Protocol::Udp, 80, 30_080)],
        NONE,
        &[
            "CreateTargetGroup",
            "AuthorizeSecurityGroupIngress",
            "ModifyListener",
            "RegisterTargets",
            "RevokeSecurityGroupIngress",
            "DeleteTargetGroup",
            "AddTags",
        ],
    ),
    (
        "an attribute",
        &[WEB],
        &[("attributes", "load_balancing.cross_zone.enabled=true")],
        &["RemoveTags", "ModifyLoadBalancerAttributes", "AddTags"],
    ),
    (
        "an attribute of targets",
        &[WEB],
        &[("target-group-attributes", "stickiness.enabled=true")],
        &["RemoveTags", "ModifyTargetGroupAttributes", "AddTags"],
    ),
    (
        "a health check",
        &[WEB],
        &[("healthcheck-interval", "30")],
        &["RemoveTags", "ModifyTargetGroup", "AddTags"],
    ),
    (
        "a tag",
        &[WEB],
        &[("additional-resource-tags", "team=shop")],
        &["RemoveTags", "AddTags", "AddTags"],
    ),
    (
        "other clients",
        &[WEB],
        &[("security-group-prefix-lists", "pl-1")],
        &[
            "RemoveTags",
            "AuthorizeSecurityGroupIngress",
            "RevokeSecurityGroupIngress",
            "AddTags",
        ],
    ),
    (
        "no way to the nodes",
        &[WEB],
        &[("manage-backend-security-group-rules", "false")],
        &["RemoveTags", "SetSecurityGroups", "AddTags"],
    ),
];

#[test]
fn each_change_takes_few_calls() {
    for (what, ports, settings, expected) in CHANGES {
        let (mut cloud, before) = applied(&[]);
        let after = desired(&service(ports), settings);
        assert_eq!(cloud.apply(&after, &instances(2)), *expected, "{what}");
        assert_eq!(
            plan(&after, &instances(2), &cloud.now),
            Plan::default(),
            "{what}"
        );
        // A setting that is removed goes back to AWS's default.
        cloud.apply(&before, &instances(2));
        assert_eq!(
            plan(&before, &instances(2), &cloud.now),
            Plan::default(),
            "back from: {what}"
        );
    }
}

#[test]
fn targets_change_in_chunks_and_the_new_ones_come_first() {
    let group = Ref::Known("tg".into());
    let calls = retarget(
        &group,
        &instances(401),
        &BTreeSet::from(["i-old".to_owned()]),
    );
    let sizes: Vec<(&str, usize)> = calls
        .iter()
        .map(|call| match call {
            Call::Register { targets, .. } | Call::Deregister { targets, .. } => {
                (call.action(), targets.len())
            }
            call => panic!("{call:?}"),
        })
        .collect();
    assert_eq!(
        sizes,
        [
            ("RegisterTargets", 200),
            ("RegisterTargets", 200),
            ("RegisterTargets", 1),
            ("DeregisterTargets", 1)
        ]
    );
}

#[test]
fn a_new_target_group_gets_the_targets_of_the_present() {
    let (mut cloud, desired) = applied(&[]);
    assert_eq!(cloud.apply(&desired, &instances(3)), ["RegisterTargets"]);
    assert_eq!(cloud.apply(&desired, &instances(1)), ["DeregisterTargets"]);
}

#[test]
fn a_load_balancer_of_another_scheme_goes_when_its_successor_works() {
    let (mut cloud, before) = applied(&[]);
    let after = desired(&service(&[WEB]), &[("scheme", "internet-facing")]);
    let calls = plan(&after, &instances(2), &cloud.now);
    for call in &calls.calls {
        cloud.call(call);
    }
    assert_eq!(cloud.now.load_balancers.len(), 2);
    let successor = cloud.now.load_balancers.get_mut(&after.name).expect("made");
    successor.state = LoadBalancerState::Provisioning;
    assert_eq!(
        plan(&after, &instances(2), &cloud.now),
        Plan::default(),
        "both serve"
    );
    let successor = cloud.now.load_balancers.get_mut(&after.name).expect("made");
    successor.state = LoadBalancerState::Active;
    assert_eq!(cloud.apply(&after, &instances(2)), ["DeleteLoadBalancer"]);
    assert!(!cloud.now.load_balancers.contains_key(&before.name));
}

#[test]
fn deletion_protection_is_never_switched_off_silently() {
    let (mut cloud, desired) = applied(&[]);
    for one in cloud.now.load_balancers.values_mut() {
        let on = (
            attributes::DELETION_PROTECTION.to_owned(),
            "true".to_owned(),
        );
        one.attributes.extend([on]);
    }
    let kept = plan(&desired, &instances(2), &cloud.now);
    assert_eq!(kept.calls, []);
    assert_eq!(kept.remarks.len(), 1);
    let off = crate::desired::tests::desired(
        &service(&[WEB]),
        &[("attributes", "deletion_protection.enabled=false")],
    );
    assert!(
        cloud
            .apply(&off, &instances(2))
            .contains(&"ModifyLoadBalancerAttributes")
    );
}

#[test]
fn tags_of_aws_stay_and_drift_is_repaired() {
    let (mut cloud, desired) = applied(&[]);
    for one in cloud.now.target_groups.values_mut() {
        one.tags
            .insert("aws:cloudformation:stack-name".into(), "x".into());
    }
    assert_eq!(plan(&desired, &instances(2), &cloud.now), Plan::default());
    for one in cloud.now.load_balancers.values_mut() {
        one.listeners.clear();
    }
    assert_eq!(
        cloud.apply(&desired, &instances(2)),
        ["RemoveTags", "CreateListener", "AddTags"]
    );
}

#[test]
fn a_release_takes_three_calls() {
    let (mut cloud, _) = applied(&[]);
    let calls = release(&cloud.now);
    let actions: Vec<&str> = calls.iter().map(Call::action).collect();
    assert_eq!(
        actions,
        [
            "DeleteLoadBalancer",
            "DeleteTargetGroup",
            "DeleteSecurityGroup"
        ]
    );
    for call in &calls {
        cloud.call(call);
    }
    assert_eq!(cloud.now, Observed::default());
}

/// Any of the ways in which a Service may be set up.
fn anything() -> impl Strategy<Value = Desired> {
    let ports = prop::collection::btree_map(
        prop_oneof![Just(53_u16), Just(80), Just(443)],
        (any::<bool>(), any::<bool>(), 30_000_u16..30_003),
        1..4,
    );
    let settings = prop::sample::subsequence(
        vec![
            ("scheme", "internet-facing"),
            (
                "attributes",
                "load_balancing.cross_zone.enabled=true,deletion_protection.enabled=false",
            ),
            ("additional-resource-tags", "team=shop"),
            ("healthcheck-interval", "30"),
            ("target-group-attributes", "stickiness.enabled=true"),
            ("security-group-prefix-lists", "pl-1"),
            ("manage-backend-security-group-rules", "false"),
        ],
        0..7,
    );
    (ports, settings).prop_map(|(ports, settings)| {
        let mut all = Vec::new();
        for (port, (tcp, udp, node_port)) in ports {
            if tcp || !udp {
                all.push((Protocol::Tcp, port, node_port));
            }
            if udp {
                all.push((Protocol::Udp, port, node_port));
            }
        }
        desired(&service(&all), &settings)
    })
}

/// Targets have a record of their own, and a predecessor is seen by its name.
fn is_separate(call: &Call) -> bool {
    matches!(
        call,
        Call::Register { .. } | Call::Deregister { .. } | Call::DeleteLoadBalancer { .. }
    )
}

proptest! {
    /// A change is interrupted, and the Service asks again for what it had before.
    #[test]
    fn an_interrupted_change_that_is_taken_back_does_not_look_finished(
        before in anything(),
        after in anything(),
        calls in 0_usize..12,
    ) {
        let mut cloud = Cloud::default();
        cloud.apply(&before, &instances(2));
        for call in plan(&after, &instances(2), &cloud.now).calls.iter().take(calls) {
            cloud.call(call);
        }
        let rest = plan(&before, &instances(2), &cloud.now).calls;
        let rest: Vec<_> = rest.iter().filter(|call| !is_separate(call)).collect();
        prop_assert!(
            rest.is_empty() || !cloud.looks_finished(&before),
            "it looks finished, and lacks {rest:?}"
        );
        cloud.apply(&before, &instances(2));
        prop_assert!(cloud.looks_finished(&before) || cloud.now.load_balancers.len() > 1);
    }

    /// Whatever is changed into whatever, with a crash after any call: a restarted process sees
    /// that there is work, and two plans end it.
    #[test]
    fn a_crash_after_any_call_is_made_up_for(
        steps in prop::collection::vec((anything(), 0_usize..12, 0_usize..5), 1..6),
        last in anything(),
    ) {
        let mut cloud = Cloud::default();
        for (desired, calls, targets) in steps {
            for call in plan(&desired, &instances(targets), &cloud.now).calls.iter().take(calls) {
                cloud.call(call);
            }
        }
        let rest = plan(&last, &instances(2), &cloud.now);
        if cloud.looks_finished(&last) {
            let others: Vec<_> = rest.calls.iter().filter(|call| !is_separate(call)).collect();
            prop_assert!(others.is_empty(), "it looks finished, and lacks {others:?}");
        }
        // The second one deletes what the first one replaced.
        cloud.apply(&last, &instances(2));
        cloud.apply(&last, &instances(2));
        prop_assert_eq!(plan(&last, &instances(2), &cloud.now), Plan::default());
        prop_assert_eq!(cloud.now.load_balancers.len(), 1);
        prop_assert_eq!(cloud.now.target_groups.len(), last.listeners.len());
        for call in release(&cloud.now) {
            cloud.call(&call);
        }
        prop_assert_eq!(cloud.now, Observed::default());
    }
}
