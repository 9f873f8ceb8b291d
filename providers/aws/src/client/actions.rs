//! Every action of AWS's API that Ballast uses: its service, the buckets that it takes tokens
//! from, and the rights that it needs. The single source for the pace of calls, the counters and
//! the IAM policy.
//!
//! An [`Action`] is the only way to make a call with [`super::Client`], so an action without a row
//! in this table does not compile. Pure and constant.

use crate::rate::Category;

/// A service of AWS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Service {
    /// Elastic Load Balancing, version 2015-12-01.
    LoadBalancing,
    /// Elastic Compute Cloud.
    Ec2,
}

macro_rules! actions {
    ($($name:ident: $service:ident $category:ident $writes:literal [$($also:literal),*],)+) => {
        /// An action of AWS's API, by its name there.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[expect(missing_docs, reason = "the names are AWS's")]
        pub enum Action {
            $($name,)+
        }

        impl Action {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// Its name.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)+
                }
            }

            /// Its service.
            pub const fn service(self) -> Service {
                match self {
                    $(Self::$name => Service::$service,)+
                }
            }

            /// The actions that share its bucket.
            pub const fn category(self) -> Category {
                match self {
                    $(Self::$name => Category::$category,)+
                }
            }

            /// Whether it changes something.
            pub const fn writes(self) -> bool {
                match self {
                    $(Self::$name => $writes,)+
                }
            }

            /// The rights that it needs beside its own: for tags at creation, and for what AWS
            /// looks up with the rights of the caller ("Elastic Load Balancing API permissions").
            pub const fn also(self) -> &'static [&'static str] {
                match self {
                    $(Self::$name => &[$($also),*],)+
                }
            }
        }
    };
}

actions! {
    DescribeLoadBalancers: LoadBalancing Read false [],
    DescribeLoadBalancerAttributes: LoadBalancing Read false [],
    DescribeCapacityReservation: LoadBalancing Read false [],
    DescribeListeners: LoadBalancing Read false [],
    DescribeListenerCertificates: LoadBalancing Read false [],
    DescribeRules: LoadBalancing Read false [],
    DescribeListenerAttributes: LoadBalancing Read false [],
    DescribeTargetGroups: LoadBalancing Read false [],
    DescribeTargetGroupAttributes: LoadBalancing Read false [],
    DescribeTargetHealth: LoadBalancing Read false [],
    DescribeTags: LoadBalancing Read false [],
    CreateLoadBalancer: LoadBalancing Intensive true [
        "elasticloadbalancing:AddTags",
        "ec2:DescribeAccountAttributes",
        "ec2:DescribeAddresses",
        "ec2:DescribeInternetGateways",
        "ec2:DescribeSecurityGroups",
        "ec2:DescribeSubnets",
        "ec2:DescribeVpcs",
        "ec2:GetSecurityGroupsForVpc",
        "iam:CreateServiceLinkedRole"
    ],
    ModifyLoadBalancerAttributes: LoadBalancing Write true [],
    ModifyCapacityReservation: LoadBalancing Write true [],
    SetSubnets: LoadBalancing Intensive true ["ec2:DescribeSubnets"],
    SetSecurityGroups: LoadBalancing Write true [
        "ec2:DescribeSecurityGroups",
        "ec2:GetSecurityGroupsForVpc"
    ],
    DeleteLoadBalancer: LoadBalancing Write true [],
    CreateTargetGroup: LoadBalancing Write true [
        "elasticloadbalancing:AddTags",
        "ec2:DescribeInternetGateways",
        "ec2:DescribeVpcs"
    ],
    ModifyTargetGroup: LoadBalancing Write true [],
    ModifyTargetGroupAttributes: LoadBalancing Write true [],
    DeleteTargetGroup: LoadBalancing Write true [],
    RegisterTargets: LoadBalancing Registration true [
        "ec2:DescribeInstances",
        "ec2:DescribeInternetGateways",
        "ec2:DescribeSubnets",
        "ec2:DescribeVpcs"
    ],
    DeregisterTargets: LoadBalancing Registration true [],
    CreateListener: LoadBalancing Write true ["elasticloadbalancing:AddTags"],
    ModifyListener: LoadBalancing Write true [],
    ModifyListenerAttributes: LoadBalancing Write true [],
    AddListenerCertificates: LoadBalancing Write true [],
    RemoveListenerCertificates: LoadBalancing Write true [],
    DeleteListener: LoadBalancing Write true [],
    CreateRule: LoadBalancing Write true ["elasticloadbalancing:AddTags"],
    ModifyRule: LoadBalancing Write true [],
    DeleteRule: LoadBalancing Write true [],
    AddTags: LoadBalancing Write true [],
    RemoveTags: LoadBalancing Write true [],
    DescribeSubnets: Ec2 Ec2Read false [],
    DescribeRouteTables: Ec2 Ec2Read false [],
    DescribeInstances: Ec2 Ec2Read false [],
    DescribeSecurityGroups: Ec2 Ec2Read false [],
    DescribeManagedPrefixLists: Ec2 Ec2Read false [],
    CreateSecurityGroup: Ec2 Ec2Write true ["ec2:CreateTags"],
    DeleteSecurityGroup: Ec2 Ec2Write true [],
    AuthorizeSecurityGroupIngress: Ec2 Ec2Rules true [],
    RevokeSecurityGroupIngress: Ec2 Ec2Rules true [],
    CreateTags: Ec2 Ec2Tags true [],
    DeleteTags: Ec2 Ec2Tags true [],
}

// === impl Service ===

impl Service {
    /// The prefix of its rights in IAM policies, and its label in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LoadBalancing => "elasticloadbalancing",
            Self::Ec2 => "ec2",
        }
    }
}

// === impl Action ===

impl Action {
    /// Its own right, as IAM policies spell it.
    pub fn right(self) -> String {
        format!("{}:{}", self.service().as_str(), self.name())
    }

    /// The action of this name.
    pub fn named(name: &str) -> Option<Self> {
        let mut all = Self::ALL.iter();
        all.find(|action| action.name() == name).copied()
    }
}

#[cfg(test)]
mod tests;
