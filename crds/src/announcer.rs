//! `Announcer`: what the announcer of one node does. It has the name of its node.

// Columns of one type.
#![allow(clippy::duplicated_attributes)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Nothing is configured here: a `LoadBalancerClass` has the settings.
///
/// The announcer of a node creates the object, and the object is deleted with the Node. Only
/// that announcer writes the status, and only when something changed.
#[derive(
    CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize,
)]
#[kube(
    group = "ballast.dev",
    version = "v1alpha1",
    kind = "Announcer",
    plural = "announcers",
    category = "ballast",
    status = "AnnouncerStatus",
    no_spec,
    doc = "Which addresses a node announces on the local network, and on which interfaces.",
    derive = "PartialEq",
    printcolumn(
        json_path = ".status.counts.interfaces",
        name = "Interfaces",
        type_ = "integer"
    ),
    printcolumn(
        json_path = ".status.counts.usable",
        name = "Usable",
        type_ = "integer"
    ),
    printcolumn(
        json_path = ".status.counts.addresses",
        name = "Addresses",
        type_ = "integer"
    ),
    printcolumn(
        json_path = ".metadata.creationTimestamp",
        name = "Age",
        type_ = "date"
    )
)]
pub struct AnnouncerSpec {}

/// What an announcer reports about itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AnnouncerStatus {
    /// The process that wrote this status: a random number that changes with each start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub incarnation: Option<String>,

    /// Increases with each status that the node's announcers write. A status with a lower number
    /// than one that another announcer has read is old, and does not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub serial: Option<i64>,

    /// Prove that an announcer wrote this status: each is an HMAC of the name and UID of the object,
    /// `incarnation`, `serial`, `interfaces` and `holdings`, with one of the keys that all announcers
    /// share. Other announcers ignore a status without a valid seal.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub seals: Vec<Seal>,

    /// How many interfaces and addresses there are.
    #[serde(default)]
    pub counts: AnnouncerCounts,

    /// The interfaces on which the node can announce addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub interfaces: Vec<AnnouncerInterface>,

    /// The addresses that the node holds: it has claimed them, and no other node has a better claim. It
    /// announces those that have an `interface`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16_384), extend("x-kubernetes-list-type" = "atomic"))]
    pub holdings: Vec<Holding>,

    /// The latest requests of `ballast rebalance` that this announcer knows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub rebalances: Vec<AnnouncerRebalance>,

    /// `AddressConflict`: another host on the network uses an address that this node
    /// announces. `ProbesIntercepted`: a switch or proxy answers for other nodes, so this node
    /// checks them by ICMP echo. `CutOff`: no other host on the network responds to this node.
    /// `NoEndpoints`: a Service whose address this node announces has no endpoint that serves.
    /// `ArpNotStrict`: kube-proxy runs in IPVS mode without `strictARP`. `ReversePathFiltered`:
    /// an interface drops requests of clients in other networks. `RedirectsSent`: the node may
    /// send ICMP redirects. `NoInterface`: an address that this node may announce is in the
    /// subnet of no interface, here or on another node. `Wireless`: an interface is wireless and
    /// saves power, or may.
    /// `KubeProxyMissing`: nothing listens on the health port of kube-proxy.
    /// `UntrustedAnnouncer`: the status of an Announcer has no valid seal, so this node ignores it.
    /// `TooManyAddresses`: there are more addresses than an announcer can know.
    /// `NetRawMissing`: the announcer has not the capability `NET_RAW`, and does not start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,

    /// What some of the conditions concern, for programs.
    #[serde(default, skip_serializing_if = "AnnouncerProblems::is_empty")]
    pub problems: AnnouncerProblems,
}

/// A request of `ballast rebalance`, as an announcer knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AnnouncerRebalance {
    /// The time of the request, as in the annotation of the class.
    pub requested: Time,
    /// Whether this announcer moves no more addresses for it. It learns of a request that was made
    /// before it started as one that has ended.
    #[serde(default)]
    pub ended: bool,
}

/// A seal: 64 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Seal(#[schemars(regex(pattern = r"^[0-9a-f]{64}$"))] pub String);

