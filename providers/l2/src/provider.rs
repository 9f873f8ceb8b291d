//! The provider of one class whose addresses come from pools.
//!
//! The status of Services is the only record ([`Traits::STATUS`]), so this provider does no
//! I/O: allocation is a call of [`Addresses`]. The nodes' announcers answer for the addresses;
//! [`Announcements`] tells which of them does. A Service is programmed while a node announces each
//! of its addresses; otherwise it is `NotAnnounced`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use ballast_provider::{
    Balancer, Change, ExtraCondition, ExtraKind, IpMode, Key, Kind, LoadBalancer, Member, Observed,
    Owned, Place, Placement, Provider, ProviderError, Published, Reason, Refusal, Released,
    Removal, ServiceId, State, TargetSet, TrafficPolicy, Traits,
};
use futures::stream::{BoxStream, StreamExt, pending};
use jiff::Timestamp;

use crate::addresses::Addresses;
use crate::announced::Announcements;
use crate::claim::{Backend, Claim, PoolFilter};
use crate::verdict::{Denial, Marker};

/// One `l2` class.
#[derive(Debug)]
pub struct L2Provider {
    class: String,
    /// The pools of the class; `None`: all.
    pools: Option<Arc<PoolFilter>>,
    addresses: Arc<Addresses>,
    announcements: Arc<Announcements>,
}

// === impl L2Provider ===

impl L2Provider {
    /// The status of Services is the only record.
    pub const TRAITS: Traits = Traits::STATUS;

    /// A class that assigns addresses from these pools; `None`: from all.
    pub fn new(
        class: String,
        pools: Option<PoolFilter>,
        addresses: Arc<Addresses>,
        announcements: Arc<Announcements>,
    ) -> Self {
        Self {
            class,
            pools: pools.map(Arc::new),
            addresses,
            announcements,
        }
    }

    /// What a Service asks of the pools.
    fn claim(&self, member: &Member) -> Claim {
        claim(
            &member.load_balancer,
            &member.placement,
            member.published.clone(),
            self.pools.clone(),
        )
    }

    fn observe(&self, member: &Member) -> Result<Observed, ProviderError> {
        let answer = self
            .addresses
            .allocate(&self.class, self.claim(member), Timestamp::now())
            .ok_or_else(not_open)?;
        let mut observed = match answer {
            Ok(grant) => {
                let observed = self.published(&member.load_balancer, grant.addresses);
                granted(observed, grant.markers)
            }
            Err(denial) if denial.keeps.is_empty() => return Err(refusal(&denial).into()),
            // It keeps its addresses; only its new request is refused.
            Err(denial) => {
                let objection = refusal(&denial);
                let mut observed = self.published(&member.load_balancer, denial.keeps);
                observed.objection = Some(objection);
                observed
            }
        };
        let settings = member.load_balancer.settings.keys();
        let ignored = settings.map(|key| format!("the l2 provider ignores {key}"));
        observed.remarks.extend(ignored);
        Ok(observed)
    }

    /// A Service with these addresses, and which nodes announce them.
    fn published(&self, wanted: &LoadBalancer, addresses: Vec<IpAddr>) -> Observed {
        let places = self.announcements.places(&addresses);
        let silent = places.iter().filter(|place| place.spot.is_none());
        let silent: Vec<&Place> = silent.collect();
        let announced = silent.is_empty();
        let state = if announced {
            State::Programmed
        } else {
            State::Pending {
                reason: Reason::NotAnnounced,
                message: unannounced(&silent),
                retry_after: None,
            }
        };
        let mut observed = Observed::new(wanted.ingress(addresses, IpMode::Vip), state);
        observed.conditions.push(ExtraCondition {
            kind: ExtraKind::Announced,
            holds: Some(announced),
            reason: if announced {
                "Announced"
            } else {
                Reason::NotAnnounced.as_str()
            },
            message: String::new(),
            places,
        });
        observed
    }
}

#[async_trait]
impl Provider for L2Provider {
    fn traits(&self) -> Traits {
        Self::TRAITS
    }

    fn key(&self, load_balancer: &LoadBalancer) -> Key {
        Key::alone(&load_balancer.id)
    }

    fn validate(&self, _: &Balancer) -> Result<(), Refusal> {
        Ok(())
    }

    /// The addresses of all classes were restored together, by [`Addresses::open`].
    async fn restore(&self, _: Vec<Published>) -> Result<(), ProviderError> {
        if self.addresses.is_open() {
            Ok(())
        } else {
            Err(not_open())
        }
    }

    async fn ensure(
        &self,
        balancer: &Balancer,
    ) -> Result<Vec<(ServiceId, Observed)>, ProviderError> {
        let members = balancer.members.iter();
        members
            .map(|member| Ok((member.load_balancer.id.clone(), self.observe(member)?)))
            .collect()
    }

    /// The nodes receive the packets themselves.
    async fn retarget(&self, _: &TargetSet, _: &[Key]) -> Result<(), ProviderError> {
        Ok(())
    }

    async fn release(
        &self,
        id: &ServiceId,
        _: &Key,
        _: Removal,
    ) -> Result<Released, ProviderError> {
        self.addresses.release(&self.class, id, Timestamp::now());
        Ok(Released::Gone)
    }

    async fn inventory(&self) -> Result<Vec<Owned>, ProviderError> {
        let own = |id: ServiceId| Owned {
            key: Some(Key::alone(&id)),
            services: vec![id.clone()],
            ..Owned::new(
                Kind::LoadBalancer,
                &*id.uid,
                id.to_string(),
                BTreeMap::new(),
            )
        };
        Ok(self
            .addresses
            .of_class(&self.class)
            .into_iter()
            .map(own)
            .collect())
    }

