//! Reads what exists: everything of the class by names and tags, and everything of one load balancer.
//! [`super::full`] has what lists do not say, and [`super::everything`] reads what any class has.
//!
//! All names of target groups of Ballast's begin with the same letters, so only those need a look at their tags. Of
//! load balancers all of the region are looked at, because one that was taken over keeps its name. The tags decide
//! whose they are.

use std::collections::{BTreeMap, BTreeSet};

use ballast_provider::mark::{CLASS, CLUSTER, RETAINED, SERVICE_UID, SHARE_KEY, key_of};
use ballast_provider::{Key, Mark, ProviderError, Published};
use tokio::time::Instant;
use tracing::{info, warn};

use super::Inner;
use super::decode::{listener, load_balancer, registered, security_group, target_group};
use super::execute::error;
use super::full::{listeners_of, rest};
use super::records::{Answers, Depth, Extent, Record, Tried, members};
use super::tags::tags_of_all;
use crate::adopt::Adopted;
use crate::client::values::{self, Filter, Tags, TargetHealth};
use crate::client::{CallError, Cause, Client, Manner};
use crate::desired::NAMES;
use crate::observed::{Arn, Observed, ObservedTargetGroup};
use crate::rate::Urgency;
use crate::settings::Scheme;

/// Everything of the class.
pub(super) struct Inventory {
    pub(super) records: BTreeMap<Key, Record>,
    /// The group through which load balancers reach nodes, if it exists, with its tags.
    pub(super) backend: Option<(String, Tags)>,
    /// The names of load balancers and target groups that look like ours, and whose tags name no owner.
    pub(super) strangers: BTreeSet<String>,
}

/// Under which names something of a load balancer may exist.
struct Names {
    load_balancers: Vec<String>,
    target_groups: Vec<String>,
    /// The ARNs of listeners that lists may not show yet, by the ARN of the load balancer.
    listeners: BTreeMap<Arn, BTreeSet<Arn>>,
    /// Its own are found by their tags; these are looked at whoever has them.
    security_groups: Vec<String>,
    /// The ARN of a load balancer that is read as if it had the tags of this class.
    as_own: Option<Arn>,
}

/// What a load balancer has.
struct Seen {
    observed: Observed,
    answers: Answers,
    /// The names of what somebody else has, and an error for each of them.
    tried: Tried,
    foreign: BTreeMap<String, ProviderError>,
}

pub(super) fn manner(urgency: Urgency) -> Manner {
    Manner::new(urgency, super::PATIENCE * 3)
}

// === impl Inner ===

impl Inner {
    pub(super) async fn restore(&self, published: &[Published]) -> Result<(), ProviderError> {
        let client = self.client().await?;
        let found = self.look_around(client, Urgency::Service).await;
        let mut found = found.map_err(|why| error(&why))?;
        self.forget_tags();
        for record in found.records.values_mut() {
            for one in published {
                if record.members.contains(&one.id) {
                    record.publishes(&one.hostnames);
                }
            }
        }
        info!(
            class = self.mark.class,
            load_balancers = found.records.len(),
            "read the load balancers of this class"
        );
        for record in found.records.values() {
            self.note(record);
        }
        self.network().restore(found.backend.as_ref());
        let settled = found
            .backend
            .and_then(|(_, mut tags)| tags.remove(super::targets::SETTLED));
        self.targets().found(settled);
        self.records.replace(found.records);
        self.records.meet(found.strangers);
        Ok(())
    }

