use super::super::load_balancers::{Create, Which};
use super::super::network::{Address, Subnet, Vpc};
use super::*;

pub(super) type Change = fn(&mut Create);

pub(super) fn check(table: &[(&str, Change, &str)]) {
    for (what, change, expected) in table {
        let mut cloud = cloud();
        prepare(&mut cloud);
        let before = cloud.snapshot();
        let mut create = balancer(&mut cloud, "web");
        change(&mut create);
        let result = cloud.create_load_balancer(START, create);
        assert_eq!(code(result), *expected, "{what}");
        if !expected.is_empty() {
            let after = cloud.snapshot();
            assert_eq!(before.load_balancers, after.load_balancers, "{what}");
            assert_eq!(before.interfaces, after.interfaces, "{what}");
        }
    }
}

/// More of a network than most have.
pub(super) fn prepare(cloud: &mut Cloud) {
    for (id, ip) in [("eipalloc-1", 1), ("eipalloc-2", 2)] {
        let id = id.into();
        let ip = [198, 51, 100, ip].into();
        cloud.put_address(Address { id, ip });
    }
    cloud.put_vpc(Vpc {
        id: "vpc-other".into(),
        cidr: "10.1.0.0/16".parse().unwrap(),
    });
    let small = Subnet {
        id: "subnet-full".into(),
        free: 7,
        ..cloud.subnets["subnet-private-a"].clone()
    };
    cloud.put_subnet(Subnet {
        id: "subnet-other".into(),
        vpc: "vpc-other".into(),
        cidr: "10.1.0.0/24".parse().unwrap(),
        free: 251,
        zone: "eu-central-1c".into(),
        ..small.clone()
    });
    cloud.put_subnet(small);
    let mut zone = cloud.zones["eu-central-1c"].clone();
    zone.kind = "local-zone".into();
    cloud.put_zone(zone);
    let other = CreateSecurityGroup {
        name: "other".into(),
        description: "other".into(),
        vpc: Some("vpc-other".into()),
        tags: Tags::new(),
    };
    let id = cloud.create_security_group(START, other).unwrap().id;
    let mut moved = cloud.security_groups.remove(&id, START).unwrap();
    moved.id = "sg-other".into();
    cloud.security_groups.put(moved.id.clone(), moved);
}

#[test]
fn names() {
    check(&[
        ("good", |it| it.name = "a-1".into(), ""),
        ("32", |it| it.name = "x".repeat(32), ""),
        ("33", |it| it.name = "x".repeat(33), "ValidationError"),
        ("empty", |it| it.name = String::new(), "ValidationError"),
        ("dot", |it| it.name = "a.b".into(), "ValidationError"),
        ("first", |it| it.name = "-a".into(), "ValidationError"),
        ("last", |it| it.name = "a-".into(), "ValidationError"),
        (
            "internal-",
            |it| it.name = "internal-a".into(),
            "ValidationError",
        ),
    ]);
}

#[test]
fn kinds_and_schemes() {
    check(&[
        ("no type", |it| it.kind = None, "ValidationError"),
        (
            "application",
            |it| it.kind = Some("application".into()),
            "ValidationError",
        ),
        (
            "scheme",
            |it| it.scheme = Some("public".into()),
            "InvalidScheme",
        ),
        (
            "stack",
            |it| it.ip_address_type = Some("ipv6".into()),
            "ValidationError",
        ),
        (
            "no IPv6",
            |it| it.ip_address_type = Some("dualstack".into()),
            "InvalidSubnet",
        ),
    ]);
}

#[test]
fn security_groups() {
    check(&[
        ("none", |it| it.security_groups.clear(), ""),
        (
            "unknown",
            |it| it.security_groups.push("sg-x".into()),
            "InvalidSecurityGroup",
        ),
        (
            "another VPC",
            |it| it.security_groups.push("sg-other".into()),
            "InvalidSecurityGroup",
        ),
        (
            "twice",
            |it| it.security_groups.push(it.security_groups[0].clone()),
            "InvalidSecurityGroup",
        ),
        (
            "six",
            |it| it.security_groups = (0..6).map(|it| format!("sg-{it}")).collect(),
            "InvalidConfigurationRequest",
        ),
    ]);
}

#[test]
fn a_repeated_call_returns_what_there_is() {
    let mut cloud = cloud();
    prepare(&mut cloud);
    let first = make_balancer(&mut cloud, "web");
    let table: &[(&str, Change, bool)] = &[
        ("equal", |_| {}, true),
        ("order", |it| it.subnets.reverse(), true),
        ("tags", |it| it.tags.clear(), false),
        (
            "scheme",
            |it| it.scheme = Some("internet-facing".into()),
            false,
        ),
        ("groups", |it| it.security_groups.clear(), false),
        ("subnets", |it| drop(it.subnets.pop()), false),
        (
            "address",
            |it| it.subnets[0].private_address = Some([10, 0, 100, 50].into()),
            false,
        ),
    ];
    for (what, change, same) in table {
        let mut create = balancer(&mut cloud, "web");
        change(&mut create);
        let result = cloud.create_load_balancer(START, create);
        if *same {
            assert_eq!(result.unwrap().arn, first, "{what}");
        } else {
            assert_eq!(code(result), "DuplicateLoadBalancerName", "{what}");
        }
    }
    cloud.settings.tags_are_settings = false;
    let mut create = balancer(&mut cloud, "web");
    create.tags.clear();
    let again = cloud.create_load_balancer(START, create).unwrap();
    assert_eq!((again.arn, again.tags), (first, tags(&[("owner", "us")])));
    assert_eq!(cloud.load_balancers.len(), 1);
}

