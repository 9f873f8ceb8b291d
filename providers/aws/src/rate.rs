//! AWS's limits for calls, and which waiting call goes next. Pure; `now` is an argument.
//!
//! AWS counts calls of the whole account and region in token buckets, one for each category of
//! actions, and one for all actions of Elastic Load Balancing together. A call that finds its bucket empty fails
//! with `Throttling`, and the failed call counts too. So calls wait here instead. Whoever makes
//! a call first enters [`Waiting`], also for a retry. [`Waiting::next`] lets calls go: the most
//! urgent first, and among equals the one that has waited longest. A call whose bucket is empty
//! does not hold up calls of other categories.
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

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// The actions that share a bucket. Source: "Throttling for the Elastic Load Balancing API"
/// (Elastic Load Balancing API Reference) and "Request throttling for the Amazon EC2 API".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Category {
    /// `CreateLoadBalancer`, `SetSubnets`.
    Intensive,
    /// `RegisterTargets`, `DeregisterTargets`.
    Registration,
    /// `Describe…` of Elastic Load Balancing.
    Read,
    /// Every other action of Elastic Load Balancing.
    Write,
    /// `Describe…` of EC2.
    Ec2Read,
    /// `CreateSecurityGroup`, `DeleteSecurityGroup`.
    Ec2Write,
    /// `AuthorizeSecurityGroupIngress`, `RevokeSecurityGroupIngress`.
    Ec2Rules,
    /// `CreateTags`, `DeleteTags`.
    Ec2Tags,
}

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

/// The size of a token bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The calls that may be made at once after a pause.
    pub burst: u32,
    /// The time in which one call more becomes possible.
    pub interval: Duration,
}

/// The sizes of all buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// [`Category::Intensive`]
    pub intensive: Limit,
    /// [`Category::Registration`]
    pub registration: Limit,
    /// [`Category::Read`]
    pub read: Limit,
    /// [`Category::Write`]
    pub write: Limit,
    /// All actions of Elastic Load Balancing together.
    pub account: Limit,
    /// [`Category::Ec2Read`]
    pub ec2_read: Limit,
    /// [`Category::Ec2Write`]
    pub ec2_write: Limit,
    /// [`Category::Ec2Rules`]
    pub ec2_rules: Limit,
    /// [`Category::Ec2Tags`]
    pub ec2_tags: Limit,
}

/// Identifies a call that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

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

/// By how much longer than the following ones the first call after a pause may be on its way: it opens
/// the connection.
pub const LATENCY: Duration = Duration::from_millis(300);
/// How long a place is kept after its time. Whoever does not come back by then does not come at all.
const KEPT: Duration = Duration::from_secs(30);
/// The most by which the filling of a bucket slows down.
const SLOWEST: u32 = 16;
/// After this time without `Throttling`, a bucket fills twice as fast, up to its full rate.
const RECOVERY: Duration = Duration::from_mins(1);

/// The calls that wait, and the buckets that they wait for.
#[derive(Clone, Debug)]
pub struct Waiting {
    buckets: BTreeMap<Kind, Bucket>,
    calls: BTreeMap<(Urgency, Ticket), Category>,
    /// The places of callers that come back, and until when they are kept.
    away: BTreeMap<(Urgency, Ticket), (Category, Instant)>,
    last: u64,
}

/// One bucket each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Of(Category),
    Account,
}

/// A token bucket. Its content is a time: each token is worth one interval, and a full bucket
/// `burst` of them.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    limit: Limit,
    /// The content at `at`.
    credit: Duration,
    at: Instant,
    /// The factor by which it fills more slowly, and since when.
    slower: (u32, Instant),
}

// === impl Category ===

impl Category {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Intensive,
        Self::Registration,
        Self::Read,
        Self::Write,
        Self::Ec2Read,
        Self::Ec2Write,
        Self::Ec2Rules,
        Self::Ec2Tags,
    ];

    /// The label in metrics and messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Intensive => "intensive",
            Self::Registration => "registration",
            Self::Read => "read",
            Self::Write => "write",
            Self::Ec2Read => "ec2-read",
            Self::Ec2Write => "ec2-write",
            Self::Ec2Rules => "ec2-rules",
            Self::Ec2Tags => "ec2-tags",
        }
    }

    /// The buckets that a call of this category takes a token from.
    fn buckets(self) -> impl Iterator<Item = Kind> {
        let elb = matches!(
            self,
            Self::Intensive | Self::Registration | Self::Read | Self::Write
        );
        [Kind::Of(self)]
            .into_iter()
            .chain(elb.then_some(Kind::Account))
    }
}

