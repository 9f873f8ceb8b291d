//! The objects of the cloud and the rules of every call, without I/O: each call is a function of
//! the objects, its arguments and the time. One module for each family of objects.
//!
//! Invariants: a call that is refused changes nothing. The time of the calls never goes back.
//!
//! Sources of the rules, by the marks in the comments: `[model]` is the service model of the AWS
//! SDKs with its documentation, `[docs]` a page of AWS's documentation, `[seen]` an answer of AWS
//! quoted in a public issue. Rules without a mark are strictness of this fake.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

pub mod attributes;
pub mod forward;
pub mod listeners;
pub mod load_balancers;
pub mod network;
pub mod rules;
pub mod security_groups;
pub mod seed;
mod store;
pub mod tags;
pub mod target_groups;
pub mod targets;

use self::listeners::Listener;
use self::load_balancers::LoadBalancer;
use self::network::{Address, Instance, Interface, PrefixList, RouteTable, Subnet, Vpc, Zone};
use self::rules::Rule;
use self::security_groups::SecurityGroup;
pub use self::store::Store;
pub use self::tags::Tags;
use self::target_groups::TargetGroup;

/// A time, counted from the start of the fake.
pub type Moment = Duration;

/// Why AWS refuses a call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Refusal {
    /// The code of the error in AWS's API.
    pub code: String,
    /// The message of the error.
    pub message: String,
    /// The HTTP status.
    pub status: u16,
}

/// AWS's limits on the number of objects. Source: "Quotas for your Network Load Balancers" and
/// "Amazon VPC quotas" \[docs\].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quotas {
    /// Network Load Balancers in a region.
    pub load_balancers: usize,
    /// Target groups in a region.
    pub target_groups: usize,
    /// Listeners of a load balancer.
    pub listeners: usize,
    /// Rules of all listeners of a load balancer, without default rules.
    pub listener_rules: usize,
    /// Certificates in the lists of all listeners of a load balancer.
    pub certificates: usize,
    /// Targets of a target group.
    pub targets: usize,
    /// Targets of all target groups of a load balancer.
    pub targets_per_load_balancer: usize,
    /// The same in one zone; with cross-zone load balancing, in all zones together.
    pub targets_per_zone: usize,
    /// Tags of an object.
    pub tags: usize,
    /// Security groups of a network interface.
    pub groups_per_interface: usize,
    /// Security groups in a region.
    pub security_groups: usize,
    /// Rules for incoming traffic of a security group, for each family of addresses.
    pub rules: usize,
    /// Reserved capacity units of a load balancer in each zone.
    pub capacity_per_zone: u64,
    /// Reserved capacity units in a region. AWS begins with none until a customer asks \[seen, of Application Load
    /// Balancers\]; this account has asked.
    pub capacity: u64,
}

/// How this cloud behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The region.
    pub region: String,
    /// The ID of the account.
    pub account: String,
    /// The time from the creation of a load balancer until it is active.
    pub provisioning: Duration,
    /// The time until reserved capacity is there: "within an hour" \[docs\].
    pub reserving: Duration,
    /// The time from the registration of a target until its first health check.
    pub registration: Duration,
    /// The time for which the network interfaces of a load balancer outlive it.
    pub interfaces_linger: Duration,
    /// The time until lists, which name no objects, show what was created or deleted. A call
    /// that names an object always sees the truth.
    pub lag: Duration,
    /// Whether an equal name with other tags is a duplicate. AWS does not document it; what it
    /// answers for classic load balancers says yes \[seen\].
    pub tags_are_settings: bool,
    /// Whether the target groups of an action must have the same IP address type. AWS's announcement of
    /// listener rules says so, and its documentation does not.
    pub one_family_per_action: bool,
    /// Whether `UDP` and `TCP_UDP` listeners of a dualstack load balancer must have target groups of IPv6. "Create a
    /// target group for your Network Load Balancer" says so, from a time before listener rules.
    pub dualstack_udp_needs_ipv6: bool,
    /// Limits on the number of objects.
    pub quotas: Quotas,
}

/// All objects of one account in one region, and what it sees of others.
#[derive(Clone, Debug)]
pub struct Cloud {
    /// How it behaves.
    pub settings: Settings,
    /// The last number that is part of an ID.
    ids: u64,
    /// By ARN.
    pub load_balancers: Store<LoadBalancer>,
    /// By ARN.
    pub target_groups: Store<TargetGroup>,
    /// By ARN.
    pub listeners: Store<Listener>,
    /// By ARN. Default rules are part of their listeners.
    pub rules: Store<Rule>,
    /// By ID.
    pub security_groups: Store<SecurityGroup>,
    /// By ID.
    pub interfaces: Store<Interface>,
    /// By ID.
    pub vpcs: BTreeMap<String, Vpc>,
    /// By name.
    pub zones: BTreeMap<String, Zone>,
    /// By ID.
    pub subnets: BTreeMap<String, Subnet>,
    /// By ID.
    pub route_tables: BTreeMap<String, RouteTable>,
    /// By ID.
    pub instances: BTreeMap<String, Instance>,
    /// By ID.
    pub prefix_lists: BTreeMap<String, PrefixList>,
    /// Elastic IP addresses by allocation ID.
    pub addresses: BTreeMap<String, Address>,
    /// The ARNs of certificates that TLS listeners can use.
    pub certificates: Vec<String>,
    /// Addresses whose health checks fail.
    pub sick: BTreeSet<IpAddr>,
}

