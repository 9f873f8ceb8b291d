//! The cloud's state and every decision about it. Pure: a request becomes a list of [`Edit`]s,
//! the store commits them in one transaction, then [`Cloud::apply`] applies them.
//!
//! Only the writer thread (`writer.rs`) changes the state; handlers and the data plane read
//! it. Invariants: the state in memory is the committed state, except [`Plane`], which a new
//! process determines again. An address is held from the commit that creates a load balancer
//! to the commit that removes it. Sequence numbers rise without gaps.

mod addresses;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

use ballast_provider::{Billed, Prices};
use jiff::Timestamp;

use super::lifecycle::{Phase, Step};
use super::meter::{Meter, without};
use super::record::{self, change, check_owner, gone, view};
pub(crate) use super::record::{Deletion, Edit, Owner, Plane, Record, Rules, Stored};
use crate::address::Allocator;
use crate::api::{
    ChangeKind, ChangeView, Code, LoadBalancerView, MeterView, Position, Problem, PutLoadBalancer,
    Target, TargetSetBody,
};

/// The number of changes that are kept. A client that is further behind lists again.
pub(crate) const MAX_CHANGES: usize = 10_000;

/// The maximum size of these changes in bytes, roughly.
const MAX_CHANGES_WEIGHT: usize = 16 * 1024 * 1024;

/// A page ends after roughly this many bytes, whatever number of entries is requested.
pub(crate) const MAX_WEIGHT: usize = 1024 * 1024;

/// The maximum number of targets of one set.
pub(crate) const MAX_TARGETS: usize = 5_000;

/// The same of all sets together. Each takes some ten addresses at most.
const MAX_ALL_TARGETS: usize = 50_000;

/// The whole state.
#[derive(Debug)]
pub(crate) struct Cloud {
    identity: String,
    epoch: String,
    seq: u64,
    rules: Rules,
    load_balancers: BTreeMap<String, (Record, Plane)>,
    target_sets: BTreeMap<String, TargetSetBody>,
    allocator: Allocator,
    changes: VecDeque<ChangeView>,
    /// The size of `changes` in bytes, roughly.
    changes_weight: usize,
    deadlines: BTreeSet<(Timestamp, String)>,
    meter: Meter,
    /// What all load balancers together stand for on a bill.
    billed: Billed,
}

// === impl Cloud ===

impl Cloud {
    /// Builds the state from what is stored. Active load balancers count as open until the
    /// data plane reports otherwise, so a restart alone is no change.
    pub(crate) fn new(rules: Rules, stored: Stored) -> Self {
        let mut cloud = Self {
            identity: stored.identity,
            epoch: stored.epoch,
            seq: stored.seq,
            allocator: Allocator::new(rules.ranges.clone()),
            rules,
            load_balancers: BTreeMap::new(),
            target_sets: stored.target_sets.into_iter().collect(),
            changes_weight: stored.changes.iter().map(weight_of).sum(),
            changes: stored.changes.into(),
            deadlines: BTreeSet::new(),
            meter: stored.meter,
            billed: Billed::default(),
        };
        cloud.exclude_nodes();
        for (address, at) in stored.resting {
            cloud.allocator.rest(address, at);
        }
        for record in stored.records {
            for address in &record.addresses {
                cloud.allocator.hold(*address, &record.name);
            }
            let name = record.name.clone();
            let active = record.phase == Phase::Active;
            cloud.apply(vec![Edit::Put(Box::new(record))]);
            if active {
                cloud.apply(vec![Edit::Plane(name, Plane::Open)]);
            }
        }
        cloud
    }

    // --- reading ---

    pub(crate) fn position(&self) -> Position {
        Position {
            epoch: self.epoch.clone(),
            seq: self.seq,
        }
    }

    /// Identifies the cloud for as long as it has its state.
    pub(crate) fn identity(&self) -> &str {
        &self.identity
    }

