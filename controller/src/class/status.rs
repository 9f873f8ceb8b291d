//! The status of a class, and the finalizer that prevents the deletion of a class in use. Pure:
//! [`report`] and [`guard`] choose, and [`writer`] writes what they chose.

pub mod writer;

use std::collections::BTreeMap;
use std::sync::Arc;

use ballast_crds::LoadBalancerClassStatus;
use ballast_provider::Reason;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::class::orphans::Found;
use crate::class::{ClassView, Classes, DefaultState, Instance};
use crate::cluster::conditions::{ACCEPTED, PROGRAMMED};
use crate::cluster::conditions::{condition, contested, dated, transition};
use crate::cluster::ledger::Ledger;
use crate::cluster::view::ServiceView;
use crate::process::text;

/// The condition of a class with load balancers that have no Service.
const ORPHANED: &str = "Orphaned";
/// The condition of a class whose load balancers a copy of this cluster uses.
pub(super) const IDENTITY_SHARED: &str = "IdentityShared";
/// The condition of a class whose load balancers cannot be listed. There is none while they can.
const SURVEYED: &str = "Surveyed";
/// Services that the condition `InUse` names.
const NAMED: usize = 5;

/// Who uses a class.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Services that request it and whose settings are valid. None while it is draining.
    pub requested: usize,
    /// Services that have, or may have, a load balancer of it.
    pub held: usize,
    /// Services through which traffic can flow.
    pub programmed: usize,
    /// The oldest of those that it is known of.
    pub names: Vec<String>,
    /// The places that are taken.
    pub places: usize,
}

/// The reason while the provider of a class starts.
const STARTING: &str = "Starting";

/// What to do with the finalizer of a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// Nothing.
    Keep,
    /// A Service is about to use the class.
    Add,
    /// No Service uses the class.
    Remove,
}

/// Counts the users of every class in one pass.
pub fn usage(
    classes: &Classes,
    services: &[Arc<ServiceView>],
    ledger: &Ledger,
) -> BTreeMap<String, Usage> {
    let mut counts: BTreeMap<String, Usage> = classes
        .views
        .keys()
        .map(|name| (name.clone(), Usage::default()))
        .collect();
    let mut holders: BTreeMap<String, Vec<&Arc<ServiceView>>> = BTreeMap::new();
    for service in services {
        let claim = classes.claim(service);
        for (name, usage) in &mut counts {
            let class = classes.get(name);
            let requests =
                claim == Some(name.as_str()) && matches!(service.load_balancer, Some(Ok(_)));
            let pooled = || class.is_some_and(ClassView::uses_pools);
            let drained = class.is_some_and(|class| class.draining().is_some());
            let holds = service.is_held_by(name)
                || (requests && may_have_address(service, drained) && pooled());
            usage.requested += usize::from(requests && !drained);
            usage.programmed += usize::from(
                requests
                    && service
                        .condition(PROGRAMMED)
                        .is_some_and(|now| now.status == "True"),
            );
            if holds {
                let all = holders.entry(name.clone()).or_default();
                all.push(service);
            }
        }
    }
    for (name, usage) in &mut counts {
        let mut users = holders.remove(name.as_str()).unwrap_or_default();
        usage.held = ledger.count(name).max(users.len());
        usage.places = ledger.places(name);
        users.sort_unstable_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
        users.truncate(NAMED);
        usage.names = users.iter().map(|one| one.id.to_string()).collect();
    }
    counts
}

/// Whether a Service of a class with pools has an address or may get one. Such a Service has
/// no finalizer that says so. A draining class assigns no address.
fn may_have_address(service: &ServiceView, drained: bool) -> bool {
    let accepted = service.condition(ACCEPTED);
    !service.ingress.is_empty() || (!drained && accepted.is_some_and(|now| now.status == "True"))
}

/// What to do with the finalizer of a class. `ready`: its cloud was listed, so the ledger is
/// complete. `closed`: the ledger closed the class before, and it is not certain whether the
/// finalizer was removed.
pub fn guard(class: &ClassView, usage: &Usage, ready: bool, closed: bool) -> Guard {
    let usable = class.unusable().is_none();
    let used = usage.held > 0 || (usage.requested > 0 && !class.deleting);
    match (class.is_guarded(), used) {
        _ if usable && !ready => Guard::Keep,
        (false, true) if usable && !class.deleting => Guard::Add,
        (true, true) if closed => Guard::Add,
        (true, false) => Guard::Remove,
        _ => Guard::Keep,
    }
}

