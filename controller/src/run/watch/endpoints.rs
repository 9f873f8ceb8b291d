//! The watch of `EndpointSlice`s, which runs while a class of this process needs it.
//!
//! It is no gate of readiness: without it, only the Services whose targets are pods wait, and
//! their conditions say why.

use std::collections::BTreeSet;
use std::sync::Arc;

use kube::{Api, Client};
use tokio::time::Instant;
use tracing::info;

use super::{Selected, Watch, follow, follow_selected};
use crate::class::board::Board;
use crate::cluster::endpoints::{Endpoints, Followed, GatedPods};
use crate::cluster::metrics::WatchMetrics;
use crate::cluster::pods::{GatedPod, WatchedPod};
use crate::cluster::slices::{OF_SERVICES, Slice, WatchedSlice};
use crate::cluster::store::{Changed, Phase, Store};
use crate::cluster::view::{Name, ServiceView};
use crate::process::admin::Gate;
use crate::process::queue::Queue;

/// The kinds, for logs and metrics.
const SLICES: &str = "endpointslices";
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
    /// Watches for ever.
    pub async fn run(self, client: Client, metrics: WatchMetrics) {
        let mut classes = self.board.subscribe();
        loop {
            let needed = classes.wait_for(|classes| classes.need_endpoints()).await;
            if needed.map(drop).is_err() {
                // There is no board any more.
                return std::future::pending().await;
            }
            info!("a class needs EndpointSlices; watching them");
            let followed = self.endpoints.begin(self.gates);
            let watch = |kind, gate: &Gate| Watch {
                client: client.clone(),
                kind,
                gate: gate.clone(),
                metrics: metrics.clone(),
            };
            let slices = self.slices(watch(SLICES, &followed.gate), &followed);
            let pods = async {
                match &followed.pods {
                    Some(pods) => self.pods(watch(PODS, &pods.gate), pods, &followed).await,
                    None => std::future::pending().await,
                }
            };
            let unneeded = async {
                let _ = classes.wait_for(|classes| !classes.need_endpoints()).await;
            };
            tokio::select! {
                () = slices => {}
                () = pods => {}
                () = unneeded => info!("no class needs EndpointSlices any more"),
            }
            self.endpoints.end();
            metrics.ended(SLICES);
            metrics.ended(PODS);
        }
    }

    async fn slices(&self, watch: Watch, followed: &Followed) {
        let selected = Selected {
            api: Api::<WatchedSlice>::all(watch.client.clone()),
            labels: Some(OF_SERVICES),
        };
        let parse = |name: &Name, slice: &WatchedSlice| Slice::of(name, slice);
        let changed = |changed: &Changed<Name>| {
            self.wake(followed, changed.phase, followed.changed(changed));
        };
        follow_selected(watch, selected, &followed.slices, parse, changed).await;
    }

    /// Follows the pods with a readiness gate.
    async fn pods(&self, watch: Watch, pods: &GatedPods, followed: &Followed) {
        let parse = |_: &Name, pod: &WatchedPod| GatedPod::of(pod);
        let changed = |changed: &Changed<Name>| {
            self.wake(followed, changed.phase, followed.pods_changed(changed));
        };
        follow(watch, &pods.store, parse, changed).await;
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
