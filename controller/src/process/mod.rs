//! What any process of Ballast needs, whatever its role: health and metrics over HTTP, a work
//! queue with backoff, leader election, access to the API server, its own identity, and its start and end.
//!
//! Nothing here knows Services, classes or providers.

pub mod access;
pub mod admin;
pub mod backoff;
pub mod causes;
pub mod identity;
pub mod lease;
pub mod program;
pub mod queue;
pub mod room;
pub mod socket;
pub mod text;
pub mod wave;

use std::time::Duration;

/// How long one request to the API server may take before it counts as failed. It is shorter
/// than the renew deadline of the election, so a slow request never costs the Lease.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(4);
