//! Load balancers of both families of addresses.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use super::super::load_balancers::{Ipv6, LoadBalancer};
use super::super::rules::Change as RuleChange;
use super::*;

const REFUSED: &str = "InvalidConfigurationRequest";

fn both(source_nat: Option<bool>) -> Stack {
    Stack {
        ip_address_type: Some("dualstack".into()),
        source_nat,
        ..Stack::default()
    }
}

fn address(text: &str) -> Ipv6 {
    Ipv6 {
        address: Some(text.parse().unwrap()),
        prefix: None,
    }
}

fn prefix(text: &str) -> Ipv6 {
    Ipv6 {
        address: None,
        prefix: Some(text.into()),
    }
}

fn private_subnets() -> Vec<Mapping> {
    vec![subnet("subnet-private-a"), subnet("subnet-private-b")]
}

/// The IPv6 addresses of the interfaces of a load balancer.
fn addresses(cloud: &Cloud, arn: &str) -> Vec<Option<Ipv6Addr>> {
    let of = cloud.interfaces.values();
    let of = of.filter(|it| it.load_balancer == arn && it.gone.is_none());
    let mut all: Vec<_> = of.map(|it| (&it.subnet, it.ipv6)).collect();
    all.sort();
    all.into_iter().map(|(_, it)| it).collect()
}

/// A UDP listener on port 53 with a target group of this family.
fn make_udp(cloud: &mut Cloud, balancer: &str, protocol: &str, six: bool) -> Result<String> {
    let name = format!("udp-{}", cloud.target_groups.len());
    let group = if six {
        make_ipv6_group(cloud, &name, protocol)
    } else {
        let mut create = target_group(&name);
        create.protocol = Some(protocol.into());
        cloud.create_target_group(START, create).unwrap().arn
    };
    let change = ListenerChange {
        protocol: Some(protocol.into()),
        ..listener(53, &group)
    };
    let made = cloud.create_listener(START, balancer, change, Tags::new());
    made.map(|it| it.arn)
}

/// Makes a load balancer for which this is asked in the first of two subnets. Says which prefixes they have.
fn make(
    kind: &str,
    source_nat: Option<bool>,
    asked: &Ipv6,
) -> Result<(LoadBalancer, [Option<String>; 2])> {
    let mut cloud = dualstack();
    let mut create = balancer(&mut cloud, "web");
    create.ip_address_type = Some(kind.into());
    let stack = Stack {
        source_nat,
        ipv6: [("subnet-private-a".to_owned(), asked.clone())].into(),
        ..Stack::default()
    };
    let before = cloud.snapshot();
    let result = cloud.create_load_balancer_with(START, create.clone(), stack.clone());
    if result.is_err() {
        assert_eq!(before, cloud.snapshot(), "{kind} {stack:?}");
    }
    let made = result?;
    let has = addresses(&cloud, &made.arn);
    let dual = kind == "dualstack";
    assert!(has.iter().all(|it| it.is_some() == dual), "{kind}");
    if asked.address.is_some() {
        assert_eq!(has[0], asked.address);
    }
    let again = cloud.create_load_balancer_with(START, create, stack);
    assert_eq!(again.as_ref(), Ok(&made), "repeated");
    let of = |id: &str| made.ipv6.get(id).and_then(|it| it.prefix.clone());
    let prefixes = ["subnet-private-a", "subnet-private-b"].map(of);
    Ok((made, prefixes))
}

#[test]
fn source_nat_needs_dual_stack() {
    let table = [
        ("dualstack", None, Ok(false)),
        ("dualstack", Some(false), Ok(false)),
        ("dualstack", Some(true), Ok(true)),
        ("ipv4", None, Ok(false)),
        ("ipv4", Some(false), Ok(false)),
        ("ipv4", Some(true), Err(REFUSED)),
    ];
    for (kind, source_nat, expected) in table {
        let result = make(kind, source_nat, &Ipv6::default());
        let expected = expected.map_err(str::to_owned);
        let on = result.map(|(made, _)| made.source_nat);
        assert_eq!(on.map_err(|it| it.code), expected, "{kind} {source_nat:?}");
    }
}

