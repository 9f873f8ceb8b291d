//! The domain model of load balancers, independent of any cloud and of Kubernetes.
//!
//! This crate owns the domain model ([`model`]), the [`Provider`] trait with its errors, the
//! marks on every cloud object ([`mark`]), what a cloud holds with them ([`inventory`]), what load
//! balancers cost ([`prices`]), where addresses
//! are announced ([`place`]), the bounds on text from outside ([`text`]), the text of errors
//! ([`causes`]), and the conformance suite (`conformance`, behind a feature) that each
//! provider runs in its own tests.
//!
//! It depends on no Kubernetes client and no cloud SDK: the controller turns Services into
//! [`model::LoadBalancer`]s, and providers turn those into cloud objects. Conditions,
//! metrics, logs and docs use the same names as this crate.

pub mod causes;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod error;
pub mod inventory;
pub mod labels;
pub mod mark;
pub mod model;
pub mod place;
pub mod prices;
pub mod provider;
pub mod text;

pub use error::{ProviderError, Reason, Refusal};
pub use inventory::{Inventory, Kind, Life, Owned};
pub use labels::Labels;
pub use mark::Mark;
pub use model::{
    Address, Affinity, Balancer, Endpoint, Family, FamilyPolicy, Ingress, IpMode, Key, Listener,
    LoadBalancer, Member, Placement, PortStatus, Protocol, Readiness, ServiceId, Settings, Target,
    TargetSet, TrafficPolicy,
};
pub use place::{Place, Spot, Why};
pub use prices::{Billed, Money, Prices};
pub use provider::{
    CallCount, Cause, Change, Exclusion, ExtraCondition, ExtraKind, Observed, Provider, Published,
    Released, Removal, State, Traits,
};
