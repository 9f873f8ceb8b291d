//! The reasons why a load balancer is not (yet) in the desired state: one vocabulary for
//! conditions, events, metrics and logs, and the errors that a provider can return.
//!
//! A message that appears in a condition must be the same on every retry. Request IDs,
//! counters and times belong in logs. A message can contain what a cloud or a user wrote, so
//! the constructors bound it ([`crate::text`]).

use std::fmt;
use std::time::Duration;

use crate::text::bounded;

/// Machine-readable reasons. They are the `reason` of a condition and the label `reason` of
/// metrics. The set is closed, so labels are bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Ballast handles the Service, and its settings are valid.
    Accepted,
    /// Traffic can flow.
    Programmed,
    /// The work has begun and continues.
    Provisioning,
    /// The load balancer is being deleted.
    Releasing,
    /// Ballast has released everything; the Service waits for somebody else.
    Released,
    /// `spec.loadBalancerClass` names a class of Ballast that does not exist.
    ClassNotFound,
    /// The class exists and cannot serve; its conditions say why.
    ClassNotReady,
    /// The class is draining: it creates no load balancers and releases existing ones.
    Draining,
    /// The Service asks for something this provider cannot do.
    Unsupported,
    /// A value cannot be parsed; the message names it.
    Invalid,
    /// A port has no node port.
    NodePortsMissing,
    /// The port is in use on the load balancer or on the machine that carries it.
    PortInUse,
    /// Another Service or machine has the requested address.
    AddressInUse,
    /// The range or pool has no free address.
    NoAddressAvailable,
    /// The Service keeps an address that no pool provides (any more).
    AddressOutsidePool,
    /// The requested pool does not exist.
    PoolNotFound,
    /// The requested pool overlaps an older one and does not serve.
    PoolConflict,
    /// The requested pool, or the pool of the requested address, does not serve this Service.
    PoolNotPermitted,
    /// No pool serves this Service without being requested.
    NoPool,
    /// The address is assigned, and no node announces it yet.
    NotAnnounced,
    /// No node is eligible as a target.
    NoEligibleNodes,
    /// The targets are pods, and none is ready.
    NoEndpoints,
    /// A limit of the class or of the cloud is reached.
    QuotaExceeded,
    /// The cloud limits the rate of calls.
    Throttled,
    /// The cloud does not permit a call: its credentials lack a right or are not valid, or somebody
    /// has protected the object.
    AccessDenied,
    /// A copy of this cluster uses the same load balancers: nothing is deleted.
    IdentityShared,
    /// The cloud did not answer, or it reported an internal error.
    CloudError,
}

/// The provider refuses the request. A retry does not help until something changes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The reason in conditions and metrics.
    pub reason: Reason,
    /// For people: the field, its value, and what to do.
    pub message: String,
}

/// The errors of a provider's calls.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    /// No retry until the Service, its class or its pool changes.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The cloud limits the rate of calls. Retrying after the given time does not count as a
    /// failure.
    #[error("the cloud limits the rate of calls")]
    Throttled {
        /// How long to wait.
        retry_after: Duration,
    },
    /// Retry with back-off; the message is stable over retries.
    #[error("{message}")]
    Transient {
        /// The reason in conditions and metrics.
        reason: Reason,
        /// What failed, without anything that differs between retries.
        message: String,
    },
}

// === impl Reason ===

impl Reason {
    /// The spelling in conditions, metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::Programmed => "Programmed",
            Self::Provisioning => "Provisioning",
            Self::Releasing => "Releasing",
            Self::Released => "Released",
            Self::ClassNotFound => "ClassNotFound",
            Self::ClassNotReady => "ClassNotReady",
            Self::Draining => "Draining",
            Self::Unsupported => "Unsupported",
            Self::Invalid => "Invalid",
            Self::NodePortsMissing => "NodePortsMissing",
            Self::PortInUse => "PortInUse",
            Self::AddressInUse => "AddressInUse",
            Self::NoAddressAvailable => "NoAddressAvailable",
            Self::AddressOutsidePool => "AddressOutsidePool",
            Self::PoolNotFound => "PoolNotFound",
            Self::PoolConflict => "PoolConflict",
            Self::PoolNotPermitted => "PoolNotPermitted",
            Self::NoPool => "NoPool",
            Self::NotAnnounced => "NotAnnounced",
            Self::NoEligibleNodes => "NoEligibleNodes",
            Self::NoEndpoints => "NoEndpoints",
            Self::QuotaExceeded => "QuotaExceeded",
            Self::Throttled => "Throttled",
            Self::AccessDenied => "AccessDenied",
            Self::IdentityShared => "IdentityShared",
            Self::CloudError => "CloudError",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl Refusal ===

impl Refusal {
    /// A refusal with its reason and the message for the user.
    pub fn new(reason: Reason, message: impl AsRef<str>) -> Self {
        Self {
            reason,
            message: bounded(message.as_ref()),
        }
    }
}

// === impl ProviderError ===

impl ProviderError {
    /// A failure of the cloud that a retry may fix.
    pub fn transient(message: impl AsRef<str>) -> Self {
        Self::failed(Reason::CloudError, message)
    }

    /// A failure that a retry may fix, with its reason.
    pub fn failed(reason: Reason, message: impl AsRef<str>) -> Self {
        Self::Transient {
            reason,
            message: bounded(message.as_ref()),
        }
    }

    /// The reason a condition shows for this error.
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Refused(refusal) => refusal.reason,
            Self::Throttled { .. } => Reason::Throttled,
            Self::Transient { reason, .. } => *reason,
        }
    }
}
