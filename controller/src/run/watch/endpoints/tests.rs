use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use ballast_provider::Traits;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::*;
use crate::class::{ClassView, Instance, Scope};
use crate::cluster::endpoints::Known;
use crate::cluster::store::{Parsed, Update};
use crate::fixtures::{PODS, PureProvider, client, failure, id, pod_slice, reply};
use crate::process::backoff::Backoff;

const SECOND: Duration = Duration::from_secs(1);

/// A controller with a Service whose targets are pods, and one whose targets are nodes.
struct Bed {
    endpoints: Endpoints,
    board: Board,
    queue: Queue<Name>,
    registry: Registry,
    lists: Arc<AtomicUsize>,
    forbids: Arc<AtomicBool>,
    forbids_pods: Arc<AtomicBool>,
}

// === impl Bed ===

impl Bed {
    fn start(gates: bool) -> Self {
        let mut registry = Registry::default();
        let bed = Self {
            endpoints: Endpoints::default(),
            board: Board::new(Scope::All, Arc::default()),
            queue: Queue::new(Backoff::new(SECOND, SECOND)),
            lists: Arc::default(),
            forbids: Arc::default(),
            forbids_pods: Arc::default(),
            registry: Registry::default(),
        };
        let services: Arc<Store<Name, ServiceView>> = Arc::default();
        for name in ["pods", "nodes"] {
            let mut service = ServiceView::test(name);
            if name == "pods" {
                let wanted = service.load_balancer.as_mut().unwrap().as_mut().unwrap();
                wanted.settings.insert(PODS.to_owned(), "on".to_owned());
            }
            services.apply(Update::Applied(Parsed {
                key: Name::from(&service.id),
                version: 1,
                view: service,
            }));
        }
        let metrics = WatchMetrics::register(&mut registry);
        let endpoints = EndpointWatch {
            endpoints: bed.endpoints.clone(),
            services,
            board: bed.board.clone(),
            queue: bed.queue.clone(),
            gates,
        };
        tokio::spawn(endpoints.run(bed.client(), metrics));
        let ready = Instance::Ready(Arc::new(PureProvider(&[])));
        bed.board.seat("local").post(ready);
        Self { registry, ..bed }
    }

    /// An API server with one slice of each Service, whose watches deliver nothing.
    fn client(&self) -> kube::Client {
        let (lists, forbids) = (Arc::clone(&self.lists), Arc::clone(&self.forbids));
        let forbids_pods = Arc::clone(&self.forbids_pods);
        client(move |parts, _| {
            let of_pods = parts.uri.path() == "/api/v1/pods";
            assert!(of_pods || parts.uri.path() == "/apis/discovery.k8s.io/v1/endpointslices");
            let forbidden = of_pods && forbids_pods.load(Ordering::Relaxed);
            let query = parts.uri.query().unwrap_or_default().to_owned();
            let (lists, forbids) = (Arc::clone(&lists), Arc::clone(&forbids));
            async move {
                if query.contains("watch=") {
                    return std::future::pending().await;
                }
                if forbidden {
                    return failure(403);
                }
                if of_pods {
                    return reply(
                        200,
                        &json!({
                            "kind": "PodList", "apiVersion": "v1",
                            "metadata": {"resourceVersion": "7"}, "items": [],
                        }),
                    );
                }
                assert!(query.contains("service-name"), "{query}");
                if forbids.load(Ordering::Relaxed) {
                    return failure(403);
                }
                lists.fetch_add(1, Ordering::Relaxed);
                let slice = |service: &str| -> Value {
                    let mut slice = pod_slice(service, service, &["10.0.0.1"]);
                    slice["metadata"]["resourceVersion"] = json!("7");
                    slice
                };
                reply(
                    200,
                    &json!({
                        "kind": "EndpointSliceList", "apiVersion": "discovery.k8s.io/v1",
                        "metadata": {"resourceVersion": "7"},
                        "items": [slice("pods"), slice("nodes")],
                    }),
                )
            }
        })
    }

    fn classes(&self, endpoints: bool) {
        let class = ClassView {
            traits: Ok(Traits {
                endpoints,
                ..Traits::CLOUD
            }),
            ..ClassView::test("local")
        };
        self.board.post_views(vec![Arc::new(class)]);
    }

    fn lists(&self) -> usize {
        self.lists.load(Ordering::Relaxed)
    }

    fn pods(&self) -> Option<usize> {
        let wanted = ServiceView::test("pods").load_balancer.unwrap().unwrap();
        self.endpoints.of(&id("pods"), &wanted).map(|it| it.len())
    }

    /// Exactly the Service with pods is woken.
    async fn wakes(&self) {
        assert_eq!(self.queue.depth() + self.queue.delayed(), 1);
        let work = self.queue.next().await.unwrap();
        assert_eq!(&*work.key().name, "pods");
    }

    fn metrics(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).unwrap();
        text
    }
}

#[tokio::test(start_paused = true)]
async fn slices_are_watched_while_a_class_needs_them() {
    let bed = Bed::start(false);
    bed.classes(false);
    sleep(10 * SECOND).await;
    assert_eq!((bed.lists(), bed.pods()), (0, None));
    for round in 1..=2 {
        bed.classes(true);
        sleep(SECOND).await;
        assert_eq!((bed.lists(), bed.pods()), (round, Some(1)));
        assert_eq!(bed.endpoints.known(), Known::Listed);
        bed.wakes().await;
        let compared = "ballast_watch_compared_timestamp_seconds{kind=\"endpointslices\"}";
        assert!(bed.metrics().contains(compared));
        // An edit of the class that does not matter lists nothing.
        bed.classes(true);
        sleep(SECOND).await;
        assert_eq!(bed.lists(), round);
        bed.classes(false);
        sleep(SECOND).await;
        assert_eq!((bed.endpoints.known(), bed.pods()), (Known::Soon, None));
        // A time that does not change any more would look like a watch that is not compared.
        assert!(!bed.metrics().contains(compared));
    }
}

#[tokio::test(start_paused = true)]
async fn a_missing_right_is_known_and_ends() {
    let bed = Bed::start(false);
    bed.forbids.store(true, Ordering::Relaxed);
    bed.classes(true);
    sleep(SECOND).await;
    let Known::Failing(why) = bed.endpoints.known() else {
        panic!("{:?}", bed.endpoints.known());
    };
    assert!(why.contains("no: 403"), "{why}");
    assert_eq!(bed.queue.depth(), 0);
    bed.forbids.store(false, Ordering::Relaxed);
    sleep(10 * SECOND).await;
    assert_eq!(bed.endpoints.known(), Known::Listed);
    bed.wakes().await;
}

/// A pod that waits for its gate is a target, so nothing is decided before the pods are known.
#[tokio::test(start_paused = true)]
async fn with_gates_the_pods_are_needed_too() {
    let bed = Bed::start(true);
    bed.forbids_pods.store(true, Ordering::Relaxed);
    bed.classes(true);
    sleep(SECOND).await;
    assert_eq!((bed.lists(), bed.pods()), (1, None));
    assert!(matches!(bed.endpoints.known(), Known::Failing(_)));
    assert_eq!(bed.queue.depth(), 0);
    bed.forbids_pods.store(false, Ordering::Relaxed);
    sleep(10 * SECOND).await;
    assert_eq!((bed.lists(), bed.pods()), (1, Some(1)));
    bed.wakes().await;
}
