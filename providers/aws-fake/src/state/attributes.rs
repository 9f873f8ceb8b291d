//! The attributes of Network Load Balancers and of their target groups: which there are, AWS's
//! defaults, and what they may be. Source: `LoadBalancerAttribute`, `TargetGroupAttribute` and
//! `ListenerAttribute` \[model\].

use std::collections::BTreeMap;

use super::{Refusal, Result};

/// Protects a load balancer from being deleted.
pub const DELETION_PROTECTION: &str = "deletion_protection.enabled";
/// Sends traffic to targets of all zones.
pub const CROSS_ZONE: &str = "load_balancing.cross_zone.enabled";
/// Sends all connections of a client to one target.
pub const STICKINESS: &str = "stickiness.enabled";
/// How long a target that was deregistered drains.
pub const DEREGISTRATION_DELAY: &str = "deregistration_delay.timeout_seconds";

/// Attributes by key.
pub type Attributes = BTreeMap<String, String>;

/// Which values an attribute may have.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Boolean,
    /// A number in this range.
    Number(u32, u32),
    /// `off`, or a number in this range.
    OffOrNumber(u32, u32),
    OneOf(&'static [&'static str]),
    Text,
}

const LOAD_BALANCER: [(&str, &str, Kind); 9] = [
    ("access_logs.s3.bucket", "", Kind::Text),
    ("access_logs.s3.enabled", "false", Kind::Boolean),
    ("access_logs.s3.prefix", "", Kind::Text),
    (DELETION_PROTECTION, "false", Kind::Boolean),
    (
        "dns_record.client_routing_policy",
        "any_availability_zone",
        Kind::OneOf(&[
            "any_availability_zone",
            "availability_zone_affinity",
            "partial_availability_zone_affinity",
        ]),
    ),
    ("ipv6.deny_all_igw_traffic", "false", Kind::Boolean),
    (CROSS_ZONE, "false", Kind::Boolean),
    (SECONDARY, "0", Kind::Number(0, 7)),
    ("zonal_shift.config.enabled", "false", Kind::Boolean),
];
const SECONDARY: &str = "secondary_ips.auto_assigned.per_subnet";
/// Of listeners with the protocol TCP.
const LISTENER: [(&str, &str, Kind); 1] =
    [("tcp.idle_timeout.seconds", "350", Kind::Number(60, 6000))];
/// Attributes of other kinds of load balancers and of their target groups.
const OTHERS: [&str; 22] = [
    "client_keep_alive.seconds",
    "connection_logs.s3.bucket",
    "connection_logs.s3.enabled",
    "connection_logs.s3.prefix",
    "idle_timeout.timeout_seconds",
    "lambda.multi_value_headers.enabled",
    "load_balancing.algorithm.anomaly_mitigation",
    "load_balancing.algorithm.type",
    "routing.http.desync_mitigation_mode",
    "routing.http.drop_invalid_header_fields.enabled",
    "routing.http.preserve_host_header.enabled",
    "routing.http.x_amzn_tls_version_and_cipher_suite.enabled",
    "routing.http.xff_client_port.enabled",
    "routing.http.xff_header_processing.mode",
    "routing.http2.enabled",
    "slow_start.duration_seconds",
    "stickiness.app_cookie.cookie_name",
    "stickiness.app_cookie.duration_seconds",
    "stickiness.lb_cookie.duration_seconds",
    "target_failover.on_deregistration",
    "target_failover.on_unhealthy",
    "waf.fail_open.enabled",
];

const TARGET_GROUP: [(&str, &str, Kind); 13] = [
    (TERMINATION, "false", Kind::Boolean),
    (DEREGISTRATION_DELAY, "300", Kind::Number(0, 3600)),
    (
        CROSS_ZONE,
        "use_load_balancer_configuration",
        Kind::OneOf(&["true", "false", "use_load_balancer_configuration"]),
    ),
    (PRESERVE, "true", Kind::Boolean),
    ("proxy_protocol_v2.enabled", "false", Kind::Boolean),
    (STICKINESS, "false", Kind::Boolean),
    ("stickiness.type", "source_ip", Kind::OneOf(&["source_ip"])),
    (
        "target_group_health.dns_failover.minimum_healthy_targets.count",
        "1",
        Kind::OffOrNumber(1, 1000),
    ),
    (
        "target_group_health.dns_failover.minimum_healthy_targets.percentage",
        "off",
        Kind::OffOrNumber(1, 100),
    ),
    (
        "target_group_health.unhealthy_state_routing.minimum_healthy_targets.count",
        "1",
        Kind::Number(1, 1000),
    ),
    (
        "target_group_health.unhealthy_state_routing.minimum_healthy_targets.percentage",
        "off",
        Kind::OffOrNumber(1, 100),
    ),
    (UNHEALTHY_TERMINATION, "true", Kind::Boolean),
    (UNHEALTHY_DRAINING, "0", Kind::Number(0, 360_000)),
];
const TERMINATION: &str = "deregistration_delay.connection_termination.enabled";
const PRESERVE: &str = "preserve_client_ip.enabled";
const UNHEALTHY_TERMINATION: &str = "target_health_state.unhealthy.connection_termination.enabled";
const UNHEALTHY_DRAINING: &str = "target_health_state.unhealthy.draining_interval_seconds";

/// The most attributes in one call \[model\].
const MOST: usize = 20;

/// The attributes of a new load balancer.
pub fn load_balancer_defaults(scheme: &str) -> Attributes {
    let mut all = defaults(&LOAD_BALANCER);
    let internal = (scheme == "internal").to_string();
    all.insert("ipv6.deny_all_igw_traffic".into(), internal);
    all
}