#[test]
fn addresses_are_free_ones_of_their_subnet() {
    let table = [
        ("dualstack", "2001:db8:0:64::50", ""),
        ("ipv4", "2001:db8:0:64::50", REFUSED),
        // Another subnet's, the router's, the last one and a node's.
        ("dualstack", "2001:db8:0:65::50", REFUSED),
        ("dualstack", "2001:db8:0:64::3", REFUSED),
        ("dualstack", "2001:db8:0:64:ffff:ffff:ffff:ffff", REFUSED),
        ("dualstack", "2001:db8:0:64::1:1", "ResourceInUse"),
    ];
    for (kind, text, expected) in table {
        let result = make(kind, None, &address(text));
        assert_eq!(code(result), expected, "{kind} {text}");
    }
}

#[test]
fn prefixes_are_ranges_of_their_subnet() {
    let good = "2001:db8:0:64:1::/80";
    let table = [
        (true, None, Ok("auto_assigned")),
        (true, Some("auto_assigned"), Ok("auto_assigned")),
        (true, Some(good), Ok(good)),
        (false, Some(good), Err(REFUSED)),
        (false, Some("auto_assigned"), Err(REFUSED)),
        (true, Some("2001:db8:0:64:1::/96"), Err(REFUSED)),
        (true, Some("2001:db8:0:64:1::1/80"), Err(REFUSED)),
        (true, Some("2001:db8:0:65:1::/80"), Err(REFUSED)),
        (true, Some("random"), Err(REFUSED)),
    ];
    for (source_nat, text, expected) in table {
        let asked = text.map(prefix).unwrap_or_default();
        let result = make("dualstack", Some(source_nat), &asked);
        let expected = expected
            .map(|first| [first, "auto_assigned"].map(|it| Some(it.to_owned())))
            .map_err(str::to_owned);
        let prefixes = result.map(|(_, prefixes)| prefixes);
        assert_eq!(prefixes.map_err(|it| it.code), expected, "{text:?}");
    }
}

#[test]
fn a_repeated_call_with_other_families_is_another_call() {
    let mut cloud = dualstack();
    make_dualstack(&mut cloud, "web");
    let chosen = Stack {
        ipv6: BTreeMap::from([("subnet-private-a".to_owned(), address("2001:db8:0:64::50"))]),
        ..both(None)
    };
    for stack in [Stack::default(), both(Some(true)), chosen] {
        let create = balancer(&mut cloud, "web");
        let result = cloud.create_load_balancer_with(START, create, stack);
        assert_eq!(code(result), "DuplicateLoadBalancerName");
    }
}

#[test]
fn subnets_need_ipv6() {
    let mut cloud = dualstack();
    let arn = make_balancer(&mut cloud, "web");
    let there = cloud.subnets.get_mut("subnet-private-c").unwrap();
    there.ipv6_cidr = None;
    let all = ["subnet-private-a", "subnet-private-b", "subnet-private-c"].map(subnet);
    let mut set =
        |subnets: &[Mapping], stack: Stack| code(cloud.set_subnets(START, &arn, subnets, stack));
    assert_eq!(set(&all, both(None)), "InvalidSubnet");
    assert_eq!(set(&all[..2], both(None)), "");
    assert_eq!(set(&all, Stack::default()), "InvalidSubnet");
    assert_eq!(code(cloud.set_ip_address_type(&arn, "ipv4")), "");
    let result = cloud.set_ip_address_type(&arn, "ipv6");
    assert_eq!(code(result), "ValidationError");
    let result = cloud.set_subnets(START, &arn, &all, Stack::default());
    assert_eq!(code(result), "");
    let result = cloud.set_ip_address_type(&arn, "dualstack");
    assert_eq!(code(result), "InvalidSubnet");
}

/// The interfaces of a load balancer get and lose addresses of IPv6.
#[test]
fn there_and_back() {
    let mut cloud = dualstack();
    let arn = make_balancer(&mut cloud, "web");
    assert_eq!(addresses(&cloud, &arn), [None, None]);
    cloud.set_ip_address_type(&arn, "dualstack").unwrap();
    let has = addresses(&cloud, &arn);
    assert!(has.iter().all(Option::is_some));
    cloud
        .set_subnets(START, &arn, &private_subnets(), both(Some(true)))
        .unwrap();
    assert_eq!(addresses(&cloud, &arn), has, "addresses stay");
    let there = cloud.load_balancer(&arn).unwrap();
    assert!(there.source_nat && there.ipv6.len() == 2);
    // Without UDP, source NAT goes with dual stack.
    cloud.set_ip_address_type(&arn, "ipv4").unwrap();
    let there = cloud.load_balancer(&arn).unwrap();
    assert!(!there.source_nat && there.ipv6.is_empty());
    assert_eq!(addresses(&cloud, &arn), [None, None]);
}

