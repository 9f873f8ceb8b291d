//! The view: what the API server says, put together from the stores. Pure.
//!
//! Services that share an address (the share key of both says so) become one entry, which must
//! suit all of them:
//!
//! | of all Services at the address | the entry has |
//! |---|---|
//! | nodes and interfaces that the classes select | the intersection |
//! | `externalTrafficPolicy` | Local if one has Local |
//! | `preferredNodes` | the intersection |
//! | `rebalance` | Gradual if all classes say so; a request counts if it names all classes |
//! | `failureDetection` | the most patient one: a host that stalls must not lose the address |
//! | `refreshInterval` | the shortest |
//! | endpoints, of those with policy Local | the nodes that serve all Services that have endpoints; if no node does, those that serve at least one |
//!
//! With policy Cluster only one thing is known of the endpoints: whether there are any. Then the
//! entry has [`SOMEWHERE`], so that endpoints which move do not change the view.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ballast_announce::NodeName;
use ballast_announce::timing::REBALANCE_REQUEST;
use ballast_announce::view::{NodeFacts, Policy, Rebalance, View, Wanted};
use jiff::Timestamp;

use super::facts::{
    AnnouncerFacts, ClassFacts, NodeObject, NodeSelector, ServiceFacts, SliceFacts,
};
use crate::cluster::view::Name;

/// The endpoints of an address with policy Cluster. No node has this name.
pub const SOMEWHERE: &str = "*";

/// Everything that the stores contain.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    /// Services; `None` for those that nodes do not answer for.
    pub services: Vec<Arc<Option<ServiceFacts>>>,
    /// Slices; `None` for those without endpoints that serve.
    pub slices: Vec<Arc<Option<SliceFacts>>>,
    /// Nodes.
    pub nodes: Vec<Arc<NodeObject>>,
    /// Classes; `None` for those of other providers.
    pub classes: Vec<Arc<Option<ClassFacts>>>,
    /// Announcers.
    pub announcers: Vec<Arc<AnnouncerFacts>>,
    /// The time, for requests to rebalance.
    pub now: Timestamp,
    /// The names of this node's interfaces, which its Announcer object may not have yet.
    pub interfaces: BTreeSet<Arc<str>>,
}

/// The view of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Built {
    /// The view.
    pub view: View,
    /// The addresses whose health this node must check: those with policy Local and an endpoint
    /// on this node, with the health check node ports of their Services. No port means healthy.
    pub health: BTreeMap<IpAddr, BTreeSet<u16>>,
}

/// The endpoints of a Service.
#[derive(Clone, Debug, Default)]
struct Endpoints<'a> {
    ready: BTreeSet<&'a NodeName>,
    ending: BTreeSet<&'a NodeName>,
    serves: bool,
}

/// What follows from a class, once per class.
struct Selection<'a> {
    class: &'a ClassFacts,
    nodes: Option<BTreeSet<NodeName>>,
    preferred: Option<BTreeSet<NodeName>>,
    rebalance: Rebalance,
    interfaces: Option<BTreeSet<Arc<str>>>,
    /// The entries of addresses that one Service has, with policy Cluster: without endpoints, and
    /// with some. Most addresses share one of them.
    common: [Option<Arc<Wanted>>; 2],
}

/// Builds the view of the node `me`.
pub fn build(cluster: &Cluster, me: &NodeName) -> Built {
    let endpoints = endpoints(cluster);
    let mut selections = selections(cluster);
    let mut at: BTreeMap<IpAddr, Vec<(usize, &ServiceFacts)>> = BTreeMap::new();
    for service in cluster
        .services
        .iter()
        .filter_map(|it| it.as_ref().as_ref())
    {
        let class = service.classes.iter().find_map(|class| {
            let mut known = selections.iter();
            known.position(|selection| selection.class.name == *class)
        });
        let Some(class) = class else {
            continue;
        };
        for address in &service.addresses {
            at.entry(*address).or_default().push((class, service));
        }
    }
    let mut built = Built::default();
    built.view.requests = selections
        .iter()
        .filter_map(|it| it.rebalance.asked)
        .collect();
    for (address, mut services) in at {
        // The order of a store is random.
        services.sort_by_key(|(_, service)| &service.name);
        let Some(entry) = entry(&services, &mut selections, &endpoints) else {
            continue;
        };
        if let Some(ports) = health_ports(&services, &endpoints, me) {
            built.health.insert(address, ports);
        }
        built.view.wanted.insert(address, entry);
    }
    built.view.nodes = nodes(cluster);
    built
}

