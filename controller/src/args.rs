//! The command line: commands, flags, and what they become.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use ballast_mock::Token;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::class::Scope;
use crate::cli::cluster::LeaseArgs;
use crate::cli::{crds, migrate, secrets, status, teardown};
use crate::pools::AddressBook;
use crate::process::backoff::Backoff;
use crate::process::lease::{Config, Timing};
use crate::run::Options;
use crate::run::factory::Providers;

const ABOUT: &str = "Load balancers for Kubernetes Services: clouds, bare metal and laptops";

/// The command line of `ballast`.
#[derive(Debug, Parser)]
#[command(name = "ballast", version, about = ABOUT, arg_required_else_help = true)]
pub struct Cli {
    /// What is written to standard error: error, warn, info, debug, trace, or a filter
    /// such as `info,ballast::service=debug`.
    #[arg(
        long,
        global = true,
        env = "BALLAST_LOG",
        default_value = "info",
        value_name = "FILTER"
    )]
    pub log: String,

    /// How it is written.
    #[arg(
        long,
        global = true,
        env = "BALLAST_LOG_FORMAT",
        default_value = "text",
        value_name = "FORMAT"
    )]
    pub log_format: LogFormat,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// How logs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the reconcile loop; replicas elect a leader.
    // Whoever adds a flag to those of a chart says it again.
    #[command(after_help = CONTROLLER_EXAMPLES, args_override_self = true)]
    Controller(Box<ControllerArgs>),

    /// Run the local mock cloud: HTTP API, load balancers that really balance.
    #[command(after_help = MOCK_CLOUD_EXAMPLES, args_override_self = true)]
    MockCloud(Box<ballast_mock::server::ServerArgs>),

    /// Show every load balancer, or address pool, and why each is as it is.
    #[command(after_help = status::EXAMPLES)]
    Status(Box<status::StatusArgs>),

    /// Bring over the settings of another load balancer, and its Services with their
    /// addresses.
    Migrate(Box<migrate::MigrateArgs>),

    /// Take the load balancers of classes away and leave their Services: before Ballast, or
    /// the cluster, goes.
    #[command(after_help = teardown::EXAMPLES)]
    Teardown(Box<teardown::TeardownArgs>),

    /// Print the CRDs, or apply them.
    #[command(after_help = crds::EXAMPLES)]
    Crds(Box<crds::CrdsArgs>),

    /// Create the Secrets that Ballast's processes share, unless they exist (used by the chart).
    #[command(after_help = secrets::EXAMPLES, hide = true)]
    Secrets(Box<secrets::SecretsArgs>),
}

const CONTROLLER_EXAMPLES: &str = "\
Examples:
  # In a cluster: everything by default, the ServiceAccount is found.
  ballast controller

  # On a laptop, against the current kubeconfig, beside a mock cloud:
  ballast mock-cloud &
  ballast controller --cluster-name laptop

  # Two installations side by side, each with its own classes:
  ballast controller --classes edge --lease-name ballast-edge

Exit status: 0 asked to stop, 1 failed, 2 wrong usage, 3 lost the lease (start it again).";

const MOCK_CLOUD_EXAMPLES: &str = "\
Examples:
  # On a laptop: load balancers on addresses of the loopback network.
  ballast mock-cloud --addresses 127.77.0.0/16

  # A slow cloud with few places, to see what Services say meanwhile:
  ballast mock-cloud --provisioning-latency 30s --deletion-latency 10s --max-load-balancers 3

Exit status: 0 asked to stop, 1 failed, 2 wrong usage.";

