//! Looks up for how many rules of a security group prefix lists count, each list once for the whole
//! class.

use std::collections::BTreeSet;

use ballast_provider::ProviderError;

use super::execute::error;
use super::network::mendable;
use super::{Inner, PATIENCE};
use crate::annotations::PREFIX;
use crate::client::values::Filter;
use crate::client::{Client, Manner};
use crate::desired::{self, Part, PrefixLists};
use crate::network;
use crate::rate::Urgency;

// === impl Inner ===

impl Inner {
    /// For how many rules the prefix lists of these Services count, and those of their rules that exist.
    /// Refuses Services that need more rules than AWS permits; if that depends on lists, it tries again.
    pub(super) async fn prefix_lists(
        &self,
        client: &Client,
        parts: &[Part<'_>],
        mut wanted: BTreeSet<String>,
    ) -> Result<PrefixLists, ProviderError> {
        let named: BTreeSet<&String> = (parts.iter())
            .flat_map(|part| &part.settings.prefix_lists)
            .collect();
        wanted.extend(named.iter().copied().cloned());
        let unknown = || -> Vec<String> {
            let known = &self.network().prefix_lists;
            let new = |id: &&String| !known.contains_key(*id);
            wanted.iter().filter(new).cloned().collect()
        };
        if !unknown().is_empty() {
            let _looking = self.looking.lock().await;
            let new = unknown();
            if !new.is_empty() {
                let filters = [Filter::new("prefix-list-id", new)];
                let manner = Manner::new(Urgency::Service, PATIENCE);
                let found = client.prefix_lists(&filters, manner).await;
                let found = found.map_err(|why| error(&why))?;
                let found = found
                    .into_iter()
                    .map(|list| (list.id.clone(), network::entries(&list)));
                self.network().prefix_lists.extend(found);
            }
        }
        let mut network = self.network();
        if let Some(missing) = named
            .iter()
            .find(|id| !network.prefix_lists.contains_key(**id))
        {
            return Err(ProviderError::transient(format!(
                "annotation {PREFIX}security-group-prefix-lists: the prefix list {missing} does not exist in this region"
            )));
        }
        let known = network.prefix_lists.iter();
        let known = known.filter(|(id, _)| wanted.contains(*id));
        let lists = known.map(|(id, entries)| (id.clone(), *entries)).collect();
        if let Err(refusal) = desired::rules(parts, &lists) {
            // Somebody may make a list shorter before the next turn.
            network.prefix_lists.retain(|id, _| !named.contains(id));
            if named.is_empty() {
                return Err(refusal.into());
            }
            return Err(mendable(refusal));
        }
        Ok(lists)
    }
}
