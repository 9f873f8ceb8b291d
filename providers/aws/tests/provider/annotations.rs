//! Annotations on the fake: each has its effect with few calls, and AWS's default comes back when it goes.

use std::time::Duration;

use ballast_aws::annotations::{ANNOTATIONS, Support};
use ballast_aws_fake::Config;
use ballast_aws_fake::state::Snapshot;
use ballast_aws_fake::state::target_groups::Check;

use crate::bed::{Bed, essence, service, settle, with, writes};

/// Annotations, what they change, and the calls of that.
struct Row {
    annotations: &'static [(&'static str, &'static str)],
    has: fn(&Snapshot) -> bool,
    /// The writes beside those of the tag `ballast.dev/applied`.
    calls: &'static [&'static str],
}

const BALANCER: &str = "ModifyLoadBalancerAttributes";
const TARGETS: &str = "ModifyTargetGroupAttributes";
const CHECK: &str = "ModifyTargetGroup";

const ROWS: [Row; 23] = [
    Row {
        annotations: &[("ip-address-type", "dualstack")],
        has: |all| {
            let mut balancers = all.load_balancers.values();
            balancers.all(|one| one.ip_address_type == "dualstack" && !one.source_nat)
        },
        calls: &["AuthorizeSecurityGroupIngress", "SetSubnets"],
    },
    Row {
        annotations: &[
            ("ip-address-type", "dualstack"),
            ("enable-prefix-for-ipv6-source-nat", "on"),
        ],
        has: |all| all.load_balancers.values().all(|one| one.source_nat),
        calls: &["AuthorizeSecurityGroupIngress", "SetSubnets"],
    },
    Row {
        annotations: &[
            ("access-log-enabled", "true"),
            ("access-log-s3-bucket-name", "logs"),
            ("access-log-s3-bucket-prefix", "shop"),
        ],
        has: |all| {
            balancer(all, "access_logs.s3.enabled", "true")
                && balancer(all, "access_logs.s3.bucket", "logs")
                && balancer(all, "access_logs.s3.prefix", "shop")
        },
        calls: &[BALANCER],
    },
    Row {
        annotations: &[("additional-resource-tags", "team=shop")],
        has: |all| {
            let mut groups = all.target_groups.values();
            groups.all(|group| group.tags.get("team").is_some_and(|team| team == "shop"))
        },
        calls: &["CreateTags", "AddTags"],
    },
    Row {
        annotations: &[(
            "attributes",
            "dns_record.client_routing_policy=availability_zone_affinity",
        )],
        has: |all| {
            balancer(
                all,
                "dns_record.client_routing_policy",
                "availability_zone_affinity",
            )
        },
        calls: &[BALANCER],
    },
    Row {
        annotations: &[("attributes", "zonal_shift.config.enabled=true")],
        has: |all| balancer(all, "zonal_shift.config.enabled", "true"),
        calls: &[BALANCER],
    },
    Row {
        annotations: &[
            ("connection-draining-enabled", "true"),
            ("connection-draining-timeout", "60"),
        ],
        has: |all| targets(all, "deregistration_delay.timeout_seconds", "60"),
        calls: &[TARGETS],
    },
    Row {
        annotations: &[("cross-zone-load-balancing-enabled", "true")],
        has: |all| balancer(all, "load_balancing.cross_zone.enabled", "true"),
        calls: &[BALANCER],
    },
    Row {
        annotations: &[("enable-icmp-for-path-mtu-discovery", "on")],
        has: |all| {
            let mut groups = all.security_groups.values();
            groups.any(|group| {
                let mut rules = group.ingress.iter().map(|rule| &rule.permission);
                rules.any(|it| it.protocol == "icmp" && (it.from, it.to) == (Some(3), Some(4)))
            })
        },
        calls: &["AuthorizeSecurityGroupIngress"],
    },
    Row {
        annotations: &[("healthcheck-healthy-threshold", "5")],
        has: |all| check(all, |it| it.healthy == 5),
        calls: &[CHECK],
    },
    Row {
        annotations: &[("healthcheck-unhealthy-threshold", "5")],
        has: |all| check(all, |it| it.unhealthy == 5),
        calls: &[CHECK],
    },
    Row {
        annotations: &[("healthcheck-interval", "30")],
        has: |all| check(all, |it| it.interval == 30),
        calls: &[CHECK],
    },
    Row {
        annotations: &[("healthcheck-timeout", "4")],
        has: |all| check(all, |it| it.timeout == 4),
        calls: &[CHECK],
    },
    Row {
        annotations: &[("healthcheck-path", "/ready")],
        has: |all| check(all, |it| it.path.as_deref() == Some("/ready")),
        calls: &[CHECK],
    },
    Row {
        annotations: &[
            ("healthcheck-port", "traffic-port"),
            ("healthcheck-protocol", "tcp"),
        ],
        has: |all| check(all, |it| it.port == "traffic-port" && it.protocol == "TCP"),
        calls: &[CHECK],
    },
    Row {
        annotations: &[("healthcheck-success-codes", "200-204")],
        has: |all| check(all, |it| it.matcher.as_deref() == Some("200-204")),
        calls: &[CHECK],
    },
    Row {
        annotations: &[("inbound-sg-rules-on-private-link-traffic", "off")],
        has: |all| {
            let mut all = all.load_balancers.values();
            all.all(|one| one.private_link_rules.as_deref() == Some("off"))
        },
        calls: &["SetSecurityGroups"],
    },
    Row {
        annotations: &[("listener-attributes.TCP-80", "tcp.idle_timeout.seconds=600")],
        has: |all| {
            let mut all = all.listeners.values();
            all.all(|one| one.attributes["tcp.idle_timeout.seconds"] == "600")
        },
        calls: &["ModifyListenerAttributes"],
    },
    Row {
        annotations: &[
            (
                "ssl-cert",
                "arn:aws:acm:eu-central-1:123456789012:certificate/one",
            ),
            (
                "ssl-negotiation-policy",
                "ELBSecurityPolicy-TLS13-1-2-2021-06",
            ),
        ],
        has: |all| {
            let mut all = all.listeners.values();
            all.all(|one| one.ssl_policy.as_deref() == Some("ELBSecurityPolicy-TLS13-1-2-2021-06"))
        },
        calls: &["ModifyListener"],
    },
    Row {
        annotations: &[("minimum-load-balancer-capacity", "CapacityUnits=8250")],
        has: |all| {
            let mut all = all.load_balancers.values();
            all.all(|one| one.capacity.as_ref().is_some_and(|it| it.units == 8_250))
        },
        calls: &["ModifyCapacityReservation"],
    },
    Row {
        annotations: &[("proxy-protocol", "*")],
        has: |all| targets(all, "proxy_protocol_v2.enabled", "true"),
        calls: &[TARGETS],
    },
    Row {
        annotations: &[("proxy-protocol-per-target-group", "80")],
        has: |all| targets(all, "proxy_protocol_v2.enabled", "true"),
        calls: &[TARGETS],
    },
    Row {
        annotations: &[(
            "target-group-attributes.80",
            "target_group_health.dns_failover.minimum_healthy_targets.count=2",
        )],
        has: |all| {
            targets(
                all,
                "target_group_health.dns_failover.minimum_healthy_targets.count",
                "2",
            )
        },
        calls: &[TARGETS],
    },
];

