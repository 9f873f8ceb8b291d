//! `make test-long`: the `[Feature:LoadBalancer]` tests of Kubernetes' own end-to-end
//! suite, against Ballast on a lab of three nodes: with the mock cloud, or with addresses that
//! announcers answer for.
//!
//! The suite runs on the client behind the router: some of its tests require a client address
//! outside the nodes' network. The lab is IPv4 only, because the suite writes IPv6 addresses of
//! nodes into URLs without brackets. The suite's programs are built from the same Go module as
//! the lab's. The exit status is the suite's.
//!
//! One test of each provider is skipped by default. With the mock cloud it is the one that needs a
//! load balancer for a Service without node ports, because that cloud reaches nodes only through
//! node ports. With `l2` it is the one that switches session affinity off with the policy Local and
//! then expects answers of several pods: one node answers for the address, and it has one of them.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use ballast_e2e::failover::announcers::Announcers;
use ballast_e2e::go::run_go;
use ballast_e2e::installation::Installation;
use ballast_e2e::{Families, Host, Lab, LabOptions, Progress, Reach};
use clap::{Parser, ValueEnum};

const NODES: u8 = 3;
const SUITE: &str = "upstream";
/// It contains two tests of a quarter of an hour each.
const LIMIT: Duration = Duration::from_mins(100);

/// Runs the upstream suite of Kubernetes against Ballast.
#[derive(Debug, Parser)]
#[command(
    after_help = "Examples:\n  upstream\n  upstream --provider l2\n  upstream --focus 'UDP service'\n  upstream --skip 'rolling update'"
)]
struct Args {
    /// Where load balancers come from.
    #[arg(long, value_enum, default_value_t = Provider::Mock)]
    provider: Provider,

    /// Only tests whose names match.
    #[arg(long, default_value = r"Feature:LoadBalancer\]", value_name = "REGEX")]
    focus: String,

    /// Skip tests whose names match; "" skips none. Default: the one that the provider cannot
    /// pass.
    #[arg(long, value_name = "REGEX")]
    skip: Option<String>,

    /// Tests at once.
    #[arg(long, default_value = "3", value_name = "NUMBER")]
    procs: u8,
}

/// A provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Provider {
    /// The mock cloud.
    Mock,
    /// Announcers on the nodes.
    L2,
}

/// The default class of the provider `l2`, and its pool.
const L2_CLASS: &str = "
{apiVersion: ballast.dev/v1alpha1, kind: LoadBalancerClass, metadata: {name: local}, spec: {default: true, l2: {}}}
---
{apiVersion: ballast.dev/v1alpha1, kind: AddressPool, metadata: {name: local}, spec: {addresses: [10.89.0.120-10.89.0.249]}}
";

#[tokio::main]
async fn main() -> ExitCode {
    match run(&Args::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("upstream: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> Result<bool> {
    let progress = Progress::new(true);
    let programs = build(progress)?;
    let lab = Lab::start(LabOptions {
        name: SUITE.to_owned(),
        nodes: NODES,
        families: Families::Ipv4,
        wait_dns: true,
        audit: false,
        ..LabOptions::default()
    })
    .await?;
    let ballast = Installation::new(&lab).await?;
    ballast.start_controller("ballast-1", &[]).await?;
    args.provider.start(&lab, &ballast).await?;
    progress.say("running the suite");
    let kubeconfig = lab.kubeconfig_for_user("upstream", &["system:masters"], Reach::Inside)?;
    let command = suite(args, &programs, &lab.program("kubectl"), &kubeconfig);
    lab.spawn(
        SUITE,
        Host::FarClient,
        command,
        &[("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")],
    )
    .await?;
    let doing = || "the suite runs; it prints a test when the test ends".to_owned();
    let passed = progress.while_waiting(doing, follow(&lab)).await?;
    lab.down().await?;
    progress.say("done");
    Ok(passed)
}

impl Provider {
    /// The name of the test that it cannot pass.
    fn cannot(self) -> &'static str {
        match self {
            Self::Mock => "without NodePort",
            Self::L2 => "switch session affinity for LoadBalancer service with Local",
        }
    }

    async fn start(self, lab: &Lab, ballast: &Installation<'_>) -> Result<()> {
        match self {
            Self::Mock => {
                ballast.start_cloud(&[]).await?;
                ballast.mock_class("local", "default: true").await
            }
            Self::L2 => {
                let announcers = Announcers::new(lab, &[])?;
                let nodes: Vec<Host> = lab.nodes().into_iter().map(Host::Node).collect();
                for &node in &nodes {
                    announcers.start(node).await?;
                }
                lab.apply(L2_CLASS).await?;
                for &node in &nodes {
                    announcers.ready(node).await?;
                }
                Ok(())
            }
        }
    }
}

fn suite(args: &Args, programs: &Path, kubectl: &Path, kubeconfig: &Path) -> Vec<String> {
    let mut command = vec![
        programs.join("ginkgo").display().to_string(),
        format!("--procs={}", args.procs),
        "--timeout=95m".to_owned(),
        "--no-color".to_owned(),
        format!("--focus={}", args.focus),
    ];
    let skip = args.skip.as_deref().unwrap_or(args.provider.cannot());
    if !skip.is_empty() {
        command.push(format!("--skip={skip}"));
    }
    command.extend([
        programs.join("e2e.test").display().to_string(),
        "--".to_owned(),
        "--provider=skeleton".to_owned(),
        format!("--kubeconfig={}", kubeconfig.display()),
        format!("--kubectl-path={}", kubectl.display()),
        format!("--num-nodes={NODES}"),
        "--dump-logs-on-failure=false".to_owned(),
        "--disable-log-dump".to_owned(),
    ]);
    command
}

/// Prints the output of the suite until it ends.
async fn follow(lab: &Lab) -> Result<bool> {
    let start = Instant::now();
    let mut printed = 0;
    loop {
        let ended = lab.wait_exit(SUITE, Duration::from_secs(2)).await;
        let log = lab.log(SUITE)?;
        print!("{}", log.get(printed..).unwrap_or_default());
        printed = log.len();
        if let Ok(exit) = ended {
            return Ok(exit.code == Some(0));
        }
        ensure!(start.elapsed() < LIMIT, "the suite does not end");
    }
}

/// Builds the suite and its runner together with the cluster's programs.
fn build(progress: Progress) -> Result<PathBuf> {
    let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("kubernetes");
    let folder = ballast_e2e::cache::root().join("upstream");
    std::fs::create_dir_all(&folder)?;
    let folder = folder.canonicalize()?;
    progress.say("building the suite (two minutes if Go's own cache is cold)");
    for arguments in [
        [
            "test",
            "-c",
            "-trimpath",
            "-o",
            "e2e.test",
            "k8s.io/kubernetes/test/e2e",
        ]
        .as_slice(),
        [
            "build",
            "-trimpath",
            "-o",
            "ginkgo",
            "github.com/onsi/ginkgo/v2/ginkgo",
        ]
        .as_slice(),
    ] {
        let mut arguments: Vec<String> = arguments.iter().map(|&word| word.to_owned()).collect();
        let output = arguments.len() - 2;
        let program = arguments[output].clone();
        arguments[output] = folder.join(&program).display().to_string();
        let mut command = Command::new("go");
        command.args(&arguments);
        command.current_dir(&module).env("CGO_ENABLED", "0");
        let what = format!("go {}", arguments.join(" "));
        run_go(command, &what, || format!("building {program}"), progress)?;
    }
    Ok(folder)
}
