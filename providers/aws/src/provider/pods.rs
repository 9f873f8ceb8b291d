//! The pods that load balancers send to.
//!
//! They come with the turn of their Service. If nothing but pods can have changed, because a former process has
//! finished the load balancer, only the targets are read: one call for each target group.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use ballast_provider::{Balancer, Endpoint, ProviderError};
use tokio::time::Instant;
use tracing::debug;

use super::execute::{Ended, error};
use super::inventory::read_targets;
use super::records::{Answers, Depth, Record};
use super::{Inner, PATIENCE};
use crate::call::Call;
use crate::client::{Cause, Client, Manner};
use crate::plan;
use crate::pods::Pods;
use crate::rate::Urgency;
use crate::target::{Backends, TargetId};

/// How long a pod that AWS does not accept as a target is left out, at first and at most. Each search for such pods
/// takes many calls.
const AGAIN: (Duration, Duration) = (Duration::from_mins(5), Duration::from_hours(2));
/// Pods that a remark names.
const NAMED: usize = 5;

/// Pods that AWS does not accept as targets, and when they are tried again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RefusedPods {
    all: BTreeMap<SocketAddr, Refused>,
    /// AWS has accepted one that it had refused.
    accepted: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Refused {
    until: Instant,
    pause: Duration,
    /// It is tried again in this turn.
    tried: bool,
}

// === impl RefusedPods ===

impl RefusedPods {
    pub(super) fn refuse(&mut self, pods: impl IntoIterator<Item = SocketAddr>, now: Instant) {
        let (first, longest) = AGAIN;
        for one in pods {
            let before = self.all.get(&one).copied();
            let pause = before.map_or(first, |it| (it.pause * 2).min(longest));
            let refused = Refused {
                until: now + pause,
                pause,
                tried: false,
            };
            self.all.insert(one, refused);
            if before.is_some_and(|it| it.tried) {
                // The others wait as long as the one that was tried for all of them.
                let due = self.all.values_mut().filter(|it| it.until <= now);
                due.for_each(|it| *it = refused);
            }
        }
    }

    /// AWS has accepted these targets.
    pub(super) fn accept(&mut self, targets: &[TargetId]) {
        for one in targets {
            if let TargetId::Address(address) = one {
                self.accepted |= self.all.remove(address).is_some();
            }
        }
    }

    /// Before a plan: forgets those that are gone. Of those that are due, one is tried for all: if AWS accepts it now,
    /// it may accept the others.
    pub(super) fn keep(&mut self, pods: &Pods, now: Instant) {
        self.all.retain(|one, _| pods.contains(one));
        let accepted = std::mem::take(&mut self.accepted);
        let tries = self.all.values().any(|it| it.tried);
        let due = self.all.values_mut().filter(|it| it.until <= now);
        let many = match (accepted, tries) {
            (true, _) => usize::MAX,
            (false, true) => 0,
            (false, false) => 1,
        };
        due.take(many).for_each(|it| it.tried = true);
    }

    /// Those that are left out.
    pub(super) fn addresses(&self) -> BTreeSet<SocketAddr> {
        let waits = self.all.iter().filter(|(_, it)| !it.tried);
        waits.map(|(one, _)| *one).collect()
    }

    /// When the first of them is tried again.
    pub(super) fn due(&self) -> Option<Instant> {
        let waits = self.all.values().filter(|it| !it.tried);
        waits.map(|it| it.until).min()
    }

    /// What the owner of a Service with these pods should know.
    pub(super) fn remark(&self, pods: &BTreeSet<Endpoint>) -> Option<String> {
        let own: BTreeSet<SocketAddr> = pods
            .iter()
            .map(|one| SocketAddr::new(one.address, one.port))
            .filter(|one| self.all.get(one).is_some_and(|it| !it.tried))
            .collect();
        if own.is_empty() {
            return None;
        }
        let named: Vec<String> = own.iter().take(NAMED).map(ToString::to_string).collect();
        let more = match own.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        Some(format!(
            "AWS does not accept these pods as targets: {}{more}. Targets need addresses of the VPC, or of a network that the VPC reaches; pods of an overlay network have none: use nlb-target-type: instance",
            named.join(", ")
        ))
    }
}

// === impl Inner ===

impl Inner {
    /// Changes the pods of the target groups of a load balancer of which nothing else differs.
    pub(super) async fn follow_pods(
        &self,
        client: &Client,
        record: &mut Record,
        pods: &Pods,
    ) -> Result<Ended, ProviderError> {
        if let Ended::Stale = self.read_pods(client, record).await? {
            return Ok(Ended::Stale);
        }
        let mut calls: Vec<Call> = Vec::new();
        for (name, group) in &record.observed.target_groups {
            if let Backends::Pods(family) = group.backends()
                && record.follows(name, group)
                && let Some(wanted) = pods.selected(&group.tags, family)
            {
                calls.extend(plan::retarget(group, &wanted));
            }
        }
        if calls.is_empty() {
            return Ok(Ended::Done);
        }
        record.health.begin(Instant::now());
        self.polls.notify_one();
        match self.execute(client, record, &calls, "").await {
            Ended::Failed(why) => Err(error(&why)),
            ended => Ok(ended),
        }
    }

