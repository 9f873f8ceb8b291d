//! The command line of the lab; see `lab --help`.
//!
//! Exit codes: 0 success, 1 failure, 2 invalid usage, 3 no such lab. `lab exec` exits with the
//! code of its command.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use ballast_e2e::metallb::MetalLb;
use ballast_e2e::segment::inside::{self, Job};
use ballast_e2e::state::{self, Found, Place};
use ballast_e2e::{Binaries, Families, Host, Lab, LabOptions, Progress, ProxyMode, supervisor};
use clap::{Args, Parser, Subcommand};

/// Real Kubernetes on one machine: each node is a network namespace without access to other networks.
#[derive(Debug, Parser)]
#[command(name = "lab", after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Verb,
}

const EXAMPLES: &str = "Examples:
  lab up --nodes 3                             three nodes, IPv4 and IPv6
  export KUBECONFIG=$(lab kubeconfig)          then use kubectl as usual
  lab exec client -- curl http://node1:30080   from a machine beside the nodes
  lab exec node1 -- nft list ruleset           the rules of kube-proxy
  lab down

Hosts: hub, control-plane, cloud, client, far-client, node1, node2, ...
State is kept in /var/lib/ballast-lab (BALLAST_LAB_DIR), built programs in .cache (BALLAST_CACHE).
Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no such lab.";

#[derive(Debug, Subcommand)]
enum Verb {
    /// Start a lab and wait until its nodes are Ready.
    Up(Up),
    /// Stop a lab and remove everything it created.
    Down {
        #[command(flatten)]
        which: Which,
        /// Stop every lab.
        #[arg(long, conflicts_with = "name")]
        all: bool,
    },
    /// List labs.
    List,
    /// Print the path of the administrator's kubeconfig.
    Kubeconfig(Which),
    /// Run a command on a host of the lab, with this terminal.
    #[command(
        after_help = "Examples:\n  lab exec client -- curl -s http://node1:30080\n  lab exec node1 -- bash"
    )]
    Exec {
        #[command(flatten)]
        which: Which,
        /// hub, control-plane, cloud, client, far-client, or nodeN.
        host: String,
        /// The command and its arguments.
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Run the cluster's own kubectl.
    Kubectl {
        #[command(flatten)]
        which: Which,
        /// Arguments for kubectl.
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Import container images into the nodes.
    #[command(subcommand)]
    Images(Images),
    /// Add or remove a node.
    #[command(subcommand)]
    Node(Nodes),
    /// Print the log of a component or process; without a name, list them.
    Logs {
        #[command(flatten)]
        which: Which,
        /// kube-apiserver, kubelet-1, kube-proxy-2, containerd-1, supervisor, ...
        component: Option<String>,
    },
    /// Write logs, events, objects and network state into a folder.
    Collect {
        #[command(flatten)]
        which: Which,
        /// The folder.
        into: PathBuf,
    },
    /// Build the programs and images into the cache without starting a lab.
    Build {
        /// Build `MetalLB` instead, for the test of a migration.
        #[arg(long)]
        metallb: bool,
    },
    /// The jobs of tests on the lab's hosts.
    #[command(subcommand, hide = true)]
    Inside(Job),
    #[command(name = "supervisor-init", hide = true)]
    Init { dir: PathBuf, target: String },
    #[command(name = "supervisor", hide = true)]
    Supervise { dir: PathBuf, target: String },
}

#[derive(Debug, Args)]
struct Which {
    /// The lab's name.
    #[arg(long, default_value = "lab", env = "BALLAST_LAB", value_parser = fit)]
    name: String,
}

/// An invalid name is invalid usage, not a failure.
fn fit(name: &str) -> Result<String> {
    Place::new(name).map(|place| place.name().to_owned())
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  lab up --nodes 2\n  lab up --name other --nodes 1 --ip-families ipv4 --proxy-mode iptables"
)]
struct Up {
    #[command(flatten)]
    which: Which,
    /// Number of nodes.
    #[arg(long, default_value_t = 2)]
    nodes: u8,
    /// IP families of nodes, pods and Services.
    #[arg(long, value_enum, default_value_t)]
    ip_families: Families,
    /// Mode of kube-proxy.
    #[arg(long, value_enum, default_value_t)]
    proxy_mode: ProxyMode,
    /// Disable the audit log of writes.
    #[arg(long)]
    no_audit: bool,
    /// Do not wait until kube-dns is ready.
    #[arg(long)]
    no_dns_wait: bool,
    /// Run until interrupted; the lab stops when this command stops for any reason.
    #[arg(long)]
    foreground: bool,
}

