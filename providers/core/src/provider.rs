//! The one interface between the controller and everything that can carry a load
//! balancer. The controller calls it from the leader only, and never twice at once
//! for one [`Key`].

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
    /// Where it is written what a Service has.
    fn record(&self) -> Record {
        Record::Cloud
    }

    /// What the label that excludes a node from load balancers means where every node
    /// carries it.
    fn exclusion(&self) -> Exclusion {
        Exclusion::Absolute
    }

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

    /// Removes what one Service has, whole or half-made or already gone.
    async fn release(&self, id: &ServiceId, removal: Removal) -> Result<Released, ProviderError>;

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

/// Where it is written what a Service has, and with that what a release must outlive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    /// In a cloud, where it stays when the Service goes: a finalizer holds the Service
    /// until it is released.
    Cloud,
    /// In the Service's status alone: what goes with it need not be held. A claim of an
    /// address is written only over the version that it was decided on, and the provider
    /// itself says who may try again when something is freed.
    Status,
}

/// What a Service's status published before this process started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// The Service.
    pub id: ServiceId,
    /// Its published addresses.
    pub addresses: Vec<IpAddr>,
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

/// One object in the cloud that carries our mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owned {
    /// The Service it was made for, if its tags name one in full.
    pub id: Option<ServiceId>,
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
    /// It is gone.
    Gone,
    /// It carries our marks and this provider did not know of it: a cloud that lost its last
    /// changes has again what was released. The controller records it in the ledger, so that
    /// it is released if no Service of the class wants it.
    Appeared,
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
        }
    }
}
