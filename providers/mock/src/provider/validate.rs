//! The checks that need no call to the cloud. Pure.

use std::collections::HashSet;

use ballast_provider::{Affinity, Balancer, Family, LoadBalancer, Reason, Refusal};

/// The server's default of `--max-listeners`.
const MAX_LISTENERS: usize = 256;

/// Checks every member.
pub(crate) fn validate(balancer: &Balancer) -> Result<(), Refusal> {
    let mut members = balancer.members.iter();
    members.try_for_each(|member| load_balancer(&member.load_balancer))
}

fn load_balancer(load_balancer: &LoadBalancer) -> Result<(), Refusal> {
    let count = load_balancer.listeners.len();
    if count == 0 {
        return Err(Refusal::new(Reason::Invalid, "spec.ports is empty"));
    }
    if count > MAX_LISTENERS {
        return Err(Refusal::new(
            Reason::Unsupported,
            format!("spec.ports: {count} ports, the mock cloud carries at most {MAX_LISTENERS}"),
        ));
    }
    load_balancer.require_node_ports()?;
    let mut seen = HashSet::new();
    for listener in &load_balancer.listeners {
        let shown = format!("{}/{}", listener.protocol, listener.port);
        if !seen.insert((listener.protocol, listener.port)) {
            return Err(Refusal::new(
                Reason::Invalid,
                format!("spec.ports: {shown} is listed twice"),
            ));
        }
    }
    affinity(load_balancer.affinity)?;
    addresses(load_balancer)
}

fn affinity(affinity: Affinity) -> Result<(), Refusal> {
    match affinity {
        Affinity::ClientIp { timeout_seconds } if !(1..=86_400).contains(&timeout_seconds) => {
            Err(Refusal::new(
                Reason::Invalid,
                format!(
                    "spec.sessionAffinityConfig.clientIP.timeoutSeconds: {timeout_seconds} is not within 1 to 86400"
                ),
            ))
        }
        _ => Ok(()),
    }
}

fn addresses(load_balancer: &LoadBalancer) -> Result<(), Refusal> {
    let mut seen = HashSet::new();
    for address in &load_balancer.requested_addresses {
        let family = Family::of(*address);
        if !load_balancer.families.contains(&family) {
            return Err(Refusal::new(
                Reason::Invalid,
                format!(
                    "the requested address {address} is {family}, which is not among the Service's families"
                ),
            ));
        }
        if !seen.insert(family) {
            return Err(Refusal::new(
                Reason::Invalid,
                format!(
                    "{address} is the second requested {family} address; only one per family is possible"
                ),
            ));
        }
    }
    Ok(())
}
