//! The requests of the jobs. Answers are parsed only as far as needed.

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use futures::stream::BoxStream;
use http::Request;
use http::header::{ACCEPT, CONTENT_TYPE};
use k8s_openapi::api::core::v1::Service;
use kube::Client;
use kube::core::{PartialObjectMeta, WatchEvent};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;

use crate::bench::terms::NAMESPACE;

const METADATA_ONLY: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";

/// The fields of a Service that are needed here.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Object {
    pub(super) metadata: Meta,
    #[serde(default)]
    status: Status,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Meta {
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) resource_version: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    load_balancer: LoadBalancer,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct LoadBalancer {
    ingress: Vec<IgnoredAny>,
}

#[derive(Deserialize)]
struct List {
    metadata: ListMeta,
    items: Vec<Object>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListMeta {
    resource_version: String,
}

/// An event of a watch.
#[derive(Debug)]
pub(super) enum Event {
    /// A new Service.
    Added(Object),
    /// A changed Service.
    Changed(Object),
}

impl Object {
    pub(super) fn has_address(&self) -> bool {
        !self.status.load_balancer.ingress.is_empty()
    }
}

/// All Services, and the version of the list.
pub(super) async fn list(client: &Client) -> Result<(Vec<Object>, String)> {
    let request = Request::get(path("")).body(vec![])?;
    let list: List = client.request(request).await?;
    Ok((list.items, list.metadata.resource_version))
}

/// Watches Services from a version on. The API server ends the watch of a client that does not
/// keep up; then it resumes at its last version.
pub(super) struct Watch {
    client: Client,
    version: String,
    events: BoxStream<'static, kube::Result<WatchEvent<Object>>>,
}

impl Watch {
    /// Watches from this version on.
    pub(super) async fn from(client: &Client, version: String) -> Result<Self> {
        let events = connect(client, &version).await?;
        Ok(Self {
            client: client.clone(),
            version,
            events,
        })
    }

    /// The next event.
    pub(super) async fn next(&mut self) -> Result<Event> {
        loop {
            let Some(event) = self.events.next().await else {
                self.events = connect(&self.client, &self.version).await?;
                continue;
            };
            let (object, new) = match event? {
                WatchEvent::Added(object) => (object, true),
                WatchEvent::Modified(object) | WatchEvent::Deleted(object) => (object, false),
                WatchEvent::Bookmark(_) => continue,
                WatchEvent::Error(status) => bail!("the watch failed: {}", status.message),
            };
            self.version.clone_from(&object.metadata.resource_version);
            return Ok(if new {
                Event::Added(object)
            } else {
                Event::Changed(object)
            });
        }
    }
}

async fn connect(
    client: &Client,
    version: &str,
) -> Result<BoxStream<'static, kube::Result<WatchEvent<Object>>>> {
    let path = path(&format!(
        "?watch=1&timeoutSeconds=3600&resourceVersion={version}"
    ));
    let request = Request::get(path).body(vec![])?;
    Ok(client.request_events::<Object>(request).await?.boxed())
}

/// Creates a Service like a user's.
pub(super) async fn create(client: &Client, name: &str, class: Option<&str>) -> Result<()> {
    let body = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "type": "LoadBalancer",
            "loadBalancerClass": class,
            "selector": {"app": name},
            "ports": [
                {"name": "http", "port": 80, "targetPort": 8080},
                {"name": "https", "port": 443, "targetPort": 8443},
            ],
        },
    });
    let request = Request::post(path(""))
        .header(CONTENT_TYPE, "application/json")
        .header(ACCEPT, METADATA_ONLY)
        .body(body.to_string().into_bytes())?;
    client
        .request::<PartialObjectMeta<Service>>(request)
        .await
        .with_context(|| format!("cannot create {name}"))?;
    Ok(())
}

/// Deletes a Service without finalizers.
pub(super) async fn delete(client: &Client, name: &str) -> Result<()> {
    let request = Request::delete(path(&format!("/{name}"))).body(vec![])?;
    client
        .request::<IgnoredAny>(request)
        .await
        .with_context(|| format!("cannot delete {name}"))?;
    Ok(())
}

/// The same request as Ballast's, header by header (`controller/src/cluster/writer.rs`).
pub(super) async fn patch(client: &Client, name: &str, body: Vec<u8>) -> Result<()> {
    let request = Request::patch(path(&format!("/{name}/status?fieldManager=raw")))
        .header(ACCEPT, METADATA_ONLY)
        .header(CONTENT_TYPE, "application/strategic-merge-patch+json")
        .body(body)?;
    client
        .request::<PartialObjectMeta<Service>>(request)
        .await
        .with_context(|| format!("cannot patch {name}"))?;
    Ok(())
}

fn path(rest: &str) -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/services{rest}")
}
