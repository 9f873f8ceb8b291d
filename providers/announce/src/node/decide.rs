//! Decide: makes the [`Situation`] of each address that needs a look, and carries out the step.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use super::failure::Failure;
use super::{Heard, Node};
use crate::candidates::may_claim;
use crate::claim::Claim;
use crate::holding::{Act, Cause, Situation, State, step};
use crate::host_check::Check;
use crate::io::Output;
use crate::responder::Entry;
use crate::slip::slip;
use crate::timing::{
    CHECK_REPEAT, CONFLICT_MEMORY, CONFLICT_MEMORY_NODE, CONFLICT_PROOF_NODE, SILENT, SUCCESSORS,
    SUCCESSORS_SETTLE,
};
use crate::view::Wanted;
use crate::{NodeName, Time, assignment};

impl Node {
    pub(super) fn decide_all(&mut self, now: Time, out: &mut Vec<Output>) {
        let everything = std::mem::take(&mut self.work.all);
        let mut addresses = std::mem::take(&mut self.work.some);
        addresses.extend(&self.work.timed);
        let refused = self.work.timed.iter();
        let refused = refused.filter(|it| matches!(self.state(it), State::Refused { .. }));
        self.work.refused = refused.count();
        // A process that was replaced hears nobody: it only ends what it does.
        addresses.retain(|address| !self.replaced || self.state(address).holds());
        for address in addresses {
            self.decide(address, now, out);
        }
        if !self.replaced && (everything || !self.plan.wrong.is_empty()) {
            self.revise(now);
        }
    }

    fn decide(&mut self, address: IpAddr, now: Time, out: &mut Vec<Output>) {
        // A withdrawal, or the end of a claim's wait, is followed by at most one more step.
        for _ in 0..2 {
            let state = self.state(&address);
            let wanted = self.wanted(&address);
            if let Some(wanted) = &wanted {
                self.look_for_the_other_holder(&address, wanted, state, now);
            }
            let situation = self.situation(&address, wanted.as_deref(), state, now);
            let (next, act) = step(state, &situation, now);
            if matches!(state, State::Refused { .. })
                && next == State::Answering
                && let Some(wanted) = &wanted
                && let Some(used) = self.used_by(&address, wanted, now)
            {
                self.give(address, used, now);
                continue;
            }
            match (act, wanted) {
                (Some(Act::Claim(cause)), Some(wanted)) => {
                    let since = match state {
                        State::Waiting { since, .. } => since,
                        _ => now,
                    };
                    let since = self.failed_at(&address, &wanted, cause).unwrap_or(since);
                    self.claim(address, (cause, since), &wanted, now, out);
                    continue;
                }
                (Some(Act::Query), _) => self.query(address, out),
                (Some(Act::Ask), _) => {
                    self.query(address, out);
                    self.ask_claims(address, out);
                }
                _ => {}
            }
            if state == State::Answering && !next.holds() {
                self.announce_winner(address, out);
            }
            self.enter(address, next);
            if next == state {
                return;
            }
        }
    }

    fn situation(
        &self,
        address: &IpAddr,
        wanted: Option<&Wanted>,
        state: State,
        now: Time,
    ) -> Situation {
        let nothing = Situation {
            wanted: false,
            mine: false,
            cause: None,
            turn: None,
            damping: Duration::ZERO,
            stand_in: false,
            contact: true,
            contradicted: false,
            refused: self.work.refused,
            informed: false,
        };
        let Some(wanted) = wanted else {
            return nothing;
        };
        let port = self.ports.serving(address, wanted);
        let claim = self.claims.get(address);
        let named = claim.is_some_and(|claim| claim.holder == *self.name());
        let mut mine = named || self.is_split(address, wanted, state);
        if slip!(self.config.slips, ForgetOnRestart) && state == State::Idle {
            mine = false;
        }
        if mine {
            return Situation {
                wanted: !self.slips_away(address, wanted, now),
                mine,
                contact: port.is_some_and(|port| self.has_contact(port, now)),
                contradicted: self.contradicted(address, state, now),
                informed: self.informed(now),
                ..nothing
            };
        }
        let failure = claim.map_or(
            Failure {
                cause: Some(Cause::First),
                silent: false,
            },
            |claim| self.failure(address, wanted, claim, now),
        );
        let first = claim.is_some_and(|claim| self.is_first_successor(claim));
        let usable = port.is_some_and(|port| self.usable(port.interface.index, now));
        Situation {
            wanted: true,
            cause: failure.cause,
            turn: self.turn(address, wanted, failure, now),
            damping: self.damping(address, failure, now)
                + self.old_news(address, wanted, failure, now),
            stand_in: failure.silent && first && usable,
            ..nothing
        }
    }

