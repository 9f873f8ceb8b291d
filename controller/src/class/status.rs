//! What a class says about itself, and the finalizer that keeps it while it is used.
//!
//! [`report`] and [`guard`] choose and are pure; [`ClassStatus::run`] is the leader's one task that
//! writes classes: the finalizer at once (Services wait for it), the status at most
//! once in [`PACE`] per class. The drain switch in that status is `ballast teardown`'s: it is
//! read here and never written.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ballast_crds::LoadBalancerClassStatus;
use ballast_provider::Reason;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde_json::json;
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::warn;

use crate::class::board::Board;
use crate::class::{ClassView, Classes, DefaultState, IN_USE_FINALIZER, Instance};
use crate::cluster::conditions::{ACCEPTED, PROGRAMMED};
use crate::cluster::conditions::{condition, dated};
use crate::cluster::ledger::Ledger;
use crate::cluster::store::Store;
use crate::cluster::view::{Name, ServiceView};
use crate::cluster::writer::Writer;

/// The least time between two status writes of one class.
pub const PACE: Duration = Duration::from_secs(5);
/// Somebody waits until a class that is drained is free.
const IMPATIENT: Duration = Duration::from_secs(1);
/// A burst of changes on the board becomes one look.
const BURST: Duration = Duration::from_millis(20);
const NAMED: usize = 5;

/// Who uses a class.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Services that are to have it and whose settings are valid: none while it is drained.
    pub wanted: usize,
    /// Services that have, or may have, something in its cloud.
    pub held: usize,
    /// Services through which traffic can flow.
    pub programmed: usize,
    /// The first few of those that hold it, by name.
    pub names: Vec<String>,
}

/// What is to become of a class's finalizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// It is right as it is.
    Keep,
    /// Somebody is about to use the class.
    Add,
    /// Nobody does any more.
    Remove,
}

/// What the task needs.
pub struct ClassStatus {
    /// Classes and instances.
    pub board: Board,
    /// The Services, as watched.
    pub services: Arc<Store<Name, ServiceView>>,
    /// Who has a place.
    pub ledger: Arc<Ledger>,
    /// Rung by a worker whose Service waits for a class's finalizer.
    pub wanted: Arc<Notify>,
    /// Writes.
    pub writer: Writer,
}

/// Counts the users of every class in one pass.
pub fn usage(
    classes: &Classes,
    services: &[Arc<ServiceView>],
    ledger: &Ledger,
) -> BTreeMap<String, Usage> {
    let mut all: BTreeMap<String, Usage> = classes
        .views
        .keys()
        .map(|name| (name.clone(), Usage::default()))
        .collect();
    for service in services {
        let claim = classes.claim(service);
        for (name, usage) in &mut all {
            let class = classes.get(name);
            let wants =
                claim == Some(name.as_str()) && matches!(service.load_balancer, Some(Ok(_)));
            let pooled = || class.is_some_and(ClassView::uses_pools);
            let drained = class.is_some_and(|class| class.draining().is_some());
            let holds = service.is_held_by(name) || (wants && shows(service, drained) && pooled());
            usage.wanted += usize::from(wants && !drained);
            usage.programmed += usize::from(
                wants
                    && service
                        .condition(PROGRAMMED)
                        .is_some_and(|now| now.status == "True"),
            );
            if holds {
                usage.names.push(service.id.to_string());
            }
        }
    }
    for (name, usage) in &mut all {
        usage.held = ledger.count(name).max(usage.names.len());
        usage.names.sort_unstable();
        usage.names.truncate(NAMED);
    }
    all
}

/// Where addresses come from pools no finalizer says who has one, or is to get one: of a
/// class that is drained, nobody is.
fn shows(service: &ServiceView, drained: bool) -> bool {
    let accepted = service.condition(ACCEPTED);
    !service.ingress.is_empty() || (!drained && accepted.is_some_and(|now| now.status == "True"))
}

/// What is to become of the finalizer of a class. `ready`: its cloud was looked at, so the
/// ledger knows all that it holds. `closed`: the ledger let the class go before, and
/// whether the finalizer went as well is not certain.
pub fn guard(class: &ClassView, usage: &Usage, ready: bool, closed: bool) -> Guard {
    let usable = class.unusable().is_none();
    let used = usage.held > 0 || (usage.wanted > 0 && !class.deleting);
    match (class.is_guarded(), used) {
        _ if usable && !ready => Guard::Keep,
        (false, true) if usable && !class.deleting => Guard::Add,
        (true, true) if closed => Guard::Add,
        (true, false) => Guard::Remove,
        _ => Guard::Keep,
    }
}

