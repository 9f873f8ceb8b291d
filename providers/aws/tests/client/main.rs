//! Every call and every read of the client against the strict fake, over HTTP: what it sends is
//! accepted, what it reads is what is there, and errors are what they mean.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, outside of test functions"
)]

mod balancers;
mod bed;
mod credentials;
mod errors;
mod network;
mod pages;
