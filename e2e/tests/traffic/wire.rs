//! Connections that are opened on a host of the lab and held by the test itself.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use ballast_e2e::state::{Found, Place};
use ballast_e2e::{Host, Lab};
use nix::sched::{CloneFlags, setns};

/// The time-out of one step.
const STEP: Duration = Duration::from_secs(10);

/// Runs network code on a host of the lab. A socket stays in the namespace where it was
/// created.
pub(crate) async fn on<T: Send + 'static>(
    lab: &Lab,
    host: Host,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let Found::Running(record) = Place::new(lab.name())?.find()? else {
        bail!("the lab {} does not run", lab.name());
    };
    let enter = ballast_e2e::enter(record.pid, &host.name()).context("there is no such host")?;
    let network = enter.iter().find_map(|flag| flag.strip_prefix("--net="));
    let network = File::open(network.context("no network namespace")?)?;
    // A separate thread, because it cannot return from that namespace.
    let thread = std::thread::spawn(move || {
        setns(network, CloneFlags::CLONE_NEWNET)?;
        work()
    });
    let joined = tokio::task::spawn_blocking(move || thread.join()).await?;
    joined.unwrap_or_else(|_| bail!("the thread on {} panicked", host.name()))
}

/// Opens a TCP connection from a host.
pub(crate) async fn connect(lab: &Lab, from: Host, to: SocketAddr) -> Result<TcpStream> {
    on(lab, from, move || {
        let stream = TcpStream::connect_timeout(&to, STEP).with_context(|| to.to_string())?;
        stream.set_read_timeout(Some(STEP))?;
        stream.set_write_timeout(Some(STEP))?;
        Ok(stream)
    })
    .await
}

/// Sends a text to an echo server and expects it back.
pub(crate) fn echoes(stream: &mut TcpStream, words: &str) -> Result<()> {
    stream.write_all(words.as_bytes())?;
    let mut answer = vec![0; words.len()];
    stream.read_exact(&mut answer)?;
    ensure!(answer == words.as_bytes(), "it answers something else");
    Ok(())
}

/// Sends this many bytes to an echo server while it reads them back, and compares.
pub(crate) async fn carries(stream: TcpStream, bytes: usize) -> Result<()> {
    let data: Vec<u8> = (0..bytes as u64)
        .map(|n| (n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8)
        .collect();
    let mut writer = stream.try_clone()?;
    let sent = data.clone();
    let writing = tokio::task::spawn_blocking(move || -> Result<()> {
        writer.write_all(&sent)?;
        writer.shutdown(std::net::Shutdown::Write)?;
        Ok(())
    });
    let reading = tokio::task::spawn_blocking(move || -> Result<Vec<u8>> {
        let mut back = Vec::new();
        let mut reader = stream;
        reader.read_to_end(&mut back)?;
        Ok(back)
    });
    writing.await?.context("while sending")?;
    let back = reading.await?.context("while receiving")?;
    ensure!(
        back.len() == bytes,
        "{} of {bytes} bytes came back",
        back.len()
    );
    ensure!(back == data, "the bytes are not those that were sent");
    Ok(())
}

/// One request by UDP from a new port, and its answer.
pub(crate) async fn ask(lab: &Lab, from: Host, to: SocketAddr, words: &str) -> Result<String> {
    let words = words.to_owned();
    on(lab, from, move || {
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any)?;
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        socket.connect(to)?;
        socket.send(words.as_bytes())?;
        let mut answer = [0; 1500];
        let length = socket.recv(&mut answer).with_context(|| to.to_string())?;
        Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
    })
    .await
}
