//! Looks up what the settings name and what nodes have in common, once for the whole class, and
//! makes the group through which load balancers reach the nodes.
//!
//! ```text
//!  every NLB ── has ──▶ backend group ◀── one rule for all its traffic ── groups of the nodes
//! ```
//!
//! The backend group is made with the first load balancer and deleted after the last. Everything
//! here happens under one lock, so that many Services that start together cost one look-up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ballast_provider::mark::{CLASS, CLUSTER, CLUSTER_NAME, SERVICE, SERVICE_UID};
use ballast_provider::{LoadBalancer, ProviderError};
use tokio::time::Instant;
use tracing::{info, warn};

use super::execute::error;
use super::{Inner, PATIENCE};
use crate::annotations::{PREFIX, invalid};
use crate::call::{Call, Ref};
use crate::client::values::{Filter, Instance, RouteTable, Subnet, Tags};
use crate::client::{Cause, Client, Ids, Manner};
use crate::desired::{FoundSubnet, LookedUp, NAMES, PrefixLists, Rule, Source, Traffic};
use crate::network::{self, NodeGroups, Subnets};
use crate::observed::ObservedLoadBalancer;
use crate::rate::Urgency;
use crate::settings::{Scheme, Settings};

/// How long the list of subnets counts.
const FRESH: Duration = Duration::from_mins(10);

/// What was looked up.
#[derive(Debug, Default)]
pub(super) struct Network {
    vpc: Option<String>,
    subnets: Option<(Instant, Arc<[Subnet]>)>,
    routes: Option<(Instant, Arc<[RouteTable]>)>,
    instances: BTreeMap<String, Instance>,
    /// For how many rules prefix lists count. AWS watches over lists that grow: it refuses that where a
    /// security group would get too many rules. So they are read once.
    pub(super) prefix_lists: PrefixLists,
    /// The backend group, if it exists.
    backend: Option<String>,
    /// The creation of the backend group had no answer: it may exist.
    tried: bool,
    /// The groups of nodes that have its rule; `None`: nobody knows.
    open: Option<BTreeSet<String>>,
    /// Groups of nodes that cannot be told apart.
    pub(super) ambiguous: BTreeSet<String>,
}

// === impl Network ===

impl Network {
    pub(super) fn new(vpc: Option<String>) -> Self {
        Self {
            vpc,
            ..Self::default()
        }
    }

    pub(super) fn restore(&mut self, backend: Option<&(String, Tags)>) {
        self.backend = backend.map(|(id, _)| id.clone());
        self.tried = false;
        self.open = None;
    }

    pub(super) fn backend(&self) -> Option<&str> {
        self.backend.as_deref()
    }

    fn clusters(&self) -> BTreeSet<String> {
        let all: Vec<Instance> = self.instances.values().cloned().collect();
        network::clusters(&all)
    }
}

// === impl Inner ===

impl Inner {
    pub(super) fn backend_name(&self) -> String {
        self.mark.name_of(NAMES, "backend")
    }

    /// The IDs for what the settings of one Service name.
    pub(super) async fn find(
        &self,
        client: &Client,
        service: &LoadBalancer,
        settings: &Settings,
        present: Option<&ObservedLoadBalancer>,
        lists: BTreeSet<String>,
    ) -> Result<LookedUp, ProviderError> {
        let mut network = self.network.lock().await;
        let scheme = settings.scheme.unwrap_or_default();
        let subnets = match present {
            // A load balancer keeps its subnets unless others are named.
            Some(present) if settings.subnets.is_empty() => present
                .subnets
                .iter()
                .map(|subnet| FoundSubnet {
                    id: subnet.id.clone(),
                    zone: subnet.zone.clone(),
                })
                .collect(),
            _ => self.subnets(client, &mut network, settings, scheme).await?,
        };
        let security_groups = self.named_groups(client, &mut network, settings).await?;
        let own = settings.security_groups.is_empty();
        let prefix_lists = if own {
            self.prefix_lists(client, &mut network, service, settings, lists)
                .await?
        } else {
            PrefixLists::new()
        };
        let backend_group = if settings.manage_backend_rules.unwrap_or(own) {
            Some(self.backend_group(client, &mut network).await?)
        } else {
            None
        };
        Ok(LookedUp {
            subnets,
            backend_group,
            security_groups,
            prefix_lists,
        })
    }

