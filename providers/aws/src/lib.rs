//! AWS: each Service gets a Network Load Balancer (NLB), or has its targets in target groups of others.
//!
//! The parts that decide make no call, read no clock (`now` is an argument) and know no Kubernetes
//! types. [`provider`] carries out what they decide, through [`client`] and [`pace`], which decide nothing.
//!
//! - [`annotations`]: every annotation that Services on AWS may have, and what Ballast does
//!   with it.
//! - [`adopt`]: which load balancer of another controller a Service may take over.
//! - [`bind`]: in which target groups of others a Service may register its targets.
//! - [`settings`]: what a class and a Service ask of an NLB, parsed and merged.
//! - `requests`: what a Service asks for in other ways, and AWS cannot do.
//! - [`desired`]: the cloud objects that one Service needs.
//! - [`observed`]: those that it has.
//! - [`target`]: one target, as AWS names it.
//! - [`forward`]: to which target groups a listener or a rule sends, and with which weights.
//! - [`nodes`]: which nodes are targets of which target group.
//! - [`pods`]: which pods are.
//! - [`call`]: one call to AWS.
//! - [`plan`]: the calls that turn one into the other.
//! - [`effect`]: what a call has changed.
//! - [`network`]: which VPC, subnets and groups of nodes are used.
//! - [`preview`]: what a Service would get, for commands that explain settings.
//! - [`policy`]: the rights that the calls need, as an IAM policy.
//! - [`rate`]: AWS's limits for calls, and which waiting call goes next.
//! - [`pace`]: its driver, which makes callers wait.
//! - [`client`]: calls to AWS.
//! - [`provider`]: connects them.

pub mod adopt;
pub mod annotations;
pub mod bind;
pub mod call;
pub mod client;
pub mod desired;
pub mod effect;
pub mod forward;
pub mod network;
pub mod nodes;
pub mod observed;
pub mod pace;
pub mod plan;
pub mod pods;
pub mod policy;
pub mod preview;
pub mod provider;
pub mod rate;
mod requests;
pub mod settings;
pub mod target;

pub use annotations::{Annotation, Support};
pub use call::{Call, Ref};
pub use client::{CallError, Cause, Client, Connection};
pub use desired::Desired;
pub use observed::Observed;
pub use pace::Pace;
pub use plan::Plan;
pub use rate::{Category, Limits, Urgency, Waiting};
pub use settings::{Scheme, Settings};
