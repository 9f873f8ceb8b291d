//! Translates a Service's spec and annotations into the [`LoadBalancer`] that it asks for.
//! Pure.
//!
//! A refusal names the field and its value, and says what to do. It affects only its own
//! Service. What the API server validates is checked again, because a Service can be older
//! than the rule. Whatever a user can write here is bounded before it is kept or quoted: see
//! the constants below and [`crate::process::text`]; the messages of conditions are bounded
//! where conditions are built ([`crate::service::status`], [`crate::cluster::conditions`]).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Bound;

use ballast_provider::{
    Affinity, Family, Ingress, Listener, LoadBalancer, PortStatus, Protocol, Reason, Refusal,
    ServiceId, Settings, TrafficPolicy,
};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::{ServicePort, ServiceSpec};

use crate::process::text;

mod placement;

pub use self::placement::{labels, placement};

type Annotations = BTreeMap<String, String>;

/// Addresses that the Service asks for, separated by commas.
pub const ADDRESSES: &str = "ballast.dev/addresses";
/// Services with the same value may share one load balancer.
pub const SHARE_KEY: &str = "ballast.dev/share-key";
/// The pool that the address must come from (L2).
pub const ADDRESS_POOL: &str = "ballast.dev/address-pool";
/// Upstream's annotation for `spec.loadBalancerSourceRanges`, used if the field is empty.
pub const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
/// `MetalLB`'s annotations, with its current prefix and its former one.
const METALLB_ADDRESSES: [&str; 2] = [
    "metallb.io/loadBalancerIPs",
    "metallb.universe.tf/loadBalancerIPs",
];
const METALLB_SHARE_KEY: [&str; 2] = [
    "metallb.io/allow-shared-ip",
    "metallb.universe.tf/allow-shared-ip",
];
const METALLB_POOL: [&str; 2] = [
    "metallb.io/address-pool",
    "metallb.universe.tf/address-pool",
];

/// Annotations that `MetalLB` itself sets on a Service; users do not.
const METALLB_NOTES: [&str; 2] = [
    "metallb.io/ip-allocated-from-pool",
    "metallb.universe.tf/ip-allocated-from-pool",
];

/// Prefixes of annotation keys for load balancers. An unknown key with such a prefix is
/// probably misspelt.
const FAMILIES: [&str; 4] = [
    "ballast.dev/",
    "metallb.io/",
    "metallb.universe.tf/",
    "service.beta.kubernetes.io/load-balancer-",
];
const DEFAULT_AFFINITY_SECONDS: u32 = 10_800;

/// The maximum number of unknown annotations that a condition names.
const NAMED: usize = 5;
/// The maximum number of annotations of one family that are checked for unknown ones.
const LOOKED_AT: usize = 50;
/// The maximum length of a key that can be a misspelt known one.
const LONGEST_KEY: usize = 64;
/// The maximum number of source ranges of one Service. Clouds take far fewer; each costs memory
/// in every replica.
const SOURCE_RANGES_LIMIT: usize = 1_000;
/// The maximum length of a share key, as for names in Kubernetes.
const SHARE_KEY_LIMIT: usize = 253;
/// The maximum number of settings of one Service for its provider. The AWS Load Balancer
/// Controller reads about 45 annotations.
const SETTINGS_LIMIT: usize = 64;
/// The maximum size of all settings of a Service together, in bytes of keys and values. Lists of
/// subnets, certificates and tags have a few hundred each, and every replica keeps them.
const SETTINGS_SIZE: usize = 16 * 1024;

/// What the providers of this build add to the annotations that a Service can have.
#[derive(Clone, Copy, Debug, Default)]
pub struct Dialect {
    /// Annotations with one of these prefixes are kept for the provider as they are.
    pub setting_prefixes: &'static [&'static str],
}

