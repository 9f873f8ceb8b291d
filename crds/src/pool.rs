//! `AddressPool`: addresses that Ballast may assign to Services of `l2` classes.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, Time};
use kube::core::Duration;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Addresses for Services, the Services that may use them, and when a released address is
/// assigned again.
///
/// The API server validates the syntax of the addresses. The controller validates the rest and
/// reports it in the condition `Accepted`: `Invalid` if a range ends before it begins or
/// contains addresses that no load balancer can have, and `Conflict` if the pool overlaps an
/// older one.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "ballast.dev",
    version = "v1alpha1",
    kind = "AddressPool",
    plural = "addresspools",
    shortname = "lbpool",
    category = "ballast",
    status = "AddressPoolStatus",
    doc = "Addresses that are assigned to Services of l2 classes.",
    derive = "PartialEq",
    validation = Rule::new("self.metadata.name.size() <= 63").message("the name of an AddressPool has at most 63 characters: it becomes the value of an annotation and of a metric's label"),
    printcolumn(json_path = ".status.total", name = "Total", type_ = "string"),
    printcolumn(json_path = ".status.used", name = "Used", type_ = "string"),
    printcolumn(json_path = ".status.free", name = "Free", type_ = "string"),
    printcolumn(json_path = ".spec.autoAssign", name = "Auto", type_ = "boolean"),
    printcolumn(json_path = ".spec.priority", name = "Priority", type_ = "integer", priority = 1),
    printcolumn(json_path = ".status.conditions[?(@.type==\"Accepted\")].reason", name = "Accepted", type_ = "string"),
    printcolumn(json_path = ".metadata.creationTimestamp", name = "Age", type_ = "date")
)]
#[serde(rename_all = "camelCase")]
pub struct AddressPoolSpec {
    /// The addresses of the pool: CIDRs such as `192.0.2.0/24`, ranges such as
    /// `192.0.2.10-192.0.2.20`, and single addresses. A pool can contain both families.
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(validation = Rule::new("self.all(a, a.contains('-') ? isIP(a.split('-')[0].trim()) && a.split('-').size() == 2 && isIP(a.split('-')[1].trim()) : isIP(a) || isCIDR(a))").message("each address is a CIDR such as 192.0.2.0/24, a range such as 192.0.2.10-192.0.2.20, or one address"))]
    #[x_kube(validation = Rule::new("self.all(a, !a.contains('-') || a.split('-').size() != 2 || !isIP(a.split('-')[0].trim()) || !isIP(a.split('-')[1].trim()) || ip(a.split('-')[0].trim()).family() == ip(a.split('-')[1].trim()).family())").message("both ends of a range are of one family"))]
    #[x_kube(validation = Rule::new("self.all(a, !isCIDR(a) || cidr(a).ip() == cidr(a).masked().ip())").message("an address with a prefix length is a network: 192.0.2.0/24, not 192.0.2.1/24"))]
    #[x_kube(validation = Rule::new("self.all(a, !isIP(a) && !isCIDR(a) || !(isIP(a) ? ip(a) : cidr(a).ip()).isLoopback() && !(isIP(a) ? ip(a) : cidr(a).ip()).isUnspecified())").message("loopback addresses, 0.0.0.0 and :: are not reachable from other machines"))]
    pub addresses: Vec<PoolEntry>,

    /// Assign addresses also to Services that request neither a pool nor an address.
    #[serde(default = "yes")]
    pub auto_assign: bool,

    /// Pools with a lower number are used first. Pools with 0, the default, are used last.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub priority: i32,

    /// The pool serves only Services in namespaces that match this selector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,

    /// The pool serves only Services that match this selector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_selector: Option<LabelSelector>,

    /// How long a released address rests before it is assigned automatically to another
    /// Service, such as `2m` or `90s`. Clients and routers can cache the previous assignment
    /// for that long.
    #[serde(default = "two_minutes")]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]+([.][0-9]+)?(ns|us|ms|s|m|h))+$') && duration(self) <= duration('24h')").message("spec.reuseAfter is a time such as 2m or 90s, between 0s and 24h"))]
    pub reuse_after: Duration,

    /// Which addresses at the edges of networks are not assigned automatically.
    #[serde(default)]
    pub edges: Edges,

    /// Whether Services of different namespaces may share an address, if they have the same
    /// share key.
    #[serde(default)]
    pub share_across_namespaces: bool,

    /// Assign new addresses of this pool to Services whose address is no longer in any pool,
    /// and move Services that the selectors no longer match to another pool. If false, these
    /// Services keep their addresses, and a condition reports it.
    #[serde(default)]
    pub reallocate: bool,
}

/// An entry of `spec.addresses`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct PoolEntry(#[schemars(length(min = 2, max = 96))] pub String);

/// Which addresses are not assigned automatically. A Service can still request them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Edges {
    /// The first and last of an IPv4 CIDR (network and broadcast), the first of an IPv6 one.
    #[default]
    Skip,
    /// Like `Skip`, and every IPv4 address that ends in .0 or .255: some old devices drop them.
    SkipOctets,
    /// None: all addresses are assigned.
    Use,
}

/// The state of the pool. The controller writes it at most once every 5 seconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AddressPoolStatus {
    /// The number of addresses of both families, as text: `254`, or `254 + 2^64`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<String>,

    /// The number of addresses that are assigned to Services.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<String>,

    /// The number of addresses that can be assigned, including those that rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free: Option<String>,

    /// The numbers of IPv4 addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<PoolCounts>,

    /// The numbers of IPv6 addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<PoolCounts>,

    /// The next addresses to be assigned automatically, one per family.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub next: Vec<String>,

    /// Released addresses that rest: the 16 that are available again first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resting: Vec<Resting>,

    /// `Accepted`: the addresses are valid and do not overlap an older pool.
    /// `NodeAddresses`: `True` if the pool contains addresses of nodes, which are not assigned.
    /// `Contested`: another client keeps changing what Ballast writes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// A released address that is not assigned automatically yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Resting {
    /// The address.
    pub address: String,
    /// When it is available again.
    pub until: Time,
}

/// The numbers of addresses of one family. The maximum, 9,223,372,036,854,775,807 (2^63 - 1),
/// means that many or more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PoolCounts {
    /// The number of addresses in the pool.
    pub total: i64,
    /// The number of addresses that are assigned to Services.
    pub assigned: i64,
    /// The number of addresses that can be assigned now. The metric
    /// `ballast_pool_addresses` counts all states.
    pub available: i64,
}

const fn yes() -> bool {
    true
}

fn two_minutes() -> Duration {
    std::time::Duration::from_mins(2).into()
}