/// A class is drained and its own finalizer is still on.
fn lets_go(classes: &Classes) -> bool {
    let mut all = classes.views.values();
    all.any(|class| {
        class.draining().is_some() && class.is_guarded() && classes.scope.owns(&class.name)
    })
}

/// Its provider is being started and the class has a status from before: that stands
/// until there is news, or every restart would write it twice (invariant 3).
fn is_coming_back(class: &ClassView, classes: &Classes) -> bool {
    let starts = matches!(
        classes.instances.get(&class.name),
        None | Some(Instance::Starting)
    );
    starts && class.unusable().is_none() && !class.status.conditions.is_empty()
}

/// The status of a class, with the times of conditions that did not change kept.
pub fn report(
    class: &ClassView,
    classes: &Classes,
    usage: &Usage,
    now: Timestamp,
) -> LoadBalancerClassStatus {
    let mut conditions = vec![accepted(class), ready(class, classes), in_use(usage)];
    conditions.extend(default(class, classes));
    dated(&mut conditions, &class.status.conditions, &Time(now));
    LoadBalancerClassStatus {
        provider: class
            .provider
            .as_ref()
            .ok()
            .map(|settings| settings.kind().as_str().to_owned()),
        load_balancers: i64::try_from(usage.held).unwrap_or(i64::MAX),
        programmed: i64::try_from(usage.programmed).unwrap_or(i64::MAX),
        conditions,
        draining: class.status.draining.clone(),
    }
}

/// What we write of a status: not the switch, which is not ours to write. A merge patch
/// that does not name it leaves it as it is, even if it has changed meanwhile.
fn own_part(status: &LoadBalancerClassStatus) -> LoadBalancerClassStatus {
    LoadBalancerClassStatus {
        draining: None,
        ..status.clone()
    }
}

/// Whether the class says of the drain switch what is so. Who waits for it waits for the
/// answer, so this news does not keep the pace.
fn says_how_it_drains(class: &ClassView, said: &LoadBalancerClassStatus) -> bool {
    let draining = |it: &&Condition| it.reason == Reason::Draining.as_str();
    let said = said.conditions.iter().find(|it| it.type_ == "Accepted");
    let said = said.filter(draining).map(|it| it.message.as_str());
    said == class.drained().as_ref().map(|it| it.message.as_str())
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
        Some(Instance::Ready(_)) => {
            condition("Ready", true, "Ready", "The provider answers".to_owned())
        }
        Some(Instance::Failing(message)) => {
            condition("Ready", false, "CloudError", message.clone())
        }
        Some(Instance::Starting) | None => condition(
            "Ready",
            false,
            "Starting",
            "The provider has not been asked yet".to_owned(),
        ),
    }
}

fn in_use(usage: &Usage) -> Condition {
    if usage.held == 0 {
        return condition(
            "InUse",
            false,
            "Unused",
            "No Service has a load balancer of this class".to_owned(),
        );
    }
    let (names, more) = (
        usage.names.join(", "),
        usage.held.saturating_sub(usage.names.len()),
    );
    let users = match (names.is_empty(), more) {
        (true, _) => format!("{more} load balancers whose Services do not show it"),
        (false, 0) => names,
        (false, _) => format!("{names} and {more} more"),
    };
    condition("InUse", true, "InUse", format!("Used by {users}"))
}

fn default(class: &ClassView, classes: &Classes) -> Option<Condition> {
    Some(match classes.default_state(class)? {
        DefaultState::Effective => condition(
            "Default",
            true,
            "Effective",
            match class.draining() {
                None => "Takes Services without spec.loadBalancerClass".to_owned(),
                Some(_) => {
                    "Services without spec.loadBalancerClass are its own; while it is drained nobody takes them"
                        .to_owned()
                }
            },
        ),
        DefaultState::Conflict(other) => condition(
            "Default",
            false,
            "Conflict",
            format!(
                "{other} is an older default class; only the oldest takes Services without a class"
            ),
        ),
        DefaultState::Undecided => return None,
        DefaultState::Contested(other) => condition(
            "Default",
            false,
            "Contested",
            format!(
                "{other} runs in this cluster and takes Services without a class; spec.forceDefault: true takes them all the same"
            ),
        ),
    })
}

