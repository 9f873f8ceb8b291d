//! Looks up what the settings name and what nodes have in common, once for the whole class. What is
//! known costs neither a call nor a wait.
//!
//! Many Services that start together cost one look-up: the first one holds `looking` meanwhile, and
//! the others find its result. A look-up in the background holds no lock, so that a slow EC2 delays no
//! turn that needs nothing from it.
//!
//! What is wrong with something that was looked up is no refusal: people mend it in AWS, where nobody
//! hears of it, so the Service tries again. While EC2 fails, the last answer serves the Services that have
//! a load balancer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use ballast_provider::{ProviderError, Refusal};
use ipnet::IpNet;
use tokio::time::Instant;
use tracing::debug;

use super::backend::Backend;
use super::execute::error;
use super::faults::Faults;
use super::{Inner, PATIENCE};
use crate::client::values::{Filter, Instance, RouteTable, Subnet, Tags};
use crate::client::{Client, Manner};
use crate::desired::{Addresses, FoundSubnet, LookedUp, Part, PrefixLists};
use crate::network::{self, Subnets};
use crate::nodes::Nodes;
use crate::observed::ObservedLoadBalancer;
use crate::rate::Urgency;
use crate::settings::{Scheme, Settings};

mod groups;

use groups::Named;

/// How long a look-up counts.
const FRESH: Duration = Duration::from_mins(10);
/// The same if a Service was refused for what it brought: people mend it soon.
const SOON: Duration = Duration::from_secs(30);
/// For so long names that nobody asks for are remembered, in case EC2 fails.
const REMEMBERED: Duration = Duration::from_hours(24);

/// What was looked up. Nobody holds its lock while a call is made.
#[derive(Debug, Default)]
pub(super) struct Network {
    vpc: Option<String>,
    subnets: Listed<Subnet>,
    routes: Listed<RouteTable>,
    /// The security groups that settings name, by ID or tag `Name`.
    named: BTreeMap<String, Named>,
    pub(super) instances: BTreeMap<String, Instance>,
    /// Instances of nodes that AWS does not list.
    missing: BTreeSet<String>,
    /// For how many rules prefix lists count. AWS watches over lists that grow: it refuses that where a
    /// security group would get too many rules. So they are read once.
    pub(super) prefix_lists: PrefixLists,
    pub(super) backend: Backend,
}

/// A list, and until when it counts.
type Listed<T> = Option<(Instant, Arc<[T]>)>;

// === impl Network ===

impl Network {
    pub(super) fn new(vpc: Option<String>) -> Self {
        Self {
            vpc,
            ..Self::default()
        }
    }

    pub(super) fn restore(&mut self, backend: Option<&(String, Tags)>) {
        self.backend = Backend::known(backend.map(|(id, _)| id.clone()));
    }

    pub(super) fn clusters(&self) -> BTreeSet<String> {
        let all: Vec<Instance> = self.instances.values().cloned().collect();
        network::clusters(&all)
    }

    /// Instances that were not found, and what is known of the groups of nodes, are asked for again.
    pub(super) fn doubt(&mut self) {
        self.missing.clear();
        self.backend.doubt();
    }

    /// The instances of these nodes that nobody has asked for.
    fn unknown(&mut self, nodes: &Nodes) -> Vec<String> {
        self.instances.retain(|id, _| nodes.contains(id));
        self.missing.retain(|id| nodes.contains(id));
        let new = |id: &&String| !self.instances.contains_key(*id) && !self.missing.contains(*id);
        nodes.ids().filter(new).cloned().collect()
    }

    /// Those that were asked for and are not among the found ones do not exist, or not yet.
    fn learn(&mut self, asked: Vec<String>, found: Vec<Instance>) {
        for instance in found {
            self.instances.insert(instance.id.clone(), instance);
        }
        self.missing.extend(asked);
        let instances = &self.instances;
        self.missing.retain(|id| !instances.contains_key(id));
    }

    /// A Service was refused for its subnets.
    fn read_again_soon(&mut self) {
        let soon = Instant::now() + SOON;
        if let Some((until, _)) = &mut self.subnets {
            *until = soon.min(*until);
        }
        if let Some((until, _)) = &mut self.routes {
            *until = soon.min(*until);
        }
    }

    /// AWS does not find something that was listed, and answers with this code.
    pub(super) fn forget_lists(&mut self, code: &str) {
        if code.contains("Subnet") {
            self.subnets = None;
            self.routes = None;
        }
        if code.contains("PrefixList") {
            self.prefix_lists.clear();
        }
    }

    /// EC2 does not answer: the subnets that it has listed under these names count for a while.
    fn trust_subnets(&mut self, names: &[String]) -> Option<Vec<FoundSubnet>> {
        let (until, all) = self.subnets.as_mut()?;
        let found = network::named(names, all).ok()?;
        *until = (Instant::now() + SOON).max(*until);
        Some(found)
    }
}

