//! How commands for people reach the cluster: flags, client, lists, and errors that tell the
//! user what to do.

use std::fmt::Debug;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::ListParams;
use kube::{Api, Client};
use serde::de::DeserializeOwned;

use crate::process::access;
use crate::process::causes::answer;

/// A person is waiting, so an early error is better than a long silence.
const CONNECT: Duration = Duration::from_secs(10);
const ANSWER: Duration = Duration::from_secs(30);
const PAGE: u32 = 500;

/// Which cluster.
#[derive(Clone, Debug, Default, Args)]
pub struct ClusterArgs {
    /// Path of the kubeconfig. Default: $KUBECONFIG, ~/.kube/config, or the service account of
    /// the pod.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// Name of the kubeconfig context. Default: the current context.
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
}

/// The Lease of the controller: replicas use it to elect a leader, and `teardown` to find out
/// whether a controller is running.
#[derive(Clone, Debug, Args)]
pub struct LeaseArgs {
    /// Namespace of the controller's Lease.
    #[arg(
        long,
        env = "BALLAST_LEASE_NAMESPACE",
        default_value = "kube-system",
        value_name = "NAMESPACE"
    )]
    pub lease_namespace: String,

    /// Name of the controller's Lease.
    #[arg(
        long,
        env = "BALLAST_LEASE_NAME",
        default_value = "ballast-controller",
        value_name = "NAME"
    )]
    pub lease_name: String,
}

/// Why a list could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The cluster does not serve the kind.
    #[error("the cluster does not serve {0}")]
    NoSuchKind(&'static str),
    /// The user may not list it.
    #[error("not allowed to list {what}: {message}")]
    Forbidden {
        /// The kind, in the plural.
        what: &'static str,
        /// The API server's message.
        message: String,
    },
    /// The API server answered, but not with a list.
    #[error("cannot list {what}: {message}")]
    Refused {
        /// The kind, in the plural.
        what: &'static str,
        /// The API server's message.
        message: String,
    },
    /// The API server does not answer.
    #[error("cannot list {what}")]
    NoAnswer {
        /// The kind, in the plural.
        what: &'static str,
        /// The client's error.
        #[source]
        source: Box<kube::Error>,
    },
}

/// All objects of a kind, page by page.
pub async fn list<K>(
    api: &Api<K>,
    what: &'static str,
    params: &ListParams,
) -> Result<Vec<K>, ReadError>
where
    K: Clone + DeserializeOwned + Debug,
{
    let mut params = params.clone().limit(PAGE);
    let mut all = Vec::new();
    loop {
        let page = api
            .list(&params)
            .await
            .map_err(|error| ReadError::of(what, error))?;
        all.extend(page.items);
        match page.metadata.continue_ {
            Some(token) if !token.is_empty() => params = params.continue_token(&token),
            _ => return Ok(all),
        }
    }
}

/// The error, with a hint how to install the CRDs if one of Ballast's own kinds is missing.
pub fn helpful(error: ReadError) -> anyhow::Error {
    let missing = matches!(error, ReadError::NoSuchKind(_));
    let error = anyhow::Error::new(error);
    if missing {
        error.context(
            "Ballast is not installed in this cluster; to install its CRDs: ballast crds | kubectl apply --server-side -f -",
        )
    } else {
        error
    }
}

// === impl ClusterArgs ===

impl ClusterArgs {
    /// A client with the user's rights. It sends no request yet.
    pub fn client(&self) -> Result<Client> {
        let mut access = access::access(self.kubeconfig.as_deref(), self.context.as_deref())?;
        access.config.connect_timeout = Some(CONNECT);
        access.config.read_timeout = Some(ANSWER);
        Ok(access.client()?)
    }

    /// The name of the cluster in the kubeconfig, or the URL of its server. People type it to
    /// confirm that they mean this one.
    pub fn name(&self) -> Result<String> {
        let access = access::access(self.kubeconfig.as_deref(), self.context.as_deref())?;
        Ok(access.cluster_name())
    }
}

// === impl ReadError ===

impl ReadError {
    fn of(what: &'static str, error: kube::Error) -> Self {
        match error {
            // By status code: the answer about an unknown kind has no reason.
            kube::Error::Api(status) => match status.code {
                404 => Self::NoSuchKind(what),
                403 => Self::Forbidden {
                    what,
                    message: status.message,
                },
                _ => Self::Refused {
                    what,
                    message: answer(&status),
                },
            },
            source => Self::NoAnswer {
                what,
                source: Box::new(source),
            },
        }
    }
}

/// The UID that marks everything of this cluster.
pub async fn uid(client: &Client) -> Result<String> {
    let api: Api<Namespace> = Api::all(client.clone());
    let namespace = api.get_metadata("kube-system").await.context(
        "cannot read the namespace kube-system, whose UID marks what belongs to this cluster",
    )?;
    namespace.metadata.uid.context("kube-system has no UID")
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[test]
    fn expired_credentials_are_reported_with_their_remedy() {
        let status = Status::failure("Unauthorized", "Unauthorized").with_code(401);
        let error = ReadError::of("Services", kube::Error::Api(Box::new(status)));
        let text = error.to_string();
        assert!(text.contains("has expired"), "{text}");
    }
}
