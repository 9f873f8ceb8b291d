//! The calls that turn what there is into what the Services of one load balancer need. Pure.
//!
//! [`plan`] gives them in the order in which they are made. Each call is safe to repeat, and a
//! crash between any two of them leaves nothing that the next plan does not see: every object
//! has its tags from its creation on, and the tag `ballast.dev/applied` is written when
//! everything is there. So a load balancer without the right tag is compared again. One with it
//! costs no call, if the objects that exist are those that the Service needs ([`is_finished`]).
//!
//! ```text
//!  nothing ─▶ security group ─▶ target groups ─▶ targets ─▶ load balancer ─▶ listeners ─▶ applied
//!                                                                                           │
//!  applied, and the Service wants something else ─▶ the differences, in the same order ─────┤
//!                                                                                           ▼
//!  gone ◀─ security group ◀─ target groups ◀─ load balancer ◀─ released       what nothing uses goes
//! ```
//!
//! What is new comes before what it replaces goes: targets are registered before a listener sends
//! to them and before others are deregistered, and rules and certificates are added before others are
//! removed. A load balancer of another scheme has nothing in common with its successor, and stays
//! until the caller says that the successor serves.
//!
//! A load balancer that gets or loses IPv6 addresses keeps its listeners of TCP. Those with UDP have one family of target
//! groups, which depends on the load balancer's, so AWS permits no order in which they could stay:
//!
//! ```text
//!  DeleteListener (UDP) ─▶ it gets IPv6 ─▶ listeners of TCP, and their rules ─▶ it loses IPv6 ─▶ CreateListener (UDP)
//! ```
//!
//! It gets IPv6 before a listener has a rule for clients with IPv6 addresses, and loses it after the last such rule.
//!
//! The security group of a new load balancer is made first, because AWS never makes it twice: if it is new,
//! so is everything else, with one exception (`Record::is_first`). A target group, a load balancer or a
//! listener that is there already looks in AWS's answer as if it were new.
//!
//! What nothing uses any more is deleted last and apart ([`Plan::cleanup`]): AWS refuses such
//! calls for minutes, and that must hold up nothing else.
//!
//! Objects that do not exist yet have no ID. A [`Ref`] names them, and whoever makes the calls
//! puts in the IDs that AWS has returned.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ballast_provider::Refusal;
use ballast_provider::mark::APPLIED;

use crate::call::{Call, Ref};
use crate::desired::{Desired, Groups, ListenerSpec, PrefixLists, TargetGroup, Transport};
use crate::nodes::Nodes;
use crate::observed::{
    Arn, LoadBalancerState, Observed, ObservedListener, ObservedLoadBalancer, ObservedTargetGroup,
};
use crate::pods::Pods;
use crate::settings::attributes;
use crate::target::{Backends, TargetId};

mod balancer;
mod bind;
mod capacity;
mod differences;
mod groups;
mod kept;
mod leave;
mod listeners;

pub use self::bind::{bind, is_needed_as_note, unbind_all};
use self::bind::{deregister, register, unbind};
use self::differences::changes;
use self::kept::Kept;
pub use self::kept::serves_any;
pub use self::leave::leave;

/// The most targets in one call.
pub const CHUNK: usize = 200;

/// What the calls depend on beside the objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Situation {
    /// The nodes that load balancers send to; `None`: they are not known yet, and target groups keep what they have.
    pub nodes: Option<Arc<Nodes>>,
    /// The pods that load balancers send to.
    pub pods: Pods,
    /// Whether clients can use the load balancer instead of the one that it replaces: it has
    /// healthy targets, and its name has been published for longer than clients remember names.
    pub successor_serves: bool,
    /// The prefix lists that the Service names.
    pub prefix_lists: PrefixLists,
    /// Whether AWS has just refused what the Service wants to reserve.
    pub reservation_waits: bool,
}

/// What is to be done, and what its owner should know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The calls in order. After the last one everything is applied.
    pub calls: Vec<Call>,
    /// The calls that delete what nothing uses. Each may fail for a while, and is tried again
    /// later.
    pub cleanup: Vec<Call>,
    /// Remarks for the owner of the Service.
    pub remarks: Vec<String>,
    /// Why the load balancer keeps something that the Service does not want any more. Then it does
    /// not count as applied.
    pub objection: Option<Refusal>,
    /// The capacity that is reserved must change, and cannot yet: the load balancer is not active, or AWS has just
    /// refused it. Then it does not count as applied.
    pub reservation_waits: bool,
}

