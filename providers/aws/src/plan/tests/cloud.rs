//! A model of AWS for tests of plans.

use std::collections::{BTreeMap, BTreeSet};

use ballast_provider::mark::APPLIED;

use crate::call::{Call, Ref};
use crate::desired::{Desired, MOST_RULES, Subnet, Transport};
use crate::observed::{
    LoadBalancerState, Observed, ObservedListener, ObservedLoadBalancer, ObservedTargetGroup,
    SecurityGroup,
};
use crate::plan::{CHUNK, Situation, plan};

/// A cloud that does what AWS documents for each call, and nothing else. It refuses a call that
/// AWS would refuse.
#[derive(Clone, Debug, Default)]
pub(super) struct Cloud {
    pub(super) now: Observed,
    made: BTreeMap<String, String>,
}

impl Cloud {
    fn id(&self, of: &Ref) -> String {
        match of {
            Ref::Known(id) => id.clone(),
            Ref::Made(name) => self.made.get(name).expect("made before it is used").clone(),
        }
    }

    fn load_balancer(&mut self, of: &Ref) -> &mut ObservedLoadBalancer {
        let arn = self.id(of);
        let mut all = self.now.load_balancers.values_mut();
        all.find(|one| one.arn == arn).expect("a load balancer")
    }

    fn group(&mut self, of: &Ref) -> &mut ObservedTargetGroup {
        let arn = self.id(of);
        let mut all = self.now.target_groups.values_mut();
        all.find(|one| one.arn == arn).expect("a target group")
    }

    fn tags(&mut self, of: &Ref) -> &mut BTreeMap<String, String> {
        let arn = self.id(of);
        let balancers = self.now.load_balancers.values_mut();
        let groups = self.now.target_groups.values_mut();
        let mut all = (balancers.map(|one| (&one.arn, &mut one.tags)))
            .chain(groups.map(|one| (&one.arn, &mut one.tags)));
        all.find(|(one, _)| **one == arn).expect("an object").1
    }

    fn uses(&self, arn: &str) -> bool {
        let all = self.now.load_balancers.values();
        all.flat_map(|one| one.listeners.values())
            .any(|listener| listener.target_group == arn)
    }

    pub(super) fn call(&mut self, call: &Call) {
        match call {
            Call::CreateSecurityGroup { name, .. } => {
                let id = format!("sg-{name}");
                self.made.insert(name.clone(), id.clone());
                let rules = BTreeSet::new();
                let before = self
                    .now
                    .groups
                    .insert(name.clone(), SecurityGroup { id, rules });
                assert_eq!(before, None, "InvalidGroup.Duplicate");
            }
            Call::AuthorizeSecurityGroupIngress {
                security_group,
                rules,
            } => {
                let there = self.security_group(security_group);
                for rule in rules {
                    assert!(
                        there.rules.insert(rule.clone()),
                        "InvalidPermission.Duplicate"
                    );
                }
                assert!(
                    there.rules.len() <= MOST_RULES,
                    "RulesPerSecurityGroupLimitExceeded"
                );
            }
            Call::RevokeSecurityGroupIngress {
                security_group,
                rules,
            } => {
                let there = self.security_group(security_group);
                for rule in rules {
                    assert!(there.rules.remove(rule), "InvalidPermission.NotFound");
                }
            }
            Call::DeleteSecurityGroup { security_group } => {
                let mut all = self.now.load_balancers.values();
                assert!(
                    !all.any(|one| one.groups.contains(security_group)),
                    "DependencyViolation"
                );
                self.now.groups.retain(|_, one| one.id != *security_group);
            }
            Call::CreateTargetGroup { .. }
            | Call::ModifyTargetGroup { .. }
            | Call::ModifyTargetGroupAttributes { .. }
            | Call::DeleteTargetGroup { .. }
            | Call::RegisterTargets { .. }
            | Call::DeregisterTargets { .. } => self.target_group_call(call),
            Call::AddTags { of, tags } => {
                for one in of {
                    self.tags(one).extend(tags.clone());
                }
            }
            Call::RemoveTags { of, keys } => {
                for one in of {
                    self.tags(one).retain(|key, _| !keys.contains(key));
                }
            }
            call => self.load_balancer_call(call),
        }
    }

    fn target_group_call(&mut self, call: &Call) {
        match call {
            Call::CreateTargetGroup {
                target_group: group,
                tags,
            } => {
                let arn = format!("tg/{}", group.name);
                let there = ObservedTargetGroup {
                    arn: arn.clone(),
                    check: group.check.clone(),
                    attributes: BTreeMap::new(),
                    tags: tags.clone(),
                    targets: BTreeSet::new(),
                };
                self.made.insert(group.name.clone(), arn);
                let before = self.now.target_groups.insert(group.name.clone(), there);
                assert_eq!(before, None, "DuplicateTargetGroupName");
            }
            Call::ModifyTargetGroup {
                target_group,
                check,
            } => self.group(target_group).check = check.clone(),
            Call::ModifyTargetGroupAttributes {
                target_group,
                attributes,
            } => {
                self.group(target_group)
                    .attributes
                    .extend(attributes.clone());
            }
            Call::DeleteTargetGroup {
                target_group: group,
            } => {
                assert!(!self.uses(group), "ResourceInUse");
                self.now.target_groups.retain(|_, one| one.arn != *group);
            }
            Call::RegisterTargets {
                target_group: group,
                targets,
            } => {
                assert!(!targets.is_empty() && targets.len() <= CHUNK);
                self.group(group).targets.extend(targets.clone());
            }
            Call::DeregisterTargets {
                target_group: group,
                targets,
            } => {
                assert!(!targets.is_empty() && targets.len() <= CHUNK);
                self.group(group)
                    .targets
                    .retain(|one| !targets.contains(one));
            }
            call => panic!("{call:?}"),
        }
    }

