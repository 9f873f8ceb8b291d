//! The cloud objects that one Service needs, worked out from what it asks for. Pure.
//!
//! [`Desired::of`] is called for each reconcile. Equal inputs give equal objects, and
//! [`Desired::hash`] is a short name for them. Targets are not part of it: they change with the
//! nodes, for all Services at once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ballast_provider::mark::digest;
use ballast_provider::{
    Affinity, Family, Key, Listener, LoadBalancer, Mark, Protocol, Reason, Refusal, TrafficPolicy,
};
use ipnet::IpNet;

use crate::annotations::{PREFIX, invalid};
use crate::settings::{CheckPort, CheckProtocol, Scheme, Settings, attributes};

/// The prefix of all names.
const NAMES: &str = "bl";
/// kube-proxy's health check of a node (KEP-3836): fails as soon as the node is to be drained.
const KUBE_PROXY: u16 = 10_256;
/// What kube-proxy and `healthCheckNodePort` serve.
const HEALTHZ: &str = "/healthz";

/// The protocol of a listener and of its target group.
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

/// A target group of instances.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetGroup {
    /// Its name, which differs where AWS can change nothing: protocol and port.
    pub name: String,
    /// Its protocol.
    pub transport: Transport,
    /// The node port.
    pub port: u16,
    /// The health check.
    pub check: Check,
    /// The attributes that are set.
    pub attributes: BTreeMap<String, String>,
}

/// Who may connect, as one rule of a security group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rule {
    /// The protocol.
    pub protocol: Protocol,
    /// The port of the listener.
    pub port: u16,
    /// The clients.
    pub source: Source,
}

/// The clients of a [`Rule`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// A range of addresses.
    Range(IpNet),
    /// A prefix list, by its ID.
    PrefixList(String),
}

/// The security groups for clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Groups {
    /// A group of this name, made for this load balancer, with these rules.
    Own {
        /// Its name.
        name: String,
        /// Its rules.
        rules: BTreeSet<Rule>,
    },
    /// These groups, which somebody else manages, by ID.
    Given(Vec<String>),
}

/// One subnet of the load balancer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subnet {
    /// Its ID.
    pub id: String,
    /// The allocation ID of the Elastic IP address to use in it.
    pub elastic_address: Option<String>,
    /// The private address to use in it.
    pub private_address: Option<Ipv4Addr>,
}

/// What was looked up for the class, and is the same for its Services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The subnets by ID, in order.
    pub subnets: Vec<String>,
    /// Whether the load balancer may reach the nodes through the cluster's backend group.
    pub backend: bool,
    /// The security groups that a Service names, by ID, in order.
    pub groups: Vec<String>,
}

/// Everything that one Service needs, without targets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Desired {
    /// The name of the load balancer.
    pub name: String,
    /// Its scheme.
    pub scheme: Scheme,
    /// Its subnets, in order.
    pub subnets: Vec<Subnet>,
    /// The security groups for clients.
    pub groups: Groups,
    /// Whether it also has the cluster's backend group.
    pub backend: bool,
    /// The attributes that are set.
    pub attributes: BTreeMap<String, String>,
    /// The tags of all objects.
    pub tags: BTreeMap<String, String>,
    /// The listeners by port, and their target groups.
    pub listeners: BTreeMap<u16, TargetGroup>,
}

// === impl Desired ===

