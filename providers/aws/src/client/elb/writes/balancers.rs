//! Writes to load balancers, listeners and tags.

use aws_sdk_elasticloadbalancingv2::types::{
    Action as ListenerAction, ActionTypeEnum, Certificate, IpAddressType, ListenerAttribute,
    LoadBalancer, LoadBalancerAttribute, LoadBalancerSchemeEnum, LoadBalancerTypeEnum,
    MinimumLoadBalancerCapacity, SubnetMapping,
};

use super::{known, make};
use crate::client::elb::{answered, fault, protocol, reads, tags};
use crate::client::values::Tags;
use crate::client::{Action, Answer, CallError, Client, Manner};
use crate::desired::{Subnet, Tls, Transport};
use crate::settings::Scheme;

/// So many objects in one call that changes tags: AWS documents the number for the call that reads them.
const TAGGED: usize = 20;

impl Client {
    pub(super) async fn create_load_balancer(
        &self,
        name: &str,
        scheme: Scheme,
        subnets: &[Subnet],
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
                .ip_address_type(IpAddressType::Ipv4)
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
        subnets: &[Subnet],
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

    pub(super) async fn create_listener(
        &self,
        load_balancer: &str,
        (port, transport, tls, target_group): (u16, Transport, Option<&Tls>, &str),
        tagged: &Tags,
        manner: Manner,
    ) -> Result<Answer, CallError> {
        make!(
            self,
            CreateListener,
            manner,
            self.elb()
                .create_listener()
                .load_balancer_arn(load_balancer)
                .protocol(protocol(transport, tls.is_some()))
                .set_certificates(tls.map(|tls| certificate(&tls.certificate)))
                .set_ssl_policy(tls.map(|tls| tls.policy.clone()))
                .set_alpn_policy(tls.map(|tls| vec![tls.alpn.as_str().to_owned()]))
                .port(port.into())
                .default_actions(forward(target_group))
                .set_tags(tags(tagged)),
            |output| {
                let made = output.listeners().first();
                made.and_then(|made| made.listener_arn())
                    .map(|arn| Answer::made(arn.to_owned()))
            }
        )
        .and_then(|made| known(Action::CreateListener, made))
    }

    pub(super) async fn modify_listener(
        &self,
        listener: &str,
        speaks: Option<(Transport, Option<&Tls>)>,
        target_group: Option<&str>,
        manner: Manner,
    ) -> Result<Answer, CallError> {
        let tls = speaks.and_then(|(_, tls)| tls);
        make!(
            self,
            ModifyListener,
            manner,
            self.elb()
                .modify_listener()
                .listener_arn(listener)
                .set_protocol(speaks.map(|(transport, tls)| protocol(transport, tls.is_some())))
                .set_certificates(tls.map(|tls| certificate(&tls.certificate)))
                .set_ssl_policy(tls.map(|tls| tls.policy.clone()))
                .set_alpn_policy(tls.map(|tls| vec![tls.alpn.as_str().to_owned()]))
                .set_default_actions(target_group.map(|group| vec![forward(group)])),
            |_| Answer::default()
        )
    }

    pub(super) async fn modify_listener_attributes(
        &self,
        listener: &str,
        attributes: &Tags,
        manner: Manner,
    ) -> Result<Answer, CallError> {
        let all = attributes.iter();
        let all =
            all.map(|(key, value)| ListenerAttribute::builder().key(key).value(value).build());
        let all = &all.collect::<Vec<_>>();
        make!(
            self,
            ModifyListenerAttributes,
            manner,
            self.elb()
                .modify_listener_attributes()
                .listener_arn(listener)
                .set_attributes(Some(all.clone())),
            |_| Answer::default()
        )
    }

    pub(super) async fn add_listener_certificate(
        &self,
        listener: &str,
        arn: &str,
        manner: Manner,
    ) -> Result<Answer, CallError> {
        make!(
            self,
            AddListenerCertificates,
            manner,
            self.elb()
                .add_listener_certificates()
                .listener_arn(listener)
                .set_certificates(Some(certificate(arn))),
            |_| Answer::default()
        )
    }

    pub(super) async fn remove_listener_certificate(
        &self,
        listener: &str,
        arn: &str,
        manner: Manner,
    ) -> Result<Answer, CallError> {
        make!(
            self,
            RemoveListenerCertificates,
            manner,
            self.elb()
                .remove_listener_certificates()
                .listener_arn(listener)
                .set_certificates(Some(certificate(arn))),
            |_| Answer::default()
        )
    }

    pub(super) async fn delete_listener(
        &self,
        listener: &str,
        manner: Manner,
    ) -> Result<Answer, CallError> {
        make!(
            self,
            DeleteListener,
            manner,
            self.elb().delete_listener().listener_arn(listener),
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

/// A list of one: AWS takes no more in any call.
fn certificate(arn: &str) -> Vec<Certificate> {
    vec![Certificate::builder().certificate_arn(arn).build()]
}

fn forward(target_group: &str) -> ListenerAction {
    ListenerAction::builder()
        .r#type(ActionTypeEnum::Forward)
        .target_group_arn(target_group)
        .build()
}

fn created(made: &LoadBalancer) -> Answer {
    Answer {
        id: made.load_balancer_arn().map(str::to_owned),
        hostname: made.dns_name().map(str::to_lowercase),
        state: Some(reads::decode::state(made)),
    }
}
