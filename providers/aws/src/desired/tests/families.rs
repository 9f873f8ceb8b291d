//! Which families load balancers, target groups and listeners have.

use super::*;
use crate::target::{Backends, Reached};

type Asked = &'static [(&'static str, &'static str)];
type Families = &'static [Family];

const BOTH: [Family; 2] = [Family::V4, Family::V6];
const DNS: (Protocol, u16, u16) = (Protocol::Udp, 53, 30_053);
const DUALSTACK: Addresses = Addresses::Dualstack { source_nat: false };
const WITH_NAT: Addresses = Addresses::Dualstack { source_nat: true };

fn with(families: &[Family], ports: &[(Protocol, u16, u16)]) -> LoadBalancer {
    LoadBalancer {
        families: families.to_vec(),
        ..service(ports)
    }
}

/// The families of the target groups of port 80: that of the default action, and whether there is a rule.
fn split(desired: &Desired) -> (Family, bool) {
    let listener = &desired.listeners[&80];
    let rule = listener.ipv6.as_ref();
    let rule = rule.map(|it| &desired.target_groups[it.only().expect("one")]);
    assert!(rule.is_none_or(|it| it.family == Family::V6));
    (group(desired, 80).family, rule.is_some())
}

#[test]
fn the_families_of_a_service_and_its_annotation_decide() {
    let table: [(Families, Asked, Addresses, (Family, bool)); 7] = [
        (&BOTH[..1], &[], Addresses::Ipv4, (Family::V4, false)),
        (&BOTH, &[], DUALSTACK, (Family::V4, true)),
        (&BOTH[1..], &[], DUALSTACK, (Family::V6, false)),
        (
            &BOTH[..1],
            &[("ip-address-type", "dualstack")],
            DUALSTACK,
            (Family::V4, false),
        ),
        (
            &BOTH,
            &[("ip-address-type", "ipv4")],
            Addresses::Ipv4,
            (Family::V4, false),
        ),
        (
            &BOTH,
            &[("nlb-target-type", "ip")],
            DUALSTACK,
            (Family::V4, true),
        ),
        (
            &BOTH,
            &[("enable-prefix-for-ipv6-source-nat", "on")],
            WITH_NAT,
            (Family::V4, true),
        ),
    ];
    for (families, annotations, addresses, groups) in table {
        let seen = desired(&with(families, &[WEB]), annotations);
        let got = (seen.addresses, split(&seen));
        assert_eq!(got, (addresses, groups), "{families:?} {annotations:?}");
    }
    // AWS has no UDP listeners on dual-stack load balancers without source NAT.
    let udp = with(&BOTH, &[WEB, DNS]);
    assert_eq!(desired(&udp, &[]).addresses, WITH_NAT);
    let udp = with(&BOTH[..1], &[WEB, DNS]);
    assert_eq!(desired(&udp, &[]).addresses, Addresses::Ipv4);
}

#[test]
fn nodes_are_instances_for_one_family_and_addresses_for_the_other() {
    let seen = desired(&with(&BOTH, &[WEB]), &[]);
    let groups = seen.target_groups.values();
    let mut found: Vec<_> = groups
        .map(|it| {
            let preserved = it.attributes.get(attributes::PRESERVE_CLIENT_IP);
            (it.family, it.backends(), preserved.map(String::as_str))
        })
        .collect();
    found.sort();
    let all = Selector::default;
    let expected = [
        (Family::V4, Backends::Nodes(all(), Reached::Instance), None),
        (
            Family::V6,
            Backends::Nodes(all(), Reached::Ipv6(30_080)),
            Some("true"),
        ),
    ];
    assert_eq!(found, expected);
    let pods = desired(&with(&BOTH, &[WEB]), &[("nlb-target-type", "ip")]);
    let pods = pods.target_groups.values().map(TargetGroup::backends);
    let pods: BTreeSet<_> = pods.collect();
    assert_eq!(pods, BOTH.map(Backends::Pods).into());
}

/// Whoever may connect by default may do so with both families.
#[test]
fn clients_of_both_families_are_let_in() {
    let rules = |families: &[Family], annotations: &[(&str, &str)]| {
        let seen = desired(&with(families, &[WEB]), annotations);
        let Groups::Own { rules, .. } = seen.groups else {
            panic!("a group of its own");
        };
        rules.len()
    };
    let mtu = [("enable-icmp-for-path-mtu-discovery", "on")];
    assert_eq!(rules(&BOTH[..1], &[]), 1);
    assert_eq!(rules(&BOTH, &[]), 2);
    assert_eq!(rules(&BOTH[..1], &mtu), 2);
    assert_eq!(rules(&BOTH, &mtu), 4);
    assert_eq!(rules(&BOTH, &[("security-group-prefix-lists", "pl-1")]), 1);
    let mut service = with(&BOTH, &[WEB]);
    service.source_ranges = (0..60)
        .flat_map(|number| [format!("10.0.{number}.0/24"), format!("fd00:{number}::/32")])
        .map(|range| range.parse().expect("a range"))
        .collect();
    // AWS counts each family for itself.
    assert!(of(&service, &[]).is_ok());
    service
        .source_ranges
        .push("10.1.0.0/24".parse().expect("a range"));
    assert!(of(&service, &[]).is_err());
}

