//! Patches of Services, classes and pools. [`Requests`] sends them; [`Writer`] sends them only
//! while this process leads, and is the only way in which the controller changes a Service, a
//! class or a pool. ([`crate::service::recorder`] writes events, and [`crate::process::lease`]
//! the Lease.)
//!
//! One method is one request with one time-out. Nothing is retried here, because a retry is a
//! choice and the queue makes it. Answers are metadata only, and only the version of it is read:
//! a whole Service per patch would cost more CPU than the patch.
//!
//! **The gap behind the fence.** The fence is asked before a request is built. The client then
//! may wait for a connection, for a few milliseconds. If the machine is suspended in that time,
//! for longer than the Lease lasts, it sends the patch when it resumes, although another process
//! leads. The client has no hook behind the wait: its layers run before a connection is chosen,
//! and it accepts no body that is made while it is sent. Two things bound the harm. Each patch
//! has the UID, so it changes no later object of the name. A patch with an address whose only
//! record is the status has the version that was decided on, so it fails if anybody wrote
//! since; so does a finalizer of a class. Any other patch shows up in the watch of the new
//! leader, which corrects it. (Calls to a cloud have the same gap; they are idempotent, and the
//! new leader's next call or comparison corrects the cloud.)

use std::time::Duration;

use ballast_crds::{AddressPool, AddressPoolStatus, LoadBalancerClass};
use http::Request;
use http::header::{ACCEPT, CONTENT_TYPE};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::{Api, Client, Resource};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::cluster::meta::{number, version};
use crate::cluster::metrics::WriteMetrics;
use crate::cluster::view::Name;
use crate::process::REQUEST_TIMEOUT;
use crate::process::causes::causes;
use crate::process::lease::Fence;

/// The field manager of every write.
pub const MANAGER: &str = "ballast";

/// How long a watch may take to deliver our own write. After this time the write is lost: an API
/// server that was restored from a backup has older objects, with lower versions.
pub const ECHO: Duration = Duration::from_secs(30);

const MERGE: &str = "application/merge-patch+json";
const STRATEGIC_MERGE: &str = "application/strategic-merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";
const METADATA_ONLY: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";

/// Writes to the API server while this process leads.
#[derive(Clone)]
pub struct Writer {
    requests: Requests,
    fence: Fence,
}

/// The requests themselves, without the leader's fence: for processes that write only their own
/// objects.
#[derive(Clone)]
pub struct Requests {
    client: Client,
    metrics: WriteMetrics,
}

/// The result of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// The object has this version now.
    Version(u64),
    /// The object no longer exists, or its name belongs to another one now.
    Gone,
}

/// A Service's UID and version from the API server, independent of the watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Current {
    /// `metadata.uid`
    pub uid: String,
    /// `metadata.resourceVersion`
    pub version: u64,
}

