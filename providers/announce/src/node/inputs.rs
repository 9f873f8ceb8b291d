//! Inputs: remembers what is new. Decisions follow in the next tick.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::{Doubter, Heard, HostCheck, Node};
use crate::claim::{Claim, Merged};
use crate::holding::State;
use crate::host_check::{Check, Receipts};
use crate::io::{Body, Input, Message, Method, Output, Target};
use crate::slip::slip;
use crate::timing::{CLAIMS_PER_MESSAGE, CONFLICT_MEMORY_NODE, PEERS, REQUESTED_CHECK, SILENT};
use crate::view::{Interface, View};
use crate::{Mac, NodeName, Time};

/// Peers whose question about a host waits for an answer.
const DOUBTERS: usize = 32;

impl Node {
    /// Something happened.
    pub fn handle(&mut self, now: Time, input: Input, out: &mut Vec<Output>) {
        self.take(now, input, out);
        self.hasten(now);
    }

    fn take(&mut self, now: Time, input: Input, out: &mut Vec<Output>) {
        match input {
            Input::View(view) => self.see(view, now),
            Input::Holdings(claims) => self.merge(claims, now),
            Input::Lease { node, stamp } => {
                let renewed = self.members.lease(&node, stamp, now);
                // Without messages a renewed Lease is the only sign of life.
                if renewed && !self.members.gossips() {
                    self.trust(&node);
                }
            }
            Input::Api { connected } => {
                self.members.api(connected, now);
                self.work.all = true;
            }
            Input::Interfaces(interfaces) => self.set_interfaces(interfaces, now),
            Input::Witnesses { interface, hosts } => self.ports.set_hosts(interface, hosts),
            Input::Health { address, healthy } => {
                if healthy {
                    self.healthy.insert(address);
                } else {
                    self.healthy.remove(&address);
                }
                self.work.some.insert(address);
            }
            Input::Answer {
                interface,
                from,
                method,
            } => self.answered(interface, from, method, now, out),
            Input::Probed { interface, by } => {
                self.arrived(interface, now);
                if self.received.len() < PEERS || self.received.contains_key(&by) {
                    *self.received.entry(by).or_default() += 1;
                }
            }
            Input::Heard {
                interface,
                address,
                mac,
            } => self.heard(interface, address, mac, now),
            Input::Message { via, message } => self.receive(via, message, now, out),
            Input::Cable { peer, connected } => {
                self.members.cable(&peer, connected, now);
                if connected {
                    self.trust(&peer);
                }
            }
            Input::Replaced { replaced } => self.set_replaced(replaced, now),
        }
    }

    /// Another process of this node has started, or has ended again.
    fn set_replaced(&mut self, replaced: bool, now: Time) {
        if std::mem::replace(&mut self.replaced, replaced) == replaced || replaced {
            return;
        }
        // Peers ignore the process that they heard before the latest one, so this one goes on as
        // another process.
        self.config.incarnation = self.random.number();
        self.sequence = 0;
        // What was not heard meanwhile proves nothing.
        for check in self.checks.values_mut() {
            check.check.discard(now);
        }
        self.members.discard(now);
        // Whoever knows a better claim by now answers with it.
        let own = self.own_claims();
        self.gossip.urgent.extend(own.iter().map(|it| it.0));
        self.work.record = true;
        self.work.all = true;
    }

    /// A node that failed lives: it may be a successor again.
    fn trust(&mut self, node: &NodeName) {
        self.work.all |= self.suspects.remove(node);
    }

    fn see(&mut self, view: Arc<View>, now: Time) {
        if self.view.is_none() {
            self.view_since = now;
        }
        let others = view.nodes.iter().filter(|(node, _)| *node != self.name());
        self.agent_macs = others
            .flat_map(|(node, facts)| {
                let macs = facts.interfaces.iter().map(|interface| interface.mac);
                macs.map(|mac| (mac, node.clone()))
            })
            .collect();
        self.compare_nodes(&view, now);
        self.members.retain(|node| view.nodes.contains_key(node));
        self.received
            .retain(|node, _| view.nodes.contains_key(node));
        self.suspects.retain(|node| view.nodes.contains_key(node));
        self.met
            .retain(|(_, node), _| view.nodes.contains_key(node));
        self.healthy
            .retain(|address| view.wanted.contains_key(address));
        self.heard
            .retain(|address, _| view.wanted.contains_key(address));
        self.view = Some(view);
        self.work.all = true;
    }

