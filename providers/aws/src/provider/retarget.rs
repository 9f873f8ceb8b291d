//! The nodes that load balancers send to.
//!
//! A wave changes the targets of every target group. While it runs, the tag [`SETTLED`](super::targets::SETTLED) of the
//! backend group is absent; when it has ended, the tag names the set that every target group has.
//! So a process that starts knows without a call whether nodes have changed meanwhile: only then
//! does it ask AWS which targets each group has.
//!
//! The tag is a note for the next process. If EC2 does not take it, the targets are changed all the same,
//! and [`super::follow`] tries again. A class whose Services all have given security groups has no backend
//! group, and so no tag: each start asks.
//!
//! [`super::settled`] reads and writes the tag.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use ballast_provider::{ProviderError, Target};
use futures::StreamExt;
use tokio::time::{Instant, timeout_at};
use tracing::{debug, warn};

use super::execute::{Ended, TOO_MANY_TARGETS, error};
use super::inventory::read_targets;
use super::records::{Behind, Cell, Depth, Record};
use super::{Inner, PATIENCE};
use crate::call::{Call, Ref};
use crate::client::{CallError, Cause, Client, Ids, Manner};
use crate::nodes::Nodes;
use crate::plan;
use crate::rate::Urgency;
use crate::target::{Backends, TargetId};

/// AWS's code for a target that cannot be one.
pub(super) const INVALID_TARGET: &str = "InvalidTarget";
/// How long a wave begins something. A call of the provider ends within 30 s, and the change of a target
/// group takes some of it.
const LONGEST: Duration = Duration::from_secs(15);
/// How long one target group looks for the targets that AWS does not accept.
const SEARCH: Duration = Duration::from_secs(8);
/// A wave that was cut short goes on at once.
const CUT: ProviderError = ProviderError::Throttled {
    retry_after: Duration::ZERO,
};
/// Services whose targets change at once.
const AT_ONCE: usize = 16;

/// What came of one Service in a wave.
enum Fared {
    /// It has its targets, or asks for a turn of its own.
    Done,
    /// The wave goes on here after this time.
    Waits(Instant),
    /// AWS refused or failed. Its own turn tries again and says so.
    Failed(ProviderError),
}

/// What came of a search for targets that AWS accepts.
pub(super) struct Registered {
    /// The calls that succeeded, whatever became of the others.
    pub(super) made: Vec<Call>,
    /// The pods that AWS does not accept.
    pub(super) pods: Vec<SocketAddr>,
    pub(super) ended: Result<(), CallError>,
}

// === impl Inner ===

impl Inner {
    pub(super) async fn retarget(&self, nodes: &BTreeSet<Target>) -> Result<(), ProviderError> {
        let end = Instant::now() + LONGEST;
        let (nodes, before) = self.targets().replace(Nodes::of(nodes));
        let strangers = &nodes.strangers;
        if !strangers.is_empty() && before.is_none_or(|before| before.strangers != *strangers) {
            warn!(nodes = ?strangers, "these nodes have no instance (spec.providerID), so they are no targets");
        }
        if self.adopt_settled_targets(&nodes) || self.records.cells().is_empty() {
            return Ok(());
        }
        let client = self.client().await?;
        let ended = self.wave(client, end).await;
        self.polls.notify_one();
        ended
    }