    /// Names, tags and states of everything of this class.
    pub(super) async fn look_around(
        &self,
        client: &Client,
        urgency: Urgency,
    ) -> Result<Inventory, CallError> {
        let balancers = client.all_load_balancers(manner(urgency)).await?;
        // One that was taken over has another name.
        let balancers: Vec<_> = balancers.into_iter().filter(|one| one.network).collect();
        let groups = client.all_target_groups(manner(urgency)).await?;
        let groups: Vec<_> = groups
            .into_iter()
            .filter(|one| is_ours(&one.name))
            .collect();
        let arns = balancers.iter().map(|one| one.arn.clone());
        let arns: Vec<String> = arns
            .chain(groups.iter().map(|one| one.arn.clone()))
            .collect();
        let mut tags = match urgency {
            Urgency::Background => tags_of_all(client, &arns, urgency).await?,
            Urgency::Service | Urgency::Traffic => self.tags_at_start(client, &arns).await?,
        };
        let security = self.own_security_groups(client, None, urgency).await?;
        let mut all = Inventory {
            records: BTreeMap::new(),
            backend: None,
            strangers: BTreeSet::new(),
        };
        let backend = self.backend_name();
        for group in security {
            if group.name == backend {
                all.backend = Some((group.id, group.tags));
            } else if let Some(record) = all.record(&group.tags) {
                let (name, there) = security_group(group);
                record.observed.groups.insert(name, there);
            }
        }
        for one in balancers {
            let tags = tags.remove(&one.arn).unwrap_or_default();
            if !self.mark.owns(&tags) {
                all.stranger(one.name, &tags);
                continue;
            }
            if let Some(record) = all.record(&tags) {
                let name = one.name.clone();
                record
                    .observed
                    .load_balancers
                    .insert(name, load_balancer(one, tags));
            }
        }
        for one in groups {
            let tags = tags.remove(&one.arn).unwrap_or_default();
            if !self.mark.owns(&tags) {
                all.stranger(one.name, &tags);
                continue;
            }
            if let Some(record) = all.record(&tags)
                && let Some((name, group)) = target_group(one, tags)
            {
                record.observed.target_groups.insert(name, group);
            }
        }
        for record in all.records.values_mut() {
            record.members = members(&record.observed);
        }
        Ok(all)
    }

    /// Everything of one load balancer, read in full under all names that are known or follow from it. What somebody
    /// else has of such a name is in nobody's way until it is needed ([`Record::foreign`]).
    pub(super) async fn read(
        &self,
        client: &Client,
        record: &mut Record,
        urgency: Urgency,
    ) -> Result<(), ProviderError> {
        let key = record.key.clone();
        let schemes = [Scheme::Internal, Scheme::InternetFacing];
        let named = schemes.map(|scheme| crate::desired::name(&self.mark, &key, scheme));
        let known = record.observed.load_balancers.keys();
        let known = known.chain(&record.tried.load_balancers).cloned();
        let balancers: BTreeSet<String> = known.chain(named).collect();
        let known = record.observed.target_groups.keys();
        let groups: BTreeSet<&String> = known.chain(&record.tried.target_groups).collect();
        let known = record.observed.load_balancers.values();
        let listeners = known.map(|one| {
            let arns = one.listeners.values().map(|it| it.arn.clone());
            (one.arn.clone(), arns.collect())
        });
        let wanted = Names {
            listeners: listeners.collect(),
            load_balancers: balancers.into_iter().collect(),
            target_groups: groups.into_iter().cloned().collect(),
            security_groups: record.tried.security_groups.iter().cloned().collect(),
            as_own: None,
        };
        let Seen {
            observed,
            answers,
            tried,
            foreign,
        } = self.read_named(client, &key, &wanted, urgency).await?;
        record.observed = observed;
        record.depth = Depth::Full;
        record.reaches(Extent::Named);
        record.targets_known = true;
        record.heard(&answers, Instant::now());
        let asked = wanted.load_balancers.iter().chain(&wanted.target_groups);
        for name in asked.filter(|name| !foreign.contains_key(*name)) {
            self.records.is_free(name);
        }
        record.tried = tried;
        record.foreign = foreign;
        // No list has shown it, or the call that marks it as kept had no answer.
        let mut tags = record.observed.tags_mut();
        record.retained |= tags.any(|(_, tags)| tags.contains_key(RETAINED));
        Ok(())
    }

