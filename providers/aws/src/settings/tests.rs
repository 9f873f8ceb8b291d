use ballast_provider::Reason;
use proptest::prelude::*;

use super::*;

fn annotations<'a>(all: impl IntoIterator<Item = (&'a str, &'a str)>) -> Annotations {
    all.into_iter()
        .map(|(name, value)| (format!("{PREFIX}{name}"), value.to_owned()))
        .collect()
}

fn parsed(all: &[(&str, &str)]) -> Parsed {
    Settings::of(&annotations(all.iter().copied()), None).expect("valid")
}

fn settings(all: &[(&str, &str)]) -> Settings {
    parsed(all).settings
}

fn refused(all: &[(&str, &str)]) -> Refusal {
    Settings::of(&annotations(all.iter().copied()), None).expect_err("refused")
}

fn texts(all: &[(&str, &str)]) -> BTreeMap<String, String> {
    let pairs = all.iter();
    pairs
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

#[test]
fn nothing_said_is_nothing_set() {
    assert_eq!(parsed(&[]), Parsed::default());
    let other = [(
        "example.com/aws-load-balancer-scheme".to_owned(),
        "?".to_owned(),
    )];
    assert_eq!(Settings::of(&other.into(), None), Ok(Parsed::default()));
}

#[test]
fn everything_is_parsed() {
    let all = settings(&[
        ("scheme", "internet-facing"),
        ("subnets", "subnet-b, subnet-a ,"),
        ("eip-allocations", "eipalloc-1,eipalloc-2"),
        ("security-groups", "sg-1,my group"),
        ("manage-backend-security-group-rules", "True"),
        ("security-group-prefix-lists", "pl-1"),
        ("attributes", "deletion_protection.enabled=true"),
        (
            "target-group-attributes",
            "stickiness.enabled=true,stickiness.type=source_ip",
        ),
        (
            "target-group-attributes.53",
            "preserve_client_ip.enabled=true",
        ),
        ("additional-resource-tags", r"team=shop,note=a\,b"),
        ("proxy-protocol-per-target-group", "80, 443"),
        ("target-node-labels", "pool=edge, disk="),
        ("healthcheck-protocol", "HTTP"),
        ("healthcheck-port", "10256"),
        ("healthcheck-path", "/healthz"),
        ("healthcheck-success-codes", "200-299"),
        ("healthcheck-interval", "10"),
        ("healthcheck-timeout", "6"),
        ("healthcheck-healthy-threshold", "2"),
        ("healthcheck-unhealthy-threshold", "10"),
        ("ssl-cert", CERTIFICATE),
        ("ssl-ports", "443, https"),
        (
            "ssl-negotiation-policy",
            "ELBSecurityPolicy-TLS13-1-2-2021-06",
        ),
        ("alpn-policy", "HTTP2Optional"),
        ("backend-protocol", "SSL"),
        ("ip-address-type", "dualstack"),
        ("enable-prefix-for-ipv6-source-nat", "on"),
    ]);
    assert_eq!(all.subnets, ["subnet-b", "subnet-a"], "in the given order");
    assert_eq!(all.tags["note"], "a,b");
    insta::assert_debug_snapshot!(all);
}

const CERTIFICATE: &str = "arn:aws:acm:eu-central-1:123456789012:certificate/one";

/// Annotations, and a part of the message.
const REFUSED: &[(&[(&str, &str)], &str)] = &[
    (
        &[("scheme", "public")],
        "scheme must be internal or internet-facing, not \"public\"",
    ),
    (
        &[("subnets", " , ")],
        "subnets must be a list of 1 to 50 entries",
    ),
    (&[("subnets", "a,b,a")], "subnets names a twice"),
    (
        &[("manage-backend-security-group-rules", "yes")],
        "must be true or false, not \"yes\"",
    ),
    (
        &[("security-group-prefix-lists", "sg-1")],
        "IDs such as pl-0a1b2c3d, not \"sg-1\"",
    ),
    (
        &[("private-ipv4-addresses", "10.0.0.1,::1")],
        "IPv4 addresses, not \"::1\"",
    ),
    (
        &[("proxy-protocol", "80")],
        "must be \"*\", for all ports, not \"80\"",
    ),
    (
        &[("proxy-protocol-per-target-group", "0")],
        "ports from 1 to 65535, not \"0\"",
    ),
    (
        &[("healthcheck-interval", "4")],
        "a number from 5 to 300, not \"4\"",
    ),
    (
        &[("healthcheck-timeout", "2s")],
        "a number from 2 to 120, not \"2s\"",
    ),
    (
        &[("healthcheck-path", "healthz")],
        "a path that begins with /",
    ),
    (
        &[("healthcheck-port", "70000")],
        "or the name of a port, not \"70000\"",
    ),
    (
        &[("healthcheck-success-codes", "100")],
        "codes from 200 to 599",
    ),
    (
        &[("healthcheck-success-codes", "300-200")],
        "codes from 200 to 599",
    ),
    (
        &[("attributes", "deletion_protection.enabled")],
        "entries such as key=value",
    ),
    (
        &[("attributes", "deletion_protection.enabled=1")],
        "deletion_protection.enabled must be true or false, not \"1\"",
    ),
    (
        &[("attributes", "idle_timeout.timeout_seconds=60")],
        "does not support the attribute idle_timeout.timeout_seconds; it supports access_logs.s3.enabled",
    ),
    (
        &[(
            "target-group-attributes",
            "deregistration_delay.timeout_seconds=4000",
        )],
        "a number from 0 to 3600",
    ),
    (
        &[("target-group-attributes", "stickiness.type=lb_cookie")],
        "stickiness.type must be source_ip",
    ),
    (
        &[("additional-resource-tags", "ballast.dev/cluster=x")],
        "tags that begin with ballast.dev/ are Ballast's own",
    ),
    (&[("additional-resource-tags", "a=1,a=2")], "names a twice"),
    (
        &[("nlb-target-type", "lambda")],
        "must be instance or ip, not \"lambda\"",
    ),
    (
        &[("internal", "0.0.0.0/0")],
        "internal must be true or false",
    ),
    (
        &[("ssl-cert", "one.example.com")],
        "or arn:aws:iam::ACCOUNT:server-certificate/NAME, not \"one.example.com\"",
    ),
    (
        &[("ssl-cert", "arn:aws:acm:eu-central-1:1:certificate/")],
        "ssl-cert must be a list of ARNs of certificates",
    ),
    (
        &[("ssl-cert", "arn:aws:s3:eu-central-1:1:certificate/one")],
        "ssl-cert must be a list of ARNs of certificates",
    ),
    (
        &[("ssl-cert", "arn:aws:iam::1:certificate/one")],
        "ssl-cert must be a list of ARNs of certificates",
    ),
    (&[("ssl-ports", "443,443")], "ssl-ports names 443 twice"),
    (
        &[("ssl-ports", "0")],
        "ssl-ports must be a list of ports from 1 to 65535, or of their names, not \"0\"",
    ),
    (
        &[("ssl-ports", "70000")],
        "from 1 to 65535, or of their names, not \"70000\"",
    ),
    (
        &[("ssl-negotiation-policy", "TLS13")],
        "the name of a security policy such as ELBSecurityPolicy-TLS13-1-2-Res-PQ-2025-09, not \"TLS13\"",
    ),
    (
        &[("ip-address-type", "ipv6")],
        "ip-address-type must be ipv4 or dualstack, not \"ipv6\"",
    ),
    (
        &[("alpn-policy", "h2")],
        "one of HTTP1Only, HTTP2Only, HTTP2Optional, HTTP2Preferred, None, not \"h2\"",
    ),
    (
        &[("backend-protocol", "http")],
        "backend-protocol must be ssl or tcp, not \"http\"",
    ),
];

#[test]
fn values_that_cannot_be_used_are_refused_with_key_and_value() {
    for (given, part) in REFUSED {
        let refusal = refused(given);
        assert!(refusal.message.contains(part), "{given:?}: {refusal}");
        assert!(refusal.message.contains(PREFIX), "{refusal}");
        assert_eq!(
            refusal.reason == Reason::Unsupported,
            refusal.message.contains("does not support"),
            "{refusal}"
        );
    }
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    for (name, value) in [
        ("quic-enabled-ports", "443"),
        ("ipv6-addresses", "2001:db8::1"),
        ("source-nat-ipv6-prefixes", "2001:db8::/80"),
        ("disable-nlb-sg", "true"),
    ] {
        let refusal = refused(&[(name, value)]);
        assert_eq!(refusal.reason, Reason::Unsupported);
        assert!(refusal.message.contains(name), "{refusal}");
    }
}

/// So that a Service that says what is so anyway can move to Ballast.
#[test]
fn the_default_of_what_is_not_supported_is_accepted() {
    let all = [
        ("source-nat-ipv6-prefixes", "auto_assigned"),
        ("disable-nlb-sg", "false"),
    ];
    assert_eq!(parsed(&all), Parsed::default());
}

#[test]
fn every_supported_annotation_does_something() {
    let value = |name: &str| match name {
        "scheme" => "internal",
        "nlb-target-type" => "ip",
        "attributes" => "zonal_shift.config.enabled=true",
        "target-group-attributes" => "stickiness.enabled=true",
        "additional-resource-tags" | "target-node-labels" => "a=b",
        "security-group-prefix-lists" => "pl-1",
        "eip-allocations" => "eipalloc-1",
        "private-ipv4-addresses" => "10.0.0.9",
        "proxy-protocol" => "*",
        "minimum-load-balancer-capacity" => "CapacityUnits=8250",
        "ssl-cert" => CERTIFICATE,
        "ssl-negotiation-policy" => tls::POLICY,
        "alpn-policy" => "HTTP2Preferred",
        "backend-protocol" => "ssl",
        "proxy-protocol-per-target-group" => "80",
        "healthcheck-protocol" => "http",
        "healthcheck-path" => "/",
        "healthcheck-success-codes" => "200",
        "enable-icmp-for-path-mtu-discovery" | "enable-prefix-for-ipv6-source-nat" => "on",
        "ip-address-type" => "dualstack",
        "inbound-sg-rules-on-private-link-traffic" => "off",
        "internal"
        | "access-log-enabled"
        | "manage-backend-security-group-rules"
        | "cross-zone-load-balancing-enabled" => "true",
        number if number.starts_with("healthcheck-") => "5",
        _ => "one",
    };
    for known in &annotations::ANNOTATIONS {
        // One has no effect, and two have one together.
        let alone = [
            "type",
            "connection-draining-enabled",
            "connection-draining-timeout",
            // With a protocol and a port only.
            "listener-attributes",
        ];
        if known.support != Support::Supported || alone.contains(&known.name) {
            continue;
        }
        let all = settings(&[(known.name, value(known.name))]);
        assert_ne!(all, Settings::default(), "{}", known.name);
    }
}

#[test]
fn annotations_without_effect_are_remarked() {
    let all = parsed(&[("type", "external"), ("enable-tcp-udp-listener", "true")]);
    assert_eq!(all.settings, Settings::default());
    assert_eq!(all.remarks.len(), 2);
    assert!(
        all.remarks[1].contains("spec.loadBalancerClass"),
        "{:?}",
        all.remarks
    );
}

#[test]
fn tags_of_aws_are_skipped_with_a_remark() {
    let all = parsed(&[(
        "additional-resource-tags",
        "aws:cloudformation:stack=x,AWS:y=1,team=shop",
    )]);
    assert_eq!(all.settings.tags, texts(&[("team", "shop")]));
    assert_eq!(all.remarks.len(), 2);
}

#[test]
fn the_newer_of_two_annotations_wins() {
    assert_eq!(
        settings(&[("internal", "false")]).scheme,
        Some(Scheme::InternetFacing)
    );
    let both = settings(&[("internal", "true"), ("scheme", "internet-facing")]);
    assert_eq!(both.scheme, Some(Scheme::InternetFacing));
    let both = settings(&[
        ("cross-zone-load-balancing-enabled", "true"),
        ("attributes", "load_balancing.cross_zone.enabled=false"),
    ]);
    assert_eq!(both.attributes[attributes::CROSS_ZONE], "false");
    let both = settings(&[
        ("proxy-protocol", "*"),
        ("proxy-protocol-per-target-group", "80"),
    ]);
    assert_eq!(both.proxy_protocol, Some(ProxyProtocol::All));
}

#[test]
fn a_service_wins_over_its_class() {
    let class = settings(&[
        ("scheme", "internet-facing"),
        ("subnets", "a,b"),
        (
            "attributes",
            "deletion_protection.enabled=true,load_balancing.cross_zone.enabled=true",
        ),
        ("additional-resource-tags", "team=infra,cost=1"),
        ("healthcheck-interval", "30"),
    ]);
    let own = settings(&[
        ("scheme", "internal"),
        ("attributes", "load_balancing.cross_zone.enabled=false"),
        ("additional-resource-tags", "team=shop,app=web"),
        ("healthcheck-timeout", "5"),
    ]);
    let all = own.over(&class);
    assert_eq!(all.scheme, Some(Scheme::Internal));
    assert_eq!(all.subnets, ["a", "b"]);
    assert_eq!(
        all.attributes,
        texts(&[
            (attributes::DELETION_PROTECTION, "true"),
            (attributes::CROSS_ZONE, "false")
        ])
    );
    assert_eq!(
        all.tags,
        texts(&[("team", "infra"), ("cost", "1"), ("app", "web")]),
        "but not with a tag of the class"
    );
    assert_eq!(
        (all.health_check.interval, all.health_check.timeout),
        (Some(30), Some(5))
    );
}

#[test]
fn the_attributes_of_one_port_win() {
    let all = settings(&[
        (
            "target-group-attributes",
            "stickiness.enabled=true,deregistration_delay.timeout_seconds=30",
        ),
        ("target-group-attributes.80", "stickiness.enabled=false"),
        ("proxy-protocol-per-target-group", "80"),
    ]);
    assert_eq!(
        all.attributes_of(80),
        texts(&[
            (attributes::STICKINESS, "false"),
            ("deregistration_delay.timeout_seconds", "30"),
            (attributes::PROXY_PROTOCOL, "true"),
        ])
    );
    assert_eq!(all.attributes_of(443)[attributes::STICKINESS], "true");
    assert!(
        !all.attributes_of(443)
            .contains_key(attributes::PROXY_PROTOCOL)
    );
}

proptest! {
    /// Whatever a tenant writes, the answer is a setting or a refusal of bounded length.
    #[test]
    fn no_value_does_harm(at in 0..annotations::ANNOTATIONS.len(), value in ".{0,300}") {
        let name = annotations::ANNOTATIONS[at].name;
        if let Err(refusal) = Settings::of(&annotations([(name, value.as_str())]), None) {
            prop_assert!(refusal.message.chars().count() <= ballast_provider::text::LONGEST);
        }
    }

    /// Parsing a map gives back what was written, commas included.
    #[test]
    fn maps_are_parsed_as_they_are_written(all in prop::collection::btree_map("[a-z]{1,8}", "[a-z,]{0,8}", 1..8)) {
        let entries = all.iter().map(|(key, value)| format!("{key}={}", value.replace(',', r"\,")));
        let text = entries.collect::<Vec<_>>().join(",");
        prop_assert_eq!(values::map("key", &text).expect("valid"), all);
    }
}

#[test]
fn weights_are_an_annotation_of_their_own() {
    let key = format!("{}TCP-80", annotations::ACTIONS);
    let group = r#"{"serviceName":"web","servicePort":80}"#;
    let value = format!(r#"{{"type":"forward","forwardConfig":{{"targetGroups":[{group}]}}}}"#);
    let one = [(key.clone(), value)].into();
    let parsed = Settings::of(&one, None).expect("accepted");
    assert_eq!(parsed.settings.weights.len(), 1);
    let allowed = Allowed::of([annotations::WEIGHTS]).expect("known");
    assert!(Settings::of(&one, Some(&allowed)).is_ok());
    let refusal = Settings::of(&one, Some(&Allowed::default())).expect_err("not allowed");
    assert!(refusal.message.contains(&key), "{refusal}");
}

#[test]
fn a_class_allows_some_annotations() {
    let allowed = Allowed::of(["subnets", "target-group-attributes"]).unwrap();
    let of = |all: &[(&str, &str)]| {
        Settings::of(&annotations(all.iter().copied()), Some(&allowed)).map(|it| it.settings)
    };
    let may = [
        ("subnets", "subnet-1"),
        ("target-group-attributes.80", "stickiness.enabled=true"),
        // What has no effect needs no permission.
        ("enable-tcp-udp-listener", "true"),
    ];
    assert_eq!(of(&may), Ok(settings(&may)));
    let refusal = of(&[("scheme", "internet-facing")]).expect_err("not allowed");
    assert_eq!(refusal.reason, Reason::Unsupported);
    for words in [PREFIX, "scheme", "spec.aws.allowedAnnotations"] {
        assert!(refusal.message.contains(words), "{refusal}");
    }
    let none = Allowed::of([]).unwrap();
    assert!(Settings::of(&annotations(may), Some(&none)).is_err());
}

#[test]
fn what_cannot_be_allowed_is_named() {
    for (name, words) in [
        ("schem", "Did you mean"),
        ("name", "\"name\" has no effect"),
        ("target-group-attributes.80", "has no effect"),
    ] {
        let refusal = Allowed::of([name]).expect_err(name);
        assert_eq!(refusal.reason, Reason::Invalid);
        assert!(refusal.message.contains(words), "{refusal}");
    }
}

#[test]
fn the_tags_of_the_class_win() {
    let own = settings(&[("additional-resource-tags", "team=mine,app=web")]);
    let class = settings(&[("additional-resource-tags", "team=platform")]);
    assert_eq!(
        own.over(&class).tags,
        texts(&[("app", "web"), ("team", "platform")])
    );
}

#[test]
fn access_logs_are_attributes_and_have_annotations_of_their_own() {
    let all = settings(&[
        (
            "attributes",
            "access_logs.s3.enabled=false,access_logs.s3.bucket=old,access_logs.s3.prefix=web",
        ),
        ("access-log-enabled", "true"),
        ("access-log-s3-bucket-name", "logs"),
    ]);
    assert_eq!(
        all.attributes,
        texts(&[
            (attributes::ACCESS_LOGS, "true"),
            (attributes::ACCESS_LOGS_BUCKET, "logs"),
            (attributes::ACCESS_LOGS_PREFIX, "web"),
        ])
    );
    assert_eq!(all.check(), Ok(()));
    let refusal = settings(&[("access-log-enabled", "true")]).check();
    let message = refusal.expect_err("no bucket").message;
    assert!(message.contains("access_logs.s3.bucket"), "{message}");
    for (name, value) in [
        ("access-log-enabled", "yes"),
        ("access-log-s3-bucket-name", "my logs"),
        ("attributes", "dns_record.client_routing_policy=near"),
        (
            "target-group-attributes",
            "target_group_health.dns_failover.minimum_healthy_targets.count=0",
        ),
    ] {
        assert_eq!(refused(&[(name, value)]).reason, Reason::Invalid, "{name}");
    }
}

#[test]
fn tls_needs_a_certificate() {
    let iam = "arn:aws-cn:iam::123456789012:server-certificate/path/two";
    let both = format!("{CERTIFICATE}, {iam}");
    let all = settings(&[("ssl-cert", &both), ("ssl-ports", "*")]);
    assert_eq!(
        all.tls.certificates,
        [CERTIFICATE, iam],
        "in the given order"
    );
    assert_eq!(all.tls.ports, Some(Vec::new()), "all of them");
    assert_eq!(all.check(), Ok(()));
    for (name, value) in [
        ("ssl-ports", "443"),
        ("ssl-ports", "*"),
        ("ssl-negotiation-policy", tls::POLICY),
        ("alpn-policy", "HTTP1Only"),
        ("backend-protocol", "ssl"),
    ] {
        let refusal = settings(&[(name, value)]).check().expect_err(name);
        let words = format!("{PREFIX}{name} needs {PREFIX}ssl-cert");
        assert!(refusal.message.contains(&words), "{refusal}");
        let with = settings(&[(name, value), ("ssl-cert", CERTIFICATE)]);
        assert_eq!(with.check(), Ok(()), "{name}");
    }
    // What is so anyway needs none.
    let plain = [("backend-protocol", "TCP"), ("alpn-policy", "None")];
    assert_eq!(settings(&plain).check(), Ok(()));
}

#[test]
fn draining_of_classic_load_balancers_is_the_deregistration_delay() {
    let delay = |all: &[(&str, &str)]| {
        let attributes = settings(all).target_group_attributes;
        attributes.get(attributes::DEREGISTRATION_DELAY).cloned()
    };
    let on = ("connection-draining-enabled", "true");
    let sixty = ("connection-draining-timeout", "60");
    assert_eq!(delay(&[on, sixty]).as_deref(), Some("60"));
    assert_eq!(delay(&[on]), None, "AWS's default");
    let newer = (
        "target-group-attributes",
        "deregistration_delay.timeout_seconds=5",
    );
    assert_eq!(delay(&[on, sixty, newer]).as_deref(), Some("5"));
    for off in [
        &[sixty][..],
        &[sixty, ("connection-draining-enabled", "false")],
    ] {
        let parsed = parsed(off);
        assert!(parsed.settings.target_group_attributes.is_empty());
        assert!(
            parsed.remarks[0].contains("has no effect without"),
            "{parsed:?}"
        );
    }
    let refusal = refused(&[on, ("connection-draining-timeout", "0")]);
    assert!(refusal.message.contains("1 to 3600"), "{refusal}");
}

#[test]
fn what_ballast_never_supports_is_refused_with_the_reason() {
    for (name, says) in [
        ("connection-idle-timeout", "Classic Load Balancers"),
        ("extra-security-groups", "aws-load-balancer-security-groups"),
        ("name", "additional-resource-tags"),
        ("quic-enabled-ports", "UDP ports carry QUIC"),
    ] {
        let refusal = refused(&[(name, "1")]);
        assert_eq!(refusal.reason, Reason::Unsupported);
        assert!(refusal.message.contains(says), "{refusal}");
        assert!(refusal.message.contains(name), "{refusal}");
    }
}

#[test]
fn attributes_of_listeners_are_for_one_tcp_port() {
    let idle = "tcp.idle_timeout.seconds=600";
    let all = settings(&[("listener-attributes.TCP-80", idle)]);
    let expected = texts(&[("tcp.idle_timeout.seconds", "600")]);
    assert_eq!(all.listener_attributes, [(80, expected)].into());
    for (name, value, says) in [
        ("listener-attributes", idle, "must end with .TCP-PORT"),
        ("listener-attributes.80", idle, "must end with .TCP-PORT"),
        ("listener-attributes.TCP-0", idle, "must end with .TCP-PORT"),
        (
            "listener-attributes.TLS-443",
            idle,
            "only for TCP listeners without TLS",
        ),
        (
            "listener-attributes.UDP-53",
            idle,
            "only for TCP listeners without TLS",
        ),
        (
            "listener-attributes.TCP-80",
            "tcp.idle_timeout.seconds=59",
            "60 to 6000",
        ),
        (
            "listener-attributes.TCP-80",
            "idle=1",
            "supports tcp.idle_timeout.seconds",
        ),
    ] {
        let refusal = refused(&[(name, value)]);
        assert!(refusal.message.contains(says), "{refusal}");
    }
}

#[test]
fn reserved_capacity_is_one_number_of_units() {
    let name = "minimum-load-balancer-capacity";
    for (value, units) in [
        ("CapacityUnits=8250", 8_250),
        (" CapacityUnits = 8250 ", 8_250),
        ("CapacityUnits=0", 0),
    ] {
        assert_eq!(settings(&[(name, value)]).capacity, Some(units), "{value}");
    }
    for value in [
        "",
        "8250",
        "capacityunits=8250",
        "CapacityUnits=many",
        "CapacityUnits=-1",
        "CapacityUnits=2147483648",
        "CapacityUnits=8250,Zones=3",
    ] {
        let refusal = refused(&[(name, value)]);
        assert_eq!(refusal.reason, Reason::Invalid, "{value}");
        let ends = format!("not \"{value}\"");
        assert!(refusal.message.contains(name), "{refusal}");
        assert!(refusal.message.ends_with(&ends), "{refusal}");
    }
    let class = settings(&[(name, "CapacityUnits=8250")]);
    let own = settings(&[(name, "CapacityUnits=0")]);
    assert_eq!(own.over(&class).capacity, Some(0));
    assert_eq!(settings(&[]).over(&class).capacity, Some(8_250));
}