impl Desired {
    /// The objects of one Service. `settings` are merged with those of the class.
    pub fn of(
        mark: &Mark,
        key: &Key,
        service: &LoadBalancer,
        settings: &Settings,
        place: &Place,
    ) -> Result<Self, Refusal> {
        if !service.families.contains(&Family::V4) {
            return Err(Refusal::new(
                Reason::Unsupported,
                "spec.ipFamilies: Ballast does not support IPv6 on AWS yet",
            ));
        }
        service.require_node_ports()?;
        let scheme = settings.scheme.unwrap_or_default();
        // The scheme is part of the name, so that the successor of another scheme can be made
        // before the load balancer that it replaces is deleted.
        let name = mark.name_of(NAMES, &format!("{key}/{}", scheme.as_str()));
        let mut tags = settings.tags.clone();
        tags.extend(mark.tags(&service.id));
        let groups = if settings.security_groups.is_empty() {
            Groups::Own {
                name: mark.name_of(NAMES, &format!("{key}/clients")),
                rules: rules(service, settings)?,
            }
        } else {
            Groups::Given(place.groups.clone())
        };
        let own = matches!(groups, Groups::Own { .. });
        Ok(Self {
            name,
            scheme,
            subnets: subnets(settings, place),
            backend: place.backend && settings.manage_backend_rules.unwrap_or(own),
            groups,
            attributes: settings.attributes.clone(),
            listeners: listeners(mark, key, service, settings)?,
            tags,
        })
    }

    /// The same for equal objects, and different for different ones. Another version of this
    /// program may give another one; then all load balancers are compared with AWS once.
    pub fn hash(&self) -> String {
        digest(["1", &format!("{self:?}")])[..16].to_owned()
    }
}

fn subnets(settings: &Settings, place: &Place) -> Vec<Subnet> {
    let numbered = place.subnets.iter().enumerate();
    numbered
        .map(|(at, id)| Subnet {
            id: id.clone(),
            elastic_address: settings.elastic_addresses.get(at).cloned(),
            private_address: settings.private_addresses.get(at).copied(),
        })
        .collect()
}

/// One listener per port. TCP and UDP share one, because AWS has at most one listener on a port.
fn listeners(
    mark: &Mark,
    key: &Key,
    service: &LoadBalancer,
    settings: &Settings,
) -> Result<BTreeMap<u16, TargetGroup>, Refusal> {
    let mut ports: BTreeMap<u16, Vec<&Listener>> = BTreeMap::new();
    for listener in &service.listeners {
        ports.entry(listener.port).or_default().push(listener);
    }
    if let Some(unused) = (settings.port_attributes.keys()).find(|port| !ports.contains_key(port)) {
        return Err(invalid(format!(
            "annotation {PREFIX}target-group-attributes.{unused}: the Service has no port {unused}"
        )));
    }
    let groups = ports.into_iter().map(|(port, same)| {
        let group = target_group(mark, key, service, settings, &same)?;
        Ok((port, group))
    });
    groups.collect()
}

/// The target group of all listeners of one port.
fn target_group(
    mark: &Mark,
    key: &Key,
    service: &LoadBalancer,
    settings: &Settings,
    same: &[&Listener],
) -> Result<TargetGroup, Refusal> {
    let mut transports = same.iter().map(|listener| listener.protocol);
    let (first, second) = (transports.next(), transports.next());
    let transport = match (first, second) {
        (_, Some(_)) => Transport::TcpUdp,
        (Some(Protocol::Udp), None) => Transport::Udp,
        _ => Transport::Tcp,
    };
    let port = same.first().map_or(0, |listener| listener.node_port);
    if let Some(other) = same.iter().find(|listener| listener.node_port != port) {
        return Err(invalid(format!(
            "spec.ports: TCP and UDP on port {} share a listener, so they need the same nodePort, not {port} and {}",
            other.port, other.node_port
        )));
    }
    let number = same.first().map_or(0, |listener| listener.port);
    let mut all = settings.attributes_of(number);
    let sticky = matches!(service.affinity, Affinity::ClientIp { .. });
    if sticky {
        all.entry(attributes::STICKINESS.into())
            .or_insert_with(|| "true".into());
    }
    if transport != Transport::Tcp {
        // AWS always keeps the addresses of UDP clients, and refuses the attribute.
        all.remove(attributes::PRESERVE_CLIENT_IP);
    }
    Ok(TargetGroup {
        name: mark.name_of(
            NAMES,
            &format!("{key}/{number}/{}/{port}", transport.as_str()),
        ),
        transport,
        port,
        check: check(service, settings)?,
        attributes: all,
    })
}

