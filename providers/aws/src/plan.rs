//! The calls that turn what there is into what a Service needs. Pure.
//!
//! [`plan`] gives them in the order in which they are made. Each step is safe to repeat, and a
//! crash between any two of them leaves nothing that the next plan does not see: every object
//! has its tags from its creation on, and the tag `ballast.dev/applied` is written by the last
//! call only. So a load balancer without the right tag is compared again. One with it costs no
//! call, if the target groups that exist are those that the Service needs.
//!
//! ```text
//!  nothing ──▶ target groups ──▶ group, rules ──▶ load balancer ──▶ listeners ──▶ targets ──▶ applied
//!                                                                                               │
//!  applied, and the Service wants something else ──▶ the differences, in the same order ────────┤
//!                                                                                               ▼
//!  gone ◀── group ◀── target groups ◀── load balancer ◀── released              what nothing uses goes
//! ```
//!
//! What is new comes before what it replaces goes: rules are added before others are removed,
//! targets are registered before others are deregistered, and a load balancer of another scheme
//! is deleted only when its successor is active.
//!
//! Objects that do not exist yet have no ID. A [`Ref`] names them, and whoever makes the calls
//! puts in the IDs that AWS has returned.

use std::collections::{BTreeMap, BTreeSet};

use ballast_provider::mark::APPLIED;

use crate::call::{Call, Ref};
use crate::desired::{Desired, Groups, Rule, Subnet, TargetGroup};
use crate::observed::{
    Arn, LoadBalancerState, Observed, ObservedLoadBalancer, ObservedTargetGroup,
};
use crate::settings::attributes;

/// The most targets in one call.
pub const CHUNK: usize = 200;

/// What is to be done, and what its owner should know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The calls in order.
    pub calls: Vec<Call>,
    /// Remarks for the owner of the Service.
    pub remarks: Vec<String>,
}

/// The calls for what a Service needs. `targets` are the IDs of all instances.
pub fn plan(desired: &Desired, targets: &BTreeSet<String>, observed: &Observed) -> Plan {
    let present = observed.load_balancers.get(&desired.name);
    let mut plan = Plan::default();
    for group in desired.listeners.values() {
        plan.target_group(desired, group, observed);
    }
    let groups = plan.clients(desired, observed);
    plan.load_balancer(desired, present, &groups);
    plan.listeners(desired, present, observed);
    let mut after = Plan::default();
    after.tags(desired, present, observed);
    after.obsolete_rules(desired, observed);
    let differs = !plan.calls.is_empty() || !after.calls.is_empty();
    plan.unfinished(observed, differs);
    for group in desired.listeners.values() {
        let there = observed.target_groups.get(&group.name);
        let registered = there.map(|it| &it.targets);
        plan.targets(&reference(there, &group.name), targets, registered);
    }
    plan.calls.append(&mut after.calls);
    plan.obsolete(desired, observed);
    let hash = desired.hash();
    let applied = present.and_then(ObservedLoadBalancer::applied) == Some(hash.as_str());
    if differs || !applied {
        plan.calls.push(Call::AddTags {
            of: vec![load_balancer(desired, present)],
            tags: [(APPLIED.to_owned(), hash)].into(),
        });
    }
    plan
}

/// The calls for a Service that needs nothing any more.
pub fn release(observed: &Observed) -> Vec<Call> {
    let load_balancers = observed.load_balancers.values();
    let target_groups = observed.target_groups.values();
    let balancers = load_balancers.map(|one| Call::DeleteLoadBalancer {
        load_balancer: one.arn.clone(),
    });
    let groups = target_groups.map(|one| Call::DeleteTargetGroup {
        group: one.arn.clone(),
    });
    let clients = observed.group.as_ref().map(|one| Call::DeleteGroup {
        group: one.id.clone(),
    });
    balancers.chain(groups).chain(clients).collect()
}

