//! Writes: one [`Call`] each. Objects get their tags at creation, and a target group its health
//! check, so that no crash leaves something that nobody can attribute.

use aws_sdk_elasticloadbalancingv2::types::{
    Action as ListenerAction, ActionTypeEnum, IpAddressType, LoadBalancer, LoadBalancerAttribute,
    LoadBalancerSchemeEnum, LoadBalancerTypeEnum, Matcher, ProtocolEnum, SubnetMapping,
    TargetDescription, TargetGroupAttribute, TargetTypeEnum,
};

use super::{answered, fault, protocol, reads, tags};
use crate::call::{Call, Ref};
use crate::client::values::Tags;
use crate::client::{Action, Answer, CallError, Client, Ids, Manner};
use crate::desired::{Check, Subnet, TargetGroup, Transport};
use crate::settings::{CheckProtocol, Scheme};

/// What security groups say of themselves; nobody can change it later.
const DESCRIPTION: &str = "Clients of a load balancer; managed by Ballast";

/// Makes one call of a plan.
#[expect(clippy::too_many_lines, reason = "one short arm for each call")]
pub(in crate::client) async fn write(
    client: &Client,
    call: &Call,
    ids: &Ids,
    manner: Manner,
) -> Result<Answer, CallError> {
    let action = action(call);
    let id = |of: &Ref| ids.of(of, action);
    let all = |of: &[Ref]| -> Result<Vec<String>, CallError> { of.iter().map(id).collect() };
    match call {
        Call::CreateSecurityGroup { name, tags } => {
            let vpc = ids.vpc.as_str();
            let made = client
                .create_security_group(name, DESCRIPTION, vpc, tags, manner)
                .await?;
            Ok(Answer::made(made))
        }
        Call::AuthorizeSecurityGroupIngress {
            security_group,
            rules,
        } => {
            let group = id(security_group)?;
            done(client.authorize_ingress(&group, rules, manner).await)
        }
        Call::RevokeSecurityGroupIngress {
            security_group,
            rules,
        } => {
            let group = id(security_group)?;
            done(client.revoke_ingress(&group, rules, manner).await)
        }
        Call::DeleteSecurityGroup { security_group } => {
            done(client.delete_security_group(security_group, manner).await)
        }
        Call::CreateTargetGroup { target_group, tags } => {
            client
                .create_target_group(target_group, &ids.vpc, tags, manner)
                .await
        }
        Call::ModifyTargetGroup {
            target_group,
            check,
        } => {
            let target_group = id(target_group)?;
            client
                .modify_target_group(&target_group, check, manner)
                .await
        }
        Call::ModifyTargetGroupAttributes {
            target_group,
            attributes,
        } => {
            let target_group = id(target_group)?;
            client
                .modify_target_group_attributes(&target_group, attributes, manner)
                .await
        }
        Call::DeleteTargetGroup { target_group } => {
            client.delete_target_group(target_group, manner).await
        }
        Call::RegisterTargets {
            target_group,
            targets,
        } => {
            let target_group = id(target_group)?;
            client
                .register_targets(&target_group, targets, manner)
                .await
        }
        Call::DeregisterTargets {
            target_group,
            targets,
        } => {
            let target_group = id(target_group)?;
            client
                .deregister_targets(&target_group, targets, manner)
                .await
        }
        Call::CreateLoadBalancer {
            name,
            scheme,
            subnets,
            security_groups,
            tags,
        } => {
            let groups = all(security_groups)?;
            client
                .create_load_balancer(name, *scheme, subnets, &groups, tags, manner)
                .await
        }
        Call::ModifyLoadBalancerAttributes {
            load_balancer,
            attributes,
        } => {
            let load_balancer = id(load_balancer)?;
            client
                .modify_load_balancer_attributes(&load_balancer, attributes, manner)
                .await
        }
        Call::SetSubnets {
            load_balancer,
            subnets,
        } => {
            let load_balancer = id(load_balancer)?;
            client.set_subnets(&load_balancer, subnets, manner).await
        }
        Call::SetSecurityGroups {
            load_balancer,
            security_groups,
        } => {
            let (load_balancer, groups) = (id(load_balancer)?, all(security_groups)?);
            client
                .set_security_groups(&load_balancer, &groups, manner)
                .await
        }
        Call::DeleteLoadBalancer { load_balancer } => {
            client.delete_load_balancer(load_balancer, manner).await
        }
        Call::CreateListener {
            load_balancer,
            port,
            transport,
            target_group,
            tags,
        } => {
            let (load_balancer, target_group) = (id(load_balancer)?, id(target_group)?);
            let to = (*port, *transport, target_group.as_str());
            client
                .create_listener(&load_balancer, to, tags, manner)
                .await
        }
        Call::ModifyListener {
            listener,
            transport,
            target_group,
        } => {
            let target_group = target_group.as_ref().map(id).transpose()?;
            client
                .modify_listener(listener, *transport, target_group.as_deref(), manner)
                .await
        }
        Call::DeleteListener { listener } => client.delete_listener(listener, manner).await,
        Call::AddTags { of, tags } => {
            let (arns, others) = by_service(all(of)?);
            if !others.is_empty() {
                client.create_tags(&others, tags, manner).await?;
            }
            if !arns.is_empty() {
                client.add_tags(&arns, tags, manner).await?;
            }
            Ok(Answer::default())
        }
        Call::RemoveTags { of, keys } => {
            let (arns, others) = by_service(all(of)?);
            if !others.is_empty() {
                client.delete_tags(&others, keys, manner).await?;
            }
            if !arns.is_empty() {
                client.remove_tags(&arns, keys, manner).await?;
            }
            Ok(Answer::default())
        }
    }
}