    /// How long an address that has moved often waits. Not if it follows its endpoints: the nodes do not
    /// dispute where they are, and nobody who can serve answers meanwhile.
    fn damping(&self, address: &IpAddr, failure: Failure, now: Time) -> Duration {
        match failure.cause {
            Some(Cause::EndpointsMoved) => Duration::ZERO,
            _ => self.claims.damping(address, now),
        }
    }

    /// Whether this node holds an address, and the holder of a better claim is on another side of
    /// a split segment: this node learned of it from the API server, and does not reach it. Then
    /// each side keeps its holder.
    fn is_split(&self, address: &IpAddr, wanted: &Wanted, state: State) -> bool {
        let held = matches!(state, State::Answering | State::Checking { .. });
        let (Some(claim), Some(since)) = (self.claims.get(address), self.claims.since(address))
        else {
            return false;
        };
        let served = self.ports.serving(address, wanted).is_some();
        let met = self.met_at(address, wanted, &claim.holder);
        held && served && claim.holder != *self.name() && met.is_none_or(|met| met < since)
    }

    /// Probes the holder of a better claim while this node does not reach it.
    fn look_for_the_other_holder(
        &mut self,
        address: &IpAddr,
        wanted: &Wanted,
        state: State,
        now: Time,
    ) {
        if !self.is_split(address, wanted, state) {
            self.split.remove(address);
            return;
        }
        self.split.insert(*address);
        let port = self.ports.serving(address, wanted);
        let port = port.map(|port| port.interface.index);
        let other = self.claims.get(address).map(|claim| claim.holder.clone());
        if let (Some(interface), Some(other)) = (port, other) {
            // It never answered on this side, so it is not judged.
            self.request_check(interface, &other, Check::new(now), now);
        }
    }

    /// Defects of tests: a holder that withdraws without a better claim.
    fn slips_away(&self, address: &IpAddr, wanted: &Wanted, now: Time) -> bool {
        let me = self.standing(address, wanted, self.name(), Some(now));
        let cut_off = self.ports.iter().any(|port| port.contact.cut_off(now));
        let breaks = slip!(self.config.slips, BreakBeforeMake);
        let withdraws = slip!(self.config.slips, WithdrawWhenCutOff);
        (breaks && !me.is_eligible()) || (withdraws && cut_off)
    }

    /// Some host answered on this interface, or none is known there.
    fn has_contact(&self, port: &super::ports::Port, now: Time) -> bool {
        let alone = self.plan.segment(port.interface.index).is_empty() && port.is_alone();
        let answered = port.contact.answered_at().is_some();
        port.carrier() && (alone || answered && !port.contact.cut_off(now))
    }

    fn informed(&self, now: Time) -> bool {
        self.members.api_connected() || self.members.hears_another(self.name(), now)
    }

