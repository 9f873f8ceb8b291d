//! The group through which load balancers reach the nodes.
//!
//! ```text
//!  every NLB ── has ──▶ backend group ◀── one rule for all its traffic ── groups of the nodes
//! ```
//!
//! It is made with the first load balancer and deleted after the last. `opening` is held while it is
//! made, opened or deleted; a Service for which it is there does not wait for that.
//!
//! A rule that AWS refuses holds up no load balancer: the Services and the class say it, and
//! [`super::follow`] tries again. The same holds for a deletion that AWS refuses for long: no Service
//! waits for what it does not have.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ballast_provider::ProviderError;
use ballast_provider::mark::{CLASS, CLUSTER, CLUSTER_NAME, SERVICE, SERVICE_UID};
use jiff::Timestamp;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::execute::error;
use super::{Inner, PATIENCE};
use crate::call::{Call, Ref};
use crate::client::values::{Filter, Instance, SecurityGroup, Tags};
use crate::client::{CallError, Cause, Client, Ids, Manner};
use crate::desired::{NAMES, Rule, Source, Traffic};
use crate::network::{self, NodeGroups};
use crate::rate::Urgency;

mod close;
mod foresee;
mod state;

pub(super) use state::Backend;

/// The time between two tries to delete the group: network interfaces of a load balancer stay for about
/// a minute after it.
pub(super) const CLOSING: Duration = Duration::from_secs(20);
/// How a try to delete the group ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closed {
    /// It is gone, or a Service needs it.
    Done,
    /// A Service waits so long for it.
    Later(Duration),
    /// Something else uses it; no Service waits for it.
    Stuck,
}

// === impl Inner ===

impl Inner {
    pub(super) fn backend_name(&self) -> String {
        self.mark.name_of(NAMES, "backend")
    }

    /// The group, which is made if it does not exist.
    pub(super) async fn backend_group(&self, client: &Client) -> Result<String, ProviderError> {
        {
            let backend = &mut self.network().backend;
            backend.wanted = Some(Instant::now());
            if let Some(id) = backend.id.as_ref().filter(|_| !backend.closing) {
                return Ok(id.clone());
            }
        }
        let vpc = self.vpc(client).await?;
        let _opening = self.opening.lock().await;
        let present = self.network().backend.id();
        let id = match present {
            Some(id) => id,
            None => self.make_backend_group(client, &vpc).await?,
        };
        {
            let backend = &mut self.network().backend;
            backend.id = Some(id.clone());
            backend.closing = false;
            backend.stuck = None;
        }
        if let Err(why) = self.open_nodes(client, Urgency::Service).await {
            debug!(error = %why, "cannot let load balancers in yet");
        }
        Ok(id)
    }

    async fn make_backend_group(
        &self,
        client: &Client,
        vpc: &str,
    ) -> Result<String, ProviderError> {
        let call = Call::CreateSecurityGroup {
            name: self.backend_name(),
            tags: self.class_tags(),
        };
        let ids = Ids {
            vpc: vpc.to_owned(),
            born: self.mark.birth(Timestamp::now()),
            ..Ids::default()
        };
        // Whoever waits for the answer may be dropped.
        let tried = {
            let backend = &mut self.network().backend;
            backend.changed = Some(Instant::now());
            std::mem::replace(&mut backend.tried, true)
        };
        match client.call(&call, &ids, Urgency::Service, PATIENCE).await {
            Ok(answer) => {
                let backend = &mut self.network().backend;
                backend.tried = tried;
                backend.changed = Some(Instant::now());
                backend.open = Some(BTreeSet::new());
                Ok(answer.id.unwrap_or_default())
            }
            Err(why) if why.cause == Cause::Duplicate => {
                self.network().backend.open = None;
                // It is older than the lists that did not show it, and may have a tag.
                self.targets().unsettle();
                self.own_backend_group(client, vpc).await
            }
            Err(why) => {
                self.network().backend.tried = tried || why.cause.uncertain();
                Err(error(&why))
            }
        }
    }

    async fn own_backend_group(&self, client: &Client, vpc: &str) -> Result<String, ProviderError> {
        let found = self.listed_backend_group(client, vpc).await?;
        // It was deleted a moment ago.
        found.ok_or_else(|| {
            ProviderError::transient(format!(
                "the security group {} exists, and AWS does not list it yet",
                self.backend_name()
            ))
        })
    }

