//! Which nodes carry the traffic of load balancers. Pure.
//!
//! The reference controller's stable node set (KEP-3458): readiness is not looked at,
//! because the load balancer's own health check knows better and sooner. Unlike the
//! reference, a changed node address counts.

use std::collections::BTreeSet;

use ballast_provider::{Target, TargetSet};

use crate::view::NodeView;

/// The targets of every class: the eligible nodes with at least one `InternalIP`.
pub fn targets<'a>(nodes: impl IntoIterator<Item = &'a NodeView>) -> TargetSet {
    let eligible = nodes.into_iter().filter(|node| is_eligible(node));
    TargetSet::Nodes(
        eligible
            .map(|node| node.target.clone())
            .filter(|target| !target.addresses.is_empty())
            .collect::<BTreeSet<Target>>(),
    )
}

/// Whether a node belongs behind load balancers.
pub fn is_eligible(node: &NodeView) -> bool {
    !node.deleting && !node.doomed && !excludes(node.excluded.as_deref())
}

/// The exclusion label excludes unless its value is one of the spellings of *false*
/// that Go's `ParseBool` knows: "" and any other text exclude, as they always did.
fn excludes(label: Option<&str>) -> bool {
    !matches!(
        label,
        None | Some("0" | "f" | "F" | "false" | "False" | "FALSE")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> NodeView {
        NodeView {
            target: Target {
                name: name.into(),
                addresses: vec!["192.0.2.7".parse().unwrap()],
            },
            addresses: vec![],
            deleting: false,
            excluded: None,
            doomed: false,
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
