//! Which pods are targets of which target group. Pure.
//!
//! A target group of pods says with its tags which Service it serves, and with the tag [`LISTENER_PORT`] which port
//! of it. So its targets are compared with the right pods, also those of a load balancer that another one replaces.
//!
//! Pods are targets while they are ready, and before, if only their gate waits for the load balancer. If
//! there is none, those that still serve while they terminate stay, as kube-proxy does it (KEP-1669). A pod
//! that is no target any more drains: AWS ends its connections after the deregistration delay.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use ballast_provider::mark::SERVICE_UID;
use ballast_provider::{Endpoint, Family, Member, Readiness};

use crate::target::TargetId;

/// The tag of a target group of pods that names the port of its listener.
pub const LISTENER_PORT: &str = "ballast.dev/listener-port";

/// A port of a Service, for clients of one family.
type Port = (Arc<str>, u16, Family);

/// The pods of the Services of one load balancer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pods {
    /// By the UID of the Service, the port of the listener and their family. A port without pods is here, too.
    addresses: BTreeMap<Port, BTreeSet<SocketAddr>>,
    /// Where TCP and UDP have other pods.
    mixed: BTreeSet<(Arc<str>, u16)>,
}

// === impl Pods ===

impl Pods {
    /// Those of these Services. A Service whose pods are not known has none here.
    pub fn of<'a>(members: impl IntoIterator<Item = &'a Member>) -> Self {
        let mut all = Self::default();
        for member in members {
            let service = &member.load_balancer;
            let Some(endpoints) = &member.endpoints else {
                continue;
            };
            for listener in &service.listeners {
                let front = (listener.protocol, listener.port);
                for family in [Family::V4, Family::V6] {
                    let key = (Arc::clone(&service.id.uid), listener.port, family);
                    let mine = endpoints
                        .iter()
                        .filter(|one| one.listener == front && Family::of(one.address) == family);
                    all.add(key, targets(mine).into_iter().collect());
                }
            }
        }
        all
    }

    /// TCP and UDP of one port have one target group, and a target has one port: only pods that serve both on it can
    /// be targets.
    fn add(&mut self, key: Port, found: BTreeSet<SocketAddr>) {
        let Some(other) = self.addresses.get_mut(&key) else {
            self.addresses.insert(key, found);
            return;
        };
        if *other != found {
            other.retain(|one| found.contains(one));
            self.mixed.insert((key.0, key.1));
        }
    }

    /// What the owner of this Service should know of its ports.
    pub(crate) fn remark(&self, uid: &str) -> Option<String> {
        let mut mixed = self.mixed.iter().filter(|(one, _)| **one == *uid);
        let (_, port) = mixed.next()?;
        Some(format!(
            "port {port} is TCP and UDP, and pods serve them on different ports: with nlb-target-type: ip only pods that serve both on one port are targets. Use the same targetPort for both, or two ports"
        ))
    }

    /// The targets of a target group with these tags for pods of this family; `None` if nobody knows them, so that it
    /// keeps what it has.
    pub fn selected(
        &self,
        tags: &BTreeMap<String, String>,
        family: Family,
    ) -> Option<BTreeSet<TargetId>> {
        let uid = tags.get(SERVICE_UID)?;
        let port = tags.get(LISTENER_PORT)?.parse().ok()?;
        let all = self.addresses.get(&(uid.as_str().into(), port, family))?;
        Some(all.iter().copied().map(TargetId::Address).collect())
    }

    /// Without these, which AWS does not accept.
    #[must_use]
    pub(crate) fn without(mut self, refused: &BTreeSet<SocketAddr>) -> Self {
        for all in self.addresses.values_mut() {
            all.retain(|one| !refused.contains(one));
        }
        self
    }

    /// Whether one of these Services has this address.
    pub(crate) fn contains(&self, address: &SocketAddr) -> bool {
        self.addresses.values().any(|all| all.contains(address))
    }

    /// Whether the Service has no pod that can be a target, although its pods are known.
    pub(crate) fn has_none(&self, uid: &str) -> bool {
        let own = self.addresses.iter();
        let mut own = own.filter(|((one, ..), _)| **one == *uid);
        let first = own.next();
        first.is_some_and(|(_, all)| all.is_empty()) && own.all(|(_, all)| all.is_empty())
    }
}

/// The pods that are targets among those of one port.
fn targets<'a>(all: impl Iterator<Item = &'a Endpoint> + Clone) -> Vec<SocketAddr> {
    let address = |one: &Endpoint| SocketAddr::new(one.address, one.port);
    let usable: Vec<SocketAddr> = all
        .clone()
        .filter(|one| one.usable())
        .map(address)
        .collect();
    if !usable.is_empty() {
        return usable;
    }
    let ending = all.filter(|one| one.readiness == Readiness::Ending);
    ending.map(address).collect()
}

#[cfg(test)]
mod tests;
