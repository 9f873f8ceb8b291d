//! Plan: what follows from the view and the claims until one of them changes: peers, neighbours,
//! cables, whom to probe, and the placement of addresses that nobody holds.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::{HostCheck, Node};
use crate::candidates::{Standing, standing};
use crate::claim::Claim;
use crate::host_check::{Check, Receipts, State as CheckState};
use crate::membership::Process;
use crate::random::mix;
use crate::slip::slip;
use crate::timing::{LEASE, REFRESH, SETTLE, SILENT, SUCCESSORS};
use crate::view::{Detection, Policy, Rebalance, Wanted};
use crate::{NodeName, Time, assignment};

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Plan {
    /// All other nodes with an agent.
    pub(super) peers: BTreeSet<NodeName>,
    /// The nodes with which this one exchanges regular beats.
    pub(super) neighbours: BTreeSet<NodeName>,
    pub(super) cables: BTreeSet<NodeName>,
    /// The peers in the network of each interface.
    segments: BTreeMap<u32, BTreeSet<NodeName>>,
    /// The candidates for each address that nobody holds, first one first.
    pub(super) placement: BTreeMap<IpAddr, Vec<NodeName>>,
    /// Addresses of this node whose recorded successors are wrong, and since when.
    pub(super) wrong: BTreeMap<IpAddr, Time>,
    /// How classes rebalance.
    pub(super) policies: BTreeSet<Rebalance>,
    settled: bool,
    /// The holder of some address is silent or dead, or its Lease has expired.
    troubled: bool,
}

// === impl Plan ===

impl Plan {
    pub(super) fn is_quiet(&self) -> bool {
        self.settled && !self.troubled && self.wrong.is_empty()
    }

    pub(super) fn segment(&self, interface: u32) -> &BTreeSet<NodeName> {
        static NONE: BTreeSet<NodeName> = BTreeSet::new();
        self.segments.get(&interface).unwrap_or(&NONE)
    }

    pub(super) fn interfaces_to(&self, node: &NodeName) -> impl Iterator<Item = u32> {
        let segments = self.segments.iter();
        segments
            .filter(move |(_, nodes)| nodes.contains(node))
            .map(|(interface, _)| *interface)
    }
}

// === impl Wanted ===

impl Wanted {
    /// For an address that this node holds while it does not know the Services yet: after a
    /// restart while the API server is away.
    fn unknown() -> Self {
        Self {
            policy: Policy::Cluster,
            detection: Detection::Fast,
            nodes: None,
            preferred: None,
            rebalance: Rebalance::default(),
            interfaces: None,
            endpoints: BTreeSet::new(),
            refresh: Some(REFRESH),
        }
    }
}

// === impl Node ===

impl Node {
    /// Forgets claims on addresses that no Service has had for a while.
    pub(super) fn forget(&mut self, now: Time) {
        let Some(view) = self.view.clone().filter(|_| self.members.api_connected()) else {
            return;
        };
        let before = self.claims.iter().count();
        let mine = self.own_claims().len();
        let wanted = |address: &IpAddr| view.wanted.contains_key(address);
        self.claims.forget(wanted, now);
        if self.claims.iter().count() < before {
            self.work.all = true;
            self.work.record |= self.own_claims().len() < mine;
        }
    }

    pub(super) fn replan(&mut self, now: Time) {
        self.plan_peers();
        self.plan_neighbours(now);
        self.place();
        if let Some(view) = self.view.clone() {
            self.work.some.extend(view.wanted.keys());
            let wanted = view.wanted.values();
            self.plan.policies = wanted.map(|wanted| wanted.rebalance).collect();
        }
        self.rebalance.changed();
        self.work.some.extend(self.states.keys());
        self.work
            .some
            .extend(self.claims.iter().map(|(address, _)| *address));
    }

    /// The settings of an address; `None` if no Service has it.
    pub(super) fn wanted(&self, address: &IpAddr) -> Option<Arc<Wanted>> {
        match &self.view {
            Some(view) => view.wanted.get(address).cloned(),
            None => self
                .claims
                .get(address)
                .map(|_| Arc::new(Wanted::unknown())),
        }
    }

    /// The port that announces an address.
    pub(super) fn port_of(&self, address: &IpAddr) -> Option<&super::ports::Port> {
        self.ports.serving(address, &*self.wanted(address)?)
    }

    fn plan_peers(&mut self) {
        self.plan.segments.clear();
        let Some(view) = &self.view else {
            self.plan.peers = self.members.names().cloned().collect();
            let indices = self.ports.iter().map(|port| port.interface.index);
            let peers = &self.plan.peers;
            self.plan.segments = indices.map(|index| (index, peers.clone())).collect();
            return;
        };
        let me = &self.config.name;
        let agents = view
            .nodes
            .iter()
            .filter(|(_, facts)| !facts.interfaces.is_empty());
        let others: Vec<_> = agents.filter(|(node, _)| *node != me).collect();
        self.plan.peers = others.iter().map(|(node, _)| (*node).clone()).collect();
        for port in self.ports.iter() {
            let own = &port.interface.nets;
            let nodes = others.iter().filter(|(node, facts)| {
                let mut theirs = facts.interfaces.iter().flat_map(|other| &other.nets);
                // A network in which both have one address is no common one: each host may have
                // the same bridge for its containers.
                let shared = theirs.any(|net| {
                    let same = |own: &ipnet::IpNet| own.trunc() == net.trunc();
                    own.iter().any(|own| same(own) && own.addr() != net.addr())
                });
                shared && !self.members.lease_expired(node)
            });
            let nodes = nodes.map(|(node, _)| (*node).clone()).collect();
            self.plan.segments.insert(port.interface.index, nodes);
        }
    }

