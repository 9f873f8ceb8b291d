//! TCP: one task accepts per socket, one task per connection copies both ways.
//!
//! A connection lives until both sides have closed their half, its load balancer is
//! gone, or its target (or its listener) has been away for the drain time.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, SockRef, Socket as RawSocket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::balance::{Candidate, Eligible};
use super::balancer::Frontend;
use super::relay::relay;

/// The most connections that wait to be accepted.
const BACKLOG: i32 = 1_024;

/// Time after which a peer that no longer answers is probed.
const KEEPALIVE: Duration = Duration::from_mins(1);

/// Pause after a failed accept: the process is short of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Time between two log lines about refused connections.
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
    frontend: Arc<Frontend>,
    closed: CancellationToken,
) {
    let (balancer, socket) = (&frontend.balancer, frontend.socket);
    let mut versions = balancer.shared.versions();
    let mut complained: Option<Instant> = None;
    loop {
        let accepted = tokio::select! {
            () = closed.cancelled() => return,
            newer = versions.changed(), if frontend.is_followed() => {
                if newer.is_err() {
                    return;
                }
                // Connections whose target is affected learn of it.
                frontend.eligible();
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        let (client, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%socket, %error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if balancer.shared.knocks.is_knock(peer) {
            continue;
        }
        if !balancer.admits(peer.ip()) {
            tracing::debug!(%socket, %peer, "refused by the source ranges");
            reset(&client);
            continue;
        }
        let Some(place) = balancer.connections.take() else {
            let now = Instant::now();
            if complained.is_none_or(|at| now.duration_since(at) >= COMPLAINT_PAUSE) {
                complained = Some(now);
                tracing::warn!(
                    load_balancer = balancer.name, %socket,
                    "connections are refused: the load balancer has as many as --max-connections and --max-total-connections allow"
                );
            }
            reset(&client);
            continue;
        };
        // Here, so that this loop follows the changes from now on.
        let eligible = frontend.subscribe();
        let (frontend, closed) = (Arc::clone(&frontend), closed.clone());
        tokio::spawn(async move {
            carry(client, peer, &frontend, eligible, &closed).await;
            drop(place);
        });
    }
}

/// One connection from its accept to its end.
async fn carry(
    client: TcpStream,
    peer: SocketAddr,
    frontend: &Frontend,
    eligible: watch::Receiver<Arc<Eligible>>,
    closed: &CancellationToken,
) {
    let balancer = &frontend.balancer;
    // On the heap: a connection lives much longer than the attempts to connect.
    let connected = Box::pin(connect(frontend, peer)).await;
    let Some((target, upstream)) = connected else {
        tracing::debug!(socket = %frontend.socket, %peer, "no target takes the connection");
        reset(&client);
        return;
    };
    balancer.remember(peer.ip(), &target);
    for stream in [&client, &upstream] {
        tune(stream);
    }
    let drain = balancer.shared.options.drain;
    let done = tokio::select! {
        result = relay(&client, &upstream) => result.is_ok(),
        () = departed(&target, eligible, closed, drain) => false,
        () = balancer.gone.cancelled() => false,
    };
    balancer.remember(peer.ip(), &target);
    if !done {
        // Neither side must take this for an orderly close.
        reset(&client);
        reset(&upstream);
    }
}

/// The first of the targets that answers.
async fn connect(frontend: &Frontend, peer: SocketAddr) -> Option<(Candidate, TcpStream)> {
    let limit = frontend.balancer.shared.options.connect_timeout;
    for target in frontend.order(peer.ip(), None) {
        let address = frontend.address(&target)?;
        match timeout(limit, dial(address)).await {
            Ok(Ok(stream)) => return Some((target, stream)),
            Ok(Err(error)) => {
                tracing::debug!(target = %target.name, %address, %error, "a target does not answer");
            }
            Err(_) => {
                tracing::debug!(target = %target.name, %address, "a target does not answer in time");
            }
        }
    }
    None
}

async fn dial(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // The kernel chooses the local port. Without this, no program of the node could listen
    // on that port of all addresses for as long as the connection lives.
    socket.set_reuseaddr(true)?;
    socket.connect(address).await
}

/// Ends when the target or the listener has been away for the drain time.
async fn departed(
    target: &Candidate,
    mut eligible: watch::Receiver<Arc<Eligible>>,
    closed: &CancellationToken,
    drain: Duration,
) {
    let mut deadline: Option<Instant> = None;
    loop {
        // Another node port is no reason to cut what flows.
        let away = closed.is_cancelled() || !eligible.borrow_and_update().contains(target);
        deadline = match (away, deadline) {
            (false, _) => None,
            (true, Some(deadline)) => Some(deadline),
            (true, None) => Some(Instant::now() + drain),
        };
        tokio::select! {
            () = wait_until(deadline) => return,
            () = closed.cancelled(), if !closed.is_cancelled() => {}
            changed = eligible.changed() => if changed.is_err() { return },
        }
    }
}

async fn wait_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn tune(stream: &TcpStream) {
    // A failure is no reason to close the connection.
    let _ = stream.set_nodelay(true);
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(KEEPALIVE / 4);
    let _ = SockRef::from(stream).set_tcp_keepalive(&keepalive);
}

/// Makes the stream end with a reset when it is dropped.
fn reset(stream: &TcpStream) {
    // If this fails, the peer sees an orderly close.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}
