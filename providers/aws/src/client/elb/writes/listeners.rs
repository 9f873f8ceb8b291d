//! Writes to listeners and their rules.

use aws_sdk_elasticloadbalancingv2::types::{
    Action as ListenerAction, ActionTypeEnum, Certificate, ForwardActionConfig, ListenerAttribute,
    RuleCondition, SourceIpAddressTypeEnum, SourceIpConditionConfig, TargetGroupTuple,
};

use super::{known, make};
use crate::client::elb::{SOURCE_IP, answered, fault, protocol, tags};
use crate::client::values::Tags;
use crate::client::{Action, Answer, CallError, Client, Manner};
use crate::desired::{Tls, Transport};
use crate::forward::Forward;
use crate::observed::Arn;

/// The priority of the only rule that Ballast makes on a listener.
const PRIORITY: i32 = 1;

impl Client {
    pub(super) async fn create_listener(
        &self,
        load_balancer: &str,
        (port, transport, tls, forward): (u16, Transport, Option<&Tls>, &Forward<Arn>),
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
                .default_actions(action(forward))
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
        forward: Option<&Forward<Arn>>,
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
                .set_default_actions(forward.map(|forward| vec![action(forward)])),
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

    /// A rule for clients with IPv6 addresses.
    pub(super) async fn create_rule(
        &self,
        listener: &str,
        forward: &Forward<Arn>,
        tagged: &Tags,
        manner: Manner,
    ) -> Result<Answer, CallError> {
        make!(
            self,
            CreateRule,
            manner,
            self.elb()
                .create_rule()
                .listener_arn(listener)
                .conditions(from_ipv6())
                .priority(PRIORITY)
                .actions(action(forward))
                .set_tags(tags(tagged)),
            |output| {
                let made = output.rules().first();
                made.and_then(|made| made.rule_arn())
                    .map(|arn| Answer::made(arn.to_owned()))
            }
        )
        .and_then(|made| known(Action::CreateRule, made))
    }

    pub(super) async fn modify_rule(
        &self,
        rule: &str,
        forward: &Forward<Arn>,
        manner: Manner,
    ) -> Result<Answer, CallError> {
        make!(
            self,
            ModifyRule,
            manner,
            self.elb()
                .modify_rule()
                .rule_arn(rule)
                .actions(action(forward)),
            |_| Answer::default()
        )
    }

    pub(super) async fn delete_rule(
        &self,
        rule: &str,
        manner: Manner,
    ) -> Result<Answer, CallError> {
        make!(
            self,
            DeleteRule,
            manner,
            self.elb().delete_rule().rule_arn(rule),
            |_| Answer::default()
        )
    }
}

/// A list of one: AWS takes no more in any call.
fn certificate(arn: &str) -> Vec<Certificate> {
    vec![Certificate::builder().certificate_arn(arn).build()]
}

/// Sends to target groups. AWS takes weights only for several of them.
fn action(forward: &Forward<Arn>) -> ListenerAction {
    let action = ListenerAction::builder().r#type(ActionTypeEnum::Forward);
    if let Some(alone) = forward.only() {
        return action.target_group_arn(alone).build();
    }
    let groups = forward.iter().map(|(arn, weight)| {
        TargetGroupTuple::builder()
            .target_group_arn(arn)
            .weight(i32::try_from(weight).unwrap_or(i32::MAX))
            .build()
    });
    let config = ForwardActionConfig::builder().set_target_groups(Some(groups.collect()));
    action.forward_config(config.build()).build()
}

/// Clients with IPv6 addresses.
fn from_ipv6() -> RuleCondition {
    let source = SourceIpConditionConfig::builder();
    let source = source
        .ip_address_type(SourceIpAddressTypeEnum::Ipv6)
        .build();
    RuleCondition::builder()
        .field(SOURCE_IP)
        .source_ip_config(source)
        .build()
}
