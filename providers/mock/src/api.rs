//! The mock cloud's wire format, shared by its server and its client.
//!
//! Invariants: every `PUT` carries the full desired state. Every load balancer in an answer
//! carries the sequence number of its last change, so that a client can tell which events are
//! older than the answer.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ballast_provider::text::bounded;
use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};

mod desired;

pub use self::desired::{Affinity, Family, Listener, Protocol, Target, TrafficPolicy};

/// The number of entries per page if the caller sets no limit, and the largest limit.
pub const MAX_PAGE: usize = 500;

/// The longest time that a call to `/v1/changes` waits, in seconds.
pub const MAX_WAIT_SECONDS: u64 = 60;

/// The desired state of a load balancer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Desired {
    /// Ports; (protocol, port) is unique.
    pub listeners: Vec<Listener>,
    /// It gets one address of each, in this order.
    pub families: Vec<Family>,
    /// Whether an address of one family is enough if none of the others is available. A later
    /// `PUT` adds the missing ones.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub any_family: bool,
    /// Which targets may get traffic.
    pub traffic_policy: TrafficPolicy,
    /// Client stickiness.
    pub affinity: Affinity,
    /// Clients that may connect; if empty, all clients.
    #[serde(default)]
    pub source_ranges: Vec<IpNet>,
    /// Name of the target set. A set that does not exist (yet) counts as empty.
    pub target_set: String,
    /// Addresses that it must get, at most one per family.
    #[serde(default)]
    pub requested_addresses: Vec<IpAddr>,
    /// The owner.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
}

/// Body of `PUT /v1/load-balancers/{name}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PutLoadBalancer {
    /// The full desired state.
    pub desired: Desired,
    /// Addresses to assign if they are free and the load balancer has none yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub preferred_addresses: Vec<IpAddr>,
    /// Addresses not to choose: those of other load balancers that do not exist again yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub avoid_addresses: Vec<IpAddr>,
}

/// The state of a load balancer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LifecycleState {
    /// It is being created, or its ports are not open yet.
    Provisioning,
    /// Traffic flows.
    Active,
    /// It is being deleted.
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
    /// When it was created.
    pub created_at: Timestamp,
    /// Its state.
    pub state: LifecycleState,
    /// Why it is not active although its provisioning time is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
    /// Its addresses, in the order of `families`; fewer only with `anyFamily`.
    pub addresses: Vec<IpAddr>,
    /// Its last desired state.
    pub desired: Desired,
}

/// One page of load balancers, by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancerPage {
    /// The load balancers.
    pub items: Vec<LoadBalancerView>,
    /// The `pageToken` of the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_page_token: Option<String>,
    /// A position in the stream of changes. The page is at least as new.
    pub position: Position,
    /// Identifies the cloud, whatever the URL is under which clients know it. It is part of the
    /// state, so a cloud that lost its state has another one.
    #[serde(default)]
    pub cloud: String,
}

/// A position in the stream of changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Identifies one run of the cloud; after a restart, state may have been lost.
    pub epoch: String,
    /// Sequence number of the last change before this position.
    pub seq: u64,
}

/// Body of `PUT` and answer of `GET /v1/target-sets/{name}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TargetSetBody {
    /// The machines, by name.
    pub targets: Vec<Target>,
    /// Addresses that no load balancer gets: those of all machines of the cluster, whether they
    /// are targets or not.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub node_addresses: BTreeSet<IpAddr>,
    /// The owner.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
}

/// Body of `PATCH /v1/load-balancers/{name}/tags`: `null` removes a tag.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TagPatch {
    /// Tags to set or remove.
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
    /// Its desired state, tags or problem have changed.
    Changed,
    /// Its deletion has begun.
    Deleting,
    /// It is gone.
    Deleted,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChangeView {
    /// Its number; the numbers rise without gaps.
    pub seq: u64,
    /// What happened.
    pub kind: ChangeKind,
    /// The load balancer.
    pub name: String,
    /// The load balancer's tags at that time.
    pub tags: BTreeMap<String, String>,
}

/// Answer of `GET /v1/changes`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChangesPage {
    /// Changes after the given position, oldest first.
    pub items: Vec<ChangeView>,
    /// The position to continue from.
    pub position: Position,
}

