//! All tests of the mock cloud that need more than one module: one program, so that it is
//! linked once.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are tests

mod answers;
mod api;
mod conformance;
mod footprint;
mod idle;
mod interface;
mod plane;
mod provider;
mod support;
