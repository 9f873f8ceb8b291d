//! Why something is not (yet) as the user wants it: one vocabulary of reasons for
//! conditions, events, metrics and logs, and the errors a provider can return.
//!
//! Messages that end up in a condition must not differ from one retry to the next:
//! request ids, counters and clocks belong into logs.

use std::fmt;
use std::time::Duration;

/// Machine-readable reasons, as they stand in a condition's `reason` and as the
/// label `reason` of metrics. A closed set: labels stay bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The Service is ours and its settings are valid.
    Accepted,
    /// Traffic can flow.
    Programmed,
    /// The work has begun and goes on.
    Provisioning,
    /// Being taken down.
    Releasing,
    /// `spec.loadBalancerClass` names one of our classes that does not exist.
    ClassNotFound,
    /// The class exists and cannot serve; its own conditions say why.
    ClassNotReady,
    /// The class is being drained: it gives no load balancers and takes back those it gave.
    Draining,
    /// The Service asks for something this provider cannot do.
    Unsupported,
    /// A value that cannot be parsed, named in the message.
    Invalid,
    /// Some port has no node port.
    NodePortsMissing,
    /// A port is taken on the load balancer or the machine that carries it.
    PortInUse,
    /// The requested address belongs to somebody else.
    AddressInUse,
    /// The range or pool has no free address.
    NoAddressAvailable,
    /// The Service keeps an address that no pool gives it (any more).
    AddressOutsidePool,
    /// The pool asked for does not exist.
    PoolNotFound,
    /// The pool asked for overlaps an older one and does not serve.
    PoolConflict,
    /// The pool asked for, or that of the address asked for, does not serve this Service.
    PoolNotPermitted,
    /// No pool serves this Service unasked.
    NoPool,
    /// The address is assigned, and no node announces it yet.
    NotAnnounced,
    /// No node is eligible as a target.
    NoEligibleNodes,
    /// A limit of the class or of the cloud is reached.
    QuotaExceeded,
    /// The cloud asks for a slower pace.
    Throttled,
    /// The cloud did not answer, or answered with an error of its own.
    CloudError,
}

/// The provider will not do this until something changes: no retry helps.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// What kind of refusal.
    pub reason: Reason,
    /// For the user: the field, its value, and what to do.
    pub message: String,
}

/// What a provider's call can end in besides success.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    /// No retry until the Service, its class or its pool changes.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Slow down; retrying after the given time does not count as a failure.
    #[error("the cloud limits the rate of calls")]
    Throttled {
        /// How long to wait.
        retry_after: Duration,
    },
    /// Retry with back-off; the message is stable over retries.
    #[error("{message}")]
    Transient {
        /// What failed, without anything that differs from retry to retry.
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
            Self::QuotaExceeded => "QuotaExceeded",
            Self::Throttled => "Throttled",
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
    /// A refusal with its reason and the sentence the user reads.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }
}

// === impl ProviderError ===

impl ProviderError {
    /// A failure worth a retry.
    pub fn transient(message: impl Into<String>) -> Self {
        Self::Transient {
            message: message.into(),
        }
    }

    /// The reason a condition shows for this error.
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Refused(refusal) => refusal.reason,
            Self::Throttled { .. } => Reason::Throttled,
            Self::Transient { .. } => Reason::CloudError,
        }
    }
}
