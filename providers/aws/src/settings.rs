//! What a class and a Service ask of a Network Load Balancer. Pure.
//!
//! [`Settings::of`] parses a Service's annotations. [`Settings::over`] fills what the Service does
//! not say from its class. A value that cannot be used refuses the Service, with the key, the
//! value and what is possible instead; it never falls back to something else silently.
//!
//! An absent value means AWS's default, also for a load balancer that had another value before:
//! [`attributes::LOAD_BALANCER`] and [`attributes::TARGET_GROUP`] list the defaults.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ballast_provider::{Reason, Refusal, Settings as Annotations};

use crate::adopt::{ADOPT, Adopted};
use crate::annotations::{self, ACTIONS, PREFIX, Support, WEIGHTS, invalid};
use crate::bind::{self, Bound, TARGET_GROUPS};
use crate::target::TargetType;

pub mod attributes;
mod deprecated;
mod parse;
pub mod tls;
mod values;
pub mod weights;

use self::tls::TlsSettings;
use self::weights::Weighted;

/// Where an NLB's addresses come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Private addresses of its subnets.
    #[default]
    Internal,
    /// Public addresses; the subnets must have a route to an internet gateway.
    InternetFacing,
}

/// The protocol of a health check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CheckProtocol {
    /// A connection is enough.
    Tcp,
    /// A request with an accepted status code.
    Http,
    /// The same over TLS; the certificate is not checked.
    Https,
}

/// The port of a health check.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CheckPort {
    /// The port that gets the traffic.
    Traffic,
    /// This port of the node.
    Number(u16),
    /// The node port of the Service's port of this name.
    Named(String),
}

/// How AWS checks targets. An absent value means the default of the traffic policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HealthCheck {
    /// The protocol.
    pub protocol: Option<CheckProtocol>,
    /// The port.
    pub port: Option<CheckPort>,
    /// The path of the request.
    pub path: Option<String>,
    /// The status codes of healthy targets, such as `200-399`.
    pub success_codes: Option<String>,
    /// Seconds between two checks, 5 to 300.
    pub interval: Option<u32>,
    /// Seconds, 2 to 120.
    pub timeout: Option<u32>,
    /// Checks in a row until a target is healthy, 2 to 10.
    pub healthy_threshold: Option<u32>,
    /// Checks in a row until a target is unhealthy, 2 to 10.
    pub unhealthy_threshold: Option<u32>,
}

/// Which ports send the client's address in a PROXY protocol header (version 2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// All.
    All,
    /// These.
    Ports(BTreeSet<u16>),
}

/// Everything that can be set. An absent value is not set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Internal or internet-facing.
    pub scheme: Option<Scheme>,
    /// IDs, or values of the tag `Name`, in the given order. At most one per zone.
    pub subnets: Vec<String>,
    /// IDs, or values of the tag `Name`: these instead of a group of Ballast's.
    pub security_groups: Vec<String>,
    /// Whether Ballast lets the load balancer reach the nodes although the security groups are
    /// not Ballast's.
    pub manage_backend_rules: Option<bool>,
    /// IDs of prefix lists whose addresses may connect, beside the source ranges.
    pub prefix_lists: Vec<String>,
    /// Whether routers may tell the load balancer that a packet is too large (ICMP), so that path MTU discovery
    /// works. Clients of UDP and of large TCP segments need it if their path is narrow.
    pub path_mtu: Option<bool>,
    /// Whether the rules of the security groups hold for clients that come through `AWS PrivateLink`, too.
    pub private_link_rules: Option<bool>,
    /// How AWS checks targets.
    pub health_check: HealthCheck,
    /// Attributes of the load balancer that differ from AWS's defaults.
    pub attributes: BTreeMap<String, String>,
    /// Attributes of all target groups.
    pub target_group_attributes: BTreeMap<String, String>,
    /// Attributes of listeners with the protocol TCP, by port.
    pub listener_attributes: BTreeMap<u16, BTreeMap<String, String>>,
    /// Attributes of the target group of one port; they win.
    pub port_attributes: BTreeMap<u16, BTreeMap<String, String>>,
    /// Further tags on everything that is created.
    pub tags: BTreeMap<String, String>,
    /// Allocation IDs of Elastic IP addresses, one for each subnet.
    pub elastic_addresses: Vec<String>,
    /// One address out of each subnet.
    pub private_addresses: Vec<Ipv4Addr>,
    /// The capacity units that are reserved, in all zones together; 0 is none.
    pub capacity: Option<u32>,
    /// The load balancer of another controller to take over.
    pub adopted: Option<Adopted>,
    /// What the targets are.
    pub target_type: Option<TargetType>,
    /// PROXY protocol.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// The labels of the nodes that are targets; none of them means all nodes.
    pub node_labels: Option<BTreeMap<String, String>>,
    /// TLS at the listeners.
    pub tls: TlsSettings,
    /// Whether the load balancer has IPv6 addresses, too. `None`: if the Service has the family.
    pub dualstack: Option<bool>,
    /// Whether connections of UDP that change their family come from a range of each subnet. `None`: if the load
    /// balancer needs it.
    pub source_nat: Option<bool>,
    /// Target groups of others that get the targets, instead of a load balancer, by port.
    pub bound: Bound,
    /// Listeners that divide their connections among Services.
    pub weights: Vec<Weighted>,
    /// How many rules a security group may have in this account.
    pub most_rules: Option<usize>,
}

