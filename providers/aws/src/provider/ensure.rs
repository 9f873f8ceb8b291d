//! Brings the load balancer of one Service to what it asks for.
//!
//! In most turns nothing differs, and no call is made. Otherwise it reads what is not known, plans
//! and executes; if AWS has something else than was known, once more from the start.

use std::collections::BTreeSet;
use std::time::Duration;

use ballast_provider::{Key, LoadBalancer, Member, Observed, ProviderError};
use tokio::time::Instant;
use tracing::debug;

use super::Inner;
use super::execute::{Cleaning, Ended, error, may_return_another};
use super::health::Needs;
use super::records::{Behind, Depth, Extent, Record};
use super::status::{self, Words};
use crate::call::Call;
use crate::client::Client;
use crate::desired::{Desired, Outcome};
use crate::plan::{self, Plan, Situation};
use crate::rate::Urgency;
use crate::requests;
use crate::settings::Settings;

/// Plans in one turn. What is there differs from what was known only after something went wrong.
const ROUNDS: usize = 4;
/// The time between two tries to make a load balancer that AWS could not make.
pub(super) const REMAKE: Duration = Duration::from_mins(5);

/// What came of one plan.
enum Step {
    /// Nothing differs any more.
    Settled(Words),
    /// The load balancer exists now, and has a name to publish; more calls follow.
    Halfway(Words),
    /// What is there must be read again.
    Again,
}

// === impl Inner ===

impl Inner {
    pub(super) async fn ensure(&self, member: &Member) -> Result<Observed, ProviderError> {
        let service = &member.load_balancer;
        let cell = self.records.of(&service.id.uid);
        let mut record = cell.lock().await;
        let ended = self.bring(member, &mut record).await;
        let empty = record.is_empty();
        drop(record);
        if empty {
            self.records.forget(&service.id.uid);
        } else if ended
            .as_ref()
            .is_ok_and(|observed| !status::is_halfway(observed))
        {
            // The Service has what it needs. The next turn of any Service tries again.
            if let Err(why) = self.settle_first(self.client().await?).await {
                debug!(error = %why, "cannot write which targets every target group has");
            }
        }
        ended
    }

    async fn bring(&self, member: &Member, record: &mut Record) -> Result<Observed, ProviderError> {
        let service = &member.load_balancer;
        requests::check(member)?;
        record.id = Some(service.id.clone());
        let parsed = Settings::of(&service.settings, self.class.allowed.as_ref())?;
        let settings = parsed.settings.over(&self.class.settings);
        let client = self.client().await?;
        let scheme = settings.scheme.unwrap_or_default();
        let name = crate::desired::name(&self.mark, &Key::alone(&service.id), scheme);
        record.want(name, Needs::of(service.traffic_policy));
        record.contradiction = None;
        for _ in 0..ROUNDS {
            if record.depth == Depth::Doubtful {
                self.read(client, &service.id, record, Urgency::Service)
                    .await?;
            }
            if record.retained && self.take_back(client, record).await? == Ended::Stale {
                continue;
            }
            match self.step(client, service, &settings, record).await? {
                Step::Again => {}
                // The same words as at the end, so that they cost no write of their own.
                Step::Halfway(words) => {
                    let words = self.completed(words, member, parsed.remarks, record);
                    let (present, publish) = (record.present(), self.class.publish);
                    return Ok(status::halfway(service, present, publish, words));
                }
                Step::Settled(words) => {
                    let words = self.completed(words, member, parsed.remarks, record);
                    let present = record.present();
                    let publish = self.class.publish;
                    return Ok(status::observed(service, present, publish, words));
                }
            }
        }
        Err(record.contradiction.take().map_or_else(
            || {
                ProviderError::transient(
                    "AWS's answers contradict each other; Ballast asks again soon",
                )
            },
            |why| error(&why),
        ))
    }

    /// With what is said whatever a plan did.
    fn completed(
        &self,
        mut words: Words,
        member: &Member,
        of_settings: Vec<String>,
        record: &Record,
    ) -> Words {
        words.remarks.extend(requests::remarks(member));
        words.remarks.extend(of_settings);
        words.remarks.extend(self.remarks_on_nodes());
        let now = Instant::now();
        if let Some(left) = &record.cleanup {
            words.remarks.extend(left.refused.iter().cloned());
        }
        if !record.is_replaced(now) {
            words.remarks.extend(remarks_on_former(record));
        }
        words.stand_in = record.stand_in(now).map(|one| one.hostname.clone());
        words.settles = record.health.settles(now);
        // It is said together with the end of the wait.
        let present = record.present().filter(|_| !words.settles);
        words.health = present.and_then(|one| record.health.condition(&one.arn, record.needs()));
        words
    }

