//! `ballast cleanup`: deletes what a release leaves and Helm does not know of. A Job of the chart
//! runs it after an uninstall:
//!
//! - the Secrets that [`secrets`](super::secrets) created;
//! - the Leases and Announcers of the nodes. They belong to their Nodes, so nothing else deletes
//!   them while the Nodes exist, and a stale Announcer names addresses that no node announces.
//!
//! At that time the announcers have no rights any more, so none of them creates its objects again.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use ballast_crds::Announcer;
use clap::Args;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, ListParams};
use kube::{Api, Client};

use super::cluster::ClusterArgs;
use super::print;
use super::retry::retry;
use crate::announcer::lease::LABELS;

/// Shown below the flags.
pub const EXAMPLES: &str = "\
Examples:
  # Delete the shared Secrets:
  ballast cleanup --secrets ballast-mock-token,ballast-gossip-key -n ballast-system

  # Delete the Leases and Announcers of the nodes, when no announcer runs any more:
  ballast cleanup --announcers -n ballast-system

Exit status:
  0  success
  1  error
  2  invalid usage";

/// Flags of `ballast cleanup`.
#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = true, args = ["secrets", "announcers"])]
pub struct CleanupArgs {
    /// Delete these Secrets.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub secrets: Vec<String>,

    /// Delete the Leases of announcers, and all Announcers.
    #[arg(long)]
    pub announcers: bool,

    /// Namespace of the Secrets and Leases. Default: the namespace of the kubeconfig context or
    /// of the pod.
    #[arg(short, long, value_name = "NAMESPACE")]
    pub namespace: Option<String>,

    /// Which cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

/// Deletes what the flags name. What does not exist is no error.
pub async fn run(args: CleanupArgs) -> Result<ExitCode> {
    let client = args.cluster.client()?;
    let namespace = args
        .namespace
        .unwrap_or_else(|| client.default_namespace().to_owned());
    for name in &args.secrets {
        let existed = retry(async || secret(&client, &namespace, name).await).await;
        let existed =
            existed.with_context(|| format!("cannot delete the Secret {namespace}/{name}"))?;
        let outcome = if existed { "deleted" } else { "does not exist" };
        print(&format!("Secret {namespace}/{name} {outcome}\n"))?;
    }
    if args.announcers {
        retry(async || leases(&client, &namespace).await)
            .await
            .with_context(|| format!("cannot delete the Leases of announcers in {namespace}"))?;
        print(&format!("Leases of announcers in {namespace} deleted\n"))?;
        retry(async || announcers(&client).await)
            .await
            .context("cannot delete the Announcers")?;
        print("Announcers deleted\n")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether it existed.
async fn secret(client: &Client, namespace: &str, name: &str) -> kube::Result<bool> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    existed(api.delete(name, &DeleteParams::default()).await)
}

async fn leases(client: &Client, namespace: &str) -> kube::Result<bool> {
    let api: Api<Lease> = Api::namespaced(client.clone(), namespace);
    let labelled = ListParams::default().labels(LABELS);
    existed(
        api.delete_collection(&DeleteParams::default(), &labelled)
            .await,
    )
}

/// They do not exist if their CRD does not.
async fn announcers(client: &Client) -> kube::Result<bool> {
    let api: Api<Announcer> = Api::all(client.clone());
    let all = ListParams::default();
    existed(api.delete_collection(&DeleteParams::default(), &all).await)
}

fn existed<T>(answer: kube::Result<T>) -> kube::Result<bool> {
    match answer {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use serde_json::json;

    use super::*;
    use crate::fixtures::{client, failure, reply};

    /// The requests to an API server in which only the Secret `a` exists.
    fn server() -> (Client, Arc<Mutex<Vec<String>>>) {
        let requests: Arc<Mutex<Vec<String>>> = Arc::default();
        let seen = Arc::clone(&requests);
        let client = client(move |parts, _| {
            let line = format!("{} {}", parts.method, parts.uri);
            let found = line.ends_with("/secrets/a?") || line.contains("/leases?");
            seen.lock().unwrap().push(line);
            let status = json!({"kind": "Status", "status": "Success"});
            async move {
                if found {
                    reply(200, &status)
                } else {
                    failure(404)
                }
            }
        });
        (client, requests)
    }

    #[tokio::test]
    async fn only_what_is_named_is_deleted() {
        let (client, requests) = server();
        assert!(secret(&client, "shop", "a").await.unwrap());
        assert!(!secret(&client, "shop", "b").await.unwrap());
        assert!(leases(&client, "shop").await.unwrap());
        assert!(!announcers(&client).await.unwrap());
        let requests = requests.lock().unwrap().clone();
        assert_eq!(
            requests,
            [
                "DELETE /api/v1/namespaces/shop/secrets/a?",
                "DELETE /api/v1/namespaces/shop/secrets/b?",
                "DELETE /apis/coordination.k8s.io/v1/namespaces/shop/leases?&labelSelector=ballast.dev%2Flease%3Dannouncer",
                "DELETE /apis/ballast.dev/v1alpha1/announcers?",
            ]
        );
    }
}
