//! A cloud in memory that outlives the controllers; [`provider`] is the interface to it.
//!
//! Creating a load balancer takes three mutating calls (create with tags, configure, commit),
//! and a release two (empty, delete), so that a crash can leave partial objects behind. Each
//! call is an effect in the journal.

mod faulty;
mod provider;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ballast_provider::{Cause, Change, Key, LoadBalancer, ProviderError, TargetSet, mark};
use tokio::sync::broadcast;
use tokio::time::Instant;

pub use self::provider::{CloudFactory, UNKNOWN};
use super::api::Api;
use super::journal::Journal;

/// The cloud.
pub struct Cloud {
    api: Arc<Api>,
    journal: Arc<Journal>,
    state: Mutex<Inner>,
    changes: broadcast::Sender<(String, Change)>,
}

#[derive(Default)]
struct Inner {
    balancers: BTreeMap<String, Lb>,
    targets: BTreeMap<String, TargetSet>,
    faults: VecDeque<(Call, ProviderError)>,
    /// How long a new load balancer takes to become active.
    provisioning: Duration,
    /// How long a deletion takes.
    deleting: Duration,
    last_address: u32,
    /// Calls of `ensure` for these balancers do not end.
    hanging: BTreeSet<Key>,
    /// Calls of `ensure` for these classes do not end.
    hanging_classes: BTreeSet<String>,
    /// The balancers for which a call did not end.
    hung: BTreeSet<Key>,
    /// No balancer gets these addresses.
    denied: BTreeSet<IpAddr>,
    calls: BTreeMap<&'static str, usize>,
}

/// The part of a load balancer that belongs to one Service.
#[derive(Clone, Debug)]
pub struct Lb {
    pub tags: BTreeMap<String, String>,
    /// The balancer that it is a part of.
    pub key: Key,
    /// The instance that created it.
    pub by: String,
    pub addresses: Vec<IpAddr>,
    /// Its last configuration.
    pub shape: Option<LoadBalancer>,
    pub active_at: Option<Instant>,
    pub gone_at: Option<Instant>,
}

/// The call that a fault affects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Restore,
    Ensure,
    Retarget,
    Release,
    Survey,
}

// === impl Cloud ===

impl Cloud {
    pub fn new(api: &Arc<Api>) -> Arc<Self> {
        let cloud = Arc::new(Self {
            api: Arc::clone(api),
            journal: Arc::clone(&api.journal),
            state: Mutex::default(),
            changes: broadcast::Sender::new(1024),
        });
        let this = Arc::downgrade(&cloud);
        api.ask_cloud(move |uid, class| {
            this.upgrade().is_some_and(|cloud| {
                cloud
                    .lock()
                    .balancers
                    .values()
                    .any(|lb| lb.is_of(uid) && lb.tag(mark::CLASS) == class && !lb.retained())
            })
        });
        cloud
    }

    /// All load balancers, by name.
    pub fn balancers(&self) -> BTreeMap<String, Lb> {
        self.lock().balancers.clone()
    }

    /// Load balancers with our cluster's tag that were not retained on purpose.
    pub fn ours(&self) -> Vec<Lb> {
        let all = self.balancers().into_values();
        all.filter(|lb| lb.tag(mark::CLUSTER) == self.cluster() && !lb.retained())
            .collect()
    }

    pub fn of(&self, uid: &str) -> Vec<Lb> {
        self.ours().into_iter().filter(|lb| lb.is_of(uid)).collect()
    }

    pub fn targets(&self, class: &str) -> Option<TargetSet> {
        self.lock().targets.get(class).cloned()
    }

    /// Adds a load balancer that the controller did not create.
    pub fn plant(&self, name: &str, lb: Lb) {
        self.lock().balancers.insert(name.to_owned(), lb);
        self.journal.changed();
    }

    /// Something that was deleted is there again.
    pub fn reappear(&self, name: &str, lb: Lb) {
        self.tell(&lb, Cause::Appeared);
        self.plant(name, lb);
    }

    /// Makes the next calls of a kind fail.
    pub fn fail(&self, call: Call, error: &ProviderError, times: usize) {
        let faults = std::iter::repeat_n((call, error.clone()), times);
        self.lock().faults.extend(faults);
    }

