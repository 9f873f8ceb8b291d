//! Reads what exists: everything of the class by names and tags, and everything of one Service.
//!
//! All names of Ballast's objects begin with the same letters, so only those need a look at their
//! tags; the tags decide whose they are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ballast_provider::mark::{CLASS, CLUSTER, RETAINED, service_of};
use ballast_provider::{Key, Mark, Owned, ProviderError, ServiceId};
use tracing::{info, warn};

use super::Inner;
use super::execute::error;
use super::records::{Depth, Record};
use crate::client::values::{self, Filter, Tags};
use crate::client::{CallError, Client, Manner};
use crate::desired::NAMES;
use crate::observed::{
    Observed, ObservedListener, ObservedLoadBalancer, ObservedTargetGroup, SecurityGroup,
};
use crate::rate::Urgency;
use crate::settings::Scheme;

/// Everything of the class, by the UID of its Service.
pub(super) struct Inventory {
    pub(super) records: BTreeMap<Arc<str>, Record>,
    /// The group through which load balancers reach nodes, if it exists, with its tags.
    pub(super) backend: Option<(String, Tags)>,
}

fn manner(urgency: Urgency) -> Manner {
    Manner::new(urgency, super::PATIENCE * 3)
}

// === impl Inner ===

impl Inner {
    pub(super) async fn restore(&self) -> Result<(), ProviderError> {
        let client = self.client().await?;
        let found = self.look_around(client, Urgency::Service).await;
        let found = found.map_err(|why| error(&why))?;
        info!(
            class = self.mark.class,
            services = found.records.len(),
            "read the load balancers of this class"
        );
        self.network.lock().await.restore(found.backend.as_ref());
        self.targets().settled = found
            .backend
            .and_then(|(_, mut tags)| tags.remove(super::retarget::SETTLED));
        self.records.replace(found.records);
        Ok(())
    }

    /// Names, tags and states of everything of this class.
    pub(super) async fn look_around(
        &self,
        client: &Client,
        urgency: Urgency,
    ) -> Result<Inventory, CallError> {
        let balancers = client.all_load_balancers(manner(urgency)).await?;
        let balancers: Vec<_> = balancers
            .into_iter()
            .filter(|one| is_ours(&one.name))
            .collect();
        let groups = client.all_target_groups(manner(urgency)).await?;
        let groups: Vec<_> = groups
            .into_iter()
            .filter(|one| is_ours(&one.name))
            .collect();
        let arns = balancers.iter().map(|one| one.arn.clone());
        let arns: Vec<String> = arns
            .chain(groups.iter().map(|one| one.arn.clone()))
            .collect();
        let mut tags = client.tags(&arns, manner(urgency)).await?;
        let security = self.own_security_groups(client, None, urgency).await?;
        let mut all = Inventory {
            records: BTreeMap::new(),
            backend: None,
        };
        let backend = self.backend_name();
        for group in security {
            if group.name == backend {
                all.backend = Some((group.id, group.tags));
            } else if let Some(record) = all.record(&group.tags) {
                let there = SecurityGroup {
                    id: group.id,
                    rules: group.rules,
                    tags: group.tags,
                };
                record.observed.groups.insert(group.name, there);
            }
        }
        for one in balancers {
            let Some(tags) = tags.remove(&one.arn).filter(|tags| self.mark.owns(tags)) else {
                continue;
            };
            if let Some(record) = all.record(&tags) {
                let name = one.name.clone();
                record
                    .observed
                    .load_balancers
                    .insert(name, load_balancer(one, tags));
            }
        }
        for one in groups {
            let Some(tags) = tags.remove(&one.arn).filter(|tags| self.mark.owns(tags)) else {
                continue;
            };
            if let Some(record) = all.record(&tags)
                && let Some((name, group)) = target_group(one, tags)
            {
                record.observed.target_groups.insert(name, group);
            }
        }
        Ok(all)
    }