    /// Changes the targets of every Service. Fails only where it must go on: what AWS refuses one Service
    /// concerns no other, and does not keep the class from its start.
    async fn wave(&self, client: &Client, end: Instant) -> Result<(), ProviderError> {
        if self.targets().may_have_tag() {
            self.unsettle(client).await;
        }
        let cells = self.records.cells().into_iter().map(|(_, cell)| cell);
        // Those on which somebody works come last, so that none of them holds up another one.
        let (free, busy): (Vec<Cell>, Vec<Cell>) = cells.partition(|cell| cell.try_lock().is_ok());
        let change = |cell: Cell| async move { self.retarget_one(client, &cell, end).await };
        let all_of = |cells: Vec<Cell>| {
            let each = cells.into_iter().map(change);
            futures::stream::iter(each).buffer_unordered(AT_ONCE)
        };
        let mut running = all_of(free).chain(all_of(busy));
        let mut failed = (0_usize, None);
        // Those that wait for AWS's limits do so together: all of them have their turn when the last
        // one has.
        let mut waits: Option<Instant> = None;
        while let Some(fared) = running.next().await {
            match fared {
                Fared::Done => {}
                Fared::Waits(until) => waits = waits.max(Some(until)),
                Fared::Failed(why) => failed = (failed.0 + 1, failed.1.or(Some(why))),
            }
        }
        if let (services, Some(why)) = failed {
            warn!(services, error = %why, "cannot change the targets of some Services; they try again by themselves");
        }
        if let Some(until) = waits {
            return Err(ProviderError::Throttled {
                retry_after: until.saturating_duration_since(Instant::now()),
            });
        }
        if let Err(why) = self.settle_first(client).await {
            debug!(error = %why, "cannot write which targets every target group has");
        }
        Ok(())
    }

    /// Begins nothing after `end`: the wave is cut short, and the next one goes on from there.
    async fn retarget_one(&self, client: &Client, cell: &Cell, end: Instant) -> Fared {
        let Ok(mut record) = timeout_at(end, cell.lock()).await else {
            return Fared::Waits(Instant::now());
        };
        if record.retained {
            return Fared::Done;
        }
        let changed = self.targets_until(client, &mut record, end).await;
        let now = Instant::now();
        match changed {
            Ok(changed) => {
                let ipv6 = self.targets().nodes().map(|nodes| nodes.have_ipv6());
                let other = record
                    .ipv6_nodes
                    .zip(ipv6)
                    .is_some_and(|(had, has)| had != has);
                // Its own turn makes other target groups.
                record.behind = if other { Behind::Asks } else { Behind::No };
                if changed {
                    record.health.begin(now);
                }
                Fared::Done
            }
            Err(ProviderError::Throttled { retry_after }) => Fared::Waits(now + retry_after),
            Err(why) => {
                record.behind = Behind::Asks;
                Fared::Failed(why)
            }
        }
    }

