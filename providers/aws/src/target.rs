//! The targets of target groups, as AWS names them. Plain values.
//!
//! Targets are nodes or pods. AWS has other types: an instance has IPv4 only, so nodes are instances for clients with
//! IPv4 addresses and addresses for those with IPv6 addresses ("Client IP preservation" in the user guide). The
//! type and the tags of a target group say what it has ([`Backends`]), so that nobody needs its Service for it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use ballast_provider::Family;

use crate::nodes::Selector;

/// The tag of a target group of nodes by their addresses: the node port.
pub const NODE_PORT: &str = "ballast.dev/node-port";

/// What a target group sends to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Backends {
    /// Nodes, which have these labels.
    Nodes(Selector, Reached),
    /// The pods of a Service with addresses of this family. [`crate::pods`] knows which.
    Pods(Family),
}

/// How nodes are targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reached {
    /// By the ID of their instance, on the port of the target group.
    Instance,
    /// By the ID of their instance, on this port: in a target group of others, which has a port of its own.
    InstanceAt(u16),
    /// By their IPv6 address, on this port.
    Ipv6(u16),
}

/// The type of the targets of a target group. AWS cannot change it. Of a Service: what it is asked to send to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TargetType {
    /// Instances. Of a Service: nodes, on their node ports.
    #[default]
    Instance,
    /// Addresses. Of a Service: pods, on their own ports.
    Ip,
}

/// One target.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TargetId {
    /// The ID of an instance. It gets traffic on the port of the target group.
    Instance(String),
    /// The ID of an instance, and the port that gets traffic.
    InstanceAt(String, u16),
    /// An address, and the port that gets traffic.
    Address(SocketAddr),
}

// === impl Backends ===

impl Backends {
    /// What a target group with this type and these tags sends to.
    pub fn of(target_type: TargetType, family: Family, tags: &BTreeMap<String, String>) -> Self {
        let port = tags.get(NODE_PORT).and_then(|port| port.parse().ok());
        match (target_type, port) {
            (TargetType::Instance, None) => Self::Nodes(Selector::of(tags), Reached::Instance),
            (TargetType::Instance, Some(port)) => {
                Self::Nodes(Selector::of(tags), Reached::InstanceAt(port))
            }
            (TargetType::Ip, Some(port)) => Self::Nodes(Selector::of(tags), Reached::Ipv6(port)),
            (TargetType::Ip, None) => Self::Pods(family),
        }
    }

    /// Whether they are nodes.
    pub const fn are_nodes(&self) -> bool {
        matches!(self, Self::Nodes(..))
    }
}

// === impl TargetType ===

impl TargetType {
    /// The spelling of AWS.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Instance => "instance",
            Self::Ip => "ip",
        }
    }
}

// === impl TargetId ===

impl TargetId {
    /// A target as AWS describes it; `None` if an address has no port.
    pub fn of(id: &str, port: Option<u16>) -> Option<Self> {
        match id.parse() {
            Ok(address) => Some(Self::Address(SocketAddr::new(address, port?))),
            Err(_) => Some(Self::Instance(id.to_owned())),
        }
    }

    /// The ID in calls.
    pub fn id(&self) -> String {
        match self {
            Self::Instance(id) | Self::InstanceAt(id, _) => id.clone(),
            Self::Address(address) => address.ip().to_string(),
        }
    }

    /// The port in calls; `None` is that of the target group.
    pub const fn port(&self) -> Option<u16> {
        match self {
            Self::Instance(_) => None,
            Self::InstanceAt(_, port) => Some(*port),
            Self::Address(address) => Some(address.port()),
        }
    }
}

impl fmt::Display for TargetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Instance(id) => f.write_str(id),
            Self::InstanceAt(id, port) => write!(f, "{id}:{port}"),
            Self::Address(address) => address.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_an_instance_or_an_address_with_its_port() {
        let table = [
            ("i-0123", Some(30_080), Some(("i-0123", None))),
            ("10.1.0.7", Some(8_080), Some(("10.1.0.7", Some(8_080)))),
            ("fd00::7", Some(8_080), Some(("fd00::7", Some(8_080)))),
            ("10.1.0.7", None, None),
        ];
        for (id, port, expected) in table {
            let target = TargetId::of(id, port);
            let expected = expected.map(|(id, port)| (id.to_owned(), port));
            assert_eq!(target.map(|it| (it.id(), it.port())), expected, "{id}");
        }
    }
}
