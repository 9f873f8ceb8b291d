//! Gossip: which messages this node sends, and when.
//!
//! Every [`BEAT`] each node sends a beat to its neighbours (the holders that it succeeds, and the
//! successors of its own addresses) and to a few random peers. A beat carries some claims in turn,
//! so all nodes come to know all claims. A claim that this node made is sent to all peers at once,
//! twice. A node that hears another one after a silence shows it all its claims, and a node that
//! receives a worse claim than it knows answers with the better one, so two sides of a segment
//! agree within a beat after it heals. A node that finds out that it is cut off says so at once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use super::Node;
use crate::claim::Claim;
use crate::holding::State;
use crate::io::{Body, Message, Output};
use crate::membership::Stamp;
use crate::slip::slip;
use crate::timing::{BEAT, CLAIMS_PER_BEAT, CLAIMS_PER_MESSAGE, PROBERS};
use crate::{NodeName, Time};

/// Random peers per beat: at least 2, and a quarter of all, so that within the duration of a Lease
/// each agent is heard by every other one (all but 1 in 2,000).
const RANDOM_PEERS: usize = 2;
const RANDOM_SHARE: usize = 4;
const RANDOM_LIMIT: usize = 32;

/// What is to be sent.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    /// Claims that all peers should hear at once.
    pub(super) urgent: BTreeSet<IpAddr>,
    /// The same, once more in the next tick: a message may be lost.
    again: BTreeSet<IpAddr>,
    next_beat: Time,
    /// Beats name the claims that follow this address.
    cursor: IpAddr,
}

// === impl Schedule ===

impl Schedule {
    pub(super) fn is_quiet(&self) -> bool {
        self.urgent.is_empty() && self.again.is_empty()
    }

    /// The next beat must not wait.
    pub(super) fn hurry(&mut self, now: Time) {
        self.next_beat = now;
    }
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            urgent: BTreeSet::new(),
            again: BTreeSet::new(),
            next_beat: Time::default(),
            cursor: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        }
    }
}

// === impl Node ===

impl Node {
    pub(super) fn gossip(&mut self, now: Time, out: &mut Vec<Output>) {
        let urgent = std::mem::take(&mut self.gossip.urgent);
        let again = std::mem::replace(&mut self.gossip.again, urgent.clone());
        if !self.members.gossips() {
            return;
        }
        self.tell_all(&again, out);
        self.tell_all(&urgent, out);
        if now < self.gossip.next_beat {
            return;
        }
        // Ticks may come later: the rhythm stays.
        let next = self.gossip.next_beat + BEAT;
        self.gossip.next_beat = if next > now { next } else { now + BEAT };
        let mut receivers = self.plan.neighbours.clone();
        let random = self.plan.peers.len() / RANDOM_SHARE;
        receivers.extend(self.some_peers(random.clamp(RANDOM_PEERS, RANDOM_LIMIT), None));
        let claims = self.next_claims();
        for receiver in receivers {
            self.beat(receiver, claims.clone(), out);
        }
    }

    /// Different peers, from a random place in their order.
    fn some_peers(&mut self, count: usize, but: Option<&NodeName>) -> Vec<NodeName> {
        let start = self.random.below(self.plan.peers.len());
        let peers = self.plan.peers.iter().cycle().skip(start);
        let peers = peers.take(self.plan.peers.len());
        let peers = peers.filter(|peer| Some(*peer) != but);
        peers.take(count).cloned().collect()
    }

    /// The claims of this beat: the ones after those of the last beat.
    fn next_claims(&mut self) -> Vec<(IpAddr, Claim)> {
        let next = self.claims.after(self.gossip.cursor, CLAIMS_PER_BEAT);
        let mut claims: Vec<_> = next
            .map(|(address, claim)| (*address, claim.clone()))
            .collect();
        if let Some((last, _)) = claims.last() {
            self.gossip.cursor = *last;
        }
        // Nobody would ever forget a claim that others repeat.
        if let Some(view) = &self.view {
            claims.retain(|(address, _)| view.wanted.contains_key(address));
        }
        claims
    }

