//! The only interface between the controller and the implementations of load balancers. The
//! controller calls it only from the leader.
//!
//! The controller never runs two calls of [`Provider::ensure`] or [`Provider::release`] for
//! one [`Key`] at the same time: during a call it holds the Key and every other Key that the
//! Service had before. [`Provider::restore`], [`Provider::retarget`] and
//! [`Provider::inventory`] are for the whole class and may run concurrently with them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;

use crate::error::{ProviderError, Reason, Refusal};
use crate::inventory::Owned;
use crate::model::{Balancer, Ingress, Key, LoadBalancer, ServiceId, TargetSet};
use crate::place::Place;
use crate::text::bounded;

/// Implements the load balancers of one class.
///
/// Every call is idempotent and may be repeated after a crash at any point inside it. Every
/// call ends within the provider's own time-out.
#[async_trait]
pub trait Provider: Send + Sync {
    /// What the controller must know of this kind of provider. Pure and constant.
    fn traits(&self) -> Traits;

    /// The key under which work on this load balancer is serialised. Pure.
    fn key(&self, load_balancer: &LoadBalancer) -> Key;

    /// The identities that the cloud has reported, the latest last: two providers with one in
    /// common use the same cloud. A cloud gets another identity when it loses its state. Empty
    /// if it is unknown, or if there is no cloud. Makes no call.
    fn clouds(&self) -> Vec<String> {
        Vec::new()
    }

    /// The calls that were made to the cloud so far, for metrics. Makes no call.
    fn calls(&self) -> Vec<CallCount> {
        Vec::new()
    }

    /// Whether the targets of this load balancer are pods. Its Service then has a turn when they
    /// change, and [`Self::ensure`] gets them ([`crate::Member::endpoints`]). Asked only if
    /// [`Traits::endpoints`]. Pure.
    fn uses_endpoints(&self, _: &LoadBalancer) -> bool {
        false
    }

    /// Refuses what can be refused without a call to the cloud. Does not depend on the pods behind
    /// a Service. Pure.
    fn validate(&self, balancer: &Balancer) -> Result<(), Refusal>;

    /// Called once per instance, before the methods below, with everything that the Services'
    /// status publishes. The provider reads the state of its cloud here, so that unchanged
    /// load balancers cost no call later.
    async fn restore(&self, published: Vec<Published>) -> Result<(), ProviderError>;

    /// Brings one balancer to the desired state. Its lists are complete: a member that is no
    /// longer listed is removed. What the Services of [`Balancer::kept`] have stays as it is, but
    /// for nodes, and nothing is reported of them. Makes no mutating call if nothing differs.
    async fn ensure(
        &self,
        balancer: &Balancer,
    ) -> Result<Vec<(ServiceId, Observed)>, ProviderError>;

    /// Sets the nodes that are targets of these balancers, and nothing else. The latest call wins. Makes no
    /// mutating call if nothing differs. An error means that the call must be made again; a class that
    /// starts waits for that. What the cloud refuses one balancer is no error here: the provider asks for a
    /// turn of its Services ([`Self::changes`]), which reports it.
    async fn retarget(&self, targets: &TargetSet, keys: &[Key]) -> Result<(), ProviderError>;

    /// Removes what one Service has under one key, whether it is complete, incomplete or
    /// already gone. The balancer is deleted with its last member; other members, and those
    /// that are kept, are unchanged.
    async fn release(
        &self,
        id: &ServiceId,
        key: &Key,
        removal: Removal,
    ) -> Result<Released, ProviderError>;

    /// What whoever runs the cluster should know of the class as a whole, such as nodes that cannot be
    /// targets. Its condition `Ready` says it. The same until it changes. Makes no call.
    fn remarks(&self) -> Vec<String> {
        Vec::new()
    }

    /// Lists everything in the cloud that carries the mark of this cluster and class. It may be
    /// answered from what the provider knows.
    async fn inventory(&self) -> Result<Vec<Owned>, ProviderError>;

    /// The same, read from the cloud now, from all pages and with all tags. After an error nothing
    /// is known.
    async fn survey(&self) -> Result<Vec<Owned>, ProviderError> {
        self.inventory().await
    }

    /// Sets these tags (`None`: removes them) on objects that a [`Self::survey`] has shown. One that
    /// is gone or no longer ours is left out. Only [`crate::mark::NOTES`]: the rest is
    /// [`Self::ensure`]'s.
    async fn tag(
        &self,
        objects: &[Owned],
        tags: &BTreeMap<String, Option<String>>,
    ) -> Result<(), ProviderError>;