/// What the Service asks for, or why it is refused.
pub fn load_balancer(
    id: &ServiceId,
    spec: &ServiceSpec,
    annotations: &Annotations,
    dialect: Dialect,
) -> Result<LoadBalancer, Refusal> {
    let families = families(spec);
    Ok(LoadBalancer {
        listeners: listeners(spec)?,
        traffic_policy: traffic_policy(spec)?,
        affinity: affinity(spec),
        source_ranges: source_ranges(spec, annotations)?,
        requested_addresses: requested_addresses(spec, annotations, &families)?,
        share_key: share_key(annotations)?,
        settings: settings(annotations, dialect)?,
        families,
        id: id.clone(),
    })
}

/// The annotations for the provider, unless they are too many or too large to keep.
fn settings(annotations: &Annotations, dialect: Dialect) -> Result<Settings, Refusal> {
    let mut settings = Settings::new();
    let mut size = 0;
    for prefix in dialect.setting_prefixes {
        for (key, value) in with_prefix(annotations, prefix) {
            if known().any(|known| known == key) || settings.contains_key(key) {
                continue;
            }
            size += key.len() + value.len();
            if settings.len() == SETTINGS_LIMIT || size > SETTINGS_SIZE {
                return Err(Refusal::new(
                    Reason::Invalid,
                    format!(
                        "too many annotations with the prefix {prefix}: at most {SETTINGS_LIMIT}, and {SETTINGS_SIZE} bytes, are supported"
                    ),
                ));
            }
            settings.insert(key.clone(), value.clone());
        }
    }
    Ok(settings)
}

fn with_prefix<'a>(
    annotations: &'a Annotations,
    prefix: &'static str,
) -> impl Iterator<Item = (&'a String, &'a String)> {
    let all = annotations.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
    all.take_while(move |(key, _)| key.starts_with(prefix))
}

/// The part of a refused Service that was accepted before: the ports that it publishes. `None`
/// if that part itself is invalid, or nothing is published.
pub fn accepted_before(
    id: &ServiceId,
    spec: &ServiceSpec,
    annotations: &Annotations,
    published: &[Ingress],
    dialect: Dialect,
) -> Option<LoadBalancer> {
    let published = &published.first()?.ports;
    let mut spec = spec.clone();
    spec.ports.as_mut()?.retain(|port| {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let is = |known: &PortStatus| {
            i32::from(known.port) == port.port && known.protocol.as_str() == protocol
        };
        published.iter().any(is)
    });
    let accepted = load_balancer(id, &spec, annotations, dialect).or_else(|_| {
        // The requested addresses may be what is invalid, so they are dropped: the Service has
        // those that it publishes.
        spec.load_balancer_ip = None;
        let kept = annotations.iter().filter(|(key, _)| {
            let asks = *key == ADDRESSES || METALLB_ADDRESSES.contains(&key.as_str());
            !asks && (known().any(|known| known == *key) || dialect.is_setting(key))
        });
        let annotations = kept.map(|(key, value)| (key.clone(), value.clone()));
        let annotations: Annotations = annotations.collect();
        load_balancer(id, &spec, &annotations, dialect)
    });
    let accepted = accepted.ok()?;
    (!accepted.listeners.is_empty()).then_some(accepted)
}

/// Unknown annotations of our families, each with the nearest known key. At most [`NAMED`] are
/// named, and at most [`LOOKED_AT`] of each family are checked: a Service can have thousands.
pub fn unknown_annotations(annotations: &Annotations, dialect: Dialect) -> Vec<String> {
    let of_family = |family: &'static str| {
        let keys = with_prefix(annotations, family).map(|(key, _)| key.as_str());
        keys.take(LOOKED_AT)
    };
    let is_unknown = |key: &&str| {
        !known().any(|known| known == *key)
            && !METALLB_NOTES.contains(key)
            && !dialect.is_setting(key)
    };
    let mut unknown = FAMILIES.into_iter().flat_map(of_family).filter(is_unknown);
    let named = unknown.by_ref().take(NAMED).map(|key| match nearest(key) {
        Some(known) => format!("{} (did you mean {known}?)", text::value(key)),
        None => text::value(key),
    });
    let mut named: Vec<String> = named.collect();
    if unknown.next().is_some() {
        named.push("and others".to_owned());
    }
    named
}

