//! Whether connections to an open port reach it.
//!
//! On a Kubernetes node they may not: the rules of kube-proxy for node ports come before
//! sockets, and in its iptables mode they hold for every address of the node. A load
//! balancer whose port is some Service's node port is open, and nobody ever arrives. No
//! list of node ports would tell for sure, so the plane knocks at its own port from its own
//! address: the knock is recognised by where it comes from, and carries nothing on.
//!
//! [`arrives`] knocks; the tasks that serve a socket ask [`Knocks::is_one`].

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::{TcpSocket, UdpSocket};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

use super::plan::Socket;
use crate::api::Protocol;

/// Between two sockets of one machine it takes a fraction of a millisecond.
const PATIENCE: Duration = Duration::from_millis(500);
/// A datagram may be lost, and a busy machine be late.
const TRIES: usize = 3;

/// Ports that are knocked at a time.
const AT_ONCE: usize = 256;

/// Knocks that are under way.
#[derive(Debug)]
pub(super) struct Knocks {
    /// By the address and port from which they come.
    expected: Mutex<Expectations>,
    slots: Semaphore,
}

type Expectations = HashMap<SocketAddr, oneshot::Sender<()>>;

/// Takes a knock back when it is dropped.
struct Expected<'a> {
    knocks: &'a Knocks,
    from: SocketAddr,
}

/// Whether a knock at this socket arrives there. An error: it could not be found out.
pub(super) async fn arrives(knocks: &Knocks, socket: Socket) -> io::Result<bool> {
    let _slot = knocks.slots.acquire().await.map_err(io::Error::other)?;
    for _ in 0..TRIES {
        let arrived = match socket.protocol {
            Protocol::Tcp => tcp(knocks, socket.address()).await?,
            Protocol::Udp => udp(knocks, socket.address()).await?,
        };
        if arrived {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn tcp(knocks: &Knocks, to: SocketAddr) -> io::Result<bool> {
    let socket = match to {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.bind(SocketAddr::new(to.ip(), 0))?;
    // A knock is no connection that somebody waits for the end of.
    socket.set_zero_linger()?;
    let (_expected, heard) = knocks.expect(socket.local_addr()?);
    let connected = timeout(PATIENCE, socket.connect(to)).await;
    match connected {
        // Held until it was heard: a reset before that would take it out of the queue.
        Ok(Ok(_stream)) => Ok(matches!(timeout(PATIENCE, heard).await, Ok(Ok(())))),
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(false),
        Ok(Err(error)) => Err(error),
        Err(_) => Ok(false),
    }
}

async fn udp(knocks: &Knocks, to: SocketAddr) -> io::Result<bool> {
    let socket = UdpSocket::bind(SocketAddr::new(to.ip(), 0)).await?;
    let (_expected, heard) = knocks.expect(socket.local_addr()?);
    socket.send_to(&[], to).await?;
    Ok(matches!(timeout(PATIENCE, heard).await, Ok(Ok(()))))
}

// === impl Knocks ===

impl Knocks {
    fn expect(&self, from: SocketAddr) -> (Expected<'_>, oneshot::Receiver<()>) {
        let (sender, heard) = oneshot::channel();
        self.lock().insert(from, sender);
        (Expected { knocks: self, from }, heard)
    }

    /// Whether what comes from there is a knock; who waits for it is told.
    pub(super) fn is_one(&self, from: SocketAddr) -> bool {
        let Some(knock) = self.lock().remove(&from) else {
            return false;
        };
        // Who knocked may have stopped waiting.
        let _ = knock.send(());
        true
    }

    fn lock(&self) -> MutexGuard<'_, Expectations> {
        // One insertion or removal: good after a panic too.
        self.expected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Knocks {
    fn default() -> Self {
        Self {
            expected: Mutex::default(),
            slots: Semaphore::new(AT_ONCE),
        }
    }
}

impl Drop for Expected<'_> {
    fn drop(&mut self) {
        self.knocks.lock().remove(&self.from);
    }
}
