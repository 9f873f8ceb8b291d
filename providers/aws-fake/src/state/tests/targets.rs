use super::super::targets::Description;
use super::*;

fn target(id: &str) -> Description {
    Description {
        id: id.into(),
        port: None,
        zone: None,
    }
}

/// A target group that a load balancer uses.
fn used(cloud: &mut Cloud) -> String {
    let balancer = make_balancer(cloud, "web");
    let group = make_target_group(cloud, "web");
    make_listener(cloud, &balancer, 80, &group);
    group
}

fn states(cloud: &mut Cloud, group: &str, now: Moment) -> Vec<&'static str> {
    cloud.tick(now);
    let all = cloud.describe_target_health(now, group, &[]).unwrap();
    all.iter().map(|it| it.state).collect()
}

#[test]
fn only_running_instances_of_the_vpc_are_registered() {
    let mut cloud = cloud();
    let arn = used(&mut cloud);
    for state in ["pending", "stopped", "terminated"] {
        cloud.instances.get_mut("i-00000002").unwrap().state = state.into();
        let result =
            cloud.register_targets(START, &arn, &[target("i-00000001"), target("i-00000002")]);
        assert_eq!(code(result), "InvalidTarget", "{state}");
    }
    let table = [
        (vec![], "ValidationError"),
        (vec![target("i-x")], "InvalidTarget"),
        (vec![target("10.0.0.9")], "InvalidTarget"),
        (vec![target("i-00000001"), target("i-00000001")], ""),
    ];
    for (targets, expected) in table {
        let result = cloud.register_targets(START, &arn, &targets);
        assert_eq!(code(result), expected, "{targets:?}");
    }
    assert_eq!(cloud.target_group(&arn).unwrap().targets.len(), 1);
}

#[test]
fn addresses_are_private_and_have_a_zone_outside_the_vpc() {
    let mut cloud = cloud();
    let create = CreateTargetGroup {
        target_type: Some("ip".into()),
        ..target_group("pods")
    };
    let made = cloud.create_target_group(START, create).unwrap();
    assert_eq!(made.attributes["preserve_client_ip.enabled"], "false");
    let subnet = cloud.subnets.values().next().unwrap().cidr;
    let inside = subnet.hosts().nth(20).unwrap().to_string();
    let at = |id: &str, zone: Option<&str>| Description {
        id: id.into(),
        port: Some(8080),
        zone: zone.map(str::to_owned),
    };
    for (description, expected) in [
        (at(&inside, None), ""),
        (at("192.168.7.7", None), "ValidationError"),
        (at("192.168.7.7", Some("all")), ""),
        (at("100.64.0.1", Some("all")), ""),
        (at("100.128.0.1", Some("all")), "InvalidTarget"),
        (at("8.8.8.8", Some("all")), "InvalidTarget"),
        (at("fd00::1", None), "InvalidTarget"),
        (at("i-00000001", None), "InvalidTarget"),
    ] {
        let result = cloud.register_targets(START, &made.arn, std::slice::from_ref(&description));
        assert_eq!(code(result), expected, "{description:?}");
    }
    assert_eq!(cloud.target_group(&made.arn).unwrap().targets.len(), 3);
}

#[test]
fn addresses_of_ipv6_are_in_the_vpc_or_have_all_zones() {
    let mut cloud = dualstack();
    let arn = make_ipv6_group(&mut cloud, "pods", "TCP");
    let at = |id: &str, zone: Option<&str>| Description {
        id: id.into(),
        port: Some(8080),
        zone: zone.map(str::to_owned),
    };
    for (description, expected) in [
        (at("2001:db8:0:64::77", None), ""),
        (at("2001:db8:0:64::77", Some("all")), ""),
        (at("2001:db8:0:ff::77", None), "ValidationError"),
        (at("2001:db8:0:ff::77", Some("all")), ""),
        (at("fd00::1", Some("all")), ""),
        (at("::1", Some("all")), "InvalidTarget"),
        (at("fe80::1", Some("all")), "InvalidTarget"),
        (at("ff02::1", None), "InvalidTarget"),
        (at("10.0.100.20", None), "InvalidTarget"),
        (at("i-00000001", None), "InvalidTarget"),
    ] {
        let result = cloud.register_targets(START, &arn, std::slice::from_ref(&description));
        assert_eq!(code(result), expected, "{description:?}");
    }
    assert_eq!(cloud.target_group(&arn).unwrap().targets.len(), 3);
}

