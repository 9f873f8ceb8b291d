//! Lists what Ballast has in one region, of any cluster and class, for commands.

use ballast_provider::mark::{CLUSTER, key_of, service_of};
use ballast_provider::{Mark, Owned};

use super::inventory::{is_ours, manner};
use crate::client::values::{Filter, Tags};
use crate::client::{CallError, Client};
use crate::rate::Urgency;

/// Everything of any cluster and class in one region, for commands.
pub(super) async fn everything(client: &Client) -> Result<Vec<Owned>, CallError> {
    let mut all: Vec<(String, String)> = Vec::new();
    let balancers = client.all_load_balancers(manner(Urgency::Service)).await?;
    let balancers = balancers.into_iter().filter(|one| one.network);
    all.extend(balancers.map(|one| (one.arn, one.name)));
    let groups = client.all_target_groups(manner(Urgency::Service)).await?;
    let groups = groups.into_iter().filter(|one| is_ours(&one.name));
    all.extend(groups.map(|one| (one.arn, one.name)));
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

/// `None`: the tags name no cluster and class.
fn own(name: String, tags: Tags) -> Option<Owned> {
    Mark::of(&tags)?;
    Some(Owned {
        key: key_of(&tags),
        services: service_of(&tags).into_iter().collect(),
        name,
        tags,
    })
}
