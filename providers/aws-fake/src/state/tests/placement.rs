//! In which subnets a load balancer is, and with which addresses.

use super::super::load_balancers::Create;
use super::load_balancers::{check, prepare};
use super::*;

#[test]
fn subnets() {
    check(&[
        ("none", |it| it.subnets.clear(), "ValidationError"),
        (
            "unknown",
            |it| it.subnets.push(subnet("subnet-x")),
            "SubnetNotFound",
        ),
        (
            "one zone twice",
            |it| it.subnets.push(subnet("subnet-public-a")),
            "InvalidConfigurationRequest",
        ),
        (
            "two VPCs",
            |it| it.subnets.push(subnet("subnet-other")),
            "InvalidConfigurationRequest",
        ),
        (
            "full",
            |it| it.subnets = vec![subnet("subnet-full")],
            "InvalidSubnet",
        ),
        (
            "local zone",
            |it| it.subnets.push(subnet("subnet-private-c")),
            "AvailabilityZoneNotSupported",
        ),
        (
            "no internet",
            |it| {
                it.scheme = None;
                it.security_groups.clear();
                it.subnets = vec![subnet("subnet-other")];
            },
            "InvalidSubnet",
        ),
    ]);
}

#[test]
fn private_addresses() {
    fn at(address: &str) -> Vec<Mapping> {
        let private_address = Some(address.parse().unwrap());
        vec![Mapping {
            private_address,
            ..subnet("subnet-private-a")
        }]
    }
    check(&[
        ("good", |it| it.subnets = at("10.0.100.50"), ""),
        (
            "elsewhere",
            |it| it.subnets = at("10.0.101.50"),
            "InvalidConfigurationRequest",
        ),
        (
            "reserved",
            |it| it.subnets = at("10.0.100.3"),
            "InvalidConfigurationRequest",
        ),
        (
            "broadcast",
            |it| it.subnets = at("10.0.100.255"),
            "InvalidConfigurationRequest",
        ),
        (
            "an instance's",
            |it| it.subnets = at("10.0.100.101"),
            "ResourceInUse",
        ),
        (
            "full, but chosen",
            |it| {
                it.subnets = at("10.0.100.50");
                it.subnets[0].subnet = "subnet-full".into();
            },
            "",
        ),
        (
            "public",
            |it| {
                it.subnets = at("10.0.100.50");
                it.scheme = Some("internet-facing".into());
            },
            "InvalidConfigurationRequest",
        ),
    ]);
}

#[test]
fn elastic_addresses() {
    fn with(it: &mut Create, scheme: &str, allocations: [Option<&str>; 2]) {
        it.scheme = Some(scheme.into());
        it.subnets = vec![subnet("subnet-public-a"), subnet("subnet-public-b")];
        for (mapping, id) in it.subnets.iter_mut().zip(allocations) {
            mapping.allocation = id.map(str::to_owned);
        }
    }
    let (one, two) = (Some("eipalloc-1"), Some("eipalloc-2"));
    let table = [
        ("internet-facing", [one, two], ""),
        (
            "internet-facing",
            [one, None],
            "InvalidConfigurationRequest",
        ),
        (
            "internet-facing",
            [one, Some("eipalloc-3")],
            "AllocationIdNotFound",
        ),
        ("internal", [one, two], "InvalidConfigurationRequest"),
    ];
    for (scheme, allocations, expected) in table {
        let mut cloud = cloud();
        prepare(&mut cloud);
        let mut create = balancer(&mut cloud, "web");
        with(&mut create, scheme, allocations);
        let result = cloud.create_load_balancer(START, create.clone());
        assert_eq!(code(result), expected, "{scheme} {allocations:?}");
        if expected.is_empty() {
            create.name = "other".into();
            let result = cloud.create_load_balancer(START, create);
            assert_eq!(code(result), "ResourceInUse");
        }
    }
}

#[test]
fn subnets_change_zone_by_zone() {
    let table: &[(&str, &[&str], &str)] = &[
        ("same", &["subnet-private-a", "subnet-private-b"], ""),
        (
            "added",
            &["subnet-private-a", "subnet-private-b", "subnet-private-c"],
            "",
        ),
        ("removed", &["subnet-private-a"], ""),
        ("all others", &["subnet-private-c"], ""),
        (
            "changed",
            &["subnet-public-a", "subnet-private-b"],
            "InvalidConfigurationRequest",
        ),
        ("none", &[], "ValidationError"),
        ("unknown", &["subnet-x"], "SubnetNotFound"),
    ];
    for (what, ids, expected) in table {
        let mut cloud = cloud();
        let arn = make_balancer(&mut cloud, "web");
        let all: Vec<Mapping> = ids.iter().map(|id| subnet(id)).collect();
        let result = cloud.set_subnets(START, &arn, &all, Stack::default());
        assert_eq!(code(result), *expected, "{what}");
        let there = cloud.load_balancer(&arn).unwrap();
        let now: Vec<&str> = there.zones.values().map(|it| it.subnet.as_str()).collect();
        let expected = if expected.is_empty() {
            *ids
        } else {
            &["subnet-private-a", "subnet-private-b"]
        };
        assert_eq!(now, expected, "{what}");
        let live = cloud.interfaces.values().filter(|it| it.gone.is_none());
        assert_eq!(live.count(), now.len(), "{what}");
    }
}

#[test]
fn a_zone_gets_another_subnet_after_the_first_one_is_gone() {
    let mut cloud = cloud();
    let arn = make_balancer(&mut cloud, "web");
    let mut set = |second: u64, ids: &[&str]| {
        let now = START + seconds(second);
        cloud.tick(now);
        let all: Vec<Mapping> = ids.iter().map(|id| subnet(id)).collect();
        code(cloud.set_subnets(now, &arn, &all, Stack::default()))
    };
    assert_eq!(set(0, &["subnet-private-b"]), "");
    let wanted = ["subnet-public-a", "subnet-private-b"];
    assert_eq!(set(59, &wanted), "InvalidConfigurationRequest");
    assert_eq!(set(60, &wanted), "");
}
