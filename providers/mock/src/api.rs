//! The mock cloud's wire format, shared by its server and its client.
//!
//! Invariants: every `PUT` carries the full desired state; every answer that shows a
//! load balancer carries the sequence number of its last change, so that a client
//! can tell an event it has already seen the result of from one it has not.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

mod desired;

pub use self::desired::{Affinity, Family, Listener, Protocol, Target, TrafficPolicy};

/// Entries per page where the caller names no limit, and the most it can ask for.
pub const MAX_PAGE: usize = 500;

/// The longest a call to `/v1/changes` waits, in seconds.
pub const MAX_WAIT_SECONDS: u64 = 60;

/// What a load balancer shall be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Desired {
    /// Ports; (protocol, port) is unique.
    pub listeners: Vec<Listener>,
    /// One address of each, in this order.
    pub families: Vec<Family>,
    /// Whether an address of one family is enough where the others have none; the missing
    /// ones are added when the load balancer is put again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub any_family: bool,
    /// Which targets may get traffic.
    pub traffic_policy: TrafficPolicy,
    /// Client stickiness.
    pub affinity: Affinity,
    /// Clients that may connect; empty means everybody.
    #[serde(default)]
    pub source_ranges: Vec<IpNet>,
    /// Name of the target set; one that does not exist (yet) is empty.
    pub target_set: String,
    /// Addresses that it must have, at most one per family.
    #[serde(default)]
    pub requested_addresses: Vec<IpAddr>,
    /// Whose it is.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
}

/// Body of `PUT /v1/load-balancers/{name}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PutLoadBalancer {
    /// The full desired state.
    pub desired: Desired,
    /// Addresses to give if they are free and none is held yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub preferred_addresses: Vec<IpAddr>,
    /// Addresses not to choose: somebody else's, not yet made again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub avoid_addresses: Vec<IpAddr>,
}

/// Where a load balancer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LifecycleState {
    /// Being made, or its ports are not open yet.
    Provisioning,
    /// Traffic flows.
    Active,
    /// Being taken down.
    Deleting,
}

/// One load balancer as the API shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancerView {
    /// Its name.
    pub name: String,
    /// Sequence number of its last change.
    pub seq: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// Where it stands.
    pub state: LifecycleState,
    /// Why it is not active although its time has come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
    /// Its addresses, in the order of `families`; fewer only with `anyFamily`.
    pub addresses: Vec<IpAddr>,
    /// What it was last told to be.
    pub desired: Desired,
}

/// One page of load balancers, by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancerPage {
    /// The load balancers.
    pub items: Vec<LoadBalancerView>,
    /// Pass as `pageToken` for the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_page_token: Option<String>,
    /// Position in the stream of changes that this page is at least as new as.
    pub position: Position,
}

/// A place in the stream of changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Names one run of the cloud: after a restart, state may have been lost.
    pub epoch: String,
    /// Sequence number of the last change before this place.
    pub seq: u64,
}

/// Body of `PUT` and answer of `GET /v1/target-sets/{name}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TargetSetBody {
    /// The machines, by name.
    pub targets: Vec<Target>,
    /// Whose it is.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
}

/// Body of `PATCH /v1/load-balancers/{name}/tags`: `null` removes a tag.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TagPatch {
    /// Tags to set or to remove.
    pub tags: BTreeMap<String, Option<String>>,
}

/// What happened to a load balancer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangeKind {
    /// Made.
    Created,
    /// Its ports are open and traffic flows.
    Active,
    /// Its desired state, its tags or its problem differ.
    Changed,
    /// Its deletion began.
    Deleting,
    /// It is gone.
    Deleted,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChangeView {
    /// Its number; they rise without gaps.
    pub seq: u64,
    /// What happened.
    pub kind: ChangeKind,
    /// To which load balancer.
    pub name: String,
    /// That load balancer's tags at the time.
    pub tags: BTreeMap<String, String>,
}

/// Answer of `GET /v1/changes`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChangesPage {
    /// Changes after the asked place, oldest first.
    pub items: Vec<ChangeView>,
    /// Where to go on.
    pub position: Position,
}

/// One entry of the call log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CallView {
    /// Its number, from 1.
    pub seq: u64,
    /// When it was answered.
    pub time: Timestamp,
    /// HTTP method.
    pub method: String,
    /// Path with query.
    pub path: String,
    /// HTTP status of the answer.
    pub status: u16,
    /// Whether it could change something.
    pub mutating: bool,
}

/// Answer of `GET /v1/calls`; counted since the process started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CallsPage {
    /// The newest calls after the asked number, oldest first; the log is bounded.
    pub items: Vec<CallView>,
    /// Number of the last call.
    pub last: u64,
    /// All calls.
    pub total: u64,
    /// Calls that could change something.
    pub mutating: u64,
}

/// What a health check says of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TargetHealth {
    /// Not answered yet.
    Initial,
    /// Takes traffic.
    Healthy,
    /// Takes none while another one can.
    Unhealthy,
}

/// Health of one target for one listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetHealthView {
    /// The target's name.
    pub target: String,
    /// Where its traffic goes; absent if it has no address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<std::net::SocketAddr>,
    /// Protocol and port of the listener, such as `TCP/80`.
    pub listener: String,
    /// The check that decides, such as `http 10.0.0.2:10256/healthz`.
    pub check: String,
    /// Its answer.
    pub health: TargetHealth,
    /// Whether it gets new connections now (also when all are unhealthy and the
    /// traffic policy is `Cluster`).
    pub eligible: bool,
}

/// Why a call was refused, or why a load balancer is not active.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Code {
    /// There is no such object.
    #[serde(alias = "not_found")]
    NotFound,
    /// It exists and its tags name another owner.
    #[serde(alias = "not_owner")]
    NotOwner,
    /// It is being deleted.
    Deleting,
    /// A limit of the cloud is reached.
    #[serde(alias = "quota_exceeded")]
    QuotaExceeded,
    /// The requested address belongs to another load balancer.
    #[serde(alias = "address_in_use")]
    AddressInUse,
    /// No range of that family, or none free in it.
    #[serde(alias = "no_address_available")]
    NoAddressAvailable,
    /// The port cannot be opened on its address.
    #[serde(alias = "port_in_use")]
    PortInUse,
    /// Slow down.
    Throttled,
    /// A field has a value that cannot be.
    Invalid,
    /// The bearer token is missing or wrong.
    Unauthorized,
    /// The asked sequence number is too old or of another life: list again.
    #[serde(alias = "sequence_unknown")]
    SequenceUnknown,
    /// The cloud's own fault.
    Internal,
}

/// A problem, as error answers and load balancers carry it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Problem {
    /// For machines.
    pub code: Code,
    /// For people: the field, its value, and what to do.
    pub message: String,
}

// === impl Problem ===

impl Problem {
    /// A problem of this kind.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

// === impl Code ===

impl Code {
    /// The HTTP status of an answer that carries this code.
    pub const fn status(self) -> u16 {
        match self {
            Self::NotFound => 404,
            Self::NotOwner => 412,
            Self::Deleting | Self::AddressInUse | Self::PortInUse => 409,
            Self::QuotaExceeded => 403,
            Self::NoAddressAvailable => 422,
            Self::Throttled => 429,
            Self::Invalid => 400,
            Self::Unauthorized => 401,
            Self::SequenceUnknown => 410,
            Self::Internal => 500,
        }
    }
}
