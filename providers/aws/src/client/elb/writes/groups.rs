//! Writes to target groups and their targets.

use aws_sdk_elasticloadbalancingv2::types::{
    Matcher, ProtocolEnum, TargetDescription, TargetGroupAttribute, TargetGroupIpAddressTypeEnum,
    TargetTypeEnum,
};

use ballast_provider::Family;

use super::{known, make};
use crate::client::elb::{answered, fault, protocol, tags};
use crate::client::values::Tags;
use crate::client::{Action, Answer, CallError, Client, Ids, Manner};
use crate::desired::{Check, TargetGroup};
use crate::settings::CheckProtocol;
use crate::target::{TargetId, TargetType};

impl Client {
    pub(super) async fn create_target_group(
        &self,
        group: &TargetGroup,
        vpc: &str,
        tagged: &Tags,
        manner: Manner,
    ) -> Result<Answer, CallError> {
        let check = &group.check;
        make!(
            self,
            CreateTargetGroup,
            manner,
            self.elb()
                .create_target_group()
                .name(&group.name)
                .protocol(protocol(group.transport, group.tls))
                .port(group.port.into())
                .vpc_id(vpc)
                .target_type(match group.target_type {
                    TargetType::Instance => TargetTypeEnum::Instance,
                    TargetType::Ip => TargetTypeEnum::Ip,
                })
                .ip_address_type(match group.family {
                    Family::V4 => TargetGroupIpAddressTypeEnum::Ipv4,
                    Family::V6 => TargetGroupIpAddressTypeEnum::Ipv6,
                })
                .health_check_enabled(true)
                .health_check_protocol(check_protocol(check))
                .health_check_port(check_port(check))
                .set_health_check_path(check.path.clone())
                .set_matcher(matcher(check))
                .health_check_interval_seconds(number(check.interval))
                .health_check_timeout_seconds(number(check.timeout))
                .healthy_threshold_count(number(check.healthy_threshold))
                .unhealthy_threshold_count(number(check.unhealthy_threshold))
                .set_tags(tags(tagged)),
            |output| {
                let made = output.target_groups().first();
                made.and_then(|made| made.target_group_arn())
                    .map(|arn| Answer::made(arn.to_owned()))
            }
        )
        .and_then(|made| known(Action::CreateTargetGroup, made))
    }

    pub(super) async fn modify_target_group(
        &self,
        target_group: &str,
        check: &Check,
        manner: Manner,
    ) -> Result<Answer, CallError> {
        make!(
            self,
            ModifyTargetGroup,
            manner,
            self.elb()
                .modify_target_group()
                .target_group_arn(target_group)
                .health_check_protocol(check_protocol(check))
                .health_check_port(check_port(check))
                .set_health_check_path(check.path.clone())
                .set_matcher(matcher(check))
                .health_check_interval_seconds(number(check.interval))
                .health_check_timeout_seconds(number(check.timeout))
                .healthy_threshold_count(number(check.healthy_threshold))
                .unhealthy_threshold_count(number(check.unhealthy_threshold)),
            |_| Answer::default()
        )
    }

    pub(super) async fn modify_target_group_attributes(
        &self,
        target_group: &str,
        attributes: &Tags,
        manner: Manner,
    ) -> Result<Answer, CallError> {
        let all = attributes.iter().map(|(key, value)| {
            let attribute = TargetGroupAttribute::builder().key(key).value(value);
            attribute.build()
        });
        let all = &all.collect::<Vec<_>>();
        make!(
            self,
            ModifyTargetGroupAttributes,
            manner,
            self.elb()
                .modify_target_group_attributes()
                .target_group_arn(target_group)
                .set_attributes(Some(all.clone())),
            |_| Answer::default()
        )
    }

    pub(super) async fn delete_target_group(
        &self,
        target_group: &str,
        manner: Manner,
    ) -> Result<Answer, CallError> {
        make!(
            self,
            DeleteTargetGroup,
            manner,
            self.elb()
                .delete_target_group()
                .target_group_arn(target_group),
            |_| Answer::default()
        )
    }

    pub(super) async fn register_targets(
        &self,
        target_group: &str,
        targets: &[TargetDescription],
        manner: Manner,
    ) -> Result<Answer, CallError> {
        make!(
            self,
            RegisterTargets,
            manner,
            self.elb()
                .register_targets()
                .target_group_arn(target_group)
                .set_targets(Some(targets.to_vec())),
            |_| Answer::default()
        )
    }

    pub(super) async fn deregister_targets(
        &self,
        target_group: &str,
        targets: &[TargetDescription],
        manner: Manner,
    ) -> Result<Answer, CallError> {
        make!(
            self,
            DeregisterTargets,
            manner,
            self.elb()
                .deregister_targets()
                .target_group_arn(target_group)
                .set_targets(Some(targets.to_vec())),
            |_| Answer::default()
        )
    }
}

/// Targets as calls name them.
pub(super) fn descriptions(targets: &[TargetId], ids: &Ids) -> Vec<TargetDescription> {
    let all = targets.iter().map(|one| {
        TargetDescription::builder()
            .id(one.id())
            .set_port(one.port().map(i32::from))
            .set_availability_zone(ids.zone_of(one).map(str::to_owned))
            .build()
    });
    all.collect()
}

fn check_protocol(check: &Check) -> ProtocolEnum {
    match check.protocol {
        CheckProtocol::Tcp => ProtocolEnum::Tcp,
        CheckProtocol::Http => ProtocolEnum::Http,
        CheckProtocol::Https => ProtocolEnum::Https,
    }
}

fn check_port(check: &Check) -> String {
    match check.port {
        Some(port) => port.to_string(),
        None => "traffic-port".into(),
    }
}

fn matcher(check: &Check) -> Option<Matcher> {
    let codes = check.success_codes.as_ref()?;
    Some(Matcher::builder().http_code(codes).build())
}

/// The SDK's numbers are signed; AWS's are small.
fn number(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