#[test]
fn it_takes_time_until_one_is_active() {
    let mut cloud = cloud();
    let arn = make_balancer(&mut cloud, "web");
    let there = cloud.load_balancer(&arn).unwrap();
    assert_eq!(there.state(START + seconds(119)), "provisioning");
    assert_eq!(there.state(START + seconds(120)), "active");
}

#[test]
fn interfaces_outlive_their_load_balancer() {
    let mut cloud = cloud();
    let arn = make_balancer(&mut cloud, "web");
    let group = cloud.load_balancer(&arn).unwrap().security_groups[0].clone();
    cloud.delete_load_balancer(START, &arn).unwrap();
    assert_eq!(cloud.interfaces.len(), 2);
    for (second, expected) in [(59, "DependencyViolation"), (60, "")] {
        let now = START + seconds(second);
        cloud.tick(now);
        assert_eq!(code(cloud.delete_security_group(now, &group)), expected);
    }
    assert!(cloud.interfaces.is_empty());
}

#[test]
fn deletion() {
    let mut cloud = cloud();
    let arn = make_balancer(&mut cloud, "web");
    let group = make_target_group(&mut cloud, "web");
    make_listener(&mut cloud, &arn, 80, &group);
    let mut protect = |on: &str| {
        let key = super::super::attributes::DELETION_PROTECTION;
        let change = tags(&[(key, on)]);
        cloud
            .modify_load_balancer_attributes(&arn, &change)
            .unwrap();
        code(cloud.delete_load_balancer(START, &arn))
    };
    assert_eq!(protect("true"), "OperationNotPermitted");
    assert_eq!(protect("false"), "");
    assert!(cloud.listeners.is_empty());
    assert_eq!(code(cloud.delete_load_balancer(START, &arn)), "");
    assert_eq!(
        code(cloud.delete_load_balancer(START, "web")),
        "ValidationError"
    );
    assert_eq!(code(cloud.delete_target_group(START, &group)), "");
}

#[test]
fn groups_can_be_replaced_and_not_be_added() {
    let mut cloud = cloud();
    let arn = make_balancer(&mut cloud, "web");
    let other = group(&mut cloud, "other");
    let mut bare = balancer(&mut cloud, "bare");
    bare.security_groups.clear();
    let bare = cloud.create_load_balancer(START, bare).unwrap().arn;
    let table = [
        (&arn, vec![other.clone()], ""),
        (&arn, vec![], "ValidationError"),
        (&arn, vec!["sg-x".into()], "InvalidSecurityGroup"),
        (&bare, vec![other.clone()], "InvalidConfigurationRequest"),
    ];
    for (arn, groups, expected) in table {
        let result = cloud.set_security_groups(arn, groups.clone(), None);
        assert_eq!(code(result), expected, "{arn} {groups:?}");
    }
    let mut used = cloud
        .interfaces
        .values()
        .filter(|it| it.load_balancer == arn);
    assert!(used.all(|it| it.groups == [other.clone()]));
}

#[test]
fn attributes() {
    let table = [
        ("deletion_protection.enabled", "true", ""),
        ("deletion_protection.enabled", "yes", "ValidationError"),
        ("load_balancing.cross_zone.enabled", "true", ""),
        (
            "dns_record.client_routing_policy",
            "availability_zone_affinity",
            "",
        ),
        (
            "dns_record.client_routing_policy",
            "near",
            "ValidationError",
        ),
        ("secondary_ips.auto_assigned.per_subnet", "7", ""),
        (
            "secondary_ips.auto_assigned.per_subnet",
            "8",
            "ValidationError",
        ),
        (
            "access_logs.s3.enabled",
            "true",
            "InvalidConfigurationRequest",
        ),
        (
            "waf.fail_open.enabled",
            "true",
            "InvalidConfigurationRequest",
        ),
        (
            "idle_timeout.timeout_seconds",
            "60",
            "InvalidConfigurationRequest",
        ),
        ("colour", "red", "ValidationError"),
    ];
    for (key, value, expected) in table {
        let mut cloud = cloud();
        let arn = make_balancer(&mut cloud, "web");
        let result = cloud.modify_load_balancer_attributes(&arn, &tags(&[(key, value)]));
        assert_eq!(code(result), expected, "{key}={value}");
    }
}

#[test]
fn lookups() {
    let mut cloud = cloud();
    let arn = make_balancer(&mut cloud, "web");
    let many: Vec<String> = (0..21).map(|it| format!("n{it}")).collect();
    let table = [
        (Which::All, ""),
        (Which::Arns(vec![arn.clone()]), ""),
        (Which::Names(vec!["web".into()]), ""),
        (
            Which::Arns(vec![arn.clone(), format!("{arn}0")]),
            "LoadBalancerNotFound",
        ),
        (
            Which::Names(vec!["web".into(), "x".into()]),
            "LoadBalancerNotFound",
        ),
        (Which::Arns(vec!["x".into()]), "ValidationError"),
        (Which::Names(many), "ValidationError"),
    ];
    for (which, expected) in table {
        let result = cloud.describe_load_balancers(START, &which);
        assert_eq!(code(result), expected, "{which:?}");
    }
}
