//! The command line: commands, flags, and what they become.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use ballast_aws::adopt::UNNAMED;
use ballast_aws::client::Clients;
use ballast_mock::Token;
use clap::{Args, Parser, Subcommand};

use crate::announcer;
use crate::announcer::args::AnnouncerArgs;
use crate::class::Scope;
use crate::class::contender::{self, LeaseName};
use crate::cli::cluster::LeaseArgs;
use crate::cli::{
    cleanup, crds, iam_policy, migrate, orphans, plan, probe, rebalance, secrets, status, teardown,
};
use crate::pools::AddressBook;
use crate::process::backoff::Backoff;
use crate::process::identity::host_name;
use crate::process::lease::{Config, Timing};
use crate::process::program::LogArgs;
use crate::run::Options;
use crate::run::factory::Providers;

const ABOUT: &str = "Load balancers for Kubernetes Services: clouds, bare metal and laptops";

const ENVIRONMENT: &str = "\
Environment:
  KUBECONFIG               the kubeconfig files; default: ~/.kube/config
  HTTPS_PROXY, HTTP_PROXY  the proxy to the API server: http://, https:// or socks5://HOST:PORT
  NO_PROXY                 servers without a proxy: hosts, .domains, addresses, CIDRs, or *

Proxies work as in kubectl: proxy-url in the kubeconfig takes precedence over the environment,
and a server on this machine needs no entry in NO_PROXY. In a cluster no proxy is used.

To see the flags and examples of a command: ballast COMMAND --help";

/// The command line of `ballast`.
#[derive(Debug, Parser)]
#[command(name = "ballast", version, about = ABOUT, after_help = ENVIRONMENT, arg_required_else_help = true)]
pub struct Cli {
    /// The log.
    #[command(flatten)]
    pub log: LogArgs,

    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the controller. Replicas elect a leader.
    // `extraArgs` of the chart can repeat a flag that the chart already sets.
    #[command(after_help = CONTROLLER_EXAMPLES, args_override_self = true)]
    Controller(Box<ControllerArgs>),

    /// Run the mock cloud: an HTTP API, and load balancers that forward real traffic.
    #[command(after_help = MOCK_CLOUD_EXAMPLES, args_override_self = true)]
    MockCloud(Box<ballast_mock::server::ServerArgs>),

    /// Announce the addresses of bare-metal Services from this node. One process runs on each node.
    #[command(after_help = announcer::args::EXAMPLES, args_override_self = true)]
    Announcer(Box<AnnouncerArgs>),

    /// Show load balancers, address pools or announcers: their state, and the reason for it.
    #[command(after_help = status::EXAMPLES)]
    Status(Box<status::StatusArgs>),

    /// Show what would be created for manifests, with calls, cost and refusals. Changes nothing.
    #[command(after_help = plan::EXAMPLES)]
    Plan(Box<plan::PlanArgs>),

    /// Migrate from another load balancer, or show what would change.
    Migrate(Box<migrate::MigrateArgs>),

    /// Release load balancers and keep their Services. Run this before you remove Ballast or
    /// the cluster.
    #[command(after_help = teardown::EXAMPLES)]
    Teardown(Box<teardown::TeardownArgs>),

    /// Find load balancers whose cluster is gone, with what they cost, and delete them. Needs no
    /// cluster.
    #[command(after_help = orphans::EXAMPLES)]
    Orphans(Box<orphans::OrphansArgs>),

    /// Spread the addresses of bare-metal Services evenly over the nodes.
    #[command(after_help = rebalance::EXAMPLES)]
    Rebalance(Box<rebalance::RebalanceArgs>),

    /// Print or apply the custom resource definitions (CRDs).
    #[command(after_help = crds::EXAMPLES)]
    Crds(Box<crds::CrdsArgs>),

    /// Print the IAM policy that classes for AWS need.
    #[command(after_help = iam_policy::EXAMPLES)]
    IamPolicy(iam_policy::IamPolicyArgs),

    /// Create the Secrets that Ballast's processes share, unless they exist (used by the chart).
    #[command(after_help = secrets::EXAMPLES, hide = true)]
    Secrets(Box<secrets::SecretsArgs>),

    /// Delete shared Secrets, and what announcers leave (used by the chart).
    #[command(after_help = cleanup::EXAMPLES, hide = true)]
    Cleanup(Box<cleanup::CleanupArgs>),

    /// Ask the process of this container whether it is alive or ready (used by the chart).
    #[command(after_help = probe::EXAMPLES, hide = true)]
    Probe(probe::ProbeArgs),
}

const CONTROLLER_EXAMPLES: &str = "\
Examples:
  # In a cluster, with the ServiceAccount of the pod:
  ballast controller

  # On a laptop, with the current kubeconfig and a local mock cloud:
  ballast mock-cloud &
  ballast controller --cluster-name laptop

  # Two installations side by side, each with its own classes:
  ballast controller --classes edge --lease-name ballast-edge

Exit status:
  0  stopped by SIGTERM or SIGINT
  1  error
  2  invalid usage
  3  lost the Lease; start the process again";

const MOCK_CLOUD_EXAMPLES: &str = "\
Examples:
  # On a laptop, with load balancers on loopback addresses:
  ballast mock-cloud --addresses 127.77.0.0/16

  # A small and slow cloud, to watch how Services wait:
  ballast mock-cloud --provisioning-latency 30s --deletion-latency 10s --max-load-balancers 3