    fn contradicted(&self, address: &IpAddr, state: State, now: Time) -> bool {
        match state {
            // Whatever was heard before the claim is forgotten.
            State::Probing { .. } => self.heard.contains_key(address),
            State::Refused { asked, .. } => {
                let heard = self.heard.get(address);
                heard.is_some_and(|heard| heard.at >= asked)
            }
            State::Checking { since, .. } => self.heard.get(address).is_some_and(|heard| {
                let recent = heard.at >= since && now.since(heard.at) < CHECK_REPEAT * 2;
                heard.agent.is_some() && recent
            }),
            _ => false,
        }
    }

    /// Another host that was heard to use an address of this node not long ago.
    pub(super) fn foreign(&self, address: &IpAddr, now: Time) -> Option<&Heard> {
        let heard = self.heard.get(address)?;
        let age = now.since(heard.at);
        let foreign = if heard.agent.is_none() {
            age < CONFLICT_MEMORY
        } else {
            // Its agent would have said if it had a better claim.
            let proven = heard.at.since(heard.first) >= CONFLICT_PROOF_NODE;
            proven && age < CONFLICT_MEMORY_NODE
        };
        foreign.then_some(heard)
    }

    /// This node's place among those that may claim the address; `None` if it may not now.
    fn turn(
        &self,
        address: &IpAddr,
        wanted: &Wanted,
        failure: Failure,
        now: Time,
    ) -> Option<usize> {
        failure.cause.filter(|_| self.settled(now))?;
        let port = self.ports.serving(address, wanted)?;
        may_claim(wanted, &self.own(address, port, now)).ok()?;
        let me = self.name();
        let Some(claim) = self.claims.get(address) else {
            let order = self.plan.placement.get(address)?;
            return order.iter().position(|node| node == me);
        };
        if failure.cause == Some(Cause::Rebalance) {
            // It is the only one.
            return Some(0);
        }
        let candidates = self.candidates(address, wanted, Some(now));
        assignment::turn(address, me, claim, &candidates, wanted.preferred.as_ref())
    }

    fn claim(
        &mut self,
        address: IpAddr,
        (cause, since): (Cause, Time),
        wanted: &Wanted,
        now: Time,
        out: &mut Vec<Output>,
    ) {
        if !self.claims.has_room_for(&address) {
            return;
        }
        let former = self.claims.get(&address).cloned();
        if let (Some(former), false) = (&former, cause.is_planned()) {
            self.suspects.insert(former.holder.clone());
        }
        let before = former.as_ref().map_or(0, |claim| claim.epoch);
        let increase = u64::from(before == 0 || !slip!(self.config.slips, SameEpoch));
        let epoch = before.saturating_add(increase);
        let claim = Claim {
            epoch,
            holder: self.config.name.clone(),
            revision: 0,
            successors: self.successors(&address, wanted, now),
        };
        self.merge(vec![(address, claim)], now);
        self.heard.remove(&address);
        self.gossip.urgent.insert(address);
        self.enter(address, State::claimed(epoch, now));
        out.push(Output::Claimed {
            address,
            epoch,
            former: former.map(|claim| claim.holder),
            cause,
            since,
        });
    }

    /// The node whose program used an address of this node until a moment ago, as `MetalLB`'s speaker does,
    /// if it may hold the address itself. Its clients know its MAC, and their connections are tracked there.
    fn used_by(&self, address: &IpAddr, wanted: &Wanted, now: Time) -> Option<NodeName> {
        let node = self.heard.get(address)?.agent.clone()?;
        // Nobody else would tell it.
        let reached = self.members.gossips() && self.members.heard_within(&node, SILENT, now);
        let may = reached && self.candidates(address, wanted, Some(now)).contains(&node);
        may.then_some(node)
    }

    /// Names another node as the holder of an address of this one, before this one has ever answered.
    fn give(&mut self, address: IpAddr, to: NodeName, now: Time) {
        let Some(claim) = self.claims.get(&address).cloned() else {
            return;
        };
        let mut successors = claim.successors;
        successors.retain(|it| *it != to);
        successors.insert(0, self.config.name.clone());
        successors.truncate(SUCCESSORS);
        let given = Claim {
            epoch: claim.epoch.saturating_add(1),
            holder: to,
            revision: 0,
            successors,
        };
        self.merge(vec![(address, given)], now);
        self.heard.remove(&address);
        self.gossip.urgent.insert(address);
    }

