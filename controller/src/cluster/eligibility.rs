//! Which nodes carry the traffic of load balancers. Pure.
//!
//! The rules are those of the reference controller's stable node set (KEP-3458): a node's
//! readiness does not count, because the health check of the load balancer is faster and more
//! accurate. Unlike in the reference, a changed node address counts.

use std::borrow::{Borrow, Cow};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ballast_provider::{Endpoint, Exclusion, Target, TargetSet, Traits};

use crate::cluster::view::NodeView;

/// The nodes that can carry traffic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Eligible {
    /// The eligible nodes with at least one `InternalIP`.
    nodes: TargetSet,
    /// The nodes that would be eligible without the exclusion label.
    despite_label: TargetSet,
    /// The addresses of all nodes, targets or not.
    addresses: BTreeSet<IpAddr>,
}

/// What the targets of a load balancer are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backing {
    /// No node.
    None,
    /// The eligible nodes.
    Nodes,
    /// Every node, because every one carries the label.
    DespiteLabel,
    /// Pods.
    Pods,
    /// Pods, and none of them is usable.
    NoPods,
}

/// Computes the targets from all nodes.
pub fn eligible(nodes: &[impl Borrow<NodeView>]) -> Eligible {
    let all = nodes.iter().map(Borrow::borrow);
    let addresses: BTreeSet<IpAddr> = all.flat_map(|node| &node.addresses).copied().collect();
    let targets = |wanted: fn(&NodeView) -> bool| {
        let nodes = nodes.iter().map(Borrow::borrow);
        let nodes = nodes.filter(|node| wanted(node));
        let targets = nodes.map(|node| node.target.clone());
        let reachable = targets.filter(|target| !target.addresses.is_empty());
        TargetSet {
            nodes: reachable.collect::<BTreeSet<Target>>(),
            addresses: addresses.clone(),
        }
    };
    Eligible {
        nodes: targets(is_eligible),
        despite_label: targets(stays),
        addresses,
    }
}

/// Whether a node is a target of load balancers.
pub fn is_eligible(node: &NodeView) -> bool {
    stays(node) && !excludes(node.excluded.as_deref())
}

fn stays(node: &NodeView) -> bool {
    !node.deleting && !node.doomed
}

/// The exclusion label excludes unless its value is one of the spellings of *false* that Go's
/// `ParseBool` accepts: an empty value and any other text exclude, as in the reference
/// controller.
pub fn excludes(label: Option<&str>) -> bool {
    !matches!(
        label,
        None | Some("0" | "f" | "F" | "false" | "False" | "FALSE")
    )
}

fn without_labels(targets: &TargetSet) -> TargetSet {
    let bare = targets.nodes.iter().map(|target| Target {
        labels: Arc::default(),
        ..target.clone()
    });
    TargetSet {
        nodes: bare.collect(),
        addresses: targets.addresses.clone(),
    }
}

// === impl Backing ===

impl Backing {
    /// The targets are these pods.
    pub fn of_pods(pods: &BTreeSet<Endpoint>) -> Self {
        if pods.iter().any(Endpoint::usable) {
            Self::Pods
        } else {
            Self::NoPods
        }
    }
}

// === impl Eligible ===