/// What conditions of an announcer concern. Each list has at most 256 entries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AnnouncerProblems {
    /// `AddressConflict`: the addresses, each with the host that uses it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "atomic"))]
    pub conflicts: Vec<Conflict>,
    /// `NoEndpoints`: the addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "atomic"))]
    pub idle: Vec<ProblemAddress>,
    /// `CutOff`: the interfaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "atomic"))]
    pub cut_off: Vec<ProblemInterface>,
    /// `UntrustedAnnouncer`: the nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "atomic"))]
    pub untrusted: Vec<Successor>,
}

/// Another host that uses an address of a Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Conflict {
    /// The address of a Service.
    pub address: ProblemAddress,
    /// The MAC address of the other host.
    #[schemars(regex(pattern = r"^([0-9a-f]{2}:){5}[0-9a-f]{2}$"))]
    pub mac: String,
    /// The node that has this MAC address, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub node: Option<String>,
}

/// The address of a Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct ProblemAddress(#[schemars(length(min = 2, max = 45))] pub String);

/// The name of an interface, such as `eth0`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct ProblemInterface(#[schemars(length(min = 1, max = 32))] pub String);

/// The numbers of interfaces and addresses of an announcer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AnnouncerCounts {
    /// The number of interfaces.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub interfaces: i64,
    /// The number of interfaces that can announce now.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub usable: i64,
    /// The number of addresses that the node announces.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub addresses: i64,
    /// The number of addresses that the node holds. It does not announce those that another host on the
    /// network uses, and for a moment those that it has just claimed.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub held: i64,
}

/// A network interface of the node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AnnouncerInterface {
    /// The name, such as `eth0`.
    #[schemars(length(min = 1, max = 15))]
    pub name: String,
    /// The MAC address, such as `02:00:00:00:00:01`.
    #[schemars(regex(pattern = r"^([0-9a-f]{2}:){5}[0-9a-f]{2}$"))]
    pub mac: String,
    /// The node's own addresses with the lengths of their networks' prefixes, such as
    /// `192.0.2.11/24`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub addresses: Vec<InterfaceAddress>,
    /// Whether it has a carrier and other hosts on the network respond.
    #[serde(default)]
    pub usable: bool,
}

/// An address with the length of its network's prefix, such as `192.0.2.11/24`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct InterfaceAddress(#[schemars(length(min = 2, max = 49))] pub String);

/// An address that the node holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Holding {
    /// The address of a Service.
    #[schemars(length(min = 2, max = 45))]
    pub address: String,
    /// Counts the nodes that have announced the address. Of two nodes, the one with the higher
    /// epoch announces it.
    #[schemars(range(min = 1))]
    pub epoch: i64,
    /// Counts the changes of `successors` within the epoch.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub revision: i64,
    /// The interface on which the address is announced; absent while the node does not announce it, because
    /// another host on the network uses it, or for a moment after a change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 15))]
    pub interface: Option<String>,
    /// The MAC address that is announced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^([0-9a-f]{2}:){5}[0-9a-f]{2}$"))]
    pub mac: Option<String>,
    /// The nodes that take over if this one fails, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub successors: Vec<Successor>,
    /// When this node began to announce the address. A restart of the announcer does not change
    /// it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// Why this node announces the address. `New`: no node announced it before. `HostDown`: the
    /// host or the link of the previous node no longer responded. `AnnouncerDown`: its announcer
    /// ended or was stuck. `LeaseExpired`: its Lease expired. `NotEligible`: it was cordoned,
    /// tainted, excluded or deleted, lost its interface, or is not selected any more.
    /// `EndpointsMoved`: it had no serving endpoint (`externalTrafficPolicy: Local`).
    /// `Rebalanced`: the addresses were spread evenly. `Healed`: two nodes announced the address
    /// while they could not reach each other, and this one kept it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[A-Z][A-Za-z]{0,62}$"))]
    pub cause: Option<String>,
    /// The node that announced the address before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub previous: Option<String>,
}

/// The name of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Successor(#[schemars(length(min = 1, max = 253))] pub String);

// === impl AnnouncerProblems ===

impl AnnouncerProblems {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
