//! Patches of Services, classes and pools. [`Requests`] sends them; [`Writer`] sends them only
//! while this process leads, and is the only way in which the controller changes a Service,
//! a class or a pool. (Events, the Lease and the token of mock clouds are written by
//! [`crate::service::recorder`], [`crate::process::lease`] and [`crate::process::identity`].)
//!
//! One method is one request with one time-out. Nothing is retried here, because a retry is
//! a choice and the queue makes it. Answers are metadata only: a whole Service per
//! patch would cost more CPU than the patch.

use ballast_crds::{AddressPool, AddressPoolStatus, LoadBalancerClass};
use http::Request;
use http::header::{ACCEPT, CONTENT_TYPE};
use k8s_openapi::api::core::v1::Service;
use kube::core::PartialObjectMeta;
use kube::{Api, Client, Resource};
use serde_json::{Value, json};

use crate::cluster::meta::version;
use crate::cluster::metrics::WriteMetrics;
use crate::cluster::view::Name;
use crate::process::REQUEST_TIMEOUT;
use crate::process::causes::causes;
use crate::process::lease::Fence;

/// The field manager of every write.
pub const MANAGER: &str = "ballast";

const MERGE: &str = "application/merge-patch+json";
const STRATEGIC_MERGE: &str = "application/strategic-merge-patch+json";
const METADATA_ONLY: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";

/// Writes to the API server while this process leads.
#[derive(Clone)]
pub struct Writer {
    requests: Requests,
    fence: Fence,
}

/// The requests themselves, without a leader's fence: for processes that write only their own
/// objects.
#[derive(Clone)]
pub struct Requests {
    client: Client,
    metrics: WriteMetrics,
}

/// What a write did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// The object has this version now.
    Version(u64),
    /// There is no such object any more, or another one by its name.
    Gone,
}

/// What the API server itself says of a Service, whatever the watch has delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Current {
    /// `metadata.uid`
    pub uid: String,
    /// `metadata.resourceVersion`
    pub version: u64,
}

/// Why a write failed. Retrying helps, later.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// No answer in time; it may have happened all the same.
    #[error("the API server did not answer in {} s", REQUEST_TIMEOUT.as_secs())]
    Timeout,
    /// It answered, and did not do it.
    #[error("{}", causes(.0))]
    Api(#[source] Box<kube::Error>),
    /// The object has changed since; its new version will be looked at.
    #[error("the object has changed meanwhile")]
    Conflict,
    /// Another process may be the leader by now.
    #[error("this process does not lead any more")]
    NotLeader,
    /// A defect of ours: the request could not even be built.
    #[error("cannot build the request: {0}")]
    Request(#[from] http::Error),
}

// === impl Writer ===

impl Writer {
    /// A writer that sends these requests, but none once the fence says that somebody else
    /// may lead (invariant 7).
    pub const fn new(requests: Requests, fence: Fence) -> Self {
        Self { requests, fence }
    }

    /// Whether this process leads at this instant: asked before every effect.
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
    /// Requests by this client, whose own retries must be off.
    pub const fn new(client: Client, metrics: WriteMetrics) -> Self {
        Self { client, metrics }
    }

    /// Strategic-merge patch of `services/status`; `body` carries the UID, so it hits
    /// this Service or none. `kind` is the label of the metric.
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

    /// Asks the API server, not the store: for effects that a stale store must not cause.
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
        let request = Request::patch(uri)
            .header(ACCEPT, METADATA_ONLY)
            .header(CONTENT_TYPE, content_type)
            .body(body.to_string().into_bytes())?;
        self.metrics.wrote(kind);
        let answer = self.client.request::<PartialObjectMeta<Service>>(request);
        match tokio::time::timeout(REQUEST_TIMEOUT, answer).await {
            Err(_) => Err(WriteError::Timeout),
            Ok(Ok(object)) => Ok(Written::Version(version(&object.metadata))),
            Ok(Err(kube::Error::Api(status))) if status.is_not_found() || is_other_uid(&status) => {
                Ok(Written::Gone)
            }
            Ok(Err(kube::Error::Api(status))) if status.is_conflict() => Err(WriteError::Conflict),
            Ok(Err(error)) => Err(WriteError::Api(Box::new(error))),
        }
    }
}

/// In a merge patch a field goes only if it says null.
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

/// A UID cannot be changed: that is how the API server says that the name belongs to
/// another object by now.
fn is_other_uid(status: &kube::core::Status) -> bool {
    status.is_invalid() && status.message.contains("metadata.uid: Invalid value")
}