    fn load_balancer_call(&mut self, call: &Call) {
        match call {
            Call::CreateLoadBalancer {
                name,
                scheme,
                subnets,
                security_groups,
                tags,
            } => {
                assert!(!security_groups.is_empty(), "it could never get one");
                assert!(!tags.contains_key(APPLIED), "it would look finished");
                let there = ObservedLoadBalancer {
                    arn: format!("lb/{name}"),
                    hostname: format!("{name}.elb.eu-central-1.amazonaws.com"),
                    state: LoadBalancerState::Active,
                    scheme: *scheme,
                    subnets: subnets.iter().cloned().collect(),
                    groups: security_groups.iter().map(|one| self.id(one)).collect(),
                    attributes: BTreeMap::new(),
                    tags: tags.clone(),
                    listeners: BTreeMap::new(),
                };
                self.made.insert(name.clone(), there.arn.clone());
                let before = self.now.load_balancers.insert(name.clone(), there);
                assert_eq!(before, None, "DuplicateLoadBalancerName");
            }
            Call::ModifyLoadBalancerAttributes {
                load_balancer,
                attributes,
            } => {
                self.load_balancer(load_balancer)
                    .attributes
                    .extend(attributes.clone());
            }
            Call::SetSubnets {
                load_balancer,
                subnets,
            } => {
                let there = self.load_balancer(load_balancer);
                let replaces = |one: &Subnet| {
                    let mut now = there.subnets.iter();
                    now.any(|it| it.zone == one.zone && it.id != one.id)
                };
                assert!(!subnets.iter().any(replaces), "InvalidSubnet");
                assert!(
                    subnets.iter().any(|one| there.subnets.contains(one)),
                    "all zones at once"
                );
                there.subnets = subnets.iter().cloned().collect();
            }
            Call::SetSecurityGroups {
                load_balancer,
                security_groups,
            } => {
                let ids = security_groups.iter().map(|one| self.id(one)).collect();
                self.load_balancer(load_balancer).groups = ids;
            }
            Call::CreateListener {
                load_balancer,
                port,
                transport,
                target_group,
                ..
            } => {
                let arn = self.id(load_balancer);
                let target_group = self.id(target_group);
                self.associate(&arn, &target_group);
                let there = self.load_balancer(load_balancer);
                let listener = ObservedListener {
                    arn: format!("{arn}/{port}"),
                    transport: *transport,
                    target_group,
                };
                let before = there.listeners.insert(*port, listener);
                assert_eq!(before, None, "DuplicateListener");
            }
            Call::ModifyListener {
                listener,
                transport,
                target_group,
            } => self.modify_listener(listener, *transport, target_group.as_ref()),
            Call::DeleteListener { listener } => {
                for one in self.now.load_balancers.values_mut() {
                    one.listeners.retain(|_, one| one.arn != *listener);
                }
            }
            Call::DeleteLoadBalancer { load_balancer } => {
                self.now
                    .load_balancers
                    .retain(|_, one| one.arn != *load_balancer);
            }
            call => panic!("{call:?}"),
        }
    }

    /// AWS permits a target group on one load balancer only.
    fn associate(&self, load_balancer: &str, target_group: &str) {
        let others = self.now.load_balancers.values();
        let mut others = others.filter(|one| one.arn != load_balancer);
        let taken = others.any(|one| {
            let mut listeners = one.listeners.values();
            listeners.any(|listener| listener.target_group == target_group)
        });
        assert!(!taken, "TargetGroupAssociationLimit");
    }

    fn modify_listener(
        &mut self,
        listener: &str,
        transport: Option<Transport>,
        target_group: Option<&Ref>,
    ) {
        assert!(
            transport.is_some() || target_group.is_some(),
            "nothing changes"
        );
        let new = target_group.map(|one| self.id(one));
        let load_balancer = listener.rsplit_once('/').expect("an ARN").0.to_owned();
        if let Some(new) = &new {
            self.associate(&load_balancer, new);
            let targets = &self.group(&Ref::Known(new.clone())).targets;
            assert!(
                !targets.is_empty(),
                "the clients of this listener reach nobody"
            );
        }
        let there = self.load_balancer(&Ref::Known(load_balancer));
        let mut all = there.listeners.values_mut();
        let there = all.find(|one| one.arn == listener).expect("a listener");
        there.transport = transport.unwrap_or(there.transport);
        there.target_group = new.unwrap_or_else(|| there.target_group.clone());
    }

    fn security_group(&mut self, of: &Ref) -> &mut SecurityGroup {
        let id = self.id(of);
        let mut all = self.now.groups.values_mut();
        all.find(|one| one.id == id).expect("a security group")
    }

    /// Makes all calls of a plan, and returns their actions; those of the clean-up come last.
    pub(super) fn apply(&mut self, desired: &Desired, situation: &Situation) -> Vec<&'static str> {
        let plan = plan(desired, situation, &self.now);
        let calls = plan.calls.iter().chain(&plan.cleanup);
        for call in calls.clone() {
            self.call(call);
        }
        calls.map(Call::action).collect()
    }
}
