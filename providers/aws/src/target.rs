//! The targets of target groups, as AWS names them. Plain values.

use std::fmt;
use std::net::SocketAddr;

/// What the targets of a target group are. AWS cannot change it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TargetType {
    /// Nodes, on their node ports.
    #[default]
    Instance,
    /// Pods, on their own ports.
    Ip,
}

/// One target.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TargetId {
    /// The ID of an instance. It gets traffic on the port of the target group.
    Instance(String),
    /// An address, and the port that gets traffic.
    Address(SocketAddr),
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
            Self::Instance(id) => id.clone(),
            Self::Address(address) => address.ip().to_string(),
        }
    }

    /// The port in calls; `None` is that of the target group.
    pub const fn port(&self) -> Option<u16> {
        match self {
            Self::Instance(_) => None,
            Self::Address(address) => Some(address.port()),
        }
    }
}

impl fmt::Display for TargetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Instance(id) => f.write_str(id),
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
