//! The job of a client with one long connection: it says something again and again, and connects
//! anew when the connection is lost.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use super::moment::Moment;

/// The pause between two words.
const PAUSE: Duration = Duration::from_millis(50);
/// A connection without an answer for this long is lost.
const PATIENCE: Duration = Duration::from_secs(10);

/// How to converse.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// With whom.
    #[arg(long)]
    to: SocketAddr,
}

/// Something that happened to the connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "turn", rename_all = "kebab-case")]
pub enum Turn {
    /// A new connection, and who answers.
    Opened {
        /// When.
        at: Moment,
        /// The answer's first line.
        by: String,
    },
    /// The answer to a word took longer than any before on this connection.
    Slowest {
        /// When the answer arrived.
        at: Moment,
        /// Milliseconds.
        took_ms: u64,
    },
    /// The connection is lost.
    Lost {
        /// When.
        at: Moment,
        /// The error.
        why: String,
    },
}

/// Converses until it is killed.
pub(super) async fn run(options: Options) -> Result<()> {
    loop {
        if let Err(error) = converse(options.to).await {
            note(&Turn::Lost {
                at: Moment::now(),
                why: error.to_string(),
            })?;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn converse(to: SocketAddr) -> Result<()> {
    let stream = tokio::time::timeout(PATIENCE, TcpStream::connect(to)).await??;
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    let mut by = String::new();
    tokio::time::timeout(PATIENCE, stream.read_line(&mut by)).await??;
    note(&Turn::Opened {
        at: Moment::now(),
        by: by.trim().to_owned(),
    })?;
    let (mut slowest, mut byte) = (0, [0]);
    loop {
        let asked = Moment::now();
        stream.write_all(b"x").await?;
        tokio::time::timeout(PATIENCE, stream.read_exact(&mut byte)).await??;
        let at = Moment::now();
        let took_ms = u64::try_from(at.since(asked).as_millis())?;
        if took_ms > slowest {
            slowest = took_ms;
            note(&Turn::Slowest { at, took_ms })?;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn note(turn: &Turn) -> Result<()> {
    println!("{}", serde_json::to_string(turn)?);
    Ok(())
}