    /// The VPC of everything that is created.
    pub(super) async fn vpc(&self, client: &Client) -> Result<String, ProviderError> {
        let mut network = self.network.lock().await;
        self.vpc_of(client, &mut network).await
    }

    async fn vpc_of(
        &self,
        client: &Client,
        network: &mut Network,
    ) -> Result<String, ProviderError> {
        if let Some(vpc) = &network.vpc {
            return Ok(vpc.clone());
        }
        self.learn_instances(client, network, Urgency::Service)
            .await?;
        let all: Vec<Instance> = network.instances.values().cloned().collect();
        let vpc = network::vpc(&all)?.ok_or_else(|| {
            ProviderError::transient(
                "the VPC is not known: no node has an instance in this region. Set spec.aws.vpc of the class, or let the cloud provider set spec.providerID of the nodes",
            )
        })?;
        network.vpc = Some(vpc.clone());
        Ok(vpc)
    }

    /// Reads the instances of the targets that are not known yet.
    async fn learn_instances(
        &self,
        client: &Client,
        network: &mut Network,
        urgency: Urgency,
    ) -> Result<(), ProviderError> {
        let targets = self.targets().nodes.clone().unwrap_or_default();
        let new = |id: &&String| !network.instances.contains_key(*id);
        let new: Vec<String> = targets.ids().filter(new).cloned().collect();
        network.instances.retain(|id, _| targets.contains(id));
        if new.is_empty() {
            return Ok(());
        }
        let filters = [Filter::new("instance-id", new)];
        let found = client
            .instances(&filters, Manner::new(urgency, PATIENCE))
            .await;
        for instance in found.map_err(|why| error(&why))? {
            network.instances.insert(instance.id.clone(), instance);
        }
        Ok(())
    }

    async fn subnets(
        &self,
        client: &Client,
        network: &mut Network,
        settings: &Settings,
        scheme: Scheme,
    ) -> Result<Vec<FoundSubnet>, ProviderError> {
        let vpc = self.vpc_of(client, network).await?;
        let manner = || Manner::new(Urgency::Service, PATIENCE);
        let filters = [Filter::new("vpc-id", [vpc.as_str()])];
        let fresh = |read: Instant| read.elapsed() < FRESH;
        let all = match &network.subnets {
            Some((read, all)) if fresh(*read) => Arc::clone(all),
            _ => {
                let all = client.subnets(&filters, manner()).await;
                let all: Arc<[Subnet]> = all.map_err(|why| error(&why))?.into();
                network.subnets = Some((Instant::now(), Arc::clone(&all)));
                all
            }
        };
        if !settings.subnets.is_empty() {
            return Ok(network::named(&settings.subnets, &all)?);
        }
        let clusters = network.clusters();
        if let Subnets::Found(found) = network::discovered(scheme, &clusters, &all, None)? {
            return Ok(found);
        }
        let routes = match &network.routes {
            Some((read, routes)) if fresh(*read) => Arc::clone(routes),
            _ => {
                let routes = client.route_tables(&filters, manner()).await;
                let routes: Arc<[RouteTable]> = routes.map_err(|why| error(&why))?.into();
                network.routes = Some((Instant::now(), Arc::clone(&routes)));
                routes
            }
        };
        match network::discovered(scheme, &clusters, &all, Some(&routes))? {
            Subnets::Found(found) => Ok(found),
            Subnets::NeedsRoutes => Ok(Vec::new()),
        }
    }

    /// The user's security groups. IDs are taken as they are: AWS refuses one that does not exist.
    async fn named_groups(
        &self,
        client: &Client,
        network: &mut Network,
        settings: &Settings,
    ) -> Result<Vec<String>, ProviderError> {
        let names = &settings.security_groups;
        let is_id = |name: &&String| name.starts_with("sg-");
        if names.iter().all(|name| is_id(&name)) {
            return Ok(names.clone());
        }
        let vpc = self.vpc_of(client, network).await?;
        let wanted = names.iter().filter(|name| !is_id(name)).cloned();
        let filters = [Filter::new("vpc-id", [vpc]), Filter::tag("Name", wanted)];
        let found = client
            .security_groups(&filters, Manner::new(Urgency::Service, PATIENCE))
            .await
            .map_err(|why| error(&why))?;
        let mut ids = Vec::with_capacity(names.len());
        for name in names {
            if is_id(&name) {
                ids.push(name.clone());
                continue;
            }
            let those = found.iter().filter(|it| it.tags.get("Name") == Some(name));
            let those: Vec<&str> = those.map(|it| it.id.as_str()).collect();
            match those[..] {
                [one] => ids.push(one.to_owned()),
                [] => {
                    return Err(invalid(format!(
                        "annotation {PREFIX}security-groups: no security group of the VPC has the tag Name \"{name}\""
                    ))
                    .into());
                }
                _ => {
                    return Err(invalid(format!(
                        "annotation {PREFIX}security-groups: \"{name}\" is the tag Name of {}; use an ID",
                        those.join(", ")
                    ))
                    .into());
                }
            }
        }
        Ok(ids)
    }

