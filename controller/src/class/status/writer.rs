//! The leader's one task that writes classes: [`super::report`] and [`super::guard`] choose what.
//!
//! It writes a finalizer at once, because Services wait for it, and a status at most once in
//! [`PACE`] per class. `ballast teardown` and [`crate::class::drain`] write the drain switch in that
//! status; this task only reads it. The task can be cancelled at any point: it chooses again from what is published.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ballast_crds::LoadBalancerClassStatus;
use jiff::Timestamp;
use serde_json::json;
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::warn;

use super::{
    Guard, Usage, guard, has_news, is_releasing, is_restarting, own_part, report, reports_draining,
    usage,
};
use crate::class::board::Board;
use crate::class::{ClassView, Classes, DefaultState, IN_USE_FINALIZER, Instance};
use crate::cluster::conditions::{contest_of, plausible, undated};
use crate::cluster::contest::Contest;
use crate::cluster::ledger::Ledger;
use crate::cluster::metrics::ContestMetrics;
use crate::cluster::store::Store;
use crate::cluster::view::{Name, ServiceView};
use crate::cluster::writer::{self, ECHO, Writer};

/// The least time between two status writes of one class.
pub const PACE: Duration = Duration::from_secs(5);
/// The same while `ballast teardown` waits for a class that is being released.
const RELEASING_PACE: Duration = Duration::from_secs(1);
/// A burst of changes on the board is handled at once.
const BURST: Duration = Duration::from_millis(20);

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

/// The last status of a class that was written.
struct Written {
    at: Instant,
    /// The version after the write; `None` if it failed.
    landed: Option<u64>,
    status: LoadBalancerClassStatus,
}

/// The last write of the finalizer of a class.
struct Guarded {
    /// The version that it was written over.
    version: u64,
    at: Instant,
    step: Guard,
}

/// What the task remembers, by class.
#[derive(Default)]
struct Memory {
    written: BTreeMap<String, Written>,
    guarded: BTreeMap<String, Guarded>,
    contests: BTreeMap<String, Contests>,
}

/// Whether somebody else keeps changing the status or the finalizer of a class.
struct Contests {
    status: Contest,
    finalizer: Contest,
}

// === impl Memory ===

impl Memory {
    fn contests(&mut self, class: &ClassView) -> &mut Contests {
        let contests = self.contests.entry(class.name.clone());
        contests.or_insert_with(|| {
            let reported = contest_of(&class.status.conditions, Instant::now());
            Contests {
                status: reported,
                finalizer: reported,
            }
        })
    }

    fn retain(&mut self, exists: impl Fn(&String) -> bool) {
        self.written.retain(|name, _| exists(name));
        self.guarded.retain(|name, _| exists(name));
        self.contests.retain(|name, _| exists(name));
    }
}

// === impl Contests ===

impl Contests {
    fn is_any(&self, now: Instant) -> bool {
        self.status.ends(now).or(self.finalizer.ends(now)).is_some()
    }
}

// === impl Written ===

impl Written {
    /// Whether this status was written and the watch may not have delivered it yet. Nobody else
    /// has changed the class then.
    fn is_under_way(&self, class: &ClassView, status: &LoadBalancerClassStatus) -> bool {
        let unseen = self.landed.is_some_and(|version| class.version < version);
        unseen && self.at.elapsed() < ECHO && is_repeated(&self.status, status)
    }
}

// === impl Guarded ===

