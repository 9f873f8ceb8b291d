//! Takes over a load balancer that another controller has made for the same Service.
//!
//! It marks the load balancer and its listeners with Ballast's tags, and nothing else. From then on the load
//! balancer is one of this class under another name, and the next plan brings it to what the Service asks for: it
//! stays, with its name and its listeners, and so do established connections. Target groups and security groups of
//! the former owner are not touched.

use std::collections::BTreeMap;

use ballast_provider::mark::{CLUSTER, RETAINED, SERVICE_UID};
use ballast_provider::{
    Balancer, Key, Kind, Life, Owned, ProviderError, Reason, Refusal, ServiceId, mark,
};
use jiff::Timestamp;
use tracing::info;

use super::Inner;
use super::ensure::Wanted;
use super::everything::life;
use super::execute::{Ended, error};
use super::inventory::manner;
use super::network::mendable;
use super::records::Record;
use super::said::Asked;
use crate::adopt::{self, ADOPT, Adopted};
use crate::call::{Call, Ref};
use crate::client::values::{Filter, Tags};
use crate::client::{CallError, Cause, Client};
use crate::desired::{Desired, Part};
use crate::observed::Arn;
use crate::plan::{self, Plan, Situation};
use crate::pods::Pods;
use crate::rate::Urgency;

/// What gets Ballast's tags when a load balancer is taken over.
struct Adoptable {
    objects: Vec<Arn>,
    /// It was kept when a Service of this cluster was deleted.
    is_of_this_cluster: bool,
}

/// What a Service would have, and how it gets there.
struct Planned {
    desired: Desired,
    plan: Plan,
}

// === impl Inner ===

impl Inner {
    /// Takes over the load balancer that the Service names. `Stale`: it was so, and must be read.
    pub(super) async fn adopt(
        &self,
        client: &Client,
        record: &mut Record,
        adopted: &Adopted,
        balancer: &Balancer,
        id: &ServiceId,
    ) -> Result<Ended, ProviderError> {
        let mut known = record.observed.load_balancers.values();
        if known.any(|one| one.arn == adopted.arn) {
            return Ok(Ended::Done);
        }
        let found = self.adoptable(client, adopted, &record.key, id).await?;
        let name = adopted.name.clone();
        if let Some(adoptable) = found {
            // Whoever cannot serve it must not mark it: it would be deleted with the Service.
            Box::pin(self.prepare(client, record, balancer, adopted, id)).await?;
            // Whoever releases it looks for it by its name, although the call has no answer.
            record.tried.load_balancers.insert(name.clone());
            // arn:…:targetgroup/NAME/ID
            let kept = adoptable
                .objects
                .iter()
                .filter_map(|arn| arn.split_once(":targetgroup/"));
            let kept = kept.filter_map(|(_, rest)| Some(rest.split('/').next()?.to_owned()));
            record.tried.target_groups.extend(kept);
            let call = self.marks(&record.key, id, adoptable);
            match self.execute(client, record, &[call], "").await {
                Ended::Done => {
                    info!(arn = adopted.arn, service = %id, "took over a load balancer");
                }
                Ended::Failed(why) if why.cause == Cause::Denied => {
                    return Err(lacks_right(&why));
                }
                Ended::Failed(why) => return Err(error(&why)),
                Ended::Stale => {}
            }
        }
        record.tried.load_balancers.insert(name);
        record.doubt();
        Ok(Ended::Stale)
    }

    /// Marks the load balancer and its listeners.
    fn marks(&self, key: &Key, id: &ServiceId, adoptable: Adoptable) -> Call {
        let mut tags = self.mark.tags_on(key, id);
        if adoptable.is_of_this_cluster {
            // The controller has no right to write this tag on what has it.
            tags.remove(CLUSTER);
        }
        Call::AddTags {
            of: adoptable.objects.into_iter().map(Ref::Known).collect(),
            tags,
        }
    }

