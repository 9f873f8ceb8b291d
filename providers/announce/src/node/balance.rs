//! Balance: what [`rebalance`](crate::rebalance) needs to know, and the move that it chooses.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::Node;
use crate::host_check::State as CheckState;
use crate::membership::Process;
use crate::rebalance::Held;
use crate::slip::slip;
use crate::view::{Rebalance, View, Wanted};
use crate::{NodeName, Time, assignment};

impl Node {
    /// Chooses the next move of a rebalance, if addresses may move now.
    pub(super) fn balance(&mut self, now: Time) {
        let Some(view) = self.view.clone() else {
            return;
        };
        if self.is_unsettled(now) {
            self.rebalance.unsettle(now);
            return;
        }
        // The class of the next move may be edited, and its request may end.
        let withdrawn = self.rebalance.head().is_some_and(|step| {
            let wanted = view.wanted.get(&step.address);
            wanted.is_none_or(|wanted| !self.rebalances(wanted.rebalance, now))
        });
        if withdrawn {
            self.rebalance.withdraw();
        }
        let mut policies = self.plan.policies.iter();
        if policies.any(|policy| self.may_rebalance(*policy, now)) && self.rebalance.is_stale(now) {
            let held = self.held(&view, now);
            self.rebalance.look(&held, now);
        }
        if let Some(step) = self.rebalance.head()
            && step.to == *self.name()
        {
            // Also later: this node may not be able to claim it yet.
            self.work.some.insert(step.address);
        }
    }

    /// Whether addresses with this setting move, one after the other.
    fn rebalances(&self, policy: Rebalance, now: Time) -> bool {
        let interval = self.rebalance.interval(policy, now);
        interval.is_some() || slip!(self.config.slips, RebalanceUnasked)
    }

    fn may_rebalance(&self, policy: Rebalance, now: Time) -> bool {
        self.rebalance.is_due(policy, now) || slip!(self.config.slips, RebalanceUnasked)
    }

    /// Whether any node is suspected, or this one could be wrong about the others.
    fn is_unsettled(&self, now: Time) -> bool {
        let suspected = self.plan.peers.iter().any(|peer| {
            // A node whose Lease has expired is no suspect any more: it is gone.
            let silent = matches!(self.members.process(peer, now), Process::Silent { .. });
            silent && !self.members.lease_expired(peer)
        });
        let doubted = self.checks.iter().any(|((_, host), entry)| {
            let state = entry.check.state();
            let bad = matches!(state, CheckState::Doubted { .. } | CheckState::Dead);
            bad && !self.members.lease_expired(host)
        });
        // A port without a peer, such as an unused interface or the bridge of local containers, says
        // nothing about the others.
        let cut_off = self.ports.iter().any(|port| {
            let shared = !self.plan.segment(port.interface.index).is_empty();
            shared && (!port.carrier() || port.contact.cut_off(now))
        });
        let split = !self.split.is_empty() || !self.lost.is_empty();
        !self.members.api_connected()
            || !self.settled(now)
            || self.replaced
            || suspected
            || doubted
            || cut_off
            || split
    }

    /// All addresses that a node holds.
    fn held(&self, view: &View, now: Time) -> Vec<Held> {
        let wanted = view.wanted.iter();
        let held = wanted.filter_map(|(address, wanted)| {
            let holder = self.claims.get(address)?.holder.clone();
            let mut candidates = Vec::new();
            if self.may_rebalance(wanted.rebalance, now) {
                let eligible = self.eligible(address, wanted, now);
                // Otherwise a planned move is under way.
                if eligible.contains(&holder) {
                    candidates = assignment::best(&eligible, wanted.preferred.as_ref());
                }
            }
            Some(Held {
                address: *address,
                holder,
                candidates,
            })
        });
        held.collect()
    }

    /// Whether the next move of a rebalance brings an address to this node.
    pub(super) fn is_to_get(&self, address: &IpAddr) -> bool {
        let head = self.rebalance.head();
        head.is_some_and(|step| step.address == *address && step.to == *self.name())
    }

    /// The nodes of a view changed: those that a rebalance compares.
    pub(super) fn compare_nodes(&mut self, view: &View, now: Time) {
        let before = self.view.as_ref().map(|before| &before.nodes);
        if before != Some(&view.nodes) {
            self.rebalance.unsettle(now);
        }
        let used = view.wanted.values();
        let used: BTreeSet<u64> = used.filter_map(|it| it.rebalance.asked).collect();
        let named = &view.requests | &used;
        let first = self.view.is_none();
        self.rebalance.set_requests(&named, &used, first, now);
    }

    fn eligible(&self, address: &IpAddr, wanted: &Wanted, now: Time) -> Vec<NodeName> {
        let (mut eligible, _) = self.standings(address, wanted, Some(now));
        eligible.retain(|node| !self.suspects.contains(node));
        eligible
    }
}