/// All known keys.
fn known() -> impl Iterator<Item = &'static str> {
    let ours = [ADDRESSES, SHARE_KEY, ADDRESS_POOL, SOURCE_RANGES].into_iter();
    ours.chain(METALLB_ADDRESSES)
        .chain(METALLB_SHARE_KEY)
        .chain(METALLB_POOL)
}

fn listeners(spec: &ServiceSpec) -> Result<Vec<Listener>, Refusal> {
    let ports = spec.ports.as_deref().unwrap_or_default();
    // Allocated with the exact capacity, which collecting results does not do: there are many
    // views.
    let mut listeners = Vec::with_capacity(ports.len());
    for (index, port) in ports.iter().enumerate() {
        listeners.push(listener(index, port)?);
    }
    Ok(listeners)
}

fn listener(index: usize, port: &ServicePort) -> Result<Listener, Refusal> {
    let protocol = match port.protocol.as_deref() {
        None | Some("TCP") => Protocol::Tcp,
        Some("UDP") => Protocol::Udp,
        Some(other) => {
            let other = text::value(other);
            let name = port
                .name
                .as_deref()
                .map(|name| format!(" \"{name}\""))
                .unwrap_or_default();
            return Err(Refusal::new(
                Reason::Unsupported,
                format!(
                    "spec.ports[{index}]{name} is {}/{other}: only TCP and UDP are supported; remove this port or move it to another Service",
                    port.port
                ),
            ));
        }
    };
    Ok(Listener {
        name: port.name.clone(),
        protocol,
        port: port_number(&format!("spec.ports[{index}].port"), port.port)?,
        node_port: port.node_port.map_or(Ok(0), |node_port| {
            port_number(&format!("spec.ports[{index}].nodePort"), node_port)
        })?,
    })
}

fn port_number(field: &str, value: i32) -> Result<u16, Refusal> {
    u16::try_from(value).map_err(|_| {
        Refusal::new(
            Reason::Invalid,
            format!("{field} is {value}: not a port number"),
        )
    })
}

fn families(spec: &ServiceSpec) -> Vec<Family> {
    let families: Vec<Family> = spec
        .ip_families
        .as_deref()
        .unwrap_or_default()
        .iter()
        .filter_map(|family| match family.as_str() {
            "IPv4" => Some(Family::V4),
            "IPv6" => Some(Family::V6),
            _ => None,
        })
        .collect();
    if families.is_empty() {
        vec![Family::V4]
    } else {
        families
    }
}

fn traffic_policy(spec: &ServiceSpec) -> Result<TrafficPolicy, Refusal> {
    if spec.external_traffic_policy.as_deref() != Some("Local") {
        return Ok(TrafficPolicy::Cluster);
    }
    let field = "spec.healthCheckNodePort";
    match spec.health_check_node_port {
        Some(port) if port > 0 => Ok(TrafficPolicy::Local {
            health_check_node_port: port_number(field, port)?,
        }),
        _ => Err(Refusal::new(
            Reason::Invalid,
            format!(
                "{field} is not set, and externalTrafficPolicy is Local: without it a load balancer cannot tell which nodes have an endpoint"
            ),
        )),
    }
}

fn affinity(spec: &ServiceSpec) -> Affinity {
    if spec.session_affinity.as_deref() != Some("ClientIP") {
        return Affinity::None;
    }
    let timeout = spec
        .session_affinity_config
        .as_ref()
        .and_then(|config| config.client_ip.as_ref())
        .and_then(|client_ip| client_ip.timeout_seconds)
        .and_then(|seconds| u32::try_from(seconds).ok());
    Affinity::ClientIp {
        timeout_seconds: timeout.unwrap_or(DEFAULT_AFFINITY_SECONDS),
    }
}

