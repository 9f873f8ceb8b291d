//! Objects of several kinds that are created together arrive in any order, because each kind
//! has its own watch. So a Service that refers to an object that is missing waits a moment
//! before it is refused.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

use crate::cluster::view::Name;

/// Since when this process has missed an object that a Service refers to. An entry stays until
/// the object arrives or the status of the Service says that it is missing. This process's own
/// clock counts, because that of the API server can differ.
#[derive(Debug, Default)]
pub struct Missing(Mutex<HashMap<Name, (String, Instant)>>);

// === impl Missing ===

impl Missing {
    /// When the object was first missing for this Service; `now` if that is new.
    pub fn since(&self, name: &Name, uid: &str, now: Instant) -> Instant {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = all.entry(name.clone());
        let (of, since) = entry.or_insert_with(|| (uid.to_owned(), now));
        if of != uid {
            (*of, *since) = (uid.to_owned(), now);
        }
        *since
    }

    /// The object is there, or the status says that it is not.
    pub fn end(&self, name: &Name) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(name);
    }
}
