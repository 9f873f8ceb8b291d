//! Which key seals and which ones open while the key changes.
//!
//! The Secret reaches the nodes at different times, up to about two minutes apart (the kubelet's
//! sync period and its cache). Nobody coordinates the change, and the file may lose the old key in
//! the moment in which it gets the new one. So a node seals with a new key only when every other
//! node has it, and opens with an old one until nobody seals with it:
//!
//! ```text
//!            in the file                        5 min                 not in the file
//! (unknown) ────────────▶ opens ──────────────────────▶ opens, seals ─────────────────┐
//!                           │ not in the file                                         ▼
//!                           └──────────────────────────────▶ opens; seals at most 7 min more
//!                                                                 │ 10 min
//!                                                                 ▼
//!                                                              (unknown)
//! ```
//!
//! - Of the keys in the file, the first one that was known for 5 min seals. So a file should name
//!   the newest key first.
//! - If there is none, a key that has vanished seals; before any key was known for 5 min (after
//!   a start), the oldest one: the last of the file.
//! - A node that restarts knows the file alone. If that has only the new key, the others cannot
//!   know that this node lacks the old one, until they have the new one and this node's message
//!   opens with it. So a key that a peer used is preferred if it is newer than the own choice, or
//!   in the file while the own choice is not. (Never an older one: two nodes would hold each
//!   other to it.)
//! - A key that returns to the file soon continues as if it had always been there. Later it
//!   counts as new, because another node may have forgotten it meanwhile.

use std::cmp::Reverse;
use std::time::Duration;

use ballast_announce::Time;

use super::Key;

/// The keys that a file may have.
pub const MAX_KEYS: usize = 8;

/// A new key seals after this time. The slowest kubelet needs two minutes.
const KNOWN_TO_ALL: Duration = Duration::from_mins(5);
/// A key that has vanished seals at most this long.
const SEALS: Duration = Duration::from_mins(7);
/// A key that returns to the file within this time was forgotten by nobody: another node may have
/// seen it vanish two minutes earlier and return two minutes later.
const RETURNS: Duration = Duration::from_mins(5);
/// A key that has vanished opens this long. Two minutes longer, for a node that saw it vanish
/// earlier than the one that seals, and one minute for what is under way.
const OPENS: Duration = Duration::from_mins(10);
/// Keys of the file, and as many that have vanished.
pub const MAX_KNOWN: usize = 2 * MAX_KEYS;

/// Names a key within this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyId(u64);

/// The keys that this process knows.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    /// Those of the file in its order, then those that have vanished.
    known: Vec<Known>,
    latest: u64,
}

#[derive(Clone, Debug)]
struct Known {
    id: KeyId,
    key: Key,
    since: Time,
    vanished: Option<Time>,
}

// === impl Keys ===

impl Keys {
    /// The file was read and has these keys. At most [`MAX_KEYS`] count.
    pub fn update(&mut self, file: &[Key], now: Time) {
        let mut former = std::mem::take(&mut self.known);
        for key in file.iter().take(MAX_KEYS) {
            if self.known.iter().any(|known| known.key == *key) {
                continue;
            }
            let known = former.iter().position(|known| known.key == *key);
            let known = known.map(|place| former.remove(place));
            let known = known.filter(|known| known.vanished_within(RETURNS, now));
            let known = known.unwrap_or_else(|| self.learn(key, now));
            self.known.push(Known {
                vanished: None,
                ..known
            });
        }
        for known in &mut former {
            known.vanished.get_or_insert(now);
        }
        former.retain(|known| known.opens(now));
        former.sort_by_key(|known| Reverse(known.vanished));
        self.known.append(&mut former);
        self.known.truncate(MAX_KNOWN);
    }

    fn learn(&mut self, key: &Key, now: Time) -> Known {
        self.latest += 1;
        Known {
            id: KeyId(self.latest),
            key: key.clone(),
            since: now,
            vanished: None,
        }
    }

    /// The keys that open, the likeliest first.
    pub fn opening(&self, now: Time) -> impl Iterator<Item = (KeyId, &Key)> {
        let open = self.known.iter().filter(move |known| known.opens(now));
        open.map(|known| (known.id, &known.key))
    }

    /// The keys of the file.
    pub fn in_file(&self) -> impl Iterator<Item = &Key> {
        let file = self.known.iter().filter(|known| known.vanished.is_none());
        file.map(|known| &known.key)
    }

    /// The keys that seal an object: those of the file, and those that vanished a while ago. Another
    /// node may have one of them alone.
    pub fn sealing_objects(&self, now: Time) -> impl Iterator<Item = &Key> {
        let sealing = self.known.iter().filter(move |known| known.seals(now));
        sealing.map(|known| &known.key)
    }

    /// The key that seals a message to a peer that used the key `heard` last. `None` before the
    /// first file.
    pub fn sealing(&self, heard: Option<KeyId>, now: Time) -> Option<&Key> {
        let own = self.choice(now)?;
        let heard = self
            .known
            .iter()
            .find(|known| Some(known.id) == heard && known.seals(now));
        let newer = heard.filter(|heard| heard.age_order() < own.age_order());
        Some(&newer.unwrap_or(own).key)
    }

    fn choice(&self, now: Time) -> Option<&Known> {
        let settled = |known: &&Known| now.since(known.since) >= KNOWN_TO_ALL;
        let in_file = |known: &&Known| known.vanished.is_none();
        let mut file = self.known.iter().filter(in_file).filter(settled);
        let vanished = self.known.iter().filter(settled);
        let vanished = vanished.filter(|known| known.seals(now));
        file.next()
            .or_else(|| vanished.min_by_key(|known| known.since))
            .or_else(|| self.oldest(now))
    }

    /// Of equally old ones the one that is longest in the file, and of those the last.
    fn oldest(&self, now: Time) -> Option<&Known> {
        let open = self.known.iter().filter(|known| known.opens(now));
        open.rev()
            .min_by_key(|known| (known.since, known.vanished.map(Reverse)))
    }
}

// === impl Known ===

impl Known {
    /// Sorts the newest first: of one file, the first key is the newest.
    fn age_order(&self) -> (Option<Reverse<Time>>, Reverse<Time>, KeyId) {
        (self.vanished.map(Reverse), Reverse(self.since), self.id)
    }

    fn opens(&self, now: Time) -> bool {
        self.vanished_within(OPENS, now)
    }

    fn seals(&self, now: Time) -> bool {
        self.vanished_within(SEALS, now)
    }

    /// Whether it is in the file, or was a while ago.
    fn vanished_within(&self, time: Duration, now: Time) -> bool {
        self.vanished.is_none_or(|at| now.since(at) < time)
    }
}

#[cfg(test)]
mod tests;
