//! Listeners that divide their connections among several Services of one load balancer. Pure.
//!
//! The other Services must share the load balancer, in the same namespace: only then their target groups are known
//! here. One that does not yet, or not any more, gets nothing, and the others get its part. If none of them has a
//! weight, all get the same. So a Service that leaves never stops another one.

use ballast_provider::{Family, Refusal};

use super::listeners::Served;
use super::{Part, Transport};
use crate::annotations::{ACTIONS, invalid};
use crate::forward::{Forward, MOST_WEIGHT};
use crate::settings::weights::{Share, Weighted};

/// The target groups of one port of a Service.
#[derive(Clone, Debug)]
pub(super) struct Groups {
    /// That of the default action.
    pub(super) default: String,
    /// That for clients with IPv6 addresses.
    pub(super) ipv6: Option<String>,
    /// That of the targets of the default action.
    pub(super) family: Family,
    pub(super) transport: Transport,
    /// Whether the load balancer speaks TLS to them.
    pub(super) tls: bool,
}

/// Refuses what cannot be right whoever shares the load balancer.
pub(super) fn check(part: &Part<'_>) -> Result<(), Refusal> {
    for weighted in &part.settings.weights {
        let key = key_of(weighted);
        let mut listeners = part.service.listeners.iter();
        let own = (weighted.protocol, weighted.port);
        if !listeners.any(|it| (it.protocol, it.port) == own) {
            return Err(invalid(format!(
                "annotation {key}: the Service has no port {}/{}",
                weighted.port, weighted.protocol
            )));
        }
        let mut shares = weighted.shares.iter();
        if !shares.any(|share| is_own(part, weighted, share)) {
            return Err(invalid(format!(
                "annotation {key}: name the Service {} itself with this port, too; with weight 0 it gets no connections",
                part.service.id.name
            )));
        }
    }
    Ok(())
}

/// Divides connections as the Services ask for it.
pub(super) fn divide(parts: &[Part<'_>], all: &mut [Served], remarks: &mut [Vec<String>]) {
    for (at, part) in parts.iter().enumerate() {
        for weighted in &part.settings.weights {
            let key = key_of(weighted);
            let mut chosen: Vec<(Groups, u32)> = Vec::new();
            for share in &weighted.shares {
                match groups(parts, all, at, weighted, share) {
                    Ok(groups) => {
                        // One port may be there by its number and by its name.
                        let same = chosen
                            .iter_mut()
                            .find(|(it, _)| it.default == groups.default);
                        match same {
                            Some((_, weight)) => *weight += share.weight,
                            None => chosen.push((groups, share.weight)),
                        }
                    }
                    Err(why) => remarks[at].push(format!(
                        "annotation {key}: {why}, so the others get its connections"
                    )),
                }
            }
            let Some(listener) = all[at].listeners.get_mut(&weighted.port) else {
                continue;
            };
            let default = chosen.iter();
            let default =
                default.map(|(it, weight)| (it.default.clone(), (*weight).min(MOST_WEIGHT)));
            listener.forward = Forward::divided(default);
            if listener.ipv6.is_none() {
                continue;
            }
            let ipv6 = chosen.iter().map(|(it, weight)| {
                let weight = (*weight).min(MOST_WEIGHT);
                Some((it.ipv6.clone()?, weight))
            });
            let ipv6: Option<Vec<_>> = ipv6.collect();
            listener.ipv6 = ipv6.map(Forward::divided);
            if listener.ipv6.is_none() {
                remarks[at].push(format!(
                    "annotation {key}: not all of these Services have target groups for clients with IPv6, so targets do not see the addresses of such clients, but IPv4 addresses of the load balancer"
                ));
            }
        }
    }
}

/// The target groups of a share, or why it has none.
fn groups(
    parts: &[Part<'_>],
    all: &[Served],
    at: usize,
    weighted: &Weighted,
    share: &Share,
) -> Result<Groups, String> {
    let own = parts[at].service;
    let named = |part: &Part<'_>| {
        part.service.id.namespace == own.id.namespace && *part.service.id.name == *share.service
    };
    let name = &share.service;
    let other = parts.iter().position(named).ok_or_else(|| {
        format!("the Service {name} does not share this load balancer (ballast.dev/share-key)")
    })?;
    let mut listeners = parts[other].service.listeners.iter();
    let missing = || format!("the Service {name} has no port {}", share.port);
    let port = listeners
        .find(|it| share.port.is(it))
        .ok_or_else(missing)?
        .port;
    let groups = all[other].groups.get(&port).ok_or_else(missing)?;
    let listener = all[at].listeners.get(&weighted.port).ok_or_else(missing)?;
    let fits = match (listener.transport, listener.tls.is_some()) {
        (Transport::Tcp, true) => groups.transport == Transport::Tcp,
        (Transport::Tcp, false) => groups.transport != Transport::Udp && !groups.tls,
        (Transport::Udp, _) => groups.transport != Transport::Tcp,
        (Transport::TcpUdp, _) => groups.transport == Transport::TcpUdp,
    };
    // All target groups of an action have one family ("Consolidate dual-stack architectures with listener rules for
    // NLB", a post of AWS).
    let own = all[at].groups.get(&weighted.port);
    if own.is_some_and(|own| own.family != groups.family) {
        return Err(format!(
            "the targets of the Service {name} have addresses of another family"
        ));
    }
    if fits {
        return Ok(groups.clone());
    }
    Err(format!(
        "port {} of the Service {name} has the protocol {}",
        share.port,
        groups.transport.protocol(groups.tls)
    ))
}

fn is_own(part: &Part<'_>, weighted: &Weighted, share: &Share) -> bool {
    let mut own = part.service.listeners.iter();
    *share.service == *part.service.id.name
        && own.any(|it| it.port == weighted.port && share.port.is(it))
}

fn key_of(weighted: &Weighted) -> String {
    format!("{ACTIONS}{}-{}", weighted.protocol, weighted.port)
}
