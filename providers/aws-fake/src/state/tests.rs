//! The rules of each call, as tables. One module for each family of objects.

use std::time::Duration;

use super::listeners::Change as ListenerChange;
use super::load_balancers::{Create as CreateLoadBalancer, Mapping, Stack};
use super::security_groups::Create as CreateSecurityGroup;
use super::seed::{Network, VPC};
use super::target_groups::Create as CreateTargetGroup;
use super::{Cloud, Moment, Result, Settings, Tags};

mod capacity;
mod histories;
mod lag;
mod listeners;
mod load_balancers;
mod placement;
mod quotas;
mod rules;
mod security_groups;
mod stack;
mod tags;
mod target_groups;
mod targets;

const START: Moment = Duration::from_hours(1);

/// A cloud with a network.
fn cloud() -> Cloud {
    with(Settings::default())
}

fn with(settings: Settings) -> Cloud {
    let mut cloud = Cloud::new(settings);
    cloud.seed(&Network::default());
    cloud
}

fn seconds(number: u64) -> Duration {
    Duration::from_secs(number)
}

/// What became of a call: nothing, or the code of the refusal.
fn code<T>(result: Result<T>) -> String {
    result.map_or_else(|refusal| refusal.code, |_| String::new())
}

fn tags(pairs: &[(&str, &str)]) -> Tags {
    let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    pairs.iter().map(owned).collect()
}

fn subnet(id: &str) -> Mapping {
    Mapping {
        subnet: id.to_owned(),
        ..Mapping::default()
    }
}

/// An internal load balancer in two zones with one security group.
fn balancer(cloud: &mut Cloud, name: &str) -> CreateLoadBalancer {
    let group = match cloud.security_groups.values().find(|it| it.name == "lb") {
        Some(there) => there.id.clone(),
        None => group(cloud, "lb"),
    };
    CreateLoadBalancer {
        name: name.into(),
        kind: Some("network".into()),
        scheme: Some("internal".into()),
        subnets: vec![subnet("subnet-private-a"), subnet("subnet-private-b")],
        security_groups: vec![group],
        tags: tags(&[("owner", "us")]),
        ip_address_type: None,
    }
}

/// Makes one and returns its ARN.
fn make_balancer(cloud: &mut Cloud, name: &str) -> String {
    let create = balancer(cloud, name);
    cloud.create_load_balancer(START, create).unwrap().arn
}

/// A cloud with a network of both families.
fn dualstack() -> Cloud {
    let mut cloud = Cloud::new(Settings::default());
    cloud.seed(&Network {
        dualstack: true,
        ..Network::default()
    });
    cloud
}

/// Makes a load balancer of both families and returns its ARN.
fn make_dualstack(cloud: &mut Cloud, name: &str) -> String {
    let create = CreateLoadBalancer {
        ip_address_type: Some("dualstack".into()),
        ..balancer(cloud, name)
    };
    cloud.create_load_balancer(START, create).unwrap().arn
}

/// Makes a target group for addresses of IPv6 and returns its ARN.
fn make_ipv6_group(cloud: &mut Cloud, name: &str, protocol: &str) -> String {
    let create = CreateTargetGroup {
        protocol: Some(protocol.into()),
        target_type: Some("ip".into()),
        ip_address_type: Some("ipv6".into()),
        ..target_group(name)
    };
    cloud.create_target_group(START, create).unwrap().arn
}

fn target_group(name: &str) -> CreateTargetGroup {
    CreateTargetGroup {
        name: name.into(),
        protocol: Some("TCP".into()),
        port: Some(30_080),
        vpc: Some(VPC.into()),
        tags: tags(&[("owner", "us")]),
        ..CreateTargetGroup::default()
    }
}

fn make_target_group(cloud: &mut Cloud, name: &str) -> String {
    let create = target_group(name);
    cloud.create_target_group(START, create).unwrap().arn
}

fn listener(port: u16, target_group: &str) -> ListenerChange {
    ListenerChange {
        port: Some(port),
        protocol: Some("TCP".into()),
        forward: Some(vec![(target_group.to_owned(), None)]),
        ..ListenerChange::default()
    }
}

fn make_listener(cloud: &mut Cloud, balancer: &str, port: u16, target_group: &str) -> String {
    let change = listener(port, target_group);
    let made = cloud.create_listener(START, balancer, change, Tags::new());
    made.unwrap().arn
}

/// Makes a security group and returns its ID.
fn group(cloud: &mut Cloud, name: &str) -> String {
    let create = CreateSecurityGroup {
        name: name.into(),
        description: "for a test".into(),
        vpc: Some(VPC.into()),
        tags: Tags::new(),
    };
    cloud.create_security_group(START, create).unwrap().id
}