/// Whether every load balancer has this value of an attribute.
fn balancer(all: &Snapshot, key: &str, value: &str) -> bool {
    let mut all = all.load_balancers.values();
    all.all(|one| one.attributes.get(key).is_some_and(|it| it == value))
}

/// Whether every target group has this value of an attribute.
fn targets(all: &Snapshot, key: &str, value: &str) -> bool {
    let mut all = all.target_groups.values();
    all.all(|one| one.attributes.get(key).is_some_and(|it| it == value))
}

fn check(all: &Snapshot, is: fn(&Check) -> bool) -> bool {
    all.target_groups.values().all(|one| is(&one.check))
}

/// What exists. The names of a bucket stay while nothing is written to it: AWS takes no empty ones.
fn trace(bed: &Bed) -> Vec<String> {
    let mut all = bed.fake.snapshot();
    for one in all.load_balancers.values_mut() {
        one.attributes.remove("access_logs.s3.bucket");
        one.attributes.remove("access_logs.s3.prefix");
    }
    essence(&all)
}

/// The calls that change something, without those of the mark of what was applied.
fn changes(calls: &[String]) -> Vec<&str> {
    let mut all = writes(calls);
    assert_eq!(all.first(), Some(&"RemoveTags"), "{calls:?}");
    assert_eq!(all.last(), Some(&"AddTags"), "{calls:?}");
    all.remove(0);
    all.pop();
    all
}

