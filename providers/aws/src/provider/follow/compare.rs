//! Compares what a list of everything shows with what is known, and wakes the Services for which they differ.
//!
//! It changes nothing in AWS: a record becomes doubtful, and the next turn of its Service reads and repairs.
//!
//! A list may lag behind. So what it does not show of something that this process has just changed, and of
//! what was kept on purpose, says only where to look: it is read by its name, and that counts.

use std::sync::Arc;

use ballast_provider::mark::RETAINED;
use ballast_provider::{Cause, Key};
use tokio::time::Instant;
use tracing::{debug, info};

use super::{Before, Follower};
use crate::client::Client;
use crate::provider::drift;
use crate::provider::inventory::Inventory;
use crate::provider::records::{Cell, Depth, Extent, Record};
use crate::rate::Urgency;

/// A load balancer whose objects must be read, and whether all of them were known: then what differs is somebody
/// else's work.
type Unsure = (Key, bool);

/// A list of everything.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    pub(super) begun: Instant,
    /// It shows all that the former process made.
    pub(super) late: bool,
}

// === impl Look ===

impl Look {
    /// The objects of a Service that it shows.
    const fn extent(self) -> Extent {
        if self.late {
            Extent::All
        } else {
            Extent::Listed
        }
    }
}

// === impl Follower ===

impl Follower {
    /// Whether the class has the backend group that is known. `before`: the ID when the list was begun.
    pub(super) fn compare_backend(&self, found: &Inventory, before: Option<&str>, begun: Instant) {
        // Whoever makes or deletes it knows more.
        let Ok(_opening) = self.inner.opening.try_lock() else {
            return;
        };
        let seen = found.backend.as_ref().map(|(id, _)| id.as_str());
        if (self.inner.network().backend).compare(seen, before, begun) {
            info!(
                known = before,
                seen, "somebody else has changed the security group of this class"
            );
            // A list that leaves the group out may be late, and the group has its tag all the same.
            self.inner.targets().unsettle();
        }
    }

    /// What somebody else deleted, changed or restored. `before`: as it was when the list was begun. What
    /// has changed since by our own work is newer than the list. Returns the Services whose objects must be
    /// read by their names before anybody knows more.
    pub(super) fn compare(
        &mut self,
        found: &Inventory,
        before: &Before,
        look: Look,
    ) -> Vec<Unsure> {
        let begun = look.begun;
        let mut unsure = Vec::new();
        let is_same = |key: &Key, cell: &Cell, changes: u64| {
            let was = before.get(key);
            was.is_some_and(|(was, count)| Arc::ptr_eq(was, cell) && *count == changes)
        };
        for (key, seen) in &found.records {
            let Some(cell) = self.inner.records.get(key) else {
                // It has left meanwhile, or nobody knew of it.
                if !before.contains_key(key) {
                    let record = Record {
                        extent: look.extent(),
                        ..seen.clone()
                    };
                    self.inner.records.add(record);
                    // What was kept on purpose is not released again.
                    if !seen.retained {
                        self.report(seen, Cause::Appeared);
                    }
                }
                continue;
            };
            let Ok(mut record) = cell.try_lock() else {
                continue;
            };
            if !is_same(key, &cell, record.changes) {
                continue;
            }
            if record.retained || seen.retained {
                let differs_by_list = !drift::of_lists(&record.observed, &seen.observed).is_empty();
                let news = !record.retained && record.wanted.is_some();
                record.retained = true;
                // Nobody releases it: its Service takes it back.
                if news {
                    record.doubt();
                    let what = [format!("it has the tag {RETAINED}")];
                    self.report_difference(&record, Cause::Drifted, &what);
                } else if differs_by_list && !record.is_newer_than(begun) {
                    record.shown(&seen.observed);
                    unsure.push((key.clone(), false));
                }
            } else if record.is_empty() {
                *record = Record {
                    extent: look.extent(),
                    ..seen.clone()
                };
                self.report(seen, Cause::Appeared);
            } else {
                let what = drift::of_lists(&record.observed, &seen.observed);
                if what.is_empty() {
                    record.reaches(look.extent());
                    continue;
                }
                // The names of target groups follow from nothing else.
                record.shown(&seen.observed);
                let lost = seen.observed.load_balancers.is_empty();
                let cause = if lost { Cause::Gone } else { Cause::Drifted };
                // What is not known in full can be the work of this process, or of the former one.
                let known = record.extent == Extent::All && record.depth != Depth::Doubtful;
                if record.depth != Depth::Doubtful && record.is_newer_than(begun) {
                    unsure.push((key.clone(), known));
                    continue;
                }
                record.reaches(look.extent());
                record.doubt();
                let what = if known { &what[..] } else { &[] };
                self.report_difference(&record, cause, what);
            }
        }
        for (key, cell) in self.inner.records.cells() {
            let Ok(mut record) = cell.try_lock() else {
                continue;
            };
            if found.records.contains_key(&key) || !is_same(&key, &cell, record.changes) {
                continue;
            }
            if record.retained {
                if !record.is_newer_than(begun) {
                    unsure.push((key, false));
                }
            } else if !record.observed.load_balancers.is_empty() {
                if record.depth != Depth::Doubtful && record.is_newer_than(begun) {
                    unsure.push((key, record.extent == Extent::All));
                    continue;
                }
                // A list may lag behind. What is really gone shows when it is read.
                record.doubt();
                self.report(&record, Cause::Gone);
            }
        }
        unsure
    }

