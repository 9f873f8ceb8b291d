//! Holding: what this node does about one address.
//!
//! [`step`] chooses the next state from the [`Situation`], a summary that the node makes of the
//! other cores. It is the only place where this node starts or stops to answer.
//!
//! ```text
//!                   another node should hold it               its turn has come
//!   ┌────── Idle ─────────────────────────────▶ Waiting ─────────────────────┐
//!   │        ▲  ▲                                  │                         ▼
//!   │        │  └────────── the cause is gone ─────┘                    claims, epoch + 1
//!   │        │                                                               │
//!   │        │                     conflict                                  │ epoch 1
//!   │        │          Refused ◀──────────── Probing ◀──────────────────────┤
//!   │        │             │ 6 questions         │ 3 probes unanswered       │ later epoch
//!   │        │             │ unanswered          ▼                           ▼
//!   │        ├──────── better claim ──────── Answering ◀─────────────────────┘
//!   │        │                                │     ▲
//!   │        │     stall, carrier up, contact │     │ nobody contradicts for 100 ms
//!   │        │                                ▼     │
//!   │        └──────── better claim ──────── Checking ◀── the best claim names this node (restart)
//!   │
//!   └── the holder's agent is silent, its host answers ──▶ StandingIn ──▶ Idle or Waiting
//! ```
//!
//! - A better claim always ends an answer, and nothing but a better claim, or the end of the
//!   Service, does. A holder that is no candidate any more keeps answering until its successor
//!   has claimed (make before break). A holder that nobody answers keeps answering.
//! - While `Probing`, `Refused`, `Checking` and `Waiting`, the node is silent.

use std::fmt;
use std::time::Duration;

use crate::Time;
use crate::timing::{
    ADDRESS_PROBE_INTERVAL, ADDRESS_PROBES, CHECK, CHECK_LIMIT, CHECK_REPEAT, CONFLICT_FAST,
    CONFLICT_POLL, CONFLICT_QUESTIONS, CONFLICT_SHARE, CONFLICT_SLOW_POLL, STAGGER_DEAD,
    STAGGER_FIRST, STAGGER_PLANNED, TICK, UNUSABLE,
};

/// What this node does about one address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Nothing.
    #[default]
    Idle,
    /// It will claim the address when its turn comes.
    Waiting {
        /// Why.
        cause: Cause,
        /// Since when.
        since: Time,
    },
    /// It claimed the address at epoch 1, and probes whether a foreign host uses it (RFC 5227).
    Probing {
        /// Probes that are left.
        left: u8,
        /// When the next step is due.
        next: Time,
    },
    /// It claimed the address, but another host uses it. It asks until that host is gone.
    Refused {
        /// Since when.
        since: Time,
        /// When it asked last.
        asked: Time,
        /// The questions since the last answer.
        unanswered: u8,
    },
    /// It holds the address, and finds out whether it still does.
    Checking {
        /// When the check began.
        since: Time,
        /// When it asks again.
        ask: Time,
    },
    /// It holds the address and answers.
    Answering,
    /// It answers with the holder's MAC while the holder's agent is silent.
    StandingIn,
}

/// Why another node than the present holder should claim an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// Nobody ever held it.
    First,
    /// The host check says that the holder's host, or its link, is gone.
    HostDead,
    /// The holder's agent is silent for longer than a restart takes.
    AgentGone,
    /// The holder's Lease has expired and nothing else is heard of it.
    LeaseExpired,
    /// The holder's Node object was deleted.
    NodeDeleted,
    /// The holder is no candidate any more: a planned move.
    NotCandidate,
    /// The holder has no serving endpoint any more, and the policy is Local.
    EndpointsMoved,
    /// The holder published that its interface is not usable.
    Unusable,
    /// The holder is fine. This node is to hold it so that addresses spread evenly.
    Rebalance,
}

/// Why a node announces an address, as its Announcer object and the metrics say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// No node announced it before.
    New,
    /// The host of the former holder, or its link, no longer answered.
    HostDown,
    /// The announcer of the former holder ended, or was stuck, and did not come back.
    AnnouncerDown,
    /// The Lease of the former holder expired.
    LeaseExpired,
    /// The former holder was cordoned, tainted, excluded or deleted, lost its interface, or is
    /// not selected any more.
    NotEligible,
    /// The former holder had no serving endpoint (policy Local).
    EndpointsMoved,
    /// Addresses were spread evenly.
    Rebalanced,
    /// Two nodes claimed it while they could not reach each other, and this one won.
    Healed,
}