    fn plan_neighbours(&mut self, now: Time) {
        let me = self.config.name.clone();
        self.plan.neighbours.clear();
        self.plan.cables.clear();
        let mut succeeded: BTreeSet<NodeName> = BTreeSet::new();
        for (_, claim) in self.claims.iter() {
            if claim.holder == me {
                self.plan
                    .neighbours
                    .extend(claim.successors.iter().cloned());
            } else if claim.successors.contains(&me) {
                self.plan.neighbours.insert(claim.holder.clone());
                succeeded.insert(claim.holder.clone());
            }
            if claim.holder != me && claim.successors.first() == Some(&me) {
                self.plan.cables.insert(claim.holder.clone());
            }
        }
        self.members.set_neighbours(&self.plan.neighbours, now);
        let wanted = self.probes(&succeeded);
        let requested = |entry: &HostCheck| entry.requested_until.is_some_and(|until| now < until);
        self.checks
            .retain(|key, entry| wanted.contains(key) || requested(entry));
        for key in wanted {
            let met = self.met.get(&key).copied();
            let slips = self.config.slips;
            self.checks.entry(key).or_insert_with(|| {
                let mut check = Check::new(now).with_slips(slips);
                if let Some(met) = met.filter(|met| now.since(*met) < SILENT) {
                    // Perhaps it was a message.
                    check.spoke(met);
                }
                HostCheck {
                    check,
                    receipts: Receipts::default(),
                    requested_until: None,
                }
            });
        }
    }

    /// The hosts that this node probes, and on which interface: the holders of which it is one of
    /// the three probers.
    fn probes(&self, succeeded: &BTreeSet<NodeName>) -> BTreeSet<(u32, NodeName)> {
        let mut hosts = BTreeSet::new();
        for holder in succeeded {
            let of_holder = || {
                self.claims
                    .iter()
                    .filter(|(_, claim)| claim.holder == *holder)
            };
            let probers = assignment::probers(holder, of_holder().map(|(_, claim)| claim));
            if !probers.contains(self.name()) {
                continue;
            }
            for (address, claim) in of_holder() {
                let Some(wanted) = self.wanted(address) else {
                    continue;
                };
                if claim.successors.contains(self.name())
                    && wanted.detection != Detection::Lease
                    && let Some(port) = self.ports.serving(address, &wanted)
                {
                    hosts.insert((port.interface.index, holder.clone()));
                }
            }
        }
        hosts
    }

    /// Chooses candidates for the addresses that nobody holds, as if each first one took its
    /// address at once. Nodes with the same view come to the same result.
    fn place(&mut self) {
        self.plan.placement.clear();
        let Some(view) = self.view.clone() else {
            return;
        };
        let free: Vec<_> = view
            .wanted
            .keys()
            .filter(|address| self.claims.get(address).is_none())
            .collect();
        if free.is_empty() {
            return;
        }
        let mut loads: BTreeMap<NodeName, usize> = BTreeMap::new();
        for (_, claim) in self.claims.iter() {
            *loads.entry(claim.holder.clone()).or_default() += 1;
        }
        for address in free {
            let wanted = &view.wanted[address];
            let candidates = self.candidates(address, wanted, None);
            let preferred = wanted.preferred.as_ref();
            let total = view.wanted.len();
            let order = assignment::place(address, &candidates, preferred, &loads, total);
            if let Some(first) = order.first() {
                *loads.entry(first.clone()).or_default() += 1;
            }
            self.plan.placement.insert(*address, order);
        }
    }

    /// Whether a node's agent lives: its Lease has not expired, or it was heard although it
    /// cannot reach the API server, and does not say that it is cut off.
    pub(super) fn agent_alive(&self, node: &NodeName, now: Option<Time>) -> bool {
        let expired = self.members.lease_expired(node);
        *node == *self.name()
            || !expired
            || now.is_some_and(|now| {
                self.members.heard_within(node, LEASE, now) && !self.members.says_cut_off(node)
            })
    }

    /// What the API says about a node as a candidate.
    pub(super) fn standing(
        &self,
        address: &IpAddr,
        wanted: &Wanted,
        node: &NodeName,
        now: Option<Time>,
    ) -> Standing {
        let facts = self.view.as_ref().and_then(|view| view.nodes.get(node));
        if slip!(self.config.slips, IgnoreEndpoints) {
            let wanted = Wanted {
                policy: Policy::Cluster,
                ..wanted.clone()
            };
            return standing(address, &wanted, node, facts, self.agent_alive(node, now));
        }
        standing(address, wanted, node, facts, self.agent_alive(node, now))
    }