/// The calls for new targets of one target group: what is new is registered first.
pub fn retarget(group: &Ref, targets: &BTreeSet<String>, present: &BTreeSet<String>) -> Vec<Call> {
    let mut plan = Plan::default();
    plan.targets(group, targets, Some(present));
    plan.calls
}

// === impl Plan ===

impl Plan {
    /// Makes a change visible before it begins. If a change is interrupted, and the Service then
    /// asks again for what it had before, the tag of what was applied would be right and the
    /// objects would not. A new target group is visible by its name, so it needs no call. The
    /// load balancer that is replaced counts, too: it shares the security group.
    fn unfinished(&mut self, observed: &Observed, differs: bool) {
        let of: Vec<Ref> = (observed.load_balancers.values())
            .filter(|one| one.applied().is_some())
            .map(|one| Ref::Known(one.arn.clone()))
            .collect();
        let visible = matches!(self.calls.first(), Some(Call::CreateTargetGroup { .. }));
        if differs && !visible && !of.is_empty() {
            let keys = vec![APPLIED.to_owned()];
            self.calls.insert(0, Call::RemoveTags { of, keys });
        }
    }

    /// The security groups of the load balancer, after the calls that make them.
    fn clients(&mut self, desired: &Desired, observed: &Observed) -> Vec<Ref> {
        let mut all = match &desired.groups {
            Groups::Given(ids) => ids.iter().cloned().map(Ref::Known).collect(),
            Groups::Own { name, rules } => {
                let there = observed.group.as_ref();
                let group = there.map_or_else(
                    || Ref::Made(name.clone()),
                    |there| Ref::Known(there.id.clone()),
                );
                if there.is_none() {
                    self.calls.push(Call::CreateGroup {
                        name: name.clone(),
                        tags: desired.tags.clone(),
                    });
                }
                let none = BTreeSet::new();
                let present = there.map_or(&none, |there| &there.rules);
                let rules: BTreeSet<Rule> = rules.difference(present).cloned().collect();
                if !rules.is_empty() {
                    let group = group.clone();
                    self.calls.push(Call::Authorize { group, rules });
                }
                vec![group]
            }
        };
        if desired.backend {
            all.push(Ref::Backend);
        }
        all
    }

    /// Rules that are not wanted any more go last, so that no client is cut off before the rule
    /// that replaces its own is there.
    fn obsolete_rules(&mut self, desired: &Desired, observed: &Observed) {
        let (Groups::Own { rules, .. }, Some(there)) = (&desired.groups, &observed.group) else {
            return;
        };
        let rules: BTreeSet<Rule> = there.rules.difference(rules).cloned().collect();
        if !rules.is_empty() {
            let group = Ref::Known(there.id.clone());
            self.calls.push(Call::Revoke { group, rules });
        }
    }

    fn target_group(&mut self, desired: &Desired, group: &TargetGroup, observed: &Observed) {
        let there = observed.target_groups.get(&group.name);
        let reference = reference(there, &group.name);
        match there {
            None => self.calls.push(Call::CreateTargetGroup {
                group: group.clone(),
                tags: desired.tags.clone(),
            }),
            Some(there) if there.check != group.check => self.calls.push(Call::ModifyCheck {
                group: reference.clone(),
                check: group.check.clone(),
            }),
            Some(_) => {}
        }
        let none = BTreeMap::new();
        let present = there.map_or(&none, |there| &there.attributes);
        let attributes = changes(&group.attributes, present, &attributes::TARGET_GROUP);
        if !attributes.is_empty() {
            self.calls.push(Call::ModifyTargetGroup {
                group: reference,
                attributes,
            });
        }
    }

