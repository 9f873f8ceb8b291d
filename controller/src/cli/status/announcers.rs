//! What `ballast status --announcers` shows, and what `ballast status` shows of the addresses of
//! `l2` Services, as values: which node announces each address, since when and why, who succeeds
//! it, and the state of each node's announcer. Pure. `-o json|yaml` prints these structs, so fields
//! may be added, but never renamed or removed.
//!
//! The announcers' own objects are the source, so the output needs no running controller.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ballast_crds::{Announcer, AnnouncerStatus, Holding};
use ballast_l2::announced::cause;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use kube::core::DeserializeGuard;
use serde::Serialize;

use super::pools::Holder;
use super::report::{ConditionLine, Report};
use crate::announcer::lease::node_of;
use crate::cli::text::age;

/// An announcer renews its Lease every 5 s. Clocks of this machine and of nodes can differ.
const SILENT: i64 = 60;

/// What was read of the cluster. What the user may not read is `None`.
#[derive(Debug, Default)]
pub struct Objects {
    /// All Announcer objects.
    pub announcers: Vec<DeserializeGuard<Announcer>>,
    /// All nodes.
    pub nodes: Option<Vec<Node>>,
    /// The Leases of announcers.
    pub leases: Option<Vec<Lease>>,
}

/// All announcers and addresses, or those of one node.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AnnouncerReport {
    /// Sorted by node.
    pub announcers: Vec<AnnouncerLine>,
    /// Sorted by address.
    pub addresses: Vec<AddressLine>,
}

/// The announcer of one node.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AnnouncerLine {
    /// The name of the node.
    pub node: String,
    /// `Ready`; `NoAnnouncer`: the node has none; `Silent`: it does not renew its Lease;
    /// `NoNode`: its Node does not exist any more; `Invalid`: the object cannot be read; or the
    /// type of the first condition that is true.
    pub state: String,
    /// Why it is not `Ready`; empty if it is.
    pub why: String,
    /// Its network interfaces.
    pub interfaces: Vec<InterfaceLine>,
    /// The number of addresses that it announces.
    pub addresses: usize,
    /// When it last renewed its Lease; absent if that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub renewed: Option<Timestamp>,
    /// Its conditions. One that is true reports a problem.
    pub conditions: Vec<ConditionLine>,
}

/// A network interface on which a node can announce addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InterfaceLine {
    /// `eth0`
    pub name: String,
    /// Its MAC address.
    pub mac: String,
    /// The node's own addresses, with the lengths of their networks' prefixes.
    pub addresses: Vec<String>,
    /// Whether it can announce now.
    pub usable: bool,
}

/// Where an address is announced.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AddressLine {
    /// The address.
    pub address: String,
    /// The node that has claimed it; absent if none has.
    pub node: Option<String>,
    /// Whether this node announces it now.
    pub announced: bool,
    /// The interface on which the node announces it.
    pub interface: Option<String>,
    /// The MAC address that the node announces.
    pub mac: Option<String>,
    /// When this node began to announce it.
    pub since: Option<Timestamp>,
    /// Counts the nodes that have announced it.
    pub epoch: Option<i64>,
    /// Why this node announces it, for machines.
    pub cause: Option<String>,
    /// Why this node announces it, or why none does, for people.
    pub why: String,
    /// The node that announced it before.
    pub previous: Option<String>,
    /// The nodes that take over if this one fails, in this order.
    pub successors: Vec<String>,
    /// The Services with this address, sorted by namespace and name.
    pub services: Vec<Holder>,
}

/// The best claim of an address.
#[derive(Clone, Copy)]
struct Claim<'a> {
    node: &'a str,
    alive: bool,
    holding: &'a Holding,
}

/// The announcers, and every address that one has claimed or that a Service of an `l2` class
/// publishes.
pub fn report(objects: &Objects, services: &Report, now: Timestamp) -> AnnouncerReport {
    let mut announcers: Vec<AnnouncerLine> = objects
        .announcers
        .iter()
        .map(|guard| AnnouncerLine::of(guard, objects, now))
        .collect();
    let known: BTreeSet<String> = announcers.iter().map(|it| it.node.clone()).collect();
    let nodes = objects.nodes.iter().flatten().map(name);
    let bare = nodes.filter(|node| !known.contains(*node));
    announcers.extend(bare.map(AnnouncerLine::none));
    announcers.sort_by(|a, b| a.node.cmp(&b.node));
    AnnouncerReport {
        announcers,
        addresses: addresses(objects, &holders(services)),
    }
}

