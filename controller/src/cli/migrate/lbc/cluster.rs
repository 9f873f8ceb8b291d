//! What `ballast migrate lbc` reads from the cluster: Services, and the class if the user may read it. It writes
//! nothing.

use std::collections::BTreeSet;
use std::pin::pin;
use std::time::Duration;

use anyhow::{Context as _, Result};
use ballast_crds::LoadBalancerClass;
use ballast_provider::{Endpoint, LoadBalancer};
use k8s_openapi::api::core::v1::Service;
use kube::api::ListParams;
use kube::core::DeserializeGuard;
use kube::{Api, Client};

use super::LbcArgs;
use crate::cli::cluster::{ReadError, list};
use crate::cluster::slices::{self, OF_SERVICES, SERVICE_NAME, Slice, WatchedSlice};
use crate::cluster::view::Name;
use crate::process::program::note;

/// After this time the user is told what the command does.
const PATIENCE: Duration = Duration::from_secs(2);

/// The Services that the user asks for.
pub(super) async fn services(client: &Client, args: &LbcArgs) -> Result<Vec<Service>> {
    let api: Api<Service> = match &args.namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let params = match &args.name {
        Some(name) => ListParams::default().fields(&format!("metadata.name={name}")),
        None => ListParams::default(),
    };
    match announced(list(&api, "Services", &params)).await {
        Err(error @ ReadError::Forbidden { .. }) if args.namespace.is_none() => Err(error).context(
            "cannot list the Services of all namespaces; choose a namespace with -n NAMESPACE",
        ),
        other => Ok(other?),
    }
}

/// The class, if it exists and the user may read it.
pub(super) async fn class(client: &Client, name: &str) -> Result<Option<LoadBalancerClass>> {
    let api: Api<DeserializeGuard<LoadBalancerClass>> = Api::all(client.clone());
    let params = ListParams::default().fields(&format!("metadata.name={name}"));
    match list(&api, "LoadBalancerClasses", &params).await {
        Ok(classes) => match classes.into_iter().next() {
            Some(DeserializeGuard(class)) => Ok(Some(
                class.with_context(|| format!("LoadBalancerClass {name}"))?,
            )),
            None => Ok(None),
        },
        Err(ReadError::Forbidden { .. } | ReadError::NoSuchKind(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The pods behind a Service.
pub(super) async fn pods(client: &Client, wanted: &LoadBalancer) -> Result<BTreeSet<Endpoint>> {
    let id = &wanted.id;
    let api: Api<WatchedSlice> = Api::namespaced(client.clone(), &id.namespace);
    let selector = format!("{SERVICE_NAME}={},{OF_SERVICES}", id.name);
    let params = ListParams::default().labels(&selector);
    let all = announced(list(&api, "EndpointSlices", &params)).await;
    let all = all.context("the targets of the Service are its pods")?;
    let slices = all.iter();
    let slices = slices.filter_map(|slice| Slice::of(&Name::of(&slice.metadata), slice));
    let slices: Vec<Slice> = slices.collect();
    Ok(slices::endpoints(id, wanted, &slices, &|_| false))
}

async fn announced<T>(work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    tokio::select! {
        biased;
        done = &mut work => done,
        () = tokio::time::sleep(PATIENCE) => {
            note("ballast: reading the Services");
            work.await
        }
    }
}

#[cfg(test)]
mod tests {
    use ballast_aws::annotations::PREFIX;
    use ballast_provider::Readiness;
    use serde_json::json;
    use tokio::time::{Instant, sleep};

    use super::*;
    use crate::fixtures::{client, pod_slice, reply};

    /// As the controller finds them: of this Service, and not of one with its name before it.
    #[tokio::test]
    async fn pods_are_read_for_a_service_of_the_class() {
        let service: Service = serde_json::from_value(json!({
            "metadata": {
                "name": "web", "namespace": "shop", "uid": "uid-web",
                "annotations": {format!("{PREFIX}nlb-target-type"): "ip"},
            },
            "spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]},
        }))
        .unwrap();
        let settings = ballast_aws::settings::ClassSettings::default();
        let aim = super::super::becomes::Aim {
            class: "nlb",
            settings: &settings,
            lb_class: "service.k8s.aws/nlb",
            dialect: super::super::dialect(),
        };
        let member = super::super::becomes::as_member(&service, &aim).unwrap();
        assert_eq!(&*member.load_balancer.id.uid, "uid-web");
        let api = client(|parts, _| async move {
            let uri = parts.uri.to_string();
            assert!(uri.contains("/namespaces/shop/endpointslices"), "{uri}");
            assert!(uri.contains("service-name%3Dweb"), "{uri}");
            let own = |uid: &str| json!([{"apiVersion": "v1", "kind": "Service", "name": "web", "uid": uid}]);
            let mut now = pod_slice("web", "web-1", &["10.0.0.1", "10.0.0.2"]);
            now["metadata"]["ownerReferences"] = own("uid-web");
            let mut before = pod_slice("web", "web-0", &["10.0.0.9"]);
            before["metadata"]["ownerReferences"] = own("uid-before");
            reply(
                200,
                &json!({
                    "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSliceList",
                    "metadata": {}, "items": [now, before],
                }),
            )
        });
        let found = pods(&api, &member.load_balancer).await.unwrap();
        let found: Vec<_> = found
            .iter()
            .map(|one| (one.address.to_string(), one.port, one.readiness))
            .collect();
        let ready = |address: &str| (address.to_owned(), 8080, Readiness::Ready);
        assert_eq!(found, [ready("10.0.0.1"), ready("10.0.0.2")]);
    }

    #[tokio::test(start_paused = true)]
    async fn slow_work_is_waited_for() {
        let began = Instant::now();
        let work = async {
            sleep(3 * PATIENCE).await;
            7
        };
        assert_eq!(announced(work).await, 7);
        assert_eq!(began.elapsed(), 3 * PATIENCE);
    }
}
