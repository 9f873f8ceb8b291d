//! The status of a class, and the finalizer that prevents the deletion of a class in use.
//!
//! [`report`] and [`guard`] choose and are pure. [`ClassStatus::run`] is the leader's one task
//! that writes classes. It writes a finalizer at once, because Services wait for it, and a
//! status at most once in [`PACE`] per class. `ballast teardown` writes the drain switch in
//! that status; this task only reads it. The task can be cancelled at any point: it chooses
//! again from what is published.

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
use crate::cluster::contest::Contest;
use crate::cluster::ledger::Ledger;
use crate::cluster::metrics::ContestMetrics;
use crate::cluster::store::Store;
use crate::cluster::view::{Name, ServiceView};
use crate::cluster::writer::{ECHO, Writer};

/// The least time between two status writes of one class.
pub const PACE: Duration = Duration::from_secs(5);
/// The same while `ballast teardown` waits for a class that is being released.
const RELEASING_PACE: Duration = Duration::from_secs(1);
/// A burst of changes on the board is handled at once.
const BURST: Duration = Duration::from_millis(20);
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
    /// The first of these, by name.
    pub names: Vec<String>,
}

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

/// The last status of a class that was written.
struct Written {
    at: Instant,
    landed: bool,
    status: LoadBalancerClassStatus,
    contest: Contest,
}

/// The last write of the finalizer of a class.
struct Guarded {
    /// The version that it was written over.
    version: u64,
    at: Instant,
    step: Guard,
    contest: Contest,
}

/// What the task needs.
pub struct ClassStatus {
    /// Classes and their providers.
    pub board: Board,
    /// The Services, as watched.
    pub services: Arc<Store<Name, ServiceView>>,
    /// Which Services use which class.
    pub ledger: Arc<Ledger>,
    /// Notified by a worker whose Service waits for the finalizer of a class.
    pub finalizer_requested: Arc<Notify>,
    /// Writes classes.
    pub writer: Writer,
    /// Counts classes that somebody else keeps changing.
    pub contests: ContestMetrics,
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

/// Whether a class is draining and still carries its finalizer.
fn is_releasing(classes: &Classes) -> bool {
    let mut all = classes.views.values();
    all.any(|class| {
        class.draining().is_some() && class.is_guarded() && classes.scope.owns(&class.name)
    })
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

/// The status of a class. Conditions that did not change keep their times.
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

/// The part of a status that this task writes: all but the drain switch. A merge patch without
/// that field does not change it.
fn own_part(status: &LoadBalancerClassStatus) -> LoadBalancerClassStatus {
    LoadBalancerClassStatus {
        draining: None,
        ..status.clone()
    }
}

/// Whether the published status reports the drain switch as it is. `ballast teardown` waits for
/// this report, so it does not wait for [`PACE`].
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
        Some(Instance::Ready(_)) => {
            condition("Ready", true, "Ready", "The provider is ready".to_owned())
        }
        Some(Instance::Failing(message)) => {
            condition("Ready", false, "CloudError", message.clone())
        }
        Some(Instance::Starting) | None => condition(
            "Ready",
            false,
            "Starting",
            "The provider is starting".to_owned(),
        ),
    }
}