/// The attributes of a new target group.
pub fn target_group_defaults(protocol: &str, target_type: &str) -> Attributes {
    let mut all = defaults(&TARGET_GROUP);
    if is_udp(protocol) {
        all.insert(TERMINATION.into(), "true".into());
        all.insert(UNHEALTHY_TERMINATION.into(), "false".into());
    } else if target_type == "ip" {
        all.insert(PRESERVE.into(), "false".into());
    }
    all
}

/// The attributes of a new listener. \[docs\]: only TCP listeners have another idle timeout than 350 seconds.
pub fn listener_defaults(protocol: &str) -> Attributes {
    if protocol == "TCP" {
        defaults(&LISTENER)
    } else {
        Attributes::new()
    }
}

fn defaults(table: &[(&str, &str, Kind)]) -> Attributes {
    let all = table.iter();
    all.map(|(key, default, _)| ((*key).to_owned(), (*default).to_owned()))
        .collect()
}

fn is_udp(protocol: &str) -> bool {
    protocol == "UDP" || protocol == "TCP_UDP"
}

/// Whether a target group with these attributes sends all connections of a client to one target.
pub(super) fn is_sticky(all: &Attributes) -> bool {
    on(all, STICKINESS)
}

/// Changes the attributes of a load balancer.
pub(super) fn change_load_balancer(all: &mut Attributes, changes: &Attributes) -> Result<()> {
    let before = number(all, SECONDARY);
    change(all, changes, &LOAD_BALANCER)?;
    if number(all, SECONDARY) < before {
        return Err(invalid(format!("{SECONDARY} cannot be decreased")));
    }
    if on(all, "access_logs.s3.enabled")
        && all
            .get("access_logs.s3.bucket")
            .is_none_or(String::is_empty)
    {
        return Err(invalid("Access logs need access_logs.s3.bucket"));
    }
    Ok(())
}

/// Changes the attributes of a target group.
pub(super) fn change_target_group(
    protocol: &str,
    all: &mut Attributes,
    changes: &Attributes,
) -> Result<()> {
    change(all, changes, &TARGET_GROUP)?;
    // \[seen\]
    if protocol == "TLS" && is_sticky(all) {
        return Err(invalid(
            "You cannot enable stickiness on target groups with the TLS protocol",
        ));
    }
    if is_udp(protocol) {
        if !on(all, PRESERVE) {
            return Err(invalid(format!(
                "{PRESERVE} cannot be false for target groups with the protocol {protocol}"
            )));
        }
        if on(all, UNHEALTHY_TERMINATION) {
            return Err(invalid(format!(
                "{UNHEALTHY_TERMINATION} cannot be true for target groups with the protocol {protocol}"
            )));
        }
    }
    if on(all, UNHEALTHY_TERMINATION) && number(all, UNHEALTHY_DRAINING) > 0 {
        return Err(invalid(format!(
            "{UNHEALTHY_DRAINING} needs {UNHEALTHY_TERMINATION} to be false"
        )));
    }
    Ok(())
}

/// Changes the attributes of a listener.
pub(super) fn change_listener(
    protocol: &str,
    all: &mut Attributes,
    changes: &Attributes,
) -> Result<()> {
    if protocol != "TCP" {
        return Err(invalid(format!(
            "Listeners with the protocol {protocol} have no attributes"
        )));
    }
    change(all, changes, &LISTENER)
}

fn change(all: &mut Attributes, changes: &Attributes, table: &[(&str, &str, Kind)]) -> Result<()> {
    if changes.is_empty() || changes.len() > MOST {
        return Err(Refusal::validation(format!(
            "1 to {MOST} attributes can be changed at a time, not {}",
            changes.len()
        )));
    }
    for (key, value) in changes {
        let known = table.iter().find(|(name, _, _)| name == key);
        match known {
            None if OTHERS.contains(&key.as_str()) => {
                return Err(invalid(format!(
                    "The attribute '{key}' is not supported for load balancers of type 'network'"
                )));
            }
            None => {
                return Err(Refusal::validation(format!(
                    "The attribute key '{key}' is not recognized"
                )));
            }
            Some((_, _, kind)) if !kind.permits(value) => {
                return Err(Refusal::validation(format!(
                    "The value '{value}' of the attribute '{key}' is not valid"
                )));
            }
            Some(_) => {
                all.insert(key.clone(), value.clone());
            }
        }
    }
    Ok(())
}

fn on(all: &Attributes, key: &str) -> bool {
    all.get(key).is_some_and(|value| value == "true")
}

/// The number in an attribute.
pub(super) fn number(all: &Attributes, key: &str) -> u32 {
    all.get(key)
        .and_then(|value| value.parse().ok())
        .unwrap_or(0)
}

pub(super) fn invalid(message: impl Into<String>) -> Refusal {
    Refusal::new("InvalidConfigurationRequest", message)
}

// === impl Kind ===

impl Kind {
    fn permits(self, value: &str) -> bool {
        let within = |from, to| {
            let canonical = !value.starts_with(['0', '+']) || value == "0";
            canonical && (value.parse::<u32>()).is_ok_and(|it| (from..=to).contains(&it))
        };
        match self {
            Self::Boolean => ["true", "false"].contains(&value),
            Self::Number(from, to) => within(from, to),
            Self::OffOrNumber(from, to) => value == "off" || within(from, to),
            Self::OneOf(values) => values.contains(&value),
            Self::Text => value.len() <= 1024,
        }
    }
}
