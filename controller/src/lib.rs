//! The controller of Ballast: the reconcile loop and everything it is made of.
//!
//! Data flows one way: [`run`] watches the API server and fills the stores of
//! [`cluster`]; [`service`] decides one step for one Service and performs it through the
//! provider of its [`class`]; the writer of [`cluster`] publishes the result.
//! `docs/architecture.md` has the picture.

pub mod announcements;
pub mod announcer;
pub mod args;
pub mod class;
pub mod cli;
pub mod cluster;
#[cfg(test)]
mod fixtures;
pub mod pools;
pub mod process;
pub mod run;
pub mod service;
