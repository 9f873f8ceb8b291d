//! What every program of Ballast does around its commands: flags of the log, the runtime, signals,
//! and what the process says when it ends.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::causes::causes;
use super::text::{one_line, shortened};

/// The exit status of clap for invalid flags.
const WRONG_USAGE: u8 = 2;
/// The maximum length of a line on standard error, in characters; notes can contain commands.
const LONGEST_NOTE: usize = 4_096;
/// kube reports errors that are reported with their causes where they matter. Without its lines each one
/// appears once.
const SERVES: &str = ",kube_client::client=off,kube_client::client::tls=warn";

/// The default log level.
const USUAL: &str = "info";

/// Flags that parse, but whose values are invalid.
#[derive(Debug, thiserror::Error)]
#[error("{}", causes(.0.as_ref()))]
pub struct WrongUsage(pub anyhow::Error);

/// Flags of the log.
#[derive(Clone, Debug, Args)]
pub struct LogArgs {
    /// Log level: error, warn, info, debug, trace, or a filter such as
    /// `info,ballast::service=debug`. Logs go to standard error.
    #[arg(
        long,
        global = true,
        env = "BALLAST_LOG",
        default_value = USUAL,
        value_name = "FILTER"
    )]
    pub log: String,

    /// Log format.
    #[arg(
        long,
        global = true,
        env = "BALLAST_LOG_FORMAT",
        default_value = "text",
        value_name = "FORMAT"
    )]
    pub log_format: LogFormat,
}

/// Formats of logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Text, for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Which lines of kube's client a command logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kube {
    /// All.
    All,
    /// Those of a process that serves: what is wrong with the connection.
    Connection,
    /// None: the command says what went wrong.
    Nothing,
    /// None, and of everything else only what is wrong, unless the user asks for more.
    Warnings,
}

// === impl LogArgs ===

impl LogArgs {
    /// Logs to standard error from now on.
    pub fn start(&self, kube: Kube) -> Result<()> {
        let log = &self.log;
        let filter = match kube {
            Kube::All => log.clone(),
            Kube::Connection => format!("{log}{SERVES}"),
            Kube::Warnings if log == USUAL => "warn,kube_client=off".to_owned(),
            Kube::Nothing | Kube::Warnings => format!("{log},kube_client=off"),
        };
        let filter = EnvFilter::try_new(filter)
            .with_context(|| format!("invalid --log \"{log}\""))
            .map_err(WrongUsage)?;
        let logs = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr);
        match self.log_format {
            LogFormat::Text => logs
                .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
                .init(),
            LogFormat::Json => logs.json().init(),
        }
        Ok(())
    }
}

/// The exit status of a command. An error is written to standard error.
pub fn end(result: Result<ExitCode>) -> ExitCode {
    match result {
        Ok(code) => code,
        Err(error) => {
            note(format_args!("ballast: {}", causes(error.as_ref())));
            if error.is::<WrongUsage>() {
                return ExitCode::from(WRONG_USAGE);
            }
            ExitCode::FAILURE
        }
    }
}

/// Writes one line to standard error. The text can come from users and from the cluster, so it
/// is cleaned and bounded here. If standard error is closed, the error is ignored.
pub fn note(text: impl std::fmt::Display) {
    let line = shortened(&one_line(&text.to_string()), LONGEST_NOTE);
    let _ = std::io::stderr()
        .lock()
        .write_all(format!("{line}\n").as_bytes());
}

/// Writes to standard output. A reader that stops early, such as `head`, is not an error.
pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("cannot write to standard output"),
    }
}

/// A runtime with a thread per core.
pub fn runtime() -> Result<Runtime> {
    Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")
}

/// A runtime for a process that runs on every node. Its work that must not wait has threads of its own.
/// The rest is little: to wake another worker for it would cost more than the work.
pub fn small_runtime() -> Result<Runtime> {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")
}

/// Completes at the first SIGTERM or SIGINT.
pub fn asked_to_stop() -> Result<impl Future<Output = ()> + Send + 'static> {
    let mut term = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
