//! Objects of one kind, as calls see them that name them, and as lists see them: lists lag behind.

use std::collections::{BTreeMap, btree_map};
use std::time::Duration;

use super::Moment;

/// Objects by ARN or ID.
#[derive(Clone, Debug)]
pub struct Store<T> {
    live: BTreeMap<String, T>,
    /// When calls made the objects. What a test has put in is always listed.
    made: BTreeMap<String, Moment>,
    /// Deleted objects that lists may still show.
    gone: BTreeMap<String, Gone<T>>,
}

/// A deleted object.
#[derive(Clone, Debug)]
struct Gone<T> {
    object: T,
    made: Option<Moment>,
    deleted: Moment,
}

// === impl Store ===

impl<T> Default for Store<T> {
    fn default() -> Self {
        Self {
            live: BTreeMap::new(),
            made: BTreeMap::new(),
            gone: BTreeMap::new(),
        }
    }
}

impl<T> Store<T> {
    /// The objects as they are.
    pub fn all(&self) -> &BTreeMap<String, T> {
        &self.live
    }

    /// The same, without their keys.
    pub fn values(&self) -> btree_map::Values<'_, String, T> {
        self.live.values()
    }

    /// The same, to change them.
    pub fn values_mut(&mut self) -> btree_map::ValuesMut<'_, String, T> {
        self.live.values_mut()
    }

    /// One object.
    pub fn get(&self, key: &str) -> Option<&T> {
        self.live.get(key)
    }

    /// One object, to change it.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut T> {
        self.live.get_mut(key)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.live.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.live.is_empty()
    }

    /// Adds an object of a test.
    pub fn put(&mut self, key: String, object: T) {
        self.made.remove(&key);
        self.live.insert(key, object);
    }

    /// Adds the new object of a call.
    pub fn insert(&mut self, key: String, object: T, now: Moment) {
        self.made.insert(key.clone(), now);
        self.live.insert(key, object);
    }

    /// Deletes an object.
    pub fn remove(&mut self, key: &str, now: Moment) -> Option<T>
    where
        T: Clone,
    {
        let object = self.live.remove(key)?;
        let gone = Gone {
            object: object.clone(),
            made: self.made.remove(key),
            deleted: now,
        };
        self.gone.insert(key.to_owned(), gone);
        Some(object)
    }

    /// The objects that a list shows, by key: those that were made some time ago, and those that
    /// it had shown and that were deleted a short time ago.
    pub fn listed(&self, now: Moment, lag: Duration) -> BTreeMap<&str, &T> {
        let shown = |made: Option<&Moment>, at: Moment| made.is_none_or(|made| *made + lag <= at);
        let live = (self.live.iter()).filter(|(key, _)| shown(self.made.get(*key), now));
        let gone = self.gone.iter().filter(|(_, gone)| {
            gone.deleted + lag > now && shown(gone.made.as_ref(), gone.deleted)
        });
        let live = live.map(|(key, one)| (key.as_str(), one));
        let gone = gone.map(|(key, gone)| (key.as_str(), &gone.object));
        gone.chain(live).collect()
    }

    /// Drops what no list shows any more.
    pub(super) fn forget(&mut self, now: Moment, lag: Duration) {
        self.gone.retain(|_, gone| gone.deleted + lag > now);
    }
}
