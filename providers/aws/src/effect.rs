//! What a call that succeeded has changed, so that nobody needs to ask AWS again. Pure.
//!
//! The next plan is made from the result. A call whose effect is not known makes the whole record
//! of its load balancer doubtful (`record.rs`); it does not come here.

use std::collections::{BTreeMap, BTreeSet};

use ballast_provider::Family;

use crate::call::{Call, Ref};
use crate::client::{Answer, Ids};
use crate::forward::ObservedRule;
use crate::observed::{
    LoadBalancerState, Observed, ObservedListener, ObservedLoadBalancer, ObservedTargetGroup,
    Reservation, SecurityGroup,
};
use crate::settings::attributes::{LISTENER, LOAD_BALANCER, TARGET_GROUP, changed};
use crate::target::TargetId;

/// Records the effect of a call on the objects of one load balancer.
pub fn apply(observed: &mut Observed, call: &Call, ids: &Ids, answer: &Answer) {
    let mut effect = Effect { observed, ids };
    match call {
        Call::CreateSecurityGroup { .. }
        | Call::AuthorizeSecurityGroupIngress { .. }
        | Call::RevokeSecurityGroupIngress { .. }
        | Call::DeleteSecurityGroup { .. } => effect.security_group(call, answer),
        Call::CreateTargetGroup { .. }
        | Call::ModifyTargetGroup { .. }
        | Call::ModifyTargetGroupAttributes { .. }
        | Call::DeleteTargetGroup { .. }
        | Call::RegisterTargets { .. }
        | Call::DeregisterTargets { .. } => effect.target_group(call, answer),
        Call::CreateLoadBalancer { .. }
        | Call::ModifyLoadBalancerAttributes { .. }
        | Call::ModifyCapacityReservation { .. }
        | Call::SetSubnets { .. }
        | Call::SetSecurityGroups { .. }
        | Call::DeleteLoadBalancer { .. } => effect.load_balancer(call, answer),
        Call::CreateListener { .. }
        | Call::ModifyListener { .. }
        | Call::ModifyListenerAttributes { .. }
        | Call::AddListenerCertificates { .. }
        | Call::RemoveListenerCertificates { .. }
        | Call::DeleteListener { .. } => effect.listener(call, answer),
        Call::CreateRule { .. } | Call::ModifyRule { .. } | Call::DeleteRule { .. } => {
            effect.rule(call, answer);
        }
        Call::AddTags { of, tags } => effect.tags(of, |all| all.extend(tags.clone())),
        Call::RemoveTags { of, keys } => {
            effect.tags(of, |all| all.retain(|key, _| !keys.contains(key)));
        }
    }
}

struct Effect<'a> {
    observed: &'a mut Observed,
    ids: &'a Ids,
}

// === impl Effect ===