    /// Everything of one Service, read in full under all names that are known or follow from it.
    pub(super) async fn read(
        &self,
        client: &Client,
        id: &ServiceId,
        record: &mut Record,
        urgency: Urgency,
    ) -> Result<(), ProviderError> {
        let key = Key::alone(id);
        let schemes = [Scheme::Internal, Scheme::InternetFacing];
        let named = schemes.map(|scheme| crate::desired::name(&self.mark, &key, scheme));
        let known = record.observed.load_balancers.keys().cloned();
        let balancers: BTreeSet<String> = known.chain(named).collect();
        let groups: Vec<String> = record.observed.target_groups.keys().cloned().collect();
        let balancers: Vec<String> = balancers.into_iter().collect();
        let read = self
            .read_named(client, id, &balancers, &groups, urgency)
            .await;
        record.observed = read?;
        record.depth = Depth::Full;
        record.targets_known = true;
        record.id = Some(id.clone());
        Ok(())
    }

    async fn read_named(
        &self,
        client: &Client,
        id: &ServiceId,
        balancers: &[String],
        groups: &[String],
        urgency: Urgency,
    ) -> Result<Observed, ProviderError> {
        let failed = |why: CallError| error(&why);
        let balancers = client
            .load_balancers_named(balancers, manner(urgency))
            .await;
        let balancers = balancers.map_err(failed)?;
        let groups = client.target_groups_named(groups, manner(urgency)).await;
        let groups = groups.map_err(failed)?;
        let mut listeners: BTreeMap<String, Vec<values::Listener>> = BTreeMap::new();
        for one in &balancers {
            let those = client.listeners(&one.arn, manner(urgency)).await;
            listeners.insert(one.arn.clone(), those.map_err(failed)?);
        }
        let arns = balancers.iter().map(|one| one.arn.clone());
        let arns: Vec<String> = arns
            .chain(groups.iter().map(|one| one.arn.clone()))
            .chain(listeners.values().flatten().map(|one| one.arn.clone()))
            .collect();
        let mut tags = client.tags(&arns, manner(urgency)).await.map_err(failed)?;
        let mut observed = Observed::default();
        for one in balancers {
            let own = tags.remove(&one.arn).unwrap_or_default();
            self.must_own(&own, "load balancer", &one.name, &one.arn)?;
            let name = one.name.clone();
            let mut there = load_balancer(one, own);
            let those = listeners.remove(&there.arn).unwrap_or_default();
            let those = those.into_iter().filter_map(|one| {
                let own = tags.remove(&one.arn).unwrap_or_default();
                listener(one, own)
            });
            there.listeners = those.collect();
            let attributes = client
                .load_balancer_attributes(&there.arn, manner(urgency))
                .await;
            there.attributes = attributes.map_err(failed)?;
            observed.load_balancers.insert(name, there);
        }
        for one in groups {
            let tags = tags.remove(&one.arn).unwrap_or_default();
            self.must_own(&tags, "target group", &one.name, &one.arn)?;
            let Some((name, mut there)) = target_group(one, tags) else {
                continue;
            };
            let attributes = client
                .target_group_attributes(&there.arn, manner(urgency))
                .await;
            there.attributes = attributes.map_err(failed)?;
            let targets = client.target_health(&there.arn, manner(urgency)).await;
            there.targets = registered(&targets.map_err(failed)?);
            observed.target_groups.insert(name, there);
        }
        let security = self.own_security_groups(client, Some(id), urgency).await;
        let backend = self.backend_name();
        for group in security.map_err(failed)? {
            if group.name != backend {
                let there = SecurityGroup {
                    id: group.id,
                    rules: group.rules,
                    tags: group.tags,
                };
                observed.groups.insert(group.name, there);
            }
        }
        Ok(observed)
    }

    /// The security groups of this class, or of one of its Services.
    async fn own_security_groups(
        &self,
        client: &Client,
        of: Option<&ServiceId>,
        urgency: Urgency,
    ) -> Result<Vec<values::SecurityGroup>, CallError> {
        let mut filters = vec![
            Filter::tag(CLUSTER, [self.mark.cluster.as_str()]),
            Filter::tag(CLASS, [self.mark.class.as_str()]),
        ];
        if let Some(id) = of {
            filters.push(Filter::tag(
                ballast_provider::mark::SERVICE_UID,
                [id.uid.to_string()],
            ));
        }
        let all = client.security_groups(&filters, manner(urgency)).await?;
        // Filters have wildcards; UIDs and names of classes have none, and nothing relies on it.
        let mine = all.into_iter().filter(|group| self.mark.owns(&group.tags));
        Ok(mine.collect())
    }

