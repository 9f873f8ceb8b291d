//! The cloud objects of a load balancer, as plain values.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;

use ballast_provider::{Family, Protocol};
use ipnet::IpNet;

use crate::forward::Forward;
use crate::nodes::Selector;
use crate::observed::{Arn, Bound, ObservedTargetGroup};
use crate::settings::tls::Alpn;
use crate::settings::{CheckProtocol, attributes};
use crate::target::{Backends, TargetType};

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
