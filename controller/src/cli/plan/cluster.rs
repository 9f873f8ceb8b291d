//! What `ballast plan` reads from the cluster. It writes nothing.

use anyhow::{Context as _, Result};
use ballast_crds::LoadBalancerClass;
use k8s_openapi::api::core::v1::{Node, Service};
use kube::api::ListParams;
use kube::core::DeserializeGuard;
use kube::{Api, Client};

use crate::cli::cluster::{ReadError, helpful, list};
use crate::cluster::view::NodeView;

/// What exists.
#[derive(Debug, Default)]
pub struct Cluster {
    /// All classes.
    pub classes: Vec<DeserializeGuard<LoadBalancerClass>>,
    /// All Services.
    pub services: Vec<Service>,
    /// All nodes; `None` if they are not known.
    pub nodes: Option<Vec<NodeView>>,
}

/// Reads the cluster.
pub(super) async fn read(client: &Client, notes: &mut Vec<String>) -> Result<Cluster> {
    let everything = ListParams::default();
    let api = Api::<DeserializeGuard<LoadBalancerClass>>::all(client.clone());
    let classes = list(&api, "LoadBalancerClasses", &everything).await;
    let classes = classes.map_err(helpful)?;
    let services = list(
        &Api::<Service>::all(client.clone()),
        "Services",
        &everything,
    )
    .await;
    let services = services.context(
        "the plan depends on all Services; without the right to list them, use --offline",
    )?;
    let hosts = list(&Api::<Node>::all(client.clone()), "Nodes", &everything).await;
    let hosts = match hosts {
        Ok(hosts) => Some(hosts.iter().map(NodeView::of).collect()),
        Err(error @ ReadError::Forbidden { .. }) => {
            notes.push(format!("{error}: one node is assumed"));
            None
        }
        Err(error) => return Err(error.into()),
    };
    Ok(Cluster {
        classes,
        services,
        nodes: hosts,
    })
}
