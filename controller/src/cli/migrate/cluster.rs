//! Requests of `ballast migrate` to the cluster. It reads and applies, and makes no choices.

use std::fmt::Debug;

use anyhow::Result;
use ballast_crds::{AddressPool, LoadBalancerClass};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::{DeserializeGuard, GroupVersionKind};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::convert::{FROM, Migration, manifest};
use super::render::Applied;
use super::source::Source;
use super::takeover::Workloads;
use crate::cli::cluster::{ReadError, list};
use crate::process::causes::causes;

/// The field manager. A second run recognises its own fields by it.
const MANAGER: &str = "ballast-migrate";

/// The kinds of `MetalLB` that are read: kind, version, plural.
const KINDS: [(&str, &str, &str); 6] = [
    ("IPAddressPool", "v1beta1", "ipaddresspools"),
    ("L2Advertisement", "v1beta1", "l2advertisements"),
    ("BGPAdvertisement", "v1beta1", "bgpadvertisements"),
    ("BGPPeer", "v1beta2", "bgppeers"),
    ("BFDProfile", "v1beta1", "bfdprofiles"),
    ("Community", "v1beta1", "communities"),
];

/// The selectors of `MetalLB`'s pods: those of its manifests, and those of its chart.
const PODS: [&str; 2] = ["app=metallb", "app.kubernetes.io/name=metallb"];

/// `MetalLB`'s objects; none of a kind that the cluster does not serve.
pub(super) async fn metallb(client: &Client, source: &mut Source) -> Result<(), ReadError> {
    for (kind, version, plural) in KINDS {
        let gvk = GroupVersionKind::gvk("metallb.io", version, kind);
        let resource = ApiResource::from_gvk_with_plural(&gvk, plural);
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
        for object in known(list(&api, plural, &ListParams::default()).await)? {
            // The items of a list do not always name their kind.
            let mut value = serde_json::to_value(&object).unwrap_or_default();
            value["apiVersion"] = resource.api_version.clone().into();
            value["kind"] = kind.into();
            source.add(value);
        }
    }
    Ok(())
}

/// All Services.
pub(super) async fn services(client: &Client) -> Result<Vec<Service>, ReadError> {
    let api = Api::all(client.clone());
    list(&api, "Services", &ListParams::default()).await
}

/// All namespaces.
pub(super) async fn namespaces(client: &Client) -> Result<Vec<Namespace>, ReadError> {
    let api = Api::all(client.clone());
    list(&api, "Namespaces", &ListParams::default()).await
}

/// Workloads that may belong to `MetalLB`.
pub(super) async fn workloads(client: &Client) -> Result<Workloads, ReadError> {
    let everything = ListParams::default();
    let deployments: Api<Deployment> = Api::all(client.clone());
    let daemon_sets: Api<DaemonSet> = Api::all(client.clone());
    let pods: Api<Pod> = Api::all(client.clone());
    let mut workloads = Workloads {
        deployments: list(&deployments, "Deployments", &everything).await?,
        daemon_sets: list(&daemon_sets, "DaemonSets", &everything).await?,
        pods: Vec::new(),
    };
    for labels in PODS {
        let params = ListParams::default().labels(labels);
        workloads.pods.extend(list(&pods, "Pods", &params).await?);
    }
    Ok(workloads)
}

/// All classes.
pub(super) async fn classes(
    client: &Client,
) -> Result<Vec<DeserializeGuard<LoadBalancerClass>>, ReadError> {
    let api = Api::all(client.clone());
    list(&api, "LoadBalancerClasses", &ListParams::default()).await
}

/// What an earlier run created, for when `MetalLB`'s own objects were deleted with its CRDs.
pub(super) async fn made_before(client: &Client) -> Result<Migration, ReadError> {
    let params = ListParams::default().labels(&format!("{}={}", FROM.0, FROM.1));
    let pools = Api::<DeserializeGuard<AddressPool>>::all(client.clone());
    let pools = known(list(&pools, "AddressPools", &params).await)?;
    let classes = Api::<DeserializeGuard<LoadBalancerClass>>::all(client.clone());
    let classes = known(list(&classes, "LoadBalancerClasses", &params).await)?;
    let mut made = Migration::default();
    made.pools
        .extend(pools.into_iter().filter_map(|it| it.0.ok()));
    made.classes
        .extend(classes.into_iter().filter_map(|it| it.0.ok()));
    let metas = made.pools.iter_mut().map(|it| &mut it.metadata);
    for meta in metas.chain(made.classes.iter_mut().map(|it| &mut it.metadata)) {
        // Only the settings are applied again, not the metadata that the API server adds.
        *meta = ObjectMeta {
            name: meta.name.take(),
            labels: meta.labels.take(),
            ..ObjectMeta::default()
        };
    }
    Ok(made)
}

/// Applies one object. Fields of other managers stay, or the error names them as a conflict.
pub(super) async fn apply<K>(client: &Client, kind: &'static str, object: &K) -> Applied
where
    K: Resource<DynamicType = ()> + Serialize + DeserializeOwned + Clone + Debug,
    K: Resource<Scope = k8s_openapi::ClusterResourceScope>,
{
    let name = object.name_any();
    let api: Api<K> = Api::all(client.clone());
    let outcome = async {
        let before = api.get_metadata_opt(&name).await?;
        let wanted = manifest(object).map_err(kube::Error::SerdeError)?;
        let params = PatchParams::apply(MANAGER);
        let after = api.patch(&name, &params, &Patch::Apply(&wanted)).await?;
        Ok::<_, kube::Error>(match before {
            None => "created",
            Some(before) if before.metadata.resource_version == after.meta().resource_version => {
                "unchanged"
            }
            Some(_) => "configured",
        })
    }
    .await;
    let why = match &outcome {
        Ok(_) => String::new(),
        Err(error) => causes(error),
    };
    Applied {
        kind,
        name,
        outcome: outcome.unwrap_or("failed"),
        why,
    }
}

fn known<T>(listed: Result<Vec<T>, ReadError>) -> Result<Vec<T>, ReadError> {
    match listed {
        Err(ReadError::NoSuchKind(_)) => Ok(Vec::new()),
        other => other,
    }
}
