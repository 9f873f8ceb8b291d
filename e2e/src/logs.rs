//! The data that a failed test leaves: logs, objects, and the hosts' network state.
//!
//! Synchronous, because it also runs while a panic unwinds.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::supervisor::thread_name;

/// The kinds of objects to collect.
const KINDS: &str = "nodes,services,endpointslices.discovery.k8s.io,pods,deployments,daemonsets,leases.coordination.k8s.io,events";

/// The number of lines of each list that [`tell`] prints.
const TOLD: usize = 30;

/// The maximum length of a log's last line that [`Collector::tell`] prints.
const WIDTH: usize = 300;

/// The kubectl commands that show the state of a cluster.
pub(crate) const HOW_IT_IS: [&[&str]; 2] = [
    &["get", "nodes,pods,services", "-A", "-o", "wide"],
    &[
        "get",
        "events",
        "-A",
        "--sort-by=.metadata.creationTimestamp",
    ],
];

/// Commands that show a host's network, and the file for each output.
const NETWORK: [(&str, &[&str]); 3] = [
    ("addresses", &["ip", "address"]),
    (
        "routes",
        &[
            "sh",
            "-c",
            "ip route show table all; ip -6 route show table all",
        ],
    ),
    ("nftables", &["nft", "list", "ruleset"]),
];

/// The inputs for collecting, which works even if the lab is half dead.
#[derive(Debug)]
pub(crate) struct Collector {
    pub(crate) dir: PathBuf,
    pub(crate) kubectl: PathBuf,
    pub(crate) kubeconfig: PathBuf,
    pub(crate) supervisor: i32,
}

impl Collector {
    pub(crate) fn collect(&self, into: &Path) -> Result<()> {
        std::fs::create_dir_all(into).with_context(|| format!("cannot make {}", into.display()))?;
        copy_tree(&self.dir.join("logs"), &into.join("logs"))?;
        let audit = self.dir.join("audit.log");
        if audit.exists() {
            std::fs::copy(audit, into.join("audit.log"))?;
        }
        for entry in std::fs::read_dir(&self.dir)?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with("node") && entry.path().join("pods").is_dir() {
                copy_tree(&entry.path().join("pods"), &into.join("pods").join(&name))?;
            }
        }
        self.kubectl(
            &["get", KINDS, "-A", "-o", "yaml"],
            &into.join("objects.yaml"),
        )?;
        self.kubectl(
            &["get", "events", "-A", "--sort-by=.lastTimestamp"],
            &into.join("events.txt"),
        )?;
        for (host, enter) in hosts(self.supervisor) {
            let folder = into.join("network").join(host);
            std::fs::create_dir_all(&folder)?;
            for (file, argv) in NETWORK {
                run(
                    Command::new("nsenter").args(&enter).arg("--").args(argv),
                    &folder.join(file),
                )?;
            }
        }
        Ok(())
    }

    /// Prints the state of the cluster to standard error: the only information in a CI log.
    pub(crate) fn tell(&self) {
        for arguments in HOW_IT_IS {
            let Ok(output) = self.command(arguments).stdin(Stdio::null()).output() else {
                continue;
            };
            let said = [output.stdout, output.stderr].concat();
            tell(arguments, &String::from_utf8_lossy(&said));
        }
        // The last words of an ended component give the reason; nothing in the cluster does.
        let logs = std::fs::read_dir(self.dir.join("logs")).into_iter();
        let logs: BTreeSet<PathBuf> = logs.flatten().flatten().map(|it| it.path()).collect();
        for path in logs {
            let log = std::fs::read(&path).unwrap_or_default();
            let log = String::from_utf8_lossy(&log);
            let last = log.lines().last().unwrap_or_default();
            let last: String = last.chars().take(WIDTH).collect();
            let name = path.file_stem().unwrap_or_default();
            eprintln!("{}: {last}", name.display());
        }
    }

    fn kubectl(&self, arguments: &[&str], out: &Path) -> Result<()> {
        run(&mut self.command(arguments), out)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.kubectl);
        command
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .arg("--request-timeout=10s")
            .args(arguments);
        command
    }
}

/// Arguments of `nsenter` that enter a host's namespaces from outside.
pub fn enter(supervisor: i32, host: &str) -> Option<Vec<String>> {
    let wanted = thread_name(host);
    let found = threads(supervisor)
        .into_iter()
        .find(|(name, _)| *name == wanted)?;
    Some(found.1)
}

fn hosts(supervisor: i32) -> Vec<(String, Vec<String>)> {
    let strip =
        |(name, enter): (String, _)| name.strip_prefix("h:").map(|host| (host.to_owned(), enter));
    threads(supervisor).into_iter().filter_map(strip).collect()
}

/// The threads of process 1's children by name. Each host is one of these threads.
fn threads(init: i32) -> Vec<(String, Vec<String>)> {
    let Ok(children) = std::fs::read_to_string(format!("/proc/{init}/task/{init}/children")) else {
        return vec![];
    };
    let mut found = Vec::new();
    for child in children.split_ascii_whitespace() {
        for task in std::fs::read_dir(format!("/proc/{child}/task"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let path = task.path();
            let Ok(name) = std::fs::read_to_string(path.join("comm")) else {
                continue;
            };
            let namespace = |kind: &str, name: &str| {
                format!("--{kind}={}", path.join("ns").join(name).display())
            };
            let enter = vec![
                namespace("net", "net"),
                namespace("mount", "mnt"),
                namespace("uts", "uts"),
                namespace("ipc", "ipc"),
                namespace("pid", "pid"),
            ];
            found.push((name.trim().to_owned(), enter));
        }
    }
    found
}

/// Prints the end of kubectl's output to standard error.
pub(crate) fn tell(arguments: &[&str], said: &str) {
    let lines: Vec<&str> = said.lines().collect();
    eprintln!("kubectl {}", arguments.join(" "));
    for line in &lines[lines.len().saturating_sub(TOLD)..] {
        eprintln!("  {line}");
    }
}

fn run(command: &mut Command, out: &Path) -> Result<()> {
    let file = std::fs::File::create(out)?;
    command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file);
    // A failed program has written the reason into the file.
    command
        .status()
        .with_context(|| format!("{} does not start", command.get_program().display()))?;
    Ok(())
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)
        .with_context(|| format!("no folder {}", from.display()))?
        .flatten()
    {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy_tree(&from, &to)?;
        } else if from.is_file() {
            std::fs::copy(from, to)?;
        }
    }
    Ok(())
}