/// Adds to each Service of an `l2` class where its addresses are announced.
pub fn locate(services: &mut Report, objects: &Objects) {
    let all = addresses(objects, &holders(services));
    let lines: BTreeMap<&str, &AddressLine> = all
        .iter()
        .map(|line| (line.address.as_str(), line))
        .collect();
    for service in &mut services.services {
        if service.provider.as_deref() != Some("l2") {
            continue;
        }
        let parsed = service.addresses.iter().filter_map(|it| it.parse().ok());
        let own = parsed.filter_map(|it: IpAddr| lines.get(it.to_string().as_str()).copied());
        service.announcements = Some(own.cloned().collect());
    }
}

type Holders = BTreeMap<IpAddr, Vec<Holder>>;

/// The addresses of the Services of `l2` classes.
fn holders(services: &Report) -> Holders {
    let mut all = Holders::new();
    let l2 = services.services.iter();
    for service in l2.filter(|it| it.provider.as_deref() == Some("l2")) {
        for address in service.addresses.iter().filter_map(|it| it.parse().ok()) {
            all.entry(address).or_default().push(Holder {
                namespace: service.namespace.clone(),
                name: service.name.clone(),
            });
        }
    }
    all
}

fn addresses(objects: &Objects, holders: &Holders) -> Vec<AddressLine> {
    let mut claims: BTreeMap<IpAddr, Claim<'_>> = BTreeMap::new();
    for announcer in objects
        .announcers
        .iter()
        .filter_map(|it| it.0.as_ref().ok())
    {
        let node = announcer.metadata.name.as_deref().unwrap_or_default();
        let alive = objects.is_alive(node);
        let holdings = announcer.status.iter().flat_map(|it| &it.holdings);
        for holding in holdings {
            let Ok(address) = holding.address.parse() else {
                continue;
            };
            let claim = Claim {
                node,
                alive,
                holding,
            };
            let best = claims.entry(address).or_insert(claim);
            if claim.rank() > best.rank() {
                *best = claim;
            }
        }
    }
    let all: BTreeSet<IpAddr> = claims.keys().chain(holders.keys()).copied().collect();
    let line = |address: IpAddr| {
        let mut line = claims
            .get(&address)
            .map_or_else(AddressLine::unclaimed, AddressLine::of);
        line.address = address.to_string();
        line.services = holders.get(&address).cloned().unwrap_or_default();
        line.services.sort();
        line
    };
    all.into_iter().map(line).collect()
}

fn name(node: &Node) -> &str {
    node.metadata.name.as_deref().unwrap_or_default()
}

// === impl Objects ===

impl Objects {
    /// Whether a Node exists and its kubelet reports. What cannot be read counts as yes.
    fn is_alive(&self, wanted: &str) -> bool {
        let Some(nodes) = &self.nodes else {
            return true;
        };
        let node = nodes.iter().find(|node| name(node) == wanted);
        node.is_some_and(|node| {
            let conditions = node
                .status
                .iter()
                .flat_map(|it| it.conditions.iter().flatten());
            !conditions
                .into_iter()
                .any(|it| it.type_ == "Ready" && it.status == "Unknown")
        })
    }

    fn exists(&self, wanted: &str) -> bool {
        let nodes = self.nodes.as_ref();
        nodes.is_none_or(|nodes| nodes.iter().any(|node| name(node) == wanted))
    }

    /// When the announcer of a node last renewed its Lease.
    fn renewed(&self, node: &str) -> Option<Timestamp> {
        let mut leases = self.leases.iter().flatten();
        let lease = leases.find(|it| {
            let name = it.metadata.name.as_deref().unwrap_or_default();
            node_of(name) == Some(node)
        })?;
        Some(lease.spec.as_ref()?.renew_time.as_ref()?.0)
    }
}

// === impl AnnouncerLine ===

