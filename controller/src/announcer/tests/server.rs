//! An API server in memory: objects with versions, lists, watches, and server-side apply. It
//! refuses every request that the announcer has no reason to make.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::body::Body;
use axum::response::Response;
use futures::channel::mpsc::{UnboundedSender, unbounded};
use http::Method;
use http::request::Parts;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::fixtures::{client, failure, reply};

/// The server. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Server(Arc<Mutex<State>>, Arc<watch::Sender<usize>>);

#[derive(Default)]
struct State {
    version: u64,
    /// By the path of the list and the name, with the namespace before it if there is one.
    objects: BTreeMap<(String, String), Value>,
    watches: Vec<Watch>,
    /// All changes: the version, the list, the type of the event, and the object.
    history: Vec<(u64, String, &'static str, Value)>,
    writes: Vec<Write>,
    /// Every request fails.
    down: bool,
    /// Writes of this kind (path) fail.
    refused: Option<&'static str>,
    /// Watches of this kind deliver nothing.
    silent: Option<&'static str>,
    /// Requests that no announcer makes.
    violations: Vec<String>,
}

struct Watch {
    list: String,
    namespace: Option<String>,
    labels: Option<String>,
    events: UnboundedSender<Result<String, std::io::Error>>,
}

/// A write that the server accepted.
#[derive(Clone, Debug)]
pub(super) struct Write {
    /// The path after the group, such as `announcers/a/status`.
    pub(super) path: String,
    /// The body.
    pub(super) body: Value,
}

/// The parts of a path.
struct Target {
    list: String,
    namespace: Option<String>,
    name: Option<String>,
    status: bool,
}

// === impl Server ===

impl Server {
    pub(super) fn client(&self) -> kube::Client {
        let server = self.clone();
        client(move |parts, body| {
            let server = server.clone();
            async move { server.answer(&parts, body) }
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Creates or replaces an object; it keeps what it has of a status if `object` has none.
    pub(super) fn put(&self, list: &str, object: Value) {
        self.state().put(list, object);
    }

    pub(super) fn delete(&self, list: &str, key: &str) {
        let mut state = self.state();
        let object = state.objects.remove(&(list.to_owned(), key.to_owned()));
        state.version += 1;
        let mut object = object.unwrap();
        object["metadata"]["resourceVersion"] = json!(state.version.to_string());
        state.tell(list, "DELETED", &object);
    }

    pub(super) fn get(&self, list: &str, key: &str) -> Option<Value> {
        let key = (list.to_owned(), key.to_owned());
        self.state().objects.get(&key).cloned()
    }

    /// The writes so far, except those of Leases.
    pub(super) fn writes(&self) -> Vec<Write> {
        let writes = self.state().writes.clone();
        let others = writes
            .into_iter()
            .filter(|it| !it.path.starts_with("leases"));
        others.collect()
    }

    /// How often the Lease of a node was renewed.
    pub(super) fn renewals(&self) -> usize {
        let state = self.state();
        let renewals = state.writes.iter();
        renewals.filter(|it| it.path.starts_with("leases")).count()
    }

    /// Fails every request, and closes every watch; or works again.
    pub(super) fn down(&self, down: bool) {
        let mut state = self.state();
        state.down = down;
        state.watches.clear();
    }

    /// Fails writes of this kind.
    pub(super) fn refuse(&self, kind: Option<&'static str>) {
        self.state().refused = kind;
    }

    /// Holds the events of watches of this kind back, and forgets them.
    pub(super) fn silence(&self, kind: Option<&'static str>) {
        self.state().silent = kind;
    }

    pub(super) fn violations(&self) -> Vec<String> {
        self.state().violations.clone()
    }

    /// Counts all requests.
    pub(super) fn requests(&self) -> watch::Receiver<usize> {
        self.1.subscribe()
    }

    fn answer(&self, parts: &Parts, body: Value) -> Response {
        let answer = self.state().answer(parts, body);
        self.1.send_modify(|count| *count += 1);
        answer
    }
}

// === impl State ===

impl State {
    fn put(&mut self, list: &str, mut object: Value) -> Value {
        let key = (list.to_owned(), key_of(&object));
        self.version += 1;
        let before = self.objects.get(&key).cloned();
        let event = if before.is_some() {
            "MODIFIED"
        } else {
            "ADDED"
        };
        if object["status"].is_null()
            && let Some(before) = before
        {
            object["status"] = before["status"].clone();
        }
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.objects.insert(key, object.clone());
        self.tell(list, event, &object);
        object
    }

    fn tell(&mut self, list: &str, event: &'static str, object: &Value) {
        let change = (self.version, list.to_owned(), event, object.clone());
        self.history.push(change);
        let line = line(event, object);
        let silent = self.silent;
        self.watches.retain(|watch| {
            let quiet = silent.is_some_and(|kind| watch.list.ends_with(kind));
            quiet || !watch.selects(list, object) || {
                watch.events.unbounded_send(Ok(line.clone())).is_ok()
            }
        });
    }

    fn answer(&mut self, parts: &Parts, body: Value) -> Response {
        if self.down {
            return failure(503);
        }
        let query: BTreeMap<String, String> = parts
            .uri
            .query()
            .unwrap_or_default()
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(key, value)| (key.to_owned(), decoded(value)))
            .collect();
        let target = Target::of(parts.uri.path());
        if parts.method == Method::GET && target.name.is_none() {
            let labels = query.get("labelSelector").cloned();
            if query
                .get("watch")
                .is_some_and(|watch| watch == "true" || watch == "1")
            {
                let since = query["resourceVersion"].parse().unwrap();
                return self.watch(target, labels, since);
            }
            return self.list(&target, labels.as_deref());
        }
        let applies = parts.method == Method::PATCH
            && parts.headers["content-type"] == "application/apply-patch+yaml"
            && query.get("fieldManager").map(String::as_str) == Some("ballast-announcer")
            && query.get("force").map(String::as_str) == Some("true");
        match target.name.clone() {
            Some(name) if applies => self.apply(&target, &name, body),
            _ => {
                let what = format!("{} {}", parts.method, parts.uri);
                self.violations.push(what);
                failure(403)
            }
        }
    }

    fn list(&self, target: &Target, labels: Option<&str>) -> Response {
        let objects = self.objects.iter();
        let objects = objects.filter(|((list, _), object)| {
            let there = target.namespace.is_none()
                || object["metadata"]["namespace"].as_str() == target.namespace.as_deref();
            *list == target.list && there && matches(labels, object)
        });
        let items: Vec<&Value> = objects.map(|(_, object)| object).collect();
        let version = self.version.to_string();
        reply(
            200,
            &json!({"metadata": {"resourceVersion": version}, "items": items}),
        )
    }

    fn watch(&mut self, target: Target, labels: Option<String>, since: u64) -> Response {
        let (events, stream) = unbounded();
        let watch = Watch {
            list: target.list,
            namespace: target.namespace,
            labels,
            events,
        };
        let missed = self.history.iter().filter(|(version, ..)| *version > since);
        for (_, _, event, object) in missed.filter(|(_, list, _, it)| watch.selects(list, it)) {
            watch
                .events
                .unbounded_send(Ok(line(event, object)))
                .unwrap();
        }
        self.watches.push(watch);
        Response::new(Body::from_stream(stream))
    }

    fn apply(&mut self, target: &Target, name: &str, body: Value) -> Response {
        if self.refused.is_some_and(|kind| target.list.ends_with(kind)) {
            return failure(500);
        }
        let key = match &target.namespace {
            Some(namespace) => format!("{namespace}/{name}"),
            None => name.to_owned(),
        };
        let before = self.objects.get(&(target.list.clone(), key)).cloned();
        let kind = target.list.rsplit('/').next().unwrap_or_default();
        let object = match (before, target.status) {
            (None, true) => return failure(404),
            (Some(mut before), true) => {
                before["status"] = body["status"].clone();
                before
            }
            (before, false) => {
                let mut object = body.clone();
                let uid = before.map_or_else(
                    || json!(format!("uid-{}", self.version)),
                    |before| before["metadata"]["uid"].clone(),
                );
                object["metadata"]["uid"] = uid;
                object
            }
        };
        let status = if target.status { "/status" } else { "" };
        let path = format!("{kind}/{name}{status}");
        self.writes.push(Write { path, body });
        reply(200, &self.put(&target.list, object))
    }
}

// === impl Watch ===

impl Watch {
    fn selects(&self, list: &str, object: &Value) -> bool {
        let there = self.namespace.is_none()
            || object["metadata"]["namespace"].as_str() == self.namespace.as_deref();
        self.list == list && there && matches(self.labels.as_deref(), object)
    }
}

// === impl Target ===

impl Target {
    /// `/api/v1/…` or `/apis/GROUP/VERSION/…`
    fn of(path: &str) -> Self {
        let mut parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let group = if parts[0] == "api" { 2 } else { 3 };
        let mut rest = parts.split_off(group);
        let namespace = (rest[0] == "namespaces" && rest.len() > 2).then(|| rest[1].to_owned());
        if namespace.is_some() {
            rest.drain(..2);
        }
        Self {
            list: format!("/{}/{}", parts.join("/"), rest[0]),
            namespace,
            name: rest.get(1).map(|name| (*name).to_owned()),
            status: rest.get(2) == Some(&"status"),
        }
    }
}

/// A line of a watch.
fn line(event: &str, object: &Value) -> String {
    json!({"type": event, "object": object}).to_string() + "\n"
}

fn key_of(object: &Value) -> String {
    let text = |field: &str| object["metadata"][field].as_str().map(str::to_owned);
    let name = text("name").unwrap();
    text("namespace").map_or_else(|| name.clone(), |namespace| format!("{namespace}/{name}"))
}

/// `key=value`, `key` and `!key`, joined by commas.
fn matches(selector: Option<&str>, object: &Value) -> bool {
    let labels = &object["metadata"]["labels"];
    selector
        .into_iter()
        .flat_map(|text| text.split(','))
        .all(|part| {
            if let Some(key) = part.strip_prefix('!') {
                labels[key].is_null()
            } else if let Some((key, value)) = part.split_once('=') {
                labels[key] == value
            } else {
                !labels[part].is_null()
            }
        })
}

/// Percent-decoding, as far as selectors need it.
fn decoded(text: &str) -> String {
    let text = text.replace("%2F", "/").replace("%3D", "=");
    text.replace("%2C", ",")
        .replace("%21", "!")
        .replace('+', " ")
}