/// Flags of `ballast controller`.
#[derive(Debug, Args)]
pub struct ControllerArgs {
    /// Serve only these classes (comma-separated); all if absent.
    #[arg(
        long,
        env = "BALLAST_CLASSES",
        value_delimiter = ',',
        value_name = "NAMES"
    )]
    pub classes: Vec<String>,

    /// The cluster's name in tags, for people; its identity is the UID of kube-system.
    #[arg(
        long,
        env = "BALLAST_CLUSTER_NAME",
        default_value = "kubernetes",
        value_name = "NAME"
    )]
    pub cluster_name: String,

    /// This replica's name in the election; the host's name if absent.
    #[arg(long, env = "BALLAST_IDENTITY", value_name = "NAME")]
    pub identity: Option<String>,

    /// Which Lease is elected for.
    #[command(flatten)]
    pub lease: LeaseArgs,

    /// After how many seconds without a renewal another replica takes over.
    #[arg(long, env = "BALLAST_LEASE_DURATION", default_value = "15", value_name = "SECONDS", value_parser = seconds)]
    pub lease_duration: Duration,

    /// After how many seconds without a successful renewal the leader gives up.
    #[arg(long, env = "BALLAST_RENEW_DEADLINE", default_value = "10", value_name = "SECONDS", value_parser = seconds)]
    pub renew_deadline: Duration,

    /// Seconds between renewals, and between looks of those that wait.
    #[arg(long, env = "BALLAST_RETRY_PERIOD", default_value = "2", value_name = "SECONDS", value_parser = seconds)]
    pub retry_period: Duration,

    /// Services reconciled at once.
    #[arg(long, env = "BALLAST_WORKERS", default_value = "32", value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub workers: u16,

    /// Where /livez, /readyz and /metrics are served.
    #[arg(
        long,
        env = "BALLAST_ADMIN_ADDRESS",
        default_value = "127.0.0.1:8110",
        value_name = "ADDRESS"
    )]
    pub admin_address: SocketAddr,

    /// File with the bearer token for mock clouds. It is read again when it changes and when
    /// a mock cloud refuses the token.
    #[arg(long, env = "BALLAST_MOCK_TOKEN_FILE", value_name = "FILE")]
    pub mock_token_file: Option<PathBuf>,

    /// Send the token only to mock clouds of this namespace, whose endpoint is at
    /// SERVICE.NAMESPACE.svc; to all mock clouds if absent.
    #[arg(
        long,
        env = "BALLAST_MOCK_TOKEN_NAMESPACE",
        value_name = "NAMESPACE",
        requires = "mock_token_file"
    )]
    pub mock_token_namespace: Option<String>,

    /// Serve mock classes in process, with addresses that nothing listens on: for
    /// benchmarks of the controller.
    #[arg(long, env = "BALLAST_SIMULATE", hide = true)]
    pub simulate: bool,
}

// === impl ControllerArgs ===

impl ControllerArgs {
    /// Checks the flags and turns them into what the controller runs with.
    pub fn into_options(self) -> Result<Options> {
        let Self {
            classes,
            cluster_name,
            identity,
            lease:
                LeaseArgs {
                    lease_namespace,
                    lease_name,
                },
            lease_duration,
            renew_deadline,
            retry_period,
            workers,
            admin_address,
            mock_token_file,
            mock_token_namespace,
            simulate,
        } = self;
        let timing = Timing {
            lease_duration,
            renew_deadline,
            retry_period,
        };
        let identity = identity.unwrap_or_else(host_name);
        let addresses = AddressBook::default();
        Ok(Options {
            scope: if classes.is_empty() {
                Scope::All
            } else {
                Scope::Only(classes.into_iter().collect())
            },
            cluster_name,
            election: Config::new(&identity, timing).context("leader election")?,
            lease: (lease_namespace, lease_name),
            workers: usize::from(workers),
            backoff: Backoff::new(Duration::from_secs(1), Duration::from_mins(5)),
            admin: admin_address,
            factory: Arc::new(Providers {
                mock_token: mock_token_file.map(Token::file).unwrap_or_default(),
                mock_token_namespace,
                addresses: addresses.clone(),
                simulate,
            }),
            addresses,
        })
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text
        .parse()
        .map_err(|_| "not a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .ok()
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "ballast".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// Of what runs in a pod; people type the others.
    #[test]
    fn every_flag_has_an_environment_variable() {
        let mut command = Cli::command();
        command.build();
        for subcommand in command
            .get_subcommands()
            .filter(|it| ["controller", "mock-cloud"].contains(&it.get_name()))
        {
            for flag in subcommand.get_arguments() {
                let id = flag.get_id().as_str();
                if !["help", "version"].contains(&id) {
                    assert!(flag.get_env().is_some(), "{} --{id}", subcommand.get_name());
                }
            }
        }
    }

    /// A chart's own flags come first, and `extraArgs` last.
    #[test]
    fn of_a_flag_that_is_said_twice_the_last_counts() {
        let twice = ["controller", "--workers=32", "--workers=8"];
        let Command::Controller(args) =
            Cli::parse_from([&["ballast"], &twice[..]].concat()).command
        else {
            panic!("not the controller");
        };
        assert_eq!(args.workers, 8);
        let twice = ["mock-cloud", "--max-listeners=9", "--max-listeners=4"];
        let Command::MockCloud(args) = Cli::parse_from([&["ballast"], &twice[..]].concat()).command
        else {
            panic!("not the mock cloud");
        };
        assert_eq!(args.max_listeners, 4);
        let list = ["controller", "--classes=a,b", "--classes=c"];
        let Command::Controller(args) = Cli::parse_from([&["ballast"], &list[..]].concat()).command
        else {
            panic!("not the controller");
        };
        assert_eq!(args.classes, ["a", "b", "c"], "a list grows");
    }

    #[test]
    fn impossible_times_are_refused() {
        for bad in [["--renew-deadline", "20"], ["--retry-period", "9"]] {
            let arguments = ["ballast", "controller"].into_iter().chain(bad);
            let Command::Controller(args) = Cli::parse_from(arguments).command else {
                panic!("not the controller");
            };
            assert!(args.into_options().is_err(), "{bad:?}");
        }
    }
}
