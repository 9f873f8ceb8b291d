//! AWS: each Service gets a Network Load Balancer (NLB).
//!
//! Most of it decides: without calls, without a clock (`now` is an argument) and without Kubernetes
//! types. [`client`] and [`pace`] make calls and decide nothing. The provider that connects them is
//! not built yet; nothing outside this crate uses it.
//!
//! - [`annotations`]: every annotation that Services on AWS may have, and what Ballast does
//!   with it.
//! - [`settings`]: what a class and a Service ask of an NLB, parsed and merged.
//! - [`desired`]: the cloud objects that one Service needs.
//! - [`observed`]: those that it has.
//! - [`call`]: one call to AWS.
//! - [`plan`]: the calls that turn one into the other.
//! - [`rate`]: AWS's limits for calls, and which waiting call goes next.
//! - [`pace`]: its driver, which makes callers wait.
//! - [`client`]: calls to AWS.

pub mod annotations;
pub mod call;
pub mod client;
pub mod desired;
pub mod observed;
pub mod pace;
pub mod plan;
pub mod rate;
pub mod settings;

pub use annotations::{Annotation, Support};
pub use call::{Call, Ref};
pub use client::{CallError, Cause, Client, Connection};
pub use desired::Desired;
pub use observed::Observed;
pub use pace::Pace;
pub use plan::Plan;
pub use rate::{Category, Limits, Urgency, Waiting};
pub use settings::{Scheme, Settings};
