use std::net::IpAddr;

use ballast_provider::{Affinity, Family, Listener, Protocol, ServiceId, TrafficPolicy};

use super::*;
use crate::nodes::Selector;
use crate::settings::tls::Alpn;
use crate::settings::{CheckProtocol, attributes};

mod clients;
mod families;
mod tls;
mod weights;

pub(crate) fn mark() -> Mark {
    Mark {
        cluster: "cluster-1".into(),
        cluster_name: "prod".into(),
        class: "aws".into(),
        writer: "1".into(),
    }
}

fn subnet(zone: &str) -> FoundSubnet {
    FoundSubnet {
        id: format!("subnet-{zone}"),
        zone: format!("eu-central-1{zone}"),
        ipv6: true,
    }
}

pub(crate) fn found() -> LookedUp {
    LookedUp {
        subnets: ["a", "b"].map(subnet).into(),
        backend_group: Some("sg-backend".into()),
        security_groups: Vec::new(),
        prefix_lists: PrefixLists::new(),
        unruled: std::collections::BTreeSet::new(),
        groupless: false,
        ipv6_nodes: true,
    }
}

fn listener(protocol: Protocol, port: u16, node_port: u16) -> Listener {
    Listener {
        name: Some(format!("p{port}")),
        protocol,
        port,
        node_port,
    }
}

/// A Service with these ports, as (protocol, port, node port).
pub(crate) fn service(ports: &[(Protocol, u16, u16)]) -> LoadBalancer {
    LoadBalancer {
        id: ServiceId {
            namespace: "shop".into(),
            name: "web".into(),
            uid: "uid-1".into(),
        },
        listeners: (ports.iter())
            .map(|&(protocol, port, node_port)| listener(protocol, port, node_port))
            .collect(),
        families: vec![Family::V4],
        traffic_policy: TrafficPolicy::Cluster,
        affinity: Affinity::None,
        source_ranges: Vec::new(),
        requested_addresses: Vec::<IpAddr>::new(),
        share_key: None,
        settings: ballast_provider::Settings::new(),
    }
}

pub(crate) const WEB: (Protocol, u16, u16) = (Protocol::Tcp, 80, 30_080);

/// The second one is in IAM.
const CERTIFICATES: &str = "arn:aws:acm:r:1:certificate/a,arn:aws:iam::1:server-certificate/b";

pub(crate) fn settings(all: &[(&str, &str)]) -> Settings {
    let pairs = all.iter();
    let annotations = pairs
        .map(|(name, value)| (format!("{PREFIX}{name}"), (*value).to_owned()))
        .collect();
    Settings::of(&annotations, None).expect("valid").settings
}

pub(crate) fn desired(service: &LoadBalancer, all: &[(&str, &str)]) -> Desired {
    of(service, all).expect("accepted").desired
}

pub(crate) fn of(service: &LoadBalancer, all: &[(&str, &str)]) -> Result<Alone, Refusal> {
    alone(service, &settings(all), &found())
}

/// The outcome for one Service alone.
#[derive(Debug)]
pub(crate) struct Alone {
    pub(crate) desired: Desired,
    pub(crate) remarks: Vec<String>,
}

fn alone(service: &LoadBalancer, settings: &Settings, found: &LookedUp) -> Result<Alone, Refusal> {
    let parts = [part(service, settings)];
    let outcome = Desired::of(&mark(), &Key::alone(&service.id), &parts, found)?;
    let Outcome { desired, remarks } = outcome;
    let remarks = remarks.concat();
    Ok(Alone { desired, remarks })
}

pub(crate) fn part<'a>(service: &'a LoadBalancer, settings: &'a Settings) -> Part<'a> {
    Part {
        service,
        settings,
        policy: FamilyPolicy::SingleStack,
    }
}

fn check_alone(service: &LoadBalancer, settings: &Settings) -> Result<(), Refusal> {
    check(&[part(service, settings)])
}

