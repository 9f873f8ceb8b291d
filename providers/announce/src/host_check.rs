//! Host check: a prober finds out that a holder's host, or its link, is gone.
//!
//! One [`Check`] per host and interface. The driver sends the probes (a unicast ARP request or
//! neighbour solicitation to the node's own address, or an ICMP echo), and the host's kernel
//! answers them, so a busy or stopped agent is never mistaken for a dead host.
//!
//! ```text
//!            proof                               proof, or a peer vouches
//! Unproven ─────────▶ Alive ◀──────────────────────────────┐
//!                      │  ▲                                │
//!    2 misses in a row │  │ proof                          │
//!                      ▼  │                                │
//!                     Doubted ── burst of 5 unanswered ──▶ a witness answered since the doubt began?
//!                      ▲                                   │ no: I may be the one cut off
//!                      └───────────────────────────────────┤
//!                                                          │ yes
//!                     Dead ◀───────────────────────────────┘
//!                      │ proof
//!                      └────────▶ Alive
//!
//! any state ── this node was stopped ──▶ Alive (Unproven stays): its suspicions are void
//! Doubted ── a late tick ──▶ the probes under way are sent again
//! Doubted ── this node was cut off until now ──▶ the burst is sent again
//! ```
//!
//! - *Proof* is an answer to a probe, or a message of the host's agent that arrived on the same
//!   interface.
//! - A host that never answered is not judged (`Unproven`); its Lease decides.
//! - At the start of a doubt the prober asks peers for a second opinion. A peer that reaches the
//!   host vouches for it. So a broken path between two nodes moves nothing.
//! - No verdict before the next message of the host's agent was due. Messages that arrive show that
//!   only the path to the host is broken, not the one from it. With two nodes nobody else could tell,
//!   and both would answer until the path is back: the holder does not hear that it lost.
//! - A message that says "I am cut off" is no proof, delays no verdict, and begins a doubt: its sender
//!   hears nobody, clients included, as a host does whose port only sends.
//! - A check has no mode. `Tolerant` addresses wait until the host has not answered for 5 s
//!   ([`Check::dead_for`]).

mod contact;
mod receipts;

use std::collections::VecDeque;
use std::time::Duration;

pub use contact::{Contact, Polled};
pub use receipts::Receipts;

use crate::Time;
use crate::slip::{Slips, slip};
use crate::timing::{
    BEAT_DUE, BURST, BURST_SPACING, DOUBT_REPEAT, MISSES, PROBE_INTERVAL, PROBE_TIMEOUT,
};

/// The check of one host on one interface.
#[derive(Clone, Debug)]
pub struct Check {
    state: State,
    /// When the probes under way were sent, oldest first. At most [`PROBE_TIMEOUT`] divided by
    /// [`BURST_SPACING`], plus one.
    under_way: VecDeque<Time>,
    missed: u32,
    next: Time,
    proven: Time,
    /// When the host's agent was heard last.
    spoke: Option<Time>,
    /// When peers were asked last.
    asked: Time,
    slips: Slips,
}

/// The states of a [`Check`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The host has never answered this prober.
    Unproven,
    /// It answers.
    Alive,
    /// It missed probes; the burst runs.
    Doubted {
        /// When the doubt began.
        since: Time,
        /// Probes of the burst that were sent.
        sent: u32,
    },
    /// It does not answer, and others do.
    Dead,
}

/// What the driver must send now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// A probe to the host.
    pub probe: bool,
    /// Probes to witnesses.
    pub witnesses: bool,
    /// A question to peers whether the host answers them.
    pub second_opinion: bool,
}

// === impl Check ===

impl Check {
    /// A check of a host that has not answered yet.
    pub fn new(now: Time) -> Self {
        Self {
            state: State::Unproven,
            under_way: VecDeque::new(),
            missed: 0,
            next: now,
            proven: now,
            spoke: None,
            asked: now,
            slips: Slips::default(),
        }
    }

    /// A check that a peer asked for, which the host answered at this moment.
    pub fn requested(proven: Time, now: Time) -> Self {
        Self {
            state: State::Alive,
            proven,
            ..Self::new(now)
        }
    }

    pub(crate) fn with_slips(self, slips: Slips) -> Self {
        Self { slips, ..self }
    }

    /// The current state.
    pub fn state(&self) -> State {
        self.state
    }

    /// Whether nothing must be judged before the next regular probe.
    pub fn is_quiet(&self) -> bool {
        match self.state {
            State::Unproven => true,
            State::Alive => self.missed == 0,
            State::Doubted { .. } | State::Dead => false,
        }
    }

    /// How long the host has not answered, if it counts as dead.
    pub fn dead_for(&self, now: Time) -> Option<Duration> {
        (self.state == State::Dead).then(|| now.since(self.proven))
    }

