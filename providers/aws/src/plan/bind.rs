//! The calls for a Service whose targets are in target groups of others ([`crate::bind`]). Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::differences::is_ours_to_remove;
use super::{CHUNK, Plan, Situation, reference};
use crate::bind::BOUND_TO;
use crate::call::{Call, Ref};
use crate::desired::TargetGroup;
use crate::observed::{Observed, ObservedTargetGroup};
use crate::target::TargetId;

/// Brings the notes, and the target groups that they are about, to what the Service asks for. What has no note any
/// more is deregistered with its note.
pub fn bind(
    notes: &BTreeMap<String, TargetGroup>,
    situation: &Situation,
    observed: &Observed,
) -> Plan {
    let mut plan = Plan::default();
    // Whether the targets of all notes are known.
    let mut known = true;
    // What moves to another note stays registered.
    let mut stays: BTreeMap<&str, BTreeSet<TargetId>> = BTreeMap::new();
    for (name, note) in notes {
        let there = observed.target_groups.get(name);
        if there.is_none() {
            plan.calls.push(Call::CreateTargetGroup {
                target_group: note.clone(),
                tags: note.tags.clone(),
            });
        }
        if let Some(there) = there {
            plan.calls.extend(tags(there, note));
        }
        if let Some(wanted) = situation.targets(&note.backends(), &note.tags) {
            if let Some(arn) = note.tags.get(BOUND_TO) {
                stays.entry(arn).or_default().extend(wanted.clone());
            }
            let made = note.made(String::new());
            let target_group = reference(there, name);
            let there = there.unwrap_or(&made);
            plan.calls.extend(targets(&target_group, there, &wanted));
        } else {
            known = false;
        }
    }
    let others = observed.target_groups.iter();
    let others = others.filter(|(name, _)| !notes.contains_key(*name));
    let none = BTreeSet::new();
    let stays = |one: &ObservedTargetGroup| stays.get(one.served().as_str()).unwrap_or(&none);
    // What leaves may have no successor before.
    if known {
        plan.cleanup = others
            .flat_map(|(_, one)| unbind_but(one, stays(one)))
            .collect();
    }
    plan
}

/// The tags of a note say which nodes it has.
fn tags(there: &ObservedTargetGroup, note: &TargetGroup) -> Vec<Call> {
    let of = || vec![Ref::Known(there.arn.clone())];
    let differs = |(key, value): &(&String, &String)| there.tags.get(*key) != Some(*value);
    let add = note.tags.iter().filter(differs);
    let add: BTreeMap<String, String> = add
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let gone = |key: &&String| !note.tags.contains_key(*key) && is_ours_to_remove(key);
    let keys: Vec<String> = there.tags.keys().filter(gone).cloned().collect();
    let adds = (!add.is_empty()).then(|| Call::AddTags {
        of: of(),
        tags: add,
    });
    let removes = (!keys.is_empty()).then(|| Call::RemoveTags { of: of(), keys });
    adds.into_iter().chain(removes).collect()
}

/// The calls for the targets of a target group: what is new is registered first. A note has a target before the target
/// group that it is about, and for longer.
pub(super) fn targets(
    target_group: &Ref,
    there: &ObservedTargetGroup,
    wanted: &BTreeSet<TargetId>,
) -> Vec<Call> {
    let new = |present: &BTreeSet<TargetId>| -> Vec<TargetId> {
        wanted.difference(present).cloned().collect()
    };
    let old: Vec<TargetId> = there.targets.difference(wanted).cloned().collect();
    let mut calls = register(target_group, &new(&there.targets));
    if let Some(bound) = &there.bound {
        let theirs = Ref::Known(bound.arn.clone());
        calls.extend(register(&theirs, &new(&bound.targets)));
        let registered = old.iter().filter(|one| bound.targets.contains(*one));
        let registered: Vec<TargetId> = registered.cloned().collect();
        calls.extend(deregister(&theirs, &registered));
    }
    calls.extend(deregister(target_group, &old));
    calls
}

/// The calls that delete a target group. What a note is about is deregistered before.
pub(super) fn unbind(one: &ObservedTargetGroup) -> Vec<Call> {
    unbind_but(one, &BTreeSet::new())
}

/// The same, but for targets that stay.
fn unbind_but(one: &ObservedTargetGroup, stay: &BTreeSet<TargetId>) -> Vec<Call> {
    let mut calls = Vec::new();
    if let Some(bound) = &one.bound {
        let ours = bound.targets.intersection(&one.targets);
        let ours: Vec<TargetId> = ours.filter(|it| !stay.contains(it)).cloned().collect();
        calls = deregister(&Ref::Known(bound.arn.clone()), &ours);
    }
    calls.push(Call::DeleteTargetGroup {
        target_group: one.arn.clone(),
    });
    calls
}

/// The calls that delete all notes.
pub fn unbind_all(observed: &Observed) -> Vec<Call> {
    let groups = observed.target_groups.values();
    let notes = groups.filter(|one| one.bound.is_some());
    notes.flat_map(unbind).collect()
}

/// Whether a call deletes a note of targets that are registered.
pub fn is_needed_as_note(call: &Call, observed: &Observed) -> bool {
    let Call::DeleteTargetGroup { target_group } = call else {
        return false;
    };
    let groups = observed.target_groups.values();
    let note = groups.clone().find(|one| one.arn == *target_group);
    let Some((note, bound)) = note.and_then(|one| Some((one, one.bound.as_ref()?))) else {
        return false;
    };
    let others = groups.filter(|one| one.arn != note.arn && one.served() == &bound.arn);
    let others: BTreeSet<&TargetId> = others.flat_map(|one| &one.targets).collect();
    let mut registered = bound.targets.intersection(&note.targets);
    registered.any(|target| !others.contains(target))
}

/// In as many calls as AWS needs.
pub(super) fn register(target_group: &Ref, targets: &[TargetId]) -> Vec<Call> {
    let chunks = targets.chunks(CHUNK);
    let calls = chunks.map(|chunk| Call::RegisterTargets {
        target_group: target_group.clone(),
        targets: chunk.to_vec(),
    });
    calls.collect()
}

/// The same for targets that leave.
pub(super) fn deregister(target_group: &Ref, targets: &[TargetId]) -> Vec<Call> {
    let chunks = targets.chunks(CHUNK);
    let calls = chunks.map(|chunk| Call::DeregisterTargets {
        target_group: target_group.clone(),
        targets: chunk.to_vec(),
    });
    calls.collect()
}
