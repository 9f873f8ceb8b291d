//! Failure: what is wrong with the holder of an address, so that another node should claim it.

use std::net::IpAddr;
use std::time::Duration;

use super::Node;
use crate::candidates::{Reason, Standing};
use crate::claim::Claim;
use crate::holding::Cause;
use crate::host_check::{Check, State as CheckState};
use crate::membership::Process;
use crate::slip::slip;
use crate::timing::{STAND_IN, TOLERANT, UNUSABLE_REACHED, WITNESS_FRESH};
use crate::view::{Detection, Wanted};
use crate::{NodeName, Time, assignment};

/// What is wrong with the holder of an address.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Failure {
    pub(super) cause: Option<Cause>,
    /// Its agent is silent, and its host may live.
    pub(super) silent: bool,
}

impl Node {
    /// What is wrong with the holder, the most certain cause first.
    pub(super) fn failure(
        &self,
        address: &IpAddr,
        wanted: &Wanted,
        claim: &Claim,
        now: Time,
    ) -> Failure {
        let Some(view) = &self.view else {
            return Failure::default();
        };
        let holder = &claim.holder;
        let because = |cause| Failure {
            cause: Some(cause),
            silent: false,
        };
        if self.host_dead(address, wanted, claim, now) {
            return because(Cause::HostDead);
        }
        if !view.nodes.contains_key(holder) {
            return because(Cause::NodeDeleted);
        }
        if !self.agent_alive(holder, Some(now)) {
            return because(Cause::LeaseExpired);
        }
        if let Some(cause) = self.published(address, wanted, holder, now) {
            return because(cause);
        }
        if slip!(self.config.slips, Preempt) && self.preempts(address, wanted, now) {
            return because(Cause::NotCandidate);
        }
        let failure = self.silence_of(address, wanted, claim, now);
        if failure.cause.is_none() && !failure.silent && self.is_to_get(address) {
            return because(Cause::Rebalance);
        }
        failure
    }

    /// What the API server says against the holder, compared with this node.
    ///
    /// A better candidate relieves a holder that is none. If there is none, a holder that works stays:
    /// without endpoints anywhere, or with all nodes cordoned, another one would be no better. But a
    /// holder that cannot be reached is worse than every spare node that can.
    fn published(
        &self,
        address: &IpAddr,
        wanted: &Wanted,
        holder: &NodeName,
        now: Time,
    ) -> Option<Cause> {
        let view = self
            .view
            .as_ref()
            .filter(|_| self.members.api_connected())?;
        let standing = |node| self.standing(address, wanted, node, Some(now));
        match (standing(self.name()), standing(holder)) {
            (Standing::Never(_), _) | (_, Standing::Eligible) => None,
            (Standing::Eligible, Standing::Spare(Reason::NoCarrier)) => Some(Cause::Unusable),
            (Standing::Eligible, Standing::Spare(Reason::NoEndpoint)) => {
                Some(Cause::EndpointsMoved)
            }
            (Standing::Eligible, Standing::Spare(_) | Standing::Never(_)) => {
                Some(Cause::NotCandidate)
            }
            (Standing::Spare(_), _) if slip!(self.config.slips, OnlyEligible) => None,
            (Standing::Spare(_), _) => {
                let facts = |node| view.nodes.get(node);
                let serving = |node| facts(node).and_then(|facts| facts.serving(address, wanted));
                let usable = |node| serving(node).is_some_and(|interface| interface.carrier);
                (usable(self.name()) && !usable(holder)).then_some(Cause::Unusable)
            }
        }
    }

    /// What follows from the silence of the holder's agent, for its recorded successors.
    fn silence_of(&self, address: &IpAddr, wanted: &Wanted, claim: &Claim, now: Time) -> Failure {
        let holder = &claim.holder;
        let successor = claim.successors.contains(self.name());
        let Process::Silent { since } = self.members.process(holder, now) else {
            return Failure::default();
        };
        if wanted.detection == Detection::Lease || !successor {
            return Failure::default();
        }
        let cause = if slip!(self.config.slips, ProcessIsHost) {
            Some(Cause::HostDead)
        } else if self.agent_gone(holder, since, now) {
            Some(Cause::AgentGone)
        } else {
            None
        };
        let silent = cause.is_none() && self.host_answers(address, wanted, holder, since);
        Failure { cause, silent }
    }

