//! The families of addresses of a load balancer: its IP address type, its IPv6 addresses, and the prefixes with which
//! it reaches targets of IPv6 for clients of UDP.
//!
//! Sources: the model of `CreateLoadBalancer` and `SetSubnets` \[model\], "Update the IP address types for your Network
//! Load Balancer" and "Create a target group for your Network Load Balancer" \[docs\].
//!
//! What AWS does not document is strict here: a load balancer that has IPv6 addresses keeps those that it has, and what
//! belongs to dual stack goes with it.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use ipnet::Ipv6Net;

use super::placement::{Mapping, invalid};
use super::{LoadBalancer, is_udp};
use crate::state::network::Subnet;
use crate::state::{Cloud, Refusal, Result};

/// What a load balancer has of IPv6 in one subnet, as far as calls say it or report it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ipv6 {
    /// A chosen address.
    pub address: Option<Ipv6Addr>,
    /// The prefix for source NAT: `auto_assigned` or a range of 80 bits.
    pub prefix: Option<String>,
}

/// What a call says about families of addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stack {
    /// `ipv4` or `dualstack`.
    pub ip_address_type: Option<String>,
    /// `EnablePrefixForIpv6SourceNat`.
    pub source_nat: Option<bool>,
    /// By the ID of the subnet.
    pub ipv6: BTreeMap<String, Ipv6>,
}

/// What a load balancer will have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settled {
    pub(super) ip_address_type: String,
    pub(super) source_nat: bool,
    pub(super) ipv6: BTreeMap<String, Ipv6>,
}

/// The prefix that AWS chooses \[model\].
const AUTO: &str = "auto_assigned";
/// The length of a prefix for source NAT \[model\].
const PREFIX: u8 = 80;

// === impl Settled ===

impl Settled {
    /// What a new load balancer will have in these zones.
    pub(super) fn new(asked: Stack, zones: &BTreeMap<String, Mapping>) -> Self {
        let it = Self {
            ip_address_type: asked.ip_address_type.unwrap_or_else(|| "ipv4".into()),
            source_nat: asked.source_nat.unwrap_or(false),
            ipv6: asked.ipv6,
        };
        it.completed(zones)
    }

    /// Each subnet has a prefix, if there is source NAT.
    fn completed(mut self, zones: &BTreeMap<String, Mapping>) -> Self {
        for mapping in zones.values().filter(|_| self.source_nat) {
            let there = self.ipv6.entry(mapping.subnet.clone()).or_default();
            there.prefix.get_or_insert_with(|| AUTO.to_owned());
        }
        self.ipv6.retain(|_, it| *it != Ipv6::default());
        self
    }
}

// === impl Cloud ===

impl Cloud {
    /// `SetIpAddressType`. It knows nothing of source NAT: that is for `SetSubnets`.
    pub fn set_ip_address_type(&mut self, arn: &str, kind: &str) -> Result<String> {
        let there = self.load_balancer(arn)?;
        let asked = Stack {
            ip_address_type: Some(kind.to_owned()),
            ..Stack::default()
        };
        let settled = self.settled(there, &there.zones, asked)?;
        self.settle(arn, settled);
        Ok(kind.to_owned())
    }

    /// What a load balancer will have in these zones, if it can.
    pub(super) fn settled(
        &self,
        there: &LoadBalancer,
        zones: &BTreeMap<String, Mapping>,
        asked: Stack,
    ) -> Result<Settled> {
        let kind = asked.ip_address_type;
        let kind = kind.unwrap_or_else(|| there.ip_address_type.clone());
        let dual = kind == "dualstack";
        // Without UDP listeners, source NAT goes with dual stack.
        let kept = there.source_nat && (dual || self.udp_listener_of(&there.arn).is_some());
        let source_nat = asked.source_nat.unwrap_or(kept);
        let mut ipv6 = asked.ipv6;
        for mapping in zones.values() {
            let Some(before) = there.ipv6.get(&mapping.subnet) else {
                continue;
            };
            let now = ipv6.entry(mapping.subnet.clone()).or_default();
            now.address = now.address.or(before.address.filter(|_| dual));
            let prefix = before.prefix.clone().filter(|_| source_nat);
            now.prefix = now.prefix.take().or(prefix);
        }
        let settled = Settled {
            ip_address_type: kind,
            source_nat,
            ipv6,
        };
        let settled = settled.completed(zones);
        self.check_stack(Some(there), zones, &settled)?;
        Ok(settled)
    }