    /// The ID of the group with its name, if there is one. It must be Ballast's.
    async fn listed_backend_group(
        &self,
        client: &Client,
        vpc: &str,
    ) -> Result<Option<String>, ProviderError> {
        let name = self.backend_name();
        let filters = [
            Filter::new("vpc-id", [vpc]),
            Filter::new("group-name", [name.as_str()]),
        ];
        let found = client
            .security_groups(&filters, Manner::new(Urgency::Service, PATIENCE))
            .await
            .map_err(|why| error(&why))?;
        let mine = found.iter().find(|one| self.mark.owns(&one.tags));
        match (mine, found.first()) {
            (Some(mine), _) => Ok(Some(mine.id.clone())),
            (None, Some(foreign)) => Err(ProviderError::transient(format!(
                "the security group {} has the name {name} that this class needs, and not Ballast's tags of this cluster and class. Ballast does not touch it: delete it, or give it its tags back",
                foreign.id
            ))),
            (None, None) => Ok(None),
        }
    }

    /// Lets load balancers in: one rule in each group of nodes. The caller holds `opening`.
    pub(super) async fn open_nodes(
        &self,
        client: &Client,
        urgency: Urgency,
    ) -> Result<(), ProviderError> {
        let Some(id) = self.network().backend.id() else {
            return Ok(());
        };
        let mut refused = BTreeSet::new();
        let ended = self.open_each(client, &id, urgency, &mut refused).await;
        let backend = &mut self.network().backend;
        let why = match ended {
            Ok(()) => {
                backend.opened();
                return Ok(());
            }
            // It is no fault, and ends by itself.
            Err(why @ ProviderError::Throttled { .. }) => return Err(why),
            Err(why) => why,
        };
        let groups: Vec<String> = refused.into_iter().collect();
        let says = if groups.is_empty() {
            format!("Load balancers may not reach nodes: {why}")
        } else {
            format!(
                "Load balancers do not reach nodes with the security groups {}, because the rule that lets {id} in is missing: {why}",
                groups.join(", ")
            )
        };
        backend.shut(says, !groups.is_empty());
        Err(why)
    }

    /// Adds the rules that are missing. `refused`: the groups for which AWS refuses it.
    async fn open_each(
        &self,
        client: &Client,
        backend: &str,
        urgency: Urgency,
        refused: &mut BTreeSet<String>,
    ) -> Result<(), ProviderError> {
        self.learn_instances(client, urgency).await?;
        let groups = self.groups_of_nodes(client, urgency).await;
        let groups = groups.map_err(|why| error(&why))?;
        let known = self.network().backend.open.take();
        let mut open = match known {
            Some(open) => open,
            None => self
                .groups_with_rule(client, backend, urgency)
                .await
                .map_err(|why| error(&why))?,
        };
        let closed: Vec<String> = groups.difference(&open).cloned().collect();
        let mut failed = Ok(());
        let mut certain = true;
        for group in closed {
            let call = Call::AuthorizeSecurityGroupIngress {
                security_group: Ref::Known(group.clone()),
                rules: BTreeSet::from([from_backend(backend)]),
            };
            match client.call(&call, &Ids::default(), urgency, PATIENCE).await {
                Ok(_) => info!(group, "load balancers may reach the nodes of this group"),
                Err(why) if why.cause == Cause::Duplicate => {}
                // A group that AWS refuses holds up no other.
                Err(why) => {
                    self.network().backend.blame(&why);
                    let throttled = matches!(why.cause, Cause::Throttled { .. });
                    if why.cause.uncertain() {
                        certain = false;
                    } else if !throttled {
                        refused.insert(group);
                    }
                    if failed.is_ok() || !throttled {
                        failed = Err(error(&why));
                    }
                    continue;
                }
            }
            open.insert(group);
        }
        let mut network = self.network();
        if certain && network.backend.id.as_deref() == Some(backend) {
            network.backend.open = Some(open);
        }
        failed
    }

