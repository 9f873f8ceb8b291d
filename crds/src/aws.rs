//! The part of a `LoadBalancerClass` for AWS. Each setting that an annotation also has is the
//! default of the Services of the class.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Settings of the AWS provider.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.region == oldSelf.region").message("spec.aws.region cannot be changed: create another class and move the Services"),
    validation = Rule::new("!has(oldSelf.vpc) || (has(self.vpc) && self.vpc == oldSelf.vpc)").message("spec.aws.vpc cannot be changed: create another class and move the Services"),
)]
pub struct AwsSettings {
    /// The region of the load balancers, such as `eu-central-1`.
    #[schemars(length(min = 1, max = 32))]
    pub region: String,

    /// The ID of the VPC of the load balancers. Without it, the VPC of the nodes' instances.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = r"^vpc-[0-9a-f]+$"))]
    pub vpc: Option<String>,

    /// `internal`: load balancers have addresses of the VPC. `internet-facing`: they can be
    /// reached from the internet. The default is `internal`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<AwsScheme>,

    /// IDs of subnets, or values of their tag `Name`, at most one subnet per zone. Without them,
    /// the subnets with the role tag for the scheme (`kubernetes.io/role/internal-elb` or
    /// `kubernetes.io/role/elb`), and without such tags those that are private or public.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), extend("x-kubernetes-list-type" = "atomic"))]
    pub subnets: Vec<String>,

    /// IDs of security groups, or values of their tag `Name`, instead of a group that Ballast
    /// makes for each load balancer. Source ranges of Services then have no effect.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5), extend("x-kubernetes-list-type" = "atomic"))]
    pub security_groups: Vec<String>,

    /// Whether load balancers with other security groups than Ballast's also get the one through
    /// which they reach the nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manage_backend_security_group_rules: Option<bool>,

    /// IDs of prefix lists whose addresses may connect, in addition to the source ranges of a
    /// Service.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), extend("x-kubernetes-list-type" = "atomic"))]
    pub security_group_prefix_lists: Vec<String>,

    /// How AWS checks the nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check: Option<AwsHealthCheck>,

    /// Attributes of load balancers: `deletion_protection.enabled`, `load_balancing.cross_zone.enabled` and
    /// `zonal_shift.config.enabled`, each `"true"` or `"false"`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 20))]
    pub load_balancer_attributes: BTreeMap<String, String>,

    /// Attributes of target groups, such as `deregistration_delay.timeout_seconds: "60"`; also
    /// `load_balancing.cross_zone.enabled`, `preserve_client_ip.enabled`, `proxy_protocol_v2.enabled`,
    /// `stickiness.enabled` and `stickiness.type`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 20))]
    pub target_group_attributes: BTreeMap<String, String>,

    /// Whether targets get the client's address in a PROXY protocol header (version 2).
    #[serde(default)]
    pub proxy_protocol: bool,

    /// Further tags of everything that Ballast creates.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 40))]
    pub tags: BTreeMap<String, String>,

    /// What the load balancers send traffic to: nodes, on their node ports, or pods, on their own ports. Without it,
    /// nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_type: Option<AwsTargetType>,

    /// The families of addresses of load balancers. Without it, those of `spec.ipFamilies` of each Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_address_type: Option<AwsIpAddressType>,

    /// The labels that nodes must have to be targets, all of them. Without any, all nodes are.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 10))]
    pub target_node_labels: BTreeMap<String, String>,

    /// How many rules a security group may have in this account; the default of AWS is 60. Set it
    /// only if AWS has raised the quota.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_security_group_rules: Option<i32>,

    /// The annotations that Services of the class may have, without the prefix
    /// `service.beta.kubernetes.io/aws-load-balancer-`. A Service with another one is refused by name. Without this
    /// field all supported ones are allowed; an empty list allows none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 50), inner(length(min = 1, max = 64)), extend("x-kubernetes-list-type" = "atomic"))]
    pub allowed_annotations: Option<Vec<String>>,

    /// When the name of a load balancer is published.
    #[serde(default)]
    pub publish: AwsPublish,

    /// Which Services with the same annotation `ballast.dev/share-key` share a load balancer.
    #[serde(default)]
    pub sharing: AwsSharing,
}

/// Where a load balancer can be reached from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AwsScheme {
    /// Its addresses are those of the VPC.
    Internal,
    /// It can be reached from the internet.
    InternetFacing,
}

/// What load balancers send traffic to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AwsTargetType {
    /// Nodes. Their kube-proxy, or what replaces it, sends on to pods.
    Instance,
    /// Pods. They need addresses that the VPC reaches, such as those of the Amazon VPC CNI plugin.
    Ip,
}

/// The families of addresses of load balancers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AwsIpAddressType {
    /// IPv4 only.
    Ipv4,
    /// IPv4 and IPv6. All subnets need an IPv6 CIDR.
    Dualstack,
}

/// Which Services may share a load balancer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AwsSharing {
    /// Those of one namespace.
    #[default]
    SameNamespace,
    /// Those of all namespaces. Whoever may create Services in one namespace can take ports of a load balancer
    /// that another namespace uses, and fill its limit of 50 listeners.
    AllNamespaces,
}

/// When the name of a load balancer is published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AwsPublish {
    /// As soon as it is known, so that DNS records can be made. AWS needs minutes until it
    /// answers.
    #[default]
    WhenCreated,
    /// When the load balancer is active.
    WhenActive,
}

/// How AWS checks the nodes. Without any of them: kube-proxy's health check, and for Services with
/// `externalTrafficPolicy: Local` their `healthCheckNodePort`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AwsHealthCheck {
    /// `tcp`, `http` or `https`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8))]
    pub protocol: Option<String>,

    /// A port of the node, or `traffic-port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub port: Option<String>,

    /// The path of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub path: Option<String>,

    /// The status codes of healthy nodes, such as `200-399`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub success_codes: Option<String>,

    /// Seconds between two checks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 5, max = 300))]
    pub interval_seconds: Option<i32>,

    /// Seconds until a check without an answer has failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 2, max = 120))]
    pub timeout_seconds: Option<i32>,

    /// Checks in a row until a node is healthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 2, max = 10))]
    pub healthy_threshold: Option<i32>,

    /// Checks in a row until a node is unhealthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 2, max = 10))]
    pub unhealthy_threshold: Option<i32>,
}