    /// Reports what changed in the cloud without the controller: became active, drifted,
    /// vanished. A change wakes the controller; the next reconcile makes up for a lost one.
    /// May be called once.
    fn changes(&self) -> BoxStream<'static, Change>;
}

/// The calls of one kind to a cloud that ended alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallCount {
    /// The action, as the cloud names it.
    pub action: &'static str,
    /// `ok`, or what kept it from succeeding.
    pub result: &'static str,
    /// How many.
    pub calls: u64,
    /// The time that they took, all of them together.
    pub took: Duration,
}

/// What `node.kubernetes.io/exclude-from-external-load-balancers` means if every node carries
/// it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exclusion {
    /// There are no targets.
    Absolute,
    /// All nodes are targets: the cluster has only control planes.
    UnlessAll,
}

/// What the controller must know of a kind of provider; each field is one trait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent traits, set by name"
)]
pub struct Traits {
    /// The provider creates objects outside the cluster that outlive the Service. The
    /// controller adds the class's finalizer before the first effect and removes it after the
    /// last.
    pub finalizer: bool,
    /// An address is published only over the version of the Service on which it was
    /// decided (`resourceVersion`), because the status is the only record of it.
    pub claim_over_version: bool,
    /// At a release, the status stops publishing the address before the provider frees it.
    /// Otherwise the provider releases first.
    pub unpublish_first: bool,
    /// The provider says which waiting Services may try again. Otherwise every release wakes
    /// all of them.
    pub wakes_waiting: bool,
    /// The controller decides nothing until it knows the labels of the Service's namespace.
    pub namespace_labels: bool,
    /// Targets carry the labels of their nodes, and a change of labels is a change of targets.
    pub node_labels: bool,
    /// What the label that excludes a node from load balancers means if every node carries it.
    pub exclusion: Exclusion,
    /// Several Services on one balancer never have a port with the same number, whatever their protocols: the cloud
    /// has one listener on a port.
    pub one_listener_per_port: bool,
    /// Addresses come from `AddressPool` objects.
    pub pools: bool,
    /// Targets can be pods, in addition to nodes or instead of them
    /// ([`Provider::uses_endpoints`]).
    pub endpoints: bool,
}

/// What a Service's status published before this process started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The Service.
    pub id: ServiceId,
    /// Its published addresses.
    pub addresses: Vec<IpAddr>,
    /// Its published hostnames.
    pub hostnames: Vec<String>,
}

/// A condition that only some providers report, beside `Accepted` and `Programmed`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtraCondition {
    /// Which condition.
    pub kind: ExtraKind,
    /// `None` if it is not known yet, or no longer known.
    pub holds: Option<bool>,
    /// `CamelCase`, for machines.
    pub reason: &'static str,
    /// For people; the same on every retry. Not used if there are `places`.
    pub message: String,
    /// Where the addresses of the Service are announced. The message of the condition names
    /// them, and an event reports each move.
    pub places: Vec<Place>,
}

/// The conditions that a provider may report in an [`ExtraCondition`]. The set is closed, so
/// that the controller can remove each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ExtraKind {
    /// `ballast.dev/Announced`: a node answers for the addresses on its network.
    Announced,
    /// `ballast.dev/TargetsHealthy`: the cloud's health checks of all targets succeed.
    TargetsHealthy,
}

/// What the provider observed of one member after [`Provider::ensure`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// What to publish; empty until there is an address.
    pub ingress: Vec<Ingress>,
    /// Whether traffic can flow.
    pub state: State,
    /// Why some settings are not accepted although the load balancer serves: it keeps what it
    /// has.
    pub objection: Option<Refusal>,
    /// Further messages for the owner of the Service; the same on every retry.
    pub remarks: Vec<String>,
    /// Conditions that only this provider reports. The controller removes one that is no
    /// longer reported.
    pub conditions: Vec<ExtraCondition>,
    /// Conditions of which the provider knows nothing new: they stay as they are.
    pub unchanged: Vec<ExtraKind>,
    /// The addresses of pods that are healthy targets for every listener that they serve. `None`
    /// if that is not known, or if the targets are nodes. The readiness gates of these pods open;
    /// so a provider with pods as targets asks for a turn ([`Change`]) when one becomes healthy
    /// while there are pods whose gate is closed ([`crate::Readiness::Gated`]).
    pub healthy: Option<BTreeSet<IpAddr>>,
}

