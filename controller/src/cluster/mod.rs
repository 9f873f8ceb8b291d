//! The cluster as plain values, and the writers that change it.
//!
//! [`view`] and [`translate`] read objects once, when they arrive; [`store`] keeps them;
//! [`ledger`] remembers what this process did; [`writer`] sends patches. Nothing here
//! chooses what happens to a Service: that is [`crate::service::decide`].

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