    /// A load balancer that a Service may take over, as if that were so.
    pub(super) async fn read_as_own(
        &self,
        client: &Client,
        key: &Key,
        adopted: &Adopted,
        marks: &Tags,
        urgency: Urgency,
    ) -> Result<Observed, ProviderError> {
        let names = Names {
            load_balancers: vec![adopted.name.clone()],
            target_groups: Vec::new(),
            listeners: BTreeMap::new(),
            security_groups: Vec::new(),
            as_own: Some(adopted.arn.clone()),
        };
        let mut seen = self.read_named(client, key, &names, urgency).await?;
        for (_, tags) in seen.observed.tags_mut() {
            tags.extend(marks.clone());
        }
        Ok(seen.observed)
    }

    async fn read_named(
        &self,
        client: &Client,
        key: &Key,
        names: &Names,
        urgency: Urgency,
    ) -> Result<Seen, ProviderError> {
        let failed = |why: CallError| error(&why);
        let balancers = client
            .load_balancers_named(&names.load_balancers, manner(urgency))
            .await;
        let balancers = balancers.map_err(failed)?;
        let groups = client
            .target_groups_named(&names.target_groups, manner(urgency))
            .await;
        let groups = groups.map_err(failed)?;
        let mut listeners: BTreeMap<String, Vec<values::Listener>> = BTreeMap::new();
        for one in &balancers {
            let known = names.listeners.get(&one.arn);
            let those = listeners_of(client, &one.arn, known, urgency).await;
            let (those, _) = those.map_err(failed)?;
            listeners.insert(one.arn.clone(), those);
        }
        let arns = balancers.iter().map(|one| one.arn.clone());
        let arns: Vec<String> = arns
            .chain(groups.iter().map(|one| one.arn.clone()))
            .chain(listeners.values().flatten().map(|one| one.arn.clone()))
            .collect();
        let mut tags = client.tags(&arns, manner(urgency)).await.map_err(failed)?;
        let mut observed = Observed::default();
        let (mut tried, mut foreign) = (Tried::default(), BTreeMap::new());
        for one in balancers {
            let own = tags.remove(&one.arn).unwrap_or_default();
            let as_own = names.as_own.as_ref() == Some(&one.arn);
            if let Err(why) = self.must_own(&own, key, "load balancer", &one.name, &one.arn)
                && !as_own
            {
                foreign.insert(one.name.clone(), why);
                tried.load_balancers.insert(one.name);
                continue;
            }
            let name = one.name.clone();
            let mut there = load_balancer(one, own);
            let those = listeners.remove(&there.arn).unwrap_or_default();
            let those = those.into_iter().filter_map(|one| {
                let own = tags.remove(&one.arn).unwrap_or_default();
                listener(one, own)
            });
            there.listeners = those.collect();
            observed.load_balancers.insert(name, there);
        }
        for one in groups {
            let tags = tags.remove(&one.arn).unwrap_or_default();
            if let Err(why) = self.must_own(&tags, key, "target group", &one.name, &one.arn) {
                foreign.insert(one.name.clone(), why);
                tried.target_groups.insert(one.name);
                continue;
            }
            observed.target_groups.extend(target_group(one, tags));
        }
        let read = rest(client, &mut observed, true, urgency).await;
        let (_, answers) = read.map_err(failed)?;
        let security = self.own_security_groups(client, Some(key), urgency).await;
        let backend = self.backend_name();
        for group in security.map_err(failed)? {
            if group.name != backend {
                let (name, there) = security_group(group);
                observed.groups.insert(name, there);
            }
        }
        if !names.security_groups.is_empty() {
            let vpc = self.vpc(client).await?;
            let filters = [
                Filter::new("vpc-id", [vpc]),
                Filter::new("group-name", names.security_groups.iter().cloned()),
            ];
            let taken = client.security_groups(&filters, manner(urgency)).await;
            for one in taken.map_err(failed)? {
                if let Err(why) =
                    self.must_own(&one.tags, key, "security group", &one.name, &one.id)
                {
                    foreign.insert(one.name.clone(), why);
                    tried.security_groups.insert(one.name);
                }
            }
        }
        Ok(Seen {
            observed,
            answers,
            tried,
            foreign,
        })
    }