#[derive(Debug, Subcommand)]
enum Images {
    /// Import archives (OCI layout, or `docker save`).
    Import {
        #[command(flatten)]
        which: Which,
        /// The archives.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
enum Nodes {
    /// Add the next node, and wait until it is Ready.
    Add(Which),
    /// Take a node away, as a power cut would.
    Remove {
        #[command(flatten)]
        which: Which,
        /// nodeN.
        node: String,
    },
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        // These create their own runtime, or none: process 1 must have a single thread.
        Verb::Init { dir, target } => supervisor::init(&dir, &target).map(|()| ExitCode::SUCCESS),
        Verb::Supervise { dir, target } => {
            supervisor::supervise(&dir, &target).map(|()| ExitCode::SUCCESS)
        }
        Verb::Inside(job) => inside::run(job).map(|()| ExitCode::SUCCESS),
        verb => tokio::runtime::Runtime::new()
            .map_err(Into::into)
            .and_then(|runtime| runtime.block_on(run(verb))),
    };
    result.unwrap_or_else(|error| {
        eprintln!("lab: {error:#}");
        ExitCode::from(if error.is::<NoLab>() { 3 } else { 1 })
    })
}

/// The only failure that scripts need to tell from others.
#[derive(Debug)]
struct NoLab(String);

impl std::fmt::Display for NoLab {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "there is no lab {0}; start it with `lab up --name {0}`, or see `lab list`",
            self.0
        )
    }
}

impl std::error::Error for NoLab {}

