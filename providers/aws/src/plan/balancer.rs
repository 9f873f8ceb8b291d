//! The load balancer itself: its subnets, security groups and attributes. Pure.

use std::collections::{BTreeMap, BTreeSet};

use ballast_provider::{Reason, Refusal};

use super::differences::changes;
use super::{Plan, load_balancer};
use crate::call::{Call, Ref};
use crate::desired::{Addresses, Desired, Subnet};
use crate::observed::ObservedLoadBalancer;
use crate::settings::attributes;

// === impl Plan ===

impl Plan {
    /// The load balancer itself, without listeners and tags.
    pub(super) fn load_balancer(
        &mut self,
        desired: &Desired,
        present: Option<&ObservedLoadBalancer>,
        security_groups: &[Ref],
    ) {
        let this = load_balancer(desired, present);
        let Some(there) = present else {
            self.calls.push(Call::CreateLoadBalancer {
                name: desired.name.clone(),
                scheme: desired.scheme,
                addresses: desired.addresses,
                subnets: desired.subnets.clone(),
                security_groups: security_groups.to_vec(),
                tags: desired.tags.clone(),
            });
            // AWS creates no load balancer without them.
            if !desired.private_link_rules {
                self.set_groups(desired, this.clone(), security_groups);
            }
            self.attributes(desired, this, &BTreeMap::new());
            return;
        };
        self.subnets(desired, there);
        let known: Option<BTreeSet<&str>> = security_groups.iter().map(Ref::known).collect();
        let same = known.is_some_and(|known| known.iter().eq(there.groups.iter()));
        let has_none = security_groups.is_empty() && there.groups.is_empty();
        if has_none {
            // It was made so, and stays so.
        } else if !same || there.private_link_rules != desired.private_link_rules {
            self.set_groups(desired, this.clone(), security_groups);
        }
        self.attributes(desired, this, &there.attributes);
    }

    fn set_groups(&mut self, desired: &Desired, load_balancer: Ref, security_groups: &[Ref]) {
        self.calls.push(Call::SetSecurityGroups {
            load_balancer,
            security_groups: security_groups.to_vec(),
            private_link_rules: desired.private_link_rules,
        });
    }

    /// AWS adds and removes zones, and never replaces the subnet of a zone. So a zone with another
    /// subnet goes first and comes back.
    fn subnets(&mut self, desired: &Desired, there: &ObservedLoadBalancer) {
        self.addresses(desired, there);
        let ids = |subnets: &mut dyn Iterator<Item = &Subnet>| -> BTreeSet<String> {
            subnets.map(|subnet| subnet.id.clone()).collect()
        };
        // Listeners that are there may need what is not wanted any more.
        let addresses = desired.addresses.max(there.addresses);
        let same = ids(&mut there.subnets.iter()) == ids(&mut desired.subnets.iter());
        if same && addresses == there.addresses {
            return;
        }
        let replaced = |subnet: &&Subnet| {
            let mut present = there.subnets.iter();
            present.any(|one| one.zone == subnet.zone && one.id != subnet.id)
        };
        let mut set =
            |subnets: Vec<Subnet>| self.calls.push(set_subnets(there, addresses, subnets));
        let (moved, rest): (Vec<&Subnet>, Vec<&Subnet>) =
            desired.subnets.iter().partition(replaced);
        let stays = |subnet: &&Subnet| there.subnets.iter().any(|one| one.id == subnet.id);
        match moved.first() {
            None => set(desired.subnets.clone()),
            Some(_) if rest.iter().any(stays) => {
                set(rest.into_iter().cloned().collect());
                set(desired.subnets.clone());
            }
            Some(one) => {
                if addresses != there.addresses {
                    set(there.subnets.iter().cloned().collect());
                }
                self.objection = Some(Refusal::new(
                    Reason::Unsupported,
                    format!(
                        "subnet {} cannot replace the one that the load balancer has in zone {}: AWS permits it only while another of its zones stays. Keep the former subnets, or create another Service",
                        one.id, one.zone
                    ),
                ));
            }
        }
    }

