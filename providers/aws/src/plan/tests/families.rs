//! Load balancers with IPv6 addresses.

use ballast_provider::{Family, LoadBalancer, mark};

use super::*;
use crate::desired::Addresses;
use crate::forward::Forward;
use crate::nodes::Selector;
use crate::target::Reached;

const DNS: (Protocol, u16, u16) = (Protocol::Udp, 53, 30_053);

fn dual(ports: &[(Protocol, u16, u16)]) -> LoadBalancer {
    LoadBalancer {
        families: vec![Family::V4, Family::V6],
        ..service(ports)
    }
}

/// Two nodes with both families, and one with IPv4 only.
fn situation() -> Situation {
    let nodes = instances(3).into_iter().enumerate().map(|(at, id)| Target {
        name: id.clone(),
        addresses: (at < 2)
            .then(|| format!("fd00::{at}").parse().expect("an address"))
            .into_iter()
            .collect(),
        provider_id: Some(format!("aws:///a/{id}")),
        labels: Arc::default(),
    });
    Situation {
        nodes: Some(Arc::new(Nodes::of(&nodes.collect::<Vec<_>>()))),
        ..with(0)
    }
}

fn made(service: &LoadBalancer, all: &[(&str, &str)]) -> (Cloud, Desired) {
    let mut cloud = Cloud::default();
    let desired = desired(service, all);
    cloud.apply(&desired, &situation());
    (cloud, desired)
}

#[test]
fn each_family_has_a_target_group_and_clients_their_rule() {
    let (mut cloud, desired) = made(&dual(&[WEB]), &[]);
    assert!(is_finished(&desired, &cloud.now));
    assert_eq!(plan(&desired, &situation(), &cloud.now), Plan::default());
    let balancer = cloud.now.load_balancers.values().next().expect("one");
    let listener = &balancer.listeners[&80];
    let [rule] = &listener.rules.values().collect::<Vec<_>>()[..] else {
        panic!("{listener:?}");
    };
    assert_eq!(rule.family, Some(Family::V6));
    let targets = |arn: &String| {
        let mut groups = cloud.now.target_groups.values();
        groups.find(|it| it.arn == *arn).expect("one").targets.len()
    };
    assert_eq!(listener.forward.only().map(targets), Some(3));
    assert_eq!(rule.forward.only().map(targets), Some(2));
    // What somebody has changed is undone: another rule, and one for other clients.
    let mut seen = cloud.now.clone();
    let balancer = seen.load_balancers.values_mut().next().expect("one");
    let rules = &mut balancer.listeners.get_mut(&80).expect("there").rules;
    let mut other = (*rule).clone();
    other.family = Some(Family::V4);
    rules.insert("rule/9".into(), other);
    let calls = plan(&desired, &situation(), &seen).calls;
    let actions: Vec<_> = calls.iter().map(Call::action).collect();
    assert_eq!(actions, ["RemoveTags", "DeleteRule", "AddTags"]);
    let rule = rules_of(&mut seen);
    rule.clear();
    cloud.now = seen;
    let actions = cloud.apply(&desired, &situation());
    assert_eq!(actions, ["RemoveTags", "CreateRule", "AddTags"]);
}

fn rules_of(of: &mut Observed) -> &mut BTreeMap<Arn, crate::forward::ObservedRule> {
    let balancer = of.load_balancers.values_mut().next().expect("one");
    &mut balancer.listeners.get_mut(&80).expect("there").rules
}

/// Addresses come before what needs them, and go after it.
#[test]
fn a_family_is_added_and_removed_in_place() {
    let one = service(&[WEB]);
    let table: [(LoadBalancer, &[&str], &[&str]); 2] = [
        (
            dual(&[WEB]),
            &[
                "CreateTargetGroup",
                "RegisterTargets",
                "AuthorizeSecurityGroupIngress",
                "SetSubnets",
                "CreateRule",
                "AddTags",
            ],
            &[
                "RemoveTags",
                "DeleteRule",
                "SetSubnets",
                "RevokeSecurityGroupIngress",
                "AddTags",
                "DeleteTargetGroup",
            ],
        ),
        (
            dual(&[WEB, DNS]),
            &[
                "CreateTargetGroup",
                "CreateTargetGroup",
                "RegisterTargets",
                "RegisterTargets",
                "AuthorizeSecurityGroupIngress",
                "SetSubnets",
                "CreateRule",
                "CreateListener",
                "AddTags",
            ],
            &[
                "RemoveTags",
                "DeleteListener",
                "DeleteRule",
                "SetSubnets",
                "RevokeSecurityGroupIngress",
                "AddTags",
                "DeleteTargetGroup",
                "DeleteTargetGroup",
            ],
        ),
    ];
    for (two, adds, removes) in table {
        let (mut cloud, before) = made(&one, &[]);
        let after = desired(&two, &[]);
        let calls = cloud.apply(&after, &situation());
        let sets = |it: &&&str| !it.ends_with("Attributes");
        assert_eq!(calls.iter().filter(sets).copied().collect::<Vec<_>>(), adds);
        assert!(is_finished(&after, &cloud.now));
        let calls = cloud.apply(&before, &situation());
        assert_eq!(calls, removes);
        let balancer = cloud.now.load_balancers.values().next().expect("one");
        assert_eq!(balancer.addresses, Addresses::Ipv4);
        assert!(is_finished(&before, &cloud.now));
    }
}

