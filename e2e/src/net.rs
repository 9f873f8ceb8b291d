//! The address plan of a lab, and the commands that create its network. Pure: it runs none of
//! them.
//!
//! ```text
//!   control-plane .2   cloud .3   client .100   node1 .11   node2 .12 …      far-client .2
//!         └──────────────┴────────────┴────────────┴───────────┘                  │
//!                 segment 10.89.0.0/24, fd89::/64 ── hub (.1, router) ── 192.0.2.0/24, 2001:db8:2::/64
//! ```
//!
//! Tests add guests (.101 to .109) to the segment.
//!
//! Every lab has the same addresses: each lives in namespaces of its own, without an uplink.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::control::HostSpec;

/// The IP families of nodes, pods and Services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Families {
    /// IPv4 alone.
    Ipv4,
    /// IPv4 first, and IPv6.
    #[default]
    Dual,
}

/// A host of the lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// The bridge and router between all others.
    Hub,
    /// etcd, API server, controller manager, scheduler.
    ControlPlane,
    /// The host of a cloud's load balancers; see [`CLOUD_RANGE_V4`].
    Cloud,
    /// A machine on the nodes' segment.
    Client,
    /// A machine behind the router, on its own subnet.
    FarClient,
    /// The Nth node, from 1.
    Node(u8),
    /// The Nth further machine on the nodes' segment, from 1; see [`crate::Lab::add_guest`].
    Guest(u8),
}

/// Addresses for the cloud's load balancers: all of them are local to `cloud`.
pub const CLOUD_RANGE_V4: &str = "10.89.200.0/24";
/// The same in IPv6.
pub const CLOUD_RANGE_V6: &str = "fd89:0:0:200::/112";
/// The IPv4 addresses of all pods.
pub const PODS_V4: &str = "10.90.0.0/16";
/// The IPv6 addresses of all pods.
pub const PODS_V6: &str = "fd90::/56";
/// The hub's interface on the segment.
pub(crate) const BRIDGE: &str = "br0";
/// The addresses of Services.
pub(crate) const SERVICES_V4: &str = "10.96.0.0/16";
pub(crate) const SERVICES_V6: &str = "fd96::/112";
/// The Service `kubernetes`.
pub(crate) const API_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
/// The Service `kube-dns`.
pub const DNS_V4: &str = "10.96.0.10";
/// The Service `kube-dns`, in IPv6.
pub const DNS_V6: &str = "fd96::a";
/// The maximum number of nodes of a lab.
pub const MAX_NODES: u8 = 80;
/// The maximum number of guests of a lab.
pub const MAX_GUESTS: u8 = 9;

impl Families {
    pub(crate) fn both(self) -> bool {
        self == Self::Dual
    }

    /// `v4` alone, or both separated by a comma: the format of most Kubernetes flags.
    pub(crate) fn list(self, v4: impl std::fmt::Display, v6: impl std::fmt::Display) -> String {
        if self.both() {
            format!("{v4},{v6}")
        } else {
            v4.to_string()
        }
    }
}

