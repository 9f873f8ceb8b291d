//! Which addresses a load balancer gets, and why not.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

use super::Cloud;
use crate::address::{Denied, describe};
use crate::api::{Code, Family, Problem, PutLoadBalancer, TargetSetBody};
use crate::server::record;

// === impl Cloud ===

impl Cloud {
    /// Chooses one address per family: the requested one, otherwise the held one, otherwise a
    /// preferred one that is free, otherwise any.
    pub(super) fn addresses(
        &self,
        name: &str,
        held: &[IpAddr],
        body: &PutLoadBalancer,
    ) -> Result<Vec<IpAddr>, Problem> {
        // A controller whose cloud lost its state avoids thousands.
        let avoid: HashSet<IpAddr> = body.avoid_addresses.iter().copied().collect();
        let of = |addresses: &[IpAddr], family: Family| {
            let found = addresses.iter().find(|ip| Family::of(**ip) == family);
            found.copied()
        };
        let one = |family: Family| {
            if let Some(requested) = of(&body.desired.requested_addresses, family) {
                return self.allocator.request(requested, name);
            }
            if let Some(held) = of(held, family) {
                return Ok(held);
            }
            if let Some(preferred) = of(&body.preferred_addresses, family)
                && let Ok(address) = self.allocator.request(preferred, name)
            {
                return Ok(address);
            }
            self.allocator.choose(family, &avoid)
        };
        let families = body.desired.families.iter();
        let each = families.map(|family| (*family, one(*family)));
        let (mut found, mut first) = (Vec::new(), None);
        for (family, result) in each {
            let requested = of(&body.desired.requested_addresses, family).is_some();
            match result {
                Ok(address) => found.push(address),
                Err(denied) if body.desired.any_family && !requested => {
                    first = first.or(Some(denied));
                }
                Err(denied) => return Err(self.denied(&denied, &body.desired.tags)),
            }
        }
        match first {
            Some(denied) if found.is_empty() => Err(self.denied(&denied, &body.desired.tags)),
            _ => Ok(found),
        }
    }

    /// Describes why an address is denied, for the owner of a load balancer with these tags.
    fn denied(&self, denied: &Denied, tags: &BTreeMap<String, String>) -> Problem {
        let ranges = describe(&self.rules.ranges);
        match denied {
            Denied::Held { address, holder } => {
                let holders = self.record(holder).map(|record| &record.desired.tags);
                let whose = record::described(holder, holders, tags);
                Problem::new(
                    Code::AddressInUse,
                    format!("the requested address {address} belongs to {whose}"),
                )
            }
            Denied::Node { address } => Problem::new(
                Code::AddressInUse,
                format!("the requested address {address} belongs to a node"),
            ),
            Denied::Outside { address } => Problem::new(
                Code::NoAddressAvailable,
                format!(
                    "the requested address {address} is in none of the mock cloud's ranges ({ranges})"
                ),
            ),
            Denied::Exhausted {
                family,
                has_range: true,
            } => Problem::new(
                Code::NoAddressAvailable,
                format!(
                    "no {family} address is free in the mock cloud's ranges ({ranges}); add one with --addresses"
                ),
            ),
            Denied::Exhausted {
                family,
                has_range: false,
            } => Problem::new(
                Code::NoAddressAvailable,
                format!(
                    "the mock cloud has no {family} range (it has {ranges}); add one with --addresses"
                ),
            ),
        }
    }

    /// No load balancer gets an address of a machine, of whatever cluster it is.
    pub(super) fn exclude_nodes(&mut self) {
        let sets = self.target_sets.values();
        self.allocator
            .exclude(sets.flat_map(addresses_of).collect());
    }
}

fn addresses_of(set: &TargetSetBody) -> impl Iterator<Item = IpAddr> + '_ {
    let targets = set.targets.iter();
    let targets = targets.flat_map(|target| target.addresses.iter().copied());
    targets.chain(set.node_addresses.iter().copied())
}
