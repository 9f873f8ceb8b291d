//! `LoadBalancerClass`: which provider serves the Services that name it, and how.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, Time};
use kube::core::Duration;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::aws::AwsSettings;

/// A class NAME serves the Services with `spec.loadBalancerClass: ballast.dev/NAME`.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "ballast.dev",
    version = "v1alpha1",
    kind = "LoadBalancerClass",
    plural = "loadbalancerclasses",
    shortname = "lbclass",
    category = "ballast",
    status = "LoadBalancerClassStatus",
    doc = "The provider, and its settings, for the Services of this class.",
    derive = "PartialEq",
    validation = Rule::new("self.metadata.name.size() <= 63").message("the name of a LoadBalancerClass has at most 63 characters: it becomes part of a finalizer and of tags"),
    printcolumn(json_path = ".status.provider", name = "Provider", type_ = "string"),
    printcolumn(json_path = ".spec.default", name = "Default", type_ = "boolean"),
    printcolumn(json_path = ".status.loadBalancers", name = "Load balancers", type_ = "integer"),
    printcolumn(json_path = ".status.conditions[?(@.type==\"Accepted\")].reason", name = "Accepted", type_ = "string"),
    printcolumn(json_path = ".status.conditions[?(@.type==\"Ready\")].status", name = "Ready", type_ = "string"),
    printcolumn(json_path = ".metadata.creationTimestamp", name = "Age", type_ = "date")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("[has(self.aws), has(self.l2), has(self.mock)].filter(set, set).size() == 1").message("exactly one of spec.aws, spec.l2 and spec.mock must be set"),
    validation = Rule::new("has(self.aws) == has(oldSelf.aws) && has(self.l2) == has(oldSelf.l2) && has(self.mock) == has(oldSelf.mock)").message("the provider of a class cannot be changed: create another class and move the Services"),
)]
pub struct LoadBalancerClassSpec {
    /// Also serve Services without `spec.loadBalancerClass`. Only the oldest default
    /// class is effective. An existing Service never moves to another class.
    #[serde(default)]
    pub default: bool,

    /// Be the default class even if another service controller runs in this cluster.
    /// Without it, such a class reports `Contested` and serves no Services without a class.
    #[serde(default)]
    pub force_default: bool,

    /// The maximum number of Services that have a load balancer of this class. Further
    /// Services are refused with `QuotaExceeded`. Existing load balancers stay; after that
    /// the oldest Services come first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub max_load_balancers: Option<i32>,

    /// What happens to a load balancer when its Service is deleted.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,

    /// What happens to load balancers of this class whose Service does not exist: its finalizer was
    /// removed by hand, or the API server was restored from an older backup.
    #[serde(default)]
    pub orphans: OrphanPolicy,

    /// With `orphans: Delete`: the time between the survey that finds such a load balancer and the one
    /// that may delete it, such as `48h`. Default: `24h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orphan_grace_period: Option<Duration>,

    /// AWS Network Load Balancers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aws: Option<AwsSettings>,

    /// Addresses announced on the local network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub l2: Option<L2Settings>,

    /// Load balancers of the mock cloud (`ballast mock-cloud`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mock: Option<MockSettings>,
}

/// What happens to a load balancer when its Service is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// The load balancer is deleted.
    #[default]
    Delete,
    /// The load balancer stays in the cloud, tagged as retained.
    Retain,
}

/// What happens to a load balancer whose Service does not exist.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OrphanPolicy {
    /// Ballast reports it, with what it costs. `ballast orphans --delete` deletes it.
    #[default]
    Report,
    /// Ballast deletes it after the grace, unless many are due at once.
    Delete,
}

/// Settings of the L2 provider. Without pool names and selector, the class uses all pools.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct L2Settings {
    /// Use only these pools.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "set"))]
    pub address_pools: Vec<String>,

    /// Also use pools with these labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address_pool_selector: Option<LabelSelector>,

    /// Announce addresses only from nodes with these labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<LabelSelector>,

    /// Prefer nodes with these labels: they come first for new addresses and after failures. A
    /// preferred node that returns takes no address back, except when addresses are rebalanced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preferred_nodes: Option<LabelSelector>,

    /// Whether addresses move to spread them evenly over the nodes.
    #[serde(default)]
    pub rebalance: Rebalance,

    /// Announce addresses only on interfaces whose names match one of these regular
    /// expressions, such as `^eth[0-9]+$`. Without any, all interfaces in the subnet of the
    /// address are used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub interfaces: Vec<String>,

    /// How the failure of a node is detected.
    #[serde(default)]
    pub failure_detection: FailureDetection,

    /// How often an announcement is repeated, such as `1m`; `0s` disables repetition.
    #[serde(default = "one_minute")]
    pub refresh_interval: Duration,
}

