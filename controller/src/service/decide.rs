//! Chooses the next step for one Service: the only place that chooses.
//!
//! [`decide`] does no I/O and reads no clock. It reads the stores and the ledger, which
//! other workers change meanwhile (each behind a short lock, never across an await); what
//! it reads of one balancer does not change, because its caller holds that balancer's
//! lock ([`crate::service::perform::KeyLocks`]). [`crate::service::perform`] does the step
//! and the Service comes back. Steps are ordered so that a crash between any two of them
//! finds the same next step again:
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

use std::sync::Arc;

use ballast_provider::{
    Balancer, Family, Key, LoadBalancer, Member, Placement, Provider, Reason, Refusal, Removal,
};

use crate::class::{ClassView, Classes, Instance};
use crate::cluster::ledger::Ledger;
use crate::cluster::namespaces::{self, Namespaces};
use crate::cluster::view::ServiceView;
use crate::service::group::{Group, Sharer, group};

/// One step for one Service.
#[derive(Clone)]
pub enum Decision {
    /// Not ours, or nothing to do.
    Ignore,
    /// Not ours any more: our conditions go, nothing else is touched.
    Clean,
    /// Take down what this class has for the Service, then its finalizers.
    Release {
        /// The class whose finalizer says so.
        class: String,
        /// How to reach its cloud.
        provider: Arc<dyn Provider>,
        /// The balancers that it is on, or may be on.
        keys: Vec<Key>,
        /// What becomes of the cloud objects.
        removal: Removal,
        /// What the Service, which wants them back, says afterwards; `None`: it does not.
        drained: Option<Refusal>,
    },
    /// No retry helps; a change of the Service or its class does. What the Service
    /// already has stays, and follows its node ports: they are targets.
    Refuse {
        /// What is wrong.
        refusal: Refusal,
        /// What it already has.
        keep: Option<Keep>,
    },
    /// Nothing can be done now; the thing that is missing will wake the Service.
    Wait {
        /// The class, as far as there is one.
        class: String,
        /// Why, as the condition says it; `None`: it takes only a moment, write nothing.
        why: Option<Refusal>,
        /// The class is drained, and this stands in the way of that.
        drained: Option<Refusal>,
    },
    /// Bring its balancer to the desired state and publish what comes of it.
    Ensure {
        /// The class that serves it.
        class: String,
        /// How to reach its cloud.
        provider: Arc<dyn Provider>,
        /// The whole balancer, this Service among its members.
        balancer: Balancer,
        /// Balancers that it is on and does not ask for any more: it leaves them once
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
    /// The Service with the ports that it publishes, on the node ports of today.
    pub balancer: Balancer,
}

/// All that a decision may look at.
pub struct World<'a> {
    /// Classes and their providers.
    pub classes: &'a Classes,
    /// Who has a place where.
    pub ledger: &'a Ledger,
    /// Labels of namespaces, for what places a Service.
    pub namespaces: &'a Namespaces,
    /// Every Service; only asked where others matter (quota, sharing).
    pub services: &'a dyn Fn() -> Vec<Arc<ServiceView>>,
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

/// A class of another installation (with other `--classes`) that holds the Service.
fn held_elsewhere<'a>(service: &'a ServiceView, world: &World<'_>) -> Option<&'a str> {
    let mut held = service.held_by.iter().map(String::as_str);
    held.find(|class| !world.classes.scope.owns(class))
}

/// Two load balancers for one Service would be one too many.
fn wait_for_release(class: &str, other: &str) -> Decision {
    Decision::Wait {
        class: class.to_owned(),
        why: Some(Refusal::new(
            Reason::Releasing,
            format!(
                "waiting until LoadBalancerClass {other}, which served this Service before, has released it"
            ),
        )),
        drained: None,
    }
}

/// Its class gives no load balancers and takes back those it gave.
fn drain(service: &ServiceView, class: &str, drained: Refusal, world: &World<'_>) -> Decision {
    // An address without our finalizer on a Service without a class is somebody else's.
    let has = service.is_held_by(class)
        || world.ledger.has(&service.id, class)
        || (service.class.is_some() && !service.ingress.is_empty());
    if has {
        return release(service, class, world, Some(drained));
    }
    Decision::Refuse {
        refusal: drained,
        keep: None,
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

/// A class in scope that does not serve the Service and has, or may have, something for
/// it: its finalizer says so, or the ledger does where somebody took the finalizer off.
fn stale_holder(service: &ServiceView, claim: Option<&str>, world: &World<'_>) -> Option<String> {
    let recorded = world.ledger.classes_of(&service.id);
    let held = service.held_by.iter().cloned().chain(recorded);
    held.into_iter()
        .find(|class| Some(class.as_str()) != claim && world.classes.scope.owns(class))
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
                "the LoadBalancerClass {class} is gone and nobody else knows where its load balancers are: create it again, and {} is cleaned up",
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
    match classes.instances.get(class) {
        Some(Instance::Ready(provider)) => Decision::Release {
            class: class.to_owned(),
            provider: Arc::clone(provider),
            keys: keys_of(service, class, provider.as_ref(), world.ledger),
            removal: view.removal,
            drained,
        },
        Some(Instance::Failing(message)) => wait(Reason::CloudError, message.clone()),
        None | Some(Instance::Starting) => Decision::Wait {
            class: class.to_owned(),
            why: None,
            drained,
        },
    }
}

/// The balancers that a Service of this class is on. A finalizer without any record says
/// only that there may be something: then where its spec would have put it.
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
        Err(refusal) => Decision::Refuse {
            keep: keep(service, class, world),
            refusal,
        },
    }
}

/// The balancer that a refused Service is on, with the part of it that was accepted before.
fn keep(service: &ServiceView, class: &str, world: &World<'_>) -> Option<Keep> {
    let provider = world.classes.provider(class)?;
    let accepted = accepted_before(service)?;
    if !world.ledger.has(&service.id, class) {
        return None;
    }
    let on = world.ledger.keys(&service.id, class);
    let asked = provider.key(&accepted);
    let key = match on.first() {
        Some(first) if !on.contains(&asked) => first.clone(),
        _ => asked,
    };
    let kept = Sharer {
        service,
        placed: true,
        wanted: None,
        published: Some(accepted.clone()),
    };
    let Group { balancer, .. } = assemble(&key, kept, class, provider.as_ref(), world);
    let guarded = !provider.traits().finalizer || service.is_held_by(class);
    let keeps = guarded && publishes(service, &accepted) && provider.validate(&balancer).is_ok();
    keeps.then(|| Keep {
        class: class.to_owned(),
        provider,
        balancer,
    })
}

/// Whether a Service publishes this very load balancer: its ports, its families, its
/// addresses. Only node ports and settings that nobody sees in the status may differ.
fn publishes(service: &ServiceView, accepted: &LoadBalancer) -> bool {
    let addresses = service.addresses();
    let families: Vec<Family> = addresses.iter().copied().map(Family::of).collect();
    let ports = service
        .ingress
        .first()
        .map_or(0, |ingress| ingress.ports.len());
    let mut requested = accepted.requested_addresses.iter();
    families == accepted.families
        && ports == accepted.listeners.len()
        && requested.all(|address| addresses.contains(address))
}

/// A valid wish that something else refused (its class, its provider) is cut down to the
/// published ports here; an invalid one was when it was read.
fn accepted_before(service: &ServiceView) -> Option<LoadBalancer> {
    let Some(Ok(wanted)) = &service.load_balancer else {
        return service.accepted_before.as_deref().cloned();
    };
    let published = &service.ingress.first()?.ports;
    let mut accepted = wanted.clone();
    accepted.listeners.retain(|listener| {
        let mut ports = published.iter();
        ports.any(|port| (port.port, port.protocol) == (listener.port, listener.protocol))
    });
    (!accepted.listeners.is_empty()).then_some(accepted)
}

fn admit(service: &ServiceView, name: &str, world: &World<'_>) -> Result<Decision, Refusal> {
    let class = usable(service, name, world.classes)?;
    let wanted = match &service.load_balancer {
        Some(Ok(wanted)) => wanted,
        Some(Err(refusal)) => return Err(refusal.clone()),
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
        // A pool may be closed to namespaces with a label, and an address is kept.
        Some(Instance::Ready(provider))
            if provider.traits().namespace_labels
                && !namespaces::is_known(world.namespaces, &service.id.namespace) =>
        {
            wait(None)
        }
        Some(Instance::Ready(provider)) => {
            let balancer = balancer(service, wanted, name, provider.as_ref(), world)?;
            provider.validate(&balancer)?;
            let mut leaves = world.ledger.keys(&service.id, name);
            leaves.retain(|key| *key != balancer.key);
            Ok(Decision::Ensure {
                class: name.to_owned(),
                provider: Arc::clone(provider),
                balancer,
                leaves,
                removal: class.removal,
                max: class.max,
            })
        }
        Some(Instance::Failing(message)) => {
            wait(Some(Refusal::new(Reason::CloudError, message.clone())))
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
        let known: Vec<&str> = classes.views.keys().map(String::as_str).collect();
        return Err(Refusal::new(
            Reason::ClassNotFound,
            format!(
                "spec.loadBalancerClass names {name}, and there is no such LoadBalancerClass (there is: {}); a Service's class cannot be changed, so create the class, or the Service anew",
                if known.is_empty() {
                    "none".to_owned()
                } else {
                    known.join(", ")
                }
            ),
        ));
    };
    let refuse = |message| Err(Refusal::new(Reason::ClassNotReady, message));
    if let Some(message) = class.unusable() {
        return refuse(format!("LoadBalancerClass {name}: {message}"));
    }
    if class.deleting && !service.is_held_by(name) {
        return refuse(format!(
            "the LoadBalancerClass {name} is being deleted and takes no new Services"
        ));
    }
    Ok(class)
}

/// Those that have a place keep it; of the others the oldest come first.
fn quota(service: &ServiceView, class: &ClassView, world: &World<'_>) -> Result<(), Refusal> {
    let Some(max) = class.max else { return Ok(()) };
    if world.ledger.has(&service.id, &class.name) {
        return Ok(());
    }
    let free = max.saturating_sub(world.ledger.count(&class.name));
    let older = (world.services)()
        .iter()
        .filter(|other| (other.created, &other.id.uid) < (service.created, &service.id.uid))
        .filter(|other| world.classes.claim(other) == Some(class.name.as_str()))
        .filter(|other| could_have_a_place(other, class, world))
        .filter(|other| !world.ledger.has(&other.id, &class.name))
        .take(free)
        .count();
    if older < free {
        return Ok(());
    }
    Err(quota_exceeded(class, max))
}

/// Whether nothing but the quota is in a Service's way.
fn could_have_a_place(service: &ServiceView, class: &ClassView, world: &World<'_>) -> bool {
    let (Some(Ok(wanted)), Some(provider)) =
        (&service.load_balancer, world.classes.provider(&class.name))
    else {
        return false;
    };
    let alone = Balancer {
        key: provider.key(wanted),
        members: vec![member(service, wanted, world.namespaces)],
    };
    provider.validate(&alone).is_ok()
}

/// The refusal of a Service that finds its class full.
pub fn quota_exceeded(class: &ClassView, max: usize) -> Refusal {
    Refusal::new(
        Reason::QuotaExceeded,
        format!(
            "the LoadBalancerClass {} allows {max} load balancers (spec.maxLoadBalancers) and all are taken: raise it or delete another Service",
            class.name
        ),
    )
}

/// The balancer that a Service asks for, with everybody who is on it.
fn balancer(
    service: &ServiceView,
    wanted: &LoadBalancer,
    class: &str,
    provider: &dyn Provider,
    world: &World<'_>,
) -> Result<Balancer, Refusal> {
    let key = provider.key(wanted);
    let own = Sharer {
        service,
        placed: world.ledger.is_on(&service.id, class, &key),
        wanted: Some(wanted),
        published: accepted_before(service),
    };
    let Group { balancer, refusal } = assemble(&key, own, class, provider, world);
    refusal.map_or(Ok(balancer), Err)
}

/// A Service alone on its balancer needs no look at the others.
fn assemble(
    key: &Key,
    own: Sharer<'_>,
    class: &str,
    provider: &dyn Provider,
    world: &World<'_>,
) -> Group {
    let service = own.service;
    let as_member =
        |other: &ServiceView, wanted: &LoadBalancer| member(other, wanted, world.namespaces);
    if key.is_of(&service.id) {
        return group(key, service, vec![own], as_member);
    }
    let all = (world.services)();
    let others = all.iter().filter(|other| other.id != service.id);
    let others = others.filter(|other| world.classes.claim(other) == Some(class));
    let sharer = |other| sharer(other, key, class, provider, world.ledger);
    let mut sharers: Vec<Sharer<'_>> = others.map(AsRef::as_ref).filter_map(sharer).collect();
    sharers.push(own);
    group(key, service, sharers, as_member)
}

/// Another Service that is on a balancer, or asks for it.
fn sharer<'a>(
    other: &'a ServiceView,
    key: &Key,
    class: &str,
    provider: &dyn Provider,
    ledger: &Ledger,
) -> Option<Sharer<'a>> {
    let placed = ledger.is_on(&other.id, class, key);
    let wanted = match &other.load_balancer {
        Some(Ok(wanted)) if provider.key(wanted) == *key => Some(wanted),
        _ => None,
    };
    (placed || wanted.is_some()).then(|| Sharer {
        service: other,
        placed,
        wanted,
        published: accepted_before(other),
    })
}

/// A Service as a member of a balancer.
pub fn member(service: &ServiceView, wanted: &LoadBalancer, namespaces: &Namespaces) -> Member {
    Member {
        load_balancer: wanted.clone(),
        recorded: service.addresses(),
        placement: Placement {
            namespace_labels: namespaces::labels(namespaces, &service.id.namespace),
            ..service.placement.clone()
        },
    }
}

#[cfg(test)]
mod tests;
