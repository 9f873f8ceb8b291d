use ballast_provider::{Protocol, Target};

use self::cloud::Cloud;
use super::*;
use crate::desired::Subnet;
use crate::desired::tests::{WEB, desired, service};

mod bind;
mod capacity;
mod cloud;
mod families;
mod kept;
mod pods;
mod properties;
mod tls;

/// So many targets.
fn with(count: usize) -> Situation {
    Situation {
        nodes: Some(Arc::new(nodes(count))),
        pods: Pods::default(),
        successor_serves: true,
        prefix_lists: PrefixLists::new(),
        reservation_waits: false,
    }
}

fn nodes(count: usize) -> Nodes {
    let nodes = instances(count).into_iter().map(|id| Target {
        name: id.clone(),
        addresses: vec![format!("fd00::{}", &id[2..]).parse().expect("an address")],
        provider_id: Some(format!("aws:///a/{id}")),
        labels: Arc::default(),
    });
    Nodes::of(&nodes.collect::<Vec<_>>())
}

fn instances(count: usize) -> BTreeSet<String> {
    (0..count).map(|number| format!("i-{number:04}")).collect()
}

/// What one Service with one port has.
pub(crate) fn example() -> Observed {
    applied(&[]).0.now
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
        "reserved capacity",
        &[WEB],
        &[("minimum-load-balancer-capacity", "CapacityUnits=5500")],
        &["RemoveTags", "ModifyCapacityReservation", "AddTags"],
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

/// The new rules come first, unless AWS has no room for both: it counts each entry of a prefix list.
#[test]
fn a_prefix_list_is_exchanged_within_aws_limit() {
    for (entries, first) in [
        (30, "AuthorizeSecurityGroupIngress"),
        (31, "RevokeSecurityGroupIngress"),
    ] {
        let (mut cloud, _) = applied(&[("security-group-prefix-lists", "pl-1")]);
        let after = desired(&service(&[WEB]), &[("security-group-prefix-lists", "pl-2")]);
        let lists = ["pl-1", "pl-2"].map(|id| (id.to_owned(), entries));
        let situation = Situation {
            prefix_lists: lists.into(),
            ..with(2)
        };
        let calls = cloud.apply(&after, &situation);
        assert_eq!((calls.len(), calls[1]), (4, first), "{entries}: {calls:?}");
        assert_eq!(plan(&after, &situation, &cloud.now), Plan::default());
    }
}

#[test]
fn targets_change_in_chunks_and_the_new_ones_come_first() {
    let mut seen = example().target_groups.into_values();
    let mut group = seen.next().expect("one");
    group.targets = [TargetId::Instance("i-old".into())].into();
    let wanted = instances(401).into_iter().map(TargetId::Instance);
    let calls = retarget(&group, &wanted.collect());
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

fn subnet(id: &str, zone: &str) -> Subnet {
    Subnet {
        id: id.into(),
        zone: zone.into(),
        elastic_address: None,
        private_address: None,
    }
}

#[test]
fn another_subnet_of_a_zone_comes_after_the_former_one_is_gone() {
    let (mut cloud, mut wanted) = applied(&[]);
    let zone = wanted.subnets[1].zone.clone();
    wanted.subnets[1] = subnet("subnet-other", &zone);
    assert_eq!(
        cloud.apply(&wanted, &with(2)),
        ["RemoveTags", "SetSubnets", "SetSubnets", "AddTags"]
    );
    assert!(is_finished(&wanted, &cloud.now));
    wanted.subnets[0] = subnet("subnet-new", &wanted.subnets[0].zone);
    wanted.subnets.truncate(1);
    let refused = plan(&wanted, &with(2), &cloud.now);
    assert_eq!(refused.calls, []);
    let objection = refused.objection.expect("an objection");
    assert!(objection.message.contains("subnet-new"), "{objection}");
    assert!(!is_finished(&wanted, &cloud.now));
}

#[test]
fn one_that_aws_could_not_make_is_made_again() {
    let (mut cloud, wanted) = applied(&[]);
    for one in cloud.now.load_balancers.values_mut() {
        one.state = LoadBalancerState::Failed;
    }
    assert_eq!(
        cloud.apply(&wanted, &with(2)),
        [
            "DeleteLoadBalancer",
            "CreateLoadBalancer",
            "CreateListener",
            "AddTags"
        ]
    );
    assert!(is_finished(&wanted, &cloud.now));
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

/// A load balancer that goes is protected like one that stays, and only `false` changes it.
#[test]
fn a_load_balancer_that_is_replaced_is_unprotected_if_the_service_says_so() {
    let off = ("attributes", "deletion_protection.enabled=false");
    let internet = ("scheme", "internet-facing");
    let calls = |settings: &[(&str, &str)], failed: bool| {
        let (mut cloud, _) = applied(&[]);
        for one in cloud.now.load_balancers.values_mut() {
            let protection = attributes::DELETION_PROTECTION.to_owned();
            one.attributes.insert(protection, "true".to_owned());
            if failed {
                one.state = LoadBalancerState::Failed;
            }
        }
        let after = desired(&service(&[WEB]), settings);
        let calls = plan(&after, &with(2), &cloud.now).calls;
        let which = |call: &&Call| match call {
            Call::ModifyLoadBalancerAttributes { load_balancer, .. } => {
                load_balancer.known().is_some()
            }
            call => matches!(call, Call::DeleteLoadBalancer { .. }),
        };
        let of_the_old: Vec<&str> = calls.iter().filter(which).map(Call::action).collect();
        of_the_old
    };
    let none: [&str; 0] = [];
    assert_eq!(calls(&[internet], false), none);
    assert_eq!(
        calls(&[internet, off], false),
        ["ModifyLoadBalancerAttributes"]
    );
    assert_eq!(calls(&[], true), ["DeleteLoadBalancer"]);
    assert_eq!(
        calls(&[off], true),
        ["ModifyLoadBalancerAttributes", "DeleteLoadBalancer"]
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
