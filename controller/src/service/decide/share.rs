//! Collects the Services that share a balancer, for [`crate::service::group`]. Pure.

use std::cell::OnceCell;
use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use ballast_provider::{Key, LoadBalancer, Provider, Reason, Refusal, ServiceId};

use super::endpoints::member;
use super::keep::accepted_before;
use super::quota::waits_for_a_place;
use super::{World, held_elsewhere, stale_holder, usable};
use crate::class::ClassView;
use crate::cluster::conditions::{ACCEPTED, PROGRAMMED};
use crate::cluster::ledger::{Ledger, Port};
use crate::cluster::view::{Name, ServiceView};
use crate::service::group::{Declined, Group, Rules, Sharer, Stage, group};

/// With these reasons a load balancer without an address may get one soon.
const UNDER_WAY: [Reason; 7] = [
    Reason::Provisioning,
    Reason::Releasing,
    Reason::NoEligibleNodes,
    Reason::NoEndpoints,
    Reason::NotAnnounced,
    Reason::Throttled,
    Reason::CloudError,
];

/// The part of a Service that its status publishes through one balancer.
pub(super) struct Published {
    /// What was accepted, on the current node ports.
    pub(super) shape: Option<LoadBalancer>,
    pub(super) ports: Vec<Port>,
    /// It may be another balancer: this process does not know.
    pub(super) unclear: bool,
    /// The view is older than what is published, also in what it asks for.
    stale: bool,
}

/// What is read of other Services of the class, only when it is needed.
struct Others<'a> {
    key: &'a Key,
    class: &'a ClassView,
    provider: &'a dyn Provider,
    world: &'a World<'a>,
    all: &'a [Arc<ServiceView>],
    /// The Services without a place that can get one; `None`: all.
    room: OnceCell<Option<HashSet<Arc<str>>>>,
    /// See [`published_by_other_classes`].
    foreign: OnceCell<HashSet<IpAddr>>,
}

/// The balancer that a Service asks for, with all Services that are on it.
pub(super) fn balancer(
    service: &ServiceView,
    wanted: LoadBalancer,
    class: &ClassView,
    provider: &dyn Provider,
    world: &World<'_>,
) -> Result<Group, Declined> {
    let key = provider.key(&wanted);
    let placed = world.ledger.is_on(&service.id, &class.name, &key);
    let published = published_on(service, &class.name, &key, world.ledger);
    let own = Sharer {
        service,
        stage: if placed { Stage::Placed } else { Stage::Next },
        wanted: Some(wanted),
        ports: published.ports_of(placed),
        published: published.shape.filter(|_| placed),
    };
    assemble(&key, own, class, provider, world)
}

/// The balancer with all its members. Other Services are read only if it is shared.
pub(super) fn assemble(
    key: &Key,
    own: Sharer<'_>,
    class: &ClassView,
    provider: &dyn Provider,
    world: &World<'_>,
) -> Result<Group, Declined> {
    let service = own.service;
    let rules = Rules {
        member: &|of, shape| member(of, shape, provider, world),
        validate: &|balancer| provider.validate(balancer),
        one_listener_per_port: provider.traits().one_listener_per_port,
        deletes_nothing: world.classes.may_have_a_copy(&class.name),
    };
    if key.is_of(&service.id) {
        return group(key, service, vec![own], &rules);
    }
    let all = (world.services)();
    let others = Others {
        key,
        class,
        provider,
        world,
        all: &all,
        room: OnceCell::new(),
        foreign: OnceCell::new(),
    };
    let claimed = |other: &&Arc<ServiceView>| {
        other.id != service.id && world.classes.claim(other) == Some(class.name.as_str())
    };
    let mut sharers: Vec<Sharer<'_>> = all
        .iter()
        .filter(claimed)
        .filter_map(|other| others.sharer(other))
        .collect();
    sharers.push(own);
    let mut group = group(key, service, sharers, &rules)?;
    let absent = world.ledger.absents(&class.name);
    let absent: Vec<&ServiceId> = (absent.iter().map(|entry| (entry, &entry.id)))
        .filter(|(entry, id)| entry.keys.contains(key) && !all.iter().any(|it| it.id == **id))
        .map(|(_, id)| id)
        .collect();
    for balancer in std::iter::once(&mut group.balancer).chain(&mut group.fallbacks) {
        // Nothing proves that they are gone, so their part stays.
        balancer.kept.extend(absent.iter().map(|id| (*id).clone()));
    }
    Ok(group)
}

