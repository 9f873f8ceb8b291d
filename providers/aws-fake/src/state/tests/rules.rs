//! Rules of listeners, and actions with several target groups.

use super::super::rules::{Change, Described};
use super::*;

/// A dualstack load balancer with a TCP listener, by their ARNs and that of the listener's target group.
struct Bed {
    cloud: Cloud,
    balancer: String,
    listener: String,
    group: String,
}

impl Bed {
    fn new() -> Self {
        let mut cloud = dualstack();
        let balancer = make_dualstack(&mut cloud, "web");
        let group = make_target_group(&mut cloud, "web");
        let listener = make_listener(&mut cloud, &balancer, 80, &group);
        Self {
            cloud,
            balancer,
            listener,
            group,
        }
    }

    fn rule(&mut self, priority: u32, change: Change) -> Result<Described> {
        let listener = self.listener.clone();
        self.cloud
            .create_rule(START, &listener, priority, change, Tags::new())
    }

    fn protocols(&mut self, name: &str, protocol: &str) -> String {
        let mut create = target_group(name);
        create.protocol = Some(protocol.into());
        self.cloud.create_target_group(START, create).unwrap().arn
    }
}

fn to(family: &str, groups: &[&str]) -> Change {
    let weight = (groups.len() > 1).then_some(1);
    let forward = groups.iter().map(|arn| ((*arn).to_owned(), weight));
    Change {
        family: Some(family.into()),
        forward: Some(forward.collect()),
    }
}

#[test]
fn creation() {
    type Row = (&'static str, u32, fn(&mut Change), &'static str);
    let table: [Row; 12] = [
        ("good", 1, |_| {}, ""),
        ("last", 50_000, |_| {}, ""),
        ("IPv6", 7, |it| it.family = Some("ipv6".into()), ""),
        ("none", 0, |_| {}, "ValidationError"),
        ("too many", 50_001, |_| {}, "ValidationError"),
        ("taken", 9, |_| {}, "PriorityInUse"),
        ("no condition", 1, |it| it.family = None, "ValidationError"),
        (
            "both families",
            1,
            |it| it.family = Some("dualstack".into()),
            "ValidationError",
        ),
        ("no action", 1, |it| it.forward = None, "ValidationError"),
        (
            "no group",
            1,
            |it| it.forward = Some(Vec::new()),
            "ValidationError",
        ),
        (
            "unknown group",
            1,
            |it| it.forward.as_mut().unwrap()[0].0.push('0'),
            "TargetGroupNotFound",
        ),
        (
            "weight",
            1,
            |it| it.forward.as_mut().unwrap()[0].1 = Some(1_000),
            "ValidationError",
        ),
    ];
    for (what, priority, change, expected) in table {
        let mut bed = Bed::new();
        let group = bed.group.clone();
        bed.rule(9, to("ipv4", &[&group])).unwrap();
        let before = bed.cloud.snapshot();
        let mut wanted = to("ipv4", &[&group]);
        change(&mut wanted);
        let result = bed.rule(priority, wanted);
        assert_eq!(code(result), expected, "{what}");
        let same = before == bed.cloud.snapshot();
        assert_eq!(same, !expected.is_empty(), "{what}");
    }
}

#[test]
fn rules_need_dual_stack() {
    let mut bed = Bed::new();
    let group = bed.group.clone();
    let (four, other) = (
        make_balancer(&mut bed.cloud, "four"),
        make_target_group(&mut bed.cloud, "four"),
    );
    let listener = make_listener(&mut bed.cloud, &four, 80, &other);
    let change = to("ipv4", &[&other]);
    let result = bed
        .cloud
        .create_rule(START, &listener, 1, change, Tags::new());
    assert_eq!(code(result), "InvalidConfigurationRequest");
    let made = bed.rule(1, to("ipv4", &[&group])).unwrap();
    let balancer = bed.balancer.clone();
    let mut back = || code(bed.cloud.set_ip_address_type(&balancer, "ipv4"));
    assert_eq!(back(), "InvalidConfigurationRequest");
    bed.cloud.delete_rule(START, &made.arn).unwrap();
    assert_eq!(code(bed.cloud.set_ip_address_type(&balancer, "ipv4")), "");
}

