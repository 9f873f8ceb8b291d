//! Bare metal, node side: the driver of a node's announcer, without Kubernetes.
//!
//! [`ballast_announce::Node`] decides; this crate owns everything that the decisions need on the
//! host: the messages between announcers, the connections that show that a process lives, and
//! the key that protects both. `ballast announcer` starts an [`Agent`], passes it what the API
//! server says, and writes what it reports.
//!
//! | module | does |
//! |---|---|
//! | [`wire`] | Which bytes is a message? |
//! | [`seal`] | Encrypts and authenticates bytes for one receiver and one purpose; reads and rotates the key. |
//! | [`post`] | Messages by UDP: who sent it, to whom, on which interface. |
//! | [`cable`] | TCP connections whose end shows that a process ended. |
//! | `agent` | Starts and ends everything. |
//! | `core` | The thread that owns the node: events, the clock, outputs. |
//! | `packets` | The thread that answers requests for addresses. |
//! | `frames` | What does a frame mean? Which bytes is an answer, a probe, an announcement? |
//! | `directory`, `witnesses` | Which host has which address and MAC on which interface? |
//! | `sources` | Why and since when does this node announce an address? |
//! | `report` | What the Announcer object should say. |
//!
//! It never decides which node answers for an address, reads or writes no object of the API
//! server, and trusts nothing on the network that the shared key does not prove.

mod agent;
pub mod cable;
mod clock;
mod core;
mod counters;
mod directory;
mod event;
mod frames;
mod packets;
mod port;
pub mod post;
mod report;
pub mod seal;
mod shared;
mod sockets;
mod sources;
pub mod wire;
mod witnesses;

use thiserror::Error;

pub use agent::{Agent, Gossip, Options, StartError};
pub use counters::{BOUNDS, Counter, Counters, Durations, Moves};
pub use report::{Announced, Report, ReportedInterface, Source};

/// The kernel returns no random numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the kernel returns no random numbers")]
struct NoRandom;
