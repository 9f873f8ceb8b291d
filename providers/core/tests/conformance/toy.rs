//! A small cloud that needs several calls for one load balancer, and a provider on it
//! that can be broken in one way at a time: what the suite must find.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Poll;

use async_trait::async_trait;
use ballast_provider::conformance::{Crash, Harness, Lab, Object};
use ballast_provider::{
    Balancer, Cause, Change, IpMode, Key, LoadBalancer, Mark, Observed, Owned, Provider,
    ProviderError, Reason, Recorded, Refusal, Released, Removal, ServiceId, State, TargetSet,
    Traits, mark,
};
use futures::StreamExt;
use futures::stream::BoxStream;

/// One way to be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Defect {
    None,
    /// Writes whether or not there is a difference.
    WritesAlways,
    /// A new instance writes everything once.
    WritesAfterRestart,
    RetargetsAlways,
    /// Names are not the same for the next instance.
    RandomNames,
    /// A changed port brings another address.
    AddressOfPorts,
    /// Forgets the address when it goes.
    LeaksOnRelease,
    /// Takes a half-made balancer for a whole one.
    TrustsHalfMade,
    /// Whoever is no longer listed stays.
    KeepsLeavers,
    ListsOnlyTheFirst,
    ListsForeign,
    /// Goes by the name alone.
    AdoptsByName,
    DeletesRetained,
    /// Cannot release what is not there.
    FailsOnAbsent,
    NeedsTargetsFirst,
    /// Forgets what Services publish.
    GivesPublishedAway,
    /// Follows nothing.
    TellsNothing,
    /// Gives one family in silence.
    RemarksNothing,
    /// Cannot tell what a Service has under one key from what it has under another.
    OneMemberForAllKeys,
}

/// A cloud whose every write can be the last.
#[derive(Default)]
struct Cloud {
    objects: BTreeMap<String, Object>,
    effects: u64,
    crash: Option<(Crash, u64)>,
    broken: bool,
    next: u8,
    /// Objects, and the next address.
    kept: (BTreeMap<String, Object>, u8),
}

pub(crate) struct ToyLab(pub(crate) Defect);

struct ToyHarness {
    defect: Defect,
    cloud: Arc<Mutex<Cloud>>,
    instances: AtomicU64,
}

struct Toy {
    defect: Defect,
    mark: Mark,
    cloud: Arc<Mutex<Cloud>>,
    instance: u64,
    written: Mutex<BTreeSet<String>>,
    /// Addresses that Services publish, with their UIDs or balancers' names.
    published: Mutex<BTreeMap<IpAddr, String>>,
    /// Members that this instance knows of.
    known: Arc<Mutex<BTreeSet<String>>>,
}

// === impl Cloud ===

impl Cloud {
    fn effect(&mut self, effect: impl FnOnce(&mut Self)) -> Result<(), ProviderError> {
        let lost = || Err(ProviderError::transient("the toy cloud does not answer"));
        if self.broken {
            return lost();
        }
        self.effects += 1;
        let strikes = self.crash.as_mut().and_then(|(crash, count)| {
            *count += 1;
            let (Crash::Before(at) | Crash::After(at)) = *crash;
            (*count == at).then_some(*crash)
        });
        match strikes {
            None => effect(self),
            Some(Crash::Before(_)) => self.broken = true,
            Some(Crash::After(_)) => {
                self.broken = true;
                effect(self);
            }
        }
        if self.broken { lost() } else { Ok(()) }
    }

    fn address(&mut self, taken: &BTreeMap<IpAddr, String>) -> IpAddr {
        loop {
            self.next += 1;
            let address = Ipv4Addr::new(127, 1, 0, self.next).into();
            if !taken.contains_key(&address) {
                return address;
            }
        }
    }
}

// === impl ToyLab ===

#[async_trait]
impl Lab for ToyLab {
    async fn cloud(&self) -> Box<dyn Harness> {
        Box::new(ToyHarness {
            defect: self.0,
            cloud: Arc::default(),
            instances: AtomicU64::new(0),
        })
    }

    fn shares(&self) -> bool {
        true
    }

    fn goes_back(&self) -> bool {
        true
    }
}

#[async_trait]
impl Harness for ToyHarness {
    async fn provider(&self, mark: &Mark) -> Arc<dyn Provider> {
        Arc::new(Toy {
            defect: self.defect,
            mark: mark.clone(),
            cloud: Arc::clone(&self.cloud),
            instance: self.instances.fetch_add(1, Ordering::Relaxed),
            written: Mutex::default(),
            published: Mutex::default(),
            known: Arc::default(),
        })
    }

    async fn effects(&self) -> u64 {
        self.cloud.lock().unwrap().effects
    }

    async fn set_crash(&self, crash: Option<Crash>) {
        let mut cloud = self.cloud.lock().unwrap();
        cloud.broken = false;
        cloud.crash = crash.map(|crash| (crash, 0));
    }

    async fn crashed(&self) -> bool {
        self.cloud.lock().unwrap().broken
    }