/// AWS compares the protocols of a listener and of all its target groups.
#[test]
fn a_listener_changes_its_protocol_without_its_rule() {
    let (mut cloud, tcp) = made(&dual(&[WEB]), &[]);
    let udp = desired(&dual(&[(Protocol::Udp, 80, 30_080)]), &[]);
    let of_listener = |calls: Vec<&'static str>| -> Vec<&'static str> {
        let all = calls.into_iter();
        all.filter(|it| it.ends_with("Listener") || it.ends_with("Rule") || *it == "SetSubnets")
            .collect()
    };
    let calls = cloud.apply(&udp, &situation());
    let expected = ["SetSubnets", "DeleteRule", "ModifyListener"];
    assert_eq!(of_listener(calls), expected);
    assert!(is_finished(&udp, &cloud.now));
    let calls = cloud.apply(&tcp, &situation());
    let expected = ["ModifyListener", "CreateRule", "SetSubnets"];
    assert_eq!(of_listener(calls), expected);
    assert!(is_finished(&tcp, &cloud.now));
}

/// AWS sends UDP to IPv4 addresses with IPv4 load balancers, and to IPv6 addresses with the others. Nothing is between.
#[test]
fn a_listener_with_udp_is_made_again_with_the_family() {
    let all = [WEB, DNS];
    let (mut cloud, four) = made(&service(&all), &[]);
    let both = desired(&dual(&all), &[]);
    for (wanted, others) in [
        (&both, ["SetSubnets", "CreateRule"]),
        (&four, ["DeleteRule", "SetSubnets"]),
    ] {
        let calls = cloud.apply(wanted, &situation());
        let at = |action| calls.iter().position(|it| *it == action);
        for other in others {
            assert!(at("DeleteListener") < at(other), "{calls:?}");
            assert!(at(other) < at("CreateListener"), "{calls:?}");
        }
        assert!(is_finished(wanted, &cloud.now));
    }
}

/// Waves follow nodes in target groups of addresses, too.
#[test]
fn nodes_are_targets_by_their_addresses() {
    let nodes = situation().nodes.expect("known");
    let selector = Selector::default();
    let addresses = nodes.selected(&selector, Reached::Ipv6(30_080));
    let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["[fd00::]:30080", "[fd00::1]:30080"]);
    let mut refused = Nodes::clone(&nodes);
    refused.refuse("fd00::1");
    assert_eq!(refused.selected(&selector, Reached::Ipv6(1)).len(), 1);
    assert_eq!(refused.selected(&selector, Reached::Instance).len(), 3);
    let mut next = Nodes::clone(&nodes);
    next.keep_refused(&refused);
    assert_eq!(next, refused);
    assert_ne!(nodes.name(&BTreeSet::new()), refused.name(&BTreeSet::new()));
}

/// A Service that leaves takes its weight with it, and never a listener of another one.
#[test]
fn who_leaves_is_no_target_of_others() {
    let (cloud, _) = made(&service(&[WEB, (Protocol::Tcp, 81, 30_081)]), &[]);
    let mut seen = cloud.now;
    let mut arns = seen.target_groups.values().map(|it| it.arn.clone());
    let (own, other) = (arns.next().expect("one"), arns.next().expect("two"));
    for group in seen.target_groups.values_mut().filter(|it| it.arn == other) {
        group.tags.insert(mark::SERVICE_UID.into(), "uid-2".into());
    }
    let balancer = seen.load_balancers.values_mut().next().expect("one");
    let mut all = balancer.listeners.values_mut();
    let (first, second) = (all.next().expect("one"), all.next().expect("two"));
    first.forward = Forward::weighted([(own.clone(), 0), (other.clone(), 5)]);
    second.forward = Forward::to(other.clone());
    second.tags.insert(mark::SERVICE_UID.into(), "uid-2".into());
    let (first, second) = (first.arn.clone(), second.arn.clone());
    let (calls, cleanup) = leave(&seen, "uid-2");
    let calls: Vec<_> = calls.iter().map(ToString::to_string).collect();
    let [tags, rest @ ..] = &calls[..] else {
        panic!("no call");
    };
    // The load balancer is not as applied until the others have a turn.
    assert!(tags.starts_with("RemoveTags"), "{calls:?}");
    let expected = [
        format!("ModifyListener: {first} sends to {own}"),
        format!("DeleteListener: {second}"),
    ];
    assert_eq!(rest, expected);
    let deletes = Call::DeleteTargetGroup {
        target_group: other,
    };
    assert_eq!(cleanup, [deletes]);
}