/// What a Service asks for, without the addresses that it cannot have, and why it cannot.
/// An address of another Service is refused, but it does not block the rest of an update.
pub(super) fn without_foreign_addresses(
    service: &ServiceView,
    wanted: &LoadBalancer,
    class: &ClassView,
    world: &World<'_>,
) -> Result<(LoadBalancer, Option<Refusal>), Refusal> {
    let mut wanted = wanted.clone();
    if !requests_more(service, &wanted) {
        return Ok((wanted, None));
    }
    let foreign = published_by_other_classes(class, world, &(world.services)());
    let taken = drop_foreign(service, &mut wanted, &foreign);
    let Some(address) = taken.first() else {
        return Ok((wanted, None));
    };
    let refusal = Refusal::new(
        Reason::AddressInUse,
        format!(
            "the requested address {address} is published by another Service, whose class uses the same cloud"
        ),
    );
    if service.ingress.is_empty() {
        return Err(refusal);
    }
    Ok((wanted, Some(refusal)))
}

/// What a Service publishes through a balancer. What this process published decides; the view
/// can be older.
pub(super) fn published_on(
    service: &ServiceView,
    class: &str,
    key: &Key,
    ledger: &Ledger,
) -> Published {
    if let Some(share) = ledger.share(&service.id, class, key) {
        let stale = ledger.is_stale(&Name::from(&service.id), service.version);
        let shape = if stale {
            Some(share.accepted)
        } else {
            on_current_node_ports(share.accepted, service)
        };
        return Published {
            shape,
            ports: share.ports.into_iter().collect(),
            unclear: false,
            stale,
        };
    }
    let home = ledger.home(&service.id, class);
    if home.as_ref().is_some_and(|home| home != key) {
        return Published::nothing();
    }
    let shape = accepted_before(service).map(|shape| as_published(shape, service));
    let listeners = shape.iter().flat_map(|shape| &shape.listeners);
    Published {
        ports: listeners.map(|it| (it.protocol, it.port)).collect(),
        unclear: home.is_none() && !ledger.keys(&service.id, class).is_empty(),
        stale: false,
        shape,
    }
}

/// Node ports are targets, so they are always those of the Service. A port that it does not
/// have any more has none: the API server may have assigned its node port to another Service.
fn on_current_node_ports(mut shape: LoadBalancer, service: &ServiceView) -> Option<LoadBalancer> {
    let current = service.shapes().next()?;
    shape.listeners.retain_mut(|listener| {
        let mut current = current.listeners.iter();
        let same = current.find(|it| (it.port, it.protocol) == (listener.port, listener.protocol));
        if let Some(same) = same {
            *listener = same.clone();
        }
        same.is_some()
    });
    (!shape.listeners.is_empty()).then_some(shape)
}

/// Of new requests, only those that the status already fulfils.
fn as_published(mut shape: LoadBalancer, service: &ServiceView) -> LoadBalancer {
    let addresses = service.addresses();
    let requested = &mut shape.requested_addresses;
    requested.retain(|address| addresses.contains(address));
    shape
}

/// Whether a Service requests an address that it does not publish.
fn requests_more(service: &ServiceView, wanted: &LoadBalancer) -> bool {
    let published = service.addresses();
    let mut requested = wanted.requested_addresses.iter();
    requested.any(|address| !published.contains(address))
}

/// Removes requests for addresses of others; returns them.
fn drop_foreign(
    service: &ServiceView,
    wanted: &mut LoadBalancer,
    foreign: &HashSet<IpAddr>,
) -> Vec<IpAddr> {
    let published = service.addresses();
    let is_taken = |address: &IpAddr| foreign.contains(address) && !published.contains(address);
    let requested = &mut wanted.requested_addresses;
    let taken = requested.iter().copied().filter(is_taken).collect();
    requested.retain(|address| !is_taken(address));
    taken
}

