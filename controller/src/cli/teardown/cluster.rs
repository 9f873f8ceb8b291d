//! The way of `ballast teardown` to the cluster: reads, flips the switch, chooses nothing.

use ballast_crds::{Draining, LoadBalancerClass};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{ListParams, Patch, PatchParams};
use kube::core::DeserializeGuard;
use kube::{Api, Client};
use serde_json::json;

use super::report::Cluster;
use crate::cli::cluster::{ReadError, list};
use crate::cluster::writer::MANAGER;

/// What became of a switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flipped {
    /// It is as it was asked for.
    Yes,
    /// The class has gone meanwhile.
    Gone,
}

/// Classes and Services; a cluster without the kind has no classes.
pub(super) async fn read(client: &Client) -> Result<Cluster, ReadError> {
    let api = Api::<DeserializeGuard<LoadBalancerClass>>::all(client.clone());
    let everything = ListParams::default();
    let classes = match list(&api, "LoadBalancerClasses", &everything).await {
        Ok(classes) => Some(classes),
        Err(ReadError::NoSuchKind(_)) => None,
        Err(error) => return Err(error),
    };
    let services = list(&Api::all(client.clone()), "Services", &everything).await?;
    Ok(Cluster { classes, services })
}

/// The Lease, if there is one.
pub(super) async fn lease(
    client: &Client,
    (namespace, name): &(String, String),
) -> Result<Option<Lease>, Box<kube::Error>> {
    let api: Api<Lease> = Api::namespaced(client.clone(), namespace);
    Ok(api.get_opt(name).await?)
}

/// Puts the switch of a class on, or takes it off (`None`).
pub(super) async fn flip(
    client: &Client,
    class: &str,
    draining: Option<&Draining>,
) -> Result<Flipped, Box<kube::Error>> {
    // A class that cannot be read can be drained all the same.
    let api: Api<DeserializeGuard<LoadBalancerClass>> = Api::all(client.clone());
    let patch = Patch::Merge(json!({"status": {"draining": draining}}));
    let params = PatchParams {
        field_manager: Some(MANAGER.to_owned() + "-teardown"),
        ..PatchParams::default()
    };
    match api.patch_status(class, &params, &patch).await {
        Ok(_) => Ok(Flipped::Yes),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(Flipped::Gone),
        Err(error) => Err(Box::new(error)),
    }
}
