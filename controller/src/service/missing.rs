//! Objects of several kinds that are created together arrive in any order, because each kind
//! has its own watch. So a Service that refers to an object that is missing waits a moment
//! before it is refused.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ballast_provider::ServiceId;
use tokio::time::Instant;

use crate::cluster::view::Name;
use crate::process::room::give_back;

/// Since when this process has missed an object that a Service refers to. An entry stays until
/// the object arrives or the status of the Service says that it is missing. This process's own
/// clock counts, because that of the API server can differ.
#[derive(Debug, Default)]
pub struct Missing(Mutex<HashMap<Name, (Arc<str>, Instant)>>);

// === impl Missing ===

impl Missing {
    /// For how long the object has been missing for this Service; zero if it is there.
    pub fn look(&self, id: &ServiceId, is_missing: bool, now: Instant) -> Duration {
        if !is_missing {
            self.end(&Name::from(id));
            return Duration::ZERO;
        }
        let mut all = self.lock();
        let (uid, since) = all
            .entry(Name::from(id))
            .or_insert_with(|| (Arc::clone(&id.uid), now));
        if *uid != id.uid {
            (*uid, *since) = (Arc::clone(&id.uid), now);
        }
        now - *since
    }

    /// The object is there, or the Service is gone.
    pub fn end(&self, name: &Name) {
        let mut all = self.lock();
        all.remove(name);
        give_back(&mut all);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Name, (Arc<str>, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
