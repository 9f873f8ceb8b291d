//! The cloud objects of one load balancer, worked out from what its Services ask for. Pure.
//!
//! Most load balancers have one Service; with a share key there are several ([`shared`]). [`Desired::of`] is
//! called for each reconcile. Equal inputs give equal objects, and [`Desired::hash`] is a short name for them.
//! Targets are not part of it: they change with the nodes, for all Services at once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Arc;

use ballast_provider::mark::digest;
use ballast_provider::{Family, FamilyPolicy, Key, LoadBalancer, Mark, Protocol, Refusal};
use ipnet::IpNet;

use crate::annotations::{PREFIX, invalid};
use crate::forward::Forward;
use crate::nodes::Selector;
use crate::observed::{Arn, Bound, Observed, ObservedTargetGroup};
use crate::settings::tls::Alpn;
use crate::settings::{CheckProtocol, Scheme, Settings, attributes};
use crate::target::{Backends, TargetType};

mod bound;
mod capacity;
mod check;
mod clients;
mod families;
mod listeners;
mod names;
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

/// The prefix of all names.
pub(crate) const NAMES: &str = "bl";

/// What clients of a listener send, and what targets get. TLS is TCP with more ([`Tls`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// TCP
    Tcp,
    /// UDP
    Udp,
    /// Both, on one port.
    TcpUdp,
}

/// A health check with all values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// The protocol.
    pub protocol: CheckProtocol,
    /// The port on the target; `None` is the port that gets the traffic.
    pub port: Option<u16>,
    /// The path; `None` for TCP.
    pub path: Option<String>,
    /// The accepted status codes; `None` for TCP.
    pub success_codes: Option<String>,
    /// Seconds.
    pub interval: u32,
    /// Seconds.
    pub timeout: u32,
    /// Checks in a row.
    pub healthy_threshold: u32,
    /// Checks in a row.
    pub unhealthy_threshold: u32,
}

/// How a listener ends TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The ARN of its default certificate.
    pub certificate: String,
    /// The name of its security policy.
    pub policy: String,
    /// Its ALPN policy.
    pub alpn: Alpn,
}

/// A listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerSpec {
    /// Its protocol.
    pub transport: Transport,
    /// If it ends TLS: how.
    pub tls: Option<Tls>,
    /// The ARNs of its certificates beside the default one. Clients choose by the name of the host.
    pub sni: BTreeSet<String>,
    /// Where it sends connections: target groups by name.
    pub forward: Forward<String>,
    /// The same for clients with IPv6 addresses, if they have target groups of their own.
    pub ipv6: Option<Forward<String>>,
    /// The attributes that are set.
    pub attributes: BTreeMap<String, String>,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
}

/// A target group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetGroup {
    /// Its name. It differs where AWS can change nothing, such as protocol and port, and for each load
    /// balancer, because AWS permits a target group on one only.
    pub name: String,
    /// What its targets are for AWS.
    pub target_type: TargetType,
    /// The family of their addresses.
    pub family: Family,
    /// Its protocol.
    pub transport: Transport,
    /// Whether the load balancer speaks TLS to the targets.
    pub tls: bool,
    /// The node port. Addresses are registered with their own ports.
    pub port: u16,
    /// The health check.
    pub check: Check,
    /// The attributes that are set.
    pub attributes: BTreeMap<String, String>,
    /// Which nodes are targets, if nodes are.
    pub selector: Selector,
    /// Its tags, which also say which nodes or pods are targets.
    pub tags: BTreeMap<String, String>,
}

/// The families of the addresses of a load balancer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Addresses {
    /// IPv4.
    #[default]
    Ipv4,
    /// Both.
    Dualstack {
        /// Connections of UDP that change their family come from a range of IPv6 addresses of each subnet. AWS has no
        /// UDP listeners on dual-stack load balancers without it.
        source_nat: bool,
    },
}

/// What may come in, and from whom, as one rule of a security group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rule {
    /// What may come in.
    pub traffic: Traffic,
    /// From whom.
    pub source: Source,
}

/// The traffic of a [`Rule`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Traffic {
    /// One port.
    Port(Protocol, u16),
    /// Everything.
    All,
    /// Something else, as AWS spells it (`IpPermission` in the Amazon EC2 API Reference). Ballast asks
    /// for [`Traffic::too_large`] only.
    Other {
        /// Such as `icmp` or `tcp`.
        protocol: String,
        /// The first port, or the type of ICMP; -1 is any.
        from: Option<i32>,
        /// The last port, or the code of ICMP; -1 is any.
        to: Option<i32>,
    },
}

