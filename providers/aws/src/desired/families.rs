//! Which families of addresses a load balancer, its target groups and its listeners have. Pure.
//!
//! A load balancer has IPv6 addresses, too, if its Services ask for the family or for `dualstack` by name, and its
//! subnets have them. Targets see the addresses of their clients only in the family of their target group; otherwise
//! they see an address of the load balancer ("Client IP preservation" in the user guide). So a Service with both families has
//! a target group for each, if its targets have both, and a listener rule for the second one.
//!
//! UDP is different. "You can't use an IPv4 target group with a UDP listener for a dualstack load balancer" ("Create a
//! listener" in the user guide), so all its clients have one target group of IPv6 there, and those with IPv4 are
//! translated with source NAT.

use ballast_provider::{Family, FamilyPolicy, Protocol, Reason, Refusal};

use super::{Addresses, LookedUp, Part};
use crate::annotations::{PREFIX, invalid};
use crate::target::TargetType;

/// The families of the target groups of one Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Split {
    /// That of the default action.
    pub(super) default: Family,
    /// Whether clients with IPv6 addresses have target groups of their own.
    pub(super) ipv6: bool,
    /// That of ports with UDP.
    pub(super) udp: Family,
}

/// Whether a Service asks for a load balancer with IPv6 addresses.
pub(crate) fn wanted(part: &Part<'_>) -> bool {
    let named = part.settings.dualstack;
    named.unwrap_or_else(|| part.service.families.contains(&Family::V6))
}

/// Whether what a Service gets depends on whether nodes have IPv6 addresses.
pub(crate) fn depends_on_nodes(part: &Part<'_>) -> bool {
    let nodes = part.settings.target_type != Some(TargetType::Ip);
    nodes && wanted(part) && part.service.families.contains(&Family::V6)
}

/// Refuses what contradicts itself.
pub(super) fn check(part: &Part<'_>) -> Result<(), Refusal> {
    let Part {
        service, settings, ..
    } = *part;
    if !wanted(part) && !service.families.contains(&Family::V4) {
        return Err(invalid(format!(
            "{} gives the load balancer no IPv6 addresses, and spec.ipFamilies of the Service has only IPv6. Use dualstack",
            setting("ipv4")
        )));
    }
    let Some(number) = udp_port(part).filter(|_| wanted(part)) else {
        return Ok(());
    };
    if !service.families.contains(&Family::V6) {
        return Err(Refusal::new(
            Reason::Unsupported,
            format!(
                "{}: port {number} is UDP, and AWS sends UDP of dual-stack load balancers to IPv6 addresses only. spec.ipFamilies of the Service needs IPv6, or use ipv4",
                setting("dualstack")
            ),
        ));
    }
    if settings.source_nat == Some(false) {
        return Err(Refusal::new(
            Reason::Unsupported,
            format!(
                "annotation {PREFIX}enable-prefix-for-ipv6-source-nat: off: port {number} is UDP, and AWS has no UDP listeners on dual-stack load balancers without it. Remove the annotation, or the annotation {PREFIX}ip-address-type: ipv4"
            ),
        ));
    }
    Ok(())
}

/// Why these Services cannot have the IPv6 addresses that they need. Somebody can mend it in AWS.
pub(crate) fn missing(parts: &[Part<'_>], found: &LookedUp) -> Option<Refusal> {
    let needs = |part: &&Part<'_>| {
        wanted(part)
            && (part.settings.dualstack == Some(true)
                || part.policy == FamilyPolicy::RequireDualStack
                || !part.service.families.contains(&Family::V4))
    };
    let part = parts.iter().find(needs)?;
    let why = obstacle(parts, found)?;
    let asks = if part.settings.dualstack == Some(true) {
        setting("dualstack")
    } else if part.policy == FamilyPolicy::RequireDualStack {
        "spec.ipFamilyPolicy: RequireDualStack".to_owned()
    } else {
        "spec.ipFamilies".to_owned()
    };
    Some(Refusal::new(
        Reason::Invalid,
        format!("{asks} needs IPv6 addresses: {why}"),
    ))
}