    /// The same after a turn that has failed for another reason. What goes wrong here is said by the next turn.
    pub(super) async fn follow_pods_of(
        &self,
        client: &Client,
        record: &mut Record,
        balancer: &Balancer,
    ) {
        if record.retained {
            return;
        }
        let pods = Pods::of(&balancer.members).without(&record.refused.addresses());
        if let Err(why) = self.follow_pods(client, record, &pods).await {
            debug!(error = %why, key = %record.key, "cannot change the pods that are targets");
        }
    }

    /// Reads the targets of target groups of pods, as far as they are not known.
    async fn read_pods(
        &self,
        client: &Client,
        record: &mut Record,
    ) -> Result<Ended, ProviderError> {
        let groups = record.observed.target_groups.iter();
        let unknown = groups.filter(|(name, group)| {
            let known = record.depth == Depth::Full || record.pods_known.contains(*name);
            !group.backends().are_nodes() && !known
        });
        let unknown: Vec<String> = unknown.map(|(name, _)| name.clone()).collect();
        let mut answers = Answers::new();
        for name in unknown {
            let manner = Manner::new(Urgency::Traffic, PATIENCE);
            let Some(mut group) = record.observed.target_groups.get(&name).cloned() else {
                continue;
            };
            let health = match read_targets(client, &mut group, manner).await {
                Ok(health) => health,
                Err(why) if why.cause == Cause::NotFound => {
                    record.doubt();
                    return Ok(Ended::Stale);
                }
                Err(why) => return Err(error(&why)),
            };
            answers.insert(group.served().clone(), health);
            (record.observed.target_groups).insert(name.clone(), group);
            record.pods_known.insert(name);
        }
        record.heard(&answers, Instant::now());
        Ok(Ended::Done)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ballast_provider::{Member, Placement, Protocol, Readiness};

    use super::*;

    fn pod(last: u8) -> Endpoint {
        Endpoint {
            listener: (Protocol::Tcp, 80),
            address: [10, 1, 0, last].into(),
            port: 8080,
            readiness: Readiness::Ready,
        }
    }

    fn service(lasts: impl Iterator<Item = u8>) -> Member {
        Member {
            load_balancer: crate::desired::tests::service(&[(Protocol::Tcp, 80, 0)]),
            published: Vec::new(),
            placement: Placement::default(),
            endpoints: Some(Arc::new(lasts.map(pod).collect())),
        }
    }

    #[test]
    fn what_aws_does_not_accept_is_named_and_tried_again_less_and_less_often() {
        let mut now = Instant::now();
        let mut refused = RefusedPods::default();
        let member = service(1..=7);
        let endpoints = member.endpoints.clone().unwrap_or_default();
        assert_eq!((refused.remark(&endpoints), refused.due()), (None, None));
        let pods = Pods::of([&member]);
        let all = || (1..=7).map(|last| SocketAddr::from(([10, 1, 0, last], 8080)));
        refused.refuse(all(), now);
        for minutes in [5, 10, 20, 40, 80, 120, 120] {
            let remark = refused.remark(&endpoints).unwrap_or_default();
            assert!(remark.contains("10.1.0.5:8080 and 2 more"), "{remark}");
            refused.keep(&pods, now);
            assert_eq!(refused.addresses().len(), 7);
            now += Duration::from_mins(minutes);
            assert_eq!(refused.due(), Some(now));
            refused.keep(&pods, now);
            // One of them is tried for all.
            assert_eq!(refused.addresses().len(), 6);
            refused.refuse(all().take(1), now);
        }
        now += Duration::from_hours(2);
        refused.keep(&pods, now);
        // A turn that ends before the call changes nothing.
        refused.keep(&pods, now);
        assert_eq!(refused.addresses().len(), 6);
        // It is accepted this time: the others are tried.
        let accepted: Vec<TargetId> = all().map(TargetId::Address).collect();
        refused.accept(&accepted[..1]);
        refused.keep(&pods, now);
        assert_eq!((refused.addresses().len(), refused.due()), (0, None));
        refused.accept(&accepted);
        refused.keep(&pods, now);
        assert_eq!(refused, RefusedPods::default());
        refused.refuse(all(), now);
        // Another Service hears nothing of them, and gone pods are forgotten.
        assert_eq!(refused.remark(&BTreeSet::from([pod(9)])), None);
        refused.keep(&Pods::default(), now);
        assert_eq!(refused, RefusedPods::default());
    }
}
