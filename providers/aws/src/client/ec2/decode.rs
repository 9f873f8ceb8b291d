//! The answers of EC2. Pure. What Ballast does not use is skipped, and what is absent is empty:
//! EC2 leaves out what an object does not have. An object without its ID is an error.

use std::collections::BTreeSet;

use ballast_provider::Protocol;
use ipnet::IpNet;

use super::xml::{self, Element};
use crate::client::values::{
    Instance, InstanceState, PrefixList, RouteTable, SecurityGroup, Subnet, Tags,
};
use crate::desired::{Rule, Source, Traffic};

/// One page of a read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Page<T> {
    pub(super) items: Vec<T>,
    /// Names the next page, if there is one.
    pub(super) next: Option<String>,
    /// AWS's ID of the call.
    pub(super) request: Option<String>,
}

/// The answer to a call that failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) code: Option<String>,
    pub(super) message: String,
    pub(super) request: Option<String>,
}

/// A page with a list of `T`.
fn page<T>(
    body: &[u8],
    list: &str,
    item: impl Fn(&Element) -> Result<T, String>,
) -> Result<Page<T>, String> {
    let answer = xml::parse(body).map_err(|error| error.to_string())?;
    Ok(Page {
        items: answer.items(list).map(item).collect::<Result<_, _>>()?,
        next: answer.text("nextToken").map(str::to_owned),
        request: answer.text("requestId").map(str::to_owned),
    })
}

pub(super) fn subnets(body: &[u8]) -> Result<Page<Subnet>, String> {
    page(body, "subnetSet", subnet)
}

pub(super) fn route_tables(body: &[u8]) -> Result<Page<RouteTable>, String> {
    page(body, "routeTableSet", route_table)
}

pub(super) fn security_groups(body: &[u8]) -> Result<Page<SecurityGroup>, String> {
    page(body, "securityGroupInfo", security_group)
}

pub(super) fn prefix_lists(body: &[u8]) -> Result<Page<PrefixList>, String> {
    page(body, "prefixListSet", prefix_list)
}

/// The instances of a page; EC2 groups them in reservations.
pub(super) fn instances(body: &[u8]) -> Result<Page<Instance>, String> {
    let page = page(body, "reservationSet", |reservation| {
        reservation.items("instancesSet").map(instance).collect()
    })?;
    let reservations: Vec<Vec<Instance>> = page.items;
    Ok(Page {
        items: reservations.into_iter().flatten().collect(),
        next: page.next,
        request: page.request,
    })
}

/// An answer that says only that it was done. Returns the text of one of its elements.
pub(super) fn done(body: &[u8], text: &str) -> Result<(Option<String>, Option<String>), String> {
    let answer = xml::parse(body).map_err(|error| error.to_string())?;
    let request = answer.text("requestId").map(str::to_owned);
    Ok((answer.text(text).map(str::to_owned), request))
}

/// The answer to a call that failed. A body that is no such answer, as from a proxy, has no code.
pub(super) fn failure(body: &[u8]) -> Failure {
    let Ok(answer) = xml::parse(body) else {
        return Failure::default();
    };
    // EC2 has <Response><Errors><Error>, other services <ErrorResponse><Error>.
    let within = answer.child("Errors").unwrap_or(&answer);
    let Some(error) = within.child("Error") else {
        return Failure::default();
    };
    let request = answer
        .text("RequestID")
        .or_else(|| answer.text("RequestId"));
    Failure {
        code: error.text("Code").map(str::to_owned),
        message: error.string("Message"),
        request: request.map(str::to_owned),
    }
}

/// An element that must be there.
fn needed(element: &Element, name: &str) -> Result<String, String> {
    let text = element.text(name).map(str::to_owned);
    text.ok_or_else(|| format!("an object without {name}"))
}

fn tags(element: &Element) -> Tags {
    let all = element.items("tagSet");
    all.map(|tag| (tag.string("key"), tag.string("value")))
        .collect()
}

fn subnet(element: &Element) -> Result<Subnet, String> {
    Ok(Subnet {
        id: needed(element, "subnetId")?,
        vpc: needed(element, "vpcId")?,
        zone: element.string("availabilityZone"),
        range: element.number("cidrBlock"),
        ipv6: (element.items("ipv6CidrBlockAssociationSet"))
            .filter_map(|one| one.number("ipv6CidrBlock"))
            .collect(),
        free_addresses: element.number("availableIpAddressCount").unwrap_or(0),
        outpost: element.text("outpostArn").is_some(),
        tags: tags(element),
    })
}

