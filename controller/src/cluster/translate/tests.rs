use k8s_openapi::api::core::v1::{ClientIPConfig, SessionAffinityConfig};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::*;

mod annotations;
mod settings;

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
