//! Which nodes are targets of which target group. Pure.
//!
//! A [`Selector`] is what a Service says of its nodes. Its target groups carry it in the tag
//! [`NODE_LABELS`], so that nodes that come and go are compared with the right ones, also before the
//! Service's first turn after a restart.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use ballast_provider::{Labels, Target, mark};

use crate::target::{Reached, TargetId};

/// The tag of a target group whose nodes need labels: `KEY=VALUE`, separated by spaces.
pub const NODE_LABELS: &str = "ballast.dev/target-node-labels";
/// AWS's limit for the value of a tag, in characters.
pub(crate) const LONGEST: usize = 256;

/// The labels that the nodes of a target group have, all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Selector(BTreeMap<String, String>);

/// The nodes that load balancers send to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nodes {
    /// By the ID of its instance.
    instances: BTreeMap<String, Node>,
    /// Nodes without an instance, by name: they are no targets.
    pub(crate) strangers: BTreeSet<String>,
    /// IDs of instances and addresses that AWS does not accept as targets: they do not exist, do not run, or are
    /// elsewhere.
    refused: BTreeSet<String>,
}

/// A node that can be a target.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Node {
    labels: Arc<Labels>,
    /// Its first IPv6 address.
    ipv6: Option<Ipv6Addr>,
}

/// Nodes that a remark names.
const NAMED: usize = 5;

// === impl Selector ===

impl Selector {
    /// Nodes with these labels.
    pub const fn new(labels: BTreeMap<String, String>) -> Self {
        Self(labels)
    }

    /// The selector of a target group with these tags.
    pub fn of(tags: &BTreeMap<String, String>) -> Self {
        let text = tags.get(NODE_LABELS).map(String::as_str);
        let pairs = text.unwrap_or_default().split(' ');
        let pairs = pairs.filter_map(|pair| pair.split_once('='));
        Self(
            pairs
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
        )
    }

    /// The value of the tag; `None` if all nodes are selected.
    pub fn tag(&self) -> Option<String> {
        let pairs: Vec<String> = self
            .0
            .iter()
            .map(|(key, it)| format!("{key}={it}"))
            .collect();
        (!pairs.is_empty()).then(|| pairs.join(" "))
    }

    fn selects(&self, labels: &Labels) -> bool {
        let mut wanted = self.0.iter();
        wanted.all(|(key, value)| labels.get(key) == Some(value.as_str()))
    }
}

// === impl Nodes ===