#[test]
fn changes() {
    let mut bed = Bed::new();
    let group = bed.group.clone();
    let other = make_target_group(&mut bed.cloud, "other");
    let made = bed.rule(5, to("ipv4", &[&group])).unwrap();
    let only_family = Change {
        family: Some("ipv6".into()),
        forward: None,
    };
    let changed = bed.cloud.modify_rule(START, &made.arn, only_family);
    let expected = Described {
        family: Some("ipv6".into()),
        ..made.clone()
    };
    assert_eq!(changed, Ok(expected.clone()));
    let only_action = Change {
        family: None,
        ..to("", &[&other, &group])
    };
    let changed = bed.cloud.modify_rule(START, &made.arn, only_action);
    let weights = [(other, Some(1)), (group, Some(1))].into();
    let expected = Described {
        forward: weights,
        ..expected
    };
    assert_eq!(changed, Ok(expected));
    let table = [
        (made.arn.clone(), Change::default(), "ValidationError"),
        (made.arn.clone(), to("ipv5", &[]), "ValidationError"),
        (format!("{}0", made.arn), to("ipv4", &[]), "RuleNotFound"),
        (bed.listener.clone(), to("ipv4", &[]), "ValidationError"),
    ];
    for (arn, change, expected) in table {
        let result = bed.cloud.modify_rule(START, &arn, change.clone());
        assert_eq!(code(result), expected, "{arn} {change:?}");
    }
    bed.cloud.delete_rule(START, &made.arn).unwrap();
    let again = bed.cloud.delete_rule(START, &made.arn);
    assert_eq!(code(again), "RuleNotFound");
}

/// The default rule is the default action of the listener.
#[test]
fn default_rules() {
    let mut bed = Bed::new();
    let (group, listener) = (bed.group.clone(), bed.listener.clone());
    for priority in [20, 3, 100] {
        bed.rule(priority, to("ipv4", &[&group])).unwrap();
    }
    let all = bed.cloud.rules_of(START, &listener).unwrap();
    let priorities: Vec<_> = all.iter().map(|it| it.priority).collect();
    assert_eq!(priorities, [Some(3), Some(20), Some(100), None]);
    let last = all.last().unwrap();
    assert_eq!(last.forward, [(group.clone(), None)]);
    let (before, id) = last.arn.rsplit_once('/').unwrap();
    assert_eq!(before, listener.replace(":listener/", ":listener-rule/"));
    assert_eq!(id.len(), 16);
    assert_eq!(bed.cloud.describe_rule(&last.arn).as_ref(), Ok(last));
    let cloud = &mut bed.cloud;
    let table = [
        code(cloud.modify_rule(START, &last.arn, to("ipv4", &[&group]))),
        code(cloud.delete_rule(START, &last.arn)),
        code(cloud.add_tags(std::slice::from_ref(&last.arn), &tags(&[("a", "b")]))),
        code(cloud.remove_tags(std::slice::from_ref(&last.arn), &["a".into()])),
    ];
    assert_eq!(table, ["OperationNotPermitted"; 4]);
    let described = cloud.describe_tags(std::slice::from_ref(&last.arn));
    assert_eq!(described, Ok(vec![(last.arn.clone(), Tags::new())]));
    let missing = cloud.rules_of(START, &format!("{listener}0"));
    assert_eq!(code(missing), "ListenerNotFound");
}

#[test]
fn rules_go_with_their_listener() {
    type Deletion = fn(&mut Bed) -> Result<()>;
    let table: [Deletion; 2] = [
        |it| it.cloud.delete_listener(START, &it.listener),
        |it| it.cloud.delete_load_balancer(START, &it.balancer),
    ];
    for delete in table {
        let mut bed = Bed::new();
        let other = make_target_group(&mut bed.cloud, "other");
        let made = bed.rule(1, to("ipv4", &[&other])).unwrap();
        let before = bed.cloud.snapshot();
        delete(&mut bed).unwrap();
        assert!(bed.cloud.rules.is_empty());
        let changes = before.changes(&bed.cloud.snapshot());
        assert!(changes.contains(&format!("{} is gone", made.arn)));
        assert_eq!(code(bed.cloud.describe_rule(&made.arn)), "RuleNotFound");
        assert_eq!(bed.cloud.target_group(&other).unwrap().used, None);
    }
}

/// What only a rule uses is in use.
#[test]
fn target_groups_of_rules_are_in_use() {
    let mut bed = Bed::new();
    let other = make_target_group(&mut bed.cloud, "other");
    let made = bed.rule(1, to("ipv6", &[&other])).unwrap();
    let cloud = &mut bed.cloud;
    assert_eq!(cloud.user_of(&other), Some(bed.balancer.as_str()));
    assert_eq!(cloud.target_groups_of(&bed.balancer).unwrap().len(), 2);
    let deleted = cloud.delete_target_group(START, &other);
    assert_eq!(code(deleted), "ResourceInUse");
    let two = make_dualstack(cloud, "two");
    let result = cloud.create_listener(START, &two, listener(80, &other), Tags::new());
    assert_eq!(code(result), "TargetGroupAssociationLimit");
    let group = make_target_group(cloud, "two");
    let second = make_listener(cloud, &two, 80, &group);
    let result = cloud.create_rule(START, &second, 1, to("ipv4", &[&other]), Tags::new());
    assert_eq!(code(result), "TargetGroupAssociationLimit");
    let target = super::super::targets::Description {
        id: "i-00000001".into(),
        port: None,
        zone: None,
    };
    cloud.register_targets(START, &other, &[target]).unwrap();
    let later = START + seconds(400);
    let state = |cloud: &Cloud| {
        let all = cloud.describe_target_health(later, &other, &[]).unwrap();
        all[0].state
    };
    assert_eq!(state(cloud), "healthy");
    cloud.delete_rule(later, &made.arn).unwrap();
    assert_eq!(state(cloud), "unused");
    assert_eq!(code(cloud.delete_target_group(later, &other)), "");
}

