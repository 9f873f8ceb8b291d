//! The pods behind Services, for load balancers whose targets are pods: the `EndpointSlice`s as
//! watched, which Service they belong to, and when the turn of a Service is due whose pods
//! changed.
//!
//! They are followed only while a class needs them, so that other installations need neither the
//! memory nor the right. Until the first list is complete there are no endpoints, not an empty
//! set: whoever decided for an empty set would remove every target.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ballast_provider::{Endpoint, LoadBalancer, ServiceId};
use tokio::time::Instant;
use tracing::warn;

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
    index: Mutex<Index>,
}

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
    /// The slices of each Service.
    slices: HashMap<Name, BTreeSet<Name>>,
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
    /// Begins anew, without slices.
    pub fn begin(&self) -> Arc<Followed> {
        let followed = Arc::new(Followed {
            slices: Store::default(),
            gate: Health::default().gate("the list of EndpointSlices"),
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
            Some(followed) if followed.slices.is_ready() => Known::Listed,
            Some(followed) => followed.gate.trouble().map_or(Known::Soon, Known::Failing),
            None => Known::Soon,
        }
    }

    /// The endpoints of a Service for what it asks; `None` before they are known.
    pub fn of(&self, id: &ServiceId, wanted: &LoadBalancer) -> Option<Arc<BTreeSet<Endpoint>>> {
        let followed = self.lock().clone()?;
        if !followed.slices.is_ready() {
            return None;
        }
        let name = Name::from(id);
        let slices = followed.slices_of(&name);
        let slices = slices.iter().filter_map(|slice| slice.as_ref().as_ref());
        // One that has just got another label is found under both.
        let slices = slices.filter(|slice| slice.service == name);
        Some(Arc::new(slices::endpoints(id, wanted, slices)))
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
            if let Some(address) = slice.and_then(Slice::off_limits) {
                warn!(slice = %name, %address, "an EndpointSlice names an address that is never a target; leaving it out");
            }
            services.extend(index.moved(name, slice.map(|slice| &slice.service)));
        }
        if matches!(changed.phase, Phase::ListEnds { first: true }) || !self.slices.is_ready() {
            services.clear();
        }
        services
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