    /// Whether a load balancer can have this in these zones.
    pub(super) fn check_stack(
        &self,
        there: Option<&LoadBalancer>,
        zones: &BTreeMap<String, Mapping>,
        settled: &Settled,
    ) -> Result<()> {
        let kind = settled.ip_address_type.as_str();
        self.check_ip_address_type(kind, zones)?;
        // \[model\]
        if settled.source_nat && kind != "dualstack" {
            return Err(invalid(
                "A prefix for IPv6 source NAT needs the IP address type dualstack",
            ));
        }
        if let Some(there) = there {
            self.check_listeners_with(there, settled)?;
        }
        for (id, ipv6) in &settled.ipv6 {
            let subnet = self.known_subnet(id)?;
            if !zones.values().any(|mapping| mapping.subnet == *id) {
                return Err(invalid(format!("{id} is no subnet of the load balancer")));
            }
            if let Some(prefix) = &ipv6.prefix {
                check_prefix(settled, subnet, prefix)?;
            }
            if let Some(address) = ipv6.address {
                self.check_ipv6_address(there, settled, subnet, address)?;
            }
        }
        Ok(())
    }

    /// Whether the listeners and rules of a load balancer can stay as they are.
    fn check_listeners_with(&self, there: &LoadBalancer, settled: &Settled) -> Result<()> {
        let kind = settled.ip_address_type.as_str();
        // \[docs\]
        if kind != "dualstack" && self.number_of_rules(&there.arn) > 0 {
            return Err(invalid(
                "A load balancer whose listeners have rules must stay dualstack",
            ));
        }
        let dual_udp = self.udp_listener_of(&there.arn);
        if let Some(protocol) = dual_udp.filter(|_| kind == "dualstack" && !settled.source_nat) {
            return Err(invalid(format!(
                "A {protocol} listener of a dualstack load balancer needs a prefix for IPv6 source NAT"
            )));
        }
        for (listener, group) in self.uses_of_groups() {
            if listener.load_balancer == there.arn {
                self.check_family_of(kind, &listener.protocol, self.target_group(group)?)?;
            }
        }
        Ok(())
    }

    /// The protocol of a listener that receives UDP.
    fn udp_listener_of(&self, load_balancer: &str) -> Option<&str> {
        let of = |it: &&crate::state::listeners::Listener| it.load_balancer == load_balancer;
        let mut listeners = self.listeners.values().filter(of);
        let found = listeners.find(|it| is_udp(&it.protocol))?;
        Some(&found.protocol)
    }

    /// Dual stack needs IPv6 in all subnets \[docs\].
    fn check_ip_address_type(&self, kind: &str, zones: &BTreeMap<String, Mapping>) -> Result<()> {
        if !["ipv4", "dualstack"].contains(&kind) {
            return Err(Refusal::validation(format!(
                "The IP address type '{kind}' is not valid"
            )));
        }
        for mapping in zones.values().filter(|_| kind == "dualstack") {
            if self.known_subnet(&mapping.subnet)?.ipv6_cidr.is_none() {
                let message = format!("Subnet {} has no IPv6 addresses", mapping.subnet);
                return Err(Refusal::new("InvalidSubnet", message));
            }
        }
        Ok(())
    }

