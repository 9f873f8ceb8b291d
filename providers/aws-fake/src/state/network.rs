//! What load balancers stand on: VPCs, zones, subnets, route tables, instances, prefix lists,
//! addresses and network interfaces. Calls only describe them; tests make them.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

use super::{Cloud, Moment, Refusal, Result, Tags};

/// A virtual network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vpc {
    /// Its ID.
    pub id: String,
    /// Its addresses.
    pub cidr: Ipv4Net,
}

/// A zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    /// Its name, such as `eu-central-1a`.
    pub name: String,
    /// Its ID, such as `euc1-az2`.
    pub id: String,
    /// `availability-zone`, `local-zone` or `wavelength-zone`.
    pub kind: String,
    /// `available` or what is wrong with it.
    pub state: String,
}

/// A subnet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subnet {
    /// Its ID.
    pub id: String,
    /// The account that owns it; others may share it.
    pub owner: String,
    /// The ID of its VPC.
    pub vpc: String,
    /// The name of its zone.
    pub zone: String,
    /// Its addresses.
    pub cidr: Ipv4Net,
    /// Its addresses of the other family.
    pub ipv6_cidr: Option<Ipv6Net>,
    /// The free addresses while no load balancer uses it.
    pub free: u32,
    /// Its tags.
    pub tags: Tags,
}

/// One route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where the packets go.
    pub destination: String,
    /// The ID of the next hop, such as `local`, `igw-…` or `nat-…`.
    pub via: String,
}

/// A route table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteTable {
    /// Its ID.
    pub id: String,
    /// The ID of its VPC.
    pub vpc: String,
    /// Whether it serves the subnets of the VPC that no other table names.
    pub main: bool,
    /// The IDs of its subnets.
    pub subnets: BTreeSet<String>,
    /// Its routes.
    pub routes: Vec<Route>,
    /// Its tags.
    pub tags: Tags,
}

/// An instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Its ID.
    pub id: String,
    /// `pending`, `running`, `shutting-down`, `terminated`, `stopping` or `stopped`.
    pub state: String,
    /// The ID of its subnet.
    pub subnet: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// Its address of the other family.
    pub ipv6: Option<Ipv6Addr>,
    /// The IDs of its security groups.
    pub groups: Vec<String>,
    /// Whether health checks succeed.
    pub healthy: bool,
    /// Its tags.
    pub tags: Tags,
}

/// A prefix list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrefixList {
    /// Its ID.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The account that owns it, or `AWS`.
    pub owner: String,
    /// `IPv4` or `IPv6`.
    pub family: String,
    /// The number of rules for which it counts.
    pub max_entries: usize,
}

/// An Elastic IP address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Its allocation ID.
    pub id: String,
    /// The address.
    pub ip: Ipv4Addr,
}

/// A network interface of a load balancer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its ID.
    pub id: String,
    /// The ARN of its load balancer.
    pub load_balancer: String,
    /// Its description, as AWS writes it.
    pub description: String,
    /// The ID of its subnet.
    pub subnet: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// Its address of the other family, if its load balancer is dualstack.
    pub ipv6: Option<Ipv6Addr>,
    /// The allocation ID of its Elastic IP address.
    pub allocation: Option<String>,
    /// The IDs of its security groups.
    pub groups: Vec<String>,
    /// When it will be gone, if its load balancer does not need it any more.
    pub gone: Option<Moment>,
}

// === impl Subnet ===

impl Subnet {
    /// Whether an address is one of its own.
    pub fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => self.cidr.contains(&v4),
            IpAddr::V6(v6) => self.ipv6_cidr.is_some_and(|net| net.contains(&v6)),
        }
    }
}

// === impl Cloud ===

impl Cloud {
    /// Adds or replaces a VPC.
    pub fn put_vpc(&mut self, vpc: Vpc) {
        self.vpcs.insert(vpc.id.clone(), vpc);
    }

    /// Adds or replaces a zone.
    pub fn put_zone(&mut self, zone: Zone) {
        self.zones.insert(zone.name.clone(), zone);
    }

    /// Adds or replaces a subnet.
    pub fn put_subnet(&mut self, subnet: Subnet) {
        self.subnets.insert(subnet.id.clone(), subnet);
    }

    /// Adds or replaces a route table.
    pub fn put_route_table(&mut self, table: RouteTable) {
        self.route_tables.insert(table.id.clone(), table);
    }

    /// Adds or replaces an instance.
    pub fn put_instance(&mut self, instance: Instance) {
        self.instances.insert(instance.id.clone(), instance);
    }

    /// Adds or replaces a prefix list.
    pub fn put_prefix_list(&mut self, list: PrefixList) {
        self.prefix_lists.insert(list.id.clone(), list);
    }

    /// Adds or replaces an Elastic IP address.
    pub fn put_address(&mut self, address: Address) {
        self.addresses.insert(address.id.clone(), address);
    }

    /// The free addresses of a subnet.
    pub fn free_addresses(&self, subnet: &Subnet) -> u32 {
        let used = (self.interfaces.values()).filter(|one| one.subnet == subnet.id);
        let used = u32::try_from(used.count()).unwrap_or(u32::MAX);
        subnet.free.saturating_sub(used)
    }

    /// Whether the VPC has a way to the internet.
    pub(super) fn has_internet_gateway(&self, vpc: &str) -> bool {
        let tables = self.route_tables.values().filter(|table| table.vpc == vpc);
        let mut routes = tables.flat_map(|table| &table.routes);
        routes.any(|route| route.via.starts_with("igw-"))
    }

    /// An address of the subnet that nothing uses.
    pub(super) fn unused_address(&self, subnet: &Subnet) -> Result<Ipv4Addr> {
        // AWS keeps the first four addresses.
        let mut hosts = subnet.cidr.hosts().skip(3);
        let found = hosts.find(|address| !self.uses(*address));
        found.ok_or_else(|| not_enough_space(&subnet.id))
    }

    /// Whether an interface or an instance has the address.
    pub(super) fn uses(&self, address: Ipv4Addr) -> bool {
        self.interfaces.values().any(|one| one.address == address)
            || self.instances.values().any(|one| one.address == address)
    }

    /// Deletes the interfaces whose time has come.
    pub(super) fn drop_interfaces(&mut self, now: Moment) {
        let due = self.interfaces.values();
        let due: Vec<String> = due
            .filter(|one| one.gone.is_some_and(|gone| gone <= now))
            .map(|one| one.id.clone())
            .collect();
        for id in due {
            self.interfaces.remove(&id, now);
        }
    }
}

/// \[seen\]
pub(super) fn not_enough_space(subnet: &str) -> Refusal {
    let message = format!(
        "Not enough IP space available in {subnet}. ELB requires at least 8 free IP addresses in each subnet."
    );
    Refusal::new("InvalidSubnet", message)
}
