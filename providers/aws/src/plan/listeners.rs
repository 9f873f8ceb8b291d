//! The listeners of the load balancer, and their certificates. Pure.

use std::collections::{BTreeMap, BTreeSet};

use ballast_provider::Family;
use ballast_provider::mark::SERVICE_UID;

use super::differences::changes;
use super::{Plan, load_balancer, reference};
use crate::call::{Call, Ref};
use crate::desired::{Addresses, Desired, ListenerSpec, Transport};
use crate::forward::Forward;
use crate::observed::{Arn, Observed, ObservedListener, ObservedLoadBalancer};
use crate::settings::attributes;

// === impl Plan ===

impl Plan {
    /// AWS sends UDP to one family of addresses, which depends on those of the load balancer. If it gets or loses IPv6,
    /// listeners that have or get UDP are deleted before, and made again. Returns what then is there.
    pub(super) fn remade_listeners(
        &mut self,
        desired: &Desired,
        there: &ObservedLoadBalancer,
    ) -> ObservedLoadBalancer {
        let mut kept = there.clone();
        let ipv6 = |addresses| addresses != Addresses::Ipv4;
        if ipv6(there.addresses) == ipv6(desired.addresses) {
            return kept;
        }
        kept.listeners.retain(|port, now| {
            let wanted = desired.listeners.get(port).map(|it| it.transport);
            let all = wanted.into_iter().chain([now.transport]);
            let stays = all.into_iter().all(|it| it == Transport::Tcp);
            if !stays {
                let listener = now.arn.clone();
                self.calls.push(Call::DeleteListener { listener });
            }
            stays
        });
        kept
    }

    /// Those that `which` names.
    pub(super) fn listeners(
        &mut self,
        desired: &Desired,
        present: Option<&ObservedLoadBalancer>,
        observed: &Observed,
        which: impl Fn(&ListenerSpec) -> bool,
    ) {
        for (&port, listener) in desired.listeners.iter().filter(|(_, one)| which(one)) {
            let refers = |name: &String| reference(observed.target_groups.get(name), name);
            let forward = listener.forward.map(refers);
            let ipv6 = listener.ipv6.as_ref().map(|it| it.map(refers));
            if let Some(now) = present.and_then(|present| present.listeners.get(&port)) {
                self.listener(listener, now, forward, ipv6);
                continue;
            }
            // No name in AWS has a slash.
            let name = format!("{}/{port}", desired.name);
            self.calls.push(Call::CreateListener {
                name: name.clone(),
                load_balancer: load_balancer(desired, present),
                port,
                transport: listener.transport,
                tls: listener.tls.clone(),
                forward,
                tags: listener.tags.clone(),
            });
            let this = Ref::Made(name);
            self.add_certificates(&this, &listener.sni);
            self.listener_attributes(&this, listener, &BTreeMap::new());
            self.add_rule(&this, listener, ipv6);
        }
    }

    /// What the Services do not ask for any more. Those of the ports `kept` stay.
    pub(super) fn obsolete_listeners(
        &mut self,
        desired: &Desired,
        present: Option<&ObservedLoadBalancer>,
        kept: &BTreeSet<u16>,
    ) {
        for (port, listener) in present.iter().flat_map(|present| &present.listeners) {
            if !desired.listeners.contains_key(port) && !kept.contains(port) {
                self.calls.push(Call::DeleteListener {
                    listener: listener.arn.clone(),
                });
            }
        }
    }

