//! The jobs as a hidden command of `lab`, which runs them on the lab's hosts.

use anyhow::Result;
use clap::Subcommand;

use super::{capture, connect, converse, echo, serve};

/// What to do. A job prints `ready` when it is, then one JSON line per observation.
#[derive(Debug, Clone, Subcommand)]
pub enum Job {
    /// Capture neighbour messages, on the hub.
    Capture(capture::Options),
    /// Connect again and again.
    Connect(connect::Options),
    /// Keep one connection busy.
    Converse(converse::Options),
    /// Answer ARP requests for an address.
    Echo(echo::Options),
    /// Answer connections.
    Serve(serve::Options),
}

/// Runs one job.
pub fn run(job: Job) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    match job {
        Job::Capture(options) => capture::run(&options),
        Job::Connect(options) => runtime.block_on(connect::run(options)),
        Job::Converse(options) => runtime.block_on(converse::run(options)),
        Job::Echo(options) => echo::run(&options),
        Job::Serve(options) => runtime.block_on(serve::run(options)),
    }
}
