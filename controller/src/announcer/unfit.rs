//! A process that cannot start says why in the Announcer object of its node, before it ends: people look
//! there, and a pod that ends again and again has only its log.
//!
//! - Everything else in the object stays: another process of the node may be at work, and its seals prove
//!   interfaces and holdings only. A process that starts writes the condition anew.
//! - What is written since is not overwritten: the version that was read must be the current one.
//! - Nothing is written if the object says so already.

use std::time::Duration;

use anyhow::{Context as _, Result};
use ballast_agent::StartError;
use ballast_agent::seal::Keyring;
use ballast_crds::{Announcer, AnnouncerStatus};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::ListParams;
use kube::{Api, Client, Resource as _};
use prometheus_client::registry::Registry;
use serde_json::json;
use tokio::time::timeout;
use tracing::warn;

use super::checks::{Finding, net_raw};
use super::lease::owner;
use super::object::body;
use super::{MANAGER, Options, sealed};
use crate::cluster::conditions::{condition, dated};
use crate::cluster::metrics::WriteMetrics;
use crate::cluster::writer::Requests;

/// How long the process waits for the API server.
const PATIENCE: Duration = Duration::from_secs(5);

/// Says why the agent does not start, if that is a matter of the node.
pub async fn tell(client: &Client, options: &Options, error: &anyhow::Error) {
    let Some(StartError::NotPermitted) = error.downcast_ref() else {
        return;
    };
    let finding = net_raw(error.to_string());
    warn!(condition = finding.kind, "{}", finding.message);
    let written = timeout(PATIENCE, write(client, options, &finding)).await;
    let written = written.context("no answer of the API server").flatten();
    if let Err(error) = written {
        warn!(
            error = format!("{error:#}"),
            "cannot write the Announcer object of this node"
        );
    }
}

async fn write(client: &Client, options: &Options, finding: &Finding) -> Result<()> {
    let requests = Requests::new(
        client.clone(),
        WriteMetrics::register(&mut Registry::default()),
    );
    let name = options.node.as_str();
    // The only way to read that an announcer has.
    let select = ListParams::default().fields(&format!("metadata.name={name}"));
    let announcers: Api<Announcer> = Api::all(client.clone());
    let found = announcers.list(&select).await?.items.into_iter();
    let mut found = found.filter(|it| it.metadata.name.as_deref() == Some(name));
    let path = format!("{}/{name}", Announcer::url_path(&(), None));
    let (uid, version, mut status) = if let Some(object) = found.next() {
        let status = object.status.unwrap_or_default();
        (
            object.metadata.uid,
            object.metadata.resource_version,
            status,
        )
    } else {
        let nodes: Api<Node> = Api::all(client.clone());
        let mut nodes = nodes.list_metadata(&select).await?.items.into_iter();
        let node = nodes.find(|it| it.metadata.name.as_deref() == Some(name));
        let node = node.and_then(|it| it.metadata.uid).context("no Node")?;
        let owner = owner(name, &node);
        let new = body(name, json!({"ownerReferences": [owner]}), None);
        let uid = requests.create("announcer", &path, MANAGER, &new).await?;
        (uid, None, AnnouncerStatus::default())
    };
    if !add(&mut status, finding, Timestamp::now()) {
        return Ok(());
    }
    if status.serial.is_none() {
        seal(&mut status, options, uid.as_deref().unwrap_or_default())?;
    }
    let metadata = version.map_or_else(|| json!({}), |it| json!({"resourceVersion": it}));
    let body = body(name, metadata, Some(&status));
    let path = format!("{path}/status");
    let write = requests.apply("announcer-status", &path, MANAGER, &body);
    write.await?;
    Ok(())
}

/// Returns whether that is news.
fn add(status: &mut AnnouncerStatus, finding: &Finding, now: Timestamp) -> bool {
    let (reason, message) = (finding.reason, finding.message.clone());
    let mut new = [condition(finding.kind, true, reason, message)];
    let now = Time(Timestamp::from_second(now.as_second()).unwrap_or(now));
    dated(&mut new, &status.conditions, &now);
    let [new] = new;
    let known = &mut status.conditions;
    match known.iter_mut().find(|it| it.type_ == new.type_) {
        Some(known) if *known == new => false,
        Some(known) => {
            *known = new;
            true
        }
        None => {
            known.push(new);
            true
        }
    }
}

/// No announcer of the node has written a status. Without a seal, those of other nodes would report this
/// one.
fn seal(status: &mut AnnouncerStatus, options: &Options, uid: &str) -> Result<()> {
    let Some(path) = &options.key_file else {
        return Ok(());
    };
    let keyring = Keyring::open_file(path)?;
    status.serial = Some(Timestamp::now().as_millisecond());
    let content = sealed::content(options.node.as_str(), uid, status);
    status.seals = sealed::written(&keyring.seal_object(&content));
    Ok(())
}