/// The health check: what is set, and otherwise the default of the traffic policy.
fn check(service: &LoadBalancer, settings: &Settings) -> Result<Check, Refusal> {
    let set = &settings.health_check;
    // A check on another port, or over TCP, asks something else than kube-proxy.
    let (port, path) = match service.traffic_policy {
        TrafficPolicy::Cluster => (KUBE_PROXY, HEALTHZ),
        TrafficPolicy::Local {
            health_check_node_port,
        } => (health_check_node_port, HEALTHZ),
    };
    let default = set.port.is_none() && set.protocol.is_none();
    let protocol = set.protocol.unwrap_or(if default || set.path.is_some() {
        CheckProtocol::Http
    } else {
        CheckProtocol::Tcp
    });
    let http = protocol != CheckProtocol::Tcp;
    Ok(Check {
        protocol,
        port: match &set.port {
            None if default => Some(port),
            None | Some(CheckPort::Traffic) => None,
            Some(CheckPort::Number(number)) => Some(*number),
            Some(CheckPort::Named(name)) => Some(named(service, name)?),
        },
        path: http.then(|| {
            let default = if default { path } else { "/" };
            set.path.clone().unwrap_or_else(|| default.to_owned())
        }),
        success_codes: http.then(|| {
            let default = if default { "200" } else { "200-399" };
            set.success_codes
                .clone()
                .unwrap_or_else(|| default.to_owned())
        }),
        interval: set.interval.unwrap_or(10),
        timeout: set.timeout.unwrap_or(6),
        healthy_threshold: set.healthy_threshold.unwrap_or(2),
        unhealthy_threshold: set.unhealthy_threshold.unwrap_or(2),
    })
}

/// The node port of a port of the Service.
fn named(service: &LoadBalancer, name: &str) -> Result<u16, Refusal> {
    let mut listeners = service.listeners.iter();
    listeners
        .find(|listener| listener.name.as_deref() == Some(name))
        .map(|listener| listener.node_port)
        .ok_or_else(|| {
            invalid(format!(
                "annotation {PREFIX}healthcheck-port: the Service has no port with the name \"{name}\""
            ))
        })
}

/// Every port for every source. Without source ranges and prefix lists, all clients may connect.
fn rules(service: &LoadBalancer, settings: &Settings) -> Result<BTreeSet<Rule>, Refusal> {
    let mut sources: Vec<Source> = settings
        .prefix_lists
        .iter()
        .cloned()
        .map(Source::PrefixList)
        .collect();
    if let Some(range) = (service.source_ranges.iter()).find(|range| matches!(range, IpNet::V6(_)))
    {
        return Err(Refusal::new(
            Reason::Unsupported,
            format!("source range {range}: Ballast does not support IPv6 on AWS yet"),
        ));
    }
    sources.extend(service.source_ranges.iter().copied().map(Source::Range));
    if sources.is_empty() {
        sources.push(Source::Range(IpNet::V4(ipnet::Ipv4Net::default())));
    }
    let pairs = (service.listeners.iter())
        .flat_map(|listener| sources.iter().map(move |source| (listener, source)));
    let rules: BTreeSet<Rule> = pairs
        .map(|(listener, source)| Rule {
            protocol: listener.protocol,
            port: listener.port,
            source: source.clone(),
        })
        .collect();
    if rules.len() > MOST_RULES {
        return Err(Refusal::new(
            Reason::QuotaExceeded,
            format!(
                "{} ports and sources need {} rules, and a security group has at most {MOST_RULES}. Use a prefix list or your own security groups",
                service.listeners.len(),
                rules.len()
            ),
        ));
    }
    Ok(rules)
}

/// AWS's default limit for the rules of a security group ("Amazon VPC quotas").
const MOST_RULES: usize = 60;

// === impl Transport ===

impl Transport {
    /// The spelling of AWS.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::TcpUdp => "TCP_UDP",
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
