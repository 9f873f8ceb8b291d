//! Reads the names of what one load balancer has, for a process that gives it up.
//!
//! A list that lags behind does not show what the former process made in its last moments. So a release
//! asks for the load balancers by the names that follow from its key and by those that its record has (one
//! that was taken over keeps its own), and for the target groups behind them, unless this process knows already that there is nothing else ([`Extent`]). What
//! only a list can show, the first look at everything finds ([`super::follow`]).
//!
//! It reads neither listeners nor attributes nor targets: whoever deletes needs none of them.

use std::collections::BTreeSet;

use ballast_provider::ProviderError;

use super::Inner;
use super::decode::{load_balancer, security_group, target_group};
use super::execute::error;
use super::inventory::manner;
use super::records::{Depth, Extent, Record, Tried};
use crate::client::{CallError, Client};
use crate::observed::Observed;
use crate::rate::Urgency;
use crate::settings::Scheme;

// === impl Inner ===

impl Inner {
    /// Makes sure that the record has all objects of its load balancer. Costs no call if this process has made
    /// or read them, or has listed everything long enough after its start.
    pub(super) async fn make_sure(
        &self,
        client: &Client,
        record: &mut Record,
    ) -> Result<(), ProviderError> {
        let nothing = record.is_empty() && self.records.are_listed();
        if (record.extent >= Extent::Named || nothing) && record.depth != Depth::Doubtful {
            return Ok(());
        }
        let read = self.read_names(client, record).await;
        read.map_err(|why| error(&why))
    }

    /// What somebody else has under a name of ours stays, and holds up nothing.
    async fn read_names(&self, client: &Client, record: &mut Record) -> Result<(), CallError> {
        let urgency = Urgency::Service;
        let doubtful = record.depth == Depth::Doubtful;
        let mut seen = if doubtful {
            Observed::default()
        } else {
            record.observed.clone()
        };
        let key = record.key.clone();
        let schemes = [Scheme::Internal, Scheme::InternetFacing];
        let derived = schemes.map(|scheme| crate::desired::name(&self.mark, &key, scheme));
        let before = record.observed.load_balancers.keys();
        let before = before.chain(&record.tried.load_balancers).cloned();
        let names: BTreeSet<String> = before.chain(derived).collect();
        let mut balancers = Vec::new();
        for name in names {
            if !seen.load_balancers.contains_key(&name) {
                // One by one: AWS refuses a call if one of the names does not exist.
                let name = [name];
                let found = client.load_balancers_named(&name, manner(urgency));
                balancers.extend(found.await?);
            }
        }
        let before = record.observed.target_groups.keys();
        let names = before.chain(&record.tried.target_groups);
        let unseen: BTreeSet<&String> = names
            .filter(|name| !seen.target_groups.contains_key(*name))
            .collect();
        let unseen: Vec<String> = unseen.into_iter().cloned().collect();
        let mut groups = client.target_groups_named(&unseen, manner(urgency)).await?;
        let there = seen.load_balancers.values().map(|one| one.arn.clone());
        let there: Vec<String> = there
            .chain(balancers.iter().map(|one| one.arn.clone()))
            .collect();
        for arn in &there {
            let behind = client.target_groups_behind(arn, manner(urgency)).await?;
            groups.extend(behind);
        }
        groups.retain(|one| !seen.target_groups.contains_key(&one.name));
        let arns: BTreeSet<String> = (balancers.iter().map(|one| one.arn.clone()))
            .chain(groups.iter().map(|one| one.arn.clone()))
            .collect();
        let arns: Vec<String> = arns.into_iter().collect();
        let mut tags = client.tags(&arns, manner(urgency)).await?;
        tags.retain(|_, tags| self.mark.owns(tags));
        for one in balancers {
            if let Some(tags) = tags.remove(&one.arn) {
                let name = one.name.clone();
                seen.load_balancers.insert(name, load_balancer(one, tags));
            }
        }
        for one in groups {
            if let Some(tags) = tags.remove(&one.arn) {
                seen.target_groups.extend(target_group(one, tags));
            }
        }
        let security = self
            .own_security_groups(client, Some(&key), urgency)
            .await?;
        let backend = self.backend_name();
        let security = security.into_iter().filter(|one| one.name != backend);
        // It may have been made after the list of the start.
        seen.groups.extend(security.map(security_group));
        if seen != record.observed || doubtful {
            record.observed = seen;
            record.depth = Depth::Names;
            record.targets_known = false;
        }
        record.tried = Tried::default();
        record.reaches(Extent::Named);
        Ok(())
    }
}
