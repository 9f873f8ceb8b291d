//! From `L2Advertisement`s to `l2` classes. Pure.
//!
//! In `MetalLB` the advertisement of a pool decides which nodes announce an address, in Ballast
//! the class does. So pools that are announced by the same nodes on the same interfaces become
//! one class. Services without a class can have only one class, so they get the class of the
//! pools that most Services have addresses from.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::slice;

use ballast_crds::{
    DeletionPolicy, FailureDetection, L2Settings, LoadBalancerClass, LoadBalancerClassSpec,
    OrphanPolicy, Rebalance,
};
use ballast_l2::Entry;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::Duration;
use serde::Deserialize;

use super::anyof::{self, any_of};
use super::convert::{Choice, FROM, Remarks, entry};
use super::source::{AdvertisementSpec, BgpSpec, Note, NoteKind, Object, PoolSpec, Source};
use crate::cli::service::addresses;

/// The limit in the CRD.
const MOST_INTERFACES: usize = 16;

/// How a pool is announced.
#[derive(Clone, Debug, Default, PartialEq)]
struct Settings {
    nodes: Option<LabelSelector>,
    preferred: Option<LabelSelector>,
    interfaces: BTreeSet<String>,
}

/// An entry of `preferredNodeSelectors`.
#[derive(Deserialize)]
struct Preference {
    weight: i64,
    preference: LabelSelector,
}

/// Pools that are announced in the same way.
#[derive(Debug)]
struct Group<'a> {
    settings: Settings,
    /// The advertisements that announce them.
    by: Vec<&'a Object<AdvertisementSpec>>,
    pools: Vec<&'a Object<PoolSpec>>,
}

/// The classes for the converted pools, the main one first.
pub(super) fn classes(
    source: &Source,
    made: &[String],
    choice: Choice<'_>,
    notes: &mut Vec<Note>,
) -> Vec<LoadBalancerClass> {
    for advertisement in &source.advertisements {
        remark(advertisement, source, notes);
    }
    let groups = groups(source, made, notes);
    let alone = groups.len() == 1;
    let mut names = BTreeSet::new();
    let mut classes = Vec::new();
    for group in &groups {
        let main = classes.is_empty();
        let name = name(group, main, choice.class, &mut names);
        if !main {
            for advertisement in &group.by {
                Remarks::about(&advertisement.title, notes).differs(
                    "spec",
                    &format!("to announce a Service with these settings, set spec.loadBalancerClass: ballast.dev/{name}; Services without a class use the settings of class {}", choice.class),
                );
            }
        }
        let mut class = LoadBalancerClass::new(&name, spec(group, alone, main && choice.default));
        class.metadata.labels = Some([(FROM.0.to_owned(), FROM.1.to_owned())].into());
        classes.push(class);
    }
    classes
}

/// Notes the settings of an advertisement that Ballast does not support, whatever its pools
/// become.
fn remark(object: &Object<AdvertisementSpec>, source: &Source, notes: &mut Vec<Note>) {
    let mut remarks = Remarks::about(&object.title, notes);
    let spec = &object.spec;
    remarks.unknown("spec", &spec.unknown);
    if !spec.service_selectors.is_empty() {
        remarks.no_equal(
            "spec.serviceSelectors",
            "Ballast announces every Service that has an address of these pools",
        );
    }
    for name in &spec.ip_address_pools {
        if !source.pools.iter().any(|pool| pool.name == *name) {
            let message = format!("IPAddressPool {name} does not exist");
            remarks.left_out("spec.ipAddressPools", &message);
        }
    }
    for (field, selectors) in [
        ("ipAddressPoolSelectors", &spec.ip_address_pool_selectors),
        ("nodeSelectors", &spec.node_selectors),
    ] {
        if let Some(fault) = anyof::fault(selectors) {
            remarks.left_out(&format!("spec.{field}"), &fault);
        }
    }
}

/// The main group first: the most Services, then no restriction, then the order of pools.
fn groups<'a>(source: &'a Source, made: &[String], notes: &mut Vec<Note>) -> Vec<Group<'a>> {
    let mut groups: Vec<Group<'a>> = Vec::new();
    let mut pools: Vec<_> = source.pools.iter().collect();
    pools.sort_by(|a, b| a.name.cmp(&b.name));
    pools.dedup_by(|a, b| a.name == b.name);
    for pool in pools.into_iter().filter(|pool| made.contains(&pool.name)) {
        let all = source.advertisements.iter();
        let by: Vec<_> = all.filter(|one| announces(&one.spec, pool)).collect();
        if by.is_empty() {
            notes.push(unannounced(pool, source));
            continue;
        }
        let settings = settings(&by, notes);
        match groups.iter_mut().find(|group| group.settings == settings) {
            Some(group) => {
                group.pools.push(pool);
                group.by.extend(by);
                group.by.sort_by(|a, b| a.title.cmp(&b.title));
                group.by.dedup_by(|a, b| a.title == b.title);
            }
            None => groups.push(Group {
                settings,
                by,
                pools: vec![pool],
            }),
        }
    }
    groups.sort_by_cached_key(|group| {
        let restricted = group.settings != Settings::default();
        (std::cmp::Reverse(services(group, source)), restricted)
    });
    groups
}

