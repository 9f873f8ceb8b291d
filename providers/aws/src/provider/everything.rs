//! Lists what Ballast has in one region, of any cluster and class: for commands, and for the class that looks for
//! load balancers without a Service. Reads whether something of it serves.

use std::collections::BTreeSet;

use ballast_provider::mark::{CLASS, CLUSTER, PREFIX, SERVICE};
use ballast_provider::{Billed, Kind, Life, Owned};

use super::inventory::{is_ours, manner};
use super::tags::tags_of_all;
use crate::client::values::{Filter, Health, LoadBalancer, Tags};
use crate::client::{CallError, Cause, Client};
use crate::observed::Arn;
use crate::rate::Urgency;
use crate::settings::Scheme;
use crate::settings::attributes::DELETION_PROTECTION;
use crate::target::TargetId;

/// Everything with a tag of Ballast's, of any cluster and class. Each call waits for itself, because there may be
/// hundreds.
pub(super) async fn everything(client: &Client, urgency: Urgency) -> Result<Vec<Owned>, CallError> {
    let balancers = client.all_load_balancers(manner(urgency)).await?;
    let balancers = balancers.into_iter().filter(|one| one.network);
    let balancers = balancers.map(|one| (billed(&one), Kind::LoadBalancer, one.arn, one.name));
    let groups = client.all_target_groups(manner(urgency)).await?;
    let groups = groups.into_iter().filter(|one| is_ours(&one.name));
    let groups = groups.map(|one| (Billed::default(), Kind::TargetGroup, one.arn, one.name));
    let all: Vec<(Billed, Kind, Arn, String)> = balancers.chain(groups).collect();
    let arns: Vec<Arn> = all.iter().map(|(_, _, arn, _)| arn.clone()).collect();
    let mut tags = tags_of_all(client, &arns, urgency).await?;
    let tagged = all.into_iter().map(|(billed, kind, arn, name)| {
        let tags = tags.remove(&arn).unwrap_or_default();
        Owned {
            billed,
            ..Owned::new(kind, arn, name, tags)
        }
    });
    let mut tagged: Vec<Owned> = tagged.collect();
    for key in [CLUSTER, CLASS, SERVICE] {
        // One that has lost one of them is listed by the others.
        let groups = client
            .security_groups(&[Filter::tag_key(key)], manner(urgency))
            .await?;
        for one in groups {
            if !tagged.iter().any(|known| known.id == one.id) {
                tagged.push(Owned::new(Kind::SecurityGroup, one.id, one.name, one.tags));
            }
        }
    }
    tagged.retain(|one| one.tags.keys().any(|key| key.starts_with(PREFIX)));
    Ok(tagged)
}

/// An internet-facing load balancer has a public IPv4 address in each zone.
fn billed(of: &LoadBalancer) -> Billed {
    let zones = u32::try_from(of.zones.len()).unwrap_or(u32::MAX);
    Billed {
        load_balancers: 1,
        public_addresses: match of.scheme {
            Scheme::InternetFacing => zones,
            Scheme::Internal => 0,
        },
    }
}

/// The number of the account, as far as an ARN in the region says it.
pub(super) async fn account(client: &Client) -> Result<Option<String>, CallError> {
    let balancers = client.all_load_balancers(manner(Urgency::Service)).await?;
    let mut arns: Vec<String> = balancers.into_iter().map(|one| one.arn).collect();
    if arns.is_empty() {
        let groups = client.all_target_groups(manner(Urgency::Service)).await?;
        arns = groups.into_iter().map(|one| one.arn).collect();
    }
    // arn:aws:elasticloadbalancing:REGION:ACCOUNT:…
    let account = arns.first().and_then(|arn| arn.split(':').nth(4));
    Ok(account.map(str::to_owned))
}

/// The tags of one object. `None`: it is gone.
pub(super) async fn tags(client: &Client, object: &Owned) -> Result<Option<Tags>, CallError> {
    let manner = manner(Urgency::Service);
    if object.kind == Kind::SecurityGroup {
        let filters = [Filter::new("group-id", [object.id.as_str()])];
        let groups = client.security_groups(&filters, manner).await?;
        return Ok(groups.into_iter().next().map(|one| one.tags));
    }
    match client.tags(std::slice::from_ref(&object.id), manner).await {
        Ok(mut tags) => Ok(tags.remove(&object.id)),
        Err(why) if why.cause == Cause::NotFound => Ok(None),
        Err(why) => Err(why),
    }
}

/// Whether a load balancer serves: a target is healthy, or is an instance that runs.
pub(super) async fn life(client: &Client, object: &Owned) -> Result<Life, CallError> {
    if object.kind != Kind::LoadBalancer {
        return Ok(Life::Silent);
    }
    let manner = || manner(Urgency::Service);
    let groups = client.target_groups_behind(&object.id, manner()).await?;
    let mut instances = BTreeSet::new();
    for group in groups {
        let targets = client.target_health(&group.arn, manner()).await?;
        for one in targets {
            if one.health == Health::Healthy {
                return Ok(Life::Serves(format!(
                    "the target {} is healthy",
                    one.target
                )));
            }
            if one.health == Health::Unavailable {
                return Ok(Life::Runs(format!(
                    "AWS does not know how its target {} is",
                    one.target
                )));
            }
            if let TargetId::Instance(id) | TargetId::InstanceAt(id, _) = one.target {
                instances.insert(id);
            }
        }
    }
    if !instances.is_empty() {
        let filters = [
            Filter::new("instance-id", instances),
            Filter::new("instance-state-name", ["pending", "running"]),
        ];
        let running = client.instances(&filters, manner()).await?;
        if let Some(one) = running.first() {
            return Ok(Life::Runs(format!("its target {} runs", one.id)));
        }
    }
    let attributes = match client.load_balancer_attributes(&object.id, manner()).await {
        Ok(attributes) => attributes,
        Err(why) if why.cause == Cause::NotFound => return Ok(Life::Silent),
        Err(why) => return Err(why),
    };
    let protected = attributes
        .get(DELETION_PROTECTION)
        .is_some_and(|it| it == "true");
    Ok(if protected {
        Life::Protected(format!("AWS protects it: {DELETION_PROTECTION} is true"))
    } else {
        Life::Silent
    })
}