/// The action of a call. [`Call::AddTags`] and [`Call::RemoveTags`] have another one for objects
/// of EC2.
const fn action(call: &Call) -> Action {
    match call {
        Call::CreateSecurityGroup { .. } => Action::CreateSecurityGroup,
        Call::AuthorizeSecurityGroupIngress { .. } => Action::AuthorizeSecurityGroupIngress,
        Call::RevokeSecurityGroupIngress { .. } => Action::RevokeSecurityGroupIngress,
        Call::DeleteSecurityGroup { .. } => Action::DeleteSecurityGroup,
        Call::CreateTargetGroup { .. } => Action::CreateTargetGroup,
        Call::ModifyTargetGroup { .. } => Action::ModifyTargetGroup,
        Call::ModifyTargetGroupAttributes { .. } => Action::ModifyTargetGroupAttributes,
        Call::DeleteTargetGroup { .. } => Action::DeleteTargetGroup,
        Call::RegisterTargets { .. } => Action::RegisterTargets,
        Call::DeregisterTargets { .. } => Action::DeregisterTargets,
        Call::CreateLoadBalancer { .. } => Action::CreateLoadBalancer,
        Call::ModifyLoadBalancerAttributes { .. } => Action::ModifyLoadBalancerAttributes,
        Call::SetSubnets { .. } => Action::SetSubnets,
        Call::SetSecurityGroups { .. } => Action::SetSecurityGroups,
        Call::DeleteLoadBalancer { .. } => Action::DeleteLoadBalancer,
        Call::CreateListener { .. } => Action::CreateListener,
        Call::ModifyListener { .. } => Action::ModifyListener,
        Call::DeleteListener { .. } => Action::DeleteListener,
        Call::AddTags { .. } => Action::AddTags,
        Call::RemoveTags { .. } => Action::RemoveTags,
    }
}

/// Objects of Elastic Load Balancing have ARNs, those of EC2 have IDs.
fn by_service(ids: Vec<String>) -> (Vec<String>, Vec<String>) {
    ids.into_iter().partition(|id| id.starts_with("arn:"))
}

fn done(result: Result<(), CallError>) -> Result<Answer, CallError> {
    result.map(|()| Answer::default())
}

/// Makes one call of the SDK. Each attempt has a request of its own.
macro_rules! make {
    ($client:ident, $action:ident, $manner:ident, $builder:expr, |$output:pat_param| $value:expr) => {
        $client
            .perform(Action::$action, $manner, |_| {
                let request = $builder;
                Box::pin(async move {
                    let output = request.send().await.map_err(fault)?;
                    let value = {
                        let $output = &output;
                        $value
                    };
                    Ok(answered(value, &output))
                })
            })
            .await
    };
}

