//! What the ledger knows of Services on shared balancers: the ports that each of them
//! published, the settings that were accepted with them, and what the provider last reported.
//!
//! The store can lag behind our own writes. So the ledger decides which member of a balancer
//! has a port, as soon as this process has published that member once. Before, and after a
//! restart, the status of the Service decides.

use std::collections::BTreeSet;

use ballast_provider::{Key, LoadBalancer, Observed, Protocol, ServiceId};

use super::Ledger;

/// A port of a balancer.
pub type Port = (Protocol, u16);

/// What a Service has on one shared balancer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    key: Key,
    /// The ports that its status publishes. After a write without an answer: before or after it.
    pub ports: BTreeSet<Port>,
    /// What was accepted with these ports.
    pub accepted: LoadBalancer,
}

/// The part of an entry that concerns shared balancers.
#[derive(Debug, Default)]
pub(super) struct Sharing {
    /// At most one per balancer that the Service is on.
    shares: Vec<Share>,
    /// The balancer of the published address. Recorded only if there can be doubt.
    home: Option<Key>,
    reported: Option<Box<Observed>>,
}

// === impl Ledger ===

impl Ledger {
    /// Records, before the write, that the status of a Service is going to publish the ports
    /// of this load balancer. Ports that it published before stay recorded.
    pub fn publishing(&self, key: &Key, class: &str, accepted: &LoadBalancer) {
        let mut inner = self.lock();
        let Some(marks) = inner.marks(&accepted.id, class) else {
            return;
        };
        if key.is_of(&accepted.id) {
            return;
        }
        let ports = ports(accepted);
        let shares = &mut marks.sharing.get_or_insert_default().shares;
        match shares.iter_mut().find(|share| share.key == *key) {
            Some(share) => share.ports.extend(ports),
            None => shares.push(Share {
                key: key.clone(),
                ports: ports.collect(),
                accepted: accepted.clone(),
            }),
        }
    }

    /// Records that the status of a Service publishes this load balancer on this balancer.
    /// Another Service may have a port that it published before.
    pub fn published(&self, key: &Key, class: &str, accepted: &LoadBalancer) {
        let mut inner = self.lock();
        let Some((entry, marks)) = inner.find(&accepted.id, class) else {
            return;
        };
        if marks.sharing.is_none() && entry.keys.len() < 2 {
            return;
        }
        let sharing = marks.sharing.get_or_insert_default();
        let in_doubt = entry.keys.len() > 1 || sharing.home.is_some();
        sharing.home = in_doubt.then(|| key.clone());
        let mut shares = sharing.shares.iter_mut();
        let Some(share) = shares.find(|share| share.key == *key) else {
            return;
        };
        let now: BTreeSet<Port> = ports(accepted).collect();
        let freed = !share.ports.is_subset(&now);
        share.ports = now;
        share.accepted = accepted.clone();
        inner.releases += u64::from(freed);
    }

    /// What a Service has on a shared balancer, if this process has published it.
    pub fn share(&self, id: &ServiceId, class: &str, key: &Key) -> Option<Share> {
        let mut inner = self.lock();
        let sharing = inner.marks(id, class)?.sharing.as_ref()?;
        let mut shares = sharing.shares.iter();
        shares.find(|share| share.key == *key).cloned()
    }

    /// The balancer of the address that a Service publishes. `None` if it is on several, and
    /// this process did not see which one it was on first.
    pub fn home(&self, id: &ServiceId, class: &str) -> Option<Key> {
        let mut inner = self.lock();
        let (entry, marks) = inner.find(id, class)?;
        let on = |key: &&Key| entry.keys.contains(key);
        let home = marks.sharing.as_ref().and_then(|it| it.home.as_ref());
        match (home.filter(on), &entry.keys[..]) {
            (Some(home), _) => Some(home.clone()),
            (None, [only]) => Some(only.clone()),
            (None, _) => None,
        }
    }