    /// Shows a node all claims of this one: it was away, and may have missed some.
    pub(super) fn show_own(&mut self, to: &NodeName, out: &mut Vec<Output>) {
        for claims in self.own_claims().chunks(CLAIMS_PER_MESSAGE) {
            self.beat(to.clone(), claims.to_vec(), out);
        }
    }

    fn tell_all(&mut self, addresses: &BTreeSet<IpAddr>, out: &mut Vec<Output>) {
        if addresses.is_empty() {
            return;
        }
        let known = addresses.iter().filter_map(|address| {
            let claim = self.claims.get(address)?;
            Some((*address, claim.clone()))
        });
        let known: Vec<_> = known.collect();
        let peers: Vec<_> = self.plan.peers.iter().cloned().collect();
        for peer in peers {
            for claims in known.chunks(CLAIMS_PER_MESSAGE) {
                self.beat(peer.clone(), claims.to_vec(), out);
            }
        }
    }

    pub(super) fn beat(
        &mut self,
        to: NodeName,
        claims: Vec<(IpAddr, Claim)>,
        out: &mut Vec<Output>,
    ) {
        let received = self.received.get(&to).copied().unwrap_or(0);
        let cut_off = self.plan.interfaces_to(&to).any(|index| {
            let port = self.ports.get(index);
            port.is_some_and(|port| port.contact.is_lost())
        });
        let beat = Body::Beat {
            claims,
            received,
            cut_off,
        };
        self.send(to, beat, out);
    }

    /// Shows the new holders the former claims of this node on addresses that it has stopped
    /// answering for. Two nodes have answered, on two sides of a split segment for example: the
    /// new holder announces again.
    pub(super) fn concede(&mut self, out: &mut Vec<Output>) {
        let answering = |address: &IpAddr| self.state(address) == State::Answering;
        let over: Vec<IpAddr> = self
            .lost
            .keys()
            .filter(|address| !answering(address))
            .copied()
            .collect();
        let mut by_holder: BTreeMap<NodeName, Vec<(IpAddr, Claim)>> = BTreeMap::new();
        for address in over {
            if let (Some(former), Some(claim)) =
                (self.lost.remove(&address), self.claims.get(&address))
            {
                let to = by_holder.entry(claim.holder.clone()).or_default();
                to.push((address, former));
            }
        }
        for (holder, claims) in by_holder {
            for some in claims.chunks(CLAIMS_PER_MESSAGE) {
                self.beat(holder.clone(), some.to_vec(), out);
            }
        }
    }

    /// Asks the successors of a claim, and two more peers, which claims they know.
    pub(super) fn ask_claims(&mut self, address: IpAddr, out: &mut Vec<Output>) {
        let mut receivers: BTreeSet<NodeName> = self
            .claims
            .get(&address)
            .map(|claim| claim.successors.iter().cloned().collect())
            .unwrap_or_default();
        receivers.extend(self.some_peers(RANDOM_PEERS, None));
        for receiver in receivers {
            let addresses = vec![address];
            self.send(receiver, Body::Ask { addresses }, out);
        }
    }

    /// Whom to ask whether a host answers: the successors of its addresses, and some peers.
    /// Successors that are no probers learn of the failure in this way.
    pub(super) fn second_opinions(&mut self, host: &NodeName) -> BTreeSet<NodeName> {
        if slip!(self.config.slips, NoSecondOpinion) {
            return BTreeSet::new();
        }
        let held = self
            .claims
            .iter()
            .filter(|(_, claim)| claim.holder == *host);
        let mut receivers: BTreeSet<NodeName> = held
            .flat_map(|(_, claim)| claim.successors.iter().take(2).cloned())
            .collect();
        receivers.extend(self.some_peers(PROBERS, Some(host)));
        receivers.remove(host);
        receivers.remove(self.name());
        receivers
    }

    pub(super) fn send(&mut self, to: NodeName, body: Body, out: &mut Vec<Output>) {
        if !self.members.gossips() || self.replaced || to == *self.name() {
            return;
        }
        self.sequence += 1;
        let stamp = Stamp {
            incarnation: self.config.incarnation,
            sequence: self.sequence,
        };
        let message = Message {
            from: self.config.name.clone(),
            stamp,
            body,
        };
        out.push(Output::Send { to, message });
    }
}
