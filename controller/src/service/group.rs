//! Services that share one balancer, and which of them gets a port that several want. Pure.
//!
//! The members of a balancer are the Services that have had a turn on it, and the Service
//! whose turn it is. So no Service is added before it has its finalizer. A member that is
//! refused, or is moving to another balancer, stays with the ports that it publishes until its
//! own release. A member that is being deleted, or that asks for no load balancer any more, is
//! left out by the next turn of any member. Published ports are kept. If two Services want the same
//! new port, the older one gets it.

use std::collections::HashMap;

use ballast_provider::{Balancer, Key, LoadBalancer, Member, Protocol, Reason, Refusal};

use crate::cluster::view::ServiceView;

/// A Service that is on a balancer or wants to be.
#[derive(Clone, Debug)]
pub struct Sharer<'a> {
    /// Which.
    pub service: &'a ServiceView,
    /// It has had a turn on this balancer.
    pub placed: bool,
    /// What it asks for, if it asks for this balancer.
    pub wanted: Option<&'a LoadBalancer>,
    /// The part that its status already publishes.
    pub published: Option<LoadBalancer>,
}

/// The desired balancer.
#[derive(Clone, Debug)]
pub struct Group {
    /// The balancer with its members.
    pub balancer: Balancer,
    /// Why the Service whose turn it is is refused.
    pub refusal: Option<Refusal>,
}

/// The balancer `key` in the turn of `own`, one of the sharers. `member` makes a member of
/// a Service and its load balancer.
pub fn group(
    key: &Key,
    own: &ServiceView,
    mut sharers: Vec<Sharer<'_>>,
    member: impl Fn(&ServiceView, &LoadBalancer) -> Member,
) -> Group {
    let age = |sharer: &Sharer<'_>| (sharer.service.created, sharer.service.id.uid.clone());
    sharers.sort_by_key(|sharer| (!sharer.placed, age(sharer)));
    let mut taken: HashMap<(Protocol, u16), &ServiceView> = HashMap::new();
    for sharer in sharers.iter().filter(|sharer| sharer.placed) {
        for port in sharer.published.iter().flat_map(ports) {
            taken.entry(port).or_insert(sharer.service);
        }
    }
    let mut refusal = None;
    let mut members = Vec::new();
    for sharer in &sharers {
        let is_own = sharer.service.id == own.id;
        let clash = sharer.wanted.and_then(|wanted| {
            let mut ports = ports(wanted);
            ports.find_map(|port| {
                let winner = taken.get(&port)?;
                (winner.id != sharer.service.id).then_some((port, *winner))
            })
        });
        let shape = match (sharer.wanted, clash) {
            (Some(wanted), None) => Some(wanted),
            _ => sharer.published.as_ref().filter(|_| sharer.placed),
        };
        if let Some((port, winner)) = clash.filter(|_| is_own) {
            refusal = Some(port_in_use(key, port, own, winner));
        }
        let Some(shape) = shape else { continue };
        for port in ports(shape) {
            taken.entry(port).or_insert(sharer.service);
        }
        if sharer.placed || is_own {
            members.push((age(sharer), member(sharer.service, shape)));
        }
    }
    members.sort_by(|(a, _), (b, _)| a.cmp(b));
    Group {
        balancer: Balancer {
            key: key.clone(),
            members: members.into_iter().map(|(_, member)| member).collect(),
        },
        refusal,
    }
}

fn ports(wanted: &LoadBalancer) -> impl Iterator<Item = (Protocol, u16)> {
    let listeners = wanted.listeners.iter();
    listeners.map(|listener| (listener.protocol, listener.port))
}

fn port_in_use(
    key: &Key,
    (protocol, port): (Protocol, u16),
    own: &ServiceView,
    winner: &ServiceView,
) -> Refusal {
    let name = match key {
        Key::Shared(name) | Key::Service(name) => name,
    };
    // The message must not name Services of other namespaces.
    let winner = if winner.id.namespace == own.id.namespace {
        format!("Service {}", winner.id)
    } else {
        "another Service".to_owned()
    };
    Refusal::new(
        Reason::PortInUse,
        format!(
            "port {port}/{protocol} of the shared load balancer \"{name}\" is already used by {winner}"
        ),
    )
}
