//! What the Announcer object of this node says. Pure.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use ballast_announce::claim::Claim;
use ballast_announce::io::Problem;
use ballast_crds::{
    AnnouncerCounts, AnnouncerInterface, AnnouncerProblems, AnnouncerRebalance, AnnouncerStatus,
    Conflict, Holding, InterfaceAddress, ProblemAddress, ProblemInterface, Successor,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::{
    ADDRESS_CONFLICT, CUT_OFF, MOST_HOLDINGS, MOST_INTERFACES, MOST_PROBLEMS, MOST_SUCCESSORS,
    NAMED, NO_ENDPOINTS, PROBES_INTERCEPTED, TOO_MANY_ADDRESSES, UNTRUSTED_ANNOUNCER,
    UNTRUSTED_FIX,
};
use crate::announcer::checks::{self, Finding};
use crate::announcer::seam::Report;
use crate::announcer::trust::Refusal;
use crate::cluster::conditions::{condition, dated, transition};

/// The bytes that the holdings may take, about: an object of more than 1.5 MiB cannot be written
/// (etcd's `--max-request-bytes`), and the rest of the object needs room, too. It is enough for
/// 3,000 addresses with long names, or for 6,000 with short ones.
const MOST_BYTES: usize = 1 << 20;
/// The bytes of a holding without its texts.
const FRAME: usize = 150;

/// The status of the object. `before` is the one that this process wrote last, or that the object
/// has: with the times of conditions, and with the holdings that stay until the agent has recorded
/// some. `theirs` is the one that the object has. `untrusted` are other objects without a valid
/// seal. The result has no serial and no seals.
pub fn status(
    report: &Report,
    findings: &[Finding],
    untrusted: &[(Arc<str>, Refusal)],
    before: &AnnouncerStatus,
    theirs: Option<&AnnouncerStatus>,
    incarnation: &str,
    now: Timestamp,
) -> AnnouncerStatus {
    let mut interfaces: Vec<_> = report.interfaces.iter().collect();
    interfaces.sort_by_key(|interface| &interface.name);
    let interfaces = interfaces.into_iter().take(MOST_INTERFACES);
    let interfaces: Vec<_> = interfaces
        .map(|interface| AnnouncerInterface {
            name: interface.name.to_string(),
            mac: interface.mac.to_string(),
            addresses: addresses(&interface.nets),
            usable: interface.usable,
        })
        .collect();
    let holdings: Vec<Holding> = match &report.claims {
        Some(claims) => {
            let known = [Some(before), theirs].into_iter().flatten();
            let known = known.flat_map(|status| &status.holdings);
            let known: BTreeMap<_, _> = known
                .map(|it| ((it.address.as_str(), it.epoch), it))
                .collect();
            let claims = claims.iter().take(MOST_HOLDINGS);
            let all = claims.map(|(address, claim)| holding(report, &known, address, claim));
            let mut size = 0;
            all.take_while(|it| {
                size += bytes(it);
                size <= MOST_BYTES
            })
            .collect()
        }
        None => before.holdings.clone(),
    };
    let (held, announced) = if let Some(claims) = &report.claims {
        let announced = |it: &&(IpAddr, Claim)| report.announced.contains_key(&it.0);
        (claims.len(), claims.iter().filter(announced).count())
    } else {
        let announced = holdings.iter().filter(|it| it.interface.is_some());
        (holdings.len(), announced.count())
    };
    let mut conditions = conditions(report);
    conditions.push(trust(untrusted));
    conditions.extend(checks::conditions(findings));
    dated(&mut conditions, &before.conditions, &Time(transition(now)));
    AnnouncerStatus {
        incarnation: Some(incarnation.to_owned()),
        serial: None,
        seals: Vec::new(),
        counts: AnnouncerCounts {
            interfaces: count(interfaces.len()),
            usable: count(interfaces.iter().filter(|it| it.usable).count()),
            addresses: count(announced),
            held: count(held),
        },
        interfaces,
        holdings,
        rebalances: report.requests.iter().filter_map(rebalance).collect(),
        conditions,
        problems: problems(report, untrusted),
    }
}

/// The number of addresses that did not fit into the object.
pub(super) fn left_out(status: &AnnouncerStatus) -> i64 {
    status.counts.held - count(status.holdings.len())
}

fn rebalance((requested, ended): &(u64, bool)) -> Option<AnnouncerRebalance> {
    let requested = Timestamp::from_second(i64::try_from(*requested).ok()?).ok()?;
    Some(AnnouncerRebalance {
        requested: Time(requested),
        ended: *ended,
    })
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn addresses(nets: &[ipnet::IpNet]) -> Vec<InterfaceAddress> {
    let nets = nets.iter().take(MOST_INTERFACES);
    nets.map(|net| InterfaceAddress(net.to_string())).collect()
}

fn holding(
    report: &Report,
    known: &BTreeMap<(&str, i64), &Holding>,
    address: &IpAddr,
    claim: &Claim,
) -> Holding {
    let successors = claim.successors.iter().take(MOST_SUCCESSORS);
    let announced = report.announced.get(address);
    let (name, epoch) = (
        address.to_string(),
        i64::try_from(claim.epoch).unwrap_or(i64::MAX),
    );
    let known = known.get(&(name.as_str(), epoch)).copied();
    let source = report.sources.get(address);
    let source = source.filter(|source| source.epoch == claim.epoch);
    let kept = known.and_then(|it| it.since.clone());
    let (since, cause, previous) = match source {
        Some(source) => (
            source.since.and_then(time).or(kept),
            Some(source.cause.as_str().to_owned()),
            source.previous.as_ref().map(ToString::to_string),
        ),
        None => (
            kept,
            known.and_then(|it| it.cause.clone()),
            known.and_then(|it| it.previous.clone()),
        ),
    };
    Holding {
        address: name,
        epoch,
        revision: i64::from(claim.revision),
        interface: announced.map(|it| it.interface.to_string()),
        mac: announced.map(|it| it.mac.to_string()),
        successors: successors
            .map(|node| Successor(node.as_str().to_owned()))
            .collect(),
        since,
        cause,
        previous,
    }
}

/// About the bytes of a holding in the object.
fn bytes(holding: &Holding) -> usize {
    let texts = [
        &holding.interface,
        &holding.mac,
        &holding.cause,
        &holding.previous,
    ];
    let texts = texts.into_iter().flatten().map(String::len);
    let successors = holding.successors.iter().map(|it| it.0.len() + 3);
    FRAME + holding.address.len() + texts.chain(successors).sum::<usize>()
}

/// In whole seconds.
fn time(at: SystemTime) -> Option<Time> {
    let at = Timestamp::try_from(at).ok()?;
    Some(Time(Timestamp::from_second(at.as_second()).ok()?))
}

/// All conditions, without times. (Whether a Service has endpoints is no matter of a node.)
fn conditions(report: &Report) -> Vec<Condition> {
    let (mut conflicts, mut hosts, mut ports) = (Vec::new(), Vec::new(), Vec::new());
    let mut programs = false;
    let (mut idle, mut too_many) = (Vec::new(), Vec::new());
    for problem in &report.problems {
        match problem {
            Problem::AddressConflict { address, mac, node } => {
                programs |= node.is_some();
                conflicts.push(match node {
                    Some(node) => format!("{address} by {mac} (node {node})"),
                    None => format!("{address} by {mac}"),
                });
            }
            Problem::ProbesIntercepted { host } => hosts.push(host.to_string()),
            Problem::CutOff { interface } => ports.push(named(report, *interface)),
            Problem::NoEndpoints { address } => idle.push(address.to_string()),
            Problem::TooManyAddresses { wanted } => too_many.push(wanted.to_string()),
        }
    }
    let fix = if programs {
        "End the other program on these nodes, such as MetalLB's speaker; kube-proxy in IPVS mode needs strictARP: true"
    } else {
        "Give these hosts other addresses, or remove the addresses from the pool"
    };
    let conflict = format!(
        "Other hosts on the network use addresses of Services: {}. {fix}",
        listed(&conflicts)
    );
    let intercepted = format!(
        "A switch or proxy answers ARP requests or neighbour solicitations for {}. The node checks them by ICMP echo instead",
        listed(&hosts)
    );
    let cut_off = format!(
        "No other host on the network responds on {}. The node takes over no address there",
        listed(&ports)
    );
    let no_endpoints = format!(
        "No endpoint serves the Services with {}. The node keeps announcing the addresses, so that clients are refused at once",
        listed(&idle)
    );
    let left_over = format!(
        "Services have {} addresses, and announcers know {MOST_HOLDINGS}: nobody answers for the other ones. Spread the Services over more clusters",
        listed(&too_many)
    );
    let state = |kind, found: &[String], (bad, message), (good, fine): (&str, &str)| {
        if found.is_empty() {
            condition(kind, false, good, fine.to_owned())
        } else {
            condition(kind, true, bad, message)
        }
    };
    vec![
        state(
            ADDRESS_CONFLICT,
            &conflicts,
            ("ForeignHost", conflict),
            (
                "NoConflict",
                "No other host uses an address that this node announces",
            ),
        ),
        state(
            PROBES_INTERCEPTED,
            &hosts,
            ("AnsweredByOthers", intercepted),
            ("NotIntercepted", "Other nodes answer for themselves"),
        ),
        state(
            CUT_OFF,
            &ports,
            ("NoResponse", cut_off),
            ("InContact", "Other hosts respond, or there are none"),
        ),
        state(
            NO_ENDPOINTS,
            &idle,
            ("NothingServes", no_endpoints),
            ("EndpointsServe", "Each Service has an endpoint that serves"),
        ),
        state(
            TOO_MANY_ADDRESSES,
            &too_many,
            ("MoreThanKnown", left_over),
            ("AllKnown", "Announcers know all addresses of Services"),
        ),
    ]
}

fn trust(untrusted: &[(Arc<str>, Refusal)]) -> Condition {
    let Some((_, why)) = untrusted.iter().min_by_key(|(_, why)| *why) else {
        let fine = "The status of each Announcer has a valid seal, or there is no key";
        return condition(UNTRUSTED_ANNOUNCER, false, "AllSealed", fine.to_owned());
    };
    let reason = match why {
        Refusal::NoSeal => "NoSeal",
        Refusal::WrongSeal | Refusal::Outdated => "WrongSeal",
    };
    let names: Vec<&str> = untrusted.iter().map(|(name, _)| &**name).collect();
    let message = format!(
        "Now or in the last minutes the status of these Announcers had no valid seal, so this node ignored it: {}. {UNTRUSTED_FIX}",
        listed(&names)
    );
    condition(UNTRUSTED_ANNOUNCER, true, reason, message)
}

/// What conditions concern, for programs.
fn problems(report: &Report, untrusted: &[(Arc<str>, Refusal)]) -> AnnouncerProblems {
    let mut all = AnnouncerProblems::default();
    for problem in &report.problems {
        match problem {
            Problem::AddressConflict { address, mac, node } => all.conflicts.push(Conflict {
                address: ProblemAddress(address.to_string()),
                mac: mac.to_string(),
                node: node.as_ref().map(ToString::to_string),
            }),
            Problem::NoEndpoints { address } => {
                all.idle.push(ProblemAddress(address.to_string()));
            }
            Problem::CutOff { interface } => {
                all.cut_off
                    .push(ProblemInterface(named(report, *interface)));
            }
            Problem::ProbesIntercepted { .. } | Problem::TooManyAddresses { .. } => {}
        }
    }
    let untrusted = untrusted.iter();
    all.untrusted = untrusted
        .map(|(name, _)| Successor(name.to_string()))
        .collect();
    all.conflicts.truncate(MOST_PROBLEMS);
    all.idle.truncate(MOST_PROBLEMS);
    all.cut_off.truncate(MOST_PROBLEMS);
    all.untrusted.truncate(MOST_PROBLEMS);
    all
}

/// The name of an interface.
fn named(report: &Report, interface: u32) -> String {
    let mut interfaces = report.interfaces.iter();
    let known = interfaces.find(|it| it.index == interface);
    known.map_or_else(
        || format!("interface {interface}"),
        |it| it.name.to_string(),
    )
}

/// The first entries, and the number of the others.
pub fn listed(entries: &[impl Display]) -> String {
    let named = entries.iter().take(NAMED).map(ToString::to_string);
    let named = named.collect::<Vec<_>>().join(", ");
    match entries.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

#[cfg(test)]
mod tests;
