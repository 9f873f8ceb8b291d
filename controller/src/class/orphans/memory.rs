//! What a process remembers from one survey to the next. Pure.
//!
//! [`Memory::listen`] looks for signs of somebody else. Without them a copy of the cluster and its
//! original would delete each other's load balancers.

use std::collections::BTreeMap;

use ballast_provider::mark::{LAST_SEEN, ORPHANED_AT, Sign};
use ballast_provider::{Key, Owned, ServiceId};
use jiff::{SignedDuration, Timestamp};

use super::decide::Look;

/// A copy that gives no sign for so long is no longer there.
const FORGET: SignedDuration = SignedDuration::from_hours(72);
/// Clocks differ by less, and the former leader's last writes are listed within this time.
const SKEW: SignedDuration = SignedDuration::from_mins(2);

/// What a Service has on one balancer.
pub(super) type Name = (ServiceId, Key);

/// What earlier surveys of this process have shown. A new process begins anew: it deletes later.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// Signs of others that are newer than this come from outside of this cluster.
    since: Option<Timestamp>,
    /// The tags with signs that each object had, by its ID.
    signs: BTreeMap<String, [Option<Sign>; 2]>,
    /// The orphans that the last survey has shown, and when one did so first.
    pub(super) shown: BTreeMap<Name, Timestamp>,
    /// The last foreign sign: when it was found, and on what.
    pub(super) foreign: Option<(Timestamp, String)>,
    /// When orphans were deleted, within the last hour.
    pub(super) deleted: Vec<(Timestamp, Name)>,
}

fn signs_of(object: &Owned) -> [Option<Sign>; 2] {
    [LAST_SEEN, ORPHANED_AT].map(|key| Sign::of(&object.tags, key))
}

// === impl Memory ===

impl Memory {
    /// The memory of a new process. `former`: when the process that led before it did so last, as the
    /// API server knows it. What others have written later was written for another API server.
    pub fn new(former: Option<Timestamp>) -> Self {
        Self {
            since: former,
            ..Self::default()
        }
    }

    /// With what the former process has found: `(when, object)`.
    #[must_use]
    pub fn with_foreign(mut self, foreign: Option<(Timestamp, String)>) -> Self {
        self.foreign = foreign;
        self
    }

    /// Whether nobody in this cluster can have written a sign.
    fn is_foreign(&self, look: &Look<'_>, sign: &Sign) -> bool {
        let since = self.since.unwrap_or(look.now);
        let after = since.checked_add(SKEW).unwrap_or(Timestamp::MAX);
        sign.writer != look.writer && sign.at > after
    }

    /// Whether an object has a sign of somebody else. Nobody here has signed it since, so it is the other one's.
    pub(super) fn is_of_somebody_else(&self, look: &Look<'_>, object: &Owned) -> bool {
        let signs = signs_of(object);
        let mut signs = signs.iter().flatten();
        signs.any(|sign| self.is_foreign(look, sign))
    }

    /// Looks for signs of somebody else that nobody in this cluster can have written, and remembers all
    /// signs.
    pub(super) fn listen(&mut self, look: &Look<'_>) {
        self.since.get_or_insert(look.now);
        let mut signs = BTreeMap::new();
        for object in look.objects {
            let now = signs_of(object);
            let before = self.signs.get(&object.id);
            let news = now.iter().enumerate().filter_map(|(number, sign)| {
                let sign = sign.as_ref()?;
                let known = before.and_then(|before| before[number].as_ref());
                (known != Some(sign)).then_some(sign)
            });
            if news.into_iter().any(|sign| self.is_foreign(look, sign)) {
                self.foreign = Some((look.now, object.name.clone()));
            }
            signs.insert(object.id.clone(), now);
        }
        self.signs = signs;
        let over = |(at, _): &(Timestamp, String)| look.now.duration_since(*at) >= FORGET;
        if self.foreign.as_ref().is_some_and(over) {
            self.foreign = None;
        }
    }
}
