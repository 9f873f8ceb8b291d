//! Removes what a Service has, and the load balancer with its last Service.
//!
//! A Service that leaves others on its load balancer takes its listeners and target groups with it. Then the next turn of
//! another one completes it: [`super::follow`] asks for that turn.
//!
//! AWS refuses to delete a security group until the network interfaces of its load balancer are
//! gone, about a minute later. The controller asks again; nothing waits here. A release ends with what
//! the Service has: if something else uses the backend group, [`super::follow`] deletes it later.

use std::collections::BTreeMap;
use std::time::Duration;

use ballast_provider::mark::{KEEP, RETAINED};
use ballast_provider::{Key, ProviderError, Released, ServiceId};
use jiff::Timestamp;
use tracing::info;

use super::Inner;
use super::backend::Closed;
use super::cleanup::Cleaning;
use super::execute::{Ended, error};
use super::full::{listeners_of_all, rules_of_all};
use super::keep::deletes;
use super::records::{Depth, Record};
use crate::call::{Call, Ref};
use crate::client::values::Tags;
use crate::client::{CallError, Cause, Client};
use crate::observed::Observed;
use crate::plan;
use crate::rate::Urgency;

// === impl Inner ===

impl Inner {
    pub(super) async fn delete(
        &self,
        id: &ServiceId,
        key: &Key,
    ) -> Result<Released, ProviderError> {
        let client = self.client().await?;
        let cell = self.records.of(key);
        let mut record = cell.lock().await;
        self.make_sure(client, &mut record).await?;
        if record.is_shared_by_others(id) {
            return self.leave(client, id, &mut record).await;
        }
        let kept = self.reread(client, &mut record).await;
        if kept.map_err(|why| error(&why))? {
            info!(%key, "has the tag {KEEP}; keeping it");
            drop(record);
            return Box::pin(self.retain(id, key)).await;
        }
        if record.stuck().is_some()
            && self.leave_to_others(client, &mut record).await? == Ended::Stale
        {
            return Ok(Released::later(Duration::ZERO));
        }
        if record.members.is_empty() {
            record.members.insert(id.clone());
        }
        if record.is_bound() && record.depth != Depth::Full {
            // What was registered in target groups of others is deregistered.
            self.read(client, &mut record, Urgency::Service).await?;
        }
        record.names_no_others();
        let calls = plan::release(&record.observed);
        let (first, rest): (Vec<Call>, Vec<Call>) = calls.into_iter().partition(|call| {
            matches!(
                call,
                Call::DeleteLoadBalancer { .. } | Call::DeregisterTargets { .. }
            )
        });
        if let Some(waits) = self.remove(client, &mut record, &first, &rest).await? {
            return Ok(waits);
        }
        drop(record);
        self.forget_notes(key);
        self.records.forget(key);
        // The last one waits a while for what belongs to the class: if Ballast is uninstalled, nobody
        // deletes it later.
        match self.close(client).await {
            Closed::Done => Ok(Released::Gone),
            Closed::Later(retry_after) => {
                let group = self.network().backend.id();
                let group = group.unwrap_or_else(|| self.backend_name());
                Ok(Released::waits(
                    retry_after,
                    format!(
                        "security group {group} of the class: it goes with the last Service, and AWS has not let it go yet"
                    ),
                ))
            }
            Closed::Stuck => {
                self.polls.notify_one();
                Ok(Released::Gone)
            }
        }
    }

    /// Removes what this Service has on a load balancer that others stay on.
    async fn leave(
        &self,
        client: &Client,
        id: &ServiceId,
        record: &mut Record,
    ) -> Result<Released, ProviderError> {
        match record.depth {
            Depth::Full => {}
            // Lists do not show listeners, and a full read asks each target group, too.
            Depth::Names => {
                let read = listeners_of_all(client, &mut record.observed, Urgency::Service).await;
                read.map_err(|why| error(&why))?;
                let read = rules_of_all(client, &mut record.observed, Urgency::Service).await;
                read.map_err(|why| error(&why))?;
            }
            Depth::Doubtful => self.read(client, record, Urgency::Service).await?,
        }
        let (calls, rest) = plan::leave(&record.observed, &id.uid);
        let sorted = self.sort_deletions(client, record, &rest, Urgency::Service);
        let sorted = sorted.await.map_err(|why| error(&why))?;
        if let Some(waits) = self.remove(client, record, &calls, &sorted.calls).await? {
            return Ok(waits);
        }
        let kept: Vec<String> = (sorted.kept.iter())
            .filter_map(|call| deletes(call).map(str::to_owned))
            .collect();
        if self.relinquish(client, record, &kept).await? == Ended::Stale {
            return Ok(Released::later(Duration::ZERO));
        }
        record.members.retain(|one| one.uid != id.uid);
        // Rules for its clients are left, and what was applied has no tag.
        record.left = true;
        self.polls.notify_one();
        Ok(Released::Gone)
    }