/// The target group of one port.
fn group(desired: &Desired, port: u16) -> &TargetGroup {
    let name = desired.listeners[&port].forward.only();
    &desired.target_groups[name.expect("one target group")]
}

#[test]
fn one_port() {
    insta::assert_debug_snapshot!(desired(&service(&[WEB]), &[]));
}

#[test]
fn names_are_valid_and_differ_where_aws_can_change_nothing() {
    let one = desired(&service(&[WEB]), &[]);
    let public = desired(&service(&[WEB]), &[("scheme", "internet-facing")]);
    let moved = desired(&service(&[(Protocol::Tcp, 80, 30_081)]), &[]);
    let udp = desired(&service(&[(Protocol::Udp, 80, 30_080)]), &[]);
    assert_ne!(one.name, public.name);
    assert_eq!(one.name, moved.name);
    let secure = [("ssl-cert", CERTIFICATES), ("backend-protocol", "ssl")];
    let tls = desired(&service(&[WEB]), &secure);
    let groups = [&one, &moved, &udp, &public, &tls].map(|it| group(it, 80).name.clone());
    assert_eq!(BTreeSet::from(groups.clone()).len(), 5);
    // To the targets it is the same.
    let front = desired(&service(&[WEB]), &secure[..1]);
    assert_eq!(group(&front, 80), group(&one, 80));
    for name in groups.iter().chain([&one.name]) {
        // "Up to 32 characters: letters, digits and hyphens" (CreateLoadBalancer).
        assert!(name.len() <= 32 && !name.starts_with("internal-"), "{name}");
        assert!(
            name.chars()
                .all(|it| it.is_ascii_alphanumeric() || it == '-')
        );
    }
}

#[test]
fn tcp_and_udp_on_one_port_share_a_listener() {
    let both = service(&[(Protocol::Tcp, 53, 30_053), (Protocol::Udp, 53, 30_053)]);
    let all = desired(
        &both,
        &[(
            "target-group-attributes",
            "preserve_client_ip.enabled=false",
        )],
    );
    assert_eq!(all.listeners.len(), 1);
    assert_eq!(all.listeners[&53].transport, Transport::TcpUdp);
    assert!(
        group(&all, 53).attributes.is_empty(),
        "AWS refuses it for UDP"
    );
    let Groups::Own { rules, .. } = &all.groups else {
        panic!("{:?}", all.groups);
    };
    assert_eq!(rules.len(), 2, "one for each protocol");
    let apart = service(&[(Protocol::Tcp, 53, 30_053), (Protocol::Udp, 53, 30_054)]);
    let refusal = of(&apart, &[]).expect_err("two node ports");
    assert!(refusal.message.contains("30053 and 30054"), "{refusal}");
}

/// A Service, its annotations, and protocol, port and path of the check.
type Row<'a> = (
    &'a LoadBalancer,
    &'a [(&'a str, &'a str)],
    (CheckProtocol, Option<u16>, Option<&'a str>),
);