/// Whether traffic can flow through a load balancer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Traffic can flow.
    Programmed,
    /// Traffic cannot flow yet, or no longer.
    Pending {
        /// The reason, for machines.
        reason: Reason,
        /// The reason, for people; the same on every retry.
        message: String,
        /// The time after which to check again; `None` if a [`Change`] will report it.
        retry_after: Option<Duration>,
    },
}

/// What happens to the cloud objects of a Service that is released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// They are deleted.
    Delete,
    /// They stay, tagged as retained, and do not count as orphans (`deletionPolicy: Retain`).
    Retain,
}

/// The progress of a release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Released {
    /// Nothing is left; the finalizer can be removed.
    Gone,
    /// In progress; check again after this time.
    InProgress {
        /// The time to wait; it does not count as a failure.
        retry_after: Duration,
        /// The object that is not gone yet and what keeps it, for people: the end of the sentence
        /// "it waits for". The same on every retry. `None` if there is nothing to say.
        waits_for: Option<String>,
    },
}

/// A change in the cloud that the controller did not make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The Service of the load balancer.
    pub id: ServiceId,
    /// The balancer, if it is known. After [`Cause::Appeared`] the Service is released from
    /// it, unless it asks for it.
    pub key: Option<Key>,
    /// What happened.
    pub cause: Cause,
    /// How the load balancer differs from what was made, in words for people; empty if it does not, or if that is
    /// not known.
    pub difference: String,
}

/// The cause of a [`Change`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// Provisioning ended.
    Active,
    /// The cloud has not changed. The provider asks for a turn at this time, or tries again what failed.
    Due,
    /// It differs from what was applied.
    Drifted,
    /// Another node carries it.
    Moved,
    /// It is gone.
    Gone,
    /// It carries the class's mark and the provider did not know of it: a cloud that lost its
    /// last changes may have a released load balancer again. The controller records it in the
    /// ledger and releases it if no Service of the class needs it.
    Appeared,
}

// === impl Released ===

impl Released {
    /// In progress, and nothing to say about it.
    pub const fn later(retry_after: Duration) -> Self {
        Self::InProgress {
            retry_after,
            waits_for: None,
        }
    }

    /// In progress, because of this.
    pub fn waits(retry_after: Duration, waits_for: impl AsRef<str>) -> Self {
        Self::InProgress {
            retry_after,
            waits_for: Some(bounded(waits_for.as_ref())),
        }
    }

    /// The result of two releases: gone if both are gone, otherwise the shorter time to wait, and
    /// what the first one waits for.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Gone, Self::Gone) => Self::Gone,
            (Self::Gone, waits) | (waits, Self::Gone) => waits,
            (
                Self::InProgress {
                    retry_after: one,
                    waits_for: first,
                },
                Self::InProgress {
                    retry_after: two,
                    waits_for: second,
                },
            ) => Self::InProgress {
                retry_after: one.min(two),
                waits_for: first.or(second),
            },
        }
    }
}

// === impl Traits ===

impl Traits {
    /// The traits of a provider that creates load balancers in a cloud, with nodes as targets.
    pub const CLOUD: Self = Self {
        finalizer: true,
        claim_over_version: false,
        unpublish_first: false,
        wakes_waiting: false,
        namespace_labels: false,
        node_labels: false,
        exclusion: Exclusion::Absolute,
        one_listener_per_port: false,
        pools: false,
        endpoints: false,
    };

    /// The traits of a provider whose only record is the Service's status.
    pub const STATUS: Self = Self {
        finalizer: false,
        claim_over_version: true,
        unpublish_first: true,
        wakes_waiting: true,
        namespace_labels: true,
        node_labels: false,
        exclusion: Exclusion::Absolute,
        one_listener_per_port: false,
        pools: true,
        endpoints: false,
    };
}

// === impl ExtraKind ===

impl ExtraKind {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Announced, Self::TargetsHealthy];

    /// The type of the condition on the Service.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Announced => "ballast.dev/Announced",
            Self::TargetsHealthy => "ballast.dev/TargetsHealthy",
        }
    }
}

// === impl Observed ===

impl Observed {
    /// An observation without objection, remarks and conditions.
    pub const fn new(ingress: Vec<Ingress>, state: State) -> Self {
        Self {
            ingress,
            state,
            objection: None,
            remarks: Vec::new(),
            conditions: Vec::new(),
            unchanged: Vec::new(),
            healthy: None,
        }
    }
}
