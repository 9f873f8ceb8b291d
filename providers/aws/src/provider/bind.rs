//! Registers the targets of a Service in target groups that others own ([`crate::bind`]). There is no load balancer of
//! Ballast's then.
//!
//! A turn looks at the target groups of the others every 10 minutes: whether they exist, may be used, and have a load
//! balancer, whose name is published. What the notes say is planned and executed as everything else.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ballast_provider::{Balancer, Observed, ProviderError, Reason, Refusal, ServiceId};
use tokio::time::Instant;

use super::Inner;
use super::cleanup::Cleaning;
use super::execute::{Ended, error};
use super::inventory::manner;
use super::network::mendable;
use super::records::{Behind, Depth, Record};
use super::said::{Asked, Said};
use super::status;
use crate::annotations::PREFIX;
use crate::bind::{self, Asking, Permitted, Seen, TARGET_GROUPS};
use crate::client::{CallError, Client};
use crate::desired::{self, TargetGroup};
use crate::observed::Arn;
use crate::plan::{self, Situation};
use crate::pods::Pods;
use crate::rate::Urgency;

/// How long a look at target groups of others counts.
const FRESH: Duration = Duration::from_mins(10);
/// The same while a Service waits for what somebody does there.
const SOON: Duration = Duration::from_mins(1);
/// Plans in one turn.
const ROUNDS: usize = 4;
/// Annotations that are about targets.
const OF_TARGETS: [&str; 3] = ["nlb-target-type", "target-node-labels", "type"];

