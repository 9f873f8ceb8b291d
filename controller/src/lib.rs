//! The controller of Ballast: the reconcile loop and everything it is made of.
//!
//! The path of one Service: [`watch`] fills [`store`]s with [`view`]s; [`decide`] looks
//! at them and says one step; [`perform`] does it through a provider and [`writer`].
//! [`run`] wires it together; `docs/architecture.md` has the picture.

pub mod admin;
pub mod args;
pub mod backoff;
pub mod board;
pub mod census;
pub mod class;
pub mod class_status;
pub mod cli;
pub mod conditions;
pub mod contender;
pub mod decide;
pub mod eligibility;
pub mod factory;
#[cfg(test)]
mod fixtures;
pub mod group;
pub mod identity;
pub mod instance;
pub mod lease;
pub mod ledger;
pub mod metrics;
pub mod namespaces;
pub mod perform;
pub mod pools;
pub mod queue;
pub mod reconcile;
pub mod recorder;
pub mod run;
pub mod selectors;
pub mod status;
pub mod store;
pub mod translate;
pub mod view;
pub mod watch;
pub mod writer;