impl Host {
    /// The host of that name, as in `lab exec`.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "hub" => Some(Self::Hub),
            "control-plane" => Some(Self::ControlPlane),
            "cloud" => Some(Self::Cloud),
            "client" => Some(Self::Client),
            "far-client" => Some(Self::FarClient),
            _ => {
                let numbered = |prefix, most| {
                    let number: u8 = name.strip_prefix(prefix)?.parse().ok()?;
                    (1..=most).contains(&number).then_some(number)
                };
                let node = numbered("node", MAX_NODES).map(Self::Node);
                node.or_else(|| numbered("guest", MAX_GUESTS).map(Self::Guest))
            }
        }
    }

    /// Its name; for a node also the name of the Node object.
    pub fn name(self) -> String {
        match self {
            Self::Hub => "hub".to_owned(),
            Self::ControlPlane => "control-plane".to_owned(),
            Self::Cloud => "cloud".to_owned(),
            Self::Client => "client".to_owned(),
            Self::FarClient => "far-client".to_owned(),
            Self::Node(number) => format!("node{number}"),
            Self::Guest(number) => format!("guest{number}"),
        }
    }

    fn last(self) -> u8 {
        match self {
            Self::Hub => 1,
            Self::ControlPlane | Self::FarClient => 2,
            Self::Cloud => 3,
            Self::Client => 100,
            Self::Node(number) => 10 + number,
            Self::Guest(number) => 100 + number,
        }
    }

    /// Its IPv4 address.
    pub fn v4(self) -> Ipv4Addr {
        match self {
            Self::FarClient => Ipv4Addr::new(192, 0, 2, self.last()),
            _ => Ipv4Addr::new(10, 89, 0, self.last()),
        }
    }

    /// Its IPv6 address. Its last group looks like the last byte of the IPv4 address.
    pub fn v6(self) -> Ipv6Addr {
        let last = u16::from_str_radix(&self.last().to_string(), 16).unwrap_or_default();
        match self {
            Self::FarClient => Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, last),
            _ => Ipv6Addr::new(0xfd89, 0, 0, 0, 0, 0, 0, last),
        }
    }

    /// Its addresses, IPv4 first.
    pub fn addresses(self, families: Families) -> Vec<IpAddr> {
        let mut all = vec![IpAddr::V4(self.v4())];
        if families.both() {
            all.push(IpAddr::V6(self.v6()));
        }
        all
    }

    /// The hub's end of its cable (a link's name has 15 bytes at most).
    pub(crate) fn cable(self) -> String {
        match self {
            Self::ControlPlane => "v-control".to_owned(),
            _ => format!("v-{}", self.name()),
        }
    }

    /// The host that the hub reaches by this interface; the hub itself for its bridge.
    pub(crate) fn at_cable(interface: &str) -> Option<Self> {
        match interface {
            BRIDGE => Some(Self::Hub),
            "v-control" => Some(Self::ControlPlane),
            _ => Self::named(interface.strip_prefix("v-")?),
        }
    }
}

/// The pod subnets of a node, IPv4 first.
pub(crate) fn pod_subnets(node: u8, families: Families) -> Vec<String> {
    let mut subnets = vec![format!("10.90.{node}.0/24")];
    if families.both() {
        subnets.push(format!("fd90:0:0:{node:x}::/64"));
    }
    subnets
}

/// The router of a node's pods, which is the node's own end of each pod's link: the first
/// address of each of its pod subnets, IPv4 first.
pub fn pod_gateways(node: u8, families: Families) -> Vec<IpAddr> {
    let mut gateways = vec![IpAddr::from([10, 90, node, 1])];
    if families.both() {
        gateways.push(IpAddr::from([0xfd90, 0, 0, u16::from(node), 0, 0, 0, 1]));
    }
    gateways
}

/// The routes to a node's pods, as lines for `ip -batch`.
pub(crate) fn pod_routes(verb: &str, node: u8, families: Families) -> Vec<String> {
    let via = Host::Node(node).addresses(families);
    let route = |(subnet, via)| format!("route {verb} {subnet} via {via}");
    pod_subnets(node, families)
        .into_iter()
        .zip(via)
        .map(route)
        .collect()
}

/// The commands that create the hub: once, before all others.
pub(crate) fn hub_setup(families: Families) -> Vec<String> {
    let mut lines = vec![
        "link set lo up".to_owned(),
        format!("link add {BRIDGE} type bridge"),
        format!("addr add 10.89.0.1/24 dev {BRIDGE}"),
        format!("link set {BRIDGE} up"),
        format!("route add {CLOUD_RANGE_V4} via {}", Host::Cloud.v4()),
    ];
    if families.both() {
        lines.push(format!("addr add fd89::1/64 dev {BRIDGE} nodad"));
        lines.push(format!(
            "route add {CLOUD_RANGE_V6} via {}",
            Host::Cloud.v6()
        ));
    }
    lines
}

