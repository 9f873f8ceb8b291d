//! The part of a refused Service that was accepted before and stays as it is. Pure.

use ballast_provider::{Family, LoadBalancer};

use super::{Keep, World, assemble};
use crate::cluster::view::ServiceView;
use crate::service::group::{Group, Sharer};

/// The balancer that a refused Service is on, with the part of the Service that was accepted
/// before.
pub(super) fn keep(service: &ServiceView, class: &str, world: &World<'_>) -> Option<Keep> {
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

/// Whether the status of a Service publishes the ports, families and addresses of this load
/// balancer. Node ports and settings are not in the status, so they can differ.
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

/// The part of a Service that was accepted before. If its class or provider refused a valid
/// spec, that is the part with the published ports. For an invalid spec it is in the view.
pub(super) fn accepted_before(service: &ServiceView) -> Option<LoadBalancer> {
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