    /// What gets Ballast's tags if the load balancer that the Service names may be taken over: itself, and its
    /// listeners. `None`: it is the Service's already.
    async fn adoptable(
        &self,
        client: &Client,
        adopted: &Adopted,
        key: &Key,
        id: &ServiceId,
    ) -> Result<Option<Adoptable>, ProviderError> {
        let failed = |why| error(&why);
        let manner = manner(Urgency::Service);
        let wrong = |why: &str| mendable(adopt::refused(&why));
        if adopted.region != client.region() {
            return Err(wrong(&format!(
                "it is in the region {}, and the class is in {}",
                adopted.region,
                client.region()
            )));
        }
        let arns = [adopted.arn.clone()];
        let all = client.load_balancers(&arns, manner).await.map_err(failed)?;
        let Some(load_balancer) = all.into_iter().next() else {
            return Err(wrong(
                "it does not exist. Without the annotation the Service gets another one",
            ));
        };
        let listeners = client.listeners(&adopted.arn, manner).await;
        let listeners = listeners.map_err(failed)?;
        if let Some(one) = listeners.iter().find(|one| one.transport.is_none()) {
            return Err(wrong(&format!(
                "its listener on port {} has a protocol that Ballast does not make",
                one.port
            )));
        }
        let listeners = listeners.into_iter().map(|one| one.arn);
        let objects: Vec<Arn> = arns.into_iter().chain(listeners).collect();
        let tags = client.tags(&objects, manner).await.map_err(failed)?;
        let own = tags.get(&adopted.arn).cloned().unwrap_or_default();
        if self.is_of(&own, key, id) {
            return Ok(None);
        }
        if let Some(other) = ballast_provider::Mark::of(&own) {
            if adopt::is_left_for(&own, id, &self.mark, Timestamp::now()) {
                if !own.contains_key(RETAINED) {
                    let object =
                        Owned::new(Kind::LoadBalancer, &adopted.arn, &adopted.name, own.clone());
                    let life = life(client, &object).await.map_err(failed)?;
                    if let Life::Serves(why) | Life::Runs(why) = life {
                        return Err(wrong(&format!(
                            "its cluster {} still uses it: {why}",
                            other.cluster
                        )));
                    }
                }
                let kept = self.kept_with(client, adopted, &own).await;
                return Ok(Some(Adoptable {
                    objects: [objects, kept.map_err(failed)?].concat(),
                    is_of_this_cluster: other.cluster == self.mark.cluster,
                }));
            }
            return Err(wrong(&format!(
                "it belongs to a Service of the class {} of the cluster {} already",
                other.class, other.cluster
            )));
        }
        let vpc = self.vpc(client).await?;
        let mut clusters = self.network().clusters();
        let named = &self.mark.cluster_name;
        clusters.extend(Some(named.clone()).filter(|name| name != adopt::UNNAMED));
        adopt::permit(&own, id, &clusters).map_err(mendable)?;
        if load_balancer.vpc != vpc {
            return Err(wrong(&format!("it is not in the VPC {vpc} of the nodes")));
        }
        Ok(Some(Adoptable {
            objects,
            is_of_this_cluster: false,
        }))
    }

    /// What else was kept with a load balancer: its target groups and its security group. As the new Service's they
    /// are deleted once nothing uses them.
    async fn kept_with(
        &self,
        client: &Client,
        adopted: &Adopted,
        own: &Tags,
    ) -> Result<Vec<Arn>, CallError> {
        let manner = manner(Urgency::Service);
        let uid = own.get(SERVICE_UID).cloned().unwrap_or_default();
        let is_its = |tags: &Tags| {
            tags.get(SERVICE_UID) == Some(&uid)
                && tags.get(CLUSTER) == own.get(CLUSTER)
                && tags.contains_key(RETAINED) == own.contains_key(RETAINED)
        };
        let groups = client.target_groups_behind(&adopted.arn, manner).await?;
        let groups: Vec<Arn> = groups.into_iter().map(|one| one.arn).collect();
        let tags = client.tags(&groups, manner).await?;
        let groups = tags.into_iter().filter(|(_, tags)| is_its(tags));
        let filters = [Filter::tag(SERVICE_UID, [uid.clone()])];
        let security = client.security_groups(&filters, manner).await?;
        let security = security.into_iter().filter(|one| is_its(&one.tags));
        let groups = groups.map(|(arn, _)| arn);
        Ok(groups.chain(security.map(|one| one.id)).collect())
    }

    /// The calls that take over the load balancer that a Service names, and bring it to what the Service asks
    /// for; what is left of them if the Service has it already. Makes none of them, and counts as made what is
    /// missing: only for a provider that does nothing else.
    pub(super) async fn preview_adoption(
        &self,
        balancer: &Balancer,
    ) -> Result<Vec<Call>, ProviderError> {
        let mut asked = self.asked(balancer)?;
        let client = self.client().await?;
        let Some(one) = asked.first_mut() else {
            return Ok(Vec::new());
        };
        let Some(adopted) = one.settings.adopted.clone() else {
            return Err(mendable(adopt::refused(&"the Service names none")));
        };
        let id = one.part().service.id.clone();
        let key = &balancer.key;
        self.restore(&[]).await?;
        let cell = self.records.of(key);
        let mut record = cell.lock().await;
        let unmarked = self.adoptable(client, &adopted, key, &id).await?;
        let name = adopted.name.clone();
        record.tried.load_balancers.insert(name.clone());
        self.read(client, &mut record, Urgency::Service).await?;
        if unmarked.is_some() {
            let marks = self.mark.tags_on(key, &id);
            let there = self.read_as_own(client, key, &adopted, &marks, Urgency::Service);
            let there = there.await?.load_balancers;
            record.observed.load_balancers.extend(there);
        }
        let missing = self.foresee_backend_group(client).await?;
        let Planned { desired, plan } = self
            .planned(client, &mut record, balancer, &mut asked, name)
            .await?;
        let mut calls = Vec::new();
        if let Some(id) = &desired.backend_group {
            calls = self.opening_calls(client, id, missing.as_ref()).await?;
            let waits = self.remarks_on_nodes().into_iter().next();
            if let Some(why) = waits.filter(|_| plan.calls.iter().any(Call::sets_groups)) {
                return Err(keeps_its_groups(&why));
            }
        }
        calls.extend(unmarked.map(|adoptable| self.marks(key, &id, adoptable)));
        let named = |call| match &missing {
            Some(Call::CreateSecurityGroup { name, .. }) => with_made(call, name),
            _ => call,
        };
        calls.extend(plan.calls.into_iter().map(named));
        Ok(calls)
    }