    fn set_interfaces(&mut self, interfaces: Vec<Interface>, now: Time) {
        let came_up = self.ports.replace(interfaces, now);
        for ((interface, _), check) in &mut self.checks {
            if came_up.contains(interface) {
                check.check.discard(now);
            }
        }
        self.silence(|interface| came_up.contains(&interface), now);
        // MACs, networks and interfaces may have changed.
        let answered: Vec<_> = self.table.iter().map(|(address, _)| *address).collect();
        for address in answered {
            self.enter(address, self.state(&address));
        }
        self.work.all = true;
    }

    fn answered(
        &mut self,
        interface: u32,
        from: Target,
        method: Method,
        now: Time,
        out: &mut Vec<Output>,
    ) {
        let Some(port) = self.ports.get_mut(interface) else {
            return;
        };
        let echo_only = port.method == Method::Echo;
        if port.contact.answered(now) {
            self.regained(interface, now);
        }
        let Target::Node(host) = from else {
            return;
        };
        if let Some(entry) = self.checks.get_mut(&(interface, host.clone())) {
            if method == Method::Neighbour {
                entry.receipts.answered();
            }
            if method == Method::Echo || !echo_only {
                entry.check.proof(now);
            }
        }
        // Otherwise a switch may have answered, not the host.
        if method == Method::Echo || !echo_only {
            self.meet(interface, &host, now);
            self.answer_doubters(&host, method, out);
        }
    }

    /// A node was reached on an interface. If it holds an address that this node still answers
    /// for, the split of the segment is over.
    fn meet(&mut self, interface: u32, node: &NodeName, now: Time) {
        let key = (interface, node.clone());
        let on_it = self.met.keys().filter(|it| it.0 == interface).count();
        if on_it < PEERS || self.met.contains_key(&key) {
            self.met.insert(key, now);
        }
        self.work.some.extend(&self.split);
    }

    fn answer_doubters(&mut self, host: &NodeName, method: Method, out: &mut Vec<Output>) {
        let doubters = std::mem::take(&mut self.doubters);
        for doubter in doubters {
            let satisfied = method == Method::Echo || doubter.method == Method::Neighbour;
            if doubter.host == *host && satisfied {
                let host = host.clone();
                self.send(doubter.asker, Body::Vouch { host }, out);
            } else {
                self.doubters.push(doubter);
            }
        }
    }

    fn heard(&mut self, interface: u32, address: IpAddr, mac: Mac, now: Time) {
        let ours = self.ports.iter().any(|port| port.interface.mac == mac);
        if !ours {
            self.arrived(interface, now);
        }
        let known = self.states.contains_key(&address);
        let serving = self.port_of(&address).map(|port| port.interface.index);
        if ours || !known || serving != Some(interface) {
            return;
        }
        let agent = self.agent_macs.get(&mac).cloned();
        let before = self.heard.get(&address);
        let before = before.filter(|it| it.mac == mac && now.since(it.at) < CONFLICT_MEMORY_NODE);
        let latest = Heard {
            mac,
            at: now,
            first: before.map_or(now, |it| it.first),
            agent: agent.clone(),
        };
        self.heard.insert(address, latest);
        if let Some(node) = &agent {
            self.meet(interface, node, now);
        }
        if agent.is_none() || self.state(&address) != State::Answering {
            return;
        }
        if self.members.gossips() {
            // Whoever knows a better claim answers with it.
            self.gossip.urgent.insert(address);
        } else if !self.members.api_connected() {
            // Nobody can say which claim is better: the one that hears the other is silent.
            self.enter(address, State::checking(now));
            self.work.some.insert(address);
        }
    }

