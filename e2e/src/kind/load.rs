//! A steady load: a fixed number of requests per second, each on its own connection and
//! independent of the others. `kind requests` runs it on the Docker host.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A request that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(1);

/// One request: when it began, in milliseconds since 1970, and whether it was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Request {
    /// When it began, in milliseconds since 1970.
    pub at: u64,
    /// Whether `GET /hostname` was answered with 200.
    pub answered: bool,
}

impl Request {
    /// A line of output for [`run`]'s caller.
    pub fn parse(line: &str) -> Result<Self> {
        let (at, answered) = line
            .split_once(' ')
            .with_context(|| format!("{line:?} is no request"))?;
        Ok(Self {
            at: at.parse()?,
            answered: answered.parse()?,
        })
    }
}

impl std::fmt::Display for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.at, self.answered)
    }
}

/// Milliseconds since 1970.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

/// Sends `rate` requests a second for that time; returns all, in the order of their start.
pub async fn run(target: SocketAddr, rate: u32, time: Duration) -> Result<Vec<Request>> {
    let mut beat = tokio::time::interval(Duration::from_secs(1) / rate.max(1));
    let end = tokio::time::Instant::now() + time;
    let mut running = Vec::new();
    while tokio::time::Instant::now() < end {
        beat.tick().await;
        let at = now();
        running.push(tokio::spawn(async move {
            let answer = tokio::time::timeout(PATIENCE, ask(target)).await;
            Request {
                at,
                answered: matches!(answer, Ok(Ok(()))),
            }
        }));
    }
    let mut requests = Vec::with_capacity(running.len());
    for request in running {
        requests.push(request.await?);
    }
    Ok(requests)
}

async fn ask(target: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect(target).await?;
    stream
        .write_all(b"GET /hostname HTTP/1.1\r\nHost: load\r\nConnection: close\r\n\r\n")
        .await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    ensure!(answer.starts_with(b"HTTP/1.1 200"), "no answer");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_as_it_was_printed() {
        let request = Request {
            at: 1_700_000_000_000,
            answered: false,
        };
        assert_eq!(Request::parse(&request.to_string()).unwrap(), request);
        assert!(Request::parse("x").is_err());
    }

    #[tokio::test]
    async fn nobody_listens_and_nobody_answers() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let target = listener.local_addr().unwrap();
        drop(listener);
        let requests = run(target, 100, Duration::from_millis(50)).await.unwrap();
        assert!(!requests.is_empty());
        assert!(requests.iter().all(|request| !request.answered));
    }
}
