//! Reads what lists do not say of load balancers: listeners, attributes, certificates and targets.

use std::collections::BTreeSet;

use futures::future::{BoxFuture, FutureExt};
use futures::stream::{self, StreamExt, TryStreamExt};
use tracing::debug;

use super::decode::listener;
use super::inventory::{manner, read_targets};
use super::records::Answers;
use crate::client::values::{self, TargetHealth};
use crate::client::{CallError, Cause, Client};
use crate::desired::{Addresses, Transport};
use crate::observed::{Arn, Observed, ObservedListener, ObservedLoadBalancer, ObservedTargetGroup};
use crate::rate::Urgency;
use crate::settings::attributes;

/// How many reads of one load balancer wait at a time for their place or their answer.
const AT_ONCE: usize = 8;

/// Reads what lists do not say: listeners, attributes, certificates and targets. Returns the number of calls, and
/// how the targets are. `reservations`: reads also whether capacity is reserved.
pub(super) async fn complete(
    client: &Client,
    observed: &mut Observed,
    reservations: bool,
    urgency: Urgency,
) -> Result<(u32, Answers), CallError> {
    let calls = listeners_of_all(client, observed, urgency).await?;
    let (more, answers) = rest(client, observed, reservations, urgency).await?;
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

/// Reads the rules of all listeners that can have any.
pub(super) async fn rules_of_all(
    client: &Client,
    observed: &mut Observed,
    urgency: Urgency,
) -> Result<(), CallError> {
    let balancers = observed.load_balancers.values_mut();
    let dual = balancers.filter(|one| one.addresses != Addresses::Ipv4);
    for one in dual.flat_map(|one| one.listeners.values_mut()) {
        let rules = client.rules(&one.arn, manner(urgency)).await?;
        one.rules = rules.into_iter().map(|it| (it.arn, it.rule)).collect();
    }
    Ok(())
}

/// Reads attributes, certificates and targets, several at a time. Returns the number of calls, and how the targets
/// are.
pub(super) async fn rest(
    client: &Client,
    observed: &mut Observed,
    reservations: bool,
    urgency: Urgency,
) -> Result<(u32, Answers), CallError> {
    let mut calls = 0;
    for there in observed.load_balancers.values_mut() {
        let attributes = client
            .load_balancer_attributes(&there.arn, manner(urgency))
            .await?;
        there.attributes = attributes::changed(attributes, &attributes::LOAD_BALANCER);
        calls += 1;
        // AWS reserves nothing before it is active.
        if reservations && there.serves() {
            reservation(client, there, urgency).await?;
            calls += 1;
        }
        let ipv6 = there.addresses != Addresses::Ipv4;
        let mut reads = vec![];
        for one in there.listeners.values_mut() {
            reads.push(listener_details(client, one, ipv6, urgency).boxed());
        }
        calls += several(reads).await?.into_iter().sum::<u32>();
    }
    let mut reads = vec![];
    for one in observed.target_groups.values_mut() {
        reads.push(target_group_details(client, one, urgency).boxed());
    }
    let answers: Answers = several(reads).await?.into_iter().collect();
    let groups = observed.target_groups.values();
    let reads = groups.map(|one| if one.bound.is_some() { 3 } else { 2 });
    let of_groups = reads.sum::<u32>();
    Ok((calls + of_groups, answers))
}

/// Reads so many things at a time that one with many ports is read within a turn.
async fn several<T>(reads: Vec<BoxFuture<'_, Result<T, CallError>>>) -> Result<Vec<T>, CallError> {
    stream::iter(reads).buffered(AT_ONCE).try_collect().await
}

/// `ipv6`: reads rules, too; other load balancers have none. Returns the number of calls.
async fn listener_details(
    client: &Client,
    one: &mut ObservedListener,
    ipv6: bool,
    urgency: Urgency,
) -> Result<u32, CallError> {
    let mut calls = 0;
    if ipv6 {
        let rules = client.rules(&one.arn, manner(urgency)).await?;
        one.rules = rules.into_iter().map(|it| (it.arn, it.rule)).collect();
        calls += 1;
    }
    if one.tls.is_some() {
        one.sni = client
            .listener_certificates(&one.arn, manner(urgency))
            .await?;
        return Ok(calls + 1);
    }
    if one.transport != Transport::Tcp {
        return Ok(calls);
    }
    let attributes = client
        .listener_attributes(&one.arn, manner(urgency))
        .await?;
    one.attributes = attributes::changed(attributes, &attributes::LISTENER);
    Ok(calls + 1)
}

/// Takes two calls.
async fn target_group_details(
    client: &Client,
    one: &mut ObservedTargetGroup,
    urgency: Urgency,
) -> Result<(Arn, Vec<TargetHealth>), CallError> {
    let attributes = client
        .target_group_attributes(&one.arn, manner(urgency))
        .await?;
    one.attributes = attributes::changed(attributes, &attributes::TARGET_GROUP);
    let targets = read_targets(client, one, manner(urgency)).await?;
    Ok((one.served().clone(), targets))
}

/// Reads the capacity that is reserved. Whoever may not read it, or has a cloud that knows no such thing, has
/// everything else all the same.
async fn reservation(
    client: &Client,
    there: &mut ObservedLoadBalancer,
    urgency: Urgency,
) -> Result<(), CallError> {
    match client
        .capacity_reservation(&there.arn, manner(urgency))
        .await
    {
        Ok(found) => there.reservation = found,
        Err(why) if matches!(why.cause, Cause::Denied | Cause::Invalid) => {
            debug!(error = %why, arn = there.arn, "cannot read which capacity is reserved");
        }
        Err(why) => return Err(why),
    }
    Ok(())
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
