//! The subnets of a load balancer, with the addresses that it uses in them.

use ballast_provider::Refusal;

use super::{LookedUp, Subnet};
use crate::annotations::{PREFIX, invalid};
use crate::settings::Settings;

pub(super) fn of(settings: &Settings, found: &LookedUp) -> Result<Vec<Subnet>, Refusal> {
    if found.subnets.is_empty() {
        return Err(invalid(format!(
            "annotation {PREFIX}subnets: no subnet was found"
        )));
    }
    for (name, addresses) in [
        ("eip-allocations", settings.elastic_addresses.len()),
        ("private-ipv4-addresses", settings.private_addresses.len()),
    ] {
        if addresses > 0 && addresses != found.subnets.len() {
            return Err(invalid(format!(
                "annotation {PREFIX}{name} has {addresses} entries for {} subnets: each subnet needs one, in the same order",
                found.subnets.len()
            )));
        }
    }
    for (at, subnet) in found.subnets.iter().enumerate() {
        if let Some(same) = found.subnets[..at].iter().find(|it| it.zone == subnet.zone) {
            return Err(invalid(format!(
                "annotation {PREFIX}subnets: {} and {} are both in zone {}; a load balancer has one subnet in each zone",
                same.id, subnet.id, subnet.zone
            )));
        }
    }
    let numbered = found.subnets.iter().enumerate();
    Ok(numbered
        .map(|(at, found)| Subnet {
            id: found.id.clone(),
            zone: found.zone.clone(),
            elastic_address: settings.elastic_addresses.get(at).cloned(),
            private_address: settings.private_addresses.get(at).copied(),
        })
        .collect())
}
