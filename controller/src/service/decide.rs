//! Chooses the next step for one Service. Nothing else chooses.
//!
//! [`decide`] does no I/O and reads no clock. It reads the stores and the ledger, which
//! other workers can change at the same time (each behind a lock that is never held across
//! an await). What it reads of one balancer does not change, because the caller holds the
//! lock of that balancer ([`crate::service::perform::KeyLocks`]).
//! [`crate::service::perform`] performs the step, and the change that it makes leads to the
//! next decision. After a crash between two steps, the next decision is the same step again:
//!
//! ```text
//!             claimed                 not claimed
//!  ┌────────┐ ───────▶ ┌────────────┐ ──────────▶ ┌─────────┐
//!  │ Ignore │          │   Ensure   │             │ Release │──▶ Ignore / Clean
//!  └────────┘ ◀─────── └────────────┘ ◀────────── └─────────┘
//!                        │  ▲    │  ▲ claimed again    ▲
//!           not accepted ▼  │    ▼  │ class is ready   │ drained, other class,
//!                      Refuse   Wait                   │ deleted
//! ```
//!
//! Objects of several kinds that are created together arrive in any order, because each
//! kind has its own watch. A Service whose class is missing is refused only after
//! [`ARRIVAL_GRACE`] (`Later`); until then nothing is written. [`lacks_pool`] is the same for
//! pools, which only the provider knows.

mod endpoints;
mod keep;
mod quota;
mod share;

use std::sync::Arc;
use std::time::Duration;

use ballast_crds::class_key;
use ballast_provider::{Balancer, Key, Provider, Reason, Refusal, Removal, Traits};

use crate::class::{ClassView, Classes, Instance};
use crate::cluster::conditions::{ACCEPTED, PROGRAMMED};
use crate::cluster::endpoints::Endpoints;
use crate::cluster::ledger::Ledger;
use crate::cluster::namespaces::{self, Namespaces};
use crate::cluster::view::ServiceView;
use crate::process::text;
use crate::service::group::{Declined, Group};

use self::endpoints::{lacks_endpoints, wait_for_endpoints};
use self::keep::keep;
use self::quota::quota;
pub use self::quota::quota_exceeded;
use self::share::{balancer, without_foreign_addresses};

/// How long a Service waits for a watch to deliver a class or a pool that is missing.
pub const ARRIVAL_GRACE: Duration = Duration::from_secs(2);

/// The reasons with which a Service is refused for something that another Service has.
const BLOCKS: [Reason; 2] = [Reason::PortInUse, Reason::AddressInUse];

/// The reasons with which a Service is refused because no pool can serve it.
const OF_POOLS: [Reason; 6] = [
    Reason::NoPool,
    Reason::PoolNotFound,
    Reason::PoolConflict,
    Reason::PoolNotPermitted,
    Reason::NoAddressAvailable,
    Reason::AddressOutsidePool,
];

/// One step for one Service.
#[derive(Clone)]
pub enum Decision {
    /// Not ours, or nothing to do.
    Ignore,
    /// Not ours any more: remove what we wrote to its status.
    Clean,
    /// Decide again after this time. Write nothing until then.
    Later(Duration),
    /// Release what this class has for the Service, then remove its finalizers.
    Release {
        /// The class that has something for it.
        class: String,
        /// How to reach its cloud.
        provider: Arc<dyn Provider>,
        /// The balancers that it is on, or may be on.
        keys: Vec<Key>,
        /// What becomes of the cloud objects.
        removal: Removal,
        /// The reason, if the Service stays because only its class is drained.
        drained: Option<Refusal>,
    },
    /// No retry helps; only a change of the Service or its class does. The existing load
    /// balancer stays and follows the node ports of the Service, because they are targets.
    Refuse {
        /// What is wrong.
        refusal: Refusal,
        /// The existing load balancer.
        keep: Option<Keep>,
        /// Another Service was preferred, and may not get what it was preferred for.
        provisional: bool,
    },
    /// Nothing can be done now. When the missing thing arrives, it wakes the Service.
    Wait {
        /// The class that is waited for.
        class: String,
        /// The reason for the condition. `None`: it takes only a moment; write nothing.
        why: Option<Refusal>,
        /// The class is drained, and `why` prevents the release.
        drained: Option<Refusal>,
    },
    /// Apply the desired state of its balancer and publish the result.
    Ensure {
        /// The class that serves it.
        class: String,
        /// How to reach its cloud.
        provider: Arc<dyn Provider>,
        /// The whole balancer, this Service among its members.
        balancer: Balancer,
        /// The same with less of the other members, in this order, if the provider refuses it.
        fallbacks: Vec<Balancer>,
        /// A request that cannot be met, and that the balancer does not have.
        objection: Option<Refusal>,
        /// Balancers that it is on and does not ask for any more. It leaves them when
        /// traffic flows through the new one.
        leaves: Vec<Key>,
        /// What becomes of cloud objects that it leaves.
        removal: Removal,
        /// The class's limit, for the reservation.
        max: Option<usize>,
    },
}