    async fn backend_group(
        &self,
        client: &Client,
        network: &mut Network,
    ) -> Result<String, ProviderError> {
        if let Some(id) = &network.backend {
            return Ok(id.clone());
        }
        let vpc = self.vpc_of(client, network).await?;
        let call = Call::CreateSecurityGroup {
            name: self.backend_name(),
            tags: self.class_tags(),
        };
        let ids = Ids {
            vpc: vpc.clone(),
            ..Ids::default()
        };
        // Whoever waits for the answer may be dropped.
        let tried = std::mem::replace(&mut network.tried, true);
        let id = match client.call(&call, &ids, Urgency::Service, PATIENCE).await {
            Ok(answer) => {
                network.tried = tried;
                network.open = Some(BTreeSet::new());
                answer.id.unwrap_or_default()
            }
            Err(why) if why.cause == Cause::Duplicate => {
                network.open = None;
                self.own_backend_group(client, &vpc).await?
            }
            Err(why) => {
                network.tried = tried || why.cause.uncertain();
                return Err(error(&why));
            }
        };
        network.backend = Some(id.clone());
        self.open_nodes(client, network, Urgency::Service).await?;
        Ok(id)
    }

    async fn own_backend_group(&self, client: &Client, vpc: &str) -> Result<String, ProviderError> {
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
            (Some(mine), _) => Ok(mine.id.clone()),
            (None, Some(foreign)) => Err(ProviderError::transient(format!(
                "the security group {} has the name {name} that this class needs, and not Ballast's tags of this cluster and class. Ballast does not touch it: delete or rename it",
                foreign.id
            ))),
            // It was deleted a moment ago.
            (None, None) => Err(ProviderError::transient(format!(
                "the security group {name} exists, and AWS does not list it yet"
            ))),
        }
    }

    /// Lets load balancers in: one rule in each group of nodes.
    async fn open_nodes(
        &self,
        client: &Client,
        network: &mut Network,
        urgency: Urgency,
    ) -> Result<(), ProviderError> {
        let Some(backend) = network.backend.clone() else {
            return Ok(());
        };
        self.learn_instances(client, network, urgency).await?;
        let instances: Vec<Instance> = network.instances.values().cloned().collect();
        let clusters = network.clusters();
        let mut groups = network::node_groups(&instances, &clusters, None);
        if !groups.ambiguous.is_empty() {
            groups = self
                .told_apart(client, &instances, &clusters, groups, urgency)
                .await?;
        }
        if groups.ambiguous != network.ambiguous && !groups.ambiguous.is_empty() {
            warn!(groups = ?groups.ambiguous, "cannot tell which security group of the nodes lets load balancers in");
        }
        network.ambiguous = groups.ambiguous;
        let mut open = match network.open.take() {
            Some(open) => open,
            None => self.groups_with_rule(client, &backend, urgency).await?,
        };
        let closed: Vec<String> = groups.chosen.difference(&open).cloned().collect();
        for group in closed {
            let call = Call::AuthorizeSecurityGroupIngress {
                security_group: Ref::Known(group.clone()),
                rules: BTreeSet::from([from_backend(&backend)]),
            };
            match client.call(&call, &Ids::default(), urgency, PATIENCE).await {
                Ok(_) => info!(group, "load balancers may reach the nodes of this group"),
                Err(why) if why.cause == Cause::Duplicate => {}
                // Nobody knows whether the rule is there.
                Err(why) => return Err(error(&why)),
            }
            open.insert(group);
        }
        network.open = Some(open);
        Ok(())
    }

    /// The groups that have the rule of the backend group.
    async fn groups_with_rule(
        &self,
        client: &Client,
        backend: &str,
        urgency: Urgency,
    ) -> Result<BTreeSet<String>, ProviderError> {
        let filters = [Filter::new("ip-permission.group-id", [backend])];
        let manner = Manner::new(urgency, PATIENCE);
        let found = client.security_groups(&filters, manner).await;
        let found = found.map_err(|why| error(&why))?;
        let rule = from_backend(backend);
        let with = found.into_iter().filter(|one| one.rules.contains(&rule));
        Ok(with.map(|one| one.id).collect())
    }

    /// Somebody may have changed the rules of the nodes' groups.
    pub(super) async fn doubt_rules(&self) {
        self.network.lock().await.open = None;
    }

    async fn told_apart(
        &self,
        client: &Client,
        instances: &[Instance],
        clusters: &BTreeSet<String>,
        groups: NodeGroups,
        urgency: Urgency,
    ) -> Result<NodeGroups, ProviderError> {
        let filters = [Filter::new("group-id", groups.ambiguous)];
        let found = client
            .security_groups(&filters, Manner::new(urgency, PATIENCE))
            .await
            .map_err(|why| error(&why))?;
        let tags = found.into_iter().map(|one| (one.id, one.tags)).collect();
        Ok(network::node_groups(instances, clusters, Some(&tags)))
    }

    /// Looks at nodes that came since, and lets load balancers reach them.
    pub(super) async fn look_at_new_nodes(&self, client: &Client) -> Result<(), ProviderError> {
        let mut network = self.network.lock().await;
        if network.backend.is_none() {
            return Ok(());
        }
        self.open_nodes(client, &mut network, Urgency::Background)
            .await
    }

    /// Deletes the backend group and its rules, if no Service is left. AWS refuses while network
    /// interfaces of the last load balancer are there: then false.
    pub(super) async fn close(&self, client: &Client) -> Result<bool, ProviderError> {
        let mut network = self.network.lock().await;
        if !self.records.cells().is_empty() {
            return Ok(true);
        }
        if network.tried && network.backend.is_none() {
            let found = self.own_security_groups(client, None, Urgency::Background);
            let found = found.await.map_err(|why| error(&why))?;
            let name = self.backend_name();
            network.backend = found.into_iter().find(|it| it.name == name).map(|it| it.id);
        }
        let Some(backend) = network.backend.clone() else {
            network.tried = false;
            return Ok(true);
        };
        let mut open = match network.open.take() {
            Some(open) => open,
            None => {
                self.groups_with_rule(client, &backend, Urgency::Background)
                    .await?
            }
        };
        while let Some(group) = open.first().cloned() {
            let call = Call::RevokeSecurityGroupIngress {
                security_group: Ref::Known(group.clone()),
                rules: BTreeSet::from([from_backend(&backend)]),
            };
            match client
                .call(&call, &Ids::default(), Urgency::Background, PATIENCE)
                .await
            {
                Ok(_) => {}
                Err(why) if why.cause == Cause::NotFound => {}
                Err(why) => return Err(error(&why)),
            }
            open.remove(&group);
        }
        network.open = Some(open);
        let call = Call::DeleteSecurityGroup {
            security_group: backend,
        };
        match client
            .call(&call, &Ids::default(), Urgency::Background, PATIENCE)
            .await
        {
            Ok(_) => {}
            Err(why) if why.cause == Cause::NotFound => {}
            Err(why) if why.cause == Cause::InUse => return Ok(false),
            Err(why) => return Err(error(&why)),
        }
        network.backend = None;
        network.tried = false;
        network.ambiguous.clear();
        self.targets().settled = None;
        Ok(true)
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
    pub(super) async fn remarks_on_nodes(&self) -> Vec<String> {
        let network = self.network.lock().await;
        let mut remarks = Vec::new();
        if !network.ambiguous.is_empty() {
            let groups: Vec<&str> = network.ambiguous.iter().map(String::as_str).collect();
            let clusters: Vec<String> = network.clusters().into_iter().collect();
            remarks.push(format!(
                "Nodes have the security groups {}, and not exactly one of them has the tag kubernetes.io/cluster/{}. Tag the one that lets load balancers in, or let in {}",
                groups.join(", "),
                clusters.first().map_or("NAME", String::as_str),
                network.backend().unwrap_or("the backend group"),
            ));
        }
        remarks
    }
}

/// All traffic of load balancers.
fn from_backend(backend: &str) -> Rule {
    Rule {
        traffic: Traffic::All,
        source: Source::Group(backend.to_owned()),
    }
}
