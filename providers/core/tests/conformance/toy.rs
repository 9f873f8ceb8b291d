//! A provider on a small cloud that needs several calls for one load balancer. It can have one
//! defect at a time, which the suite must find.

mod cloud;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use ballast_provider::conformance::Object;
use ballast_provider::{
    Balancer, Cause, Change, FamilyPolicy, IpMode, Key, Kind, LoadBalancer, Mark, Member, Observed,
    Owned, Provider, ProviderError, Published, Reason, Refusal, Released, Removal, ServiceId,
    State, TargetSet, Traits, mark,
};
use futures::StreamExt;
use futures::stream::BoxStream;

use self::cloud::Cloud;
pub(crate) use self::cloud::ToyLab;

/// The setting of Services whose targets are pods.
const PODS: &str = "toy.example/pods";

/// One defect of the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Defect {
    None,
    /// It writes whether or not there is a difference.
    WritesAlways,
    /// A new instance writes everything once.
    WritesAfterRestart,
    /// It writes targets whether or not they differ.
    RetargetsAlways,
    /// Names differ from one instance to the next.
    RandomNames,
    /// A changed port changes the address.
    AddressOfPorts,
    /// A release does not free the address.
    LeaksOnRelease,
    /// It treats an incomplete balancer as complete.
    TrustsHalfMade,
    /// Members that are no longer listed stay.
    KeepsLeavers,
    /// The inventory has one entry.
    ListsOnlyTheFirst,
    /// The inventory contains objects without our marks.
    ListsForeign,
    /// It takes an object by its name, whatever its tags.
    AdoptsByName,
    /// What a release waits for differs on each try.
    CountsWaits,
    /// `Removal::Retain` deletes.
    DeletesRetained,
    /// What was retained stays so, although its Service wants it again.
    ForgetsRetained,
    /// A release of something that does not exist fails.
    FailsOnAbsent,
    /// It cannot create a balancer before its targets.
    NeedsTargetsFirst,
    /// It assigns addresses that other Services publish.
    GivesPublishedAway,
    /// It reports no changes.
    TellsNothing,
    /// It assigns one of two families without a remark.
    RemarksNothing,
    /// A Service has one member, whatever the key.
    OneMemberForAllKeys,
    /// A Service that moves leaves its former balancer before it is released from it.
    LeavesAtOnce,
    /// What a refused member has is removed in the turn of another one.
    DropsRefused,
    /// A requested address that is in use fails the whole edit.
    BlocksTheRest,
    /// Its targets can be pods, and it asks for them of no load balancer.
    AsksForNoPods,
}

pub(crate) struct Toy {
    defect: Defect,
    mark: Mark,
    cloud: Arc<Mutex<Cloud>>,
    instance: u64,
    written: Mutex<BTreeSet<String>>,
    /// Addresses that Services publish, with their UIDs or balancers' names.
    published: Mutex<BTreeMap<IpAddr, String>>,
    /// Members that this instance knows of.
    known: Arc<Mutex<BTreeSet<String>>>,
    releases: AtomicU64,
}

// === impl Toy ===

impl Toy {
    fn new(defect: Defect, mark: Mark, cloud: Arc<Mutex<Cloud>>, instance: u64) -> Self {
        Self {
            defect,
            mark,
            cloud,
            instance,
            written: Mutex::default(),
            published: Mutex::default(),
            known: Arc::default(),
            releases: AtomicU64::default(),
        }
    }

