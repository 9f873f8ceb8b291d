//! Jobs that run beside the API server, in the lab: the client that creates and watches, and
//! the raw loop. The bench program starts itself there, because a connection from outside goes
//! through a forwarder that takes time of its own.
//!
//! A job prints `ready` when the measurement can start, and ends with one line of JSON.

mod api;
mod client;
mod raw;

use anyhow::Result;
use clap::Subcommand;
use kube::{Client, Config};
use serde::{Deserialize, Serialize};

/// What to do.
#[derive(Debug, Clone, Subcommand)]
pub enum Job {
    /// Create Services.
    Create(Load),
    /// Watch until all Services have an address.
    Observe {
        /// How many there are.
        #[arg(long)]
        services: u32,
    },
    /// Create Services and watch until all have an address.
    Load(Load),
    /// Be the raw loop.
    Raw {
        /// Services at once.
        #[arg(long)]
        concurrency: usize,
        /// What it does.
        #[arg(long)]
        mode: Mode,
    },
}

/// What the raw loop does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// Two patches for each Service that arrives.
    Follow,
    /// Two patches for each that there is, with bodies made beforehand.
    Backlog,
    /// The same with one patch, as a Service of an `l2` class costs.
    Addresses,
}

/// Services to be created.
#[derive(Debug, Clone, clap::Args)]
pub struct Load {
    /// How many.
    #[arg(long)]
    services: u32,
    /// How many at once.
    #[arg(long, default_value_t = 16)]
    concurrency: usize,
    /// Their `spec.loadBalancerClass`; without one if absent.
    #[arg(long)]
    class: Option<String>,
    /// Delete those of the same names first, each just before.
    #[arg(long)]
    replace: bool,
}

/// The result of [`Job::Load`]: how long after a create reply the address was seen.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Waits {
    /// Milliseconds.
    pub(crate) p50: f64,
    /// Milliseconds.
    pub(crate) p95: f64,
    /// Milliseconds.
    pub(crate) max: f64,
    /// Services created per second.
    pub(crate) rate: f64,
    /// Seconds from the first create to the last address.
    pub(crate) seconds: f64,
}

// === impl Mode ===

impl Mode {
    /// The value for `--mode`.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Follow => "follow",
            Self::Backlog => "backlog",
            Self::Addresses => "addresses",
        }
    }
}

/// Runs one job.
pub async fn run(job: Job) -> Result<()> {
    let mut config = Config::infer().await?;
    config.default_retry = false;
    let client = Client::try_from(config)?;
    match job {
        Job::Create(load) => client::create(client, &load).await,
        Job::Observe { services } => client::observe(client, services).await,
        Job::Load(load) => client::load(client, &load).await,
        Job::Raw {
            concurrency,
            mode: Mode::Follow,
        } => raw::follow(client, concurrency).await,
        Job::Raw { concurrency, mode } => raw::backlog(client, concurrency, mode).await,
    }
}
