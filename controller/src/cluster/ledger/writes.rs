//! Our own last writes: whether the store already shows them. A write is forgotten as soon as it
//! does.

use super::{Inner, Ledger};
use crate::cluster::view::Name;
use crate::process::room::give_back;

/// Our own last write to a Service.
#[derive(Debug)]
pub(super) struct Write {
    version: u64,
    /// A list began after the write, so the objects of that list are newer.
    listed: bool,
}

// === impl Ledger ===

impl Ledger {
    /// Records the version of our own last write to a Service.
    pub fn wrote(&self, name: &Name, version: u64) {
        let write = Write {
            version,
            listed: false,
        };
        self.lock().written.insert(name.clone(), write);
    }

    /// Forgets our last write to this name: the object is gone, so the watch will not deliver
    /// it.
    pub fn vanished(&self, name: &Name) {
        self.lock().settle(name);
    }

    /// Records that a list begins.
    pub fn relisting(&self) {
        for write in self.lock().written.values_mut() {
            write.listed = true;
        }
    }

    /// Records that the list is complete: the store has every write from before it. Versions
    /// may even have decreased, if the API server was restored from a backup.
    pub fn relisted(&self) {
        let mut inner = self.lock();
        inner.written.retain(|_, write| !write.listed);
        give_back(&mut inner.written);
    }

    /// Whether the store is older than our own last write. Its view must not be used; a newer
    /// one will arrive.
    pub fn is_stale(&self, name: &Name, version: u64) -> bool {
        let mut inner = self.lock();
        match inner.written.get(name) {
            Some(written) if version < written.version => true,
            Some(_) => {
                inner.settle(name);
                false
            }
            None => false,
        }
    }
}

// === impl Inner ===

impl Inner {
    /// The store has our last write to this name, or will never have it.
    fn settle(&mut self, name: &Name) {
        self.written.remove(name);
        give_back(&mut self.written);
    }
}
