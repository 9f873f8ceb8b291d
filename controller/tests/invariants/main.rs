//! The invariants of the design, each against a strict API server and a cloud that outlives the
//! controllers, with a crash between any two effects.
//!
//! Everything runs in one process, on one thread per test and in virtual time: a backoff of
//! minutes or the expiry of a Lease takes no real time.

#![allow(unreachable_pub)] // A test is a crate of its own; nothing is reachable anyway.
#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::panic)] // These are tests, helpers included.

#[path = "../support/mod.rs"]
mod support;

mod contest;
mod crash;
mod crowd;
mod deletion;
mod drain;
mod foreign;
mod garbage;
mod l2;
mod leaders;
mod orders;
mod quiet;
mod random;
mod shared;
mod silence;
