//! Compares what a list of everything shows with what is known, and wakes the Services for which they differ.
//!
//! It changes nothing in AWS: a record becomes doubtful, and the next turn of its Service reads and repairs.

use std::sync::Arc;

use ballast_provider::Cause;
use ballast_provider::mark::RETAINED;
use tracing::info;

use super::{Before, Follower, change, differs};
use crate::provider::drift;
use crate::provider::inventory::Inventory;
use crate::provider::records::{Cell, Depth, Record};

// === impl Follower ===

impl Follower {
    /// Whether the class has the backend group that is known. `before`: the ID when the list was begun.
    pub(super) fn compare_backend(&self, found: &Inventory, before: Option<&str>) {
        // Whoever makes or deletes it knows more.
        let Ok(_opening) = self.inner.opening.try_lock() else {
            return;
        };
        let seen = found.backend.as_ref().map(|(id, _)| id.as_str());
        if self.inner.network().backend.compare(seen, before) {
            info!(
                known = before,
                seen, "somebody else has changed the security group of this class"
            );
            // A list that leaves the group out may be late, and the group has its tag all the same.
            self.inner.targets().unsettle();
        }
    }

    /// What somebody else deleted, changed or restored. `before`: as it was when the list was begun. What
    /// has changed since by our own work is newer than the list. `late`: the list shows all that the former
    /// process made.
    pub(super) fn compare(&mut self, found: &Inventory, before: &Before, late: bool) {
        let is_same = |uid: &Arc<str>, cell: &Cell, changes: u64| {
            let was = before.get(uid);
            was.is_some_and(|(was, count)| Arc::ptr_eq(was, cell) && *count == changes)
        };
        for (uid, seen) in &found.records {
            let Some(id) = seen.id.clone() else {
                continue;
            };
            let Some(cell) = self.inner.records.get(uid) else {
                // It has left meanwhile, or nobody knew of it.
                if !before.contains_key(uid) {
                    let record = Record {
                        whole: late,
                        ..seen.clone()
                    };
                    self.inner.records.add(uid, record);
                    // What was kept on purpose is not released again.
                    if !seen.retained {
                        self.ready.push_back(change(&id, Cause::Appeared));
                    }
                }
                continue;
            };
            let Ok(mut record) = cell.try_lock() else {
                continue;
            };
            if !is_same(uid, &cell, record.changes) {
                continue;
            }
            if record.retained || seen.retained {
                let news = !record.retained && record.wanted.is_some();
                record.retained = true;
                // Nobody releases it: its Service takes it back.
                if news {
                    record.doubt();
                    let what = [format!("it has the tag {RETAINED}")];
                    self.ready.push_back(differs(&id, Cause::Drifted, &what));
                }
            } else if record.is_empty() {
                *record = Record {
                    whole: late,
                    ..seen.clone()
                };
                self.ready.push_back(change(&id, Cause::Appeared));
            } else {
                let what = drift::of_lists(&record.observed, &seen.observed);
                if what.is_empty() {
                    record.whole |= late;
                    continue;
                }
                let lost = seen.observed.load_balancers.is_empty();
                let cause = if lost { Cause::Gone } else { Cause::Drifted };
                // What is not known in full can be the work of this process, or of the former one.
                let known = record.whole && record.depth != Depth::Doubtful;
                record.doubt();
                self.ready.push_back(if known {
                    differs(&id, cause, &what)
                } else {
                    change(&id, cause)
                });
            }
        }
        for (uid, cell) in self.inner.records.cells() {
            let Ok(mut record) = cell.try_lock() else {
                continue;
            };
            if !found.records.contains_key(&uid)
                && is_same(&uid, &cell, record.changes)
                && !record.observed.load_balancers.is_empty()
                && let Some(id) = record.id.clone()
            {
                // A list may lag behind. What is really gone shows when it is read.
                record.doubt();
                self.ready.push_back(change(&id, Cause::Gone));
            }
        }
    }
}