    /// Refuses what a Service cannot do with the load balancer that it names, before anything of it is marked. Makes
    /// the backend group of the class, which the load balancer needs, and lets it in.
    async fn prepare(
        &self,
        client: &Client,
        record: &Record,
        balancer: &Balancer,
        adopted: &Adopted,
        id: &ServiceId,
    ) -> Result<(), ProviderError> {
        let mut asked = self.asked(balancer)?;
        let marks = self.mark.tags_on(&record.key, id);
        let there = self.read_as_own(client, &record.key, adopted, &marks, Urgency::Service);
        let mut scratch = record.clone();
        scratch
            .observed
            .load_balancers
            .extend(there.await?.load_balancers);
        let name = adopted.name.clone();
        let Planned { desired, plan } = self
            .planned(client, &mut scratch, balancer, &mut asked, name)
            .await?;
        if desired.backend_group.is_some() && plan.calls.iter().any(Call::sets_groups) {
            self.nodes_admit(client).await?;
        }
        Ok(())
    }

    /// What would be done with the load balancer of this name if it were the Service's. `record` has it.
    async fn planned(
        &self,
        client: &Client,
        record: &mut Record,
        balancer: &Balancer,
        asked: &mut [Asked<'_>],
        name: String,
    ) -> Result<Planned, ProviderError> {
        let Some(there) = record.observed.load_balancers.get(&name) else {
            return Err(mendable(adopt::refused(&"it is gone")));
        };
        for one in &mut *asked {
            one.settings.scheme = Some(there.scheme);
        }
        record.want(name, BTreeMap::new());
        let parts: Vec<Part<'_>> = asked.iter().map(Asked::part).collect();
        let Wanted {
            desired,
            prefix_lists,
            ..
        } = self.wanted(client, &parts, record).await?;
        if let Some(why) = record.faults.values().next() {
            return Err(why.clone());
        }
        let situation = Situation {
            nodes: self.targets().nodes(),
            pods: Pods::of(&balancer.members),
            successor_serves: false,
            prefix_lists,
            reservation_waits: false,
        };
        let mut plan = plan::plan(&desired, &situation, &record.observed);
        if let Some(objection) = plan.objection.take() {
            return Err(objection.into());
        }
        let mut needed = plan.calls.iter().filter_map(Call::makes);
        if let Some(why) = needed.find_map(|name| record.foreign.get(name)) {
            return Err(why.clone());
        }
        Ok(Planned { desired, plan })
    }

    /// A load balancer that serves already gets other security groups only when the nodes admit them. What is new
    /// can wait for that, and this one cannot.
    pub(super) async fn nodes_admit(&self, client: &Client) -> Result<(), ProviderError> {
        let _opening = self.opening.lock().await;
        let opened = self.open_nodes(client, Urgency::Service).await;
        match (opened, self.remarks_on_nodes().first()) {
            (Err(why @ ProviderError::Throttled { .. }), _) | (Err(why), None) => Err(why),
            (_, Some(why)) => Err(keeps_its_groups(why)),
            (Ok(()), None) => Ok(()),
        }
    }

    /// Whether these are the tags of what this Service has.
    fn is_of(&self, tags: &Tags, key: &Key, id: &ServiceId) -> bool {
        let service = mark::service_of(tags);
        self.mark.owns(tags)
            && mark::key_of(tags).as_ref() == Some(key)
            && service.is_some_and(|one| one.uid == id.uid)
    }
}

/// The nodes do not admit Ballast's load balancers.
fn keeps_its_groups(why: &str) -> ProviderError {
    mendable(Refusal::new(
        Reason::Invalid,
        format!(
            "annotation {ADOPT}: the load balancer keeps its security groups until the nodes admit Ballast's. {why}"
        ),
    ))
}

/// The usual policy has no right to mark what other controllers have made.
fn lacks_right(why: &CallError) -> ProviderError {
    ProviderError::failed(
        Reason::AccessDenied,
        format!(
            "AWS does not permit {why}. `ballast iam-policy --adopt-from-cluster NAME` prints the right to take load balancers over; with --adopt-in-tree also those of cloud-provider-aws"
        ),
    )
}

/// A security group that an earlier call makes has no ID yet.
fn with_made(call: Call, name: &str) -> Call {
    let made = |one: Ref| match one {
        Ref::Known(id) if id == name => Ref::Made(id),
        other => other,
    };
    match call {
        Call::SetSecurityGroups {
            load_balancer,
            security_groups,
            private_link_rules,
        } => Call::SetSecurityGroups {
            load_balancer,
            security_groups: security_groups.into_iter().map(made).collect(),
            private_link_rules,
        },
        other => other,
    }
}
