//! The flags of `ballast announcer`.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use ballast_announce::NodeName;
use clap::{Args, Parser, Subcommand};

use super::Options;
use super::lease::LONGEST_NODE;
use crate::cli::probe::{self, ProbeArgs};
use crate::process::program::LogArgs;

const ABOUT: &str = "The commands of `ballast` that run on each node of a bare-metal cluster";

/// Examples, for the help of the command.
pub const EXAMPLES: &str = "\
Examples:
  # In a DaemonSet, with the name of the node and the namespace from the downward API:
  ballast announcer --gossip-key-file /etc/ballast/gossip/keys

  # Without an open port; failures are detected through Leases, in up to 20 s:
  ballast announcer --no-gossip --gossip-key-file /etc/ballast/gossip/keys

  # On a node of a test cluster, with the current kubeconfig:
  ballast announcer --node-name node-1 --namespace default --no-gossip

Exit status:
  0  stopped by SIGTERM or SIGINT
  1  error
  2  invalid usage";

/// The command line of `ballast-announcer`, the program for nodes: two commands of `ballast`.
#[derive(Debug, Parser)]
#[command(name = "ballast-announcer", version, about = ABOUT, arg_required_else_help = true)]
pub struct Cli {
    /// The log.
    #[command(flatten)]
    pub log: LogArgs,

    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands of `ballast-announcer`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Announce the addresses of bare-metal Services from this node. One process runs on each node.
    // `extraArgs` of the chart can repeat a flag that the chart already sets.
    #[command(after_help = EXAMPLES, args_override_self = true)]
    Announcer(Box<AnnouncerArgs>),

    /// Ask the process of this container whether it is alive or ready (used by the chart).
    #[command(after_help = probe::EXAMPLES, hide = true)]
    Probe(ProbeArgs),
}

/// Flags of `ballast announcer`.
#[derive(Clone, Debug, Args)]
pub struct AnnouncerArgs {
    /// Name of the node on which this process runs.
    #[arg(long, env = "NODE_NAME", value_name = "NAME")]
    pub node_name: String,

    /// Namespace of the Leases of all announcers.
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAMESPACE")]
    pub namespace: String,

    /// Port on which announcers send each other messages, TCP and UDP. It is the same on all
    /// nodes.
    #[arg(
        long,
        env = "BALLAST_GOSSIP_PORT",
        default_value = "7947",
        value_name = "PORT",
        value_parser = clap::value_parser!(u16).range(1..)
    )]
    pub gossip_port: u16,

    /// File that contains the keys that seal these messages and the Announcer objects, one key of 32
    /// bytes per line, in base64 or as 64 hexadecimal digits. It is read again when it changes.
    #[arg(
        long,
        env = "BALLAST_GOSSIP_KEY_FILE",
        value_name = "FILE",
        required_unless_present = "no_gossip"
    )]
    pub gossip_key_file: Option<PathBuf>,

    /// Send no messages and open no port. Failures are detected through Leases alone, as if each
    /// class had `failureDetection: Lease`. Without a key file Announcer objects have no seals either:
    /// then whoever has the token of one announcer can move all addresses to its node.
    #[arg(long, env = "BALLAST_NO_GOSSIP")]
    pub no_gossip: bool,

    /// Address of /livez, /readyz and /metrics.
    #[arg(
        long,
        env = "BALLAST_ADMIN_ADDRESS",
        default_value = "127.0.0.1:8112",
        value_name = "ADDRESS"
    )]
    pub admin_address: SocketAddr,

    /// Unix socket that answers `ballast probe`. Probes over the network may be answered by the
    /// process that this one replaces, because both are on the host network.
    #[arg(long, env = "BALLAST_HEALTH_SOCKET", value_name = "FILE")]
    pub health_socket: Option<PathBuf>,
}

// === impl AnnouncerArgs ===

