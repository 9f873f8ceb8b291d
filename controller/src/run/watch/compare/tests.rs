use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use kube::Client;
use kube::client::Body;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};

use super::*;
use crate::cluster::metrics::WatchMetrics;
use crate::cluster::store::{Parsed, Update};
use crate::process::admin::Health;

const LISTS: u8 = 0;
const FORBIDS: u8 = 1;
const HAS_NO_NUMBERS: u8 = 2;

/// An API server whose lists depend on `mode`.
fn client(mode: &Arc<AtomicU8>) -> Client {
    let mode = Arc::clone(mode);
    let service = tower::service_fn(move |_: http::Request<Body>| {
        let page = |version: &str| {
            json!({
                "metadata": {},
                "items": [{"metadata": {"name": "a", "resourceVersion": version}}],
            })
        };
        let (code, body): (u16, Value) = match mode.load(Ordering::Relaxed) {
            FORBIDS => (
                403,
                json!({
                    "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                    "message": "nodes is forbidden", "reason": "Forbidden", "code": 403,
                }),
            ),
            HAS_NO_NUMBERS => (200, page("seven")),
            _ => (200, page("7")),
        };
        let body = Body::from(serde_json::to_vec(&body).unwrap());
        let answer = http::Response::builder().status(code).body(body);
        async move { answer }
    });
    Client::new(service, "default")
}

fn store() -> Store<String, u8> {
    let store = Store::default();
    store.apply(Update::ListBegins);
    store.apply(Update::Listed(Parsed {
        key: "a".to_owned(),
        version: 7,
        view: 0,
    }));
    store.apply(Update::ListEnds);
    store
}

/// The time of the last comparison, as a scrape shows it.
fn compared(registry: &Registry) -> i64 {
    let mut text = String::new();
    encode(&mut text, registry).unwrap();
    let name = "ballast_watch_compared_timestamp_seconds{kind=\"nodes\"} ";
    let found = text.lines().find_map(|line| line.strip_prefix(name));
    found.expect("the series exists").parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn comparisons_that_always_fail_are_visible() {
    for failure in [FORBIDS, HAS_NO_NUMBERS] {
        let mode = Arc::new(AtomicU8::new(failure));
        let mut registry = Registry::default();
        let metrics = WatchMetrics::register(&mut registry);
        let watch = Watch {
            client: client(&mode),
            kind: "nodes",
            gate: Health::default().gate("nodes"),
            metrics: metrics.clone(),
        };
        let task = tokio::spawn(async move {
            let (store, relist) = (store(), Notify::new());
            let list = List {
                url: "/api/v1/nodes",
                labels: None,
            };
            run(&watch, list, &store, &relist).await;
        });
        sleep(Duration::from_secs(1)).await;
        assert!(compared(&registry) > 0, "the start of the process");
        metrics.compared("nodes", Timestamp::UNIX_EPOCH);
        sleep(Duration::from_hours(1)).await;
        assert_eq!(compared(&registry), 0, "no comparison succeeded");
        mode.store(LISTS, Ordering::Relaxed);
        sleep(Duration::from_mins(4)).await;
        assert!(compared(&registry) > 0);
        task.abort();
    }
}

#[test]
fn an_error_is_logged_once_and_its_end_too() {
    let mut trouble = Trouble::default();
    for (error, logged) in [
        (None, false),
        (Some(ListError::Timeout), true),
        (Some(ListError::Timeout), false),
        (Some(ListError::Version), true),
        (None, true),
        (None, false),
        (Some(ListError::Timeout), true),
    ] {
        assert_eq!(trouble.note("nodes", error.as_ref()), logged, "{error:?}");
    }
}
