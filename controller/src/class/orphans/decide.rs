//! Chooses what to do with what a survey shows. Pure: it takes the time, and what earlier surveys have
//! shown ([`Memory`]).
//!
//! **Two phases.** The first survey that shows an orphan writes `ballast.dev/orphaned-at` on it. Once
//! that is older than the grace, a later survey of the same process proves the Service gone. If the
//! Service returns, the tag is removed.
//!
//! **The breaker.** If more than max(3, 10 %) of the load balancers are due within an hour, none is
//! deleted: so many people do not strip finalizers. The same if the API server lists no Service.
//!
//! **Copies.** A cluster that was restored or copied from a backup of etcd has the UID of its
//! original, and both controllers think that everything is theirs. Each process signs what it
//! writes. A sign of somebody else that is newer than the last time at which a former leader held the
//! Lease, as this API server knows it, shows that another one works on the same load balancers; then
//! nothing is deleted. Beside that, the original clears the tags that its
//! copy writes, within half the grace.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ballast_provider::mark::{LAST_SEEN, ORPHANED_AT, Sign};
use ballast_provider::{Billed, Key, Kind, Owned, ServiceId};
use jiff::{SignedDuration, Timestamp};

use super::report::{Found, Halt, Orphan, Verdict};

/// A sign of life is written again when it is so old …
const REFRESH: SignedDuration = SignedDuration::from_hours(24);
/// … and with it all that are older than this, so that they come in batches.
const WITH_IT: SignedDuration = SignedDuration::from_hours(12);
/// A copy that gives no sign for so long is no longer there.
const FORGET: SignedDuration = SignedDuration::from_hours(72);
/// Clocks differ by less, and the former leader's last writes are listed within this time.
const SKEW: SignedDuration = SignedDuration::from_mins(2);
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

/// What earlier surveys of this process have shown. A new process begins anew: it deletes later.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// Signs of others that are newer than this come from outside of this cluster.
    since: Option<Timestamp>,
    /// The tags with signs that each object had, by its ID.
    signs: BTreeMap<String, [Option<Sign>; 2]>,
    /// The orphans that the last survey has shown, and when one did so first.
    shown: BTreeMap<(ServiceId, Key), Timestamp>,
    /// The last foreign sign: when it was found, and on what.
    foreign: Option<(Timestamp, String)>,
    /// When orphans were deleted, within the last hour.
    deleted: VecDeque<(Timestamp, (ServiceId, Key))>,
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

/// What one balancer consists of.
#[derive(Default)]
struct Group<'a> {
    objects: Vec<&'a Owned>,
    services: BTreeSet<&'a ServiceId>,
}

/// Chooses.
pub fn decide(look: &Look<'_>, memory: &mut Memory) -> Steps {
    let mut steps = Steps::default();
    memory.listen(look);
    steps.found.shared = memory.foreign.as_ref().map(|(_, what)| what.clone());
    let mut groups: BTreeMap<&Key, Group<'_>> = BTreeMap::new();
    let mut in_use: Vec<&Owned> = Vec::new();
    for object in look.objects {
        match &object.key {
            Some(key) => {
                let group = groups.entry(key).or_default();
                group.services.extend(&object.services);
                group.objects.push(object);
            }
            // What serves the whole class.
            None if object.kind == Kind::SecurityGroup => in_use.push(object),
            None => steps.found.unnamed.push(object.name.clone()),
        }
    }
    let mut orphans = Vec::new();
    for (key, group) in &groups {
        if let Some(apart) = apart(group, &mut steps.found) {
            apart.push(group.name());
            in_use.extend(&group.objects);
            continue;
        }
        let (here, absent): (Vec<&ServiceId>, Vec<&ServiceId>) =
            group.services.iter().partition(|id| (look.exists)(id));
        let rest = |object: &&Owned| !object.services.iter().any(|id| absent.contains(&id));
        if here.is_empty() {
            // It is one orphan, whichever of its Services is released last.
            orphans.extend(absent.iter().enumerate().map(|(number, id)| Absent {
                id,
                key,
                objects: group.objects.clone(),
                billed: if number == 0 {
                    group.billed()
                } else {
                    Billed::default()
                },
            }));
            continue;
        }
        // The load balancer is the others', whichever of them its tags name.
        let has_parts = (group.objects.iter()).any(|it| it.kind == Kind::TargetGroup);
        let is_part = |it: &Owned| it.kind == Kind::TargetGroup || !has_parts;
        let objects = group.objects.iter().copied();
        in_use.extend(objects.filter(|it| rest(it) || !is_part(it)));
        orphans.extend(absent.iter().filter_map(|id| {
            let objects = group.objects.iter().copied();
            let objects = objects.filter(|it| is_part(it) && it.services.contains(id));
            let objects: Vec<&Owned> = objects.collect();
            (!objects.is_empty()).then_some(Absent {
                id,
                key,
                objects,
                billed: Billed::default(),
            })
        }));
    }
    steps.clear = (in_use.iter())
        .filter(|it| it.orphaned_at().is_some())
        .map(|it| (*it).clone())
        .collect();
    steps.sign = due_for_a_sign(&in_use, &steps.clear, look);
    judge(look, memory, &groups, &orphans, &mut steps);
    steps
}