/// The part of a refused Service that was accepted before.
#[derive(Clone)]
pub struct Keep {
    /// The class that serves it.
    pub class: String,
    /// How to reach its cloud.
    pub provider: Arc<dyn Provider>,
    /// The Service with the ports that it publishes and its current node ports.
    pub balancer: Balancer,
    /// As in [`Decision::Ensure`].
    pub fallbacks: Vec<Balancer>,
}

/// All that a decision reads.
pub struct World<'a> {
    /// Classes and their providers.
    pub classes: &'a Classes,
    /// Which Services have a place in which class.
    pub ledger: &'a Ledger,
    /// Labels of namespaces, which select pools.
    pub namespaces: &'a Namespaces,
    /// The pods behind Services.
    pub endpoints: &'a Endpoints,
    /// Every Service; called only for quota and sharing.
    pub services: &'a dyn Fn() -> Vec<Arc<ServiceView>>,
    /// For how long this process has missed the class of the Service.
    pub class_missing_for: Duration,
}

/// The next step for a Service.
pub fn decide(service: &ServiceView, world: &World<'_>) -> Decision {
    if world.classes.may_claim(service) {
        return Decision::Ignore;
    }
    let claim = world.classes.claim(service);
    if let Some(class) = stale_holder(service, claim, world) {
        return release(service, &class, world, None);
    }
    match claim {
        Some(class) => match held_elsewhere(service, world) {
            Some(other) if !service.is_held_by(class) => wait_for_release(class, other),
            _ if lacks_class(service, world.classes) && world.class_missing_for < ARRIVAL_GRACE => {
                Decision::Later(ARRIVAL_GRACE.saturating_sub(world.class_missing_for))
            }
            _ => match world.classes.get(class).and_then(ClassView::drained) {
                Some(drained) => drain(service, class, drained, world),
                None => serve(service, class, world),
            },
        },
        None if service.conditions.is_empty() || belongs_to_another_scope(service, world) => {
            Decision::Ignore
        }
        None => Decision::Clean,
    }
}

/// Whether the class that is to serve the Service is missing, and the status of the Service
/// does not say so yet. Pure.
pub fn lacks_class(service: &ServiceView, classes: &Classes) -> bool {
    let missing = |class| classes.get(class).is_none();
    let refused = service.condition(ACCEPTED);
    classes.claim(service).is_some_and(missing)
        && refused.is_none_or(|it| it.reason != Reason::ClassNotFound.as_str())
}

/// Whether a provider refuses a Service, or a request of a served one, because of a pool, or
/// because of labels that a selector of a pool wants, and the status of the Service does not say
/// so yet: the missing object may be on its way. Pure.
pub fn lacks_pool(service: &ServiceView, traits: Traits, refusal: &Refusal) -> bool {
    let message = text::message(&refusal.message);
    let known = |kind| {
        let said = service.condition(kind);
        said.is_some_and(|it| it.reason == refusal.reason.as_str() && *it.message == *message)
    };
    traits.pools && OF_POOLS.contains(&refusal.reason) && !known(PROGRAMMED) && !known(ACCEPTED)
}