    fn must_own(
        &self,
        tags: &Tags,
        kind: &str,
        name: &str,
        arn: &str,
    ) -> Result<(), ProviderError> {
        if self.mark.owns(tags) {
            return Ok(());
        }
        warn!(
            name,
            arn, "a {kind} has a name of this class and not its tags"
        );
        Err(ProviderError::transient(format!(
            "the {kind} {arn} has the name that this Service needs, and not Ballast's tags of this cluster and class. Ballast does not touch it: delete or rename it"
        )))
    }
}

/// Everything of any cluster and class in one region, for commands.
pub(super) async fn everything(client: &Client) -> Result<Vec<Owned>, CallError> {
    let mut all: Vec<(String, String)> = Vec::new();
    let balancers = client.all_load_balancers(manner(Urgency::Service)).await?;
    all.extend(balancers.into_iter().map(|one| (one.arn, one.name)));
    let groups = client.all_target_groups(manner(Urgency::Service)).await?;
    all.extend(groups.into_iter().map(|one| (one.arn, one.name)));
    all.retain(|(_, name)| is_ours(name));
    let arns: Vec<String> = all.iter().map(|(arn, _)| arn.clone()).collect();
    let mut tags = client.tags(&arns, manner(Urgency::Service)).await?;
    let mut owned: Vec<Owned> = all
        .into_iter()
        .filter_map(|(arn, name)| own(name, tags.remove(&arn)?))
        .collect();
    let filters = [Filter::tag_key(CLUSTER)];
    let groups = client
        .security_groups(&filters, manner(Urgency::Service))
        .await?;
    owned.extend(groups.into_iter().filter_map(|one| own(one.name, one.tags)));
    Ok(owned)
}

/// Whether a name has the form of [`Mark::name_of`]. Whose it is only the tags say.
fn is_ours(name: &str) -> bool {
    name.strip_prefix(NAMES)
        .is_some_and(|rest| rest.starts_with('-'))
}

/// `None`: the tags name no cluster and class.
fn own(name: String, tags: Tags) -> Option<Owned> {
    Mark::of(&tags)?;
    let service = service_of(&tags);
    Some(Owned {
        key: service.as_ref().map(Key::alone),
        services: service.into_iter().collect(),
        name,
        tags,
    })
}

// === impl Inventory ===

impl Inventory {
    /// The record of the Service that these tags name.
    fn record(&mut self, tags: &Tags) -> Option<&mut Record> {
        let id = service_of(tags)?;
        let made = || Record {
            depth: Depth::Names,
            id: Some(id.clone()),
            targets_known: false,
            ..Record::empty()
        };
        let record = self.records.entry(Arc::clone(&id.uid)).or_insert_with(made);
        record.retained |= tags.contains_key(RETAINED);
        Some(record)
    }
}

fn load_balancer(one: values::LoadBalancer, tags: Tags) -> ObservedLoadBalancer {
    ObservedLoadBalancer {
        arn: one.arn,
        hostname: one.hostname,
        state: one.state,
        scheme: one.scheme,
        subnets: one.zones.into_values().map(|zone| zone.subnet).collect(),
        groups: one.security_groups,
        attributes: BTreeMap::new(),
        tags,
        listeners: BTreeMap::new(),
    }
}

/// `None`: it is none that Ballast makes.
fn target_group(one: values::TargetGroup, tags: Tags) -> Option<(String, ObservedTargetGroup)> {
    let group = ObservedTargetGroup {
        arn: one.arn,
        check: one.check?,
        attributes: BTreeMap::new(),
        tags,
        targets: BTreeSet::new(),
    };
    Some((one.name, group))
}

/// A listener that is not as Ballast makes them sends to no target group of this Service, so the
/// plan changes it.
fn listener(one: values::Listener, tags: Tags) -> Option<(u16, ObservedListener)> {
    let there = ObservedListener {
        arn: one.arn,
        transport: one.transport?,
        target_group: one.target_group.unwrap_or_default(),
        tags,
    };
    Some((one.port, there))
}

/// Without those that were deregistered and drain.
pub(super) fn registered(targets: &[values::TargetHealth]) -> BTreeSet<String> {
    let stay = |one: &&values::TargetHealth| one.health != values::Health::Draining;
    let all = targets.iter().filter(stay);
    all.map(|one| one.target.clone()).collect()
}
