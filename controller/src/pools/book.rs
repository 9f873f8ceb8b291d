//! The addresses of pools, as the rest of the controller sees them.
//!
//! Owns the process's single allocator, and tells it which addresses Services publish that it
//! did not assign. Outside of `pools`, only the factory uses the allocator directly.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use ballast_l2::verdict::not_adopted;
use ballast_l2::{Addresses, Announcements, Claim, Holder, Snapshot, provider};
use ballast_provider::{ExtraKind, Family, ServiceId};
use jiff::Timestamp;
use prometheus_client::collector::Collector;

use super::Pools;
use super::metrics::PoolMetrics;
use crate::class::{ClassView, Classes};
use crate::cluster::conditions::{ACCEPTED, PROGRAMMED};
use crate::cluster::namespaces::{self, Namespaces};
use crate::cluster::view::{Name, ServiceView};

/// Which Service has which address, and which node announces it. Clones share one allocator.
#[derive(Clone, Debug, Default)]
pub struct AddressBook {
    allocator: Arc<Addresses>,
    announcements: Arc<Announcements>,
    /// Held while what a Service publishes is read and recorded, so the newest version is the
    /// last one recorded.
    recording: Arc<Mutex<()>>,
}

/// The state that the allocator starts with.
pub struct Start<'a> {
    /// Every Service.
    pub services: &'a [Arc<ServiceView>],
    /// The classes.
    pub classes: &'a Classes,
    /// The labels of namespaces.
    pub namespaces: &'a Namespaces,
    /// The pools, from the watch.
    pub pools: &'a Pools,
    /// The addresses of all nodes.
    pub nodes: &'a BTreeSet<IpAddr>,
    /// Another process led before this one. The addresses that it released last are not
    /// recorded.
    pub led_before: bool,
}

/// A Service that no `l2` class places, as the allocator knows it.
fn holder(service: &ServiceView, classes: &Classes) -> Holder {
    let elsewhere = service.class.is_some() && classes.claim(service).is_none();
    holder_named(&Name::from(&service.id), elsewhere)
}

fn holder_named(name: &Name, elsewhere: bool) -> Holder {
    let Name { namespace, name } = name.clone();
    Holder::Service {
        namespace,
        name,
        elsewhere,
    }
}

/// The `l2` class that assigned a Service its addresses.
pub fn placed_by<'a>(service: &'a ServiceView, classes: &'a Classes) -> Option<&'a str> {
    let is_l2 = |class: &&str| classes.get(class).is_some_and(ClassView::uses_pools);
    let held = service.holders();
    classes.claim(service).into_iter().chain(held).find(is_l2)
}

/// The claim of a Service that publishes these addresses, whether or not its settings are valid
/// now.
fn claim_of(service: &ServiceView, addresses: Vec<IpAddr>, namespaces: &Namespaces) -> Claim {
    let mut placement = service.placement.clone();
    placement.namespace_labels = namespaces::labels(namespaces, &service.id.namespace);
    let wanted = match &service.load_balancer {
        Some(Ok(wanted)) => Some(wanted),
        _ => service.accepted_before.as_deref(),
    };
    match wanted {
        Some(wanted) => provider::claim(wanted, &placement, addresses, None),
        None => Claim {
            families: addresses.iter().copied().map(Family::of).collect(),
            published: addresses,
            ..Claim::new(service.id.clone(), service.created)
        },
    }
}

// === impl Start ===

impl Start<'_> {
    /// What the Services publish, and the `l2` class of each Service that has one.
    fn published(&self) -> (Snapshot, HashMap<ServiceId, String>) {
        let mut snapshot = Snapshot::default();
        let mut served = HashMap::new();
        let services = self.services.iter();
        for service in services.filter(|service| !service.ingress.is_empty()) {
            let addresses = service.addresses();
            if let Some(class) = placed_by(service, self.classes) {
                served.insert(service.id.clone(), class.to_owned());
                let said = |kind: &str| {
                    let condition = service.condition(kind);
                    condition.map_or("", |condition| &condition.message)
                };
                let claim = Claim {
                    confirmed: provider::confirmed(
                        &addresses,
                        &[said(PROGRAMMED), said(ExtraKind::Announced.as_str())],
                    ),
                    replaced: not_adopted(said(ACCEPTED)),
                    ..claim_of(service, addresses, self.namespaces)
                };
                snapshot.claims.push(claim);
            } else {
                let holder = holder(service, self.classes);
                snapshot
                    .held
                    .insert(holder, addresses.into_iter().collect());
            }
        }
        (snapshot, served)
    }
}

// === impl AddressBook ===

impl AddressBook {
    /// The allocator, for the factory's `l2` classes.
    pub const fn allocator(&self) -> &Arc<Addresses> {
        &self.allocator
    }

    /// Which node announces which address. Empty before there is a leader.
    pub const fn announcements(&self) -> &Arc<Announcements> {
        &self.announcements
    }

    /// Assigns addresses from now on. All Services and pools must be listed.
    pub fn open(&self, start: &Start<'_>, now: Timestamp) {
        let (published, served) = start.published();
        let snapshot = Snapshot {
            pools: start.pools.readable(),
            skipped: start.nodes.clone(),
            predecessor: start.led_before.then_some(now),
            ..published
        };
        self.allocator.open(snapshot, served, now);
    }

