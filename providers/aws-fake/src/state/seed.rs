//! A network as most accounts have it, for tests.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

use super::network::{Instance, PrefixList, Route, RouteTable, Subnet, Vpc, Zone};
use super::security_groups::SecurityGroup;
use super::{Cloud, Tags};

/// The ID of the VPC.
pub const VPC: &str = "vpc-0ba11a57";
/// The ID of the security group of the nodes.
pub const NODE_GROUP: &str = "sg-0000000000000node";

/// What [`Cloud::seed`] makes: one VPC, and in each zone a public subnet, a private one, and
/// nodes in the private one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// The number of zones, at most 26.
    pub zones: u8,
    /// The number of nodes, spread over the zones.
    pub nodes: u16,
    /// The name of the cluster, for the tags `kubernetes.io/cluster/…`.
    pub cluster: String,
    /// Whether subnets have the tags `kubernetes.io/role/…elb`.
    pub roles: bool,
    /// Whether subnets and nodes have IPv6 addresses, too.
    pub dualstack: bool,
}

// === impl Network ===

impl Default for Network {
    fn default() -> Self {
        Self {
            zones: 3,
            nodes: 3,
            cluster: "test".into(),
            roles: true,
            dualstack: false,
        }
    }
}

// === impl Cloud ===

impl Cloud {
    /// Makes a network. Subnets are called `subnet-public-a` and `subnet-private-a`, nodes
    /// `i-00000001` and so on. With IPv6, the subnet `10.0.100.0/24` is `2001:db8:0:64::/64`, and the
    /// node with the number 1 has `…::1:1` in its subnet.
    pub fn seed(&mut self, network: &Network) {
        self.put_vpc(Vpc {
            id: VPC.into(),
            cidr: net(0, 16),
        });
        let owned = (
            format!("kubernetes.io/cluster/{}", network.cluster),
            "owned".to_owned(),
        );
        let mut public = RouteTable {
            id: "rtb-public".into(),
            vpc: VPC.into(),
            main: false,
            subnets: std::collections::BTreeSet::new(),
            routes: vec![route("10.0.0.0/16", "local"), route("0.0.0.0/0", "igw-01")],
            tags: Tags::new(),
        };
        if network.dualstack {
            public.routes.push(route("2001:db8::/56", "local"));
            public.routes.push(route("::/0", "igw-01"));
        }
        for index in 0..network.zones.min(26) {
            let letter = char::from(b'a' + index);
            let zone = format!("{}{letter}", self.settings.region);
            self.put_zone(Zone {
                name: zone.clone(),
                id: format!("az{}", index + 1),
                kind: "availability-zone".into(),
                state: "available".into(),
            });
            for (kind, third, role) in [
                ("public", index, "kubernetes.io/role/elb"),
                ("private", index + 100, "kubernetes.io/role/internal-elb"),
            ] {
                let mut tags: Tags = [owned.clone()].into();
                if network.roles {
                    tags.insert(role.into(), "1".into());
                }
                let id = format!("subnet-{kind}-{letter}");
                if kind == "public" {
                    public.subnets.insert(id.clone());
                }
                self.put_subnet(Subnet {
                    id,
                    owner: self.settings.account.clone(),
                    vpc: VPC.into(),
                    zone: zone.clone(),
                    cidr: net(third, 24),
                    ipv6_cidr: network.dualstack.then(|| net_of_ipv6(third)),
                    free: 251,
                    tags,
                });
            }
        }
        self.put_route_table(public);
        self.put_route_table(RouteTable {
            id: "rtb-main".into(),
            vpc: VPC.into(),
            main: true,
            subnets: std::collections::BTreeSet::new(),
            routes: vec![route("10.0.0.0/16", "local"), route("0.0.0.0/0", "nat-01")],
            tags: Tags::new(),
        });
        let group = SecurityGroup {
            id: NODE_GROUP.into(),
            name: "nodes".into(),
            description: "The nodes of the cluster".into(),
            vpc: VPC.into(),
            owner: self.settings.account.clone(),
            ingress: Vec::new(),
            tags: [owned.clone()].into(),
        };
        self.security_groups.put(group.id.clone(), group);
        for number in 1..=network.nodes {
            self.add_node(number, network);
        }
        self.put_prefix_list(PrefixList {
            id: "pl-offices".into(),
            name: "offices".into(),
            owner: self.settings.account.clone(),
            family: "IPv4".into(),
            max_entries: 10,
        });
    }

    /// One more node of such a network.
    pub fn add_node(&mut self, number: u16, network: &Network) -> String {
        let index = u8::try_from((number - 1) % u16::from(network.zones.max(1))).unwrap_or(0);
        let letter = char::from(b'a' + index);
        let [high, low] = (number + 100).to_be_bytes();
        let id = format!("i-{number:08}");
        self.put_instance(Instance {
            id: id.clone(),
            state: "running".into(),
            subnet: format!("subnet-private-{letter}"),
            address: Ipv4Addr::new(10, 0, 100 + index + high, low),
            ipv6: (network.dualstack).then(|| ipv6(100 + index, [1, number])),
            groups: vec![NODE_GROUP.into()],
            healthy: true,
            tags: [
                ("Name".into(), format!("node-{number}")),
                (
                    format!("kubernetes.io/cluster/{}", network.cluster),
                    "owned".into(),
                ),
            ]
            .into(),
        });
        id
    }
}

fn net(third: u8, length: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(10, 0, third, 0), length)
}

fn net_of_ipv6(third: u8) -> Ipv6Net {
    Ipv6Net::new_assert(ipv6(third, [0, 0]), 64)
}

fn ipv6(third: u8, [high, low]: [u16; 2]) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, third.into(), 0, 0, high, low)
}

fn route(destination: &str, via: &str) -> Route {
    Route {
        destination: destination.into(),
        via: via.into(),
    }
}
