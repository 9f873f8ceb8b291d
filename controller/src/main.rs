//! `ballast`: one binary, one command a role.

use std::process::ExitCode;

use anyhow::Result;
use ballast::announcer;
use ballast::args::{Cli, Command, ControllerArgs};
use ballast::cli;
use ballast::process::access;
use ballast::process::program::{self, Kube, WrongUsage, asked_to_stop, runtime};
use ballast::run::{self, Exit};
use ballast_mock::server::ServerArgs;
use clap::Parser as _;
use futures::FutureExt as _;
use tokio_util::sync::CancellationToken;

/// The Lease is lost. The supervisor of the process starts it again.
const LEASE_LOST: u8 = 3;

fn main() -> ExitCode {
    program::end(execute(Cli::parse()))
}

fn execute(cli: Cli) -> Result<ExitCode> {
    let Cli { log, command } = cli;
    log.start(lines(&command))?;
    match command {
        Command::Controller(args) => runtime()?.block_on(controller(*args)),
        Command::Announcer(args) => announcer::command::run(*args),
        Command::Status(args) => runtime()?.block_on(cli::status::run(*args)),
        Command::Plan(args) => runtime()?.block_on(cli::plan::run(*args)),
        Command::Migrate(args) => runtime()?.block_on(cli::migrate::run(*args)),
        Command::Crds(args) => runtime()?.block_on(cli::crds::run(*args)),
        Command::IamPolicy(args) => cli::iam_policy::run(&args),
        Command::Secrets(args) => runtime()?.block_on(cli::secrets::run(*args)),
        Command::Cleanup(args) => runtime()?.block_on(cli::cleanup::run(*args)),
        Command::Probe(args) => cli::probe::run(&args),
        Command::Teardown(args) => {
            runtime()?.block_on(async { cli::teardown::run(*args, asked_to_stop()?.boxed()).await })
        }
        Command::Orphans(args) => {
            runtime()?.block_on(async { cli::orphans::run(*args, asked_to_stop()?.boxed()).await })
        }
        Command::Rebalance(args) => runtime()?
            .block_on(async { cli::rebalance::run(*args, asked_to_stop()?.boxed()).await }),
        Command::MockCloud(args) => {
            runtime()?.block_on(mock_cloud(*args))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn lines(command: &Command) -> Kube {
    match command {
        Command::Status(_)
        | Command::Plan(_)
        | Command::Migrate(_)
        | Command::Crds(_)
        | Command::IamPolicy(_)
        | Command::Secrets(_)
        | Command::Cleanup(_)
        | Command::Probe(_)
        | Command::Orphans(_)
        | Command::Rebalance(_) => Kube::Nothing,
        // It can run a controller in its process, whose usual lines are for operators.
        Command::Teardown(_) => Kube::Warnings,
        Command::Controller(_) | Command::Announcer(_) => Kube::Connection,
        Command::MockCloud(_) => Kube::All,
    }
}

async fn controller(args: ControllerArgs) -> Result<ExitCode> {
    let options = args.into_options().map_err(WrongUsage)?;
    let client = access::access(None, None)?.client()?;
    let exit = run::run(client, options, asked_to_stop()?.boxed()).await?;
    Ok(match exit {
        Exit::Stopped => ExitCode::SUCCESS,
        Exit::LeaseLost => ExitCode::from(LEASE_LOST),
    })
}

async fn mock_cloud(args: ServerArgs) -> Result<()> {
    let options = args
        .into_options()
        .map_err(|error| WrongUsage(error.into()))?;
    let (stop, asked) = (CancellationToken::new(), asked_to_stop()?);
    let guard = stop.clone();
    tokio::spawn(async move {
        asked.await;
        guard.cancel();
    });
    Ok(ballast_mock::server::run(options, stop).await?)
}
