//! Which Services somebody else keeps changing back, and how often this process restores them.
//!
//! A write *restores* a Service if both of this is true:
//! - the Service is not as the last write left it: somebody changed its addresses, a condition
//!   of Ballast, or a finalizer of Ballast;
//! - it repeats a write of the last minute (or there were [`KNOWN`] different ones). A write
//!   that does not repeat one, because the Service asks for something else than at the last
//!   write, answers an *edit*. Only [`EDITS`] of these in a minute are no restorations:
//!   somebody who changes Ballast's part can change an annotation or a label each time as well.
//!
//! Every other write is sent at once: after an edit of the spec, after a change in the cloud,
//! and for a Service whose state flips by itself. [`Contest`] decides about restorations. The
//! first write after a deletion is never one.
//!
//! A record exists for a minute after a write, and during a contest. The condition `Contested`
//! of an earlier process begins one as well, so a restart writes nothing and ends no contest.

use std::collections::HashMap;
use std::fmt::{Debug, Write as _};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::cluster::conditions::{CONTESTED, OVERWRITTEN};
use crate::cluster::contest::{Contest, WINDOW};
use crate::cluster::metrics::ContestMetrics;
use crate::cluster::view::{Name, ServiceView};

/// The different writes that a record remembers. After as many, every further one counts as a
/// repetition: what somebody else writes can change what Ballast wants to say about it.
const KNOWN: usize = 4;

/// Edits of the Service within a [`WINDOW`] that are answered at once, although somebody
/// changed Ballast's part together with each of them.
const EDITS: u8 = 5;

/// The Services that were written lately.
#[derive(Debug)]
pub struct Contests {
    inner: Mutex<Inner>,
    metrics: ContestMetrics,
}

#[derive(Debug, Default)]
struct Inner {
    records: HashMap<Name, Box<Record>>,
    swept: Option<Instant>,
}

/// What a write is to achieve, as a fingerprint: the same for two writes with the same purpose,
/// whatever has to be changed for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Purpose(NonZeroU64);

/// What a write is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Not a restoration.
    New,
    /// A restoration. It is no transition, so it has no event.
    Restores,
    /// A restoration, with which a contest begins.
    Begins,
}

/// What a write is, and the message of the condition `Contested` when it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What the write is.
    pub step: Step,
    /// `None`: the Service is to have no such condition.
    pub message: Option<String>,
}

/// Why a write is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// Nobody else changed Ballast's part, or the state of the Service is another.
    News,
    /// The Service asks for something else, and somebody changed Ballast's part.
    Edit,
    /// Somebody changed Ballast's part.
    Rival,
}

/// One Service that was written lately.
#[derive(Debug)]
struct Record {
    /// A later Service of the same name is another one.
    uid: Arc<str>,
    deleting: bool,
    /// What the Service asked for at the last write, as a fingerprint.
    asks: u64,
    /// What the last write left of Ballast's part, as a fingerprint. `None`: not known yet.
    left: Option<u64>,
    /// The version of the last write.
    written: u64,
    purposes: [Option<Purpose>; KNOWN],
    /// When the last write was sent.
    at: Instant,
    /// Apart, because nobody else writes to most Services.
    rivalry: Option<Box<Rivalry>>,
}

/// What somebody else did to a Service since.
#[derive(Debug, Default)]
struct Rivalry {
    /// The version for which the last restoration or edit was counted.
    counted: Option<u64>,
    /// Edits since the first one of the window, and when that was.
    edits: Option<(u8, Instant)>,
    contest: Contest,
    /// The message of the condition, while there is a contest.
    message: Option<Box<str>>,
}

/// Feeds text into a hash.
struct Digest(DefaultHasher);

/// The message of the condition and the event.
fn message(rival: Option<&str>) -> Box<str> {
    let who = rival.map_or_else(
        || "Another client (metadata.managedFields does not name it)".to_owned(),
        |rival| format!("The field manager \"{rival}\""),
    );
    format!(
        "{who} keeps changing the addresses, conditions or finalizers that Ballast writes to this Service; Ballast restores them less often until that stops. Let only one controller serve this Service"
    )
    .into_boxed_str()
}

/// What a Service asks for: all that its owner can edit.
fn asks(service: &ServiceView) -> u64 {
    Digest::of(&(
        service.is_load_balancer,
        &service.class,
        &service.load_balancer,
        &service.placement,
        &service.unknown_annotations,
    ))
}

/// The part of a Service that Ballast writes.
fn ours(service: &ServiceView) -> u64 {
    let mut conditions: Vec<_> = service
        .conditions
        .iter()
        .map(|it| (&it.kind, &it.status, &it.reason, &it.message, it.is_exact))
        .collect();
    conditions.sort_unstable();
    let mut held_by: Vec<&str> = service.holders().collect();
    held_by.sort_unstable();
    let mut hasher = DefaultHasher::new();
    (conditions, held_by, service.standard_finalizer).hash(&mut hasher);
    (&service.ingress, service.ingress_is_exact).hash(&mut hasher);
    hasher.finish()
}

// === impl Contests ===

