//! The notes of a Service whose targets are in target groups of others ([`crate::bind`]). Pure.

use std::collections::BTreeMap;

use ballast_provider::mark::digest;
use ballast_provider::{Family, Key, Mark, Protocol, Refusal};

use super::names::{selector, tags};
use super::{NAMES, Part, TargetGroup, Transport, check};
use crate::annotations::invalid;
use crate::bind::{BOUND_TO, TARGET_GROUPS};
use crate::nodes::NODE_LABELS;
use crate::observed::Arn;
use crate::pods::LISTENER_PORT;
use crate::target::{NODE_PORT, TargetType};

/// The transport of a port, if the Service has it.
fn transport(part: &Part<'_>, number: u16) -> Option<Transport> {
    let all = part.service.listeners.iter();
    let same = all.filter(|it| it.port == number);
    let has = |protocol| same.clone().any(|it| it.protocol == protocol);
    match (has(Protocol::Tcp), has(Protocol::Udp)) {
        (true, true) => Some(Transport::TcpUdp),
        (true, false) => Some(Transport::Tcp),
        (false, true) => Some(Transport::Udp),
        (false, false) => None,
    }
}

/// The transport of each port that the Service names.
pub(crate) fn ports(part: &Part<'_>) -> BTreeMap<u16, Transport> {
    let named = part.settings.bound.keys();
    named
        .filter_map(|port| Some((*port, transport(part, *port)?)))
        .collect()
}

/// Refuses what cannot be right whatever AWS has.
pub(super) fn refuse(part: &Part<'_>) -> Result<(), Refusal> {
    let named = &part.settings.bound;
    if let Some(unused) = named.keys().find(|port| transport(part, **port).is_none()) {
        return Err(invalid(format!(
            "annotation {TARGET_GROUPS}: the Service has no port {unused}"
        )));
    }
    let mut listeners = part.service.listeners.iter();
    match listeners.find(|it| !named.contains_key(&it.port)) {
        Some(left) => Err(invalid(format!(
            "annotation {TARGET_GROUPS} names no target group for port {}, and without a load balancer nothing sends to it. Name one for each port",
            left.port
        ))),
        None => Ok(()),
    }
}

/// The notes, by name. `families`: those of the target groups that the Service names and may use.
pub(crate) fn notes(
    (mark, key): (&Mark, &Key),
    part: &Part<'_>,
    families: &BTreeMap<Arn, Family>,
) -> Result<BTreeMap<String, TargetGroup>, Refusal> {
    let Part {
        service, settings, ..
    } = *part;
    let target_type = settings.target_type.unwrap_or_default();
    let selector = selector(settings);
    let mut all = BTreeMap::new();
    for (port, transport) in ports(part) {
        let named = settings.bound.get(&port);
        let Some((arn, family)) = named.and_then(|arn| families.get_key_value(arn)) else {
            continue;
        };
        let mut listeners = service.listeners.iter();
        let node_port = listeners.find(|it| it.port == port).map(|it| it.node_port);
        let mut tags = tags(mark, key, service, settings)?;
        tags.insert(BOUND_TO.to_owned(), arn.clone());
        let target_port = match target_type {
            TargetType::Instance => {
                let node_port = node_port.unwrap_or_default();
                tags.insert(NODE_PORT.to_owned(), node_port.to_string());
                tags.extend(selector.tag().map(|tag| (NODE_LABELS.to_owned(), tag)));
                node_port
            }
            TargetType::Ip => {
                tags.insert(LISTENER_PORT.to_owned(), port.to_string());
                port
            }
        };
        let protocol = transport.protocol(false);
        let about = &digest([arn.as_str()])[..16];
        let name = format!("{key}/{port}/{protocol}/{target_port}/bound/{about}");
        let name = mark.name_of(NAMES, &name);
        let note = TargetGroup {
            name: name.clone(),
            target_type,
            family: *family,
            transport,
            tls: false,
            port: target_port,
            // Nothing sends to it, so AWS checks nothing.
            check: check::of(service, settings, true)?,
            attributes: BTreeMap::new(),
            selector: selector.clone(),
            tags,
        };
        all.insert(name, note);
    }
    Ok(all)
}