    /// The security groups of this class, or of one of its load balancers.
    pub(super) async fn own_security_groups(
        &self,
        client: &Client,
        of: Option<&Key>,
        urgency: Urgency,
    ) -> Result<Vec<values::SecurityGroup>, CallError> {
        let mut filters = vec![
            Filter::tag(CLUSTER, [self.mark.cluster.as_str()]),
            Filter::tag(CLASS, [self.mark.class.as_str()]),
        ];
        filters.extend(of.map(|key| match key {
            Key::Service(uid) => Filter::tag(SERVICE_UID, [uid.to_string()]),
            Key::Shared(text) => Filter::tag(SHARE_KEY, [text.to_string()]),
        }));
        let all = client.security_groups(&filters, manner(urgency)).await?;
        // Filters have wildcards; UIDs, share keys and names of classes have none, and nothing relies on it.
        let mine = all.into_iter().filter(|group| {
            let same = of.is_none_or(|key| key_of(&group.tags).as_ref() == Some(key));
            same && self.mark.owns(&group.tags)
        });
        Ok(mine.collect())
    }

    fn must_own(
        &self,
        tags: &Tags,
        key: &Key,
        kind: &str,
        name: &str,
        arn: &str,
    ) -> Result<(), ProviderError> {
        // What belongs to other Services of the class is no less foreign.
        if self.mark.owns(tags) && key_of(tags).as_ref() == Some(key) {
            return Ok(());
        }
        warn!(
            name,
            arn, "a {kind} has a name of this class and not its tags"
        );
        Err(ProviderError::transient(format!(
            "the {kind} {arn} has the name that this Service needs, and not Ballast's tags of this cluster and class. Ballast does not touch it: delete it, or give it its tags back"
        )))
    }
}

/// Whether a name has the form of [`Mark::name_of`]. Whose it is only the tags say.
pub(super) fn is_ours(name: &str) -> bool {
    name.strip_prefix(NAMES)
        .is_some_and(|rest| rest.starts_with('-'))
}

// === impl Inventory ===

impl Inventory {
    /// The record of the load balancer that these tags name.
    fn record(&mut self, tags: &Tags) -> Option<&mut Record> {
        let key = key_of(tags)?;
        let made = || Record {
            depth: Depth::Names,
            targets_known: false,
            ..Record::empty(key.clone())
        };
        let record = self.records.entry(key.clone()).or_insert_with(made);
        record.retained |= tags.contains_key(RETAINED);
        Some(record)
    }

    /// What belongs to another class or cluster has other names than ours.
    fn stranger(&mut self, name: String, tags: &Tags) {
        if is_ours(&name) && Mark::of(tags).is_none() {
            self.strangers.insert(name);
        }
    }
}

/// Reads the targets of a target group, and of the one that it is about. Returns those that get traffic, with their
/// health.
pub(super) async fn read_targets(
    client: &Client,
    one: &mut ObservedTargetGroup,
    manner: Manner,
) -> Result<Vec<TargetHealth>, CallError> {
    let own = client.target_health(&one.arn, manner).await?;
    one.targets = registered(one, &own);
    let Some(arn) = one.bound.as_ref().map(|bound| bound.arn.clone()) else {
        return Ok(own);
    };
    let theirs = match client.target_health(&arn, manner).await {
        Ok(theirs) => theirs,
        // Its owner has deleted it: nothing is registered there.
        Err(why) if why.cause == Cause::NotFound => Vec::new(),
        Err(why) => return Err(why),
    };
    let mut registered = registered(one, &theirs);
    registered.retain(|target| one.targets.contains(target));
    if let Some(bound) = &mut one.bound {
        bound.targets = registered;
    }
    Ok(theirs)
}
