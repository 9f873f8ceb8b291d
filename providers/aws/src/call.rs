//! One call to AWS, before the IDs of its objects are known. Plain values, named as AWS's actions.

use std::collections::{BTreeMap, BTreeSet};

use ballast_provider::mark::APPLIED;

use crate::desired::{Addresses, Check, Rule, Subnet, TargetGroup, Tls, Transport};
use crate::forward::Forward;
use crate::observed::Arn;
use crate::rate::Urgency;
use crate::settings::Scheme;
use crate::target::TargetId;

mod words;

/// An object that exists, or that an earlier call of the plan makes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ref {
    /// It exists: its ID or ARN.
    Known(String),
    /// The call that creates the object of this name returns it.
    Made(String),
}

/// One call.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields have the names of AWS's parameters")]
pub enum Call {
    CreateSecurityGroup {
        name: String,
        tags: BTreeMap<String, String>,
    },
    AuthorizeSecurityGroupIngress {
        security_group: Ref,
        rules: BTreeSet<Rule>,
    },
    RevokeSecurityGroupIngress {
        security_group: Ref,
        rules: BTreeSet<Rule>,
    },
    /// Fails until the network interfaces of the load balancer are gone.
    DeleteSecurityGroup {
        security_group: String,
    },
    /// Sets the health check, and no attributes.
    CreateTargetGroup {
        target_group: TargetGroup,
        tags: BTreeMap<String, String>,
    },
    /// Sets the health check.
    ModifyTargetGroup {
        target_group: Ref,
        check: Check,
    },
    ModifyTargetGroupAttributes {
        target_group: Ref,
        attributes: BTreeMap<String, String>,
    },
    /// Fails while a load balancer uses it.
    DeleteTargetGroup {
        target_group: Arn,
    },
    RegisterTargets {
        target_group: Ref,
        targets: Vec<TargetId>,
    },
    DeregisterTargets {
        target_group: Ref,
        targets: Vec<TargetId>,
    },
    /// Its tags are without the one of what was applied.
    CreateLoadBalancer {
        name: String,
        scheme: Scheme,
        addresses: Addresses,
        subnets: Vec<Subnet>,
        security_groups: Vec<Ref>,
        tags: BTreeMap<String, String>,
    },
    ModifyLoadBalancerAttributes {
        load_balancer: Ref,
        attributes: BTreeMap<String, String>,
    },
    /// AWS takes it only for a load balancer that is active. `None` cancels the reservation.
    ModifyCapacityReservation {
        load_balancer: Ref,
        units: Option<u32>,
    },
    SetSubnets {
        load_balancer: Ref,
        /// `None`: it has IPv4 addresses, and keeps them.
        addresses: Option<Addresses>,
        subnets: Vec<Subnet>,
    },
    SetSecurityGroups {
        load_balancer: Ref,
        security_groups: Vec<Ref>,
        /// Whether their rules hold for clients that come through `AWS PrivateLink`, too.
        private_link_rules: bool,
    },
    /// Deletes its listeners, too.
    DeleteLoadBalancer {
        load_balancer: Arn,
    },
    /// Sets the default certificate, and no others.
    CreateListener {
        /// Later calls mean it by this name; AWS knows none.
        name: String,
        load_balancer: Ref,
        port: u16,
        transport: Transport,
        tls: Option<Tls>,
        forward: Forward<Ref>,
        tags: BTreeMap<String, String>,
    },
    /// What is absent does not change. The protocol and all that belongs to it change together. A
    /// listener that does not end TLS any more loses its certificates.
    ModifyListener {
        listener: Arn,
        protocol: Option<(Transport, Option<Tls>)>,
        forward: Option<Forward<Ref>>,
        /// The UID of the Service that has the port from now on; AWS does not hear it.
        service: Option<String>,
    },
    ModifyListenerAttributes {
        listener: Ref,
        attributes: BTreeMap<String, String>,
    },
    /// AWS takes one at a time.
    AddListenerCertificates {
        listener: Ref,
        certificate: Arn,
    },
    /// AWS takes one at a time, and never the default one.
    RemoveListenerCertificates {
        listener: Ref,
        certificate: Arn,
    },
    DeleteListener {
        listener: Arn,
    },
    /// A rule for clients with IPv6 addresses. Only dual-stack load balancers can have one.
    CreateRule {
        listener: Ref,
        forward: Forward<Ref>,
        tags: BTreeMap<String, String>,
    },
    ModifyRule {
        rule: Arn,
        forward: Forward<Ref>,
    },
    DeleteRule {
        rule: Arn,
    },
    AddTags {
        of: Vec<Ref>,
        tags: BTreeMap<String, String>,
    },
    RemoveTags {
        of: Vec<Ref>,
        keys: Vec<String>,
    },
}

