//! Assignment: who is asked first to hold an address, and who succeeds a holder.
//!
//! All functions are deterministic: nodes with the same inputs come to the same order, whatever
//! the version of the standard library, so the hash is our own and its values are tested.
//!
//! ```text
//! address without a claim ── place ──▶ order of candidates: the first one claims, epoch 1
//! holder records           ── successors ──▶ at most three, from its partners first
//! holder fails             ── turn ──▶ recorded successors in their order, then the others
//! ```
//!
//! - Preferred nodes come first in each of these orders.
//! - A holder stays while it is a candidate. Nothing here takes an address from a holder because
//!   another node would come first.
//! - After a failure the recorded order decides, never a node's own view of the load: views of
//!   load differ while messages are under way, recorded orders do not.
//! - A holder draws its successors from three *partners*, so at most three nodes probe it,
//!   whatever the number of its addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::NodeName;
use crate::claim::Claim;
use crate::timing::{PROBERS, SUCCESSORS};

/// The nodes that come first for an address; `None` is none.
pub type Preferred<'a> = Option<&'a BTreeSet<NodeName>>;

/// A node that holds this many addresses more than its share, at least one, gets no further one
/// while another node could have it: a sixteenth. A larger margin would leave the numbers of
/// addresses uneven; without one, nodes whose views differ for a moment would disagree more often.
const MARGIN: usize = 16;

/// The candidates for an address that nobody holds, best one first: bounded-load rendezvous
/// hashing. Nodes that hold more than their share come last. `loads` has the number of addresses
/// that each candidate holds, and `total` the number of all addresses.
pub fn place(
    address: &IpAddr,
    candidates: &[NodeName],
    preferred: Preferred<'_>,
    loads: &BTreeMap<NodeName, usize>,
    total: usize,
) -> Vec<NodeName> {
    let (first, rest): (Vec<_>, Vec<_>) = candidates
        .iter()
        .cloned()
        .partition(|node| prefers(preferred, node));
    let mut order = spread(address, &first, loads, total);
    order.extend(spread(address, &rest, loads, total));
    order
}

/// The order of nodes of which each can have the address as well as the others.
fn spread(
    address: &IpAddr,
    nodes: &[NodeName],
    loads: &BTreeMap<NodeName, usize>,
    total: usize,
) -> Vec<NodeName> {
    let share = total.max(1).div_ceil(nodes.len().max(1));
    let bound = share + (share / MARGIN).max(1);
    let full = |node: &NodeName| loads.get(node).copied().unwrap_or(0) >= bound;
    let mut order = ranked(&key(address), nodes);
    // Stable: within each half the order of the hash stays.
    order.sort_by_key(full);
    order
}

/// The nodes that should hold an address when nothing forces another choice: the preferred
/// candidates; without any, all candidates.
pub fn best(candidates: &[NodeName], preferred: Preferred<'_>) -> Vec<NodeName> {
    let best = candidates.iter().filter(|node| prefers(preferred, node));
    let best: Vec<_> = best.cloned().collect();
    if best.is_empty() {
        candidates.to_vec()
    } else {
        best
    }
}

fn prefers(preferred: Preferred<'_>, node: &NodeName) -> bool {
    preferred.is_some_and(|preferred| preferred.contains(node))
}

/// The nodes from which a holder draws its successors first: at most [`PROBERS`] of these nodes, the same for all
/// of its addresses.
pub fn partners(holder: &NodeName, nodes: &[NodeName]) -> Vec<NodeName> {
    let others: Vec<_> = nodes
        .iter()
        .filter(|node| *node != holder)
        .cloned()
        .collect();
    let mut order = ranked(holder.as_str().as_bytes(), &others);
    order.truncate(PROBERS);
    order
}

