//! AWS's limits for calls, and which waiting call goes next. Pure; `now` is an argument.
//!
//! AWS counts calls of the whole account and region in token buckets, one for each category of
//! actions, and one for all actions of Elastic Load Balancing together. A call that finds its bucket empty fails
//! with `Throttling`, and the failed call counts too. So calls wait here instead. Whoever makes
//! a call first enters [`Waiting`], also for a retry. [`Waiting::next`] lets calls go: the most
//! urgent first. Among equals of one category each [`Owner`] has one call in each round: the calls of plans
//! belong to the namespace of their Service, all others to nobody. So whoever wants a hundred load
//! balancers holds up the others by one. Among equals of two
//! categories it is the one that has waited longest. A call whose bucket is empty does not hold up calls
//! of other categories.
//!
//! Less urgent calls are never passed for ever: after [`PASSED`] calls that were more urgent and took a token
//! that they could have had, one of them goes. So nobody whose changes are urgent keeps others from theirs.
//!
//! ```text
//!              enter               next: a token in each of its buckets
//!   (a call) ────────▶ waiting ─────────────────────────────────────────▶ the call is made
//!                         │                                                     │
//!                         ▼ leave: its caller has given up           throttled: the buckets
//!                (gone, or away)                                     are empty, and fill more
//!                                                                    slowly for some minutes
//! ```
//!
//! A caller that gives up may keep its place: it counts for those behind it, so each of them learns when
//! its own turn comes, however many wait. It holds up nobody: a token that is there goes to whoever
//! is present.
//!
//! AWS's bucket fills from the time at which a call arrives, and calls do not all take equally long. So
//! a bucket that was full fills a little later here than there ([`LATENCY`]).
//!
//! Other programs of the account use the same buckets, and nobody can ask how full they are.
//! After an answer `Throttling` the bucket of the call's category counts as empty, and fills at half
//! its rate; each further answer halves it again, down to a sixteenth. A minute without one doubles
//! the rate again. The account's bucket slows down only if two categories were throttled within a
//! minute: one alone says that its own bucket is empty. Answers to calls that were made before the
//! last slow-down say nothing new.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use tokio::time::Instant;

use self::bucket::Bucket;
pub use self::bucket::LATENCY;
use self::limits::Kind;
pub use self::limits::{Category, Limit, Limits};

mod bucket;
mod limits;

/// How soon a call must go, the most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Urgency {
    /// It changes where traffic of a working load balancer goes: targets above all.
    Traffic,
    /// It belongs to a Service that waits.
    Service,
    /// Nobody waits for it: polls, repairs, cleaning up.
    Background,
}

/// Identifies a call that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

/// For whom a call is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner(u64);

/// What [`Waiting::next`] decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// This call may be made now; its tokens are taken.
    Go(Ticket),
    /// No call may be made before this time, unless another one enters.
    At(Instant),
    /// No call waits.
    Idle,
}

/// The number of calls that may wait. Each is one step of a Service or of a poll, and the
/// controller works on far fewer Services at once.
pub const LONGEST: usize = 4_096;

/// How long a place is kept after its time. Whoever does not come back by then does not come at all.
const KEPT: Duration = Duration::from_secs(30);

/// So many more urgent calls pass those that wait, and then one of these goes.
const PASSED: u32 = 8;

/// The calls that wait, and the buckets that they wait for.
#[derive(Clone, Debug)]
pub struct Waiting {
    buckets: BTreeMap<Kind, Bucket>,
    calls: BTreeMap<Ticket, Call>,
    /// The places of callers that come back, and until when they are kept.
    away: BTreeMap<Ticket, (Call, Instant)>,
    last: u64,
    /// The round in which a call went last.
    round: BTreeMap<(Category, Urgency), u64>,
    /// How many more urgent calls have passed those that wait, since the last of them went.
    passed: BTreeMap<(Category, Urgency), u32>,
    /// The round of the last call of each owner. Bounded: those of past rounds are forgotten.
    owners: BTreeMap<(Category, Urgency, Owner), u64>,
}

/// A call that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Call {
    category: Category,
    urgency: Urgency,
    owner: Owner,
    round: u64,
}

// === impl Owner ===

impl Owner {
    /// The people of a namespace.
    pub fn of(namespace: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        namespace.hash(&mut hasher);
        Self(hasher.finish())
    }
}

// === impl Call ===

impl Call {
    /// Whether one call goes before another one that waits.
    fn precedes(&self, ticket: Ticket, other: &Self, of_other: Ticket) -> bool {
        if self.category == other.category {
            (self.urgency, self.round, ticket) < (other.urgency, other.round, of_other)
        } else {
            (self.urgency, ticket) < (other.urgency, of_other)
        }
    }
}

// === impl Waiting ===