fn endpoints(cluster: &Cluster) -> BTreeMap<&Name, Endpoints<'_>> {
    let mut all: BTreeMap<&Name, Endpoints<'_>> = BTreeMap::new();
    for slice in cluster.slices.iter().filter_map(|it| it.as_ref().as_ref()) {
        let endpoints = all.entry(&slice.service).or_default();
        endpoints.ready.extend(&slice.ready);
        endpoints.ending.extend(&slice.ending);
        endpoints.serves |= slice.serves;
    }
    all
}

fn selections(cluster: &Cluster) -> Vec<Selection<'_>> {
    let announcers = cluster.announcers.iter();
    let interfaces = announcers.flat_map(|announcer| &announcer.interfaces);
    let mut names: BTreeSet<&Arc<str>> = interfaces.map(|interface| &interface.name).collect();
    names.extend(&cluster.interfaces);
    let classes = cluster.classes.iter().filter_map(|it| it.as_ref().as_ref());
    let selection = |class| selection(class, cluster, &names);
    classes.map(selection).collect()
}

fn selection<'a>(
    class: &'a ClassFacts,
    cluster: &Cluster,
    names: &BTreeSet<&Arc<str>>,
) -> Selection<'a> {
    let matching = |name: &&&Arc<str>| class.interfaces.iter().any(|it| it.matches(name));
    let nodes = |selector: &NodeSelector| {
        let nodes = cluster.nodes.iter();
        let nodes = nodes.filter(|node| selector.matches(&node.labels));
        nodes.map(|node| node.name.clone()).collect()
    };
    let interfaces = || {
        let names = names.iter().filter(matching);
        names.map(|name| Arc::clone(name)).collect()
    };
    Selection {
        class,
        nodes: class.nodes.as_ref().map(nodes),
        preferred: class.preferred.as_ref().map(nodes),
        rebalance: Rebalance {
            gradual: class.gradual,
            asked: class.asked.and_then(|asked| request(asked, cluster.now)),
        },
        interfaces: (!class.interfaces.is_empty()).then(interfaces),
        common: [None, None],
    }
}

/// The number of a request to rebalance, if it is not old. Clocks may differ.
fn request(asked: Timestamp, now: Timestamp) -> Option<u64> {
    let age = now.duration_since(asked).unsigned_abs();
    let number = u64::try_from(asked.as_second()).ok()?;
    (age < REBALANCE_REQUEST).then_some(number)
}

