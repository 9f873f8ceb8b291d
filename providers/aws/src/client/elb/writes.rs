//! Writes: one [`Call`] each. Objects get their tags at creation, and a target group its health
//! check, so that no crash leaves something that nobody can attribute.

mod balancers;
mod groups;
mod listeners;

use self::groups::descriptions;
use crate::call::{Call, Ref};
use crate::client::{Action, Answer, CallError, Client, Ids, Manner};
use crate::forward::Forward;
use crate::observed::Arn;

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
                .create_security_group(name, DESCRIPTION, vpc, &ids.tags(tags), manner)
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
                .create_target_group(target_group, &ids.vpc, &ids.tags(tags), manner)
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
                .register_targets(&target_group, &descriptions(targets, ids), manner)
                .await
        }
        Call::DeregisterTargets {
            target_group,
            targets,
        } => {
            let target_group = id(target_group)?;
            client
                .deregister_targets(&target_group, &descriptions(targets, ids), manner)
                .await
        }
        Call::CreateLoadBalancer {
            name,
            scheme,
            addresses,
            subnets,
            security_groups,
            tags,
        } => {
            let groups = all(security_groups)?;
            let placed = (*addresses, subnets.as_slice());
            client
                .create_load_balancer(name, *scheme, placed, &groups, &ids.tags(tags), manner)
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
        Call::ModifyCapacityReservation {
            load_balancer,
            units,
        } => {
            let load_balancer = id(load_balancer)?;
            client
                .modify_capacity_reservation(&load_balancer, *units, manner)
                .await
        }
        Call::SetSubnets {
            load_balancer,
            addresses,
            subnets,
        } => {
            let load_balancer = id(load_balancer)?;
            let placed = (*addresses, subnets.as_slice());
            client.set_subnets(&load_balancer, placed, manner).await
        }
        Call::SetSecurityGroups {
            load_balancer,
            security_groups,
            private_link_rules,
        } => {
            let (load_balancer, groups) = (id(load_balancer)?, all(security_groups)?);
            client
                .set_security_groups(&load_balancer, &groups, *private_link_rules, manner)
                .await
        }
        Call::DeleteLoadBalancer { load_balancer } => {
            client.delete_load_balancer(load_balancer, manner).await
        }
        Call::CreateListener {
            load_balancer,
            port,
            transport,
            tls,
            forward,
            tags,
            ..
        } => {
            let (load_balancer, forward) = (id(load_balancer)?, targets(forward, &id)?);
            let to = (*port, *transport, tls.as_ref(), &forward);
            client
                .create_listener(&load_balancer, to, tags, manner)
                .await
        }
        Call::ModifyListener {
            listener,
            protocol,
            forward,
            ..
        } => {
            let forward = forward.as_ref().map(|it| targets(it, &id)).transpose()?;
            let protocol = (protocol.as_ref()).map(|(transport, tls)| (*transport, tls.as_ref()));
            client
                .modify_listener(listener, protocol, forward.as_ref(), manner)
                .await
        }
        Call::ModifyListenerAttributes {
            listener,
            attributes,
        } => {
            let listener = id(listener)?;
            client
                .modify_listener_attributes(&listener, attributes, manner)
                .await
        }
        Call::AddListenerCertificates {
            listener,
            certificate,
        } => {
            let listener = id(listener)?;
            client
                .add_listener_certificate(&listener, certificate, manner)
                .await
        }
        Call::RemoveListenerCertificates {
            listener,
            certificate,
        } => {
            let listener = id(listener)?;
            client
                .remove_listener_certificate(&listener, certificate, manner)
                .await
        }
        Call::DeleteListener { listener } => client.delete_listener(listener, manner).await,
        Call::CreateRule {
            listener,
            forward,
            tags,
        } => {
            let (listener, forward) = (id(listener)?, targets(forward, &id)?);
            client.create_rule(&listener, &forward, tags, manner).await
        }
        Call::ModifyRule { rule, forward } => {
            let forward = targets(forward, &id)?;
            client.modify_rule(rule, &forward, manner).await
        }
        Call::DeleteRule { rule } => client.delete_rule(rule, manner).await,
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
        Call::ModifyCapacityReservation { .. } => Action::ModifyCapacityReservation,
        Call::SetSubnets { .. } => Action::SetSubnets,
        Call::SetSecurityGroups { .. } => Action::SetSecurityGroups,
        Call::DeleteLoadBalancer { .. } => Action::DeleteLoadBalancer,
        Call::CreateListener { .. } => Action::CreateListener,
        Call::ModifyListener { .. } => Action::ModifyListener,
        Call::ModifyListenerAttributes { .. } => Action::ModifyListenerAttributes,
        Call::AddListenerCertificates { .. } => Action::AddListenerCertificates,
        Call::RemoveListenerCertificates { .. } => Action::RemoveListenerCertificates,
        Call::DeleteListener { .. } => Action::DeleteListener,
        Call::CreateRule { .. } => Action::CreateRule,
        Call::ModifyRule { .. } => Action::ModifyRule,
        Call::DeleteRule { .. } => Action::DeleteRule,
        Call::AddTags { .. } => Action::AddTags,
        Call::RemoveTags { .. } => Action::RemoveTags,
    }
}

/// Where a listener sends connections, by ARN.
fn targets(
    forward: &Forward<Ref>,
    id: &impl Fn(&Ref) -> Result<String, CallError>,
) -> Result<Forward<Arn>, CallError> {
    let each = forward
        .iter()
        .map(|(group, weight)| Ok((id(group)?, weight)));
    Ok(Forward::weighted(
        each.collect::<Result<Vec<_>, CallError>>()?,
    ))
}

/// Objects of Elastic Load Balancing have ARNs, those of EC2 have IDs.
fn by_service(ids: Vec<String>) -> (Vec<String>, Vec<String>) {
    ids.into_iter().partition(|id| id.starts_with("arn:"))
}

fn done(result: Result<(), CallError>) -> Result<Answer, CallError> {
    result.map(|()| Answer::default())
}

/// An object that AWS says it has made.
fn known(action: Action, made: Option<Answer>) -> Result<Answer, CallError> {
    let made = made.filter(|made| made.id.is_some());
    made.ok_or_else(|| CallError::nameless(action))
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

use make;

#[cfg(test)]
mod tests;
