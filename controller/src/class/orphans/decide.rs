//! Chooses what to do with what a survey shows. Pure: it takes the time, and what earlier surveys have
//! shown ([`Memory`]).
//!
//! **Two phases.** The first survey that shows an orphan writes `ballast.dev/orphaned-at` on it. Once
//! that is older than the grace, a later survey of the same process proves the Service gone. If the
//! Service returns, the tag is removed.
//!
//! **The breaker.** If more than max(3, 10 %) of the load balancers are due within an hour, none is
//! deleted: so many people do not strip finalizers. The same if the API server lists no Service. A new process
//! does not know what the former one has deleted, so it deletes nothing within its first hour, or within its
//! first grace if that is shorter.
//!
//! **Copies.** A cluster that was restored or copied from a backup of etcd has the UID of its
//! original, and both controllers think that everything is theirs. Each process signs what it
//! writes. A sign of somebody else that is newer than the last time at which a former leader held the
//! Lease, as this API server knows it, shows that another one works on the same load balancers; then
//! nothing is deleted. Beside that, the original clears the tags that its
//! copy writes, within half the grace.

use ballast_provider::{Key, Owned, ServiceId};
use jiff::{SignedDuration, Timestamp};

use super::memory::{Memory, Name};
use super::report::{Found, Halt, Orphan, Verdict};
use super::sorted::{Absent, Sorted};

/// A sign of life is written again when it is so old …
const REFRESH: SignedDuration = SignedDuration::from_hours(24);
/// … and with it all that are older than this, so that they come in batches.
const WITH_IT: SignedDuration = SignedDuration::from_hours(12);
/// One object of each class has a sign that is younger than this, as long as its surveys are not further apart.
const HEARTBEAT: SignedDuration = SignedDuration::from_mins(25);
const HOUR: SignedDuration = SignedDuration::from_hours(1);
/// So many may be deleted within an hour, however few there are.
const PLAUSIBLE: usize = 3;

/// What the class asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Orphans are deleted after the grace.
    pub delete: bool,
    /// The time between two surveys that must agree.
    pub grace: SignedDuration,
    /// The class is drained: people asked to release everything.
    pub draining: bool,
}

/// What there is to decide on.
#[derive(Clone, Copy)]
pub struct Look<'a> {
    /// Everything of the class, from a complete survey.
    pub objects: &'a [Owned],
    /// Whether a Service exists.
    pub exists: &'a dyn Fn(&ServiceId) -> bool,
    /// Whether what a Service had is being released already.
    pub going: &'a dyn Fn(&ServiceId) -> bool,
    /// When the youngest Service was created; `None` if there is none of any kind.
    pub newest: Option<Timestamp>,
    /// Who writes ([`ballast_provider::Mark::writer`]).
    pub writer: &'a str,
    /// What the class asks for.
    pub policy: Policy,
    /// The time.
    pub now: Timestamp,
}

/// What to do. Each list is of objects of the survey.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Steps {
    /// They get a new sign of life.
    pub sign: Vec<Owned>,
    /// They get the tag that they are orphans.
    pub tag: Vec<Owned>,
    /// They lose it.
    pub clear: Vec<Owned>,
    /// The Services that are proven to be gone, and from what they are released.
    pub gone: Vec<(ServiceId, Key)>,
    /// What to report.
    pub found: Found,
}

/// What becomes of one orphan, before [`halt`] has a say.
enum Fate {
    /// Nothing: it is only reported.
    Stays(Verdict),
    /// It is being released already.
    Going,
    /// Its class is drained, so it goes now.
    Drained,
    /// It goes after this time, if its Service does not return.
    Waits(Timestamp),
    /// Two surveys and the grace prove that its Service is gone.
    Due,
}

// === impl Fate ===

impl Fate {
    /// What somebody else has signed may be that cluster's: it is only reported, also if that cluster is silent for long.
    fn unless(self, is_of_somebody_else: bool) -> Self {
        match self {
            Self::Waits(_) | Self::Due if is_of_somebody_else => Self::Stays(Verdict::Reported),
            fate => fate,
        }
    }
}

/// Chooses.
pub fn decide(look: &Look<'_>, memory: &mut Memory) -> Steps {
    let mut steps = Steps::default();
    memory.listen(look);
    steps.found.shared = memory.foreign.as_ref().map(|(_, what)| what.clone());
    let sorted = Sorted::of(look, &mut steps.found);
    steps.clear = (sorted.in_use.iter())
        .filter(|it| it.orphaned_at().is_some())
        .map(|it| (*it).clone())
        .collect();
    let answers = memory.foreign.is_some();
    steps.sign = due_for_a_sign(&sorted.in_use, &steps.clear, look, answers);
    judge(look, memory, &sorted, &mut steps);
    steps
}

