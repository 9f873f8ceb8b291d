//! To which target groups a listener sends in this turn. Pure.
//!
//! What a Service asks for may not be there yet, or not at all: a target group of another Service whose targets nobody
//! knows or AWS refuses, or one for clients with IPv6 that no node and no pod can be a target of. Connections to such a
//! target group would end nowhere, so a listener leaves it out until it has targets.

use std::collections::BTreeMap;

use ballast_provider::mark::SERVICE_UID;

use super::{Desired, TargetGroup};
use crate::forward::Forward;

/// What is said of a Service without a target for clients with IPv6.
const NO_IPV6: &str = "no target has an IPv6 address, so clients with IPv6 arrive with IPv4 addresses of the load balancer";

// === impl Desired ===

impl Desired {
    /// Without what has no targets now. `has_targets`: of a target group that the Service itself asks for; `is_lent`: of
    /// one of another Service. Returns what the owners of Services should know, by UID.
    pub(crate) fn reachable(
        mut self,
        has_targets: impl Fn(&TargetGroup) -> bool,
        is_lent: impl Fn(&TargetGroup) -> bool,
    ) -> (Self, BTreeMap<String, &'static str>) {
        let mut said = BTreeMap::new();
        let groups = &self.target_groups;
        for listener in self.listeners.values_mut() {
            let own = listener.tags.get(SERVICE_UID);
            let is_own = |name: &String| {
                let group = groups.get(name);
                group.is_some_and(|group| group.tags.get(SERVICE_UID) == own)
            };
            let stays = |name: &String| is_own(name) || groups.get(name).is_some_and(&is_lent);
            listener.forward = left(&listener.forward, stays);
            let Some(ipv6) = &listener.ipv6 else {
                continue;
            };
            let ipv6 = left(ipv6, stays);
            let any = |forward: &Forward<String>| {
                let mut all = forward.groups().filter_map(|name| groups.get(name));
                all.any(&has_targets)
            };
            let reached = any(&ipv6) || !any(&listener.forward);
            if !reached && let Some(own) = own {
                said.insert(own.clone(), NO_IPV6);
            }
            listener.ipv6 = reached.then_some(ipv6);
        }
        (self, said)
    }

    /// Whether a listener sends to several target groups.
    pub(crate) fn divides(&self) -> bool {
        let mut all = self.listeners.values();
        all.any(|listener| listener.forward.only().is_none())
    }
}

/// What is left of target groups.
fn left(forward: &Forward<String>, stays: impl Fn(&String) -> bool) -> Forward<String> {
    let all = forward.iter().filter(|(name, _)| stays(name));
    Forward::divided(all.map(|(name, weight)| (name.clone(), weight)))
}
