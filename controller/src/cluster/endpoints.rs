//! The pods behind Services, for load balancers whose targets are pods: the `EndpointSlice`s as
//! watched, which Service they belong to, and when the turn of a Service is due whose pods
//! changed.
//!
//! They are followed only while a class needs them, so that other installations need neither the
//! memory nor the right. Until the first list is complete there are no endpoints, not an empty
//! set: whoever decided for an empty set would remove every target.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ballast_provider::{Endpoint, LoadBalancer, ServiceId};
use tokio::time::Instant;
use tracing::warn;

use super::pods::GatedPod;
use super::slices::{self, Slice};
use super::store::{Changed, Phase, Store};
use super::view::Name;
use crate::process::admin::{Gate, Health};

/// A Deployment that rolls changes its slices many times. The first change waits this long for
/// others.
const QUIET: Duration = Duration::from_millis(300);
/// While changes go on, a Service has one turn in this time.
const PACE: Duration = Duration::from_secs(1);

/// What is followed now. Clones share it.
#[derive(Clone, Default)]
pub struct Endpoints(Arc<Mutex<Option<Arc<Followed>>>>);

/// One watch, from its start to its end.
pub struct Followed {
    /// The slices by their own names.
    pub slices: Store<Name, Option<Slice>>,
    /// Closed until the first list.
    pub gate: Gate,
    /// The pods with a readiness gate, if those are wanted.
    pub pods: Option<GatedPods>,
    index: Mutex<Index>,
}

/// Pods with a readiness gate.
pub struct GatedPods {
    /// The pods by name; `None` for one without the gate.
    pub store: Store<Name, Option<GatedPod>>,
    /// Closed until the first list.
    pub gate: Gate,
}

/// A pod whose gate is closed, and nothing else keeps it from being ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitingPod {
    /// Its name.
    pub name: Name,
    /// Its UID.
    pub uid: Box<str>,
    /// Its addresses in the slices of each Service that it is behind.
    pub services: Behind,
}

/// The Services that a pod is behind, with its addresses in their slices.
pub type Behind = BTreeMap<Name, BTreeSet<IpAddr>>;

/// Whether the pods of Services are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// They are.
    Listed,
    /// They soon are.
    Soon,
    /// The list fails. Why.
    Failing(String),
}

#[derive(Default)]
struct Index {
    /// The Service of each slice.
    services: HashMap<Name, Name>,
    /// The slices of each Service. Ordered, because those of a namespace are searched for a pod.
    slices: BTreeMap<Name, BTreeSet<Name>>,
    /// The addresses that each slice names and nobody may name. The log has them.
    off_limits: HashMap<Name, BTreeSet<IpAddr>>,
    /// When the last turn is due of Services whose pods changed.
    due: HashMap<Name, Instant>,
}

/// When the turn of a Service is due whose pods changed now. `last` is when the last one was, or
/// still is.
fn due(last: Option<Instant>, now: Instant) -> Instant {
    match last {
        Some(last) if last > now => last,
        Some(last) => (now + QUIET).max(last + PACE),
        None => now + QUIET,
    }
}

// === impl Endpoints ===

impl Endpoints {
    /// Begins anew, without slices; with the pods that have a readiness gate, if `gates`.
    pub fn begin(&self, gates: bool) -> Arc<Followed> {
        let followed = Arc::new(Followed {
            slices: Store::default(),
            gate: Health::default().gate("the list of EndpointSlices"),
            pods: gates.then(|| GatedPods {
                store: Store::default(),
                gate: Health::default().gate("the list of Pods"),
            }),
            index: Mutex::default(),
        });
        *self.lock() = Some(Arc::clone(&followed));
        followed
    }

    /// Forgets all of them.
    pub fn end(&self) {
        *self.lock() = None;
    }

    /// Whether they are known.
    pub fn known(&self) -> Known {
        let followed = self.lock().clone();
        match followed {
            Some(followed) if followed.is_ready() => Known::Listed,
            Some(followed) => followed.trouble().map_or(Known::Soon, Known::Failing),
            None => Known::Soon,
        }
    }