    /// Reads what a list says otherwise, under the names of both.
    pub(super) async fn make_sure_of(&mut self, client: &Client, unsure: Vec<Unsure>) {
        for (key, known) in unsure {
            let Some(cell) = self.inner.records.get(&key) else {
                continue;
            };
            // Whoever has it knows more.
            let Ok(mut record) = cell.try_lock() else {
                continue;
            };
            if record.retained {
                let gone = self.look_at_kept(client, &mut record).await;
                drop(record);
                if gone {
                    info!(%key, "a load balancer that was kept is gone");
                    self.inner.records.forget_unused(&key, &cell);
                }
            } else {
                self.confirm(client, &mut record, known).await;
            }
        }
    }

    /// Nobody has turns for what was kept, so nobody else would see that it is gone. True if it is.
    async fn look_at_kept(&self, client: &Client, record: &mut Record) -> bool {
        record.doubt();
        match self.inner.make_sure(client, record).await {
            Ok(()) => record.is_empty(),
            Err(why) => {
                debug!(error = %why, key = %record.key, "cannot read a load balancer that was kept");
                false
            }
        }
    }

    /// What a read by name says is no lag. `all_known`: so it is somebody else's work.
    async fn confirm(&mut self, client: &Client, record: &mut Record, all_known: bool) {
        let (known, depth) = (record.observed.clone(), record.depth);
        let inner = Arc::clone(&self.inner);
        let read = inner.read(client, record, Urgency::Background);
        if read.await.is_err() {
            // Its next turn reads it again, and says what is wrong.
            record.doubt();
            self.report(record, Cause::Drifted);
            return;
        }
        if record.retained {
            // Its next turn takes it back.
            self.report(record, Cause::Due);
        }
        // What only lists show may be too new for them, too. If it is gone, the next call that names it says so,
        // or a later look.
        for (name, group) in &known.groups {
            let groups = &mut record.observed.groups;
            groups.entry(name.clone()).or_insert_with(|| group.clone());
        }
        for (name, one) in &mut record.observed.load_balancers {
            let before = known
                .load_balancers
                .get(name)
                .filter(|it| it.arn == one.arn);
            for (port, listener) in before.iter().flat_map(|it| &it.listeners) {
                let listeners = &mut one.listeners;
                listeners.entry(*port).or_insert_with(|| listener.clone());
            }
        }
        let seen = &record.observed;
        let what = match depth {
            Depth::Full => drift::of_all(&known, seen),
            Depth::Names | Depth::Doubtful => drift::of_lists(&known, seen),
        };
        if !what.is_empty() {
            let lost = !known.load_balancers.is_empty() && seen.load_balancers.is_empty();
            let cause = if lost { Cause::Gone } else { Cause::Drifted };
            let what = if all_known { &what[..] } else { &[] };
            self.report_difference(record, cause, what);
        }
    }
}
