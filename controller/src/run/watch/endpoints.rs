//! The watch of `EndpointSlice`s, which runs while a class of this process needs it.
//!
//! It is no gate of readiness: without it, only the Services whose targets are pods wait, and
//! their conditions say why.

use std::collections::BTreeSet;
use std::sync::Arc;

use kube::Api;
use tokio::time::Instant;
use tracing::info;

use super::{Selected, Watch, follow, follow_selected};
use crate::class::board::Board;
use crate::cluster::endpoints::{Endpoints, Followed};
use crate::cluster::pods::{GatedPod, WatchedPod};
use crate::cluster::slices::{OF_SERVICES, Slice, WatchedSlice};
use crate::cluster::store::{Changed, Phase, Store};
use crate::cluster::view::{Name, ServiceView};
use crate::process::queue::Queue;

const PODS: &str = "pods";

/// Keeps the pods behind Services current, and wakes the Services whose load balancers send to
/// them.
pub struct EndpointWatch {
    /// Where they go.
    pub endpoints: Endpoints,
    /// Which Services there are.
    pub services: Arc<Store<Name, ServiceView>>,
    /// Which class serves them.
    pub board: Board,
    /// Who is told.
    pub queue: Queue<Name>,
    /// Whether the readiness gates of pods are followed, too.
    pub gates: bool,
}

// === impl EndpointWatch ===

impl EndpointWatch {
    /// Watches for ever. The gate of `watch` is replaced.
    pub async fn run(self, watch: Watch) {
        let mut classes = self.board.subscribe();
        loop {
            let needed = classes.wait_for(|classes| classes.need_endpoints()).await;
            if needed.map(drop).is_err() {
                // There is no board any more.
                return std::future::pending().await;
            }
            info!("a class needs EndpointSlices; watching them");
            let followed = self.endpoints.begin(self.gates);
            let watch = Watch {
                gate: followed.gate.clone(),
                ..watch.clone()
            };
            let selected = Selected {
                api: Api::<WatchedSlice>::all(watch.client.clone()),
                labels: Some(OF_SERVICES),
            };
            let (metrics, kind) = (watch.metrics.clone(), watch.kind);
            let pods = self.pods(watch.clone(), &followed);
            let parse = |name: &Name, slice: &WatchedSlice| Slice::of(name, slice);
            let changed = |changed: &Changed<Name>| self.changed(&followed, changed);
            let unneeded = async {
                let _ = classes.wait_for(|classes| !classes.need_endpoints()).await;
            };
            tokio::select! {
                () = follow_selected(watch, selected, &followed.slices, parse, changed) => {}
                () = pods => {}
                () = unneeded => info!("no class needs EndpointSlices any more"),
            }
            self.endpoints.end();
            metrics.ended(kind);
            metrics.ended(PODS);
        }
    }

    /// Follows the pods with a readiness gate, if they are wanted.
    async fn pods(&self, watch: Watch, followed: &Followed) {
        let Some(pods) = &followed.pods else {
            return std::future::pending().await;
        };
        let watch = Watch {
            kind: PODS,
            gate: pods.gate.clone(),
            ..watch
        };
        let parse = |_: &Name, pod: &WatchedPod| GatedPod::of(pod);
        let changed = |changed: &Changed<Name>| {
            self.wake(followed, changed.phase, followed.pods_changed(changed));
        };
        follow(watch, &pods.store, parse, changed).await;
    }

    fn changed(&self, followed: &Followed, changed: &Changed<Name>) {
        self.wake(followed, changed.phase, followed.changed(changed));
    }

    fn wake(&self, followed: &Followed, phase: Phase, services: BTreeSet<Name>) {
        // Where nobody works, nobody waits.
        if self.queue.is_idle() {
            return;
        }
        let classes = self.board.snapshot();
        if phase == (Phase::ListEnds { first: true }) && followed.is_ready() {
            for service in self.services.all() {
                if classes.use_endpoints(&service) {
                    self.queue.add(Name::from(&service.id));
                }
            }
        }
        for name in services {
            let service = self.services.get(&name);
            if service.is_some_and(|service| classes.use_endpoints(&service)) {
                let wait = followed.wait(&name, Instant::now());
                self.queue.add_after(name, wait);
            }
        }
    }
}

#[cfg(test)]
mod tests;