    /// The endpoints of a Service for what it asks; `None` before they are known.
    pub fn of(&self, id: &ServiceId, wanted: &LoadBalancer) -> Option<Arc<BTreeSet<Endpoint>>> {
        let followed = self.lock().clone()?;
        if !followed.is_ready() {
            return None;
        }
        let name = Name::from(id);
        let slices = followed.slices_of(&name);
        let slices = slices.iter().filter_map(|slice| slice.as_ref().as_ref());
        // One that has just got another label is found under both.
        let slices = slices.filter(|slice| slice.service == name);
        let is_target = |pod: &str| {
            let found = followed.gated(&name.namespace, pod, GatedPod::is_target);
            found.is_some()
        };
        Some(Arc::new(slices::endpoints(id, wanted, slices, &is_target)))
    }

    /// The pods behind a Service whose gate is closed, and nothing else keeps them from being
    /// ready.
    pub fn waiting(&self, id: &ServiceId) -> Vec<WaitingPod> {
        let followed = self.lock().clone();
        let Some(followed) = followed.filter(|it| it.is_ready() && it.pods.is_some()) else {
            return Vec::new();
        };
        let name = Name::from(id);
        let slices = followed.slices_of(&name);
        let slices = slices.iter().filter_map(|slice| slice.as_ref().as_ref());
        let own = slices.filter(|slice| slice.service == name && slice.is_of(id));
        let pods: BTreeSet<&str> = own
            .flat_map(|slice| slice.unready().map(|it| it.0))
            .collect();
        let waits = |pod| Some((pod, followed.gated(&name.namespace, pod, GatedPod::waits)?));
        let waiting: BTreeMap<&str, Box<str>> = pods.into_iter().filter_map(waits).collect();
        let pods = waiting.keys().copied().collect();
        let mut services = followed.services_of(&name.namespace, &pods);
        let waiting = waiting.into_iter().filter_map(|(pod, uid)| {
            // One that has left all slices meanwhile waits for nobody.
            let services = services.remove(pod)?;
            Some(WaitingPod {
                name: Name {
                    namespace: Arc::clone(&name.namespace),
                    name: pod.into(),
                },
                uid,
                services,
            })
        });
        waiting.collect()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Followed>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Followed ===

impl Followed {
    /// Notes what the watch delivered. Returns the Services whose pods changed, as far as the
    /// list is complete: at its end all of them are looked at.
    pub fn changed(&self, changed: &Changed<Name>) -> BTreeSet<Name> {
        let mut index = self.index();
        let mut services = BTreeSet::new();
        for name in &changed.keys {
            let slice = self.slices.get(name);
            let slice = slice.as_deref().and_then(Option::as_ref);
            if let Some(address) = index.off_limits(name, slice) {
                warn!(slice = %name, %address, "an EndpointSlice names an address that is never a target; leaving it out");
            }
            services.extend(index.moved(name, slice.map(|slice| &slice.service)));
        }
        if matches!(changed.phase, Phase::ListEnds { first: true }) || !self.is_ready() {
            services.clear();
        }
        services
    }

    /// The same for pods with a readiness gate.
    pub fn pods_changed(&self, changed: &Changed<Name>) -> BTreeSet<Name> {
        if matches!(changed.phase, Phase::ListEnds { first: true }) || !self.is_ready() {
            return BTreeSet::new();
        }
        let mut pods: BTreeMap<&Arc<str>, BTreeSet<&str>> = BTreeMap::new();
        for pod in &changed.keys {
            pods.entry(&pod.namespace).or_default().insert(&pod.name);
        }
        let pods = pods.iter();
        pods.flat_map(|(namespace, pods)| self.services_of(namespace, pods).into_values())
            .flat_map(Behind::into_keys)
            .collect()
    }

    /// Whether all lists are complete.
    pub fn is_ready(&self) -> bool {
        let pods = self.pods.as_ref();
        self.slices.is_ready() && pods.is_none_or(|pods| pods.store.is_ready())
    }

    /// Why a list is not complete.
    fn trouble(&self) -> Option<String> {
        let pods = self.pods.as_ref();
        let pods = || pods.and_then(|pods| pods.gate.trouble());
        self.gate.trouble().or_else(pods)
    }

    /// The UID of a pod with a gate, if this is true of it.
    fn gated(
        &self,
        namespace: &Arc<str>,
        pod: &str,
        is: fn(&GatedPod) -> bool,
    ) -> Option<Box<str>> {
        let name = Name {
            namespace: Arc::clone(namespace),
            name: pod.into(),
        };
        let pod = self.pods.as_ref()?.store.get(&name)?;
        let pod = pod.as_ref().as_ref().filter(|pod| is(pod))?;
        Some(pod.uid.clone())
    }

    /// What each of these pods is behind, while it is not ready. One pass for all of them: a
    /// namespace can have thousands of slices.
    fn services_of<'a>(
        &self,
        namespace: &Arc<str>,
        pods: &BTreeSet<&'a str>,
    ) -> BTreeMap<&'a str, Behind> {
        let mut behind: BTreeMap<&str, Behind> = BTreeMap::new();
        if pods.is_empty() {
            return behind;
        }
        // First the names, so that the index is not locked for the whole pass.
        let names = self.index().slices_in(namespace);
        let slices = names.iter().filter_map(|name| self.slices.get(name));
        for slice in slices {
            for slice in slice.iter() {
                for (pod, address) in slice.unready() {
                    let Some(pod) = pods.get(pod) else { continue };
                    let services = behind.entry(*pod).or_default();
                    let addresses = services.entry(slice.service.clone()).or_default();
                    addresses.insert(address);
                }
            }
        }
        behind
    }

