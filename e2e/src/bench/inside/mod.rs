//! What runs beside the API server, in the lab: the client that creates and watches, and
//! the raw loop. The bench program starts itself there, because the way from outside
//! leads through a forwarder that costs time of its own.
//!
//! A job says `ready` when it can be measured, and ends with one line of JSON.

mod api;
mod client;
mod raw;

use anyhow::Result;
use clap::Subcommand;
use kube::{Client, Config};

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
        /// Work off what is there, with bodies made beforehand; else follow the watch.
        #[arg(long)]
        backlog: bool,
    },
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
}

/// Does one job.
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
            backlog: true,
        } => raw::backlog(client, concurrency).await,
        Job::Raw { concurrency, .. } => raw::follow(client, concurrency).await,
    }
}
