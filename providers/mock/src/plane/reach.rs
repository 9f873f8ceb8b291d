//! Finds out whether clients reach an open port.
//!
//! On a Kubernetes node they may not. kube-proxy's rules for node ports apply before sockets
//! do, in its iptables mode for every address of the node. If a load balancer has the same
//! port as the node port of a Service, it is open and no client arrives. A list of node
//! ports is not enough to tell, so the plane *knocks*: it connects to its own port from its
//! own address, and recognises the connection by its source port.
//!
//! [`arrives`] knocks; the tasks that serve a port call [`Knocks::is_knock`].

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

/// Time-out of one attempt. Usually it takes a fraction of a millisecond.
const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(500);
/// Attempts for one port: a datagram may be lost, and a busy machine may be late.
const ATTEMPTS: usize = 3;

/// The most ports that are tried at the same time.
const AT_ONCE: usize = 256;

/// The knocks in progress.
#[derive(Debug)]
pub(super) struct Knocks {
    /// By their source address and port.
    expected: Mutex<Expectations>,
    slots: Semaphore,
}

type Expectations = HashMap<SocketAddr, oneshot::Sender<()>>;

/// Removes a knock when dropped.
struct Expected<'a> {
    knocks: &'a Knocks,
    from: SocketAddr,
}

/// Whether a knock arrives at this socket. Returns an error if it could not be tried.
pub(super) async fn arrives(knocks: &Knocks, socket: Socket) -> io::Result<bool> {
    let _slot = knocks.slots.acquire().await.map_err(io::Error::other)?;
    for _ in 0..ATTEMPTS {
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
    // Nothing is left in TIME_WAIT.
    socket.set_zero_linger()?;
    let (_expected, heard) = knocks.expect(socket.local_addr()?);
    let connected = timeout(ATTEMPT_TIMEOUT, socket.connect(to)).await;
    match connected {
        // Kept open until it is accepted: a reset would remove it from the queue.
        Ok(Ok(_stream)) => Ok(matches!(timeout(ATTEMPT_TIMEOUT, heard).await, Ok(Ok(())))),
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(false),
        Ok(Err(error)) => Err(error),
        Err(_) => Ok(false),
    }
}

async fn udp(knocks: &Knocks, to: SocketAddr) -> io::Result<bool> {
    let socket = UdpSocket::bind(SocketAddr::new(to.ip(), 0)).await?;
    let (_expected, heard) = knocks.expect(socket.local_addr()?);
    socket.send_to(&[], to).await?;
    Ok(matches!(timeout(ATTEMPT_TIMEOUT, heard).await, Ok(Ok(()))))
}

// === impl Knocks ===

impl Knocks {
    fn expect(&self, from: SocketAddr) -> (Expected<'_>, oneshot::Receiver<()>) {
        let (sender, heard) = oneshot::channel();
        self.lock().insert(from, sender);
        (Expected { knocks: self, from }, heard)
    }

    /// Whether a connection or datagram from this address is a knock; if so, it has arrived.
    pub(super) fn is_knock(&self, from: SocketAddr) -> bool {
        let Some(knock) = self.lock().remove(&from) else {
            return false;
        };
        // The attempt may have timed out.
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
