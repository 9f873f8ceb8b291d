//! Calls in words, for people who want to know what would be done.

use std::collections::BTreeMap;
use std::fmt;

use super::{Call, Ref};

impl fmt::Display for Call {
    /// The action, and what it is about.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.action(), self.about())
    }
}

impl fmt::Display for Ref {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(id) | Self::Made(id) => f.write_str(id),
        }
    }
}

// === impl Call ===

impl Call {
    fn about(&self) -> String {
        match self {
            Self::CreateSecurityGroup { name, .. } => name.clone(),
            Self::AuthorizeSecurityGroupIngress {
                security_group,
                rules,
            }
            | Self::RevokeSecurityGroupIngress {
                security_group,
                rules,
            } => format!("{} of {security_group}", count(rules.len(), "rule")),
            Self::DeleteSecurityGroup { security_group } => security_group.clone(),
            Self::CreateTargetGroup { target_group, .. } => format!(
                "{}, {} {}, targets: {} ({})",
                target_group.name,
                target_group.transport.protocol(target_group.tls),
                target_group.port,
                target_group.target_type.as_str(),
                target_group.family
            ),
            Self::ModifyTargetGroup { target_group, .. } => {
                format!("the health check of {target_group}")
            }
            Self::ModifyTargetGroupAttributes {
                target_group,
                attributes,
            } => format!("{} of {target_group}", pairs(attributes)),
            Self::DeleteTargetGroup { target_group } => target_group.clone(),
            Self::RegisterTargets {
                target_group,
                targets,
            } => format!("{} in {target_group}", count(targets.len(), "target")),
            Self::DeregisterTargets {
                target_group,
                targets,
            } => format!("{} of {target_group}", count(targets.len(), "target")),
            Self::CreateLoadBalancer {
                name,
                scheme,
                addresses,
                ..
            } => format!("{name}, {}, {addresses}", scheme.as_str()),
            Self::DeleteLoadBalancer { load_balancer } => load_balancer.clone(),
            Self::ModifyLoadBalancerAttributes {
                load_balancer,
                attributes,
            } => format!("{} of {load_balancer}", pairs(attributes)),
            Self::ModifyCapacityReservation {
                load_balancer,
                units,
            } => match units {
                Some(units) => format!("{units} capacity units for {load_balancer}"),
                None => format!("no reserved capacity for {load_balancer}"),
            },
            Self::SetSubnets {
                load_balancer,
                addresses,
                subnets,
            } => {
                let ids: Vec<&str> = subnets.iter().map(|one| one.id.as_str()).collect();
                let families = addresses.map_or(String::new(), |it| format!(", {it}"));
                format!("{} for {load_balancer}{families}", ids.join(", "))
            }
            Self::SetSecurityGroups {
                load_balancer,
                security_groups,
                ..
            } => format!("{} for {load_balancer}", listed(security_groups)),
            Self::CreateListener { .. }
            | Self::ModifyListener { .. }
            | Self::ModifyListenerAttributes { .. }
            | Self::AddListenerCertificates { .. }
            | Self::RemoveListenerCertificates { .. }
            | Self::DeleteListener { .. }
            | Self::CreateRule { .. }
            | Self::ModifyRule { .. }
            | Self::DeleteRule { .. } => self.about_listener(),
            Self::AddTags { of, tags } => format!("{} on {}", pairs(tags), listed(of)),
            Self::RemoveTags { of, keys } => format!("{} of {}", keys.join(", "), listed(of)),
        }
    }

    fn about_listener(&self) -> String {
        match self {
            Self::CreateListener {
                port,
                transport,
                tls,
                forward,
                ..
            } => format!("{port}/{} to {forward}", transport.protocol(tls.is_some())),
            Self::ModifyListener {
                listener,
                protocol,
                forward,
                ..
            } => {
                let protocol = protocol.as_ref().map(|(transport, tls)| {
                    format!(" becomes {}", transport.protocol(tls.is_some()))
                });
                let forward = forward.as_ref().map(|it| format!(" sends to {it}"));
                let both = [protocol, forward];
                let both: Vec<String> = both.into_iter().flatten().collect();
                format!("{listener}{}", both.join(" and"))
            }
            Self::ModifyListenerAttributes {
                listener,
                attributes,
            } => format!("{} of {listener}", pairs(attributes)),
            Self::AddListenerCertificates {
                listener,
                certificate,
            }
            | Self::RemoveListenerCertificates {
                listener,
                certificate,
            } => format!("{certificate} of {listener}"),
            Self::DeleteListener { listener } => listener.clone(),
            Self::CreateRule {
                listener, forward, ..
            } => format!("clients with IPv6 of {listener} to {forward}"),
            Self::ModifyRule { rule, forward } => format!("{rule} sends to {forward}"),
            Self::DeleteRule { rule } => rule.clone(),
            _ => String::new(),
        }
    }
}

fn count(number: usize, what: &str) -> String {
    let many = if number == 1 { "" } else { "s" };
    format!("{number} {what}{many}")
}

fn pairs(all: &BTreeMap<String, String>) -> String {
    let all: Vec<String> = all.iter().map(|(key, it)| format!("{key}={it}")).collect();
    all.join(", ")
}

fn listed(all: &[Ref]) -> String {
    let all: Vec<String> = all.iter().map(Ref::to_string).collect();
    all.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::Transport;
    use crate::forward::Forward;
    use crate::target::TargetId;

    #[test]
    fn a_call_says_what_it_is_about() {
        let group = || Ref::Made("bl-1".into());
        let calls = [
            (
                Call::RegisterTargets {
                    target_group: group(),
                    targets: vec![TargetId::Instance("i-1".into())],
                },
                "RegisterTargets: 1 target in bl-1",
            ),
            (
                Call::ModifyListener {
                    listener: "arn-l".into(),
                    protocol: Some((Transport::Tcp, None)),
                    forward: Some(Forward::to(group())),
                    service: None,
                },
                "ModifyListener: arn-l becomes TCP and sends to bl-1",
            ),
            (
                Call::AddTags {
                    of: vec![Ref::Known("arn".into()), group()],
                    tags: [("a".to_owned(), "b".to_owned())].into(),
                },
                "AddTags: a=b on arn, bl-1",
            ),
            (
                Call::DeleteListener {
                    listener: "arn-l".into(),
                },
                "DeleteListener: arn-l",
            ),
        ];
        for (call, expected) in calls {
            assert_eq!(call.to_string(), expected);
        }
    }
}
