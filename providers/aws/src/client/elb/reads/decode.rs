//! What Elastic Load Balancing says, as Ballast's values. Pure. What Ballast has no use for, such as a listener
//! without a port, is left out.

use std::collections::BTreeSet;

use aws_sdk_elasticloadbalancingv2::types::{
    Action as SdkAction, AvailabilityZone, CapacityReservationStateEnum,
    EnablePrefixForIpv6SourceNatEnum, ForwardActionConfig, IpAddressType, Listener as SdkListener,
    LoadBalancer as SdkLoadBalancer, LoadBalancerSchemeEnum, LoadBalancerStateEnum,
    LoadBalancerTypeEnum, ProtocolEnum, Rule as SdkRule, SourceIpAddressTypeEnum,
    TargetGroup as SdkTargetGroup, TargetGroupIpAddressTypeEnum, TargetHealthDescription,
    TargetTypeEnum, ZonalCapacityReservationState,
};
use ballast_provider::Family;

use crate::client::elb::{SOURCE_IP, transport};
use crate::client::stable;
use crate::client::values::{
    Health, Listener, ListenerRule, LoadBalancer, LoadBalancerZone, TargetGroup, TargetHealth,
};
use crate::desired::{Addresses, Check, Subnet, Tls};
use crate::forward::{Forward, ObservedRule};
use crate::observed::{Arn, LoadBalancerState};
use crate::settings::tls::Alpn;
use crate::settings::{CheckProtocol, Scheme};
use crate::target::{TargetId, TargetType};

pub(super) fn pair(key: Option<&str>, value: Option<&str>) -> Option<(String, String)> {
    Some((key?.to_owned(), value.unwrap_or_default().to_owned()))
}

/// The state of a load balancer. One that the SDK does not know counts as not finished.
pub(in crate::client::elb) fn state(of: &SdkLoadBalancer) -> LoadBalancerState {
    match of.state().and_then(|state| state.code()) {
        Some(LoadBalancerStateEnum::Active) => LoadBalancerState::Active,
        Some(LoadBalancerStateEnum::ActiveImpaired) => LoadBalancerState::ActiveImpaired,
        Some(LoadBalancerStateEnum::Failed) => LoadBalancerState::Failed,
        _ => LoadBalancerState::Provisioning,
    }
}

pub(super) fn load_balancer(of: &SdkLoadBalancer) -> Option<LoadBalancer> {
    let private_link = of.enforce_security_group_inbound_rules_on_private_link_traffic();
    Some(LoadBalancer {
        private_link_rules: private_link != Some("off"),
        arn: of.load_balancer_arn()?.to_owned(),
        name: of.load_balancer_name()?.to_owned(),
        network: of.r#type() == Some(&LoadBalancerTypeEnum::Network),
        hostname: of.dns_name().unwrap_or_default().to_lowercase(),
        state: state(of),
        reason: (of.state().and_then(|state| state.reason())).map(str::to_owned),
        scheme: match of.scheme() {
            Some(LoadBalancerSchemeEnum::InternetFacing) => Scheme::InternetFacing,
            _ => Scheme::Internal,
        },
        families: families(of),
        vpc: of.vpc_id().unwrap_or_default().to_owned(),
        zones: of.availability_zones().iter().filter_map(zone).collect(),
        security_groups: of.security_groups().iter().cloned().collect(),
    })
}

/// Why there is no capacity in a zone.
pub(super) fn failed(zone: &ZonalCapacityReservationState) -> Option<String> {
    let state = zone.state()?;
    let reason = state.reason().map_or_else(|| "no reason".into(), stable);
    let name = zone.availability_zone().unwrap_or("a zone");
    (state.code() == Some(&CapacityReservationStateEnum::Failed))
        .then(|| format!("{name}: {reason}"))
}

fn zone(of: &AvailabilityZone) -> Option<(String, LoadBalancerZone)> {
    let addresses = of.load_balancer_addresses();
    let given = addresses.first();
    let parse = |text: Option<&str>| text.and_then(|text| text.parse().ok());
    let subnet = Subnet {
        id: of.subnet_id().unwrap_or_default().to_owned(),
        zone: of.zone_name().unwrap_or_default().to_owned(),
        elastic_address: (given.and_then(|one| one.allocation_id())).map(str::to_owned),
        private_address: given.and_then(|one| parse(one.private_ipv4_address())),
    };
    let all = addresses.iter().flat_map(|one| {
        let public = parse(one.ip_address());
        [public, parse(one.private_ipv4_address())]
    });
    let zone = LoadBalancerZone {
        subnet,
        addresses: all.flatten().collect(),
    };
    Some((of.zone_name()?.to_owned(), zone))
}

pub(super) fn listener(of: &SdkListener) -> Option<Listener> {
    let speaks = of.protocol().and_then(transport);
    Some(Listener {
        arn: of.listener_arn()?.to_owned(),
        port: of.port().and_then(|port| u16::try_from(port).ok())?,
        transport: speaks.map(|(transport, _)| transport),
        tls: speaks.filter(|(_, tls)| *tls).map(|_| tls(of)),
        forward: forwards_to(of.default_actions()),
    })
}

