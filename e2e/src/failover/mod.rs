//! Announcers on a lab, and the failures that they must survive: one measurement of each is a
//! test, twenty are `make bench-failover`.
//!
//! Each module uses only those before it:
//!
//! 1. [`terms`]: scenes, values, goals
//! 2. [`announcers`]: the announcers as processes
//! 3. [`bed`]: the cluster: a class, Services, servers; which node answers for what
//! 4. [`watch`]: clients and a capture around one failure
//! 5. [`machines`], [`agents`], [`plans`], [`outages`], [`cost`]: the scenes
//! 6. [`run`]: their order; [`report`]: medians, worst values, goals

pub mod agents;
pub mod announcers;
pub mod bed;
pub mod cost;
pub mod machines;
pub mod outages;
pub mod plans;
pub mod report;
pub mod run;
mod terms;
pub mod watch;

pub use terms::{Goal, Limit, Sample, Scene, Values, value};
