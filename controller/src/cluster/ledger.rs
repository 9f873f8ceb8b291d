//! Which Services have, or may have, a load balancer: the memory of this process.
//!
//! An entry is written before the first effect for a Service and removed after its release.
//! At start the entries are rebuilt from the tags in the clouds and from the finalizers of
//! Services. The two differ in what they prove. Tags and our own work prove that the Service
//! has a **place** in the class: it counts for the quota, and a class-less Service stays with
//! that class. Anybody who may edit a Service can add a finalizer, so a finalizer alone says
//! only that there may be something to release.
//!
//! A Service that the provider refuses before it ever had anything there gives its place back:
//! it could keep it for ever from the others. It keeps its entry, and takes a place again with
//! its next try, if there is one. A Service whose first call had no answer may have something,
//! so it keeps its place.
//!
//! The ledger answers three questions that the store cannot: what to release when an object
//! vanishes without a finalizer, how many places of a class are taken, and whether the store
//! already shows our own last write.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ballast_provider::{Key, ServiceId};
use tokio::time::Instant;

use crate::cluster::texts;
use crate::cluster::view::Name;
use crate::process::room::give_back;

mod presence;
mod shared;
mod writes;

use self::presence::Presence;
use self::shared::Sharing;
pub use self::shared::{Port, Share};
use self::writes::Write;

/// One Service with effects in one class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Which Service, by UID: a later one of the same name is another.
    pub id: ServiceId,
    /// The class of its effects.
    pub class: Arc<str>,
    /// The balancers that it is on, or may be on: two while it moves from one to another.
    pub keys: Vec<Key>,
    /// More than a finalizer says so: our own work, or the tags of a cloud object.
    pub proven: bool,
}

/// The ledger; see the module documentation.
#[derive(Debug, Default)]
pub struct Ledger {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// A vector, because nearly every name has one entry and a map would take five times the
    /// memory.
    entries: HashMap<Name, Vec<(Entry, Marks)>>,
    per_class: HashMap<String, Count>,
    written: HashMap<Name, Write>,
    closed: HashSet<String>,
    releases: u64,
}

/// The entries of one class.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    all: usize,
    /// Those that are proven.
    places: usize,
    /// Those whose last try the provider refused.
    refused: usize,
    /// Those whose Service is missing, or was.
    absent: usize,
}

/// A place that is reserved.
#[derive(Clone, Copy, Debug)]
struct Vacant {
    /// The class had a limit then.
    is_limited: bool,
}

#[derive(Debug, Default)]
struct Marks {
    began: Option<Instant>,
    slow_announced: bool,
    /// The place is reserved, and no call has put anything there.
    vacant: Option<Vacant>,
    /// The provider refused the last try, and there is nothing there.
    is_refused: bool,
    presence: Presence,
    /// Apart, because most Services share nothing.
    sharing: Option<Box<Sharing>>,
}

// === impl Ledger ===

impl Ledger {
    /// Records that a Service carries the finalizer of a class. It may have something there;
    /// it has no place.
    pub fn record_finalizer(&self, id: &ServiceId, class: &str) {
        self.lock().insert(id, class);
    }

    /// Records that a Service has a load balancer of a class, whatever the limit. On which
    /// balancer is not known.
    pub fn record(&self, id: &ServiceId, class: &str) {
        self.lock().occupy(id, class);
    }

    /// Records that a Service is on a balancer of a class, whatever the limit.
    pub fn record_on(&self, id: &ServiceId, class: &str, key: &Key) {
        self.lock().occupy(id, class).add(key);
    }

    /// Takes one of `max` places of a class. Returns true if the Service has a place now, on
    /// this balancer. Check and entry are one step: two workers cannot take the last place.
    pub fn reserve(&self, id: &ServiceId, class: &str, key: &Key, max: Option<usize>) -> bool {
        let mut inner = self.lock();
        let full = max.is_some_and(|max| inner.of(class).places >= max);
        let closed = inner.closed.contains(class);
        let may = match inner.find(id, class) {
            Some((entry, _)) if entry.proven => true,
            Some(_) => !full,
            None => !full && !closed,
        };
        if may {
            let vacant = !inner.find(id, class).is_some_and(|(entry, _)| entry.proven);
            inner.prove(id, class);
            inner.join(id, class, key);
            if let Some(marks) = inner.marks(id, class).filter(|_| vacant) {
                let is_limited = max.is_some();
                marks.vacant = Some(Vacant { is_limited });
            }
        }
        may
    }

    /// Records that the provider has something for a Service, or may have.
    pub fn occupied(&self, id: &ServiceId, class: &str) {
        let mut inner = self.lock();
        if inner.find(id, class).is_some() {
            inner.occupy(id, class);
        }
    }