/// What a class says for all its Services. The default says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClassSettings {
    /// The region of the load balancers.
    pub region: String,
    /// The ID of their VPC; `None`: that of the nodes.
    pub vpc: Option<String>,
    /// When hostnames are published.
    pub publish: Publish,
    /// Whether Services of different namespaces share a load balancer if they have the same share key.
    pub share_everywhere: bool,
    /// The annotations that Services may have; `None`: all.
    pub allowed: Option<Allowed>,
    /// What Services do not say themselves.
    pub settings: Settings,
}

/// The annotations that the Services of a class may have. Whoever may create a Service chooses its annotations, and
/// some of them cost money, open a load balancer to the internet or take what belongs to others, such as an
/// Elastic IP address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowed(BTreeSet<&'static str>);

/// When the hostname of a load balancer is published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Publish {
    /// As soon as it is known.
    #[default]
    WhenCreated,
    /// When the load balancer is active.
    WhenActive,
}

/// A field of a class that says the same as an annotation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// The annotation, without its prefix.
    pub name: &'a str,
    /// The path of the field, such as `spec.aws.scheme`.
    pub path: &'a str,
    /// Its value, written as in the annotation.
    pub value: String,
}

/// What a Service asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parsed {
    /// The settings.
    pub settings: Settings,
    /// What its owner should know, such as an annotation that has no effect.
    pub remarks: Vec<String>,
}

// === impl Scheme ===

impl Scheme {
    /// The spelling of AWS.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Internal => "internal",
            Self::InternetFacing => "internet-facing",
        }
    }
}

// === impl Allowed ===

impl Allowed {
    /// These annotations, without their prefix.
    pub fn of<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, Refusal> {
        let known = names.into_iter().map(|name| {
            if let Some(whole) = [ADOPT, TARGET_GROUPS, WEIGHTS]
                .into_iter()
                .find(|it| *it == name)
            {
                return Ok(whole);
            }
            let key = format!("{PREFIX}{name}");
            match annotations::find(&key) {
                Ok((known, None)) if known.support == Support::Supported => Ok(known.name),
                Ok(_) => Err(invalid(format!(
                    "spec.aws.allowedAnnotations: \"{name}\" has no effect as an annotation"
                ))),
                Err(refusal) => Err(invalid(format!(
                    "spec.aws.allowedAnnotations: \"{name}\": {}",
                    refusal.message
                ))),
            }
        });
        known.collect::<Result<_, _>>().map(Self)
    }
}

// === impl Settings ===