    fn cloud(&self) -> MutexGuard<'_, Cloud> {
        self.cloud.lock().unwrap()
    }

    fn name(&self, prefix: &str, key: &str) -> String {
        let key = match self.defect {
            Defect::RandomNames => format!("{key}-{}", self.instance),
            _ => key.to_owned(),
        };
        self.mark.name_of(prefix, &key)
    }

    fn publish(&self, address: IpAddr, holder: &str) {
        if self.defect != Defect::GivesPublishedAway {
            let mut published = self.published.lock().unwrap();
            published.insert(address, holder.to_owned());
        }
    }

    fn balancer_name(&self, key: &str) -> String {
        self.name("lb", key)
    }

    /// A Service that moves has a member under each of two keys for a while.
    fn member_name(&self, key: &str, id: &ServiceId) -> String {
        let home = match self.defect {
            Defect::OneMemberForAllKeys => "",
            _ => key,
        };
        self.name("mb", &format!("{home}:{}", id.uid))
    }

    /// Why the requested address of a balancer cannot be assigned.
    fn denied(&self, name: &str, requested: IpAddr) -> Option<Refusal> {
        let cloud = self.cloud();
        let holder = cloud.holder(requested).filter(|holder| *holder != name);
        if holder.is_some() {
            let message = format!("{requested} belongs to another Service");
            return Some(Refusal::new(Reason::AddressInUse, message));
        }
        let loopback = matches!(requested, IpAddr::V4(ip) if ip.is_loopback());
        let message = format!("{requested} is not in 127.0.0.0/8");
        (!loopback).then(|| Refusal::new(Reason::NoAddressAvailable, message))
    }

    /// Creates or changes an object if it differs. Refuses a foreign one.
    fn put(
        &self,
        name: &str,
        tags: BTreeMap<String, String>,
        state: String,
        requested: Option<IpAddr>,
        preferred: Option<IpAddr>,
    ) -> Result<IpAddr, ProviderError> {
        let present = self.cloud().objects.get(name).cloned();
        if let Some(present) = &present
            && self.defect != Defect::AdoptsByName
            && !self.mark.owns(&present.tags)
        {
            return Err(Refusal::new(Reason::CloudError, format!("{name} is foreign")).into());
        }
        let fresh = self.written.lock().unwrap().insert(name.to_owned());
        let force = match self.defect {
            Defect::WritesAlways => true,
            Defect::WritesAfterRestart => fresh && self.instance > 0,
            _ => false,
        };
        let same = |object: &Object| {
            let there = requested.is_none_or(|it| object.addresses == [it]);
            object.tags == tags && object.state == state && there
        };
        let kept = |object: &Object| {
            object.tags.contains_key(mark::RETAINED) && self.defect == Defect::ForgetsRetained
        };
        if let Some(present) = &present
            && (same(present) || kept(present))
            && !force
        {
            return Ok(present.addresses[0]);
        }
        let mut cloud = self.cloud();
        let held = present.map(|present| present.addresses[0]);
        let held = held.filter(|_| self.defect != Defect::AddressOfPorts);
        let preferred = preferred.filter(|it| it.is_ipv4() && cloud.holder(*it).is_none());
        let address = requested.or(held).or(preferred).unwrap_or_else(|| {
            let published = self.published.lock().unwrap();
            cloud.address(&published)
        });
        let object = Object {
            tags,
            addresses: vec![address],
            state,
        };
        cloud.effect(|cloud| drop(cloud.objects.insert(name.to_owned(), object)))?;
        Ok(address)
    }

    fn delete(&self, name: &str) -> Result<(), ProviderError> {
        let present = self.cloud().objects.get(name).cloned();
        match present {
            Some(object) if self.defect == Defect::AdoptsByName || self.mark.owns(&object.tags) => {
                self.cloud()
                    .effect(|cloud| drop(cloud.objects.remove(name)))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Members of a balancer as the cloud has them: object name and Service UID.
    fn members(&self, key: &str) -> Vec<(String, String)> {
        let state = format!("member of {key}: ");
        let cloud = self.cloud();
        let ours = cloud
            .objects
            .iter()
            .filter(|(_, object)| self.mark.owns(&object.tags) && object.state.starts_with(&state));
        ours.map(|(name, object)| (name.clone(), object.tags[mark::SERVICE_UID].clone()))
            .collect()
    }

    /// Removes a Service from every other balancer.
    fn leave_others(&self, key: &str, id: &ServiceId) -> Result<(), ProviderError> {
        let here = self.member_name(key, id);
        let others: Vec<String> = {
            let cloud = self.cloud();
            let of_service = |object: &Object| {
                object.tags.get(mark::SERVICE_UID).map(String::as_str) == Some(&*id.uid)
            };
            let objects = cloud.objects.iter();
            let others = objects.filter(|(name, object)| **name != here && of_service(object));
            others.map(|(name, _)| name.clone()).collect()
        };
        others.iter().try_for_each(|name| self.delete(name))
    }

    fn remarks(&self, member: &Member) -> Vec<String> {
        let mut remarks = Vec::new();
        if member.load_balancer.families.len() > 1 && self.defect != Defect::RemarksNothing {
            remarks.push("there is only one family".to_owned());
        }
        let ignored = member
            .load_balancer
            .settings
            .keys()
            .filter(|key| *key != PODS)
            .chain(&member.placement.pool);
        remarks.extend(ignored.map(|what| format!("{what} is ignored")));
        remarks
    }

    fn class_tags(&self) -> BTreeMap<String, String> {
        BTreeMap::from([
            (mark::CLUSTER.to_owned(), self.mark.cluster.clone()),
            (mark::CLASS.to_owned(), self.mark.class.clone()),
        ])
    }
}

#[async_trait]
impl Provider for Toy {
    fn traits(&self) -> Traits {
        Traits {
            endpoints: true,
            ..Traits::CLOUD
        }
    }

    fn uses_endpoints(&self, load_balancer: &LoadBalancer) -> bool {
        load_balancer.settings.contains_key(PODS) && self.defect != Defect::AsksForNoPods
    }

    fn key(&self, load_balancer: &LoadBalancer) -> Key {
        match &load_balancer.share_key {
            Some(share_key) => Key::Shared(share_key.as_str().into()),
            None => Key::alone(&load_balancer.id),
        }
    }

    /// This cloud has one family.
    fn validate(&self, balancer: &Balancer) -> Result<(), Refusal> {
        let both = |member: &Member| {
            let required = member.placement.family_policy == FamilyPolicy::RequireDualStack;
            required && member.load_balancer.families.len() > 1
        };
        if balancer.members.iter().any(both) {
            let message = "there are no IPv6 addresses";
            return Err(Refusal::new(Reason::NoAddressAvailable, message));
        }
        Ok(())
    }

    async fn restore(&self, published: Vec<Published>) -> Result<(), ProviderError> {
        for record in published {
            for address in record.addresses {
                self.publish(address, &record.id.uid);
            }
        }
        for owned in self.inventory().await? {
            self.known.lock().unwrap().insert(owned.name);
        }
        Ok(())
    }

    /// Members first, then the balancer: what is half made can be found by its members.
    async fn ensure(
        &self,
        balancer: &Balancer,
    ) -> Result<Vec<(ServiceId, Observed)>, ProviderError> {
        let key = &balancer.key.to_string();
        let name = self.balancer_name(key);
        if self.defect == Defect::NeedsTargetsFirst
            && !self.cloud().objects.contains_key(&self.name("ts", "nodes"))
        {
            return Err(ProviderError::transient("there are no targets"));
        }
        let mut members = balancer.members.iter();
        let requested = members.find_map(|it| it.load_balancer.requested_addresses.first());
        let objection = requested.and_then(|requested| self.denied(&name, *requested));
        let requested = requested.copied().filter(|_| objection.is_none());
        let exists = self.cloud().objects.contains_key(&name);
        if let Some(objection) = &objection
            && (!exists || self.defect == Defect::BlocksTheRest)
        {
            return Err(objection.clone().into());
        }
        let half = self.defect == Defect::TrustsHalfMade && !self.members(key).is_empty();
        for member in &balancer.members {
            let load_balancer = &member.load_balancer;
            let listeners = serde_like(load_balancer);
            let pods = member.endpoints.as_ref();
            let pods = pods.filter(|_| self.uses_endpoints(load_balancer));
            let state = format!("member of {key}: {listeners} {pods:?}");
            let object = self.member_name(key, &load_balancer.id);
            let tags = self.mark.tags(&load_balancer.id);
            let home: IpAddr = "127.3.0.1".parse().unwrap();
            self.put(&object, tags, state, Some(home), None)?;
            self.known.lock().unwrap().insert(object);
            if self.defect == Defect::LeavesAtOnce {
                self.leave_others(key, &load_balancer.id)?;
            }
        }
        let listed: BTreeSet<&str> = balancer
            .members
            .iter()
            .map(|member| &member.load_balancer.id)
            .chain((balancer.kept.iter()).filter(|_| self.defect != Defect::DropsRefused))
            .map(|id| &*id.uid)
            .collect();
        for (object, uid) in self.members(key) {
            if !listed.contains(uid.as_str()) && self.defect != Defect::KeepsLeavers {
                self.delete(&object)?;
            }
        }
        let published = balancer
            .members
            .iter()
            .flat_map(|member| &member.published)
            .next();
        let state = if self.defect == Defect::AddressOfPorts {
            let all: Vec<_> = balancer
                .members
                .iter()
                .map(|m| serde_like(&m.load_balancer))
                .collect();
            format!("balancer {all:?}")
        } else {
            "balancer".to_owned()
        };
        let preferred = published
            .copied()
            .filter(|_| self.defect != Defect::AddressOfPorts);
        let address = if half {
            let cloud = self.cloud();
            let present = cloud.objects.get(&name);
            present.map_or_else(
                || "127.9.9.9".parse().unwrap(),
                |present| present.addresses[0],
            )
        } else {
            self.put(&name, self.class_tags(), state, requested, preferred)?
        };
        self.publish(address, key);
        let observed = balancer.members.iter().map(|member| {
            let load_balancer = &member.load_balancer;
            let ingress = load_balancer.ingress([address], IpMode::Vip);
            let mut observed = Observed::new(ingress, State::Programmed);
            observed.objection.clone_from(&objection);
            observed.remarks = self.remarks(member);
            (load_balancer.id.clone(), observed)
        });
        Ok(observed.collect())
    }

    async fn retarget(&self, targets: &TargetSet, _keys: &[Key]) -> Result<(), ProviderError> {
        let name = self.name("ts", "nodes");
        if self.defect == Defect::RetargetsAlways {
            self.delete(&name)?;
        }
        let home: IpAddr = "127.4.0.1".parse().unwrap();
        let state = format!("{targets:?}");
        self.put(&name, self.class_tags(), state, Some(home), None)
            .map(drop)
    }

    async fn release(
        &self,
        id: &ServiceId,
        key: &Key,
        removal: Removal,
    ) -> Result<Released, ProviderError> {
        if self.defect == Defect::CountsWaits {
            let tries = self.releases.fetch_add(1, Ordering::Relaxed);
            if tries < 20 {
                return Ok(Released::waits(Duration::ZERO, format!("try {tries}")));
            }
        }
        let key = key.to_string();
        let object = self.member_name(&key, id);
        self.known.lock().unwrap().remove(&object);
        self.published
            .lock()
            .unwrap()
            .retain(|_, uid| **uid != *id.uid);
        let present = self.cloud().objects.get(&object).cloned();
        let present =
            present.filter(|p| self.defect == Defect::AdoptsByName || self.mark.owns(&p.tags));
        let Some(present) = present else {
            return match self.defect {
                Defect::FailsOnAbsent => {
                    Err(Refusal::new(Reason::CloudError, "there is no such object").into())
                }
                _ => Ok(Released::Gone),
            };
        };
        if removal == Removal::Retain && self.defect != Defect::DeletesRetained {
            let mut tags = present.tags.clone();
            tags.insert(mark::RETAINED.to_owned(), "now".to_owned());
            self.put(&object, tags, present.state, None, None)?;
            return Ok(Released::Gone);
        }
        if self.members(&key).len() <= 1 && self.defect != Defect::LeaksOnRelease {
            self.delete(&self.balancer_name(&key))?;
        }
        self.delete(&object)?;
        Ok(Released::Gone)
    }

    async fn inventory(&self) -> Result<Vec<Owned>, ProviderError> {
        let cloud = self.cloud();
        let ours = cloud.objects.iter().filter(|(_, object)| {
            let owned = self.defect == Defect::ListsForeign || self.mark.owns(&object.tags);
            owned && object.tags.contains_key(mark::SERVICE)
        });
        let owned = ours.map(|(name, object)| Owned {
            key: key_of(&object.state),
            ..Owned::new(Kind::LoadBalancer, name, name, object.tags.clone())
        });
        let limit = if self.defect == Defect::ListsOnlyTheFirst {
            1
        } else {
            usize::MAX
        };
        Ok(owned.take(limit).collect())
    }

    async fn tag(
        &self,
        objects: &[Owned],
        tags: &BTreeMap<String, Option<String>>,
    ) -> Result<(), ProviderError> {
        let mut cloud = self.cloud();
        for object in objects {
            let there = cloud.objects.get_mut(&object.name);
            let Some(there) = there.filter(|there| self.mark.owns(&there.tags)) else {
                continue;
            };
            for (key, value) in tags {
                match value {
                    Some(value) => there.tags.insert(key.clone(), value.clone()),
                    None => there.tags.remove(key),
                };
            }
        }
        Ok(())
    }

    fn changes(&self) -> BoxStream<'static, Change> {
        if self.defect == Defect::TellsNothing {
            return futures::stream::pending().boxed();
        }
        let (cloud, mark, known) = (
            Arc::clone(&self.cloud),
            self.mark.clone(),
            Arc::clone(&self.known),
        );
        // Each poll looks at the cloud; nothing wakes a task that waits.
        futures::stream::poll_fn(move |_| {
            let cloud = cloud.lock().unwrap();
            let mut known = known.lock().unwrap();
            let appeared = cloud.objects.iter().find_map(|(name, object)| {
                let ours = mark.owns(&object.tags) && !object.tags.contains_key(mark::RETAINED);
                let id = mark::service_of(&object.tags).filter(|_| ours)?;
                known
                    .insert(name.clone())
                    .then(|| (id, key_of(&object.state)))
            });
            match appeared {
                Some((id, key)) => Poll::Ready(Some(Change {
                    id,
                    key,
                    cause: Cause::Appeared,
                    difference: String::new(),
                })),
                None => Poll::Pending,
            }
        })
        .boxed()
    }
}

fn serde_like(load_balancer: &LoadBalancer) -> String {
    format!(
        "{:?} {:?} {:?} {:?}",
        load_balancer.listeners,
        load_balancer.traffic_policy,
        load_balancer.affinity,
        load_balancer.source_ranges
    )
}

/// The key in a member's state.
fn key_of(state: &str) -> Option<Key> {
    let (key, _) = state.strip_prefix("member of ")?.split_once(": ")?;
    Some(match key.strip_prefix("share/") {
        Some(shared) => Key::Shared(shared.into()),
        None => Key::Service(key.into()),
    })
}