/// Kernel settings of every host, below `/proc/sys`.
pub(crate) fn sysctls(forwards: bool) -> Vec<(String, String)> {
    let forward = if forwards { "1" } else { "0" };
    [
        ("net/ipv4/ip_forward", forward),
        ("net/ipv6/conf/all/forwarding", forward),
        ("net/ipv6/conf/default/forwarding", forward),
        // Answers may take another path than requests.
        ("net/ipv4/conf/all/rp_filter", "0"),
        ("net/ipv4/conf/default/rp_filter", "0"),
        // The plan makes addresses unique; duplicate detection would take a second for each.
        ("net/ipv6/conf/all/accept_dad", "0"),
        ("net/ipv6/conf/default/accept_dad", "0"),
        ("net/ipv4/conf/all/accept_redirects", "0"),
        ("net/ipv4/conf/default/accept_redirects", "0"),
        ("net/ipv4/conf/all/send_redirects", "0"),
        ("net/ipv4/conf/default/send_redirects", "0"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .to_vec()
}

fn host_sysctls(host: Host) -> Vec<(String, String)> {
    let mut all = sysctls(matches!(host, Host::Node(_)));
    if host == Host::Cloud {
        // A local route is enough to listen on an IPv4 address, but not on an IPv6 one.
        all.push(("net/ipv6/ip_nonlocal_bind".to_owned(), "1".to_owned()));
    }
    all
}

/// Connects a host: its link to the hub, addresses, routes. `nodes` are the existing nodes.
pub(crate) fn host_spec(host: Host, families: Families, nodes: &[u8]) -> HostSpec {
    let cable = host.cable();
    let links = vec![
        "link set lo up".to_owned(),
        format!("link add eth0 type veth peer name {cable} netns {{hub}}"),
        "link set eth0 up".to_owned(),
    ];
    let far = host == Host::FarClient;
    let mut hub_links = vec![];
    let mut routes = vec![format!("addr add {}/24 dev eth0", host.v4())];
    routes.push(format!(
        "route add default via {}",
        if far { "192.0.2.1" } else { "10.89.0.1" }
    ));
    if far {
        hub_links.push(format!("addr add 192.0.2.1/24 dev {cable}"));
    } else {
        hub_links.push(format!("link set {cable} master {BRIDGE}"));
    }
    hub_links.push(format!("link set {cable} up"));
    if families.both() {
        routes.push(format!("addr add {}/64 dev eth0 nodad", host.v6()));
        routes.push(format!(
            "route add default via {}",
            if far { "2001:db8:2::1" } else { "fd89::1" }
        ));
        if far {
            hub_links.push(format!("addr add 2001:db8:2::1/64 dev {cable} nodad"));
        }
    }
    match host {
        Host::Cloud => {
            routes.push(format!("route add local {CLOUD_RANGE_V4} dev lo"));
            if families.both() {
                routes.push(format!("route add local {CLOUD_RANGE_V6} dev lo"));
            }
        }
        Host::FarClient => {}
        _ => {
            routes.push(format!(
                "route add {CLOUD_RANGE_V4} via {}",
                Host::Cloud.v4()
            ));
            if families.both() {
                routes.push(format!(
                    "route add {CLOUD_RANGE_V6} via {}",
                    Host::Cloud.v6()
                ));
            }
        }
    }
    if let Host::Node(number) = host {
        hub_links.extend(pod_routes("replace", number, families));
        routes.extend(
            nodes
                .iter()
                .filter(|&&other| other != number)
                .flat_map(|&n| pod_routes("replace", n, families)),
        );
    }
    HostSpec {
        name: host.name(),
        cgroup: String::new(),
        scratch: vec![],
        binds: vec![],
        links,
        hub_links,
        routes,
        sysctls: host_sysctls(host),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for host in [
            Host::Hub,
            Host::ControlPlane,
            Host::Cloud,
            Host::Client,
            Host::FarClient,
            Host::Node(12),
            Host::Guest(MAX_GUESTS),
        ] {
            assert_eq!(Host::named(&host.name()), Some(host));
            assert!(host.cable().len() <= 15);
            assert!(host == Host::Hub || Host::at_cable(&host.cable()) == Some(host));
        }
        assert_eq!(Host::named("node0"), None);
        assert_eq!(Host::named("nodes"), None);
        assert_eq!(Host::named("guest10"), None);
    }

    #[test]
    fn addresses_read_alike_in_both_families() {
        let addresses = Host::Node(2).addresses(Families::Dual);
        assert_eq!(
            addresses
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>(),
            ["10.89.0.12", "fd89::12"]
        );
        assert_eq!(Host::Node(MAX_NODES).v4().to_string(), "10.89.0.90");
        assert_eq!(Host::Client.v6().to_string(), "fd89::100");
    }

    #[test]
    fn a_node_routes_to_the_pods_of_others_only() {
        let spec = host_spec(Host::Node(2), Families::Dual, &[1, 2]);
        assert!(
            spec.routes
                .contains(&"route replace 10.90.1.0/24 via 10.89.0.11".to_owned())
        );
        assert!(!spec.routes.iter().any(|line| line.contains("10.90.2.0")));
        assert!(
            spec.hub_links
                .contains(&"route replace fd90:0:0:2::/64 via fd89::12".to_owned())
        );
    }

    #[test]
    fn one_family_leaves_no_trace_of_the_other() {
        let spec = host_spec(Host::Node(1), Families::Ipv4, &[1, 2]);
        assert!(!format!("{spec:?}").contains("fd8"));
    }
}