/// The calls for what a Service needs.
pub fn plan(desired: &Desired, situation: &Situation, observed: &Observed) -> Plan {
    let there = observed.load_balancers.get(&desired.name);
    // One that AWS could not make never serves. Another one takes its name.
    let failed = there.filter(|one| one.state == LoadBalancerState::Failed);
    let present = there.filter(|_| failed.is_none());
    let kept = Kept::of(desired, present, observed);
    let hash = desired.hash();
    let objection = kept.objection(desired);
    let desired = &*kept.widen(desired, observed);
    let mut before = Plan::default();
    for group in desired.target_groups.values() {
        before.target_group(group, observed);
    }
    let mut after = Plan {
        objection,
        ..Plan::default()
    };
    let lists = &situation.prefix_lists;
    let groups = after.security_groups(desired, observed, lists);
    let makes_group = matches!(after.calls.first(), Some(Call::CreateSecurityGroup { .. }));
    let first = if makes_group && present.is_none() {
        std::mem::take(&mut after.calls)
    } else {
        Vec::new()
    };
    let rest = present.map(|there| after.remade_listeners(desired, there));
    let present = rest.as_ref();
    after.load_balancer(desired, present, &groups);
    let reservation = capacity::step(desired, situation, present);
    if let capacity::Step::Cancel(call) = &reservation {
        after.calls.push(call.clone());
    }
    let udp = |one: &ListenerSpec| one.transport != Transport::Tcp;
    after.listeners(desired, present, observed, |one| !udp(one));
    after.obsolete_listeners(desired, present, &kept.ports);
    after.narrow(desired, present);
    after.listeners(desired, present, observed, udp);
    after.late_attributes(desired, observed);
    after.tags(desired, present, observed);
    after.obsolete_rules(desired, observed, lists);
    if let capacity::Step::Reserve(call) = &reservation {
        after.calls.push(call.clone());
    }
    let differs = !before.calls.is_empty() || !after.calls.is_empty();
    let mut plan = Plan {
        calls: first.into_iter().chain(before.calls).collect(),
        remarks: after.remarks,
        objection: after.objection,
        reservation_waits: matches!(reservation, capacity::Step::Wait),
        ..Plan::default()
    };
    plan.unfinished(present, differs);
    for (name, group) in &desired.target_groups {
        let there = observed.target_groups.get(name);
        let registered = there.map(|it| &it.targets);
        if let Some(targets) = situation.targets(&group.backends(), &group.tags) {
            plan.targets(&reference(there, name), &targets, registered);
        }
    }
    plan.kept_targets(desired, &kept, situation, observed);
    if let Some(failed) = failed {
        plan.unprotect(desired, failed);
        let load_balancer = failed.arn.clone();
        plan.calls.push(Call::DeleteLoadBalancer { load_balancer });
    }
    plan.calls.append(&mut after.calls);
    let complete = plan.objection.is_none() && !plan.reservation_waits;
    let unmarked =
        differs || present.and_then(ObservedLoadBalancer::applied) != Some(hash.as_str());
    if complete && unmarked {
        plan.calls.push(Call::AddTags {
            of: vec![load_balancer(desired, present)],
            tags: [(APPLIED.to_owned(), hash)].into(),
        });
    }
    let others = observed.load_balancers.iter();
    let (mut stay, others): (Vec<_>, Vec<_>) = others
        .filter(|(name, _)| **name != desired.name)
        .map(|(_, one)| one)
        .partition(|one| kept.has(one));
    plan.predecessors(desired, situation, &others, observed);
    if !situation.successor_serves {
        stay.extend(&others);
    }
    plan.obsolete(desired, &stay, &kept.groups, observed);
    plan
}