    /// After the listeners: gives up the IPv6 addresses that nothing needs any more.
    pub(super) fn narrow(&mut self, desired: &Desired, present: Option<&ObservedLoadBalancer>) {
        if let Some(there) = present.filter(|it| desired.addresses < it.addresses) {
            // It keeps the subnets that it cannot exchange.
            let subnets = match self.objection {
                Some(_) => there.subnets.iter().cloned().collect(),
                None => desired.subnets.clone(),
            };
            self.calls
                .push(set_subnets(there, desired.addresses, subnets));
        }
    }

    /// AWS gives addresses to a zone when the zone is added, and never others. It also reports those that nobody
    /// has asked for, so only an Elastic IP address that is there says that it was asked for.
    fn addresses(&mut self, desired: &Desired, there: &ObservedLoadBalancer) {
        let of = |subnet: &Subnet| {
            let private = subnet.private_address.map(|address| address.to_string());
            subnet.elastic_address.clone().or(private)
        };
        let differs = |wanted: &Subnet, now: &Subnet| {
            let dropped = wanted.elastic_address.is_none() && now.elastic_address.is_some();
            dropped || (of(wanted).is_some() && of(wanted) != of(now))
        };
        for wanted in &desired.subnets {
            let now = there.subnets.iter().find(|one| one.id == wanted.id);
            if let Some(now) = now.filter(|now| differs(wanted, now)) {
                let words = |subnet: &Subnet| of(subnet).unwrap_or_else(|| "one of AWS".into());
                self.objection.get_or_insert_with(|| {
                    Refusal::new(
                        Reason::Unsupported,
                        format!(
                            "the load balancer keeps its address in subnet {} ({}), and not {}: AWS never changes it. Set eip-allocations and private-ipv4-addresses as before, or create another Service",
                            wanted.id,
                            words(now),
                            words(wanted)
                        ),
                    )
                });
                return;
            }
        }
    }

    /// Switches off the deletion protection of a load balancer that is to be deleted, if the Service says
    /// `false`.
    pub(super) fn unprotect(&mut self, desired: &Desired, there: &ObservedLoadBalancer) {
        let protection = attributes::DELETION_PROTECTION;
        let says = desired.attributes.get(protection).map(String::as_str);
        let has = there.attributes.get(protection).map(String::as_str);
        if says == Some("false") && has == Some("true") {
            self.calls.push(Call::ModifyLoadBalancerAttributes {
                load_balancer: Ref::Known(there.arn.clone()),
                attributes: [(protection.to_owned(), "false".to_owned())].into(),
            });
        }
    }

    /// The attributes of the load balancer. Deletion protection is switched on whenever the
    /// Service wants it, and off only if the Service says `false`: an operator may have switched
    /// it on by hand.
    fn attributes(
        &mut self,
        desired: &Desired,
        load_balancer: Ref,
        present: &BTreeMap<String, String>,
    ) {
        let mut all = changes(&desired.attributes, present, &attributes::LOAD_BALANCER);
        // AWS has no value for "no bucket", and without access logs it has no effect.
        let logs = desired.attributes.get(attributes::ACCESS_LOGS);
        if logs.is_none_or(|on| on != "true") {
            all.remove(attributes::ACCESS_LOGS_BUCKET);
            all.remove(attributes::ACCESS_LOGS_PREFIX);
        }
        let protection = attributes::DELETION_PROTECTION;
        let unsaid = !desired.attributes.contains_key(protection);
        if unsaid && all.remove(protection).is_some() {
            self.remarks.push(format!(
                "the load balancer has {protection}=true, which the Service does not ask for; it stays. To switch it off, set it to false"
            ));
        }
        if !all.is_empty() {
            self.calls.push(Call::ModifyLoadBalancerAttributes {
                load_balancer,
                attributes: all,
            });
        }
    }
}

/// AWS refuses other addresses in a zone that stays.
fn set_subnets(
    there: &ObservedLoadBalancer,
    addresses: Addresses,
    mut subnets: Vec<Subnet>,
) -> Call {
    for subnet in &mut subnets {
        if let Some(now) = there.subnets.iter().find(|one| one.id == subnet.id) {
            subnet.clone_from(now);
        }
    }
    let same = addresses == Addresses::Ipv4 && there.addresses == Addresses::Ipv4;
    Call::SetSubnets {
        load_balancer: Ref::Known(there.arn.clone()),
        addresses: (!same).then_some(addresses),
        subnets,
    }
}
