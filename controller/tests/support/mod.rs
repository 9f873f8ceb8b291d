//! A world for the controller: a strict API server, a cloud, and effects that can be cut off at
//! any point.
//!
//! - [`journal`]: the global order of all effects, and the fuse that crashes an instance at the
//!   nth of them.
//! - [`api`]: the API server, stateful and strict, with the actions of users.
//! - [`cloud`]: load balancers that outlive the controllers, and their provider.
//! - [`lab`]: starts, crashes and restarts controllers, waits, and reports problems.
//!
//! Nothing here is a script of expected calls. Anything forbidden is a violation, which fails
//! the test at its next wait, whatever the test is about.

pub mod api;
pub mod cloud;
pub mod journal;
pub mod lab;
pub mod problems;
