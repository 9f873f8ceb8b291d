//! In which subnets a load balancer is, and with which addresses.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use super::super::network::{Subnet, not_enough_space};
use super::super::{Cloud, Moment, Refusal, Result};
use super::{LoadBalancer, Stack};

/// What a load balancer has in one zone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mapping {
    /// The ID of the subnet.
    pub subnet: String,
    /// The allocation ID of an Elastic IP address.
    pub allocation: Option<String>,
    /// A private address.
    pub private_address: Option<Ipv4Addr>,
}

/// The free addresses that AWS asks for \[docs\].
const FREE: u32 = 8;

/// Whether two placements are equal, as far as a caller chose them.
pub(super) fn same(there: &BTreeMap<String, Mapping>, asked: &BTreeMap<String, Mapping>) -> bool {
    there == asked
}

// === impl Cloud ===

impl Cloud {
    /// `SetSubnets`: the complete list. A zone cannot change its subnet \[seen\]; zones can be
    /// added and, since 2023, removed. A zone gets another subnet only after the removal of the
    /// first one has come to its end \[docs\].
    pub fn set_subnets(
        &mut self,
        now: Moment,
        arn: &str,
        subnets: &[Mapping],
        stack: Stack,
    ) -> Result<LoadBalancer> {
        let there = self.load_balancer(arn)?.clone();
        let zones = self.zones_of(subnets)?;
        if self.vpc_of(&zones)? != there.vpc {
            return Err(invalid(
                "The subnets are not in the VPC of the load balancer",
            ));
        }
        let mut added = BTreeMap::new();
        for (zone, mapping) in &zones {
            match there.zones.get(zone) {
                None => {
                    if self.leaves(arn, zone) {
                        return Err(invalid(format!(
                            "The removal of a subnet in '{zone}' is in progress"
                        )));
                    }
                    added.insert(zone.clone(), mapping.clone());
                }
                Some(now) if now.subnet != mapping.subnet => {
                    return Err(invalid(format!(
                        "You cannot specify an additional subnet from an Availability Zone that is already associated with the load balancer. The Availability Zone '{zone}' corresponding to the new subnet '{}' is already associated with the load balancer.",
                        mapping.subnet
                    )));
                }
                Some(now) => {
                    let other = |asked: bool, equal: bool| asked && !equal;
                    if other(
                        mapping.allocation.is_some(),
                        mapping.allocation == now.allocation,
                    ) || other(
                        mapping.private_address.is_some(),
                        mapping.private_address == now.private_address,
                    ) {
                        return Err(invalid(format!(
                            "The addresses in '{}' cannot be changed",
                            mapping.subnet
                        )));
                    }
                }
            }
        }
        self.check_mappings(&there.scheme, &there.vpc, &added)?;
        let settled = self.settled(&there, &zones, stack)?;
        self.disable_zones(arn, now, |mapping| {
            !zones.values().any(|asked| asked.subnet == mapping.subnet)
        });
        self.enable_zones(arn, added, now)?;
        self.settle(arn, settled);
        self.note_use(now);
        self.load_balancer(arn).cloned()
    }

    /// Whether a load balancer still has an interface in a zone that it has left.
    fn leaves(&self, load_balancer: &str, zone: &str) -> bool {
        let subnet = |id: &str| self.subnets.get(id).map(|subnet| subnet.zone.as_str());
        self.interfaces.values().any(|one| {
            one.load_balancer == load_balancer
                && one.gone.is_some()
                && subnet(&one.subnet) == Some(zone)
        })
    }

    /// The zones of subnets. There is at least one, and at most one for each zone \[model\].
    pub(super) fn zones_of(&self, subnets: &[Mapping]) -> Result<BTreeMap<String, Mapping>> {
        if subnets.is_empty() {
            // \[seen\]
            return Err(Refusal::validation("At least one subnet must be specified"));
        }
        let mut zones = BTreeMap::new();
        for mapping in subnets {
            let subnet = self.known_subnet(&mapping.subnet)?;
            if zones.insert(subnet.zone.clone(), mapping.clone()).is_some() {
                // \[seen\]
                return Err(invalid(
                    "A load balancer cannot be attached to multiple subnets in the same Availability Zone",
                ));
            }
        }
        Ok(zones)
    }

