//! Rebalance: which address moves next so that addresses spread evenly over the nodes, and when.
//!
//! [`next`] is deterministic: nodes with the same claims and the same view come to the same move. The
//! node that is to have the address claims it, as in any planned move, so the former holder answers
//! until then. Each move is the only one, and the next one follows from the claims after it.
//!
//! ```text
//!          asked, or Gradual and stable for 10 min         a node claims its address
//!  Still ─────────────────────────────────────────▶ Moving ─────────────────────────┐
//!    ▲                                               │ ▲                            │
//!    │  nothing is left to move: the request ends    │ └──── 1 s, Gradual: 10 s ◀───┘
//!    └───────────────────────────────────────────────┤
//!    ▲                                               │
//!    └── a node changes, is suspected, or the API server is away: stability counts anew
//! ```
//!
//! - A move takes an address from a node that is not preferred to one that is, or from a node that holds at
//!   least two more than the one that gets it. The first kind makes fewer addresses misplaced; the second
//!   makes the sum of squares of the numbers smaller. So a rebalance ends by itself. Afterwards the numbers
//!   of two nodes that may both hold an address differ by at most one.
//! - Only eligible nodes are candidates, so a Local Service never moves to a node without an endpoint.
//! - An address that a node does not take in time is left out until something changes, and after
//!   three of them so is the node.
//! - A request counts only for a process that saw it arrive, and for the addresses that Services have then.
//!   So neither the restart of an announcer nor a later Service carries out a request again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use crate::timing::{
    REBALANCE_ASKED, REBALANCE_DONE, REBALANCE_GRADUAL, REBALANCE_REQUEST, REBALANCE_SETTLED,
    REBALANCE_SKIP, REBALANCE_STABLE,
};
use crate::view;
use crate::{NodeName, Time, assignment};

/// Requests that are remembered, the latest ones: one per class.
const REQUESTS: usize = 256;
/// Addresses that a node does not take before it counts as one that takes none.
const REFUSALS: usize = 3;

/// An address that a node holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The address.
    pub address: IpAddr,
    /// Its holder.
    pub holder: NodeName,
    /// The nodes that should hold it. None if it cannot move, or may not now.
    pub candidates: Vec<NodeName>,
}

/// An address that another node should hold.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Move {
    /// The address.
    pub address: IpAddr,
    /// The node that should hold it.
    pub to: NodeName,
}

/// The moment at which addresses may move.
#[derive(Clone, Debug)]
pub struct Rebalance {
    /// Since when no node changed or was suspected.
    stable: Time,
    /// When any address moved.
    moved: Time,
    /// The claims or the nodes changed since the last look.
    stale: bool,
    head: Option<(Move, Time)>,
    /// Nodes that did not take an address.
    skipped: BTreeSet<Move>,
    /// Since when nothing has been left to move.
    idle: Option<Time>,
    requests: BTreeMap<u64, Request>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request {
    Open { since: Time },
    Done,
}

/// The next move, if there is one.
pub fn next(held: &[Held], skipped: &BTreeSet<Move>) -> Option<Move> {
    let mut loads: BTreeMap<&NodeName, usize> = BTreeMap::new();
    for it in held {
        *loads.entry(&it.holder).or_default() += 1;
    }
    let load = |node: &NodeName| loads.get(node).copied().unwrap_or(0);
    let moves = held.iter().flat_map(|it| {
        let misplaced = !it.candidates.contains(&it.holder);
        let others = it.candidates.iter().filter(|node| **node != it.holder);
        others.filter_map(move |to| {
            let (from, onto) = (load(&it.holder), load(to));
            (misplaced || from >= onto + 2).then(|| {
                // What it gains: a preferred node first, then the greatest difference.
                let gain = (misplaced, from.cast_signed() - onto.cast_signed());
                (gain, it.address, to)
            })
        })
    });
    let refusals = |to: &NodeName| skipped.iter().filter(|step| step.to == *to).count();
    let allowed = moves.filter(|(_, address, to)| {
        let step = Move {
            address: *address,
            to: (*to).clone(),
        };
        skipped.is_empty() || !skipped.contains(&step) && refusals(to) < REFUSALS
    });
    let best = allowed.max_by(|(gain, address, to), (other, rival, onto)| {
        let fit = || {
            let (one, two) = (
                assignment::affinity(address, to),
                assignment::affinity(rival, onto),
            );
            one.cmp(&two)
        };
        gain.cmp(other)
            .then_with(fit)
            .then_with(|| (rival, onto).cmp(&(address, to)))
    });
    best.map(|(_, address, to)| Move {
        address,
        to: to.clone(),
    })
}

// === impl Rebalance ===

impl Rebalance {
    /// Nothing is known of the nodes yet.
    pub fn new(now: Time) -> Self {
        Self {
            stable: now,
            moved: now,
            stale: true,
            head: None,
            skipped: BTreeSet::new(),
            idle: None,
            requests: BTreeMap::new(),
        }
    }