#[tokio::test]
async fn each_has_its_effect_with_few_calls_and_goes_without_a_trace() {
    let mut config = Config::default();
    config.settings.reserving = Duration::ZERO;
    let bed = Bed::with(config).await;
    let provider = bed.start().await.unwrap();
    let plain = service("web", &[(80, 30_080)]);
    settle(&provider, &plain).await.unwrap();
    // Some settings wait for an active load balancer.
    bed.fake.advance(Duration::from_mins(5));
    provider.look().await;
    settle(&provider, &plain).await.unwrap();
    let before = trace(&bed);
    for row in &ROWS {
        let what = row.annotations;
        assert!(!(row.has)(&bed.fake.snapshot()), "{what:?} at first");
        let wanted = what.iter().fold(plain.clone(), |service, (name, value)| {
            with(service, name, value)
        });
        let (settled, calls) = bed.calls_of(settle(&provider, &wanted)).await;
        settled.unwrap();
        assert!((row.has)(&bed.fake.snapshot()), "{what:?}: {calls:?}");
        assert_eq!(changes(&calls), row.calls, "{what:?}");
        // The next process finds it finished.
        let (settled, calls) = bed
            .calls_of(settle(&bed.start().await.unwrap(), &wanted))
            .await;
        settled.unwrap();
        assert_eq!(writes(&calls), [""; 0], "{what:?}");
        settle(&provider, &plain).await.unwrap();
        assert_eq!(trace(&bed), before, "{what:?}");
    }
}

/// A key that the table supports is in a row here, or has a test of its own.
#[test]
fn every_supported_annotation_is_tried() {
    const NAMES: &str = include_str!("names.rs");
    const NETWORK: &str = include_str!("network.rs");
    const TLS: &str = include_str!("tls.rs");
    // Without an effect that a cloud could show.
    const ELSEWHERE: [(&str, &str); 14] = [
        ("alpn-policy", TLS),
        ("backend-protocol", TLS),
        ("eip-allocations", NAMES),
        ("internal", NAMES),
        ("manage-backend-security-group-rules", NETWORK),
        ("nlb-target-type", include_str!("pods.rs")),
        ("private-ipv4-addresses", NETWORK),
        ("scheme", include_str!("health.rs")),
        ("security-group-prefix-lists", include_str!("stories.rs")),
        ("security-groups", NETWORK),
        ("ssl-ports", TLS),
        ("subnets", NETWORK),
        ("target-node-labels", include_str!("labels.rs")),
        ("type", include_str!("../../src/plan/tests/pods.rs")),
    ];
    for (name, tests) in ELSEWHERE {
        assert!(tests.contains(&format!("\"{name}\"")), "{name}");
    }
    for known in &ANNOTATIONS {
        let here = ROWS.iter().flat_map(|row| row.annotations);
        let here = here.map(|(name, _)| name.split('.').next().unwrap());
        let elsewhere = ELSEWHERE.iter().map(|(name, _)| *name);
        let tried = here.chain(elsewhere).any(|name| name == known.name);
        assert_eq!(tried, known.support == Support::Supported, "{}", known.name);
    }
}