/// An advertisement with an invalid node selector is left out: it must not become all nodes.
fn announces(spec: &AdvertisementSpec, pool: &Object<PoolSpec>) -> bool {
    let readable = anyof::fault(&spec.node_selectors).is_none();
    readable
        && selects(
            &spec.ip_address_pools,
            &spec.ip_address_pool_selectors,
            pool,
        )
}

fn selects(names: &[String], selectors: &[LabelSelector], pool: &Object<PoolSpec>) -> bool {
    (names.is_empty() && selectors.is_empty())
        || names.contains(&pool.name)
        || anyof::matches(selectors, &pool.labels)
}

fn unannounced(pool: &Object<PoolSpec>, source: &Source) -> Note {
    let bgp = |one: &&Object<BgpSpec>| {
        let spec = &one.spec;
        selects(
            &spec.ip_address_pools,
            &spec.ip_address_pool_selectors,
            pool,
        )
    };
    let message = match source.bgp.iter().find(bgp) {
        Some(bgp) => format!(
            "only {} announces this pool, and Ballast does not support BGP; no class uses the AddressPool",
            bgp.title
        ),
        None => {
            "no L2Advertisement selects this pool, so MetalLB does not announce it; no class uses the AddressPool"
                .to_owned()
        }
    };
    Note {
        object: pool.title.clone(),
        field: String::new(),
        kind: NoteKind::NoEqual,
        message,
    }
}

fn settings(by: &[&Object<AdvertisementSpec>], notes: &mut Vec<Note>) -> Settings {
    let all: Vec<LabelSelector> = by
        .iter()
        .flat_map(|one| one.spec.node_selectors.iter().cloned())
        .collect();
    let everywhere = by.iter().any(|one| one.spec.node_selectors.is_empty());
    let selector = if everywhere {
        None
    } else {
        any_of(&all).or_else(|| {
            let first = all.first()?;
            for one in by {
                Remarks::about(&one.title, notes).differs(
                    "spec.nodeSelectors",
                    &format!("a class has one node selector; {} is used, and the others are skipped. To select all these nodes, give them a common label", anyof::text(first)),
                );
            }
            Some(first.clone())
        })
    };
    let anywhere = by.iter().any(|one| one.spec.interfaces.is_empty());
    let interfaces = by
        .iter()
        .flat_map(|one| one.spec.interfaces.iter().cloned());
    let interfaces: BTreeSet<String> = if anywhere {
        BTreeSet::new()
    } else {
        interfaces.collect()
    };
    let pairs = |one: &&Object<AdvertisementSpec>| {
        by.iter().any(|other| {
            other.spec.node_selectors != one.spec.node_selectors
                && other.spec.interfaces != one.spec.interfaces
        })
    };
    for one in by.iter().filter(|one| pairs(one)) {
        Remarks::about(&one.title, notes).differs(
            "spec.interfaces",
            "the advertisements name different interfaces for different nodes; a class has one list of interfaces for all its nodes",
        );
    }
    Settings {
        nodes: selector,
        preferred: preferred(by, notes),
        interfaces,
    }
}