#[test]
fn protocols_hold_for_rules() {
    let mut bed = Bed::new();
    let (udp, both) = (
        bed.protocols("udp", "UDP"),
        bed.protocols("both", "TCP_UDP"),
    );
    let result = bed.rule(1, to("ipv4", &[&udp]));
    assert_eq!(code(result), "IncompatibleProtocols");
    let made = bed.rule(1, to("ipv4", &[&both])).unwrap();
    let result = bed.cloud.modify_rule(START, &made.arn, to("ipv4", &[&udp]));
    assert_eq!(code(result), "IncompatibleProtocols");
    // A listener cannot leave its rules behind.
    let certificate = bed.cloud.issue_certificate("a");
    let tls = ListenerChange {
        protocol: Some("TLS".into()),
        certificate: Some(certificate),
        ssl_policy: Some("ELBSecurityPolicy-X".into()),
        ..ListenerChange::default()
    };
    let result = bed.cloud.modify_listener(START, &bed.listener, tls.clone());
    assert_eq!(code(result), "IncompatibleProtocols");
    let group = bed.group.clone();
    let change = to("ipv4", &[&group]);
    bed.cloud.modify_rule(START, &made.arn, change).unwrap();
    let result = bed.cloud.modify_listener(START, &bed.listener, tls);
    assert_eq!(code(result), "");
}

/// A TLS listener and sticky connections do not go together, whichever is there first.
#[test]
fn sticky_groups_of_rules() {
    let mut bed = Bed::new();
    let certificate = bed.cloud.issue_certificate("a");
    let other = make_target_group(&mut bed.cloud, "other");
    let tls = ListenerChange {
        protocol: Some("TLS".into()),
        certificate: Some(certificate),
        ssl_policy: Some("ELBSecurityPolicy-X".into()),
        ..ListenerChange::default()
    };
    let listener = bed.listener.clone();
    bed.cloud.modify_listener(START, &listener, tls).unwrap();
    bed.rule(1, to("ipv4", &[&other])).unwrap();
    let sticky = tags(&[("stickiness.enabled", "true")]);
    let result = bed.cloud.modify_target_group_attributes(&other, &sticky);
    assert_eq!(code(result), "InvalidConfigurationRequest");
}

#[test]
fn quotas() {
    let mut bed = Bed::new();
    bed.cloud.settings.quotas.listener_rules = 2;
    let (group, balancer) = (bed.group.clone(), bed.balancer.clone());
    let second = make_listener(&mut bed.cloud, &balancer, 81, &group);
    bed.rule(1, to("ipv4", &[&group])).unwrap();
    let change = to("ipv4", &[&group]);
    let made = bed
        .cloud
        .create_rule(START, &second, 1, change, Tags::new())
        .unwrap();
    // The quota is that of the load balancer.
    let result = bed.rule(2, to("ipv6", &[&group]));
    assert_eq!(code(result), "TooManyRules");
    bed.cloud.delete_rule(START, &made.arn).unwrap();
    assert_eq!(code(bed.rule(2, to("ipv6", &[&group]))), "");
    let many: Tags = (0..51)
        .map(|it| (format!("k{it}"), String::new()))
        .collect();
    let result = bed
        .cloud
        .create_rule(START, &second, 3, to("ipv4", &[&group]), many);
    assert_eq!(code(result), "TooManyTags");
}

/// Targets of groups that only rules use count for the load balancer.
#[test]
fn targets_of_rules_count() {
    let mut bed = Bed::new();
    bed.cloud.settings.quotas.targets_per_load_balancer = 2;
    let other = make_target_group(&mut bed.cloud, "other");
    bed.rule(1, to("ipv4", &[&other])).unwrap();
    let nodes = |numbers: &[u16]| -> Vec<super::super::targets::Description> {
        let one = |number: &u16| super::super::targets::Description {
            id: format!("i-{number:08}"),
            port: None,
            zone: None,
        };
        numbers.iter().map(one).collect()
    };
    let group = bed.group.clone();
    let mut register =
        |arn: &str, numbers: &[u16]| code(bed.cloud.register_targets(START, arn, &nodes(numbers)));
    assert_eq!(register(&group, &[1]), "");
    assert_eq!(register(&other, &[2, 3]), "TooManyTargets");
    assert_eq!(register(&other, &[2]), "");
}

