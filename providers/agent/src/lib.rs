//! Bare metal, node side: the driver of a node's announcer, without Kubernetes.
//!
//! [`ballast_announce::Node`] decides; this crate owns everything that the decisions need on the
//! host: the messages between announcers, the connections that show that a process lives, and
//! the key that protects both. `ballast announcer` calls it.
//!
//! | module | does |
//! |---|---|
//! | [`wire`] | Which bytes is a message? |
//! | [`seal`] | Encrypts and authenticates bytes for one receiver and one purpose; reads and rotates the key. |
//! | [`post`] | Messages by UDP: who sent it, to whom, on which interface. |
//! | [`cable`] | TCP connections whose end shows that a process ended. |
//!
//! It never decides which node answers for an address, reads or writes no object of the API
//! server, and trusts nothing on the network that the shared key does not prove.

pub mod cable;
mod port;
pub mod post;
pub mod seal;
pub mod wire;

use thiserror::Error;

/// The kernel returns no random numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the kernel returns no random numbers")]
struct NoRandom;
