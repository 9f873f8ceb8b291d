//! The cloud objects of one load balancer, worked out from what its Services ask for. Pure.
//!
//! Most load balancers have one Service; with a share key there are several ([`shared`]). [`Desired::of`] is
//! called for each reconcile. Equal inputs give equal objects, and [`Desired::hash`] is a short name for them.
//! Targets are not part of it: they change with the nodes, for all Services at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ballast_provider::mark::digest;
use ballast_provider::{FamilyPolicy, Key, LoadBalancer, Mark, Refusal};

use crate::annotations::{PREFIX, invalid};
use crate::observed::Observed;
use crate::settings::{Scheme, Settings};
use crate::target::TargetType;

mod bound;
mod capacity;
mod check;
mod clients;
mod families;
mod listeners;
mod names;
mod objects;
mod reach;
mod shared;
mod subnets;
mod tls;
mod weights;

pub(crate) use bound::{notes, ports as bound_ports};
use clients::given;
pub(crate) use clients::{MOST_RULES, rules, weight};
use families::Split;
pub(crate) use families::{depends_on_nodes, missing as missing_ipv6, wanted as wants_ipv6};
use listeners::Served;
pub(crate) use names::{name, name_of};
use names::{scope, tags};
pub use objects::{
    Addresses, Check, Groups, ListenerSpec, PrefixLists, Rule, Source, Subnet, TargetGroup, Tls,
    Traffic, Transport,
};

/// The prefix of all names.
pub(crate) const NAMES: &str = "bl";

/// A subnet that was looked up.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FoundSubnet {
    /// Its ID.
    pub id: String,
    /// The name of its zone.
    pub zone: String,
    /// Whether it has IPv6 addresses.
    pub ipv6: bool,
}

/// What was looked up for what the settings name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookedUp {
    /// The subnets in the order of the names in the settings, or those that were found because the
    /// settings name none. A value of the tag `Name` may be the name of several.
    pub subnets: Vec<FoundSubnet>,
    /// The cluster's backend group, through which load balancers reach the nodes; `None` if the
    /// class does not manage the nodes' groups.
    pub backend_group: Option<String>,
    /// The security groups, one for each name in the settings.
    pub security_groups: Vec<String>,
    /// The prefix lists that the settings name.
    pub prefix_lists: PrefixLists,
    /// The UIDs of the Services whose prefix lists do not exist, or have too many entries: they get no rules.
    pub unruled: BTreeSet<Arc<str>>,
    /// The load balancer exists and was made without security groups: it can never get any.
    pub groupless: bool,
    /// Whether a node has an IPv6 address.
    pub ipv6_nodes: bool,
}

/// One Service of a load balancer, and what it asks for.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// The Service.
    pub service: &'a LoadBalancer,
    /// Its settings, merged with those of the class.
    pub settings: &'a Settings,
    /// `spec.ipFamilyPolicy`
    pub policy: FamilyPolicy,
}

/// Everything that one load balancer needs, without targets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Desired {
    /// The name of the load balancer.
    pub name: String,
    /// Its scheme.
    pub scheme: Scheme,
    /// The families of its addresses.
    pub addresses: Addresses,
    /// Its subnets, in order.
    pub subnets: Vec<Subnet>,
    /// The security groups for clients.
    pub groups: Groups,
    /// The cluster's backend group, if the load balancer has it, too.
    pub backend_group: Option<String>,
    /// Whether the rules of the security groups hold for clients that come through `AWS PrivateLink`, too.
    pub private_link_rules: bool,
    /// The capacity units that are reserved, in all zones together.
    pub capacity: Option<u32>,
    /// The attributes that are set.
    pub attributes: BTreeMap<String, String>,
    /// The tags of the load balancer and its security group: those on which all agree. They name its oldest Service.
    pub tags: BTreeMap<String, String>,
    /// The listeners by port.
    pub listeners: BTreeMap<u16, ListenerSpec>,
    /// The target groups by name.
    pub target_groups: BTreeMap<String, TargetGroup>,
    /// The UIDs of Services that keep what they have on it, whatever that is ([`ballast_provider::Balancer::kept`]).
    pub kept: BTreeSet<Arc<str>>,
}

/// The objects of a load balancer, and what the owners of its Services should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The objects.
    pub desired: Desired,
    /// Settings of each Service that have no effect, and why.
    pub remarks: Vec<Vec<String>>,
}

// === impl Desired ===

