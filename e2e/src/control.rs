//! What the supervisor of a lab and everybody else say to each other.
//!
//! One Unix socket per lab, one JSON line each way, one request per connection. The
//! supervisor knows hosts (namespaces) and processes, and nothing of Kubernetes: what to
//! run, where and with which flags is decided on this side of the socket.
//!
//! The only connection that lives longer is [`Request::Own`]: until [`Request::Detach`]
//! was heard on another one, its end is the end of the lab.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

/// The host that everything hangs off: the bridge, the router, and the supervisor itself.
pub(crate) const HUB: &str = "hub";

/// A request to the supervisor.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub(crate) enum Request {
    /// Ties the lab's life to this connection.
    Own,
    /// Lets the lab outlive its owner.
    Detach,
    /// Makes a host: its namespaces, mounts, links.
    AddHost(HostSpec),
    /// Kills everything on a host and lets its namespaces go.
    RemoveHost {
        /// Which one.
        host: String,
    },
    /// Starts a process that the supervisor keeps track of.
    Spawn(ProcessSpec),
    /// Starts a process again that has ended, exactly as it was.
    Start {
        /// Which one.
        name: String,
    },
    /// Sends a signal.
    Kill {
        /// Which process.
        name: String,
        /// The signal's number.
        signal: i32,
    },
    /// Waits for the end of a process.
    Wait {
        /// Which process.
        name: String,
        /// How long at most.
        timeout_ms: u64,
    },
    /// Runs a command to its end.
    Exec(ExecSpec),
    /// What hosts and processes there are.
    Status,
    /// Ends the lab.
    Shutdown,
}

/// A host to be made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct HostSpec {
    /// Its name; also its host name.
    pub(crate) name: String,
    /// The cgroup that this host sees as the root of every hierarchy; the real root if empty.
    pub(crate) cgroup: String,
    /// Folders of this host that start empty and live in memory.
    pub(crate) scratch: Vec<PathBuf>,
    /// Folders of the machine that appear elsewhere on this host: (what, where).
    pub(crate) binds: Vec<(PathBuf, PathBuf)>,
    /// Lines for `ip -batch` on the host, which makes its own link to the hub (`{hub}` is the
    /// process id to reach the hub's network namespace by).
    pub(crate) links: Vec<String>,
    /// Lines for `ip -batch` on the hub, afterwards.
    pub(crate) hub_links: Vec<String>,
    /// Lines for `ip -batch` on the host, after those of the hub.
    pub(crate) routes: Vec<String>,
    /// Kernel settings, as paths below `/proc/sys`, made before the links.
    pub(crate) sysctls: Vec<(String, String)>,
}

/// A process to be kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ProcessSpec {
    /// Its name, unique in the lab; its output goes to `logs/NAME.log`.
    pub name: String,
    /// Where it runs.
    pub host: String,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Added to the environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
}

/// A command to be run to its end.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ExecSpec {
    /// Where it runs.
    pub(crate) host: String,
    /// Program and arguments.
    pub(crate) argv: Vec<String>,
    /// Fed to its standard input.
    #[serde(default)]
    pub(crate) stdin: String,
    /// It and all it started in its process group are killed after this time.
    pub(crate) timeout_ms: u64,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The exit code, unless a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
}

/// What a command said.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Output {
    /// How it ended.
    pub exit: Exit,
    /// Its standard output (invalid UTF-8 replaced).
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
    /// It was killed because its time was up.
    pub timed_out: bool,
}

/// One process of the lab.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ProcessStatus {
    /// What it is.
    pub spec: ProcessSpec,
    /// Its id inside the lab.
    pub pid: u32,
    /// How it ended; nothing while it runs.
    pub exit: Option<Exit>,
}

/// All that the supervisor knows.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Status {
    /// The names of the hosts.
    pub hosts: Vec<String>,
    /// The processes, ended ones too.
    pub processes: Vec<ProcessStatus>,
}

/// A supervisor's answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Reply {
    /// Done; the value depends on the request.
    Ok(serde_json::Value),
    /// Not done, and why.
    Error(String),
}

/// The other end of a supervisor's socket.
#[derive(Debug, Clone)]
pub(crate) struct Control {
    socket: PathBuf,
}

impl Exit {
    /// Whether it ended with code 0.
    pub fn success(self) -> bool {
        self.code == Some(0)
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.code, self.signal) {
            (Some(code), _) => write!(f, "exit code {code}"),
            (None, Some(signal)) => write!(f, "signal {signal}"),
            (None, None) => write!(f, "an unknown end"),
        }
    }
}

impl Output {
    /// The standard output of a command that succeeded.
    pub fn ok(self) -> Result<String> {
        if self.exit.success() {
            return Ok(self.stdout);
        }
        let why = if self.timed_out {
            "ran out of time".to_owned()
        } else {
            self.exit.to_string()
        };
        bail!("{why}: {}{}", self.stdout.trim(), self.stderr.trim())
    }

    /// Whether the command succeeded.
    pub fn success(&self) -> bool {
        self.exit.success()
    }
}

impl Control {
    /// The socket of the lab whose state is in `dir`.
    pub(crate) fn new(dir: &Path) -> Self {
        Self {
            socket: dir.join("ctl.sock"),
        }
    }

    async fn connect(&self) -> Result<UnixStream> {
        UnixStream::connect(&self.socket).await.with_context(|| {
            format!(
                "no lab answers at {}; see `lab list`, or start one with `lab up`",
                self.socket.display()
            )
        })
    }

    /// Sends a request and waits for its answer.
    pub(crate) async fn call<T: DeserializeOwned>(&self, request: &Request) -> Result<T> {
        let mut stream = self.connect().await?;
        send(&mut stream, request).await?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).await?;
        if line.is_empty() {
            bail!(
                "the lab ended while it was asked something; its log is logs/supervisor.log in the state folder"
            );
        }
        match serde_json::from_str(&line)? {
            Reply::Ok(value) => Ok(serde_json::from_value(value)?),
            Reply::Error(why) => bail!(why),
        }
    }

    /// Takes the lab: it ends when the returned connection does.
    pub(crate) async fn own(&self) -> Result<UnixStream> {
        let mut stream = self.connect().await?;
        send(&mut stream, &Request::Own).await?;
        let mut line = String::new();
        BufReader::new(&mut stream).read_line(&mut line).await?;
        Ok(stream)
    }

    /// Runs a command and returns what it said, whatever its exit code.
    pub(crate) async fn exec(
        &self,
        host: &str,
        argv: &[&str],
        timeout: Duration,
    ) -> Result<Output> {
        self.exec_with(host, argv, "", timeout).await
    }

    /// Like [`Control::exec`], with something on the command's standard input.
    pub(crate) async fn exec_with(
        &self,
        host: &str,
        argv: &[&str],
        stdin: &str,
        timeout: Duration,
    ) -> Result<Output> {
        self.call(&Request::Exec(ExecSpec {
            host: host.to_owned(),
            argv: argv.iter().map(|&arg| arg.to_owned()).collect(),
            stdin: stdin.to_owned(),
            timeout_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
        }))
        .await
        .with_context(|| format!("{} on {host}", argv.join(" ")))
    }
}

async fn send(stream: &mut UnixStream, request: &Request) -> Result<()> {
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    Ok(())
}