impl Nodes {
    /// The nodes of the controller.
    pub fn of<'a>(nodes: impl IntoIterator<Item = &'a Target>) -> Self {
        let mut all = Self::default();
        for node in nodes {
            match instance_of(node) {
                Some(id) => {
                    let known = Node {
                        labels: Arc::clone(&node.labels),
                        ipv6: node.addresses.iter().find_map(|address| match address {
                            IpAddr::V6(address) => Some(*address),
                            IpAddr::V4(_) => None,
                        }),
                    };
                    all.instances.insert(id.to_owned(), known);
                }
                None => {
                    all.strangers.insert(node.name.clone());
                }
            }
        }
        all
    }

    /// The IDs of all instances.
    pub fn ids(&self) -> impl Iterator<Item = &String> {
        self.instances.keys()
    }

    /// Whether a node has this instance.
    pub fn contains(&self, id: &str) -> bool {
        self.instances.contains_key(id)
    }

    /// Whether a node has an IPv6 address.
    pub fn have_ipv6(&self) -> bool {
        self.instances.values().any(|node| node.ipv6.is_some())
    }

    /// Whether this is the IPv6 address of a node.
    pub(crate) fn has_address(&self, address: IpAddr) -> bool {
        let mut all = self.instances.values();
        all.any(|node| node.ipv6.is_some_and(|it| IpAddr::V6(it) == address))
    }

    /// The nodes that are targets.
    pub fn selected(&self, selector: &Selector, reached: Reached) -> BTreeSet<TargetId> {
        let all = self.instances.iter();
        let all = all.filter(|(_, node)| selector.selects(&node.labels));
        let targets = all.filter_map(|(id, node)| match reached {
            Reached::Instance => Some(TargetId::Instance(id.clone())),
            Reached::InstanceAt(port) => Some(TargetId::InstanceAt(id.clone(), port)),
            Reached::Ipv6(port) => {
                let address = IpAddr::V6(node.ipv6?);
                Some(TargetId::Address(SocketAddr::new(address, port)))
            }
        });
        let accepted = targets.filter(|one| !self.refused.contains(&one.id()));
        accepted.collect()
    }

    /// AWS does not accept this instance or address.
    pub(crate) fn refuse(&mut self, id: &str) {
        self.refused.insert(id.to_owned());
    }

    /// What AWS did not accept among the former nodes, it does not accept now: nodes change often, and
    /// each search for those that it refuses takes many calls.
    pub(crate) fn keep_refused(&mut self, before: &Self) {
        let refused = before.refused.iter();
        let is_address = |it: &str| it.parse().is_ok_and(|it| self.has_address(it));
        let there = refused.filter(|id| self.instances.contains_key(*id) || is_address(id));
        self.refused = there.cloned().collect();
    }

    /// Whether AWS did not accept this instance or address.
    pub(crate) fn is_refused(&self, id: &str) -> bool {
        self.refused.contains(id)
    }

    /// Whether there are such.
    pub(crate) fn has_refused(&self) -> bool {
        !self.refused.is_empty()
    }

    /// They may be accepted now.
    pub(crate) fn forgive(&mut self) {
        self.refused.clear();
    }

    /// Names the nodes that are no targets.
    pub fn remarks(&self) -> Vec<String> {
        let strangers = match self.strangers.len() {
            0 => None,
            1 => Some("1 node is no target because its".to_owned()),
            count => Some(format!("{count} nodes are no targets because their")),
        };
        let strangers = strangers.map(|nodes| {
            let names = named(&self.strangers);
            format!("{nodes} spec.providerID names no instance of AWS: {names}")
        });
        let refused = self.has_refused().then(|| {
            format!(
                "AWS does not accept nodes as targets, because they do not run, do not exist or are in another VPC: {}",
                named(&self.refused)
            )
        });
        strangers.into_iter().chain(refused).collect()
    }

    /// A short name for the targets of all target groups, if these selectors are in use.
    pub fn name(&self, selectors: &BTreeSet<Selector>) -> String {
        let ids = |selector: &Selector| {
            // The port says nothing of which nodes they are.
            let reached = [Reached::Instance, Reached::Ipv6(0)];
            let all = reached.map(|reached| self.selected(selector, reached));
            all.into_iter().flatten().map(|one| one.id())
        };
        let mut parts: Vec<String> = ids(&Selector::default()).collect();
        for selector in selectors {
            if let Some(tag) = selector.tag() {
                parts.push(tag);
                parts.extend(ids(selector));
            }
        }
        mark::digest(parts.iter().map(String::as_str))[..16].to_owned()
    }
}

/// The first of them, and how many more there are.
fn named(all: &BTreeSet<String>) -> String {
    let names: Vec<&str> = all.iter().map(String::as_str).take(NAMED).collect();
    let names = names.join(", ");
    match all.len().saturating_sub(NAMED) {
        0 => names,
        more => format!("{names} and {more} more"),
    }
}

