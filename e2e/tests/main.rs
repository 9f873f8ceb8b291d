//! The tests on real Kubernetes, one program: every file is a module and runs alone by its
//! name, as `make e2e T=services` does.
//!
//! What takes minutes and compares builds is below [`long`]; `make test` leaves it out and
//! `make test-long` runs it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod api;
mod bad_input;
mod bench;
mod budget;
mod chart_api;
mod common;
mod demo;
mod failures;
mod helm;
mod in_cluster;
mod kind;
mod lab;
mod long;
mod migrate;
mod nodes;
mod pools;
mod readme;
mod rights;
mod services;
mod status;
mod teardown;
mod traffic;
