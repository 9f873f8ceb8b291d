//! Calls about load balancers.

use std::collections::BTreeMap;

use super::super::form::Form;
use super::super::time::timestamp;
use super::super::xml::Xml;
use super::{Page, finish, take_attributes, take_tags, which, write_attributes};
use crate::state::load_balancers::{Create, Ipv6, LoadBalancer, Mapping, Stack};
use crate::state::{Cloud, Moment, Refusal, Result};

/// The name of the parameter for IPv6 source NAT.
const SOURCE_NAT: &str = "EnablePrefixForIpv6SourceNat";

pub(super) fn create(form: &mut Form, out: &mut Xml, cloud: &mut Cloud, now: Moment) -> Result<()> {
    let (subnets, ipv6) = take_subnets(form)?;
    let create = Create {
        name: form.need("Name")?,
        kind: form.take("Type"),
        scheme: form.take("Scheme"),
        ip_address_type: form.take("IpAddressType"),
        subnets,
        security_groups: form.list("SecurityGroups")?,
        tags: take_tags(form)?,
    };
    let stack = Stack {
        source_nat: take_source_nat(form)?,
        ipv6,
        ..Stack::default()
    };
    finish(form)?;
    let made = cloud.create_load_balancer_with(now, create, stack)?;
    write(out, &[&made], cloud, now);
    Ok(())
}

pub(super) fn describe(form: &mut Form, out: &mut Xml, cloud: &Cloud, now: Moment) -> Result<()> {
    let which = which(form.list("LoadBalancerArns")?, form.list("Names")?)?;
    let page = Page::take(form)?;
    finish(form)?;
    let all = cloud.describe_load_balancers(now, &which)?;
    let (all, next) = page.cut(all, |one| &one.arn);
    write(out, &all, cloud, now);
    out.optional("NextMarker", next);
    Ok(())
}

pub(super) fn delete(form: &mut Form, cloud: &mut Cloud, now: Moment) -> Result<()> {
    let arn = form.need("LoadBalancerArn")?;
    finish(form)?;
    cloud.delete_load_balancer(now, &arn)
}

pub(super) fn attributes(form: &mut Form, out: &mut Xml, cloud: &Cloud) -> Result<()> {
    let arn = form.need("LoadBalancerArn")?;
    finish(form)?;
    write_attributes(out, &cloud.load_balancer(&arn)?.attributes);
    Ok(())
}

pub(super) fn modify_attributes(form: &mut Form, out: &mut Xml, cloud: &mut Cloud) -> Result<()> {
    let arn = form.need("LoadBalancerArn")?;
    let changes = take_attributes(form)?;
    finish(form)?;
    write_attributes(out, cloud.modify_load_balancer_attributes(&arn, &changes)?);
    Ok(())
}

pub(super) fn set_subnets(
    form: &mut Form,
    out: &mut Xml,
    cloud: &mut Cloud,
    now: Moment,
) -> Result<()> {
    let arn = form.need("LoadBalancerArn")?;
    let (subnets, ipv6) = take_subnets(form)?;
    let stack = Stack {
        ip_address_type: form.take("IpAddressType"),
        source_nat: take_source_nat(form)?,
        ipv6,
    };
    finish(form)?;
    let there = cloud.set_subnets(now, &arn, &subnets, stack)?;
    write_zones(out, &there, cloud);
    out.text("IpAddressType", &there.ip_address_type);
    out.text(SOURCE_NAT, on_or_off(there.source_nat));
    Ok(())
}

pub(super) fn set_security_groups(form: &mut Form, out: &mut Xml, cloud: &mut Cloud) -> Result<()> {
    let arn = form.need("LoadBalancerArn")?;
    let groups = form.list("SecurityGroups")?;
    let name = "EnforceSecurityGroupInboundRulesOnPrivateLinkTraffic";
    let private_link = form.take(name);
    if let Some(value) = private_link.as_deref()
        && !["on", "off"].contains(&value)
    {
        return Err(form.wrong(name, value));
    }
    finish(form)?;
    let there = cloud.set_security_groups(&arn, groups, private_link)?;
    out.texts("SecurityGroupIds", "member", &there.security_groups);
    out.optional(name, there.private_link_rules);
    Ok(())
}

pub(super) fn set_ip_address_type(form: &mut Form, out: &mut Xml, cloud: &mut Cloud) -> Result<()> {
    let arn = form.need("LoadBalancerArn")?;
    let kind = form.need("IpAddressType")?;
    finish(form)?;
    out.text("IpAddressType", cloud.set_ip_address_type(&arn, &kind)?);
    Ok(())
}

pub(super) fn modify_capacity(
    form: &mut Form,
    out: &mut Xml,
    cloud: &mut Cloud,
    now: Moment,
) -> Result<()> {
    let arn = form.need("LoadBalancerArn")?;
    let mut units: Option<u32> = None;
    if let Some(mut minimum) = form.structure("MinimumLoadBalancerCapacity") {
        units = minimum.number("CapacityUnits", 1..=i32::MAX.unsigned_abs())?;
        minimum.finish()?;
    }
    let resets = form.parsed("ResetCapacityReservation")?.unwrap_or(false);
    finish(form)?;
    if units.is_some() == resets {
        // \[model\] says "at least one"; both contradict each other.
        return Err(Refusal::validation(
            "Specify either MinimumLoadBalancerCapacity or ResetCapacityReservation",
        ));
    }
    let there = cloud.modify_capacity_reservation(now, &arn, units)?;
    write_capacity(out, there, now);
    Ok(())
}