/// Whether a class is draining and still in use, or its status still says so.
fn is_releasing(classes: &Classes) -> bool {
    let mut all = classes.views.values();
    all.any(|class| {
        let used = class.is_guarded() || class.reports_use();
        class.draining().is_some() && used && classes.scope.owns(&class.name)
    })
}

/// Whether a status says that Services use the class.
pub fn reports_use(status: &LoadBalancerClassStatus) -> bool {
    let mut all = status.conditions.iter();
    all.any(|it| it.type_ == "InUse" && it.status == "True")
}

/// Whether a status says that the provider starts.
pub fn is_starting(status: &LoadBalancerClassStatus) -> bool {
    let mut all = status.conditions.iter();
    all.any(|it| it.type_ == "Ready" && it.reason == STARTING)
}

/// Whether the published status of a draining class lacks something else that `ballast teardown`
/// waits for: the last user is gone, or the cloud was looked at.
fn has_news(
    class: &ClassView,
    classes: &Classes,
    published: &LoadBalancerClassStatus,
    usage: &Usage,
) -> bool {
    let unused = usage.held == 0 && reports_use(published);
    let started = is_starting(published) && ready(class, classes).reason != STARTING;
    class.draining().is_some() && (unused || started)
}

/// Whether the provider is starting and the class has a status from before. That status stays
/// until the provider is ready or fails; otherwise every restart would write it twice
/// (invariant 3).
fn is_restarting(class: &ClassView, classes: &Classes) -> bool {
    let starts = matches!(
        classes.instances.get(&class.name),
        None | Some(Instance::Starting)
    );
    starts && class.unusable().is_none() && !class.status.conditions.is_empty()
}

/// The status of a class. Conditions that did not change since `before` keep their times.
pub fn report(
    class: &ClassView,
    classes: &Classes,
    usage: &Usage,
    is_contested: bool,
    before: &[Condition],
    now: Timestamp,
) -> LoadBalancerClassStatus {
    let mut conditions = vec![accepted(class), ready(class, classes), in_use(class, usage)];
    conditions.extend(default(class, classes));
    let found = classes.found.get(&class.name);
    conditions.extend(of_survey(class, found, before));
    conditions.extend(of_failed_survey(class, classes));
    conditions.extend(is_contested.then(contested));
    dated(&mut conditions, before, &Time(transition(now)));
    LoadBalancerClassStatus {
        provider: class
            .provider
            .as_ref()
            .ok()
            .map(|settings| settings.kind().as_str().to_owned()),
        load_balancers: i64::try_from(usage.held).unwrap_or(i64::MAX),
        programmed: i64::try_from(usage.programmed).unwrap_or(i64::MAX),
        orphans: match found {
            None => class.status.orphans,
            // No write only to say that there is none.
            Some(found) if found.orphans.is_empty() => class.status.orphans.map(|_| 0),
            Some(found) => Some(i64::try_from(found.orphans.len()).unwrap_or(i64::MAX)),
        },
        conditions,
        draining: class.status.draining.clone(),
    }
}

/// The part of a status that this task writes: all but the drain switch. A merge patch without
/// that field does not change it.
fn own_part(status: &LoadBalancerClassStatus) -> LoadBalancerClassStatus {
    LoadBalancerClassStatus {
        draining: None,
        ..status.clone()
    }
}

/// Whether the published status reports the drain switch as it is. `ballast teardown` waits for
/// this report, so it does not wait for [`writer::PACE`].
fn reports_draining(class: &ClassView, published: &LoadBalancerClassStatus) -> bool {
    let draining = |it: &&Condition| it.reason == Reason::Draining.as_str();
    let accepted = published
        .conditions
        .iter()
        .find(|it| it.type_ == "Accepted");
    let reported = accepted.filter(draining).map(|it| it.message.as_str());
    reported == class.drained().as_ref().map(|it| it.message.as_str())
}

fn accepted(class: &ClassView) -> Condition {
    if let Some(drained) = class.drained() {
        return condition("Accepted", false, drained.reason.as_str(), drained.message);
    }
    match (class.unusable(), &class.provider) {
        (Some(message), Ok(_)) => condition("Accepted", false, "Unsupported", message),
        (Some(message), Err(_)) => condition("Accepted", false, "Invalid", message),
        (None, _) => condition(
            "Accepted",
            true,
            "Accepted",
            "The settings are valid".to_owned(),
        ),
    }
}

