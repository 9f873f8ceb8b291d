//! `make bench`: compares Ballast with the reference service controller and with a raw loop, on
//! real Kubernetes. `make bench-failover`: how long clients are without an answer when something
//! fails. See `docs/benchmarks.md`. Needs root, like the lab.

use std::process::ExitCode;

use anyhow::Result;
use ballast_e2e::ProxyMode;
use ballast_e2e::bench::inside::{self, Job};
use ballast_e2e::bench::run::{self, Options};
use ballast_e2e::bench::{Contender, Scenario, report};
use ballast_e2e::failover::{self, Scene};
use clap::{Args, Parser, Subcommand, ValueEnum};

/// Measures the controller: time, writes, memory.
#[derive(Parser)]
#[command(name = "bench")]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,

    /// Measure only this (comma-separated).
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = Scenario::ALL)]
    only: Vec<Scenario>,

    /// Measure only these (comma-separated).
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = Contender::ALL)]
    contenders: Vec<Contender>,

    /// Number of rounds; the report shows medians.
    #[arg(long, default_value_t = 3, value_name = "ROUNDS")]
    repeat: u32,

    /// Use this number of Services in every scenario, for a quick look; goals do not apply.
    #[arg(long, value_name = "NUMBER")]
    services: Option<u32>,

    /// Concurrency of the raw loop; the report uses the best value.
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "NUMBERS",
        default_value = "8,16,32,64,128"
    )]
    sweep: Vec<usize>,

    /// Output format.
    #[arg(short, long, default_value = "table")]
    output: Output,

    /// Prefix of the labs' names.
    #[arg(long, default_value = "bench", value_name = "NAME")]
    name: String,
}

#[derive(Subcommand)]
enum Command {
    /// Measure outages when hosts, links and announcers fail.
    Failover(Failover),
    /// The jobs that bench runs beside the API server.
    #[command(subcommand, hide = true)]
    Inside(Job),
}

#[derive(Args)]
struct Failover {
    /// Measure only this (comma-separated).
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = Scene::ALL)]
    only: Vec<Scene>,

    /// Number of rounds; scenes that take minutes have fewer.
    #[arg(long, default_value_t = 20)]
    rounds: u32,

    /// Number of nodes.
    #[arg(long, default_value_t = 3)]
    nodes: u8,

    /// Mode of kube-proxy.
    #[arg(long, value_enum, default_value_t)]
    proxy_mode: ProxyMode,

    /// Output format.
    #[arg(short, long, default_value = "table")]
    output: Output,

    /// The lab's name.
    #[arg(long, default_value = "failover")]
    name: String,
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    /// For people.
    Table,
    /// For programs: every measurement.
    Json,
}

#[tokio::main]
async fn main() -> ExitCode {
    match execute(Cli::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all goals are reached that decide about success.
async fn execute(cli: Cli) -> Result<bool> {
    match cli.command {
        Some(Command::Inside(job)) => return inside::run(job).await.map(|()| true),
        Some(Command::Failover(options)) => return failover(options).await,
        None => {}
    }
    let outcome = run::run(Options {
        scenarios: cli.only,
        contenders: cli.contenders,
        rounds: cli.repeat,
        services: cli.services,
        sweep: cli.sweep,
        name: cli.name,
    })
    .await?;
    match cli.output {
        Output::Table => print!("{}", report::table(&outcome)),
        Output::Json => println!("{:#}", report::json(&outcome)),
    }
    Ok(true)
}

async fn failover(options: Failover) -> Result<bool> {
    let outcome = failover::run::run(&failover::run::Options {
        scenes: options.only,
        rounds: options.rounds,
        nodes: options.nodes,
        proxy: options.proxy_mode,
        name: options.name,
    })
    .await?;
    match options.output {
        Output::Table => print!("{}", failover::report::table(&outcome)),
        Output::Json => println!("{:#}", failover::report::json(&outcome)),
    }
    Ok(failover::report::reached(&outcome))
}
