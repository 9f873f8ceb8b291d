//! The parts of a desired state, as in the API's JSON and in the stored state.
//!
//! They are separate types, so that the domain model can change without a change on the wire
//! or on disk. Conversions go from the model to the wire only: the cloud and its data plane
//! use the wire types. Field names are camelCase; the spelling of the first version
//! (`node_port`, `ClientIp`, …) can still be read.

use std::fmt;
use std::net::IpAddr;

use ballast_provider as model;
use serde::{Deserialize, Serialize};

/// Transport protocol of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// TCP
    Tcp,
    /// UDP
    Udp,
}

/// An IP family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Family {
    /// IPv4
    #[serde(rename = "IPv4")]
    V4,
    /// IPv6
    #[serde(rename = "IPv6")]
    V6,
}

/// One port: the port for clients and the node port behind it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Listener {
    /// A name for display.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Transport protocol.
    pub protocol: Protocol,
    /// The port clients connect to.
    pub port: u16,
    /// The port of every target that receives the traffic.
    #[serde(alias = "node_port")]
    pub node_port: u16,
}

/// Which targets may get traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum TrafficPolicy {
    /// All targets.
    #[serde(alias = "Cluster")]
    Cluster,
    /// Targets that answer HTTP 200 on a health check port.
    #[serde(alias = "Local")]
    Local {
        /// The health check port.
        #[serde(alias = "health_check_node_port")]
        health_check_node_port: u16,
    },
}

/// Whether a client stays with one target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Affinity {
    /// Each connection is balanced independently.
    #[serde(alias = "None")]
    None,
    /// Connections of one client address go to one target.
    #[serde(alias = "ClientIp")]
    ClientIp {
        /// The session ends after the client was silent for this many seconds, 1 to 86,400.
        #[serde(alias = "timeout_seconds")]
        timeout_seconds: u32,
    },
}

/// A machine that can receive traffic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// Its name, unique in its set.
    pub name: String,
    /// Its addresses; the first of each family is used.
    pub addresses: Vec<IpAddr>,
}

// === impl Protocol ===

impl Protocol {
    /// The spelling on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<model::Protocol> for Protocol {
    fn from(protocol: model::Protocol) -> Self {
        match protocol {
            model::Protocol::Tcp => Self::Tcp,
            model::Protocol::Udp => Self::Udp,
        }
    }
}

// === impl Family ===

impl Family {
    /// The family of an address.
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

impl From<model::Family> for Family {
    fn from(family: model::Family) -> Self {
        match family {
            model::Family::V4 => Self::V4,
            model::Family::V6 => Self::V6,
        }
    }
}

// === impl Listener ===

impl From<&model::Listener> for Listener {
    fn from(listener: &model::Listener) -> Self {
        Self {
            name: listener.name.clone(),
            protocol: listener.protocol.into(),
            port: listener.port,
            node_port: listener.node_port,
        }
    }
}

// === impl TrafficPolicy ===

impl From<model::TrafficPolicy> for TrafficPolicy {
    fn from(policy: model::TrafficPolicy) -> Self {
        match policy {
            model::TrafficPolicy::Cluster => Self::Cluster,
            model::TrafficPolicy::Local {
                health_check_node_port,
            } => Self::Local {
                health_check_node_port,
            },
        }
    }
}

// === impl Affinity ===

impl From<model::Affinity> for Affinity {
    fn from(affinity: model::Affinity) -> Self {
        match affinity {
            model::Affinity::None => Self::None,
            model::Affinity::ClientIp { timeout_seconds } => Self::ClientIp { timeout_seconds },
        }
    }
}

// === impl Target ===

impl From<&model::Target> for Target {
    fn from(target: &model::Target) -> Self {
        Self {
            name: target.name.clone(),
            addresses: target.addresses.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
