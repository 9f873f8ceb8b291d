//! Looks up for how many rules of a security group prefix lists count, each list once for the whole
//! class.

use std::collections::BTreeSet;
use std::sync::Arc;

use ballast_provider::ProviderError;

use super::execute::error;
use super::faults::Faults;
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
    /// Refuses a Service that needs more rules than AWS permits; if that depends on lists, it tries again. Of several
    /// Services only that one is refused: the one with which there are too many, the oldest first.
    pub(super) async fn prefix_lists(
        &self,
        client: &Client,
        parts: &[Part<'_>],
        mut wanted: BTreeSet<String>,
    ) -> Result<(PrefixLists, Faults), ProviderError> {
        let named = parts.iter().flat_map(|part| &part.settings.prefix_lists);
        wanted.extend(named.cloned());
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
        let known = network.prefix_lists.iter();
        let known = known.filter(|(id, _)| wanted.contains(*id));
        let lists: PrefixLists = known.map(|(id, entries)| (id.clone(), *entries)).collect();
        let (mut faults, mut accepted) = (Faults::new(), Vec::new());
        for part in parts {
            accepted.push(*part);
            if let Err(why) = permitted(&accepted, &lists) {
                // Somebody may make a list shorter before the next turn.
                let own = &part.settings.prefix_lists;
                network.prefix_lists.retain(|id, _| !own.contains(id));
                if parts.len() < 2 {
                    return Err(why);
                }
                accepted.pop();
                faults.insert(Arc::clone(&part.service.id.uid), why);
            }
        }
        Ok((lists, faults))
    }
}

/// Whether the lists of the last one of these Services exist, and AWS permits the rules of all of them.
fn permitted(parts: &[Part<'_>], lists: &PrefixLists) -> Result<(), ProviderError> {
    let own = parts.last().map(|part| &part.settings.prefix_lists);
    let missing = own
        .into_iter()
        .flatten()
        .find(|id| !lists.contains_key(*id));
    if let Some(missing) = missing {
        return Err(ProviderError::transient(format!(
            "annotation {PREFIX}security-group-prefix-lists: the prefix list {missing} does not exist in this region"
        )));
    }
    match desired::rules(parts, lists, parts.iter().any(desired::wants_ipv6)) {
        Ok(_) => Ok(()),
        Err(refusal) if own.is_none_or(Vec::is_empty) => Err(refusal.into()),
        Err(refusal) => Err(mendable(refusal)),
    }
}