/// The successors that a holder records for an address. Recorded ones keep their places while all of them are
/// candidates, so nothing is written while nothing changes. Otherwise the order begins anew: if those that
/// are left moved up, the node that was recorded first would in the end be the first successor of every
/// address, and nodes that are rebooted in turn would leave it all of them.
pub fn successors(
    address: &IpAddr,
    holder: &NodeName,
    recorded: &[NodeName],
    candidates: &[NodeName],
    preferred: Preferred<'_>,
    partners: &[NodeName],
) -> Vec<NodeName> {
    let able = |node: &&NodeName| *node != holder && candidates.contains(*node);
    let mut order = ranked(&key(address), candidates);
    order.sort_by_key(|node| !partners.contains(node));
    let wanted = SUCCESSORS.min(order.iter().filter(able).count());
    let complete = recorded.iter().filter(able).count() >= wanted;
    let kept = if complete { recorded } else { &[] };
    let mut chosen: Vec<NodeName> = Vec::new();
    for node in kept.iter().chain(&order).filter(able) {
        if !chosen.contains(node) {
            chosen.push(node.clone());
        }
    }
    chosen.sort_by_key(|node| !prefers(preferred, node));
    chosen.truncate(SUCCESSORS);
    chosen
}

/// The place of a node in the takeover of an address, 0 for the first: candidates that the claim
/// records as successors, then all other candidates, preferred ones first. `None` if it is no
/// candidate.
pub fn turn(
    address: &IpAddr,
    node: &NodeName,
    claim: &Claim,
    candidates: &[NodeName],
    preferred: Preferred<'_>,
) -> Option<usize> {
    let able = |other: &&NodeName| **other != claim.holder && candidates.contains(*other);
    let recorded: Vec<_> = claim.successors.iter().filter(able).collect();
    if let Some(place) = recorded.iter().position(|other| *other == node) {
        return Some(place);
    }
    let mut others = ranked(&key(address), candidates);
    others.sort_by_key(|other| !prefers(preferred, other));
    let mut others = others
        .iter()
        .filter(able)
        .filter(|other| !recorded.contains(other));
    let place = others.position(|other| other == node)?;
    Some(recorded.len() + place)
}

/// The nodes that probe a holder: the recorded successors of its addresses, at most
/// [`PROBERS`]. The third successor probes, too: after a split it may be alone on its side.
pub fn probers<'a>(holder: &NodeName, claims: impl Iterator<Item = &'a Claim>) -> Vec<NodeName> {
    let mut nodes: Vec<NodeName> = Vec::new();
    for node in claims.flat_map(|claim| &claim.successors) {
        if node != holder && !nodes.contains(node) {
            nodes.push(node.clone());
        }
    }
    partners(holder, &nodes)
}

/// How much an address fits a node: of equal moves, the one to the node that would have been its
/// first choice.
pub(crate) fn affinity(address: &IpAddr, node: &NodeName) -> u64 {
    weight(&key(address), node)
}

/// Nodes by descending rendezvous weight; equal weights by name.
fn ranked(key: &[u8], nodes: &[NodeName]) -> Vec<NodeName> {
    let mut weighted: Vec<(u64, &NodeName)> =
        nodes.iter().map(|node| (weight(key, node), node)).collect();
    weighted.sort_by(|(a, first), (b, second)| b.cmp(a).then_with(|| first.cmp(second)));
    weighted.into_iter().map(|(_, node)| node.clone()).collect()
}