/// A class of another installation (with other `--classes`) that holds the Service.
fn held_elsewhere<'a>(service: &'a ServiceView, world: &World<'_>) -> Option<&'a str> {
    service
        .holders()
        .find(|class| !world.classes.scope.owns(class))
}

/// A Service has at most one load balancer.
fn wait_for_release(class: &str, other: &str) -> Decision {
    Decision::Wait {
        class: class.to_owned(),
        why: Some(Refusal::new(
            Reason::Releasing,
            format!(
                "LoadBalancerClass {other} served this Service before and has not released it yet"
            ),
        )),
        drained: None,
    }
}

/// A class that is drained creates no load balancers and releases existing ones.
fn drain(service: &ServiceView, class: &str, drained: Refusal, world: &World<'_>) -> Decision {
    // An address on a Service without a class and without our finalizer is not ours.
    let has = service.is_held_by(class)
        || world.ledger.has(&service.id, class)
        || (service.class.is_some() && !service.ingress.is_empty());
    if has {
        return release(service, class, world, Some(drained));
    }
    Decision::Refuse {
        refusal: drained,
        keep: None,
        provisional: false,
    }
}

/// Another installation writes its conditions.
fn belongs_to_another_scope(service: &ServiceView, world: &World<'_>) -> bool {
    let claimed_elsewhere = world
        .classes
        .claimant(service)
        .is_some_and(|class| !world.classes.scope.owns(class));
    held_elsewhere(service, world).is_some() || claimed_elsewhere
}

/// A class in scope that does not serve the Service and can have a load balancer for it:
/// there is its finalizer, or the ledger knows of it and somebody removed the finalizer.
fn stale_holder(service: &ServiceView, claim: Option<&str>, world: &World<'_>) -> Option<String> {
    let recorded = world.ledger.classes_of(&service.id);
    let held = service.held_by.iter().cloned().chain(recorded);
    let mut stale = held.filter(|class| Some(&**class) != claim);
    stale
        .find(|class| world.classes.scope.owns(class))
        .map(|class| (*class).to_owned())
}

fn release(
    service: &ServiceView,
    class: &str,
    world: &World<'_>,
    drained: Option<Refusal>,
) -> Decision {
    let classes = world.classes;
    let wait = |reason, message| Decision::Wait {
        class: class.to_owned(),
        why: Some(Refusal::new(reason, message)),
        drained: drained.clone(),
    };
    let Some(view) = classes.get(class) else {
        return wait(
            Reason::ClassNotFound,
            format!(
                "LoadBalancerClass {class} does not exist, so the load balancer of {} cannot be released; create the class again to release it",
                service.id
            ),
        );
    };
    if let Some(message) = view.unusable() {
        return wait(
            Reason::ClassNotReady,
            format!("LoadBalancerClass {class}: {message}"),
        );
    }
    if let Some(shared) = classes.refusal_of_a_copy(class) {
        return wait(shared.reason, shared.message);
    }
    match classes.instances.get(class) {
        // The survey wakes it.
        Some(Instance::Ready(_)) if !classes.is_surveyed(class) => Decision::Wait {
            class: class.to_owned(),
            why: classes.refusal_of_a_survey(class),
            drained,
        },
        Some(Instance::Ready(provider)) => Decision::Release {
            class: class.to_owned(),
            provider: Arc::clone(provider),
            keys: keys_of(service, class, provider.as_ref(), world.ledger),
            removal: view.removal,
            drained,
        },
        Some(Instance::Failing(reason, message)) => wait(*reason, message.clone()),
        None | Some(Instance::Starting) => Decision::Wait {
            class: class.to_owned(),
            why: None,
            drained,
        },
    }
}