impl AnnouncerLine {
    fn of(guard: &DeserializeGuard<Announcer>, objects: &Objects, now: Timestamp) -> Self {
        let announcer = match &guard.0 {
            Ok(announcer) => announcer,
            Err(broken) => {
                return Self {
                    node: broken.metadata.name.clone().unwrap_or_default(),
                    state: "Invalid".to_owned(),
                    why: format!("the Announcer cannot be read: {}", broken.error),
                    ..Self::default()
                };
            }
        };
        let node = announcer.metadata.name.clone().unwrap_or_default();
        let nothing = AnnouncerStatus::default();
        let status = announcer.status.as_ref().unwrap_or(&nothing);
        let conditions: Vec<ConditionLine> =
            status.conditions.iter().map(ConditionLine::of).collect();
        let renewed = objects.renewed(&node);
        let (state, why) = standing(&node, &conditions, renewed, objects, now);
        let answering = status.holdings.iter().filter(|it| it.interface.is_some());
        let interfaces = status.interfaces.iter().map(|it| InterfaceLine {
            name: it.name.clone(),
            mac: it.mac.clone(),
            addresses: it.addresses.iter().map(|net| net.0.clone()).collect(),
            usable: it.usable,
        });
        Self {
            state,
            why,
            interfaces: interfaces.collect(),
            addresses: answering.count(),
            renewed,
            conditions,
            node,
        }
    }

    fn none(node: &str) -> Self {
        Self {
            node: node.to_owned(),
            state: "NoAnnouncer".to_owned(),
            why: "no announcer has run on this node".to_owned(),
            ..Self::default()
        }
    }

    /// Whether it works and reports no problem.
    pub fn is_well(&self) -> bool {
        self.state == "Ready"
    }
}

fn standing(
    node: &str,
    conditions: &[ConditionLine],
    renewed: Option<Timestamp>,
    objects: &Objects,
    now: Timestamp,
) -> (String, String) {
    if !objects.exists(node) {
        let why = "the Node does not exist any more";
        return ("NoNode".to_owned(), why.to_owned());
    }
    let silent = renewed.filter(|at| now.as_second() - at.as_second() > SILENT);
    if let Some(at) = silent {
        let why = format!(
            "the announcer has not renewed its Lease for {}; other nodes may have taken its addresses over",
            age(at, now)
        );
        return ("Silent".to_owned(), why);
    }
    let mut found = conditions.iter().filter(|it| it.status == "True");
    let mut hints = found.clone();
    if let Some(problem) = found.find(|it| !HINTS.contains(&it.r#type.as_str())) {
        return (problem.r#type.clone(), problem.message.clone());
    }
    let hint = hints.next().map(|it| it.message.clone());
    ("Ready".to_owned(), hint.unwrap_or_default())
}

/// Conditions of a node that works all the same: redirects are Linux's default, kube-proxy may
/// have a substitute, and wireless may be what there is.
const HINTS: [&str; 3] = ["RedirectsSent", "Wireless", "KubeProxyMissing"];

// === impl AddressLine ===

impl AddressLine {
    fn of(claim: &Claim<'_>) -> Self {
        let Claim {
            node,
            alive,
            holding,
        } = *claim;
        let announced = alive && holding.interface.is_some();
        let cause = holding.cause.as_deref();
        let previous = holding.previous.as_deref();
        let why = match (cause, previous) {
            _ if !alive => format!("{node} does not report to the API server any more"),
            _ if holding.interface.is_none() => {
                format!("{node} has claimed it and does not announce it; see its conditions")
            }
            (Some(cause::NEW), _) => cause::words(cause::NEW).to_owned(),
            (Some(cause), Some(previous)) => {
                format!("moved from {previous}: {}", cause::words(cause))
            }
            (Some(cause), None) => cause::words(cause).to_owned(),
            (None, Some(previous)) => format!("moved from {previous}"),
            (None, None) => String::new(),
        };
        Self {
            node: Some(node.to_owned()),
            announced,
            interface: holding.interface.clone(),
            mac: holding.mac.clone(),
            since: holding.since.as_ref().map(|time| time.0),
            epoch: Some(holding.epoch),
            cause: cause.map(str::to_owned),
            why,
            previous: previous.map(str::to_owned),
            successors: holding.successors.iter().map(|it| it.0.clone()).collect(),
            ..Self::default()
        }
    }

    fn unclaimed() -> Self {
        Self {
            why: "no node has claimed it".to_owned(),
            ..Self::default()
        }
    }
}

// === impl Claim ===

impl<'a> Claim<'a> {
    /// The order of claims: a node that reports, the higher epoch, the lower name.
    fn rank(&self) -> (bool, i64, Reverse<&'a str>) {
        (self.alive, self.holding.epoch, Reverse(self.node))
    }
}

#[cfg(test)]
mod tests;
