//! What `--compare` reads from the cluster. It writes nothing.

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::{Namespace, Service};
use kube::api::ListParams;
use kube::core::PartialObjectMeta;
use kube::{Api, Client};

use super::report::Live;
use crate::cli::cluster::list;

/// The UID of the cluster, and those of all of its Services.
pub(super) async fn live(client: &Client) -> Result<Live> {
    let api: Api<Namespace> = Api::all(client.clone());
    let system = api.get("kube-system").await;
    let system =
        system.context("cannot read the namespace kube-system, whose UID is in the tags")?;
    let api: Api<PartialObjectMeta<Service>> = Api::all(client.clone());
    let services = list(&api, "Services", &ListParams::default()).await?;
    let uids = services.into_iter().filter_map(|it| it.metadata.uid);
    Ok(Live {
        cluster: system.metadata.uid.unwrap_or_default(),
        services: uids.collect(),
    })
}