    /// Records what the provider reports of a member. Returns whether that is new.
    pub fn reported(&self, id: &ServiceId, class: &str, observed: &Observed) -> bool {
        let mut inner = self.lock();
        let Some(marks) = inner.marks(id, class) else {
            return false;
        };
        let reported = &mut marks.sharing.get_or_insert_default().reported;
        let is_new = reported.as_deref() != Some(observed);
        if is_new {
            *reported = Some(Box::new(observed.clone()));
        }
        is_new
    }
}

// === impl Sharing ===

impl Sharing {
    /// The Service is going to be on a second balancer beside this one.
    pub(super) fn moves_from(&mut self, key: &Key) {
        self.home = Some(key.clone());
    }

    /// The Service has left a balancer.
    pub(super) fn left(&mut self, key: &Key) {
        self.shares.retain(|share| share.key != *key);
    }
}

fn ports(load_balancer: &LoadBalancer) -> impl Iterator<Item = Port> {
    let listeners = load_balancer.listeners.iter();
    listeners.map(|listener| (listener.protocol, listener.port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::view::ServiceView;

    fn shape(port: u16) -> LoadBalancer {
        let service = ServiceView::test("web").shares("one", port);
        service.load_balancer.unwrap().unwrap()
    }

    fn has(ledger: &Ledger, key: &Key) -> Vec<u16> {
        let share = ledger.share(&shape(80).id, "local", key);
        let ports = share.map(|share| share.ports).unwrap_or_default();
        ports.into_iter().map(|(_, port)| port).collect()
    }

    #[test]
    fn a_port_is_held_from_before_the_write_until_after_the_next() {
        let (ledger, one) = (Ledger::default(), Key::Shared("one".into()));
        ledger.record_on(&shape(80).id, "local", &one);
        ledger.publishing(&one, "local", &shape(80));
        ledger.published(&one, "local", &shape(80));
        let before = ledger.releases();
        ledger.publishing(&one, "local", &shape(81));
        assert_eq!(has(&ledger, &one), [80, 81], "the write may be lost");
        assert_eq!(ledger.releases(), before);
        ledger.published(&one, "local", &shape(81));
        assert_eq!(has(&ledger, &one), [81]);
        assert!(
            ledger.releases() > before,
            "somebody may wait for the port 80"
        );
        ledger.left(&shape(80).id, "local", &one);
        assert_eq!(has(&ledger, &one), [0; 0]);
    }

    #[test]
    fn home_is_the_balancer_of_the_published_address() {
        let (one, two) = (Key::Shared("one".into()), Key::Shared("two".into()));
        let id = shape(80).id;
        let home = |ledger: &Ledger| ledger.home(&id, "local");
        let ledger = Ledger::default();
        assert_eq!(home(&ledger), None);
        ledger.reserve(&id, "local", &one, None);
        assert_eq!(home(&ledger), Some(one.clone()));
        ledger.reserve(&id, "local", &two, None);
        assert_eq!(home(&ledger), Some(one.clone()), "it has not arrived");
        ledger.published(&two, "local", &shape(80));
        assert_eq!(home(&ledger), Some(two.clone()));
        ledger.left(&id, "local", &one);
        assert_eq!(home(&ledger), Some(two.clone()));

        let restarted = Ledger::default();
        restarted.record_on(&id, "local", &two);
        restarted.record_on(&id, "local", &one);
        assert_eq!(home(&restarted), None, "a list of the cloud has no order");
        restarted.reserve(&id, "local", &two, None);
        assert_eq!(home(&restarted), None);
    }

    #[test]
    fn a_report_is_new_once() {
        let ledger = Ledger::default();
        let id = shape(80).id;
        ledger.record(&id, "local");
        let report = |ip| ledger.reported(&id, "local", &crate::fixtures::programmed(ip));
        assert!(report("192.0.2.1"));
        assert!(!report("192.0.2.1"));
        assert!(report("192.0.2.2"));
    }
}
