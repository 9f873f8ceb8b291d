//! The attributes of load balancers and target groups that can be set, with AWS's defaults.
//!
//! Source: `ModifyLoadBalancerAttributes` and `ModifyTargetGroupAttributes` in the Elastic Load
//! Balancing API Reference (2015-12-01), the parts for Network Load Balancers.

use std::collections::BTreeMap;

use ballast_provider::{Reason, Refusal};

use crate::annotations::invalid;

/// Whether the load balancer of a zone also sends to targets in other zones.
pub const CROSS_ZONE: &str = "load_balancing.cross_zone.enabled";
/// Whether a record of each TLS connection is written to a bucket.
pub const ACCESS_LOGS: &str = "access_logs.s3.enabled";
/// The name of that bucket.
pub const ACCESS_LOGS_BUCKET: &str = "access_logs.s3.bucket";
/// The folder in that bucket.
pub const ACCESS_LOGS_PREFIX: &str = "access_logs.s3.prefix";
/// A load balancer with it cannot be deleted. Ballast never switches it off by itself.
pub const DELETION_PROTECTION: &str = "deletion_protection.enabled";
/// Whether targets get the client's address in a header.
pub const PROXY_PROTOCOL: &str = "proxy_protocol_v2.enabled";
/// Whether targets see the client's address as the sender. Always on for UDP.
pub const PRESERVE_CLIENT_IP: &str = "preserve_client_ip.enabled";
/// How long a target that leaves keeps its connections, in seconds.
pub const DEREGISTRATION_DELAY: &str = "deregistration_delay.timeout_seconds";
/// Whether connections of one client go to one target.
pub const STICKINESS: &str = "stickiness.enabled";

/// The values of an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Values {
    Boolean,
    OneOf(&'static [&'static str]),
    Number(u32, u32),
    /// `off`, or a number in this range.
    OffOrNumber(u32, u32),
    /// So many characters at most, none of them a space.
    Text(usize),
}

/// One attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attribute {
    /// Its key.
    pub key: &'static str,
    /// What AWS sets if nobody says anything, for target groups of instances.
    pub default: &'static str,
    values: Values,
}

/// Attributes of a load balancer.
pub const LOAD_BALANCER: [Attribute; 7] = [
    boolean(ACCESS_LOGS, "false"),
    text(ACCESS_LOGS_BUCKET, 63),
    text(ACCESS_LOGS_PREFIX, 255),
    boolean(DELETION_PROTECTION, "false"),
    Attribute {
        key: "dns_record.client_routing_policy",
        default: "any_availability_zone",
        values: Values::OneOf(&[
            "any_availability_zone",
            "availability_zone_affinity",
            "partial_availability_zone_affinity",
        ]),
    },
    boolean(CROSS_ZONE, "false"),
    boolean("zonal_shift.config.enabled", "false"),
];

/// Attributes of a listener with the protocol TCP.
pub const LISTENER: [Attribute; 1] = [Attribute {
    key: "tcp.idle_timeout.seconds",
    default: "350",
    values: Values::Number(60, 6_000),
}];

/// Attributes of a target group.
pub const TARGET_GROUP: [Attribute; 10] = [
    Attribute {
        key: DEREGISTRATION_DELAY,
        default: "300",
        values: Values::Number(0, 3_600),
    },
    Attribute {
        key: CROSS_ZONE,
        default: "use_load_balancer_configuration",
        values: Values::OneOf(&["true", "false", "use_load_balancer_configuration"]),
    },
    boolean(PRESERVE_CLIENT_IP, "true"),
    boolean(PROXY_PROTOCOL, "false"),
    boolean(STICKINESS, "false"),
    Attribute {
        key: "stickiness.type",
        default: "source_ip",
        values: Values::OneOf(&["source_ip"]),
    },
    Attribute {
        key: "target_group_health.dns_failover.minimum_healthy_targets.count",
        default: "1",
        values: Values::OffOrNumber(1, 1_000),
    },
    Attribute {
        key: "target_group_health.dns_failover.minimum_healthy_targets.percentage",
        default: "off",
        values: Values::OffOrNumber(1, 100),
    },
    Attribute {
        key: "target_group_health.unhealthy_state_routing.minimum_healthy_targets.count",
        default: "1",
        values: Values::Number(1, 1_000),
    },
    Attribute {
        key: "target_group_health.unhealthy_state_routing.minimum_healthy_targets.percentage",
        default: "off",
        values: Values::OffOrNumber(1, 100),
    },
];

/// Those of the table that have another value than AWS's default.
pub(crate) fn changed(
    mut all: BTreeMap<String, String>,
    table: &[Attribute],
) -> BTreeMap<String, String> {
    all.retain(|key, value| {
        let known = table.iter().find(|known| known.key == key.as_str());
        known.is_some_and(|known| known.default != value.as_str())
    });
    all
}

const fn boolean(key: &'static str, default: &'static str) -> Attribute {
    Attribute {
        key,
        default,
        values: Values::Boolean,
    }
}

const fn text(key: &'static str, longest: usize) -> Attribute {
    Attribute {
        key,
        default: "",
        values: Values::Text(longest),
    }
}

/// Checks attributes of a load balancer.
pub(crate) fn load_balancer(
    key: &str,
    all: BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, Refusal> {
    checked(key, all, &LOAD_BALANCER)
}

/// Checks attributes of a TCP listener.
pub(crate) fn listener(
    key: &str,
    all: BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, Refusal> {
    checked(key, all, &LISTENER)
}

/// Checks attributes of a target group.
pub(crate) fn target_group(
    key: &str,
    all: BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, Refusal> {
    checked(key, all, &TARGET_GROUP)
}

fn checked(
    subject: &str,
    all: BTreeMap<String, String>,
    table: &[Attribute],
) -> Result<BTreeMap<String, String>, Refusal> {
    for (key, value) in &all {
        let Some(known) = table.iter().find(|known| known.key == key) else {
            let names: Vec<&str> = table.iter().map(|known| known.key).collect();
            return Err(Refusal::new(
                Reason::Unsupported,
                format!(
                    "{subject}: Ballast does not support the attribute {key}; it supports {}",
                    names.join(", ")
                ),
            ));
        };
        let (fits, allowed) = match known.values {
            Values::Boolean => (value == "true" || value == "false", "true or false".into()),
            Values::OneOf(values) => (values.contains(&value.as_str()), values.join(", ")),
            Values::Number(least, most) => (
                value
                    .parse::<u32>()
                    .is_ok_and(|number| (least..=most).contains(&number)),
                format!("a number from {least} to {most}"),
            ),
            Values::OffOrNumber(least, most) => (
                value == "off"
                    || value
                        .parse::<u32>()
                        .is_ok_and(|number| (least..=most).contains(&number)),
                format!("off or a number from {least} to {most}"),
            ),
            Values::Text(longest) => (
                value.len() <= longest && value.bytes().all(|byte| byte.is_ascii_graphic()),
                format!("at most {longest} ASCII characters without spaces"),
            ),
        };
        if !fits {
            return Err(invalid(format!(
                "{subject}: {key} must be {allowed}, not \"{value}\""
            )));
        }
    }
    Ok(all)
}
