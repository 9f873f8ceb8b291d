//! What `ballast migrate lbc` reads from the cluster: Services, and the class if the user may read it. It writes
//! nothing.

use std::pin::pin;
use std::time::Duration;

use anyhow::{Context as _, Result};
use ballast_crds::LoadBalancerClass;
use k8s_openapi::api::core::v1::Service;
use kube::api::ListParams;
use kube::core::DeserializeGuard;
use kube::{Api, Client};

use super::LbcArgs;
use crate::cli::cluster::{ReadError, list};
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
    use tokio::time::{Instant, sleep};

    use super::*;

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
