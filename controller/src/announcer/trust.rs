//! Which Announcer objects count. Pure, with the time as an argument.
//!
//! All announcers share one account. A policy of the API server lets the token of a node write only the
//! object of that node; but whoever has the token could write into it that the node holds every
//! address. So an object counts only if it has a seal with a key that all announcers share, which
//! the token cannot read.
//!
//! ```text
//!                     valid seal, no lower serial
//!  object changed ───────────────────────────────▶ counts
//!        │ no seal, a wrong one, or a lower serial
//!        ▼
//!    is refused: what counted before still counts, as if nobody had written
//! ```
//!
//! - **A refused object changes nothing**, and its node corrects it within about two seconds.
//! - **An old status of the same object does not count again**: its serial is lower than one that
//!   counted here. A process that has just started knows none.
//! - **A key can arrive after the object that it sealed**: refused objects are looked at again when
//!   the keys change.
//! - **An object that somebody deletes counts for a few seconds more**: its announcer creates it again
//!   at once, and without it the node would have no interfaces, and others would take its addresses.
//! - Without a key every object counts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ballast_agent::seal::Keyring;
use tokio::time::Instant;

use super::facts::AnnouncerFacts;

/// How long a deleted Announcer object counts.
const KEPT: Duration = Duration::from_secs(5);
/// How long a refused object is reported after it was corrected: so that people see it, and somebody
/// who repeats it causes no more writes.
const REPORTED: Duration = Duration::from_mins(5);
/// The refused objects that are reported. A cluster has no more nodes.
const MOST_REPORTED: usize = ballast_announce::timing::PEERS;

/// Which objects count.
#[derive(Debug, Default)]
pub struct Trust {
    /// `None`: there is no key, and every object counts.
    keyring: Option<Arc<Keyring>>,
    counting: BTreeMap<Arc<str>, Counting>,
    /// The objects with wrong seals, now or a while ago.
    reported: BTreeMap<Arc<str>, Reported>,
}

/// Why an object does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// It has no seal.
    NoSeal,
    /// No seal is valid.
    WrongSeal,
    /// It is older than one that counted. That is harmless: a write that waited in a cut
    /// connection is one, too.
    Outdated,
}

/// What an object means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It counts.
    Counts,
    /// It was deleted, or its announcer has not written a status yet.
    Nothing,
    /// It does not count. Whether that is news.
    Refused(Refusal, bool),
}

#[derive(Debug)]
struct Counting {
    facts: Arc<AnnouncerFacts>,
    /// Until then, if the object was deleted.
    until: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Reported {
    why: Refusal,
    /// Until then, if it counts again.
    until: Option<Instant>,
}

// === impl Trust ===

impl Trust {
    /// Believes what is sealed with one of these keys; everything without keys.
    pub fn new(keyring: Option<Arc<Keyring>>) -> Self {
        Self {
            keyring,
            ..Self::default()
        }
    }

    /// An object changed, or was deleted.
    pub fn change(
        &mut self,
        name: &Arc<str>,
        facts: Option<Arc<AnnouncerFacts>>,
        now: Instant,
    ) -> Verdict {
        self.forget(now);
        let verdict = match &facts {
            Some(facts) => self.judge(name, facts),
            None => Verdict::Nothing,
        };
        match (verdict, facts) {
            (Verdict::Counts, Some(facts)) => {
                let until = None;
                let counts = Counting { facts, until };
                self.counting.insert(Arc::clone(name), counts);
            }
            (Verdict::Nothing, _) => {
                if let Some(deleted) = self.counting.get_mut(name) {
                    deleted.until.get_or_insert(now + KEPT);
                }
            }
            _ => {}
        }
        match verdict {
            Verdict::Refused(why, _) if why != Refusal::Outdated => {
                let room = self.reported.len() < MOST_REPORTED;
                if room || self.reported.contains_key(name) {
                    let reported = Reported { why, until: None };
                    self.reported.insert(Arc::clone(name), reported);
                }
            }
            Verdict::Refused(..) => {}
            Verdict::Counts | Verdict::Nothing => {
                if let Some(reported) = self.reported.get_mut(name) {
                    reported.until.get_or_insert(now + REPORTED);
                }
            }
        }
        verdict
    }

    fn judge(&self, name: &Arc<str>, facts: &AnnouncerFacts) -> Verdict {
        let Some(keyring) = &self.keyring else {
            return Verdict::Counts;
        };
        let before = self.counting.get(name).map(|it| &it.facts);
        let same = before.filter(|before| before.uid == facts.uid);
        let refused = |why| {
            let reported = self.reported.get(name);
            Verdict::Refused(why, reported.is_none_or(|it| it.why != why))
        };
        if !facts.written && same.is_none() {
            return Verdict::Nothing;
        }
        if facts.seals.is_empty() {
            return refused(Refusal::NoSeal);
        }
        if !keyring.opens_object(&facts.content, &facts.seals) {
            return refused(Refusal::WrongSeal);
        }
        if same.is_some_and(|before| facts.serial < before.serial) {
            return refused(Refusal::Outdated);
        }
        Verdict::Counts
    }

    /// The objects that count.
    pub fn counting(&mut self, now: Instant) -> Vec<Arc<AnnouncerFacts>> {
        self.forget(now);
        let counting = self.counting.values();
        counting.map(|it| Arc::clone(&it.facts)).collect()
    }

    /// The object of a node, as far as it counts.
    pub fn get(&self, name: &str) -> Option<Arc<AnnouncerFacts>> {
        self.counting.get(name).map(|it| Arc::clone(&it.facts))
    }

    /// The objects with wrong seals, now or a while ago, by name.
    pub fn refused(&mut self, now: Instant) -> Vec<(Arc<str>, Refusal)> {
        self.forget(now);
        let reported = self.reported.iter();
        reported
            .map(|(name, it)| (Arc::clone(name), it.why))
            .collect()
    }

    /// The objects that are refused now.
    pub fn refused_now(&self) -> Vec<Arc<str>> {
        let reported = self.reported.iter();
        let now = reported.filter(|(_, it)| it.until.is_none());
        now.map(|(name, _)| Arc::clone(name)).collect()
    }

    /// When [`Self::counting`] has fewer objects without a change.
    pub fn expiry(&self) -> Option<Instant> {
        self.counting.values().filter_map(|it| it.until).min()
    }

    /// When [`Self::refused`] has fewer objects without a change.
    pub fn next_report(&self) -> Option<Instant> {
        self.reported.values().filter_map(|it| it.until).min()
    }

    fn forget(&mut self, now: Instant) {
        let later = |until: Option<Instant>| until.is_none_or(|until| now < until);
        self.counting.retain(|_, it| later(it.until));
        self.reported.retain(|_, it| later(it.until));
    }
}

// === impl Refusal ===

impl Refusal {
    /// All of them, in their order.
    pub const ALL: [Self; 3] = [Self::NoSeal, Self::WrongSeal, Self::Outdated];

    /// The value of a label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoSeal => "no_seal",
            Self::WrongSeal => "wrong_seal",
            Self::Outdated => "outdated",
        }
    }
}

#[cfg(test)]
mod tests;
