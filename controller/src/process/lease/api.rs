//! Access to the Lease of an election.
//!
//! Owns the calls and the shape of the object; only [`super::driver`] calls it. Tests implement
//! the trait with a stateful fake.
//!
//! Invariants: a Lease is replaced as a whole and only with its resource version, so what
//! others wrote to it (labels, owners) stays, and a concurrent change is a conflict.

use std::{error::Error, future::Future, time::Duration};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, OwnerReference},
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};

use super::decide::Record;
use crate::process::identity;

/// Reads and writes one Lease. Each call is a single attempt; its future may be dropped at any
/// time, and a write may then still land.
pub trait LeaseApi: Send + Sync {
    /// The Lease, if it exists.
    fn get(&self) -> impl Future<Output = Result<Option<Lease>, CallError>> + Send;

    /// Creates the Lease; [`CallError::Conflict`] if it exists. (The API chose this name.)
    fn create(&self, lease: Lease) -> impl Future<Output = Result<Lease, CallError>> + Send;

    /// Replaces the Lease; [`CallError::Conflict`] if it was deleted or no longer has the
    /// resource version of `lease`.
    fn replace(&self, lease: Lease) -> impl Future<Output = Result<Lease, CallError>> + Send;
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The Lease has changed since it was read. The write did not happen.
    #[error("the lease was changed by another")]
    Conflict,
    /// No answer in time. A write may have happened.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// The server's answer has no resource version, so it cannot guard a write.
    #[error("the lease has no resource version")]
    NoVersion,
    /// Any other error. A write may have happened.
    #[error("the call failed")]
    Failed(#[source] Box<dyn Error + Send + Sync>),
}

/// A Lease in Kubernetes.
#[derive(Clone, Debug)]
pub struct KubeLease {
    api: Api<Lease>,
    name: String,
    /// The owner of a Lease that this process creates; it is deleted with its owner.
    owner: Option<OwnerReference>,
}

/// The content of a write.
#[derive(Clone, Copy, Debug)]
pub(super) enum Claim<'a> {
    /// `identity` holds it for `duration`, in term `epoch`.
    Hold {
        identity: &'a str,
        duration: Duration,
        epoch: u32,
    },
    /// Nobody holds it.
    Release,
}

/// The part of a Lease that the rules use.
pub(super) fn record(lease: &Lease) -> Result<Record, CallError> {
    let version = lease.metadata.resource_version.clone();
    let spec = lease.spec.as_ref();
    Ok(Record {
        version: version
            .filter(|version| !version.is_empty())
            .ok_or(CallError::NoVersion)?,
        holder: spec
            .and_then(|spec| spec.holder_identity.clone())
            .filter(|holder| !holder.is_empty()),
        duration: spec
            .and_then(|spec| u64::try_from(spec.lease_duration_seconds?).ok())
            .filter(|seconds| *seconds > 0)
            .map(Duration::from_secs),
        transitions: spec
            .and_then(|spec| u32::try_from(spec.lease_transitions?).ok())
            .unwrap_or(0),
    })
}

/// `base` with the claim written into it. The times are for people and for other
/// implementations; this one compares none of them.
pub(super) fn claim(base: Option<&Lease>, claim: Claim<'_>, now: Timestamp) -> Lease {
    let mut lease = base.cloned().unwrap_or_default();
    let spec = lease.spec.get_or_insert_default();
    match claim {
        Claim::Hold {
            identity,
            duration,
            epoch,
        } => {
            if spec.holder_identity.as_deref() != Some(identity) {
                spec.acquire_time = Some(MicroTime(now));
            }
            spec.holder_identity = Some(identity.to_owned());
            spec.lease_duration_seconds = i32::try_from(duration.as_secs()).ok();
            spec.lease_transitions = Some(i32::try_from(epoch).unwrap_or(i32::MAX));
            spec.renew_time = Some(MicroTime(now));
        }
        // One second, because another implementation may not treat an empty holder as none.
        Claim::Release => {
            *spec = LeaseSpec {
                holder_identity: Some(String::new()),
                lease_duration_seconds: Some(1),
                acquire_time: Some(MicroTime(now)),
                renew_time: Some(MicroTime(now)),
                ..std::mem::take(spec)
            }
        }
    }
    lease
}

// === impl KubeLease ===

impl KubeLease {
    /// The Lease `name` in `namespace`. The client's own retries do no harm, because the
    /// election sets a time-out for each call.
    pub fn new(client: Client, namespace: &str, name: &str) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            owner: None,
        }
    }

    /// Like [`Self::new`], with an owner: of a Lease that this process creates, and of one that
    /// belongs to a previous installation. Any other Lease keeps its owners.
    #[must_use]
    pub fn owned_by(self, owner: Option<OwnerReference>) -> Self {
        Self { owner, ..self }
    }
}

impl LeaseApi for KubeLease {
    async fn get(&self) -> Result<Option<Lease>, CallError> {
        Ok(self.api.get_opt(&self.name).await?)
    }

    async fn create(&self, lease: Lease) -> Result<Lease, CallError> {
        let lease = Lease {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                owner_references: self.owner.clone().map(|owner| vec![owner]),
                ..lease.metadata
            },
            ..lease
        };
        // A Lease that stays is better than no leader.
        Ok(identity::create(&self.api, lease).await?)
    }

    async fn replace(&self, lease: Lease) -> Result<Lease, CallError> {
        if lease.metadata.resource_version.is_none() {
            return Err(CallError::NoVersion);
        }
        let params = PostParams::default();
        if let Some(adopted) = self.adopted(&lease) {
            match self.api.replace(&self.name, &params, &adopted).await {
                // In clusters where this process may not set an owner.
                Err(kube::Error::Api(status)) if status.is_forbidden() => {}
                replaced => return Ok(replaced?),
            }
        }
        Ok(self.api.replace(&self.name, &params, &lease).await?)
    }
}

impl KubeLease {
    /// The Lease with its new owner, if the present one is of a previous installation: the
    /// garbage collector would delete the Lease while it is held.
    fn adopted(&self, lease: &Lease) -> Option<Lease> {
        let owner = self.owner.as_ref()?;
        identity::is_inherited(&lease.metadata, owner).then(|| {
            let mut lease = lease.clone();
            lease.metadata.owner_references = Some(vec![owner.clone()]);
            lease
        })
    }
}

// === impl CallError ===

impl From<kube::Error> for CallError {
    fn from(error: kube::Error) -> Self {
        match error {
            // 404: only a write gets here with it (the Lease was deleted after the read, or the
            // namespace does not exist). Both mean that the last read is out of date.
            kube::Error::Api(status) if matches!(status.code, 404 | 409) => Self::Conflict,
            error => Self::Failed(error.into()),
        }
    }
}
