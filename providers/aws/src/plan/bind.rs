//! The calls for a Service whose targets are in target groups of others ([`crate::bind`]). Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::{CHUNK, Plan, Situation, reference};
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
    for (name, note) in notes {
        let there = observed.target_groups.get(name);
        if there.is_none() {
            plan.calls.push(Call::CreateTargetGroup {
                target_group: note.clone(),
                tags: note.tags.clone(),
            });
        }
        if let Some(wanted) = situation.targets(&note.backends(), &note.tags) {
            let made = note.made(String::new());
            let known = there.unwrap_or(&made);
            let target_group = reference(there, name);
            plan.calls.extend(targets(&target_group, known, &wanted));
        }
    }
    let others = observed.target_groups.iter();
    let others = others.filter(|(name, _)| !notes.contains_key(*name));
    plan.cleanup = others.flat_map(|(_, one)| unbind(one)).collect();
    plan
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
    let mut calls = Vec::new();
    if let Some(bound) = &one.bound {
        let ours: Vec<TargetId> = bound.targets.intersection(&one.targets).cloned().collect();
        calls = deregister(&Ref::Known(bound.arn.clone()), &ours);
    }
    calls.push(Call::DeleteTargetGroup {
        target_group: one.arn.clone(),
    });
    calls
}

/// Whether a call deletes a note of targets that are registered.
pub fn is_needed_as_note(call: &Call, observed: &Observed) -> bool {
    let Call::DeleteTargetGroup { target_group } = call else {
        return false;
    };
    let mut groups = observed.target_groups.values();
    let note = groups.find(|one| one.arn == *target_group);
    let bound = note.and_then(|one| Some((one, one.bound.as_ref()?)));
    bound.is_some_and(|(one, bound)| !bound.targets.is_disjoint(&one.targets))
}

fn register(target_group: &Ref, targets: &[TargetId]) -> Vec<Call> {
    let chunks = targets.chunks(CHUNK);
    let calls = chunks.map(|chunk| Call::RegisterTargets {
        target_group: target_group.clone(),
        targets: chunk.to_vec(),
    });
    calls.collect()
}

fn deregister(target_group: &Ref, targets: &[TargetId]) -> Vec<Call> {
    let chunks = targets.chunks(CHUNK);
    let calls = chunks.map(|chunk| Call::DeregisterTargets {
        target_group: target_group.clone(),
        targets: chunk.to_vec(),
    });
    calls.collect()
}
