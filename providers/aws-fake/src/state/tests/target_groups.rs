use super::super::load_balancers::Which;
use super::super::target_groups::{CheckChange, Create};
use super::*;

type Change = fn(&mut Create);

#[test]
fn creation() {
    let table: &[(&str, Change, &str)] = &[
        ("good", |_| {}, ""),
        ("UDP", |it| it.protocol = Some("UDP".into()), ""),
        ("name", |it| it.name = "a.b".into(), "ValidationError"),
        ("no protocol", |it| it.protocol = None, "ValidationError"),
        (
            "HTTP",
            |it| it.protocol = Some("HTTP".into()),
            "ValidationError",
        ),
        ("no port", |it| it.port = None, "ValidationError"),
        ("no VPC", |it| it.vpc = None, "ValidationError"),
        ("VPC", |it| it.vpc = Some("vpc-x".into()), "ValidationError"),
        (
            "lambda",
            |it| it.target_type = Some("lambda".into()),
            "ValidationError",
        ),
    ];
    for (what, change, expected) in table {
        let mut cloud = cloud();
        let mut create = target_group("web");
        change(&mut create);
        assert_eq!(
            code(cloud.create_target_group(START, create)),
            *expected,
            "{what}"
        );
        assert_eq!(
            cloud.target_groups.is_empty(),
            !expected.is_empty(),
            "{what}"
        );
    }
}

#[test]
fn checks() {
    type Row = (&'static str, fn(&mut CheckChange), &'static str);
    fn http(it: &mut CheckChange) {
        it.protocol = Some("HTTP".into());
    }
    let table: &[Row] = &[
        ("defaults", |_| {}, ""),
        ("HTTP", http, ""),
        (
            "UDP",
            |it| it.protocol = Some("UDP".into()),
            "ValidationError",
        ),
        (
            "path with TCP",
            |it| it.path = Some("/".into()),
            "ValidationError",
        ),
        (
            "codes with TCP",
            |it| it.matcher = Some("200".into()),
            "ValidationError",
        ),
        ("off", |it| it.enabled = Some(false), "ValidationError"),
        ("port", |it| it.port = Some("10256".into()), ""),
        (
            "no port",
            |it| it.port = Some("0".into()),
            "ValidationError",
        ),
        (
            "named port",
            |it| it.port = Some("http".into()),
            "ValidationError",
        ),
        ("interval", |it| it.interval = Some(4), "ValidationError"),
        ("timeout", |it| it.timeout = Some(121), "ValidationError"),
        ("longer", |it| it.timeout = Some(31), "ValidationError"),
        ("equal", |it| it.timeout = Some(30), ""),
        ("healthy", |it| it.healthy = Some(1), "ValidationError"),
        ("unhealthy", |it| it.unhealthy = Some(11), "ValidationError"),
    ];
    for (what, change, expected) in table {
        let mut cloud = cloud();
        let mut create = target_group("web");
        change(&mut create.check);
        assert_eq!(
            code(cloud.create_target_group(START, create)),
            *expected,
            "{what}"
        );
        // The same as a change of one that exists.
        let arn = make_target_group(&mut cloud, "other");
        let mut check = CheckChange::default();
        change(&mut check);
        assert_eq!(
            code(cloud.modify_target_group(&arn, &check)),
            *expected,
            "{what}"
        );
    }
    for (codes, expected) in [
        ("200", ""),
        ("200,202-204", ""),
        ("200-599", ""),
        ("199", "ValidationError"),
        ("600", "ValidationError"),
        ("300-200", "ValidationError"),
        ("", "ValidationError"),
        ("ok", "ValidationError"),
    ] {
        let mut create = target_group("web");
        http(&mut create.check);
        create.check.matcher = Some(codes.into());
        assert_eq!(
            code(cloud().create_target_group(START, create)),
            expected,
            "{codes}"
        );
    }
}

#[test]
fn defaults_depend_on_the_protocol() {
    let mut cloud = cloud();
    let mut check = |name: &str, protocol: Option<&str>| {
        let mut create = target_group(name);
        create.check.protocol = protocol.map(str::to_owned);
        cloud.create_target_group(START, create).unwrap().check
    };
    let tcp = check("tcp", None);
    assert_eq!(
        (tcp.protocol.as_str(), tcp.timeout, tcp.path),
        ("TCP", 10, None)
    );
    let http = check("http", Some("HTTP"));
    assert_eq!((http.timeout, http.path.as_deref()), (6, Some("/")));
    assert_eq!(http.matcher.as_deref(), Some("200-399"));
    assert_eq!(check("https", Some("HTTPS")).timeout, 10);
    assert_eq!((tcp.interval, tcp.healthy, tcp.unhealthy), (30, 5, 2));
}

