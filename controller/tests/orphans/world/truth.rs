//! What is true of the account: whose each object is, and whether it may be deleted.

use std::collections::BTreeMap;

use ballast_provider::Kind;
use ballast_provider::mark::{self, CLUSTER, KEEP, RETAINED};
use jiff::SignedDuration;

use super::super::account::Object;
use super::controller::SECOND;
use super::{Cluster, World};

impl World {
    /// Whether a Service with this UID exists anywhere, and stays.
    pub(super) fn is_wanted(&self, uid: &str) -> bool {
        if !self.removed.contains(uid) {
            return self.exists(uid);
        }
        // Signs are half a day apart, so the last one may be so much older than the last work.
        let silence = SignedDuration::from_hours(60);
        let works = |it: &&Cluster| {
            it.lease
                .is_some_and(|at| self.now.duration_since(at) < silence)
        };
        let living = self.clusters.iter().filter(|it| it.exists).filter(works);
        let mut services = living.flat_map(|it| it.services.values());
        services.any(|it| it.uid == uid && !it.deleting)
    }

    fn exists(&self, uid: &str) -> bool {
        let living = self.clusters.iter().filter(|it| it.exists);
        living
            .flat_map(|it| it.services.values())
            .any(|it| it.uid == uid && !it.deleting)
    }

    /// Nothing was deleted that should stay.
    pub(super) fn look(&mut self) {
        let deleted = std::mem::take(&mut self.account.state().deleted);
        for (id, object) in deleted {
            let wrong = match &object.service {
                None => Some("somebody else's"),
                Some(_) if !object.tags.contains_key(CLUSTER) => Some("relinquished"),
                Some(_) if object.tags.contains_key(KEEP) => Some("kept"),
                // Half of a load balancer that never came up says nothing of its cluster.
                Some(uid) if self.is_edited_away(&id, uid) => None,
                Some(uid)
                    if self.is_wanted(uid)
                        && (object.kind == Kind::LoadBalancer || self.has_balancer(uid)) =>
                {
                    Some("in use")
                }
                Some(_) => None,
            };
            if let Some(wrong) = wrong {
                panic!("deleted {id}, which is {wrong}\n{}", self.story());
            }
        }
    }

    /// Whether it is a second target group that no Service wants any more. A cluster and its copy may differ.
    fn is_edited_away(&self, id: &str, uid: &str) -> bool {
        let of = self.clusters.iter().filter(|it| it.exists);
        let mut of = of
            .flat_map(|it| &it.services)
            .filter(|(_, it)| it.uid == uid);
        id.ends_with(SECOND) && of.any(|(_, it)| !it.second_port)
    }

    fn has_balancer(&self, uid: &str) -> bool {
        let balancer = format!("{uid}-lb");
        self.account.state().objects.contains_key(&balancer)
    }

    pub(super) fn assert_clean(&self) {
        let state = self.account.state();
        for (id, object) in &state.objects {
            let tags = &object.tags;
            let may_stay = match &object.service {
                None => true,
                Some(uid) => {
                    (self.exists(uid) && !self.is_edited_away(id, uid))
                        || tags.contains_key(RETAINED)
                        || !tags.contains_key(CLUSTER)
                        || !tags.contains_key(mark::SERVICE_UID)
                        || Self::has_a_kept_part(&state.objects, uid)
                        || Self::is_used_by_a_stranger(&state.objects, uid)
                }
            };
            assert!(may_stay, "{id} is left: {tags:?}\n{}", self.story());
        }
        for cluster in self.clusters.iter().filter(|it| it.exists) {
            for service in cluster.services.values().filter(|it| !it.deleting) {
                let balancer = format!("{}-lb", service.uid);
                let there = state.objects.contains_key(&balancer);
                assert!(there, "{balancer} is gone\n{}", self.story());
            }
        }
        for id in ["theirs", "untagged"] {
            assert!(state.objects.contains_key(id), "{id}\n{}", self.story());
        }
    }

    /// A load balancer that lost its tags is nobody's, and what it uses cannot be deleted.
    fn is_used_by_a_stranger(objects: &BTreeMap<String, Object>, uid: &str) -> bool {
        let balancer = objects.get(&format!("{uid}-lb"));
        balancer.is_some_and(|it| {
            let tags = &it.tags;
            !tags.contains_key(CLUSTER) || !tags.contains_key(mark::SERVICE_UID)
        })
    }

    /// Whoever keeps one part keeps all of it.
    fn has_a_kept_part(objects: &BTreeMap<String, Object>, uid: &str) -> bool {
        let of = objects.values();
        let mut of = of.filter(|it| it.service.as_deref() == Some(uid));
        of.any(|it| it.tags.contains_key(KEEP) && it.tags.contains_key(CLUSTER))
    }
}