/// Whether nothing differs, as far as the names and tags of all objects say. A process that starts
/// knows no more, and compares only load balancers for which it is false.
pub fn is_finished(desired: &Desired, observed: &Observed) -> bool {
    let present = observed.load_balancers.get(&desired.name);
    let group = match &desired.groups {
        Groups::Own { name, .. } => Some(name),
        Groups::Given(_) => None,
    };
    let serves = present.filter(|one| one.state != LoadBalancerState::Failed);
    serves.and_then(ObservedLoadBalancer::applied) == Some(desired.hash().as_str())
        && observed.load_balancers.len() == 1
        && observed.groups.keys().eq(group)
        && (observed.target_groups.iter())
            .filter(|(_, one)| !kept::is_of(&desired.kept, &one.tags))
            .map(|(name, _)| name)
            .eq(desired.target_groups.keys())
}

/// The calls for a Service that needs nothing any more.
pub fn release(observed: &Observed) -> Vec<Call> {
    let balancers = observed.load_balancers.values().map(|one| {
        let load_balancer = one.arn.clone();
        Call::DeleteLoadBalancer { load_balancer }
    });
    let targets = observed.target_groups.values().flat_map(unbind);
    let clients = observed.groups.values().map(|one| {
        let security_group = one.id.clone();
        Call::DeleteSecurityGroup { security_group }
    });
    balancers.chain(targets).chain(clients).collect()
}

/// The calls for new targets of one target group that exists: what is new is registered first.
pub fn retarget(there: &ObservedTargetGroup, targets: &BTreeSet<TargetId>) -> Vec<Call> {
    bind::targets(&Ref::Known(there.arn.clone()), there, targets)
}

// === impl Situation ===

impl Situation {
    /// The targets of a target group with these backends and tags; `None` if they are not known.
    pub(crate) fn targets(
        &self,
        backends: &Backends,
        tags: &BTreeMap<String, String>,
    ) -> Option<BTreeSet<TargetId>> {
        match backends {
            Backends::Nodes(selector, reached) => {
                Some(self.nodes.as_ref()?.selected(selector, *reached))
            }
            Backends::Pods(family) => self.pods.selected(tags, *family),
        }
    }
}

// === impl Plan ===

impl Plan {
    /// Makes a change visible before it begins. If a change is interrupted, and the Service then
    /// asks again for what it had before, the tag of what was applied would be right and the
    /// objects would not. A new target group is visible by its name, so it needs no call.
    fn unfinished(&mut self, present: Option<&ObservedLoadBalancer>, differs: bool) {
        let visible = matches!(self.calls.first(), Some(Call::CreateTargetGroup { .. }));
        if let Some(present) = present.filter(|present| present.applied().is_some())
            && differs
            && !visible
        {
            let of = vec![Ref::Known(present.arn.clone())];
            let keys = vec![APPLIED.to_owned()];
            self.calls.insert(0, Call::RemoveTags { of, keys });
        }
    }

    fn target_group(&mut self, group: &TargetGroup, observed: &Observed) {
        let there = observed.target_groups.get(&group.name);
        let target_group = reference(there, &group.name);
        match there {
            None => self.calls.push(Call::CreateTargetGroup {
                target_group: group.clone(),
                tags: group.tags.clone(),
            }),
            Some(there) if there.check != group.check => {
                self.calls.push(Call::ModifyTargetGroup {
                    target_group: target_group.clone(),
                    check: group.check.clone(),
                });
            }
            Some(_) => {}
        }
        let attributes = attributes_of(group, there);
        if !attributes.is_empty() && !come_late(&attributes, there, observed) {
            self.calls.push(Call::ModifyTargetGroupAttributes {
                target_group,
                attributes,
            });
        }
    }

    /// The attributes that wait until a listener does not end TLS any more.
    fn late_attributes(&mut self, desired: &Desired, observed: &Observed) {
        for group in desired.target_groups.values() {
            let there = observed.target_groups.get(&group.name);
            let attributes = attributes_of(group, there);
            if come_late(&attributes, there, observed) {
                self.calls.push(Call::ModifyTargetGroupAttributes {
                    target_group: reference(there, &group.name),
                    attributes,
                });
            }
        }
    }

