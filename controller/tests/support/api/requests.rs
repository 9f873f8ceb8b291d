//! The supported requests, and their answers.

use axum::response::Response;
use http::Method;
use http::request::Parts;
use serde_json::{Value, json};

use super::{Api, Kind, Refused, answer, patch, status};
use crate::support::journal::{Dead, Effect, Link, Target};

const METADATA_ONLY: &str = "as=PartialObjectMetadata";
/// The UID of the `ServiceAccount` of every controller.
const ACCOUNT: &str = "uid-account";

// === impl Api ===

impl Api {
    /// Answers one request; never returns if its effect ends the instance.
    pub(super) fn answer(
        self: &std::sync::Arc<Self>,
        link: &Link,
        parts: &Parts,
        body: &[u8],
    ) -> Result<Response, Dead> {
        let path: Vec<&str> = parts.uri.path().trim_matches('/').split('/').collect();
        let body: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
        let get = parts.method == Method::GET;
        match path.as_slice() {
            ["api", "v1", "services"] if get => Ok(self.list_or_watch(link, Kind::Service, parts)),
            ["api", "v1", "nodes"] if get => Ok(self.list_or_watch(link, Kind::Node, parts)),
            ["apis", "ballast.dev", "v1alpha1", "loadbalancerclasses"] if get => {
                Ok(self.list_or_watch(link, Kind::Class, parts))
            }
            ["apis", "ballast.dev", "v1alpha1", "addresspools"] if get => {
                Ok(self.list_or_watch(link, Kind::Pool, parts))
            }
            ["apis", "ballast.dev", "v1alpha1", "announcers"] if get => {
                Ok(self.list_or_watch(link, Kind::Announcer, parts))
            }
            ["api", "v1", "namespaces"] if get => {
                Ok(self.list_or_watch(link, Kind::Namespace, parts))
            }
            ["api", "v1", "namespaces", "kube-system"] if get => Ok(reply(
                parts,
                self.found(Kind::Namespace, "kube-system", "kube-system"),
            )),
            // No teardown has recorded a drain.
            ["api", "v1", "namespaces", "kube-system", "configmaps", name] if get => {
                let message = format!("configmaps {name} not found");
                Ok(answer(404, &status(&(404, "NotFound", message))))
            }
            ["api", "v1", "namespaces", namespace, "services", name] if get => {
                let key = format!("{namespace}/{name}");
                Ok(reply(parts, self.found(Kind::Service, &key, name)))
            }
            [
                "api",
                "v1",
                "namespaces",
                namespace,
                "services",
                name,
                "status",
            ] if parts.method == Method::PATCH => {
                self.patch_service(link, parts, &format!("{namespace}/{name}"), &body)
            }
            [
                "apis",
                "ballast.dev",
                "v1alpha1",
                "loadbalancerclasses",
                name,
                rest @ ..,
            ] if parts.method == Method::PATCH && matches!(rest, [] | ["status"]) => {
                self.patch_class(link, parts, name, !rest.is_empty(), &body)
            }
            [
                "apis",
                "ballast.dev",
                "v1alpha1",
                "addresspools",
                name,
                "status",
            ] if parts.method == Method::PATCH => self.patch_pool(link, parts, name, &body),
            [
                "apis",
                "events.k8s.io",
                "v1",
                "namespaces",
                namespace,
                "events",
            ] if parts.method == Method::POST => self.post_event(link, parts, namespace, &body),
            ["apis", "authentication.k8s.io", "v1", "selfsubjectreviews"]
                if parts.method == Method::POST =>
            {
                let who = json!({"username": "system:serviceaccount:kube-system:ballast", "uid": ACCOUNT});
                let review = json!({"metadata": {}, "status": {"userInfo": who}});
                Ok(reply(parts, Ok(review)))
            }
            [
                "apis",
                "coordination.k8s.io",
                "v1",
                "namespaces",
                namespace,
                "leases",
            ] if get => Ok(self.announcer_leases(link, parts, namespace)),
            [
                "apis",
                "coordination.k8s.io",
                "v1",
                "namespaces",
                namespace,
                "leases",
                rest @ ..,
            ] => self.lease(link, parts, namespace, rest.first().copied(), &body),
            _ => Ok(self.unknown(link, parts, &body)),
        }
    }

    fn unknown(&self, link: &Link, parts: &Parts, body: &Value) -> Response {
        let what = format!("{} sent {} {} {body}", link.name(), parts.method, parts.uri);
        self.journal.violation(format!("no such request: {what}"));
        answer(405, &status(&(405, "MethodNotAllowed", what)))
    }

