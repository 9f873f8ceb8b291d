//! A model of AWS for tests of plans.

use ballast_provider::Family;
use ballast_provider::mark::APPLIED;

use crate::call::{Call, Ref};
use crate::client::{Answer, Ids};
use crate::desired::{Addresses, Desired, MOST_RULES, Subnet, Transport};
use crate::effect;
use crate::forward::Forward;
use crate::observed::{
    LoadBalancerState, Observed, ObservedListener, ObservedLoadBalancer, ObservedTargetGroup,
    SecurityGroup,
};
use crate::plan::{CHUNK, Situation, plan};
use crate::settings::attributes::STICKINESS;

/// A cloud that refuses a call that AWS would refuse. What a call changes is what the provider
/// believes it changes.
#[derive(Clone, Debug, Default)]
pub(super) struct Cloud {
    pub(super) now: Observed,
    ids: Ids,
}

impl Cloud {
    fn id(&self, of: &Ref) -> String {
        match of {
            Ref::Known(id) => id.clone(),
            Ref::Made(name) => self.ids.made[name].clone(),
        }
    }

    fn load_balancer(&self, of: &Ref) -> &ObservedLoadBalancer {
        let arn = self.id(of);
        let mut all = self.now.load_balancers.values();
        all.find(|one| one.arn == arn).expect("a load balancer")
    }

    fn target_group(&self, of: &Ref) -> &ObservedTargetGroup {
        let arn = self.id(of);
        let mut all = self.now.target_groups.values();
        all.find(|one| one.arn == arn).expect("a target group")
    }

    fn security_group(&self, of: &Ref) -> &SecurityGroup {
        let id = self.id(of);
        let mut all = self.now.groups.values();
        all.find(|one| one.id == id).expect("a security group")
    }

    fn listener(&self, of: &Ref) -> &ObservedListener {
        let arn = self.id(of);
        let balancers = self.now.load_balancers.values();
        let mut all = balancers.flat_map(|one| one.listeners.values());
        all.find(|one| one.arn == arn).expect("a listener")
    }

    fn exists(&self, of: &Ref) -> bool {
        let id = self.id(of);
        let mut now = self.now.clone();
        now.tags_mut().any(|(one, _)| *one == id)
    }

    fn uses(&self, arn: &str) -> bool {
        let all = self.now.load_balancers.values();
        all.flat_map(|one| one.listeners.values())
            .any(|listener| listener.sends_to(arn))
    }

    pub(super) fn call(&mut self, call: &Call) {
        self.check(call);
        let made = self.make(call);
        if let (Some(name), Some(id)) = (call.makes(), &made.id) {
            self.ids.made.insert(name.to_owned(), id.clone());
        }
        effect::apply(&mut self.now, call, &self.ids, &made);
        if let Call::AuthorizeSecurityGroupIngress { security_group, .. } = call {
            let count = self.security_group(security_group).rules.len();
            assert!(count <= MOST_RULES, "RulesPerSecurityGroupLimitExceeded");
        }
        self.check_sticky();
        for one in self.now.load_balancers.values() {
            for listener in one.listeners.values() {
                self.check_families(one.addresses, listener);
            }
        }
        self.check_reserved();
    }

    /// AWS reserves no capacity for TLS.
    fn check_reserved(&self) {
        for one in self.now.load_balancers.values() {
            let secure = one.listeners.values().any(|it| it.tls.is_some());
            assert!(!secure || one.reservation.is_none(), "{one:?}");
        }
    }

    /// AWS has no sticky connections with TLS.
    fn check_sticky(&self) {
        let balancers = self.now.load_balancers.values();
        let listeners = balancers.flat_map(|one| one.listeners.values());
        for one in listeners.filter(|one| one.tls.is_some()) {
            for arn in one.groups() {
                let group = self.target_group(&Ref::Known(arn.clone()));
                assert!(!group.attributes.contains_key(STICKINESS), "{one:?}");
            }
        }
    }

    fn make(&self, call: &Call) -> Answer {
        let id = match call {
            Call::CreateSecurityGroup { name, .. } => format!("sg-{name}"),
            Call::CreateTargetGroup { target_group, .. } => format!("tg/{}", target_group.name),
            Call::CreateLoadBalancer { name, .. } => format!("lb/{name}"),
            Call::CreateListener {
                load_balancer,
                port,
                ..
            } => format!("{}/{port}", self.id(load_balancer)),
            Call::CreateRule { listener, .. } => format!("{}/rule", self.id(listener)),
            _ => return Answer::default(),
        };
        Answer {
            id: Some(id),
            hostname: Some("web.elb.eu-central-1.amazonaws.com".into()),
            state: Some(LoadBalancerState::Active),
        }
    }

