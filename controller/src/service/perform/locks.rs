//! Serialises the work on each balancer, which several Services can share.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use ballast_provider::Key;
use tokio::sync::OwnedMutexGuard;

use crate::class::Classes;
use crate::cluster::ledger::Ledger;
use crate::cluster::view::{Name, ServiceView};

/// A balancer: class and key.
pub(super) type Place = (String, Key);

/// One lock for each balancer that a worker uses or waits for.
#[derive(Debug, Default)]
pub struct KeyLocks {
    locks: Mutex<HashMap<Place, Arc<tokio::sync::Mutex<()>>>>,
}

/// The balancers that a worker has locked; dropped at the end of its turn.
#[derive(Debug)]
pub struct Turn {
    places: BTreeSet<Place>,
    _guards: Vec<OwnedMutexGuard<()>>,
}

/// Every balancer that a turn for this name can touch: the balancers in the ledger, of this
/// Service and of earlier ones with its name, and those that it asks for now. Pure.
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
    let claim = classes.claim(service).map(str::to_owned);
    let recorded = ledger.classes_of(&service.id);
    let held = service.held_by.iter().cloned();
    for class in claim.into_iter().chain(recorded).chain(held) {
        let class = class.as_str();
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
    /// Waits until no other worker uses any of these balancers.
    ///
    /// Take the locks before deciding. A decision lists all members of a balancer; if another
    /// worker added a member at the same time, the decision would remove it again. Locks are
    /// taken in one order, so two Services that swap balancers do not deadlock. Cancel safe.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::class::ClassView;

    /// Whatever a decision can release or ensure is locked: the balancers of former Services of
    /// the name, those that the Service leaves and asks for, and those of classes that only the
    /// ledger or a finalizer names.
    #[test]
    fn every_balancer_that_a_turn_can_touch_is_named() {
        let classes = Classes::test(["local", "recorded", "held"].map(ClassView::test));
        let service = ServiceView::test("web")
            .shares("new", 80)
            .held_by(&["held"]);
        let ledger = Ledger::default();
        let mut former = service.id.clone();
        former.uid = "uid-former".to_owned();
        let shared = |key: &str| Key::Shared(key.to_owned());
        ledger.record_on(&service.id, "local", &shared("old"));
        ledger.record(&service.id, "recorded");
        ledger.record_on(&former, "local", &shared("former"));
        let name = Name::from(&service.id);
        let expected = [
            ("local", shared("new")),
            ("local", shared("old")),
            ("local", shared("former")),
            ("local", Key::alone(&former)),
            ("recorded", shared("new")),
            ("held", shared("new")),
        ];
        let named = places(&name, Some(&service), &classes, &ledger);
        for (class, key) in expected {
            assert!(
                named.contains(&(class.to_owned(), key.clone())),
                "{class}: {key}"
            );
        }
        let absent = places(&name, None, &classes, &ledger);
        assert!(absent.contains(&("local".to_owned(), shared("old"))));
    }
}