impl Waiting {
    /// No calls, and full buckets. A process that restarts does not know what the former one
    /// used; [`Waiting::throttled`] corrects it.
    pub fn new(limits: &Limits, now: Instant) -> Self {
        let kinds = Category::ALL.into_iter().map(Kind::Of);
        Self {
            buckets: kinds
                .chain([Kind::Account])
                .map(|kind| (kind, Bucket::full(limits.of(kind), now)))
                .collect(),
            calls: BTreeMap::new(),
            away: BTreeMap::new(),
            last: 0,
            round: BTreeMap::new(),
            passed: BTreeMap::new(),
            owners: BTreeMap::new(),
        }
    }

    /// Another call waits. `None` if [`LONGEST`] calls wait already.
    pub fn enter(&mut self, category: Category, urgency: Urgency, owner: Owner) -> Option<Ticket> {
        if self.calls.len() >= LONGEST {
            return None;
        }
        self.last += 1;
        let ticket = Ticket(self.last);
        let past = |of| self.round.get(&of).copied().unwrap_or_default();
        if self.owners.len() >= LONGEST {
            let waits =
                |(category, urgency, _): &_, round: &u64| *round > past((*category, *urgency));
            self.owners.retain(|of, round| waits(of, round));
        }
        let last = self.owners.get(&(category, urgency, owner)).copied();
        let round = last.unwrap_or_default().max(past((category, urgency))) + 1;
        if self.owners.len() < LONGEST {
            self.owners.insert((category, urgency, owner), round);
        }
        let call = Call {
            category,
            urgency,
            owner,
            round,
        };
        self.calls.insert(ticket, call);
        Some(ticket)
    }

    /// The caller of this call has given up.
    pub fn leave(&mut self, ticket: Ticket) {
        if let Some(call) = self.calls.remove(&ticket) {
            self.free_round(&call);
        }
    }

    /// The rounds of calls that are not made are free again for their owner.
    fn free_round(&mut self, left: &Call) {
        let of = |call: &Call| (call.category, call.urgency, call.owner);
        let away = self.away.values().map(|(call, _)| call);
        let others = self.calls.values().chain(away);
        let last = others
            .filter(|call| of(call) == of(left))
            .map(|call| call.round)
            .max();
        match last {
            Some(last) if self.owners.contains_key(&of(left)) => {
                self.owners.insert(of(left), last);
            }
            Some(_) => {}
            None => {
                self.owners.remove(&of(left));
            }
        }
    }

    /// The caller of this call has given up, and comes back in about `after`: its place is kept. False
    /// if there is no room for that.
    pub fn go_away(&mut self, ticket: Ticket, after: Duration, now: Instant) -> bool {
        self.forget_places(now);
        let Some(call) = self.calls.remove(&ticket) else {
            return false;
        };
        let kept = self.away.len() < LONGEST;
        if kept {
            self.away.insert(ticket, (call, now + after + KEPT));
        } else {
            self.free_round(&call);
        }
        kept
    }

    /// Nobody comes back to these places.
    fn forget_places(&mut self, now: Instant) {
        let past: Vec<Call> = self
            .away
            .extract_if(.., |_, (_, until)| *until < now)
            .map(|(_, (call, _))| call)
            .collect();
        for call in past {
            self.free_round(&call);
        }
    }

    /// A caller has come back. False if its place is not kept, or is that of another kind of call.
    pub fn come_back(&mut self, ticket: Ticket, category: Category, urgency: Urgency) -> bool {
        let Some((call, _)) = self.away.remove(&ticket) else {
            return false;
        };
        let same = (call.category, call.urgency) == (category, urgency);
        if same {
            self.calls.insert(ticket, call);
        } else {
            self.free_round(&call);
        }
        same
    }

    /// The call that may be made now, or the time of the next one.
    pub fn next(&mut self, now: Instant) -> Next {
        self.forget_places(now);
        let mut earliest: Option<Instant> = None;
        // The tokens of a bucket are for the first of its calls: those behind it wait, too.
        for (ticket, call) in self.firsts() {
            let at = self.ready_at(call.category, now);
            if at <= now {
                self.go(ticket, call, now);
                return Next::Go(ticket);
            }
            earliest = Some(earliest.map_or(at, |one| one.min(at)));
        }
        earliest.map_or(Next::Idle, Next::At)
    }

    /// The call of each category that goes next, and the one that goes first of all first.
    fn firsts(&self) -> Vec<(Ticket, Call)> {
        // All calls of a category wait for the same buckets, so the first one decides for all.
        let mut of_kinds: BTreeMap<(Category, Urgency), (Ticket, Call)> = BTreeMap::new();
        for (&ticket, call) in &self.calls {
            let kind = (call.category, call.urgency);
            let first = of_kinds.entry(kind).or_insert((ticket, *call));
            if call.precedes(ticket, &first.1, first.0) {
                *first = (ticket, *call);
            }
        }
        let passed = |call: &Call| {
            let passed = self.passed.get(&(call.category, call.urgency)).copied();
            let passed = passed.unwrap_or_default();
            passed.checked_sub(PASSED).map_or(0, |more| more + 1)
        };
        let mut all: Vec<(Ticket, Call)> = of_kinds.into_values().collect();
        all.sort_by_key(|(ticket, call)| (Reverse(passed(call)), call.urgency, *ticket));
        let mut seen = BTreeSet::new();
        all.retain(|(_, call)| seen.insert(call.category));
        all
    }

