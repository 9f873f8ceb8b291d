//! What a turn makes of a plan: what it leaves out for now, and where it stops to read. Pure.

use std::sync::Arc;

use ballast_provider::ProviderError;
use ballast_provider::mark::SERVICE_UID;

use super::super::execute::may_return_another;
use super::super::faults::Faults;
use super::super::records::{Deletions, Depth, Record};
use super::super::said::Said;
use super::REMAKE;
use crate::call::Call;
use crate::desired::{Desired, Part, TargetGroup};
use crate::observed::Observed;
use crate::plan::{Plan, Situation};

/// The Services of target groups that do not exist yet, and of which nobody knows which pods they get: no listener
/// moves to an empty one.
pub(super) fn unknown_pods(
    desired: &Desired,
    situation: &Situation,
    observed: &Observed,
) -> Faults {
    let new = desired
        .target_groups
        .values()
        .filter(|group| !observed.target_groups.contains_key(&group.name));
    let unknown = new.filter(|group| {
        let backends = group.backends();
        !backends.are_nodes() && situation.targets(&backends, &group.tags).is_none()
    });
    let named = unknown.filter_map(|group| {
        let uid = group.tags.get(SERVICE_UID)?.as_str();
        let why = "the pods of the Service are not known yet, so nothing is sent to them";
        Some((Arc::from(uid), ProviderError::transient(why)))
    });
    named.collect()
}

/// What the Services ask for, without target groups to which nothing can be sent now.
pub(super) fn reachable(
    desired: Desired,
    situation: &Situation,
    record: &Record,
    parts: &[Part<'_>],
    said: &mut Said,
) -> Desired {
    // Lists do not say which targets a target group has.
    let unread = record.depth == Depth::Names;
    let has_now = |group: &TargetGroup| {
        let there = record.observed.target_groups.get(&group.name);
        there.is_some_and(|there| unread || !there.targets.is_empty())
    };
    let gets = |group: &TargetGroup| {
        let targets = situation.targets(&group.backends(), &group.tags);
        targets.is_some_and(|targets| !targets.is_empty())
    };
    let refused = |group: &TargetGroup| {
        let uid = group.tags.get(SERVICE_UID);
        uid.is_some_and(|uid| record.faults.contains_key(uid.as_str()))
    };
    // What nobody knows stays as it is.
    let unknown = |group: &TargetGroup| situation.targets(&group.backends(), &group.tags).is_none();
    let (desired, remarks) = desired.reachable(
        |group| gets(group) || (unknown(group) && has_now(group)),
        |group| {
            let may_get = gets(group) && (has_now(group) || !refused(group));
            may_get || (unknown(group) && has_now(group))
        },
    );
    for (part, of_part) in parts.iter().zip(&mut said.of_each) {
        let remark = remarks.get(&*part.service.id.uid);
        of_part.extend(remark.map(|it| (*it).to_owned()));
    }
    desired
}

/// A load balancer that AWS could not make is made again only some minutes later, and not while nothing may be
/// deleted.
pub(super) fn must_wait(plan: &Plan, record: &Record) -> bool {
    let remakes = |call: &Call| matches!(call, Call::DeleteLoadBalancer { .. });
    let since = record.remade.map(|at| at.elapsed());
    let waits =
        record.deletions == Deletions::Forbidden || since.is_some_and(|since| since < REMAKE);
    plan.calls.iter().any(remakes) && waits
}

/// Where a plan is cut in two, so that the name of a new load balancer is published before the
/// rest is made.
pub(super) fn first_part(plan: &Plan) -> Option<usize> {
    let creates = |call: &Call| matches!(call, Call::CreateLoadBalancer { .. });
    plan.calls.iter().position(creates).map(|at| at + 1)
}

/// Where a plan is cut if AWS may return what a former process has made: a target group is read before a listener
/// sends to it, and a listener before everything counts as applied.
pub(super) fn unread_part(plan: &Plan) -> Option<usize> {
    let is_listener = |call: &Call| matches!(call, Call::CreateListener { .. });
    let last = |which: &dyn Fn(&Call) -> bool| plan.calls.iter().rposition(which);
    let behind = last(&|call| may_return_another(call) && !is_listener(call));
    behind.or_else(|| last(&is_listener)).map(|at| at + 1)
}
