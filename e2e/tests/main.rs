//! The tests on real Kubernetes, as one program: every file is a module, and runs alone by its
//! name, as `make e2e T=services` does.
//!
//! Tests that take minutes or compare builds are in [`long`]; `make test` skips them and
//! `make test-long` runs them.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod announced;
mod announcer;
mod api;
mod aws;
mod bad_input;
mod bench;
mod budget;
mod chart_api;
mod common;
mod demo;
mod examples;
mod failures;
mod helm;
mod in_cluster;
mod kind;
mod lab;
mod long;
mod metal;
mod migrate;
mod nodes;
mod orphans;
mod plan;
mod pools;
mod readme;
mod rights;
mod segment;
mod services;
mod status;
mod teardown;
mod traffic;
