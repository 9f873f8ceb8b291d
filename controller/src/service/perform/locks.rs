//! Whose turn it is where several Services share one balancer.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use ballast_provider::Key;
use tokio::sync::OwnedMutexGuard;

use crate::class::Classes;
use crate::cluster::ledger::Ledger;
use crate::cluster::view::{Name, ServiceView};

/// A balancer: class and key.
pub(super) type Place = (String, Key);

/// One lock for each balancer while somebody works on it.
#[derive(Debug, Default)]
pub struct KeyLocks {
    locks: Mutex<HashMap<Place, Arc<tokio::sync::Mutex<()>>>>,
}

/// The balancers that a worker has to itself; dropped at the end of its turn.
#[derive(Debug)]
pub struct Turn {
    places: BTreeSet<Place>,
    _guards: Vec<OwnedMutexGuard<()>>,
}

/// Every balancer that a turn for this name may touch: those that the ledger names, for
/// this Service and for former ones of its name, and those that it asks for now. Pure.
pub fn places(
    name: &Name,
    service: Option<&ServiceView>,
    classes: &Classes,
    ledger: &Ledger,
) -> BTreeSet<Place> {
    let mut places = BTreeSet::new();
    for entry in ledger.entries(name) {
        places.insert((entry.class.clone(), Key::alone(&entry.id)));
        let keys = entry.keys.into_iter();
        places.extend(keys.map(|key| (entry.class.clone(), key)));
    }
    let Some(service) = service else {
        return places;
    };
    let claim = classes.claim(service).into_iter();
    for class in claim.chain(service.held_by.iter().map(String::as_str)) {
        places.insert((class.to_owned(), Key::alone(&service.id)));
        if let Some(provider) = classes.provider(class) {
            let keys = service.shapes().map(|wanted| provider.key(wanted));
            places.extend(keys.map(|key| (class.to_owned(), key)));
        }
    }
    places
}

// === impl KeyLocks ===

impl KeyLocks {
    /// Waits until nobody else works on any of these balancers.
    ///
    /// To be taken before deciding: a decision lists all members of a balancer, and one
    /// made while another worker adds a member would take that member off again. All
    /// locks are taken in the same order everywhere, so two Services that change places
    /// do not wait for each other for ever. Safe to cancel.
    pub async fn hold(&self, places: BTreeSet<Place>) -> Turn {
        let wanted = {
            let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
            locks.retain(|_, lock| Arc::strong_count(lock) > 1);
            let lock = |place: &Place| Arc::clone(locks.entry(place.clone()).or_default());
            places.iter().map(lock).collect::<Vec<_>>()
        };
        let mut guards = Vec::with_capacity(wanted.len());
        for lock in wanted {
            guards.push(lock.lock_owned().await);
        }
        Turn {
            places,
            _guards: guards,
        }
    }
}

// === impl Turn ===

impl Turn {
    /// Whether all of these balancers are held.
    pub fn covers(&self, places: &BTreeSet<Place>) -> bool {
        places.is_subset(&self.places)
    }
}