#[test]
fn a_repeated_call_returns_what_there_is() {
    let mut cloud = cloud();
    let first = make_target_group(&mut cloud, "web");
    let table: &[(&str, Change, bool)] = &[
        ("equal", |_| {}, true),
        ("a default said", |it| it.check.interval = Some(30), true),
        ("port", |it| it.port = Some(1), false),
        ("protocol", |it| it.protocol = Some("UDP".into()), false),
        ("check", |it| it.check.interval = Some(10), false),
        ("tags", |it| it.tags.clear(), false),
    ];
    for (what, change, same) in table {
        let mut create = target_group("web");
        change(&mut create);
        let result = cloud.create_target_group(START, create);
        if *same {
            assert_eq!(result.unwrap().arn, first, "{what}");
        } else {
            assert_eq!(code(result), "DuplicateTargetGroupName", "{what}");
        }
    }
    // What was changed since then counts, attributes and targets do not.
    let attributes = tags(&[("proxy_protocol_v2.enabled", "true")]);
    cloud
        .modify_target_group_attributes(&first, &attributes)
        .unwrap();
    let again = cloud.create_target_group(START, target_group("web"));
    assert_eq!(
        again.unwrap().attributes["proxy_protocol_v2.enabled"],
        "true"
    );
}

#[test]
fn attributes() {
    let table = [
        ("TCP", "deregistration_delay.timeout_seconds", "0", ""),
        (
            "TCP",
            "deregistration_delay.timeout_seconds",
            "3601",
            "ValidationError",
        ),
        (
            "TCP",
            "deregistration_delay.timeout_seconds",
            "030",
            "ValidationError",
        ),
        ("TCP", "preserve_client_ip.enabled", "false", ""),
        (
            "UDP",
            "preserve_client_ip.enabled",
            "false",
            "InvalidConfigurationRequest",
        ),
        (
            "TCP_UDP",
            "preserve_client_ip.enabled",
            "false",
            "InvalidConfigurationRequest",
        ),
        ("UDP", "proxy_protocol_v2.enabled", "true", ""),
        ("TCP", "stickiness.type", "source_ip", ""),
        ("TCP", "stickiness.type", "lb_cookie", "ValidationError"),
        ("TCP", "stickiness.enabled", "true", ""),
        (
            "TLS",
            "stickiness.enabled",
            "true",
            "InvalidConfigurationRequest",
        ),
        (
            "TCP",
            "load_balancing.cross_zone.enabled",
            "use_load_balancer_configuration",
            "",
        ),
        (
            "UDP",
            "target_health_state.unhealthy.connection_termination.enabled",
            "true",
            "InvalidConfigurationRequest",
        ),
        (
            "TCP",
            "target_health_state.unhealthy.draining_interval_seconds",
            "5",
            "InvalidConfigurationRequest",
        ),
        (
            "TCP",
            "target_group_health.dns_failover.minimum_healthy_targets.count",
            "off",
            "",
        ),
        (
            "TCP",
            "target_group_health.unhealthy_state_routing.minimum_healthy_targets.count",
            "off",
            "ValidationError",
        ),
        (
            "TCP",
            "slow_start.duration_seconds",
            "30",
            "InvalidConfigurationRequest",
        ),
        ("TCP", "colour", "red", "ValidationError"),
    ];
    for (protocol, key, value, expected) in table {
        let mut cloud = cloud();
        let mut create = target_group("web");
        create.protocol = Some(protocol.into());
        let arn = cloud.create_target_group(START, create).unwrap().arn;
        let result = cloud.modify_target_group_attributes(&arn, &tags(&[(key, value)]));
        assert_eq!(code(result), expected, "{protocol} {key}={value}");
    }
}

#[test]
fn deletion() {
    let mut cloud = cloud();
    let balancer = make_balancer(&mut cloud, "web");
    let arn = make_target_group(&mut cloud, "web");
    let listener = make_listener(&mut cloud, &balancer, 80, &arn);
    assert_eq!(
        code(cloud.delete_target_group(START, &arn)),
        "ResourceInUse"
    );
    cloud.delete_listener(START, &listener).unwrap();
    assert_eq!(code(cloud.delete_target_group(START, &arn)), "");
    assert_eq!(code(cloud.delete_target_group(START, &arn)), "");
    assert_eq!(
        code(cloud.delete_target_group(START, "web")),
        "ValidationError"
    );
}

#[test]
fn lookups() {
    let mut cloud = cloud();
    let balancer = make_balancer(&mut cloud, "web");
    let arn = make_target_group(&mut cloud, "web");
    assert!(cloud.target_groups_of(&balancer).unwrap().is_empty());
    make_listener(&mut cloud, &balancer, 80, &arn);
    make_listener(&mut cloud, &balancer, 81, &arn);
    assert_eq!(cloud.target_groups_of(&balancer).unwrap().len(), 1);
    let missing = Which::Names(vec!["web".into(), "x".into()]);
    let result = cloud.describe_target_groups(START, &missing);
    assert_eq!(code(result), "TargetGroupNotFound");
}
