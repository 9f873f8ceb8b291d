//! Registers the targets of a Service in target groups that others own ([`crate::bind`]). There is no load balancer of
//! Ballast's then.
//!
//! A turn looks at the target groups of the others every 10 minutes: whether they exist, may be used, and have a load
//! balancer, whose name is published. What the notes say is planned and executed as everything else.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ballast_provider::{Balancer, Family, Observed, ProviderError, Reason, Refusal, ServiceId};
use tokio::time::Instant;

use super::Inner;
use super::cleanup::Cleaning;
use super::execute::{Ended, error};
use super::inventory::manner;
use super::network::mendable;
use super::records::{Behind, Depth, Record};
use super::said::{Asked, Said};
use super::status;
use crate::bind::{self, TARGET_GROUPS};
use crate::client::Client;
use crate::desired;
use crate::observed::Arn;
use crate::plan::{self, Situation};
use crate::pods::Pods;
use crate::rate::Urgency;

/// How long a look at target groups of others counts.
const FRESH: Duration = Duration::from_mins(10);
/// Plans in one turn.
const ROUNDS: usize = 4;

/// What was seen of the target groups that a Service names.
#[derive(Clone, Debug)]
pub(super) struct Others {
    /// Which were looked at, for which Service with which ports.
    asked: BTreeMap<u16, Arn>,
    until: Instant,
    families: BTreeMap<Arn, Family>,
    /// The DNS names of the load balancers that use them.
    hostnames: BTreeSet<String>,
    /// One that no load balancer uses.
    unused: Option<Arn>,
}

// === impl Inner ===

impl Inner {
    /// Brings the targets to what the Service asks for.
    pub(super) async fn bind(
        &self,
        client: &Client,
        balancer: &Balancer,
        one: &Asked<'_>,
        record: &mut Record,
    ) -> Result<Vec<(ServiceId, Observed)>, ProviderError> {
        for _ in 0..ROUNDS {
            // Only a full read says which targets a note has.
            if record.depth != Depth::Full {
                self.read(client, record, Urgency::Service).await?;
            }
            if record.retained && self.take_back(client, record).await? == Ended::Stale {
                continue;
            }
            if !record.observed.load_balancers.is_empty() {
                return Err(has_a_load_balancer().into());
            }
            let looked = self.look_at_others(client, one, record).await;
            let others = looked.inspect_err(|_| record.others = None)?;
            if self
                .bind_once(client, balancer, one, record, &others)
                .await?
                == Ended::Stale
            {
                record.others = None;
                continue;
            }
            // A note may be what a former process has made, with targets that nobody knows yet.
            if record.depth != Depth::Full {
                continue;
            }
            let words = self.words(&Said::default(), 0, one, record);
            let service = &one.member.load_balancer;
            let hostnames = others.hostnames.iter().cloned();
            let seen = status::bound(service, hostnames, others.unused.as_deref(), words);
            return Ok(vec![(one.id().clone(), seen)]);
        }
        Err(ProviderError::transient(
            "AWS's answers contradict each other; Ballast asks again soon",
        ))
    }

    async fn bind_once(
        &self,
        client: &Client,
        balancer: &Balancer,
        one: &Asked<'_>,
        record: &mut Record,
        others: &Others,
    ) -> Result<Ended, ProviderError> {
        let key = record.key.clone();
        let notes = desired::notes((&self.mark, &key), &one.part(), &others.families)?;
        record.members = BTreeSet::from([one.id().clone()]);
        let pods = Pods::of(&balancer.members);
        record.refused.keep(&pods, Instant::now());
        let situation = Situation {
            nodes: self.targets().nodes(),
            pods: pods.without(&record.refused.addresses()),
            successor_serves: true,
            prefix_lists: desired::PrefixLists::new(),
            reservation_waits: false,
        };
        let plan = plan::bind(&notes, &situation, &record.observed);
        if self.run(client, record, &plan.calls).await? == Ended::Stale {
            return Ok(Ended::Stale);
        }
        let cleaned = self
            .clean_up(client, record, &plan.cleanup, Cleaning::OfLiving)
            .await;
        if !plan.calls.is_empty() || cleaned.left.is_some() {
            self.polls.notify_one();
        }
        record.behind = Behind::No;
        record.left = false;
        Ok(Ended::Done)
    }

    /// What AWS says of the target groups that the Service names. Refuses those that it must not use.
    async fn look_at_others(
        &self,
        client: &Client,
        one: &Asked<'_>,
        record: &mut Record,
    ) -> Result<Others, ProviderError> {
        let now = Instant::now();
        let asked = &one.settings.bound;
        if let Some(known) = &record.others
            && known.until > now
            && known.asked == *asked
        {
            return Ok(known.clone());
        }
        let arns: BTreeSet<Arn> = asked.values().cloned().collect();
        let arns: Vec<Arn> = arns.into_iter().collect();
        let groups = client.target_groups_with(&arns, manner(Urgency::Service));
        let groups = groups.await.map_err(|why| error(&why))?;
        let tags = client.tags(&arns, manner(Urgency::Service)).await;
        let mut tags = tags.map_err(|why| error(&why))?;
        let vpc = self.vpc(client).await?;
        let target_type = one.settings.target_type.unwrap_or_default();
        let mut families = BTreeMap::new();
        let mut balancers = BTreeSet::new();
        let mut unused = None;
        for (port, transport) in desired::bound_ports(&one.part()) {
            let Some(arn) = asked.get(&port) else {
                continue;
            };
            let found = groups.iter().find(|it| it.arn == *arn);
            let group = found.ok_or_else(|| mendable(bind::missing(arn)))?;
            let own = tags.entry(arn.clone()).or_default();
            bind::permit(own, one.id(), arn).map_err(mendable)?;
            bind::fits(group, (port, transport), target_type, &vpc).map_err(mendable)?;
            families.insert(arn.clone(), group.family);
            balancers.extend(group.load_balancers.iter().cloned());
            if group.load_balancers.is_empty() {
                unused = Some(arn.clone());
            }
        }
        let balancers: Vec<Arn> = balancers.into_iter().collect();
        let balancers = client.load_balancers(&balancers, manner(Urgency::Service));
        let balancers = balancers.await.map_err(|why| error(&why))?;
        let others = Others {
            asked: asked.clone(),
            until: now + FRESH,
            families,
            hostnames: balancers.into_iter().map(|it| it.hostname).collect(),
            unused,
        };
        record.others = Some(others.clone());
        Ok(others)
    }
}

/// Clients use its name, so it is not deleted for an annotation.
fn has_a_load_balancer() -> Refusal {
    Refusal::new(
        Reason::Invalid,
        format!(
            "annotation {TARGET_GROUPS}: the Service has a load balancer of its own, which its clients may use. Create another Service for the target groups, and delete this one when nobody uses its load balancer"
        ),
    )
}
