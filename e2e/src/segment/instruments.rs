//! The jobs as a test uses them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::connect::{Attempt, TIMEOUT};
use super::converse::Turn;
use super::frame::Frame;
use super::moment::Moment;
use crate::eventually::eventually;
use crate::launch::program;
use crate::net::Host;
use crate::{Lab, Signal};

/// The port of [`Lab::serve`].
pub const SERVER_PORT: u16 = 8080;

/// How long a job may take to start, and an observation to be written.
const SOON: Duration = Duration::from_mins(1);

/// An address of the segment that no host has.
const NOBODY: &str = "10.89.0.254";

/// How a client connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visitor {
    /// Every 10 ms, by the host's neighbour table.
    Regular,
    /// Every 20 ms, each time after the address was removed from the host's neighbour table.
    Newcomer,
}

/// A job of this run; it ends with the lab.
struct Running<'a> {
    lab: &'a Lab,
    name: String,
}

/// Captured frames.
#[derive(Debug)]
pub struct Capture<'a>(Running<'a>);

/// A client that connects again and again.
#[derive(Debug)]
pub struct Visits<'a>(Running<'a>);

/// A client with one long connection.
#[derive(Debug)]
pub struct Conversation<'a>(Running<'a>);

// === impl Running ===

impl std::fmt::Debug for Running<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

impl<'a> Running<'a> {
    async fn start(lab: &'a Lab, on: Host, job: &str, flags: &[&str]) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let name = format!("{job}-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let program = program()?.display().to_string();
        let argv = [program.as_str(), "inside", job].into_iter();
        lab.spawn(&name, on, argv.chain(flags.iter().copied()), &[])
            .await?;
        Ok(Self { lab, name })
    }

    async fn ready(self) -> Result<Self> {
        eventually(SOON, || async {
            let log = self.lab.log(&self.name)?;
            ensure!(log.lines().any(|line| line == "ready"), "it said: {log}");
            Ok(())
        })
        .await
        .with_context(|| format!("{} does not get ready", self.name))?;
        Ok(self)
    }

    /// All complete lines of JSON so far. A job that has failed is an error.
    async fn lines<T: DeserializeOwned>(&self) -> Result<Vec<T>> {
        if let Ok(exit) = self.lab.wait_exit(&self.name, Duration::ZERO).await
            && !exit.success()
            && exit.signal.is_none()
        {
            let log = self.lab.log(&self.name)?;
            bail!("{} ended with {exit}: {log}", self.name);
        }
        let log = self.lab.log(&self.name)?;
        let complete = log.rsplit_once('\n').map_or("", |(lines, _)| lines);
        let lines = complete.lines().filter(|line| line.starts_with('{'));
        lines
            .map(|line| serde_json::from_str(line).with_context(|| line.to_owned()))
            .collect()
    }

    async fn end(&self) -> Result<()> {
        self.lab.stop(&self.name).await.map(drop)
    }
}