    pub(super) fn vpc_of(&self, zones: &BTreeMap<String, Mapping>) -> Result<String> {
        let mut vpc = None;
        for mapping in zones.values() {
            let subnet = self.known_subnet(&mapping.subnet)?;
            if vpc.get_or_insert(&subnet.vpc) != &&subnet.vpc {
                return Err(invalid("All subnets must belong to the same VPC"));
            }
        }
        Ok(vpc.cloned().unwrap_or_default())
    }

    /// Whether new zones can be as they are asked for.
    pub(super) fn check_mappings(
        &self,
        scheme: &str,
        vpc: &str,
        zones: &BTreeMap<String, Mapping>,
    ) -> Result<()> {
        let internet = scheme == "internet-facing";
        if internet && !self.has_internet_gateway(vpc) {
            // \[seen\]
            let message = format!("VPC {vpc} has no internet gateway");
            return Err(Refusal::new("InvalidSubnet", message));
        }
        let elastic = zones.values().filter(|it| it.allocation.is_some()).count();
        if elastic > 0 && elastic < zones.len() {
            return Err(invalid(
                "Elastic IP addresses must be specified for all subnets or for none",
            ));
        }
        for (zone, mapping) in zones {
            let subnet = self.known_subnet(&mapping.subnet)?;
            let kind = self.zones.get(zone).map(|zone| zone.kind.as_str());
            // \[docs\]: no local zones.
            if kind.is_some_and(|kind| kind != "availability-zone") {
                let message = format!("The zone {zone} is not supported");
                return Err(Refusal::new("AvailabilityZoneNotSupported", message));
            }
            if mapping.private_address.is_none() && self.free_addresses(subnet) < FREE {
                return Err(not_enough_space(&subnet.id));
            }
            self.check_elastic(internet, mapping)?;
            self.check_private(internet, mapping, subnet)?;
        }
        Ok(())
    }

    fn check_elastic(&self, internet: bool, mapping: &Mapping) -> Result<()> {
        let Some(id) = &mapping.allocation else {
            return Ok(());
        };
        if !internet {
            return Err(invalid(
                "Elastic IP addresses can be specified only for internet-facing load balancers",
            ));
        }
        if !self.addresses.contains_key(id) {
            let message = format!("The allocation ID '{id}' does not exist");
            return Err(Refusal::new("AllocationIdNotFound", message));
        }
        let mut interfaces = self.interfaces.values();
        if interfaces.any(|one| one.allocation.as_ref() == Some(id)) {
            let message = format!("The allocation ID '{id}' is in use");
            return Err(Refusal::new("ResourceInUse", message));
        }
        Ok(())
    }

    fn check_private(&self, internet: bool, mapping: &Mapping, subnet: &Subnet) -> Result<()> {
        let Some(address) = mapping.private_address else {
            return Ok(());
        };
        if internet {
            return Err(invalid(
                "Private addresses can be specified only for internal load balancers",
            ));
        }
        let reserved = subnet.cidr.hosts().take(3).any(|one| one == address);
        let host = subnet.cidr.hosts().any(|one| one == address);
        if !host || reserved {
            return Err(invalid(format!(
                "The private address {address} is not available in subnet {}",
                subnet.id
            )));
        }
        if self.uses(address) {
            let message = format!("The private address {address} is in use");
            return Err(Refusal::new("ResourceInUse", message));
        }
        Ok(())
    }

    pub(super) fn known_subnet(&self, id: &str) -> Result<&Subnet> {
        self.subnets.get(id).ok_or_else(|| {
            // \[seen\]
            let message = format!("The subnet ID '{id}' does not exist");
            Refusal::new("SubnetNotFound", message)
        })
    }
}

pub(super) fn invalid(message: impl Into<String>) -> Refusal {
    Refusal::new("InvalidConfigurationRequest", message)
}
