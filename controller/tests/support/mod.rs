//! A world for the controller to live in: a strict API server, a cloud, and effects
//! that can be cut short at any point.
//!
//! - [`journal`]: the one global order of all effects, and the fuse that crashes an
//!   instance at the n-th of them.
//! - [`api`]: the API server, stateful, strict, with the user's actions.
//! - [`cloud`]: load balancers that outlive the controllers, and the provider to them.
//! - [`lab`]: starts, crashes and restarts controllers, waits, and says what is wrong.
//!
//! Nothing here is a script of expected calls. What is forbidden is a violation that
//! fails the test at its next wait, whatever the test was about.

pub mod api;
pub mod cloud;
pub mod journal;
pub mod lab;
pub mod problems;