/// What somebody must mend, maybe in AWS.
pub(super) fn mendable(why: Refusal) -> ProviderError {
    ProviderError::failed(why.reason, why.message)
}

fn fresh<T>(of: Option<&(Instant, Arc<[T]>)>) -> Option<Arc<[T]>> {
    let (until, all) = of?;
    (*until > Instant::now()).then(|| Arc::clone(all))
}

fn manner() -> Manner {
    Manner::new(Urgency::Service, PATIENCE)
}

// === impl Inner ===

impl Inner {
    pub(super) fn network(&self) -> MutexGuard<'_, Network> {
        // Whatever is half done is looked up again.
        self.network.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The IDs for what the settings of these Services name. What only one of them names wrongly is a fault of that
    /// one.
    pub(super) async fn find(
        &self,
        client: &Client,
        parts: &[Part<'_>],
        present: Option<&ObservedLoadBalancer>,
        (lists, ipv6_nodes): (BTreeSet<String>, bool),
    ) -> Result<(LookedUp, Faults), ProviderError> {
        let settings = parts
            .first()
            .map_or(&self.class.settings, |first| first.settings);
        let scheme = settings.scheme.unwrap_or_default();
        let dualstack = parts.iter().any(crate::desired::wants_ipv6);
        let asked = (scheme, dualstack);
        let subnets = match present {
            // A load balancer keeps its subnets unless others are named.
            Some(present) if settings.subnets.is_empty() => {
                let ipv6 = self.subnets_with_ipv6(client, dualstack, present).await?;
                let present = present.subnets.iter().map(|subnet| FoundSubnet {
                    id: subnet.id.clone(),
                    zone: subnet.zone.clone(),
                    ipv6: ipv6.contains(&subnet.id),
                });
                let mut found: Vec<FoundSubnet> = present.collect();
                // In the order in which they were found: lists of addresses have it, too.
                found.sort_by(|one, other| one.zone.cmp(&other.zone));
                found
            }
            Some(_) => match self.subnets(client, settings, asked).await {
                Ok(found) => found,
                Err(why) => {
                    let last = self.network().trust_subnets(&settings.subnets);
                    last.ok_or(why)?
                }
            },
            None => self.subnets(client, settings, asked).await?,
        };
        let groupless = present.is_some_and(|present| present.groups.is_empty());
        if groupless {
            let found = LookedUp {
                subnets,
                backend_group: None,
                security_groups: Vec::new(),
                prefix_lists: PrefixLists::new(),
                unruled: BTreeSet::new(),
                groupless,
                ipv6_nodes,
            };
            return Ok((found, Faults::new()));
        }
        let named = &settings.security_groups;
        if let Err(why) = self.learn_named_groups(client, named).await {
            let known = |present: &ObservedLoadBalancer| {
                self.network().trust_groups(named, &present.groups)
            };
            if !present.is_some_and(known) {
                return Err(why);
            }
        }
        let security_groups = self.named_groups(named)?;
        let own = settings.security_groups.is_empty();
        let (prefix_lists, faults) = if own {
            self.prefix_lists(client, parts, lists).await?
        } else {
            (PrefixLists::new(), Faults::new())
        };
        let backend_group = if settings.manage_backend_rules.unwrap_or(own) {
            Some(self.backend_group(client).await?)
        } else {
            None
        };
        let found = LookedUp {
            subnets,
            backend_group,
            security_groups,
            prefix_lists,
            unruled: faults.keys().cloned().collect(),
            groupless,
            ipv6_nodes,
        };
        Ok((found, faults))
    }

    /// The IDs of the subnets with IPv6 addresses, as far as a load balancer needs them.
    async fn subnets_with_ipv6(
        &self,
        client: &Client,
        wanted: bool,
        present: &ObservedLoadBalancer,
    ) -> Result<BTreeSet<String>, ProviderError> {
        if !wanted {
            return Ok(BTreeSet::new());
        }
        if present.addresses != Addresses::Ipv4 {
            // AWS has found them in each of its subnets.
            return Ok(present.subnets.iter().map(|it| it.id.clone()).collect());
        }
        let vpc = self.vpc(client).await?;
        let all = self.all_subnets(client, &vpc).await?;
        let with = all.iter().filter(|subnet| !subnet.ipv6.is_empty());
        Ok(with.map(|subnet| subnet.id.clone()).collect())
    }

    /// The VPC of everything that is created.
    pub(super) async fn vpc(&self, client: &Client) -> Result<String, ProviderError> {
        if let Some(vpc) = self.network().vpc.clone() {
            return Ok(vpc);
        }
        // A Service waits for the first instance.
        self.network().missing.clear();
        self.learn_instances(client, Urgency::Service).await?;
        let mut network = self.network();
        let all: Vec<Instance> = network.instances.values().cloned().collect();
        let vpc = network::vpc(&all).map_err(mendable)?.ok_or_else(|| {
            ProviderError::transient(
                "the VPC is not known: no node has an instance in this region. Set spec.aws.vpc of the class, or let the cloud provider set spec.providerID of the nodes",
            )
        })?;
        network.vpc = Some(vpc.clone());
        Ok(vpc)
    }

    fn unknown_instances(&self) -> Vec<String> {
        let nodes = self.targets().nodes().unwrap_or_default();
        self.network().unknown(&nodes)
    }

    /// Reads the instances of the targets that nobody has asked for yet.
    pub(super) async fn learn_instances(
        &self,
        client: &Client,
        urgency: Urgency,
    ) -> Result<(), ProviderError> {
        if self.unknown_instances().is_empty() {
            return Ok(());
        }
        let _looking = match urgency {
            Urgency::Background => None,
            _ => Some(self.looking.lock().await),
        };
        let new = self.unknown_instances();
        if new.is_empty() {
            return Ok(());
        }
        let filters = [Filter::new("instance-id", new.iter().cloned())];
        let manner = Manner::new(urgency, PATIENCE);
        let found = client.instances(&filters, manner).await;
        let found = found.map_err(|why| error(&why))?;
        self.network().learn(new, found);
        Ok(())
    }

    async fn subnets(
        &self,
        client: &Client,
        settings: &Settings,
        asked: (Scheme, bool),
    ) -> Result<Vec<FoundSubnet>, ProviderError> {
        let vpc = self.vpc(client).await?;
        let all = self.all_subnets(client, &vpc).await?;
        let refused = |why: Refusal| {
            self.network().read_again_soon();
            mendable(why)
        };
        if !settings.subnets.is_empty() {
            return network::named(&settings.subnets, &all).map_err(refused);
        }
        // Their tags say which subnets are of this cluster, also if the class names the VPC.
        if self.network().instances.is_empty() {
            self.learn_instances(client, Urgency::Service).await?;
        }
        let clusters = self.network().clusters();
        let region = client.region();
        let chosen = network::discovered(asked, region, &clusters, &all, None).map_err(refused)?;
        if let Subnets::Found(found) = chosen {
            return Ok(found);
        }
        let routes = self.all_routes(client, &vpc).await?;
        let chosen = network::discovered(asked, region, &clusters, &all, Some(&routes));
        match chosen.map_err(refused)? {
            Subnets::Found(found) => Ok(found),
            Subnets::NeedsRoutes => Ok(Vec::new()),
        }
    }

    /// The addresses of all subnets. If EC2 does not answer, what it has said before; empty if it has said nothing.
    pub(super) async fn subnet_ranges(&self, client: &Client) -> Vec<IpNet> {
        let read = async {
            let vpc = self.vpc(client).await?;
            self.all_subnets(client, &vpc).await
        };
        let all = match read.await {
            Ok(all) => Some(all),
            Err(why) => {
                debug!(error = %why, "cannot read the subnets of the VPC");
                self.network()
                    .subnets
                    .as_ref()
                    .map(|(_, all)| Arc::clone(all))
            }
        };
        let all = all.iter().flat_map(|all| all.iter());
        let ranges = |subnet: &Subnet| {
            let four = subnet.range.map(IpNet::V4);
            let six = subnet.ipv6.iter().copied().map(IpNet::V6);
            four.into_iter().chain(six).collect::<Vec<_>>()
        };
        all.flat_map(ranges).collect()
    }

    async fn all_subnets(
        &self,
        client: &Client,
        vpc: &str,
    ) -> Result<Arc<[Subnet]>, ProviderError> {
        if let Some(all) = fresh(self.network().subnets.as_ref()) {
            return Ok(all);
        }
        let _looking = self.looking.lock().await;
        if let Some(all) = fresh(self.network().subnets.as_ref()) {
            return Ok(all);
        }
        let filters = [Filter::new("vpc-id", [vpc])];
        let all = client.subnets(&filters, manner()).await;
        let all: Arc<[Subnet]> = all.map_err(|why| error(&why))?.into();
        self.network().subnets = Some((Instant::now() + FRESH, Arc::clone(&all)));
        Ok(all)
    }

    async fn all_routes(
        &self,
        client: &Client,
        vpc: &str,
    ) -> Result<Arc<[RouteTable]>, ProviderError> {
        if let Some(all) = fresh(self.network().routes.as_ref()) {
            return Ok(all);
        }
        let _looking = self.looking.lock().await;
        if let Some(all) = fresh(self.network().routes.as_ref()) {
            return Ok(all);
        }
        let filters = [Filter::new("vpc-id", [vpc])];
        let all = client.route_tables(&filters, manner()).await;
        let all: Arc<[RouteTable]> = all.map_err(|why| error(&why))?.into();
        self.network().routes = Some((Instant::now() + FRESH, Arc::clone(&all)));
        Ok(all)
    }
}