/// The clients of a [`Rule`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// A range of addresses.
    Range(IpNet),
    /// A prefix list, by its ID.
    PrefixList(String),
    /// Whatever has this security group, by its ID.
    Group(String),
}

/// For how many rules of a security group each prefix list counts, by its ID. One that is not listed
/// counts as one.
pub type PrefixLists = BTreeMap<String, usize>;

/// The security groups for clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Groups {
    /// A group of this name, made for this load balancer, with these rules.
    Own {
        /// Its name.
        name: String,
        /// Its rules.
        rules: BTreeSet<Rule>,
        /// The most rules that it can have.
        most: usize,
    },
    /// These groups, which somebody else manages, by ID.
    Given(Vec<String>),
}

/// One subnet of the load balancer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subnet {
    /// Its ID.
    pub id: String,
    /// The name of its zone.
    pub zone: String,
    /// The allocation ID of the Elastic IP address to use in it.
    pub elastic_address: Option<String>,
    /// The private address to use in it.
    pub private_address: Option<Ipv4Addr>,
}

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

// === impl TargetGroup ===

impl TargetGroup {
    /// What it sends to.
    pub fn backends(&self) -> Backends {
        Backends::of(self.target_type, self.family, &self.tags)
    }

    /// A new one with this ARN.
    pub(crate) fn made(&self, arn: Arn) -> ObservedTargetGroup {
        ObservedTargetGroup {
            arn,
            target_type: self.target_type,
            family: self.family,
            check: self.check.clone(),
            attributes: self.initial_attributes(),
            tags: self.tags.clone(),
            targets: BTreeSet::new(),
            bound: Bound::of(&self.tags),
        }
    }

    /// The attributes of a new one that differ from AWS's defaults for instances. What is a target by its address
    /// does not see the client's address over TCP unless somebody asks for it.
    pub(crate) fn initial_attributes(&self) -> BTreeMap<String, String> {
        let hides = self.target_type == TargetType::Ip && self.transport == Transport::Tcp;
        let preserve = (
            attributes::PRESERVE_CLIENT_IP.to_owned(),
            "false".to_owned(),
        );
        hides.then_some(preserve).into_iter().collect()
    }
}

// === impl ListenerSpec ===

impl ListenerSpec {
    /// Whether AWS has attributes for such listeners.
    pub(crate) fn has_attributes(&self) -> bool {
        self.transport == Transport::Tcp && self.tls.is_none()
    }
}

// === impl Addresses ===

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ipv4 => "ipv4",
            Self::Dualstack { source_nat: false } => "dualstack",
            Self::Dualstack { source_nat: true } => "dualstack with source NAT",
        })
    }
}

// === impl Traffic ===

impl Traffic {
    /// What a router says to the sender of a packet that is too large: "fragmentation needed", type 3 and code 4 of
    /// ICMP (RFC 1191), and "packet too big", type 2 and code 0 of `ICMPv6` (RFC 4443).
    pub(crate) fn too_large(family: Family) -> Self {
        let (protocol, from, to) = match family {
            Family::V4 => ("icmp", 3, 4),
            Family::V6 => ("icmpv6", 2, 0),
        };
        Self::Other {
            protocol: protocol.into(),
            from: Some(from),
            to: Some(to),
        }
    }
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

// === impl Transport ===

impl Transport {
    /// AWS's name of the protocol of a listener or target group, with TLS or without. The single
    /// source of these names.
    pub const fn protocol(self, tls: bool) -> &'static str {
        match self {
            Self::Tcp if tls => "TLS",
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::TcpUdp => "TCP_UDP",
        }
    }

    /// The transport of the protocol of this name, and whether it is TLS; `None` if Ballast makes no
    /// such listeners.
    pub fn of_protocol(name: &str) -> Option<(Self, bool)> {
        [
            (Self::Tcp, false),
            (Self::Tcp, true),
            (Self::Udp, false),
            (Self::TcpUdp, false),
        ]
        .into_iter()
        .find(|(transport, tls)| transport.protocol(*tls) == name)
    }
}

#[cfg(test)]
pub(crate) mod tests;