    /// Changes the targets of one Service. True if any changed.
    async fn targets_until(
        &self,
        client: &Client,
        record: &mut Record,
        end: Instant,
    ) -> Result<bool, ProviderError> {
        let mut changed = false;
        let groups = record.observed.target_groups.iter();
        let of_nodes =
            groups.filter(|(name, it)| it.backends().are_nodes() && record.follows(name, it));
        let names: Vec<String> = of_nodes.map(|(name, _)| name.clone()).collect();
        for name in names {
            let Some(group) = record.observed.target_groups.get(&name) else {
                continue;
            };
            if Instant::now() >= end {
                return Err(CUT);
            }
            let unknown = !record.targets_known || record.depth == Depth::Doubtful;
            if unknown && !record.groups_known.contains(&name) {
                let manner = Manner::new(Urgency::Traffic, PATIENCE);
                let mut group = group.clone();
                match read_targets(client, &mut group, manner).await {
                    Ok(_) => {}
                    // As for a registration: its next turn reads what there is.
                    Err(why) if why.cause == Cause::NotFound => {
                        record.doubt();
                        return Ok(true);
                    }
                    Err(why) => return Err(error(&why)),
                }
                (record.observed.target_groups).insert(name.clone(), group);
                record.groups_known.insert(name.clone());
            }
            let Some(group) = record.observed.target_groups.get(&name) else {
                continue;
            };
            // Another target group may have found out meanwhile what AWS does not accept.
            let Some(nodes) = self.targets().nodes() else {
                return Ok(changed);
            };
            let Backends::Nodes(selector, reached) = group.backends() else {
                continue;
            };
            let wanted = nodes.selected(&selector, reached);
            let calls = plan::retarget(group, &wanted);
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

    /// Registers what AWS accepts of these targets, after it has `refused` all of them: it refuses a call
    /// if it refuses one of them, and does not say which. One that it refuses alone is left out, so that it
    /// holds up nothing. A search that takes long goes on in the next turn: what was refused until then is known.
    pub(super) async fn register(
        &self,
        client: &Client,
        target_group: &Ref,
        targets: &[TargetId],
        refused: CallError,
        ids: &Ids,
    ) -> Registered {
        let end = Instant::now() + SEARCH;
        let mut made = Vec::new();
        let mut pods = Vec::new();
        // What another target group has found out need not be found out again.
        let nodes = self.targets().nodes().unwrap_or_default();
        let left = targets.iter().filter(|one| !nodes.is_refused(&one.id()));
        let left: Vec<TargetId> = left.cloned().collect();
        let mut refused = (left.len() == targets.len()).then_some(refused);
        let mut rest = vec![left];
        let mut found = false;
        while let Some(some) = rest.pop() {
            if some.is_empty() {
                continue;
            }
            let call = registration(target_group, &some);
            let answer = match refused.take() {
                Some(why) => Err(why),
                None => client.call(&call, ids, call.urgency(), PATIENCE).await,
            };
            let why = match answer {
                Ok(_) => {
                    made.push(call);
                    continue;
                }
                Err(why) if why.code != INVALID_TARGET => {
                    return Registered {
                        made,
                        pods,
                        ended: Err(why),
                    };
                }
                Err(why) => why,
            };
            match &some[..] {
                [alone] => {
                    warn!(target = %alone, error = %why, "AWS does not accept this target");
                    match alone {
                        TargetId::Instance(id) | TargetId::InstanceAt(id, _) => {
                            self.refuse(client, id).await;
                        }
                        TargetId::Address(address) if nodes.has_address(address.ip()) => {
                            self.refuse(client, &alone.id()).await;
                        }
                        TargetId::Address(address) => pods.push(*address),
                    }
                    found = true;
                }
                several => {
                    let (one, other) = several.split_at(several.len() / 2);
                    rest.extend([one.to_vec(), other.to_vec()]);
                }
            }
            // Each search finds one, so that the last one ends.
            if found && !rest.is_empty() && Instant::now() >= end {
                let retry_after = Duration::ZERO;
                let cause = Cause::Throttled { retry_after };
                return Registered {
                    made,
                    pods,
                    ended: Err(CallError { cause, ..why }),
                };
            }
        }
        Registered {
            made,
            pods,
            ended: Ok(()),
        }
    }

    /// Registers as many of these targets as AWS has room for, after it has `refused` all of them together.
    pub(super) async fn fill(
        &self,
        client: &Client,
        target_group: &Ref,
        targets: &[TargetId],
        refused: CallError,
        ids: &Ids,
    ) -> Registered {
        let end = Instant::now() + SEARCH;
        let (mut made, mut refused) = (Vec::new(), Some(refused));
        let mut rest = vec![targets.to_vec()];
        let ended = loop {
            let Some(some) = rest.pop() else {
                break Ok(());
            };
            let call = registration(target_group, &some);
            let answer = match refused.take() {
                Some(why) => Err(why),
                None => client.call(&call, ids, call.urgency(), PATIENCE).await,
            };
            match answer {
                Ok(_) => made.push(call),
                Err(why) if why.code != TOO_MANY_TARGETS => break Err(why),
                Err(why) if some.len() < 2 || Instant::now() >= end => break Err(why),
                Err(_) => {
                    let (one, other) = some.split_at(some.len() / 2);
                    rest.extend([other.to_vec(), one.to_vec()]);
                }
            }
        };
        Registered {
            made,
            pods: Vec::new(),
            ended,
        }
    }

    /// AWS does not accept this instance. Groups that were made before may have it.
    async fn refuse(&self, client: &Client, instance: &str) {
        if self.targets().refuse(instance) {
            self.unsettle(client).await;
        }
    }
}

fn registration(target_group: &Ref, targets: &[TargetId]) -> Call {
    Call::RegisterTargets {
        target_group: target_group.clone(),
        targets: targets.to_vec(),
    }
}
