//! AWS: each Service gets a Network Load Balancer (NLB).
//!
//! This is the part that decides. It makes no call, reads no clock (`now` is an argument) and
//! knows no Kubernetes types. The provider that makes the calls is not built yet; nothing outside
//! this crate uses it.
//!
//! - [`annotations`]: every annotation that Services on AWS may have, and what Ballast does
//!   with it.
//! - [`settings`]: what a class and a Service ask of an NLB, parsed and merged.
//! - [`rate`]: AWS's limits for calls, and which waiting call goes next.

pub mod annotations;
pub mod rate;
pub mod settings;

pub use annotations::{Annotation, Support};
pub use rate::{Category, Limits, Urgency, Waiting};
pub use settings::{Scheme, Settings};
