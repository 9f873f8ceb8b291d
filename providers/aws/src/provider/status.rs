//! What a Service's status says of its load balancer. Pure.

use ballast_provider::{
    Address, ExtraCondition, ExtraKind, LoadBalancer, Observed, Reason, Refusal, State,
};

use crate::observed::{LoadBalancerState, ObservedLoadBalancer};
use crate::settings::Publish;

/// What is to be said beside the load balancer itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Words {
    pub(super) remarks: Vec<String>,
    pub(super) objection: Option<Refusal>,
    pub(super) health: Option<ExtraCondition>,
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
    let (state, serves) = match present.map(|one| one.state) {
        Some(LoadBalancerState::Active | LoadBalancerState::ActiveImpaired) if words.settles => {
            (provisioning(None), false)
        }
        Some(LoadBalancerState::Active | LoadBalancerState::ActiveImpaired) => {
            (State::Programmed, true)
        }
        Some(LoadBalancerState::Failed) => (failed(), false),
        Some(LoadBalancerState::Provisioning) | None => (provisioning(None), false),
    };
    let published = present.filter(|_| serves || publish == Publish::WhenCreated);
    Observed {
        ingress: service.ingress_at(published.map(|one| Address::Hostname(one.hostname.clone()))),
        state,
        objection: words.objection,
        remarks: words.remarks,
        // Nobody asks AWS about targets that do not change.
        unchanged: (words.health.is_none().then_some(ExtraKind::TargetsHealthy))
            .into_iter()
            .collect(),
        conditions: words.health.into_iter().collect(),
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

fn failed() -> State {
    State::Pending {
        reason: Reason::CloudError,
        message: "AWS could not make the load balancer. Ballast deletes it and tries again in some minutes".into(),
        retry_after: None,
    }
}