    async fn contents(&self) -> BTreeMap<String, Object> {
        self.cloud.lock().unwrap().objects.clone()
    }

    async fn plant(&self, name: &str, tags: BTreeMap<String, String>) {
        let object = Object {
            tags,
            addresses: vec!["127.2.0.1".parse().unwrap()],
            state: "planted".into(),
        };
        self.cloud
            .lock()
            .unwrap()
            .objects
            .insert(name.to_owned(), object);
    }

    async fn pause(&self) {}

    async fn keep(&self) {
        let mut cloud = self.cloud.lock().unwrap();
        cloud.kept = (cloud.objects.clone(), cloud.next);
    }

    async fn go_back(&self) {
        let mut cloud = self.cloud.lock().unwrap();
        (cloud.objects, cloud.next) = cloud.kept.clone();
    }
}

// === impl Toy ===

impl Toy {
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

    /// Puts an object unless it is as it should be; foreign ones are refused.
    fn put(
        &self,
        name: &str,
        tags: BTreeMap<String, String>,
        state: String,
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
        let same = |object: &Object| object.tags == tags && object.state == state;
        if let Some(present) = &present
            && same(present)
            && !force
        {
            return Ok(present.addresses[0]);
        }
        let mut cloud = self.cloud();
        let held = present.map(|present| present.addresses[0]);
        let held = held.filter(|_| self.defect != Defect::AddressOfPorts);
        let address = held.or(preferred).unwrap_or_else(|| {
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
        Traits::CLOUD
    }

    fn key(&self, load_balancer: &LoadBalancer) -> Key {
        match &load_balancer.share_key {
            Some(share_key) => Key::Shared(share_key.clone()),
            None => Key::alone(&load_balancer.id),
        }
    }

    fn validate(&self, _balancer: &Balancer) -> Result<(), Refusal> {
        Ok(())
    }

    async fn restore(&self, recorded: Vec<Recorded>) -> Result<(), ProviderError> {
        for record in recorded {
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
        let half = self.defect == Defect::TrustsHalfMade && !self.members(key).is_empty();
        let mut address = None;
        for member in &balancer.members {
            let load_balancer = &member.load_balancer;
            let listeners = serde_like(load_balancer);
            let state = format!("member of {key}: {listeners}");
            let object = self.member_name(key, &load_balancer.id);
            let tags = self.mark.tags(&load_balancer.id);
            let home: IpAddr = "127.3.0.1".parse().unwrap();
            let at = self.put(&object, tags, state, Some(home))?;
            self.known.lock().unwrap().insert(object);
            address = address.or_else(|| (at != home).then_some(at));
        }
        let listed: BTreeSet<&str> = balancer
            .members
            .iter()
            .map(|member| member.load_balancer.id.uid.as_str())
            .collect();
        for (object, uid) in self.members(key) {
            if !listed.contains(uid.as_str()) && self.defect != Defect::KeepsLeavers {
                self.delete(&object)?;
            }
        }
        let recorded = balancer
            .members
            .iter()
            .flat_map(|member| &member.recorded)
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
        let preferred = recorded
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
            self.put(&name, self.class_tags(), state, preferred)?
        };
        self.publish(address, key);
        let observed = balancer.members.iter().map(|member| {
            let ingress = member.load_balancer.ingress([address], IpMode::Vip);
            let mut observed = Observed::new(ingress, State::Programmed);
            if member.load_balancer.families.len() > 1 && self.defect != Defect::RemarksNothing {
                observed.remarks.push("there is only one family".to_owned());
            }
            (member.load_balancer.id.clone(), observed)
        });
        Ok(observed.collect())
    }

    async fn retarget(&self, targets: &TargetSet, _keys: &[Key]) -> Result<(), ProviderError> {
        let name = self.name("ts", "nodes");
        if self.defect == Defect::RetargetsAlways {
            self.delete(&name)?;
        }
        let home: IpAddr = "127.4.0.1".parse().unwrap();
        self.put(&name, self.class_tags(), format!("{targets:?}"), Some(home))
            .map(drop)
    }

    async fn release(
        &self,
        id: &ServiceId,
        key: &Key,
        removal: Removal,
    ) -> Result<Released, ProviderError> {
        let key = key.to_string();
        let object = self.member_name(&key, id);
        self.known.lock().unwrap().remove(&object);
        self.published
            .lock()
            .unwrap()
            .retain(|_, uid| *uid != id.uid);
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
            self.put(&object, tags, present.state, None)?;
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
            services: mark::service_of(&object.tags).into_iter().collect(),
            name: name.clone(),
            tags: object.tags.clone(),
        });
        let limit = if self.defect == Defect::ListsOnlyTheFirst {
            1
        } else {
            usize::MAX
        };
        Ok(owned.take(limit).collect())
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
        // Looked at whenever somebody asks; nothing wakes who waits.
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
        Some(shared) => Key::Shared(shared.to_owned()),
        None => Key::Service(key.to_owned()),
    })
}
