//! Services that share one balancer, and who wins where their ports clash. Pure.
//!
//! Members that already have a place keep their ports; after them the older Service
//! wins. The loser is refused by name and is no member until the winner goes.

use std::collections::HashMap;
use std::sync::Arc;

use ballast_provider::{Balancer, Key, LoadBalancer, Member, Protocol, Reason, Refusal};

use crate::cluster::view::ServiceView;

/// The balancer of `service` with those of `sharers` that have a right to be on it;
/// refused if `service` itself has not. `placed` tells who already is on it, `member` makes
/// one of a Service.
pub fn group(
    key: &Key,
    service: &ServiceView,
    sharers: &[Arc<ServiceView>],
    placed: impl Fn(&ServiceView) -> bool,
    member: impl Fn(&ServiceView, &LoadBalancer) -> Member,
) -> Result<Balancer, Refusal> {
    let mut all: Vec<&ServiceView> = sharers.iter().map(Arc::as_ref).collect();
    all.push(service);
    all.sort_by_key(|view| (!placed(view), view.created, view.id.uid.clone()));
    let mut taken: HashMap<(Protocol, u16), &ServiceView> = HashMap::new();
    let mut members = Vec::new();
    for view in all {
        let Some(Ok(wanted)) = &view.load_balancer else {
            continue;
        };
        let ports = wanted
            .listeners
            .iter()
            .map(|listener| (listener.protocol, listener.port));
        let clash = ports
            .clone()
            .find_map(|port| taken.get(&port).map(|winner| (port, *winner)));
        match clash {
            None => {
                taken.extend(ports.map(|port| (port, view)));
                members.push((view, member(view, wanted)));
            }
            Some(((protocol, port), winner)) if view.id == service.id => {
                // Readers of one namespace need not know what another has.
                let winner = if winner.id.namespace == service.id.namespace {
                    format!("Service {}", winner.id)
                } else {
                    "another Service".to_owned()
                };
                return Err(Refusal::new(
                    Reason::PortInUse,
                    format!(
                        "port {port}/{protocol} of the shared load balancer \"{key}\" belongs to {winner}"
                    ),
                ));
            }
            Some(_) => {}
        }
    }
    members.sort_by(|(a, _), (b, _)| (a.created, &a.id.uid).cmp(&(b.created, &b.id.uid)));
    Ok(Balancer {
        key: key.clone(),
        members: members.into_iter().map(|(_, member)| member).collect(),
    })
}
