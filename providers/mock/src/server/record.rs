//! The parts of the cloud's state, and the edits that change it. Plain values: `cloud`
//! decides and `store` writes.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use ballast_provider::{Billed, mark};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::lifecycle::Phase;
use super::meter::Meter;
use crate::address::AddressRange;
use crate::api::{
    ChangeKind, ChangeView, Code, Desired, LifecycleState, LoadBalancerView, Problem, TargetSetBody,
};
use crate::plane::Wildcard;

/// Limits and delays of this cloud.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) ranges: Vec<AddressRange>,
    pub(crate) max_load_balancers: usize,
    pub(crate) max_listeners: usize,
    pub(crate) provisioning_latency: Duration,
    pub(crate) deletion_latency: Duration,
}

/// The stored part of a load balancer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    pub(crate) name: String,
    pub(crate) seq: u64,
    #[serde(alias = "created_at")]
    pub(crate) created_at: Timestamp,
    pub(crate) phase: Phase,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) desired: Desired,
}

/// What the data plane reports about an active load balancer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Plane {
    /// No report yet.
    Closed,
    /// All its ports are open.
    Open,
    /// Some port cannot be opened.
    Failed(Problem),
}

/// One change. All edits of a decision are in one transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Edit {
    /// Creates or replaces a load balancer.
    Put(Box<Record>),
    /// Removes a load balancer.
    Drop(String),
    /// Records the release of an address, with its sequence number.
    Rest(IpAddr, u64),
    /// Records the holder of an address.
    Hold(IpAddr, String),
    /// Creates or replaces a target set.
    Targets(String, TargetSetBody),
    /// Adds an entry to the stream of changes.
    Change(ChangeView),
    /// Records a listener of the node, whose port is never opened. Only the data plane uses it.
    Listener(Wildcard),
    /// Brings the meter up to date, before the edits that follow.
    Meter(Meter),
    /// The report of the data plane; it is not stored.
    Plane(String, Plane),
}

/// The state that was read from the store.
#[derive(Debug, Default)]
pub(crate) struct Stored {
    /// Identifies the cloud for as long as it has its state.
    pub(crate) identity: String,
    pub(crate) epoch: String,
    pub(crate) seq: u64,
    pub(crate) records: Vec<Record>,
    pub(crate) target_sets: Vec<(String, TargetSetBody)>,
    pub(crate) resting: Vec<(IpAddr, u64)>,
    pub(crate) changes: Vec<ChangeView>,
    pub(crate) meter: Meter,
    /// Listeners of the node that were seen.
    pub(crate) listeners: Vec<Wildcard>,
}

/// Who may change an object; `None` stands for anybody, such as an operator with curl.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) cluster: String,
    pub(crate) class: String,
}

/// The progress of a deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deletion {
    /// It is gone.
    Gone,
    /// The deletion is in progress.
    Deleting,
}

// === impl Record ===

impl Record {
    /// What it stands for on a bill.
    pub(super) fn billed(&self) -> Billed {
        crate::billed(&self.addresses)
    }

    /// The size in JSON, in bytes, roughly.
    pub(super) fn weight(&self) -> usize {
        let desired = &self.desired;
        weight(&desired.tags) + 128 * desired.listeners.len() + 48 * desired.source_ranges.len()
    }
}

/// The size in JSON of something that is little more than these tags, in bytes, roughly.
pub(super) fn weight(tags: &BTreeMap<String, String>) -> usize {
    let tags = tags.iter().map(|(key, value)| key.len() + value.len() + 8);
    512 + tags.sum::<usize>()
}

// === impl Owner ===

impl Owner {
    fn owns(&self, tags: &BTreeMap<String, String>) -> bool {
        tags.get(mark::CLUSTER) == Some(&self.cluster) && tags.get(mark::CLASS) == Some(&self.class)
    }
}

/// Describes a load balancer to the owner of another one, which has the tags `reader`:
/// Services of other tenants are not named. Other clusters are, by name and UID, because two
/// clusters can have the same name.
pub(super) fn described(
    name: &str,
    tags: Option<&BTreeMap<String, String>>,
    reader: &BTreeMap<String, String>,
) -> String {
    let of = |tags: &BTreeMap<String, String>, key: &str| tags.get(key).cloned();
    let Some((tags, cluster)) = tags.and_then(|tags| Some((tags, tags.get(mark::CLUSTER)?))) else {
        return format!("load balancer {name}");
    };
    if reader.get(mark::CLUSTER) != Some(cluster) {
        let named = of(tags, mark::CLUSTER_NAME).filter(|named| !named.is_empty());
        let named = named.map_or_else(String::new, |named| format!("{named} "));
        return format!("load balancer {name} of cluster {named}({cluster})");
    }
    let namespace = |tags| Some(of(tags, mark::SERVICE)?.split_once('/')?.0.to_owned());
    match of(tags, mark::SERVICE) {
        Some(service) if namespace(tags) == namespace(reader) => format!("Service {service}"),
        _ => "another Service".to_owned(),
    }
}

pub(super) fn view((record, plane): &(Record, Plane)) -> LoadBalancerView {
    let (state, problem) = match (record.phase, plane) {
        (Phase::Provisioning { .. }, _) | (Phase::Active, Plane::Closed) => {
            (LifecycleState::Provisioning, None)
        }
        (Phase::Active, Plane::Open) => (LifecycleState::Active, None),
        (Phase::Active, Plane::Failed(problem)) => {
            (LifecycleState::Provisioning, Some(problem.clone()))
        }
        (Phase::Deleting { .. }, _) => (LifecycleState::Deleting, None),
    };
    LoadBalancerView {
        name: record.name.clone(),
        seq: record.seq,
        created_at: record.created_at,
        state,
        problem,
        addresses: record.addresses.clone(),
        desired: record.desired.clone(),
    }
}

pub(super) fn change(seq: u64, kind: ChangeKind, record: &Record) -> Edit {
    Edit::Change(ChangeView {
        seq,
        kind,
        name: record.name.clone(),
        tags: record.desired.tags.clone(),
    })
}

pub(super) fn gone(record: &Record, seq: u64) -> Vec<Edit> {
    let addresses = record.addresses.iter();
    let mut edits: Vec<Edit> = addresses.map(|ip| Edit::Rest(*ip, seq)).collect();
    edits.push(change(seq, ChangeKind::Deleted, record));
    edits.push(Edit::Drop(record.name.clone()));
    edits
}

pub(super) fn check_owner(
    kind: &str,
    name: &str,
    owner: Option<&Owner>,
    tags: &BTreeMap<String, String>,
) -> Result<(), Problem> {
    match owner {
        Some(owner) if !owner.owns(tags) => Err(Problem::new(
            Code::NotOwner,
            format!(
                "{kind} {name} exists and belongs to somebody else (its tags are not of cluster {}, class {})",
                owner.cluster, owner.class
            ),
        )),
        _ => Ok(()),
    }
}
