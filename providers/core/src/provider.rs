//! The one interface between the controller and everything that can carry a load
//! balancer. The controller calls it from the leader only.
//!
//! Two calls of [`Provider::ensure`] or [`Provider::release`] for one [`Key`] never run at
//! once: the controller holds the Key meanwhile, and every other Key that the Service
//! had before. [`Provider::restore`], [`Provider::retarget`] and [`Provider::inventory`]
//! are for the whole class and may run beside them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;

use crate::error::{ProviderError, Reason, Refusal};
use crate::model::{Balancer, Ingress, Key, LoadBalancer, ServiceId, TargetSet};

/// Carries load balancers of one class.
///
/// Every call is idempotent and may be repeated after a crash at any point inside
/// it; every call ends within the provider's own time-out.
#[async_trait]
pub trait Provider: Send + Sync {
    /// What the controller must know of this kind of provider. Pure, and always the same.
    fn traits(&self) -> Traits;

    /// Under which key this load balancer's work is serialised. Pure.
    fn key(&self, load_balancer: &LoadBalancer) -> Key;

    /// Refuses what can be refused without asking anybody. Pure.
    fn validate(&self, balancer: &Balancer) -> Result<(), Refusal>;

    /// Called once per instance, before anything below, with all that the Services'
    /// status publishes. The provider reads what it must know of its cloud here, so
    /// that unchanged load balancers cost no call later.
    async fn restore(&self, recorded: Vec<Recorded>) -> Result<(), ProviderError>;

    /// Brings one balancer to the desired state; total over its members: a member
    /// that is no longer listed is removed. Without a difference it makes no
    /// mutating call.
    async fn ensure(
        &self,
        balancer: &Balancer,
    ) -> Result<Vec<(ServiceId, Observed)>, ProviderError>;

    /// Membership only: who carries the traffic of these balancers. The latest call
    /// wins. Without a difference it makes no mutating call.
    async fn retarget(&self, targets: &TargetSet, keys: &[Key]) -> Result<(), ProviderError>;

    /// Removes what one Service has under one key, whole or half-made or already gone.
    /// The balancer goes with its last member; the other members stay as they are.
    async fn release(
        &self,
        id: &ServiceId,
        key: &Key,
        removal: Removal,
    ) -> Result<Released, ProviderError>;

    /// Everything in the cloud that carries this cluster's and class's mark.
    async fn inventory(&self) -> Result<Vec<Owned>, ProviderError>;

    /// What changed by itself: became active, drifted, vanished. Wakes the loop; a
    /// lost change heals at the next reconcile. May be called once.
    fn changes(&self) -> BoxStream<'static, Change>;
}

/// What `node.kubernetes.io/exclude-from-external-load-balancers` means where every node
/// carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exclusion {
    /// There are no targets.
    Absolute,
    /// All are targets: a cluster of control planes alone has no others.
    UnlessAll,
}

/// What the controller must know of a kind of provider, one field for each trait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traits {
    /// Something of a Service exists outside the cluster and outlives the Service: the
    /// class's finalizer goes on before the first effect and comes off after the last.
    pub finalizer: bool,
    /// An address is published only over the version of the Service that it was decided
    /// on (`resourceVersion`), because the status is the only record of it.
    pub claim_over_version: bool,
    /// At a release the status stops publishing the address first, and only then does the
    /// provider free it. Otherwise the provider comes first.
    pub unpublish_first: bool,
    /// The provider itself says which waiting Services may try again. Otherwise every
    /// release wakes all of them.
    pub wakes_waiting: bool,
    /// Nothing is decided before the labels of the Service's namespace are known.
    pub namespace_labels: bool,
    /// What the label that excludes a node from load balancers means where every node
    /// carries it.
    pub exclusion: Exclusion,
    /// Targets are pods ([`TargetSet::Endpoints`]) beside, or instead of, nodes.
    pub endpoints: bool,
}

/// What a Service's status published before this process started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// The Service.
    pub id: ServiceId,
    /// Its published addresses.
    pub addresses: Vec<IpAddr>,
}

/// A condition that only some providers report, beside `Accepted` and `Programmed`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtraCondition {
    /// Which one.
    pub kind: ExtraKind,
    /// `None`: it is not known yet, or not any more.
    pub holds: Option<bool>,
    /// `CamelCase`, for machines.
    pub reason: &'static str,
    /// For people; stable over retries.
    pub message: String,
}

