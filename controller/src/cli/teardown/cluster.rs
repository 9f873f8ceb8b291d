//! Requests of `ballast teardown` to the cluster. It reads and sets the switch, and makes no
//! choices.

use ballast_crds::{Draining, LoadBalancerClass};
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::core::DeserializeGuard;
use kube::{Api, Client};
use serde_json::json;

use super::report::Cluster;
use crate::cli::cluster::{ReadError, list};
use crate::cluster::writer::MANAGER;
use crate::process::identity::owner;

/// The result of setting a switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flipped {
    /// The switch is set as requested.
    Yes,
    /// The class no longer exists.
    Gone,
}

/// Reads classes and Services; `classes` is `None` if the cluster does not serve the kind.
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

/// The Lease, if it exists.
pub(super) async fn lease(
    client: &Client,
    (namespace, name): &(String, String),
) -> Result<Option<Lease>, Box<kube::Error>> {
    let api: Api<Lease> = Api::namespaced(client.clone(), namespace);
    Ok(api.get_opt(name).await?)
}

/// The `ServiceAccount` of this process, if it is one of this namespace.
pub(super) async fn account(client: &Client, namespace: &str) -> Option<OwnerReference> {
    let api: Api<SelfSubjectReview> = Api::all(client.clone());
    let asked = api
        .create(&PostParams::default(), &SelfSubjectReview::default())
        .await;
    let user = asked.ok()?.status?.user_info?;
    owner(&user, namespace)
}

/// Sets the drain switch of a class, or removes it (`None`).
pub(super) async fn flip(
    client: &Client,
    class: &str,
    draining: Option<&Draining>,
) -> Result<Flipped, Box<kube::Error>> {
    // A class that cannot be parsed can be drained as well.
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
