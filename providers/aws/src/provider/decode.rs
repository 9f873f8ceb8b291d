//! What the client has read, as [`crate::observed`] has it: without the tags that are no part of a
//! desired state ([`NOTES`]). Pure.

use std::collections::{BTreeMap, BTreeSet};

use ballast_provider::mark::NOTES;

use crate::client::values::{self, Tags};
use crate::observed::{
    Bound, ObservedListener, ObservedLoadBalancer, ObservedTargetGroup, SecurityGroup,
};
use crate::target::TargetId;

/// With its name.
pub(super) fn security_group(one: values::SecurityGroup) -> (String, SecurityGroup) {
    let there = SecurityGroup {
        id: one.id,
        tags: without_notes(one.tags),
        rules: one.rules,
    };
    (one.name, there)
}

pub(super) fn load_balancer(one: values::LoadBalancer, tags: Tags) -> ObservedLoadBalancer {
    ObservedLoadBalancer {
        arn: one.arn,
        hostname: one.hostname,
        state: one.state,
        reason: one.reason,
        scheme: one.scheme,
        addresses: one.families,
        subnets: one.zones.into_values().map(|zone| zone.subnet).collect(),
        groups: one.security_groups,
        private_link_rules: one.private_link_rules,
        attributes: BTreeMap::new(),
        reservation: None,
        tags: without_notes(tags),
        listeners: BTreeMap::new(),
    }
}

/// `None`: it is none that Ballast makes.
pub(super) fn target_group(
    one: values::TargetGroup,
    tags: Tags,
) -> Option<(String, ObservedTargetGroup)> {
    let group = ObservedTargetGroup {
        arn: one.arn,
        target_type: one.target_type?,
        family: one.family,
        check: one.check?,
        attributes: BTreeMap::new(),
        bound: Bound::of(&tags),
        tags: without_notes(tags),
        targets: BTreeSet::new(),
    };
    Some((one.name, group))
}

fn without_notes(mut tags: Tags) -> Tags {
    tags.retain(|key, _| !NOTES.contains(&key.as_str()));
    tags
}

/// A listener that is not as Ballast makes them sends to no target group of this Service, so the
/// plan changes it.
pub(super) fn listener(one: values::Listener, tags: Tags) -> Option<(u16, ObservedListener)> {
    let there = ObservedListener {
        arn: one.arn,
        transport: one.transport?,
        tls: one.tls,
        sni: BTreeSet::new(),
        forward: one.forward.unwrap_or_default(),
        rules: BTreeMap::new(),
        attributes: BTreeMap::new(),
        tags,
    };
    Some((one.port, there))
}

/// The targets of a target group, without those that were deregistered and drain.
pub(super) fn registered(
    of: &ObservedTargetGroup,
    targets: &[values::TargetHealth],
) -> BTreeSet<TargetId> {
    let stay = |one: &&values::TargetHealth| one.health != values::Health::Draining;
    let all = targets.iter().filter(stay);
    all.map(|one| named_in(of, one)).collect()
}

/// A target as the targets of this group are named.
pub(super) fn named_in(of: &ObservedTargetGroup, one: &values::TargetHealth) -> TargetId {
    match (&one.target, one.port) {
        (TargetId::Instance(id), Some(port)) if of.bound.is_some() => {
            TargetId::InstanceAt(id.clone(), port)
        }
        (target, _) => target.clone(),
    }
}