impl AnnouncerArgs {
    /// Checks the flags and turns them into what the announcer runs with. `incarnation` is a random
    /// number.
    pub fn into_options(self, incarnation: u64) -> Result<Options> {
        for (flag, value) in [
            ("--node-name", &self.node_name),
            ("--namespace", &self.namespace),
        ] {
            ensure!(!value.is_empty(), "{flag} is empty");
        }
        ensure!(
            self.node_name.len() <= LONGEST_NODE,
            "--node-name has more than {LONGEST_NODE} characters: it becomes part of the name of a Lease"
        );
        Ok(Options {
            node: NodeName::new(&self.node_name),
            namespace: self.namespace,
            incarnation,
            gossip_port: (!self.no_gossip).then_some(self.gossip_port),
            key_file: self.gossip_key_file,
            admin: self.admin_address,
            health_socket: self.health_socket,
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser};

    use super::*;

    #[derive(Debug, Parser)]
    #[command(name = "ballast", after_help = EXAMPLES, args_override_self = true)]
    struct Command {
        #[command(flatten)]
        args: AnnouncerArgs,
    }

    const NODE: [&str; 3] = ["ballast", "--node-name=a", "--namespace=b"];

    fn options(flags: &[&str]) -> Result<Options> {
        let command = Command::try_parse_from([&NODE, flags].concat())?;
        command.args.into_options(7)
    }

    #[test]
    fn flags_become_options() {
        Command::command().debug_assert();
        let defaults = options(&["--gossip-key-file=/keys"]).unwrap();
        assert_eq!(
            (
                defaults.node.as_str(),
                &*defaults.namespace,
                defaults.incarnation
            ),
            ("a", "b", 7)
        );
        assert_eq!(defaults.admin, "127.0.0.1:8112".parse().unwrap());
        let keys = Some(PathBuf::from("/keys"));
        assert_eq!(
            (defaults.gossip_port, defaults.key_file),
            (Some(7947), keys.clone())
        );
        for (leases_only, keys) in [
            (&["--no-gossip"][..], None),
            (&["--no-gossip", "--gossip-key-file=/keys"], keys),
        ] {
            let options = options(leases_only).unwrap();
            assert_eq!(
                (options.gossip_port, options.key_file),
                (None, keys),
                "{leases_only:?}"
            );
        }
        let port = [
            "--gossip-key-file=/keys",
            "--gossip-port=1",
            "--gossip-port=2",
        ];
        assert_eq!(options(&port).unwrap().gossip_port, Some(2));
    }

    #[test]
    fn wrong_flags_are_refused() {
        let long = format!("--node-name={}", "n".repeat(LONGEST_NODE + 1));
        for wrong in [
            &[][..],
            &["--gossip-key-file=/keys", "--gossip-port=0"],
            &["--no-gossip", "--node-name="],
            &["--no-gossip", "--namespace="],
            &["--no-gossip", &long],
        ] {
            assert!(options(wrong).is_err(), "{wrong:?}");
        }
        let longest = format!("--node-name={}", "n".repeat(LONGEST_NODE));
        options(&["--no-gossip", &longest]).unwrap();
    }

    /// `ballast announcer` and `ballast-announcer announcer` are the same.
    #[test]
    fn the_program_for_nodes_has_the_commands_of_ballast() {
        let help = |mut all: clap::Command, name: &str| {
            all.build();
            let command = all.find_subcommand_mut(name).unwrap();
            let text = command.render_long_help().to_string();
            text.replace("ballast-announcer ", "ballast ")
        };
        Cli::command().debug_assert();
        for name in ["announcer", "probe"] {
            let ballast = help(crate::args::Cli::command(), name);
            assert_eq!(help(Cli::command(), name), ballast);
            assert!(ballast.contains("Examples:"));
        }
    }

    #[test]
    fn every_flag_has_an_environment_variable() {
        for flag in Command::command().get_arguments() {
            let id = flag.get_id().as_str();
            assert!(id == "help" || flag.get_env().is_some(), "--{id}");
        }
    }
}