#[test]
fn addresses_and_prefixes_of_subnets() {
    let mut cloud = dualstack();
    let arn = make_balancer(&mut cloud, "web");
    let mut set = |source_nat: Option<bool>, ipv6: &Ipv6| {
        let stack = Stack {
            ipv6: [("subnet-private-a".to_owned(), ipv6.clone())].into(),
            ..both(source_nat)
        };
        let set = cloud.set_subnets(START, &arn, &private_subnets(), stack)?;
        Ok(set.ipv6.get("subnet-private-a").cloned())
    };
    let (one, two) = (address("2001:db8:0:64::50"), address("2001:db8:0:64::51"));
    let (first, second) = (
        prefix("2001:db8:0:64:1::/80"),
        prefix("2001:db8:0:64:2::/80"),
    );
    assert_eq!(set(None, &one), Ok(Some(one.clone())));
    assert_eq!(set(None, &one), Ok(Some(one.clone())), "the same");
    assert_eq!(code(set(None, &two)), REFUSED, "another");
    let with = |prefix: &Ipv6| {
        Some(Ipv6 {
            address: one.address,
            prefix: prefix.prefix.clone(),
        })
    };
    assert_eq!(set(Some(true), &first), Ok(with(&first)));
    assert_eq!(set(None, &Ipv6::default()), Ok(with(&first)), "it stays");
    assert_eq!(set(None, &second), Ok(with(&second)), "it can change");
    assert_eq!(set(Some(false), &Ipv6::default()), Ok(Some(one.clone())));
    assert_eq!(code(set(None, &first)), REFUSED, "NAT is off");
    let stack = Stack {
        ipv6: BTreeMap::from([("subnet-private-c".to_owned(), two.clone())]),
        ..Stack::default()
    };
    let result = cloud.set_subnets(START, &arn, &private_subnets(), stack);
    assert_eq!(code(result), REFUSED, "no subnet of it");
    // An address that AWS has chosen stays, too.
    let other = make_dualstack(&mut cloud, "other");
    let stack = Stack {
        ipv6: BTreeMap::from([("subnet-private-a".to_owned(), two)]),
        ..Stack::default()
    };
    let result = cloud.set_subnets(START, &other, &private_subnets(), stack);
    assert_eq!(code(result), REFUSED);
    // And nobody gets it a second time.
    let taken = addresses(&cloud, &other)[0];
    let create = balancer(&mut cloud, "third");
    let asked = Ipv6 {
        address: taken,
        prefix: None,
    };
    let stack = Stack {
        ipv6: [("subnet-private-a".to_owned(), asked)].into(),
        ..both(None)
    };
    let result = cloud.create_load_balancer_with(START, create, stack);
    assert_eq!(code(result), "ResourceInUse");
}

#[test]
fn udp_needs_source_nat() {
    for protocol in ["UDP", "TCP_UDP"] {
        let mut cloud = dualstack();
        let arn = make_dualstack(&mut cloud, "web");
        let result = make_udp(&mut cloud, &arn, protocol, true);
        assert_eq!(code(result), REFUSED);
        let mut set = |stack: Stack| {
            let subnets = private_subnets();
            code(cloud.set_subnets(START, &arn, &subnets, stack))
        };
        assert_eq!(set(both(Some(true))), "");
        make_udp(&mut cloud, &arn, protocol, false).unwrap();
        let mut set = |stack: Stack| {
            let subnets = private_subnets();
            code(cloud.set_subnets(START, &arn, &subnets, stack))
        };
        let four = |source_nat: Option<bool>| Stack {
            ip_address_type: Some("ipv4".into()),
            source_nat,
            ..Stack::default()
        };
        assert_eq!(set(both(Some(false))), REFUSED, "it is needed");
        assert_eq!(set(four(None)), REFUSED, "it stays on");
        assert_eq!(set(four(Some(false))), "");
        assert_eq!(set(both(None)), REFUSED, "it is off");
        assert_eq!(set(both(Some(true))), "", "both together");
        let back = code(cloud.set_ip_address_type(&arn, "ipv4"));
        assert_eq!(back, REFUSED, "it stays on");
    }
    let mut cloud = dualstack();
    let arn = make_balancer(&mut cloud, "web");
    let tcp = make_target_group(&mut cloud, "tcp");
    make_listener(&mut cloud, &arn, 80, &tcp);
    make_udp(&mut cloud, &arn, "UDP", false).unwrap();
    let result = cloud.set_ip_address_type(&arn, "dualstack");
    assert_eq!(code(result), REFUSED);
}