impl Guarded {
    fn over(class: &ClassView, step: Guard) -> Self {
        Self {
            version: class.version,
            at: Instant::now(),
            step,
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
        let mut memory = Memory::default();
        loop {
            self.write_all(&mut memory).await;
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

    async fn write_all(&self, memory: &mut Memory) {
        let classes = self.board.snapshot();
        let usages = usage(&classes, &self.services.all(), &self.ledger);
        for (name, usage) in &usages {
            let Some(class) = classes.get(name).filter(|_| classes.scope.owns(name)) else {
                continue;
            };
            self.guard(class, &classes, usage, memory).await;
            let last = memory.written.get(name);
            let published = last.map_or(&class.status, |last| &last.status);
            let pressing =
                !reports_draining(class, published) || has_news(class, &classes, published, usage);
            // It is decided soon, and then one write has everything.
            if classes.default_state(class) == Some(DefaultState::Undecided)
                || (!pressing && last.is_some_and(|last| last.at.elapsed() < PACE))
            {
                continue;
            }
            self.write_status(class, &classes, usage, memory).await;
        }
        memory.retain(|name| usages.contains_key(name));
        let now = Instant::now();
        let contests = memory.contests.values();
        let contested = contests.filter(|it| it.is_any(now)).count();
        self.contests.set("class", contested);
    }

    /// Adds or removes the finalizer of a class.
    async fn guard(
        &self,
        class: &ClassView,
        classes: &Classes,
        usage: &Usage,
        memory: &mut Memory,
    ) {
        let last = memory.guarded.get(&class.name);
        if last.is_some_and(|last| last.is_under_way(class)) {
            return;
        }
        let ready = matches!(classes.instances.get(&class.name), Some(Instance::Ready(_)));
        let verdict = guard(class, usage, ready, self.ledger.is_closed(&class.name));
        // The last write was the same step, so somebody undid it.
        let restores = last.is_some_and(|last| last.step == verdict);
        let contest = &mut memory.contests(class).finalizer;
        if verdict == Guard::Keep {
            contest.look(false, Instant::now());
            return;
        }
        if restores && !may_restore(contest, class, "finalizer") {
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
                let now = Guarded::over(class, verdict);
                memory.guarded.insert(class.name.clone(), now);
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
        memory: &mut Memory,
    ) {
        if is_restarting(class, classes) {
            return;
        }
        let (start, now) = (Instant::now(), Timestamp::now());
        let is_contested = memory.contests(class).is_any(start);
        let last = memory.written.get(&class.name);
        let mut class = class.clone();
        if class.provider.is_err() && class.status == LoadBalancerClassStatus::default() {
            // The status of a class that cannot be read is not known.
            class.status = last.map(|last| last.status.clone()).unwrap_or_default();
        }
        let before = match last.filter(|last| last.landed.is_some()) {
            Some(last) => last.status.conditions.clone(),
            None => plausible(&class.status.conditions, now),
        };
        let full = |is_contested| report(&class, classes, usage, is_contested, &before, now);
        let mut status = full(is_contested);
        if last.is_some_and(|last| last.is_under_way(&class, &status)) {
            return;
        }
        let landed = last.filter(|last| last.landed.is_some());
        let restores = landed.is_some_and(|last| is_repeated(&last.status, &status));
        let contest = &mut memory.contests(&class).status;
        if status == class.status {
            contest.look(false, start);
            return;
        }
        if restores {
            if !may_restore(contest, &class, "status") {
                return;
            }
            status = full(memory.contests(&class).is_any(start));
        }
        let body = json!({"status": own_part(&status)});
        let answer = self.writer.patch_class_status(&class.name, &body).await;
        if let Err(error) = &answer {
            warn!(class = class.name, %error, "cannot write the status of the class");
        }
        let now = Written {
            at: Instant::now(),
            landed: match answer {
                Ok(writer::Written::Version(version)) => Some(version),
                Ok(writer::Written::Gone) => Some(class.version),
                Err(_) => None,
            },
            status,
        };
        memory.written.insert(class.name, now);
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
    let said = |status: &LoadBalancerClassStatus| LoadBalancerClassStatus {
        conditions: undated(&status.conditions),
        ..status.clone()
    };
    said(before) == said(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A backup can be older than our own write and show the same version again.
    #[tokio::test(start_paused = true)]
    async fn a_finalizer_that_a_backup_does_not_have_is_written_again() {
        let mut class = ClassView::test("local");
        let guarded = Guarded::over(&class, Guard::Add);
        assert!(guarded.is_under_way(&class), "the watch is late");
        tokio::time::advance(ECHO).await;
        assert!(!guarded.is_under_way(&class));
        let guarded = Guarded::over(&class, Guard::Add);
        class.version += 1;
        assert!(!guarded.is_under_way(&class), "another view decides anew");
    }
}
