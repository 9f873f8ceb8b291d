//! The nodes that load balancers send to.
//!
//! A wave changes the targets of every target group. While it runs, the tag [`SETTLED`] of the
//! backend group is absent; when it has ended, the tag names the set that every target group has.
//! So a process that starts knows without a call whether nodes have changed meanwhile: only then
//! does it ask AWS which targets each group has.
//!
//! The tag is a note for the next process. If EC2 does not take it, the targets are changed all the same,
//! and [`super::follow`] tries again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ballast_provider::{ProviderError, Target};
use futures::StreamExt;
use tokio::time::{Instant, timeout_at};
use tracing::{debug, warn};

use super::execute::{Ended, error};
use super::inventory::registered;
use super::records::{Cell, Depth, Record};
use super::{Inner, PATIENCE, Targets};
use crate::call::{Call, Ref};
use crate::client::{CallError, Client, Ids, Manner};
use crate::nodes::{Nodes, Selector};
use crate::plan;
use crate::rate::Urgency;

/// The tag of the backend group that names the targets which every target group has.
pub(super) const SETTLED: &str = "ballast.dev/targets";
/// AWS's code for a target that cannot be one.
pub(super) const INVALID_TARGET: &str = "InvalidTarget";
/// How long a wave begins something. A call of the provider ends within 30 s, and the change of a target
/// group takes some of it.
const LONGEST: Duration = Duration::from_secs(15);
/// A wave that was cut short goes on at once.
const CUT: ProviderError = ProviderError::Throttled {
    retry_after: Duration::ZERO,
};
/// Services whose targets change at once.
const AT_ONCE: usize = 16;

// === impl Inner ===

impl Inner {
    pub(super) async fn retarget(&self, nodes: &BTreeSet<Target>) -> Result<(), ProviderError> {
        let nodes = Arc::new(Nodes::of(nodes));
        let before = self.targets().nodes.replace(Arc::clone(&nodes));
        let strangers = &nodes.strangers;
        if !strangers.is_empty() && before.is_none_or(|before| before.strangers != *strangers) {
            warn!(nodes = ?strangers, "these nodes have no instance (spec.providerID), so they are no targets");
        }
        let selectors = self.selectors().await;
        let name = nodes.name(&selectors);
        let (settled, marked) = {
            let mut targets = self.targets();
            targets.selectors = selectors;
            let marked = targets.settled.is_some() || targets.outdated;
            (targets.settled.clone(), marked)
        };
        if settled.as_deref() == Some(name.as_str()) {
            self.have_targets(&nodes).await;
            return Ok(());
        }
        if self.records.cells().is_empty() {
            return Ok(());
        }
        let client = self.client().await?;
        self.wave(client, marked).await?;
        self.polls.notify_one();
        Ok(())
    }

    /// What the Services of the class say of their nodes.
    async fn selectors(&self) -> BTreeSet<Selector> {
        let mut all = BTreeSet::new();
        for (_, cell) in self.records.cells() {
            all.extend(cell.lock().await.selectors());
        }
        all
    }

    /// The tag says that every target group has all targets.
    async fn have_targets(&self, nodes: &Nodes) {
        for (_, cell) in self.records.cells() {
            let mut record = cell.lock().await;
            if !record.targets_known {
                for group in record.observed.target_groups.values_mut() {
                    group.targets = nodes.selected(&Selector::of(&group.tags));
                }
                record.targets_known = true;
            }
        }
    }

    /// Changes the targets of every Service.
    async fn wave(&self, client: &Client, marked: bool) -> Result<(), ProviderError> {
        let end = Instant::now() + LONGEST;
        if marked {
            self.unsettle(client).await;
        }
        let cells = self.records.cells();
        let each = cells
            .into_iter()
            .map(|(_, cell)| async move { self.retarget_one(client, &cell, end).await });
        let mut running = futures::stream::iter(each).buffer_unordered(AT_ONCE);
        let mut failed: Option<(ProviderError, Instant)> = None;
        while let Some(result) = running.next().await {
            // One Service that AWS refuses holds up no other.
            if let Err(why) = result {
                debug!(error = %why, "cannot change the targets of a Service");
                let now = Instant::now();
                let why = match failed {
                    Some((before, at)) => last(passed(before, at, now), why),
                    None => why,
                };
                failed = Some((why, now));
            }
        }
        if let Some((why, at)) = failed {
            return Err(passed(why, at, Instant::now()));
        }
        let Targets {
            nodes, selectors, ..
        } = self.targets().clone();
        let nodes = nodes.unwrap_or_default();
        if let Err(why) = self.settle(client, &nodes.name(&selectors)).await {
            debug!(error = %why, "cannot write which targets every target group has");
        }
        Ok(())
    }