/// All that is old enough, if any is due, and with each survey the first of all: so a cluster and its copy see each
/// other soon. What was cleared is signed, too: whoever tagged it sees who did that. `answers`: there is somebody else,
/// who must see this cluster.
fn due_for_a_sign(
    in_use: &[&Owned],
    cleared: &[Owned],
    look: &Look<'_>,
    answers: bool,
) -> Vec<Owned> {
    let older = |object: &Owned, than: SignedDuration| {
        let seen = object.last_seen();
        seen.is_none_or(|sign| look.now.duration_since(sign.at) >= than)
    };
    // A sign of somebody else is answered, so that each of two clusters with one UID sees the other.
    let others = |object: &Owned| {
        object
            .last_seen()
            .is_some_and(|it| it.writer != look.writer)
    };
    let any = (in_use.iter()).any(|it| older(it, REFRESH) || (others(it) && older(it, WITH_IT)));
    let first = in_use.iter().min_by_key(|it| &it.id);
    let first = first.filter(|it| older(it, HEARTBEAT) || (answers && others(it)));
    let due = in_use.iter().filter(|it| {
        let cleared = cleared.iter().any(|one| one.id == it.id);
        let is_first = first.is_some_and(|one| one.id == it.id);
        cleared || is_first || (any && older(it, WITH_IT))
    });
    due.map(|it| (*it).clone()).collect()
}

/// Chooses for each orphan.
fn judge(look: &Look<'_>, memory: &mut Memory, sorted: &Sorted<'_>, steps: &mut Steps) {
    let is_shared = memory.foreign.is_some();
    let before = std::mem::take(&mut memory.shown);
    let mut due = Vec::new();
    let mut verdicts = Vec::new();
    for (number, one) in sorted.orphans.iter().enumerate() {
        let again = before.get(&one.name()).copied();
        let mut objects = one.objects.iter();
        let is_foreign = objects.any(|it| memory.is_of_somebody_else(look, it));
        let fate = fate(look, is_shared, one, again).unless(is_foreign);
        if matches!(fate, Fate::Going | Fate::Waits(_) | Fate::Due) {
            memory.shown.insert(one.name(), again.unwrap_or(look.now));
        }
        verdicts.push(match fate {
            Fate::Stays(verdict) => Some(verdict),
            // A release takes a moment. What is left at the next survey is worth a word.
            Fate::Going => again.map(|_| Verdict::Deleted),
            Fate::Waits(until) => {
                let missing = one.objects.iter().filter(|it| it.orphaned_at().is_none());
                steps.tag.extend(missing.map(|it| (*it).clone()));
                Some(Verdict::Due(until))
            }
            Fate::Drained | Fate::Due => {
                due.push(number);
                Some(Verdict::Deleted)
            }
        });
    }
    steps.found.halt = halt(look, memory, sorted, &due);
    for number in due {
        if steps.found.halt.is_some() {
            verdicts[number] = Some(Verdict::Reported);
            continue;
        }
        let name = sorted.orphans[number].name();
        if !memory.deleted.iter().any(|(_, known)| *known == name) {
            memory.deleted.push((look.now, name.clone()));
        }
        steps.gone.push(name);
    }
    let orphans = sorted.orphans.iter().zip(verdicts);
    steps.found.orphans = orphans
        .filter_map(|(one, verdict)| {
            Some(Orphan {
                id: one.id.clone(),
                key: one.key.clone(),
                name: one.called(),
                billed: one.billed,
                verdict: verdict?,
            })
        })
        .collect();
}

/// What becomes of one. `again`: when an earlier survey of this process has shown it for the first time.
fn fate(look: &Look<'_>, is_shared: bool, one: &Absent<'_>, again: Option<Timestamp>) -> Fate {
    if is_shared {
        return Fate::Stays(Verdict::Reported);
    }
    if (look.going)(one.id) {
        return Fate::Going;
    }
    if look.policy.draining {
        return Fate::Drained;
    }
    if !look.policy.delete {
        return Fate::Stays(Verdict::Reported);
    }
    if one.is_younger_than(look.newest) {
        return Fate::Stays(Verdict::Younger);
    }
    let after = |since: Timestamp, long| since.checked_add(long).unwrap_or(Timestamp::MAX);
    let Some(tagged) = one.tagged_since() else {
        return Fate::Waits(after(look.now, look.policy.grace));
    };
    // A new process does not know what the former one has deleted. So an orphan waits an hour, or the grace if that is
    // shorter, after this process has seen it first.
    let known = after(again.unwrap_or(look.now), look.policy.grace.min(HOUR));
    let ends = after(tagged, look.policy.grace).max(known);
    if ends <= look.now && again.is_some() {
        Fate::Due
    } else {
        Fate::Waits(ends)
    }
}

/// Why nothing is deleted, if so. People who drain a class have asked for all of it.
fn halt(look: &Look<'_>, memory: &mut Memory, sorted: &Sorted<'_>, due: &[usize]) -> Option<Halt> {
    let recent = |at: &Timestamp| look.now.duration_since(*at) < HOUR;
    memory.deleted.retain(|(at, _)| recent(at));
    if due.is_empty() || look.policy.draining {
        return None;
    }
    if look.newest.is_none() {
        return Some(Halt::NoServices);
    }
    let is_due = |(_, (id, key)): &&(Timestamp, Name)| {
        let mut all = due.iter().map(|number| &sorted.orphans[*number]);
        all.any(|one| one.id == id && one.key == key)
    };
    let before = memory.deleted.iter().filter(|it| !is_due(it)).count();
    let limit = PLAUSIBLE.max((sorted.balancers + before) / 10);
    let due = before + due.len();
    (due > limit).then_some(Halt::Breaker { due, limit })
}
