//! The protocol between a lab's supervisor and its clients.
//!
//! One Unix socket per lab, one JSON line in each direction, one request per connection. The
//! supervisor knows hosts (namespaces) and processes, but nothing about Kubernetes: its clients
//! decide what to run, where and with which flags.
//!
//! Only the connection of [`Request::Own`] stays open: the lab ends with it, unless
//! [`Request::Detach`] arrived on another connection.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

/// The host that connects all others: the bridge, the router, and the supervisor itself.
pub(crate) const HUB: &str = "hub";

/// A request to the supervisor.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub(crate) enum Request {
    /// Ties the lab's life to this connection.
    Own,
    /// Lets the lab outlive its owner.
    Detach,
    /// Creates a host: its namespaces, mounts and links.
    AddHost(HostSpec),
    /// Kills everything on a host and removes its namespaces.
    RemoveHost {
        /// Which one.
        host: String,
    },
    /// Sends a signal to every process on a host, its containers included.
    SignalHost {
        /// Which host.
        host: String,
        /// The signal's number.
        signal: i32,
    },
    /// Starts a process that the supervisor keeps track of.
    Spawn(ProcessSpec),
    /// Restarts a process that has ended, with the same arguments.
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
    /// Waits until a process ends.
    Wait {
        /// Which process.
        name: String,
        /// The longest time to wait.
        timeout_ms: u64,
    },
    /// Runs a command to its end.
    Exec(ExecSpec),
    /// Lists hosts and processes.
    Status,
    /// Ends the lab.
    Shutdown,
}

/// A host to create.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct HostSpec {
    /// Its name; also its host name.
    pub(crate) name: String,
    /// The cgroup that this host sees as the root of every hierarchy; the real root if empty.
    pub(crate) cgroup: String,
    /// Folders of this host that start empty and live in memory.
    pub(crate) scratch: Vec<PathBuf>,
    /// Folders of the machine that appear on this host under another path: (source, target).
    pub(crate) binds: Vec<(PathBuf, PathBuf)>,
    /// Lines for `ip -batch` on the host, which makes its own link to the hub (`{hub}` is the
    /// process id to reach the hub's network namespace by).
    pub(crate) links: Vec<String>,
    /// Lines for `ip -batch` on the hub, after those of the host.
    pub(crate) hub_links: Vec<String>,
    /// Lines for `ip -batch` on the host, after those of the hub.
    pub(crate) routes: Vec<String>,
    /// Kernel settings, as paths below `/proc/sys`, made before the links.
    pub(crate) sysctls: Vec<(String, String)>,
}

/// A process that the supervisor keeps.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ProcessSpec {
    /// Its name, unique in the lab; its output goes to `logs/NAME.log`.
    pub name: String,
    /// Its host.
    pub host: String,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Added to the environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
}

/// A command that runs to its end.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ExecSpec {
    /// Its host.
    pub(crate) host: String,
    /// Program and arguments.
    pub(crate) argv: Vec<String>,
    /// The content of its standard input.
    #[serde(default)]
    pub(crate) stdin: String,
    /// The time after which it and its process group are killed.
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

/// The result of a command.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Output {
    /// How it ended.
    pub exit: Exit,
    /// Its standard output (invalid UTF-8 replaced).
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
    /// Whether it was killed at its time-out.
    pub timed_out: bool,
}

/// One process of the lab.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ProcessStatus {
    /// Its specification.
    pub spec: ProcessSpec,
    /// Its id inside the lab.
    pub pid: u32,
    /// How it ended; `None` while it runs.
    pub exit: Option<Exit>,
}

/// The state of the supervisor.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Status {
    /// The names of the hosts.
    pub hosts: Vec<String>,
    /// All processes, including ended ones.
    pub processes: Vec<ProcessStatus>,
}

/// A supervisor's answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Reply {
    /// Success; the value depends on the request.
    Ok(serde_json::Value),
    /// Failure, with the reason.
    Error(String),
}

/// A client of a supervisor's socket.
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

    /// Takes ownership of the lab: it ends when the returned connection does.
    pub(crate) async fn own(&self) -> Result<UnixStream> {
        let mut stream = self.connect().await?;
        send(&mut stream, &Request::Own).await?;
        let mut line = String::new();
        BufReader::new(&mut stream).read_line(&mut line).await?;
        Ok(stream)
    }

    /// Runs a command and returns its output, whatever its exit code.
    pub(crate) async fn exec(
        &self,
        host: &str,
        argv: &[&str],
        timeout: Duration,
    ) -> Result<Output> {
        self.exec_with(host, argv, "", timeout).await
    }

    /// Like [`Control::exec`], with content for the command's standard input.
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