fn key(address: &IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// FNV-1a over key and name, then the finaliser of `SplitMix64`, because FNV alone hardly mixes
/// the last bytes.
fn weight(key: &[u8], node: &NodeName) -> u64 {
    let bytes = key.iter().chain(&[0]).chain(node.as_str().as_bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    crate::random::mix(hash)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn node(n: usize) -> NodeName {
        NodeName::new(&format!("node-{n}"))
    }

    fn nodes(count: usize) -> Vec<NodeName> {
        (1..=count).map(node).collect()
    }

    fn address(n: u32) -> IpAddr {
        IpAddr::V4(std::net::Ipv4Addr::from_bits(0xc000_0200 + n))
    }

    fn claim(holder: &NodeName, successors: &[NodeName]) -> Claim {
        Claim {
            epoch: 1,
            holder: holder.clone(),
            revision: 0,
            successors: successors.to_vec(),
        }
    }

    /// Another version of this program must come to the same order.
    #[test]
    fn the_hash_never_changes() {
        assert_eq!(weight(&[192, 0, 2, 7], &node(1)), 6_933_068_888_623_593_541);
        let order: Vec<_> = ranked(&key(&address(7)), &nodes(5))
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(order, ["node-5", "node-2", "node-4", "node-1", "node-3"]);
    }

    #[test]
    fn recorded_successors_come_first_and_others_follow() {
        let all = nodes(5);
        let recorded = claim(&node(1), &[node(3), node(2)]);
        assert_eq!(turn(&address(7), &node(3), &recorded, &all, None), Some(0));
        assert_eq!(turn(&address(7), &node(2), &recorded, &all, None), Some(1));
        assert_eq!(
            turn(&address(7), &node(1), &recorded, &all, None),
            None,
            "the holder"
        );
        let without_first = [node(2), node(4), node(5)];
        assert_eq!(
            turn(&address(7), &node(2), &recorded, &without_first, None),
            Some(0)
        );
        assert_eq!(
            turn(&address(7), &node(3), &recorded, &without_first, None),
            None
        );
        let rest = [4, 5].map(|n| turn(&address(7), &node(n), &recorded, &all, None));
        assert!(
            rest == [Some(2), Some(3)] || rest == [Some(3), Some(2)],
            "{rest:?}"
        );
    }

    #[test]
    fn successors_that_are_candidates_keep_their_places() {
        let all = nodes(5);
        let holder = node(1);
        let partners = partners(&holder, &all);
        let fresh = successors(&address(7), &holder, &[], &all, None, &partners);
        assert_eq!(fresh.len(), SUCCESSORS);
        assert_eq!(
            successors(&address(7), &holder, &fresh, &all, None, &partners),
            fresh
        );
        let reversed: Vec<_> = fresh.iter().rev().cloned().collect();
        assert_eq!(
            successors(&address(7), &holder, &reversed, &all, None, &partners),
            reversed
        );
        let without: Vec<_> = all
            .iter()
            .filter(|node| **node != fresh[0])
            .cloned()
            .collect();
        let next = successors(&address(7), &holder, &fresh, &without, None, &partners);
        assert_eq!(next[..2], fresh[1..]);
        assert!(!next.contains(&fresh[0]));
    }

    #[test]
    fn a_full_node_comes_last() {
        let all = nodes(3);
        let first = place(&address(7), &all, None, &BTreeMap::new(), 30)[0].clone();
        let loads = BTreeMap::from([(first.clone(), 11)]);
        assert_eq!(
            place(&address(7), &all, None, &loads, 30).last(),
            Some(&first)
        );
        let loads = BTreeMap::from([(first.clone(), 10)]);
        assert_eq!(
            place(&address(7), &all, None, &loads, 30).first(),
            Some(&first)
        );
    }

    /// They come first for new addresses and after failures, and a full one still before others.
    #[test]
    fn preferred_nodes_come_first() {
        let all = nodes(5);
        let preferred = BTreeSet::from([node(2), node(4)]);
        let preferred = Some(&preferred);
        let names = |order: &[NodeName]| order[..2].iter().cloned().collect::<BTreeSet<_>>();
        let expected = BTreeSet::from([node(2), node(4)]);
        for n in 0..50 {
            let address = address(n);
            let loads = BTreeMap::from([(node(2), 99)]);
            let order = place(&address, &all, preferred, &loads, 50);
            assert_eq!(names(&order), expected);
            assert_eq!(order[0], node(4), "the one with room");
            let holder = node(1);
            let chosen = successors(&address, &holder, &[node(3), node(5)], &all, preferred, &[]);
            assert_eq!(names(&chosen), expected, "before those that are recorded");
            let unrecorded = claim(&holder, &[]);
            let first = |node| turn(&address, &node, &unrecorded, &all, preferred);
            assert!(first(node(2)) < Some(2) && first(node(4)) < Some(2));
        }
        assert_eq!(best(&all, preferred), [node(2), node(4)]);
        assert_eq!(best(&[node(1), node(3)], preferred), [node(1), node(3)]);
    }

    /// On a lab the first one had all of them afterwards.
    #[test]
    fn nodes_that_are_rebooted_in_turn_leave_no_node_everything() {
        let all = nodes(5);
        let mut loads = BTreeMap::new();
        let mut claims: BTreeMap<IpAddr, Claim> = BTreeMap::new();
        let revised =
            |address: &IpAddr, holder: &NodeName, recorded: &[NodeName], live: &[NodeName]| {
                let partners = partners(holder, &all);
                claim(
                    holder,
                    &successors(address, holder, recorded, live, None, &partners),
                )
            };
        for address in (0..300).map(address) {
            let holder = place(&address, &all, None, &loads, 300).remove(0);
            *loads.entry(holder.clone()).or_insert(0usize) += 1;
            claims.insert(address, revised(&address, &holder, &[], &all));
        }
        for rebooted in &all {
            let live: Vec<_> = all.iter().filter(|it| *it != rebooted).cloned().collect();
            for live in [&live, &all] {
                for (address, known) in &mut claims {
                    let mut holder = known.holder.clone();
                    if !live.contains(&holder) {
                        holder = known.successors[0].clone();
                    }
                    *known = revised(address, &holder, &known.successors, live);
                }
            }
        }
        let mut counts: BTreeMap<&NodeName, usize> = BTreeMap::new();
        for claim in claims.values() {
            *counts.entry(&claim.holder).or_default() += 1;
        }
        assert!(counts.len() >= 3, "{counts:?}");
        assert!(counts.values().all(|count| *count <= 150), "{counts:?}");
    }

    proptest! {
        /// No node gets more than its bound when addresses are placed one after the other.
        #[test]
        fn addresses_spread(count in 1..9usize, total in 1..200u32) {
            let all = nodes(count);
            let mut loads = BTreeMap::new();
            for n in 0..total {
                let order = place(&address(n), &all, None, &loads, total as usize);
                *loads.entry(order[0].clone()).or_insert(0usize) += 1;
            }
            let share = (total as usize).div_ceil(count);
            for (node, load) in loads {
                prop_assert!(load <= share + (share / MARGIN).max(1), "{} has {}", node, load);
            }
        }

        /// Every candidate but the holder has one turn, and turns are 0, 1, 2, …
        #[test]
        fn turns_are_distinct(
            count in 2..9usize,
            recorded in proptest::collection::vec(1..12usize, 0..4),
            n in 0..99u32,
        ) {
            let all = nodes(count);
            let recorded: Vec<_> = recorded.into_iter().map(node).collect();
            let recorded = claim(&node(1), &successors(&address(n), &node(1), &recorded, &all, None, &[]));
            let mut turns: Vec<_> =
                all.iter().filter_map(|node| turn(&address(n), node, &recorded, &all, None)).collect();
            turns.sort_unstable();
            prop_assert_eq!(turns, (0..count - 1).collect::<Vec<_>>());
        }

        /// However many addresses a node holds, at most three nodes probe it, and for every
        /// address one of them is its first or second successor.
        #[test]
        fn at_most_three_nodes_probe_a_holder(count in 2..30usize, addresses in 1..60u32) {
            let all = nodes(count);
            let holder = node(1);
            let partners = partners(&holder, &all);
            let claims: Vec<_> = (0..addresses)
                .map(|n| claim(&holder, &successors(&address(n), &holder, &[], &all, None, &partners)))
                .collect();
            let probers = probers(&holder, claims.iter());
            prop_assert!(probers.len() <= PROBERS);
            for claim in &claims {
                prop_assert!(claim.successors[..1].iter().all(|node| probers.contains(node)));
            }
        }

        /// When a candidate leaves, only its own addresses move.
        #[test]
        fn rendezvous_moves_only_the_addresses_of_a_node_that_leaves(n in 0..500u32, gone in 1..6usize) {
            let all = nodes(5);
            let left: Vec<_> = all.iter().filter(|other| **other != node(gone)).cloned().collect();
            let before = ranked(&key(&address(n)), &all);
            let after = ranked(&key(&address(n)), &left);
            if before[0] != node(gone) {
                prop_assert_eq!(&before[0], &after[0]);
            }
        }
    }
}