    fn check(&self, call: &Call) {
        match call {
            Call::CreateSecurityGroup { name, .. } => {
                assert!(
                    !self.now.groups.contains_key(name),
                    "InvalidGroup.Duplicate"
                );
            }
            Call::AuthorizeSecurityGroupIngress {
                security_group,
                rules,
            } => {
                let there = &self.security_group(security_group).rules;
                assert!(there.is_disjoint(rules), "InvalidPermission.Duplicate");
            }
            Call::RevokeSecurityGroupIngress {
                security_group,
                rules,
            } => {
                let there = &self.security_group(security_group).rules;
                assert!(there.is_superset(rules), "InvalidPermission.NotFound");
            }
            Call::DeleteSecurityGroup { security_group } => {
                let mut all = self.now.load_balancers.values();
                let used = all.any(|one| one.groups.contains(security_group));
                assert!(!used, "DependencyViolation");
            }
            Call::AddTags { of, .. } | Call::RemoveTags { of, .. } => {
                assert!(of.iter().all(|one| self.exists(one)), "NotFound");
            }
            Call::CreateTargetGroup { .. }
            | Call::ModifyTargetGroup { .. }
            | Call::ModifyTargetGroupAttributes { .. }
            | Call::DeleteTargetGroup { .. }
            | Call::RegisterTargets { .. }
            | Call::DeregisterTargets { .. } => self.check_target_group(call),
            call => self.check_load_balancer(call),
        }
    }

    fn check_target_group(&self, call: &Call) {
        match call {
            Call::CreateTargetGroup { target_group, .. } => {
                let known = self.now.target_groups.contains_key(&target_group.name);
                assert!(!known, "DuplicateTargetGroupName");
            }
            Call::ModifyTargetGroup { target_group, .. }
            | Call::ModifyTargetGroupAttributes { target_group, .. } => {
                self.target_group(target_group);
            }
            Call::DeleteTargetGroup { target_group } => {
                assert!(!self.uses(target_group), "ResourceInUse");
            }
            Call::RegisterTargets {
                target_group,
                targets,
            }
            | Call::DeregisterTargets {
                target_group,
                targets,
            } => {
                self.target_group(target_group);
                assert!(!targets.is_empty() && targets.len() <= CHUNK);
            }
            call => panic!("{call:?}"),
        }
    }

    fn check_load_balancer(&self, call: &Call) {
        match call {
            Call::CreateLoadBalancer {
                name,
                security_groups,
                tags,
                ..
            } => {
                assert!(!security_groups.is_empty(), "it could never get one");
                assert!(!tags.contains_key(APPLIED), "it would look finished");
                let known = self.now.load_balancers.contains_key(name);
                assert!(!known, "DuplicateLoadBalancerName");
            }
            Call::ModifyLoadBalancerAttributes { load_balancer, .. }
            | Call::SetSecurityGroups { load_balancer, .. } => {
                self.load_balancer(load_balancer);
            }
            Call::ModifyCapacityReservation {
                load_balancer,
                units,
            } => {
                let there = self.load_balancer(load_balancer);
                assert!(there.serves(), "PriorRequestNotComplete");
                let now = there.reservation.as_ref().map(|it| it.units);
                assert_ne!(now, *units, "for nothing");
                let mut listeners = there.listeners.values();
                let secure = listeners.any(|one| one.tls.is_some());
                assert!(units.is_none() || !secure, "InvalidConfigurationRequest");
            }
            Call::SetSubnets {
                load_balancer,
                addresses,
                subnets,
            } => {
                let there = self.load_balancer(load_balancer);
                for one in there.listeners.values() {
                    self.check_families(addresses.unwrap_or(there.addresses), one);
                }
                let replaces = |one: &Subnet| {
                    let mut now = there.subnets.iter();
                    now.any(|it| it.zone == one.zone && it.id != one.id)
                };
                assert!(!subnets.iter().any(replaces), "InvalidSubnet");
                let stays = subnets.iter().any(|one| there.subnets.contains(one));
                assert!(stays, "all zones at once");
            }
            Call::DeleteLoadBalancer { .. } => {}
            call => self.check_listener(call),
        }
    }