impl Eligible {
    /// The targets for a provider with these traits. They have labels only if the provider uses them,
    /// so that a label changes nothing for the others.
    pub fn targets(&self, traits: Traits) -> Cow<'_, TargetSet> {
        let targets = match self.backing(traits.exclusion) {
            Backing::DespiteLabel => &self.despite_label,
            _ => &self.nodes,
        };
        if traits.node_labels {
            Cow::Borrowed(targets)
        } else {
            Cow::Owned(without_labels(targets))
        }
    }

    /// The addresses of all nodes, targets or not.
    pub fn addresses(&self) -> &BTreeSet<IpAddr> {
        &self.addresses
    }

    /// Which nodes [`Self::targets`] returns.
    pub fn backing(&self, exclusion: Exclusion) -> Backing {
        match exclusion {
            _ if !self.nodes.is_empty() => Backing::Nodes,
            Exclusion::UnlessAll if !self.despite_label.is_empty() => Backing::DespiteLabel,
            Exclusion::UnlessAll | Exclusion::Absolute => Backing::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> NodeView {
        NodeView {
            target: Target {
                name: name.into(),
                provider_id: None,
                labels: Arc::default(),
                addresses: vec!["192.0.2.7".parse().unwrap()],
            },
            addresses: vec![],
            deleting: false,
            excluded: None,
            doomed: false,
            silent: false,
        }
    }

    #[test]
    fn the_exclusion_label_follows_parse_bool() {
        for (label, eligible) in [
            (None, true),
            (Some(""), false),
            (Some("true"), false),
            (Some("1"), false),
            (Some("T"), false),
            (Some("foo"), false),
            (Some("false"), true),
            (Some("FALSE"), true),
            (Some("0"), true),
            (Some("f"), true),
            (Some("fALSE"), false),
        ] {
            let node = NodeView {
                excluded: label.map(str::to_owned),
                ..node("a")
            };
            assert_eq!(is_eligible(&node), eligible, "{label:?}");
        }
    }

    #[test]
    fn nodes_on_their_way_out_are_not_targets() {
        assert!(!is_eligible(&NodeView {
            deleting: true,
            ..node("a")
        }));
        assert!(!is_eligible(&NodeView {
            doomed: true,
            ..node("a")
        }));
    }

    fn targets<const N: usize>(nodes: [&NodeView; N]) -> TargetSet {
        eligible(&nodes).targets(Traits::CLOUD).into_owned()
    }

    #[test]
    fn labels_change_targets_only_where_the_provider_uses_them() {
        let one = NodeView {
            target: Target {
                labels: Arc::new([("pool", "a")].into()),
                ..node("a").target
            },
            ..node("a")
        };
        let all = [eligible(&[&one]), eligible(&[&node("a")])];
        for node_labels in [false, true] {
            let traits = Traits {
                node_labels,
                ..Traits::CLOUD
            };
            let [labelled, bare] = all.each_ref().map(|one| one.targets(traits));
            assert_eq!(labelled == bare, !node_labels);
        }
    }

    #[test]
    fn where_every_node_is_labelled_it_depends_on_the_provider() {
        let labelled = |name| NodeView {
            excluded: Some(String::new()),
            ..node(name)
        };
        let (a, b, c) = (labelled("a"), labelled("b"), node("c"));
        let going = NodeView {
            deleting: true,
            ..labelled("d")
        };
        for (nodes, exclusion, backing, count) in [
            (vec![&a, &b], Exclusion::Absolute, Backing::None, 0),
            (vec![&a, &b], Exclusion::UnlessAll, Backing::DespiteLabel, 2),
            (
                vec![&a, &going],
                Exclusion::UnlessAll,
                Backing::DespiteLabel,
                1,
            ),
            (vec![&a, &b, &c], Exclusion::UnlessAll, Backing::Nodes, 1),
            (vec![&a, &b, &c], Exclusion::Absolute, Backing::Nodes, 1),
            (vec![&going], Exclusion::UnlessAll, Backing::None, 0),
            (vec![], Exclusion::UnlessAll, Backing::None, 0),
        ] {
            let all = eligible(&nodes);
            assert_eq!(all.backing(exclusion), backing, "{nodes:?}");
            assert_eq!(
                all.targets(Traits {
                    exclusion,
                    ..Traits::CLOUD
                })
                .len(),
                count,
                "{nodes:?}"
            );
        }
    }

    #[test]
    fn a_pod_that_waits_for_its_gate_is_a_target() {
        use ballast_provider::{Protocol, Readiness};
        let pod = |readiness| Endpoint {
            listener: (Protocol::Tcp, 80),
            address: [10, 0, 0, 1].into(),
            port: 8080,
            readiness,
        };
        for (readiness, backing) in [
            (Readiness::Ready, Backing::Pods),
            (Readiness::Gated, Backing::Pods),
            (Readiness::Ending, Backing::NoPods),
            (Readiness::Unready, Backing::NoPods),
        ] {
            assert_eq!(Backing::of_pods(&[pod(readiness)].into()), backing);
        }
        assert_eq!(Backing::of_pods(&BTreeSet::new()), Backing::NoPods);
    }

    #[test]
    fn order_and_repetition_do_not_matter_but_addresses_do() {
        let (a, b) = (node("a"), node("b"));
        assert_eq!(targets([&a, &b]), targets([&b, &a, &a]));
        let mut moved = a.clone();
        moved.target.addresses = vec!["192.0.2.8".parse().unwrap()];
        assert_ne!(targets([&a]), targets([&moved]));
    }

    #[test]
    fn a_node_without_an_address_cannot_be_reached() {
        let mut silent = node("a");
        silent.target.addresses.clear();
        assert!(targets([&silent]).is_empty());
    }
}
