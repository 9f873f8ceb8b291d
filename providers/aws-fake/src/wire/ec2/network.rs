//! Calls that describe the network.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::ops::RangeInclusive;

use super::super::form::Form;
use super::super::xml::Xml;
use super::filters::Filters;
use super::{Page, finish, write_tags};
use crate::state::network::{Instance, Interface, PrefixList, RouteTable, Subnet, Zone};
use crate::state::{Cloud, Moment, Refusal, Result, Tags};

/// What a call that describes things asks for.
struct Query {
    ids: Vec<String>,
    filters: Filters,
    page: Page,
}

// === impl Query ===

impl Query {
    fn take(
        form: &mut Form,
        ids: &str,
        filters: &[&str],
        tagged: bool,
        sizes: RangeInclusive<usize>,
    ) -> Result<Self> {
        let ids = form.list(ids)?;
        let filters = Filters::take(form, filters, tagged)?;
        let page = Page::take(form, sizes, !ids.is_empty())?;
        finish(form)?;
        Ok(Self { ids, filters, page })
    }

    /// The objects with these IDs, or all of them. `code` is the kind of ID in the error for one
    /// that does not exist.
    fn find<'a, T>(
        &self,
        all: impl IntoIterator<Item = (&'a str, &'a T)>,
        code: &str,
    ) -> Result<Vec<(&'a str, &'a T)>> {
        let all: BTreeMap<&str, &T> = all.into_iter().collect();
        if self.ids.is_empty() {
            return Ok(all.into_iter().collect());
        }
        let mut found = Vec::new();
        for id in &self.ids {
            let one = all.get_key_value(id.as_str()).ok_or_else(|| {
                let message = format!("The ID '{id}' does not exist");
                Refusal::new(format!("{code}.NotFound"), message)
            })?;
            found.push((*one.0, *one.1));
        }
        Ok(found)
    }
}

fn borrowed<T>(all: &BTreeMap<String, T>) -> impl Iterator<Item = (&str, &T)> {
    all.iter().map(|(key, one)| (key.as_str(), one))
}

const NO_TAGS: &Tags = &Tags::new();

pub(super) fn subnets(form: &mut Form, out: &mut Xml, cloud: &Cloud) -> Result<()> {
    let filters = [
        "availability-zone",
        "availabilityZone",
        "cidr-block",
        "owner-id",
        "state",
        "subnet-id",
        "vpc-id",
    ];
    let query = Query::take(form, "SubnetId", &filters, true, 5..=1000)?;
    let mut all = query.find(borrowed(&cloud.subnets), "InvalidSubnetID")?;
    all.retain(|(_, it)| {
        query.filters.match_with(&it.tags, |name| {
            vec![match name {
                "availability-zone" | "availabilityZone" => it.zone.clone(),
                "cidr-block" => it.cidr.to_string(),
                "owner-id" => it.owner.clone(),
                "state" => "available".into(),
                "subnet-id" => it.id.clone(),
                _ => it.vpc.clone(),
            }]
        })
    });
    let (region, page) = (&cloud.settings.region, query.page);
    page.write(out, "subnetSet", all, |xml, it: &Subnet| {
        xml.text("subnetId", &it.id);
        let arn = format!("arn:aws:ec2:{region}:{}:subnet/{}", it.owner, it.id);
        xml.text("subnetArn", arn);
        xml.text("state", "available");
        xml.text("ownerId", &it.owner);
        xml.text("vpcId", &it.vpc);
        xml.text("cidrBlock", it.cidr);
        xml.list(
            "ipv6CidrBlockAssociationSet",
            "item",
            it.ipv6_cidr,
            |xml, net| {
                xml.text("ipv6CidrBlock", net);
                xml.node("ipv6CidrBlockState", |xml| xml.text("state", "associated"));
            },
        );
        xml.text("availableIpAddressCount", cloud.free_addresses(it));
        xml.text("availabilityZone", &it.zone);
        let zone = cloud.zones.get(&it.zone);
        xml.optional("availabilityZoneId", zone.map(|zone| &zone.id));
        xml.text("defaultForAz", false);
        xml.text("mapPublicIpOnLaunch", false);
        write_tags(xml, &it.tags);
    });
    Ok(())
}