impl Desired {
    /// The objects of these Services, the oldest first.
    pub fn of(
        mark: &Mark,
        key: &Key,
        parts: &[Part<'_>],
        found: &LookedUp,
    ) -> Result<Outcome, Refusal> {
        check(parts)?;
        let Some(Part {
            service, settings, ..
        }) = parts.first().copied()
        else {
            return Err(invalid("a load balancer without a Service"));
        };
        let scheme = settings.scheme.unwrap_or_default();
        let own = settings.security_groups.is_empty();
        let mut remarks = Vec::new();
        let dualstack = families::dualstack(parts, found);
        let obstacle = families::obstacle(parts, found);
        let mut all = Vec::new();
        for part in parts {
            let mut of_part = Vec::new();
            let stack = (dualstack, obstacle.as_deref());
            let split = Split::of(part, found, stack, &mut of_part);
            let named = (mark, key);
            all.push(Served::of(
                named,
                part,
                split,
                found.groupless,
                &mut of_part,
            )?);
            if found.groupless {
                clients::groupless(part, &mut of_part);
            } else if !own {
                clients::ignored(part, &mut of_part);
            }
            remarks.push(of_part);
        }
        weights::divide(parts, &mut all, &mut remarks);
        let mut listeners = BTreeMap::new();
        let mut target_groups = BTreeMap::new();
        for served in all {
            listeners.extend(served.listeners);
            target_groups.extend(served.target_groups);
        }
        if found.groupless && !own {
            return Err(invalid(format!(
                "annotation {PREFIX}security-groups: the load balancer was made without security groups, and AWS adds none later"
            )));
        }
        let groups = if found.groupless {
            Groups::Given(Vec::new())
        } else if own {
            Groups::Own {
                name: mark.name_of(NAMES, &format!("{}/clients", scope(key, settings))),
                rules: {
                    let ruled = parts
                        .iter()
                        .filter(|it| !found.unruled.contains(&it.service.id.uid));
                    let ruled: Vec<Part<'_>> = ruled.copied().collect();
                    rules(&ruled, &found.prefix_lists, dualstack)?
                },
                most: settings.most_rules.unwrap_or(MOST_RULES),
            }
        } else {
            Groups::Given(given(settings, found)?)
        };
        let manages = settings.manage_backend_rules.unwrap_or(own);
        let subnets = subnets::of(settings, found)?;
        let desired = Self {
            name: name_of(mark, key, settings),
            scheme,
            addresses: families::addresses(parts, found),
            capacity: capacity::of(settings, subnets.len())?,
            subnets,
            backend_group: found.backend_group.clone().filter(|_| manages),
            groups,
            // AWS's default.
            private_link_rules: settings.private_link_rules.unwrap_or(true),
            attributes: settings.attributes.clone(),
            listeners,
            target_groups,
            kept: BTreeSet::new(),
            tags: shared::tags(tags(mark, key, service, settings)?, parts),
        };
        Ok(Outcome { desired, remarks })
    }

    /// Keeps the rules that are there for the ports of a Service.
    pub(crate) fn keep_clients(&mut self, service: &LoadBalancer, observed: &Observed) {
        let Groups::Own { name, rules, .. } = &mut self.groups else {
            return;
        };
        let present = observed.groups.get(name).map(|group| &group.rules);
        let is_its = |rule: &&Rule| {
            let mut own = service.listeners.iter();
            own.any(|it| rule.traffic == Traffic::Port(it.protocol, it.port))
        };
        rules.extend(present.into_iter().flatten().filter(is_its).cloned());
    }

    /// The same for equal objects, and different for different ones. Another version of this
    /// program may give another one; then all load balancers are compared with AWS once.
    pub fn hash(&self) -> String {
        digest(["1", &format!("{self:?}")])[..16].to_owned()
    }
}

/// Refuses what can be refused before anything is looked up.
pub(crate) fn check(parts: &[Part<'_>]) -> Result<(), Refusal> {
    for part in parts {
        let Part {
            service, settings, ..
        } = *part;
        if settings.target_type.unwrap_or_default() == TargetType::Instance {
            service.require_node_ports()?;
        }
        if !settings.bound.is_empty() {
            // There is no load balancer that the rest could be about.
            return bound::refuse(part);
        }
        families::check(part)?;
        weights::check(part)?;
        settings.check()?;
        let secure = tls::ports(service, &settings.tls)?;
        capacity::check(settings, &secure)?;
    }
    shared::agree(parts)?;
    if let Some(first) = parts.first()
        && first.settings.security_groups.is_empty()
    {
        rules(
            parts,
            &PrefixLists::new(),
            parts.iter().any(families::wanted),
        )?;
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests;
