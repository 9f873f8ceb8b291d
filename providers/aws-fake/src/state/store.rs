//! Objects of one kind, as calls see them that name them, and as lists see them: lists lag behind.

use std::collections::{BTreeMap, btree_map};
use std::time::Duration;

use super::Moment;

/// Objects by ARN or ID.
#[derive(Clone, Debug)]
pub struct Store<T> {
    live: BTreeMap<String, T>,
    /// When lists begin to show a new object counts from here.
    since: BTreeMap<String, Moment>,
    /// Deleted objects that lists may still show, and when they were deleted.
    gone: BTreeMap<String, (Moment, T)>,
}

// === impl Store ===

impl<T> Default for Store<T> {
    fn default() -> Self {
        Self {
            live: BTreeMap::new(),
            since: BTreeMap::new(),
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

    /// Adds a new object.
    pub fn insert(&mut self, key: String, object: T, now: Moment) {
        self.since.insert(key.clone(), now);
        self.live.insert(key, object);
    }

    /// Deletes an object.
    pub fn remove(&mut self, key: &str, now: Moment) -> Option<T>
    where
        T: Clone,
    {
        let object = self.live.remove(key)?;
        if let Some(since) = self.since.remove(key)
            && since < now
        {
            self.gone.insert(key.to_owned(), (now, object.clone()));
        }
        Some(object)
    }

    /// The objects that a list shows, by key.
    pub fn listed(&self, now: Moment, lag: Duration) -> BTreeMap<&str, &T> {
        let live = self.live.iter().filter(|(key, _)| {
            let since = self.since.get(*key).copied().unwrap_or_default();
            lag.is_zero() || since.is_zero() || since + lag <= now
        });
        let gone = (self.gone.iter()).filter(|(_, (deleted, _))| *deleted + lag > now);
        let live = live.map(|(key, one)| (key.as_str(), one));
        let gone = gone.map(|(key, (_, one))| (key.as_str(), one));
        gone.chain(live).collect()
    }

    /// Drops what no list shows any more.
    pub(super) fn forget(&mut self, now: Moment, lag: Duration) {
        self.gone.retain(|_, (deleted, _)| *deleted + lag > now);
    }
}