Exit status:
  0  stopped by SIGTERM or SIGINT
  1  error
  2  invalid usage";

/// Flags of `ballast controller`.
#[derive(Debug, Args)]
pub struct ControllerArgs {
    /// Serve only these classes (comma-separated). Default: all classes.
    #[arg(
        long,
        env = "BALLAST_CLASSES",
        value_delimiter = ',',
        value_name = "NAMES"
    )]
    pub classes: Vec<String>,

    /// Name of the cluster in tags, for people: Ballast identifies a cluster by the UID of its
    /// kube-system namespace. On AWS it also says which load balancers of other controllers belong
    /// to this cluster, if Services name them to take them over; the default says nothing.
    #[arg(
        long,
        env = "BALLAST_CLUSTER_NAME",
        default_value = UNNAMED,
        value_name = "NAME"
    )]
    pub cluster_name: String,

    /// Name of this replica in the leader election. Default: the host name.
    #[arg(long, env = "BALLAST_IDENTITY", value_name = "NAME")]
    pub identity: Option<String>,

    /// The Lease of the leader election.
    #[command(flatten)]
    pub lease: LeaseArgs,

    /// Seconds without a renewal after which another replica takes over the Lease.
    #[arg(long, env = "BALLAST_LEASE_DURATION", default_value = "15", value_name = "SECONDS", value_parser = seconds)]
    pub lease_duration: Duration,

    /// Seconds without a successful renewal after which the leader stops.
    #[arg(long, env = "BALLAST_RENEW_DEADLINE", default_value = "10", value_name = "SECONDS", value_parser = seconds)]
    pub renew_deadline: Duration,

    /// Seconds between attempts to acquire or renew the Lease.
    #[arg(long, env = "BALLAST_RETRY_PERIOD", default_value = "2", value_name = "SECONDS", value_parser = seconds)]
    pub retry_period: Duration,

    /// Number of Services that are reconciled at the same time.
    #[arg(long, env = "BALLAST_WORKERS", default_value = "32", value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub workers: u16,

    /// Leases of other service controllers, beside the known ones (comma-separated NAME in
    /// kube-system, or NAMESPACE/NAME). While one of them is renewed, default classes serve no
    /// Services without a class.
    #[arg(
        long,
        env = "BALLAST_OTHER_CONTROLLERS_LEASES",
        value_delimiter = ',',
        value_name = "LEASES"
    )]
    pub other_controllers_leases: Vec<LeaseName>,

    /// Open the readiness gate `ballast.dev/target-healthy` of pods when the load balancers of
    /// their Services find them healthy. Needs the rights to watch pods and to patch their status.
    #[arg(long, env = "BALLAST_READINESS_GATES")]
    pub readiness_gates: bool,

    /// Address of /livez, /readyz and /metrics.
    #[arg(
        long,
        env = "BALLAST_ADMIN_ADDRESS",
        default_value = "127.0.0.1:8110",
        value_name = "ADDRESS"
    )]
    pub admin_address: SocketAddr,

    /// File that contains the bearer token for mock clouds. The controller reads it again when
    /// it changes and when a mock cloud rejects the token.
    #[arg(long, env = "BALLAST_MOCK_TOKEN_FILE", value_name = "FILE")]
    pub mock_token_file: Option<PathBuf>,

    /// Send the token only to mock clouds in this namespace (endpoint SERVICE.NAMESPACE.svc).
    /// Default: all mock clouds.
    #[arg(
        long,
        env = "BALLAST_MOCK_TOKEN_NAMESPACE",
        value_name = "NAMESPACE",
        requires = "mock_token_file"
    )]
    pub mock_token_namespace: Option<String>,

    /// Serve mock classes in the controller process, with addresses on which nothing listens.
    /// For benchmarks of the controller.
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
            other_controllers_leases,
            readiness_gates,
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
        let others = other_controllers_leases.len();
        anyhow::ensure!(
            others <= contender::MOST,
            "--other-controllers-leases has {others} Leases; at most {} are supported",
            contender::MOST
        );
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
                aws: Clients::default(),
                simulate,
            }),
            addresses,
            other_controllers: contender::leases(other_controllers_leases),
            readiness_gates,
            clock: Arc::new(jiff::Timestamp::now),
        })
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text
        .parse()
        .map_err(|_| "not a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

#[cfg(test)]
mod examples;

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
            .filter(|it| ["controller", "mock-cloud", "announcer"].contains(&it.get_name()))
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
    fn leases_of_other_controllers_are_added_to_the_known_ones() {
        let options = |leases: &str| {
            let flag = format!("--other-controllers-leases={leases}");
            let command = Cli::try_parse_from(["ballast", "controller", &flag])?.command;
            let Command::Controller(args) = command else {
                panic!("not the controller");
            };
            args.into_options()
        };
        let leases = options("my-ccm,edge/lb").unwrap().other_controllers;
        let leases: Vec<String> = leases.iter().map(ToString::to_string).collect();
        assert_eq!(leases[..contender::KNOWN.len()], contender::KNOWN);
        assert_eq!(leases[contender::KNOWN.len()..], ["edge/lb", "my-ccm"]);
        assert!(options("Not A Lease").is_err());
        let many: Vec<String> = (0..=contender::MOST).map(|n| format!("l{n}")).collect();
        assert!(options(&many.join(",")).is_err());
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
