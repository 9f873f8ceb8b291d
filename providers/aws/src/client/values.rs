//! What [`super::Client`] reads, as plain values. AWS's defaults and spellings end here: whoever
//! uses these types never sees the SDK or XML. Where AWS may one day send something new, the
//! value is an `Option` or has a variant for it: an object of somebody else must never make a
//! read of the whole region fail.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ballast_provider::Family;
use ipnet::{Ipv4Net, Ipv6Net};

use crate::desired::{Addresses, Check, Rule, Subnet as Mapping, Tls, Transport};
use crate::forward::{Forward, ObservedRule};
use crate::observed::{Arn, LoadBalancerState};
use crate::settings::Scheme;
use crate::target::{TargetId, TargetType};

/// The tags of an object.
pub type Tags = BTreeMap<String, String>;

/// A load balancer, of whatever kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadBalancer {
    /// Its ARN.
    pub arn: Arn,
    /// Its name.
    pub name: String,
    /// Whether it is a Network Load Balancer.
    pub network: bool,
    /// Its DNS name, in lower case.
    pub hostname: String,
    /// Its state.
    pub state: LoadBalancerState,
    /// Why it is in this state, in AWS's words, if it failed or is impaired.
    pub reason: Option<String>,
    /// Its scheme.
    pub scheme: Scheme,
    /// The families of its addresses.
    pub families: Addresses,
    /// The ID of its VPC.
    pub vpc: String,
    /// Its zones by name.
    pub zones: BTreeMap<String, LoadBalancerZone>,
    /// Its security groups by ID.
    pub security_groups: BTreeSet<String>,
    /// Whether their rules hold for clients that come through `AWS PrivateLink`, too.
    pub private_link_rules: bool,
}

/// A load balancer in one zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadBalancerZone {
    /// Its subnet there, with the addresses that were asked for.
    pub subnet: Mapping,
    /// Its addresses there, as far as AWS says.
    pub addresses: BTreeSet<Ipv4Addr>,
}

/// A listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Its ARN.
    pub arn: Arn,
    /// Its port.
    pub port: u16,
    /// Its protocol; `None` if Ballast makes no such listeners.
    pub transport: Option<Transport>,
    /// If it ends TLS: how.
    pub tls: Option<Tls>,
    /// Where its default action sends connections; `None` if Ballast makes no such actions.
    pub forward: Option<Forward<Arn>>,
}

/// A rule of a listener beside its default action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerRule {
    /// Its ARN.
    pub arn: Arn,
    /// What it says.
    pub rule: ObservedRule,
}

/// A target group, of whatever kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetGroup {
    /// Its ARN.
    pub arn: Arn,
    /// Its name.
    pub name: String,
    /// Its protocol; `None` if Ballast makes no such target groups.
    pub transport: Option<Transport>,
    /// Whether the load balancer speaks TLS to the targets.
    pub tls: bool,
    /// The port of its targets.
    pub port: Option<u16>,
    /// What its targets are; `None` if Ballast makes no such target groups.
    pub target_type: Option<TargetType>,
    /// The family of its targets.
    pub family: Family,
    /// The ID of its VPC.
    pub vpc: Option<String>,
    /// Its health check; `None` if Ballast makes no such checks.
    pub check: Option<Check>,
    /// The load balancers that use it.
    pub load_balancers: BTreeSet<Arn>,
}

/// A target, and how it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetHealth {
    /// The target.
    pub target: TargetId,
    /// Its port.
    pub port: Option<u16>,
    /// Its state.
    pub health: Health,
    /// AWS's code for why, such as `Target.FailedHealthChecks`.
    pub reason: Option<String>,
    /// The same in words.
    pub description: Option<String>,
}

/// The state of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Health {
    /// It is being registered, or its first checks run.
    Initial,
    /// It gets traffic.
    Healthy,
    /// Its checks fail.
    Unhealthy,
    /// Its checks fail, and its connections may end.
    UnhealthyDraining,
    /// It is being deregistered.
    Draining,
    /// No listener uses its group, or its zone is not enabled.
    Unused,
    /// AWS does not know.
    Unavailable,
}

