//! `AddressPool`: addresses that Ballast may assign to Services of `l2` classes.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, Time};
use kube::core::Duration;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Addresses for Services, which of them may have one, and how an address comes back.
///
/// The API server checks what its rules can say; whether a range ends before it begins, and
/// whether nobody can use its addresses, is the condition `Accepted` (`Invalid`), and an
/// overlap with another pool that of the newer one (`Conflict`).
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "ballast.dev",
    version = "v1alpha1",
    kind = "AddressPool",
    plural = "addresspools",
    shortname = "lbpool",
    category = "ballast",
    status = "AddressPoolStatus",
    doc = "Addresses that are given to the Services of l2 classes.",
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
    /// Ranges: `192.0.2.0/24`, `192.0.2.10-192.0.2.20` or one address; both families may
    /// be mixed.
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(validation = Rule::new("self.all(a, a.contains('-') ? isIP(a.split('-')[0].trim()) && a.split('-').size() == 2 && isIP(a.split('-')[1].trim()) : isIP(a) || isCIDR(a))").message("each address is a CIDR such as 192.0.2.0/24, a range such as 192.0.2.10-192.0.2.20, or one address"))]
    #[x_kube(validation = Rule::new("self.all(a, !a.contains('-') || a.split('-').size() != 2 || !isIP(a.split('-')[0].trim()) || !isIP(a.split('-')[1].trim()) || ip(a.split('-')[0].trim()).family() == ip(a.split('-')[1].trim()).family())").message("both ends of a range are of one family"))]
    #[x_kube(validation = Rule::new("self.all(a, !isCIDR(a) || cidr(a).ip() == cidr(a).masked().ip())").message("an address with a prefix length is a network: 192.0.2.0/24, not 192.0.2.1/24"))]
    #[x_kube(validation = Rule::new("self.all(a, !isIP(a) && !isCIDR(a) || !(isIP(a) ? ip(a) : cidr(a).ip()).isLoopback() && !(isIP(a) ? ip(a) : cidr(a).ip()).isUnspecified())").message("nobody else reaches loopback addresses or 0.0.0.0 and ::"))]
    pub addresses: Vec<PoolEntry>,

    /// Also for Services that ask for neither pool nor address.
    #[serde(default = "yes")]
    pub auto_assign: bool,

    /// Pools with a lower number are asked first; 0, the default, comes last.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub priority: i32,

    /// Only for Services in namespaces with these labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,

    /// Only for Services with these labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_selector: Option<LabelSelector>,

    /// How long a released address rests before another Service gets it unasked, such as
    /// `2m` or `90s`, so that clients and routers have forgotten who had it.
    #[serde(default = "two_minutes")]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]+([.][0-9]+)?(ns|us|ms|s|m|h))+$') && duration(self) <= duration('24h')").message("spec.reuseAfter is a time such as 2m or 90s, between 0s and 24h"))]
    pub reuse_after: Duration,

    /// Which addresses at the edges of networks are not given out unasked.
    #[serde(default)]
    pub edges: Edges,

    /// Whether Services of different namespaces may share an address (with one share key).
    #[serde(default)]
    pub share_across_namespaces: bool,

    /// Take in Services whose address no pool has any more, and move Services away that the
    /// selectors do not let in any more. Without it they keep their addresses and say so.
    #[serde(default)]
    pub reallocate: bool,
}

/// An entry of `spec.addresses`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct PoolEntry(#[schemars(length(min = 2, max = 96))] pub String);

/// Which addresses are not given out unasked; a Service that names one gets it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Edges {
    /// The first and last of an IPv4 CIDR (network and broadcast), the first of an IPv6 one.
    #[default]
    Skip,
    /// Also every IPv4 address that ends in .0 or .255: some old devices drop them.
    SkipOctets,
    /// None.
    Use,
}

/// What the controller reports of a pool; written at most once in 5 seconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AddressPoolStatus {
    /// Both families, for people: `254`, or `254 + 2^64`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<String>,

    /// Addresses that Services have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<String>,

    /// Addresses that a Service could get, those that rest included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free: Option<String>,

    /// IPv4 by number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<PoolCounts>,

    /// IPv6 by number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<PoolCounts>,

    /// What a Service without any wish would get next, one address per family.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub next: Vec<String>,

    /// Released addresses that rest, the first 16 by the time at which they are free again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resting: Vec<Resting>,

    /// `Accepted`: the addresses can be read and overlap no older pool.
    /// `NodeAddresses`: `True` if nodes have addresses of the pool; those are skipped.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// A released address on its way back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Resting {
    /// The address.
    pub address: String,
    /// When it is free again.
    pub until: Time,
}

/// Addresses of one family. Numbers end at 9,223,372,036,854,775,807 (2^63 - 1), which then
/// means: that many or more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PoolCounts {
    /// All of the pool.
    pub total: i64,
    /// Those that Services have.
    pub assigned: i64,
    /// Those that a Service could get now. What is neither assigned nor available rests, or
    /// is held by somebody else, as the metric `ballast_pool_addresses` says.
    pub available: i64,
}

const fn yes() -> bool {
    true
}

fn two_minutes() -> Duration {
    std::time::Duration::from_mins(2).into()
}