    fn load_balancer(
        &mut self,
        desired: &Desired,
        present: Option<&ObservedLoadBalancer>,
        groups: &[Ref],
    ) {
        let this = load_balancer(desired, present);
        let none = BTreeMap::new();
        let Some(there) = present else {
            self.calls.push(Call::CreateLoadBalancer {
                name: desired.name.clone(),
                scheme: desired.scheme,
                subnets: desired.subnets.clone(),
                groups: groups.to_vec(),
                tags: desired.tags.clone(),
            });
            self.attributes(desired, this, &none);
            return;
        };
        let subnets: BTreeSet<Subnet> = desired.subnets.iter().cloned().collect();
        if there.subnets != subnets {
            self.calls.push(Call::SetSubnets {
                load_balancer: this.clone(),
                subnets: desired.subnets.clone(),
            });
        }
        let ids: BTreeSet<&str> = groups.iter().filter_map(Ref::known).collect();
        // The ID of the backend group is not known here. It is there if one group more is.
        let more = groups.len() - ids.len();
        let kept = ids.iter().all(|id| there.groups.contains(*id));
        if !kept || there.groups.len() != ids.len() + more {
            self.calls.push(Call::SetGroups {
                load_balancer: this.clone(),
                groups: groups.to_vec(),
            });
        }
        self.attributes(desired, this, &there.attributes);
    }

    /// The attributes of the load balancer. Deletion protection is switched on whenever the
    /// Service wants it, and off only if the Service says `false`: an operator may have switched
    /// it on by hand.
    fn attributes(
        &mut self,
        desired: &Desired,
        load_balancer: Ref,
        present: &BTreeMap<String, String>,
    ) {
        let mut all = changes(&desired.attributes, present, &attributes::LOAD_BALANCER);
        let unsaid = !desired
            .attributes
            .contains_key(attributes::DELETION_PROTECTION);
        if unsaid && all.remove(attributes::DELETION_PROTECTION).is_some() {
            self.remarks.push(format!(
                "the load balancer has {}=true, which the Service does not ask for; it stays. To switch it off, set it to false",
                attributes::DELETION_PROTECTION
            ));
        }
        if !all.is_empty() {
            self.calls.push(Call::ModifyLoadBalancer {
                load_balancer,
                attributes: all,
            });
        }
    }

    fn listeners(
        &mut self,
        desired: &Desired,
        present: Option<&ObservedLoadBalancer>,
        observed: &Observed,
    ) {
        for (&port, group) in &desired.listeners {
            let there = observed.target_groups.get(&group.name);
            let target = reference(there, &group.name);
            match present.and_then(|present| present.listeners.get(&port)) {
                None => self.calls.push(Call::CreateListener {
                    load_balancer: load_balancer(desired, present),
                    port,
                    transport: group.transport,
                    group: target,
                    tags: desired.tags.clone(),
                }),
                Some(there)
                    if there.transport != group.transport
                        || target.known() != Some(there.target_group.as_str()) =>
                {
                    self.calls.push(Call::ModifyListener {
                        listener: there.arn.clone(),
                        transport: group.transport,
                        group: target,
                    });
                }
                Some(_) => {}
            }
        }
        for (port, listener) in present.iter().flat_map(|present| &present.listeners) {
            if !desired.listeners.contains_key(port) {
                self.calls.push(Call::DeleteListener {
                    listener: listener.arn.clone(),
                });
            }
        }
    }

    /// `present` is absent for a target group that does not exist yet.
    fn targets(
        &mut self,
        group: &Ref,
        targets: &BTreeSet<String>,
        present: Option<&BTreeSet<String>>,
    ) {
        let none = BTreeSet::new();
        let present = present.unwrap_or(&none);
        let new: Vec<String> = targets.difference(present).cloned().collect();
        let old: Vec<String> = present.difference(targets).cloned().collect();
        for chunk in new.chunks(CHUNK) {
            self.calls.push(Call::Register {
                group: group.clone(),
                targets: chunk.to_vec(),
            });
        }
        for chunk in old.chunks(CHUNK) {
            self.calls.push(Call::Deregister {
                group: group.clone(),
                targets: chunk.to_vec(),
            });
        }
    }

