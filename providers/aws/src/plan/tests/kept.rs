//! Services that keep what they have while others change the load balancer.

use std::sync::Arc;

use ballast_provider::mark::SERVICE_UID;
use ballast_provider::{Family, Key, LoadBalancer};

use super::*;
use crate::desired::tests::{found, mark, part, settings};
use crate::desired::{Addresses, Rule, Traffic};
use crate::forward::Forward;

const API: (Protocol, u16, u16) = (Protocol::Tcp, 443, 30_443);
const DNS: (Protocol, u16, u16) = (Protocol::Udp, 53, 30_053);

fn named(name: &str, ports: &[(Protocol, u16, u16)]) -> LoadBalancer {
    let mut one = service(ports);
    one.id.name = name.into();
    one.id.uid = format!("uid-{name}").into();
    one
}

fn web(ports: &[(Protocol, u16, u16)]) -> LoadBalancer {
    named("web", ports)
}

fn api() -> LoadBalancer {
    named("api", &[API])
}

/// What these Services need together, with these annotations.
fn together(services: &[LoadBalancer], all: &[(&str, &str)], kept: &[&str]) -> Desired {
    let settings = settings(all);
    let parts: Vec<_> = services.iter().map(|one| part(one, &settings)).collect();
    let key = Key::Shared("shop/front".into());
    let outcome = crate::desired::Desired::of(&mark(), &key, &parts, &found());
    let mut desired = outcome.expect("accepted").desired;
    desired.kept = kept.iter().map(|uid| Arc::from(*uid)).collect();
    desired
}

/// A cloud in which `web` and `api` have what they ask for with these annotations.
fn shared(api: &LoadBalancer, all: &[(&str, &str)]) -> (Cloud, Desired) {
    let mut cloud = Cloud::default();
    let both = together(&[web(&[WEB]), api.clone()], all, &[]);
    cloud.apply(&both, &with(2));
    (cloud, both)
}

/// The listener and the target groups of `api`.
fn part_of_api(now: &Observed) -> (Vec<ObservedListener>, Vec<ObservedTargetGroup>) {
    let is_its = |tags: &BTreeMap<String, String>| tags[SERVICE_UID] == "uid-api";
    let listeners = now.load_balancers.values().flat_map(|one| &one.listeners);
    let listeners = listeners.map(|(_, one)| one.clone());
    let groups = now.target_groups.values().cloned();
    (
        listeners.filter(|one| is_its(&one.tags)).collect(),
        groups.filter(|one| is_its(&one.tags)).collect(),
    )
}

fn rules_of(now: &Observed, port: u16) -> usize {
    let rules = now.groups.values().flat_map(|one| &one.rules);
    let of_port = |rule: &&Rule| matches!(rule.traffic, Traffic::Port(_, it) if it == port);
    rules.filter(of_port).count()
}

#[test]
fn another_service_changes_and_nothing_of_it_goes() {
    let (mut cloud, both) = shared(&api(), &[]);
    let before = part_of_api(&cloud.now);
    let other = [web(&[(Protocol::Tcp, 81, 30_081)])];
    let kept = together(&other, &[], &["uid-api"]);
    assert!(!is_finished(&kept, &cloud.now));
    let actions = cloud.apply(&kept, &with(2));
    assert_eq!(
        actions,
        [
            "CreateTargetGroup",
            "RegisterTargets",
            "AuthorizeSecurityGroupIngress",
            "CreateListener",
            "DeleteListener",
            "RevokeSecurityGroupIngress",
            "AddTags",
            "DeleteTargetGroup",
        ]
    );
    assert_eq!(part_of_api(&cloud.now), before);
    assert_eq!((before.0.len(), before.1.len()), (1, 1));
    let rules = [80, 81, 443].map(|port| rules_of(&cloud.now, port));
    assert_eq!(rules, [0, 1, 1]);
    // A process that starts knows that there is nothing to do, as long as nothing changes.
    assert!(is_finished(&kept, &cloud.now));
    assert_eq!(plan(&kept, &with(2), &cloud.now), Plan::default());
    // Its nodes come and go.
    let actions = cloud.apply(&kept, &with(3));
    assert_eq!(actions, ["RegisterTargets", "RegisterTargets"]);
    // It is accepted again, or has left.
    let again = together(&[other[0].clone(), api()], &[], &[]);
    let gone = together(&other, &[], &[]);
    for wanted in [&again, &gone] {
        assert!(!is_finished(wanted, &cloud.now));
    }
    assert_eq!(cloud.clone().apply(&again, &with(3)), ["AddTags"]);
    let actions = cloud.apply(&gone, &with(3));
    assert_eq!(
        actions,
        [
            "RemoveTags",
            "DeleteListener",
            "RevokeSecurityGroupIngress",
            "AddTags",
            "DeleteTargetGroup"
        ]
    );
    assert_ne!(both.hash(), kept.hash());
}

