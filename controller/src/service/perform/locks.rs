//! Serialises the work on each balancer, which several Services can share.
//!
//! A turn that cannot have all of its balancers ends at once and waits here, without a worker:
//! a balancer whose calls hang must not keep workers from other Services. When a balancer
//! becomes free, the Service that has waited longest for it is queued, and has it reserved
//! until its turn begins. A turn takes all of its balancers in one step, so no turn waits for
//! a balancer while it has another. Workers are divided among classes in the same way
//! ([`super::shares`]).

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ballast_provider::Key;

use super::shares::Shares;
use crate::class::Classes;
use crate::cluster::ledger::Ledger;
use crate::cluster::view::{Name, ServiceView};
use crate::process::queue::Queue;

/// A balancer: class and key.
pub(super) type Place = (String, Key);

/// The balancers that turns use or wait for.
#[derive(Clone, Debug)]
pub struct KeyLocks {
    lines: Arc<Mutex<Lines>>,
    queue: Queue<Name>,
}

/// The balancers that a worker has locked; dropped at the end of its turn.
#[derive(Debug)]
pub struct Turn {
    places: BTreeSet<Place>,
    classes: BTreeSet<String>,
    locks: KeyLocks,
}

#[derive(Debug)]
struct Lines {
    shares: Shares,
    balancers: HashMap<Place, Line>,
    /// The line in which each waiting Service is: at most one.
    waits: HashMap<Name, Place>,
}

