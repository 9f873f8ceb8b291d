//! The fake as a client sees it: literal requests over HTTP, and the XML of the answers.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests, outside of test functions"
)]

mod client;
mod faults;
mod proxy;
mod signatures;
mod strict;
mod transcripts;