    /// Records that the provider refused a Service. If it has nothing there, its place becomes
    /// free. The Services that wait for a place are told once, not at each try, and only if the
    /// class has a limit.
    pub fn refused(&self, id: &ServiceId, class: &str) {
        let mut inner = self.lock();
        let Some((entry, marks)) = inner.find(id, class) else {
            return;
        };
        let Some(Vacant { is_limited }) = marks.vacant.take() else {
            return;
        };
        entry.proven = false;
        let news = !std::mem::replace(&mut marks.is_refused, true);
        let tells = news && is_limited;
        inner.releases += u64::from(tells);
        if let Some(count) = inner.per_class.get_mut(class) {
            count.places -= 1;
            count.refused += usize::from(news);
        }
    }

    /// Whether the provider refused the last try of a Service that has nothing there.
    pub fn is_refused(&self, id: &ServiceId, class: &str) -> bool {
        self.lock().marks(id, class).is_some_and(|it| it.is_refused)
    }

    /// Whether the provider refused the last try of any Service that has nothing there.
    pub fn refuses_any(&self, class: &str) -> bool {
        self.lock().of(class).refused > 0
    }

    /// The balancers of a class that a Service is on, or may be on.
    pub fn keys(&self, id: &ServiceId, class: &str) -> Vec<Key> {
        let mut inner = self.lock();
        let found = inner.find(id, class);
        found.map_or_else(Vec::new, |(entry, _)| entry.keys.clone())
    }

    /// Whether a Service is on a balancer, or may be.
    pub fn is_on(&self, id: &ServiceId, class: &str, key: &Key) -> bool {
        let mut inner = self.lock();
        let found = inner.find(id, class);
        found.is_some_and(|(entry, _)| entry.keys.contains(key))
    }

    /// Removes a balancer from a Service's entry. The Service keeps its place in the class.
    pub fn left(&self, id: &ServiceId, class: &str, key: &Key) {
        let mut inner = self.lock();
        inner.releases += 1;
        if let Some((entry, marks)) = inner.find(id, class) {
            entry.keys.retain(|on| on != key);
            if let Some(sharing) = &mut marks.sharing {
                sharing.left(key);
            }
        }
    }

    /// Closes a class without entries; returns false if it has any. After that no
    /// [`Self::reserve`] succeeds, so the finalizer of the class can be removed.
    pub fn close(&self, class: &str) -> bool {
        let mut inner = self.lock();
        let unused = inner.of(class).all == 0;
        if unused {
            inner.closed.insert(class.to_owned());
        }
        unused
    }

    /// Whether a class is closed.
    pub fn is_closed(&self, class: &str) -> bool {
        self.lock().closed.contains(class)
    }

    /// How often a place or a balancer came free. A Service that was refused meanwhile tries
    /// again.
    pub fn releases(&self) -> u64 {
        self.lock().releases
    }

    /// Opens a class again.
    pub fn open(&self, class: &str) {
        self.lock().closed.remove(class);
    }

    /// Removes a Service's entry of a class after its release.
    pub fn forget(&self, id: &ServiceId, class: &str) {
        let mut inner = self.lock();
        inner.releases += 1;
        let name = Name::from(id);
        let Some(entries) = inner.entries.get_mut(&name) else {
            return;
        };
        let mut removed = Count::default();
        entries.retain(|(entry, marks)| {
            let goes = entry.id.uid == id.uid && &*entry.class == class;
            removed.refused += usize::from(goes && marks.is_refused);
            removed.absent += usize::from(goes && marks.presence == Presence::Absent);
            removed.all += usize::from(goes);
            removed.places += usize::from(goes && entry.proven);
            !goes
        });
        if entries.is_empty() {
            inner.entries.remove(&name);
            give_back(&mut inner.entries);
        }
        if let Some(count) = inner.per_class.get_mut(class) {
            count.all -= removed.all;
            count.places -= removed.places;
            count.refused -= removed.refused;
            count.absent -= removed.absent;
        }
    }

    /// Removes the entries of a name that only a finalizer proves, except these.
    pub fn retain_unproven(&self, name: &Name, keep: impl Fn(&Entry) -> bool) {
        let stale: Vec<Entry> = {
            let inner = self.lock();
            let entries = inner.entries.get(name).into_iter().flatten();
            let entries = entries.filter(|(entry, marks)| !entry.proven && !marks.is_refused);
            let entries = entries.map(|(entry, _)| entry);
            entries.filter(|entry| !keep(entry)).cloned().collect()
        };
        for entry in stale {
            self.forget(&entry.id, &entry.class);
        }
    }

    /// All entries of a name.
    pub fn entries(&self, name: &Name) -> Vec<Entry> {
        let inner = self.lock();
        let entries = inner.entries.get(name).into_iter().flatten();
        entries.map(|(entry, _)| entry.clone()).collect()
    }

    /// The entries of a name that are of other Services than this one (`None`: all).
    pub fn left_behind(&self, name: &Name, uid: Option<&str>) -> Vec<Entry> {
        let inner = self.lock();
        let entries = inner.entries.get(name).into_iter().flatten();
        entries
            .map(|(entry, _)| entry)
            .filter(|entry| uid != Some(&*entry.id.uid))
            .cloned()
            .collect()
    }