    /// Merges claims. Returns those of ours that are better than what was sent.
    fn merge_all(&mut self, claims: Vec<(IpAddr, Claim)>, now: Time) -> Vec<(IpAddr, Claim)> {
        let mut better = Vec::new();
        let me = self.config.name.clone();
        for (address, claim) in claims {
            let mine = |claim: Option<&Claim>| claim.is_some_and(|claim| claim.holder == me);
            let before = self.claims.get(&address).cloned();
            let was_mine = mine(before.as_ref());
            match self.claims.merge(address, claim, &me, now) {
                Merged::Better => {
                    let after = self.claims.get(&address).map(|claim| &claim.holder);
                    if before.as_ref().map(|claim| &claim.holder) != after {
                        self.rebalance.moved(now);
                    }
                    let is_mine = mine(self.claims.get(&address));
                    self.work.record |= was_mine || is_mine;
                    if is_mine {
                        self.lost.remove(&address);
                    } else if was_mine && self.state(&address) == State::Answering {
                        self.lost.extend(before.map(|claim| (address, claim)));
                    }
                    self.work.some.insert(address);
                    self.work.all = true;
                }
                Merged::Worse => {
                    let known = self.claims.get(&address).cloned();
                    better.extend(known.map(|claim| (address, claim)));
                }
                Merged::Same | Merged::Full => {}
            }
        }
        better
    }

    /// Merges what the API server has. A record there of this node that lost meanwhile is
    /// replaced: whoever reads it counts two holders.
    pub(super) fn merge(&mut self, claims: Vec<(IpAddr, Claim)>, now: Time) {
        let mine = |it: &&(IpAddr, Claim)| it.1.holder == self.config.name;
        let mine: Vec<IpAddr> = claims.iter().filter(mine).map(|it| it.0).collect();
        self.merge_all(claims, now);
        let me = &self.config.name;
        self.work.record |= mine.iter().any(|address| {
            let known = self.claims.get(address);
            known.is_none_or(|claim| claim.holder != *me)
        });
    }

    fn receive(&mut self, via: Option<u32>, message: Message, now: Time, out: &mut Vec<Output>) {
        let Message { from, stamp, body } = message;
        if from == *self.name() || !self.members.gossips() {
            return;
        }
        if let Some(interface) = via {
            self.arrived(interface, now);
        }
        let returns = !self.members.heard_within(&from, SILENT, now);
        if !self.members.hear(&from, stamp, now) {
            return;
        }
        if let Body::Beat { cut_off, .. } = body {
            self.members.says(&from, stamp, cut_off);
        }
        if returns {
            self.show_own(&from, out);
        }
        let connected =
            !self.members.says_cut_off(&from) || slip!(self.config.slips, CutOffIsAlive);
        if connected {
            self.trust(&from);
        }
        self.prove(via, &from, connected, now);
        match body {
            Body::Beat {
                mut claims,
                received,
                ..
            } => {
                claims.truncate(CLAIMS_PER_MESSAGE);
                if slip!(self.config.slips, DeafToClaims) {
                    claims.clear();
                }
                let theirs = claims.iter().filter(|it| it.1.holder == from);
                let theirs: BTreeMap<IpAddr, u64> = theirs.map(|it| (it.0, it.1.epoch)).collect();
                let better = self.merge_all(claims, now);
                self.prove(via, &from, connected, now);
                self.reported(&from, stamp.incarnation, received, now);
                // Two nodes have answered, on two sides of a split segment for example. Clients of
                // the one that loses have its MAC address: the other one announces again.
                for (address, claim) in &better {
                    let Some(&epoch) = theirs.get(address) else {
                        continue;
                    };
                    if claim.holder != *self.name() {
                        continue;
                    }
                    // Nobody hears of its answers while it is cut off.
                    if connected {
                        self.pacer.again(*address);
                    }
                    // Otherwise this node took the address over from that one.
                    if epoch == claim.epoch && self.state(address) == State::Answering {
                        out.push(Output::Healed {
                            address: *address,
                            epoch,
                            rival: from.clone(),
                        });
                    }
                }
                if !better.is_empty() {
                    self.beat(from, better, out);
                }
            }
            Body::Ask { addresses } => {
                let asked = addresses.iter().take(CLAIMS_PER_MESSAGE);
                let known = asked.filter_map(|address| {
                    let claim = self.claims.get(address)?;
                    Some((*address, claim.clone()))
                });
                let known = known.collect();
                self.beat(from, known, out);
            }
            Body::Doubt {
                host,
                method,
                unanswered,
            } => {
                let doubter = Doubter {
                    asker: from,
                    host,
                    method,
                    since: now,
                };
                self.doubted(doubter, now.before(unanswered), now, out);
            }
            Body::Vouch { host } => {
                for ((_, other), entry) in &mut self.checks {
                    if *other == host && !slip!(self.config.slips, NoSecondOpinion) {
                        entry.check.vouch();
                    }
                }
                let interfaces: Vec<u32> = self.plan.interfaces_to(&host).collect();
                for interface in interfaces {
                    self.meet(interface, &host, now);
                }
            }
        }
    }