/// It is a former port of the Service that is kept: nobody listens there for it.
#[test]
fn a_listener_is_whose_target_groups_it_uses() {
    let (mut cloud, _) = shared(&api(), &[]);
    let kept = together(&[web(&[WEB])], &[], &["uid-api"]);
    let deletes = |cloud: &Cloud| {
        let calls = plan(&kept, &with(2), &cloud.now).calls;
        let deleted = calls.into_iter().filter_map(|call| match call {
            Call::DeleteListener { listener } => Some(listener),
            _ => None,
        });
        deleted.count()
    };
    assert_eq!(deletes(&cloud), 0);
    let of = |uid: &str, cloud: &Cloud| {
        let mut groups = cloud.now.target_groups.values();
        let its = groups.find(|one| one.tags[SERVICE_UID] == uid);
        its.expect("a target group").arn.clone()
    };
    let (own, other) = (of("uid-api", &cloud), of("uid-web", &cloud));
    let table = [
        ("uid-api", Forward::to(own.clone()), 0),
        (
            "uid-api",
            Forward::weighted([(own.clone(), 1), (other.clone(), 1)]),
            0,
        ),
        ("uid-web", Forward::to(own.clone()), 0),
        ("uid-api", Forward::to(other.clone()), 1),
        ("uid-web", Forward::weighted([(own, 1), (other, 1)]), 1),
        ("uid-gone", Forward::default(), 1),
        ("uid-api", Forward::default(), 0),
    ];
    for (uid, forward, expected) in table {
        let balancer = cloud.now.load_balancers.values_mut().next().expect("one");
        let listener = balancer.listeners.get_mut(&443).expect("there");
        listener.tags.insert(SERVICE_UID.into(), uid.into());
        listener.forward = forward;
        assert_eq!(
            deletes(&cloud),
            expected,
            "{uid} {listener:?}",
            listener = cloud.now
        );
    }
}

/// Its clients may have IPv6 addresses, and its port may be UDP.
#[test]
fn the_load_balancer_keeps_the_families_that_its_clients_may_use() {
    let mut cloud = Cloud::default();
    let mut dns = named("dns", &[DNS]);
    dns.families = vec![Family::V4, Family::V6];
    let dual = [("ip-address-type", "dualstack")];
    cloud.apply(&together(&[web(&[WEB]), dns], &dual, &[]), &with(2));
    let addresses = |cloud: &Cloud| {
        let mut all = cloud.now.load_balancers.values();
        all.next().expect("one").addresses
    };
    let wide = Addresses::Dualstack { source_nat: true };
    assert_eq!(addresses(&cloud), wide);
    let only = [web(&[WEB])];
    let actions = cloud.apply(&together(&only, &[], &["uid-dns"]), &with(2));
    assert!(!actions.contains(&"SetSubnets"), "{actions:?}");
    assert_eq!((addresses(&cloud), rules_of(&cloud.now, 53)), (wide, 2));
    cloud.apply(&together(&only, &[], &[]), &with(2));
    assert_eq!(
        (addresses(&cloud), rules_of(&cloud.now, 53)),
        (Addresses::Ipv4, 0)
    );
}

/// AWS would have to make its listener again.
#[test]
fn udp_that_stays_keeps_the_load_balancer_without_ipv6() {
    let mut cloud = Cloud::default();
    let both = [web(&[WEB]), named("dns", &[DNS])];
    cloud.apply(&together(&both, &[], &[]), &with(2));
    let dual = [("ip-address-type", "dualstack")];
    let kept = together(&both[..1], &dual, &["uid-dns"]);
    let actions = cloud.apply(&kept, &with(2));
    assert!(!actions.contains(&"SetSubnets"), "{actions:?}");
    assert!(!actions.contains(&"DeleteListener"), "{actions:?}");
    let again = plan(&kept, &with(2), &cloud.now);
    assert_eq!(again.calls, []);
    let objection = again.objection.expect("an objection");
    assert!(objection.message.contains("port 53"), "{objection}");
    // It leaves, and nothing is in the way.
    cloud.apply(&together(&both[..1], &dual, &[]), &with(2));
    let balancer = cloud.now.load_balancers.values().next().expect("one");
    assert_ne!(balancer.addresses, Addresses::Ipv4);
}

/// What the load balancer has once follows the others. So the former one serves until all have left it.
#[test]
fn a_load_balancer_of_another_scheme_stays_as_long_as_it_has_something() {
    let (mut cloud, _) = shared(&api(), &[]);
    let before = part_of_api(&cloud.now);
    let public = [("scheme", "internet-facing")];
    let kept = together(&[web(&[WEB])], &public, &["uid-api"]);
    cloud.apply(&kept, &with(2));
    assert_eq!(cloud.now.load_balancers.len(), 2);
    assert_eq!(part_of_api(&cloud.now), before);
    assert_eq!(rules_of(&cloud.now, 443), 1);
    assert_eq!(plan(&kept, &with(2), &cloud.now), Plan::default());
    // Targets of both follow the nodes.
    assert_eq!(cloud.apply(&kept, &with(3)), ["RegisterTargets"; 3]);
    let again = together(&[web(&[WEB]), api()], &public, &[]);
    cloud.apply(&again, &with(3));
    assert_eq!(cloud.now.load_balancers.len(), 1);
    assert!(is_finished(&again, &cloud.now));
}