    /// Begins nothing after `end`: the wave is cut short, and the next one goes on from there.
    async fn retarget_one(
        &self,
        client: &Client,
        cell: &Cell,
        end: Instant,
    ) -> Result<(), ProviderError> {
        let Ok(mut record) = timeout_at(end, cell.lock()).await else {
            return Err(CUT);
        };
        if record.retained {
            return Ok(());
        }
        if Instant::now() >= end {
            return Err(CUT);
        }
        let changed = self.targets_until(client, &mut record, end).await?;
        if changed {
            record.health.begin(Instant::now());
        }
        Ok(())
    }

    /// Changes the targets of one Service. True if any changed.
    async fn targets_until(
        &self,
        client: &Client,
        record: &mut Record,
        end: Instant,
    ) -> Result<bool, ProviderError> {
        let Some(nodes) = self.targets().nodes.clone() else {
            return Ok(false);
        };
        let mut changed = false;
        let names: Vec<String> = record.observed.target_groups.keys().cloned().collect();
        for name in names {
            let Some(group) = record.observed.target_groups.get(&name) else {
                continue;
            };
            if Instant::now() >= end {
                return Err(CUT);
            }
            let arn = group.arn.clone();
            let unknown = !record.targets_known || record.depth == Depth::Doubtful;
            if unknown && !record.groups_known.contains(&name) {
                let manner = Manner::new(Urgency::Traffic, PATIENCE);
                let health = client.target_health(&arn, manner).await;
                let present = registered(&health.map_err(|why| error(&why))?);
                if let Some(group) = record.observed.target_groups.get_mut(&name) {
                    group.targets = present;
                }
                record.groups_known.insert(name.clone());
            }
            let Some(group) = record.observed.target_groups.get(&name) else {
                continue;
            };
            let wanted = nodes.selected(&Selector::of(&group.tags));
            let calls = plan::retarget(&Ref::Known(arn), &wanted, &group.targets);
            changed |= !calls.is_empty();
            match self.execute(client, record, &calls, "").await {
                Ended::Done => {}
                // It is gone: the next turn of its Service makes another one.
                Ended::Stale => return Ok(true),
                Ended::Failed(why) => return Err(error(&why)),
            }
        }
        record.targets_known = true;
        record.groups_known.clear();
        Ok(changed)
    }

    /// Registers what AWS accepts of these targets: it refuses a call if it refuses one of them, and
    /// does not say which. One that it refuses alone is left out, so that it holds up nothing.
    pub(super) async fn register(
        &self,
        client: &Client,
        target_group: &Ref,
        targets: &[String],
        ids: &Ids,
    ) -> Result<Vec<Call>, CallError> {
        let mut made = Vec::new();
        let mut rest = vec![targets.to_vec()];
        while let Some(some) = rest.pop() {
            let call = Call::RegisterTargets {
                target_group: target_group.clone(),
                targets: some.clone(),
            };
            match client.call(&call, ids, call.urgency(), PATIENCE).await {
                Ok(_) => made.push(call),
                Err(why) if why.code != INVALID_TARGET => return Err(why),
                Err(why) => match &some[..] {
                    [alone] => {
                        warn!(instance = alone, error = %why, "AWS does not accept this instance as a target");
                        if let Some(nodes) = &mut self.targets().nodes {
                            Arc::make_mut(nodes).refuse(alone);
                        }
                        // Groups that were made before may have it.
                        if self.targets().settled.is_some() {
                            self.unsettle(client).await;
                        }
                    }
                    several => {
                        let (one, other) = several.split_at(several.len() / 2);
                        rest.extend([one.to_vec(), other.to_vec()]);
                    }
                },
            }
        }
        Ok(made)
    }