/// The entry of an address that these Services have, each with the index of its selection.
fn entry(
    services: &[(usize, &ServiceFacts)],
    selections: &mut [Selection<'_>],
    endpoints: &BTreeMap<&Name, Endpoints<'_>>,
) -> Option<Arc<Wanted>> {
    let (&(first, _), others) = services.split_first()?;
    let local: Vec<_> = services
        .iter()
        .filter_map(|(_, service)| local_nodes(service, endpoints))
        .collect();
    let serves = |service: &ServiceFacts| {
        let endpoints = endpoints.get(&service.name);
        endpoints.is_some_and(|endpoints| endpoints.serves)
    };
    let any = services.iter().any(|(_, service)| serves(service));
    if others.is_empty() && local.is_empty() {
        return Some(selections.get_mut(first)?.common(any));
    }
    let mut entry = selections.get(first)?.entry(any);
    for (class, _) in others {
        let other = selections.get(*class)?.entry(any);
        entry.nodes = both(entry.nodes, other.nodes);
        entry.preferred = both(entry.preferred, other.preferred);
        entry.rebalance = Rebalance {
            gradual: entry.rebalance.gradual && other.rebalance.gradual,
            asked: entry.rebalance.asked.min(other.rebalance.asked),
        };
        entry.interfaces = both(entry.interfaces, other.interfaces);
        entry.detection = entry.detection.max(other.detection);
        entry.refresh = shorter(entry.refresh, other.refresh);
    }
    if !local.is_empty() {
        entry.policy = Policy::Local;
        entry.endpoints = all_or_any(local);
    }
    Some(Arc::new(entry))
}

/// The nodes that serve a Service with policy Local; `None` if any node will do. kube-proxy uses
/// endpoints that terminate only where no other one exists. Endpoints without a node are no
/// pods: whoever made them serves the Service from each node, or from none.
fn local_nodes(
    service: &ServiceFacts,
    endpoints: &BTreeMap<&Name, Endpoints<'_>>,
) -> Option<BTreeSet<NodeName>> {
    if service.policy == Policy::Cluster {
        return None;
    }
    let Some(endpoints) = endpoints.get(&service.name) else {
        return Some(BTreeSet::new());
    };
    let nodes = if endpoints.ready.is_empty() {
        &endpoints.ending
    } else {
        &endpoints.ready
    };
    let anywhere = nodes.is_empty() && endpoints.serves;
    (!anywhere).then(|| nodes.iter().map(|node| (*node).clone()).collect())
}

/// The nodes in all sets that are not empty. If there are none, the nodes in any.
fn all_or_any(sets: Vec<BTreeSet<NodeName>>) -> BTreeSet<NodeName> {
    let mut sets = sets.into_iter().filter(|set| !set.is_empty());
    let Some(first) = sets.next() else {
        return BTreeSet::new();
    };
    let (mut all, mut any) = (first.clone(), first);
    for set in sets {
        all = all.intersection(&set).cloned().collect();
        any.extend(set);
    }
    if all.is_empty() { any } else { all }
}

fn both<T: Ord>(one: Option<BTreeSet<T>>, other: Option<BTreeSet<T>>) -> Option<BTreeSet<T>> {
    match (one, other) {
        (Some(mut one), Some(other)) => {
            one.retain(|item| other.contains(item));
            Some(one)
        }
        (one, other) => one.or(other),
    }
}

fn shorter(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    one.into_iter().chain(other).min()
}

/// The ports that say whether this node serves the address: those of Services with policy Local
/// and an endpoint here. `None` if there are no such Services.
fn health_ports(
    services: &[(usize, &ServiceFacts)],
    endpoints: &BTreeMap<&Name, Endpoints<'_>>,
    me: &NodeName,
) -> Option<BTreeSet<u16>> {
    let mut here = services.iter().filter(|(_, service)| {
        let nodes = local_nodes(service, endpoints);
        nodes.is_some_and(|nodes| nodes.contains(me))
    });
    let (_, first) = here.next()?;
    let ports = here.map(|(_, service)| service.health_port);
    let ports = ports.chain([first.health_port]);
    Some(ports.flatten().collect())
}

fn nodes(cluster: &Cluster) -> BTreeMap<NodeName, NodeFacts> {
    let announcers = cluster.announcers.iter();
    let announcers: BTreeMap<_, _> = announcers.map(|it| (&it.name, it)).collect();
    let facts = |node: &NodeObject| NodeFacts {
        excluded: node.excluded,
        cordoned: node.cordoned,
        out_of_service: node.out_of_service,
        addresses: node.addresses.clone(),
        interfaces: announcers
            .get(&node.name)
            .map(|announcer| announcer.interfaces.clone())
            .unwrap_or_default(),
    };
    let nodes = cluster.nodes.iter();
    nodes.map(|node| (node.name.clone(), facts(node))).collect()
}

// === impl Selection ===

impl Selection<'_> {
    /// Like [`Self::entry`], but the same value for all addresses.
    fn common(&mut self, serves: bool) -> Arc<Wanted> {
        let known = self.common[usize::from(serves)].clone();
        let entry = known.unwrap_or_else(|| Arc::new(self.entry(serves)));
        self.common[usize::from(serves)] = Some(Arc::clone(&entry));
        entry
    }

    /// The entry of an address with policy Cluster.
    fn entry(&self, serves: bool) -> Wanted {
        Wanted {
            policy: Policy::Cluster,
            detection: self.class.detection,
            nodes: self.nodes.clone(),
            preferred: self.preferred.clone(),
            rebalance: self.rebalance,
            interfaces: self.interfaces.clone(),
            endpoints: serves
                .then(|| NodeName::new(SOMEWHERE))
                .into_iter()
                .collect(),
            refresh: self.class.refresh,
        }
    }
}

#[cfg(test)]
mod tests;