pub(super) fn route_tables(form: &mut Form, out: &mut Xml, cloud: &Cloud) -> Result<()> {
    let filters = [
        "association.main",
        "association.subnet-id",
        "route-table-id",
        "route.gateway-id",
        "vpc-id",
    ];
    let query = Query::take(form, "RouteTableId", &filters, true, 5..=100)?;
    let mut all = query.find(borrowed(&cloud.route_tables), "InvalidRouteTableID")?;
    all.retain(|(_, it)| {
        query.filters.match_with(&it.tags, |name| match name {
            "association.main" => vec![it.main.to_string()],
            "association.subnet-id" => it.subnets.iter().cloned().collect(),
            "route-table-id" => vec![it.id.clone()],
            "route.gateway-id" => it.routes.iter().map(|route| route.via.clone()).collect(),
            _ => vec![it.vpc.clone()],
        })
    });
    let page = query.page;
    page.write(out, "routeTableSet", all, |xml, it: &RouteTable| {
        xml.text("routeTableId", &it.id);
        xml.text("vpcId", &it.vpc);
        xml.text("ownerId", &cloud.settings.account);
        xml.list("routeSet", "item", &it.routes, |xml, route| {
            let six = route.destination.contains(':');
            let destination = if six {
                "destinationIpv6CidrBlock"
            } else {
                "destinationCidrBlock"
            };
            xml.text(destination, &route.destination);
            let via = if route.via.starts_with("nat-") {
                "natGatewayId"
            } else {
                "gatewayId"
            };
            xml.text(via, &route.via);
            xml.text("state", "active");
            xml.text("origin", "CreateRoute");
        });
        let main = it.main.then_some(None);
        let associations = main.into_iter().chain(it.subnets.iter().map(Some));
        xml.list("associationSet", "item", associations, |xml, subnet| {
            let of = subnet.map_or("main", String::as_str);
            xml.text(
                "routeTableAssociationId",
                format!("rtbassoc-{}-{of}", it.id),
            );
            xml.text("routeTableId", &it.id);
            xml.optional("subnetId", subnet);
            xml.text("main", subnet.is_none());
            xml.node("associationState", |xml| xml.text("state", "associated"));
        });
        write_tags(xml, &it.tags);
    });
    Ok(())
}

pub(super) fn zones(form: &mut Form, out: &mut Xml, cloud: &Cloud) -> Result<()> {
    let (names, ids) = (form.list("ZoneName")?, form.list("ZoneId")?);
    form.parsed::<bool>("AllAvailabilityZones")?;
    let known = ["region-name", "state", "zone-id", "zone-name", "zone-type"];
    let filters = Filters::take(form, &known, false)?;
    finish(form)?;
    let all: Vec<&Zone> = cloud.zones.values().collect();
    let missing = (names.iter()).find(|name| !cloud.zones.contains_key(*name));
    let missing = missing.or_else(|| ids.iter().find(|id| !all.iter().any(|it| it.id == **id)));
    if let Some(missing) = missing {
        let message = format!("Invalid availability zone: [{missing}]");
        return Err(Refusal::new("InvalidParameterValue", message));
    }
    let region = &cloud.settings.region;
    let wanted = all.into_iter().filter(|it| {
        (names.is_empty() || names.contains(&it.name))
            && (ids.is_empty() || ids.contains(&it.id))
            && filters.match_with(NO_TAGS, |name| {
                vec![match name {
                    "region-name" => region.clone(),
                    "state" => it.state.clone(),
                    "zone-id" => it.id.clone(),
                    "zone-name" => it.name.clone(),
                    _ => it.kind.clone(),
                }]
            })
    });
    out.list("availabilityZoneInfo", "item", wanted, |xml, it| {
        xml.text("optInStatus", "opt-in-not-required");
        xml.node("messageSet", |_| {});
        xml.text("regionName", region);
        xml.text("zoneName", &it.name);
        xml.text("zoneId", &it.id);
        xml.text("groupName", region);
        xml.text("networkBorderGroup", region);
        xml.text("zoneType", &it.kind);
        xml.text("zoneState", &it.state);
    });
    Ok(())
}