fn in_use(usage: &Usage) -> Condition {
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
    condition("InUse", true, "InUse", format!("Used by {users}"))
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

// === impl Guarded ===

impl Guarded {
    fn over(class: &ClassView, step: Guard, contest: Contest) -> Self {
        Self {
            version: class.version,
            at: Instant::now(),
            step,
            contest,
        }
    }

    /// Whether the watch may not have delivered the write yet. A view that stays the same shows
    /// that the write was lost: the API server was restored from a backup.
    fn is_under_way(&self, class: &ClassView) -> bool {
        self.version == class.version && self.at.elapsed() < ECHO
    }
}

// === impl ClassStatus ===

impl ClassStatus {
    /// Writes classes until the board is dropped.
    pub async fn run(self) {
        let mut board = self.board.subscribe();
        let mut written = BTreeMap::new();
        let mut guarded = BTreeMap::new();
        loop {
            self.write_all(&mut written, &mut guarded).await;
            let soon = if is_releasing(&self.board.snapshot()) {
                RELEASING_PACE
            } else {
                PACE
            };
            tokio::select! {
                changed = board.changed() => {
                    if changed.is_err() { return }
                    tokio::time::sleep(BURST).await;
                    board.mark_unchanged();
                }
                // A Service waits for the finalizer.
                () = self.finalizer_requested.notified() => {}
                () = tokio::time::sleep(soon) => {}
            }
        }
    }

    async fn write_all(
        &self,
        written: &mut BTreeMap<String, Written>,
        guarded: &mut BTreeMap<String, Guarded>,
    ) {
        let classes = self.board.snapshot();
        let usages = usage(&classes, &self.services.all(), &self.ledger);
        for (name, usage) in &usages {
            let Some(class) = classes.get(name).filter(|_| classes.scope.owns(name)) else {
                continue;
            };
            self.guard(class, &classes, usage, guarded).await;
            let last = written.get(name);
            let published = last.map_or(&class.status, |last| &last.status);
            let pressing = !reports_draining(class, published);
            // It is decided soon, and then one write has everything.
            if classes.default_state(class) == Some(DefaultState::Undecided)
                || (!pressing && last.is_some_and(|last| last.at.elapsed() < PACE))
            {
                continue;
            }
            self.write_status(class, &classes, usage, written).await;
        }
        written.retain(|name, _| usages.contains_key(name));
        guarded.retain(|name, _| usages.contains_key(name));
        let now = Instant::now();
        let statuses = written.values().map(|it| it.contest.ends(now));
        let finalizers = guarded.values().map(|it| it.contest.ends(now));
        let contested = statuses.chain(finalizers).flatten().count();
        self.contests.set("class", contested);
    }

    /// Adds or removes the finalizer of a class.
    async fn guard(
        &self,
        class: &ClassView,
        classes: &Classes,
        usage: &Usage,
        guarded: &mut BTreeMap<String, Guarded>,
    ) {
        let last = guarded.get(&class.name);
        if last.is_some_and(|last| last.is_under_way(class)) {
            return;
        }
        let ready = matches!(classes.instances.get(&class.name), Some(Instance::Ready(_)));
        let verdict = guard(class, usage, ready, self.ledger.is_closed(&class.name));
        if verdict == Guard::Keep {
            if let Some(last) = guarded.get_mut(&class.name) {
                last.contest.look(false, Instant::now());
            }
            return;
        }
        let mut contest = last.map_or_else(Contest::default, |last| last.contest);
        // Between two equal steps, somebody undid the first one.
        let restores = last.is_some_and(|last| last.step == verdict);
        if restores && !may_restore(&mut contest, class, "finalizer") {
            if let Some(last) = guarded.get_mut(&class.name) {
                last.contest = contest;
            }
            return;
        }
        let mut finalizers = class.finalizers.clone();
        finalizers.retain(|finalizer| finalizer != IN_USE_FINALIZER);
        if verdict == Guard::Add {
            finalizers.push(IN_USE_FINALIZER.to_owned());
        } else if !self.ledger.close(&class.name) {
            return;
        }
        let body = json!({"metadata": {
            "resourceVersion": class.version.to_string(),
            "finalizers": finalizers,
        }});
        match self.writer.patch_class(&class.name, &body).await {
            Ok(_) => {
                // Only now it is certain that the class cannot be deleted.
                if verdict == Guard::Add {
                    self.ledger.open(&class.name);
                }
                let now = Guarded::over(class, verdict, contest);
                guarded.insert(class.name.clone(), now);
            }
            Err(error) => {
                warn!(class = class.name, %error, "cannot write the finalizer of the class");
            }
        }
    }

    async fn write_status(
        &self,
        class: &ClassView,
        classes: &Classes,
        usage: &Usage,
        written: &mut BTreeMap<String, Written>,
    ) {
        if is_restarting(class, classes) {
            return;
        }
        let last = written.get(&class.name);
        let mut class = class.clone();
        if class.provider.is_err() && class.status == LoadBalancerClassStatus::default() {
            // The status of a class that cannot be read is not known.
            class.status = last.map(|last| last.status.clone()).unwrap_or_default();
        }
        let status = report(&class, classes, usage, Timestamp::now());
        if status == class.status {
            if let Some(last) = written.get_mut(&class.name) {
                last.contest.look(false, Instant::now());
            }
            return;
        }
        let mut contest = last.map_or_else(Contest::default, |last| last.contest);
        let restores = last.is_some_and(|last| last.landed && is_repeated(&last.status, &status));
        if restores && !may_restore(&mut contest, &class, "status") {
            if let Some(last) = written.get_mut(&class.name) {
                last.contest = contest;
            }
            return;
        }
        let body = json!({"status": own_part(&status)});
        let answer = self.writer.patch_class_status(&class.name, &body).await;
        if let Err(error) = &answer {
            warn!(class = class.name, %error, "cannot write the status of the class");
        }
        let now = Written {
            at: Instant::now(),
            landed: answer.is_ok(),
            status,
            contest,
        };
        written.insert(class.name, now);
    }
}

/// Whether a step that somebody has undone may be repeated now.
fn may_restore(contest: &mut Contest, class: &ClassView, what: &'static str) -> bool {
    let restored = contest.restore(Instant::now());
    if restored == Ok(true) {
        let class = &class.name;
        warn!(
            class,
            what, "somebody else keeps changing the class; it is restored less often"
        );
    }
    restored.is_ok()
}

/// Whether two statuses of a class say the same. Their times can differ.
fn is_repeated(before: &LoadBalancerClassStatus, now: &LoadBalancerClassStatus) -> bool {
    let mut now = now.clone();
    dated(&mut now.conditions, &[], &Time(Timestamp::UNIX_EPOCH));
    let mut before = before.clone();
    dated(&mut before.conditions, &[], &Time(Timestamp::UNIX_EPOCH));
    before == now
}

#[cfg(test)]
mod tests;