/// One entry of the call log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CallView {
    /// Its number, from 1.
    pub seq: u64,
    /// When the call was answered.
    pub time: Timestamp,
    /// HTTP method.
    pub method: String,
    /// Path with query.
    pub path: String,
    /// HTTP status of the answer.
    pub status: u16,
    /// Whether it could change the state.
    pub mutating: bool,
}

/// Answer of `GET /v1/calls`. The counters start with the process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CallsPage {
    /// The newest calls after the given number, oldest first; the log is bounded.
    pub items: Vec<CallView>,
    /// Number of the last call.
    pub last: u64,
    /// The number of all calls.
    pub total: u64,
    /// The number of calls that could change the state.
    pub mutating: u64,
}

/// Answer of `GET /v1/meter`: what the same load balancers would cost on AWS, in US dollars. The
/// prices are those of [`ballast_provider::Prices`], and `ballast_mock::billed` says what each load
/// balancer stands for. One counts from its creation until it is gone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MeterView {
    /// When the meter began: with the state of the cloud.
    pub since: Timestamp,
    /// The time of this answer.
    pub time: Timestamp,
    /// The load balancers that are there now.
    pub load_balancers: u32,
    /// The public IPv4 addresses that these stand for.
    pub public_addresses: u32,
    /// What an hour of these costs.
    pub per_hour: f64,
    /// What a month of 730 hours of these costs.
    pub per_month: f64,
    /// What all load balancers since the beginning have cost, with those that are gone.
    pub so_far: f64,
    /// The prices that were used.
    pub prices: PricesView,
}

/// The prices of an hour, in US dollars.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PricesView {
    /// Of one load balancer.
    pub load_balancer_hour: f64,
    /// Of one public IPv4 address.
    pub public_address_hour: f64,
}

/// The result of a target's health checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TargetHealth {
    /// No result yet.
    Initial,
    /// The target gets traffic.
    Healthy,
    /// The target gets no traffic while another one is healthy.
    Unhealthy,
}

/// The health of one target for one listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetHealthView {
    /// The target's name.
    pub target: String,
    /// The address and port that its traffic goes to; absent if it has no address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<std::net::SocketAddr>,
    /// Protocol and port of the listener, such as `TCP/80`.
    pub listener: String,
    /// The check that decides, such as `http 10.0.0.2:10256/healthz`.
    pub check: String,
    /// The result of the check.
    pub health: TargetHealth,
    /// Whether it gets new connections now. If all targets are unhealthy and the traffic
    /// policy is `Cluster`, all of them do.
    pub eligible: bool,
}

/// Why a call was refused, or why a load balancer is not active.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Code {
    /// The object does not exist.
    #[serde(alias = "not_found")]
    NotFound,
    /// The object exists, and its tags name another owner.
    #[serde(alias = "not_owner")]
    NotOwner,
    /// The object is being deleted.
    Deleting,
    /// A limit of the cloud is reached.
    #[serde(alias = "quota_exceeded")]
    QuotaExceeded,
    /// The requested address belongs to another load balancer.
    #[serde(alias = "address_in_use")]
    AddressInUse,
    /// There is no range of that family, or none of its addresses is free.
    #[serde(alias = "no_address_available")]
    NoAddressAvailable,
    /// The port cannot be opened on its address.
    #[serde(alias = "port_in_use")]
    PortInUse,
    /// The limit of the call rate is reached.
    Throttled,
    /// A field has an invalid value.
    Invalid,
    /// The bearer token is missing or wrong.
    Unauthorized,
    /// The sequence number is too old or of another run of the cloud; list again.
    #[serde(alias = "sequence_unknown")]
    SequenceUnknown,
    /// An internal error of the cloud.
    Internal,
}

/// A problem, in error answers and in load balancers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Problem {
    /// For machines.
    pub code: Code,
    /// For people: the field, its value, and what to do. One line of a bounded length, also
    /// when it comes from another program.
    #[serde(deserialize_with = "bounded_text")]
    pub message: String,
}

fn bounded_text<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let text = Cow::<str>::deserialize(from)?;
    Ok(bounded(&text))
}

// === impl Problem ===

impl Problem {
    /// A problem of this kind.
    pub fn new(code: Code, message: impl AsRef<str>) -> Self {
        Self {
            code,
            message: bounded(message.as_ref()),
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
