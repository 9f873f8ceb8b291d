//! `ballast probe`: asks the process of this container whether it is alive or ready. The chart uses
//! it as a probe of the announcers, which run on the host network.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Args;

use super::print;
use crate::process::socket::{Question, ask};

/// Shown below the flags.
pub const EXAMPLES: &str = "\
Examples:
  # In the container of an announcer that runs with the same --health-socket:
  ballast probe readyz --socket /run/ballast/health.sock

Exit status:
  0  yes
  1  no, or no process answers
  2  invalid usage";

/// Flags of `ballast probe`.
#[derive(Clone, Debug, Args)]
pub struct ProbeArgs {
    /// What to ask.
    pub question: Question,

    /// Socket of the process.
    #[arg(long, value_name = "FILE")]
    pub socket: PathBuf,
}

/// Prints the answer.
pub fn run(args: &ProbeArgs) -> Result<ExitCode> {
    let (yes, text) = ask(&args.socket, args.question)
        .with_context(|| format!("no process answers at {}", args.socket.display()))?;
    print(&text)?;
    Ok(if yes {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
