//! Writes to load balancers and tags.

use aws_sdk_elasticloadbalancingv2::types::{
    EnablePrefixForIpv6SourceNatEnum, IpAddressType, LoadBalancer, LoadBalancerAttribute,
    LoadBalancerSchemeEnum, LoadBalancerTypeEnum, MinimumLoadBalancerCapacity, SubnetMapping,
};

use super::{known, make};
use crate::client::elb::{answered, fault, reads, tags};
use crate::client::values::Tags;
use crate::client::{Action, Answer, CallError, Client, Manner};
use crate::desired::{Addresses, Subnet};
use crate::settings::Scheme;

/// So many objects in one call that changes tags: AWS documents the number for the call that reads them.
const TAGGED: usize = 20;

impl Client {
    pub(super) async fn create_load_balancer(
        &self,
        name: &str,
        scheme: Scheme,
        (addresses, subnets): (Addresses, &[Subnet]),
        groups: &[String],
        tagged: &Tags,
        manner: Manner,
    ) -> Result<Answer, CallError> {
        let (plain, mapped) = &mappings(subnets);
        let scheme = &match scheme {
            Scheme::Internal => LoadBalancerSchemeEnum::Internal,
            Scheme::InternetFacing => LoadBalancerSchemeEnum::InternetFacing,
        };
        make!(
            self,
            CreateLoadBalancer,
            manner,
            self.elb()
                .create_load_balancer()
                .name(name)
                .r#type(LoadBalancerTypeEnum::Network)
                .ip_address_type(kind(addresses))
                .set_enable_prefix_for_ipv6_source_nat(
                    (addresses != Addresses::Ipv4).then(|| source_nat(addresses))
                )
                .scheme(scheme.clone())
                .set_subnets(plain.clone())
                .set_subnet_mappings(mapped.clone())
                .set_security_groups((!groups.is_empty()).then(|| groups.to_vec()))
                .set_tags(tags(tagged)),
            |output| output.load_balancers().first().map(created)
        )
        .and_then(|made| known(Action::CreateLoadBalancer, made))
    }

    pub(super) async fn modify_load_balancer_attributes(
        &self,
        load_balancer: &str,
        attributes: &Tags,
        manner: Manner,
    ) -> Result<Answer, CallError> {
        let all = attributes.iter().map(|(key, value)| {
            let attribute = LoadBalancerAttribute::builder().key(key).value(value);
            attribute.build()
        });
        let all = &all.collect::<Vec<_>>();
        make!(
            self,
            ModifyLoadBalancerAttributes,
            manner,
            self.elb()
                .modify_load_balancer_attributes()
                .load_balancer_arn(load_balancer)
                .set_attributes(Some(all.clone())),
            |_| Answer::default()
        )
    }

    pub(super) async fn modify_capacity_reservation(
        &self,
        load_balancer: &str,
        units: Option<u32>,
        manner: Manner,
    ) -> Result<Answer, CallError> {
        let minimum = &units.map(|units| {
            let units = i32::try_from(units).unwrap_or(i32::MAX);
            MinimumLoadBalancerCapacity::builder()
                .capacity_units(units)
                .build()
        });
        make!(
            self,
            ModifyCapacityReservation,
            manner,
            self.elb()
                .modify_capacity_reservation()
                .load_balancer_arn(load_balancer)
                .set_minimum_load_balancer_capacity(minimum.clone())
                .set_reset_capacity_reservation(minimum.is_none().then_some(true)),
            |_| Answer::default()
        )
    }

    pub(super) async fn set_subnets(
        &self,
        load_balancer: &str,
        (addresses, subnets): (Option<Addresses>, &[Subnet]),
        manner: Manner,
    ) -> Result<Answer, CallError> {
        let (plain, mapped) = &mappings(subnets);
        make!(
            self,
            SetSubnets,
            manner,
            self.elb()
                .set_subnets()
                .load_balancer_arn(load_balancer)
                .set_ip_address_type(addresses.map(kind))
                .set_enable_prefix_for_ipv6_source_nat(addresses.map(source_nat))
                .set_subnets(plain.clone())
                .set_subnet_mappings(mapped.clone()),
            |_| Answer::default()
        )
    }

