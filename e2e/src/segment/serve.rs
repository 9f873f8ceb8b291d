//! The job behind the Services: says who it is or who asks, then sends back what it gets.

use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// A connection that is silent for this long ends.
const PATIENCE: Duration = Duration::from_mins(5);

/// How to serve.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// The TCP port, on all addresses.
    #[arg(long)]
    port: u16,
    /// The first line of every answer; without it, the client's address. A node that forwards a
    /// connection under its own address is that client.
    #[arg(long)]
    says: Option<String>,
}

/// Serves until it is killed.
pub(super) async fn run(options: Options) -> Result<()> {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, options.port)).await?;
    println!("ready");
    loop {
        // A connection that is gone before it is accepted is no reason to end.
        if let Ok((stream, peer)) = listener.accept().await {
            let says = options.says.clone();
            tokio::spawn(async move {
                let _ = answer(stream, peer, says).await;
            });
        }
    }
}

async fn answer(mut stream: TcpStream, peer: SocketAddr, says: Option<String>) -> Result<()> {
    let says = says.unwrap_or_else(|| peer.ip().to_canonical().to_string());
    stream.set_nodelay(true)?;
    stream.write_all(format!("{says}\n").as_bytes()).await?;
    let mut buffer = [0; 256];
    loop {
        let length = tokio::time::timeout(PATIENCE, stream.read(&mut buffer)).await??;
        if length == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..length]).await?;
    }
}