/// The conditions that a provider may report in an [`ExtraCondition`]. A closed set, so
/// that the controller can remove each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ExtraKind {
    /// `ballast.dev/Announced`: a node answers for the addresses on its network.
    Announced,
}

/// What the provider saw of one member after [`Provider::ensure`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// What to publish; empty until there is an address.
    pub ingress: Vec<Ingress>,
    /// Whether traffic can flow.
    pub state: State,
    /// What is wrong with it although it is served: its settings are not accepted as
    /// they are, and what it has stays.
    pub objection: Option<Refusal>,
    /// What its owner should know besides; stable over retries.
    pub remarks: Vec<String>,
    /// Conditions of this provider's own. What it reported before and does not report
    /// any more is removed.
    pub conditions: Vec<ExtraCondition>,
}

/// Whether traffic can flow through a load balancer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It can.
    Programmed,
    /// Not yet, or not any more.
    Pending {
        /// Why, for machines.
        reason: Reason,
        /// Why, for people; stable over retries.
        message: String,
        /// Look again after this time; `None`: a [`Change`] will tell.
        retry_after: Option<Duration>,
    },
}

/// What becomes of the cloud objects of a Service that goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// They are deleted.
    Delete,
    /// They stay, tagged as retained, and are no orphans (`deletionPolicy: Retain`).
    Retain,
}

/// How far a release has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Released {
    /// Nothing is left; the finalizer may go.
    Gone,
    /// Under way; ask again after this time.
    InProgress {
        /// How long to wait; does not count as a failure.
        retry_after: Duration,
    },
}

/// Lists what a cloud holds for commands that know no cluster: whatever carries the mark
/// of any cluster and any class.
#[async_trait]
pub trait Inventory: Send + Sync {
    /// Every object that carries Ballast's tags, page after page. An error means that the
    /// list is not complete, and nothing is concluded from it.
    async fn all(&self) -> Result<Vec<Owned>, ProviderError>;
}

/// One object in the cloud that carries our mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owned {
    /// The balancer it is a part of; `None` if its tags do not say.
    pub key: Option<Key>,
    /// The Services it serves, as far as its tags name them in full.
    pub services: Vec<ServiceId>,
    /// The cloud's own name for it.
    pub name: String,
    /// All of its tags.
    pub tags: BTreeMap<String, String>,
}

/// Something happened in the cloud that the controller did not do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Whose load balancer.
    pub id: ServiceId,
    /// What happened.
    pub cause: Cause,
}

/// Why a [`Change`] came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// Provisioning ended.
    Active,
    /// It differs from what was applied.
    Drifted,
    /// Another node carries it.
    Moved,
    /// It is gone.
    Gone,
    /// It carries our marks and this provider did not know of it: a cloud that lost its last
    /// changes has again what was released. The controller records it in the ledger, so that
    /// it is released if no Service of the class wants it.
    Appeared,
}

// === impl Released ===

impl Released {
    /// Of two releases: gone when both are, and looked at again as soon as one asks for it.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Gone, Self::Gone) => Self::Gone,
            (Self::Gone, waits) | (waits, Self::Gone) => waits,
            (Self::InProgress { retry_after: one }, Self::InProgress { retry_after: two }) => {
                Self::InProgress {
                    retry_after: one.min(two),
                }
            }
        }
    }
}

// === impl Traits ===

impl Traits {
    /// Of a provider that makes load balancers in a cloud, with nodes as targets.
    pub const CLOUD: Self = Self {
        finalizer: true,
        claim_over_version: false,
        unpublish_first: false,
        wakes_waiting: false,
        namespace_labels: false,
        exclusion: Exclusion::Absolute,
        endpoints: false,
    };

    /// Of a provider whose only record is the Service's status.
    pub const STATUS: Self = Self {
        finalizer: false,
        claim_over_version: true,
        unpublish_first: true,
        wakes_waiting: true,
        namespace_labels: true,
        exclusion: Exclusion::Absolute,
        endpoints: false,
    };
}

// === impl ExtraKind ===

impl ExtraKind {
    /// All of them.
    pub const ALL: [Self; 1] = [Self::Announced];

    /// The type of the condition on the Service.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Announced => "ballast.dev/Announced",
        }
    }
}

// === impl Observed ===

impl Observed {
    /// Without objection and remarks.
    pub const fn new(ingress: Vec<Ingress>, state: State) -> Self {
        Self {
            ingress,
            state,
            objection: None,
            remarks: Vec::new(),
            conditions: Vec::new(),
        }
    }
}
