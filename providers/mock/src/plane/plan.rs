//! One load balancer's configuration, and the sockets that it needs. Pure.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::api::{Affinity, Desired, Listener, Protocol, TrafficPolicy};

/// One load balancer, as the data plane sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) listeners: Vec<Listener>,
    pub(crate) policy: TrafficPolicy,
    pub(crate) affinity: Affinity,
    pub(crate) source_ranges: Vec<IpNet>,
    pub(crate) target_set: String,
}

/// One socket clients connect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Socket {
    pub(crate) ip: IpAddr,
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
}

/// Which sockets to close and to open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Diff {
    pub(crate) close: Vec<Socket>,
    pub(crate) open: Vec<Socket>,
}

/// Compares the open sockets with those that are needed. All others stay as they are.
pub(crate) fn diff(open: impl Iterator<Item = Socket>, config: &Config) -> Diff {
    let open: BTreeSet<Socket> = open.collect();
    let desired: BTreeSet<Socket> = config.sockets().collect();
    Diff {
        close: open.difference(&desired).copied().collect(),
        open: desired.difference(&open).copied().collect(),
    }
}

// === impl Config ===

impl Config {
    pub(crate) fn new(desired: &Desired, addresses: &[IpAddr]) -> Self {
        Self {
            addresses: addresses.to_vec(),
            listeners: desired.listeners.clone(),
            policy: desired.traffic_policy,
            affinity: desired.affinity,
            source_ranges: desired.source_ranges.clone(),
            target_set: desired.target_set.clone(),
        }
    }

    /// The sockets it needs.
    pub(crate) fn sockets(&self) -> impl Iterator<Item = Socket> {
        self.addresses.iter().flat_map(|ip| {
            self.listeners.iter().map(|listener| Socket {
                ip: *ip,
                protocol: listener.protocol,
                port: listener.port,
            })
        })
    }

    /// The listener of a socket.
    pub(crate) fn listener(&self, socket: Socket) -> Option<&Listener> {
        self.listeners
            .iter()
            .find(|listener| listener.protocol == socket.protocol && listener.port == socket.port)
    }
}

// === impl Socket ===

impl Socket {
    pub(crate) const fn address(self) -> SocketAddr {
        SocketAddr::new(self.ip, self.port)
    }
}

impl fmt::Display for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.protocol, self.address())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(ports: &[(u16, u16)]) -> Config {
        let listener = |(port, node_port): &(u16, u16)| Listener {
            name: None,
            protocol: Protocol::Tcp,
            port: *port,
            node_port: *node_port,
        };
        Config {
            addresses: vec!["127.77.0.1".parse().unwrap()],
            listeners: ports.iter().map(listener).collect(),
            policy: TrafficPolicy::Cluster,
            affinity: Affinity::None,
            source_ranges: Vec::new(),
            target_set: "nodes".into(),
        }
    }

    #[test]
    fn another_node_port_rebinds_nothing() {
        let open: Vec<Socket> = config(&[(80, 30_080)]).sockets().collect();
        let diff = diff(open.into_iter(), &config(&[(80, 30_081)]));
        assert_eq!(diff, Diff::default());
    }

    #[test]
    fn another_port_closes_one_and_opens_one() {
        let open: Vec<Socket> = config(&[(80, 30_080), (81, 30_081)]).sockets().collect();
        let diff = diff(open.into_iter(), &config(&[(80, 30_080), (82, 30_081)]));
        assert_eq!(
            diff.close
                .iter()
                .map(|socket| socket.port)
                .collect::<Vec<_>>(),
            [81]
        );
        assert_eq!(
            diff.open
                .iter()
                .map(|socket| socket.port)
                .collect::<Vec<_>>(),
            [82]
        );
    }
}