/// What is read of the answer to a patch.
#[derive(Deserialize)]
struct Answer {
    metadata: AnswerMetadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AnswerMetadata {
    uid: Option<String>,
    resource_version: Option<String>,
}

/// Why a write failed. A later retry can succeed.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// No answer in time; the write may have happened.
    #[error("the API server did not answer in {} s", REQUEST_TIMEOUT.as_secs())]
    Timeout,
    /// The API server rejected the write.
    #[error("{}", causes(.0))]
    Api(#[source] Box<kube::Error>),
    /// The object has changed since; its new version will be reconciled.
    #[error("the object has changed meanwhile")]
    Conflict,
    /// Somebody else keeps changing the object, so the write was not sent yet.
    #[error("somebody else keeps changing the object; it is written again in {} s", retry_after.as_secs())]
    Contested {
        /// The time after which it may be sent.
        retry_after: Duration,
    },
    /// This process no longer leads, so the write was not sent.
    #[error("this process is no longer the leader")]
    NotLeader,
    /// A defect of ours: the request could not be built.
    #[error("cannot build the request: {0}")]
    Request(#[from] http::Error),
}

// === impl Writer ===

impl Writer {
    /// A writer that sends these requests, but none after the fence closes: then another
    /// process may lead (invariant 7).
    pub const fn new(requests: Requests, fence: Fence) -> Self {
        Self { requests, fence }
    }

    /// Whether this process leads at this instant. It is checked before every effect.
    pub fn leads(&self) -> bool {
        self.fence.epoch().is_some()
    }

    /// See [`Requests::patch_service`].
    pub async fn patch_service(
        &self,
        name: &Name,
        kind: &'static str,
        body: &Value,
    ) -> Result<Written, WriteError> {
        self.fenced()?.patch_service(name, kind, body).await
    }

    /// See [`Requests::patch_pod`].
    pub async fn patch_pod(&self, name: &Name, body: &Value) -> Result<Written, WriteError> {
        self.fenced()?.patch_pod(name, body).await
    }

    /// See [`Requests::patch_class`].
    pub async fn patch_class(&self, name: &str, body: &Value) -> Result<Written, WriteError> {
        self.fenced()?.patch_class(name, body).await
    }

    /// See [`Requests::patch_class_status`].
    pub async fn patch_class_status(
        &self,
        name: &str,
        body: &Value,
    ) -> Result<Written, WriteError> {
        self.fenced()?.patch_class_status(name, body).await
    }

    /// See [`Requests::patch_pool_status`].
    pub async fn patch_pool_status(
        &self,
        name: &str,
        status: &AddressPoolStatus,
    ) -> Result<Written, WriteError> {
        self.fenced()?.patch_pool_status(name, status).await
    }

    /// See [`Requests::current`]; a read needs no fence.
    pub async fn current(&self, name: &Name) -> Result<Option<Current>, WriteError> {
        self.requests.current(name).await
    }

    fn fenced(&self) -> Result<&Requests, WriteError> {
        if self.leads() {
            Ok(&self.requests)
        } else {
            Err(WriteError::NotLeader)
        }
    }
}

// === impl Requests ===

impl Requests {
    /// Requests with this client, whose own retries must be off.
    pub const fn new(client: Client, metrics: WriteMetrics) -> Self {
        Self { client, metrics }
    }

    /// Strategic-merge patch of `services/status`. `body` contains the UID, so the patch
    /// changes this Service or none. `kind` is the label of the metric.
    pub async fn patch_service(
        &self,
        name: &Name,
        kind: &'static str,
        body: &Value,
    ) -> Result<Written, WriteError> {
        let url = Service::url_path(&(), Some(&name.namespace));
        let uri = format!("{url}/{}/status?fieldManager={MANAGER}", name.name);
        self.patch(kind, &uri, STRATEGIC_MERGE, body).await
    }

    /// Strategic-merge patch of `pods/status`. `body` contains the UID, so the patch changes this
    /// Pod or none.
    pub async fn patch_pod(&self, name: &Name, body: &Value) -> Result<Written, WriteError> {
        let url = Pod::url_path(&(), Some(&name.namespace));
        let uri = format!("{url}/{}/status?fieldManager={MANAGER}", name.name);
        self.patch("pod-gate", &uri, STRATEGIC_MERGE, body).await
    }

    /// Merge patch of a class.
    pub async fn patch_class(&self, name: &str, body: &Value) -> Result<Written, WriteError> {
        let url = LoadBalancerClass::url_path(&(), None);
        let uri = format!("{url}/{name}?fieldManager={MANAGER}");
        self.patch("class-finalizer", &uri, MERGE, body).await
    }

    /// Merge patch of a class's status.
    pub async fn patch_class_status(
        &self,
        name: &str,
        body: &Value,
    ) -> Result<Written, WriteError> {
        let url = LoadBalancerClass::url_path(&(), None);
        let uri = format!("{url}/{name}/status?fieldManager={MANAGER}");
        self.patch("class-status", &uri, MERGE, body).await
    }

    /// Merge patch of a pool's status.
    pub async fn patch_pool_status(
        &self,
        name: &str,
        status: &AddressPoolStatus,
    ) -> Result<Written, WriteError> {
        let url = AddressPool::url_path(&(), None);
        let uri = format!("{url}/{name}/status?fieldManager={MANAGER}");
        let body = json!({"status": whole(status)});
        self.patch("pool-status", &uri, MERGE, &body).await
    }

    /// Server-side apply by this manager, which takes over the fields in `body`. Creates the
    /// object if there is none; a subresource must exist. `path` is the object's. `kind` is the
    /// label of the metric.
    pub async fn apply(
        &self,
        kind: &'static str,
        path: &str,
        manager: &str,
        body: &Value,
    ) -> Result<Written, WriteError> {
        let uri = format!("{path}?fieldManager={manager}&force=true");
        self.patch(kind, &uri, APPLY, body).await
    }

    /// Like [`Self::apply`] for an object itself; returns its UID.
    pub async fn create(
        &self,
        kind: &'static str,
        path: &str,
        manager: &str,
        body: &Value,
    ) -> Result<Option<String>, WriteError> {
        let uri = format!("{path}?fieldManager={manager}&force=true");
        let answer = self.send(kind, &uri, APPLY, body).await?;
        Ok(answer.and_then(|it| it.uid))
    }

    /// Reads from the API server instead of the store, before effects that a stale store must
    /// not cause.
    pub async fn current(&self, name: &Name) -> Result<Option<Current>, WriteError> {
        let api: Api<Service> = Api::namespaced(self.client.clone(), &name.namespace);
        match tokio::time::timeout(REQUEST_TIMEOUT, api.get_metadata_opt(&name.name)).await {
            Err(_) => Err(WriteError::Timeout),
            Ok(Err(error)) => Err(WriteError::Api(Box::new(error))),
            Ok(Ok(object)) => Ok(object.map(|object| Current {
                version: version(&object.metadata),
                uid: object.metadata.uid.unwrap_or_default(),
            })),
        }
    }

    async fn patch(
        &self,
        kind: &'static str,
        uri: &str,
        content_type: &str,
        body: &Value,
    ) -> Result<Written, WriteError> {
        let answer = self.send(kind, uri, content_type, body).await?;
        Ok(answer.map_or(Written::Gone, |it| {
            Written::Version(number(it.resource_version.as_deref()))
        }))
    }

    /// `None`: the object no longer exists, or its name belongs to another one now.
    async fn send(
        &self,
        kind: &'static str,
        uri: &str,
        content_type: &str,
        body: &Value,
    ) -> Result<Option<AnswerMetadata>, WriteError> {
        let request = Request::patch(uri)
            .header(ACCEPT, METADATA_ONLY)
            .header(CONTENT_TYPE, content_type)
            .body(body.to_string().into_bytes())?;
        self.metrics.wrote(kind);
        let answer = self.client.request::<Answer>(request);
        match tokio::time::timeout(REQUEST_TIMEOUT, answer).await {
            Err(_) => Err(WriteError::Timeout),
            Ok(Ok(answer)) => Ok(Some(answer.metadata)),
            Ok(Err(kube::Error::Api(status))) if status.is_not_found() || is_other_uid(&status) => {
                Ok(None)
            }
            Ok(Err(kube::Error::Api(status))) if status.is_conflict() => Err(WriteError::Conflict),
            Ok(Err(error)) => Err(WriteError::Api(Box::new(error))),
        }
    }
}

/// A merge patch removes a field only if its value is null.
fn whole(status: &AddressPoolStatus) -> Value {
    let mut value = json!({
        "total": null, "used": null, "free": null, "ipv4": null, "ipv6": null,
        "next": null, "resting": null, "conditions": null,
    });
    if let (Some(all), Ok(Value::Object(set))) =
        (value.as_object_mut(), serde_json::to_value(status))
    {
        all.extend(set);
    }
    value
}

/// A UID is immutable. With this error the API server reports that the name belongs to another
/// object now.
fn is_other_uid(status: &kube::core::Status) -> bool {
    status.is_invalid() && status.message.contains("metadata.uid: Invalid value")
}
