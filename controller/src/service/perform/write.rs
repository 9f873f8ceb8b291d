//! Writes Services. All writes go through [`Performer::send`]; before that, [`Contests`] is
//! asked whether somebody else keeps undoing them. Does I/O; cancelling a call has the same
//! effect as a crash.
//!
//! [`Contests`]: crate::service::contests::Contests

use jiff::Timestamp;
use serde_json::Value;
use tokio::time::Instant;
use tracing::warn;

use super::Performer;
use crate::cluster::view::{Name, ServiceView};
use crate::cluster::writer::{WriteError, Written};
use crate::service::contests::{Plan, Purpose, Step};
use crate::service::status::{self, Desired, Event, moved_event, transition_event};

/// A write of finalizers, or one that removes everything of ours.
pub(super) struct Marks<'a> {
    /// The label of the metric.
    pub(super) kind: &'static str,
    pub(super) patch: &'a Value,
    pub(super) purpose: Purpose,
    /// The Service after the write, if that is known.
    pub(super) left: Option<&'a ServiceView>,
}

// === impl Performer ===

impl Performer {
    /// Writes the difference and sends its event.
    pub(super) async fn publish(
        &self,
        service: &ServiceView,
        desired: &Desired,
    ) -> Result<Written, WriteError> {
        let now = Timestamp::now();
        self.publish_over(service, desired, None, now).await
    }

    /// Like [`Performer::publish`], but fails if the Service no longer has this version. `now` is
    /// the time of conditions that change.
    pub(super) async fn publish_over(
        &self,
        service: &ServiceView,
        desired: &Desired,
        version: Option<u64>,
        now: Timestamp,
    ) -> Result<Written, WriteError> {
        let start = Instant::now();
        let shown = self.contests.message(service, start);
        if status::patch(service, &desired.clone().with_contest(shown), now).is_none() {
            return Ok(Written::Version(service.version));
        }
        let desired = desired.clone().with_contest(None);
        let purpose = Purpose::of("status", &desired);
        let plan = self.plan(service, purpose)?;
        let desired = desired.with_contest(plan.message.clone());
        // A contest that has just ended can be all that differed: nothing is sent or counted.
        let Some(mut patch) = status::patch(service, &desired, now) else {
            return Ok(Written::Version(service.version));
        };
        self.sends(service, purpose, &plan);
        if let Some(version) = version {
            patch["metadata"]["resourceVersion"] = version.to_string().into();
        }
        let left = desired.applied_to(service, now);
        let marks = Marks {
            kind: "status",
            patch: &patch,
            purpose,
            left: Some(&left),
        };
        let written = self.send(service, &marks).await?;
        // A restoration is no transition.
        if plan.step == Step::New && matches!(written, Written::Version(_)) {
            let transition = transition_event(service, &desired).into_iter();
            for event in transition.chain(moved_event(service, &desired)) {
                self.recorder.event(&service.id, event);
            }
        }
        Ok(written)
    }

    /// Writes finalizers, or removes everything of ours.
    pub(super) async fn mark(
        &self,
        service: &ServiceView,
        marks: &Marks<'_>,
    ) -> Result<(Written, Step), WriteError> {
        let plan = self.plan(service, marks.purpose)?;
        self.sends(service, marks.purpose, &plan);
        Ok((self.send(service, marks).await?, plan.step))
    }

    /// What a write is, if it may be sent now.
    fn plan(&self, service: &ServiceView, purpose: Purpose) -> Result<Plan, WriteError> {
        let plan = self.contests.plan(service, purpose, Instant::now());
        plan.map_err(|retry_after| WriteError::Contested { retry_after })
    }

    /// Counts a write that is sent next. If a contest begins, its event is sent.
    fn sends(&self, service: &ServiceView, purpose: Purpose, plan: &Plan) {
        let now = Instant::now();
        self.contests.sends(service, purpose, plan, now);
        if plan.step == Step::Begins
            && let Some(message) = plan.message.clone()
        {
            warn!(service = %service.id, message, "somebody else keeps changing the Service");
            self.recorder.event(&service.id, Event::Contested(message));
        }
    }

    async fn send(&self, service: &ServiceView, marks: &Marks<'_>) -> Result<Written, WriteError> {
        let (name, kind) = (Name::from(&service.id), marks.kind);
        let written = self.writer.patch_service(&name, kind, marks.patch).await;
        match &written {
            Ok(Written::Version(version)) => {
                let (purpose, left) = (marks.purpose, marks.left);
                self.ledger.wrote(&name, *version);
                self.times.wrote(&name, left);
                self.contests
                    .wrote(service, purpose, *version, left, Instant::now());
            }
            Ok(Written::Gone) => {}
            Err(error) => {
                // Without an answer it may have landed.
                self.times.forget(&name);
                warn!(service = %service.id, kind, %error, "write failed");
            }
        }
        written
    }
}
