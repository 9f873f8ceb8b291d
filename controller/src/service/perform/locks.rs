//! Whose turn it is where several Services share one balancer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use ballast_provider::Key;

use crate::class::Classes;
use crate::cluster::view::ServiceView;

/// One lock per key while it is in use.
#[derive(Debug, Default)]
pub struct KeyLocks {
    locks: Mutex<HashMap<Key, Arc<tokio::sync::Mutex<()>>>>,
}

// === impl KeyLocks ===

impl KeyLocks {
    /// Waits for the turn of a shared balancer. A Service alone on its balancer has it
    /// already: the queue never hands one Service to two workers.
    ///
    /// To be taken before deciding: a decision lists all members, and one made while
    /// another worker was adding a member would take that member off again.
    pub async fn turn(
        &self,
        service: &ServiceView,
        classes: &Classes,
    ) -> Option<tokio::sync::OwnedMutexGuard<()>> {
        let Some(Ok(wanted)) = &service.load_balancer else {
            return None;
        };
        let key = classes.provider(classes.claim(service)?)?.key(wanted);
        if key.0 == service.id.uid {
            return None;
        }
        let lock = {
            let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
            locks.retain(|_, lock| Arc::strong_count(lock) > 1);
            Arc::clone(locks.entry(key).or_default())
        };
        Some(lock.lock_owned().await)
    }
}