// === impl Call ===

impl Call {
    /// The action in AWS's API.
    pub const fn action(&self) -> &'static str {
        match self {
            Self::CreateSecurityGroup { .. } => "CreateSecurityGroup",
            Self::AuthorizeSecurityGroupIngress { .. } => "AuthorizeSecurityGroupIngress",
            Self::RevokeSecurityGroupIngress { .. } => "RevokeSecurityGroupIngress",
            Self::DeleteSecurityGroup { .. } => "DeleteSecurityGroup",
            Self::CreateTargetGroup { .. } => "CreateTargetGroup",
            Self::ModifyTargetGroup { .. } => "ModifyTargetGroup",
            Self::ModifyTargetGroupAttributes { .. } => "ModifyTargetGroupAttributes",
            Self::DeleteTargetGroup { .. } => "DeleteTargetGroup",
            Self::RegisterTargets { .. } => "RegisterTargets",
            Self::DeregisterTargets { .. } => "DeregisterTargets",
            Self::CreateLoadBalancer { .. } => "CreateLoadBalancer",
            Self::ModifyLoadBalancerAttributes { .. } => "ModifyLoadBalancerAttributes",
            Self::ModifyCapacityReservation { .. } => "ModifyCapacityReservation",
            Self::SetSubnets { .. } => "SetSubnets",
            Self::SetSecurityGroups { .. } => "SetSecurityGroups",
            Self::DeleteLoadBalancer { .. } => "DeleteLoadBalancer",
            Self::CreateListener { .. } => "CreateListener",
            Self::ModifyListener { .. } => "ModifyListener",
            Self::ModifyListenerAttributes { .. } => "ModifyListenerAttributes",
            Self::AddListenerCertificates { .. } => "AddListenerCertificates",
            Self::RemoveListenerCertificates { .. } => "RemoveListenerCertificates",
            Self::DeleteListener { .. } => "DeleteListener",
            Self::CreateRule { .. } => "CreateRule",
            Self::ModifyRule { .. } => "ModifyRule",
            Self::DeleteRule { .. } => "DeleteRule",
            Self::AddTags { .. } => "AddTags",
            Self::RemoveTags { .. } => "RemoveTags",
        }
    }

    /// The name by which later calls mean what this one makes.
    pub fn makes(&self) -> Option<&str> {
        match self {
            Self::CreateSecurityGroup { name, .. }
            | Self::CreateLoadBalancer { name, .. }
            | Self::CreateListener { name, .. } => Some(name),
            Self::CreateTargetGroup { target_group, .. } => Some(&target_group.name),
            _ => None,
        }
    }

    /// Whether it marks a load balancer as finished.
    pub fn finishes(&self) -> bool {
        matches!(self, Self::AddTags { tags, .. } if tags.contains_key(APPLIED))
    }

    /// Whether it gives a load balancer other security groups.
    pub const fn sets_groups(&self) -> bool {
        matches!(self, Self::SetSecurityGroups { .. })
    }

    /// How soon it must be made.
    pub const fn urgency(&self) -> Urgency {
        match self {
            Self::RegisterTargets { .. }
            | Self::DeregisterTargets { .. }
            | Self::ModifyListener {
                forward: Some(_), ..
            } => Urgency::Traffic,
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
            Self::Made(_) => None,
        }
    }
}
