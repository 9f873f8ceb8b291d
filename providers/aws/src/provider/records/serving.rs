//! Which load balancer of a record serves clients, and which one is published.

use tokio::time::Instant;

use super::Record;
use crate::observed::{Arn, ObservedLoadBalancer};

// === impl Record ===

impl Record {
    /// The load balancer that the Service asks for, if it exists. Its name is published.
    pub(in crate::provider) fn present(&self) -> Option<&ObservedLoadBalancer> {
        let all = &self.observed.load_balancers;
        match &self.wanted {
            Some(wanted) => all.get(&wanted.load_balancer),
            None => all.values().next().filter(|_| all.len() == 1),
        }
    }

    /// Those that it replaces, by name.
    pub(in crate::provider) fn former(
        &self,
    ) -> impl Iterator<Item = (&String, &ObservedLoadBalancer)> {
        let wanted = self.wanted.as_ref().map(|it| &it.load_balancer);
        let all = self.observed.load_balancers.iter();
        all.filter(move |(name, _)| wanted.is_some_and(|wanted| wanted != *name))
    }

    /// The ARN of what serves clients: the load balancer that the Service asks for, or a target group of others.
    pub(in crate::provider) fn serving(&self) -> Option<Arn> {
        let present = self.present().filter(|one| one.serves());
        let mut groups = self.observed.target_groups.values();
        let bound = || groups.find_map(|group| Some(group.bound.as_ref()?.arn.clone()));
        present.map(|one| one.arn.clone()).or_else(bound)
    }

    /// The load balancer whose name stays published: one that serves, while the one that replaces it has
    /// not had a healthy target yet.
    pub(in crate::provider) fn stand_in(&self, now: Instant) -> Option<&ObservedLoadBalancer> {
        let present = self.present().filter(|one| is_serving(Some(one)));
        let served = present.is_some_and(|one| self.health.has_served(&one.arn));
        if served || self.is_replaced(now) {
            return None;
        }
        let mut former = self.former().map(|(_, one)| one);
        former.find(|one| is_serving(Some(one)))
    }

    /// What the status has published before this process: a name that replaced another one stays.
    pub(in crate::provider) fn publishes(&mut self, hostnames: &[String]) {
        let mut all = self.observed.load_balancers.values();
        if let Some(one) = all.find(|one| hostnames.contains(&one.hostname)) {
            self.health.has_published(&one.arn);
        }
    }

    /// Whether clients can use the load balancer instead of the one that it replaces.
    pub(in crate::provider) fn is_replaced(&self, now: Instant) -> bool {
        let present = self.present().filter(|_| self.wanted.is_some());
        is_serving(present) && present.is_some_and(|one| self.health.replaces(&one.arn, now))
    }
}

/// Whether it is there and takes traffic.
pub(super) fn is_serving(load_balancer: Option<&ObservedLoadBalancer>) -> bool {
    load_balancer.is_some_and(ObservedLoadBalancer::serves)
}
