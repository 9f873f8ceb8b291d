//! Access to the one Lease of an election.
//!
//! Owns the calls and the shape of the object; only [`super::driver`] calls it. The
//! trait is the edge at which the tests put a stateful fake.
//!
//! Invariants: a Lease is replaced as a whole and only with its resource version, so
//! what others put on it (labels, owners) stays, and a concurrent change is a conflict.

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

/// Reads and writes one Lease. Each call is a single attempt; its future may be dropped
/// at any time, and a write may then still land.
pub trait LeaseApi: Send + Sync {
    /// The Lease, if there is one.
    fn get(&self) -> impl Future<Output = Result<Option<Lease>, CallError>> + Send;

    /// Creates the Lease; [`CallError::Conflict`] if there is one. The name is the API's.
    fn create(&self, lease: Lease) -> impl Future<Output = Result<Lease, CallError>> + Send;

    /// Replaces the Lease; [`CallError::Conflict`] if it is gone or no longer at the
    /// resource version of `lease`.
    fn replace(&self, lease: Lease) -> impl Future<Output = Result<Lease, CallError>> + Send;
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The Lease is not what it was when it was read. The write did not happen.
    #[error("the lease was changed by another")]
    Conflict,
    /// No answer in time. A write may or may not have happened.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// The server answered with a Lease that cannot guard a write.
    #[error("the lease has no resource version")]
    NoVersion,
    /// Anything else. A write may or may not have happened.
    #[error("the call failed")]
    Failed(#[source] Box<dyn Error + Send + Sync>),
}

/// A Lease in Kubernetes.
#[derive(Clone, Debug)]
pub struct KubeLease {
    api: Api<Lease>,
    name: String,
    /// Of a Lease that this process creates; with its owner it goes.
    owner: Option<OwnerReference>,
}

/// What a write is to say.
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

/// The part of a Lease that the rules look at.
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
/// implementations to read; ours compares none of them.
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
        // One second, as an implementation may not know that an empty holder is none.
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
    /// The Lease `name` in `namespace`. The client's own retries are harmless here, as
    /// the election gives each call a time-out.
    pub fn new(client: Client, namespace: &str, name: &str) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            owner: None,
        }
    }

    /// The same, and a Lease that has to be created belongs to `owner`, as does one of a
    /// predecessor. Any other that is there keeps its owners.
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
        // Better a Lease that stays than no leader.
        Ok(identity::create(&self.api, lease).await?)
    }

    async fn replace(&self, lease: Lease) -> Result<Lease, CallError> {
        if lease.metadata.resource_version.is_none() {
            return Err(CallError::NoVersion);
        }
        let params = PostParams::default();
        if let Some(adopted) = self.adopted(&lease) {
            match self.api.replace(&self.name, &params, &adopted).await {
                // Where nobody may name an owner.
                Err(kube::Error::Api(status)) if status.is_forbidden() => {}
                replaced => return Ok(replaced?),
            }
        }
        Ok(self.api.replace(&self.name, &params, &lease).await?)
    }
}

impl KubeLease {
    /// The Lease with its owner, where that was a predecessor: it would be taken away from
    /// under its holder.
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
            // 404: only a write gets here with it (gone since it was read, or no such
            // namespace). Both mean that the last read is of no use.
            kube::Error::Api(status) if matches!(status.code, 404 | 409) => Self::Conflict,
            error => Self::Failed(error.into()),
        }
    }
}
