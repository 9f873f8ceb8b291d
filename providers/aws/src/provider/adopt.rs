//! Takes over a load balancer that another controller has made for the same Service.
//!
//! It marks the load balancer and its listeners with Ballast's tags, and nothing else. From then on the load
//! balancer is one of this class under another name, and the next plan brings it to what the Service asks for: it
//! stays, with its name and its listeners, and so do established connections. Target groups and security groups of
//! the former owner are not touched.

use std::collections::BTreeMap;

use ballast_provider::{Balancer, Key, ProviderError, ServiceId};
use tracing::info;

use super::Inner;
use super::ensure::Asked;
use super::execute::{Ended, error};
use super::inventory::manner;
use super::network::mendable;
use super::records::Record;
use crate::adopt::{self, Adopted};
use crate::call::{Call, Ref};
use crate::client::Client;
use crate::client::values::Tags;
use crate::desired::{Desired, Part};
use crate::observed::Arn;
use crate::plan::{self, Situation};
use crate::pods::Pods;
use crate::rate::Urgency;

// === impl Inner ===

impl Inner {
    /// Takes over the load balancer that the Service names. `Stale`: it was so, and must be read.
    pub(super) async fn adopt(
        &self,
        client: &Client,
        record: &mut Record,
        adopted: &Adopted,
        id: &ServiceId,
    ) -> Result<Ended, ProviderError> {
        let mut known = record.observed.load_balancers.values();
        if known.any(|one| one.arn == adopted.arn) {
            return Ok(Ended::Done);
        }
        let found = self.adoptable(client, adopted, id).await?;
        let name = adopted.name().to_owned();
        if let Some(objects) = found {
            let call = self.marks(&record.key, id, objects);
            match self.execute(client, record, &[call], "").await {
                Ended::Done => {
                    info!(arn = adopted.arn, service = %id, "took over a load balancer");
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
    fn marks(&self, key: &Key, id: &ServiceId, objects: Vec<Arn>) -> Call {
        Call::AddTags {
            of: objects.into_iter().map(Ref::Known).collect(),
            tags: self.mark.tags_on(key, id),
        }
    }

    /// What gets Ballast's tags if the load balancer that the Service names may be taken over: itself, and its
    /// listeners. `None`: it is the Service's already.
    async fn adoptable(
        &self,
        client: &Client,
        adopted: &Adopted,
        id: &ServiceId,
    ) -> Result<Option<Vec<Arn>>, ProviderError> {
        let failed = |why| error(&why);
        let manner = manner(Urgency::Service);
        let wrong = |why: &str| mendable(adopt::refused(&why));
        if adopted.region() != client.region() {
            return Err(wrong(&format!(
                "it is in the region {}, and the class is in {}",
                adopted.region(),
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
        let listeners = listeners.map_err(failed)?.into_iter().map(|one| one.arn);
        let objects: Vec<Arn> = arns.into_iter().chain(listeners).collect();
        let tags = client.tags(&objects, manner).await.map_err(failed)?;
        let own = tags.get(&adopted.arn).cloned().unwrap_or_default();
        if self.is_of(&own, id) {
            return Ok(None);
        }
        if let Some(other) = ballast_provider::Mark::of(&own) {
            return Err(wrong(&format!(
                "it belongs to a Service of the class {} of the cluster {} already",
                other.class, other.cluster
            )));
        }
        let vpc = self.vpc(client).await?;
        let mut clusters = self.network().clusters();
        clusters.insert(self.mark.cluster_name.clone());
        adopt::permit(&own, id, &clusters).map_err(mendable)?;
        if load_balancer.vpc != vpc {
            return Err(wrong(&format!("it is not in the VPC {vpc} of the nodes")));
        }
        Ok(Some(objects))
    }

    /// The calls that take over the load balancer that a Service names, and bring it to what the Service asks
    /// for. Makes none of them.
    pub(super) async fn preview_adoption(
        &self,
        balancer: &Balancer,
    ) -> Result<Vec<Call>, ProviderError> {
        let mut asked = self.asked(balancer)?;
        let client = self.client().await?;
        let Some(one) = asked.first_mut() else {
            return Ok(Vec::new());
        };
        let Some(adopted) = one.settings().adopted.clone() else {
            return Err(mendable(adopt::refused(&"the Service names none")));
        };
        let id = one.part().service.id.clone();
        let Some(objects) = self.adoptable(client, &adopted, &id).await? else {
            return Ok(Vec::new());
        };
        let mut record = Record::empty(balancer.key.clone());
        let marks = self.mark.tags_on(&balancer.key, &id);
        record.observed = self
            .read_as_own(client, &balancer.key, &adopted, &marks, Urgency::Service)
            .await?;
        let name = adopted.name().to_owned();
        let Some(there) = record.observed.load_balancers.get(&name) else {
            return Err(mendable(adopt::refused(&"it is gone")));
        };
        one.settings_mut().scheme = Some(there.scheme);
        record.want(name, BTreeMap::new());
        let parts: Vec<Part<'_>> = asked.iter().map(Asked::part).collect();
        let (found, _) = self
            .find(client, &parts, record.present(), record.prefix_lists())
            .await?;
        let desired = Desired::of(&self.mark, &record.key, &parts, &found)?.desired;
        let situation = Situation {
            nodes: self.targets().nodes(),
            pods: Pods::of(&balancer.members),
            successor_serves: false,
            prefix_lists: found.prefix_lists,
            reservation_waits: false,
        };
        let plan = plan::plan(&desired, &situation, &record.observed);
        if let Some(objection) = plan.objection {
            return Err(objection.into());
        }
        let first = self.marks(&balancer.key, &id, objects);
        Ok([first].into_iter().chain(plan.calls).collect())
    }

    /// A load balancer that serves already gets other security groups only when the nodes admit them. What is new
    /// can wait for that, and this one cannot.
    pub(super) async fn nodes_admit(&self, client: &Client) -> Result<(), ProviderError> {
        let _opening = self.opening.lock().await;
        let opened = self.open_nodes(client, Urgency::Service).await;
        match (opened, self.remarks_on_nodes().first()) {
            (Err(why @ ProviderError::Throttled { .. }), _) | (Err(why), None) => Err(why),
            (_, Some(why)) => Err(mendable(adopt::refused(&format!(
                "it keeps its security groups until the nodes admit Ballast's. {why}"
            )))),
            (Ok(()), None) => Ok(()),
        }
    }

    /// Whether these are the tags of what this Service has.
    fn is_of(&self, tags: &Tags, id: &ServiceId) -> bool {
        let service = ballast_provider::mark::service_of(tags);
        self.mark.owns(tags) && service.is_some_and(|one| one.uid == id.uid)
    }
}