/// A security group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecurityGroup {
    /// Its ID.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its description.
    pub description: String,
    /// The ID of its VPC.
    pub vpc: Option<String>,
    /// Its tags.
    pub tags: Tags,
    /// Its rules for incoming traffic, one for each source. AWS's answer has no IDs of rules.
    pub rules: BTreeSet<Rule>,
}

/// A subnet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subnet {
    /// Its ID.
    pub id: String,
    /// The ID of its VPC.
    pub vpc: String,
    /// The name of its zone.
    pub zone: String,
    /// Its IPv4 addresses.
    pub range: Option<Ipv4Net>,
    /// Its ranges of IPv6 addresses.
    pub ipv6: Vec<Ipv6Net>,
    /// The number of addresses that nothing uses.
    pub free_addresses: u32,
    /// Whether it is on an outpost.
    pub outpost: bool,
    /// Its tags.
    pub tags: Tags,
}

/// A route table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteTable {
    /// Its ID.
    pub id: String,
    /// The ID of its VPC.
    pub vpc: String,
    /// Whether it is for all subnets of the VPC that have no other one.
    pub main: bool,
    /// The IDs of the subnets that have this one.
    pub subnets: BTreeSet<String>,
    /// Whether it has a route to an internet gateway.
    pub internet_gateway: bool,
}

/// An instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Its ID.
    pub id: String,
    /// Its state.
    pub state: InstanceState,
    /// The name of its zone.
    pub zone: String,
    /// The ID of its VPC.
    pub vpc: Option<String>,
    /// The ID of its subnet.
    pub subnet: Option<String>,
    /// The IDs of the security groups of its first network interface.
    pub security_groups: BTreeSet<String>,
    /// Its tags.
    pub tags: Tags,
}

/// The state of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum InstanceState {
    /// It starts.
    Pending,
    /// It runs. AWS registers only such instances.
    Running,
    /// It is about to end.
    ShuttingDown,
    /// It has ended.
    Terminated,
    /// It is about to stop.
    Stopping,
    /// It has stopped.
    Stopped,
}

/// A list of address ranges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrefixList {
    /// Its ID.
    pub id: String,
    /// Its name.
    pub name: String,
    /// For how many rules of a security group it counts; AWS does not say it for its own lists.
    pub max_entries: Option<u32>,
}

/// What a read of EC2 is restricted to. All filters must match, each with one of its values. Up
/// to 200 values are one call. What does not exist is not an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// AWS's name for it, such as `vpc-id`, `tag-key` or `tag:Name`.
    pub name: String,
    /// The values.
    pub values: Vec<String>,
}

// === impl Filter ===

impl Filter {
    /// One of these values.
    pub fn new(
        name: impl Into<String>,
        values: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        Self {
            name: name.into(),
            values: values.into_iter().map(Into::into).collect(),
        }
    }

    /// This tag has one of these values.
    pub fn tag(key: &str, values: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self::new(format!("tag:{key}"), values)
    }

    /// There is such a tag.
    pub fn tag_key(key: impl Into<String>) -> Self {
        Self::new("tag-key", [key])
    }
}

// === impl Health ===

impl Health {
    /// The spelling of AWS.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Initial => "initial",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
            Self::UnhealthyDraining => "unhealthy.draining",
            Self::Draining => "draining",
            Self::Unused => "unused",
            Self::Unavailable => "unavailable",
        }
    }

    /// The state of this name; a new one counts as unknown.
    pub(super) fn named(name: &str) -> Self {
        match name {
            "initial" => Self::Initial,
            "healthy" => Self::Healthy,
            "unhealthy" => Self::Unhealthy,
            "unhealthy.draining" => Self::UnhealthyDraining,
            "draining" => Self::Draining,
            "unused" => Self::Unused,
            _ => Self::Unavailable,
        }
    }
}