#[test]
fn the_health_check_follows_the_traffic_policy_unless_it_is_set() {
    let cluster = service(&[WEB]);
    let local = LoadBalancer {
        traffic_policy: TrafficPolicy::Local {
            health_check_node_port: 31_000,
        },
        ..cluster.clone()
    };
    let table: [Row<'_>; 10] = [
        // kube-proxy serves one path on its port.
        (
            &cluster,
            &[("healthcheck-path", "/ok")],
            (CheckProtocol::Http, None, Some("/ok")),
        ),
        (
            &local,
            &[("healthcheck-protocol", "http")],
            (CheckProtocol::Http, Some(31_000), Some("/healthz")),
        ),
        (
            &local,
            &[("healthcheck-protocol", "tcp")],
            (CheckProtocol::Tcp, None, None),
        ),
        (
            &cluster,
            &[],
            (CheckProtocol::Http, Some(10_256), Some("/healthz")),
        ),
        (
            &local,
            &[],
            (CheckProtocol::Http, Some(31_000), Some("/healthz")),
        ),
        (
            &local,
            &[("healthcheck-interval", "30")],
            (CheckProtocol::Http, Some(31_000), Some("/healthz")),
        ),
        (
            &cluster,
            &[("healthcheck-protocol", "tcp")],
            (CheckProtocol::Tcp, None, None),
        ),
        (
            &cluster,
            &[("healthcheck-port", "traffic-port")],
            (CheckProtocol::Tcp, None, None),
        ),
        (
            &cluster,
            &[("healthcheck-port", "p80"), ("healthcheck-path", "/ok")],
            (CheckProtocol::Http, Some(30_080), Some("/ok")),
        ),
        (
            &cluster,
            &[
                ("healthcheck-port", "8080"),
                ("healthcheck-protocol", "https"),
            ],
            (CheckProtocol::Https, Some(8_080), Some("/")),
        ),
    ];
    for (service, all, (protocol, port, path)) in table {
        let check = group(&desired(service, all), 80).check.clone();
        assert_eq!(
            (check.protocol, check.port, check.path.as_deref()),
            (protocol, port, path),
            "{all:?}"
        );
        assert_eq!(check.success_codes.is_some(), path.is_some());
    }
    let refusal = of(&cluster, &[("healthcheck-port", "admin")]).expect_err("no such port");
    assert!(refusal.message.contains("\"admin\""), "{refusal}");
}

#[test]
fn affinity_makes_connections_sticky_unless_an_attribute_says_otherwise() {
    let sticky = LoadBalancer {
        affinity: Affinity::ClientIp {
            timeout_seconds: 10_800,
        },
        ..service(&[WEB])
    };
    let of = |all: &[(&str, &str)]| group(&desired(&sticky, all), 80).attributes.clone();
    assert_eq!(of(&[])[attributes::STICKINESS], "true");
    let off = [("target-group-attributes", "stickiness.enabled=false")];
    assert_eq!(of(&off)[attributes::STICKINESS], "false");
}

/// AWS counts each entry that a list may have.
#[test]
fn groups_that_are_given_replace_ballasts_own() {
    let found = LookedUp {
        security_groups: vec!["sg-1".into()],
        ..found()
    };
    let closed = LoadBalancer {
        source_ranges: vec!["10.0.0.0/8".parse().expect("a range")],
        ..service(&[WEB])
    };
    let of = |all: &[(&str, &str)], found: &LookedUp| alone(&closed, &settings(all), found);
    let given = of(&[("security-groups", "sg-1")], &found).expect("accepted");
    assert_eq!(given.desired.groups, Groups::Given(vec!["sg-1".into()]));
    assert_eq!(
        given.desired.backend_group, None,
        "nodes stay closed unless the Service asks"
    );
    assert!(
        given.remarks[0].contains("source ranges"),
        "{:?}",
        given.remarks
    );
    let managed = [
        ("security-groups", "sg-1"),
        ("manage-backend-security-group-rules", "true"),
    ];
    let managed = of(&managed, &found).expect("accepted").desired;
    assert_eq!(managed.backend_group.as_deref(), Some("sg-backend"));
    // A name that nothing has. Without any group the load balancer could never get one.
    let refusal = of(&[("security-groups", "sg-1,my-group")], &found).expect_err("one is missing");
    assert!(
        refusal
            .message
            .contains("2 groups are named, and 1 were found"),
        "{refusal}"
    );
}

