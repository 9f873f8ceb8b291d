//! Copies the bytes of a connection both ways.
//!
//! Invariant: a connection holds bytes in this process only while its receiver is slower than
//! its sender, and then at most [`CHUNK`] for each direction.

use std::io::{self, ErrorKind};
use std::net::Shutdown;

use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::task::coop::consume_budget;

use super::buffer;

/// Bytes that are read at a time.
const CHUNK: usize = 8 * 1_024;

/// What became of what was read.
enum Moved {
    All,
    /// The receiver did not take the rest.
    Rest(Box<[u8]>),
    /// The sender has closed its half.
    End,
}

/// Copies until both sides have closed their half.
pub(super) async fn relay(client: &TcpStream, upstream: &TcpStream) -> io::Result<()> {
    tokio::try_join!(pipe(client, upstream), pipe(upstream, client)).map(drop)
}

async fn pipe(from: &TcpStream, to: &TcpStream) -> io::Result<()> {
    loop {
        // Readiness alone never yields to other tasks.
        consume_budget().await;
        from.readable().await?;
        // What cannot be passed on stays in the kernel, and slows the sender down.
        to.writable().await?;
        match buffer::with(|buffer| step(from, to, &mut buffer[..CHUNK])) {
            Ok(Moved::All) => {}
            Ok(Moved::Rest(rest)) => write_all(to, &rest).await?,
            Ok(Moved::End) => break,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    match SockRef::from(to).shutdown(Shutdown::Write) {
        // It has closed both halves already.
        Err(error) if error.kind() == ErrorKind::NotConnected => Ok(()),
        other => other,
    }
}

fn step(from: &TcpStream, to: &TcpStream, buffer: &mut [u8]) -> io::Result<Moved> {
    let length = from.try_read(buffer)?;
    if length == 0 {
        return Ok(Moved::End);
    }
    let written = match to.try_write(&buffer[..length]) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
        other => other?,
    };
    if written == length {
        return Ok(Moved::All);
    }
    Ok(Moved::Rest(buffer[written..length].into()))
}

async fn write_all(to: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        to.writable().await?;
        match to.try_write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
