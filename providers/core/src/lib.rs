//! What a load balancer is, before any cloud and any Kubernetes.
//!
//! This crate owns the domain model ([`model`]), the [`Provider`] trait with its
//! errors, the marks every cloud object carries ([`mark`]), and the conformance
//! suite (`conformance`, behind a feature) that each provider runs in its own tests.
//!
//! It knows neither a Kubernetes client nor a cloud SDK: the controller turns
//! Services into [`model::LoadBalancer`]s, providers turn those into cloud objects.
//! Names here are the names in conditions, metrics, logs and docs.

#[cfg(feature = "conformance")]
pub mod conformance;
pub mod error;
pub mod mark;
pub mod model;
pub mod provider;

pub use error::{ProviderError, Reason, Refusal};
pub use mark::Mark;
pub use model::{
    Address, Affinity, Balancer, Endpoint, Family, FamilyPolicy, Ingress, IpMode, Key, Labels,
    Listener, LoadBalancer, Member, Placement, PortStatus, Protocol, ServiceId, Settings, Target,
    TargetSet, TrafficPolicy,
};
pub use provider::{
    Cause, Change, Exclusion, ExtraCondition, ExtraKind, Inventory, Observed, Owned, Provider,
    Recorded, Released, Removal, State, Traits,
};
