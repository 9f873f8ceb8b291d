//! What any process of Ballast needs, whatever its role: health and metrics over HTTP, a
//! work queue with back-off, leader election, and its own identity.
//!
//! Nothing here knows Services, classes or providers.

pub mod admin;
pub mod backoff;
pub mod identity;
pub mod lease;
pub mod queue;