    /// An address has no tags: the status of its Service is the only record.
    async fn tag(
        &self,
        _: &[Owned],
        _: &BTreeMap<String, Option<String>>,
    ) -> Result<(), ProviderError> {
        Ok(())
    }

    /// [`Addresses::woken`] reports the Services that may try again, for all classes at once.
    fn changes(&self) -> BoxStream<'static, Change> {
        pending().boxed()
    }
}

/// The claim of a Service with these settings that publishes these addresses.
pub fn claim(
    wanted: &LoadBalancer,
    placement: &Placement,
    published: Vec<IpAddr>,
    pools: Option<Arc<PoolFilter>>,
) -> Claim {
    let listeners = wanted.listeners.iter();
    Claim {
        id: wanted.id.clone(),
        created: placement.created,
        namespace_labels: Arc::clone(&placement.namespace_labels),
        labels: Arc::clone(&placement.labels),
        families: wanted.families.clone(),
        policy: placement.family_policy,
        requested: wanted.requested_addresses.clone(),
        pool: placement.pool.clone(),
        pools,
        share_key: wanted.share_key.clone(),
        ports: listeners
            .map(|listener| (listener.protocol, listener.port))
            .collect(),
        backend: match wanted.traffic_policy {
            TrafficPolicy::Cluster => Backend::Cluster,
            TrafficPolicy::Local { .. } => Backend::Local(placement.endpoints.clone()),
        },
        published,
        confirmed: BTreeSet::new(),
        replaced: Vec::new(),
    }
}

/// Adds what the allocator remarks.
fn granted(mut observed: Observed, markers: Vec<Marker>) -> Observed {
    let mut objections: Vec<(Reason, String)> = Vec::new();
    for marker in markers {
        let message = marker.to_string();
        match marker {
            Marker::OutsidePool { .. } => objections.push((Reason::AddressOutsidePool, message)),
            // First an objection, which causes an event, and then only a remark as soon as the
            // status has the new address.
            Marker::NodeAddress { .. }
            | Marker::NotAdopted {
                published: true, ..
            } => objections.push((Reason::AddressInUse, message)),
            Marker::NotAdopted { .. } | Marker::Duplicate { .. } | Marker::Missing { .. } => {
                observed.remarks.push(message);
            }
        }
    }
    let reason = objections.first().map(|(reason, _)| *reason);
    observed.objection = reason.map(|reason| {
        let messages: Vec<String> = objections.into_iter().map(|(_, message)| message).collect();
        Refusal::new(reason, messages.join("; "))
    });
    observed
}

/// The message of a Service whose addresses, or some of them, no node announces.
fn unannounced(silent: &[&Place]) -> String {
    let named: Vec<String> = silent.iter().map(|it| it.address.to_string()).collect();
    let mut message = match named.as_slice() {
        [one] => format!("Address {one} is assigned, but no node announces it"),
        several => format!(
            "Addresses {} are assigned, but no node announces them",
            several.join(" and ")
        ),
    };
    let mut remarks: Vec<&str> = silent
        .iter()
        .filter_map(|it| it.remark.as_deref())
        .collect();
    remarks.dedup();
    for remark in remarks {
        message.extend(["; ", remark]);
    }
    message
}

/// The published addresses that the messages of our own conditions name. Addresses from another
/// writer are not among them.
pub fn confirmed(published: &[IpAddr], messages: &[&str]) -> BTreeSet<IpAddr> {
    let words = messages.iter().flat_map(|message| {
        message.split(|c: char| c.is_whitespace() || matches!(c, ',' | ';' | '(' | ')'))
    });
    let named: BTreeSet<IpAddr> = words.filter_map(|word| word.parse().ok()).collect();
    let confirmed = published.iter().filter(|address| named.contains(address));
    confirmed.copied().collect()
}

fn refusal(denial: &Denial) -> Refusal {
    Refusal::new(denial.reason, denial.message.clone())
}

fn not_open() -> ProviderError {
    ProviderError::transient("the address pools are not listed yet")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// A restarted controller must recognise what the previous one wrote: addresses that a node
    /// announces, and others.
    #[test]
    fn the_conditions_confirm_exactly_the_addresses_that_were_assigned() {
        let all = [ip("192.0.2.1"), ip("fd00::1")];
        let place = |address: &IpAddr, node: Option<&str>| Place {
            address: *address,
            spot: node.map(|node| ballast_provider::Spot {
                node: node.to_owned(),
                interface: "eth0".to_owned(),
                why: None,
                previous: None,
            }),
            remark: None,
        };
        for nodes in [[None, None], [Some("a"), None], [Some("a"), Some("b")]] {
            let places: Vec<Place> = all
                .iter()
                .zip(nodes)
                .map(|(address, node)| place(address, node))
                .collect();
            let silent: Vec<&Place> = places.iter().filter(|it| it.spot.is_none()).collect();
            let programmed = unannounced(&silent);
            let announced = ballast_provider::place::message(&places, "");
            let known = confirmed(&all, &[&programmed, &announced]);
            assert_eq!(known, all.into(), "{programmed} / {announced}");
            let other = [ip("192.0.2.10")];
            assert!(confirmed(&other, &[&programmed, &announced]).is_empty());
        }
        let former = "Address 192.0.2.1 is assigned, but no node announces it yet";
        assert_eq!(
            confirmed(&all, &[former]),
            [all[0]].into(),
            "an older version"
        );
        assert!(confirmed(&all, &[""]).is_empty());
    }
}
