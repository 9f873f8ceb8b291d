//! Brings a load balancer to what its Services ask for.
//!
//! In most turns nothing differs, and no call is made. Otherwise it reads what is not known, plans
//! and executes; if AWS has something else than was known, once more from the start.

mod choose;

use std::sync::Arc;
use std::time::Duration;

use ballast_provider::mark::KEEP;
use ballast_provider::{
    Balancer, Endpoint, LoadBalancer, Observed, ProviderError, Readiness, Refusal, ServiceId,
};
use tokio::time::{Instant, timeout};
use tracing::debug;

use self::choose::{first_part, must_wait, reachable, unknown_pods, unread_part};
use super::Inner;
use super::cleanup::Cleaning;
use super::execute::{Ended, error};
use super::faults::Owners;
use super::health::Needs;
use super::network::mendable;
use super::records::{Behind, Deletions, Depth, Extent, Record};
use super::said::{Asked, Said, no_target};
use super::status::{self, Words};
use crate::call::Call;
use crate::client::Client;
use crate::desired::{self, Desired, Outcome, Part, PrefixLists};
use crate::observed::ObservedLoadBalancer;
use crate::plan::{self, Situation};
use crate::pods::Pods;
use crate::rate::Urgency;
use crate::requests;
use crate::settings::{Publish, Settings};
use crate::target::TargetType;

/// Plans in one turn. What is there differs from what was known only after something went wrong.
const ROUNDS: usize = 4;
/// How long a turn that has failed changes the pods that are targets.
const AFTER_FAILURE: Duration = Duration::from_secs(5);
/// The time between two tries to make a load balancer that AWS could not make.
pub(super) const REMAKE: Duration = Duration::from_mins(5);

/// What came of one plan.
enum Step {
    /// Nothing differs any more.
    Settled(Said),
    /// The load balancer exists now, and has a name to publish; more calls follow.
    Halfway(Said),
    /// What is there must be read again.
    Again,
}

/// What the Services of a load balancer need.
pub(super) struct Wanted {
    pub(super) desired: Desired,
    /// What each of them should know, in their order.
    remarks: Vec<Vec<String>>,
    pub(super) prefix_lists: PrefixLists,
}

/// Makes a status of what was said.
type Show = fn(&LoadBalancer, Option<&ObservedLoadBalancer>, Publish, Words) -> Observed;

// === impl Inner ===

