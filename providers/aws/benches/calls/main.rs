//! `make bench-aws`: what each event costs in calls to AWS's API, compared with the AWS Load Balancer
//! Controller (LBC). Its figures were counted by the same kind of proxy in front of the same moto.
//!
//! Calls are counted in front of moto where it can do what is asked, and in front of the strict fake
//! where it cannot: AWS's own limits, and network interfaces that linger. There, tokio's clock jumps
//! over waiting times. No call leaves loopback.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for the command line"
)]

mod many;
mod report;
mod single;
#[path = "../../tests/support/mod.rs"]
mod support;
mod terms;

use std::error::Error;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use tokio::runtime::Builder;

use self::terms::{Row, Scene};

/// Whatever goes wrong.
type Failure = Box<dyn Error + Send + Sync>;

/// Counts the calls of the AWS provider.
#[derive(Parser)]
#[command(name = "calls")]
struct Cli {
    /// Measure only this (comma-separated).
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = Scene::ALL)]
    only: Vec<Scene>,

    /// Output format.
    #[arg(short, long, default_value = "table")]
    output: Output,

    /// What `cargo bench` passes.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    /// For people.
    Table,
    /// For programs: every measurement.
    Json,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let (mut rows, mut failed) = (Vec::new(), false);
    for scene in cli.only {
        eprintln!("bench-aws: {}", scene.event());
        match measure(scene) {
            Ok(row) => rows.push(row),
            Err(error) => {
                eprintln!("bench-aws: {}: {error}", scene.event());
                failed = true;
            }
        }
    }
    match cli.output {
        Output::Table => print!("{}", report::table(&rows)),
        Output::Json => println!("{:#}", report::json(&rows)),
    }
    if !failed && rows.iter().all(Row::reached) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Each scene has a runtime of its own, some with a clock that jumps.
fn measure(scene: Scene) -> Result<Row, Failure> {
    let mut runtime = Builder::new_current_thread();
    runtime.enable_all().start_paused(scene.is_scaled());
    runtime.build()?.block_on(async {
        let checks = match scene {
            Scene::CreateWarm => single::create_warm().await?,
            Scene::CreateCold => single::create_cold().await?,
            Scene::StartTen => many::start(10, 0, 10.0, f64::INFINITY).await?,
            Scene::StartFifty => many::start(50, 100, 15.0, 2.0).await?,
            Scene::NodesChanged => many::nodes_changed().await?,
            Scene::NoOp => single::no_op().await?,
            Scene::PortAdded => single::port_added().await?,
            Scene::NodeAdded => many::node_added().await?,
            Scene::NodeAddedPaced => many::node_added_paced().await?,
            Scene::Delete => single::delete().await?,
            Scene::DeleteLingering => single::delete_lingering().await?,
            Scene::Fifty => many::fifty().await?,
            Scene::FiftyPaced => many::fifty_paced().await?,
            Scene::FiftyAws => many::fifty_aws().await?,
            Scene::ShareFifty => many::share_fifty().await?,
            Scene::PodsReplaced => many::pods_replaced().await?,
        };
        Ok(Row { scene, checks })
    })
}
