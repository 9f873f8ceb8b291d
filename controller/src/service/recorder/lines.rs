//! The events that wait to be sent: one line per namespace, and the namespaces take turns.
//!
//! A line has a bound, and so have all lines together. An event beyond the bound of its line
//! is dropped. If all lines together are full, the longest one loses its newest event. So a
//! namespace with few events loses none, and waits for one event of each other namespace.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::process::room::give_back_line;

/// Events of one namespace: enough for a backlog of 5,000 Services.
pub(super) const PER_NAMESPACE: usize = 5_120;
/// Events of all namespaces: about 2 MB.
pub(super) const TOTAL: usize = 8_192;

/// The waiting events, each with its namespace; shared by those who add them and the task that
/// sends them.
pub(super) struct Waiting<T> {
    lines: Mutex<Lines<T>>,
    changed: Notify,
}

/// The rules, without a lock.
struct Lines<T> {
    waiting: HashMap<Arc<str>, VecDeque<T>>,
    /// The namespaces with a line, in the order of their turns.
    turns: VecDeque<Arc<str>>,
    total: usize,
    /// Nobody adds events any more.
    closed: bool,
}

// === impl Waiting ===

impl<T> Waiting<T> {
    /// Adds an event. Returns false if one was dropped, this one or one of the longest line.
    pub(super) fn add(&self, namespace: &Arc<str>, event: T) -> bool {
        let kept = self.lock().add(namespace, event);
        self.changed.notify_one();
        kept
    }

    /// The next event; `None` if there is none and nobody adds events any more. Safe to cancel.
    /// Only one task may wait.
    pub(super) async fn next(&self) -> Option<T> {
        loop {
            {
                let mut lines = self.lock();
                if let Some(event) = lines.take() {
                    return Some(event);
                }
                if lines.closed {
                    return None;
                }
            }
            self.changed.notified().await;
        }
    }

    /// Nobody adds events any more.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
    }

    /// Whether nobody adds events any more.
    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    fn lock(&self) -> MutexGuard<'_, Lines<T>> {
        // Nothing in here panics half-way.
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Self {
            lines: Mutex::new(Lines {
                waiting: HashMap::new(),
                turns: VecDeque::new(),
                total: 0,
                closed: false,
            }),
            changed: Notify::new(),
        }
    }
}

// === impl Lines ===

impl<T> Lines<T> {
    fn add(&mut self, namespace: &Arc<str>, event: T) -> bool {
        let length = self.waiting.get(namespace).map_or(0, VecDeque::len);
        if length >= PER_NAMESPACE {
            return false;
        }
        let full = self.total >= TOTAL;
        if full {
            let longest = self.waiting.values_mut().max_by_key(|line| line.len());
            match longest.filter(|line| line.len() > length.max(1)) {
                Some(line) => drop(line.pop_back()),
                // No line is longer than this one.
                None => return false,
            }
        } else {
            self.total += 1;
        }
        let line = self.waiting.entry(Arc::clone(namespace));
        let line = line.or_insert_with(|| {
            self.turns.push_back(Arc::clone(namespace));
            VecDeque::new()
        });
        line.push_back(event);
        !full
    }

    /// The oldest event of the namespace whose turn it is.
    fn take(&mut self) -> Option<T> {
        let namespace = self.turns.pop_front()?;
        let line = self.waiting.get_mut(&namespace)?;
        let event = line.pop_front()?;
        give_back_line(line);
        self.total -= 1;
        if line.is_empty() {
            self.waiting.remove(&namespace);
        } else {
            self.turns.push_back(namespace);
        }
        Some(event)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn namespace(number: usize) -> Arc<str> {
        format!("tenant-{number}").into()
    }

    fn take_all(waiting: &Waiting<(usize, usize)>) -> Vec<(usize, usize)> {
        let mut lines = waiting.lock();
        std::iter::from_fn(|| lines.take()).collect()
    }

    #[test]
    fn a_namespace_with_few_events_loses_none() {
        let waiting = Waiting::default();
        for number in 0..10_000 {
            for flooder in [0, 1] {
                waiting.add(&namespace(flooder), (flooder, number));
            }
        }
        let quiet = |tenant: usize| waiting.add(&namespace(tenant), (tenant, 0));
        assert!(!quiet(2), "another namespace's event was dropped for it");
        assert!(!quiet(3));
        let taken = take_all(&waiting);
        assert_eq!(taken.len(), TOTAL);
        assert_eq!(
            &taken[2..4],
            [(2, 0), (3, 0)],
            "they do not wait for a line"
        );
        for flooder in [0, 1] {
            let own = taken.iter().filter(|(tenant, _)| *tenant == flooder);
            assert!(own.clone().map(|(_, number)| *number).is_sorted());
            assert!(own.count() >= TOTAL / 2 - 2, "the flooders share the rest");
        }
    }

    #[test]
    fn the_bound_of_one_namespace_is_not_that_of_all() {
        let waiting = Waiting::default();
        let kept = (0..10_000).filter(|number| waiting.add(&namespace(0), (0, *number)));
        assert_eq!(kept.count(), PER_NAMESPACE);
        assert!(waiting.add(&namespace(1), (1, 0)));
    }

    proptest! {
        /// Whatever comes: bounded, in order per namespace, and fair: no namespace is passed
        /// over by another one more than once.
        #[test]
        fn turns_are_fair(tenants in prop::collection::vec(0_usize..6, 1..300)) {
            let waiting = Waiting::default();
            for (number, tenant) in tenants.iter().enumerate() {
                prop_assert!(waiting.add(&namespace(*tenant), (*tenant, number)));
            }
            let taken = take_all(&waiting);
            prop_assert_eq!(taken.len(), tenants.len());
            for tenant in 0..6 {
                let at: Vec<usize> = (0..taken.len()).filter(|at| taken[*at].0 == tenant).collect();
                prop_assert!(at.iter().map(|at| taken[*at].1).is_sorted());
                let first = at.first().copied().unwrap_or_default();
                prop_assert!(first < 6, "it waits for one event of each other namespace");
                for pair in at.windows(2) {
                    prop_assert!(pair[1] - pair[0] <= 6);
                }
            }
            prop_assert!(waiting.lock().waiting.is_empty());
        }
    }
}
