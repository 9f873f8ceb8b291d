//! Reads the tags of what is about to be deleted, just before. What people want to keep stays, and so does
//! what is no longer this class's: whoever takes Ballast's tags away takes the object.
//!
//! What stays although its Service goes must not be found again as something that a Service has left. So it is
//! relinquished: it loses the tag of the class.

use std::collections::BTreeSet;

use ballast_provider::ProviderError;
use ballast_provider::mark::{CLASS, KEEP};
use tracing::info;

use super::Inner;
use super::execute::{Ended, error};
use super::inventory::manner;
use super::records::Record;
use super::tags::tags_of_all;
use crate::call::{Call, Ref};
use crate::client::values::{LoadBalancer, TargetGroup};
use crate::client::{Answer, CallError, Client, Ids};
use crate::effect;
use crate::observed::Arn;
use crate::rate::Urgency;

/// Deletions, after the tags of their objects were read.
#[derive(Debug, Default)]
pub(super) struct Sorted {
    /// Those that may be made.
    pub(super) calls: Vec<Call>,
    /// Those of what people want to keep.
    pub(super) kept: Vec<Call>,
}

/// What a call deletes, if it is an object with tags of Ballast's.
pub(super) fn deletes(call: &Call) -> Option<&str> {
    match call {
        Call::DeleteLoadBalancer { load_balancer } => Some(load_balancer),
        Call::DeleteTargetGroup { target_group } => Some(target_group),
        Call::DeleteSecurityGroup { security_group } => Some(security_group),
        _ => None,
    }
}

/// The target groups and security groups that load balancers of somebody else use.
fn used_by(others: &[LoadBalancer], groups: &[TargetGroup]) -> Vec<String> {
    let is_used = |group: &&TargetGroup| {
        let mut others = others.iter();
        others.any(|it| group.load_balancers.contains(&it.arn))
    };
    let targets = groups.iter().filter(is_used).map(|it| it.arn.clone());
    let security = others.iter().flat_map(|it| &it.security_groups).cloned();
    targets.chain(security).collect()
}

// === impl Inner ===

impl Inner {
    /// Sorts deletions by the tags that their objects have now. The record forgets what is no longer this class's.
    pub(super) async fn sort_deletions(
        &self,
        client: &Client,
        record: &mut Record,
        calls: &[Call],
        urgency: Urgency,
    ) -> Result<Sorted, CallError> {
        let ids: Vec<&str> = calls.iter().filter_map(deletes).collect();
        let arns = ids.iter().filter(|id| id.starts_with("arn:"));
        let arns: Vec<Arn> = arns.map(|id| (*id).to_owned()).collect();
        // What is gone has no tags.
        let mut tags = tags_of_all(client, &arns, urgency).await?;
        if arns.len() < ids.len() {
            let key = record.key.clone();
            let groups = self.own_security_groups(client, Some(&key), urgency);
            tags.extend(groups.await?.into_iter().map(|one| (one.id, one.tags)));
        }
        let mut sorted = Sorted::default();
        for call in calls {
            let Some(id) = deletes(call) else {
                sorted.calls.push(call.clone());
                continue;
            };
            match tags.get(id) {
                Some(tags) if tags.contains_key(KEEP) => sorted.kept.push(call.clone()),
                Some(tags) if self.mark.owns(tags) => sorted.calls.push(call.clone()),
                _ => {
                    let (observed, answer) = (&mut record.observed, Answer::default());
                    effect::apply(observed, call, &Ids::default(), &answer);
                }
            }
        }
        Ok(sorted)
    }