/// All that matters for one address at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts")]
pub struct Situation {
    /// A Service has the address.
    pub wanted: bool,
    /// The best known claim names this node.
    pub mine: bool,
    /// Why another node should claim it.
    pub cause: Option<Cause>,
    /// This node's place among those that may claim it; `None` if it may not claim now.
    pub turn: Option<usize>,
    /// An extra delay, because the address moved often.
    pub damping: Duration,
    /// The holder's agent is silent, its host answers, and this node is its first successor.
    pub stand_in: bool,
    /// Some host answers this node, or it knows no host.
    pub contact: bool,
    /// Another host was heard to own the address a moment ago; in [`State::Refused`] since the
    /// last question.
    pub contradicted: bool,
    /// The addresses of this node that other hosts use.
    pub refused: usize,
    /// This node can learn of better claims: from gossip or from the API server.
    pub informed: bool,
}

/// What the node must do for an address now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Claim it: the next state is [`State::claimed`].
    Claim(Cause),
    /// Ask the segment who has it.
    Query,
    /// Ask the segment and the peers who has it.
    Ask,
}

// === impl State ===

impl State {
    /// The state of a node that has just claimed an address.
    pub fn claimed(epoch: u64, now: Time) -> Self {
        if epoch == 1 {
            Self::Probing {
                left: ADDRESS_PROBES,
                next: now,
            }
        } else {
            Self::Answering
        }
    }

    /// A claim check: after a stall, a carrier-up, regained contact or a restart.
    pub fn checking(now: Time) -> Self {
        Self::Checking {
            since: now,
            ask: now,
        }
    }

    /// Whether time alone can change the state.
    pub fn is_timed(self) -> bool {
        !matches!(self, Self::Idle | Self::Answering)
    }

    /// Whether the node holds the address, silent or not.
    pub fn holds(self) -> bool {
        matches!(
            self,
            Self::Probing { .. } | Self::Refused { .. } | Self::Checking { .. } | Self::Answering
        )
    }
}

// === impl Cause ===

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::First => "no node has announced it yet",
            Self::HostDead => "the host of its holder, or its link, is dead",
            Self::AgentGone => "the announcer of its holder ended and did not come back",
            Self::LeaseExpired => "the Lease of its holder has expired",
            Self::NodeDeleted => "the Node object of its holder was deleted",
            Self::NotCandidate => "its holder is no candidate any more",
            Self::EndpointsMoved => "its holder has no serving endpoint any more",
            Self::Unusable => "the interface of its holder is not usable",
            Self::Rebalance => "addresses are spread evenly over the nodes",
        })
    }
}

impl Cause {
    /// The holder lives: it answers until this node has claimed the address.
    pub fn is_planned(self) -> bool {
        matches!(
            self,
            Self::NotCandidate | Self::EndpointsMoved | Self::Unusable | Self::Rebalance
        )
    }

    /// The cause as others see it.
    pub fn origin(self) -> Origin {
        match self {
            Self::First => Origin::New,
            Self::HostDead | Self::Unusable => Origin::HostDown,
            Self::AgentGone => Origin::AnnouncerDown,
            Self::LeaseExpired => Origin::LeaseExpired,
            Self::NodeDeleted | Self::NotCandidate => Origin::NotEligible,
            Self::EndpointsMoved => Origin::EndpointsMoved,
            Self::Rebalance => Origin::Rebalanced,
        }
    }

    /// How long the cause must hold before the first node's turn.
    fn patience(self) -> Duration {
        match self {
            // What a holder publishes is old for a moment after its interface is usable again.
            Self::Unusable => UNUSABLE,
            _ => Duration::ZERO,
        }
    }

    /// The time between two nodes' turns.
    fn stagger(self) -> Duration {
        match self {
            Self::First => STAGGER_FIRST,
            Self::HostDead => STAGGER_DEAD,
            Self::AgentGone
            | Self::LeaseExpired
            | Self::NodeDeleted
            | Self::NotCandidate
            | Self::EndpointsMoved
            | Self::Unusable
            | Self::Rebalance => STAGGER_PLANNED,
        }
    }
}

// === impl Origin ===

impl Origin {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::New,
        Self::HostDown,
        Self::AnnouncerDown,
        Self::LeaseExpired,
        Self::NotEligible,
        Self::EndpointsMoved,
        Self::Rebalanced,
        Self::Healed,
    ];

    /// Its name in the Announcer object and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::New => "New",
            Self::HostDown => "HostDown",
            Self::AnnouncerDown => "AnnouncerDown",
            Self::LeaseExpired => "LeaseExpired",
            Self::NotEligible => "NotEligible",
            Self::EndpointsMoved => "EndpointsMoved",
            Self::Rebalanced => "Rebalanced",
            Self::Healed => "Healed",
        }
    }
}