    /// The groups of nodes that get the rule.
    async fn groups_of_nodes(
        &self,
        client: &Client,
        urgency: Urgency,
    ) -> Result<BTreeSet<String>, CallError> {
        let (instances, clusters, known) = {
            let network = self.network();
            let instances: Vec<Instance> = network.instances.values().cloned().collect();
            (instances, network.clusters(), network.backend.tags.clone())
        };
        let choose =
            |tags: &BTreeMap<String, Tags>| network::node_groups(&instances, &clusters, Some(tags));
        let mut groups: NodeGroups = choose(&known);
        let new = |id: &&String| !known.contains_key(*id);
        let new: Vec<String> = groups.ambiguous.iter().filter(new).cloned().collect();
        if !new.is_empty() {
            let filters = [Filter::new("group-id", new.iter().cloned())];
            let manner = Manner::new(urgency, PATIENCE);
            let found = client.security_groups(&filters, manner).await?;
            let found = found.into_iter().map(|one| (one.id, one.tags));
            // One that AWS does not list is not asked for again.
            let new = new.into_iter().map(|id| (id, Tags::new()));
            let tags: BTreeMap<String, Tags> = known.into_iter().chain(new).chain(found).collect();
            groups = choose(&tags);
            self.network().backend.tags = tags;
        }
        let backend = &mut self.network().backend;
        if groups.ambiguous != backend.ambiguous && !groups.ambiguous.is_empty() {
            warn!(groups = ?groups.ambiguous, "cannot tell which security group of the nodes lets load balancers in");
        }
        backend.ambiguous = groups.ambiguous;
        Ok(groups.chosen)
    }

    /// The groups that have the rule of the backend group.
    async fn groups_with_rule(
        &self,
        client: &Client,
        backend: &str,
        urgency: Urgency,
    ) -> Result<BTreeSet<String>, CallError> {
        let rule = from_backend(backend);
        let found = groups_that_name(client, backend, urgency).await?;
        let with = found.into_iter().filter(|one| one.rules.contains(&rule));
        Ok(with.map(|one| one.id).collect())
    }

    /// Looks at nodes that came since, and lets load balancers reach them.
    pub(super) async fn look_at_new_nodes(&self, client: &Client) -> Result<(), ProviderError> {
        let waits = {
            let backend = &self.network().backend;
            backend.id.is_none() || backend.closing || backend.is_shut(Instant::now())
        };
        // A group that no Service needs is deleted soon.
        if waits || self.records.cells().is_empty() {
            return Ok(());
        }
        let _opening = self.opening.lock().await;
        if self.network().backend.closing {
            return Ok(());
        }
        self.open_nodes(client, Urgency::Background).await
    }

    /// The tags of what serves the whole class.
    fn class_tags(&self) -> BTreeMap<String, String> {
        let mut tags = self.class.settings.tags.clone();
        tags.insert(CLUSTER.into(), self.mark.cluster.clone());
        tags.insert(CLUSTER_NAME.into(), self.mark.cluster_name.clone());
        tags.insert(CLASS.into(), self.mark.class.clone());
        tags.remove(SERVICE);
        tags.remove(SERVICE_UID);
        tags
    }

    /// What people must do so that load balancers reach the nodes.
    pub(super) fn remarks_on_nodes(&self) -> Vec<String> {
        let network = self.network();
        let Backend { id, ambiguous, .. } = &network.backend;
        let shut = network.backend.why_shut().map(str::to_owned);
        let mut remarks: Vec<String> = shut.into_iter().collect();
        if !ambiguous.is_empty() {
            let groups: Vec<&str> = ambiguous.iter().map(String::as_str).collect();
            let clusters: Vec<String> = network.clusters().into_iter().collect();
            remarks.push(format!(
                "Nodes have the security groups {}, and not exactly one of them has the tag kubernetes.io/cluster/{}. Tag the one that lets load balancers in, or let in {}",
                groups.join(", "),
                clusters.first().map_or("NAME", String::as_str),
                id.as_deref().unwrap_or("the backend group"),
            ));
        }
        remarks
    }

    /// What people must do for the class.
    pub(super) fn remarks_on_class(&self) -> Vec<String> {
        self.network().backend.remarks()
    }
}

async fn groups_that_name(
    client: &Client,
    group: &str,
    urgency: Urgency,
) -> Result<Vec<SecurityGroup>, CallError> {
    let filters = [Filter::new("ip-permission.group-id", [group])];
    let manner = Manner::new(urgency, PATIENCE);
    client.security_groups(&filters, manner).await
}

/// All traffic of load balancers.
fn from_backend(backend: &str) -> Rule {
    Rule {
        traffic: Traffic::All,
        source: Source::Group(backend.to_owned()),
    }
}