pub(super) fn instances(form: &mut Form, out: &mut Xml, cloud: &Cloud) -> Result<()> {
    let filters = [
        "availability-zone",
        "instance-id",
        "instance-state-name",
        "instance.group-id",
        "network-interface.group-id",
        "private-ip-address",
        "subnet-id",
        "vpc-id",
    ];
    let query = Query::take(form, "InstanceId", &filters, true, 5..=1000)?;
    let mut all = query.find(borrowed(&cloud.instances), "InvalidInstanceID")?;
    let of = |it: &Instance, field: fn(&Subnet) -> &String| {
        cloud.subnets.get(&it.subnet).map(field).cloned()
    };
    all.retain(|(_, it)| {
        query.filters.match_with(&it.tags, |name| match name {
            "availability-zone" => of(it, |subnet| &subnet.zone).into_iter().collect(),
            "instance-id" => vec![it.id.clone()],
            "instance-state-name" => vec![it.state.clone()],
            "instance.group-id" | "network-interface.group-id" => it.groups.clone(),
            "private-ip-address" => vec![it.address.to_string()],
            "subnet-id" => vec![it.subnet.clone()],
            _ => of(it, |subnet| &subnet.vpc).into_iter().collect(),
        })
    });
    let page = query.page;
    page.write(out, "reservationSet", all, |xml, it: &Instance| {
        xml.text("reservationId", it.id.replacen("i-", "r-", 1));
        xml.text("ownerId", &cloud.settings.account);
        xml.node("groupSet", |_| {});
        xml.list("instancesSet", "item", [it], |xml, it| {
            write_instance(xml, it, cloud);
        });
    });
    Ok(())
}

fn write_instance(xml: &mut Xml, it: &Instance, cloud: &Cloud) {
    let subnet = cloud.subnets.get(&it.subnet);
    let vpc = subnet.map(|subnet| &subnet.vpc);
    xml.text("instanceId", &it.id);
    xml.text("imageId", "ami-01");
    xml.node("instanceState", |xml| {
        let code = match it.state.as_str() {
            "pending" => 0,
            "running" => 16,
            "shutting-down" => 32,
            "terminated" => 48,
            "stopping" => 64,
            _ => 80,
        };
        xml.text("code", code);
        xml.text("name", &it.state);
    });
    xml.text("instanceType", "m7i.large");
    xml.node("placement", |xml| {
        xml.optional("availabilityZone", subnet.map(|subnet| &subnet.zone));
    });
    xml.text("subnetId", &it.subnet);
    xml.optional("vpcId", vpc);
    xml.text("privateIpAddress", it.address);
    xml.optional("ipv6Address", it.ipv6);
    write_groups(xml, &it.groups, cloud);
    xml.list("networkInterfaceSet", "item", [it], |xml, it| {
        xml.text("networkInterfaceId", it.id.replacen("i-", "eni-", 1));
        xml.text("subnetId", &it.subnet);
        xml.optional("vpcId", vpc);
        xml.text("status", "in-use");
        xml.text("privateIpAddress", it.address);
        write_ipv6(xml, it.ipv6);
        write_groups(xml, &it.groups, cloud);
        xml.node("attachment", |xml| {
            xml.text("deviceIndex", 0);
            xml.text("status", "attached");
        });
    });
    write_tags(xml, &it.tags);
}