/// The next state, and what to do. Call it again at once after [`Act::Claim`] is done.
pub fn step(state: State, situation: &Situation, now: Time) -> (State, Option<Act>) {
    if !situation.wanted {
        return (State::Idle, None);
    }
    if situation.mine {
        held(state, situation, now)
    } else if state.holds() {
        // A better claim: the withdrawal. What this node does next, the next step decides.
        (State::Idle, None)
    } else {
        not_held(state, situation, now)
    }
}

fn held(state: State, situation: &Situation, now: Time) -> (State, Option<Act>) {
    match state {
        State::Idle | State::Waiting { .. } | State::StandingIn => (State::checking(now), None),
        State::Refused {
            since,
            asked,
            unanswered,
        } => refused(since, asked, unanswered, situation, now),
        State::Probing { .. } if situation.contradicted => {
            let refused = State::Refused {
                since: now,
                asked: now,
                unanswered: 0,
            };
            (refused, None)
        }
        State::Probing { next, .. } if now < next => (state, None),
        State::Answering | State::Probing { left: 0, .. } => (State::Answering, None),
        State::Probing { left, .. } => {
            let next = State::Probing {
                left: left - 1,
                next: now + ADDRESS_PROBE_INTERVAL,
            };
            (next, Some(Act::Query))
        }
        State::Checking { since, ask } => checked(since, ask, situation, now),
    }
}

fn refused(
    since: Time,
    asked: Time,
    unanswered: u8,
    situation: &Situation,
    now: Time,
) -> (State, Option<Act>) {
    let unanswered = if situation.contradicted {
        0
    } else {
        unanswered
    };
    let pause = match unanswered {
        0 => pause(now.since(since), situation.refused),
        _ => TICK,
    };
    if now.since(asked) < pause {
        let same = State::Refused {
            since,
            asked,
            unanswered,
        };
        return (same, None);
    }
    // A node that hears nobody learns nothing from silence.
    if unanswered >= CONFLICT_QUESTIONS && situation.contact {
        return (State::Answering, None);
    }
    let next = State::Refused {
        since,
        asked: now,
        unanswered: (unanswered + 1).min(CONFLICT_QUESTIONS),
    };
    (next, Some(Act::Query))
}

/// The time between two questions for an address that another host uses.
fn pause(age: Duration, refused: usize) -> Duration {
    let poll = if age < CONFLICT_FAST {
        CONFLICT_POLL
    } else {
        CONFLICT_SLOW_POLL
    };
    let refused = u32::try_from(refused).unwrap_or(u32::MAX);
    poll.max(CONFLICT_SHARE.saturating_mul(refused))
}

fn checked(since: Time, ask: Time, situation: &Situation, now: Time) -> (State, Option<Act>) {
    let age = now.since(since);
    // A holder that can hear of better claims, and heard none for 2 s, is the holder.
    let settled = age >= CHECK_LIMIT && situation.informed;
    let clear = !situation.contradicted && (situation.contact || age >= CHECK_LIMIT);
    if settled || (age >= CHECK && clear) {
        return (State::Answering, None);
    }
    if now < ask {
        return (State::Checking { since, ask }, None);
    }
    // Twice within the check, because a frame may be lost.
    let pause = if age < CHECK / 2 {
        CHECK / 2
    } else {
        CHECK_REPEAT
    };
    let ask = now + pause;
    (State::Checking { since, ask }, Some(Act::Ask))
}

fn not_held(state: State, situation: &Situation, now: Time) -> (State, Option<Act>) {
    let (Some(cause), Some(turn)) = (situation.cause, situation.turn) else {
        let next = if situation.stand_in {
            State::StandingIn
        } else {
            State::Idle
        };
        return (next, None);
    };
    let since = match state {
        State::Waiting {
            cause: other,
            since,
        } if other == cause => since,
        _ => now,
    };
    let turn = u32::try_from(turn).unwrap_or(u32::MAX).min(100);
    let delay = cause.patience() + cause.stagger() * turn + situation.damping;
    if now.since(since) >= delay {
        return (state, Some(Act::Claim(cause)));
    }
    (State::Waiting { cause, since }, None)
}

#[cfg(test)]
mod tests;
