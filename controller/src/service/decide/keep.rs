//! The part of a refused Service that was accepted before and stays as it is. Pure.

use ballast_provider::{Family, LoadBalancer};

use super::endpoints::lacks_endpoints;
use super::share::{assemble, published_on};
use super::{Keep, World};
use crate::cluster::view::ServiceView;
use crate::service::group::{Sharer, Stage};

/// The balancer that a refused Service is on, with the part of the Service that was accepted
/// before. In a move it is the balancer of the published address. If this process does not know
/// which one that is, nothing is changed.
pub(super) fn keep(service: &ServiceView, class: &str, world: &World<'_>) -> Option<Keep> {
    let provider = world.classes.provider(class)?;
    let view = world.classes.get(class)?;
    if !world.ledger.has(&service.id, class) {
        return None;
    }
    let key = if world.ledger.keys(&service.id, class).is_empty() {
        provider.key(&accepted_before(service)?)
    } else {
        world.ledger.home(&service.id, class)?
    };
    let known = world.ledger.share(&service.id, class, &key);
    let published = published_on(service, class, &key, world.ledger);
    let accepted = match known {
        Some(_) => published.shape?,
        None => accepted_before(service)?,
    };
    let guarded = !provider.traits().finalizer || service.is_held_by(class);
    if !guarded || !publishes(service, &accepted) {
        return None;
    }
    let kept = Sharer {
        service,
        stage: Stage::Placed,
        wanted: None,
        published: Some(accepted),
        ports: published.ports,
    };
    let group = assemble(&key, kept, view, provider.as_ref(), world).ok()?;
    if lacks_endpoints(&group, provider.as_ref()) {
        return None;
    }
    Some(Keep {
        class: class.to_owned(),
        provider,
        balancer: group.balancer,
        fallbacks: group.fallbacks,
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