    /// A call goes before less urgent ones that wait for a token of the same bucket.
    fn passes(&mut self, call: &Call, now: Instant) {
        self.passed.remove(&(call.category, call.urgency));
        let shares = |other: Category| {
            let mut buckets = other.buckets();
            buckets.any(|one| call.category.buckets().any(|kind| kind == one))
        };
        // One whose own bucket is empty could not go anyway.
        let could_go = |other: Category| {
            let own = self.buckets.get(&Kind::Of(other));
            other == call.category || own.is_none_or(|bucket| bucket.ready_at(now) <= now)
        };
        let waiting = self.calls.values().filter(|it| it.urgency > call.urgency);
        let waiting = waiting.filter(|it| shares(it.category) && could_go(it.category));
        let kinds: BTreeSet<_> = waiting.map(|it| (it.category, it.urgency)).collect();
        for kind in kinds {
            *self.passed.entry(kind).or_default() += 1;
        }
    }

    fn go(&mut self, ticket: Ticket, call: Call, now: Instant) {
        self.calls.remove(&ticket);
        self.passes(&call, now);
        let of = (call.category, call.urgency);
        let round = self.round.entry(of).or_default();
        *round = call.round.max(*round);
        for kind in call.category.buckets() {
            if let Some(bucket) = self.buckets.get_mut(&kind) {
                bucket.take(now);
            }
        }
    }

    /// AWS has answered a call of this category, which was made at `made`, with `Throttling`
    /// (`RequestLimitExceeded` of EC2).
    pub fn throttled(&mut self, category: Category, made: Instant, now: Instant) {
        let others = category.buckets().any(|kind| kind == Kind::Account)
            && Category::ALL.into_iter().any(|other| {
                let shares = other.buckets().any(|kind| kind == Kind::Account);
                let bucket = self.buckets.get(&Kind::Of(other));
                other != category && shares && bucket.is_some_and(|it| it.factor(now) > 1)
            });
        for kind in category.buckets() {
            if let Some(bucket) = self.buckets.get_mut(&kind)
                && (kind != Kind::Account || others)
            {
                bucket.throttled(made, now);
            }
        }
    }

    /// About how long a call of this category and urgency would wait if it entered now: until
    /// its buckets have had a token for it and for each call that waits.
    pub fn about(&self, category: Category, urgency: Urgency, now: Instant) -> Duration {
        let last = Call {
            category,
            urgency,
            owner: Owner::default(),
            round: u64::MAX,
        };
        self.until(&last, Ticket(u64::MAX), now)
    }

    /// About how long a call that waits with this ticket still waits, if no other owner comes. Zero if none
    /// does.
    pub fn remaining(&self, ticket: Ticket, now: Instant) -> Duration {
        let call = self.calls.get(&ticket);
        call.map_or(Duration::ZERO, |call| self.until(call, ticket, now))
    }

    /// How long until the buckets of this category have had a token for all calls before this
    /// one, and one more.
    fn until(&self, last: &Call, ticket: Ticket, now: Instant) -> Duration {
        let away = self.away.iter().filter(|(_, (_, until))| *until >= now);
        let all = self
            .calls
            .iter()
            .chain(away.map(|(ticket, (call, _))| (ticket, call)));
        let (urgent, equal): (Vec<&Call>, Vec<&Call>) = all
            .filter(|(one, call)| call.precedes(**one, last, ticket))
            .map(|(_, call)| call)
            .partition(|call| call.urgency < last.urgency);
        // More urgent ones pass only so often.
        let most = (equal.len() + 1) * PASSED as usize;
        let urgent = urgent.into_iter().take(most);
        let before: Vec<Category> = equal
            .into_iter()
            .chain(urgent)
            .map(|call| call.category)
            .collect();
        let waits = |kind: Kind| {
            let uses = |of: &&Category| of.buckets().any(|one| one == kind);
            let before = u32::try_from(before.iter().filter(uses).count()).unwrap_or(u32::MAX);
            let bucket = self.buckets.get(&kind);
            bucket.map_or(Duration::ZERO, |bucket| bucket.until(before, now))
        };
        last.category.buckets().map(waits).max().unwrap_or_default()
    }

    /// The number of calls that wait.
    pub fn len(&self) -> usize {
        self.calls.len()
    }

    /// Whether no call waits.
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    fn ready_at(&self, category: Category, now: Instant) -> Instant {
        let buckets = category
            .buckets()
            .filter_map(|kind| self.buckets.get(&kind));
        buckets
            .map(|bucket| bucket.ready_at(now))
            .max()
            .unwrap_or(now)
    }
}

#[cfg(test)]
mod tests;