/// The addresses that Services of other classes on the same cloud publish. The provider of a
/// class knows only its own, and a cloud that lost its state knows none. (Pools have one
/// allocator for all classes.)
fn published_by_other_classes(
    class: &ClassView,
    world: &World<'_>,
    all: &[Arc<ServiceView>],
) -> HashSet<IpAddr> {
    let classes = world.classes;
    let others = classes.views.keys().map(String::as_str);
    let on_the_cloud: HashSet<&str> = others
        .filter(|name| *name != class.name && classes.share_a_cloud(name, &class.name))
        .collect();
    if on_the_cloud.is_empty() {
        return HashSet::new();
    }
    let of_others = all.iter().filter(|service| {
        let claim = classes.claimant(service);
        let held = service.holders();
        claim != Some(class.name.as_str())
            && claim
                .into_iter()
                .chain(held)
                .any(|it| on_the_cloud.contains(it))
    });
    of_others.flat_map(|service| service.addresses()).collect()
}

/// Whether the provider refuses a Service that publishes nothing.
fn is_stuck(service: &ServiceView) -> bool {
    let refused = service
        .condition(ACCEPTED)
        .is_some_and(|it| it.status == "False");
    let failed = service.condition(PROGRAMMED).is_some_and(|it| {
        let mut under_way = UNDER_WAY.iter();
        it.status == "False" && !under_way.any(|reason| reason.as_str() == it.reason)
    });
    service.ingress.is_empty() && (refused || failed)
}

// === impl Others ===

impl<'a> Others<'a> {
    /// Another Service that is on the balancer, or can be.
    fn sharer(&self, other: &'a ServiceView) -> Option<Sharer<'a>> {
        let (class, ledger) = (self.class.name.as_str(), self.world.ledger);
        let placed = ledger.is_on(&other.id, class, self.key);
        let wanted = match &other.load_balancer {
            Some(Ok(wanted)) if self.provider.key(wanted) == *self.key => {
                Some(self.allowed(other, wanted))
            }
            _ => None,
        };
        if !placed {
            return (wanted.is_some() && self.can_join(other)).then(|| Sharer {
                service: other,
                stage: Stage::Next,
                wanted,
                published: None,
                ports: Vec::new(),
            });
        }
        let published = published_on(other, class, self.key, ledger);
        let stage = match &published {
            Published { unclear: true, .. } => Stage::Unclear,
            Published { ports, .. } if ports.is_empty() && is_stuck(other) => Stage::Stuck,
            _ => Stage::Placed,
        };
        Some(Sharer {
            service: other,
            stage,
            wanted: if published.stale {
                published.shape.clone()
            } else {
                wanted
            },
            published: published.shape,
            ports: published.ports,
        })
    }

    fn allowed(&self, other: &ServiceView, wanted: &LoadBalancer) -> LoadBalancer {
        let mut wanted = wanted.clone();
        if requests_more(other, &wanted) {
            let foreign = self
                .foreign
                .get_or_init(|| published_by_other_classes(self.class, self.world, self.all));
            drop_foreign(other, &mut wanted, foreign);
        }
        wanted
    }

    /// Whether the next turn of a Service that has had none on this balancer can put it there.
    fn can_join(&self, other: &ServiceView) -> bool {
        let (class, world) = (self.class.name.as_str(), self.world);
        let free = || {
            held_elsewhere(other, world).is_none()
                && stale_holder(other, Some(class), world).is_none()
        };
        let has_room = || {
            let room = self.room.get_or_init(|| self.room());
            let in_room = |room: &HashSet<Arc<str>>| room.contains(&other.id.uid);
            room.as_ref().is_none_or(in_room) || world.ledger.has_place(&other.id, class)
        };
        usable(other, class, world.classes).is_ok() && free() && has_room()
    }

    /// The Services that get the free places of the class: the oldest.
    fn room(&self) -> Option<HashSet<Arc<str>>> {
        let (class, world) = (self.class, self.world);
        let free = class.max?.saturating_sub(world.ledger.places(&class.name));
        let waiting = self.all.iter();
        let mut next: Vec<&Arc<ServiceView>> = waiting
            .filter(|it| waits_for_a_place(it, class, world))
            .collect();
        next.sort_by(|a, b| a.age().cmp(&b.age()));
        let next = next.into_iter().take(free);
        Some(next.map(|it| it.id.uid.clone()).collect())
    }
}

// === impl Published ===

impl Published {
    const fn nothing() -> Self {
        Self {
            shape: None,
            ports: Vec::new(),
            unclear: false,
            stale: false,
        }
    }

    fn ports_of(&self, placed: bool) -> Vec<Port> {
        if placed {
            self.ports.clone()
        } else {
            Vec::new()
        }
    }
}
