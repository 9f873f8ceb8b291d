use k8s_openapi::api::core::v1::{ClientIPConfig, SessionAffinityConfig};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::*;

fn id() -> ServiceId {
    ServiceId {
        namespace: "shop".into(),
        name: "web".into(),
        uid: "u-1".into(),
    }
}

fn port(port: i32, protocol: &str, node_port: i32) -> ServicePort {
    ServicePort {
        name: Some(format!("p{port}-{}", protocol.to_lowercase())),
        port,
        protocol: Some(protocol.into()),
        node_port: (node_port != 0).then_some(node_port),
        ..Default::default()
    }
}

fn spec() -> ServiceSpec {
    ServiceSpec {
        type_: Some("LoadBalancer".into()),
        ports: Some(vec![port(80, "TCP", 30080)]),
        ip_families: Some(vec!["IPv4".into()]),
        ..Default::default()
    }
}

fn annotated(key: &str, value: &str) -> Annotations {
    [(key.to_owned(), value.to_owned())].into()
}

fn accepted(spec: &ServiceSpec, annotations: &Annotations) -> LoadBalancer {
    load_balancer(&id(), spec, annotations, Dialect::default()).unwrap()
}

fn refused(spec: &ServiceSpec, annotations: &Annotations) -> Refusal {
    load_balancer(&id(), spec, annotations, Dialect::default()).unwrap_err()
}

#[test]
fn a_plain_service() {
    let wanted = accepted(&spec(), &Annotations::new());
    assert_eq!(
        wanted,
        LoadBalancer {
            id: id(),
            listeners: vec![Listener {
                name: Some("p80-tcp".into()),
                protocol: Protocol::Tcp,
                port: 80,
                node_port: 30080
            }],
            families: vec![Family::V4],
            traffic_policy: TrafficPolicy::Cluster,
            affinity: Affinity::None,
            source_ranges: vec![],
            requested_addresses: vec![],
            share_key: None,
            settings: ballast_provider::Settings::new(),
        }
    );
}

#[test]
fn tcp_and_udp_on_one_port_are_two_listeners() {
    let spec = ServiceSpec {
        ports: Some(vec![port(53, "UDP", 30053), port(53, "TCP", 30053)]),
        ..spec()
    };
    let listeners = accepted(&spec, &Annotations::new()).listeners;
    assert_eq!(listeners.len(), 2);
    assert_eq!(listeners[0].protocol, Protocol::Udp);
}

#[test]
fn sctp_is_refused_by_name() {
    let spec = ServiceSpec {
        ports: Some(vec![port(80, "TCP", 30080), port(5060, "SCTP", 30506)]),
        ..spec()
    };
    let refusal = refused(&spec, &Annotations::new());
    assert_eq!(refusal.reason, Reason::Unsupported);
    assert!(
        refusal
            .message
            .contains("spec.ports[1] \"p5060-sctp\" is 5060/SCTP"),
        "{refusal}"
    );
}

#[test]
fn missing_node_ports_say_how_to_get_them() {
    let spec = ServiceSpec {
        ports: Some(vec![port(80, "TCP", 30080), port(443, "TCP", 0)]),
        ..spec()
    };
    // Not every provider needs node ports; those that do check for them.
    let wanted = accepted(&spec, &Annotations::new());
    let refusal = wanted.require_node_ports().unwrap_err();
    assert_eq!(refusal.reason, Reason::NodePortsMissing);
    assert!(refusal.message.contains("443/TCP"), "{refusal}");
    assert!(!refusal.message.contains("80/TCP,"), "{refusal}");
    assert!(
        refusal
            .message
            .contains("kubectl patch service web -n shop"),
        "{refusal}"
    );
}

#[test]
fn local_policy_needs_its_health_port() {
    let local = ServiceSpec {
        external_traffic_policy: Some("Local".into()),
        health_check_node_port: Some(31000),
        ..spec()
    };
    assert_eq!(
        accepted(&local, &Annotations::new()).traffic_policy,
        TrafficPolicy::Local {
            health_check_node_port: 31000
        }
    );
    let without = ServiceSpec {
        health_check_node_port: None,
        ..local
    };
    assert_eq!(
        refused(&without, &Annotations::new()).reason,
        Reason::Invalid
    );
}

#[test]
fn affinity_defaults_to_three_hours() {
    let with = |seconds: Option<i32>| ServiceSpec {
        session_affinity: Some("ClientIP".into()),
        session_affinity_config: seconds.map(|seconds| SessionAffinityConfig {
            client_ip: Some(ClientIPConfig {
                timeout_seconds: Some(seconds),
            }),
        }),
        ..spec()
    };
    for (seconds, expected) in [(None, 10_800), (Some(60), 60)] {
        assert_eq!(
            accepted(&with(seconds), &Annotations::new()).affinity,
            Affinity::ClientIp {
                timeout_seconds: expected
            }
        );
    }
}

