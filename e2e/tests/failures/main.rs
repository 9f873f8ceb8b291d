//! What fails, fails here: leaders, controllers, clouds, API servers. Whatever dies and
//! whenever, everything converges afterwards, nothing is leaked or doubled in the
//! cloud, and no Service changes its address (invariants 1, 2, 5, 7).

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod absence;
mod api_server;
mod cloud;
#[path = "../common/mod.rs"]
mod common;
#[path = "../common/crowd.rs"]
mod crowd;
mod leader;
mod two_classes;
