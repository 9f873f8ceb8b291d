//! One call to AWS, before the IDs of its objects are known. Plain values.

use std::collections::{BTreeMap, BTreeSet};

use crate::desired::{Check, Rule, Subnet, TargetGroup, Transport};
use crate::observed::Arn;
use crate::rate::Urgency;
use crate::settings::Scheme;

/// An object that exists, or that an earlier step of the plan makes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ref {
    /// It exists: its ID or ARN.
    Known(String),
    /// The step that creates the object of this name returns it.
    Made(String),
    /// The cluster's backend group.
    Backend,
}

/// One call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// `CreateSecurityGroup`
    CreateGroup {
        /// Its name.
        name: String,
        /// Its tags.
        tags: BTreeMap<String, String>,
    },
    /// `AuthorizeSecurityGroupIngress`
    Authorize {
        /// The group.
        group: Ref,
        /// The rules that are added.
        rules: BTreeSet<Rule>,
    },
    /// `RevokeSecurityGroupIngress`
    Revoke {
        /// The group.
        group: Ref,
        /// The rules that are removed.
        rules: BTreeSet<Rule>,
    },
    /// `CreateTargetGroup`
    CreateTargetGroup {
        /// The target group, with its health check. The call does not set its attributes.
        group: TargetGroup,
        /// Its tags.
        tags: BTreeMap<String, String>,
    },
    /// `ModifyTargetGroup`
    ModifyCheck {
        /// The target group.
        group: Ref,
        /// The health check.
        check: Check,
    },
    /// `ModifyTargetGroupAttributes`
    ModifyTargetGroup {
        /// The target group.
        group: Ref,
        /// The attributes that change.
        attributes: BTreeMap<String, String>,
    },
    /// `CreateLoadBalancer`
    CreateLoadBalancer {
        /// Its name.
        name: String,
        /// Its scheme.
        scheme: Scheme,
        /// Its subnets.
        subnets: Vec<Subnet>,
        /// Its security groups.
        groups: Vec<Ref>,
        /// Its tags, without the one of what was applied.
        tags: BTreeMap<String, String>,
    },
    /// `ModifyLoadBalancerAttributes`
    ModifyLoadBalancer {
        /// The load balancer.
        load_balancer: Ref,
        /// The attributes that change.
        attributes: BTreeMap<String, String>,
    },
    /// `SetSubnets`
    SetSubnets {
        /// The load balancer.
        load_balancer: Ref,
        /// All subnets.
        subnets: Vec<Subnet>,
    },
    /// `SetSecurityGroups`
    SetGroups {
        /// The load balancer.
        load_balancer: Ref,
        /// All groups.
        groups: Vec<Ref>,
    },
    /// `CreateListener`
    CreateListener {
        /// The load balancer.
        load_balancer: Ref,
        /// The port.
        port: u16,
        /// The protocol.
        transport: Transport,
        /// The target group.
        group: Ref,
        /// Its tags.
        tags: BTreeMap<String, String>,
    },
    /// `ModifyListener`
    ModifyListener {
        /// The listener.
        listener: Arn,
        /// The protocol.
        transport: Transport,
        /// The target group.
        group: Ref,
    },
    /// `DeleteListener`
    DeleteListener {
        /// The listener.
        listener: Arn,
    },
    /// `RegisterTargets`
    Register {
        /// The target group.
        group: Ref,
        /// The instances.
        targets: Vec<String>,
    },
    /// `DeregisterTargets`
    Deregister {
        /// The target group.
        group: Ref,
        /// The instances.
        targets: Vec<String>,
    },
    /// `AddTags`
    AddTags {
        /// The objects.
        of: Vec<Ref>,
        /// The tags.
        tags: BTreeMap<String, String>,
    },
    /// `RemoveTags`
    RemoveTags {
        /// The objects.
        of: Vec<Ref>,
        /// The keys.
        keys: Vec<String>,
    },
    /// `DeleteLoadBalancer`, with its listeners
    DeleteLoadBalancer {
        /// The load balancer.
        load_balancer: Arn,
    },
    /// `DeleteTargetGroup`. Fails while a load balancer uses it.
    DeleteTargetGroup {
        /// The target group.
        group: Arn,
    },
    /// `DeleteSecurityGroup`. Fails until the network interfaces of the load balancer are gone.
    DeleteGroup {
        /// The group.
        group: String,
    },
}

// === impl Call ===

impl Call {
    /// The action in AWS's API, and in its IAM policies.
    pub const fn action(&self) -> &'static str {
        match self {
            Self::CreateGroup { .. } => "CreateSecurityGroup",
            Self::Authorize { .. } => "AuthorizeSecurityGroupIngress",
            Self::Revoke { .. } => "RevokeSecurityGroupIngress",
            Self::CreateTargetGroup { .. } => "CreateTargetGroup",
            Self::ModifyCheck { .. } => "ModifyTargetGroup",
            Self::ModifyTargetGroup { .. } => "ModifyTargetGroupAttributes",
            Self::CreateLoadBalancer { .. } => "CreateLoadBalancer",
            Self::ModifyLoadBalancer { .. } => "ModifyLoadBalancerAttributes",
            Self::SetSubnets { .. } => "SetSubnets",
            Self::SetGroups { .. } => "SetSecurityGroups",
            Self::CreateListener { .. } => "CreateListener",
            Self::ModifyListener { .. } => "ModifyListener",
            Self::DeleteListener { .. } => "DeleteListener",
            Self::Register { .. } => "RegisterTargets",
            Self::Deregister { .. } => "DeregisterTargets",
            Self::AddTags { .. } => "AddTags",
            Self::RemoveTags { .. } => "RemoveTags",
            Self::DeleteLoadBalancer { .. } => "DeleteLoadBalancer",
            Self::DeleteTargetGroup { .. } => "DeleteTargetGroup",
            Self::DeleteGroup { .. } => "DeleteSecurityGroup",
        }
    }

    /// How soon it must be made.
    pub const fn urgency(&self) -> Urgency {
        match self {
            Self::Register { .. } | Self::Deregister { .. } | Self::ModifyListener { .. } => {
                Urgency::Traffic
            }
            Self::DeleteTargetGroup { .. } | Self::DeleteGroup { .. } => Urgency::Background,
            _ => Urgency::Service,
        }
    }
}

// === impl Ref ===

impl Ref {
    /// The ID or ARN, if it exists.
    pub fn known(&self) -> Option<&str> {
        match self {
            Self::Known(id) => Some(id),
            Self::Made(_) | Self::Backend => None,
        }
    }
}