    async fn step(
        &self,
        client: &Client,
        service: &LoadBalancer,
        settings: &Settings,
        record: &mut Record,
    ) -> Result<Step, ProviderError> {
        let key = Key::alone(&service.id);
        let (present, lists) = (record.present(), record.prefix_lists());
        let found = self.find(client, service, settings, present, lists).await?;
        let Outcome {
            desired,
            mut remarks,
        } = Desired::of(&self.mark, &key, service, settings, &found)?;
        if record.depth == Depth::Names {
            if plan::is_finished(&desired, &record.observed)
                && record.targets_known
                && record.behind == Behind::No
            {
                return Ok(Step::Settled(Words {
                    remarks,
                    ..Words::default()
                }));
            }
            self.read(client, &service.id, record, Urgency::Service)
                .await?;
        }
        let nodes = self.targets().nodes();
        let situation = Situation {
            targets: nodes.map(|nodes| nodes.selected(&desired.selector)),
            successor_serves: record.is_replaced(Instant::now()),
            prefix_lists: found.prefix_lists,
        };
        let mut plan = plan::plan(&desired, &situation, &record.observed);
        if must_wait(&plan, record) {
            return Ok(Step::Settled(Words {
                remarks,
                ..Words::default()
            }));
        }
        if situation.targets.as_ref().is_some_and(BTreeSet::is_empty)
            && let Some(labels) = desired.selector.tag()
        {
            remarks.push(format!(
                "target-node-labels: no node has {labels}, so there is no target"
            ));
        }
        remarks.append(&mut plan.remarks);
        let words = Words {
            remarks,
            objection: plan.objection.take(),
            ..Words::default()
        };
        if let Some(at) = first_part(&plan) {
            let rest = plan.calls.split_off(at);
            let ended = self.run(client, record, &plan.calls).await?;
            if !rest.is_empty() && ended == Ended::Done {
                return Ok(Step::Halfway(words));
            }
            return Ok(Step::Again);
        }
        if let Some(at) = unread_part(&plan).filter(|_| record.extent < Extent::All) {
            plan.calls.truncate(at);
            self.run(client, record, &plan.calls).await?;
            return Ok(Step::Again);
        }
        if self.run(client, record, &plan.calls).await? == Ended::Stale {
            return Ok(Step::Again);
        }
        // Deletions of this plan are for objects that are known; what is left waits.
        let cleaned = self
            .clean_up(client, record, &plan.cleanup, Cleaning::OfLiving)
            .await;
        if !plan.calls.is_empty() || cleaned.left.is_some() {
            self.polls.notify_one();
        }
        let now = Instant::now();
        // After a restart nobody else has begun.
        let replaces = record.former().next().is_some() && !record.is_replaced(now);
        if replaces && record.health.due().is_none() {
            record.health.begin(now);
            self.polls.notify_one();
        }
        record.behind = Behind::No;
        Ok(Step::Settled(words))
    }

    async fn run(
        &self,
        client: &Client,
        record: &mut Record,
        calls: &[Call],
    ) -> Result<Ended, ProviderError> {
        if calls.is_empty() {
            return Ok(Ended::Done);
        }
        let creates = |call: &Call| {
            matches!(
                call,
                Call::CreateSecurityGroup { .. } | Call::CreateTargetGroup { .. }
            )
        };
        let vpc = if calls.iter().any(creates) {
            self.vpc(client).await?
        } else {
            String::new()
        };
        record.health.begin(Instant::now());
        if calls
            .iter()
            .any(|call| matches!(call, Call::DeleteLoadBalancer { .. }))
        {
            record.remade = Some(Instant::now());
        }
        match self.execute(client, record, calls, &vpc).await {
            Ended::Failed(why) => Err(error(&why)),
            ended => Ok(ended),
        }
    }
}

/// A load balancer that AWS could not make is made again only some minutes later.
fn must_wait(plan: &Plan, record: &Record) -> bool {
    let remakes = |call: &Call| matches!(call, Call::DeleteLoadBalancer { .. });
    let since = record.remade.map(|at| at.elapsed());
    plan.calls.iter().any(remakes) && since.is_some_and(|since| since < REMAKE)
}

/// What its owner should know of load balancers that another one replaces.
fn remarks_on_former(record: &Record) -> impl Iterator<Item = String> {
    record.former().map(|(name, one)| {
        format!(
            "the former load balancer {name} ({}) stays until the new one has had a healthy target for 3 minutes, and for a day at most",
            one.hostname
        )
    })
}

/// Where a plan is cut in two, so that the name of a new load balancer is published before the
/// rest is made.
fn first_part(plan: &Plan) -> Option<usize> {
    let creates = |call: &Call| matches!(call, Call::CreateLoadBalancer { .. });
    plan.calls.iter().position(creates).map(|at| at + 1)
}

/// Where a plan is cut if AWS may return what a former process has made: a target group is read before a listener
/// sends to it, and a listener before everything counts as applied.
fn unread_part(plan: &Plan) -> Option<usize> {
    let is_listener = |call: &Call| matches!(call, Call::CreateListener { .. });
    let last = |which: &dyn Fn(&Call) -> bool| plan.calls.iter().rposition(which);
    let behind = last(&|call| may_return_another(call) && !is_listener(call));
    behind.or_else(|| last(&is_listener)).map(|at| at + 1)
}
