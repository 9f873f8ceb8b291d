//! AWS's limits: the token buckets of an account and region, and which calls take a token from which. Pure.

use std::time::Duration;

/// The actions that share a bucket. Source: "Throttling for the Elastic Load Balancing API"
/// (Elastic Load Balancing API Reference) and "Request throttling for the Amazon EC2 API".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Category {
    /// `CreateLoadBalancer`, `SetSubnets`.
    Intensive,
    /// `RegisterTargets`, `DeregisterTargets`.
    Registration,
    /// `Describe…` of Elastic Load Balancing.
    Read,
    /// Every other action of Elastic Load Balancing.
    Write,
    /// `Describe…` of EC2.
    Ec2Read,
    /// `CreateSecurityGroup`, `DeleteSecurityGroup`.
    Ec2Write,
    /// `AuthorizeSecurityGroupIngress`, `RevokeSecurityGroupIngress`.
    Ec2Rules,
    /// `CreateTags`, `DeleteTags`.
    Ec2Tags,
}

/// The size of a token bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The calls that may be made at once after a pause.
    pub burst: u32,
    /// The time in which one call more becomes possible.
    pub interval: Duration,
}

/// The sizes of all buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// [`Category::Intensive`]
    pub intensive: Limit,
    /// [`Category::Registration`]
    pub registration: Limit,
    /// [`Category::Read`]
    pub read: Limit,
    /// [`Category::Write`]
    pub write: Limit,
    /// All actions of Elastic Load Balancing together.
    pub account: Limit,
    /// [`Category::Ec2Read`]
    pub ec2_read: Limit,
    /// [`Category::Ec2Write`]
    pub ec2_write: Limit,
    /// [`Category::Ec2Rules`]
    pub ec2_rules: Limit,
    /// [`Category::Ec2Tags`]
    pub ec2_tags: Limit,
}

/// One bucket each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Of(Category),
    Account,
}

// === impl Category ===

impl Category {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Intensive,
        Self::Registration,
        Self::Read,
        Self::Write,
        Self::Ec2Read,
        Self::Ec2Write,
        Self::Ec2Rules,
        Self::Ec2Tags,
    ];

    /// The label in metrics and messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Intensive => "intensive",
            Self::Registration => "registration",
            Self::Read => "read",
            Self::Write => "write",
            Self::Ec2Read => "ec2-read",
            Self::Ec2Write => "ec2-write",
            Self::Ec2Rules => "ec2-rules",
            Self::Ec2Tags => "ec2-tags",
        }
    }

    /// The buckets that a call of this category takes a token from.
    pub(super) fn buckets(self) -> impl Iterator<Item = Kind> {
        let elb = matches!(
            self,
            Self::Intensive | Self::Registration | Self::Read | Self::Write
        );
        [Kind::Of(self)]
            .into_iter()
            .chain(elb.then_some(Kind::Account))
    }
}

// === impl Limit ===

impl Limit {
    /// `burst` calls at once, and `per_second` calls per second.
    pub fn new(burst: u32, per_second: f64) -> Self {
        Self {
            burst: burst.max(1),
            interval: Duration::from_secs_f64(1.0 / per_second.max(f64::EPSILON)),
        }
    }

    /// No limit in practice.
    pub const NONE: Self = Self {
        burst: u32::MAX,
        interval: Duration::ZERO,
    };
}

// === impl Limits ===

impl Default for Limits {
    /// AWS's documented limits; of EC2 the smaller ones, for calls without filters. Other
    /// controllers report larger buckets for `Describe…` of Elastic Load Balancing since 2026.
    fn default() -> Self {
        Self {
            intensive: Limit::new(10, 0.2),
            registration: Limit::new(20, 4.0),
            read: Limit::new(40, 10.0),
            write: Limit::new(20, 3.0),
            account: Limit::new(40, 10.0),
            ec2_read: Limit::new(50, 10.0),
            ec2_write: Limit::new(50, 5.0),
            ec2_rules: Limit::new(50, 5.0),
            ec2_tags: Limit::new(100, 10.0),
        }
    }
}

impl Limits {
    /// No limit: for clouds that are not AWS, and for tests.
    pub const NONE: Self = Self {
        intensive: Limit::NONE,
        registration: Limit::NONE,
        read: Limit::NONE,
        write: Limit::NONE,
        account: Limit::NONE,
        ec2_read: Limit::NONE,
        ec2_write: Limit::NONE,
        ec2_rules: Limit::NONE,
        ec2_tags: Limit::NONE,
    };

    pub(super) fn of(&self, kind: Kind) -> Limit {
        match kind {
            Kind::Account => self.account,
            Kind::Of(Category::Intensive) => self.intensive,
            Kind::Of(Category::Registration) => self.registration,
            Kind::Of(Category::Read) => self.read,
            Kind::Of(Category::Write) => self.write,
            Kind::Of(Category::Ec2Read) => self.ec2_read,
            Kind::Of(Category::Ec2Write) => self.ec2_write,
            Kind::Of(Category::Ec2Rules) => self.ec2_rules,
            Kind::Of(Category::Ec2Tags) => self.ec2_tags,
        }
    }
}