#[test]
fn source_ranges_come_from_the_field_then_from_the_annotation() {
    let ranges = |field: &[&str], annotation: &str| {
        let spec = ServiceSpec {
            load_balancer_source_ranges: Some(field.iter().map(|&text| text.to_owned()).collect()),
            ..spec()
        };
        load_balancer(
            &id(),
            &spec,
            &annotated(SOURCE_RANGES, annotation),
            Dialect::default(),
        )
        .map(|wanted| {
            wanted
                .source_ranges
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(" ")
        })
    };
    assert_eq!(ranges(&[], "").unwrap(), "");
    assert_eq!(
        ranges(&["10.1.2.3/8"], "192.0.2.0/24").unwrap(),
        "10.0.0.0/8"
    );
    assert_eq!(
        ranges(&[], " 10.0.0.0/8 , 2001:db8::/32").unwrap(),
        "10.0.0.0/8 2001:db8::/32"
    );
    assert_eq!(ranges(&[" 10.0.0.0/8"], "").unwrap(), "10.0.0.0/8");
    for (field, annotation, named) in [
        (
            &["10.0.0.0/33"][..],
            "",
            "spec.loadBalancerSourceRanges has \"10.0.0.0/33\"",
        ),
        (
            &[][..],
            "everybody",
            "load-balancer-source-ranges has \"everybody\"",
        ),
    ] {
        let refusal = ranges(field, annotation).unwrap_err();
        assert_eq!(refusal.reason, Reason::Invalid);
        assert!(refusal.message.contains(named), "{refusal}");
    }
}