    fn check_listener(&self, call: &Call) {
        match call {
            Call::CreateListener {
                load_balancer,
                port,
                forward,
                ..
            } => {
                self.associate(&self.id(load_balancer), forward);
                let there = &self.load_balancer(load_balancer).listeners;
                assert!(!there.contains_key(port), "DuplicateListener");
            }
            Call::ModifyListener {
                listener,
                protocol,
                forward,
                ..
            } => {
                let changes = protocol.is_some() || forward.is_some();
                assert!(changes, "nothing changes");
                let there = self.listener(&Ref::Known(listener.clone()));
                assert!(
                    protocol.is_none() || there.rules.is_empty(),
                    "of another protocol"
                );
                if let Some(new) = forward {
                    self.moves(listener, new);
                }
            }
            Call::CreateRule {
                listener, forward, ..
            } => {
                self.moves(&self.id(listener), forward);
                assert!(self.listener(listener).rules.is_empty(), "PriorityInUse");
            }
            Call::ModifyRule { rule, forward } => {
                self.moves(rule.rsplit_once('/').expect("an ARN").0, forward);
            }
            Call::DeleteRule { rule } => {
                let balancers = self.now.load_balancers.values();
                let mut listeners = balancers.flat_map(|one| one.listeners.values());
                assert!(listeners.any(|one| one.rules.contains_key(rule)));
            }
            Call::ModifyListenerAttributes {
                listener,
                attributes,
            } => {
                let there = self.listener(listener);
                let tcp = there.transport == Transport::Tcp && there.tls.is_none();
                assert!(tcp && !attributes.is_empty(), "ValidationError");
            }
            Call::AddListenerCertificates {
                listener,
                certificate,
            } => {
                let there = self.listener(listener);
                assert!(there.tls.is_some(), "ValidationError");
                assert!(!there.sni.contains(certificate), "for nothing");
            }
            Call::RemoveListenerCertificates {
                listener,
                certificate,
            } => {
                let there = self.listener(listener);
                assert!(there.sni.contains(certificate), "CertificateNotFound");
            }
            Call::DeleteListener { .. } => {}
            call => panic!("{call:?}"),
        }
    }

    /// Clients of a listener have other target groups.
    fn moves(&self, listener: &str, forward: &Forward<Ref>) {
        let load_balancer = listener.rsplit_once('/').expect("an ARN").0;
        self.associate(load_balancer, forward);
        for group in forward.groups() {
            let targets = &self.target_group(group).targets;
            assert!(!targets.is_empty(), "its clients reach nobody");
        }
    }

    /// AWS permits a target group on one load balancer only.
    fn associate(&self, load_balancer: &str, forward: &Forward<Ref>) {
        let others = self.now.load_balancers.values();
        let others = others.filter(|one| one.arn != load_balancer);
        for one in others.flat_map(|one| one.listeners.values()) {
            let taken = forward.groups().any(|it| one.sends_to(&self.id(it)));
            assert!(!taken, "TargetGroupAssociationLimit");
        }
    }

    /// Only dual-stack load balancers have rules, and send to IPv6 addresses. With UDP they need source NAT.
    fn check_families(&self, addresses: Addresses, one: &ObservedListener) {
        let v6 = |arn: &String| self.target_group(&Ref::Known(arn.clone())).family == Family::V6;
        let six = !one.rules.is_empty() || one.groups().any(v6);
        assert!(!six || addresses != Addresses::Ipv4, "{one:?}");
        if one.transport != Transport::Tcp && addresses != Addresses::Ipv4 {
            assert!(one.groups().all(v6), "{one:?}");
            let nat = Addresses::Dualstack { source_nat: true };
            assert_eq!(addresses, nat, "{one:?}");
        }
    }

    /// Makes all calls of a plan, and returns their actions; those of the clean-up come last. A load balancer that it makes
    /// is active at once, so what waits for that follows.
    pub(super) fn apply(&mut self, desired: &Desired, situation: &Situation) -> Vec<&'static str> {
        let mut actions = Vec::new();
        loop {
            let plan = plan(desired, situation, &self.now);
            let calls = plan.calls.iter().chain(&plan.cleanup);
            for call in calls.clone() {
                self.call(call);
            }
            actions.extend(calls.map(Call::action));
            if !plan.reservation_waits || situation.reservation_waits {
                return actions;
            }
        }
    }
}
