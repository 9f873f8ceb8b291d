//! What this process knows of the cloud without a call. Pure.
//!
//! `restore` fills the cache, answers of calls update it, and the stream of changes
//! invalidates it. Invariants: an entry is trusted only while no change with a higher sequence
//! number is known; after a call without an answer, the object is doubtful until it is read
//! again.

mod relist;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use ballast_provider::{Cause, Change, Key, Mark, Published, Refusal, ServiceId, mark};

use super::shape::fingerprint;
use crate::api::{ChangeKind, ChangeView, LoadBalancerView, Position};

/// The number of identities of the cloud that are remembered. Two classes do not learn of a new
/// one at the same time, so their latest ones can differ.
const CLOUDS: usize = 8;

/// One load balancer of this class.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) view: LoadBalancerView,
    pub(super) fingerprint: String,
    /// The highest sequence number in its events and answers.
    heard: u64,
    /// The provider has requested its deletion.
    releasing: bool,
}

/// Everything that is known.
#[derive(Debug, Default)]
pub(super) struct Cache {
    /// Whether all load balancers of this class were listed. If so, one that is not here does
    /// not exist.
    loaded: bool,
    position: Option<Position>,
    /// The latest identities of the cloud, the newest last.
    clouds: Vec<String>,
    entries: HashMap<String, Entry>,
    doubtful: HashSet<String>,
    /// Names whose deletion was begun and not reported as done.
    deleting: BTreeSet<String>,
    in_flight: HashSet<String>,
    /// Whether a list is being requested.
    listing: bool,
    /// Names whose calls have ended since the list was requested.
    touched: HashSet<String>,
    /// Services that wait for an address or for quota.
    refused: BTreeMap<String, ServiceId>,
    /// Requests that cannot be met now, by name: the fingerprint of the desired state, and the
    /// reason. They are removed when an address or quota may be available.
    objections: HashMap<String, (String, Refusal)>,
    /// Load balancers that lack an address and were not put since the cloud restarted: it may
    /// have more ranges.
    hopeful: HashSet<String>,
    /// Published addresses of Services whose load balancer the cloud has lost. No other load
    /// balancer may get them.
    reserved: HashMap<IpAddr, String>,
    /// The addresses of all nodes, targets or not.
    nodes: Arc<BTreeSet<IpAddr>>,
    /// An address is no longer a node's, and the cloud may not know it yet.
    left: bool,
}

/// What is known of one name.
#[derive(Clone, Debug)]
pub(super) enum Known {
    /// The load balancer, up to date.
    Fresh(Box<Entry>),
    /// The load balancer must be read again.
    Doubtful,
    /// The load balancer does not exist.
    Absent,
}

// === impl Cache ===

impl Cache {
    pub(super) fn known(&self, name: &str) -> Known {
        match self.entries.get(name) {
            _ if self.doubtful.contains(name) => Known::Doubtful,
            Some(entry) if entry.heard > entry.view.seq || entry.releasing => Known::Doubtful,
            Some(entry) => Known::Fresh(Box::new(entry.clone())),
            None if self.loaded => Known::Absent,
            None => Known::Doubtful,
        }
    }

    /// The position from which to follow changes.
    pub(super) fn position(&self) -> Option<Position> {
        self.position.clone()
    }

    /// The cloud has this identity now.
    pub(super) fn meet(&mut self, cloud: String) {
        if cloud.is_empty() {
            return;
        }
        self.clouds.retain(|known| *known != cloud);
        self.clouds.push(cloud);
        if self.clouds.len() > CLOUDS {
            self.clouds.remove(0);
        }
    }

    /// The latest identities of the cloud.
    pub(super) fn clouds(&self) -> Vec<String> {
        self.clouds.clone()
    }

    /// Moves the position in the stream of changes, unless a list has changed it meanwhile.
    pub(super) fn advance(&mut self, from: &Position, to: Position) {
        if self.position.as_ref() == Some(from) {
            self.position = Some(to);
        }
    }

    /// Stores the answer of a call.
    pub(super) fn store(&mut self, view: LoadBalancerView) {
        self.doubtful.remove(&view.name);
        self.refused.remove(&view.name);
        self.reserved
            .retain(|address, _| !view.addresses.contains(address));
        let heard = self.entries.get(&view.name).map_or(0, |entry| entry.heard);
        let entry = Entry {
            fingerprint: fingerprint(&view.desired),
            heard: heard.max(view.seq),
            releasing: false,
            view,
        };
        self.entries.insert(entry.view.name.clone(), entry);
    }

    /// The load balancer does not exist.
    pub(super) fn forget(&mut self, name: &str) {
        self.doubtful.remove(name);
        self.entries.remove(name);
    }

    /// The Service is released.
    pub(super) fn release(&mut self, name: &str, uid: &str) {
        self.deleting.remove(name);
        self.objections.remove(name);
        self.hopeful.remove(name);
        self.refused.remove(name);
        self.reserved.retain(|_, holder| holder != uid);
    }

    /// Its deletion is in progress.
    pub(super) fn releasing(&mut self, name: &str) {
        self.deleting.insert(name.to_owned());
        if let Some(entry) = self.entries.get_mut(name) {
            entry.releasing = true;
        }
    }