    /// How long the turn of a Service waits whose pods changed now.
    pub fn wait(&self, service: &Name, now: Instant) -> Duration {
        let mut index = self.index();
        index.due.retain(|_, due| *due + PACE > now);
        let at = due(index.due.get(service).copied(), now);
        index.due.insert(service.clone(), at);
        at.saturating_duration_since(now)
    }

    fn slices_of(&self, service: &Name) -> Vec<Arc<Option<Slice>>> {
        let names = self.index().slices.get(service).cloned();
        let names = names.iter().flatten();
        names.filter_map(|name| self.slices.get(name)).collect()
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Index ===

impl Index {
    /// The slices of a namespace.
    fn slices_in(&self, namespace: &Arc<str>) -> Vec<Name> {
        let first = Name {
            namespace: Arc::clone(namespace),
            name: "".into(),
        };
        let services = self.slices.range(first..);
        let services = services.take_while(|(service, _)| service.namespace == *namespace);
        services.flat_map(|(_, slices)| slices).cloned().collect()
    }

    /// An address that nobody may name, and that the slice did not name before. The log would
    /// have the same words for each event of the slice.
    fn off_limits(&mut self, name: &Name, slice: Option<&Slice>) -> Option<IpAddr> {
        let now = slice.map(Slice::off_limits);
        let Some(now) = now.filter(|now| !now.is_empty()) else {
            self.off_limits.remove(name);
            return None;
        };
        let before = self.off_limits.insert(name.clone(), now.clone());
        now.difference(&before.unwrap_or_default()).next().copied()
    }

    /// A slice belongs to this Service now, or does not exist any more. Returns the Services that
    /// it belongs and belonged to.
    fn moved(&mut self, slice: &Name, service: Option<&Name>) -> Vec<Name> {
        let before = match service {
            Some(service) => self.services.insert(slice.clone(), service.clone()),
            None => self.services.remove(slice),
        };
        if let Some(before) = before.as_ref().filter(|it| Some(*it) != service)
            && let Some(slices) = self.slices.get_mut(before)
        {
            slices.remove(slice);
            if slices.is_empty() {
                self.slices.remove(before);
            }
        }
        if let Some(service) = service {
            let slices = self.slices.entry(service.clone()).or_default();
            slices.insert(slice.clone());
        }
        before.into_iter().chain(service.cloned()).collect()
    }
}

#[cfg(test)]
mod tests;