    /// `present` is absent for a target group that does not exist yet.
    fn targets(
        &mut self,
        target_group: &Ref,
        targets: &BTreeSet<TargetId>,
        present: Option<&BTreeSet<TargetId>>,
    ) {
        let none = BTreeSet::new();
        let present = present.unwrap_or(&none);
        let new: Vec<TargetId> = targets.difference(present).cloned().collect();
        let old: Vec<TargetId> = present.difference(targets).cloned().collect();
        self.calls.extend(register(target_group, &new));
        self.calls.extend(deregister(target_group, &old));
    }

    /// Deletes load balancers of another scheme, or keeps their targets up to date.
    fn predecessors(
        &mut self,
        desired: &Desired,
        situation: &Situation,
        others: &[&ObservedLoadBalancer],
        observed: &Observed,
    ) {
        for one in others {
            self.unprotect(desired, one);
        }
        if situation.successor_serves {
            self.cleanup
                .extend(others.iter().map(|one| Call::DeleteLoadBalancer {
                    load_balancer: one.arn.clone(),
                }));
            return;
        }
        let used = groups_of(others);
        for one in observed.target_groups.values() {
            if used.contains(&one.arn)
                && let Some(targets) = situation.targets(&one.backends(), &one.tags)
            {
                let group = Ref::Known(one.arn.clone());
                self.targets(&group, &targets, Some(&one.targets));
            }
        }
    }

    /// Target groups and security groups that neither the load balancer nor those that `stay` need. What is `kept` is
    /// needed, too.
    fn obsolete(
        &mut self,
        desired: &Desired,
        stay: &[&ObservedLoadBalancer],
        kept: &BTreeSet<&Arn>,
        observed: &Observed,
    ) {
        let used = groups_of(stay);
        let unused = observed.target_groups.iter().filter(|(name, one)| {
            let needed = used.contains(&one.arn) || kept.contains(&one.arn);
            !desired.target_groups.contains_key(*name) && !needed
        });
        self.cleanup.extend(unused.flat_map(|(_, one)| unbind(one)));
        let own = match &desired.groups {
            Groups::Own { name, .. } => Some(name),
            Groups::Given(_) => None,
        };
        let held = |id: &String| stay.iter().any(|one| one.groups.contains(id));
        let free =
            (observed.groups.iter()).filter(|(name, one)| Some(*name) != own && !held(&one.id));
        self.cleanup
            .extend(free.map(|(_, one)| Call::DeleteSecurityGroup {
                security_group: one.id.clone(),
            }));
    }
}

/// The attributes of a target group that differ.
fn attributes_of(
    group: &TargetGroup,
    there: Option<&ObservedTargetGroup>,
) -> BTreeMap<String, String> {
    let initial = group.initial_attributes();
    let present = there.map_or(&initial, |there| &there.attributes);
    changes(&group.attributes, present, &attributes::TARGET_GROUP)
}

/// AWS has no sticky connections with TLS: they end before a listener begins with TLS, and begin after it has ended
/// with it.
fn come_late(
    attributes: &BTreeMap<String, String>,
    there: Option<&ObservedTargetGroup>,
    observed: &Observed,
) -> bool {
    let sticky = attributes.get(attributes::STICKINESS);
    let balancers = observed.load_balancers.values();
    let mut listeners = balancers.flat_map(|one| one.listeners.values());
    sticky.is_some_and(|it| it == "true")
        && there
            .is_some_and(|there| listeners.any(|one| one.tls.is_some() && one.sends_to(&there.arn)))
}

/// The target groups to which these load balancers send.
fn groups_of<'a>(all: &[&'a ObservedLoadBalancer]) -> BTreeSet<&'a Arn> {
    let listeners = all.iter().flat_map(|one| one.listeners.values());
    listeners.flat_map(ObservedListener::groups).collect()
}

fn load_balancer(desired: &Desired, present: Option<&ObservedLoadBalancer>) -> Ref {
    present.map_or_else(
        || Ref::Made(desired.name.clone()),
        |present| Ref::Known(present.arn.clone()),
    )
}

fn reference(there: Option<&ObservedTargetGroup>, name: &str) -> Ref {
    there.map_or_else(
        || Ref::Made(name.to_owned()),
        |there| Ref::Known(there.arn.clone()),
    )
}

#[cfg(test)]
pub(crate) mod tests;