    /// Whether its deletion was begun. It may be over: the stream says so before this provider does.
    pub(super) fn is_releasing(&self, name: &str) -> bool {
        self.deleting.contains(name)
    }

    /// A call had no answer.
    pub(super) fn doubt(&mut self, name: &str) {
        self.doubtful.insert(name.to_owned());
    }

    /// The Service waits until an address or quota is available.
    pub(super) fn wait_for_room(&mut self, name: &str, id: &ServiceId) {
        self.refused.insert(name.to_owned(), id.clone());
    }

    /// An address cannot be assigned now; the rest of the request is done.
    pub(super) fn object(
        &mut self,
        name: &str,
        id: &ServiceId,
        wanted: String,
        objection: Refusal,
    ) {
        self.wait_for_room(name, id);
        self.objections.insert(name.to_owned(), (wanted, objection));
    }

    /// Why this desired state cannot be reached now.
    pub(super) fn objection(&self, name: &str, wanted: &str) -> Option<Refusal> {
        let (refused, objection) = self.objections.get(name)?;
        (refused == wanted).then(|| objection.clone())
    }

    /// Whether a missing address may be available now.
    pub(super) fn may_hope(&self, name: &str) -> bool {
        self.hopeful.contains(name)
    }

    /// The load balancer is put, with or without success.
    pub(super) fn tries(&mut self, name: &str) {
        self.hopeful.remove(name);
    }

    /// Addresses that a new load balancer must not get: those of other Services.
    pub(super) fn reserved(&self, uid: &str) -> Vec<IpAddr> {
        let others = self.reserved.iter().filter(|(_, holder)| *holder != uid);
        let mut addresses: Vec<IpAddr> = others.map(|(address, _)| *address).collect();
        addresses.sort_unstable();
        addresses
    }

    pub(super) fn set_nodes(&mut self, addresses: &BTreeSet<IpAddr>) {
        self.left |= !self.nodes.is_subset(addresses);
        self.nodes = Arc::new(addresses.clone());
    }

    /// The cloud knows the addresses of all nodes. Returns the Services that wait for an
    /// address, if one is no longer a node's.
    pub(super) fn nodes_are_set(&mut self) -> Vec<Change> {
        if std::mem::take(&mut self.left) {
            self.room()
        } else {
            Vec::new()
        }
    }

    /// The addresses of all nodes, targets or not.
    pub(super) fn nodes(&self) -> Arc<BTreeSet<IpAddr>> {
        Arc::clone(&self.nodes)
    }

    pub(super) fn begin(&mut self, name: &str) {
        self.in_flight.insert(name.to_owned());
    }

    pub(super) fn end(&mut self, name: &str) {
        self.in_flight.remove(name);
        if self.listing {
            self.touched.insert(name.to_owned());
        }
    }

    pub(super) fn is_in_flight(&self, name: &str) -> bool {
        self.in_flight.contains(name)
    }

    /// Stores the first complete list.
    pub(super) fn load(
        &mut self,
        views: Vec<LoadBalancerView>,
        position: Position,
        published: &[Published],
    ) {
        self.reserved = published
            .iter()
            .flat_map(|record| {
                let uid = &record.id.uid;
                record
                    .addresses
                    .iter()
                    .map(move |ip| (*ip, uid.to_string()))
            })
            .collect();
        self.entries.clear();
        self.doubtful.clear();
        for view in views {
            self.store(view);
        }
        self.position = Some(position);
        self.loaded = true;
    }

    /// Processes one event of the stream. Returns what it means for the controller.
    pub(super) fn hear(&mut self, mark: &Mark, event: &ChangeView) -> Vec<Change> {
        let mut changes = Vec::new();
        if event.kind == ChangeKind::Deleted {
            changes.extend(self.room());
        }
        let Some(entry) = self
            .entries
            .get_mut(&event.name)
            .filter(|_| mark.owns(&event.tags))
        else {
            return changes;
        };
        if event.seq <= entry.view.seq {
            return changes;
        }
        entry.heard = entry.heard.max(event.seq);
        let cause = match event.kind {
            ChangeKind::Deleted => Cause::Gone,
            ChangeKind::Active => Cause::Active,
            ChangeKind::Deleting if entry.releasing => return changes,
            ChangeKind::Created | ChangeKind::Changed | ChangeKind::Deleting => Cause::Drifted,
        };
        if cause == Cause::Gone {
            self.forget(&event.name);
        }
        changes.extend(change(&event.tags, cause));
        changes
    }

    /// An address or quota may be available: the Services that wait for one may try again.
    fn room(&mut self) -> Vec<Change> {
        let waiting = std::mem::take(&mut self.refused);
        self.objections.clear();
        let again = |id| change_of(id, Cause::Drifted);
        waiting.into_values().map(again).collect()
    }
}

fn change(tags: &BTreeMap<String, String>, cause: Cause) -> Option<Change> {
    mark::service_of(tags).map(|id| change_of(id, cause))
}

/// Every Service has a load balancer of its own here.
fn change_of(id: ServiceId, cause: Cause) -> Change {
    Change {
        key: Some(Key::alone(&id)),
        id,
        cause,
        difference: String::new(),
    }
}

#[cfg(test)]
mod tests;
