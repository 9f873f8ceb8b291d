//! What a Service's status says of its load balancer. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use ballast_provider::{
    Address, ExtraCondition, ExtraKind, LoadBalancer, Observed, ProviderError, Reason, Refusal,
    State,
};

use crate::client::stable;
use crate::observed::{LoadBalancerState, ObservedLoadBalancer};
use crate::settings::Publish;

/// When to try again what AWS has refused one Service of several.
const RETRY: Duration = Duration::from_mins(1);

/// What is to be said beside the load balancer itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Words {
    pub(super) remarks: Vec<String>,
    pub(super) objection: Option<Refusal>,
    pub(super) health: Option<ExtraCondition>,
    /// The pods that are healthy targets, if pods are targets and somebody knows.
    pub(super) healthy: Option<BTreeSet<IpAddr>>,
    /// The name of the load balancer that serves until the one that replaces it does.
    pub(super) stand_in: Option<String>,
    /// The load balancer has become active a moment ago, and AWS still examines its targets.
    pub(super) settles: bool,
}

/// The status of a Service whose load balancer has everything.
pub(super) fn observed(
    service: &LoadBalancer,
    present: Option<&ObservedLoadBalancer>,
    publish: Publish,
    words: Words,
) -> Observed {
    let reason = present.and_then(|one| one.reason.as_deref());
    let (state, serves) = match present.map(|one| one.state) {
        Some(LoadBalancerState::Active | LoadBalancerState::ActiveImpaired) if words.settles => {
            (provisioning(None), false)
        }
        Some(LoadBalancerState::Active | LoadBalancerState::ActiveImpaired) => {
            (State::Programmed, true)
        }
        Some(LoadBalancerState::Failed) => (failed(reason), false),
        Some(LoadBalancerState::Provisioning) | None => (provisioning(None), false),
    };
    let mut remarks = words.remarks;
    if present.is_some_and(|one| one.state == LoadBalancerState::ActiveImpaired) {
        let reason = reason.map_or_else(|| "it gives no reason".into(), stable);
        remarks.push(format!("AWS cannot scale the load balancer: {reason}"));
    }
    let published = present.filter(|_| serves || publish == Publish::WhenCreated);
    let hostname = words
        .stand_in
        .or_else(|| published.map(|one| one.hostname.clone()));
    Observed {
        ingress: service.ingress_at(hostname.map(Address::Hostname)),
        state,
        objection: words.objection,
        remarks,
        // Nobody asks AWS about targets that do not change. A load balancer that does not serve yet has
        // no healthy targets, whatever was said of the one that it replaces.
        unchanged: (words.health.is_none() && serves)
            .then_some(ExtraKind::TargetsHealthy)
            .into_iter()
            .collect(),
        conditions: words.health.into_iter().collect(),
        healthy: words.healthy,
    }
}

/// The status of a Service whose targets are in target groups of others, with the names of their load balancers.
/// `unused`: one that no load balancer uses.
pub(super) fn bound(
    service: &LoadBalancer,
    hostnames: impl Iterator<Item = String>,
    unused: Option<&str>,
    words: Words,
) -> Observed {
    let state = match unused {
        None => State::Programmed,
        Some(arn) => State::Pending {
            reason: Reason::Provisioning,
            message: format!(
                "no load balancer sends to the target group {arn} yet; whoever owns it adds it to a listener"
            ),
            retry_after: Some(RETRY),
        },
    };
    Observed {
        ingress: service.ingress_at(hostnames.map(Address::Hostname)),
        state,
        objection: words.objection,
        remarks: words.remarks,
        unchanged: (words.health.is_none())
            .then_some(ExtraKind::TargetsHealthy)
            .into_iter()
            .collect(),
        conditions: words.health.into_iter().collect(),
        healthy: words.healthy,
    }
}

/// The status of a Service whose load balancer exists and lacks something: the rest follows at
/// once.
pub(super) fn halfway(
    service: &LoadBalancer,
    present: Option<&ObservedLoadBalancer>,
    publish: Publish,
    words: Words,
) -> Observed {
    let mut observed = observed(service, present, publish, words);
    observed.state = provisioning(Some(std::time::Duration::ZERO));
    observed
}

/// The state of a Service that AWS refuses something, while it serves others on the same load balancer.
pub(super) fn refused(why: &ProviderError) -> State {
    State::Pending {
        reason: why.reason(),
        message: why.to_string(),
        retry_after: Some(RETRY),
    }
}

/// Whether it is such a status.
pub(super) fn is_halfway(observed: &Observed) -> bool {
    matches!(observed.state, State::Pending { retry_after: Some(after), .. } if after.is_zero())
}

/// AWS needs minutes; whoever follows the changes hears of the end.
fn provisioning(retry_after: Option<std::time::Duration>) -> State {
    State::Pending {
        reason: Reason::Provisioning,
        message: "AWS provisions the load balancer, which takes a few minutes".into(),
        retry_after,
    }
}

fn failed(reason: Option<&str>) -> State {
    let reason = reason.map_or_else(|| "it gives no reason".into(), stable);
    State::Pending {
        reason: Reason::CloudError,
        message: format!(
            "AWS could not make the load balancer: {reason}. Ballast deletes it and tries again in some minutes"
        ),
        retry_after: None,
    }
}
