//! TCP: one task accepts per socket, one task per connection copies both ways.
//!
//! A connection lives until both sides have closed their half, its load balancer is
//! gone, or its target (or its listener) has been away for the drain time.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, SockRef, Socket as RawSocket, TcpKeepalive, Type};
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::balance::Candidate;
use super::plan::Socket;
use super::{Balancer, Cursor};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1_024;

/// Targets tried for one connection.
const ATTEMPTS: usize = 3;

/// Bytes on their way in each direction of one connection.
const BUFFER: usize = 16 * 1_024;

/// A peer that vanished without a word is noticed after about this long.
const KEEPALIVE: Duration = Duration::from_mins(1);

/// Pause after a failed accept: the process is short of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// At most one line per load balancer and this time about refused connections.
const COMPLAINT_PAUSE: Duration = Duration::from_secs(10);

/// Opens a listening socket.
pub(super) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = RawSocket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Connections of a former life in TIME_WAIT do not keep the port.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Accepts until the socket is to be closed.
pub(super) async fn serve(
    listener: TcpListener,
    socket: Socket,
    balancer: Arc<Balancer>,
    closed: CancellationToken,
) {
    let cursor = Arc::new(Cursor::default());
    let mut complained: Option<Instant> = None;
    loop {
        let accepted = tokio::select! {
            () = closed.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (client, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%socket, %error, "a connection cannot be accepted");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if balancer.shared.knocks.is_one(peer) {
            continue;
        }
        if !balancer.admits(peer.ip()) {
            tracing::debug!(%socket, %peer, "refused by the source ranges");
            reset(&client);
            continue;
        }
        let Ok(permit) = Arc::clone(&balancer.connections).try_acquire_owned() else {
            let now = Instant::now();
            if complained.is_none_or(|at| now.duration_since(at) >= COMPLAINT_PAUSE) {
                complained = Some(now);
                let limit = balancer.shared.options.max_connections;
                tracing::warn!(
                    load_balancer = balancer.name, %socket, limit,
                    "connections are refused: the load balancer has as many as --max-connections allows"
                );
            }
            reset(&client);
            continue;
        };
        let (balancer, cursor) = (Arc::clone(&balancer), Arc::clone(&cursor));
        let closed = closed.clone();
        tokio::spawn(async move {
            carry(client, peer, socket, &balancer, &cursor, &closed).await;
            drop(permit);
        });
    }
}

/// One connection from its accept to its end.
async fn carry(
    mut client: TcpStream,
    peer: SocketAddr,
    socket: Socket,
    balancer: &Balancer,
    cursor: &Cursor,
    closed: &CancellationToken,
) {
    let order = balancer.order(socket, peer.ip(), cursor);
    let Some((target, mut upstream)) = connect(order, balancer).await else {
        tracing::debug!(%socket, %peer, "no target takes the connection");
        reset(&client);
        return;
    };
    balancer.remember(peer.ip(), &target.name);
    for stream in [&client, &upstream] {
        tune(stream);
    }
    let done = {
        let copy = copy_bidirectional_with_sizes(&mut client, &mut upstream, BUFFER, BUFFER);
        tokio::select! {
            result = copy => result.is_ok(),
            () = departed(&target, socket, balancer, closed) => false,
            () = balancer.gone.cancelled() => false,
        }
    };
    balancer.remember(peer.ip(), &target.name);
    if !done {
        // Cut short: neither side shall take it for a proper end.
        reset(&client);
        reset(&upstream);
    }
}

/// The first of the targets that answers.
async fn connect(order: Vec<Candidate>, balancer: &Balancer) -> Option<(Candidate, TcpStream)> {
    let limit = balancer.shared.options.connect_timeout;
    for target in order.into_iter().take(ATTEMPTS) {
        match timeout(limit, TcpStream::connect(target.address)).await {
            Ok(Ok(stream)) => return Some((target, stream)),
            Ok(Err(error)) => {
                tracing::debug!(target = target.name, address = %target.address, %error, "a target does not answer");
            }
            Err(_) => {
                tracing::debug!(target = target.name, address = %target.address, "a target does not answer in time");
            }
        }
    }
    None
}

/// Ends when the target or the listener has been away for the drain time.
async fn departed(
    target: &Candidate,
    socket: Socket,
    balancer: &Balancer,
    closed: &CancellationToken,
) {
    let mut version = balancer.shared.version.subscribe();
    let mut deadline: Option<Instant> = None;
    loop {
        version.borrow_and_update();
        let away = closed.is_cancelled() || !stays(&balancer.eligible(socket), target);
        deadline = match (away, deadline) {
            (false, _) => None,
            (true, Some(deadline)) => Some(deadline),
            (true, None) => Some(Instant::now() + balancer.shared.options.drain),
        };
        tokio::select! {
            () = wait_until(deadline) => return,
            () = closed.cancelled(), if !closed.is_cancelled() => {}
            changed = version.changed() => if changed.is_err() { return },
        }
    }
}

/// The node port may have changed: that is no reason to cut what flows.
fn stays(eligible: &[Candidate], target: &Candidate) -> bool {
    eligible.iter().any(|candidate| {
        candidate.name == target.name && candidate.address.ip() == target.address.ip()
    })
}

async fn wait_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn tune(stream: &TcpStream) {
    // Neither is worth the connection.
    let _ = stream.set_nodelay(true);
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(KEEPALIVE / 4);
    let _ = SockRef::from(stream).set_tcp_keepalive(&keepalive);
}

/// Makes the close that follows a reset.
fn reset(stream: &TcpStream) {
    // If it fails, the peer sees an orderly close: less clear, not wrong.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}
