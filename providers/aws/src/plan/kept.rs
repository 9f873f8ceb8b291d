//! What stays as it is for Services that are refused now, and of which nobody knows what was accepted
//! ([`Desired::kept`]). Pure.
//!
//! Tags say what they have: their target groups, and the listeners that send to them. With these stay the rules for
//! their ports and the families of the load balancer's addresses. All else of the load balancer follows the other
//! Services. If these ask for another scheme, the former load balancer stays as a whole. Targets are no settings:
//! nodes come and go as everywhere.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ballast_provider::mark::SERVICE_UID;
use ballast_provider::{Family, Reason, Refusal};

use super::{Plan, Situation, groups_of};
use crate::call::Ref;
use crate::desired::{Addresses, Desired, Groups, Rule, Traffic, Transport};
use crate::observed::{Arn, Observed, ObservedListener, ObservedLoadBalancer};

/// What stays.
#[derive(Debug)]
pub(super) struct Kept<'a> {
    /// The load balancer itself.
    present: Option<&'a ObservedLoadBalancer>,
    /// The ports of its listeners that stay.
    pub(super) ports: BTreeSet<u16>,
    /// The load balancers of other schemes that stay.
    balancers: BTreeSet<&'a Arn>,
    /// All target groups that stay.
    pub(super) groups: BTreeSet<&'a Arn>,
}

/// Whether an object with these tags is one of these Services.
pub(super) fn is_of(kept: &BTreeSet<Arc<str>>, tags: &BTreeMap<String, String>) -> bool {
    (tags.get(SERVICE_UID)).is_some_and(|uid| kept.contains(uid.as_str()))
}

/// Whether a load balancer has a listener of one of these Services.
pub fn serves_any(
    kept: &BTreeSet<Arc<str>>,
    one: &ObservedLoadBalancer,
    observed: &Observed,
) -> bool {
    let mut listeners = one.listeners.values();
    !kept.is_empty() && listeners.any(|one| is_listener_of(kept, one, observed))
}

/// The port may have been another Service's before, so its tags alone do not say whose it is. A listener of another
/// Service may send to these, too.
fn is_listener_of(
    kept: &BTreeSet<Arc<str>>,
    listener: &ObservedListener,
    observed: &Observed,
) -> bool {
    let groups = observed.target_groups.values();
    let groups = groups.filter(|group| listener.sends_to(&group.arn));
    let (its, others): (Vec<_>, Vec<_>) = groups.partition(|group| is_of(kept, &group.tags));
    if is_of(kept, &listener.tags) {
        !its.is_empty() || others.is_empty()
    } else {
        !its.is_empty() && others.is_empty()
    }
}

// === impl Kept ===

impl<'a> Kept<'a> {
    pub(super) fn of(
        desired: &Desired,
        present: Option<&'a ObservedLoadBalancer>,
        observed: &'a Observed,
    ) -> Self {
        let kept = &desired.kept;
        let mut all = Self {
            present,
            ports: BTreeSet::new(),
            balancers: BTreeSet::new(),
            groups: BTreeSet::new(),
        };
        if kept.is_empty() {
            return all;
        }
        for (port, listener) in present.iter().flat_map(|one| &one.listeners) {
            if !desired.listeners.contains_key(port) && is_listener_of(kept, listener, observed) {
                all.ports.insert(*port);
                all.groups.extend(listener.groups());
            }
        }
        let others = observed.load_balancers.iter();
        let others = others.filter(|(name, _)| **name != desired.name);
        for (_, one) in others.filter(|(_, one)| serves_any(kept, one, observed)) {
            all.balancers.insert(&one.arn);
            all.groups.extend(groups_of(&[one]));
        }
        let own = observed.target_groups.values();
        let own = own.filter(|group| is_of(kept, &group.tags));
        all.groups.extend(own.map(|group| &group.arn));
        all
    }

    pub(super) fn has(&self, load_balancer: &ObservedLoadBalancer) -> bool {
        self.balancers.contains(&load_balancer.arn)
    }

    /// What the load balancer must have beside what the other Services ask for: who may connect to the listeners that
    /// stay, and to which addresses.
    pub(super) fn widen<'b>(&self, desired: &'b Desired, observed: &Observed) -> Cow<'b, Desired> {
        let Some(present) = self.present.filter(|_| !self.ports.is_empty()) else {
            return Cow::Borrowed(desired);
        };
        let mut wide = desired.clone();
        wide.addresses = wide.addresses.max(present.addresses);
        if self.objection(desired).is_some() {
            wide.addresses = present.addresses;
            for listener in wide.listeners.values_mut() {
                listener.ipv6 = None;
            }
        }
        if let Groups::Own { name, rules, .. } = &mut wide.groups
            && let Some(there) = observed.groups.get(name)
        {
            let needed = there.rules.iter().filter(|rule| self.needs(rule));
            rules.extend(needed.cloned());
        }
        Cow::Owned(wide)
    }

    /// Why the load balancer gets no IPv6 addresses: AWS would have to make a listener of UDP again.
    pub(super) fn objection(&self, desired: &Desired) -> Option<Refusal> {
        let there = self.present.filter(|it| it.addresses == Addresses::Ipv4)?;
        let mut stay = there
            .listeners
            .iter()
            .filter(|(port, _)| self.ports.contains(port));
        let (port, _) = stay.find(|(_, one)| one.transport != Transport::Tcp)?;
        (desired.addresses != Addresses::Ipv4).then(|| {
            Refusal::new(
                Reason::Unsupported,
                format!(
                    "the load balancer gets no IPv6 addresses while the Service with port {port}, which shares it, is not accepted: port {port} is UDP, and AWS changes that only with a new listener"
                ),
            )
        })
    }

    /// The rules for routers name no port, so they stay as long as anything does.
    fn needs(&self, rule: &Rule) -> bool {
        match &rule.traffic {
            Traffic::Port(_, port) => self.ports.contains(port),
            other => [Family::V4, Family::V6]
                .map(Traffic::too_large)
                .contains(other),
        }
    }
}

// === impl Plan ===

impl Plan {
    /// The nodes, and as far as they are known the pods, of target groups that stay.
    pub(super) fn kept_targets(
        &mut self,
        desired: &Desired,
        kept: &Kept<'_>,
        situation: &Situation,
        observed: &Observed,
    ) {
        let groups = observed.target_groups.iter();
        let stay = groups.filter(|(name, one)| {
            kept.groups.contains(&one.arn) && !desired.target_groups.contains_key(*name)
        });
        for (_, one) in stay {
            if let Some(targets) = situation.targets(&one.backends(), &one.tags) {
                let group = Ref::Known(one.arn.clone());
                self.targets(&group, &targets, Some(&one.targets));
            }
        }
    }
}