/// The zone of an address is that of its subnet.
#[test]
fn targets_of_ipv6_have_zones() {
    let mut cloud = dualstack();
    let balancer = make_dualstack(&mut cloud, "web");
    let arn = make_ipv6_group(&mut cloud, "pods", "TCP");
    make_listener(&mut cloud, &balancer, 80, &arn);
    let targets = ["2001:db8:0:64::77", "2001:db8:0:66::77"].map(target);
    cloud.register_targets(START, &arn, &targets).unwrap();
    let later = START + seconds(400);
    // The load balancer is not in the third zone.
    assert_eq!(states(&mut cloud, &arn, later), ["healthy", "unused"]);
    cloud.sick.insert("2001:db8:0:64::77".parse().unwrap());
    assert_eq!(states(&mut cloud, &arn, later), ["unhealthy", "unused"]);
}

#[test]
fn a_target_becomes_healthy() {
    let mut cloud = cloud();
    let arn = used(&mut cloud);
    let targets = [
        target("i-00000001"),
        target("i-00000002"),
        target("i-00000003"),
    ];
    cloud.register_targets(START, &arn, &targets).unwrap();
    cloud.instances.get_mut("i-00000002").unwrap().healthy = false;
    // 120 s until the load balancer is active, 60 s registration, 5 checks of 30 s. The third
    // instance is in a zone without the load balancer.
    let table = [
        (0, ["initial", "initial", "unused"]),
        (329, ["initial", "initial", "unused"]),
        (330, ["healthy", "unhealthy", "unused"]),
    ];
    for (second, expected) in table {
        let now = START + seconds(second);
        assert_eq!(states(&mut cloud, &arn, now), expected, "{second}");
    }
    let user = cloud.user_of(&arn).unwrap().to_owned();
    let cross_zone = tags(&[("load_balancing.cross_zone.enabled", "true")]);
    cloud
        .modify_load_balancer_attributes(&user, &cross_zone)
        .unwrap();
    cloud.instances.get_mut("i-00000001").unwrap().state = "stopped".into();
    let now = START + seconds(400);
    assert_eq!(
        states(&mut cloud, &arn, now),
        ["unused", "unhealthy", "healthy"]
    );
}

#[test]
fn a_target_of_an_unused_group_is_unused() {
    let mut cloud = cloud();
    let arn = make_target_group(&mut cloud, "web");
    cloud
        .register_targets(START, &arn, &[target("i-00000001")])
        .unwrap();
    let later = START + seconds(3_600);
    assert_eq!(states(&mut cloud, &arn, later), ["unused"]);
    // It does not drain.
    cloud
        .deregister_targets(later, &arn, &[target("i-00000001")])
        .unwrap();
    assert!(states(&mut cloud, &arn, later).is_empty());
}

#[test]
fn a_target_drains() {
    let mut cloud = cloud();
    let arn = used(&mut cloud);
    cloud
        .register_targets(START, &arn, &[target("i-00000001"), target("i-00000002")])
        .unwrap();
    let later = START + seconds(1_000);
    let gone = [target("i-00000001"), target("i-00000003")];
    cloud.deregister_targets(later, &arn, &gone).unwrap();
    let table: [(u64, &[&str]); 3] = [
        (0, &["draining", "healthy"]),
        (299, &["draining", "healthy"]),
        (300, &["healthy"]),
    ];
    for (second, expected) in table {
        let now = later + seconds(second);
        assert_eq!(states(&mut cloud, &arn, now), expected, "{second}");
    }
}

#[test]
fn a_target_that_drains_can_come_back() {
    let mut cloud = cloud();
    let arn = used(&mut cloud);
    let one = [target("i-00000001")];
    cloud.register_targets(START, &arn, &one).unwrap();
    let later = START + seconds(1_000);
    cloud.deregister_targets(later, &arn, &one).unwrap();
    cloud
        .register_targets(later + seconds(10), &arn, &one)
        .unwrap();
    assert_eq!(states(&mut cloud, &arn, later + seconds(10)), ["initial"]);
    assert_eq!(states(&mut cloud, &arn, later + seconds(400)), ["healthy"]);
    // A repeated registration changes nothing.
    cloud
        .register_targets(later + seconds(400), &arn, &one)
        .unwrap();
    assert_eq!(states(&mut cloud, &arn, later + seconds(400)), ["healthy"]);
}

#[test]
fn a_port_makes_another_target() {
    let mut cloud = cloud();
    let arn = used(&mut cloud);
    let other = Description {
        port: Some(9),
        zone: None,
        ..target("i-00000001")
    };
    cloud
        .register_targets(START, &arn, &[target("i-00000001"), other])
        .unwrap();
    assert_eq!(states(&mut cloud, &arn, START).len(), 2);
    cloud
        .deregister_targets(START, &arn, &[target("i-00000001")])
        .unwrap();
    assert_eq!(states(&mut cloud, &arn, START), ["initial", "draining"]);
    let named = cloud.describe_target_health(START, &arn, &[target("i-00000002")]);
    assert_eq!(named.unwrap()[0].reason, Some("Target.NotRegistered"));
}