    /// The fault of a call that begins, if a test injected one.
    fn fault(&self, call: Call) -> Result<(), ProviderError> {
        let mut state = self.lock();
        let fault = state.faults.iter().position(|(of, _)| *of == call);
        let fault = fault.and_then(|at| state.faults.remove(at));
        drop(state);
        self.journal.changed();
        fault.map_or(Ok(()), |(_, error)| Err(error))
    }

    pub fn heal(&self) {
        self.lock().faults.clear();
    }

    pub fn faults_left(&self) -> usize {
        self.lock().faults.len()
    }

    pub fn take_time(&self, provisioning: Duration, deleting: Duration) {
        let mut state = self.lock();
        state.provisioning = provisioning;
        state.deleting = deleting;
    }

    /// The calls of `ensure` for a balancer hang, or go on.
    pub fn hang(&self, share_key: &str, on: bool) {
        let key = Key::Shared(share_key.into());
        let hanging = &mut self.lock().hanging;
        if on {
            hanging.insert(key);
        } else {
            hanging.remove(&key);
        }
    }

    /// The calls of `ensure` of a class hang from now on.
    pub fn hang_class(&self, class: &str) {
        self.lock().hanging_classes.insert(class.to_owned());
    }

    /// Refuses every balancer of which a member requests this address.
    pub fn deny(&self, address: &str) {
        self.lock().denied.insert(address.parse().unwrap());
    }

    /// Gives a balancer another address and reports nothing.
    pub fn renumber(&self, share_key: &str, address: &str) {
        let key = Key::Shared(share_key.into());
        for lb in self.lock().balancers.values_mut() {
            if lb.key == key {
                lb.addresses = vec![address.parse().unwrap()];
            }
        }
        self.journal.changed();
    }

    /// How often a call was made, read-only calls included.
    pub fn calls(&self, call: &'static str) -> usize {
        self.lock().calls.get(call).copied().unwrap_or_default()
    }

    /// The number of balancers for which a call did not end.
    pub fn hung(&self) -> usize {
        self.lock().hung.len()
    }

    /// Deletes it, as a user in the cloud's console.
    pub fn vandalise(&self, uid: &str) {
        let lbs: Vec<(String, Lb)> = self
            .balancers()
            .into_iter()
            .filter(|(_, lb)| lb.is_of(uid))
            .collect();
        for (name, lb) in lbs {
            self.lock().balancers.remove(&name);
            self.tell(&lb, Cause::Gone);
        }
        self.journal.changed();
    }

    /// The UID of the namespace `kube-system`.
    pub fn cluster(&self) -> String {
        let namespace = self
            .api
            .get(super::api::Kind::Namespace, "kube-system")
            .unwrap();
        namespace["metadata"]["uid"].as_str().unwrap().to_owned()
    }

    fn tell(&self, lb: &Lb, cause: Cause) {
        if let Some(id) = mark::service_of(&lb.tags) {
            let gone = (cause == Cause::Gone).then(|| "it is gone".to_owned());
            let change = Change {
                id,
                key: Some(lb.key.clone()),
                cause,
                difference: gone.unwrap_or_default(),
            };
            let _ = self.changes.send((lb.tag(mark::CLASS), change));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Inner ===

impl Inner {
    fn hangs(&mut self, class: &str, key: &Key) -> bool {
        let hangs = self.hanging.contains(key) || self.hanging_classes.contains(class);
        if hangs {
            self.hung.insert(key.clone());
        }
        hangs
    }
}

// === impl Lb ===

impl Lb {
    pub fn tag(&self, key: &str) -> String {
        self.tags.get(key).cloned().unwrap_or_default()
    }

    pub fn is_of(&self, uid: &str) -> bool {
        self.tags
            .get(mark::SERVICE_UID)
            .is_some_and(|tag| tag == uid)
    }

    pub fn retained(&self) -> bool {
        self.tags.contains_key(mark::RETAINED)
    }

    pub fn is_active(&self) -> bool {
        self.active_at.is_some_and(|at| at <= Instant::now()) && self.gone_at.is_none()
    }
}

/// The UIDs that have load balancers.
pub fn uids(balancers: &[Lb]) -> BTreeSet<String> {
    balancers
        .iter()
        .map(|lb| lb.tag(mark::SERVICE_UID))
        .collect()
}