impl Lab {
    /// Captures the neighbour messages that hosts send, and those that these hosts get, from now
    /// on.
    pub async fn capture(&self, delivered_to: &[Host]) -> Result<Capture<'_>> {
        let mut flags = vec![];
        for host in delivered_to {
            flags.extend(["--delivered-to".to_owned(), host.name()]);
        }
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let running = Running::start(self, Host::Hub, "capture", &flags).await?;
        Ok(Capture(running.ready().await?))
    }

    /// Lets a host connect to [`Lab::serve`]'s kind of server again and again.
    pub async fn visit(&self, from: Host, to: SocketAddr, how: Visitor) -> Result<Visits<'_>> {
        let to = to.to_string();
        let mut flags = vec!["--to", &to];
        if how == Visitor::Newcomer {
            flags.extend(["--newcomer", "--every", "20"]);
        }
        let running = Running::start(self, from, "connect", &flags).await?;
        Ok(Visits(running.ready().await?))
    }

    /// Lets a host talk over one connection to [`Lab::serve`]'s kind of server, and waits until
    /// it is answered.
    pub async fn converse(&self, from: Host, to: SocketAddr) -> Result<Conversation<'_>> {
        let flags = ["--to", &to.to_string()];
        let running = Running::start(self, from, "converse", &flags).await?;
        let conversation = Conversation(running);
        eventually(SOON, || async {
            let turns = conversation.turns().await?;
            let answered = turns.iter().any(|it| matches!(it, Turn::Slowest { .. }));
            ensure!(answered, "no answer: {turns:?}");
            Ok(())
        })
        .await?;
        Ok(conversation)
    }

    /// Answers connections on a host at [`SERVER_PORT`]: the first line is `says`, or else the
    /// client's address; then it sends back what it gets.
    pub async fn serve(&self, on: Host, says: Option<&str>) -> Result<()> {
        let port = SERVER_PORT.to_string();
        let mut flags = vec!["--port", &port];
        if let Some(says) = says {
            flags.extend(["--says", says]);
        }
        let running = Running::start(self, on, "serve", &flags).await?;
        running.ready().await.map(drop)
    }

    /// Answers ARP requests for an address by a thread that does nothing else, and returns the
    /// name of its process.
    pub async fn echo_arp(&self, on: Host, address: Ipv4Addr) -> Result<String> {
        let flags = ["--address", &address.to_string()];
        let running = Running::start(self, on, "echo", &flags).await?;
        Ok(running.ready().await?.name)
    }

    /// The MAC address of a host on the segment.
    pub async fn mac(&self, host: Host) -> Result<String> {
        let file = match host {
            Host::Hub => "/sys/class/net/br0/address",
            _ => "/sys/class/net/eth0/address",
        };
        let text = self.exec(host, ["cat", file]).await?.ok()?;
        Ok(text.trim().to_owned())
    }

    /// The MAC address that a host's neighbour table has for an address.
    pub async fn neighbour(&self, of: Host, address: IpAddr) -> Result<Option<String>> {
        let text = address.to_string();
        let argv = ["ip", "-json", "neighbour", "show", "to", &text];
        let said = self.exec(of, argv).await?.ok()?;
        let entries: Value = serde_json::from_str(&said)?;
        Ok(entries[0]["lladdr"].as_str().map(str::to_owned))
    }
}

// === impl Capture ===

impl Capture<'_> {
    /// The frames so far, in order. Waits for one that is sent later than now.
    pub async fn frames(&self) -> Result<Vec<Frame>> {
        let now = Moment::now();
        eventually(SOON, || async {
            let frames: Vec<Frame> = self.0.lines().await?;
            if frames.last().is_some_and(|last| last.at > now) {
                return Ok(frames);
            }
            self.ask_for_nobody().await?;
            bail!("no frame since then");
        })
        .await
    }

    /// The hub sends an ARP request.
    async fn ask_for_nobody(&self) -> Result<()> {
        let send = format!("exec 3>/dev/udp/{NOBODY}/9; echo >&3");
        let argv = ["bash", "-c", &send];
        self.0.lab.exec(Host::Hub, argv).await.map(drop)
    }

    /// Stops it.
    pub async fn stop(self) -> Result<()> {
        self.0.end().await
    }
}

// === impl Visits ===

impl Visits<'_> {
    /// All attempts that began before a moment, which may be in the future. Waits for their
    /// outcome.
    pub async fn until(&self, moment: Moment) -> Result<Vec<Attempt>> {
        // An attempt that began this much later has an outcome only after the earlier ones.
        let later = moment + TIMEOUT + Duration::from_millis(100);
        let left = later.since(Moment::now());
        tokio::time::sleep(left).await;
        let mut attempts: Vec<Attempt> = eventually(SOON, || async {
            let attempts: Vec<Attempt> = self.0.lines().await?;
            ensure!(
                attempts.iter().any(|it| it.end >= later),
                "{} does not connect any more",
                self.0.name
            );
            Ok(attempts)
        })
        .await?;
        attempts.retain(|it| it.start < moment);
        Ok(attempts)
    }

    /// Stops it and returns all attempts.
    pub async fn stop(self) -> Result<Vec<Attempt>> {
        self.0.lab.kill(&self.0.name, Signal::SIGTERM).await?;
        let exit = self.0.lab.wait_exit(&self.0.name, SOON).await?;
        ensure!(exit.success(), "{}: {exit}", self.0.name);
        self.0.lines().await
    }
}

// === impl Conversation ===

impl Conversation<'_> {
    /// What has happened so far.
    pub async fn turns(&self) -> Result<Vec<Turn>> {
        self.0.lines().await
    }

    /// How often the connection was lost so far.
    pub async fn lost(&self) -> Result<usize> {
        let turns = self.turns().await?;
        Ok(turns
            .iter()
            .filter(|it| matches!(it, Turn::Lost { .. }))
            .count())
    }

    /// Stops it.
    pub async fn stop(self) -> Result<()> {
        self.0.end().await
    }
}