fn source_ranges(spec: &ServiceSpec, annotations: &Annotations) -> Result<Vec<IpNet>, Refusal> {
    let field = spec
        .load_balancer_source_ranges
        .as_deref()
        .unwrap_or_default();
    let (origin, texts): (&str, Vec<&str>) = if field.is_empty() {
        let annotation = annotations
            .get(SOURCE_RANGES)
            .map_or("", |text| text.trim());
        (
            SOURCE_RANGES,
            annotation
                .split(',')
                .filter(|text| !text.trim().is_empty())
                .collect(),
        )
    } else {
        (
            "spec.loadBalancerSourceRanges",
            field.iter().map(String::as_str).collect(),
        )
    };
    if texts.len() > SOURCE_RANGES_LIMIT {
        return Err(Refusal::new(
            Reason::Invalid,
            format!(
                "{origin} has {} ranges; at most {SOURCE_RANGES_LIMIT} are supported",
                texts.len()
            ),
        ));
    }
    texts
        .into_iter()
        .map(|text| {
            // The API server has always accepted padding.
            text.trim().parse::<IpNet>().map(|net| net.trunc()).map_err(|_| {
                Refusal::new(
                    Reason::Invalid,
                    format!(
                        "{origin} has \"{}\": not a range such as 192.0.2.0/24 or 2001:db8::/32",
                        text::value(text)
                    ),
                )
            })
        })
        .collect()
}

fn requested_addresses(
    spec: &ServiceSpec,
    annotations: &Annotations,
    families: &[Family],
) -> Result<Vec<IpAddr>, Refusal> {
    let (origin, list) = match first(annotations, ADDRESSES, METALLB_ADDRESSES) {
        Some(found) => found,
        None => match spec.load_balancer_ip.as_deref() {
            Some(text) if !text.is_empty() => ("spec.loadBalancerIP", text),
            _ => return Ok(Vec::new()),
        },
    };
    let invalid = |message: String| Refusal::new(Reason::Invalid, message);
    let mut addresses: Vec<IpAddr> = Vec::new();
    for part in list
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
    {
        let address: IpAddr = part
            .parse()
            .map_err(|_| invalid(not_an_address(origin, part)))?;
        let family = Family::of(address);
        if !families.contains(&family) {
            return Err(invalid(format!(
                "{origin} has {address}, but the Service has no {family} in spec.ipFamilies"
            )));
        }
        if addresses.iter().any(|other| Family::of(*other) == family) {
            return Err(invalid(format!(
                "{origin} has more than one {family} address: {}",
                text::value(list)
            )));
        }
        addresses.push(address);
    }
    Ok(addresses)
}

fn not_an_address(origin: &str, part: &str) -> String {
    format!("{origin} has \"{}\": not an IP address", text::value(part))
}

fn share_key(annotations: &Annotations) -> Result<Option<String>, Refusal> {
    let Some((origin, key)) = first(annotations, SHARE_KEY, METALLB_SHARE_KEY) else {
        return Ok(None);
    };
    if key.len() > SHARE_KEY_LIMIT {
        return Err(Refusal::new(
            Reason::Invalid,
            format!(
                "{origin} has {} bytes; a share key has at most {SHARE_KEY_LIMIT}",
                key.len()
            ),
        ));
    }
    Ok(Some(key.to_owned()))
}

/// Our own key takes precedence.
fn first<'a>(
    annotations: &'a Annotations,
    own: &'static str,
    others: [&'static str; 2],
) -> Option<(&'static str, &'a str)> {
    std::iter::once(own)
        .chain(others)
        .find_map(|key| annotations.get(key).map(|value| (key, value.trim())))
        .filter(|(_, value)| !value.is_empty())
}

/// The known key within three edits, if there is one.
fn nearest(key: &str) -> Option<&'static str> {
    if key.len() > LONGEST_KEY {
        return None;
    }
    #[cfg(test)]
    COMPARED.with(|count| count.set(count.get() + 1));
    known()
        .map(|known| (strsim::levenshtein(key, known), known))
        .filter(|(edits, _)| *edits <= 3)
        .min()
        .map(|(_, known)| known)
}

#[cfg(test)]
thread_local! {
    static COMPARED: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// The number of keys that this thread has compared with all known ones.
#[cfg(test)]
pub(crate) fn compared_keys() -> u64 {
    COMPARED.with(std::cell::Cell::get)
}

// === impl Dialect ===

impl Dialect {
    fn is_setting(self, key: &str) -> bool {
        let mut prefixes = self.setting_prefixes.iter();
        prefixes.any(|prefix| key.starts_with(prefix))
    }
}

#[cfg(test)]
mod tests;