/// An orphan, with the objects that it consists of.
struct Absent<'a> {
    id: &'a ServiceId,
    key: &'a Key,
    objects: Vec<&'a Owned>,
    billed: Billed,
}

/// The list of what is neither in use nor an orphan, if the balancer is for one of them.
fn apart<'a>(group: &Group<'_>, found: &'a mut Found) -> Option<&'a mut Vec<String>> {
    let any = |is: fn(&Owned) -> bool| group.objects.iter().any(|it| is(it));
    if any(Owned::is_kept) {
        return Some(&mut found.kept);
    }
    if any(Owned::is_retained) {
        return Some(&mut found.retained);
    }
    group.services.is_empty().then_some(&mut found.unnamed)
}

/// All that is old enough, if any is due. What was cleared is signed, too: whoever tagged it sees who
/// did that.
fn due_for_a_sign(in_use: &[&Owned], cleared: &[Owned], look: &Look<'_>) -> Vec<Owned> {
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
    let due = in_use.iter().filter(|it| {
        let cleared = cleared.iter().any(|one| one.id == it.id);
        cleared || (any && older(it, WITH_IT))
    });
    due.map(|it| (*it).clone()).collect()
}

/// Chooses for each orphan.
fn judge(
    look: &Look<'_>,
    memory: &mut Memory,
    groups: &BTreeMap<&Key, Group<'_>>,
    orphans: &[Absent<'_>],
    steps: &mut Steps,
) {
    let shared = memory.foreign.is_some();
    let mut shown = BTreeMap::new();
    let mut due = Vec::new();
    let mut verdicts = Vec::new();
    for one in orphans {
        let name = (one.id.clone(), one.key.clone());
        let verdict = if shared {
            Some(Verdict::Reported)
        } else if (look.going)(one.id) {
            // A release takes a moment. What is left at the next survey is worth a word.
            let again = memory.shown.get(&name).copied();
            shown.insert(name, again.unwrap_or(look.now));
            again.map(|_| Verdict::Deleted)
        } else if look.policy.draining {
            due.push(verdicts.len());
            Some(Verdict::Deleted)
        } else if !look.policy.delete {
            Some(Verdict::Reported)
        } else if one.is_younger_than(look.newest) {
            Some(Verdict::Younger)
        } else {
            let since = one.tagged_since();
            let ends = since.and_then(|since| since.checked_add(look.policy.grace).ok());
            let again = memory.shown.get(&name).copied();
            let first = again.unwrap_or(look.now);
            shown.insert(name, first);
            if since.is_none() {
                let missing = one.objects.iter().filter(|it| it.orphaned_at().is_none());
                steps.tag.extend(missing.map(|it| (*it).clone()));
            }
            Some(match ends {
                // A survey of this process has shown it before.
                Some(ends) if ends <= look.now && again.is_some_and(|at| at < look.now) => {
                    due.push(verdicts.len());
                    Verdict::Deleted
                }
                Some(ends) => Verdict::Due(ends.max(first)),
                None => Verdict::Due(look.now.checked_add(look.policy.grace).unwrap_or(look.now)),
            })
        };
        verdicts.push(verdict);
    }
    memory.shown = shown;
    steps.found.halt = halt(look, memory, groups.len(), orphans, &due);
    for number in due {
        let one = &orphans[number];
        let name = (one.id.clone(), one.key.clone());
        if steps.found.halt.is_some() {
            verdicts[number] = Some(Verdict::Reported);
            continue;
        }
        if !memory.deleted.iter().any(|(_, known)| *known == name) {
            memory.deleted.push_back((look.now, name.clone()));
        }
        steps.gone.push(name);
    }
    let orphans = orphans.iter().zip(verdicts);
    steps.found.orphans = orphans
        .filter_map(|(one, verdict)| {
            Some(Orphan {
                id: one.id.clone(),
                key: one.key.clone(),
                name: name_of(&one.objects),
                billed: one.billed,
                verdict: verdict?,
            })
        })
        .collect();
}

/// Why nothing is deleted, if so. People who drain a class have asked for all of it.
fn halt(
    look: &Look<'_>,
    memory: &mut Memory,
    balancers: usize,
    orphans: &[Absent<'_>],
    due: &[usize],
) -> Option<Halt> {
    let recent = |at: &Timestamp| look.now.duration_since(*at) < HOUR;
    memory.deleted.retain(|(at, _)| recent(at));
    if due.is_empty() || look.policy.draining {
        return None;
    }
    if look.newest.is_none() {
        return Some(Halt::NoServices);
    }
    let is_due = |(_, (id, key)): &&(Timestamp, (ServiceId, Key))| {
        let mut all = due.iter().map(|number| &orphans[*number]);
        all.any(|one| one.id == id && one.key == key)
    };
    let before = memory.deleted.iter().filter(|it| !is_due(it)).count();
    let limit = PLAUSIBLE.max((balancers + before).div_ceil(10));
    let due = before + due.len();
    (due > limit).then_some(Halt::Breaker { due, limit })
}

fn name_of(objects: &[&Owned]) -> String {
    let balancer = objects.iter().find(|it| it.kind == Kind::LoadBalancer);
    let named = balancer.or_else(|| objects.first());
    named.map_or_else(String::new, |it| it.name.clone())
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

    /// Looks for signs of somebody else that nobody in this cluster can have written, and remembers all
    /// signs.
    fn listen(&mut self, look: &Look<'_>) {
        let since = *self.since.get_or_insert(look.now);
        let after = since.checked_add(SKEW).unwrap_or(Timestamp::MAX);
        let mut signs = BTreeMap::new();
        for object in look.objects {
            let now = [LAST_SEEN, ORPHANED_AT].map(|key| Sign::of(&object.tags, key));
            let before = self.signs.get(&object.id);
            let news = now.iter().enumerate().filter_map(|(number, sign)| {
                let sign = sign.as_ref()?;
                let known = before.and_then(|before| before[number].as_ref());
                (known != Some(sign)).then_some(sign)
            });
            let is_foreign = |sign: &&Sign| sign.writer != look.writer && sign.at > after;
            let is_news = news.clone().any(|sign| is_foreign(&sign));
            // What nobody here signs keeps the sign: it is the other one's.
            let stays = self.foreign.is_some() && now.iter().flatten().any(|it| is_foreign(&it));
            if is_news || stays {
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

// === impl Group ===

impl Group<'_> {
    fn billed(&self) -> Billed {
        self.objects.iter().map(|it| it.billed).sum()
    }

    fn name(&self) -> String {
        name_of(&self.objects)
    }
}

// === impl Absent ===

impl Absent<'_> {
    /// Since when all of its objects have the tag.
    fn tagged_since(&self) -> Option<Timestamp> {
        let since: Option<Vec<Timestamp>> = (self.objects.iter())
            .map(|it| it.orphaned_at().map(|sign| sign.at))
            .collect();
        since?.into_iter().max()
    }

    /// What is younger than every Service of the API server may be of a later time than its data.
    fn is_younger_than(&self, newest: Option<Timestamp>) -> bool {
        let created = self.objects.iter().filter_map(|it| it.created).min();
        match (created, newest) {
            // The API server has whole seconds.
            (Some(created), Some(newest)) => created.as_second() > newest.as_second(),
            // An object of an older version, or somebody has removed the tag.
            (None, Some(_)) => true,
            (_, None) => false,
        }
    }
}
