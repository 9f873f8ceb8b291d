//! What listeners and rules forward to: the target groups of an action, and what they must have in common with the
//! listener and its load balancer.
//!
//! Invariant: a target group is on one load balancer, whether listeners or rules use it.

use super::attributes;
use super::listeners::Listener;
use super::load_balancers::LoadBalancer;
use super::target_groups::TargetGroup;
use super::{Cloud, Refusal, Result};

/// Target groups by ARN, each with the weight that was given.
pub type Forward = Vec<(String, Option<u32>)>;

/// The most target groups of an action \[docs\].
const MOST_GROUPS: usize = 5;
/// The greatest weight \[model\]. The least is 0, also for all groups of an action.
const MOST_WEIGHT: u32 = 999;

// === impl Cloud ===

impl Cloud {
    /// Each use of a target group, with the listener that uses it or whose rule does.
    pub(super) fn uses_of_groups(&self) -> impl Iterator<Item = (&Listener, &str)> {
        let rules = self.rules.values().filter_map(|rule| {
            let listener = self.listeners.get(&rule.listener)?;
            Some((listener, &rule.forward))
        });
        let listeners = self.listeners.values().map(|one| (one, &one.forward));
        listeners
            .chain(rules)
            .flat_map(|(one, forward)| forward.iter().map(move |(arn, _)| (one, arn.as_str())))
    }

    /// The load balancer that uses a target group.
    pub fn user_of(&self, target_group: &str) -> Option<&str> {
        let mut uses = self.uses_of_groups();
        let (listener, _) = uses.find(|(_, arn)| *arn == target_group)?;
        Some(&listener.load_balancer)
    }

    /// Whether a listener of this protocol on this load balancer can have an action with these target groups.
    pub(super) fn check_forward(
        &self,
        user: &LoadBalancer,
        protocol: &str,
        forward: &Forward,
    ) -> Result<()> {
        if !(1..=MOST_GROUPS).contains(&forward.len()) {
            return Err(Refusal::validation(format!(
                "An action forwards to 1 to {MOST_GROUPS} target groups"
            )));
        }
        for (at, (arn, weight)) in forward.iter().enumerate() {
            if weight.is_some_and(|weight| weight > MOST_WEIGHT) {
                return Err(Refusal::validation(format!(
                    "A weight must be between 0 and {MOST_WEIGHT}"
                )));
            }
            if weight.is_none() && forward.len() > 1 {
                return Err(Refusal::validation(
                    "Each of several target groups must have a weight",
                ));
            }
            if forward.iter().take(at).any(|(other, _)| other == arn) {
                return Err(Refusal::validation(format!(
                    "The target group '{arn}' occurs twice in an action"
                )));
            }
            self.check_group_of(user, protocol, self.target_group(arn)?)?;
        }
        let mut families = forward.iter().map(|(arn, _)| self.target_group(arn));
        let first = families.next().transpose()?.map(|it| &it.ip_address_type);
        for other in families {
            // AWS's announcement of listener rules, and no page of its documentation.
            if self.settings.one_family_per_action && Some(&other?.ip_address_type) != first {
                return Err(invalid(
                    "All target groups of an action must have the same IP address type",
                ));
            }
        }
        Ok(())
    }

    fn check_group_of(
        &self,
        user: &LoadBalancer,
        protocol: &str,
        group: &TargetGroup,
    ) -> Result<()> {
        let arn = &group.arn;
        if group.vpc != user.vpc {
            return Err(invalid(format!(
                "The target group '{arn}' is not in the VPC of the load balancer"
            )));
        }
        if !fits(protocol, group) {
            return Err(Refusal::new(
                "IncompatibleProtocols",
                format!(
                    "A {protocol} listener cannot forward to a target group of the protocol {}",
                    group.protocol
                ),
            ));
        }
        if protocol == "TLS" && attributes::is_sticky(&group.attributes) {
            return Err(not_sticky(arn));
        }
        self.check_family_of(&user.ip_address_type, protocol, group)?;
        // \[seen\]
        if self.user_of(arn).is_some_and(|other| other != user.arn) {
            return Err(Refusal::new(
                "TargetGroupAssociationLimit",
                format!(
                    "The following target groups cannot be associated with more than one load balancer: {arn}"
                ),
            ));
        }
        Ok(())
    }

    /// Whether a load balancer of this IP address type can use a target group. Source: "Create a target group for your
    /// Network Load Balancer" \[docs\].
    pub(super) fn check_family_of(
        &self,
        ip_address_type: &str,
        protocol: &str,
        group: &TargetGroup,
    ) -> Result<()> {
        let (dual, six) = (
            ip_address_type == "dualstack",
            group.ip_address_type == "ipv6",
        );
        if six && !dual {
            return Err(invalid(format!(
                "The target group '{}' has the IP address type ipv6, which needs a dualstack load balancer",
                group.arn
            )));
        }
        if self.settings.dualstack_udp_needs_ipv6 && dual && !six && is_udp(protocol) {
            return Err(invalid(format!(
                "The target group '{}' has the IP address type ipv4, which a {protocol} listener of a dualstack load balancer cannot use",
                group.arn
            )));
        }
        Ok(())
    }
}

/// Whether listener and target group go together. Source: "Listeners for your Network Load
/// Balancers" \[docs\].
fn fits(listener: &str, group: &TargetGroup) -> bool {
    matches!(
        (listener, group.protocol.as_str()),
        ("TCP", "TCP" | "TCP_UDP")
            | ("TLS", "TCP" | "TLS")
            | ("UDP", "UDP" | "TCP_UDP")
            | ("TCP_UDP", "TCP_UDP")
    )
}

/// Whether a listener of this protocol receives UDP.
pub(super) fn is_udp(protocol: &str) -> bool {
    matches!(protocol, "UDP" | "TCP_UDP")
}

/// \[docs\] say that sticky connections are not supported with TLS listeners and TLS target groups. They do not say
/// whether either of them is enough; the fake says that it is.
pub(super) fn not_sticky(target_group: &str) -> Refusal {
    attributes::invalid(format!(
        "The target group '{target_group}' cannot be sticky and used by a TLS listener"
    ))
}

fn invalid(message: impl Into<String>) -> Refusal {
    Refusal::new("InvalidConfigurationRequest", message)
}