/// Whether these Services get IPv6 addresses.
pub(super) fn dualstack(parts: &[Part<'_>], found: &LookedUp) -> bool {
    parts.iter().any(wanted) && obstacle(parts, found).is_none()
}

/// The families of the load balancer.
pub(super) fn addresses(parts: &[Part<'_>], found: &LookedUp) -> Addresses {
    if !dualstack(parts, found) {
        return Addresses::Ipv4;
    }
    let source_nat = parts
        .iter()
        .any(|part| part.settings.source_nat == Some(true) || udp_port(part).is_some());
    Addresses::Dualstack { source_nat }
}

impl Split {
    /// The families of the target groups of one Service, and what its owner should know of them.
    pub(super) fn of(
        part: &Part<'_>,
        found: &LookedUp,
        (dualstack, obstacle): (bool, Option<&str>),
        remarks: &mut Vec<String>,
    ) -> Self {
        let Part {
            service, settings, ..
        } = *part;
        let has = |family| service.families.contains(&family);
        if !dualstack {
            remarks.extend(without(part, obstacle));
            return Self {
                default: Family::V4,
                ipv6: false,
                udp: Family::V4,
            };
        }
        if !has(Family::V4) {
            return Self {
                default: Family::V6,
                ipv6: false,
                udp: Family::V6,
            };
        }
        remarks.extend(udp_port(part).map(|port| {
            format!("port {port} is UDP: targets do not see the addresses of its clients with IPv4, but IPv6 addresses of the load balancer, because AWS sends UDP of dual-stack load balancers to IPv6 addresses only")
        }));
        let pods = settings.target_type == Some(TargetType::Ip);
        let why = if !has(Family::V6) {
            Some("spec.ipFamilies of the Service has no IPv6")
        } else if pods || found.ipv6_nodes {
            None
        } else {
            Some("no node has an IPv6 address")
        };
        remarks.extend(why.map(|why| {
            format!("targets of TCP do not see the addresses of clients with IPv6, but IPv4 addresses of the load balancer: {why}")
        }));
        Self {
            default: Family::V4,
            ipv6: why.is_none(),
            udp: Family::V6,
        }
    }
}

/// What to say of a Service that gets no IPv6 addresses.
fn without(part: &Part<'_>, obstacle: Option<&str>) -> Option<String> {
    let asks = part.service.families.contains(&Family::V6);
    let named = part.settings.dualstack == Some(false);
    let why = if named {
        format!("{} says so", setting("ipv4"))
    } else {
        obstacle?.to_owned()
    };
    asks.then(|| format!("spec.ipFamilies: the load balancer has no IPv6 addresses: {why}"))
}

/// Why the load balancer of these Services cannot have IPv6 addresses.
pub(super) fn obstacle(parts: &[Part<'_>], found: &LookedUp) -> Option<String> {
    let mut subnets = found.subnets.iter();
    if let Some(dry) = subnets.find(|it| !it.ipv6) {
        return Some(format!(
            "subnet {} has none. Give it an IPv6 CIDR, or name others with {PREFIX}subnets",
            dry.id
        ));
    }
    let nodes = |part: &&Part<'_>| part.settings.target_type != Some(TargetType::Ip);
    let mut of_nodes = parts.iter().filter(nodes).filter_map(udp_port);
    let port = of_nodes.next().filter(|_| !found.ipv6_nodes)?;
    Some(format!(
        "port {port} is UDP. A dual-stack load balancer sends UDP to IPv6 addresses only, and no node has one"
    ))
}

/// Where the families of a load balancer are set.
fn setting(value: &str) -> String {
    format!(
        "ip-address-type: {value} (annotation {PREFIX}ip-address-type, or spec.aws.ipAddressType of the class)"
    )
}

/// A port with UDP.
fn udp_port(part: &Part<'_>) -> Option<u16> {
    let mut all = part.service.listeners.iter();
    let udp = all.find(|one| one.protocol == Protocol::Udp)?;
    Some(udp.port)
}
