//! The cloud objects of one load balancer, as AWS describes them. Only objects with the marks of this
//! cluster and class are here; the provider reads them and this crate decides. Plain values.

use std::collections::{BTreeMap, BTreeSet};

use ballast_provider::Family;
use ballast_provider::mark::APPLIED;

use crate::bind::BOUND_TO;
use crate::desired::{Addresses, Check, Rule, Subnet, Tls, Transport};
use crate::forward::{Forward, ObservedRule};
use crate::settings::Scheme;
use crate::target::{Backends, TargetId, TargetType};

/// An Amazon Resource Name.
pub type Arn = String;

/// Everything that one Service has. What is absent does not exist.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Security groups for clients by name.
    pub groups: BTreeMap<String, SecurityGroup>,
    /// Load balancers by name; more than one only while one replaces another.
    pub load_balancers: BTreeMap<String, ObservedLoadBalancer>,
    /// Target groups by name.
    pub target_groups: BTreeMap<String, ObservedTargetGroup>,
}

/// A security group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecurityGroup {
    /// Its ID.
    pub id: String,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// Its rules for incoming traffic.
    pub rules: BTreeSet<Rule>,
}

/// The state of a load balancer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadBalancerState {
    /// AWS is making it; this takes minutes.
    Provisioning,
    /// Traffic can flow.
    Active,
    /// Traffic can flow, and AWS cannot scale it.
    ActiveImpaired,
    /// AWS could not make it.
    Failed,
}

/// A load balancer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedLoadBalancer {
    /// Its ARN.
    pub arn: Arn,
    /// Its DNS name.
    pub hostname: String,
    /// Its state.
    pub state: LoadBalancerState,
    /// Why it is in this state, in AWS's words, if it failed or is impaired.
    pub reason: Option<String>,
    /// Its scheme.
    pub scheme: Scheme,
    /// The families of its addresses.
    pub addresses: Addresses,
    /// Its subnets.
    pub subnets: BTreeSet<Subnet>,
    /// Its security groups by ID.
    pub groups: BTreeSet<String>,
    /// Whether their rules hold for clients that come through `AWS PrivateLink`, too.
    pub private_link_rules: bool,
    /// Those of its attributes that Ballast knows and that differ from AWS's defaults.
    pub attributes: BTreeMap<String, String>,
    /// The capacity that is reserved for it.
    pub reservation: Option<Reservation>,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// Its listeners by port.
    pub listeners: BTreeMap<u16, ObservedListener>,
}

/// Reserved capacity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// The units that were asked for, in all zones together.
    pub units: u32,
    /// Why AWS could not provide them, in AWS's words with the name of a zone.
    pub failed: Option<String>,
}

/// A listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedListener {
    /// Its ARN.
    pub arn: Arn,
    /// Its protocol.
    pub transport: Transport,
    /// If it ends TLS: how.
    pub tls: Option<Tls>,
    /// The ARNs in its list of certificates. The default one is in it only if somebody has added it.
    pub sni: BTreeSet<Arn>,
    /// Where it sends connections: target groups by ARN.
    pub forward: Forward<Arn>,
    /// Its rules by ARN, which come before that. Only dual-stack load balancers have any.
    pub rules: BTreeMap<Arn, ObservedRule>,
    /// Those of its attributes that Ballast knows and that differ from AWS's defaults.
    pub attributes: BTreeMap<String, String>,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
}

/// A target group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedTargetGroup {
    /// Its ARN.
    pub arn: Arn,
    /// What its targets are for AWS.
    pub target_type: TargetType,
    /// The family of their addresses.
    pub family: Family,
    /// Its health check.
    pub check: Check,
    /// Those of its attributes that Ballast knows and that differ from AWS's defaults.
    pub attributes: BTreeMap<String, String>,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// Its targets, without those that drain.
    pub targets: BTreeSet<TargetId>,
    /// If it is a note of what was registered in a target group of others: that one.
    pub bound: Option<Bound>,
}

/// A target group of others in which Ballast registers targets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Its ARN.
    pub arn: Arn,
    /// Those of the targets in the note that it has.
    pub targets: BTreeSet<TargetId>,
}

// === impl Observed ===

impl Observed {
    /// The tags of all objects, by ID or ARN.
    pub(crate) fn tags_mut(
        &mut self,
    ) -> impl Iterator<Item = (&String, &mut BTreeMap<String, String>)> {
        let balancers = self.load_balancers.values_mut().flat_map(|one| {
            let listeners = one.listeners.values_mut();
            let listeners = listeners.map(|listener| (&listener.arn, &mut listener.tags));
            std::iter::once((&one.arn, &mut one.tags)).chain(listeners)
        });
        let targets = self.target_groups.values_mut();
        let clients = self.groups.values_mut();
        balancers
            .chain(targets.map(|one| (&one.arn, &mut one.tags)))
            .chain(clients.map(|one| (&one.id, &mut one.tags)))
    }
}

// === impl ObservedListener ===

impl ObservedListener {
    /// The target groups that it uses, for clients of any family.
    pub fn groups(&self) -> impl Iterator<Item = &Arn> {
        let rules = self.rules.values().map(|rule| &rule.forward);
        rules.chain([&self.forward]).flat_map(Forward::groups)
    }

    /// Whether it uses this target group.
    pub fn sends_to(&self, target_group: &str) -> bool {
        self.groups().any(|arn| arn == target_group)
    }
}

// === impl ObservedTargetGroup ===

impl ObservedTargetGroup {
    /// What it sends to.
    pub fn backends(&self) -> Backends {
        Backends::of(self.target_type, self.family, &self.tags)
    }

    /// The ARN of the target group whose targets get traffic.
    pub fn served(&self) -> &Arn {
        self.bound.as_ref().map_or(&self.arn, |bound| &bound.arn)
    }

    /// Whether it, and the one that it is about, have these targets.
    pub fn has(&self, targets: &BTreeSet<TargetId>) -> bool {
        let theirs = self.bound.as_ref().map(|bound| &bound.targets);
        self.targets == *targets && theirs.is_none_or(|theirs| theirs.is_superset(targets))
    }
}

// === impl Bound ===

impl Bound {
    /// What a target group with these tags is about, with nothing registered.
    pub fn of(tags: &BTreeMap<String, String>) -> Option<Self> {
        Some(Self {
            arn: tags.get(BOUND_TO)?.clone(),
            targets: BTreeSet::new(),
        })
    }
}

// === impl ObservedLoadBalancer ===

impl ObservedLoadBalancer {
    /// The hash of what was applied in full, if that ever was so. The tag is absent while a plan
    /// is carried out for the first time.
    pub fn applied(&self) -> Option<&str> {
        self.tags.get(APPLIED).map(String::as_str)
    }

    /// Whether traffic can flow.
    pub fn serves(&self) -> bool {
        matches!(
            self.state,
            LoadBalancerState::Active | LoadBalancerState::ActiveImpaired
        )
    }
}