#[test]
fn requested_addresses_have_several_spellings() {
    let dual = ServiceSpec {
        ip_families: Some(vec!["IPv4".into(), "IPv6".into()]),
        load_balancer_ip: Some("192.0.2.1".into()),
        ..spec()
    };
    let texts = |annotations: &Annotations| {
        accepted(&dual, annotations)
            .requested_addresses
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    assert_eq!(texts(&Annotations::new()), ["192.0.2.1"]);
    assert_eq!(
        texts(&annotated(ADDRESSES, "192.0.2.9, 2001:db8::9")),
        ["192.0.2.9", "2001:db8::9"]
    );
    for key in METALLB_ADDRESSES {
        assert_eq!(texts(&annotated(key, "2001:db8::9")), ["2001:db8::9"]);
    }
}

#[test]
fn annotations_of_metallb_mean_the_same_by_both_of_its_prefixes_and_ours_go_first() {
    for prefix in ["metallb.io", "metallb.universe.tf"] {
        let mut annotations: Annotations = [
            (format!("{prefix}/allow-shared-ip"), "web".to_owned()),
            (format!("{prefix}/address-pool"), "front".to_owned()),
        ]
        .into();
        let share_key = |annotations: &Annotations| accepted(&spec(), annotations).share_key;
        let pool = |annotations: &Annotations| {
            let meta = ObjectMeta {
                annotations: Some(annotations.clone()),
                ..ObjectMeta::default()
            };
            placement(&meta, &spec()).pool
        };
        assert_eq!(share_key(&annotations).as_deref(), Some("web"), "{prefix}");
        assert_eq!(pool(&annotations).as_deref(), Some("front"), "{prefix}");
        annotations.insert(SHARE_KEY.into(), "own".into());
        annotations.insert(ADDRESS_POOL.into(), "back".into());
        assert_eq!(share_key(&annotations).as_deref(), Some("own"));
        assert_eq!(pool(&annotations).as_deref(), Some("back"));
    }
}

#[test]
fn impossible_addresses_are_named() {
    for (value, named) in [
        ("nonsense", "has \"nonsense\": not an IP address"),
        ("2001:db8::1", "no IPv6 in spec.ipFamilies"),
        ("192.0.2.1,192.0.2.2", "more than one IPv4"),
    ] {
        let refusal = refused(&spec(), &annotated(ADDRESSES, value));
        assert_eq!(refusal.reason, Reason::Invalid);
        assert!(refusal.message.contains(named), "{refusal}");
    }
}

#[test]
fn misspelt_annotations_are_named_with_their_neighbour() {
    let annotations: Annotations = [
        ("ballast.dev/adresses", "x"),
        ("ballast.dev/share-key", "x"),
        ("ballast.dev/something-else", "x"),
        ("example.com/addresses", "x"),
        ("metallb.io/adress-pool", "x"),
        ("metallb.io/loadBalancerIP", "x"),
        ("metallb.io/ip-allocated-from-pool", "x"),
        ("metallb.universe.tf/allow-shared-ip", "x"),
        ("service.beta.kubernetes.io/aws-load-balancer-type", "nlb"),
        ("service.beta.kubernetes.io/load-balancer-source-range", "x"),
        (
            "service.beta.kubernetes.io/load-balancer-source-ranges",
            "x",
        ),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into();
    assert_eq!(
        unknown_annotations(&annotations, Dialect::default()),
        [
            "ballast.dev/adresses (did you mean ballast.dev/addresses?)",
            "ballast.dev/something-else",
            "metallb.io/adress-pool (did you mean metallb.io/address-pool?)",
            "metallb.io/loadBalancerIP (did you mean metallb.io/loadBalancerIPs?)",
            "service.beta.kubernetes.io/load-balancer-source-range (did you mean service.beta.kubernetes.io/load-balancer-source-ranges?)",
        ]
    );
}

/// 256 KiB of annotations, the most that the API server accepts.
fn hostile_annotations() -> Annotations {
    let key = |number: u32| (format!("ballast.dev/{number:060x}"), String::new());
    (0..3_600).map(key).collect()
}

#[test]
fn a_few_of_many_unknown_annotations_are_named() {
    let mut annotations = hostile_annotations();
    annotations.insert("metallb.io/adress-pool".to_owned(), String::new());
    let named = unknown_annotations(&annotations, Dialect::default());
    assert_eq!(named.len(), NAMED + 1);
    assert_eq!(named[NAMED], "and others");
    let length: usize = named.iter().map(String::len).sum();
    assert!(length < NAMED * 200, "{length}");
}

#[test]
fn what_a_user_can_make_us_keep_is_bounded() {
    let long = "x".repeat(250_000);
    let nothing = Annotations::new();
    for (annotations, words) in [
        (
            annotated(SHARE_KEY, &long),
            "ballast.dev/share-key has 250000 bytes",
        ),
        (
            annotated(SOURCE_RANGES, &"10.0.0.0/8,".repeat(20_000)),
            "has 20000 ranges",
        ),
        (annotated(SOURCE_RANGES, &long), "not a range"),
        (annotated(ADDRESSES, &long), "not an IP address"),
        (
            annotated(ADDRESSES, "192.0.2.1\u{1b}[2J"),
            "has \"192.0.2.1 [2J\": not an IP",
        ),
    ] {
        let refusal = refused(&spec(), &annotations);
        assert_eq!(refusal.reason, Reason::Invalid);
        assert!(refusal.message.contains(words), "{}", refusal.message);
        assert!(refusal.message.len() < 200, "{}", refusal.message);
    }
    let of = |meta: ObjectMeta, spec: &ServiceSpec| placement(&meta, spec);
    let labelled = ObjectMeta {
        labels: Some([("a".to_owned(), long.clone())].into()),
        annotations: Some(annotated(ADDRESS_POOL, &long)),
        ..ObjectMeta::default()
    };
    let refusal = labels(&labelled).unwrap_err();
    assert!(
        refusal.message.contains("250001 bytes"),
        "{}",
        refusal.message
    );
    let selected = ServiceSpec {
        selector: Some([("a".to_owned(), long.clone())].into()),
        ..spec()
    };
    let kept = of(labelled, &selected);
    assert!(kept.labels.is_empty());
    assert!(kept.pool.unwrap().len() < 300);
    assert!(kept.endpoints.len() < 300);
    let other = ServiceSpec {
        selector: Some([("a".to_owned(), long.replace('x', "y"))].into()),
        ..spec()
    };
    assert_ne!(kept.endpoints, of(ObjectMeta::default(), &other).endpoints);
    assert!(accepted(&spec(), &nothing).source_ranges.is_empty());
}

#[test]
fn what_was_accepted_before_is_what_is_published() {
    let both = ServiceSpec {
        ports: Some(vec![port(80, "TCP", 31111), port(5060, "SCTP", 30506)]),
        ..spec()
    };
    let published = [crate::fixtures::ingress("192.0.2.1", 80)];
    let before = |spec: &ServiceSpec, published: &[Ingress]| {
        accepted_before(
            &id(),
            spec,
            &Annotations::new(),
            published,
            Dialect::default(),
        )
        .map(|accepted| {
            accepted
                .listeners
                .iter()
                .map(|it| it.node_port)
                .collect::<Vec<_>>()
        })
    };
    assert_eq!(
        before(&both, &published),
        Some(vec![31111]),
        "on the node port of today"
    );
    assert_eq!(before(&both, &[]), None, "nothing is published");
    let elsewhere = [crate::fixtures::ingress("192.0.2.1", 81)];
    assert_eq!(before(&both, &elsewhere), None, "nothing of it is left");
    let torn = ServiceSpec {
        load_balancer_source_ranges: Some(vec!["nowhere".into()]),
        ..both
    };
    assert_eq!(before(&torn, &published), None, "wrong beyond its ports");
}

#[test]
fn addresses_that_cannot_be_do_not_hide_what_was_given() {
    let published = [crate::fixtures::ingress("192.0.2.1", 80)];
    let asks_for = |annotations: &Annotations, field: Option<&str>| {
        let spec = ServiceSpec {
            ports: Some(vec![port(80, "TCP", 31111)]),
            load_balancer_ip: field.map(ToOwned::to_owned),
            ..spec()
        };
        let accepted = accepted_before(&id(), &spec, annotations, &published, Dialect::default());
        accepted.unwrap().requested_addresses
    };
    let nothing: [IpAddr; 0] = [];
    assert_eq!(asks_for(&annotated(ADDRESSES, "garbage"), None), nothing);
    assert_eq!(
        asks_for(&annotated(METALLB_ADDRESSES[0], "1.2"), None),
        nothing
    );
    assert_eq!(asks_for(&Annotations::new(), Some("x")), nothing);
    let good: IpAddr = "192.0.2.1".parse().unwrap();
    assert_eq!(asks_for(&annotated(ADDRESSES, "192.0.2.1"), None), [good]);
}

proptest::proptest! {
    /// No user input causes a panic (invariant 8).
    #[test]
    fn translation_is_total(
        number in proptest::num::i32::ANY, node_port in proptest::num::i32::ANY, text in ".*", protocol in ".*",
    ) {
        let spec = ServiceSpec {
            ports: Some(vec![ServicePort { port: number, node_port: Some(node_port), protocol: Some(protocol), ..Default::default() }]),
            load_balancer_ip: Some(text.clone()),
            load_balancer_source_ranges: Some(vec![text.clone()]),
            ip_families: Some(vec![text.clone()]),
            external_traffic_policy: Some("Local".into()),
            health_check_node_port: Some(number),
            ..Default::default()
        };
        let _ = load_balancer(&id(), &spec, &annotated(ADDRESSES, &text), Dialect::default());
    }
}

const CLOUD: Dialect = Dialect {
    setting_prefixes: &["cloud.example.com/lb-", "ballast.dev/"],
};

fn settings_of(annotations: &Annotations, dialect: Dialect) -> Result<Settings, Refusal> {
    let wanted = load_balancer(&id(), &spec(), annotations, dialect);
    wanted.map(|wanted| wanted.settings)
}

#[test]
fn settings_reach_the_provider_and_nothing_else_does() {
    let all: Annotations = [
        ("cloud.example.com/lb-scheme", "internal"),
        ("cloud.example.com/other", "x"),
        ("cloud.example.org/lb-scheme", "x"),
        ("ballast.dev/cloud-type", "fast"),
        (ADDRESSES, "192.0.2.1"),
        (SHARE_KEY, "front"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into();
    let kept: Settings = [
        ("ballast.dev/cloud-type", "fast"),
        ("cloud.example.com/lb-scheme", "internal"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into();
    assert_eq!(settings_of(&all, CLOUD), Ok(kept.clone()));
    assert_eq!(unknown_annotations(&all, CLOUD), [""; 0]);

    let without = Dialect::default();
    assert_eq!(settings_of(&all, without), Ok(Settings::new()));
    assert_eq!(
        unknown_annotations(&all, without),
        ["ballast.dev/cloud-type"]
    );

    // What was accepted before keeps them when the addresses cannot be had.
    let mut spec = spec();
    spec.load_balancer_ip = Some("nonsense".into());
    let mut annotations = all;
    annotations.remove(ADDRESSES);
    let port = PortStatus {
        port: 80,
        protocol: Protocol::Tcp,
        error: None,
    };
    let published = [Ingress {
        address: ballast_provider::Address::Hostname("a.example".into()),
        ports: vec![port],
    }];
    let before = accepted_before(&id(), &spec, &annotations, &published, CLOUD);
    assert_eq!(before.map(|before| before.settings), Some(kept));
}

#[test]
fn settings_are_bounded_in_number_and_size() {
    let many = |count: usize, value: &str| -> Annotations {
        let key = |n| (format!("cloud.example.com/lb-{n:03}"), value.to_owned());
        (0..count).map(key).collect()
    };
    let kept = settings_of(&many(SETTINGS_LIMIT, "x"), CLOUD).unwrap();
    assert_eq!(kept.len(), SETTINGS_LIMIT);
    for (what, annotations) in [
        ("too many", many(SETTINGS_LIMIT + 1, "x")),
        ("too large", many(2, &"x".repeat(SETTINGS_SIZE / 2))),
    ] {
        let refusal = settings_of(&annotations, CLOUD).unwrap_err();
        assert_eq!(refusal.reason, Reason::Invalid, "{what}");
        assert!(refusal.message.contains("cloud.example.com/lb-"), "{what}");
        assert!(refusal.message.len() < 200, "{what}");
        assert_eq!(
            settings_of(&annotations, Dialect::default()),
            Ok(Settings::new())
        );
    }
}
