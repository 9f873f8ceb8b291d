//! The API server: objects with versions and a history. It accepts exactly the requests that
//! Ballast makes; any other is a violation.
//!
//! The answers follow a real kube-apiserver 1.36, probed request by request: a UID in a patch
//! that is not the object's is 422 (not 409), a patch that changes nothing keeps the version,
//! new conditions go first. Where the real server is lenient (an invalid condition, an address
//! without `ipMode`), this server reports a violation.

mod patch;
mod requests;
mod trouble;
mod user;
mod watch;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tokio::time::Instant;

pub use self::user::{Port, Svc};
use super::journal::{Journal, Link, Reach};

/// 2025-06-15 in seconds; the virtual clock starts here.
const EPOCH: i64 = 1_750_000_000;

/// The kinds that the server knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Service,
    Node,
    Class,
    Pool,
    Announcer,
    Lease,
    Namespace,
}

/// The server.
pub struct Api {
    pub journal: Arc<Journal>,
    state: Mutex<State>,
    start: Instant,
    /// Called before one of our finalizers is removed: whether the cloud still has something
    /// for this UID and class.
    held: Mutex<Option<Held>>,
}

type Held = Box<dyn Fn(&str, &str) -> bool + Send>;

struct State {
    version: u64,
    objects: BTreeMap<(Kind, String), Value>,
    history: Vec<Change>,
    /// Watches from an older version are answered with 410.
    compacted: u64,
    pages: HashMap<String, Page>,
    page_limit: usize,
    events: Vec<Value>,
    terminating: BTreeSet<String>,
    /// Classes that have ever been drained.
    drained: BTreeSet<String>,
    /// UIDs of Services whose finalizers a user removed.
    tampered: BTreeSet<String>,
    /// Watches from before this generation are cut.
    generation: u64,
    frozen: bool,
    /// Watches of these kinds are open and silent.
    late: BTreeSet<Kind>,
    /// How many watches were opened, and how many of the first ones are silent.
    watches: u64,
    silent: u64,
    /// An older state of all Services and its version, which lists return instead of the
    /// present one.
    past: Option<Past>,
    uids: u64,
    node_ports: u16,
    rng: SmallRng,
    latency: u64,
    refuse: Option<(u16, usize)>,
}

/// One change, as a watch delivers it.
#[derive(Clone)]
struct Change {
    version: u64,
    kind: Kind,
    event: &'static str,
    object: Value,
}

/// An older state of all Services.
#[derive(Clone)]
pub struct Past {
    version: u64,
    services: Vec<Value>,
}

/// An older state of all objects, and its version.
#[derive(Clone)]
pub struct Backup {
    version: u64,
    objects: BTreeMap<(Kind, String), Value>,
}

/// The remaining pages of a list.
struct Page {
    version: u64,
    rest: Vec<Value>,
}

/// An answer other than success.
type Refused = (u16, &'static str, String);

// === impl Kind ===

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::Node => "Node",
            Self::Class => "LoadBalancerClass",
            Self::Pool => "AddressPool",
            Self::Announcer => "Announcer",
            Self::Lease => "Lease",
            Self::Namespace => "Namespace",
        }
    }

    const fn version(self) -> &'static str {
        match self {
            Self::Class | Self::Pool | Self::Announcer => "ballast.dev/v1alpha1",
            Self::Lease => "coordination.k8s.io/v1",
            _ => "v1",
        }
    }

    const fn plural(self) -> &'static str {
        match self {
            Self::Service => "services",
            Self::Node => "nodes",
            Self::Class => "loadbalancerclasses.ballast.dev",
            Self::Pool => "addresspools.ballast.dev",
            Self::Announcer => "announcers.ballast.dev",
            Self::Lease => "leases.coordination.k8s.io",
            Self::Namespace => "namespaces",
        }
    }
}

// === impl Api ===

impl Api {
    pub fn new(journal: &Arc<Journal>, seed: u64) -> Arc<Self> {
        let api = Arc::new(Self {
            journal: Arc::clone(journal),
            start: Instant::now(),
            held: Mutex::default(),
            state: Mutex::new(State {
                version: 100,
                objects: BTreeMap::new(),
                history: Vec::new(),
                compacted: 0,
                pages: HashMap::new(),
                page_limit: usize::MAX,
                events: Vec::new(),
                terminating: BTreeSet::new(),
                drained: BTreeSet::new(),
                tampered: BTreeSet::new(),
                generation: 0,
                frozen: false,
                late: BTreeSet::new(),
                watches: 0,
                silent: 0,
                past: None,
                uids: 0,
                node_ports: 30_000,
                rng: SmallRng::seed_from_u64(seed),
                latency: 3,
                refuse: None,
            }),
        });
        for name in ["kube-system", "shop"] {
            api.create(Kind::Namespace, name, json!({"metadata": {"name": name}}));
        }
        api
    }