    /// Tags that differ, on what existed before this plan; the others have them from their
    /// creation on. A tag that the Service does not name any more is removed. Tags of AWS and the
    /// one of what was applied stay.
    fn tags(
        &mut self,
        desired: &Desired,
        present: Option<&ObservedLoadBalancer>,
        observed: &Observed,
    ) {
        let used = desired.listeners.values();
        let groups = used.filter_map(|group| observed.target_groups.get(&group.name));
        let all = (present.map(|one| (&one.arn, &one.tags)).into_iter())
            .chain(groups.map(|one| (&one.arn, &one.tags)));
        let mut missing: BTreeMap<BTreeMap<String, String>, Vec<Ref>> = BTreeMap::new();
        let mut extra: BTreeMap<Vec<String>, Vec<Ref>> = BTreeMap::new();
        for (arn, tags) in all {
            let add: BTreeMap<String, String> = (desired.tags.iter())
                .filter(|(key, value)| tags.get(*key) != Some(value))
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect();
            if !add.is_empty() {
                missing
                    .entry(add)
                    .or_default()
                    .push(Ref::Known(arn.clone()));
            }
            let remove: Vec<String> = (tags.keys())
                .filter(|key| !desired.tags.contains_key(*key))
                .filter(|key| !key.starts_with("aws:") && !key.starts_with("ballast.dev/"))
                .cloned()
                .collect();
            if !remove.is_empty() {
                extra
                    .entry(remove)
                    .or_default()
                    .push(Ref::Known(arn.clone()));
            }
        }
        let adds = missing
            .into_iter()
            .map(|(tags, of)| Call::AddTags { of, tags });
        let removes = extra
            .into_iter()
            .map(|(keys, of)| Call::RemoveTags { of, keys });
        self.calls.extend(adds.chain(removes));
    }

    /// What nothing uses any more. A load balancer of another name is the predecessor of this
    /// one, and goes only when this one works.
    fn obsolete(&mut self, desired: &Desired, observed: &Observed) {
        let present = observed.load_balancers.get(&desired.name);
        let works = present.is_some_and(|present| {
            present.state == LoadBalancerState::Active && present.applied().is_some()
        });
        let mut others = observed.load_balancers.iter();
        let others: Vec<_> = others
            .by_ref()
            .filter(|(name, _)| **name != desired.name)
            .map(|(_, one)| one)
            .collect();
        if works {
            self.calls
                .extend(others.iter().map(|one| Call::DeleteLoadBalancer {
                    load_balancer: one.arn.clone(),
                }));
        }
        let used: BTreeSet<&str> = (desired.listeners.values())
            .map(|group| group.name.as_str())
            .collect();
        let still: BTreeSet<&Arn> = (others.iter().filter(|_| !works))
            .flat_map(|one| one.listeners.values())
            .map(|listener| &listener.target_group)
            .collect();
        let unused = (observed.target_groups.iter())
            .filter(|(name, one)| !used.contains(name.as_str()) && !still.contains(&one.arn));
        self.calls
            .extend(unused.map(|(_, one)| Call::DeleteTargetGroup {
                group: one.arn.clone(),
            }));
        // The group that was Ballast's own goes after the load balancer has the user's.
        if let (Groups::Given(_), Some(group)) = (&desired.groups, &observed.group) {
            self.calls.push(Call::DeleteGroup {
                group: group.id.clone(),
            });
        }
    }
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

/// The attributes to set: those that differ, and those that are back at AWS's default because
/// nothing asks for them any more. An attribute that AWS does not report has its default.
fn changes(
    wanted: &BTreeMap<String, String>,
    present: &BTreeMap<String, String>,
    table: &[attributes::Attribute],
) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for known in table {
        let value = wanted.get(known.key).map_or(known.default, String::as_str);
        let now = present.get(known.key).map_or(known.default, String::as_str);
        if value != now {
            all.insert(known.key.to_owned(), value.to_owned());
        }
    }
    all
}

#[cfg(test)]
mod tests;
