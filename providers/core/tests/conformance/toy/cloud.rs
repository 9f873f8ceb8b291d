//! The toy's cloud, and its lab and harness.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use ballast_provider::conformance::{Crash, Field, Harness, Lab, Object, Support};
use ballast_provider::{Mark, Provider, ProviderError, Settings};

use super::{Defect, PODS, Toy};

/// A cloud in which any write can be the last one.
#[derive(Default)]
pub(super) struct Cloud {
    pub(super) objects: BTreeMap<String, Object>,
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

// === impl Cloud ===

impl Cloud {
    pub(super) fn effect(&mut self, effect: impl FnOnce(&mut Self)) -> Result<(), ProviderError> {
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

    pub(super) fn address(&mut self, taken: &BTreeMap<IpAddr, String>) -> IpAddr {
        loop {
            self.next += 1;
            let address = Ipv4Addr::new(127, 1, 0, self.next).into();
            if !taken.contains_key(&address) && self.holder(address).is_none() {
                return address;
            }
        }
    }

    /// The name of the object that has an address.
    pub(super) fn holder(&self, address: IpAddr) -> Option<&String> {
        let mut objects = self.objects.iter();
        let holder = objects.find(|(_, object)| object.addresses.contains(&address));
        holder.map(|(name, _)| name)
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

    fn support(&self, field: Field) -> Support {
        match field {
            Field::Settings | Field::Pool => Support::Remark,
            Field::Created | Field::Endpoints | Field::Labels | Field::NamespaceLabels => {
                Support::Unused
            }
            Field::Namespace
            | Field::Name
            | Field::Uid
            | Field::ListenerName
            | Field::Protocol
            | Field::Port
            | Field::NodePort
            | Field::Families
            | Field::FamilyPolicy
            | Field::TrafficPolicy
            | Field::HealthCheckNodePort
            | Field::Affinity
            | Field::AffinityTimeout
            | Field::SourceRanges
            | Field::RequestedAddresses
            | Field::ShareKey
            | Field::Published
            | Field::Pods
            | Field::TargetName
            | Field::TargetAddresses
            | Field::TargetProviderId
            | Field::TargetLabels
            | Field::NodeAddresses => Support::Honoured,
        }
    }

    fn pods(&self) -> Settings {
        Settings::from([(PODS.to_owned(), "on".to_owned())])
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
        Arc::new(Toy::new(
            self.defect,
            mark.clone(),
            Arc::clone(&self.cloud),
            self.instances.fetch_add(1, Ordering::Relaxed),
        ))
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
