//! The job of a client that connects again and again, each time with a new connection.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::TryStreamExt as _;
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage};
use serde::{Deserialize, Serialize};
use socket2::SockRef;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::moment::Moment;

/// The pause after an attempt whose MAC address was forgotten before the answer came.
const AGAIN: Duration = Duration::from_millis(10);
/// An attempt that is answered later counts as not answered.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);
/// The time-out of one attempt: a kernel repeats a first packet after 1 s, and a late answer tells a lost packet
/// from a connection that nobody serves.
pub(super) const TIMEOUT: Duration = Duration::from_millis(1_500);
/// The interface of every host on the segment.
const INTERFACE: &str = "eth0";

/// How to connect.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Where to.
    #[arg(long)]
    to: SocketAddr,
    /// The pause between two starts, in milliseconds.
    #[arg(long, default_value_t = 10)]
    every: u64,
    /// Forget the MAC address before every attempt.
    #[arg(long)]
    newcomer: bool,
}

/// One attempt to connect and to get an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// When it began.
    pub start: Moment,
    /// When its outcome was known.
    pub end: Moment,
    /// How it ended.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// The outcome of an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", content = "by", rename_all = "kebab-case")]
pub enum Outcome {
    /// An answer; it names the host that answered, or the node that forwarded.
    Ok(String),
    /// Connection refused.
    Refused,
    /// A connection was established, and then reset, or closed without an answer.
    Reset,
    /// No answer in time.
    Timeout,
    /// No route, or no MAC address.
    Unreachable,
    /// Another error.
    Other(String),
}

/// Connects until SIGTERM, then waits for the outcome of every attempt.
pub(super) async fn run(options: Options) -> Result<()> {
    let neighbour = if options.newcomer {
        Some(Neighbour::of(options.to.ip()).await?)
    } else {
        None
    };
    let mut tick = tokio::time::interval(Duration::from_millis(options.every));
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut attempts = JoinSet::new();
    println!("ready");
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = tick.tick() => {
                if let Some(neighbour) = &neighbour {
                    neighbour.forget().await;
                }
                attempts.spawn(attempt(options.to, options.newcomer));
            }
            Some(done) = attempts.join_next() => note(&done?)?,
        }
    }
    while let Some(done) = attempts.join_next().await {
        note(&done?)?;
    }
    Ok(())
}

fn note(attempt: &Attempt) -> Result<()> {
    println!("{}", serde_json::to_string(attempt)?);
    Ok(())
}

async fn attempt(to: SocketAddr, newcomer: bool) -> Attempt {
    let (start, clock) = (Moment::now(), Instant::now());
    let outcome = match tokio::time::timeout(TIMEOUT, ask(to, newcomer)).await {
        Ok(Ok(by)) => Outcome::Ok(by),
        Ok(Err(error)) => Outcome::from(error),
        Err(_) => Outcome::Timeout,
    };
    Attempt {
        start,
        end: start + clock.elapsed(),
        outcome,
    }
}

/// The first line of the answer.
async fn ask(to: SocketAddr, newcomer: bool) -> std::io::Result<String> {
    let mut stream = loop {
        match TcpStream::connect(to).await {
            // The next attempt removed the entry that this one waits for: on a busy machine an answer takes
            // longer than the pause between two of them.
            Err(error) if newcomer && error.kind() == ErrorKind::HostUnreachable => {
                tokio::time::sleep(AGAIN).await;
            }
            connected => break connected?,
        }
    };
    // Ends with a reset: 100 connections a second would use up the ports of one that waits.
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    let (mut line, mut buffer) = (Vec::new(), [0; 64]);
    loop {
        let length = stream.read(&mut buffer).await?;
        if length == 0 {
            return Err(ErrorKind::ConnectionReset.into());
        }
        line.extend_from_slice(&buffer[..length]);
        if let Some(end) = line.iter().position(|byte| *byte == b'\n') {
            return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
        }
    }
}

// === impl Outcome ===

impl Outcome {
    /// Whether there was an answer.
    pub fn is_ok(&self) -> bool {
        matches!(self, Self::Ok(_))
    }
}

impl From<std::io::Error> for Outcome {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            ErrorKind::ConnectionRefused => Self::Refused,
            ErrorKind::ConnectionReset => Self::Reset,
            ErrorKind::TimedOut => Self::Timeout,
            ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => Self::Unreachable,
            _ => Self::Other(error.to_string()),
        }
    }
}

/// An entry of this host's neighbour table.
struct Neighbour {
    netlink: rtnetlink::Handle,
    entry: NeighbourMessage,
}

impl Neighbour {
    async fn of(address: IpAddr) -> Result<Self> {
        let (connection, netlink, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        let mut links = netlink
            .link()
            .get()
            .match_name(INTERFACE.to_owned())
            .execute();
        let link = links.try_next().await?;
        let mut entry = NeighbourMessage::default();
        entry.header.ifindex = link.context("no such interface")?.header.index;
        let (family, destination) = match address {
            IpAddr::V4(it) => (libc::AF_INET, NeighbourAddress::Inet(it)),
            IpAddr::V6(it) => (libc::AF_INET6, NeighbourAddress::Inet6(it)),
        };
        entry.header.family = u8::try_from(family)?.into();
        entry
            .attributes
            .push(NeighbourAttribute::Destination(destination));
        Ok(Self { netlink, entry })
    }

    /// There may be none to forget.
    async fn forget(&self) {
        let request = self.netlink.neighbours().del(self.entry.clone());
        let _ = request.execute().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_is_one_flat_object() {
        let (start, end) = (Moment(1), Moment(2));
        for (outcome, expected) in [
            (
                Outcome::Ok("node1".into()),
                r#"{"start":1,"end":2,"result":"ok","by":"node1"}"#,
            ),
            (
                Outcome::Timeout,
                r#"{"start":1,"end":2,"result":"timeout"}"#,
            ),
        ] {
            let attempt = Attempt {
                start,
                end,
                outcome,
            };
            let text = serde_json::to_string(&attempt).unwrap();
            assert_eq!(text, expected);
            assert_eq!(serde_json::from_str::<Attempt>(&text).unwrap(), attempt);
        }
    }
}