/// `MetalLB` adds the weights of all preferences that a node matches. Ballast knows preferred nodes
/// and others: those that match a preference of the highest weight are preferred.
fn preferred(by: &[&Object<AdvertisementSpec>], notes: &mut Vec<Note>) -> Option<LabelSelector> {
    const FIELD: &str = "spec.preferredNodeSelectors";
    let mut all: Vec<Preference> = Vec::new();
    for one in by {
        for value in &one.spec.preferred_node_selectors {
            let read = Preference::deserialize(value).map_err(|error| error.to_string());
            let read = read.and_then(|it| match anyof::fault(slice::from_ref(&it.preference)) {
                Some(fault) => Err(fault),
                None => Ok(it),
            });
            match read {
                Ok(preference) => all.push(preference),
                Err(fault) => {
                    Remarks::about(&one.title, notes).left_out(FIELD, &fault);
                }
            }
        }
    }
    let highest = all.iter().map(|it| it.weight).max()?;
    let (top, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|it| it.weight == highest);
    let top: Vec<LabelSelector> = top.into_iter().map(|it| it.preference).collect();
    let combined = any_of(&top);
    let skipped = combined.is_none() || !others.is_empty();
    let chosen = combined.or_else(|| top.first().cloned())?;
    let prefers = |one: &&&Object<AdvertisementSpec>| !one.spec.preferred_node_selectors.is_empty();
    for one in by.iter().filter(prefers) {
        let mut remarks = Remarks::about(&one.title, notes);
        if skipped {
            remarks.differs(FIELD, &format!("a class has one selector of preferred nodes and no weights; {} is used, and the others are skipped. To prefer all these nodes, give them a common label", anyof::text(&chosen)));
        }
        remarks.differs(FIELD, "an address does not return by itself to a preferred node that was down: use ballast rebalance, or set spec.l2.rebalance: Gradual");
    }
    // Everything matches: no node is preferred.
    (!anyof::text(&chosen).is_empty()).then_some(chosen)
}

/// How many Services publish an address of these pools.
fn services(group: &Group<'_>, source: &Source) -> usize {
    let entries = group.pools.iter().flat_map(|pool| &pool.spec.addresses);
    let entries: Vec<Entry> = entries.filter_map(|text| entry(text).ok()).collect();
    let within = |address: &IpAddr| entries.iter().any(|entry| entry.range().contains(*address));
    let mut count = 0;
    for service in &source.services {
        let mut published = addresses(service).into_iter();
        if published.any(|text| text.parse().is_ok_and(|address| within(&address))) {
            count += 1;
        }
    }
    count
}

fn name(group: &Group<'_>, main: bool, class: &str, taken: &mut BTreeSet<String>) -> String {
    let by = group.by.first().map_or("", |one| one.name.as_str());
    let mut name = if main {
        class.to_owned()
    } else {
        format!("{class}-{by}").chars().take(60).collect()
    };
    let mut number = 2;
    while !taken.insert(name.clone()) {
        name = format!(
            "{}-{number}",
            name.trim_end_matches(|c: char| c == '-' || c.is_ascii_digit())
        );
        number += 1;
    }
    name
}

fn spec(group: &Group<'_>, alone: bool, default: bool) -> LoadBalancerClassSpec {
    let (address_pools, address_pool_selector) = pools(group, alone);
    LoadBalancerClassSpec {
        default,
        force_default: false,
        max_load_balancers: None,
        deletion_policy: DeletionPolicy::default(),
        orphans: OrphanPolicy::default(),
        orphan_grace_period: None,
        aws: None,
        l2: Some(L2Settings {
            address_pools,
            address_pool_selector,
            node_selector: group.settings.nodes.clone(),
            preferred_nodes: group.settings.preferred.clone(),
            rebalance: Rebalance::default(),
            interfaces: patterns(&group.settings.interfaces),
            failure_detection: FailureDetection::default(),
            refresh_interval: Duration::from(std::time::Duration::from_mins(1)),
        }),
        mock: None,
    }
}

/// Pool names, unless the advertisement's selectors can be kept: selectors also match future
/// pools.
fn pools(group: &Group<'_>, alone: bool) -> (Vec<String>, Option<LabelSelector>) {
    let all = |one: &&Object<AdvertisementSpec>| {
        one.spec.ip_address_pools.is_empty() && one.spec.ip_address_pool_selectors.is_empty()
    };
    if alone && group.by.iter().any(all) {
        return (Vec::new(), None);
    }
    let names = group.pools.iter().map(|pool| pool.name.clone());
    match (group.by.as_slice(), alone) {
        ([only], true) => {
            let selector = any_of(&only.spec.ip_address_pool_selectors);
            let own = names
                .filter(|name| selector.is_none() || only.spec.ip_address_pools.contains(name));
            (own.collect(), selector)
        }
        _ => (names.collect(), None),
    }
}

/// Exact names, as regular expressions.
fn patterns(interfaces: &BTreeSet<String>) -> Vec<String> {
    let escaped = |name: &String| {
        name.chars().fold(String::new(), |mut text, c| {
            if !c.is_ascii_alphanumeric() && !"-_@:".contains(c) {
                text.push('\\');
            }
            text.push(c);
            text
        })
    };
    let names: Vec<String> = interfaces.iter().map(escaped).collect();
    if names.len() > MOST_INTERFACES {
        return vec![format!("^({})$", names.join("|"))];
    }
    names.iter().map(|name| format!("^{name}$")).collect()
}