#[test]
fn without_addresses_the_family_is_left_out_or_missed() {
    let dry = || {
        let mut found = found();
        found.subnets[1].ipv6 = false;
        found
    };
    let table: [(Families, FamilyPolicy, Asked, Option<&str>); 6] = [
        (&BOTH[..1], FamilyPolicy::SingleStack, &[], None),
        (&BOTH, FamilyPolicy::PreferDualStack, &[], None),
        (
            &BOTH,
            FamilyPolicy::RequireDualStack,
            &[],
            Some("spec.ipFamilyPolicy: RequireDualStack needs"),
        ),
        (
            &BOTH[1..],
            FamilyPolicy::SingleStack,
            &[],
            Some("spec.ipFamilies needs"),
        ),
        (
            &BOTH[..1],
            FamilyPolicy::SingleStack,
            &[("ip-address-type", "dualstack")],
            Some("ip-address-type: dualstack (annotation"),
        ),
        (
            &BOTH,
            FamilyPolicy::RequireDualStack,
            &[("ip-address-type", "ipv4")],
            None,
        ),
    ];
    for (families, policy, annotations, expected) in table {
        let (service, settings) = (with(families, &[WEB]), settings(annotations));
        let part = Part {
            policy,
            ..part(&service, &settings)
        };
        let why = missing_ipv6(&[part], &dry()).map(|it| it.message);
        let fits = match (expected, &why) {
            (None, None) => true,
            (Some(words), Some(why)) => why.contains(words) && why.contains("subnet-b has none"),
            _ => false,
        };
        assert!(fits, "{families:?} {policy:?} {annotations:?}: {why:?}");
        assert_eq!(missing_ipv6(&[part], &found()), None);
    }
    let left_out = alone(&with(&BOTH, &[WEB]), &settings(&[]), &dry()).expect("accepted");
    assert_eq!(left_out.desired.addresses, Addresses::Ipv4);
    assert_eq!(left_out.desired.target_groups.len(), 1);
    let [said] = &left_out.remarks[..] else {
        panic!("{:?}", left_out.remarks);
    };
    assert!(said.contains("subnet-b has none"), "{said}");
}

#[test]
fn without_nodes_of_the_family_its_clients_are_translated() {
    let none = LookedUp {
        ipv6_nodes: false,
        ..found()
    };
    let seen = alone(&with(&BOTH, &[WEB]), &settings(&[]), &none).expect("accepted");
    assert_eq!(seen.desired.addresses, DUALSTACK);
    assert_eq!(split(&seen.desired), (Family::V4, false));
    let [said] = &seen.remarks[..] else {
        panic!("{:?}", seen.remarks);
    };
    assert!(said.contains("no node has an IPv6 address"), "{said}");
    // Pods have both.
    let pods = settings(&[("nlb-target-type", "ip")]);
    let seen = alone(&with(&BOTH, &[WEB]), &pods, &none).expect("accepted");
    assert_eq!(split(&seen.desired), (Family::V4, true));
    assert_eq!(seen.remarks, Vec::<String>::new());
}

/// AWS sends UDP of dual-stack load balancers to IPv6 addresses only.
#[test]
fn udp_needs_nodes_of_the_family() {
    let none = || LookedUp {
        ipv6_nodes: false,
        ..found()
    };
    for (policy, misses) in [
        (FamilyPolicy::PreferDualStack, false),
        (FamilyPolicy::RequireDualStack, true),
    ] {
        let (service, plain) = (with(&BOTH, &[WEB, DNS]), settings(&[]));
        let part = Part {
            policy,
            ..part(&service, &plain)
        };
        let why = missing_ipv6(&[part], &none()).map(|it| it.message);
        assert_eq!(why.is_some(), misses, "{why:?}");
        assert!(why.is_none_or(|it| it.contains("port 53 is UDP")));
        assert_eq!(missing_ipv6(&[part], &found()), None);
        assert!(depends_on_nodes(&part));
    }
    let seen = alone(&with(&BOTH, &[WEB, DNS]), &settings(&[]), &none()).expect("accepted");
    assert_eq!(seen.desired.addresses, Addresses::Ipv4);
    assert!(
        seen.remarks.concat().contains("port 53 is UDP"),
        "{:?}",
        seen.remarks
    );
    let seen = alone(&with(&BOTH, &[WEB, DNS]), &settings(&[]), &found()).expect("accepted");
    assert_eq!(seen.desired.addresses, WITH_NAT);
    let dns = &seen.desired.listeners[&53];
    assert_eq!(
        (group(&seen.desired, 53).family, dns.ipv6.is_some()),
        (Family::V6, false)
    );
    assert!(
        seen.remarks.concat().contains("port 53 is UDP"),
        "{:?}",
        seen.remarks
    );
}

#[test]
fn what_contradicts_itself_is_refused() {
    let table: [(Families, Asked, &str); 3] = [
        (
            &BOTH[..1],
            &[("ip-address-type", "dualstack")],
            "spec.ipFamilies of the Service needs IPv6",
        ),
        (
            &BOTH[1..],
            &[("ip-address-type", "ipv4")],
            "spec.ipFamilies of the Service has only IPv6",
        ),
        (
            &BOTH,
            &[("enable-prefix-for-ipv6-source-nat", "off")],
            "port 53 is UDP",
        ),
    ];
    for (families, annotations, says) in table {
        let service = with(families, &[WEB, DNS]);
        let refusal = check_alone(&service, &settings(annotations)).expect_err(says);
        assert!(refusal.message.contains(says), "{refusal}");
        assert!(refusal.message.contains(PREFIX), "{refusal}");
    }
}
