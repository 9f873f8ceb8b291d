use ballast_provider::Protocol;
use proptest::prelude::*;

use self::cloud::Cloud;
use super::*;
use crate::desired::tests::{WEB, desired, service};

mod cloud;

/// So many targets.
fn with(count: usize) -> Situation {
    Situation {
        targets: instances(count),
        successor_serves: true,
    }
}

fn instances(count: usize) -> BTreeSet<String> {
    (0..count).map(|number| format!("i-{number:04}")).collect()
}

fn applied(all: &[(&str, &str)]) -> (Cloud, Desired) {
    let mut cloud = Cloud::default();
    let desired = desired(&service(&[WEB]), all);
    cloud.apply(&desired, &with(2));
    (cloud, desired)
}

#[test]
fn a_service_with_one_port_takes_seven_calls() {
    let mut cloud = Cloud::default();
    let desired = desired(&service(&[WEB]), &[]);
    let calls = plan(&desired, &with(3), &cloud.now);
    insta::assert_debug_snapshot!(calls);
    assert_eq!(cloud.apply(&desired, &with(3)).len(), 7);
    assert!(is_finished(&desired, &cloud.now));
}

#[test]
fn without_a_change_there_is_no_call() {
    let (cloud, desired) = applied(&[("attributes", "load_balancing.cross_zone.enabled=true")]);
    assert_eq!(plan(&desired, &with(2), &cloud.now), Plan::default());
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
            "RegisterTargets",
            "AuthorizeSecurityGroupIngress",
            "CreateListener",
            "AddTags",
        ],
    ),
    (
        "another port",
        &[(Protocol::Tcp, 81, 30_080)],
        NONE,
        &[
            "CreateTargetGroup",
            "RegisterTargets",
            "AuthorizeSecurityGroupIngress",
            "CreateListener",
            "DeleteListener",
            "RevokeSecurityGroupIngress",
            "AddTags",
            "DeleteTargetGroup",
        ],
    ),
    (
        "another node port",
        &[(Protocol::Tcp, 80, 30_081)],
        NONE,
        &[
            "CreateTargetGroup",
            "RegisterTargets",
            "ModifyListener",
            "AddTags",
            "DeleteTargetGroup",
        ],
    ),
    (
        "another protocol",
        &[(Protocol::Udp, 80, 30_080)],
        NONE,
        &[
            "CreateTargetGroup",
            "RegisterTargets",
            "AuthorizeSecurityGroupIngress",
            "ModifyListener",
            "RevokeSecurityGroupIngress",
            "AddTags",
            "DeleteTargetGroup",
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
        assert_eq!(cloud.apply(&after, &with(2)), *expected, "{what}");
        assert_eq!(
            plan(&after, &with(2), &cloud.now),
            Plan::default(),
            "{what}"
        );
        // A setting that is removed goes back to AWS's default.
        cloud.apply(&before, &with(2));
        assert_eq!(
            plan(&before, &with(2), &cloud.now),
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
            Call::RegisterTargets { targets, .. } | Call::DeregisterTargets { targets, .. } => {
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
fn targets_follow_the_nodes() {
    let (mut cloud, desired) = applied(&[]);
    assert_eq!(cloud.apply(&desired, &with(3)), ["RegisterTargets"]);
    assert_eq!(cloud.apply(&desired, &with(1)), ["DeregisterTargets"]);
}

#[test]
fn a_load_balancer_of_another_scheme_goes_when_its_successor_serves() {
    let (mut cloud, before) = applied(&[]);
    let after = desired(&service(&[WEB]), &[("scheme", "internet-facing")]);
    let waits = |count| Situation {
        successor_serves: false,
        ..with(count)
    };
    cloud.apply(&after, &waits(2));
    assert_eq!(cloud.now.load_balancers.len(), 2);
    assert_eq!(plan(&after, &waits(2), &cloud.now), Plan::default());
    // Clients of the old one follow the nodes, too.
    assert_eq!(
        cloud.apply(&after, &waits(3)),
        ["RegisterTargets", "RegisterTargets"]
    );
    assert!(!is_finished(&after, &cloud.now));
    assert_eq!(
        cloud.apply(&after, &with(3)),
        [
            "DeleteLoadBalancer",
            "DeleteTargetGroup",
            "DeleteSecurityGroup"
        ]
    );
    assert!(!cloud.now.load_balancers.contains_key(&before.name));
    assert!(is_finished(&after, &cloud.now));
}

#[test]
fn another_subnet_is_set_and_addresses_are_not_compared() {
    let (mut cloud, mut wanted) = applied(&[]);
    wanted.subnets.pop();
    assert_eq!(
        cloud.apply(&wanted, &with(2)),
        ["RemoveTags", "SetSubnets", "AddTags"]
    );
    for one in cloud.now.load_balancers.values_mut() {
        let all = std::mem::take(&mut one.subnets).into_iter();
        let bare = |subnet: Subnet| Subnet {
            private_address: None,
            ..subnet
        };
        one.subnets = all.map(bare).collect();
    }
    assert_eq!(plan(&wanted, &with(2), &cloud.now), Plan::default());
}

#[test]
fn a_foreign_group_on_the_load_balancer_is_replaced() {
    let (mut cloud, wanted) = applied(&[]);
    for one in cloud.now.load_balancers.values_mut() {
        one.groups.remove("sg-backend");
        one.groups.insert("sg-foreign".into());
    }
    assert_eq!(
        cloud.apply(&wanted, &with(2)),
        ["RemoveTags", "SetSecurityGroups", "AddTags"]
    );
}

#[test]
fn rules_that_do_not_fit_beside_the_new_ones_go_first() {
    let ranges = |second: u8| {
        let all = (0..40).map(|third| format!("10.{second}.{third}.0/24"));
        ballast_provider::LoadBalancer {
            source_ranges: all.map(|it| it.parse().expect("a range")).collect(),
            ..service(&[WEB])
        }
    };
    let mut cloud = Cloud::default();
    cloud.apply(&desired(&ranges(1), &[]), &with(2));
    assert_eq!(
        cloud.apply(&desired(&ranges(2), &[]), &with(2)),
        [
            "RemoveTags",
            "RevokeSecurityGroupIngress",
            "AuthorizeSecurityGroupIngress",
            "AddTags"
        ]
    );
}

#[test]
fn the_users_groups_replace_ballasts_own_which_goes_last() {
    let (mut cloud, before) = applied(&[]);
    let mut after = before.clone();
    after.groups = Groups::Given(vec!["sg-user".into()]);
    assert_eq!(
        cloud.apply(&after, &with(2)),
        [
            "RemoveTags",
            "SetSecurityGroups",
            "AddTags",
            "DeleteSecurityGroup"
        ]
    );
    assert!(is_finished(&after, &cloud.now));
    cloud.apply(&before, &with(2));
    assert!(is_finished(&before, &cloud.now));
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
    let kept = plan(&desired, &with(2), &cloud.now);
    assert_eq!(kept.calls, []);
    assert_eq!(kept.remarks.len(), 1);
    let off = crate::desired::tests::desired(
        &service(&[WEB]),
        &[("attributes", "deletion_protection.enabled=false")],
    );
    assert!(
        cloud
            .apply(&off, &with(2))
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
    assert_eq!(plan(&desired, &with(2), &cloud.now), Plan::default());
    for one in cloud.now.load_balancers.values_mut() {
        one.listeners.clear();
    }
    assert_eq!(
        cloud.apply(&desired, &with(2)),
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

/// TCP, UDP and node port by port.
type Ports = BTreeMap<u16, (bool, bool, u16)>;
/// Settings, whether the security groups are the user's, and whether there is one subnet only.
type Options = (Vec<(&'static str, &'static str)>, bool, bool);

fn ports() -> impl Strategy<Value = Ports> {
    let port = prop_oneof![Just(53_u16), Just(80), Just(443)];
    prop::collection::btree_map(
        port,
        (any::<bool>(), any::<bool>(), 30_000_u16..30_003),
        1..4,
    )
}

fn options() -> impl Strategy<Value = Options> {
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
    (settings, any::<bool>(), any::<bool>())
}

fn set_up(ports: &Ports, (settings, given, one_subnet): &Options) -> Desired {
    let mut all = Vec::new();
    for (&port, &(tcp, udp, node_port)) in ports {
        if tcp || !udp {
            all.push((Protocol::Tcp, port, node_port));
        }
        if udp {
            all.push((Protocol::Udp, port, node_port));
        }
    }
    let mut desired = desired(&service(&all), settings);
    if *given {
        desired.groups = Groups::Given(vec!["sg-user".into()]);
    }
    desired.subnets.truncate(if *one_subnet { 1 } else { 2 });
    desired
}

/// Any of the ways in which a Service may be set up.
fn anything() -> impl Strategy<Value = Desired> {
    (ports(), options()).prop_map(|(ports, options)| set_up(&ports, &options))
}

/// Two ways with the same ports, so that most objects have the same names.
fn change() -> impl Strategy<Value = (Desired, Desired)> {
    let all = (ports(), options(), options());
    all.prop_map(|(ports, one, two)| (set_up(&ports, &one), set_up(&ports, &two)))
}

/// Targets have a record of their own.
fn is_of_targets(call: &Call) -> bool {
    matches!(
        call,
        Call::RegisterTargets { .. } | Call::DeregisterTargets { .. }
    )
}

/// Whatever is left to do is seen from the names and tags alone.
fn check_that_work_is_seen(wanted: &Desired, cloud: &Cloud) -> Result<(), TestCaseError> {
    let Plan { calls, cleanup, .. } = plan(wanted, &with(2), &cloud.now);
    let rest: Vec<_> = (calls.iter().chain(&cleanup))
        .filter(|call| !is_of_targets(call))
        .collect();
    prop_assert_eq!(
        is_finished(wanted, &cloud.now),
        rest.is_empty(),
        "{:?}",
        rest
    );
    Ok(())
}

proptest! {
    /// A change is interrupted, and the Service asks again for what it had before.
    #[test]
    fn an_interrupted_change_that_is_taken_back_does_not_look_finished(
        (before, after) in change(),
        calls in 0_usize..16,
    ) {
        let mut cloud = Cloud::default();
        cloud.apply(&before, &with(2));
        for call in plan(&after, &with(2), &cloud.now).calls.iter().take(calls) {
            cloud.call(call);
        }
        check_that_work_is_seen(&before, &cloud)?;
        cloud.apply(&before, &with(2));
        prop_assert!(is_finished(&before, &cloud.now));
    }

    /// Whatever is changed into whatever, with a crash after any call: a restarted process sees
    /// that there is work, and one plan does it.
    #[test]
    fn a_crash_after_any_call_is_made_up_for(
        steps in prop::collection::vec((anything(), 0_usize..16, 1_usize..5, any::<bool>()), 1..6),
        last in anything(),
    ) {
        let mut cloud = Cloud::default();
        for (desired, made, targets, successor_serves) in steps {
            let situation = Situation {
                successor_serves,
                ..with(targets)
            };
            let Plan { calls, cleanup, .. } = plan(&desired, &situation, &cloud.now);
            for call in calls.iter().chain(&cleanup).take(made) {
                cloud.call(call);
            }
        }
        check_that_work_is_seen(&last, &cloud)?;
        cloud.apply(&last, &with(2));
        prop_assert!(is_finished(&last, &cloud.now));
        prop_assert_eq!(plan(&last, &with(2), &cloud.now), Plan::default());
        for call in release(&cloud.now) {
            cloud.call(&call);
        }
        prop_assert_eq!(cloud.now, Observed::default());
    }
}