    /// When the host was last known to live.
    pub fn proven_at(&self) -> Time {
        self.proven
    }

    /// The host's agent was heard on this interface.
    pub fn spoke(&mut self, now: Time) {
        self.spoke = Some(now);
        self.proof(now);
    }

    /// The host's agent was heard, and says that nothing reaches it on this network.
    pub fn cut_off(&mut self) {
        self.spoke = None;
        if self.state == State::Alive {
            self.missed = self.missed.max(MISSES);
        }
    }

    /// The host answered.
    pub fn proof(&mut self, now: Time) {
        self.proven = now;
        self.under_way.clear();
        self.missed = 0;
        self.state = State::Alive;
    }

    /// A peer reaches the host. Counts only during a doubt: afterwards the host may have died.
    pub fn vouch(&mut self) {
        if matches!(self.state, State::Doubted { .. }) {
            self.state = State::Alive;
            self.under_way.clear();
            self.missed = 0;
        }
    }

    /// A tick was late: answers to the probes under way may lie unread, so they count for nothing.
    /// What was missed before stays missed: otherwise a busy node would never notice anything.
    pub fn late(&mut self, now: Time) {
        if slip!(self.slips, KeepSuspicions) {
            return;
        }
        let void = u32::try_from(self.under_way.len()).unwrap_or(u32::MAX);
        self.under_way.clear();
        self.next = now;
        if let State::Doubted { sent, .. } = &mut self.state {
            *sent = sent.saturating_sub(void);
        }
    }

    /// This node was cut off until now: the probes of a doubt were lost with all others.
    pub fn restart(&mut self, now: Time) {
        if matches!(self.state, State::Doubted { .. }) {
            self.doubt(now);
        }
    }

    /// This node was stopped: nothing that was missed counts.
    pub fn discard(&mut self, now: Time) {
        if slip!(self.slips, KeepSuspicions) {
            return;
        }
        self.under_way.clear();
        self.missed = 0;
        self.next = now;
        if self.state != State::Unproven {
            self.state = State::Alive;
        }
    }

    /// Judges what was not answered in time, and says what to send now. `witness`: when any other
    /// host of the segment answered last.
    pub fn poll(&mut self, now: Time, witness: Option<Time>) -> Step {
        self.expire(now);
        let begins = self.state == State::Alive && self.missed >= self.misses();
        if begins {
            self.doubt(now);
        }
        let mut step = Step {
            second_opinion: begins,
            witnesses: begins,
            probe: false,
        };
        if let State::Doubted { since, sent } = self.state
            && sent == BURST
            && self.under_way.is_empty()
            && !self.may_speak(now)
        {
            let contact = witness.is_some_and(|answered| answered > since);
            if contact || slip!(self.slips, NoWitness) {
                self.state = State::Dead;
            } else {
                self.doubt(now);
                step.second_opinion = true;
                step.witnesses = true;
            }
        }
        // Successors that are no probers check the host only while they are asked.
        step.second_opinion |= self.state == State::Dead && now.since(self.asked) >= DOUBT_REPEAT;
        if step.second_opinion {
            self.asked = now;
        }
        self.send(now, &mut step);
        step
    }

    /// Whether the next message of the host's agent may still be under way.
    fn may_speak(&self, now: Time) -> bool {
        let hasty = [slip!(self.slips, HastyVerdict), slip!(self.slips, OneMiss)].contains(&true);
        let due = |spoke: Time| now.since(spoke) >= BEAT_DUE;
        !hasty && self.spoke.is_some_and(|spoke| !due(spoke))
    }

    fn doubt(&mut self, now: Time) {
        self.state = State::Doubted {
            since: now,
            sent: 0,
        };
        self.under_way.clear();
        self.next = now;
    }

    fn send(&mut self, now: Time, step: &mut Step) {
        if now < self.next {
            return;
        }
        match &mut self.state {
            State::Doubted { sent, .. } if *sent == BURST => return,
            State::Doubted { sent, .. } => {
                *sent += 1;
                // The first answers of witnesses may have been lost.
                step.witnesses |= *sent == BURST / 2 + 1;
                self.next = now + BURST_SPACING;
            }
            _ => self.next = now + PROBE_INTERVAL,
        }
        self.under_way.push_back(now);
        step.probe = true;
    }

    fn expire(&mut self, now: Time) {
        while let Some(sent) = self.under_way.front() {
            if now.since(*sent) < PROBE_TIMEOUT {
                break;
            }
            self.under_way.pop_front();
            self.missed = self.missed.saturating_add(1);
        }
    }

    fn misses(&self) -> u32 {
        if slip!(self.slips, OneMiss) {
            1
        } else {
            MISSES
        }
    }
}

#[cfg(test)]
mod tests;
