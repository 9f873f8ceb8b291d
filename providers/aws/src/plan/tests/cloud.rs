//! A model of AWS for tests of plans.

use std::collections::{BTreeMap, BTreeSet};

use ballast_provider::mark::APPLIED;

use crate::call::{Call, Ref};
use crate::desired::Desired;
use crate::observed::{
    LoadBalancerState, Observed, ObservedListener, ObservedLoadBalancer, ObservedTargetGroup,
    SecurityGroup,
};
use crate::plan::{CHUNK, plan};

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
            Ref::Backend => "sg-backend".into(),
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
            Call::CreateGroup { name, .. } => {
                assert!(self.now.group.is_none(), "InvalidGroup.Duplicate");
                self.made.insert(name.clone(), format!("sg-{name}"));
                self.now.group = Some(SecurityGroup {
                    id: format!("sg-{name}"),
                    rules: BTreeSet::new(),
                });
            }
            Call::Authorize { group, rules } => {
                let id = self.id(group);
                let there = self
                    .now
                    .group
                    .as_mut()
                    .filter(|one| one.id == id)
                    .expect("a group");
                for rule in rules {
                    assert!(
                        there.rules.insert(rule.clone()),
                        "InvalidPermission.Duplicate"
                    );
                }
            }
            Call::Revoke { group, rules } => {
                let id = self.id(group);
                let there = self
                    .now
                    .group
                    .as_mut()
                    .filter(|one| one.id == id)
                    .expect("a group");
                for rule in rules {
                    assert!(there.rules.remove(rule), "InvalidPermission.NotFound");
                }
            }
            Call::DeleteGroup { group } => {
                let used = (self.now.load_balancers.values()).any(|one| one.groups.contains(group));
                assert!(!used, "DependencyViolation");
                self.now.group = None;
            }
            Call::CreateTargetGroup { .. }
            | Call::ModifyCheck { .. }
            | Call::ModifyTargetGroup { .. }
            | Call::DeleteTargetGroup { .. }
            | Call::Register { .. }
            | Call::Deregister { .. } => self.target_group_call(call),
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
            Call::CreateTargetGroup { group, tags } => {
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
            Call::ModifyCheck { group, check } => self.group(group).check = check.clone(),
            Call::ModifyTargetGroup { group, attributes } => {
                self.group(group).attributes.extend(attributes.clone());
            }
            Call::DeleteTargetGroup { group } => {
                assert!(!self.uses(group), "ResourceInUse");
                self.now.target_groups.retain(|_, one| one.arn != *group);
            }
            Call::Register { group, targets } => {
                assert!(!targets.is_empty() && targets.len() <= CHUNK);
                self.group(group).targets.extend(targets.clone());
            }
            Call::Deregister { group, targets } => {
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
                groups,
                tags,
            } => {
                assert!(!groups.is_empty(), "could never get a group later");
                assert!(!tags.contains_key(APPLIED), "it would look finished");
                let there = ObservedLoadBalancer {
                    arn: format!("lb/{name}"),
                    hostname: format!("{name}.elb.eu-central-1.amazonaws.com"),
                    state: LoadBalancerState::Active,
                    scheme: *scheme,
                    subnets: subnets.iter().cloned().collect(),
                    groups: groups.iter().map(|one| self.id(one)).collect(),
                    attributes: BTreeMap::new(),
                    tags: tags.clone(),
                    listeners: BTreeMap::new(),
                };
                self.made.insert(name.clone(), there.arn.clone());
                let before = self.now.load_balancers.insert(name.clone(), there);
                assert_eq!(before, None, "DuplicateLoadBalancerName");
            }
            Call::ModifyLoadBalancer {
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
                self.load_balancer(load_balancer).subnets = subnets.iter().cloned().collect();
            }
            Call::SetGroups {
                load_balancer,
                groups,
            } => {
                let ids = groups.iter().map(|one| self.id(one)).collect();
                self.load_balancer(load_balancer).groups = ids;
            }
            Call::CreateListener {
                load_balancer,
                port,
                transport,
                group,
                ..
            } => {
                let target_group = self.id(group);
                let there = self.load_balancer(load_balancer);
                let listener = ObservedListener {
                    arn: format!("{}/{port}", there.arn),
                    transport: *transport,
                    target_group,
                };
                assert_eq!(
                    there.listeners.insert(*port, listener),
                    None,
                    "DuplicateListener"
                );
            }
            Call::ModifyListener {
                listener,
                transport,
                group,
            } => {
                let target_group = self.id(group);
                let all = self.now.load_balancers.values_mut();
                let mut all = all.flat_map(|one| one.listeners.values_mut());
                let there = all.find(|one| one.arn == *listener).expect("a listener");
                (there.transport, there.target_group) = (*transport, target_group);
            }
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

    /// Makes all calls of a plan, and returns their actions.
    pub(super) fn apply(
        &mut self,
        desired: &Desired,
        targets: &BTreeSet<String>,
    ) -> Vec<&'static str> {
        let plan = plan(desired, targets, &self.now);
        for call in &plan.calls {
            self.call(call);
        }
        plan.calls.iter().map(Call::action).collect()
    }

    /// What a restarted process sees without a comparison: it trusts the tag if the target
    /// groups are those that the Service needs.
    pub(super) fn looks_finished(&self, desired: &Desired) -> bool {
        let names = |all: Vec<&String>| all.into_iter().cloned().collect::<BTreeSet<_>>();
        let needed = names(desired.listeners.values().map(|one| &one.name).collect());
        let there = self.now.load_balancers.get(&desired.name);
        there.and_then(ObservedLoadBalancer::applied) == Some(desired.hash().as_str())
            && names(self.now.target_groups.keys().collect()) == needed
    }
}
