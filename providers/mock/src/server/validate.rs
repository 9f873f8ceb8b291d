//! The checks of the API that need no state. Pure. Every message names the field and the
//! value.

use std::collections::{BTreeMap, HashSet};

use ballast_provider::text::bounded;

use crate::api::{Affinity, Code, Desired, Family, Problem, TargetSetBody};

/// The same as on AWS.
const MAX_TAGS: usize = 50;
const MAX_TAG_LENGTH: usize = 256;
const MAX_NAME_LENGTH: usize = 63;
const MAX_SOURCE_RANGES: usize = 1_000;
/// The maximum length of a node's name in Kubernetes.
const MAX_TARGET_NAME: usize = 253;
const MAX_TARGET_ADDRESSES: usize = 64;
/// Both families, internal and external, of 5,000 nodes, and some.
const MAX_NODE_ADDRESSES: usize = 32_768;
const MAX_AFFINITY_SECONDS: u32 = 86_400;

/// Checks one load balancer's name and desired state.
pub(super) fn load_balancer(
    load_balancer: &str,
    desired: &Desired,
    max_listeners: usize,
) -> Result<(), Problem> {
    name(load_balancer)?;
    name(&desired.target_set).map_err(|problem| invalid("targetSet", &problem.message))?;
    listeners(desired, max_listeners)?;
    families(desired)?;
    if let Affinity::ClientIp { timeout_seconds } = desired.affinity
        && !(1..=MAX_AFFINITY_SECONDS).contains(&timeout_seconds)
    {
        return Err(invalid(
            "affinity.clientIp.timeoutSeconds",
            &format!("{timeout_seconds} is not within 1 to {MAX_AFFINITY_SECONDS}"),
        ));
    }
    if desired.source_ranges.len() > MAX_SOURCE_RANGES {
        let count = desired.source_ranges.len();
        return Err(invalid(
            "sourceRanges",
            &format!("{count} ranges, at most {MAX_SOURCE_RANGES} are possible"),
        ));
    }
    tags(&desired.tags)
}

/// Checks one target set.
pub(super) fn target_set(set: &str, body: &TargetSetBody, max: usize) -> Result<(), Problem> {
    name(set)?;
    if body.targets.len() > max {
        return Err(Problem::new(
            Code::QuotaExceeded,
            format!(
                "targets: {} targets, at most {max} are possible",
                body.targets.len()
            ),
        ));
    }
    if body.node_addresses.len() > MAX_NODE_ADDRESSES {
        return Err(Problem::new(
            Code::QuotaExceeded,
            format!(
                "nodeAddresses: {} addresses, at most {MAX_NODE_ADDRESSES} are possible",
                body.node_addresses.len()
            ),
        ));
    }
    let mut seen = HashSet::new();
    for target in &body.targets {
        if target.name.len() > MAX_TARGET_NAME || target.addresses.len() > MAX_TARGET_ADDRESSES {
            return Err(invalid(
                "targets",
                &format!(
                    "{}: a name has at most {MAX_TARGET_NAME} bytes, and a target at most {MAX_TARGET_ADDRESSES} addresses",
                    bounded(&target.name)
                ),
            ));
        }
        if target.name.is_empty() || !seen.insert(&target.name) {
            return Err(invalid(
                "targets",
                &format!("the name {:?} is empty or listed twice", target.name),
            ));
        }
    }
    tags(&body.tags)
}

/// Checks tags.
pub(super) fn tags(tags: &BTreeMap<String, String>) -> Result<(), Problem> {
    if tags.len() > MAX_TAGS {
        let count = tags.len();
        return Err(invalid(
            "tags",
            &format!("{count} tags, at most {MAX_TAGS} are possible"),
        ));
    }
    for (key, value) in tags {
        if key.is_empty() || key.len() > MAX_TAG_LENGTH || value.len() > MAX_TAG_LENGTH {
            return Err(invalid(
                "tags",
                &format!(
                    "{key:?}={value:?}: key and value have at most {MAX_TAG_LENGTH} bytes, and the key is not empty"
                ),
            ));
        }
    }
    Ok(())
}

fn name(name: &str) -> Result<(), Problem> {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() || name.len() > MAX_NAME_LENGTH || !name.chars().all(good) {
        return Err(invalid(
            "name",
            &format!("{name:?} is not 1 to {MAX_NAME_LENGTH} characters out of a-z, 0-9 and -"),
        ));
    }
    Ok(())
}

fn listeners(desired: &Desired, max: usize) -> Result<(), Problem> {
    if desired.listeners.is_empty() {
        return Err(invalid("listeners", "at least one is needed"));
    }
    if desired.listeners.len() > max {
        return Err(Problem::new(
            Code::QuotaExceeded,
            format!(
                "listeners: {} listeners, at most {max} are possible; raise --max-listeners",
                desired.listeners.len()
            ),
        ));
    }
    let mut seen = HashSet::new();
    for listener in &desired.listeners {
        let shown = format!("{}/{}", listener.protocol, listener.port);
        if listener.port == 0 || listener.node_port == 0 {
            return Err(invalid(
                "listeners",
                &format!(
                    "{shown} to node port {}: neither port can be 0",
                    listener.node_port
                ),
            ));
        }
        let name = listener.name.as_deref().unwrap_or_default();
        if name.len() > MAX_NAME_LENGTH {
            let what = format!("{shown}: the name has more than {MAX_NAME_LENGTH} bytes");
            return Err(invalid("listeners", &what));
        }
        if !seen.insert((listener.protocol, listener.port)) {
            return Err(invalid("listeners", &format!("{shown} is listed twice")));
        }
    }
    Ok(())
}

fn families(desired: &Desired) -> Result<(), Problem> {
    let unique: HashSet<&Family> = desired.families.iter().collect();
    if desired.families.is_empty() || unique.len() != desired.families.len() {
        return Err(invalid(
            "families",
            &format!(
                "{:?}: one or both of IPv4 and IPv6, each once",
                desired.families
            ),
        ));
    }
    let mut seen = HashSet::new();
    for address in &desired.requested_addresses {
        let family = Family::of(*address);
        if !unique.contains(&family) {
            return Err(invalid(
                "requestedAddresses",
                &format!("{address} is {family}, which is not among the families"),
            ));
        }
        if !seen.insert(family) {
            return Err(invalid(
                "requestedAddresses",
                &format!("{address} is the second {family} address, one is possible"),
            ));
        }
    }
    Ok(())
}

fn invalid(field: &str, message: &str) -> Problem {
    Problem::new(Code::Invalid, format!("{field}: {message}"))
}