    fn found(&self, kind: Kind, key: &str, name: &str) -> Result<Value, Refused> {
        self.get(kind, key).ok_or_else(|| not_found(kind, name))
    }

    /// A fault that a test injected for writes.
    fn fault(&self) -> Result<(), Refused> {
        let mut state = self.lock();
        let Some((code, left)) = state.refuse.filter(|(_, left)| *left > 0) else {
            return Ok(());
        };
        state.refuse = Some((code, left - 1));
        Err((code, "InternalError", "the server is ill".to_owned()))
    }

    fn patch_service(
        &self,
        link: &Link,
        parts: &Parts,
        key: &str,
        body: &Value,
    ) -> Result<Response, Dead> {
        self.expect(link, parts, "application/strategic-merge-patch+json");
        let effect = Effect::of(Target::Service, "patch", key, body.to_string());
        let result = self.journal.effect(link, effect, || {
            self.fault()?;
            let object = self.found(
                Kind::Service,
                key,
                key.split('/').next_back().unwrap_or(key),
            )?;
            let patched = patch::service(self, link, &object, body)?;
            Ok(self.lock().put(Kind::Service, key, patched))
        })?;
        Ok(reply(parts, result))
    }

    fn patch_class(
        &self,
        link: &Link,
        parts: &Parts,
        name: &str,
        of_status: bool,
        body: &Value,
    ) -> Result<Response, Dead> {
        self.expect(link, parts, "application/merge-patch+json");
        let verb = if of_status { "patch status" } else { "patch" };
        let effect = Effect::of(Target::Class, verb, name, body.to_string());
        let result = self.journal.effect(link, effect, || {
            self.fault()?;
            let object = self.found(Kind::Class, name, name)?;
            let patched = patch::class(self, &object, of_status, body)?;
            Ok(self.lock().put(Kind::Class, name, patched))
        })?;
        Ok(reply(parts, result))
    }

    fn patch_pool(
        &self,
        link: &Link,
        parts: &Parts,
        name: &str,
        body: &Value,
    ) -> Result<Response, Dead> {
        self.expect(link, parts, "application/merge-patch+json");
        let effect = Effect::of(Target::Pool, "patch status", name, body.to_string());
        let result = self.journal.effect(link, effect, || {
            self.fault()?;
            let object = self.found(Kind::Pool, name, name)?;
            let patched = patch::pool(self, &object, body)?;
            Ok(self.lock().put(Kind::Pool, name, patched))
        })?;
        Ok(reply(parts, result))
    }

    /// Checks that all patches share.
    fn expect(&self, link: &Link, parts: &Parts, content_type: &str) {
        let header = |name: &str| {
            parts
                .headers
                .get(name)
                .and_then(|value| value.to_str().ok())
        };
        if header("content-type") != Some(content_type) {
            self.journal.violation(format!(
                "{} patches as {:?}",
                link.name(),
                header("content-type")
            ));
        }
        if parts.uri.query() != Some("fieldManager=ballast") {
            self.journal.violation(format!(
                "{} patches with {:?}",
                link.name(),
                parts.uri.query()
            ));
        }
    }

    fn post_event(
        &self,
        link: &Link,
        parts: &Parts,
        namespace: &str,
        body: &Value,
    ) -> Result<Response, Dead> {
        let regarding = &body["regarding"];
        let subject = format!(
            "{namespace}/{}",
            regarding["name"].as_str().unwrap_or_default()
        );
        let detail = format!("{} {}", body["reason"], body["note"]);
        let effect = Effect::of(Target::Event, "create", subject, detail);
        let result = self.journal.effect(link, effect, || {
            let text = |field: &str| body[field].as_str().unwrap_or_default();
            let sound = ["reason", "action", "reportingController", "reportingInstance", "eventTime"]
                .iter()
                .all(|field| !text(field).is_empty());
            // A class has no namespace; events about it are in `default`.
            let of_class = regarding["kind"] == "LoadBalancerClass" && namespace == "default";
            let whose = ["name", "uid"].iter().all(|field| regarding[field].is_string());
            let whose = whose && (of_class || regarding["namespace"] == namespace);
            let kind = ["Normal", "Warning"].contains(&text("type"));
            let short = text("note").len() <= 1024 && text("reportingInstance").len() <= 128;
            if !sound || !whose || !kind || !short {
                self.journal.violation(format!("{} sent a bad event: {body}", link.name()));
            }
            let mut state = self.lock();
            if !state.objects.contains_key(&(Kind::Namespace, namespace.to_owned())) {
                return Err(not_found(Kind::Namespace, namespace));
            }
            if state.terminating.contains(namespace) {
                let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
                return Err((403, "Forbidden", why));
            }
            state.events.push(body.clone());
            Ok(body.clone())
        })?;
        Ok(reply(parts, result))
    }