impl Client {
    async fn create_load_balancer(
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

    async fn modify_load_balancer_attributes(
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

    async fn set_subnets(
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

    async fn set_security_groups(
        &self,
        load_balancer: &str,
        groups: &[String],
        manner: Manner,
    ) -> Result<Answer, CallError> {
        make!(
            self,
            SetSecurityGroups,
            manner,
            self.elb()
                .set_security_groups()
                .load_balancer_arn(load_balancer)
                .set_security_groups(Some(groups.to_vec())),
            |_| Answer::default()
        )
    }

    async fn delete_load_balancer(
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

    async fn create_target_group(
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
                .protocol(protocol(group.transport))
                .port(group.port.into())
                .vpc_id(vpc)
                .target_type(TargetTypeEnum::Instance)
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

    async fn modify_target_group(
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

    async fn modify_target_group_attributes(
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

    async fn delete_target_group(
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

    async fn register_targets(
        &self,
        target_group: &str,
        targets: &[String],
        manner: Manner,
    ) -> Result<Answer, CallError> {
        make!(
            self,
            RegisterTargets,
            manner,
            self.elb()
                .register_targets()
                .target_group_arn(target_group)
                .set_targets(Some(descriptions(targets))),
            |_| Answer::default()
        )
    }

    async fn deregister_targets(
        &self,
        target_group: &str,
        targets: &[String],
        manner: Manner,
    ) -> Result<Answer, CallError> {
        make!(
            self,
            DeregisterTargets,
            manner,
            self.elb()
                .deregister_targets()
                .target_group_arn(target_group)
                .set_targets(Some(descriptions(targets))),
            |_| Answer::default()
        )
    }

    async fn create_listener(
        &self,
        load_balancer: &str,
        (port, transport, target_group): (u16, Transport, &str),
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
                .protocol(protocol(transport))
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

    async fn modify_listener(
        &self,
        listener: &str,
        transport: Option<Transport>,
        target_group: Option<&str>,
        manner: Manner,
    ) -> Result<Answer, CallError> {
        make!(
            self,
            ModifyListener,
            manner,
            self.elb()
                .modify_listener()
                .listener_arn(listener)
                .set_protocol(transport.map(protocol))
                .set_default_actions(target_group.map(|group| vec![forward(group)])),
            |_| Answer::default()
        )
    }

    async fn delete_listener(&self, listener: &str, manner: Manner) -> Result<Answer, CallError> {
        make!(
            self,
            DeleteListener,
            manner,
            self.elb().delete_listener().listener_arn(listener),
            |_| Answer::default()
        )
    }

    async fn add_tags(
        &self,
        of: &[String],
        tagged: &Tags,
        manner: Manner,
    ) -> Result<Answer, CallError> {
        make!(
            self,
            AddTags,
            manner,
            self.elb()
                .add_tags()
                .set_resource_arns(Some(of.to_vec()))
                .set_tags(tags(tagged)),
            |_| Answer::default()
        )
    }

    async fn remove_tags(
        &self,
        of: &[String],
        keys: &[String],
        manner: Manner,
    ) -> Result<Answer, CallError> {
        make!(
            self,
            RemoveTags,
            manner,
            self.elb()
                .remove_tags()
                .set_resource_arns(Some(of.to_vec()))
                .set_tag_keys(Some(keys.to_vec())),
            |_| Answer::default()
        )
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

fn forward(target_group: &str) -> ListenerAction {
    ListenerAction::builder()
        .r#type(ActionTypeEnum::Forward)
        .target_group_arn(target_group)
        .build()
}

fn descriptions(targets: &[String]) -> Vec<TargetDescription> {
    let all = targets.iter();
    all.map(|id| TargetDescription::builder().id(id).build())
        .collect()
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

fn created(made: &LoadBalancer) -> Answer {
    Answer {
        id: made.load_balancer_arn().map(str::to_owned),
        hostname: made.dns_name().map(str::to_lowercase),
        state: Some(reads::state(made)),
    }
}

/// An object that AWS says it has made.
fn known(action: Action, made: Option<Answer>) -> Result<Answer, CallError> {
    let made = made.filter(|made| made.id.is_some());
    made.ok_or_else(|| CallError::nameless(action))
}