    /// The classes in which a Service has, or may have, something.
    pub fn classes_of(&self, id: &ServiceId) -> Vec<Arc<str>> {
        let inner = self.lock();
        let entries = inner.entries.get(&Name::from(id)).into_iter().flatten();
        entries
            .map(|(entry, _)| entry)
            .filter(|entry| entry.id == *id)
            .map(|entry| entry.class.clone())
            .collect()
    }

    /// The classes in which a Service has a place.
    pub fn places_of(&self, id: &ServiceId) -> Vec<Arc<str>> {
        let inner = self.lock();
        let entries = inner.entries.get(&Name::from(id)).into_iter().flatten();
        entries
            .map(|(entry, _)| entry)
            .filter(|entry| entry.id == *id && entry.proven)
            .map(|entry| entry.class.clone())
            .collect()
    }

    /// Every name with an entry.
    pub fn names(&self) -> Vec<Name> {
        self.lock().entries.keys().cloned().collect()
    }

    /// How many Services have, or may have, something in a class.
    pub fn count(&self, class: &str) -> usize {
        self.lock().of(class).all
    }

    /// How many places of a class are taken.
    pub fn places(&self, class: &str) -> usize {
        self.lock().of(class).places
    }

    /// Whether a Service has, or may have, something in a class.
    pub fn has(&self, id: &ServiceId, class: &str) -> bool {
        self.lock().find(id, class).is_some()
    }

    /// Whether a Service has a place in a class.
    pub fn has_place(&self, id: &ServiceId, class: &str) -> bool {
        let mut inner = self.lock();
        let found = inner.find(id, class);
        found.is_some_and(|(entry, _)| entry.proven)
    }

    /// When the work that goes on for this Service began; set at the first call.
    pub fn began(&self, id: &ServiceId, class: &str, now: Instant) -> Instant {
        let mut inner = self.lock();
        match inner.marks(id, class) {
            Some(marks) => *marks.began.get_or_insert(now),
            None => now,
        }
    }

    /// Whether to report the work in progress as slow: true once per piece of work.
    pub fn announce_slow(&self, id: &ServiceId, class: &str) -> bool {
        let mut inner = self.lock();
        inner
            .marks(id, class)
            .is_some_and(|marks| !std::mem::replace(&mut marks.slow_announced, true))
    }

    /// Records that the work timed by [`Self::began`] is done.
    pub fn finished(&self, id: &ServiceId, class: &str) {
        if let Some(marks) = self.lock().marks(id, class) {
            (marks.began, marks.slow_announced) = (None, false);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Entry ===

impl Entry {
    fn add(&mut self, key: &Key) {
        if !self.keys.contains(key) {
            self.keys.reserve_exact(1);
            self.keys.push(key.clone());
        }
    }
}

// === impl Inner ===

impl Inner {
    fn insert(&mut self, id: &ServiceId, class: &str) -> &mut Entry {
        let entries = self.entries.entry(Name::from(id)).or_default();
        let found = entries
            .iter()
            .position(|(entry, _)| entry.id == *id && &*entry.class == class);
        let at = found.unwrap_or_else(|| {
            self.per_class.entry(class.to_owned()).or_default().all += 1;
            let entry = Entry {
                id: id.clone(),
                class: texts::shared(class),
                keys: Vec::new(),
                proven: false,
            };
            entries.reserve_exact(1);
            entries.push((entry, Marks::default()));
            entries.len() - 1
        });
        &mut entries[at].0
    }

    fn prove(&mut self, id: &ServiceId, class: &str) -> &mut Entry {
        if !std::mem::replace(&mut self.insert(id, class).proven, true) {
            self.per_class.entry(class.to_owned()).or_default().places += 1;
        }
        self.insert(id, class)
    }

    /// The Service has a place, and the provider has something for it, or may have.
    fn occupy(&mut self, id: &ServiceId, class: &str) -> &mut Entry {
        self.prove(id, class);
        let refused = self.marks(id, class).is_some_and(|marks| {
            marks.vacant = None;
            std::mem::replace(&mut marks.is_refused, false)
        });
        if let Some(count) = self.per_class.get_mut(class) {
            count.refused -= usize::from(refused);
        }
        self.insert(id, class)
    }

    /// Adds a balancer that the Service asks for.
    fn join(&mut self, id: &ServiceId, class: &str, key: &Key) {
        let Some((entry, marks)) = self.find(id, class) else {
            return;
        };
        if let [only] = &entry.keys[..]
            && only != key
        {
            marks.sharing.get_or_insert_default().moves_from(only);
        }
        entry.add(key);
    }

    fn of(&self, class: &str) -> Count {
        self.per_class.get(class).copied().unwrap_or_default()
    }

    fn find(&mut self, id: &ServiceId, class: &str) -> Option<&mut (Entry, Marks)> {
        let entries = self.entries.get_mut(&Name::from(id))?;
        entries
            .iter_mut()
            .find(|(entry, _)| entry.id == *id && &*entry.class == class)
    }

    fn marks(&mut self, id: &ServiceId, class: &str) -> Option<&mut Marks> {
        self.find(id, class).map(|(_, marks)| marks)
    }
}

#[cfg(test)]
mod tests;