// === impl ClassStatus ===

impl ClassStatus {
    /// Writes classes until the board is gone.
    pub async fn run(self) {
        let mut board = self.board.subscribe();
        let mut written: BTreeMap<String, (Instant, LoadBalancerClassStatus)> = BTreeMap::new();
        // The version that the last finalizer was written over: as long as the view is
        // that one, it does not show the finalizer yet.
        let mut guarded: BTreeMap<String, u64> = BTreeMap::new();
        loop {
            self.look(&mut written, &mut guarded).await;
            let soon = if lets_go(&self.board.snapshot()) {
                IMPATIENT
            } else {
                PACE
            };
            tokio::select! {
                changed = board.changed() => {
                    if changed.is_err() { return }
                    tokio::time::sleep(BURST).await;
                    board.mark_unchanged();
                }
                // A Service waits for the finalizer; it must not wait for the pace.
                () = self.wanted.notified() => {}
                () = tokio::time::sleep(soon) => {}
            }
        }
    }

    async fn look(
        &self,
        written: &mut BTreeMap<String, (Instant, LoadBalancerClassStatus)>,
        guarded: &mut BTreeMap<String, u64>,
    ) {
        let classes = self.board.snapshot();
        let usages = usage(&classes, &self.services.all(), &self.ledger);
        for (name, usage) in &usages {
            let Some(class) = classes.get(name).filter(|_| classes.scope.owns(name)) else {
                continue;
            };
            if guarded.get(name) != Some(&class.version) && self.guard(class, &classes, usage).await
            {
                guarded.insert(name.clone(), class.version);
            }
            let last = written.get(name);
            let said = last.map_or(&class.status, |(_, status)| status);
            let pressing = !says_how_it_drains(class, said);
            // What is undecided is told in a moment, with everything else.
            if classes.default_state(class) == Some(DefaultState::Undecided)
                || (!pressing && last.is_some_and(|(at, _)| at.elapsed() < PACE))
            {
                continue;
            }
            let last = last.map(|(_, status)| status.clone());
            if let Some(status) = self.write_status(class, &classes, usage, last).await {
                written.insert(name.clone(), (Instant::now(), status));
            }
        }
        written.retain(|name, _| usages.contains_key(name));
        guarded.retain(|name, _| usages.contains_key(name));
    }

    /// True if the finalizer was written.
    async fn guard(&self, class: &ClassView, classes: &Classes, usage: &Usage) -> bool {
        let ready = matches!(classes.instances.get(&class.name), Some(Instance::Ready(_)));
        let verdict = guard(class, usage, ready, self.ledger.is_closed(&class.name));
        let mut finalizers = class.finalizers.clone();
        finalizers.retain(|finalizer| finalizer != IN_USE_FINALIZER);
        match verdict {
            Guard::Keep => return false,
            Guard::Add => finalizers.push(IN_USE_FINALIZER.to_owned()),
            Guard::Remove => {
                if !self.ledger.close(&class.name) {
                    return false;
                }
            }
        }
        let body = json!({"metadata": {
            "resourceVersion": class.version.to_string(),
            "finalizers": finalizers,
        }});
        let written = self.writer.patch_class(&class.name, &body).await;
        match &written {
            // Only now it is certain that the class is held.
            Ok(_) if verdict == Guard::Add => self.ledger.open(&class.name),
            Ok(_) => {}
            Err(error) => warn!(class = class.name, %error, "finalizer of the class not written"),
        }
        written.is_ok()
    }

    async fn write_status(
        &self,
        class: &ClassView,
        classes: &Classes,
        usage: &Usage,
        last: Option<LoadBalancerClassStatus>,
    ) -> Option<LoadBalancerClassStatus> {
        if is_coming_back(class, classes) {
            return None;
        }
        let mut class = class.clone();
        if class.provider.is_err() && class.status == LoadBalancerClassStatus::default() {
            // A class that cannot be read does not show its status either.
            class.status = last.unwrap_or_default();
        }
        let status = report(&class, classes, usage, Timestamp::now());
        if status == class.status {
            return None;
        }
        let written = self
            .writer
            .patch_class_status(&class.name, &json!({"status": own_part(&status)}))
            .await;
        if let Err(error) = written {
            warn!(class = class.name, %error, "status of the class not written");
        }
        Some(status)
    }
}

#[cfg(test)]
mod tests;