    pub(super) async fn set_security_groups(
        &self,
        load_balancer: &str,
        groups: &[String],
        private_link_rules: bool,
        manner: Manner,
    ) -> Result<Answer, CallError> {
        let private_link = if private_link_rules { "on" } else { "off" };
        make!(
            self,
            SetSecurityGroups,
            manner,
            self.elb()
                .set_security_groups()
                .load_balancer_arn(load_balancer)
                .set_security_groups(Some(groups.to_vec()))
                .enforce_security_group_inbound_rules_on_private_link_traffic(private_link.into()),
            |_| Answer::default()
        )
    }

    pub(super) async fn delete_load_balancer(
        &self,
        load_balancer: &str,
        manner: Manner,
    ) -> Result<Answer, CallError> {
        make!(
            self,
            DeleteLoadBalancer,
            manner,
            self.elb()
                .delete_load_balancer()
                .load_balancer_arn(load_balancer),
            |_| Answer::default()
        )
    }

    pub(super) async fn add_tags(
        &self,
        of: &[String],
        tagged: &Tags,
        manner: Manner,
    ) -> Result<Answer, CallError> {
        for some in of.chunks(TAGGED) {
            make!(
                self,
                AddTags,
                manner,
                self.elb()
                    .add_tags()
                    .set_resource_arns(Some(some.to_vec()))
                    .set_tags(tags(tagged)),
                |_| Answer::default()
            )?;
        }
        Ok(Answer::default())
    }

    pub(super) async fn remove_tags(
        &self,
        of: &[String],
        keys: &[String],
        manner: Manner,
    ) -> Result<Answer, CallError> {
        for some in of.chunks(TAGGED) {
            make!(
                self,
                RemoveTags,
                manner,
                self.elb()
                    .remove_tags()
                    .set_resource_arns(Some(some.to_vec()))
                    .set_tag_keys(Some(keys.to_vec())),
                |_| Answer::default()
            )?;
        }
        Ok(Answer::default())
    }
}

fn kind(addresses: Addresses) -> IpAddressType {
    match addresses {
        Addresses::Ipv4 => IpAddressType::Ipv4,
        Addresses::Dualstack { .. } => IpAddressType::Dualstack,
    }
}

const fn source_nat(addresses: Addresses) -> EnablePrefixForIpv6SourceNatEnum {
    match addresses {
        Addresses::Dualstack { source_nat: true } => EnablePrefixForIpv6SourceNatEnum::On,
        _ => EnablePrefixForIpv6SourceNatEnum::Off,
    }
}

/// Subnets without addresses go by their IDs; AWS takes one form for all of them.
fn mappings(subnets: &[Subnet]) -> (Option<Vec<String>>, Option<Vec<SubnetMapping>>) {
    let plain = subnets
        .iter()
        .all(|subnet| subnet.elastic_address.is_none() && subnet.private_address.is_none());
    if plain {
        let ids = subnets.iter().map(|subnet| subnet.id.clone());
        return (Some(ids.collect()), None);
    }
    let mapped = subnets.iter().map(|subnet| {
        SubnetMapping::builder()
            .subnet_id(&subnet.id)
            .set_allocation_id(subnet.elastic_address.clone())
            .set_private_ipv4_address(subnet.private_address.map(|address| address.to_string()))
            .build()
    });
    (None, Some(mapped.collect()))
}

fn created(made: &LoadBalancer) -> Answer {
    Answer {
        id: made.load_balancer_arn().map(str::to_owned),
        hostname: made.dns_name().map(str::to_lowercase),
        state: Some(reads::decode::state(made)),
    }
}