    /// Records what a Service publishes that the allocator did not assign; `None`: the Service
    /// does not exist. Such addresses are not free. Some of these Services are not placed by an
    /// `l2` class. Others are, but have not claimed their addresses yet, or cannot because they
    /// are refused.
    ///
    /// Costs two look-ups if nothing changed. The watch calls it for each change, before any
    /// Service can get the address, and each turn calls it because classes change, too.
    pub fn note(
        &self,
        name: &Name,
        service: impl FnOnce() -> Option<Arc<ServiceView>>,
        classes: &Classes,
    ) {
        // Nobody assigns addresses, and the snapshot at the opening has all of them.
        if !self.allocator.is_open() {
            return;
        }
        let recording = self.recording.lock();
        let _recording = recording.unwrap_or_else(PoisonError::into_inner);
        let foreign = |service: &Arc<ServiceView>| {
            placed_by(service, classes).is_none() || !self.allocator.knows(&service.id)
        };
        let now = service()
            .filter(|service| !service.ingress.is_empty())
            .filter(foreign)
            .map(|service| {
                let addresses = service.addresses().into_iter().collect();
                (holder(&service, classes), addresses)
            });
        let time = Timestamp::now();
        // The new holder first, so that the addresses of both are never free in between.
        if let Some((holder, addresses)) = &now {
            self.allocator.set_held(holder, addresses, time);
        }
        for elsewhere in [false, true] {
            let before = holder_named(name, elsewhere);
            if now.as_ref().is_none_or(|(holder, _)| *holder != before) {
                self.allocator.set_held(&before, &BTreeSet::new(), time);
            }
        }
    }

    /// The collector of pool metrics. Only a leader has any.
    pub fn collector(&self) -> Box<dyn Collector> {
        Box::new(PoolMetrics(Arc::clone(&self.allocator)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ballast_crds::AddressPoolStatus;
    use ballast_l2::{Entry, Pool};
    use serde_json::json;

    use super::*;
    use crate::cluster::store::{Parsed, Update};
    use crate::pools::PoolView;

    fn open(addresses: &str, services: &[Arc<ServiceView>]) -> AddressBook {
        let pools = Pools::default();
        let view = PoolView {
            name: "front".to_owned(),
            version: 1,
            pool: Ok(Pool {
                entries: [addresses.parse::<Entry>().unwrap()].into(),
                reuse_after: Duration::ZERO,
                ..Pool::new("front", Timestamp::UNIX_EPOCH)
            }),
            status: AddressPoolStatus::default(),
        };
        let (key, version) = (view.name.clone(), view.version);
        let parsed = Parsed { key, version, view };
        pools.store.apply(Update::Applied(parsed));
        let book = AddressBook::default();
        let start = Start {
            services,
            classes: &Classes::default(),
            namespaces: &Namespaces::default(),
            pools: &pools,
            nodes: &BTreeSet::new(),
            led_before: false,
        };
        book.open(&start, Timestamp::UNIX_EPOCH);
        book
    }

    fn asks(book: &AddressBook, service: &ServiceView) -> Option<Vec<IpAddr>> {
        let claim = claim_of(service, service.addresses(), &Namespaces::default());
        let answer = book
            .allocator
            .allocate("metal", claim, Timestamp::UNIX_EPOCH)
            .unwrap();
        answer.ok().map(|grant| grant.addresses)
    }

    fn ip(last: u8) -> Vec<IpAddr> {
        vec![IpAddr::from([192, 0, 2, last])]
    }

    /// An address from another controller that has left: it is in the status only.
    #[test]
    fn addresses_published_before_a_class_exists_are_kept_for_their_services() {
        let book = open("192.0.2.1-192.0.2.3", &[]);
        let classless = |name: &str| ServiceView::test(name).class(None);
        let old = classless("old").publishing("192.0.2.1");
        let refused = classless("refused")
            .publishing("192.0.2.2")
            .refused(ballast_provider::Reason::Unsupported);
        let note = |service: &ServiceView, classes: &Classes| {
            let current = || Some(Arc::new(service.clone()));
            book.note(&Name::from(&service.id), current, classes);
        };
        let metal = ClassView {
            default: true,
            ..ClassView::test("metal").of_provider(Ok(ballast_crds::ProviderSettings::L2(
                serde_json::from_value(json!({})).unwrap(),
            )))
        };
        let (before, after) = (Classes::default(), Classes::test([metal]));
        note(&old, &before);
        note(&refused, &before);
        // The class exists, and each Service was reconciled until just before its claim.
        note(&old, &after);
        note(&refused, &after);
        assert_eq!(
            asks(&book, &classless("new")),
            Some(ip(3)),
            "no other is free"
        );
        assert_eq!(asks(&book, &old), Some(ip(1)));
        note(&old, &after);
        assert_eq!(
            asks(&book, &classless("late")),
            None,
            "refused, and keeps it"
        );
        book.note(&Name::from(&refused.id), || None, &after);
        assert_eq!(asks(&book, &classless("late")), Some(ip(2)), "it is gone");
    }

    #[test]
    fn a_foreign_address_is_free_when_its_service_goes_before_its_first_reconcile() {
        let other = ServiceView::test("other").publishing("192.0.2.1");
        let book = open("192.0.2.1", &[Arc::new(other.clone())]);
        assert_eq!(asks(&book, &ServiceView::test("new")), None, "published");
        book.note(&Name::from(&other.id), || None, &Classes::default());
        assert_eq!(asks(&book, &ServiceView::test("new")), Some(ip(1)));
    }
}