/// A balancer that is not free.
#[derive(Debug)]
struct Line {
    /// `None`: a turn has it. Otherwise it is reserved for this Service, which is queued.
    reserved: Option<Name>,
    waiting: VecDeque<Name>,
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
        let class = (*entry.class).to_owned();
        let keys = entry.keys.into_iter().chain([Key::alone(&entry.id)]);
        places.extend(keys.map(|key| (class.clone(), key)));
    }
    let Some(service) = service else {
        return places;
    };
    let recorded = ledger.classes_of(&service.id);
    let recorded = recorded.iter().map(|class| &**class);
    let claim = classes.claim(service).into_iter();
    for class in claim.chain(recorded).chain(service.holders()) {
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
    /// No balancer is in use. Services that waited are added to `queue`, from which this many
    /// workers take them.
    pub fn new(queue: Queue<Name>, workers: usize) -> Self {
        let lines = Lines {
            shares: Shares::new(workers),
            balancers: HashMap::new(),
            waits: HashMap::new(),
        };
        Self {
            lines: Arc::new(Mutex::new(lines)),
            queue,
        }
    }

    /// Takes all of these balancers, or none: then the Service waits and is queued when it may
    /// try again.
    ///
    /// Take the balancers before deciding. A decision lists all members of a balancer; if
    /// another worker added a member at the same time, the decision would remove it again.
    /// `alone`: the cluster has a single class.
    pub fn hold(&self, name: &Name, places: BTreeSet<Place>, alone: bool) -> Option<Turn> {
        let classes: BTreeSet<String> = places.iter().map(|(class, _)| class.clone()).collect();
        let mut lines = self.lock();
        lines.shares.set_alone(alone);
        let (begins, mut woken) = lines.begin(name, &places, &classes);
        woken.extend(lines.shares.wake());
        drop(lines);
        for name in woken {
            self.queue.add(name);
        }
        begins.then(|| Turn {
            places,
            classes,
            locks: self.clone(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        // Nothing in here panics half-way.
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Turn ===

impl Turn {
    /// Whether all of these balancers are held.
    pub fn covers(&self, places: &BTreeSet<Place>) -> bool {
        places.is_subset(&self.places)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut lines = self.locks.lock();
        let places = self.places.iter();
        let mut woken: Vec<Name> = places.filter_map(|place| lines.next(place)).collect();
        lines.shares.end(&self.classes);
        woken.extend(lines.shares.wake());
        drop(lines);
        for name in woken {
            self.locks.queue.add(name);
        }
    }
}

// === impl Lines ===

impl Lines {
    /// Begins a turn if all of its balancers and a worker for each of its classes are free.
    /// Otherwise the Service waits. Returns the Services that must be queued.
    fn begin(
        &mut self,
        name: &Name,
        places: &BTreeSet<Place>,
        classes: &BTreeSet<String>,
    ) -> (bool, Vec<Name>) {
        let mut all = places.iter();
        let busy = all.find(|place| self.is_busy(place, name)).cloned();
        if let Some(busy) = busy {
            self.shares.leave(name);
            let woken = self.leave(name, Some(&busy), places);
            self.join(name, &busy);
            return (false, woken.into_iter().collect());
        }
        // A balancer that is reserved for it stays so.
        if !self.shares.begin(name, classes) {
            return (false, Vec::new());
        }
        let woken = self.leave(name, None, places);
        for place in places {
            self.take(place);
        }
        (true, woken.into_iter().collect())
    }

    fn is_busy(&self, place: &Place, name: &Name) -> bool {
        let line = self.balancers.get(place);
        line.is_some_and(|line| line.reserved.as_ref() != Some(name))
    }

    /// Takes the Service out of its line, unless it is to wait there. If a balancer is reserved
    /// for it that it does not take, the next one is returned and must be queued.
    fn leave(
        &mut self,
        name: &Name,
        busy: Option<&Place>,
        takes: &BTreeSet<Place>,
    ) -> Option<Name> {
        let waited = self.waits.get(name).filter(|place| Some(*place) != busy);
        let place = waited?.clone();
        self.waits.remove(name);
        if busy.is_none() && takes.contains(&place) {
            return None;
        }
        let line = self.balancers.get_mut(&place)?;
        if line.reserved.as_ref() == Some(name) {
            return self.next(&place);
        }
        line.waiting.retain(|waiting| waiting != name);
        None
    }

    /// The Service waits for a balancer, unless it does already.
    fn join(&mut self, name: &Name, place: &Place) {
        if let Some(line) = self.balancers.get_mut(place)
            && self.waits.insert(name.clone(), place.clone()).is_none()
        {
            line.waiting.push_back(name.clone());
        }
    }

    fn take(&mut self, place: &Place) {
        let line = self.balancers.entry(place.clone());
        line.or_insert_with(|| Line {
            reserved: None,
            waiting: VecDeque::new(),
        })
        .reserved = None;
    }

    /// Nobody has the balancer any more: it is reserved for the first that waits, which is
    /// returned and must be queued.
    fn next(&mut self, place: &Place) -> Option<Name> {
        let line = self.balancers.get_mut(place)?;
        let next = line.waiting.pop_front();
        match &next {
            Some(name) => line.reserved = Some(name.clone()),
            None => drop(self.balancers.remove(place)),
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::class::ClassView;
    use crate::process::backoff::Backoff;

    fn name(name: &str) -> Name {
        Name::from(&crate::fixtures::id(name))
    }

    fn on(keys: &[&str]) -> BTreeSet<Place> {
        let place = |key: &&str| ("local".to_owned(), Key::Shared((*key).into()));
        keys.iter().map(place).collect()
    }

    /// The Services that were queued since, in order.
    async fn woken(queue: &Queue<Name>) -> Vec<String> {
        let mut names = Vec::new();
        while queue.depth() > 0 {
            names.push(queue.next().await.unwrap().key().name.to_string());
        }
        names
    }

    #[tokio::test(start_paused = true)]
    async fn who_cannot_have_a_balancer_waits_without_a_worker_and_in_order() {
        let queue = Queue::new(Backoff::default());
        let locks = KeyLocks::new(queue.clone(), 16);
        let turn = locks.hold(&name("a"), on(&["one"]), false).unwrap();
        assert!(locks.hold(&name("b"), on(&["one"]), false).is_none());
        assert!(locks.hold(&name("c"), on(&["one"]), false).is_none());
        assert!(
            locks.hold(&name("b"), on(&["one"]), false).is_none(),
            "an event"
        );
        assert!(locks.hold(&name("d"), on(&["two"]), false).is_some());
        assert!(woken(&queue).await.is_empty());
        drop(turn);
        assert_eq!(woken(&queue).await, ["b"], "one at a time");
        assert!(
            locks.hold(&name("e"), on(&["one"]), false).is_none(),
            "reserved"
        );
        let turn = locks.hold(&name("b"), on(&["one"]), false).unwrap();
        drop(turn);
        assert_eq!(woken(&queue).await, ["c"]);
        drop(locks.hold(&name("c"), on(&["one"]), false).unwrap());
        assert_eq!(woken(&queue).await, ["e"]);
        drop(locks.hold(&name("e"), on(&["one"]), false).unwrap());
        let lines = locks.lock();
        assert!(
            lines.balancers.is_empty() && lines.waits.is_empty(),
            "{lines:?}"
        );
    }

    /// It was deleted, or asks for another balancer by now.
    #[tokio::test(start_paused = true)]
    async fn a_reservation_that_is_not_used_goes_to_the_next() {
        let queue = Queue::new(Backoff::default());
        let locks = KeyLocks::new(queue.clone(), 16);
        let (one, two) = (
            locks.hold(&name("a"), on(&["one"]), false).unwrap(),
            locks.hold(&name("b"), on(&["two"]), false).unwrap(),
        );
        for waits in ["c", "d", "e"] {
            assert!(locks.hold(&name(waits), on(&["one"]), false).is_none());
        }
        drop(one);
        assert_eq!(woken(&queue).await, ["c"]);
        drop(locks.hold(&name("c"), on(&[]), false).unwrap());
        assert_eq!(woken(&queue).await, ["d"], "c needs nothing");
        assert!(locks.hold(&name("d"), on(&["one", "two"]), false).is_none());
        assert_eq!(woken(&queue).await, ["e"], "d waits for the other one");
        drop(locks.hold(&name("e"), on(&["one"]), false).unwrap());
        drop(two);
        assert_eq!(woken(&queue).await, ["d"]);
        drop(locks.hold(&name("d"), on(&["one", "two"]), false).unwrap());
        let lines = locks.lock();
        assert!(
            lines.balancers.is_empty() && lines.waits.is_empty(),
            "{lines:?}"
        );
    }

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
        former.uid = "uid-former".into();
        let shared = |key: &str| Key::Shared(key.into());
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
