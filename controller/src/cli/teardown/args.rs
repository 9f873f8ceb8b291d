//! The flags of `ballast teardown`, and what its help says.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::cli::Output;
use crate::cli::cluster::{ClusterArgs, LeaseArgs};
use crate::cli::times::time;
use crate::process::text::one_line;

/// Shown below the flags.
pub const EXAMPLES: &str = "\
Examples:
  # Before you remove Ballast or the cluster, release all load balancers:
  ballast teardown --wait

  # Show what would be released:
  ballast teardown --dry-run

  # Release the load balancers of one class. Its Services stay without addresses until --undo:
  ballast teardown --wait --classes edge
  ballast teardown --undo --classes edge

  # In a pipeline, also if the controller does not run any more:
  ballast teardown --wait --takeover --yes -o json

  # Last resort, if neither a controller nor the cloud can help: let go of the Services, and print
  # which load balancers stay in the cloud:
  ballast teardown --release-finalizers

A draining class creates no load balancers and releases existing ones; new Services are refused
with the reason Draining. With deletionPolicy Retain the load balancers stay in the cloud.
Without --wait the command only starts the drain, and the controller continues it. Without
--classes, classes that are created later drain, too: the command records the drain in the
ConfigMap LEASE-drain beside the Lease, so tools that apply manifests again bring nothing back.

You can run the command again at any time. On a terminal it asks for confirmation, unless --yes is
set, and shows a progress bar; otherwise it prints a line for each change.

If no controller renews the Lease, nobody releases anything. On a terminal the command then asks
whether to do the work of the controller itself; --takeover does it without a question. It takes
the Lease, so it never works beside a controller, and gives it up at the end. It uses your rights
in the cluster and the cloud credentials of your environment, as the controller does. Otherwise
the command stops when the Lease has not been renewed for twice its duration (30 s); the classes
keep draining, and the next controller continues.

Exit status:
  0  nothing is left, or --undo, --dry-run or --release-finalizers succeeded
  1  error
  2  invalid usage
  5  something is left
  6  something is left, and no controller is running";

/// Flags of `ballast teardown`.
#[derive(Clone, Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub struct TeardownArgs {
    /// Wait until all load balancers are released.
    #[arg(long)]
    pub wait: bool,

    /// Longest time to wait.
    #[arg(long, default_value = "10m", value_name = "TIME", value_parser = time, requires = "wait")]
    pub timeout: Duration,

    /// Drain only these classes (comma-separated). Default: all classes.
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub classes: Vec<String>,

    /// If no controller is running, do its work with your own rights and credentials.
    #[arg(long, requires = "wait")]
    pub takeover: bool,

    /// End the drain. The classes create load balancers again.
    #[arg(long, conflicts_with_all = ["wait", "timeout", "dry_run", "reason"])]
    pub undo: bool,

    /// Only show what would be released.
    #[arg(long, conflicts_with = "wait")]
    pub dry_run: bool,

    /// Last resort: remove Ballast's finalizers from Services and classes without touching the
    /// cloud, and print what stays there. Refused while a controller is running.
    #[arg(long, conflicts_with_all = ["wait", "undo"])]
    pub release_finalizers: bool,

    /// Reason for the drain. It appears in the conditions of classes and Services.
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    pub reason: Option<String>,

    /// Do not ask for confirmation.
    #[arg(short, long)]
    pub yes: bool,

    /// Output format.
    #[arg(short, long, default_value = "text", value_name = "FORMAT")]
    pub output: Output,

    /// File that contains the bearer token for mock clouds, for --takeover.
    #[arg(long, env = "BALLAST_MOCK_TOKEN_FILE", value_name = "FILE")]
    pub mock_token_file: Option<PathBuf>,

    /// The Lease that shows whether a controller is running.
    #[command(flatten)]
    pub lease: LeaseArgs,

    /// Which cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

fn reason(text: &str) -> Result<String, String> {
    let text = one_line(text);
    if text.chars().count() > 256 {
        return Err("at most 256 characters".to_owned());
    }
    Ok(text)
}
