//! Compares a list with the cache. Pure.
//!
//! Two lists are of the same *life* of the cloud if its state only went forward between them.
//! Another epoch is another life, and so is a position before a known one: after a power
//! failure a cloud may have lost its last changes. In another life, earlier sequence numbers
//! mean nothing, a load balancer that is not listed is gone however new it was, and a deleted
//! one may exist again.

use std::collections::{BTreeSet, HashSet};

use ballast_provider::{Cause, Change, mark};

use super::{Cache, Entry, change};
use crate::api::{LifecycleState, LoadBalancerView, Position};
use crate::provider::shape::{fingerprint, lacks_address};

// === impl Cache ===

impl Cache {
    /// A list is about to be requested. It says nothing about what the provider changes
    /// meanwhile.
    pub(in crate::provider) fn begin_list(&mut self) {
        self.touched.clear();
        self.listing = true;
    }

    /// Processes a list after changes may have been missed. Returns the differences.
    pub(in crate::provider) fn relist(
        &mut self,
        views: Vec<LoadBalancerView>,
        position: &Position,
    ) -> Vec<Change> {
        self.listing = false;
        let mut ours: HashSet<String> = std::mem::take(&mut self.touched);
        ours.extend(self.in_flight.iter().cloned());
        let same_life = self.goes_on_at(position, &ours);
        let listed: BTreeSet<String> = views.iter().map(|view| view.name.clone()).collect();
        let mut changes = Vec::new();
        if !same_life {
            changes.extend(self.doubt_all(&ours));
        }
        for view in views {
            if !ours.contains(&view.name) {
                changes.extend(self.compare(view, same_life));
            }
        }
        let missing = |name: &&String| !listed.contains(*name) && !ours.contains(*name);
        let gone: Vec<String> = self.entries.keys().filter(missing).cloned().collect();
        for name in gone {
            if let Some(entry) = self.entries.remove(&name) {
                self.reserve(&entry);
                changes.extend(change(&entry.view.desired.tags, Cause::Gone));
            }
        }
        self.position = Some(position.clone());
        self.loaded = true;
        if !same_life {
            changes.extend(self.hope());
        }
        changes.extend(self.room());
        changes
    }

    /// Whether the cloud's state only went forward since the cache was updated. The entries of
    /// `ours` may be newer than the list.
    fn goes_on_at(&self, position: &Position, ours: &HashSet<String>) -> bool {
        let entries = self
            .entries
            .iter()
            .filter(|(name, _)| !ours.contains(*name));
        let newest = entries.map(|(_, entry)| entry.view.seq).max();
        self.position.as_ref().is_some_and(|before| {
            before.epoch == position.epoch
                && before.seq <= position.seq
                && newest.is_none_or(|newest| newest <= position.seq)
        })
    }

    /// Our own calls may have been answered in another life, so their results are unknown.
    /// Their Services check again, and no other Service gets their addresses before that.
    fn doubt_all(&mut self, names: &HashSet<String>) -> Vec<Change> {
        let mut changes = Vec::new();
        for name in names {
            let Some(mut entry) = self.entries.remove(name) else {
                continue;
            };
            self.reserve(&entry);
            changes.extend(change(&entry.view.desired.tags, Cause::Drifted));
            (entry.heard, entry.view.seq) = (0, 0);
            self.entries.insert(name.clone(), entry);
            self.doubtful.insert(name.clone());
        }
        changes
    }

    /// Services that lack an address may get one from a cloud that has restarted.
    fn hope(&mut self) -> Vec<Change> {
        let entries = self.entries.iter();
        let lacking = entries.filter(|(_, entry)| lacks_address(&entry.view));
        let lacking: Vec<_> = lacking
            .map(|(name, entry)| {
                let told = change(&entry.view.desired.tags, Cause::Drifted);
                (name.clone(), told)
            })
            .collect();
        let (names, changes): (HashSet<String>, Vec<_>) = lacking.into_iter().unzip();
        self.hopeful = names;
        changes.into_iter().flatten().collect()
    }

    /// Reserves the addresses of a lost load balancer for its Service.
    fn reserve(&mut self, entry: &Entry) {
        if let Some(id) = mark::service_of(&entry.view.desired.tags) {
            let addresses = entry.view.addresses.iter();
            self.reserved
                .extend(addresses.map(|address| (*address, id.uid.to_string())));
        }
    }

    fn compare(&mut self, view: LoadBalancerView, same_life: bool) -> Option<Change> {
        let cause = match self.entries.get(&view.name) {
            // Its Service was released or has another class, so it must be deleted.
            None if !view.desired.tags.contains_key(mark::RETAINED) => Some(Cause::Appeared),
            None => None,
            Some(entry) if same_life && view.seq < entry.view.seq => return None,
            Some(entry) if same_life && entry.releasing => return None,
            Some(entry) if entry.releasing => Some(Cause::Drifted),
            Some(entry) if entry.fingerprint != fingerprint(&view.desired) => Some(Cause::Drifted),
            Some(entry) if entry.view.state != view.state => match view.state {
                LifecycleState::Active => Some(Cause::Active),
                LifecycleState::Provisioning | LifecycleState::Deleting => Some(Cause::Drifted),
            },
            Some(entry) => {
                let same = entry.view.addresses == view.addresses
                    && entry.view.problem == view.problem
                    && (!same_life || entry.heard <= entry.view.seq);
                (!same).then_some(Cause::Drifted)
            }
        };
        if !same_life {
            // Earlier events no longer count.
            self.entries.remove(&view.name);
        }
        let tags = view.desired.tags.clone();
        self.store(view);
        cause.and_then(|cause| change(&tags, cause))
    }
}