#[test]
fn tags_of_rules() {
    let mut bed = Bed::new();
    let group = bed.group.clone();
    let listener = bed.listener.clone();
    let change = to("ipv4", &[&group]);
    let made = bed
        .cloud
        .create_rule(START, &listener, 1, change, tags(&[("a", "1")]));
    let one = [made.unwrap().arn];
    bed.cloud.add_tags(&one, &tags(&[("b", "2")])).unwrap();
    bed.cloud.remove_tags(&one, &["a".into()]).unwrap();
    let described = bed.cloud.describe_tags(&one).unwrap();
    assert_eq!(described[0].1, tags(&[("b", "2")]));
    let gone = [format!("{}0", one[0])];
    assert_eq!(code(bed.cloud.describe_tags(&gone)), "RuleNotFound");
    assert_eq!(
        code(bed.cloud.add_tags(&gone, &tags(&[("b", "2")]))),
        "RuleNotFound"
    );
}

#[test]
fn lists_of_rules_lag() {
    let mut bed = Bed::new();
    bed.cloud.settings.lag = seconds(5);
    let (group, listener) = (bed.group.clone(), bed.listener.clone());
    let made = bed.rule(1, to("ipv4", &[&group])).unwrap();
    let number = |cloud: &Cloud, at: u64| {
        cloud
            .rules_of(START + seconds(at), &listener)
            .unwrap()
            .len()
    };
    assert_eq!((number(&bed.cloud, 4), number(&bed.cloud, 5)), (1, 2));
    assert_eq!(bed.cloud.describe_rule(&made.arn), Ok(made.clone()));
    bed.cloud
        .delete_rule(START + seconds(10), &made.arn)
        .unwrap();
    assert_eq!((number(&bed.cloud, 14), number(&bed.cloud, 15)), (2, 1));
    assert_eq!(code(bed.cloud.describe_rule(&made.arn)), "RuleNotFound");
}

/// The actions of listeners and rules obey the same rules.
#[test]
fn weights() {
    let names = ["web", "b", "c", "d", "e", "f"];
    let table: [(&str, &[Option<u32>], &str); 9] = [
        ("one without", &[None], ""),
        ("one with", &[Some(0)], ""),
        ("two", &[Some(1), Some(999)], ""),
        ("all 0", &[Some(0), Some(0)], ""),
        ("five", &[Some(1); 5], ""),
        ("six", &[Some(1); 6], "ValidationError"),
        ("too great", &[Some(1), Some(1_000)], "ValidationError"),
        ("one is missing", &[Some(1), None], "ValidationError"),
        ("all are missing", &[None, None], "ValidationError"),
    ];
    for (what, weights, expected) in table {
        let mut bed = Bed::new();
        let arns = names.map(|name| make_target_group(&mut bed.cloud, name));
        let forward: Vec<_> = arns.into_iter().zip(weights.iter().copied()).collect();
        let change = Change {
            family: Some("ipv4".into()),
            forward: Some(forward.clone()),
        };
        assert_eq!(code(bed.rule(1, change)), expected, "{what}");
        let change = ListenerChange {
            forward: Some(forward.clone()),
            ..ListenerChange::default()
        };
        let listener = bed.listener.clone();
        let changed = bed.cloud.modify_listener(START, &listener, change);
        assert_eq!(code(changed.clone()), expected, "{what}");
        if let Ok(changed) = changed {
            assert_eq!(changed.forward, forward, "{what}");
        }
    }
    let mut bed = Bed::new();
    let group = bed.group.clone();
    let twice = bed.rule(1, to("ipv4", &[&group, &group]));
    assert_eq!(code(twice), "ValidationError");
}

/// What AWS says in one place only is a setting.
#[test]
fn families_of_an_action() {
    let mut bed = Bed::new();
    let (group, six) = (
        bed.group.clone(),
        make_ipv6_group(&mut bed.cloud, "six", "TCP"),
    );
    assert_eq!(code(bed.rule(1, to("ipv4", &[&group, &six]))), "");
    bed.cloud.settings.one_family_per_action = true;
    let result = bed.rule(2, to("ipv4", &[&group, &six]));
    assert_eq!(code(result), "InvalidConfigurationRequest");
    assert_eq!(code(bed.rule(2, to("ipv4", &[&six]))), "");
}