impl Effect<'_> {
    fn id(&self, of: &Ref) -> String {
        match of {
            Ref::Known(id) => id.clone(),
            Ref::Made(name) => self.ids.made.get(name).cloned().unwrap_or_default(),
        }
    }

    fn group_of(&mut self, of: &Ref) -> Option<&mut SecurityGroup> {
        let id = self.id(of);
        let mut all = self.observed.groups.values_mut();
        all.find(|one| one.id == id)
    }

    fn target_group_of(&mut self, of: &Ref) -> Option<&mut ObservedTargetGroup> {
        let arn = self.id(of);
        let mut all = self.observed.target_groups.values_mut();
        all.find(|one| one.arn == arn)
    }

    /// The targets of a target group, also of one that others own: several notes may be about it.
    fn targets_of(&mut self, of: &Ref) -> impl Iterator<Item = &mut BTreeSet<TargetId>> {
        let arn = self.id(of);
        let all = self.observed.target_groups.values_mut();
        all.filter_map(move |one| match &mut one.bound {
            _ if one.arn == arn => Some(&mut one.targets),
            Some(bound) if bound.arn == arn => Some(&mut bound.targets),
            _ => None,
        })
    }

    fn load_balancer_of(&mut self, of: &Ref) -> Option<&mut ObservedLoadBalancer> {
        let arn = self.id(of);
        let mut all = self.observed.load_balancers.values_mut();
        all.find(|one| one.arn == arn)
    }

    fn listener_of(&mut self, of: &Ref) -> Option<&mut ObservedListener> {
        let arn = self.id(of);
        self.listeners().find(|one| one.arn == arn)
    }

    fn security_group(&mut self, call: &Call, answer: &Answer) {
        match call {
            Call::CreateSecurityGroup { name, tags } => {
                let group = SecurityGroup {
                    id: answer.id.clone().unwrap_or_default(),
                    tags: tags.clone(),
                    rules: BTreeSet::new(),
                };
                self.observed.groups.insert(name.clone(), group);
            }
            Call::AuthorizeSecurityGroupIngress {
                security_group,
                rules,
            } => {
                if let Some(group) = self.group_of(security_group) {
                    group.rules.extend(rules.clone());
                }
            }
            Call::RevokeSecurityGroupIngress {
                security_group,
                rules,
            } => {
                if let Some(group) = self.group_of(security_group) {
                    group.rules.retain(|rule| !rules.contains(rule));
                }
            }
            Call::DeleteSecurityGroup { security_group } => {
                let groups = &mut self.observed.groups;
                groups.retain(|_, one| one.id != *security_group);
            }
            _ => {}
        }
    }

    fn target_group(&mut self, call: &Call, answer: &Answer) {
        match call {
            Call::CreateTargetGroup { target_group, tags } => {
                let arn = answer.id.clone().unwrap_or_default();
                let group = ObservedTargetGroup {
                    tags: tags.clone(),
                    ..target_group.made(arn)
                };
                let name = target_group.name.clone();
                self.observed.target_groups.insert(name, group);
            }
            Call::ModifyTargetGroup {
                target_group,
                check,
            } => {
                if let Some(group) = self.target_group_of(target_group) {
                    group.check = check.clone();
                }
            }
            Call::ModifyTargetGroupAttributes {
                target_group,
                attributes,
            } => {
                if let Some(group) = self.target_group_of(target_group) {
                    group.attributes.extend(attributes.clone());
                    let all = std::mem::take(&mut group.attributes);
                    group.attributes = changed(all, &TARGET_GROUP);
                }
            }
            Call::RegisterTargets {
                target_group,
                targets,
            } => {
                for present in self.targets_of(target_group) {
                    present.extend(targets.iter().cloned());
                }
            }
            Call::DeregisterTargets {
                target_group,
                targets,
            } => {
                for present in self.targets_of(target_group) {
                    present.retain(|one| !targets.contains(one));
                }
            }
            Call::DeleteTargetGroup { target_group } => {
                let groups = &mut self.observed.target_groups;
                groups.retain(|_, one| one.arn != *target_group);
            }
            _ => {}
        }
    }

    fn load_balancer(&mut self, call: &Call, answer: &Answer) {
        match call {
            Call::CreateLoadBalancer {
                name,
                scheme,
                addresses,
                subnets,
                security_groups,
                tags,
            } => {
                let made = ObservedLoadBalancer {
                    arn: answer.id.clone().unwrap_or_default(),
                    hostname: answer.hostname.clone().unwrap_or_default(),
                    state: answer.state.unwrap_or(LoadBalancerState::Provisioning),
                    reason: None,
                    scheme: *scheme,
                    addresses: *addresses,
                    subnets: subnets.iter().cloned().collect(),
                    groups: security_groups.iter().map(|one| self.id(one)).collect(),
                    private_link_rules: true,
                    attributes: BTreeMap::new(),
                    reservation: None,
                    tags: tags.clone(),
                    listeners: BTreeMap::new(),
                };
                self.observed.load_balancers.insert(name.clone(), made);
            }
            Call::ModifyLoadBalancerAttributes {
                load_balancer,
                attributes,
            } => {
                if let Some(one) = self.load_balancer_of(load_balancer) {
                    one.attributes.extend(attributes.clone());
                    let all = std::mem::take(&mut one.attributes);
                    one.attributes = changed(all, &LOAD_BALANCER);
                }
            }
            Call::ModifyCapacityReservation {
                load_balancer,
                units,
            } => {
                if let Some(one) = self.load_balancer_of(load_balancer) {
                    one.reservation = units.map(|units| Reservation {
                        units,
                        failed: None,
                    });
                }
            }
            Call::SetSubnets {
                load_balancer,
                addresses,
                subnets,
            } => {
                if let Some(one) = self.load_balancer_of(load_balancer) {
                    one.addresses = addresses.unwrap_or(one.addresses);
                    one.subnets = subnets.iter().cloned().collect();
                }
            }
            Call::SetSecurityGroups {
                load_balancer,
                security_groups,
                private_link_rules,
            } => {
                let ids = security_groups.iter().map(|one| self.id(one)).collect();
                if let Some(one) = self.load_balancer_of(load_balancer) {
                    one.groups = ids;
                    one.private_link_rules = *private_link_rules;
                }
            }
            Call::DeleteLoadBalancer { load_balancer } => {
                let all = &mut self.observed.load_balancers;
                all.retain(|_, one| one.arn != *load_balancer);
            }
            _ => {}
        }
    }

    fn listener(&mut self, call: &Call, answer: &Answer) {
        match call {
            Call::CreateListener {
                load_balancer,
                port,
                transport,
                tls,
                forward,
                tags,
                ..
            } => {
                let listener = ObservedListener {
                    arn: answer.id.clone().unwrap_or_default(),
                    transport: *transport,
                    tls: tls.clone(),
                    sni: BTreeSet::new(),
                    forward: forward.map(|one| self.id(one)),
                    rules: BTreeMap::new(),
                    attributes: BTreeMap::new(),
                    tags: tags.clone(),
                };
                if let Some(one) = self.load_balancer_of(load_balancer) {
                    one.listeners.insert(*port, listener);
                }
            }
            Call::ModifyListener {
                listener,
                protocol,
                forward,
                ..
            } => {
                let new = forward.as_ref().map(|it| it.map(|one| self.id(one)));
                if let Some(there) = self.listener_of(&Ref::Known(listener.clone())) {
                    if let Some((transport, tls)) = protocol {
                        there.transport = *transport;
                        there.tls.clone_from(tls);
                        there.attributes.clear();
                    }
                    if there.tls.is_none() {
                        there.sni.clear();
                    }
                    there.forward = new.unwrap_or_else(|| there.forward.clone());
                }
            }
            Call::ModifyListenerAttributes {
                listener,
                attributes,
            } => {
                if let Some(there) = self.listener_of(listener) {
                    there.attributes.extend(attributes.clone());
                    let all = std::mem::take(&mut there.attributes);
                    there.attributes = changed(all, &LISTENER);
                }
            }
            Call::AddListenerCertificates {
                listener,
                certificate,
            } => {
                if let Some(there) = self.listener_of(listener) {
                    there.sni.insert(certificate.clone());
                }
            }
            Call::RemoveListenerCertificates {
                listener,
                certificate,
            } => {
                if let Some(there) = self.listener_of(listener) {
                    there.sni.remove(certificate);
                }
            }
            Call::DeleteListener { listener } => {
                for one in self.observed.load_balancers.values_mut() {
                    one.listeners.retain(|_, one| one.arn != *listener);
                }
            }
            _ => {}
        }
    }

    fn rule(&mut self, call: &Call, answer: &Answer) {
        match call {
            Call::CreateRule {
                listener, forward, ..
            } => {
                let rule = ObservedRule {
                    family: Some(Family::V6),
                    forward: forward.map(|one| self.id(one)),
                };
                if let Some(there) = self.listener_of(listener) {
                    let arn = answer.id.clone().unwrap_or_default();
                    there.rules.insert(arn, rule);
                }
            }
            Call::ModifyRule { rule, forward } => {
                let new = forward.map(|one| self.id(one));
                let mut all = self.listeners();
                if let Some(there) = all.find_map(|one| one.rules.get_mut(rule)) {
                    there.forward = new;
                }
            }
            Call::DeleteRule { rule } => self.listeners().for_each(|one| {
                one.rules.remove(rule);
            }),
            _ => {}
        }
    }

    fn listeners(&mut self) -> impl Iterator<Item = &mut ObservedListener> {
        let balancers = self.observed.load_balancers.values_mut();
        balancers.flat_map(|one| one.listeners.values_mut())
    }

    fn tags(&mut self, of: &[Ref], change: impl Fn(&mut BTreeMap<String, String>)) {
        let ids: BTreeSet<String> = of.iter().map(|one| self.id(one)).collect();
        for (id, tags) in self.observed.tags_mut() {
            if ids.contains(id) {
                change(tags);
            }
        }
    }
}