/// How a listener ends TLS. AWS says nothing of a policy that it does not have.
fn tls(of: &SdkListener) -> Tls {
    let certificate = of.certificates().first();
    let alpn = of.alpn_policy().first();
    Tls {
        certificate: (certificate.and_then(|one| one.certificate_arn()))
            .unwrap_or_default()
            .to_owned(),
        policy: of.ssl_policy().unwrap_or_default().to_owned(),
        alpn: alpn.and_then(|name| Alpn::named(name)).unwrap_or_default(),
    }
}

/// A rule beside the default action.
pub(super) fn rule(of: &SdkRule) -> Option<ListenerRule> {
    if of.is_default() == Some(true) {
        return None;
    }
    let family = match of.conditions() {
        [one] if one.field() == Some(SOURCE_IP) => {
            let source = one.source_ip_config();
            match source.and_then(|source| source.ip_address_type()) {
                Some(SourceIpAddressTypeEnum::Ipv4) => Some(Family::V4),
                Some(SourceIpAddressTypeEnum::Ipv6) => Some(Family::V6),
                _ => None,
            }
        }
        _ => None,
    };
    Some(ListenerRule {
        arn: of.rule_arn()?.to_owned(),
        rule: ObservedRule {
            family,
            forward: forwards_to(of.actions()).unwrap_or_default(),
        },
    })
}

/// The target groups of the only action. AWS names a group that is alone twice, directly and in the weighted list.
fn forwards_to(actions: &[SdkAction]) -> Option<Forward<Arn>> {
    let [action] = actions else {
        return None;
    };
    let listed = action
        .forward_config()
        .map(ForwardActionConfig::target_groups);
    match listed {
        None | Some([]) => Some(Forward::to(action.target_group_arn()?.to_owned())),
        Some(groups) => {
            let each = groups.iter().map(|group| {
                let weight = group.weight().and_then(|it| u32::try_from(it).ok());
                Some((group.target_group_arn()?.to_owned(), weight.unwrap_or(1)))
            });
            Some(Forward::weighted(each.collect::<Option<Vec<_>>>()?))
        }
    }
}

fn families(of: &SdkLoadBalancer) -> Addresses {
    let nat = of.enable_prefix_for_ipv6_source_nat();
    match of.ip_address_type() {
        Some(IpAddressType::Ipv4) | None => Addresses::Ipv4,
        Some(_) => Addresses::Dualstack {
            source_nat: nat == Some(&EnablePrefixForIpv6SourceNatEnum::On),
        },
    }
}

pub(super) fn target_group(of: &SdkTargetGroup) -> Option<TargetGroup> {
    let speaks = of.protocol().and_then(transport);
    Some(TargetGroup {
        arn: of.target_group_arn()?.to_owned(),
        name: of.target_group_name()?.to_owned(),
        transport: speaks.map(|(transport, _)| transport),
        tls: speaks.is_some_and(|(_, tls)| tls),
        port: of.port().and_then(|port| u16::try_from(port).ok()),
        target_type: match of.target_type() {
            Some(TargetTypeEnum::Instance) => Some(TargetType::Instance),
            Some(TargetTypeEnum::Ip) => Some(TargetType::Ip),
            _ => None,
        },
        family: match of.ip_address_type() {
            Some(TargetGroupIpAddressTypeEnum::Ipv6) => Family::V6,
            _ => Family::V4,
        },
        vpc: of.vpc_id().map(str::to_owned),
        check: check(of),
        load_balancers: (of.load_balancer_arns().iter().cloned()).collect::<BTreeSet<_>>(),
    })
}

/// The health check. A TCP check has no path and no codes, whatever AWS says of them.
fn check(of: &SdkTargetGroup) -> Option<Check> {
    if of.health_check_enabled() == Some(false) {
        return None;
    }
    let protocol = match of.health_check_protocol()? {
        ProtocolEnum::Tcp => CheckProtocol::Tcp,
        ProtocolEnum::Http => CheckProtocol::Http,
        ProtocolEnum::Https => CheckProtocol::Https,
        _ => return None,
    };
    let http = protocol != CheckProtocol::Tcp;
    let number = |value: Option<i32>| value.and_then(|value| u32::try_from(value).ok());
    Some(Check {
        protocol,
        port: match of.health_check_port()? {
            "traffic-port" => None,
            port => Some(port.parse().ok()?),
        },
        path: (of.health_check_path().filter(|_| http)).map(str::to_owned),
        success_codes: (of.matcher().and_then(|it| it.http_code()))
            .filter(|_| http)
            .map(str::to_owned),
        interval: number(of.health_check_interval_seconds())?,
        timeout: number(of.health_check_timeout_seconds())?,
        healthy_threshold: number(of.healthy_threshold_count())?,
        unhealthy_threshold: number(of.unhealthy_threshold_count())?,
    })
}

pub(super) fn health(of: &TargetHealthDescription) -> Option<TargetHealth> {
    let target = of.target()?;
    let health = of.target_health();
    let state = health.and_then(|it| it.state());
    let port = target.port().and_then(|port| u16::try_from(port).ok());
    Some(TargetHealth {
        target: TargetId::of(target.id()?, port)?,
        port,
        health: Health::named(state.map_or("", |state| state.as_str())),
        reason: (health.and_then(|it| it.reason())).map(|reason| reason.as_str().to_owned()),
        description: (health.and_then(|it| it.description())).map(str::to_owned),
    })
}
