//! The cluster as plain values, and the writers that change it.
//!
//! [`wire`], [`view`] and [`translate`] parse each object once, when it arrives; [`store`]
//! keeps the views; [`ledger`] remembers what this process did; [`writer`] sends patches, and
//! [`contest`] slows them down if somebody else keeps undoing them. Nothing here decides what
//! happens to a Service: [`crate::service::decide`] does.

pub mod conditions;
pub mod contest;
pub mod deletion;
pub mod eligibility;
pub mod endpoints;
pub mod ledger;
pub mod managers;
pub mod meta;
pub mod metrics;
pub mod namespaces;
pub mod pods;
pub mod slices;
pub mod store;
pub mod texts;
pub mod translate;
pub mod view;
pub mod watched;
pub mod wire;
pub mod writer;
