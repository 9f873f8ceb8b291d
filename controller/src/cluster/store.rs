//! Stores: the objects that the watches delivered, as views. The functions that decide read the
//! state of the cluster only from here.
//!
//! One task per kind fills a store ([`crate::run::watch`]); everyone reads it. Objects are
//! parsed before the lock is taken, so a large object delays no reader. A relist removes
//! nothing before the list is complete; then it reports the objects that are gone.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Views by key.
#[derive(Debug)]
pub struct Store<K, V> {
    inner: RwLock<Inner<K, V>>,
}

#[derive(Debug)]
struct Inner<K, V> {
    views: HashMap<K, Stored<V>>,
    /// Keys of a relist that is under way.
    listed: HashSet<K>,
    /// What the last update deleted, if it did.
    deleted: Option<Arc<V>>,
    ready: bool,
}

#[derive(Debug)]
struct Stored<V> {
    version: u64,
    view: Arc<V>,
}

/// How a store names objects of a kind.
pub trait Key: Clone + Eq + Hash {
    /// The name from an object's metadata.
    fn named(namespace: Option<&str>, name: Option<&str>) -> Self;
}

/// One object, parsed.
#[derive(Clone, Debug)]
pub struct Parsed<K, V> {
    /// Its name.
    pub key: K,
    /// `metadata.resourceVersion`
    pub version: u64,
    /// What the store keeps.
    pub view: V,
}

/// What a watch delivers.
#[derive(Clone, Debug)]
pub enum Update<K, V> {
    /// A list begins.
    ListBegins,
    /// One object of the list.
    Listed(Parsed<K, V>),
    /// The list is complete.
    ListEnds,
    /// An object was created or changed.
    Applied(Parsed<K, V>),
    /// An object was deleted.
    Deleted(K),
}

/// What an update changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed<K> {
    /// Keys whose view is new, changed or deleted.
    pub keys: Vec<K>,
    /// The part of the watch that the update belongs to.
    pub phase: Phase,
}

/// The part of a watch that an update belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The start of a list.
    ListBegins,
    /// An object of a list.
    Listing,
    /// The end of a list.
    ListEnds {
        /// This was the first list: the store is ready now.
        first: bool,
    },
    /// After the list.
    Live,
}

// === impl Key ===

/// For objects without a namespace.
impl Key for Arc<str> {
    fn named(_: Option<&str>, name: Option<&str>) -> Self {
        name.unwrap_or_default().into()
    }
}

/// For objects without a namespace.
impl Key for String {
    fn named(_: Option<&str>, name: Option<&str>) -> Self {
        name.unwrap_or_default().to_owned()
    }
}

// === impl Store ===

impl<K, V> Default for Store<K, V> {
    fn default() -> Self {
        Self {
            inner: RwLock::new(Inner {
                views: HashMap::new(),
                listed: HashSet::new(),
                deleted: None,
                ready: false,
            }),
        }
    }
}

impl<K: Clone + Eq + Hash, V: PartialEq> Store<K, V> {
    /// Stores one update of a watch.
    pub fn apply(&self, update: Update<K, V>) -> Changed<K> {
        let mut inner = self.write();
        inner.deleted = None;
        let mut keys = Vec::new();
        let phase = match update {
            Update::ListBegins => {
                inner.listed.clear();
                Phase::ListBegins
            }
            Update::Listed(object) => {
                inner.listed.insert(object.key.clone());
                inner.insert(object, &mut keys);
                Phase::Listing
            }
            Update::ListEnds => {
                keys = inner.remove_unlisted();
                Phase::ListEnds {
                    first: !std::mem::replace(&mut inner.ready, true),
                }
            }
            Update::Applied(object) => {
                inner.insert(object, &mut keys);
                Phase::Live
            }
            Update::Deleted(key) => {
                let removed = inner.views.remove(&key);
                inner.deleted = removed.map(|stored| stored.view);
                keys.push(key);
                Phase::Live
            }
        };
        Changed { keys, phase }
    }

    /// What the last update deleted: a watch has reported it. What is missing in a list is not here.
    pub fn deleted(&self) -> Option<Arc<V>> {
        self.read().deleted.clone()
    }

    /// One view.
    pub fn get(&self, key: &K) -> Option<Arc<V>> {
        let inner = self.read();
        inner.views.get(key).map(|stored| Arc::clone(&stored.view))
    }

    /// All views, in no particular order.
    pub fn all(&self) -> Vec<Arc<V>> {
        let inner = self.read();
        let views = inner.views.values();
        views.map(|stored| Arc::clone(&stored.view)).collect()
    }

    /// All keys, in no particular order.
    pub fn keys(&self) -> Vec<K> {
        self.read().views.keys().cloned().collect()
    }

    /// The version of one object as last delivered.
    pub fn version(&self, key: &K) -> Option<u64> {
        self.read().views.get(key).map(|stored| stored.version)
    }

    /// Whether the first list is complete.
    pub fn is_ready(&self) -> bool {
        self.read().ready
    }

    // A panic while the lock is held cannot leave a partial view, because views are replaced as
    // a whole. So the data behind a poisoned lock is valid.
    fn read(&self) -> RwLockReadGuard<'_, Inner<K, V>> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner<K, V>> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Inner ===

impl<K: Clone + Eq + Hash, V: PartialEq> Inner<K, V> {
    fn insert(&mut self, object: Parsed<K, V>, changed: &mut Vec<K>) {
        let Parsed { key, version, view } = object;
        if let Some(stored) = self.views.get_mut(&key)
            && *stored.view == view
        {
            stored.version = version;
            return;
        }
        changed.push(key.clone());
        let view = Arc::new(view);
        self.views.insert(key, Stored { version, view });
    }

    /// Removes the objects that the list did not contain.
    fn remove_unlisted(&mut self) -> Vec<K> {
        let listed = std::mem::take(&mut self.listed);
        let gone = |key: &K| !listed.contains(key);
        let keys: Vec<K> = self.views.keys().filter(|key| gone(key)).cloned().collect();
        for key in &keys {
            self.views.remove(key);
        }
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Numbers = Store<&'static str, u32>;

    const fn parsed(key: &'static str, view: u32) -> Parsed<&'static str, u32> {
        Parsed {
            key,
            version: 7,
            view,
        }
    }

    fn listed(store: &Numbers, pairs: &[(&'static str, u32)]) -> Vec<&'static str> {
        let mut keys = store.apply(Update::ListBegins).keys;
        for (key, view) in pairs {
            keys.extend(store.apply(Update::Listed(parsed(key, *view))).keys);
        }
        keys.extend(store.apply(Update::ListEnds).keys);
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
        store.apply(Update::ListBegins);
        assert_eq!(store.get(&"a").as_deref(), Some(&1));
    }

    #[test]
    fn an_event_that_changes_nothing_wakes_nobody() {
        let store = Numbers::default();
        let applied = |version| {
            let object = Parsed {
                version,
                ..parsed("a", 1)
            };
            store.apply(Update::Applied(object)).keys
        };
        assert_eq!(applied(7), ["a"]);
        assert!(applied(8).is_empty());
        assert_eq!(
            store.version(&"a"),
            Some(8),
            "its version is kept all the same"
        );
        assert_eq!(store.apply(Update::Deleted("a")).keys, ["a"]);
        assert_eq!(store.version(&"a"), None);
    }
}