    /// Before a wave: if it is interrupted and the nodes are then as before, the tag must not say
    /// that every target group has them.
    async fn unsettle(&self, client: &Client) {
        self.targets().outdated = true;
        self.targets().settled = None;
        let backend = self.network().backend.id();
        if let Some(backend) = backend {
            let manner = Manner::new(Urgency::Traffic, PATIENCE);
            let keys = [SETTLED.to_owned()];
            let removed = client.delete_tags(&[backend], &keys, manner).await;
            if let Err(why) = removed {
                // Targets do not wait for it. It is wrong only for a process that starts before the end
                // of the wave, and finds the former nodes.
                warn!(error = %why, "cannot remove the tag that names the targets of all target groups");
                return;
            }
        }
        self.targets().outdated = false;
    }

    async fn settle(&self, client: &Client, name: &str) -> Result<(), ProviderError> {
        let Some(backend) = self.network().backend.id() else {
            return Ok(());
        };
        let tags = BTreeMap::from([(SETTLED.to_owned(), name.to_owned())]);
        let manner = Manner::new(Urgency::Background, Duration::from_secs(2));
        let written = client.create_tags(&[backend], &tags, manner).await;
        written.map_err(|why| error(&why))?;
        let mut targets = self.targets();
        targets.settled = Some(name.to_owned());
        targets.outdated = false;
        Ok(())
    }

    /// Writes the tag if nobody could before.
    pub(super) async fn settle_again(&self, client: &Client) -> Result<(), ProviderError> {
        if self.targets().settled.is_some() || self.network().backend.id().is_none() {
            return Ok(());
        }
        self.settle_first(client).await
    }

    /// Writes the tag when a turn has made the first load balancer, or one that selects other nodes than
    /// all before: every target group has the targets of its registration.
    pub(super) async fn settle_first(&self, client: &Client) -> Result<(), ProviderError> {
        let targets = self.targets().clone();
        let Some(nodes) = targets.nodes else {
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
        if targets.settled.is_some() && targets.selectors == selectors
            || !records.iter().all(|one| one.has_targets(&nodes))
        {
            return Ok(());
        }
        drop(records);
        let name = nodes.name(&selectors);
        self.targets().selectors = selectors;
        self.settle(client, &name).await
    }
}

/// What an error of that time says now: other Services had their turns meanwhile.
fn passed(why: ProviderError, at: Instant, now: Instant) -> ProviderError {
    match why {
        ProviderError::Throttled { retry_after } => ProviderError::Throttled {
            retry_after: retry_after.saturating_sub(now.saturating_duration_since(at)),
        },
        other => other,
    }
}

/// What a wave reports of two failures. Those that wait for AWS's limits do so together: then all
/// of them have their turn when the last one has.
fn last(one: ProviderError, other: ProviderError) -> ProviderError {
    match (&one, &other) {
        (
            ProviderError::Throttled { retry_after: first },
            ProviderError::Throttled {
                retry_after: second,
            },
        ) if first >= second => one,
        (ProviderError::Throttled { .. }, ProviderError::Throttled { .. }) => other,
        (ProviderError::Throttled { .. }, _) => one,
        _ => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wave_that_waits_waits_for_the_last_one() {
        let waits = |seconds| ProviderError::Throttled {
            retry_after: Duration::from_secs(seconds),
        };
        let other = || ProviderError::transient("AWS has failed");
        for (one, two, expected) in [
            (waits(3), waits(7), waits(7)),
            (waits(7), waits(3), waits(7)),
            (waits(3), other(), waits(3)),
            (other(), waits(3), waits(3)),
        ] {
            assert_eq!(last(one, two), expected);
        }
        let now = Instant::now();
        let later = now + Duration::from_secs(4);
        assert_eq!(passed(waits(7), now, later), waits(3));
        assert_eq!(passed(waits(3), now, later), waits(0));
        assert_eq!(passed(other(), now, later), other());
    }
}