pub(super) fn capacity(form: &mut Form, out: &mut Xml, cloud: &Cloud, now: Moment) -> Result<()> {
    let arn = form.need("LoadBalancerArn")?;
    finish(form)?;
    write_capacity(out, cloud.load_balancer(&arn)?, now);
    Ok(())
}

/// Without a reservation there are no units and no zones.
fn write_capacity(out: &mut Xml, one: &LoadBalancer, now: Moment) {
    out.text("DecreaseRequestsRemaining", one.decreases_left(now));
    let Some(capacity) = &one.capacity else {
        return;
    };
    out.node("MinimumLoadBalancerCapacity", |xml| {
        xml.text("CapacityUnits", capacity.units);
    });
    out.list(
        "CapacityReservationState",
        "member",
        one.zones.keys(),
        |xml, zone| {
            xml.node("State", |xml| {
                xml.text("Code", capacity.state(now));
                xml.optional("Reason", capacity.trouble.as_ref());
            });
            xml.text("AvailabilityZone", zone);
        },
    );
}

fn take_source_nat(form: &mut Form) -> Result<Option<bool>> {
    match form.take(SOURCE_NAT).as_deref() {
        None => Ok(None),
        Some("on") => Ok(Some(true)),
        Some("off") => Ok(Some(false)),
        Some(other) => Err(form.wrong(SOURCE_NAT, other)),
    }
}

fn on_or_off(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

/// Subnets, given in one of two ways, and what is said about IPv6 in them.
fn take_subnets(form: &mut Form) -> Result<(Vec<Mapping>, BTreeMap<String, Ipv6>)> {
    let plain = form.list("Subnets")?;
    let mut mappings = Vec::new();
    let mut all = BTreeMap::new();
    for mut one in form.structures("SubnetMappings")? {
        let subnet = one.need("SubnetId")?;
        let ipv6 = Ipv6 {
            address: one.parsed("IPv6Address")?,
            prefix: one.take("SourceNatIpv6Prefix"),
        };
        if ipv6 != Ipv6::default() {
            all.insert(subnet.clone(), ipv6);
        }
        mappings.push(Mapping {
            subnet,
            allocation: one.take("AllocationId"),
            private_address: one.parsed("PrivateIPv4Address")?,
        });
        one.finish()?;
    }
    if !plain.is_empty() && !mappings.is_empty() {
        // \[seen\]
        return Err(Refusal::validation(
            "You can specify either subnets or subnet mappings, not both",
        ));
    }
    mappings.extend(plain.into_iter().map(|subnet| Mapping {
        subnet,
        ..Mapping::default()
    }));
    Ok((mappings, all))
}

fn write(out: &mut Xml, all: &[&LoadBalancer], cloud: &Cloud, now: Moment) {
    out.list("LoadBalancers", "member", all, |xml, one| {
        xml.text("LoadBalancerArn", &one.arn);
        xml.text("DNSName", &one.dns_name);
        xml.text("CanonicalHostedZoneId", "Z3F0SRJ5LGBH90");
        xml.text("CreatedTime", timestamp(one.created));
        xml.text("LoadBalancerName", &one.name);
        xml.text("Scheme", &one.scheme);
        xml.text("VpcId", &one.vpc);
        xml.node("State", |xml| {
            xml.text("Code", one.state(now));
            xml.optional("Reason", one.trouble.as_ref().map(|(_, reason)| reason));
        });
        xml.text("Type", "network");
        write_zones(xml, one, cloud);
        if !one.security_groups.is_empty() {
            xml.texts("SecurityGroups", "member", &one.security_groups);
        }
        xml.text("IpAddressType", &one.ip_address_type);
        xml.optional(
            "EnforceSecurityGroupInboundRulesOnPrivateLinkTraffic",
            one.private_link_rules.as_ref(),
        );
        xml.text(SOURCE_NAT, on_or_off(one.source_nat));
    });
}

/// Addresses are reported if the caller has chosen them.
fn write_zones(out: &mut Xml, one: &LoadBalancer, cloud: &Cloud) {
    out.list(
        "AvailabilityZones",
        "member",
        &one.zones,
        |xml, (zone, mapping)| {
            xml.text("ZoneName", zone);
            xml.text("SubnetId", &mapping.subnet);
            let ipv6 = one.ipv6.get(&mapping.subnet);
            let address = ipv6.and_then(|it| it.address);
            let chosen = mapping.allocation.is_some()
                || mapping.private_address.is_some()
                || address.is_some();
            xml.list(
                "LoadBalancerAddresses",
                "member",
                chosen.then_some(mapping),
                |xml, mapping| {
                    if let Some(id) = &mapping.allocation {
                        let address = cloud.addresses.get(id);
                        xml.optional("IpAddress", address.map(|address| address.ip));
                        xml.text("AllocationId", id);
                    }
                    xml.optional("PrivateIPv4Address", mapping.private_address);
                    xml.optional("IPv6Address", address);
                },
            );
            if let Some(prefix) = ipv6.and_then(|it| it.prefix.as_ref()) {
                xml.texts("SourceNatIpv6Prefixes", "member", [prefix]);
            }
        },
    );
}