async fn run(verb: Verb) -> Result<ExitCode> {
    match verb {
        Verb::Up(up) => return start(up).await,
        Verb::Down { which, all } => down(&which, all)?,
        Verb::List => list()?,
        Verb::Kubeconfig(which) => {
            running(&which)?;
            say(&format!(
                "{}\n",
                Place::new(&which.name)?
                    .dir()
                    .join("pki/admin.kubeconfig")
                    .display()
            ))?;
        }
        Verb::Exec {
            which,
            host,
            command,
        } => return exec(&which, &host, &command),
        Verb::Kubectl { which, arguments } => {
            let record = running(&which)?;
            let config = Place::new(&which.name)?.dir().join("pki/admin.kubeconfig");
            let error = Command::new(record.cache.join("bin/kubectl"))
                .env("KUBECONFIG", config)
                .args(arguments)
                .exec();
            return Err(error).context("kubectl does not start");
        }
        Verb::Images(Images::Import { which, files }) => {
            attach(&which).await?.import_images(&files).await?;
        }
        Verb::Node(Nodes::Add(which)) => {
            let node = attach(&which).await?.add_node().await?;
            say(&format!("{}\n", node.name()))?;
        }
        Verb::Node(Nodes::Remove { which, node }) => {
            let host =
                Host::named(&node).with_context(|| format!("{node} is not the name of a node"))?;
            attach(&which).await?.remove_node(host).await?;
        }
        Verb::Logs { which, component } => logs(&which, component.as_deref()).await?,
        Verb::Collect { which, into } => attach(&which).await?.collect_logs(&into).await?,
        Verb::Build { metallb: true } => {
            tokio::task::spawn_blocking(|| MetalLb::ensure(Progress::new(true))).await??;
        }
        Verb::Build { metallb: false } => {
            let cache =
                tokio::task::spawn_blocking(|| Binaries::ensure(Progress::new(true))).await??;
            say(&format!("{}\n", cache.dir().display()))?;
        }
        Verb::Inside(_) | Verb::Init { .. } | Verb::Supervise { .. } => {
            bail!("only a lab itself runs this")
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn start(up: Up) -> Result<ExitCode> {
    let options = LabOptions {
        name: up.which.name,
        nodes: up.nodes,
        families: up.ip_families,
        proxy: up.proxy_mode,
        audit: !up.no_audit,
        die_with_owner: up.foreground,
        progress: true,
        wait_dns: !up.no_dns_wait && up.nodes > 0,
        ..LabOptions::default()
    };
    let lab = Lab::start(options).await?;
    eprintln!("export KUBECONFIG={}", lab.kubeconfig().display());
    if up.foreground {
        eprintln!("the lab runs until this command ends (Ctrl-C)");
        tokio::signal::ctrl_c().await?;
        lab.down().await?;
    }
    Ok(ExitCode::SUCCESS)
}

fn running(which: &Which) -> Result<state::Record> {
    match Place::new(&which.name)?.find()? {
        Found::Running(record) => Ok(record),
        Found::Dead | Found::Nothing => Err(NoLab(which.name.clone()).into()),
    }
}

async fn attach(which: &Which) -> Result<Lab> {
    running(which)?;
    Lab::attach(&which.name).await
}

fn down(which: &Which, all: bool) -> Result<()> {
    let places = if all {
        state::all()?
    } else {
        vec![Place::new(&which.name)?]
    };
    for place in places {
        let _lock = place.lock()?;
        if place.destroy()? {
            eprintln!("lab {} is gone", place.name());
        } else if !all {
            eprintln!("there is no lab {}", place.name());
        }
    }
    Ok(())
}

fn list() -> Result<()> {
    let mut text = format!(
        "{:<20} {:<8} {:<9} {:<9} {}\n",
        "NAME", "STATE", "FAMILIES", "PROXY", "API SERVER"
    );
    for place in state::all()? {
        let line = match place.find()? {
            Found::Running(record) => format!(
                "{:<20} {:<8} {:<9} {:<9} https://127.0.0.1:{}\n",
                place.name(),
                if record.ready { "up" } else { "starting" },
                format!("{:?}", record.families).to_lowercase(),
                format!("{:?}", record.proxy).to_lowercase(),
                record.port
            ),
            Found::Dead => format!(
                "{:<20} {:<8} `lab down --name {}` removes what is left\n",
                place.name(),
                "dead",
                place.name()
            ),
            Found::Nothing => continue,
        };
        text.push_str(&line);
    }
    say(&text)
}

/// Replaces this process with the command, so that the command has its terminal, signals and
/// exit code.
fn exec(which: &Which, host: &str, command: &[String]) -> Result<ExitCode> {
    let record = running(which)?;
    let enter = ballast_e2e::enter(record.pid, host).with_context(|| {
        format!("lab {} has no host {host}; there are hub, control-plane, cloud, client, far-client and nodeN", which.name)
    })?;
    let error = Command::new("nsenter")
        .args(enter)
        .arg("--")
        .args(command)
        .exec();
    Err(error).context("nsenter does not start; apt-get install util-linux")
}

async fn logs(which: &Which, component: Option<&str>) -> Result<()> {
    let place = Place::new(&which.name)?;
    if matches!(place.find()?, Found::Nothing) {
        return Err(NoLab(which.name.clone()).into());
    }
    let folder = place.dir().join("logs");
    let Some(component) = component else {
        let mut names: Vec<String> = std::fs::read_dir(&folder)?
            .flatten()
            .filter_map(|file| Some(file.file_name().to_str()?.strip_suffix(".log")?.to_owned()))
            .collect();
        names.sort();
        return say(&format!("{}\n", names.join("\n")));
    };
    let path = folder.join(format!("{component}.log"));
    let log = tokio::fs::read(&path)
        .await
        .with_context(|| format!("there is no log of {component}; `lab logs` lists the logs"))?;
    std::io::stdout().write_all(&log)?;
    Ok(())
}

fn say(text: &str) -> Result<()> {
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(())
}