impl Inner {
    /// What the Services of a load balancer ask for.
    pub(super) fn asked<'a>(&self, balancer: &'a Balancer) -> Result<Vec<Asked<'a>>, Refusal> {
        let class = &self.class;
        let asked = balancer.members.iter().map(|member| {
            requests::check(member)?;
            let own = &member.load_balancer.settings;
            let parsed = Settings::of(own, class.allowed.as_ref())?;
            let mut remarks = requests::remarks(member);
            remarks.extend(parsed.remarks);
            Ok(Asked {
                member,
                settings: parsed.settings.over(&class.settings),
                remarks,
            })
        });
        asked.collect()
    }

    /// What was observed of each Service of the load balancer.
    pub(super) async fn ensure(
        &self,
        balancer: &Balancer,
    ) -> Result<Vec<(ServiceId, Observed)>, ProviderError> {
        let cell = self.records.of(&balancer.key);
        let mut record = cell.lock().await;
        let ended = self.bring(balancer, &mut record).await;
        let empty = record.is_empty();
        drop(record);
        if empty {
            self.records.forget(&balancer.key);
        } else if ended
            .as_ref()
            .is_ok_and(|all| !all.iter().any(|(_, one)| status::is_halfway(one)))
        {
            // The load balancer has what it needs. The next turn of any Service tries again.
            if let Err(why) = self.settle_first(self.client().await?).await {
                debug!(error = %why, "cannot write which targets every target group has");
            }
        }
        ended
    }

    async fn bring(
        &self,
        balancer: &Balancer,
        record: &mut Record,
    ) -> Result<Vec<(ServiceId, Observed)>, ProviderError> {
        let mut asked = self.asked(balancer)?;
        let client = self.client().await?;
        let first = asked
            .first()
            .map_or(&self.class.settings, |one| &one.settings);
        let name = desired::name_of(&self.mark, &balancer.key, first);
        let needs = asked.iter().map(|one| {
            let service = &one.member.load_balancer;
            let needs = match one.settings.target_type.unwrap_or_default() {
                TargetType::Instance => Needs::of(service.traffic_policy),
                TargetType::Ip => Needs::All,
            };
            (Arc::clone(&service.id.uid), needs)
        });
        record.want(name, needs.collect());
        record.deletions = Deletions::of(balancer);
        record.kept = (balancer.kept.iter())
            .map(|id| Arc::clone(&id.uid))
            .collect();
        let mut endpoints = asked.iter().filter_map(|one| one.member.endpoints.as_ref());
        let waits = |one: &Endpoint| one.readiness == Readiness::Gated;
        let gated = endpoints.any(|all| all.iter().any(waits));
        if record.health.waits_for_pods(gated, Instant::now()) {
            self.polls.notify_one();
        }
        record.contradiction = None;
        record.faults.clear();
        let bound = asked.first().filter(|one| !one.settings.bound.is_empty());
        let ended = if let Some(one) = bound {
            self.bind(client, balancer, one, record).await
        } else {
            record.names_no_others();
            self.rounds(client, balancer, &mut asked, record).await
        };
        // Pods come and go, whatever else somebody must mend first.
        if matches!(&ended, Err(why) if !matches!(why, ProviderError::Throttled { .. })) {
            // Whoever is dropped leaves a doubt. What failed must be said in time.
            let follows = self.follow_pods_of(client, record, balancer);
            if timeout(AFTER_FAILURE, follows).await.is_err() {
                debug!(key = %balancer.key, "AWS takes too long to change the pods that are targets");
            }
        }
        ended
    }

    /// Plans and executes until nothing differs any more.
    async fn rounds(
        &self,
        client: &Client,
        balancer: &Balancer,
        asked: &mut [Asked<'_>],
        record: &mut Record,
    ) -> Result<Vec<(ServiceId, Observed)>, ProviderError> {
        for _ in 0..ROUNDS {
            if record.depth == Depth::Doubtful {
                self.read(client, record, Urgency::Service).await?;
            }
            if record.retained && self.take_back(client, record).await? == Ended::Stale {
                continue;
            }
            if let [one] = &mut *asked
                && self.take_over(client, record, balancer, one).await? == Ended::Stale
            {
                continue;
            }
            let (said, show) = match self.step(client, balancer, asked, record).await? {
                Step::Again => continue,
                // The same words as at the end, so that they cost no write of their own.
                Step::Halfway(said) => (said, status::halfway as Show),
                Step::Settled(said) => (said, status::observed as Show),
            };
            let (present, publish) = (record.present(), self.class.publish);
            let all = asked.iter().enumerate().map(|(at, one)| {
                let words = self.words(&said, at, one, record);
                let service = &one.member.load_balancer;
                let mut seen = show(service, present, publish, words);
                if let Some(why) = record.faults.get(&one.id().uid) {
                    seen.state = status::refused(why);
                }
                (one.id().clone(), seen)
            });
            return Ok(all.collect());
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

    /// Takes over the load balancer that the Service names, if it names one and does not have it yet. It keeps its
    /// scheme, which AWS never changes.
    async fn take_over(
        &self,
        client: &Client,
        record: &mut Record,
        balancer: &Balancer,
        one: &mut Asked<'_>,
    ) -> Result<Ended, ProviderError> {
        let Some(adopted) = one.settings.adopted.clone() else {
            return Ok(Ended::Done);
        };
        let id = one.id().clone();
        if self.adopt(client, record, &adopted, balancer, &id).await? == Ended::Stale {
            return Ok(Ended::Stale);
        }
        let Some(there) = record.observed.load_balancers.get(&adopted.name) else {
            return Ok(Ended::Done);
        };
        let asked = one.settings.scheme.replace(there.scheme);
        if asked.is_some_and(|asked| asked != there.scheme) {
            one.remarks.push(format!(
                "the load balancer that was taken over stays {}: AWS never changes the scheme",
                there.scheme.as_str()
            ));
        }
        Ok(Ended::Done)
    }

    async fn step(
        &self,
        client: &Client,
        balancer: &Balancer,
        asked: &[Asked<'_>],
        record: &mut Record,
    ) -> Result<Step, ProviderError> {
        let parts: Vec<Part<'_>> = asked.iter().map(Asked::part).collect();
        let Wanted {
            desired,
            remarks,
            prefix_lists,
        } = self.wanted(client, &parts, record).await?;
        // Whoever is not accepted has no part in it, or keeps one.
        let members = asked.iter().map(Asked::id).chain(&balancer.kept);
        record.members = members.cloned().collect();
        let mut said = Said {
            of_each: remarks,
            ..Said::default()
        };
        let now = Instant::now();
        let pods = Pods::of(asked.iter().map(|one| one.member));
        record.refused.keep(&pods, now);
        let ready = pods.clone();
        let pods = pods.without(&record.refused.addresses());
        let units = desired.capacity;
        record.capacity.want(units);
        if record.depth == Depth::Names {
            let step = self.by_name(client, record, &desired, &parts, &pods, &said);
            if let Some(step) = step.await? {
                return Ok(step);
            }
        }
        let refused = record.capacity.waits(units, record.present(), now);
        let situation = Situation {
            nodes: self.targets().nodes(),
            pods,
            successor_serves: record.is_replaced(now),
            prefix_lists,
            reservation_waits: refused.is_some(),
        };
        let unknown = unknown_pods(&desired, &situation, &record.observed);
        if let (Some((_, why)), [_]) = (unknown.first_key_value(), asked) {
            return Err(why.clone());
        }
        record.faults.extend(unknown);
        let desired = reachable(desired, &situation, record, &parts, &mut said);
        let faults = record.faults.len();
        let mut plan = plan::plan(&desired, &situation, &record.observed);
        (record.capacity).planned(plan.reservation_waits, refused, now);
        let mut needed = plan.calls.iter().filter_map(Call::makes);
        if let Some(why) = needed.find_map(|name| record.foreign.get(name).cloned()) {
            // The next turn reads whether it is still there.
            record.doubt();
            return Err(why);
        }
        let calls = std::mem::take(&mut plan.calls);
        let owners = Owners::of(&calls);
        let stays = |it: &&Call| !owners.is_left_out(it, &record.observed, &record.faults);
        plan.calls = calls.iter().filter(stays).cloned().collect();
        if must_wait(&plan, record) {
            return Ok(Step::Settled(said));
        }
        let adopts = asked.iter().any(|one| one.settings.adopted.is_some());
        if adopts && desired.backend_group.is_some() && plan.calls.iter().any(Call::sets_groups) {
            self.nodes_admit(client).await?;
        }
        for (part, remarks) in parts.iter().zip(&mut said.of_each) {
            remarks.extend(no_target(part, &desired, &situation, &ready));
            remarks.extend(ready.remark(&part.service.id.uid));
        }
        said.of_all = std::mem::take(&mut plan.remarks);
        said.objection = plan.objection.take();
        if let Some(at) = first_part(&plan) {
            let rest = plan.calls.split_off(at);
            let ended = self.run(client, record, &plan.calls).await?;
            if !rest.is_empty() && ended == Ended::Done {
                return Ok(Step::Halfway(said));
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
        if record.faults.len() > faults && desired.divides() {
            // Others may send to what AWS has refused: they do without it.
            return Ok(Step::Again);
        }
        if !record.faults.is_empty() {
            // What replaces them may be missing.
            plan.cleanup.clear();
        }
        // Deletions of this plan are for objects that are known; what is left waits.
        let cleaned = self
            .clean_up(client, record, &plan.cleanup, Cleaning::OfLiving)
            .await;
        if !plan.calls.is_empty() || cleaned.left.is_some() {
            self.polls.notify_one();
        }
        self.wait_for_successor(record);
        let there = record.observed.load_balancers.get(&desired.name);
        record.capacity.settle(units, there);
        record.behind = Behind::No;
        record.left = false;
        Ok(Step::Settled(said))
    }

    /// What the Services of a load balancer need, and what is looked up for that. What only one of them names wrongly
    /// is its fault.
    pub(super) async fn wanted(
        &self,
        client: &Client,
        parts: &[Part<'_>],
        record: &mut Record,
    ) -> Result<Wanted, ProviderError> {
        let (present, lists) = (record.present(), record.prefix_lists());
        let ipv6_nodes = match self.targets().nodes() {
            // Without any node nobody knows.
            Some(nodes) if nodes.ids().next().is_none() => record.has_ipv6_nodes(),
            Some(nodes) => nodes.have_ipv6(),
            // A cluster whose Services have both families has such nodes.
            None => record.observed.target_groups.is_empty() || record.has_ipv6_nodes(),
        };
        let asked = (lists, ipv6_nodes);
        let (found, faults) = self.find(client, parts, present, asked).await?;
        if let Some(why) = desired::missing_ipv6(parts, &found) {
            return Err(mendable(why));
        }
        let depends = parts.iter().any(desired::depends_on_nodes);
        record.ipv6_nodes = depends.then_some(ipv6_nodes);
        let outcome = Desired::of(&self.mark, &record.key, parts, &found)?;
        let Outcome {
            mut desired,
            remarks,
        } = outcome;
        desired.kept.clone_from(&record.kept);
        // Its clients stay until it says again who they are.
        for part in parts {
            if faults.contains_key(&part.service.id.uid) {
                desired.keep_clients(part.service, &record.observed);
            }
        }
        record.faults.extend(faults);
        Ok(Wanted {
            desired,
            remarks,
            prefix_lists: found.prefix_lists,
        })
    }

    /// What a former process has finished costs no call, but for the pods that it has. `None`: everything else is
    /// known now, and must be compared.
    async fn by_name(
        &self,
        client: &Client,
        record: &mut Record,
        desired: &Desired,
        parts: &[Part<'_>],
        pods: &Pods,
        said: &Said,
    ) -> Result<Option<Step>, ProviderError> {
        // Who has lost its targets since is in no listener.
        let situation = Situation {
            nodes: self.targets().nodes(),
            pods: pods.clone(),
            successor_serves: false,
            prefix_lists: PrefixLists::new(),
            reservation_waits: false,
        };
        let mut said = said.clone();
        let now = reachable(desired.clone(), &situation, record, parts, &mut said);
        if plan::is_finished(&now, &record.observed)
            && record.faults.is_empty()
            && record.targets_known
            && record.behind == Behind::No
        {
            record.capacity.settle(desired.capacity, None);
            if self.follow_pods(client, record, pods).await? == Ended::Stale {
                return Ok(Some(Step::Again));
            }
            return Ok(Some(Step::Settled(said)));
        }
        self.read(client, record, Urgency::Service).await?;
        Ok(record.retained.then_some(Step::Again))
    }

    /// After a restart nobody else has begun to ask whether a load balancer can replace another one.
    fn wait_for_successor(&self, record: &mut Record) {
        let now = Instant::now();
        let replaces = record.former().next().is_some() && !record.is_replaced(now);
        if replaces && record.health.due().is_none() {
            record.health.begin(now);
            self.polls.notify_one();
        }
    }

    pub(super) async fn run(
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
            let sorted = self.sort_deletions(client, record, calls, Urgency::Service);
            let sorted = sorted.await.map_err(|why| error(&why))?;
            if !sorted.kept.is_empty() {
                return Err(ProviderError::transient(format!(
                    "AWS could not make the load balancer, and it stays because it has the tag {KEEP}; another one is made when it is gone"
                )));
            }
            if sorted.calls.len() < calls.len() {
                record.doubt();
                return Ok(Ended::Stale);
            }
            record.remade = Some(Instant::now());
        }
        match self.execute(client, record, calls, &vpc).await {
            Ended::Failed(why) => Err(error(&why)),
            ended => Ok(ended),
        }
    }
}