    /// Makes the calls of a release, and deletes what then is unused. `None`: nothing is left.
    async fn remove(
        &self,
        client: &Client,
        record: &mut Record,
        calls: &[Call],
        unused: &[Call],
    ) -> Result<Option<Released>, ProviderError> {
        match self.execute(client, record, calls, "").await {
            Ended::Done => {}
            Ended::Stale => {
                return Ok(Some(Released::later(Duration::ZERO)));
            }
            Ended::Failed(why) => return Err(blocked(&why, calls)),
        }
        let cleaned = self
            .clean_up(client, record, unused, Cleaning::OfRelease)
            .await;
        if let Some(why) = cleaned.failed {
            return Err(error(&why));
        }
        let Some(retry_after) = cleaned.left else {
            return Ok(None);
        };
        // Its status says what keeps it for longer than usual.
        match record.stuck() {
            Some(why) => Err(ProviderError::transient(why)),
            None => Ok(Some(Released::InProgress {
                retry_after,
                waits_for: record.waits_for(),
            })),
        }
    }

    /// Marks everything as kept on purpose. If others stay on the load balancer, nothing can be kept: what no Service
    /// wants is removed from it.
    pub(super) async fn retain(
        &self,
        id: &ServiceId,
        key: &Key,
    ) -> Result<Released, ProviderError> {
        let client = self.client().await?;
        let cell = self.records.of(key);
        let mut record = cell.lock().await;
        self.make_sure(client, &mut record).await?;
        if record.is_shared_by_others(id) {
            return self.leave(client, id, &mut record).await;
        }
        // Nobody would follow nodes and pods in a target group of others.
        if record.is_bound() && record.observed.load_balancers.is_empty() {
            drop(record);
            return self.delete(id, key).await;
        }
        if record.is_bound() {
            if record.depth != Depth::Full {
                self.read(client, &mut record, Urgency::Service).await?;
            }
            record.names_no_others();
            let notes = plan::unbind_all(&record.observed);
            if let Some(waits) = self.remove(client, &mut record, &[], &notes).await? {
                return Ok(waits);
            }
        }
        if record.is_empty() {
            drop(record);
            self.records.forget(key);
            return Ok(Released::Gone);
        }
        // A process that was interrupted has marked some of them.
        let of = objects(&record.observed, |tags| !tags.contains_key(RETAINED));
        if !of.is_empty() {
            let tags = BTreeMap::from([(RETAINED.to_owned(), Timestamp::now().to_string())]);
            let calls = [Call::AddTags { of, tags }];
            match self.execute(client, &mut record, &calls, "").await {
                Ended::Done => {}
                Ended::Stale => {
                    return Ok(Released::later(Duration::ZERO));
                }
                Ended::Failed(why) => return Err(error(&why)),
            }
        }
        record.retained = true;
        Ok(Released::Gone)
    }

    /// The Service wants again what was kept.
    pub(super) async fn take_back(
        &self,
        client: &Client,
        record: &mut Record,
    ) -> Result<Ended, ProviderError> {
        // Waves have left it out. So the tag of the targets says nothing of it, and does from now on.
        let nodes = self.targets().nodes().unwrap_or_default();
        let wrong = !record.has_targets_of(&nodes) && self.targets().may_have_tag();
        if wrong && !self.unsettle(client).await {
            return Err(ProviderError::transient(
                "cannot remove the tag that names the targets of all target groups, so the load balancer is not taken back yet",
            ));
        }
        let of = objects(&record.observed, |tags| tags.contains_key(RETAINED));
        if !of.is_empty() {
            let keys = vec![RETAINED.to_owned()];
            let calls = [Call::RemoveTags { of, keys }];
            match self.execute(client, record, &calls, "").await {
                Ended::Failed(why) => return Err(error(&why)),
                Ended::Stale => return Ok(Ended::Stale),
                Ended::Done => {}
            }
        }
        record.retained = false;
        Ok(Ended::Done)
    }
}

/// The load balancers, target groups and security groups whose tags are so. Listeners belong to their
/// load balancer.
fn objects(observed: &Observed, are: impl Fn(&Tags) -> bool) -> Vec<Ref> {
    let balancers = observed.load_balancers.values();
    let targets = observed.target_groups.values();
    let clients = observed.groups.values();
    (balancers.map(|one| (&one.arn, &one.tags)))
        .chain(targets.map(|one| (&one.arn, &one.tags)))
        .chain(clients.map(|one| (&one.id, &one.tags)))
        .filter(|(_, tags)| are(tags))
        .map(|(id, _)| Ref::Known(id.clone()))
        .collect()
}

/// Why a release does not go on. AWS's message need not name the load balancer that it protects.
fn blocked(why: &CallError, calls: &[Call]) -> ProviderError {
    let arn = calls.iter().find_map(|call| match call {
        Call::DeleteLoadBalancer { load_balancer } => Some(load_balancer),
        _ => None,
    });
    match (why.cause, arn) {
        (Cause::Protected, Some(arn)) if !why.message.contains(arn.as_str()) => {
            let mut named = why.clone();
            named.message = format!("{}: {arn}", why.message);
            error(&named)
        }
        _ => error(why),
    }
}
