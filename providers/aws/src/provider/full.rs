//! Reads what lists do not say of load balancers: listeners, attributes, certificates and targets.

use std::collections::BTreeSet;

use super::inventory::{listener, manner, registered};
use super::records::Answers;
use crate::client::values;
use crate::client::{CallError, Client};
use crate::desired::Transport;
use crate::observed::{Arn, Observed};
use crate::rate::Urgency;
use crate::settings::attributes;

/// Reads what lists do not say: listeners, attributes, certificates and targets. Returns the number of calls, and
/// how the targets are.
pub(super) async fn complete(
    client: &Client,
    observed: &mut Observed,
    urgency: Urgency,
) -> Result<(u32, Answers), CallError> {
    let calls = listeners_of_all(client, observed, urgency).await?;
    let (more, answers) = rest(client, observed, urgency).await?;
    Ok((calls + more, answers))
}

/// Reads the listeners of all load balancers, with their tags. Returns the number of calls.
pub(super) async fn listeners_of_all(
    client: &Client,
    observed: &mut Observed,
    urgency: Urgency,
) -> Result<u32, CallError> {
    let mut calls = 0;
    for there in observed.load_balancers.values_mut() {
        let known = there.listeners.values().map(|one| one.arn.clone());
        let known: BTreeSet<Arn> = known.collect();
        let (listeners, more) = listeners_of(client, &there.arn, Some(&known), urgency).await?;
        calls += more;
        let arns: Vec<String> = listeners.iter().map(|one| one.arn.clone()).collect();
        let mut tags = client.tags(&arns, manner(urgency)).await?;
        let listeners = listeners.into_iter().filter_map(|one| {
            let own = tags.remove(&one.arn).unwrap_or_default();
            listener(one, own)
        });
        there.listeners = listeners.collect();
        calls += 2;
    }
    Ok(calls)
}

/// Reads attributes, certificates and targets. Returns the number of calls, and how the targets are.
pub(super) async fn rest(
    client: &Client,
    observed: &mut Observed,
    urgency: Urgency,
) -> Result<(u32, Answers), CallError> {
    let mut calls = 0;
    let mut answers = Answers::new();
    for there in observed.load_balancers.values_mut() {
        let attributes = client
            .load_balancer_attributes(&there.arn, manner(urgency))
            .await?;
        there.attributes = attributes::changed(attributes, &attributes::LOAD_BALANCER);
        calls += 1;
        for one in there.listeners.values_mut() {
            if one.tls.is_some() {
                one.sni = client
                    .listener_certificates(&one.arn, manner(urgency))
                    .await?;
                calls += 1;
            } else if one.transport == Transport::Tcp {
                let attributes = client
                    .listener_attributes(&one.arn, manner(urgency))
                    .await?;
                one.attributes = attributes::changed(attributes, &attributes::LISTENER);
                calls += 1;
            }
        }
    }
    for there in observed.target_groups.values_mut() {
        let attributes = client
            .target_group_attributes(&there.arn, manner(urgency))
            .await?;
        there.attributes = attributes::changed(attributes, &attributes::TARGET_GROUP);
        let targets = client.target_health(&there.arn, manner(urgency)).await?;
        there.targets = registered(&targets);
        answers.insert(there.arn.clone(), targets);
        calls += 2;
    }
    Ok((calls, answers))
}

/// The listeners of a load balancer: those that a list shows, and those that are known. The list may lag behind
/// what this process has just made. Also the number of calls beyond the first one.
pub(super) async fn listeners_of(
    client: &Client,
    load_balancer: &str,
    known: Option<&BTreeSet<Arn>>,
    urgency: Urgency,
) -> Result<(Vec<values::Listener>, u32), CallError> {
    let mut all = client.listeners(load_balancer, manner(urgency)).await?;
    let unseen = known.into_iter().flatten();
    let unseen = unseen.filter(|arn| all.iter().all(|one| one.arn != **arn));
    let unseen: Vec<Arn> = unseen.cloned().collect();
    if unseen.is_empty() {
        return Ok((all, 0));
    }
    all.extend(client.listeners_with(&unseen, manner(urgency)).await?);
    Ok((all, 1))
}