    pub(crate) fn record(&self, name: &str) -> Option<&Record> {
        self.load_balancers.get(name).map(|(record, _)| record)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &String> {
        self.load_balancers.keys()
    }

    pub(crate) fn view(&self, name: &str) -> Option<LoadBalancerView> {
        self.load_balancers.get(name).map(view)
    }

    /// Load balancers after `token` in the order of their names that have all tags, at most
    /// `limit` of them, and the token of the next page if there is one.
    pub(crate) fn page(
        &self,
        tags: &[(String, String)],
        token: Option<&str>,
        limit: usize,
    ) -> (Vec<LoadBalancerView>, Option<String>) {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = token.map_or(Unbounded, |token| Excluded(token.to_owned()));
        let matching = self
            .load_balancers
            .range((from, Unbounded))
            .map(|(_, entry)| entry)
            .filter(|(record, _)| {
                let have = &record.desired.tags;
                tags.iter().all(|(key, value)| have.get(key) == Some(value))
            });
        let (mut items, mut weight) = (Vec::<LoadBalancerView>::new(), 0);
        for entry in matching {
            if items.len() >= limit || weight > MAX_WEIGHT {
                let last = items.last().map(|item| item.name.clone());
                return (items, last);
            }
            weight += entry.0.weight();
            items.push(view(entry));
        }
        (items, None)
    }

    pub(crate) fn target_set(&self, name: &str) -> Option<&TargetSetBody> {
        self.target_sets.get(name)
    }

    pub(crate) fn target_sets(&self) -> impl Iterator<Item = (&String, &Vec<Target>)> {
        self.target_sets
            .iter()
            .map(|(name, set)| (name, &set.targets))
    }

    /// One page of changes after a sequence number; `None` as in [`Self::changes_after`].
    pub(crate) fn changes_since(&self, seq: u64, limit: usize) -> Option<Vec<ChangeView>> {
        let mut weight = 0;
        let page = self.changes_after(seq)?.take(limit).take_while(|change| {
            let fits = weight <= MAX_WEIGHT;
            weight += weight_of(change);
            fits
        });
        Some(page.cloned().collect())
    }

    /// The changes after a sequence number; `None` if they are no longer kept or do not exist
    /// yet.
    pub(crate) fn changes_after(&self, seq: u64) -> Option<impl Iterator<Item = &ChangeView>> {
        let oldest = self
            .changes
            .front()
            .map_or(self.seq, |change| change.seq - 1);
        if seq < oldest || seq > self.seq {
            return None;
        }
        let behind = usize::try_from(self.seq - seq).unwrap_or(usize::MAX);
        let skip = self.changes.len().saturating_sub(behind);
        Some(self.changes.iter().skip(skip))
    }

    /// All addresses of load balancers.
    pub(crate) fn held(&self) -> BTreeSet<IpAddr> {
        let records = self.load_balancers.values();
        let addresses = records.flat_map(|(record, _)| &record.addresses);
        addresses.copied().collect()
    }

    /// The time at which [`Self::tick`] has work.
    pub(crate) fn deadline(&self) -> Option<Timestamp> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// What everything would cost on AWS.
    pub(crate) fn meter(&self, now: Timestamp) -> MeterView {
        self.meter.view(now, self.billed, &Prices::AWS)
    }

    // --- deciding ---

    /// Creates or changes a load balancer. Returns no edits if it is already as desired.
    pub(crate) fn put(
        &self,
        now: Timestamp,
        name: &str,
        owner: Option<&Owner>,
        body: &PutLoadBalancer,
    ) -> Result<Vec<Edit>, Problem> {
        super::validate::load_balancer(name, &body.desired, self.rules.max_listeners)?;
        let present = self.record(name);
        if let Some(present) = present {
            check_owner("load balancer", name, owner, &present.desired.tags)?;
            if matches!(present.phase, Phase::Deleting { .. }) {
                return Err(Problem::new(
                    Code::Deleting,
                    format!("load balancer {name} is being deleted; try again when it is gone"),
                ));
            }
        } else if self.load_balancers.len() >= self.rules.max_load_balancers {
            return Err(Problem::new(
                Code::QuotaExceeded,
                format!(
                    "the mock cloud holds {} load balancers already; raise --max-load-balancers or delete some",
                    self.rules.max_load_balancers
                ),
            ));
        }
        let held: &[IpAddr] = present.map_or(&[], |present| &present.addresses);
        let addresses = self.addresses(name, held, body)?;
        if present.is_some_and(|present| {
            present.desired == body.desired && present.addresses == addresses
        }) {
            return Ok(Vec::new());
        }
        let seq = self.seq + 1;
        let record = Record {
            name: name.to_owned(),
            seq,
            created_at: present.map_or(now, |present| present.created_at),
            phase: present.map_or_else(
                || Phase::born(now, self.rules.provisioning_latency),
                |present| present.phase,
            ),
            addresses,
            desired: body.desired.clone(),
        };
        let rested = held
            .iter()
            .filter(|address| !record.addresses.contains(address));
        let taken = record
            .addresses
            .iter()
            .filter(|address| !held.contains(address));
        let mut edits: Vec<Edit> = rested.map(|address| Edit::Rest(*address, seq)).collect();
        edits.extend(taken.map(|address| Edit::Hold(*address, name.to_owned())));
        let kind = match present {
            Some(_) => ChangeKind::Changed,
            None => ChangeKind::Created,
        };
        edits.push(change(seq, kind, &record));
        edits.push(Edit::Put(Box::new(record)));
        Ok(self.metered(now, edits))
    }

    /// Begins the deletion, or completes it at once if there is no latency.
    pub(crate) fn delete(
        &self,
        now: Timestamp,
        name: &str,
        owner: Option<&Owner>,
    ) -> Result<(Vec<Edit>, Deletion), Problem> {
        let record = self.existing(name)?;
        check_owner("load balancer", name, owner, &record.desired.tags)?;
        match record.phase.deleted(now, self.rules.deletion_latency) {
            Step::Stay => Ok((Vec::new(), Deletion::Deleting)),
            Step::To(phase) => {
                let edits = self.moved(record, phase, ChangeKind::Deleting, self.seq + 1);
                Ok((edits, Deletion::Deleting))
            }
            Step::Gone => {
                let edits = self.metered(now, gone(record, self.seq + 1));
                Ok((edits, Deletion::Gone))
            }
        }
    }

    /// Sets and removes tags.
    pub(crate) fn patch_tags(
        &self,
        name: &str,
        owner: Option<&Owner>,
        patch: &BTreeMap<String, Option<String>>,
    ) -> Result<Vec<Edit>, Problem> {
        let record = self.existing(name)?;
        check_owner("load balancer", name, owner, &record.desired.tags)?;
        let mut record = record.clone();
        let before = record.desired.tags.clone();
        for (key, value) in patch {
            match value {
                Some(value) => record.desired.tags.insert(key.clone(), value.clone()),
                None => record.desired.tags.remove(key),
            };
        }
        super::validate::tags(&record.desired.tags)?;
        if record.desired.tags == before {
            return Ok(Vec::new());
        }
        record.seq = self.seq + 1;
        Ok(vec![
            change(record.seq, ChangeKind::Changed, &record),
            Edit::Put(Box::new(record)),
        ])
    }

    /// Replaces a target set. Returns no edits if it is unchanged.
    pub(crate) fn put_targets(
        &self,
        name: &str,
        owner: Option<&Owner>,
        body: TargetSetBody,
    ) -> Result<Vec<Edit>, Problem> {
        super::validate::target_set(name, &body, MAX_TARGETS)?;
        match self.target_sets.get(name) {
            Some(present) => {
                check_owner("target set", name, owner, &present.tags)?;
                if *present == body {
                    return Ok(Vec::new());
                }
            }
            None if self.target_sets.len() >= self.rules.max_load_balancers => {
                return Err(Problem::new(
                    Code::QuotaExceeded,
                    format!(
                        "the mock cloud holds {} target sets already",
                        self.target_sets.len()
                    ),
                ));
            }
            None => {}
        }
        let others = self.target_sets.iter().filter(|(other, _)| *other != name);
        let count = |set: &TargetSetBody| set.targets.len() + set.node_addresses.len();
        let all = others.map(|(_, set)| count(set)).sum::<usize>() + count(&body);
        if all > MAX_ALL_TARGETS {
            return Err(Problem::new(
                Code::QuotaExceeded,
                format!(
                    "targets: all target sets together would have {all} targets and node addresses, at most {MAX_ALL_TARGETS} are possible"
                ),
            ));
        }
        Ok(vec![Edit::Targets(name.to_owned(), body)])
    }

    /// Moves on the load balancers whose phase has ended.
    pub(crate) fn tick(&self, now: Timestamp) -> Vec<Edit> {
        let mut edits = Vec::new();
        let mut seq = self.seq;
        let due = self.deadlines.iter().take_while(|(at, _)| *at <= now);
        for record in due.filter_map(|(_, name)| self.record(name)) {
            match record.phase.step(now) {
                Step::Stay => {}
                Step::To(phase) => {
                    seq += 1;
                    edits.extend(self.moved(record, phase, ChangeKind::Changed, seq));
                }
                Step::Gone => {
                    seq += 1;
                    edits.extend(gone(record, seq));
                }
            }
        }
        self.metered(now, edits)
    }

    /// Records the data plane's report on an active load balancer.
    pub(crate) fn report(&self, name: &str, plane: Plane) -> Vec<Edit> {
        let Some((record, before)) = self.load_balancers.get(name) else {
            return Vec::new();
        };
        if record.phase != Phase::Active || *before == plane {
            return Vec::new();
        }
        let kind = match plane {
            Plane::Open => ChangeKind::Active,
            Plane::Closed | Plane::Failed(_) => ChangeKind::Changed,
        };
        let mut record = record.clone();
        record.seq = self.seq + 1;
        vec![
            change(record.seq, kind, &record),
            Edit::Put(Box::new(record)),
            Edit::Plane(name.to_owned(), plane),
        ]
    }

    /// Brings the meter up to date first if the edits change what is billed.
    fn metered(&self, now: Timestamp, mut edits: Vec<Edit>) -> Vec<Edit> {
        let changes = edits.iter().any(|edit| match edit {
            Edit::Put(record) => {
                let before = self.record(&record.name).map(Record::billed);
                before != Some(record.billed())
            }
            Edit::Drop(_) => true,
            _ => false,
        });
        if changes {
            edits.insert(0, Edit::Meter(self.meter.at(now, self.billed)));
        }
        edits
    }

    fn existing(&self, name: &str) -> Result<&Record, Problem> {
        self.record(name).ok_or_else(|| {
            Problem::new(Code::NotFound, format!("there is no load balancer {name}"))
        })
    }

    fn moved(&self, record: &Record, phase: Phase, kind: ChangeKind, seq: u64) -> Vec<Edit> {
        debug_assert!(seq > self.seq);
        let mut record = record.clone();
        record.phase = phase;
        record.seq = seq;
        vec![change(seq, kind, &record), Edit::Put(Box::new(record))]
    }

    // --- applying ---

    /// Applies committed edits.
    pub(crate) fn apply(&mut self, edits: Vec<Edit>) {
        for edit in edits {
            match edit {
                Edit::Put(record) => self.put_record(*record),
                Edit::Drop(name) => {
                    if let Some((record, _)) = self.load_balancers.remove(&name) {
                        self.forget_deadline(&record);
                        self.billed = without(self.billed, record.billed());
                    }
                }
                Edit::Rest(address, at) => self.allocator.rest(address, at),
                Edit::Hold(address, holder) => self.allocator.hold(address, &holder),
                Edit::Targets(name, body) => {
                    self.target_sets.insert(name, body);
                    self.exclude_nodes();
                }
                Edit::Change(change) => {
                    self.seq = change.seq;
                    self.changes_weight += weight_of(&change);
                    self.changes.push_back(change);
                    self.forget_changes();
                }
                Edit::Listener(_) => {}
                Edit::Meter(meter) => self.meter = meter,
                Edit::Plane(name, plane) => {
                    if let Some(entry) = self.load_balancers.get_mut(&name) {
                        entry.1 = plane;
                    }
                }
            }
        }
    }

    fn forget_changes(&mut self) {
        while self.changes.len() > MAX_CHANGES || self.changes_weight > MAX_CHANGES_WEIGHT {
            let Some(oldest) = self.changes.pop_front() else {
                return;
            };
            self.changes_weight -= weight_of(&oldest);
        }
    }

    fn put_record(&mut self, record: Record) {
        let before = self.load_balancers.remove(&record.name);
        let plane = before.map_or(Plane::Closed, |(before, plane)| {
            self.forget_deadline(&before);
            self.billed = without(self.billed, before.billed());
            plane
        });
        self.billed = self.billed + record.billed();
        if let Some(at) = record.phase.deadline() {
            self.deadlines.insert((at, record.name.clone()));
        }
        self.load_balancers
            .insert(record.name.clone(), (record, plane));
    }

    fn forget_deadline(&mut self, record: &Record) {
        if let Some(at) = record.phase.deadline() {
            self.deadlines.remove(&(at, record.name.clone()));
        }
    }
}

fn weight_of(change: &ChangeView) -> usize {
    record::weight(&change.tags)
}

#[cfg(test)]
mod tests;
