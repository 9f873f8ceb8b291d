//! The rules of the work queue, without a clock, a lock or I/O.
//!
//! Owns the state of every key. Only [`super`] calls it, under its lock and with times that
//! never decrease.
//!
//! Invariants:
//! - `ready` and `delayed` hold exactly the keys whose entry says so, once each.
//! - The keys of a group are in the order in which they became available, so the front is the
//!   oldest. Groups take turns: a group with many keys does not hold up the others.
//! - `turns` holds exactly the groups in `ready`, once each, and none of these is empty.
//! - An entry without failures exists only while its key waits or is worked on.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::Duration,
};

use rand::rngs::SmallRng;
use tokio::time::Instant;

use crate::process::backoff::Backoff;
use crate::process::queue::Key;
use crate::process::room::{give_back, give_back_line};

/// The state of all keys.
pub(super) struct Core<K: Key> {
    entries: HashMap<K, Entry>,
    /// Due keys by group, each with the time from which it could be handed out.
    ready: HashMap<K::Group, VecDeque<(Instant, K)>>,
    /// The groups in the order of their turns.
    turns: VecDeque<K::Group>,
    depth: usize,
    /// Keys that wait for their time; the number distinguishes equal times.
    delayed: BTreeMap<Slot, K>,
    next_number: u64,
    in_flight: usize,
    closed: bool,
    /// Additions are ignored.
    idle: bool,
    wakes: Wakes,
    backoff: Backoff,
    rng: SmallRng,
}

/// What to wake after a change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wakes {
    /// How many keys have become due.
    pub(super) due: usize,
    /// Whether the earliest delayed key has changed to an earlier time.
    pub(super) alarm: bool,
}

type Slot = (Instant, u64);

struct Entry {
    state: State,
    retries: u32,
}

#[derive(Clone, Copy)]
enum State {
    /// Only its failures are recorded.
    Idle,
    Ready,
    Delayed(Slot),
    /// A worker has it; it comes again at the given time.
    Working(Option<Instant>),
}

// === impl Core ===

impl<K: Key> Core<K> {
    pub(super) fn new(backoff: Backoff, rng: SmallRng) -> Self {
        Self {
            entries: HashMap::new(),
            ready: HashMap::new(),
            turns: VecDeque::new(),
            depth: 0,
            delayed: BTreeMap::new(),
            next_number: 0,
            in_flight: 0,
            closed: false,
            idle: false,
            wakes: Wakes::default(),
            backoff,
            rng,
        }
    }

