//! Real kind clusters: the node image comes from a registry if one is reachable, and is built
//! otherwise.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use ballast_e2e::kind::{self, ClusterOptions, KindHost};
use ballast_e2e::{Families, ProxyMode};
use clap::{Args, Parser, Subcommand};

/// Real kind clusters. Uses this machine's Docker if it works and can pull kind's node image;
/// otherwise builds both and runs them in a network namespace without an uplink.
#[derive(Debug, Parser)]
#[command(
    name = "kind",
    version,
    after_help = "\
Examples:
  kind up try --workers 1 --families dual              a cluster; prints how to talk to it
  kind load --name try target/image/ballast.tar        import the image of `make image`
  kind x -- docker ps                                  run a command on the Docker host
  kind host stop                                       stop the host and its clusters

BALLAST_KIND=machine or build selects the Docker.
State is in /var/lib/ballast-kind (BALLAST_KIND_DIR), built programs are in .cache (BALLAST_CACHE)."
)]
struct Cli {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Debug, Args)]
struct On {
    /// The Docker host.
    #[arg(long = "host", default_value = "kind")]
    host: String,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Create a cluster; starts the Docker host if necessary.
    Up {
        #[command(flatten)]
        on: On,
        /// The cluster's name.
        name: String,
        /// Number of worker nodes.
        #[arg(long, default_value_t = 0)]
        workers: u8,
        /// IP families of pods and Services.
        #[arg(long, value_enum, default_value_t = Families::Ipv4)]
        families: Families,
        /// Mode of kube-proxy [default: iptables, as in kind].
        #[arg(long, value_enum)]
        proxy_mode: Option<ProxyMode>,
    },
    /// Run run a command on the Docker host: docker, kind, kubectl, curl, …
    X {
        #[command(flatten)]
        on: On,
        /// The command.
        #[arg(required = true, trailing_var_arg = true)]
        command: Vec<String>,
    },
    /// Import an image archive into all nodes of a cluster.
    Load {
        #[command(flatten)]
        on: On,
        /// The cluster.
        #[arg(long)]
        name: String,
        /// The archive.
        file: PathBuf,
    },
    /// Delete a cluster and keep its Docker host.
    Down {
        #[command(flatten)]
        on: On,
        /// The cluster.
        name: String,
    },
    /// Build the programs and the node image into the cache without starting a cluster.
    Build,
    /// A steady load, as tests send it from a Docker host: a line per request.
    #[command(hide = true)]
    Requests {
        /// The server.
        target: std::net::SocketAddr,
        /// Per second.
        #[arg(long)]
        rate: u32,
        /// For how long.
        #[arg(long)]
        seconds: u64,
    },
    /// Docker hosts.
    #[command(subcommand)]
    Host(Hosts),
}

#[derive(Debug, Subcommand)]
enum Hosts {
    /// Start a Docker host; builds missing programs.
    Start {
        /// Its name.
        #[arg(default_value = "kind")]
        name: String,
    },
    /// Stop a Docker host, running or not, and delete all its clusters. On this machine's Docker,
    /// delete only the clusters created here.
    Stop {
        /// Its name.
        #[arg(default_value = "kind")]
        name: String,
        /// All of them.
        #[arg(long)]
        all: bool,
    },
    /// List Docker hosts.
    List,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Cli::parse().command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kind: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(verb: Verb) -> Result<()> {
    match verb {
        Verb::Up {
            on,
            name,
            workers,
            families,
            proxy_mode,
        } => {
            let options = ClusterOptions {
                workers,
                families,
                proxy: proxy_mode,
            };
            up(&on.host, &name, options).await
        }
        Verb::X { on, command } => {
            let line = KindHost::running(&on.host).await?.command(&command)?;
            let (program, arguments) = line.split_first().context("no command given")?;
            let error = Command::new(program).args(arguments).exec();
            Err(error).with_context(|| format!("{program} does not start"))
        }
        Verb::Load { on, name, file } => {
            let host = KindHost::running(&on.host).await?;
            let file = file
                .canonicalize()
                .with_context(|| format!("no file {}", file.display()))?;
            host.find_cluster(&name).await?.load(&file).await
        }
        Verb::Down { on, name } => {
            let host = KindHost::running(&on.host).await?;
            host.find_cluster(&name).await?.delete().await
        }
        Verb::Build => kind::build().await,
        Verb::Requests {
            target,
            rate,
            seconds,
        } => {
            let time = std::time::Duration::from_secs(seconds);
            for request in kind::load::run(target, rate, time).await? {
                say(&format!("{request}\n"))?;
            }
            Ok(())
        }
        Verb::Host(Hosts::Start { name }) => KindHost::start(&name).await?.detach().await,
        Verb::Host(Hosts::Stop { all: true, .. }) => {
            stop(kind::list()?.into_iter().map(|(name, _)| name)).await
        }
        Verb::Host(Hosts::Stop { name, all: false }) => stop([name]).await,
        Verb::Host(Hosts::List) => kind::list()?
            .into_iter()
            .try_for_each(|(name, state)| say(&format!("{name:<20} {state}\n"))),
    }
}

async fn up(host: &str, name: &str, options: ClusterOptions) -> Result<()> {
    let (at, started) = match KindHost::attach(host).await? {
        Some(at) => (at, false),
        None => (KindHost::start(host).await?, true),
    };
    let made = at.cluster(name, options).await;
    let config = made.map(|cluster| cluster.kubeconfig().display().to_string());
    if started {
        at.detach().await?;
    }
    let config = config?;
    say(&format!(
        "kind x --host {host} -- kubectl --kubeconfig {config} get nodes\n"
    ))
}

/// Stops the other hosts even if one cannot be stopped.
async fn stop(hosts: impl IntoIterator<Item = String>) -> Result<()> {
    let mut failed = Ok(());
    for name in hosts {
        match kind::remove(&name).await {
            Ok(true) => eprintln!("the Docker host {name} is gone"),
            Ok(false) => eprintln!("there is no Docker host {name}"),
            Err(error) => failed = failed.and(Err(error.context(name))),
        }
    }
    failed
}

fn say(text: &str) -> Result<()> {
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(())
}
