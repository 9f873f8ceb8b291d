//! The tag [`SETTLED`]: which targets every target group of the class has.
//!
//! [`super::retarget`] removes it before a wave and writes it after one. [`super::targets`] knows when it may be
//! written, believed and not believed any more.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ballast_provider::ProviderError;
use tokio::time::timeout;
use tracing::warn;

use super::execute::error;
use super::targets::{Epoch, SETTLED, Written};
use super::{Inner, PATIENCE};
use crate::client::{Cause, Client, Manner};
use crate::nodes::{Nodes, Selector};
use crate::rate::Urgency;
use crate::target::Backends;

/// How long a wave waits for somebody who writes the tag.
const WRITING: Duration = Duration::from_secs(2);

// === impl Inner ===

impl Inner {
    /// Whether the tag says that every target group has these targets. Then it is so noted. While somebody
    /// works on a Service its selectors are not known, so the tag is not believed: nobody waits here.
    pub(super) fn adopt_settled_targets(&self, nodes: &Nodes) -> bool {
        let Some(settled) = self.targets().settled().cloned() else {
            return false;
        };
        let cells = self.records.cells();
        let mut records = Vec::with_capacity(cells.len());
        for (_, cell) in &cells {
            let Ok(record) = cell.try_lock() else {
                return false;
            };
            if record.targets_known && !record.has_targets(nodes) {
                return false;
            }
            records.push(record);
        }
        let selectors = records.iter().flat_map(|one| one.selectors()).collect();
        if nodes.name(&selectors) != settled {
            return false;
        }
        for record in &mut records {
            // Waves leave out what is kept, so the tag says nothing of it.
            if !record.targets_known && !record.retained {
                let groups = record.observed.target_groups.values_mut();
                for group in groups.filter(|it| it.bound.is_none()) {
                    if let Backends::Nodes(selector, reached) = group.backends() {
                        group.targets = nodes.selected(&selector, reached);
                    }
                }
                record.targets_known = true;
            }
        }
        self.targets().believe(selectors);
        true
    }

    /// Before a wave: if it is interrupted and the nodes are then as before, the tag must not say
    /// that every target group has them. False if it may still be there.
    pub(super) async fn unsettle(&self, client: &Client) -> bool {
        self.targets().unsettle();
        // Targets do not wait for EC2. The tag is wrong only for a process that starts before the end of
        // the wave, and finds the former nodes.
        let Ok(_tagging) = timeout(WRITING, self.tagging.lock()).await else {
            warn!(
                "the tag that names the targets of all target groups stays: somebody writes it, and EC2 is slow"
            );
            return false;
        };
        self.remove_tag(client).await
    }

    /// For whoever holds the lock of the tag. False if it may still be there.
    async fn remove_tag(&self, client: &Client) -> bool {
        let (backend, exists) = {
            let network = self.network();
            (network.backend.last_id(), network.backend.may_exist())
        };
        if let Some(backend) = backend {
            let manner = Manner::new(Urgency::Traffic, PATIENCE);
            let keys = [SETTLED.to_owned()];
            let removed = client.delete_tags(&[backend], &keys, manner).await;
            if let Err(why) = removed
                && why.cause != Cause::NotFound
            {
                warn!(error = %why, "cannot remove the tag that names the targets of all target groups");
                return false;
            }
        } else if exists {
            return false;
        }
        self.targets().removed();
        true
    }

    /// Instances that AWS did not accept may run now, so that Services try them in their next turn. The tag
    /// goes first: it names the set without them. True if there are any, and the tag is gone.
    pub(super) async fn forgive(&self, client: &Client) -> bool {
        if !self.targets().has_refused() {
            return false;
        }
        let Ok(_tagging) = timeout(WRITING, self.tagging.lock()).await else {
            return false;
        };
        self.targets().unsettle();
        if !self.remove_tag(client).await {
            return false;
        }
        self.targets().forgive();
        true
    }

    /// Writes the tag for what was true in this epoch. If that ends meanwhile, nobody believes the tag, and
    /// the next wave removes it.
    async fn settle(
        &self,
        client: &Client,
        nodes: &Nodes,
        selectors: BTreeSet<Selector>,
        epoch: Epoch,
    ) -> Result<(), ProviderError> {
        // Whoever writes it now is no wave, and the poller tries again.
        let Ok(_tagging) = self.tagging.try_lock() else {
            return Ok(());
        };
        let Some(backend) = self.network().backend.id() else {
            return Ok(());
        };
        let Some(writing) = self.targets().begin(epoch) else {
            return Ok(());
        };
        let name = nodes.name(&selectors);
        let tags = BTreeMap::from([(SETTLED.to_owned(), name.clone())]);
        let manner = Manner::new(Urgency::Background, Duration::from_secs(2));
        let answer = client.create_tags(&[backend], &tags, manner).await;
        let written = match &answer {
            Ok(()) => Written::Names(name, selectors),
            Err(why) if why.cause.uncertain() => Written::Unknown,
            Err(_) => Written::Refused,
        };
        self.targets().end(writing, written);
        answer.map_err(|why| error(&why))
    }

    /// Writes the tag if nobody could before.
    pub(super) async fn settle_again(&self, client: &Client) -> Result<(), ProviderError> {
        if self.targets().settled().is_some() || self.network().backend.id().is_none() {
            return Ok(());
        }
        self.settle_first(client).await
    }

    /// Writes the tag if every target group has its targets: after a wave, and when a turn has made the
    /// first load balancer, or one that selects other nodes than all before.
    pub(super) async fn settle_first(&self, client: &Client) -> Result<(), ProviderError> {
        let targets = self.targets().clone();
        let Some(nodes) = targets.nodes() else {
            return Ok(());
        };
        let cells = self.records.cells();
        let mut records = Vec::with_capacity(cells.len());
        for (_, cell) in &cells {
            // Whoever holds it comes here at its end.
            let Ok(record) = cell.try_lock() else {
                return Ok(());
            };
            records.push(record);
        }
        let selectors = records.iter().flat_map(|one| one.selectors()).collect();
        if targets.is_settled_for(&selectors) || !records.iter().all(|one| one.has_targets(&nodes))
        {
            return Ok(());
        }
        drop(records);
        self.settle(client, &nodes, selectors, targets.epoch())
            .await
    }
}