/// The balancers that a Service of this class is on. If there is only a finalizer and no
/// record: the balancer that its spec asks for.
fn keys_of(
    service: &ServiceView,
    class: &str,
    provider: &dyn Provider,
    ledger: &Ledger,
) -> Vec<Key> {
    let mut keys = ledger.keys(&service.id, class);
    if keys.is_empty() {
        let asked = service.shapes().next().map(|wanted| provider.key(wanted));
        keys.push(asked.unwrap_or_else(|| Key::alone(&service.id)));
    }
    keys
}

fn serve(service: &ServiceView, class: &str, world: &World<'_>) -> Decision {
    match admit(service, class, world) {
        Ok(step) => step,
        Err(declined) => Decision::Refuse {
            keep: keep(service, class, world),
            refusal: declined.refusal,
            provisional: declined.provisional,
        },
    }
}

fn admit(service: &ServiceView, name: &str, world: &World<'_>) -> Result<Decision, Declined> {
    let class = usable(service, name, world.classes)?;
    let wanted = match &service.load_balancer {
        Some(Ok(wanted)) => wanted,
        Some(Err(refusal)) => return Err(refusal.clone().into()),
        None => return Ok(Decision::Ignore),
    };
    quota(service, class, world)?;
    let wait = |why| {
        Ok(Decision::Wait {
            class: name.to_owned(),
            why,
            drained: None,
        })
    };
    match world.classes.instances.get(name) {
        Some(Instance::Ready(_)) if !class.is_guarded() => wait(None),
        // Labels of the namespace select the pool, and a Service keeps its first address.
        Some(Instance::Ready(provider))
            if provider.traits().namespace_labels
                && !namespaces::is_known(world.namespaces, &service.id.namespace) =>
        {
            wait(None)
        }
        Some(Instance::Ready(provider)) => {
            let (wanted, objection) = without_foreign_addresses(service, wanted, class, world)?;
            let group = balancer(service, wanted, class, provider.as_ref(), world)?;
            if lacks_endpoints(&group, provider.as_ref()) {
                return Ok(wait_for_endpoints(name, world));
            }
            let Group {
                balancer,
                fallbacks,
            } = group;
            let mut leaves = world.ledger.keys(&service.id, name);
            leaves.retain(|key| *key != balancer.key);
            if balancer.deletes_nothing {
                leaves.clear();
            }
            Ok(Decision::Ensure {
                class: name.to_owned(),
                provider: Arc::clone(provider),
                balancer,
                fallbacks,
                objection,
                leaves,
                removal: class.removal,
                max: class.max,
            })
        }
        Some(Instance::Failing(reason, message)) => {
            wait(Some(Refusal::new(*reason, message.clone())))
        }
        None | Some(Instance::Starting) => wait(None),
    }
}

fn usable<'a>(
    service: &ServiceView,
    name: &str,
    classes: &'a Classes,
) -> Result<&'a ClassView, Refusal> {
    let Some(class) = classes.get(name) else {
        return Err(class_not_found(service, name, classes));
    };
    let refuse = |message| Err(Refusal::new(Reason::ClassNotReady, message));
    if let Some(message) = class.unusable() {
        return refuse(format!("LoadBalancerClass {name}: {message}"));
    }
    if class.deleting && !service.is_held_by(name) {
        return refuse(format!(
            "LoadBalancerClass {name} is being deleted and accepts no new Services"
        ));
    }
    Ok(class)
}

fn class_not_found(service: &ServiceView, name: &str, classes: &Classes) -> Refusal {
    let known: Vec<&str> = classes.views.keys().map(String::as_str).collect();
    let known = if known.is_empty() {
        "none".to_owned()
    } else {
        known.join(", ")
    };
    let key = class_key(name);
    let message = if service.class.is_some() {
        format!(
            "spec.loadBalancerClass is {key}, but LoadBalancerClass {name} does not exist (existing: {known}); create the class, or create the Service again with another class, because the field cannot be changed"
        )
    } else {
        format!(
            "the finalizer {key} names the class that serves this Service, but LoadBalancerClass {name} does not exist (existing: {known}); create the class again"
        )
    };
    Refusal::new(Reason::ClassNotFound, message)
}

#[cfg(test)]
mod tests;