/// The objects that calls can make, as plain values by ARN or ID.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The load balancers.
    pub load_balancers: BTreeMap<String, LoadBalancer>,
    /// The target groups.
    pub target_groups: BTreeMap<String, TargetGroup>,
    /// The listeners.
    pub listeners: BTreeMap<String, Listener>,
    /// The rules of listeners.
    pub rules: BTreeMap<String, Rule>,
    /// The security groups.
    pub security_groups: BTreeMap<String, SecurityGroup>,
    /// The network interfaces.
    pub interfaces: BTreeMap<String, Interface>,
}

/// What a call returns.
pub type Result<T> = std::result::Result<T, Refusal>;

// === impl Refusal ===

impl Refusal {
    /// An error with status 400, as most have.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            message: message.into(),
            status: 400,
        }
    }

    /// The error of Elastic Load Balancing for a value that cannot be right.
    pub fn validation(message: impl Into<String>) -> Self {
        Self::new("ValidationError", message)
    }

    /// The same error with another status.
    #[must_use]
    pub fn status(self, status: u16) -> Self {
        Self { status, ..self }
    }
}

// === impl Quotas ===

impl Default for Quotas {
    fn default() -> Self {
        Self {
            load_balancers: 50,
            target_groups: 3_000,
            listeners: 50,
            listener_rules: 100,
            certificates: 25,
            targets: 1_000,
            targets_per_load_balancer: 3_000,
            targets_per_zone: 500,
            tags: 50,
            groups_per_interface: 5,
            security_groups: 2_500,
            rules: 60,
            capacity_per_zone: 45_000,
            capacity: 500_000,
        }
    }
}

// === impl Settings ===

impl Default for Settings {
    fn default() -> Self {
        Self {
            region: "eu-central-1".into(),
            account: "123456789012".into(),
            provisioning: Duration::from_mins(2),
            reserving: Duration::from_hours(1),
            registration: Duration::from_mins(1),
            interfaces_linger: Duration::from_mins(1),
            lag: Duration::ZERO,
            tags_are_settings: true,
            one_family_per_action: false,
            dualstack_udp_needs_ipv6: false,
            quotas: Quotas::default(),
        }
    }
}

// === impl Cloud ===

impl Cloud {
    /// An empty cloud, even without a network.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            ids: 0,
            load_balancers: Store::default(),
            target_groups: Store::default(),
            listeners: Store::default(),
            rules: Store::default(),
            security_groups: Store::default(),
            interfaces: Store::default(),
            vpcs: BTreeMap::new(),
            zones: BTreeMap::new(),
            subnets: BTreeMap::new(),
            route_tables: BTreeMap::new(),
            instances: BTreeMap::new(),
            prefix_lists: BTreeMap::new(),
            addresses: BTreeMap::new(),
            certificates: Vec::new(),
            sick: BTreeSet::new(),
        }
    }

    /// The objects as they are, whatever lists show.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            load_balancers: self.load_balancers.all().clone(),
            target_groups: self.target_groups.all().clone(),
            listeners: self.listeners.all().clone(),
            rules: self.rules.all().clone(),
            security_groups: self.security_groups.all().clone(),
            interfaces: self.interfaces.all().clone(),
        }
    }

    /// Does what is due without a call. To be called before each call.
    pub fn tick(&mut self, now: Moment) {
        self.drain(now);
        self.drop_interfaces(now);
        let lag = self.settings.lag;
        self.load_balancers.forget(now, lag);
        self.target_groups.forget(now, lag);
        self.listeners.forget(now, lag);
        self.rules.forget(now, lag);
        self.security_groups.forget(now, lag);
        self.interfaces.forget(now, lag);
    }

    /// Issues a certificate that TLS listeners can use, and returns its ARN.
    pub fn issue_certificate(&mut self, id: &str) -> String {
        let Settings {
            region, account, ..
        } = &self.settings;
        let arn = format!("arn:aws:acm:{region}:{account}:certificate/{id}");
        if !self.certificates.contains(&arn) {
            self.certificates.push(arn.clone());
        }
        arn
    }

    /// A new ID of EC2, such as `sg-0123456789abcdef0`.
    pub(crate) fn id(&mut self, prefix: &str) -> String {
        format!("{prefix}-0{:016x}", self.number())
    }

    /// A new ARN of Elastic Load Balancing.
    pub(crate) fn arn(&mut self, rest: &str) -> String {
        let Settings {
            region, account, ..
        } = &self.settings;
        let arn = format!("arn:aws:elasticloadbalancing:{region}:{account}:{rest}");
        format!("{arn}/{:016x}", self.number())
    }

    fn number(&mut self) -> u64 {
        self.ids += 1;
        // Neighbours look different, as in AWS, and no number occurs twice: the factor is odd.
        self.ids.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

// === impl Snapshot ===

impl Snapshot {
    /// What of this has changed or is gone in a later snapshot, one line each. Interfaces
    /// are no objects of their own, and do not count.
    pub fn changes(&self, later: &Self) -> Vec<String> {
        let mut all = Vec::new();
        differences(&self.load_balancers, &later.load_balancers, &mut all);
        differences(&self.target_groups, &later.target_groups, &mut all);
        differences(&self.listeners, &later.listeners, &mut all);
        differences(&self.rules, &later.rules, &mut all);
        differences(&self.security_groups, &later.security_groups, &mut all);
        all
    }
}

fn differences<T: PartialEq + std::fmt::Debug>(
    before: &BTreeMap<String, T>,
    after: &BTreeMap<String, T>,
    all: &mut Vec<String>,
) {
    for (key, was) in before {
        match after.get(key) {
            None => all.push(format!("{key} is gone")),
            Some(is) if is != was => all.push(format!("{key} was {was:?} and is {is:?}")),
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests;