/// What was seen of the target groups that a Service names.
#[derive(Clone, Debug)]
pub(super) struct Others {
    /// Those that were looked at.
    arns: BTreeSet<Arn>,
    /// When to look again.
    pub(super) until: Instant,
    seen: Seen,
    /// The DNS names of the load balancers that use them.
    hostnames: BTreeSet<String>,
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
            record.keep_notes(one.settings.bound.values());
            self.look_at_others(client, one, record).await?;
            let permitted = self.permitted(client, one, record).await?;
            record.members = BTreeSet::from([one.id().clone()]);
            let own = (&self.mark, &record.key);
            // Whoever has taken back the permission gets rid of the targets.
            let notes = desired::notes(own, &one.part(), &permitted.families)?;
            record.notes = notes.keys().cloned().collect();
            let brought = self.bring_notes(client, balancer, record, &notes).await;
            self.note(record);
            if brought? == Ended::Stale {
                record.others = None;
                continue;
            }
            // A note may be what a former process has made, with targets that nobody knows yet.
            if record.depth != Depth::Full {
                continue;
            }
            if let Some(why) = permitted.refused {
                return Err(mendable(why));
            }
            record.behind = Behind::No;
            record.left = false;
            let said = Said {
                of_each: vec![without_effect(one)],
                ..Said::default()
            };
            let words = self.words(&said, 0, one, record);
            let service = &one.member.load_balancer;
            let names = record.others.as_ref().map(|it| it.hostnames.clone());
            let names = names.unwrap_or_default().into_iter();
            let seen = status::bound(service, names, permitted.unused.as_deref(), words);
            return Ok(vec![(one.id().clone(), seen)]);
        }
        Err(ProviderError::transient(
            "AWS's answers contradict each other; Ballast asks again soon",
        ))
    }

    /// Brings the notes, and what they are about, to this.
    async fn bring_notes(
        &self,
        client: &Client,
        balancer: &Balancer,
        record: &mut Record,
        notes: &BTreeMap<String, TargetGroup>,
    ) -> Result<Ended, ProviderError> {
        let pods = Pods::of(&balancer.members);
        record.refused.keep(&pods, Instant::now());
        let situation = Situation {
            nodes: self.targets().nodes(),
            pods: pods.without(&record.refused.addresses()),
            successor_serves: true,
            prefix_lists: desired::PrefixLists::new(),
            reservation_waits: false,
        };
        let (mut called, mut failed) = (false, None);
        for (name, note) in notes {
            // What AWS refuses one target group holds up no other.
            let one = BTreeMap::from([(name.clone(), note.clone())]);
            let calls = plan::bind(&one, &situation, &record.observed).calls;
            called |= !calls.is_empty();
            match self.run(client, record, &calls).await {
                Ok(Ended::Stale) => return Ok(Ended::Stale),
                Ok(Ended::Done | Ended::Failed(_)) => {}
                Err(why @ ProviderError::Throttled { .. }) => return Err(why),
                Err(why) if record.depth != Depth::Full => return Err(why),
                Err(why) => {
                    failed.get_or_insert(why);
                }
            }
        }
        if let Some(why) = failed {
            // What leaves may have no successor yet.
            return Err(why);
        }
        let plan = plan::bind(notes, &situation, &record.observed);
        let cleaned = self
            .clean_up(client, record, &plan.cleanup, Cleaning::OfLiving)
            .await;
        if called || cleaned.left.is_some() {
            self.polls.notify_one();
        }
        Ok(Ended::Done)
    }

    /// Whether the Service may use the target groups that it names, as far as they were seen.
    async fn permitted(
        &self,
        client: &Client,
        one: &Asked<'_>,
        record: &mut Record,
    ) -> Result<Permitted, ProviderError> {
        let vpc = self.vpc(client).await?;
        let Some(others) = &mut record.others else {
            return Ok(Permitted::default());
        };
        let asking = Asking {
            id: one.id(),
            target_type: one.settings.target_type.unwrap_or_default(),
            families: &one.member.load_balancer.families,
            ports: &desired::bound_ports(&one.part()),
            vpc: &vpc,
        };
        let permitted = bind::judge(&one.settings.bound, asking, &others.seen);
        if permitted.unused.is_some() || permitted.refused.is_some() {
            others.until = others.until.min(Instant::now() + SOON);
        }
        Ok(permitted)
    }

    /// Reads what AWS says of the target groups that the Service names, unless that was read a moment ago.
    async fn look_at_others(
        &self,
        client: &Client,
        one: &Asked<'_>,
        record: &mut Record,
    ) -> Result<(), ProviderError> {
        let now = Instant::now();
        let arns: BTreeSet<Arn> = one.settings.bound.values().cloned().collect();
        let known = record.others.as_ref();
        if known.is_some_and(|known| known.until > now && known.arns == arns) {
            return Ok(());
        }
        let failed = |why: CallError| error(&why);
        let listed: Vec<Arn> = arns.iter().cloned().collect();
        let groups = client.target_groups_with(&listed, manner(Urgency::Service));
        let groups = groups.await.map_err(failed)?;
        let found: Vec<Arn> = groups.iter().map(|it| it.arn.clone()).collect();
        let tags = client.tags(&found, manner(Urgency::Service));
        let tags = tags.await.map_err(failed)?;
        let used = groups
            .iter()
            .flat_map(|it| it.load_balancers.iter().cloned());
        let used: BTreeSet<Arn> = used.collect();
        let used: Vec<Arn> = used.into_iter().collect();
        let balancers = client.load_balancers(&used, manner(Urgency::Service));
        let balancers = balancers.await.map_err(failed)?;
        record.others = Some(Others {
            arns,
            until: now + FRESH,
            seen: Seen { groups, tags },
            hostnames: balancers.into_iter().map(|it| it.hostname).collect(),
        });
        Ok(())
    }
}

/// Settings of a load balancer, which the Service does not get.
fn without_effect(one: &Asked<'_>) -> Vec<String> {
    let keys = one.member.load_balancer.settings.keys();
    let names = keys.filter_map(|key| key.strip_prefix(PREFIX));
    let names: Vec<&str> = names.filter(|name| !OF_TARGETS.contains(name)).collect();
    let said = (!names.is_empty()).then(|| {
        format!(
            "{} have no effect: the Service has no load balancer of its own ({TARGET_GROUPS})",
            names.join(", ")
        )
    });
    said.into_iter().collect()
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
