//! Which Services somebody else keeps changing back, and how often this process restores them.
//!
//! A write *restores* a Service if all of this is true:
//! - the Service is not as the last write left it: somebody changed its addresses, a condition
//!   of Ballast, or a finalizer of Ballast;
//! - it repeats a write of the last minute (or there were [`KNOWN`] different ones);
//! - the Service asks for the same as then.
//!
//! Every other write is sent at once: after an edit of the spec, after a change in the cloud,
//! and for a Service whose state flips by itself. [`Contest`] decides about restorations.
//!
//! A record exists for a minute after a write, and during a contest. The condition `Contested`
//! of an earlier process begins one as well, so a restart writes nothing.

use std::collections::HashMap;
use std::fmt::{Debug, Write as _};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::num::NonZeroU64;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::cluster::conditions::{CONTESTED, OVERWRITTEN};
use crate::cluster::contest::{Contest, WINDOW};
use crate::cluster::metrics::ContestMetrics;
use crate::cluster::view::{Name, ServiceView};

/// The different writes that a record remembers. After as many, every further one counts as a
/// repetition: what somebody else writes can change what Ballast wants to say about it.
const KNOWN: usize = 4;

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

/// One Service that was written lately.
#[derive(Debug)]
struct Record {
    /// What the Service asks for, as a fingerprint.
    asks: u64,
    /// What the last write left of Ballast's part, as a fingerprint. `None`: not known yet.
    left: Option<u64>,
    /// The version of the last write.
    written: u64,
    /// The version for which the last restoration was counted.
    counted: Option<u64>,
    purposes: [Option<Purpose>; KNOWN],
    /// When the last write was sent.
    at: Instant,
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

/// What a Service asks for: all that its owner can edit. A later Service of the same name asks
/// for something else.
fn asks(service: &ServiceView) -> u64 {
    Digest::of(&(
        &service.id.uid,
        service.deleting,
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
    let mut held_by: Vec<&String> = service.held_by.iter().collect();
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
        let name = Name::from(&service.id);
        if !inner.records.contains_key(&name) {
            let reported = service.condition(CONTESTED);
            let reported = reported.filter(|it| it.reason == OVERWRITTEN && it.status == "True")?;
            let record = Record {
                left: Some(ours(service)),
                contest: Contest::resumed(now),
                message: Some(reported.message.clone().into_boxed_str()),
                ..Record::new(service, now)
            };
            inner.records.insert(name.clone(), Box::new(record));
            inner.count(&self.metrics, now);
        }
        let record = inner.records.get_mut(&name)?;
        record.see(service, now);
        if record.contest.ends(now).is_none() && record.message.take().is_some() {
            inner.count(&self.metrics, now);
            return None;
        }
        record.message.as_deref().map(str::to_owned)
    }

    /// Whether a write with this purpose may be sent now. `Err`: ask again after this time.
    pub fn may_write(
        &self,
        service: &ServiceView,
        purpose: Purpose,
        now: Instant,
    ) -> Result<(), Duration> {
        let mut inner = self.lock();
        let record = inner.restored_by(service, purpose, now);
        record.map_or(Ok(()), |record| record.contest.may_restore(now))
    }

    /// Decides about a write with this purpose, which is sent next. `Err`: it must not be sent
    /// before this time has passed.
    pub fn judge(
        &self,
        service: &ServiceView,
        purpose: Purpose,
        now: Instant,
    ) -> Result<Step, Duration> {
        let mut inner = self.lock();
        let Some(record) = inner.restored_by(service, purpose, now) else {
            return Ok(Step::New);
        };
        // A write that failed is tried again. Nobody has changed the Service since.
        if record.counted == Some(service.version) {
            return Ok(Step::Restores);
        }
        record.contest.may_restore(now)?;
        record.counted = Some(service.version);
        if !record.contest.restored(now) {
            return Ok(Step::Restores);
        }
        record.message = Some(message(service.rival.as_deref()));
        inner.count(&self.metrics, now);
        Ok(Step::Begins)
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
        let records = inner.records.entry(Name::from(&service.id));
        let record = records.or_insert_with(|| Box::new(Record::new(service, now)));
        record.asks = asks(service);
        record.left = left.map(ours);
        (record.written, record.at) = (version, now);
        record.contest.look(false, now);
        if !record.purposes.contains(&Some(purpose))
            && let Some(free) = record.purposes.iter_mut().find(|it| it.is_none())
        {
            *free = Some(purpose);
        }
    }

    /// When to look at a Service again, because its contest may be over then. Call it at the
    /// end of each turn.
    pub fn look_again(&self, name: &Name, now: Instant) -> Option<Duration> {
        let mut inner = self.lock();
        let record = inner.records.get_mut(name)?;
        let ends = record.contest.ends(now);
        if ends.is_none() && record.message.take().is_some() {
            inner.count(&self.metrics, now);
        }
        ends.map(|ends| ends - now)
    }

    /// Forgets a Service that is gone.
    pub fn forget(&self, name: &Name, now: Instant) {
        let mut inner = self.lock();
        let gone = inner.records.remove(name);
        if gone.is_some_and(|record| record.message.is_some()) {
            inner.count(&self.metrics, now);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Inner ===

impl Inner {
    /// The record of a Service, if a write with this purpose restores it.
    fn restored_by(
        &mut self,
        service: &ServiceView,
        purpose: Purpose,
        now: Instant,
    ) -> Option<&mut Record> {
        let record = self.records.get_mut(&Name::from(&service.id))?;
        record.see(service, now);
        if record.is_over(now) {
            record.purposes = [None; KNOWN];
        }
        let full = record.purposes.iter().all(Option::is_some);
        let repeats = full || record.purposes.contains(&Some(purpose));
        (repeats && record.is_changed(service)).then_some(record)
    }

    /// Forgets what is over, once in a [`WINDOW`].
    fn sweep(&mut self, metrics: &ContestMetrics, now: Instant) {
        if now - *self.swept.get_or_insert(now) < WINDOW {
            return;
        }
        self.swept = Some(now);
        self.records.retain(|_, record| !record.is_over(now));
        self.records.shrink_to_fit();
        self.count(metrics, now);
    }

    fn count(&self, metrics: &ContestMetrics, now: Instant) {
        let records = self.records.values();
        let contested = records.filter(|record| record.contest.ends(now).is_some());
        metrics.set("service", contested.count());
    }
}

// === impl Record ===

impl Record {
    fn new(service: &ServiceView, now: Instant) -> Self {
        Self {
            asks: asks(service),
            left: None,
            written: service.version,
            counted: None,
            purposes: [None; KNOWN],
            at: now,
            contest: Contest::default(),
            message: None,
        }
    }

    /// Compares the Service with what the last write left.
    fn see(&mut self, service: &ServiceView, now: Instant) {
        let asks = asks(service);
        if self.asks != asks {
            self.asks = asks;
            self.purposes = [None; KNOWN];
        }
        if service.version == self.written && self.left.is_none() {
            self.left = Some(ours(service));
        }
        let is_changed = self.is_changed(service);
        if service.version >= self.written {
            self.contest.look(is_changed, now);
        }
    }

    /// Whether somebody changed Ballast's part since the last write. A view from before that
    /// write does not say it.
    fn is_changed(&self, service: &ServiceView) -> bool {
        service.version >= self.written && self.left != Some(ours(service))
    }

    fn is_over(&self, now: Instant) -> bool {
        now - self.at >= WINDOW && self.contest.is_over(now)
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