/// The instance of a node: the last part of `aws:///ZONE/i-…`.
fn instance_of(node: &Target) -> Option<&str> {
    let id = node.provider_id.as_deref()?.strip_prefix("aws://")?;
    let (_, id) = id.rsplit_once('/')?;
    id.starts_with("i-").then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_that_are_no_targets_are_named() {
        let remarks = |strangers: usize, refused: &[&str]| {
            let mut nodes = Nodes {
                strangers: (0..strangers)
                    .map(|number| format!("node-{number}"))
                    .collect(),
                ..Nodes::default()
            };
            for id in refused {
                nodes.refuse(id);
            }
            nodes.remarks()
        };
        assert_eq!(remarks(0, &[]), Vec::<String>::new());
        assert_eq!(
            remarks(1, &["i-1"]),
            [
                "1 node is no target because its spec.providerID names no instance of AWS: node-0",
                "AWS does not accept nodes as targets, because they do not run, do not exist or are in another VPC: i-1"
            ]
        );
        assert_eq!(
            remarks(7, &[]),
            [
                "7 nodes are no targets because their spec.providerID names no instance of AWS: node-0, node-1, node-2, node-3, node-4 and 2 more"
            ]
        );
    }

    fn node(id: Option<&str>, labels: &[(&str, &str)]) -> Target {
        Target {
            name: "node".into(),
            addresses: Vec::new(),
            provider_id: id.map(str::to_owned),
            labels: Arc::new(labels.iter().copied().collect()),
        }
    }

    fn selector(pairs: &[(&str, &str)]) -> Selector {
        let pairs = pairs.iter().copied();
        Selector::new(
            pairs
                .map(|(key, value)| (key.into(), value.into()))
                .collect(),
        )
    }

    #[test]
    fn a_node_has_the_instance_of_its_provider_id() {
        for (id, expected) in [
            (Some("aws:///eu-central-1a/i-0123"), Some("i-0123")),
            (Some("aws://eu-central-1a/i-0123"), Some("i-0123")),
            (Some("aws:///eu-central-1a/fargate-10-0-0-1"), None),
            (Some("eks-hybrid:///eu-central-1/cluster/node"), None),
            (Some("gce://project/zone/i-0123"), None),
            (Some(""), None),
            (None, None),
        ] {
            assert_eq!(instance_of(&node(id, &[])), expected, "{id:?}");
        }
    }

    #[test]
    fn a_node_needs_all_labels() {
        let one = node(Some("aws:///a/i-1"), &[("pool", "edge"), ("disk", "")]);
        let other = node(Some("aws:///a/i-2"), &[("pool", "core")]);
        let nodes = Nodes::of([&one, &other, &node(None, &[])]);
        for (wanted, expected) in [
            (&[][..], &["i-1", "i-2"][..]),
            (&[("pool", "edge")], &["i-1"]),
            (&[("pool", "core")], &["i-2"]),
            (&[("pool", "edge"), ("disk", "")], &["i-1"]),
            (&[("pool", "core"), ("disk", "")], &[]),
            (&[("disk", "ssd")], &[]),
        ] {
            let selected = nodes.selected(&selector(wanted), Reached::Instance);
            let ids = selected.iter().map(TargetId::id);
            assert!(ids.eq(expected.iter().copied()), "{wanted:?}: {selected:?}");
        }
        assert_eq!(nodes.strangers.len(), 1);
    }

    #[test]
    fn a_selector_is_read_from_its_own_tag() {
        for pairs in [
            &[][..],
            &[("pool", "edge")],
            &[("a", ""), ("kubernetes.io/os", "linux"), ("z", "a-b_c.d")],
        ] {
            let one = selector(pairs);
            let tags = one.tag().map(|tag| (NODE_LABELS.to_owned(), tag));
            assert_eq!(Selector::of(&tags.into_iter().collect()), one);
        }
    }

    #[test]
    fn the_name_follows_labels_only_as_far_as_they_are_used() {
        let name = |pool: &str, wanted: &[&[(&str, &str)]]| {
            let one = node(Some("aws:///a/i-1"), &[("pool", pool)]);
            let wanted = wanted.iter().copied().map(selector);
            Nodes::of([&one]).name(&wanted.collect())
        };
        assert_eq!(name("edge", &[]), name("core", &[]));
        assert_eq!(name("edge", &[]), name("edge", &[&[]]));
        let edge: &[&[(&str, &str)]] = &[&[("pool", "edge")]];
        assert_ne!(name("edge", edge), name("core", edge));
        assert_eq!(name("core", edge), name("other", edge));
        assert_ne!(name("core", edge), name("core", &[]));
    }
}