    fn check_ipv6_address(
        &self,
        there: Option<&LoadBalancer>,
        settled: &Settled,
        subnet: &Subnet,
        address: Ipv6Addr,
    ) -> Result<()> {
        if settled.ip_address_type != "dualstack" {
            return Err(invalid(
                "IPv6 addresses can be specified only for dualstack load balancers",
            ));
        }
        let present = there.and_then(|there| self.ipv6_of(&there.arn, &subnet.id));
        match present {
            Some(present) if present == address => return Ok(()),
            Some(_) => {
                return Err(invalid(format!(
                    "The addresses in '{}' cannot be changed",
                    subnet.id
                )));
            }
            None => {}
        }
        let inside = |net: &Ipv6Net| net.contains(&address) && !is_reserved(net, address);
        if !subnet.ipv6_cidr.as_ref().is_some_and(inside) {
            return Err(invalid(format!(
                "The IPv6 address {address} is not available in subnet {}",
                subnet.id
            )));
        }
        if self.uses_ipv6(address) {
            let message = format!("The IPv6 address {address} is in use");
            return Err(Refusal::new("ResourceInUse", message));
        }
        Ok(())
    }

    /// The IPv6 address of a load balancer in a subnet.
    fn ipv6_of(&self, load_balancer: &str, subnet: &str) -> Option<Ipv6Addr> {
        let mut interfaces = self.interfaces.values();
        let of = |it: &&crate::state::network::Interface| {
            it.load_balancer == load_balancer && it.subnet == subnet && it.gone.is_none()
        };
        interfaces.find(of)?.ipv6
    }

    /// Writes down what a load balancer has, and gives its interfaces addresses.
    pub(super) fn settle(&mut self, arn: &str, settled: Settled) {
        let dual = settled.ip_address_type == "dualstack";
        let Some(there) = self.load_balancers.get_mut(arn) else {
            return;
        };
        there.ip_address_type = settled.ip_address_type;
        there.source_nat = settled.source_nat;
        there.ipv6.clone_from(&settled.ipv6);
        let live = self.interfaces.values();
        let live = live.filter(|it| it.load_balancer == arn && it.gone.is_none());
        let live: Vec<_> = live
            .map(|it| (it.id.clone(), it.subnet.clone(), it.ipv6))
            .collect();
        for (id, subnet, present) in live {
            let chosen = settled.ipv6.get(&subnet).and_then(|it| it.address);
            let address = match chosen.or(present) {
                _ if !dual => None,
                Some(address) => Some(address),
                None => self.unused_ipv6(&subnet),
            };
            if let Some(interface) = self.interfaces.get_mut(&id) {
                interface.ipv6 = address;
            }
        }
    }

    /// An IPv6 address of the subnet that nothing uses.
    fn unused_ipv6(&self, subnet: &str) -> Option<Ipv6Addr> {
        let net = self.subnets.get(subnet)?.ipv6_cidr?;
        let mut free = net.hosts();
        free.find(|address| !is_reserved(&net, *address) && !self.uses_ipv6(*address))
    }

    /// Whether an interface or an instance has the address.
    fn uses_ipv6(&self, address: Ipv6Addr) -> bool {
        self.interfaces.values().any(|it| it.ipv6 == Some(address))
            || self.instances.values().any(|it| it.ipv6 == Some(address))
    }
}

/// AWS keeps the first four addresses of a subnet and the last one \[docs\].
fn is_reserved(net: &Ipv6Net, address: Ipv6Addr) -> bool {
    let offset = address.to_bits() - net.network().to_bits().min(address.to_bits());
    offset < 4 || address == net.broadcast()
}

fn check_prefix(settled: &Settled, subnet: &Subnet, prefix: &str) -> Result<()> {
    if !settled.source_nat {
        return Err(invalid(
            "A prefix for source NAT can be specified only if IPv6 source NAT is on",
        ));
    }
    let net: Option<Ipv6Net> = prefix.parse().ok();
    let range = net.filter(|net| net.prefix_len() == PREFIX && net.trunc() == *net);
    let inside = |net: Ipv6Net| (subnet.ipv6_cidr).is_some_and(|cidr| cidr.contains(&net));
    if prefix == AUTO || range.is_some_and(inside) {
        return Ok(());
    }
    Err(invalid(format!(
        "The prefix '{prefix}' is not '{AUTO}' and no range of {PREFIX} bits in subnet {}",
        subnet.id
    )))
}