    /// Moves due keys from `delayed` to `ready`.
    pub(super) fn promote(&mut self, now: Instant) {
        while let Some(first) = self.delayed.first_entry() {
            let at = first.key().0;
            if at > now {
                break;
            }
            let key = first.remove();
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.state = State::Ready;
            }
            self.push_ready(at, key);
        }
    }

    /// Adds `key` for the time `at`; the earliest time applies.
    pub(super) fn add(&mut self, key: K, at: Instant, now: Instant) {
        if self.closed || self.idle {
            return;
        }
        let state = self.entries.get(&key).map_or(State::Idle, |e| e.state);
        match state {
            State::Ready => {}
            State::Delayed(slot) if slot.0 <= at => {}
            State::Delayed(slot) => {
                self.delayed.remove(&slot);
                self.schedule(key, at, now);
            }
            State::Idle => self.schedule(key, at, now),
            State::Working(again) => {
                let at = again.map_or(at, |other| other.min(at));
                self.set(key, State::Working(Some(at)));
            }
        }
    }

    /// Counts a failure and adds `key` after its backoff.
    pub(super) fn add_backoff(&mut self, key: K, now: Instant) -> Duration {
        let retries = self.retries(&key);
        let delay = self.backoff.delay(retries, &mut self.rng);
        if !self.closed && !self.idle {
            self.entries.entry(key.clone()).or_default().retries = retries.saturating_add(1);
            self.add(key, now + delay, now);
        }
        delay
    }

    /// Forgets the failures of `key`.
    pub(super) fn forget(&mut self, key: &K) {
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        entry.retries = 0;
        if matches!(entry.state, State::Idle) {
            self.remove(key);
        }
    }

    /// Hands out the key that has waited longest, of the group whose turn it is.
    pub(super) fn take(&mut self) -> Option<K> {
        let group = self.turns.pop_front()?;
        let keys = self.ready.get_mut(&group)?;
        let (_, key) = keys.pop_front()?;
        give_back_line(keys);
        if keys.is_empty() {
            self.ready.remove(&group);
        } else {
            self.turns.push_back(group);
        }
        self.depth -= 1;
        self.in_flight += 1;
        self.set(key.clone(), State::Working(None));
        Some(key)
    }

    /// Records that the worker of `key` is done.
    pub(super) fn done(&mut self, key: &K, now: Instant) {
        self.in_flight -= 1;
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        match entry.state {
            State::Working(Some(at)) if !self.closed => self.schedule(key.clone(), at, now),
            _ if entry.retries > 0 && !self.closed => entry.state = State::Idle,
            _ => self.remove(key),
        }
    }

    /// Sets whether additions are ignored.
    pub(super) const fn set_idle(&mut self, idle: bool) {
        self.idle = idle;
    }

    pub(super) const fn is_idle(&self) -> bool {
        self.idle
    }

    /// Drops waiting keys, and ignores additions from now on.
    pub(super) fn close(&mut self) {
        self.closed = true;
        self.ready.clear();
        self.turns.clear();
        self.depth = 0;
        self.delayed.clear();
        self.entries
            .retain(|_, entry| matches!(entry.state, State::Working(_)));
    }

    pub(super) fn retries(&self, key: &K) -> u32 {
        self.entries.get(key).map_or(0, |entry| entry.retries)
    }

    pub(super) const fn depth(&self) -> usize {
        self.depth
    }

    pub(super) fn delayed(&self) -> usize {
        self.delayed.len()
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    pub(super) fn is_drained(&self) -> bool {
        self.closed && self.in_flight == 0
    }

    /// Since when the longest waiting key could be handed out.
    pub(super) fn oldest(&self) -> Option<Instant> {
        let oldest = self.ready.values().filter_map(VecDeque::front);
        oldest.map(|(since, _)| *since).min()
    }

    /// When the next delayed key is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.delayed.first_key_value().map(|(slot, _)| slot.0)
    }

    /// What to wake for the changes since the last call.
    pub(super) fn take_wakes(&mut self) -> Wakes {
        std::mem::take(&mut self.wakes)
    }

    /// The number of keys that take memory.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    fn remove(&mut self, key: &K) {
        self.entries.remove(key);
        give_back(&mut self.entries);
    }

    /// Adds a key that is not waiting to the list that its time requires.
    fn schedule(&mut self, key: K, at: Instant, now: Instant) {
        if at <= now {
            self.set(key.clone(), State::Ready);
            self.push_ready(now, key);
            return;
        }
        let slot = (at, self.next_number);
        self.next_number += 1;
        self.wakes.alarm |= self.next_due().is_none_or(|due| at < due);
        self.delayed.insert(slot, key.clone());
        self.set(key, State::Delayed(slot));
    }

    fn push_ready(&mut self, since: Instant, key: K) {
        let group = key.group();
        let keys = self.ready.entry(group).or_insert_with_key(|group| {
            self.turns.push_back(group.clone());
            VecDeque::new()
        });
        keys.push_back((since, key));
        self.depth += 1;
        self.wakes.due += 1;
    }

    fn set(&mut self, key: K, state: State) {
        self.entries.entry(key).or_default().state = state;
    }
}

// === impl Entry ===

impl Default for Entry {
    fn default() -> Self {
        Self {
            state: State::Idle,
            retries: 0,
        }
    }
}