    /// An agent reports how many of our probes it received.
    fn reported(&mut self, host: &NodeName, incarnation: u64, received: u64, now: Time) {
        for ((interface, other), entry) in &mut self.checks {
            if other != host {
                continue;
            }
            entry.receipts.reported(incarnation, received, now);
            let trusting = slip!(self.config.slips, TrustAnswers);
            if let Some(port) = self.ports.get_mut(*interface)
                && entry.receipts.intercepted()
                && !trusting
            {
                // What a switch does for one host it does for all.
                port.method = Method::Echo;
            }
        }
    }

    /// A message of an agent that arrived on an interface proves that its host lives there, unless it
    /// says that nothing reaches it.
    fn prove(&mut self, via: Option<u32>, from: &NodeName, connected: bool, now: Time) {
        let Some(interface) = via.filter(|_| !slip!(self.config.slips, NoSecondOpinion)) else {
            return;
        };
        let entry = self.checks.get_mut(&(interface, from.clone()));
        if connected {
            if let Some(entry) = entry {
                entry.check.spoke(now);
            }
            self.meet(interface, from, now);
        } else if let Some(entry) = entry {
            entry.check.cut_off();
        }
    }

    /// A peer does not reach a host: probe it, and tell the peer if it answers.
    fn doubted(&mut self, doubter: Doubter, proven: Time, now: Time, out: &mut Vec<Output>) {
        let host = doubter.host.clone();
        if host == *self.name() {
            self.send(doubter.asker, Body::Vouch { host }, out);
            return;
        }
        self.doubters
            .retain(|doubter| now.since(doubter.since) < REQUESTED_CHECK);
        if self.doubters.len() >= DOUBTERS {
            return;
        }
        let interfaces: Vec<u32> = self.plan.interfaces_to(&host).collect();
        for interface in interfaces {
            self.request_check(interface, &host, Check::requested(proven, now), now);
            let Some(port) = self.ports.get_mut(interface) else {
                continue;
            };
            if doubter.method == Method::Echo {
                // The peer found a switch that answers for others. This node may be no prober, and
                // from now on it cannot find out itself.
                port.method = Method::Echo;
                if let Some(entry) = self.checks.get_mut(&(interface, host.clone())) {
                    entry.receipts.told();
                }
            }
            let method = port.method;
            out.push(Output::Probe {
                interface,
                target: Target::Node(host.clone()),
                method,
            });
        }
        self.doubters.push(doubter);
    }

    /// Checks a host for a few seconds, if it is not checked anyway.
    pub(super) fn request_check(
        &mut self,
        interface: u32,
        host: &NodeName,
        check: Check,
        now: Time,
    ) {
        let slips = self.config.slips;
        let key = (interface, host.clone());
        let entry = self.checks.entry(key).or_insert_with(|| HostCheck {
            check: check.with_slips(slips),
            receipts: Receipts::default(),
            requested_until: None,
        });
        entry.requested_until = Some(now + REQUESTED_CHECK);
    }
}