/// How the failure of an announcing node is detected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum FailureDetection {
    /// Nodes monitor each other over the network: less than a second; needs an open port.
    #[default]
    Fast,
    /// Like `Fast`, but a node has failed only if it does not respond for about 5 s: for hosts
    /// that stall, such as virtual machines that migrate.
    Tolerant,
    /// Only through Leases of the API server: up to 20 seconds; needs no open port.
    Lease,
}

/// Whether addresses move to spread them evenly over the nodes. Each move resets the established
/// connections of the address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Rebalance {
    /// Only when `ballast rebalance` asks for it, one address per second.
    #[default]
    Manual,
    /// Also after the nodes have been stable for 10 minutes, one address per 10 seconds.
    Gradual,
}

/// Settings of the mock provider.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.endpoint == oldSelf.endpoint").message("spec.mock.endpoint cannot be changed: the load balancers of the old cloud would be left behind; create another class and move the Services"))]
pub struct MockSettings {
    /// The URL of the mock cloud's API, such as `http://127.0.0.1:8111`.
    #[schemars(length(max = 253), regex(pattern = r"^http://[^/?#\s]+$"))]
    pub endpoint: String,
}

/// What the controller reports about a class. It is written at most once in 5 seconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancerClassStatus {
    /// The provider: `aws`, `l2` or `mock`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,

    /// The number of Services that have a load balancer of this class or wait for one.
    #[serde(default)]
    pub load_balancers: i64,

    /// The number of these load balancers that can forward traffic.
    #[serde(default)]
    pub programmed: i64,

    /// The number of Services that do not exist and still have a load balancer of this class, as of the
    /// last survey of its cloud. Absent before the first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orphans: Option<i64>,

    /// `Accepted`: the settings are valid and the class serves Services.
    /// `Ready`: the provider responds. `InUse`: which Services use the class. `Default`:
    /// whether it serves Services without a class, or which class or controller does.
    /// `Surveyed`: present, with the status `False`, only while the load balancers of the class cannot be
    /// listed. Before the first list nothing is deleted; after it, load balancers without a Service are not
    /// found.
    /// `Orphaned`: load balancers without a Service, and what they cost. `IdentityShared`: a copy of
    /// this cluster uses the same load balancers, so nothing is deleted.
    /// `Contested`: another client keeps changing what Ballast writes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,

    /// The drain switch. While it is set, the class creates no load balancers and releases
    /// existing ones; the Services stay. Only `ballast teardown` sets it. It is in the
    /// status so that a tool that manages the spec does not revert it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draining: Option<Draining>,
}

/// Since when a class has been draining, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Draining {
    /// When draining began.
    pub since: Time,

    /// The reason, as given to `ballast teardown`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub reason: Option<String>,
}

/// The provider of a class with its settings, as one value instead of three options.
#[derive(Clone, Debug, PartialEq)]
pub enum ProviderSettings {
    /// AWS NLB.
    Aws(AwsSettings),
    /// Local network.
    L2(L2Settings),
    /// Mock cloud.
    Mock(MockSettings),
}

/// The kind of provider of a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProviderKind {
    /// AWS NLB.
    Aws,
    /// Local network.
    L2,
    /// Mock cloud.
    Mock,
}

fn one_minute() -> Duration {
    std::time::Duration::from_mins(1).into()
}

/// A class has no provider, or several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("exactly one of spec.aws, spec.l2 and spec.mock must be set")]
pub struct NotOneProvider;

// === impl LoadBalancerClassSpec ===

impl LoadBalancerClassSpec {
    /// The one provider that is set. An error if none or several are set, which the API
    /// server refuses unless the CRD is damaged.
    pub fn provider(&self) -> Result<ProviderSettings, NotOneProvider> {
        match (&self.aws, &self.l2, &self.mock) {
            (Some(aws), None, None) => Ok(ProviderSettings::Aws(aws.clone())),
            (None, Some(l2), None) => Ok(ProviderSettings::L2(l2.clone())),
            (None, None, Some(mock)) => Ok(ProviderSettings::Mock(mock.clone())),
            _ => Err(NotOneProvider),
        }
    }
}

// === impl ProviderSettings ===

impl ProviderSettings {
    /// The kind of provider.
    pub const fn kind(&self) -> ProviderKind {
        match self {
            Self::Aws(_) => ProviderKind::Aws,
            Self::L2(_) => ProviderKind::L2,
            Self::Mock(_) => ProviderKind::Mock,
        }
    }
}

// === impl ProviderKind ===

impl ProviderKind {
    /// The spelling in `spec` and in `status.provider`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Aws => "aws",
            Self::L2 => "l2",
            Self::Mock => "mock",
        }
    }
}