    /// How the server asks the cloud (invariant 1).
    pub fn ask_cloud(&self, held: impl Fn(&str, &str) -> bool + Send + 'static) {
        *self.held.lock().unwrap() = Some(Box::new(held));
    }

    fn cloud_holds(&self, uid: &str, class: &str) -> bool {
        let held = self.held.lock().unwrap();
        held.as_ref().is_some_and(|held| held(uid, class))
    }

    /// A client of this server over this link.
    pub fn client(self: &Arc<Self>, link: &Link) -> kube::Client {
        let (api, link) = (Arc::clone(self), link.clone());
        let router: Router = Router::new().fallback(move |request: axum::extract::Request| {
            let (api, link) = (Arc::clone(&api), link.clone());
            async move { api.serve(link, request).await }
        });
        kube::Client::new(router, "default")
    }

    async fn serve(self: Arc<Self>, link: Link, request: axum::extract::Request) -> Response {
        let (parts, body) = request.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX)
            .await
            .unwrap_or_default();
        if link.reach() == Reach::NoLease && parts.uri.path().contains("/leases") {
            return pending().await;
        }
        self.way(&link).await;
        let answer = self.answer(&link, &parts, &body);
        let Ok(answer) = answer else {
            return pending().await;
        };
        self.way(&link).await;
        answer
    }

    /// The latency of a message; it waits forever if the link is cut in the meantime.
    async fn way(&self, link: &Link) {
        link.to_api().await;
        let millis = {
            let mut state = self.lock();
            let latency = state.latency;
            state.rng.random_range(0..=latency)
        };
        tokio::time::sleep(Duration::from_millis(millis)).await;
        link.to_api().await;
    }

    /// One object in its present state.
    pub fn get(&self, kind: Kind, key: &str) -> Option<Value> {
        self.lock().objects.get(&(kind, key.to_owned())).cloned()
    }

    /// All objects of a kind by key.
    pub fn all(&self, kind: Kind) -> BTreeMap<String, Value> {
        let state = self.lock();
        let all = state.objects.iter().filter(|((of, _), _)| *of == kind);
        all.map(|((_, key), object)| (key.clone(), object.clone()))
            .collect()
    }

    /// Events that were sent, as `reason namespace/name`.
    pub fn events(&self) -> Vec<String> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let state = self.lock();
        let events = state.events.iter().map(|event| {
            let regarding = &event["regarding"];
            format!(
                "{} {}/{}",
                text(&event["reason"]),
                text(&regarding["namespace"]),
                text(&regarding["name"])
            )
        });
        events.collect()
    }

    /// The virtual time.
    /// The time on the virtual clock.
    pub fn time(&self) -> jiff::Timestamp {
        self.now().parse().unwrap()
    }

    fn now(&self) -> String {
        let seconds = EPOCH + i64::try_from(self.start.elapsed().as_secs()).unwrap();
        jiff::Timestamp::from_second(seconds).unwrap().to_string()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl State ===

impl State {
    /// Stores an object, with a new version if it differs; removes it if it is being deleted
    /// and has no finalizer. Returns the stored object.
    fn put(&mut self, kind: Kind, key: &str, mut object: Value) -> Value {
        let old = self.objects.get(&(kind, key.to_owned()));
        if old == Some(&object) {
            return object;
        }
        let event = if old.is_some() { "MODIFIED" } else { "ADDED" };
        self.version += 1;
        if is_finished(&object) {
            let answer = object.clone();
            object["metadata"]["resourceVersion"] = self.version.to_string().into();
            self.objects.remove(&(kind, key.to_owned()));
            self.note(kind, "DELETED", object);
            return answer;
        }
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.objects.insert((kind, key.to_owned()), object.clone());
        self.note(kind, event, object.clone());
        object
    }

    fn note(&mut self, kind: Kind, event: &'static str, object: Value) {
        let version = self.version;
        self.history.push(Change {
            version,
            kind,
            event,
            object,
        });
    }
}

/// It is being deleted, and no finalizer is left.
fn is_finished(object: &Value) -> bool {
    let meta = &object["metadata"];
    meta.get("deletionTimestamp").is_some() && texts(&meta["finalizers"]).is_empty()
}

/// A list of strings; a missing value is an empty list.
pub fn texts(value: &Value) -> Vec<String> {
    let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
    items
        .iter()
        .filter_map(|item| item.as_str().map(str::to_owned))
        .collect()
}

fn status(refused: &Refused) -> Value {
    let (code, reason, message) = refused;
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code,
    })
}

fn answer(code: u16, body: &Value) -> Response {
    Response::builder()
        .status(code)
        .header("content-type", "application/json")
        .body(Body::from(body.to_string()))
        .unwrap()
}
