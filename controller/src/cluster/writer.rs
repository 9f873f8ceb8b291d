//! The only writer of Services and of classes, and the one reader past the watch. Called from the leader's workers ([`crate::service::perform`]).
//!
//! One method, one request, one time-out; nothing is retried here, because a retry is
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
use crate::cluster::view::Name;
use crate::process::REQUEST_TIMEOUT;
use crate::process::causes::causes;
use crate::process::lease::Fence;

/// The field manager of every write.
pub const MANAGER: &str = "ballast";

const METADATA_ONLY: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";

/// Writes to the API server.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    fence: Fence,
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
    /// A writer that uses this client, whose own retries must be off. It writes nothing
    /// once the fence says that somebody else may lead (invariant 7).
    pub const fn new(client: Client, fence: Fence) -> Self {
        Self { client, fence }
    }

    /// Whether this process leads at this instant: asked before every effect.
    pub fn leads(&self) -> bool {
        self.fence.epoch().is_some()
    }

    /// Strategic-merge patch of `services/status`; `body` carries the UID, so it hits
    /// this Service or none.
    pub async fn patch_service(&self, name: &Name, body: &Value) -> Result<Written, WriteError> {
        let url = Service::url_path(&(), Some(&name.namespace));
        let uri = format!("{url}/{}/status?fieldManager={MANAGER}", name.name);
        self.patch(&uri, "application/strategic-merge-patch+json", body)
            .await
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

    /// Merge patch of a class, or of its status.
    pub async fn patch_class(
        &self,
        name: &str,
        status: bool,
        body: &Value,
    ) -> Result<Written, WriteError> {
        let url = LoadBalancerClass::url_path(&(), None);
        let subresource = if status { "/status" } else { "" };
        let uri = format!("{url}/{name}{subresource}?fieldManager={MANAGER}");
        self.patch(&uri, "application/merge-patch+json", body).await
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
        self.patch(&uri, "application/merge-patch+json", &body)
            .await
    }

    async fn patch(
        &self,
        uri: &str,
        content_type: &str,
        body: &Value,
    ) -> Result<Written, WriteError> {
        if !self.leads() {
            return Err(WriteError::NotLeader);
        }
        let request = Request::patch(uri)
            .header(ACCEPT, METADATA_ONLY)
            .header(CONTENT_TYPE, content_type)
            .body(body.to_string().into_bytes())?;
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
