//! Stores: what the watches delivered, as views. The only memory of the cluster that
//! the functions that choose look at.
//!
//! Filled by one task per kind ([`crate::run::watch`]); read by everyone. During a relist
//! nothing is missing that was there before; what vanished goes, and is reported, when
//! the list is complete: absence is a change like any other.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use kube::runtime::watcher::Event;

/// Views by key.
#[derive(Debug)]
pub struct Store<K, V> {
    inner: RwLock<Inner<K, V>>,
}

#[derive(Debug)]
struct Inner<K, V> {
    views: HashMap<K, Arc<V>>,
    /// Keys of a relist that is under way.
    listed: HashSet<K>,
    ready: bool,
}

/// What an event changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed<K> {
    /// Keys whose view is new, different or gone.
    pub keys: Vec<K>,
    /// The first list is complete as of this event.
    pub became_ready: bool,
}

// === impl Store ===

impl<K, V> Default for Store<K, V> {
    fn default() -> Self {
        Self {
            inner: RwLock::new(Inner {
                views: HashMap::new(),
                listed: HashSet::new(),
                ready: false,
            }),
        }
    }
}

impl<K: Clone + Eq + Hash, V: PartialEq> Store<K, V> {
    /// Takes over one event of a watch.
    pub fn apply<T>(&self, event: Event<T>, parse: impl Fn(&T) -> (K, V)) -> Changed<K> {
        let mut inner = self.write();
        let mut keys = Vec::new();
        let mut became_ready = false;
        match event {
            Event::Init => inner.listed.clear(),
            Event::InitApply(object) => {
                let (key, view) = parse(&object);
                inner.listed.insert(key.clone());
                inner.insert(key, view, &mut keys);
            }
            Event::InitDone => {
                let listed = std::mem::take(&mut inner.listed);
                inner.views.retain(|key, _| {
                    let kept = listed.contains(key);
                    if !kept {
                        keys.push(key.clone());
                    }
                    kept
                });
                became_ready = !std::mem::replace(&mut inner.ready, true);
            }
            Event::Apply(object) => {
                let (key, view) = parse(&object);
                inner.insert(key, view, &mut keys);
            }
            Event::Delete(object) => {
                let (key, _) = parse(&object);
                inner.views.remove(&key);
                keys.push(key);
            }
        }
        Changed { keys, became_ready }
    }

    /// One view.
    pub fn get(&self, key: &K) -> Option<Arc<V>> {
        self.read().views.get(key).cloned()
    }

    /// All views, in no order.
    pub fn all(&self) -> Vec<Arc<V>> {
        self.read().views.values().cloned().collect()
    }

    /// All keys, in no order.
    pub fn keys(&self) -> Vec<K> {
        self.read().views.keys().cloned().collect()
    }

    /// Whether the first list is complete.
    pub fn is_ready(&self) -> bool {
        self.read().ready
    }

    // A panic while the lock is held cannot leave a view half written: views are
    // replaced whole. So a poisoned lock is as good as any.
    fn read(&self) -> RwLockReadGuard<'_, Inner<K, V>> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner<K, V>> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Inner ===

impl<K: Clone + Eq + Hash, V: PartialEq> Inner<K, V> {
    fn insert(&mut self, key: K, view: V, changed: &mut Vec<K>) {
        if self.views.get(&key).is_some_and(|old| **old == view) {
            return;
        }
        changed.push(key.clone());
        self.views.insert(key, Arc::new(view));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Numbers = Store<&'static str, u32>;

    fn parse(pair: &(&'static str, u32)) -> (&'static str, u32) {
        *pair
    }

    fn listed(store: &Numbers, pairs: &[(&'static str, u32)]) -> Vec<&'static str> {
        let mut keys = store.apply(Event::Init, parse).keys;
        for pair in pairs {
            keys.extend(store.apply(Event::InitApply(*pair), parse).keys);
        }
        keys.extend(store.apply(Event::InitDone, parse).keys);
        keys.sort_unstable();
        keys
    }

    #[test]
    fn a_relist_reports_what_is_new_different_or_gone() {
        let store = Numbers::default();
        assert!(!store.is_ready());
        assert_eq!(
            listed(&store, &[("a", 1), ("b", 2), ("c", 3)]),
            ["a", "b", "c"]
        );
        assert!(store.is_ready());
        assert_eq!(
            listed(&store, &[("b", 2), ("c", 4), ("d", 5)]),
            ["a", "c", "d"]
        );
        assert_eq!(store.get(&"a"), None);
        assert_eq!(store.get(&"c").as_deref(), Some(&4));
    }

    #[test]
    fn nothing_vanishes_before_the_list_is_complete() {
        let store = Numbers::default();
        listed(&store, &[("a", 1)]);
        store.apply(Event::Init, parse);
        assert_eq!(store.get(&"a").as_deref(), Some(&1));
    }

    #[test]
    fn an_event_that_changes_nothing_wakes_nobody() {
        let store = Numbers::default();
        assert_eq!(store.apply(Event::Apply(("a", 1)), parse).keys, ["a"]);
        assert!(store.apply(Event::Apply(("a", 1)), parse).keys.is_empty());
        assert_eq!(store.apply(Event::Delete(("a", 1)), parse).keys, ["a"]);
    }
}
