//! The cluster as plain values, and the writers that change it.
//!
//! [`view`] and [`translate`] parse each object once, when it arrives; [`store`] keeps the
//! views; [`ledger`] remembers what this process did; [`writer`] sends patches. Nothing here
//! decides what happens to a Service: [`crate::service::decide`] does.

pub mod conditions;
pub mod eligibility;
pub mod ledger;
pub mod meta;
pub mod metrics;
pub mod namespaces;
pub mod store;
pub mod translate;
pub mod view;
pub mod writer;
