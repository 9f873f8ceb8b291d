//! The identity of this process at the API server: the owner of the Lease that it creates.
//!
//! The Lease belongs to the controller's `ServiceAccount`, so that the garbage collector
//! deletes it after an uninstall. Every replica asks the API server for the account before it
//! takes part in the election. Until the API server has answered, the process is not ready, and
//! the answer of the readiness probe says why.

use std::fmt::Debug;
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{SelfSubjectReview, UserInfo};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing::warn;

use crate::process::REQUEST_TIMEOUT;
use crate::process::admin::Gate;
use crate::process::causes::causes;
use crate::process::text::{LONGEST, one_line, shortened};

const RETRY: Duration = Duration::from_secs(2);
const ACCOUNT: &str = "system:serviceaccount:";

/// The owner of what this process creates in a namespace: its own `ServiceAccount`, if that is
/// in the same namespace. An owner must be in the same namespace as its objects.
pub fn owner(user: &UserInfo, namespace: &str) -> Option<OwnerReference> {
    let account = user.username.as_deref()?.strip_prefix(ACCOUNT)?;
    let (own, name) = account.split_once(':')?;
    let uid = user.uid.clone().filter(|uid| !uid.is_empty())?;
    (own == namespace).then(|| OwnerReference {
        api_version: "v1".to_owned(),
        kind: "ServiceAccount".to_owned(),
        name: name.to_owned(),
        uid,
        ..OwnerReference::default()
    })
}

/// Whether an object belongs to an earlier owner of the same name, from a previous
/// installation. The garbage collector is about to delete such an object.
pub fn is_inherited(object: &ObjectMeta, owner: &OwnerReference) -> bool {
    let owners = object.owner_references.iter().flatten();
    let mut alike = owners.filter(|it| it.kind == owner.kind && it.name == owner.name);
    alike.any(|it| it.uid != owner.uid)
}

/// The name of this machine, for names of candidates.
pub fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .ok()
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "ballast".to_owned())
}

/// Asks the API server until it answers. "No such API" counts as an answer.
pub async fn identify(client: &Client, namespace: &str, gate: &Gate) -> Option<OwnerReference> {
    let api: Api<SelfSubjectReview> = Api::all(client.clone());
    let question = SelfSubjectReview::default();
    loop {
        let why = match tokio::time::timeout(
            REQUEST_TIMEOUT,
            api.create(&PostParams::default(), &question),
        )
        .await
        {
            Ok(Ok(answer)) => {
                gate.ready();
                let user = answer.status.and_then(|status| status.user_info);
                return user.and_then(|user| owner(&user, namespace));
            }
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 403..=405) => {
                let error = shortened(&one_line(&status.message), LONGEST);
                warn!(
                    error,
                    "cannot find out the name of this process; its Lease gets no owner"
                );
                gate.ready();
                return None;
            }
            Ok(Err(error)) => causes(&error),
            Err(_) => format!(
                "the API server did not answer in {} s",
                REQUEST_TIMEOUT.as_secs()
            ),
        };
        warn!(error = why, "cannot find out the name of this process");
        gate.not_ready(&why);
        tokio::time::sleep(RETRY).await;
    }
}

/// Creates an object that may have an owner. With the admission plugin
/// `OwnerReferencesPermissionEnforcement`, only those who may delete an object may set its
/// owner; without that right, the object is created without an owner.
pub async fn create<K>(api: &Api<K>, mut object: K) -> Result<K, kube::Error>
where
    K: Resource + Clone + Debug + DeserializeOwned + Serialize,
{
    match api.create(&PostParams::default(), &object).await {
        Err(kube::Error::Api(status))
            if status.is_forbidden() && object.meta().owner_references.is_some() =>
        {
            object.meta_mut().owner_references = None;
            api.create(&PostParams::default(), &object).await
        }
        made => made,
    }
}

#[cfg(test)]
mod tests;
