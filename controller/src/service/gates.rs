//! Opens the readiness gates of pods: a pod with the gate `ballast.dev/target-healthy` becomes ready
//! when the load balancers of all Services that it is behind find it healthy.
//!
//! Owns what the last turn of each Service with pods as targets found healthy. The choice
//! ([`to_open`]) is pure; [`Gates::open`] writes.
//!
//! A gate is opened once and never closed. A load balancer that finds a pod unhealthy later sends
//! nothing to it; if the pod became unready, in-cluster clients would lose it, too, and a fault of
//! the load balancer would take every pod out of every Service.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ballast_provider::ServiceId;
use jiff::Timestamp;
use serde_json::{Value, json};
use tracing::{info, warn};

use crate::class::Classes;
use crate::class::board::Board;
use crate::cluster::conditions::rfc3339;
use crate::cluster::endpoints::{Endpoints, WaitingPod};
use crate::cluster::pods::GATE;
use crate::cluster::store::Store;
use crate::cluster::view::{Name, ServiceView};
use crate::cluster::writer::Writer;

/// When a Service has a turn again with pods that wait: another Service of theirs may be gone, or
/// a write has failed. What the load balancer finds, the provider reports at once.
pub const RETRY: Duration = Duration::from_secs(30);

/// The gates that one turn opens. They are opened one after the other, and meanwhile nothing else
/// happens to the load balancer. The others are opened in the next turn.
const MOST: usize = 100;

/// What opens gates.
#[derive(Clone)]
pub struct Gates {
    /// The pods.
    pub endpoints: Endpoints,
    /// The Services.
    pub services: Arc<Store<Name, ServiceView>>,
    /// Which class serves them.
    pub board: Board,
    /// Writes to pods.
    pub writer: Writer,
    /// What was found healthy.
    pub healthy: Healthy,
}

/// The addresses that were found healthy at the last turn of each Service with pods as targets.
#[derive(Clone, Debug, Default)]
pub struct Healthy(Arc<Mutex<Found>>);

type Found = HashMap<Name, (ServiceId, BTreeSet<IpAddr>)>;

/// The condition of an open gate.
fn patch(pod: &WaitingPod, now: Timestamp) -> Value {
    json!({
        "metadata": {"uid": pod.uid},
        "status": {"conditions": [{
            "type": GATE, "status": "True", "reason": "TargetHealthy",
            "message": "The load balancers of all Services of this pod find it healthy",
            "lastTransitionTime": rfc3339(now),
        }]},
    })
}

/// The pods that every Service with pods as targets finds healthy, of those that wait. A Service whose
/// targets are nodes finds nothing of a pod. Pure.
fn to_open(
    waiting: Vec<WaitingPod>,
    healthy: &Found,
    services: &Store<Name, ServiceView>,
    classes: &Classes,
) -> Vec<WaitingPod> {
    let finds = |service: &Name, addresses: &BTreeSet<IpAddr>| {
        let Some(view) = services.get(service) else {
            return true;
        };
        let found = || healthy.get(service).filter(|(id, _)| *id == view.id);
        !classes.use_endpoints(&view)
            || found().is_some_and(|(_, found)| !found.is_disjoint(addresses))
    };
    let open = |pod: &WaitingPod| pod.services.iter().all(|(name, at)| finds(name, at));
    waiting.into_iter().filter(open).collect()
}

// === impl Gates ===

impl Gates {
    /// Opens the gates of pods behind a Service. `found`: what its load balancer found healthy.
    /// Returns whether pods still wait.
    pub async fn open(&self, id: &ServiceId, found: Option<&BTreeSet<IpAddr>>) -> bool {
        let waiting = self.endpoints.waiting(id);
        let Some(found) = found.filter(|_| !waiting.is_empty()) else {
            self.forget(&Name::from(id));
            return !waiting.is_empty();
        };
        self.healthy.note(id, found);
        let all = waiting.len();
        let open = {
            let healthy = self.healthy.lock();
            to_open(waiting, &healthy, &self.services, &self.board.snapshot())
        };
        let mut opened = 0;
        for pod in open.iter().take(MOST) {
            match self
                .writer
                .patch_pod(&pod.name, &patch(pod, Timestamp::now()))
                .await
            {
                Ok(_) => {
                    info!(pod = %pod.name, "the load balancers find the pod healthy; its gate is open");
                    opened += 1;
                }
                // The turn must not last as many time-outs as there are pods.
                Err(error) => {
                    warn!(pod = %pod.name, %error, "cannot open the readiness gate");
                    break;
                }
            }
        }
        opened < all
    }

    /// A Service is gone.
    pub fn forget(&self, name: &Name) {
        self.healthy.lock().remove(name);
    }
}

// === impl Healthy ===

impl Healthy {
    fn note(&self, id: &ServiceId, found: &BTreeSet<IpAddr>) {
        self.lock()
            .insert(Name::from(id), (id.clone(), found.clone()));
    }

    fn lock(&self) -> MutexGuard<'_, Found> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