/// What AWS says in one place only is a setting.
#[test]
fn udp_may_need_targets_of_ipv6() {
    let mut cloud = dualstack();
    cloud.settings.dualstack_udp_needs_ipv6 = true;
    let arn = make_balancer(&mut cloud, "web");
    let made = make_udp(&mut cloud, &arn, "UDP", false).unwrap();
    let mut set = || {
        let subnets = private_subnets();
        code(cloud.set_subnets(START, &arn, &subnets, both(Some(true))))
    };
    assert_eq!(set(), REFUSED);
    cloud.delete_listener(START, &made).unwrap();
    let result = cloud.set_subnets(START, &arn, &private_subnets(), both(Some(true)));
    assert_eq!(code(result), "");
    assert_eq!(code(make_udp(&mut cloud, &arn, "UDP", false)), REFUSED);
    assert_eq!(code(make_udp(&mut cloud, &arn, "UDP", true)), "");
}

#[test]
fn target_groups_of_ipv6_need_dual_stack() {
    let mut cloud = dualstack();
    let arn = make_balancer(&mut cloud, "web");
    let six = make_ipv6_group(&mut cloud, "six", "TCP");
    let create = |cloud: &mut Cloud| {
        let made = cloud.create_listener(START, &arn, listener(80, &six), Tags::new());
        made.map(|it| it.arn)
    };
    assert_eq!(code(create(&mut cloud)), REFUSED);
    cloud.set_ip_address_type(&arn, "dualstack").unwrap();
    let made = create(&mut cloud).unwrap();
    let result = cloud.set_ip_address_type(&arn, "ipv4");
    assert_eq!(code(result), REFUSED);
    let stack = Stack {
        ip_address_type: Some("ipv4".into()),
        ..Stack::default()
    };
    let result = cloud.set_subnets(START, &arn, &private_subnets(), stack);
    assert_eq!(code(result), REFUSED);
    let four = make_target_group(&mut cloud, "four");
    let change = RuleChange {
        family: Some("ipv4".into()),
        forward: Some(vec![(four.clone(), None)]),
    };
    let rule = cloud.create_rule(START, &made, 1, change, Tags::new());
    let rule = rule.unwrap().arn;
    let change = ListenerChange {
        forward: Some(vec![(four, None)]),
        ..ListenerChange::default()
    };
    cloud.modify_listener(START, &made, change).unwrap();
    let change = RuleChange {
        family: None,
        forward: Some(vec![(six, None)]),
    };
    cloud.modify_rule(START, &rule, change).unwrap();
    let mut back = || code(cloud.set_ip_address_type(&arn, "ipv4"));
    assert_eq!(back(), REFUSED, "a rule");
    cloud.delete_rule(START, &rule).unwrap();
    assert_eq!(code(cloud.set_ip_address_type(&arn, "ipv4")), "");
}

#[test]
fn target_groups_of_ipv6_have_addresses_as_targets() {
    let mut cloud = dualstack();
    let table = [
        (None, "ipv6", REFUSED),
        (Some("instance"), "ipv6", REFUSED),
        (Some("ip"), "ipv6", ""),
        (Some("ip"), "dualstack", "ValidationError"),
        (Some("instance"), "ipv4", ""),
    ];
    for (number, (target_type, family, expected)) in table.into_iter().enumerate() {
        let create = CreateTargetGroup {
            target_type: target_type.map(str::to_owned),
            ip_address_type: Some(family.into()),
            ..target_group(&format!("g{number}"))
        };
        let result = cloud.create_target_group(START, create);
        assert_eq!(code(result), expected, "{target_type:?} {family}");
    }
}
