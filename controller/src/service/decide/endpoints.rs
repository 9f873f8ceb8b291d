//! A Service as a member of a balancer, and the pods behind it: whether its provider needs them,
//! and what happens before they are known. Pure.

use std::time::Duration;

use ballast_provider::{LoadBalancer, Member, Placement, Provider, Reason, Refusal};

use super::{Decision, World};
use crate::class::uses_endpoints;
use crate::cluster::endpoints::Known;
use crate::cluster::namespaces;
use crate::cluster::view::ServiceView;
use crate::service::group::Group;

/// How long a Service waits for the list of slices before it looks whether that failed.
const LIST_RETRY: Duration = Duration::from_secs(1);

/// A Service as a member of a balancer.
pub(super) fn member(
    service: &ServiceView,
    wanted: &LoadBalancer,
    provider: &dyn Provider,
    world: &World<'_>,
) -> Member {
    let pods = uses_endpoints(provider, wanted);
    Member {
        endpoints: pods
            .then(|| world.endpoints.of(&service.id, wanted))
            .flatten(),
        ..bare_member(service, wanted, world)
    }
}

/// The same without the pods behind it, on which no validation depends.
pub(super) fn bare_member(
    service: &ServiceView,
    wanted: &LoadBalancer,
    world: &World<'_>,
) -> Member {
    Member {
        load_balancer: wanted.clone(),
        published: service.addresses(),
        placement: Placement {
            namespace_labels: namespaces::labels(world.namespaces, &service.id.namespace),
            ..service.placement.clone()
        },
        endpoints: None,
    }
}

/// Whether a provider would miss the pods of a member: without them it would remove targets.
pub(super) fn lacks_endpoints(group: &Group, provider: &dyn Provider) -> bool {
    let mut members = group.balancer.members.iter().chain(
        group
            .fallbacks
            .iter()
            .flat_map(|balancer| &balancer.members),
    );
    members.any(|it| it.endpoints.is_none() && uses_endpoints(provider, &it.load_balancer))
}

/// The end of the list wakes the Services that wait for it.
pub(super) fn wait_for_endpoints(class: &str, world: &World<'_>) -> Decision {
    match world.endpoints.known() {
        Known::Listed | Known::Soon => Decision::Later(LIST_RETRY),
        Known::Failing(why) => Decision::Wait {
            class: class.to_owned(),
            why: Some(Refusal::new(
                Reason::ClassNotReady,
                format!(
                    "the targets are pods, and the controller cannot list what is behind Services: {why}"
                ),
            )),
            drained: None,
        },
    }
}