fn ready(class: &ClassView, classes: &Classes) -> Condition {
    match classes.instances.get(&class.name) {
        Some(Instance::Ready(provider)) => {
            let all = ["The provider is ready".to_owned()].into_iter();
            let all: Vec<String> = all.chain(provider.remarks()).collect();
            condition("Ready", true, "Ready", text::message(&all.join(". ")))
        }
        Some(Instance::Failing(reason, message)) => {
            condition("Ready", false, reason.as_str(), message.clone())
        }
        Some(Instance::Starting) | None => condition(
            "Ready",
            false,
            STARTING,
            "The provider is starting".to_owned(),
        ),
    }
}

fn in_use(class: &ClassView, usage: &Usage) -> Condition {
    if usage.held == 0 {
        return condition(
            "InUse",
            false,
            "Unused",
            "No Service uses this class".to_owned(),
        );
    }
    let (names, more) = (
        usage.names.join(", "),
        usage.held.saturating_sub(usage.names.len()),
    );
    let users = match (names.is_empty(), more) {
        (true, _) => format!("{more} load balancers without a finalizer on their Service"),
        (false, 0) => names,
        (false, _) => format!("{names} and {more} more"),
    };
    let full = class.max.filter(|max| usage.places >= *max);
    let limit = full.map_or_else(String::new, |max| {
        format!(
            "; all {max} places (spec.maxLoadBalancers) are taken, and no other Service gets one"
        )
    });
    condition("InUse", true, "InUse", format!("Used by {users}{limit}"))
}

/// What the last survey of the cloud has found, where it is worth saying. Before the first survey of this
/// process: what the former one has said.
fn of_survey(
    class: &ClassView,
    found: Option<&Arc<Found>>,
    before: &[Condition],
) -> Vec<Condition> {
    let Some(found) = found else {
        let known = before.iter();
        let known = known.filter(|it| [ORPHANED, IDENTITY_SHARED].contains(&&*it.type_));
        return known.cloned().collect();
    };
    let any = !(found.orphans.is_empty() && found.unnamed.is_empty());
    let orphaned = any.then(|| {
        let message = text::message(&found.message(&class.cloud_flags()));
        condition(ORPHANED, true, "NoService", message)
    });
    let shared = found.shared_message().map(|message| {
        let message = text::message(&message);
        condition(IDENTITY_SHARED, true, "ForeignSignOfLife", message)
    });
    orphaned.into_iter().chain(shared).collect()
}

/// That the cloud cannot be surveyed, if so.
fn of_failed_survey(class: &ClassView, classes: &Classes) -> Option<Condition> {
    let why = classes.survey_errors.get(&class.name)?;
    let until = if classes.is_surveyed(&class.name) {
        "load balancers without a Service are not found"
    } else {
        "nothing of this class is deleted"
    };
    let message = format!(
        "The load balancers of this class cannot be listed, and {until} until that succeeds: {}",
        why.message
    );
    let message = text::message(&message);
    Some(condition(SURVEYED, false, why.reason.as_str(), message))
}

fn default(class: &ClassView, classes: &Classes) -> Option<Condition> {
    Some(match classes.default_state(class)? {
        DefaultState::Effective => condition(
            "Default",
            true,
            "Effective",
            match class.draining() {
                None => "Serves Services without spec.loadBalancerClass".to_owned(),
                Some(_) => {
                    "Services without spec.loadBalancerClass belong to this class; no class serves them while it is draining"
                        .to_owned()
                }
            },
        ),
        DefaultState::Conflict(other) => condition(
            "Default",
            false,
            "Conflict",
            format!(
                "LoadBalancerClass {other} is an older default class; only the oldest serves Services without spec.loadBalancerClass"
            ),
        ),
        DefaultState::Undecided => return None,
        DefaultState::Contested(other) => condition(
            "Default",
            false,
            "Contested",
            format!(
                "{other} runs in this cluster and serves Services without spec.loadBalancerClass; to serve them with this class, set spec.forceDefault: true"
            ),
        ),
    })
}

#[cfg(test)]
mod tests;