    /// The nodes that may hold an address: the eligible ones, or if there are none, the spare
    /// ones.
    pub(super) fn candidates(
        &self,
        address: &IpAddr,
        wanted: &Wanted,
        now: Option<Time>,
    ) -> Vec<NodeName> {
        let (eligible, spare) = self.standings(address, wanted, now);
        if eligible.is_empty() { spare } else { eligible }
    }

    /// The eligible and the spare nodes. Hosts that this node knows to be dead are left out.
    pub(super) fn standings(
        &self,
        address: &IpAddr,
        wanted: &Wanted,
        now: Option<Time>,
    ) -> (Vec<NodeName>, Vec<NodeName>) {
        let (mut eligible, mut spare) = (Vec::new(), Vec::new());
        let Some(view) = &self.view else {
            return (eligible, spare);
        };
        for node in view.nodes.keys().filter(|node| !self.is_dead(node)) {
            match self.standing(address, wanted, node, now) {
                Standing::Eligible => eligible.push(node.clone()),
                Standing::Spare(_) => spare.push(node.clone()),
                Standing::Never(_) => {}
            }
        }
        (eligible, spare)
    }

    fn is_dead(&self, node: &NodeName) -> bool {
        let mut checks = self.checks.iter().filter(|((_, host), _)| host == node);
        checks.any(|(_, entry)| entry.check.state() == CheckState::Dead)
    }

    /// The successors that this node should record for its address: eligible nodes, then spare
    /// ones, which can at least stand in.
    pub(super) fn successors(&self, address: &IpAddr, wanted: &Wanted, now: Time) -> Vec<NodeName> {
        let (mut eligible, mut spare) = self.standings(address, wanted, Some(now));
        for nodes in [&mut eligible, &mut spare] {
            nodes.retain(|node| !self.suspects.contains(node));
        }
        let peers = self.plan.peers.iter().cloned().collect::<Vec<_>>();
        let partners = assignment::partners(self.name(), &peers);
        let recorded = self.claims.get(address);
        let recorded = recorded.map_or(&[][..], |claim| &claim.successors);
        let choose = |candidates: &[NodeName]| {
            let preferred = wanted.preferred.as_ref();
            let me = self.name();
            assignment::successors(address, me, recorded, candidates, preferred, &partners)
        };
        let mut chosen = choose(&eligible);
        chosen.extend(choose(&spare));
        chosen.truncate(SUCCESSORS);
        chosen
    }

    /// Whether this node is the first recorded successor that lives, and could stand in.
    pub(super) fn is_first_successor(&self, claim: &Claim) -> bool {
        let lives = |node: &&NodeName| {
            **node == *self.name() || !(self.suspects.contains(*node) || self.is_dead(node))
        };
        claim.successors.iter().find(lives) == Some(self.name())
    }

    /// Looks for changes of peers that no input reports: silence and expired Leases.
    pub(super) fn notice_peers(&mut self, now: Time) {
        let settled = self.settled(now);
        if settled && !self.plan.settled {
            self.work.all = true;
        }
        self.plan.settled = settled;
        if self.replaced {
            // It hears nobody.
            return;
        }
        let mut digest = 0;
        let mut troubled: BTreeSet<NodeName> = BTreeSet::new();
        for node in &self.plan.peers {
            let silent = matches!(self.members.process(node, now), Process::Silent { .. });
            let expired = self.members.lease_expired(node);
            digest = mix(digest ^ (u64::from(silent) << 1 | u64::from(expired)));
            if silent
                && self
                    .ports
                    .iter()
                    .any(|port| self.usable(port.interface.index, now))
            {
                self.suspects.insert(node.clone());
            }
            if silent || expired || self.is_dead(node) {
                troubled.insert(node.clone());
            }
        }
        if digest != self.work.peers {
            self.work.peers = digest;
            self.work.all = true;
        }
        self.plan.troubled = false;
        if !troubled.is_empty() {
            // Further steps follow from time alone: 5 s in Tolerant mode, the end of a stand-in.
            let theirs = self
                .claims
                .iter()
                .filter(|(_, claim)| troubled.contains(&claim.holder));
            let theirs: Vec<_> = theirs.map(|(address, _)| *address).collect();
            self.plan.troubled = !theirs.is_empty();
            self.work.some.extend(theirs);
        }
        if self
            .checks
            .values()
            .any(|entry| entry.requested_until.is_some_and(|until| until <= now))
        {
            for entry in self.checks.values_mut() {
                entry.requested_until = entry.requested_until.filter(|until| now < *until);
            }
            self.work.all = true;
        }
    }

    /// Whether gossip had time to tell this node what it holds.
    pub(super) fn settled(&self, now: Time) -> bool {
        self.view.is_some() && now.since(self.view_since) >= SETTLE
    }

    pub(super) fn own_claims(&self) -> Vec<(IpAddr, Claim)> {
        let own = self
            .claims
            .iter()
            .filter(|(_, claim)| claim.holder == *self.name());
        own.map(|(address, claim)| (*address, claim.clone()))
            .collect()
    }
}