impl Settings {
    /// The settings in a Service's annotations, if its class allows them. Keys without the prefix are
    /// ignored.
    pub fn of(annotations: &Annotations, allowed: Option<&Allowed>) -> Result<Parsed, Refusal> {
        let mut parsed = Parsed::default();
        for (key, value) in annotations {
            if key == ADOPT {
                if allowed.is_some_and(|it| !it.0.contains(ADOPT)) {
                    return Err(not_allowed(key));
                }
                let adopted = Adopted::parse(&format!("annotation {key}"), value.trim())?;
                parsed.settings.adopted = Some(adopted);
                continue;
            }
            if key == TARGET_GROUPS {
                if allowed.is_some_and(|it| !it.0.contains(TARGET_GROUPS)) {
                    return Err(not_allowed(key));
                }
                parsed.settings.bound = bind::parse(key, value.trim())?;
                continue;
            }
            if key.starts_with(ACTIONS) {
                if allowed.is_some_and(|it| !it.0.contains(WEIGHTS)) {
                    return Err(not_allowed(key));
                }
                let weighted = Weighted::parse(key, value)?;
                let mut others = parsed.settings.weights.iter();
                // AWS has one listener on a port.
                if others.any(|other| other.port == weighted.port) {
                    return Err(invalid(format!(
                        "annotation {key}: another annotation {ACTIONS}… is about the same listener, port {}",
                        weighted.port
                    )));
                }
                parsed.settings.weights.push(weighted);
                continue;
            }
            if !key.starts_with(PREFIX) {
                continue;
            }
            let (known, port) = annotations::find(key)?;
            match known.support {
                Support::Supported if allowed.is_some_and(|it| !it.0.contains(known.name)) => {
                    return Err(not_allowed(key));
                }
                Support::Supported => {
                    parsed.set(known.name, port, &format!("annotation {key}"), value.trim())?;
                }
                Support::NoEffect(why) => parsed
                    .remarks
                    .push(format!("annotation {key} has no effect: {why}")),
                Support::Only(default, _) if value.trim().eq_ignore_ascii_case(default) => {}
                Support::Only(default, why) => {
                    return Err(Refusal::new(
                        Reason::Unsupported,
                        format!("annotation {key}: Ballast supports only \"{default}\": {why}"),
                    ));
                }
                Support::Refused(why) => {
                    return Err(Refusal::new(
                        Reason::Unsupported,
                        format!("annotation {key}: {why}"),
                    ));
                }
            }
        }
        parsed.deprecated(annotations)?;
        Ok(parsed)
    }

    /// What the targets of a Service with these annotations are, as far as they say so, and whatever else is wrong
    /// with them.
    pub fn target_type_of(annotations: &Annotations) -> Option<TargetType> {
        let value = |name: &str| annotations.get(&format!("{PREFIX}{name}"));
        let named = value("nlb-target-type").map(|it| values::target_type("", it.trim()));
        let implied = || {
            let controller = value("type")?;
            (controller.trim() == values::NLB_IP).then_some(TargetType::Ip)
        };
        named.map_or_else(implied, Result::ok)
    }