    /// Whether the host check says that the holder is dead. It counts only if the holder lived
    /// after this node learned of its claim: otherwise two sides of a split segment that share an
    /// API server would take the address from each other forever.
    fn host_dead(&self, address: &IpAddr, wanted: &Wanted, claim: &Claim, now: Time) -> bool {
        let patience = match wanted.detection {
            Detection::Fast => Duration::ZERO,
            Detection::Tolerant => TOLERANT,
            Detection::Lease => return false,
        };
        let since = self.claims.since(address).unwrap_or(now);
        let check = self.check_of(address, wanted, &claim.holder);
        let check = check.filter(|check| check.proven_at() >= since);
        let dead_for = check.and_then(|check| check.dead_for(now));
        dead_for.is_some_and(|time| time >= patience)
    }

    /// Whether the host of a silent agent answered after its agent fell silent.
    fn host_answers(
        &self,
        address: &IpAddr,
        wanted: &Wanted,
        host: &NodeName,
        since: Time,
    ) -> bool {
        let check = self.check_of(address, wanted, host);
        check.is_some_and(|check| check.state() == CheckState::Alive && check.proven_at() >= since)
    }

    /// Whether a silent agent is gone for longer than a restart takes. Silence alone may be a
    /// closed port: then the Lease is renewed, or this node hears nobody.
    fn agent_gone(&self, node: &NodeName, since: Time, now: Time) -> bool {
        let certain = self.members.cable_closed(node)
            || self.members.api_connected()
            || self.members.hears_another(node, now);
        now.since(since) >= STAND_IN
            && certain
            && !self
                .members
                .renewed_after(node, since + Duration::from_secs(1))
    }

    /// When the holder of an address was last known to live, if it failed.
    pub(super) fn failed_at(
        &self,
        address: &IpAddr,
        wanted: &Wanted,
        cause: Cause,
    ) -> Option<Time> {
        let holder = &self.claims.get(address)?.holder;
        match cause {
            Cause::HostDead => self.check_of(address, wanted, holder).map(Check::proven_at),
            Cause::AgentGone | Cause::LeaseExpired => self.members.last_sign(holder),
            _ => None,
        }
    }

    /// How much longer to wait because the holder says that its interface is not usable, and this
    /// node reaches it there.
    pub(super) fn old_news(
        &self,
        address: &IpAddr,
        wanted: &Wanted,
        failure: Failure,
        now: Time,
    ) -> Duration {
        let claim = self.claims.get(address);
        let claim = claim.filter(|_| failure.cause == Some(Cause::Unusable));
        let met = claim.and_then(|claim| self.met_at(address, wanted, &claim.holder));
        let fresh = match wanted.detection {
            Detection::Tolerant => TOLERANT,
            Detection::Fast | Detection::Lease => WITNESS_FRESH,
        };
        if met.is_some_and(|met| now.since(met) < fresh) {
            UNUSABLE_REACHED
        } else {
            Duration::ZERO
        }
    }

    /// A defect of tests: the first node of the order takes an address back.
    fn preempts(&self, address: &IpAddr, wanted: &Wanted, now: Time) -> bool {
        let candidates = self.candidates(address, wanted, Some(now));
        let nobody = NodeName::new("");
        let order = assignment::successors(address, &nobody, &[], &candidates, None, &[]);
        order.first() == Some(self.name())
    }

    /// The check of a host on the interface of an address.
    fn check_of(&self, address: &IpAddr, wanted: &Wanted, host: &NodeName) -> Option<&Check> {
        let port = self.ports.serving(address, wanted)?;
        let entry = self.checks.get(&(port.interface.index, host.clone()))?;
        Some(&entry.check)
    }

    /// When a node was last known to live on the interface of an address.
    pub(super) fn met_at(
        &self,
        address: &IpAddr,
        wanted: &Wanted,
        node: &NodeName,
    ) -> Option<Time> {
        let port = self.ports.serving(address, wanted)?;
        self.met.get(&(port.interface.index, node.clone())).copied()
    }
}