impl Contests {
    /// No Service was written yet.
    pub fn new(metrics: ContestMetrics) -> Self {
        Self {
            inner: Mutex::default(),
            metrics,
        }
    }

    /// The message of the condition `Contested` that a Service is to have; `None`: it is to
    /// have none.
    pub fn message(&self, service: &ServiceView, now: Instant) -> Option<String> {
        let mut inner = self.lock();
        let record = inner.record(service, now)?;
        let ended = record.settle(now);
        let message = record.message().map(str::to_owned);
        if ended {
            inner.count(&self.metrics, now);
        }
        message
    }

    /// Whether a write with this purpose may be sent now. `Err`: ask again after this time.
    pub fn may_write(
        &self,
        service: &ServiceView,
        purpose: Purpose,
        now: Instant,
    ) -> Result<(), Duration> {
        let mut inner = self.lock();
        match inner.record(service, now) {
            Some(record) if record.cause(service, purpose, now) == Cause::Rival => {
                record.contest().may_restore(now)
            }
            _ => Ok(()),
        }
    }

    /// What a write with this purpose is, if it is sent now. `Err`: it must not be sent before
    /// this time has passed. It counts only with [`Contests::sends`].
    pub fn plan(
        &self,
        service: &ServiceView,
        purpose: Purpose,
        now: Instant,
    ) -> Result<Plan, Duration> {
        let mut inner = self.lock();
        let Some(record) = inner.record(service, now) else {
            let (step, message) = (Step::New, None);
            return Ok(Plan { step, message });
        };
        let contested = record.contest().ends(now).is_some();
        let shown = record.message().filter(|_| contested).map(str::to_owned);
        let plan = |step, message| Ok(Plan { step, message });
        if record.cause(service, purpose, now) != Cause::Rival {
            return plan(Step::New, shown);
        }
        // A write that failed is tried again. Nobody has changed the Service since.
        if record.counted() == Some(service.version) {
            return plan(Step::Restores, shown);
        }
        let mut contest = record.contest();
        contest.may_restore(now)?;
        if contest.restored(now) {
            let message = message(service.rival.as_deref());
            return plan(Step::Begins, Some(message.into()));
        }
        plan(Step::Restores, shown)
    }

    /// Counts a write that is sent now, as [`Contests::plan`] said.
    pub fn sends(&self, service: &ServiceView, purpose: Purpose, plan: &Plan, now: Instant) {
        let mut inner = self.lock();
        let Some(record) = inner.record(service, now) else {
            return;
        };
        let cause = record.cause(service, purpose, now);
        if cause == Cause::News || record.counted() == Some(service.version) {
            return;
        }
        let edits = record.edits_in_window(now).unwrap_or((0, now));
        let rivalry = record.rivalry.get_or_insert_default();
        rivalry.counted = Some(service.version);
        if cause == Cause::Edit {
            rivalry.edits = Some((edits.0 + 1, edits.1));
        } else if rivalry.contest.restored(now) {
            rivalry.message = plan.message.clone().map(Into::into);
            inner.count(&self.metrics, now);
        }
    }

    /// Records a write: the version that it made of this Service, and what it left, if that is
    /// known.
    pub fn wrote(
        &self,
        service: &ServiceView,
        purpose: Purpose,
        version: u64,
        left: Option<&ServiceView>,
        now: Instant,
    ) {
        let mut inner = self.lock();
        inner.sweep(&self.metrics, now);
        // This view is from before the write: what it reports of a contest may be over.
        let records = inner.records.entry(Name::from(&service.id));
        let record = records.or_insert_with(|| Box::new(Record::new(service, now)));
        if record.uid != service.id.uid {
            **record = Record::new(service, now);
        }
        let known = record.purposes.contains(&Some(purpose));
        let asks = asks(service);
        if std::mem::replace(&mut record.asks, asks) != asks && !known {
            record.purposes = [None; KNOWN];
        }
        record.left = left.map(ours);
        (record.written, record.at) = (version, now);
        record.look(false, now);
        if !known && let Some(free) = record.purposes.iter_mut().find(|it| it.is_none()) {
            *free = Some(purpose);
        }
    }

    /// When to look at a Service again, because its contest may be over then. Call it at the
    /// end of each turn.
    pub fn look_again(&self, name: &Name, now: Instant) -> Option<Duration> {
        let mut inner = self.lock();
        let record = inner.records.get_mut(name)?;
        let ends = record.contest().ends(now);
        if record.settle(now) {
            inner.count(&self.metrics, now);
        }
        ends.map(|ends| ends - now)
    }