    /// The settings in the fields of a class.
    pub fn of_class(fields: &[Field<'_>]) -> Result<Self, Refusal> {
        let mut parsed = Parsed::default();
        for field in fields {
            parsed.set(field.name, None, field.path, &field.value)?;
        }
        Ok(parsed.settings)
    }

    /// These settings, and what they do not say from the class. Attributes and tags are merged
    /// key by key, and the class's tags win; a list is taken as a whole.
    #[must_use]
    pub fn over(self, class: &Self) -> Self {
        let check = &class.health_check;
        Self {
            scheme: self.scheme.or(class.scheme),
            subnets: or(self.subnets, &class.subnets),
            security_groups: or(self.security_groups, &class.security_groups),
            manage_backend_rules: self.manage_backend_rules.or(class.manage_backend_rules),
            prefix_lists: or(self.prefix_lists, &class.prefix_lists),
            path_mtu: self.path_mtu.or(class.path_mtu),
            private_link_rules: self.private_link_rules.or(class.private_link_rules),
            health_check: HealthCheck {
                protocol: self.health_check.protocol.or(check.protocol),
                port: self.health_check.port.or_else(|| check.port.clone()),
                path: self.health_check.path.or_else(|| check.path.clone()),
                success_codes: (self.health_check.success_codes)
                    .or_else(|| check.success_codes.clone()),
                interval: self.health_check.interval.or(check.interval),
                timeout: self.health_check.timeout.or(check.timeout),
                healthy_threshold: (self.health_check.healthy_threshold)
                    .or(check.healthy_threshold),
                unhealthy_threshold: (self.health_check.unhealthy_threshold)
                    .or(check.unhealthy_threshold),
            },
            attributes: merged(self.attributes, &class.attributes),
            target_group_attributes: merged(
                self.target_group_attributes,
                &class.target_group_attributes,
            ),
            listener_attributes: self.listener_attributes,
            port_attributes: self.port_attributes,
            // Costs are counted by them: a Service cannot put its own on others.
            tags: merged(class.tags.clone(), &self.tags),
            elastic_addresses: self.elastic_addresses,
            private_addresses: self.private_addresses,
            capacity: self.capacity.or(class.capacity),
            adopted: self.adopted,
            target_type: self.target_type.or(class.target_type),
            proxy_protocol: self.proxy_protocol.or_else(|| class.proxy_protocol.clone()),
            node_labels: self.node_labels.or_else(|| class.node_labels.clone()),
            tls: self.tls,
            dualstack: self.dualstack.or(class.dualstack),
            source_nat: self.source_nat.or(class.source_nat),
            bound: self.bound,
            weights: self.weights,
            most_rules: class.most_rules,
        }
    }

    /// The attributes of one port's target group.
    pub fn attributes_of(&self, port: u16) -> BTreeMap<String, String> {
        let own = self.port_attributes.get(&port).cloned();
        let mut all = merged(own.unwrap_or_default(), &self.target_group_attributes);
        let proxied = match &self.proxy_protocol {
            Some(ProxyProtocol::All) => true,
            Some(ProxyProtocol::Ports(ports)) => ports.contains(&port),
            None => false,
        };
        if proxied {
            all.insert(attributes::PROXY_PROTOCOL.into(), "true".into());
        }
        all
    }

    /// A port that an annotation names and that the Service does not have.
    pub(crate) fn unused_port(&self, has: impl Fn(u16) -> bool) -> Option<u16> {
        let proxied = match &self.proxy_protocol {
            Some(ProxyProtocol::Ports(ports)) => ports.iter().copied().collect(),
            _ => Vec::new(),
        };
        let attributes = self
            .port_attributes
            .keys()
            .chain(self.listener_attributes.keys());
        let named = attributes.copied().chain(proxied);
        named.into_iter().find(|port| !has(*port))
    }

    /// Refuses settings that contradict each other, once a Service's are merged with its class's:
    /// only then is the scheme known, for example.
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        let internet = self.scheme == Some(Scheme::InternetFacing);
        if !self.elastic_addresses.is_empty() && !internet {
            return Err(invalid(format!(
                "annotation {PREFIX}eip-allocations needs {PREFIX}scheme: internet-facing"
            )));
        }
        if !self.private_addresses.is_empty() && internet {
            return Err(invalid(format!(
                "annotation {PREFIX}private-ipv4-addresses needs {PREFIX}scheme: internal"
            )));
        }
        let attribute = |key: &str| self.attributes.get(key).map_or("", String::as_str);
        if attribute(attributes::ACCESS_LOGS) == "true"
            && attribute(attributes::ACCESS_LOGS_BUCKET).is_empty()
        {
            return Err(invalid(format!(
                "annotation {PREFIX}attributes: {} needs {}",
                attributes::ACCESS_LOGS,
                attributes::ACCESS_LOGS_BUCKET
            )));
        }
        self.tls.check()?;
        let check = &self.health_check;
        if let (Some(timeout), Some(interval)) = (check.timeout, check.interval)
            && timeout > interval
        {
            return Err(invalid(format!(
                "annotation {PREFIX}healthcheck-timeout: {timeout} s is longer than the interval of {interval} s"
            )));
        }
        if check.protocol == Some(CheckProtocol::Tcp) {
            for (name, set) in [
                ("healthcheck-path", check.path.is_some()),
                ("healthcheck-success-codes", check.success_codes.is_some()),
            ] {
                if set {
                    return Err(invalid(format!(
                        "annotation {PREFIX}{name} needs {PREFIX}healthcheck-protocol: http or https"
                    )));
                }
            }
        }
        Ok(())
    }
}

fn not_allowed(key: &str) -> Refusal {
    Refusal::new(
        Reason::Unsupported,
        format!(
            "annotation {key}: the class of the Service does not allow it (spec.aws.allowedAnnotations)"
        ),
    )
}

fn or<T: Clone>(own: Vec<T>, class: &[T]) -> Vec<T> {
    if own.is_empty() { class.to_vec() } else { own }
}

fn merged(
    mut own: BTreeMap<String, String>,
    class: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    for (key, value) in class {
        own.entry(key.clone()).or_insert_with(|| value.clone());
    }
    own
}

#[cfg(test)]
mod tests;