fn write_ipv6(xml: &mut Xml, address: Option<Ipv6Addr>) {
    if let Some(address) = address {
        xml.list("ipv6AddressesSet", "item", [address], |xml, address| {
            xml.text("ipv6Address", address);
            xml.text("isPrimaryIpv6", false);
        });
    }
}

fn write_groups(xml: &mut Xml, groups: &[String], cloud: &Cloud) {
    xml.list("groupSet", "item", groups, |xml, id| {
        xml.text("groupId", id);
        let group = cloud.security_groups.get(id);
        xml.optional("groupName", group.map(|group| &group.name));
    });
}

pub(super) fn prefix_lists(form: &mut Form, out: &mut Xml, cloud: &Cloud) -> Result<()> {
    let filters = ["owner-id", "prefix-list-id", "prefix-list-name"];
    let query = Query::take(form, "PrefixListId", &filters, false, 1..=100)?;
    let mut all = query.find(borrowed(&cloud.prefix_lists), "InvalidPrefixListID")?;
    all.retain(|(_, it)| {
        query.filters.match_with(NO_TAGS, |name| {
            vec![match name {
                "owner-id" => it.owner.clone(),
                "prefix-list-id" => it.id.clone(),
                _ => it.name.clone(),
            }]
        })
    });
    let region = &cloud.settings.region;
    let page = query.page;
    page.write(out, "prefixListSet", all, |xml, it: &PrefixList| {
        xml.text("prefixListId", &it.id);
        xml.text("addressFamily", &it.family);
        xml.text("state", "create-complete");
        let (owner, id) = (&it.owner, &it.id);
        xml.text(
            "prefixListArn",
            format!("arn:aws:ec2:{region}:{owner}:prefix-list/{id}"),
        );
        xml.text("prefixListName", &it.name);
        // AWS's own lists do not report it.
        if it.owner != "AWS" {
            xml.text("maxEntries", it.max_entries);
            xml.text("version", 1);
        }
        xml.text("ownerId", &it.owner);
    });
    Ok(())
}

pub(super) fn interfaces(form: &mut Form, out: &mut Xml, cloud: &Cloud, now: Moment) -> Result<()> {
    let filters = [
        "description",
        "group-id",
        "interface-type",
        "network-interface-id",
        "status",
        "subnet-id",
        "vpc-id",
    ];
    let query = Query::take(form, "NetworkInterfaceId", &filters, true, 5..=1000)?;
    let listed = cloud.interfaces.listed(now, cloud.settings.lag);
    let mut all = query.find(listed, "InvalidNetworkInterfaceID")?;
    let vpc = |it: &Interface| cloud.subnets.get(&it.subnet).map(|subnet| &subnet.vpc);
    all.retain(|(_, it)| {
        query.filters.match_with(NO_TAGS, |name| match name {
            "description" => vec![it.description.clone()],
            "group-id" => it.groups.clone(),
            "interface-type" => vec!["network_load_balancer".into()],
            "network-interface-id" => vec![it.id.clone()],
            "status" => vec!["in-use".into()],
            "subnet-id" => vec![it.subnet.clone()],
            _ => vpc(it).cloned().into_iter().collect(),
        })
    });
    let page = query.page;
    page.write(out, "networkInterfaceSet", all, |xml, it: &Interface| {
        xml.text("networkInterfaceId", &it.id);
        xml.text("subnetId", &it.subnet);
        xml.optional("vpcId", vpc(it));
        let subnet = cloud.subnets.get(&it.subnet);
        xml.optional("availabilityZone", subnet.map(|subnet| &subnet.zone));
        xml.text("description", &it.description);
        xml.text("ownerId", &cloud.settings.account);
        xml.text("requesterId", "amazon-elb");
        xml.text("requesterManaged", true);
        xml.text("status", "in-use");
        xml.text("privateIpAddress", it.address);
        write_ipv6(xml, it.ipv6);
        xml.text("interfaceType", "network_load_balancer");
        write_groups(xml, &it.groups, cloud);
    });
    Ok(())
}