    /// Forgets a Service that is gone.
    pub fn forget(&self, name: &Name, now: Instant) {
        let mut inner = self.lock();
        let gone = inner.records.remove(name);
        if gone.is_some_and(|record| record.message().is_some()) {
            inner.count(&self.metrics, now);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Inner ===

impl Inner {
    /// The record of a Service. One that reports a contest of an earlier process gets one.
    fn record(&mut self, service: &ServiceView, now: Instant) -> Option<&mut Record> {
        let name = Name::from(&service.id);
        let known = self.records.get(&name);
        if known.is_none_or(|record| record.uid != service.id.uid) {
            self.records.remove(&name);
            let reported = service.condition(CONTESTED);
            let reported = reported.filter(|it| it.reason == OVERWRITTEN && it.status == "True")?;
            let record = Record {
                left: Some(ours(service)),
                rivalry: Some(Box::new(Rivalry {
                    contest: Contest::resumed(now),
                    message: Some((&*reported.message).into()),
                    ..Rivalry::default()
                })),
                ..Record::new(service, now)
            };
            self.records.insert(name.clone(), Box::new(record));
        }
        let record = self.records.get_mut(&name)?;
        record.see(service, now);
        Some(record)
    }

    /// Forgets what is over, once in a [`WINDOW`].
    fn sweep(&mut self, metrics: &ContestMetrics, now: Instant) {
        if now - *self.swept.get_or_insert(now) < WINDOW {
            return;
        }
        self.swept = Some(now);
        // A message may still be on the Service, and would begin the contest again.
        self.records
            .retain(|_, record| record.message().is_some() || !record.is_over(now));
        self.records.shrink_to_fit();
        self.count(metrics, now);
    }

    fn count(&self, metrics: &ContestMetrics, now: Instant) {
        let records = self.records.values();
        let contested = records.filter(|record| record.contest().ends(now).is_some());
        metrics.set("service", contested.count());
    }
}

// === impl Record ===

impl Record {
    fn new(service: &ServiceView, now: Instant) -> Self {
        Self {
            uid: Arc::clone(&service.id.uid),
            deleting: service.deleting,
            asks: asks(service),
            left: None,
            written: service.version,
            purposes: [None; KNOWN],
            at: now,
            rivalry: None,
        }
    }

    /// Compares the Service with what the last write left.
    fn see(&mut self, service: &ServiceView, now: Instant) {
        if self.is_over(now) {
            self.purposes = [None; KNOWN];
        }
        if service.deleting && !std::mem::replace(&mut self.deleting, true) {
            self.purposes = [None; KNOWN];
            if let Some(rivalry) = &mut self.rivalry {
                rivalry.edits = None;
            }
        }
        if service.version == self.written && self.left.is_none() {
            self.left = Some(ours(service));
        }
        let is_changed = self.is_changed(service);
        if service.version >= self.written {
            self.look(is_changed, now);
        }
    }

    /// Why a write with this purpose is needed.
    fn cause(&self, service: &ServiceView, purpose: Purpose, now: Instant) -> Cause {
        if !self.is_changed(service) {
            return Cause::News;
        }
        let repeats = self.purposes.contains(&Some(purpose));
        if !repeats && self.asks != asks(service) {
            let edits = self.edits_in_window(now).map_or(0, |(edits, _)| edits);
            let counts = edits < EDITS || self.counted() == Some(service.version);
            return if counts { Cause::Edit } else { Cause::Rival };
        }
        let full = self.purposes.iter().all(Option::is_some);
        if repeats || full {
            Cause::Rival
        } else {
            Cause::News
        }
    }

    fn edits_in_window(&self, now: Instant) -> Option<(u8, Instant)> {
        let edits = self.rivalry.as_ref()?.edits;
        edits.filter(|(_, since)| now - *since < WINDOW)
    }

    fn counted(&self) -> Option<u64> {
        self.rivalry.as_ref()?.counted
    }

    fn contest(&self) -> Contest {
        let rivalry = self.rivalry.as_ref();
        rivalry.map_or_else(Contest::default, |rivalry| rivalry.contest)
    }

    fn message(&self) -> Option<&str> {
        self.rivalry.as_ref()?.message.as_deref()
    }

    /// Records whether the Service is now as somebody else left it.
    fn look(&mut self, is_changed: bool, now: Instant) {
        if let Some(rivalry) = &mut self.rivalry {
            rivalry.contest.look(is_changed, now);
        }
    }

    /// Removes the message if the contest is over. Returns true if it ends with this call.
    fn settle(&mut self, now: Instant) -> bool {
        self.contest().ends(now).is_none()
            && self
                .rivalry
                .as_mut()
                .is_some_and(|rivalry| rivalry.message.take().is_some())
    }

    /// Whether somebody changed Ballast's part since the last write. A view from before that
    /// write does not say it.
    fn is_changed(&self, service: &ServiceView) -> bool {
        service.version >= self.written && self.left != Some(ours(service))
    }

    fn is_over(&self, now: Instant) -> bool {
        now - self.at >= WINDOW && self.contest().is_over(now)
    }
}

// === impl Purpose ===

impl Purpose {
    /// The fingerprint of a purpose: what kind of write it is, and what is to be written.
    pub fn of(kind: &'static str, content: &impl Debug) -> Self {
        Self(NonZeroU64::MIN | Digest::of(&(kind, content)))
    }
}

// === impl Digest ===

impl Digest {
    /// A fingerprint of all that is printed of a value.
    fn of(value: &impl Debug) -> u64 {
        let mut digest = Self(DefaultHasher::new());
        // Writing into a hash cannot fail.
        let _ = write!(digest, "{value:?}");
        digest.0.finish()
    }
}

impl std::fmt::Write for Digest {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests;