    /// Those with the label of announcers; only their metadata is wanted.
    fn announcer_leases(&self, link: &Link, parts: &Parts, namespace: &str) -> Response {
        let query = parts.uri.query().unwrap_or_default();
        let of_announcers = [
            "labelSelector=ballast.dev%2Flease%3Dannouncer",
            "resourceVersion=0",
        ];
        if !of_announcers.iter().all(|part| query.contains(part)) {
            self.journal
                .violation(format!("{} lists with {}", link.name(), parts.uri));
        }
        let prefix = format!("{namespace}/announcer-");
        let state = self.lock();
        let all = state.objects.iter();
        let all = all.filter(|((kind, key), _)| *kind == Kind::Lease && key.starts_with(&prefix));
        let items: Vec<_> = all
            .map(|(_, lease)| json!({"metadata": lease["metadata"]}))
            .collect();
        answer(
            200,
            &json!({"metadata": {"resourceVersion": state.version.to_string()}, "items": items}),
        )
    }

    fn lease(
        &self,
        link: &Link,
        parts: &Parts,
        namespace: &str,
        name: Option<&str>,
        body: &Value,
    ) -> Result<Response, Dead> {
        let method = parts.method.clone();
        let named = name
            .or(body["metadata"]["name"].as_str())
            .unwrap_or_default();
        let key = format!("{namespace}/{named}");
        let current = self.get(Kind::Lease, &key);
        if method == Method::GET && name.is_some() {
            return Ok(reply(
                parts,
                current.ok_or_else(|| not_found(Kind::Lease, named)),
            ));
        }
        let create = method == Method::POST && name.is_none();
        if !create && method != Method::PUT {
            return Ok(self.unknown(link, parts, body));
        }
        let effect = Effect::of(
            Target::Lease,
            if create { "create" } else { "replace" },
            key.clone(),
            "",
        );
        let result = self.journal.effect(link, effect, || {
            let (version, given) = match &current {
                Some(lease) => (
                    lease["metadata"]["resourceVersion"].clone(),
                    body["metadata"]["resourceVersion"].clone(),
                ),
                None if create => (Value::Null, Value::Null),
                None => return Err(not_found(Kind::Lease, named)),
            };
            if given.is_null() && !create {
                self.journal
                    .violation(format!("{} replaces a Lease without a guard", link.name()));
            }
            if create && current.is_some() {
                return Err((
                    409,
                    "AlreadyExists",
                    format!("leases.coordination.k8s.io \"{named}\" already exists"),
                ));
            }
            if version != given {
                return Err(conflict(Kind::Lease, named));
            }
            if create && body["metadata"]["ownerReferences"][0]["uid"] != ACCOUNT {
                self.journal.violation(format!(
                    "{} makes a Lease that nobody owns: {body}",
                    link.name()
                ));
            }
            let mut lease = body.clone();
            lease["kind"] = "Lease".into();
            lease["apiVersion"] = Kind::Lease.version().into();
            Ok(self.lock().put(Kind::Lease, &key, lease))
        })?;
        Ok(reply(parts, result))
    }
}

fn not_found(kind: Kind, name: &str) -> Refused {
    (
        404,
        "NotFound",
        format!("{} \"{name}\" not found", kind.plural()),
    )
}

pub(super) fn conflict(kind: Kind, name: &str) -> Refused {
    let what = format!(
        "Operation cannot be fulfilled on {} \"{name}\": the object has been modified; please apply your changes to the latest version and try again",
        kind.plural()
    );
    (409, "Conflict", what)
}

/// The answer in the requested format.
fn reply(parts: &Parts, result: Result<Value, Refused>) -> Response {
    let accept = parts
        .headers
        .get("accept")
        .and_then(|value| value.to_str().ok())
        .unwrap_or("*/*");
    match result {
        Err(refused) => answer(refused.0, &status(&refused)),
        Ok(object) if accept.contains(METADATA_ONLY) => answer(
            200,
            &json!({
                "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
                "metadata": object["metadata"],
            }),
        ),
        Ok(object) => answer(200, &object),
    }
}
