//! The security groups that settings name, by ID or tag `Name`.

use std::collections::BTreeSet;

use ballast_provider::mark::CLUSTER;
use ballast_provider::{ProviderError, Refusal};
use tokio::time::Instant;

use super::{FRESH, Network, REMEMBERED, SOON, manner, mendable};
use crate::annotations::{PREFIX, invalid};
use crate::client::Client;
use crate::client::values::{Filter, SecurityGroup};
use crate::provider::Inner;
use crate::provider::execute::error;

/// What a name of a security group stands for.
#[derive(Debug, Default)]
pub(super) struct Named {
    /// For how long it counts; `None` before the first look-up.
    until: Option<Instant>,
    /// The IDs of the user's groups.
    ids: Vec<String>,
    /// Ballast has made a group of this name: its tags are those of a Service, whose author must not choose
    /// the groups of others.
    made: bool,
}

// === impl Network ===

impl Network {
    /// The names that nobody has asked for.
    fn unknown_groups(&self, names: &[String]) -> Vec<String> {
        let now = Instant::now();
        let fresh = |of: &Named| of.until.is_some_and(|until| until > now);
        let new = |name: &&String| !self.named.get(*name).is_some_and(fresh);
        names.iter().filter(new).cloned().collect()
    }

    /// EC2 does not answer: what it has said before counts for a while. False if it has said nothing that
    /// these names need.
    pub(super) fn trust_groups(&mut self, names: &[String], present: &BTreeSet<String>) -> bool {
        let soon = Instant::now() + SOON;
        let known = |name: &String| {
            let those = self.named.get(name).map_or(0, |those| those.ids.len());
            present.contains(name) || those == 1
        };
        if !names.iter().all(known) {
            return false;
        }
        for name in names {
            if let Some(those) = self.named.get_mut(name) {
                those.until = those.until.max(Some(soon));
            }
        }
        true
    }

    fn learn_groups(&mut self, asked: Vec<String>, found: &[SecurityGroup]) {
        let now = Instant::now();
        let remembered = |of: &Named| of.until.is_some_and(|until| until + REMEMBERED > now);
        self.named.retain(|_, of| remembered(of));
        for name in asked {
            let is_named = |group: &SecurityGroup| {
                group.id == name || !is_id(&name) && group.tags.get("Name") == Some(&name)
            };
            let those = found.iter().filter(|group| is_named(group));
            let (made, given): (Vec<_>, Vec<_>) =
                those.partition(|group| group.tags.contains_key(CLUSTER));
            let counts = if given.len() == 1 { FRESH } else { SOON };
            let those = Named {
                until: Some(now + counts),
                ids: given.into_iter().map(|group| group.id.clone()).collect(),
                made: !made.is_empty(),
            };
            self.named.insert(name, those);
        }
    }

    /// The ID of a security group.
    fn group(&self, name: &String) -> Result<String, Refusal> {
        let Some(those) = self.named.get(name) else {
            // EC2 does not answer, and the load balancer has it.
            return Ok(name.clone());
        };
        let refused = |why: String| {
            Err(invalid(format!(
                "annotation {PREFIX}security-groups: {why}"
            )))
        };
        match &those.ids[..] {
            [one] => Ok(one.clone()),
            [] if those.made => refused(format!(
                "Ballast has made the security group {name}, and deletes it with its Service; name one of your own"
            )),
            [] if is_id(name) => refused(format!("the security group {name} does not exist")),
            [] => refused(format!(
                "no security group of the VPC has the tag Name \"{name}\""
            )),
            several => refused(format!(
                "\"{name}\" is the tag Name of {}; use an ID",
                several.join(", ")
            )),
        }
    }
}

// === impl Inner ===

impl Inner {
    /// Looks up the user's security groups.
    pub(super) async fn learn_named_groups(
        &self,
        client: &Client,
        names: &[String],
    ) -> Result<(), ProviderError> {
        if self.network().unknown_groups(names).is_empty() {
            return Ok(());
        }
        let vpc = self.vpc(client).await?;
        let _looking = self.looking.lock().await;
        let new = self.network().unknown_groups(names);
        if !new.is_empty() {
            let (ids, names): (Vec<_>, Vec<_>) = new.iter().cloned().partition(|name| is_id(name));
            let mut found = Vec::new();
            for filters in [
                vec![Filter::new("group-id", ids)],
                vec![Filter::tag("Name", names), Filter::new("vpc-id", [vpc])],
            ] {
                if filters[0].values.is_empty() {
                    continue;
                }
                let those = client.security_groups(&filters, manner()).await;
                found.extend(those.map_err(|why| error(&why))?);
            }
            self.network().learn_groups(new, &found);
        }
        Ok(())
    }

    /// The user's security groups.
    pub(super) fn named_groups(&self, names: &[String]) -> Result<Vec<String>, ProviderError> {
        let network = self.network();
        let ids: Result<Vec<String>, Refusal> =
            names.iter().map(|name| network.group(name)).collect();
        ids.map_err(mendable)
    }
}

fn is_id(name: &str) -> bool {
    name.starts_with("sg-")
}
