//! Places for what costs memory: bounded for each owner and for all of them together.
//!
//! An owner may take another place while it holds fewer than are free (Choudhury and Hahne,
//! "Dynamic queue length thresholds for shared-memory packet switches", 1998). One busy owner
//! gets half of all places, two get a third each, and there is always room for others.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// All places.
#[derive(Debug)]
pub(super) struct Places {
    total: usize,
    used: AtomicUsize,
}

/// What one owner may take of them.
#[derive(Debug)]
pub(super) struct Share {
    places: Arc<Places>,
    limit: usize,
    held: AtomicUsize,
}

/// One place; it is free again when dropped.
#[derive(Debug)]
pub(super) struct Place(Arc<Share>);

// === impl Places ===

impl Places {
    pub(super) fn new(total: usize) -> Arc<Self> {
        Arc::new(Self {
            total,
            used: AtomicUsize::new(0),
        })
    }

    /// For one owner, at most `limit` of them.
    pub(super) fn share(self: &Arc<Self>, limit: usize) -> Arc<Share> {
        Arc::new(Share {
            places: Arc::clone(self),
            limit,
            held: AtomicUsize::new(0),
        })
    }
}

// === impl Share ===

impl Share {
    /// A place, unless the owner has too many.
    pub(super) fn take(self: &Arc<Self>) -> Option<Place> {
        let held = add_if(&self.held, |held| held < self.limit)?;
        let places = &self.places;
        let fair = |used| held < places.total.saturating_sub(used);
        if add_if(&places.used, fair).is_none() {
            self.held.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Place(Arc::clone(self)))
    }
}

// === impl Place ===

impl Drop for Place {
    fn drop(&mut self) {
        self.0.places.used.fetch_sub(1, Ordering::Relaxed);
        self.0.held.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Adds one if `allowed` accepts the number before. Returns that number.
fn add_if(number: &AtomicUsize, allowed: impl Fn(usize) -> bool) -> Option<usize> {
    let next = |before| allowed(before).then_some(before + 1);
    let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
    number.fetch_update(set, fetch, next).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take_all(share: &Arc<Share>) -> Vec<Place> {
        std::iter::from_fn(|| share.take()).collect()
    }

    #[test]
    fn an_owner_has_its_limit() {
        let share = Places::new(100).share(3);
        let mut places = take_all(&share);
        assert_eq!(places.len(), 3);
        places.pop();
        assert!(share.take().is_some(), "a place is free again");
    }

    #[test]
    fn many_owners_together_stay_below_the_total_and_each_gets_something() {
        let places = Places::new(64);
        let shares: Vec<Arc<Share>> = (0..5).map(|_| places.share(64)).collect();
        let held: Vec<Vec<Place>> = shares.iter().map(take_all).collect();
        let counts: Vec<usize> = held.iter().map(Vec::len).collect();
        assert_eq!(counts, [32, 16, 8, 4, 2]);
        drop(held);
        assert_eq!(places.used.load(Ordering::Relaxed), 0);
        assert_eq!(take_all(&shares[4]).len(), 32);
    }
}