// === impl Limit ===

impl Limit {
    /// `burst` calls at once, and `per_second` calls per second.
    pub fn new(burst: u32, per_second: f64) -> Self {
        Self {
            burst: burst.max(1),
            interval: Duration::from_secs_f64(1.0 / per_second.max(f64::EPSILON)),
        }
    }

    /// No limit in practice.
    pub const NONE: Self = Self {
        burst: u32::MAX,
        interval: Duration::ZERO,
    };
}

// === impl Limits ===

impl Default for Limits {
    /// AWS's documented limits; of EC2 the smaller ones, for calls without filters. Other
    /// controllers report larger buckets for `Describe…` of Elastic Load Balancing since 2026.
    fn default() -> Self {
        Self {
            intensive: Limit::new(10, 0.2),
            registration: Limit::new(20, 4.0),
            read: Limit::new(40, 10.0),
            write: Limit::new(20, 3.0),
            account: Limit::new(40, 10.0),
            ec2_read: Limit::new(50, 10.0),
            ec2_write: Limit::new(50, 5.0),
            ec2_rules: Limit::new(50, 5.0),
            ec2_tags: Limit::new(100, 10.0),
        }
    }
}

impl Limits {
    /// No limit: for clouds that are not AWS, and for tests.
    pub const NONE: Self = Self {
        intensive: Limit::NONE,
        registration: Limit::NONE,
        read: Limit::NONE,
        write: Limit::NONE,
        account: Limit::NONE,
        ec2_read: Limit::NONE,
        ec2_write: Limit::NONE,
        ec2_rules: Limit::NONE,
        ec2_tags: Limit::NONE,
    };

    fn of(&self, kind: Kind) -> Limit {
        match kind {
            Kind::Account => self.account,
            Kind::Of(Category::Intensive) => self.intensive,
            Kind::Of(Category::Registration) => self.registration,
            Kind::Of(Category::Read) => self.read,
            Kind::Of(Category::Write) => self.write,
            Kind::Of(Category::Ec2Read) => self.ec2_read,
            Kind::Of(Category::Ec2Write) => self.ec2_write,
            Kind::Of(Category::Ec2Rules) => self.ec2_rules,
            Kind::Of(Category::Ec2Tags) => self.ec2_tags,
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
        }
    }

    /// Another call waits. `None` if [`LONGEST`] calls wait already.
    pub fn enter(&mut self, category: Category, urgency: Urgency) -> Option<Ticket> {
        if self.calls.len() >= LONGEST {
            return None;
        }
        self.last += 1;
        let ticket = Ticket(self.last);
        self.calls.insert((urgency, ticket), category);
        Some(ticket)
    }

    /// The caller of this call has given up.
    pub fn leave(&mut self, ticket: Ticket) {
        self.calls.retain(|(_, one), _| *one != ticket);
    }

    /// The caller of this call has given up, and comes back in about `after`: its place is kept. False
    /// if there is no room for that.
    pub fn go_away(&mut self, ticket: Ticket, after: Duration, now: Instant) -> bool {
        self.away.retain(|_, (_, until)| *until >= now);
        let mut calls = self.calls.iter();
        let Some((&place, &category)) = calls.find(|((_, one), _)| *one == ticket) else {
            return false;
        };
        self.calls.remove(&place);
        let kept = self.away.len() < LONGEST;
        if kept {
            self.away.insert(place, (category, now + after + KEPT));
        }
        kept
    }

    /// A caller has come back. False if its place is not kept, or is that of another kind of call.
    pub fn come_back(&mut self, ticket: Ticket, category: Category, urgency: Urgency) -> bool {
        let place = (urgency, ticket);
        let kept = self.away.remove(&place);
        let same = kept.is_some_and(|(of, _)| of == category);
        if same {
            self.calls.insert(place, category);
        }
        same
    }

