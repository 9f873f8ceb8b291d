//! The pods that load balancers send to.
//!
//! They come with the turn of their Service. If nothing but pods can have changed, because a former process has
//! finished the load balancer, only the targets are read: one call for each target group.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use ballast_provider::ProviderError;
use tokio::time::Instant;

use super::execute::{Ended, error};
use super::inventory::registered;
use super::records::{Answers, Record};
use super::{Inner, PATIENCE};
use crate::call::{Call, Ref};
use crate::client::{Cause, Client, Manner};
use crate::plan;
use crate::pods::Pods;
use crate::rate::Urgency;
use crate::target::TargetType;

/// How long a pod that AWS does not accept as a target is left out. Each search for such pods takes many calls.
const AGAIN: Duration = Duration::from_mins(5);
/// Pods that a remark names.
const NAMED: usize = 5;

/// Pods that AWS does not accept as targets, and when they are tried again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RefusedPods(BTreeMap<SocketAddr, Instant>);

// === impl RefusedPods ===

impl RefusedPods {
    pub(super) fn refuse(&mut self, pods: impl IntoIterator<Item = SocketAddr>, now: Instant) {
        self.0
            .extend(pods.into_iter().map(|one| (one, now + AGAIN)));
    }

    /// Forgets those that are gone, and those that are to be tried again.
    pub(super) fn keep(&mut self, pods: &Pods, now: Instant) {
        self.0
            .retain(|one, until| now < *until && pods.contains(one));
    }

    pub(super) fn addresses(&self) -> BTreeSet<SocketAddr> {
        self.0.keys().copied().collect()
    }

    /// When the first of them is tried again.
    pub(super) fn due(&self) -> Option<Instant> {
        self.0.values().min().copied()
    }

    /// What the owner of the Service should know.
    pub(super) fn remark(&self) -> Option<String> {
        if self.0.is_empty() {
            return None;
        }
        let named: Vec<String> = self.0.keys().take(NAMED).map(ToString::to_string).collect();
        let more = match self.0.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        Some(format!(
            "AWS does not accept these pods as targets: {}{more}. Targets need addresses of the VPC, or of a network that the VPC reaches; pods of an overlay network have none: use nlb-target-type: instance",
            named.join(", ")
        ))
    }
}

// === impl Inner ===

impl Inner {
    /// Changes the pods of the target groups of a load balancer of which nothing else differs.
    pub(super) async fn follow_pods(
        &self,
        client: &Client,
        record: &mut Record,
        pods: &Pods,
    ) -> Result<Ended, ProviderError> {
        if let Ended::Stale = self.read_pods(client, record).await? {
            return Ok(Ended::Stale);
        }
        let mut calls: Vec<Call> = Vec::new();
        for group in record.observed.target_groups.values() {
            if group.target_type == TargetType::Ip
                && let Some(wanted) = pods.selected(&group.tags)
            {
                let target_group = Ref::Known(group.arn.clone());
                calls.extend(plan::retarget(&target_group, &wanted, &group.targets));
            }
        }
        if calls.is_empty() {
            return Ok(Ended::Done);
        }
        record.health.begin(Instant::now());
        self.polls.notify_one();
        match self.execute(client, record, &calls, "").await {
            Ended::Failed(why) => Err(error(&why)),
            ended => Ok(ended),
        }
    }

    /// Reads the targets of target groups of pods, as far as they are not known.
    async fn read_pods(
        &self,
        client: &Client,
        record: &mut Record,
    ) -> Result<Ended, ProviderError> {
        let groups = record.observed.target_groups.iter();
        let unknown = groups.filter(|(name, group)| {
            group.target_type == TargetType::Ip && !record.pods_known.contains(*name)
        });
        let unknown: Vec<(String, String)> = unknown
            .map(|(name, group)| (name.clone(), group.arn.clone()))
            .collect();
        let mut answers = Answers::new();
        for (name, arn) in unknown {
            let manner = Manner::new(Urgency::Traffic, PATIENCE);
            let health = match client.target_health(&arn, manner).await {
                Ok(health) => health,
                Err(why) if why.cause == Cause::NotFound => {
                    record.doubt();
                    return Ok(Ended::Stale);
                }
                Err(why) => return Err(error(&why)),
            };
            if let Some(group) = record.observed.target_groups.get_mut(&name) {
                group.targets = registered(&health);
            }
            record.pods_known.insert(name);
            answers.insert(arn, health);
        }
        record.heard(&answers, Instant::now());
        Ok(Ended::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_aws_does_not_accept_is_named_and_tried_again() {
        let now = Instant::now();
        let mut refused = RefusedPods::default();
        assert_eq!((refused.remark(), refused.due()), (None, None));
        let pods = (1..=7).map(|last| SocketAddr::from(([10, 1, 0, last], 8080)));
        refused.refuse(pods, now);
        let remark = refused.remark().unwrap();
        assert!(remark.contains("10.1.0.5:8080 and 2 more"), "{remark}");
        assert_eq!(refused.due(), Some(now + AGAIN));
        // None of them is a pod any more.
        refused.keep(&Pods::default(), now);
        assert_eq!(refused, RefusedPods::default());
    }
}