#[test]
fn settings_are_compared_after_they_are_merged() {
    let service = service(&[WEB]);
    let of = |class: &[(&str, &str)], own: &[(&str, &str)]| {
        let merged = settings(own).over(&settings(class));
        alone(&service, &merged, &found())
    };
    let addresses = ("eip-allocations", "eipalloc-1,eipalloc-2");
    of(
        &[("scheme", "internet-facing"), ("subnets", "a,b")],
        &[addresses],
    )
    .expect("accepted");
    of(&[], &[addresses]).expect_err("the scheme is internal");
    let one = ("eip-allocations", "eipalloc-1");
    let refusal = of(&[("scheme", "internet-facing")], &[one]).expect_err("two subnets");
    assert!(
        refusal.message.contains("has 1 entries for 2 subnets"),
        "{refusal}"
    );
    let private = ("private-ipv4-addresses", "10.0.0.9,10.0.1.9");
    of(&[("scheme", "internet-facing")], &[private]).expect_err("not internal");
    of(
        &[("healthcheck-interval", "10")],
        &[("healthcheck-timeout", "30")],
    )
    .expect_err("longer");
    of(
        &[("healthcheck-protocol", "tcp")],
        &[("healthcheck-path", "/")],
    )
    .expect_err("no path");
}

#[test]
fn a_short_interval_shortens_the_default_time_out() {
    let all = desired(&service(&[WEB]), &[("healthcheck-interval", "5")]);
    let check = &group(&all, 80).check;
    assert_eq!((check.interval, check.timeout), (5, 5));
}

#[test]
fn an_attribute_that_udp_cannot_have_is_remarked() {
    let all = [(
        "target-group-attributes",
        "preserve_client_ip.enabled=false",
    )];
    let udp = of(&service(&[(Protocol::Udp, 53, 30_053)]), &all).expect("accepted");
    assert!(udp.remarks[0].contains("port 53"), "{:?}", udp.remarks);
}

#[test]
fn an_attribute_of_a_port_that_the_service_does_not_have_is_refused() {
    let refusal = of(
        &service(&[WEB]),
        &[("target-group-attributes.81", "stickiness.enabled=true")],
    );
    assert!(
        refusal
            .expect_err("no port 81")
            .message
            .contains("no port 81")
    );
}

#[test]
fn the_hash_changes_with_each_setting() {
    let plain = desired(&service(&[WEB]), &[]);
    assert_eq!(plain.hash(), desired(&service(&[WEB]), &[]).hash());
    let others = [
        ("attributes", "load_balancing.cross_zone.enabled=true"),
        ("additional-resource-tags", "a=b"),
        ("healthcheck-interval", "30"),
        ("target-group-attributes", "stickiness.enabled=true"),
        ("security-group-prefix-lists", "pl-1"),
        ("manage-backend-security-group-rules", "false"),
        ("scheme", "internet-facing"),
        ("private-ipv4-addresses", "10.0.0.9,10.0.1.9"),
        ("ssl-cert", CERTIFICATES),
    ];
    let mut seen = BTreeSet::from([plain.hash()]);
    for other in others {
        assert!(
            seen.insert(desired(&service(&[WEB]), &[other]).hash()),
            "{other:?}"
        );
    }
}

#[test]
fn reserved_capacity_is_enough_for_all_zones_and_never_with_tls() {
    let units = |text: &str| {
        let text = format!("CapacityUnits={text}");
        let all = [("minimum-load-balancer-capacity", text.as_str())];
        of(&service(&[WEB]), &all).map(|it| it.desired.capacity)
    };
    assert_eq!(units("5500"), Ok(Some(5_500)));
    assert_eq!(units("0"), Ok(None));
    let refusal = units("5499").expect_err("two zones");
    assert!(
        refusal
            .message
            .contains("CapacityUnits=5499 is too little for 2 zones"),
        "{refusal}"
    );
    let secure = [
        ("minimum-load-balancer-capacity", "CapacityUnits=5500"),
        ("ssl-cert", CERTIFICATES),
    ];
    let refusal = check_alone(&service(&[WEB]), &settings(&secure)).expect_err("TLS");
    assert!(refusal.message.contains("port 80 ends TLS"), "{refusal}");
    let udp = service(&[(Protocol::Udp, 53, 30_053)]);
    assert_eq!(check_alone(&udp, &settings(&secure)), Ok(()));
}