    /// The call that may be made now, or the time of the next one.
    pub fn next(&mut self, now: Instant) -> Next {
        let mut earliest: Option<Instant> = None;
        // All calls of a category wait for the same buckets, so the first one decides for all.
        let mut tried: Vec<Category> = Vec::with_capacity(Category::ALL.len());
        let mut go = None;
        for (&(urgency, ticket), &category) in &self.calls {
            if tried.contains(&category) {
                continue;
            }
            tried.push(category);
            let at = self.ready_at(category, now);
            if at <= now {
                go = Some((urgency, ticket, category));
                break;
            }
            earliest = Some(earliest.map_or(at, |one| one.min(at)));
        }
        if let Some((urgency, ticket, category)) = go {
            self.calls.remove(&(urgency, ticket));
            for kind in category.buckets() {
                if let Some(bucket) = self.buckets.get_mut(&kind) {
                    bucket.take(now);
                }
            }
            return Next::Go(ticket);
        }
        earliest.map_or(Next::Idle, Next::At)
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
    /// its buckets have had a token for it and for each call that goes before it.
    pub fn about(&self, category: Category, urgency: Urgency, now: Instant) -> Duration {
        self.until(category, (urgency, Ticket(u64::MAX)), now)
    }

    /// About how long a call of this category and urgency that waits with this ticket still waits.
    pub fn remaining(
        &self,
        category: Category,
        urgency: Urgency,
        ticket: Ticket,
        now: Instant,
    ) -> Duration {
        self.until(category, (urgency, ticket), now)
    }

    /// How long until the buckets of this category have had a token for all calls before this
    /// place, and one more.
    fn until(&self, category: Category, place: (Urgency, Ticket), now: Instant) -> Duration {
        let waits = |kind: Kind| {
            let uses = |of: &Category| of.buckets().any(|one| one == kind);
            let present = self.calls.range(..place).filter(|(_, of)| uses(of));
            let away =
                (self.away.range(..place)).filter(|(_, (of, until))| *until >= now && uses(of));
            let before = u32::try_from(present.count() + away.count()).unwrap_or(u32::MAX);
            let bucket = self.buckets.get(&kind);
            bucket.map_or(Duration::ZERO, |bucket| bucket.until(before, now))
        };
        category.buckets().map(waits).max().unwrap_or_default()
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

// === impl Bucket ===

impl Bucket {
    fn full(limit: Limit, now: Instant) -> Self {
        Self {
            limit,
            credit: limit.interval.saturating_mul(limit.burst),
            at: now,
            slower: (1, now),
        }
    }

    /// The factor by which it fills more slowly at this time.
    fn factor(&self, now: Instant) -> u32 {
        let (factor, since) = self.slower;
        let passed = now.saturating_duration_since(since).as_secs() / RECOVERY.as_secs();
        let halved = factor.checked_shr(u32::try_from(passed).unwrap_or(u32::MAX));
        halved.unwrap_or(0).max(1)
    }

    /// The content now. From one change to the next the bucket fills evenly, so that the time
    /// of the next token does not change while a call waits for it.
    fn credit(&self, now: Instant) -> Duration {
        let filled = now.saturating_duration_since(self.at) / self.factor(self.at);
        let full = self.limit.interval.saturating_mul(self.limit.burst);
        self.credit.saturating_add(filled).min(full)
    }

    /// How long until there is one token more than `tokens`.
    fn until(&self, tokens: u32, now: Instant) -> Duration {
        let needed = self
            .limit
            .interval
            .saturating_mul(tokens.saturating_add(1))
            .saturating_sub(self.credit(now));
        if needed.is_zero() {
            return needed;
        }
        let begins = self.at.saturating_duration_since(now);
        begins + needed.saturating_mul(self.factor(self.at))
    }

    /// The earliest time at which there is a token; the past counts as now.
    fn ready_at(&self, now: Instant) -> Instant {
        now + self.until(0, now)
    }

    fn take(&mut self, now: Instant) {
        let credit = self.credit(now);
        let full = self.limit.interval.saturating_mul(self.limit.burst);
        self.credit = credit.saturating_sub(self.limit.interval);
        // AWS's may be full until the call arrives.
        let may_be_full = credit.saturating_add(LATENCY) >= full;
        let begins = if may_be_full { now + LATENCY } else { now };
        self.at = self.at.max(begins);
    }

    fn throttled(&mut self, made: Instant, now: Instant) {
        let (factor, since) = self.slower;
        if factor > 1 && made < since {
            return;
        }
        let factor = self.factor(now).saturating_mul(2).min(SLOWEST);
        self.slower = (factor, now);
        (self.credit, self.at) = (Duration::ZERO, now);
    }
}

#[cfg(test)]
mod tests;
