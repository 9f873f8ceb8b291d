//! The calls for a Service that leaves a load balancer which others stay on. Pure.

use std::collections::{BTreeMap, BTreeSet};

use ballast_provider::mark::{APPLIED, SERVICE_UID};

use crate::call::{Call, Ref};
use crate::forward::Forward;
use crate::observed::{Arn, Observed, ObservedListener};

/// The calls, and what nothing uses after them. Rules for its clients go with the next turn of another Service:
/// nobody listens any more. A listener of another Service that also sends to it does so no more.
pub fn leave(observed: &Observed, uid: &str) -> (Vec<Call>, Vec<Call>) {
    let is_its =
        |tags: &BTreeMap<String, String>| tags.get(SERVICE_UID).is_some_and(|it| it == uid);
    let groups = observed.target_groups.values();
    let groups: BTreeSet<&Arn> = groups
        .filter(|it| is_its(&it.tags))
        .map(|it| &it.arn)
        .collect();
    let mut calls = Vec::new();
    for one in observed.load_balancers.values() {
        let mut its = Vec::new();
        for listener in one.listeners.values() {
            let left = rest(&listener.forward, &groups);
            // The port may have been another Service's before, so its tags alone do not say whose it is.
            let uses = listener.groups().any(|arn| groups.contains(arn));
            if uses && (left.is_none() || is_its(&listener.tags)) {
                its.push(Call::DeleteListener {
                    listener: listener.arn.clone(),
                });
            } else if uses {
                its.extend(without(listener, left, &groups));
            }
        }
        if !its.is_empty() && one.applied().is_some() {
            let of = vec![Ref::Known(one.arn.clone())];
            calls.push(Call::RemoveTags {
                of,
                keys: vec![APPLIED.to_owned()],
            });
        }
        calls.extend(its);
    }
    let groups = groups.into_iter().map(|arn| Call::DeleteTargetGroup {
        target_group: arn.clone(),
    });
    (calls, groups.collect())
}

/// The calls after which a listener sends to these groups no more.
fn without(
    listener: &ObservedListener,
    left: Option<Forward<Ref>>,
    groups: &BTreeSet<&Arn>,
) -> Vec<Call> {
    let uses = |forward: &Forward<Arn>| forward.groups().any(|arn| groups.contains(arn));
    let mut calls = Vec::new();
    for (arn, rule) in listener.rules.iter().filter(|(_, it)| uses(&it.forward)) {
        let (arn, left) = (arn.clone(), rest(&rule.forward, groups));
        calls.push(match left {
            Some(forward) => Call::ModifyRule { rule: arn, forward },
            None => Call::DeleteRule { rule: arn },
        });
    }
    if uses(&listener.forward) {
        calls.push(Call::ModifyListener {
            listener: listener.arn.clone(),
            protocol: None,
            forward: left,
            service: listener.tags.get(SERVICE_UID).cloned(),
        });
    }
    calls
}

/// What is left without these groups, if anything is.
fn rest(forward: &Forward<Arn>, groups: &BTreeSet<&Arn>) -> Option<Forward<Ref>> {
    let others = forward.iter().filter(|(arn, _)| !groups.contains(arn));
    let others: Vec<(Ref, u32)> = others
        .map(|(arn, weight)| (Ref::Known(arn.clone()), weight))
        .collect();
    (!others.is_empty()).then(|| Forward::divided(others))
}