    /// A node changed, or is suspected, or the API server is away.
    pub fn unsettle(&mut self, now: Time) {
        self.stable = now;
        self.head = None;
        self.skipped.clear();
        self.idle = None;
        self.stale = true;
    }

    /// A claim changed.
    pub fn changed(&mut self) {
        self.stale = true;
    }

    /// An address has another holder.
    pub fn moved(&mut self, now: Time) {
        self.moved = now;
        self.head = None;
        self.stale = true;
    }

    /// The requests that classes name now, and those of addresses; `first`: when this process read the
    /// classes first.
    pub fn set_requests(
        &mut self,
        named: &BTreeSet<u64>,
        used: &BTreeSet<u64>,
        first: bool,
        now: Time,
    ) {
        self.requests.retain(|request, _| named.contains(request));
        for request in named.iter().rev().take(REQUESTS) {
            if !used.contains(request) {
                // Nothing can move. A Service that comes later did not ask.
                self.requests.insert(*request, Request::Done);
            }
            if self.requests.contains_key(request) {
                continue;
            }
            let state = if first {
                Request::Done
            } else {
                Request::Open { since: now }
            };
            self.requests.insert(*request, state);
            self.idle = None;
            self.stale = true;
        }
    }

    /// The requests, and whether each has ended.
    pub fn requests(&self, now: Time) -> impl DoubleEndedIterator<Item = (u64, bool)> {
        let requests = self.requests.iter();
        requests.map(move |(request, state)| (*request, !state.is_open(now)))
    }

    /// The time between two moves of addresses with this setting; `None` if they may not move now.
    pub fn interval(&self, policy: view::Rebalance, now: Time) -> Option<Duration> {
        let stable = now.since(self.stable);
        let request = policy.asked.and_then(|asked| self.requests.get(&asked));
        let open = request.is_some_and(|request| request.is_open(now));
        if open && stable >= REBALANCE_SETTLED {
            Some(REBALANCE_ASKED)
        } else if policy.gradual && stable >= REBALANCE_STABLE {
            Some(REBALANCE_GRADUAL)
        } else {
            None
        }
    }

    /// Whether addresses with this setting may move now.
    pub fn is_due(&self, policy: view::Rebalance, now: Time) -> bool {
        let interval = self.interval(policy, now);
        interval.is_some_and(|interval| now.since(self.moved) >= interval)
    }

    /// Whether [`Self::look`] could find something new.
    pub fn is_stale(&mut self, now: Time) -> bool {
        if let Some((step, since)) = &self.head
            && now.since(*since) >= REBALANCE_SKIP
        {
            self.skipped.insert(step.clone());
            self.head = None;
            self.stale = true;
        }
        if self
            .idle
            .is_some_and(|idle| now.since(idle) >= REBALANCE_DONE)
        {
            for request in self.requests.values_mut() {
                *request = Request::Done;
            }
        }
        self.stale
    }

    /// Chooses the next move.
    pub fn look(&mut self, held: &[Held], now: Time) {
        self.stale = false;
        self.head = next(held, &self.skipped).map(|step| (step, now));
        if self.head.is_some() {
            self.idle = None;
        } else {
            self.idle.get_or_insert(now);
        }
    }

    /// Addresses with the setting of the next move may not move any more.
    pub fn withdraw(&mut self) {
        self.head = None;
        self.stale = true;
    }

    /// The next move.
    pub fn head(&self) -> Option<&Move> {
        self.head.as_ref().map(|(step, _)| step)
    }
}

// === impl Request ===

impl Request {
    fn is_open(self, now: Time) -> bool {
        matches!(self, Self::Open { since } if now.since(since) < REBALANCE_REQUEST)
    }
}

#[cfg(test)]
mod tests;
