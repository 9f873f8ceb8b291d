//! `ballast`: one binary, one command a role.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use ballast::announcer;
use ballast::announcer::args::AnnouncerArgs;
use ballast::args::{Cli, Command, ControllerArgs, LogFormat};
use ballast::cli;
use ballast::process::access;
use ballast::process::admin::Health;
use ballast::process::causes::causes;
use ballast::run::{self, Exit};
use ballast_mock::server::ServerArgs;
use clap::Parser as _;
use futures::FutureExt as _;
use prometheus_client::registry::Registry;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// The Lease is lost. The supervisor of the process starts it again.
const LEASE_LOST: u8 = 3;
/// The exit status of clap for invalid flags.
const WRONG_USAGE: u8 = 2;

/// Flags that parse, but whose values are invalid.
#[derive(Debug, thiserror::Error)]
#[error("{}", causes(.0.as_ref()))]
struct WrongUsage(anyhow::Error);

fn main() -> ExitCode {
    let cli = Cli::parse();
    match execute(cli) {
        Ok(code) => code,
        Err(error) => {
            cli::note(format_args!("ballast: {}", causes(error.as_ref())));
            if error.is::<WrongUsage>() {
                return ExitCode::from(WRONG_USAGE);
            }
            ExitCode::FAILURE
        }
    }
}

fn execute(cli: Cli) -> Result<ExitCode> {
    let Cli {
        log,
        log_format,
        command,
    } = cli;
    let filter = EnvFilter::try_new(filter(&log, &command))
        .with_context(|| format!("invalid --log \"{log}\""))
        .map_err(WrongUsage)?;
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match log_format {
        LogFormat::Text => logs
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .init(),
        LogFormat::Json => logs.json().init(),
    }
    match command {
        Command::Controller(args) => runtime()?.block_on(controller(*args)),
        Command::Announcer(args) => small_runtime()?.block_on(announcer(*args)),
        Command::Status(args) => runtime()?.block_on(cli::status::run(*args)),
        Command::Migrate(args) => runtime()?.block_on(cli::migrate::run(*args)),
        Command::Crds(args) => runtime()?.block_on(cli::crds::run(*args)),
        Command::Secrets(args) => runtime()?.block_on(cli::secrets::run(*args)),
        Command::Cleanup(args) => runtime()?.block_on(cli::cleanup::run(*args)),
        Command::Probe(args) => cli::probe::run(&args),
        Command::Teardown(args) => {
            runtime()?.block_on(async { cli::teardown::run(*args, asked_to_stop()?.boxed()).await })
        }
        Command::Rebalance(args) => runtime()?
            .block_on(async { cli::rebalance::run(*args, asked_to_stop()?.boxed()).await }),
        Command::MockCloud(args) => {
            runtime()?.block_on(mock_cloud(*args))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Errors are reported with their causes where they matter; without kube's log lines each one
/// appears once.
fn filter(log: &str, command: &Command) -> String {
    match command {
        Command::Status(_)
        | Command::Migrate(_)
        | Command::Crds(_)
        | Command::Secrets(_)
        | Command::Cleanup(_)
        | Command::Probe(_)
        | Command::Rebalance(_)
        | Command::Teardown(_) => format!("{log},kube_client=off"),
        Command::Controller(_) | Command::Announcer(_) => {
            format!("{log},kube_client::client=off,kube_client::client::tls=warn")
        }
        Command::MockCloud(_) => log.to_owned(),
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")
}

/// For a process that runs on every node. Its work that must not wait has threads of its own. The rest
/// is little: to wake another worker for it would cost more than the work.
fn small_runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")
}

async fn announcer(args: AnnouncerArgs) -> Result<ExitCode> {
    let incarnation = rand::random();
    let (options, gossip) = args.into_options(incarnation).map_err(WrongUsage)?;
    let client = access::access(None, None)?.client()?;
    let stop = asked_to_stop()?.boxed();
    let (mut registry, health) = (Registry::default(), Health::default());
    let agent = announcer::agent::start(&options, gossip, &mut registry, &health).await?;
    announcer::run(client, options, agent, registry, health, stop).await?;
    Ok(ExitCode::SUCCESS)
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

/// Completes at the first SIGTERM or SIGINT.
fn asked_to_stop() -> Result<impl Future<Output = ()> + Send + 'static> {
    let mut term = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