    /// Records other successors for addresses whose successors have been wrong for a while.
    fn revise(&mut self, now: Time) {
        let mut wrong = std::mem::take(&mut self.plan.wrong);
        let mut still = BTreeSet::new();
        for (address, claim) in self.own_claims() {
            let Some(wanted) = self.wanted(&address).filter(|_| self.settled(now)) else {
                continue;
            };
            // A node that is cut off itself cannot judge its successors.
            let port = self.ports.serving(&address, &wanted);
            if !port.is_some_and(|port| self.usable(port.interface.index, now)) {
                continue;
            }
            let successors = self.successors(&address, &wanted, now);
            if successors == claim.successors {
                continue;
            }
            let since = *wrong.entry(address).or_insert(now);
            if now.since(since) < SUCCESSORS_SETTLE {
                still.insert(address);
                continue;
            }
            let revised = Claim {
                revision: claim.revision.saturating_add(1),
                successors,
                ..claim
            };
            self.merge(vec![(address, revised)], now);
            self.gossip.urgent.insert(address);
        }
        wrong.retain(|address, _| still.contains(address));
        self.plan.wrong = wrong;
    }

    /// Clients of this node may not have heard the announcements of the node that holds the address
    /// now, as after a split of the segment. So the one that withdraws names it to them, once; this
    /// needs no message. [`Self::concede`] makes the other node announce in full.
    fn announce_winner(&self, address: IpAddr, out: &mut Vec<Output>) {
        let wanted = self.wanted(&address);
        let entry = self.entry(&address, wanted.as_deref(), State::StandingIn);
        if let Some(entry) = entry.filter(|entry| entry.answer != entry.own) {
            out.push(Output::Announce {
                interface: entry.interface,
                address,
                mac: entry.answer,
            });
        }
    }

    fn query(&self, address: IpAddr, out: &mut Vec<Output>) {
        if let Some(port) = self.port_of(&address) {
            out.push(Output::Query {
                interface: port.interface.index,
                address,
            });
        }
    }

    /// Enters a state: the only place that changes the table.
    pub(super) fn enter(&mut self, address: IpAddr, state: State) {
        if state.is_timed() {
            self.work.timed.insert(address);
        } else {
            self.work.timed.remove(&address);
        }
        let wanted = self.wanted(&address);
        if state == State::Idle && wanted.is_none() {
            self.states.remove(&address);
        } else {
            self.states.insert(address, state);
        }
        let Some(entry) = self.entry(&address, wanted.as_deref(), state) else {
            self.table.remove(&address);
            self.pacer.stop(&address);
            self.split.remove(&address);
            return;
        };
        let announced = self.table.get(&address) == Some(&entry);
        self.table.insert(address, entry);
        if state == State::StandingIn {
            self.pacer.stop(&address);
        } else if !announced {
            let refresh = wanted.and_then(|wanted| wanted.refresh);
            self.pacer.start(address, refresh);
        }
    }

    fn entry(&self, address: &IpAddr, wanted: Option<&Wanted>, state: State) -> Option<Entry> {
        let wanted = wanted?;
        let port = &self.ports.serving(address, wanted)?.interface;
        let answer = match state {
            State::Answering => port.mac,
            State::StandingIn if slip!(self.config.slips, StandInOwnMac) => port.mac,
            State::StandingIn => {
                let holder = &self.claims.get(address)?.holder;
                let facts = self.view.as_ref()?.nodes.get(holder)?;
                facts.serving(address, wanted)?.mac
            }
            _ => return None,
        };
        Some(Entry {
            interface: port.index,
            own: port.mac,
            answer,
        })
    }
}