fn route_table(element: &Element) -> Result<RouteTable, String> {
    let associations = || element.items("associationSet");
    let subnets = associations().filter_map(|one| one.text("subnetId"));
    let mut routes = element.items("routeSet");
    Ok(RouteTable {
        id: needed(element, "routeTableId")?,
        vpc: needed(element, "vpcId")?,
        main: associations().any(|one| one.text("main") == Some("true")),
        subnets: subnets.map(str::to_owned).collect(),
        internet_gateway: routes.any(|route| {
            let gateway = route.text("gatewayId");
            // A route whose gateway is gone stays in the table.
            gateway.is_some_and(|gateway| gateway.starts_with("igw-"))
                && route.text("state") != Some("blackhole")
        }),
    })
}

fn instance(element: &Element) -> Result<Instance, String> {
    let state = element.child("instanceState");
    let placement = element.child("placement");
    let groups = element.items("groupSet");
    Ok(Instance {
        id: needed(element, "instanceId")?,
        state: match state.and_then(|state| state.text("name")) {
            Some("running") => InstanceState::Running,
            Some("shutting-down") => InstanceState::ShuttingDown,
            Some("terminated") => InstanceState::Terminated,
            Some("stopping") => InstanceState::Stopping,
            Some("stopped") => InstanceState::Stopped,
            // The only other one.
            _ => InstanceState::Pending,
        },
        zone: placement.map_or_else(String::new, |it| it.string("availabilityZone")),
        vpc: element.text("vpcId").map(str::to_owned),
        subnet: element.text("subnetId").map(str::to_owned),
        security_groups: groups.map(|group| group.string("groupId")).collect(),
        tags: tags(element),
    })
}

fn security_group(element: &Element) -> Result<SecurityGroup, String> {
    Ok(SecurityGroup {
        id: needed(element, "groupId")?,
        name: element.string("groupName"),
        description: element.string("groupDescription"),
        vpc: element.text("vpcId").map(str::to_owned),
        tags: tags(element),
        rules: rules(element)?,
    })
}

/// The rules of a group. EC2 gathers those with the same traffic.
fn rules(group: &Element) -> Result<BTreeSet<Rule>, String> {
    let mut rules = BTreeSet::new();
    for gathered in group.items("ipPermissions") {
        let traffic = traffic(gathered)?;
        let mut add = |source: Source| {
            let traffic = traffic.clone();
            rules.insert(Rule { traffic, source });
        };
        for (list, name) in [("ipRanges", "cidrIp"), ("ipv6Ranges", "cidrIpv6")] {
            for source in gathered.items(list) {
                let text = needed(source, name)?;
                let range: IpNet =
                    (text.parse()).map_err(|_| format!("{text} is not a range of addresses"))?;
                add(Source::Range(range));
            }
        }
        for source in gathered.items("prefixListIds") {
            add(Source::PrefixList(needed(source, "prefixListId")?));
        }
        for source in gathered.items("groups") {
            add(Source::Group(needed(source, "groupId")?));
        }
    }
    Ok(rules)
}

fn traffic(permission: &Element) -> Result<Traffic, String> {
    let protocol = needed(permission, "ipProtocol")?;
    let (from, to) = (permission.number("fromPort"), permission.number("toPort"));
    let port = from.filter(|_| from == to);
    let port = port.and_then(|port: i32| u16::try_from(port).ok());
    Ok(match (protocol.as_str(), port) {
        ("-1", _) => Traffic::All,
        ("tcp", Some(port)) => Traffic::Port(Protocol::Tcp, port),
        ("udp", Some(port)) => Traffic::Port(Protocol::Udp, port),
        _ => Traffic::Other { protocol, from, to },
    })
}

fn prefix_list(element: &Element) -> Result<PrefixList, String> {
    Ok(PrefixList {
        id: needed(element, "prefixListId")?,
        name: element.string("prefixListName"),
        max_entries: element.number("maxEntries"),
    })
}

#[cfg(test)]
mod tests;