    /// Reads the tags of everything of a load balancer, before its last Service goes. The record forgets what is no
    /// longer this class's. Returns whether people want to keep any of it.
    pub(super) async fn reread(
        &self,
        client: &Client,
        record: &mut Record,
    ) -> Result<bool, CallError> {
        let urgency = Urgency::Service;
        let observed = &record.observed;
        let balancers = observed.load_balancers.values().map(|one| &one.arn);
        let groups = observed.target_groups.values().map(|one| &one.arn);
        let arns: Vec<Arn> = balancers.chain(groups).cloned().collect();
        if arns.is_empty() && record.cleanup.is_some() && record.stuck().is_none() {
            // The tags of its security groups were read a minute ago.
            return Ok(false);
        }
        let mut tags = tags_of_all(client, &arns, urgency).await?;
        tags.retain(|_, tags| self.mark.owns(tags));
        let observed = &mut record.observed;
        let (balancers, groups) = (&mut observed.load_balancers, &mut observed.target_groups);
        balancers.retain(|_, one| tags.contains_key(&one.arn));
        groups.retain(|_, one| tags.contains_key(&one.arn));
        let mut kept = tags.values().any(|tags| tags.contains_key(KEEP));
        if !observed.groups.is_empty() {
            let key = record.key.clone();
            let own = self.own_security_groups(client, Some(&key), urgency);
            let own = own.await?;
            let is_own = |id: &String| own.iter().any(|one| one.id == *id);
            record.observed.groups.retain(|_, one| is_own(&one.id));
            kept |= own.iter().any(|one| one.tags.contains_key(KEEP));
        }
        Ok(kept)
    }

    /// Relinquishes what load balancers of somebody else use: whoever has taken those has taken this, too, and AWS
    /// never deletes it.
    pub(super) async fn leave_to_others(
        &self,
        client: &Client,
        record: &mut Record,
    ) -> Result<Ended, ProviderError> {
        let urgency = Urgency::Service;
        let groups = record.observed.target_groups.values();
        let groups: Vec<Arn> = groups.map(|one| one.arn.clone()).collect();
        let groups = client.target_groups_with(&groups, manner(urgency)).await;
        let groups = groups.map_err(|why| error(&why))?;
        let users: BTreeSet<&Arn> = groups.iter().flat_map(|one| &one.load_balancers).collect();
        let users: Vec<Arn> = users.into_iter().cloned().collect();
        // AWS may still name one that is gone.
        let others = client.load_balancers(&users, manner(urgency)).await;
        let mut others = others.map_err(|why| error(&why))?;
        let tags = tags_of_all(client, &users, urgency).await;
        let tags = tags.map_err(|why| error(&why))?;
        let is_foreign = |arn: &Arn| tags.get(arn).is_some_and(|tags| !self.mark.owns(tags));
        others.retain(|one| is_foreign(&one.arn));
        self.relinquish(client, record, &used_by(&others, &groups))
            .await
    }

    /// Takes the tag of the class from these objects of a record: from now on nobody takes them for something that a
    /// Service has left.
    pub(super) async fn relinquish(
        &self,
        client: &Client,
        record: &mut Record,
        ids: &[String],
    ) -> Result<Ended, ProviderError> {
        let observed = &record.observed;
        let groups = observed.target_groups.values().map(|one| &one.arn);
        let own = groups.chain(observed.groups.values().map(|one| &one.id));
        let of: Vec<String> = own.filter(|id| ids.contains(id)).cloned().collect();
        if of.is_empty() {
            return Ok(Ended::Done);
        }
        info!(key = %record.key, ids = ?of, "these are left to whoever uses or keeps them");
        let keys = vec![CLASS.to_owned()];
        let refs = of.iter().cloned().map(Ref::Known).collect();
        let calls = [Call::RemoveTags { of: refs, keys }];
        match self.execute(client, record, &calls, "").await {
            Ended::Failed(why) => return Err(error(&why)),
            Ended::Stale => return Ok(Ended::Stale),
            Ended::Done => {}
        }
        let observed = &mut record.observed;
        observed
            .target_groups
            .retain(|_, one| !of.contains(&one.arn));
        observed.groups.retain(|_, one| !of.contains(&one.id));
        Ok(Ended::Done)
    }
}
