//! Reads the tags of what is about to be deleted, just before. What people want to keep stays, and so does
//! what is no longer this class's: whoever takes Ballast's tags away takes the object.

use std::collections::{BTreeMap, BTreeSet};

use ballast_provider::ProviderError;
use ballast_provider::mark::KEEP;
use tracing::warn;

use super::Inner;
use super::execute::error;
use super::inventory::manner;
use super::records::Record;
use super::tags::tags_of_all;
use crate::call::Call;
use crate::client::values::Tags;
use crate::client::{Answer, CallError, Cause, Client, Ids};
use crate::effect;
use crate::observed::Arn;
use crate::rate::Urgency;

/// Deletions, after the tags of their objects were read.
#[derive(Debug, Default)]
pub(super) struct Checked {
    /// Those that may be made.
    pub(super) calls: Vec<Call>,
    /// Those of what people want to keep.
    pub(super) kept: Vec<Call>,
}

/// What a call deletes, if it is an object with tags of Ballast's.
fn deletes(call: &Call) -> Option<&str> {
    match call {
        Call::DeleteLoadBalancer { load_balancer } => Some(load_balancer),
        Call::DeleteTargetGroup { target_group } => Some(target_group),
        Call::DeleteSecurityGroup { security_group } => Some(security_group),
        _ => None,
    }
}

// === impl Inner ===

impl Inner {
    /// Reads the tags of what these calls delete. The record forgets what is no longer this class's.
    pub(super) async fn check(
        &self,
        client: &Client,
        record: &mut Record,
        calls: &[Call],
        urgency: Urgency,
    ) -> Result<Checked, CallError> {
        let ids = calls.iter().filter_map(deletes);
        let arns: Vec<Arn> = ids
            .filter(|id| id.starts_with("arn:"))
            .map(str::to_owned)
            .collect();
        let mut tags = self.tags_if_there(client, &arns, urgency).await?;
        if arns.len() < calls.iter().filter_map(deletes).count() {
            let key = record.key.clone();
            let groups = self
                .own_security_groups(client, Some(&key), urgency)
                .await?;
            tags.extend(groups.into_iter().map(|one| (one.id, one.tags)));
        }
        let mut checked = Checked::default();
        for call in calls {
            let Some(id) = deletes(call) else {
                checked.calls.push(call.clone());
                continue;
            };
            match tags.get(id) {
                Some(tags) if tags.contains_key(KEEP) => checked.kept.push(call.clone()),
                Some(tags) if self.mark.owns(tags) => checked.calls.push(call.clone()),
                // It is gone, or somebody else's.
                _ => effect::apply(
                    &mut record.observed,
                    call,
                    &Ids::default(),
                    &Answer::default(),
                ),
            }
        }
        Ok(checked)
    }

    /// The same for everything of a load balancer, before its last Service goes. Returns whether people want it to stay.
    pub(super) async fn is_kept(
        &self,
        client: &Client,
        record: &mut Record,
    ) -> Result<bool, ProviderError> {
        let observed = &record.observed;
        if observed.load_balancers.is_empty() && observed.target_groups.is_empty() {
            // The rest was read when it was asked for first.
            return Ok(false);
        }
        let tags = match self.tags_now(client, record).await {
            // AWS refuses the call if one of them is gone.
            Err(why) if why.cause == Cause::NotFound => {
                self.read(client, record, Urgency::Service).await?;
                self.tags_now(client, record).await
            }
            read => read,
        };
        let mut tags = tags.map_err(|why| error(&why))?;
        tags.retain(|_, tags| self.mark.owns(tags));
        let observed = &mut record.observed;
        let (balancers, groups) = (&mut observed.load_balancers, &mut observed.target_groups);
        balancers.retain(|_, one| tags.contains_key(&one.arn));
        groups.retain(|_, one| tags.contains_key(&one.arn));
        let mut kept = tags.values().any(|tags| tags.contains_key(KEEP));
        if !observed.groups.is_empty() {
            let key = record.key.clone();
            let own = self.own_security_groups(client, Some(&key), Urgency::Service);
            let own = own.await.map_err(|why| error(&why))?;
            let is_own = |id: &String| own.iter().any(|one| one.id == *id);
            record.observed.groups.retain(|_, one| is_own(&one.id));
            kept |= own.iter().any(|one| one.tags.contains_key(KEEP));
        }
        Ok(kept)
    }

    /// Forgets what a load balancer of somebody else uses: whoever has taken that one has taken this, too, and AWS never
    /// deletes it. Returns whether there is any.
    pub(super) async fn give_up_what_others_use(
        &self,
        client: &Client,
        record: &mut Record,
    ) -> Result<bool, CallError> {
        let urgency = Urgency::Service;
        let groups = record.observed.target_groups.values();
        let groups: Vec<Arn> = groups.map(|one| one.arn.clone()).collect();
        let groups = client.target_groups_with(&groups, manner(urgency)).await?;
        let own = record.observed.load_balancers.values();
        let own: BTreeSet<&Arn> = own.map(|one| &one.arn).collect();
        let users = groups.iter().flat_map(|one| &one.load_balancers);
        let users: BTreeSet<&Arn> = users.filter(|arn| !own.contains(arn)).collect();
        let users: Vec<Arn> = users.into_iter().cloned().collect();
        // AWS may still name one that is gone.
        let mut users = client.load_balancers(&users, manner(urgency)).await?;
        let arns: Vec<Arn> = users.iter().map(|one| one.arn.clone()).collect();
        let tags = self.tags_if_there(client, &arns, urgency).await?;
        users.retain(|one| tags.get(&one.arn).is_some_and(|tags| !self.mark.owns(tags)));
        let is_used = |group: &Arn| {
            let mut of = groups.iter().filter(|one| one.arn == *group);
            of.any(|one| {
                let mut users = users.iter();
                users.any(|user| one.load_balancers.contains(&user.arn))
            })
        };
        if users.is_empty() {
            return Ok(false);
        }
        let of: Vec<&str> = users.iter().map(|one| one.arn.as_str()).collect();
        warn!(key = %record.key, load_balancers = ?of, "load balancers of somebody else use what this Service had; leaving it to them");
        let observed = &mut record.observed;
        observed.target_groups.retain(|_, one| !is_used(&one.arn));
        let is_used = |group: &String| users.iter().any(|it| it.security_groups.contains(group));
        observed.groups.retain(|_, one| !is_used(&one.id));
        Ok(true)
    }

    /// The tags of the load balancers and target groups of a record.
    async fn tags_now(
        &self,
        client: &Client,
        record: &Record,
    ) -> Result<BTreeMap<Arn, Tags>, CallError> {
        let observed = &record.observed;
        let balancers = observed.load_balancers.values().map(|one| &one.arn);
        let groups = observed.target_groups.values().map(|one| &one.arn);
        let arns: Vec<Arn> = balancers.chain(groups).cloned().collect();
        client.tags(&arns, manner(Urgency::Service)).await
    }

    /// The tags of those that exist. AWS refuses a call because of one that does not.
    async fn tags_if_there(
        &self,
        client: &Client,
        arns: &[Arn],
        urgency: Urgency,
    ) -> Result<BTreeMap<Arn, Tags>, CallError> {
        match tags_of_all(client, arns, urgency).await {
            Err(why) if why.cause == Cause::NotFound => {}
            read => return read,
        }
        let mut all = BTreeMap::new();
        for arn in arns {
            match tags_of_all(client, std::slice::from_ref(arn), urgency).await {
                Err(why) if why.cause == Cause::NotFound => {}
                read => all.extend(read?),
            }
        }
        Ok(all)
    }
}
