//! `make bench`: compares Ballast with the reference service controller and with a raw loop, on
//! real Kubernetes. See `docs/benchmarks.md`. Needs root, like the lab.

use std::process::ExitCode;

use anyhow::Result;
use ballast_e2e::bench::inside::{self, Job};
use ballast_e2e::bench::run::{self, Options};
use ballast_e2e::bench::{Contender, Scenario, report};
use clap::{Parser, Subcommand, ValueEnum};

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
    /// The jobs that bench runs beside the API server.
    #[command(subcommand, hide = true)]
    Inside(Job),
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
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn execute(cli: Cli) -> Result<()> {
    if let Some(Command::Inside(job)) = cli.command {
        return inside::run(job).await;
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
    Ok(())
}
