//! Which Service of a shared load balancer a call concerns, so that a call that AWS refuses one of them holds up no
//! other. Pure.
//!
//! [`super::execute`] leaves out the rest of a plan that concerns a Service whose call was refused, and goes on. The
//! load balancer then does not count as applied, and each turn tries again.

use std::collections::BTreeMap;
use std::sync::Arc;

use ballast_provider::ProviderError;
use ballast_provider::mark::SERVICE_UID;

use crate::call::{Call, Ref};
use crate::client::values::Tags;
use crate::client::{CallError, Cause};
use crate::forward::Forward;
use crate::observed::Observed;

/// What single Services cannot have in this turn, by their UIDs: what AWS has refused, or does not know.
pub(super) type Faults = BTreeMap<Arc<str>, ProviderError>;

/// What a plan makes, by the names in the plan.
pub(super) struct Owners<'a> {
    /// The UIDs of the Services that it is for.
    of: BTreeMap<&'a str, &'a str>,
    /// Where listeners send connections.
    forwards: BTreeMap<&'a str, &'a Forward<Ref>>,
}

/// Whether it is what one Service asks for that AWS refuses, and not what AWS refuses anybody now.
pub(super) const fn is_of_one(why: &CallError) -> bool {
    matches!(why.cause, Cause::Invalid | Cause::Quota | Cause::NotFound)
}

fn uid(tags: &Tags) -> Option<&str> {
    tags.get(SERVICE_UID).map(String::as_str)
}

// === impl Owners ===

impl<'a> Owners<'a> {
    pub(super) fn of(calls: &'a [Call]) -> Self {
        let made = calls.iter().filter_map(|call| match call {
            Call::CreateTargetGroup { tags, .. } | Call::CreateListener { tags, .. } => {
                Some((call.makes()?, uid(tags)?))
            }
            _ => None,
        });
        let forwards = calls.iter().filter_map(|call| match call {
            Call::CreateListener { forward, .. } => Some((call.makes()?, forward)),
            _ => None,
        });
        Self {
            of: made.collect(),
            forwards: forwards.collect(),
        }
    }

    /// The UID of the only Service that a call concerns; `None` if it concerns the load balancer.
    pub(super) fn owner<'b>(&'b self, call: &'b Call, observed: &'b Observed) -> Option<&'b str> {
        match call {
            Call::CreateTargetGroup { tags, .. }
            | Call::CreateListener { tags, .. }
            | Call::CreateRule { tags, .. } => uid(tags),
            Call::ModifyTargetGroup { target_group, .. }
            | Call::ModifyTargetGroupAttributes { target_group, .. }
            | Call::RegisterTargets { target_group, .. }
            | Call::DeregisterTargets { target_group, .. } => self.of_ref(target_group, observed),
            // The port may have been another Service's before.
            Call::ModifyListener {
                service: Some(uid), ..
            } => Some(uid),
            Call::ModifyListener { listener, .. } | Call::DeleteListener { listener } => {
                known(listener, observed)
            }
            Call::ModifyRule { rule, .. } | Call::DeleteRule { rule } => of_rule(rule, observed),
            Call::ModifyListenerAttributes { listener, .. }
            | Call::AddListenerCertificates { listener, .. }
            | Call::RemoveListenerCertificates { listener, .. } => self.of_ref(listener, observed),
            _ => None,
        }
    }

    /// Whether a call of a plan is left out after these faults.
    pub(super) fn is_left_out(&self, call: &Call, observed: &Observed, faults: &Faults) -> bool {
        let refused = |uid: &str| faults.contains_key(uid);
        !faults.is_empty()
            && (call.finishes()
                || self.owner(call, observed).is_some_and(refused)
                || self.sends_to_nothing(call, observed, faults))
    }

    /// Whether a listener would send to a target group without targets, of a Service that cannot have some. Then it is
    /// not made, and nothing that is about it.
    fn sends_to_nothing(&self, call: &Call, observed: &Observed, faults: &Faults) -> bool {
        let own = match call {
            Call::CreateListener { forward, .. }
            | Call::ModifyListener {
                forward: Some(forward),
                ..
            }
            | Call::CreateRule { forward, .. }
            | Call::ModifyRule { forward, .. } => Some(forward),
            _ => None,
        };
        let listener = match call {
            Call::CreateRule { listener, .. }
            | Call::ModifyListenerAttributes { listener, .. }
            | Call::AddListenerCertificates { listener, .. }
            | Call::RemoveListenerCertificates { listener, .. } => self.forward_of(listener),
            _ => None,
        };
        let empty = |of: &Ref| {
            let mut groups = observed.target_groups.values();
            let there = groups.find(|one| Some(one.arn.as_str()) == of.known());
            there.is_none_or(|there| there.targets.is_empty())
        };
        let refused = |of: &Ref| {
            let uid = self.of_ref(of, observed);
            uid.is_some_and(|uid| faults.contains_key(uid))
        };
        let mut groups = own.into_iter().chain(listener).flat_map(Forward::groups);
        groups.any(|of| refused(of) && empty(of))
    }

    /// Where a listener sends connections that the plan makes.
    fn forward_of(&self, listener: &Ref) -> Option<&'a Forward<Ref>> {
        match listener {
            Ref::Made(name) => self.forwards.get(name.as_str()).copied(),
            Ref::Known(_) => None,
        }
    }

    fn of_ref<'b>(&'b self, of: &Ref, observed: &'b Observed) -> Option<&'b str> {
        match of {
            Ref::Made(name) => self.of.get(name.as_str()).copied(),
            Ref::Known(id) => known(id, observed),
        }
    }
}

/// The Service of the listener with this rule.
fn of_rule<'b>(rule: &str, observed: &'b Observed) -> Option<&'b str> {
    let balancers = observed.load_balancers.values();
    let mut listeners = balancers.flat_map(|one| one.listeners.values());
    uid(&listeners.find(|one| one.rules.contains_key(rule))?.tags)
}

/// The Service that an object names, if it is a target group or a listener.
fn known<'b>(id: &str, observed: &'b Observed) -> Option<&'b str> {
    let groups = observed
        .target_groups
        .values()
        .map(|one| (&one.arn, &one.tags));
    let balancers = observed.load_balancers.values();
    let listeners = balancers.flat_map(|one| one.listeners.values());
    let listeners = listeners.map(|one| (&one.arn, &one.tags));
    let mut all = groups.chain(listeners);
    all.find(|(arn, _)| *arn == id)
        .and_then(|(_, tags)| uid(tags))
}
