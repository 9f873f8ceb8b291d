//! What Services that share a load balancer must agree on. Pure.
//!
//! Each has listeners, target groups and rules of its own. What the load balancer has once, all of them must ask for
//! alike: whoever says nothing asks for what the class says. So no Service changes the load balancer of the
//! others when it joins or leaves.

use std::collections::BTreeMap;

use ballast_provider::{LoadBalancer, Reason, Refusal};

use super::listeners::MOST_LISTENERS;
use super::{Part, families};
use crate::annotations::PREFIX;

/// A setting that a load balancer has once, as text.
type Once = (&'static str, fn(&Part<'_>) -> String);

/// All of them, by the annotation that sets them.
const ONCE: [Once; 10] = [
    ("scheme", |Part { settings: it, .. }| {
        it.scheme.unwrap_or_default().as_str().into()
    }),
    ("subnets", |Part { settings: it, .. }| it.subnets.join(",")),
    ("security-groups", |Part { settings: it, .. }| {
        it.security_groups.join(",")
    }),
    (
        "manage-backend-security-group-rules",
        |Part { settings: it, .. }| {
            let manages = it.manage_backend_rules;
            manages.unwrap_or(it.security_groups.is_empty()).to_string()
        },
    ),
    (
        "inbound-sg-rules-on-private-link-traffic",
        |Part { settings: it, .. }| {
            let on = it.private_link_rules.unwrap_or(true);
            if on { "on" } else { "off" }.into()
        },
    ),
    ("attributes", |Part { settings: it, .. }| {
        pairs(&it.attributes)
    }),
    (
        "minimum-load-balancer-capacity",
        |Part { settings: it, .. }| {
            let units = super::capacity::wanted(it);
            units.map_or_else(String::new, |units| format!("CapacityUnits={units}"))
        },
    ),
    ("eip-allocations", |Part { settings: it, .. }| {
        it.elastic_addresses.join(",")
    }),
    ("private-ipv4-addresses", |Part { settings: it, .. }| {
        let all = it.private_addresses.iter().map(ToString::to_string);
        all.collect::<Vec<_>>().join(",")
    }),
    ("ip-address-type", |part| {
        let dualstack = families::wanted(part);
        if dualstack { "dualstack" } else { "ipv4" }.into()
    }),
];

fn pairs(all: &BTreeMap<String, String>) -> String {
    let all = all.iter().map(|(key, value)| format!("{key}={value}"));
    all.collect::<Vec<_>>().join(",")
}

/// The tags of what is shared: of those that settings name, the ones that all settings name alike. So whoever joins
/// changes none that others need, such as for costs and rights.
pub(super) fn tags(
    mut all: BTreeMap<String, String>,
    parts: &[Part<'_>],
) -> BTreeMap<String, String> {
    let named = |key: &String| {
        parts
            .iter()
            .any(|part| part.settings.tags.contains_key(key))
    };
    all.retain(|key, value| {
        let mut each = parts.iter().map(|part| part.settings.tags.get(key));
        !named(key) || each.all(|tag| tag == Some(value))
    });
    all
}

/// Refuses Services that cannot be on one load balancer.
pub(super) fn agree(parts: &[Part<'_>]) -> Result<(), Refusal> {
    let Some((first, others)) = parts.split_first() else {
        return Ok(());
    };
    for other in others {
        for (name, value) in ONCE {
            let (one, another) = (value(first), value(other));
            if one != another {
                return Err(Refusal::new(
                    Reason::Invalid,
                    format!(
                        "{} share a load balancer, and {PREFIX}{name} is \"{one}\" for one and \"{another}\" for the other. Set it alike on both, or in the class",
                        both(first.service, other.service)
                    ),
                ));
            }
        }
    }
    ports(parts)
}

/// AWS has one listener on a port, whatever its protocol, and so many listeners on a load balancer.
fn ports(parts: &[Part<'_>]) -> Result<(), Refusal> {
    let mut taken: BTreeMap<u16, &LoadBalancer> = BTreeMap::new();
    for part in parts {
        for listener in &part.service.listeners {
            let holder = *taken.entry(listener.port).or_insert(part.service);
            if holder.id != part.service.id {
                return Err(Refusal::new(
                    Reason::PortInUse,
                    format!(
                        "{} share a load balancer and want port {}. AWS has one listener on a port, also for TCP and UDP",
                        both(holder, part.service),
                        listener.port
                    ),
                ));
            }
        }
    }
    if parts.len() > 1 && taken.len() > MOST_LISTENERS {
        return Err(Refusal::new(
            Reason::QuotaExceeded,
            format!(
                "the {} Services that share the load balancer have {} ports, and a Network Load Balancer has at most {MOST_LISTENERS}. Use another ballast.dev/share-key",
                parts.len(),
                taken.len()
            ),
        ));
    }
    Ok(())
}

/// No message names Services of other namespaces.
fn both(one: &LoadBalancer, other: &LoadBalancer) -> String {
    if one.id.namespace == other.id.namespace {
        format!("Services {} and {}", one.id, other.id)
    } else {
        "Services of different namespaces".to_owned()
    }
}
