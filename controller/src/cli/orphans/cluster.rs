//! What `--compare` reads from the cluster. It writes nothing.

use anyhow::Result;
use k8s_openapi::api::core::v1::Service;
use kube::api::ListParams;
use kube::core::PartialObjectMeta;
use kube::{Api, Client};

use super::report::Live;
use crate::cli::cluster::{list, uid};

/// The UID of the cluster, and those of all of its Services.
pub(super) async fn live(client: &Client) -> Result<Live> {
    let cluster = uid(client).await?;
    let api: Api<PartialObjectMeta<Service>> = Api::all(client.clone());
    let services = list(&api, "Services", &ListParams::default()).await?;
    let uids = services.into_iter().filter_map(|it| it.metadata.uid);
    Ok(Live {
        cluster,
        services: uids.collect(),
    })
}