    /// Certificates that are new come first and those that are not wanted any more go last, so that
    /// a client always finds the one for its host. AWS's limit is that of the load balancer: whoever makes the
    /// calls finds out if it has no room for both.
    fn listener(
        &mut self,
        wanted: &ListenerSpec,
        now: &ObservedListener,
        forward: Forward<Ref>,
        ipv6: Option<Forward<Ref>>,
    ) {
        let this = Ref::Known(now.arn.clone());
        let moves = forward != now.forward.map(|arn| Ref::Known(arn.clone()));
        let speaks = now.transport != wanted.transport || now.tls != wanted.tls;
        // AWS checks the protocols of the groups of rules, too.
        let mut ours = now.rules.iter().filter(|_| !speaks && ipv6.is_some());
        let kept = ours.find(|(_, rule)| rule.family == Some(Family::V6));
        let obsolete = now.rules.keys();
        let obsolete = obsolete.filter(|arn| kept.is_none_or(|(kept, _)| kept != *arn));
        self.calls
            .extend(obsolete.map(|arn| Call::DeleteRule { rule: arn.clone() }));
        self.default_action(wanted, now, moves.then_some(forward), speaks);
        match (kept, ipv6) {
            (Some((arn, rule)), Some(forward)) => {
                if forward != rule.forward.map(|arn| Ref::Known(arn.clone())) {
                    let rule = arn.clone();
                    self.calls.push(Call::ModifyRule { rule, forward });
                }
            }
            (_, ipv6) => self.add_rule(&this, wanted, ipv6),
        }
    }

    /// Everything of a listener but its rules.
    fn default_action(
        &mut self,
        wanted: &ListenerSpec,
        now: &ObservedListener,
        forward: Option<Forward<Ref>>,
        speaks: bool,
    ) {
        let this = Ref::Known(now.arn.clone());
        let modify = (forward.is_some() || speaks).then(|| Call::ModifyListener {
            listener: now.arn.clone(),
            protocol: speaks.then(|| (wanted.transport, wanted.tls.clone())),
            forward,
            service: wanted.tags.get(SERVICE_UID).cloned(),
        });
        let (Some(tls), true) = (&wanted.tls, now.tls.is_some()) else {
            // Only a listener that ends TLS can have certificates, and it loses them with TLS.
            self.calls.extend(modify);
            self.add_certificates(&this, &wanted.sni);
            // Another protocol begins with AWS's defaults.
            let none = BTreeMap::new();
            let there = if speaks { &none } else { &now.attributes };
            self.listener_attributes(&this, wanted, there);
            return;
        };
        let new: BTreeSet<Arn> = wanted.sni.difference(&now.sni).cloned().collect();
        let unwanted = now.sni.difference(&wanted.sni);
        // The default one may be in the list, too; nothing is different then.
        let old: BTreeSet<Arn> = (unwanted.filter(|one| **one != tls.certificate))
            .cloned()
            .collect();
        self.add_certificates(&this, &new);
        self.calls.extend(modify);
        self.remove_certificates(&this, &old);
    }

    /// `present`: those that differ from AWS's defaults.
    fn listener_attributes(
        &mut self,
        listener: &Ref,
        wanted: &ListenerSpec,
        present: &BTreeMap<String, String>,
    ) {
        if !wanted.has_attributes() {
            return;
        }
        let attributes = changes(&wanted.attributes, present, &attributes::LISTENER);
        if !attributes.is_empty() {
            self.calls.push(Call::ModifyListenerAttributes {
                listener: listener.clone(),
                attributes,
            });
        }
    }

    /// The rule for clients with IPv6 addresses, if they have target groups of their own.
    fn add_rule(&mut self, listener: &Ref, wanted: &ListenerSpec, forward: Option<Forward<Ref>>) {
        self.calls.extend(forward.map(|forward| Call::CreateRule {
            listener: listener.clone(),
            forward,
            tags: wanted.tags.clone(),
        }));
    }

    fn add_certificates(&mut self, listener: &Ref, certificates: &BTreeSet<Arn>) {
        let all = certificates.iter().cloned();
        self.calls
            .extend(all.map(|certificate| Call::AddListenerCertificates {
                listener: listener.clone(),
                certificate,
            }));
    }

    fn remove_certificates(&mut self, listener: &Ref, certificates: &BTreeSet<Arn>) {
        let all = certificates.iter().cloned();
        self.calls
            .extend(all.map(|certificate| Call::RemoveListenerCertificates {
                listener: listener.clone(),
                certificate,
            }));
    }
}
