//! TCP connections between announcers whose end shows that a process ended.
//!
//! The kernel closes the connections of a process that ends, so the other side learns of it at
//! once, while the host still answers probes. A connection that only falls silent says nothing:
//! the path may be broken.
//!
//! ```text
//!            dialled, or accepted        both sides proved the key (2 s)
//! (nothing) ─────────────────────▶ Hello ───────────────────────────────▶ Connected
//!                                    │                                         │
//!         anything else, or too late │      FIN or RST: the process ended      │──▶ reported
//!                                    ▼      goodbye, time-out, other errors    │──▶ not reported
//!                                 closed                                       ▼
//! ```
//!
//! - A side that closes a cable, or gives up a handshake, and lives on says goodbye: one byte.
//!   Nothing else is ever sent after the handshake. Whoever could forge it could as well break the
//!   path; beats show the end of the process then, 2 s later.
//! - The dialling side tries again while the node wants a cable to the peer.
//! - Two nodes may dial each other at the same time; both cables stay. [`Ledger`] reports the
//!   process once.
//! - A peer has one cable that it dialled: a new one replaces a former one.
//! - A new process of this node, during an update, dials the former one before it opens the port
//!   itself ([`Former`]). From then on the new process receives all messages, so the former one is
//!   told that it was replaced, and says goodbye to its peers, until that connection ends.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ballast_announce::{Input, NodeName};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::port;
use crate::seal::Keyring;

mod former;
mod handshake;
mod ledger;

pub use former::Former;
use handshake::{Accepted, HandshakeError, Identity};
use ledger::{Ledger, Process};

/// Connections without a proof. A further one ends the oldest.
const MAX_HANDSHAKES: usize = 16;
/// Cables that peers dialled.
const MAX_ACCEPTED: usize = 64;
/// Between two attempts to dial a peer, at first and at most.
const DIAL_AGAIN: Duration = Duration::from_secs(1);
const DIAL_AGAIN_AT_MOST: Duration = Duration::from_secs(5);
/// After a goodbye: a newer process of the peer opens the port in a moment. Without a cable its end would
/// show only after 2 s.
const DIAL_THE_NEXT: Duration = Duration::from_millis(200);
/// After an error of the listening socket: too many open files.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// "I close this cable, and live."
const GOODBYE: u8 = b'.';

/// The cables of a process.
#[derive(Debug)]
pub struct Cables {
    listener: TcpListener,
    wanted: watch::Sender<BTreeMap<NodeName, SocketAddr>>,
    shared: Arc<Shared>,
}

/// What became of connections. Each counts since the start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Cables that were connected.
    pub connected: AtomicU64,
    /// Cables that the other side closed without a goodbye: its process ended.
    pub closed: AtomicU64,
    /// Cables that ended by a time-out or an error.
    pub lost: AtomicU64,
    /// Connections whose other side did not prove the key in time.
    pub refused: AtomicU64,
    /// Connections that were ended because there were too many.
    pub too_many: AtomicU64,
    /// Attempts to dial a peer that failed.
    pub not_dialled: AtomicU64,
    /// Changes that were dropped because the agent had too many events to handle.
    pub dropped: AtomicU64,
}

/// How long a side waits for the other one.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// Both sides must have proved the key within this time.
    handshake: Duration,
    /// The kernel asks for a sign of life after this time without one, this often, and ends the
    /// connection after `limit`.
    idle: Duration,
    interval: Duration,
    limit: Duration,
}

#[derive(Debug)]
struct Shared {
    identity: Identity,
    patience: Patience,
    counters: Arc<Counters>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    ledger: Ledger,
    /// The cable that each peer dialled.
    accepted: BTreeMap<NodeName, Arc<Notify>>,
    /// Newer processes of this node that are connected.
    newer: usize,
}

/// How a cable ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The process of the other side ended.
    Closed,
    /// The other side said goodbye.
    Goodbye,
    /// The path is broken.
    Lost,
    /// This side said goodbye.
    Unwanted,
}

/// A peer that is dialled.
struct Dialled {
    at: SocketAddr,
    end: Arc<Notify>,
}

const PATIENCE: Patience = Patience {
    handshake: Duration::from_secs(2),
    idle: Duration::from_secs(5),
    interval: Duration::from_secs(3),
    limit: Duration::from_secs(15),
};

/// Tells the node about cables.
trait Sink: Fn(Input) + Send + Sync + 'static {}

impl<T: Fn(Input) + Send + Sync + 'static> Sink for T {}

// === impl Cables ===

impl Cables {
    /// Opens the port, within a tokio runtime. Port 0 lets the kernel choose one. `incarnation`
    /// is a random number per process.
    pub fn bind(
        me: NodeName,
        incarnation: u64,
        port: u16,
        keyring: Arc<Keyring>,
        counters: Arc<Counters>,
    ) -> io::Result<Self> {
        Ok(Self {
            listener: TcpListener::from_std(port::tcp(port)?)?,
            wanted: watch::Sender::default(),
            shared: Arc::new(Shared {
                identity: Identity::new(me, incarnation, keyring),
                patience: PATIENCE,
                counters,
                state: Mutex::default(),
            }),
        })
    }

    /// The port.
    pub fn port(&self) -> io::Result<u16> {
        Ok(self.listener.local_addr()?.port())
    }

    /// Keeps a cable to each of these peers, at one of its addresses, and to no others.
    pub fn dial(&self, peers: BTreeMap<NodeName, SocketAddr>) {
        self.wanted.send_if_modified(|wanted| {
            let changed = *wanted != peers;
            *wanted = peers;
            changed
        });
    }

    /// Dials, accepts, and reports cables. Never returns. When it is dropped, all cables close,
    /// as at the end of the process.
    pub async fn run(&self, sink: impl Fn(Input) + Send + Sync + 'static) {
        let sink = Arc::new(sink);
        let mut wanted = self.wanted.subscribe();
        wanted.mark_changed();
        let mut dialled = BTreeMap::new();
        let mut cables = JoinSet::new();
        let mut handshakes = JoinSet::new();
        let mut oldest_first = VecDeque::new();
        loop {
            tokio::select! {
                changed = wanted.changed() => {
                    let wanted = wanted.borrow_and_update().clone();
                    if changed.is_ok() {
                        self.redial(wanted, &mut dialled, &mut cables, &sink);
                    }
                }
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => self.greet(stream, &mut handshakes, &mut oldest_first),
                    Err(error) => {
                        tracing::debug!(%error, "no connection accepted");
                        sleep(ACCEPT_AGAIN).await;
                    }
                },
                Some(done) = handshakes.join_next() => {
                    if let Ok(Some((stream, accepted))) = done {
                        self.admit(stream, accepted, &mut cables, &sink);
                    }
                }
                Some(_) = cables.join_next() => {}
            }
        }
    }

    /// Dials the peers that are new, and says goodbye to those that are gone.
    fn redial<S: Sink>(
        &self,
        wanted: BTreeMap<NodeName, SocketAddr>,
        dialled: &mut BTreeMap<NodeName, Dialled>,
        cables: &mut JoinSet<()>,
        sink: &Arc<S>,
    ) {
        dialled.retain(|peer, it| {
            let stays = wanted.get(peer) == Some(&it.at);
            if !stays {
                it.end.notify_one();
            }
            stays
        });
        for (peer, at) in wanted {
            if dialled.contains_key(&peer) || peer == *self.shared.identity.me() {
                continue;
            }
            let end = Arc::new(Notify::new());
            let work = self
                .shared
                .clone()
                .keep(peer.clone(), at, end.clone(), sink.clone());
            cables.spawn(work);
            dialled.insert(peer, Dialled { at, end });
        }
    }

    /// Starts the handshake of an accepted connection. One that sends nothing cannot keep others
    /// out.
    fn greet(
        &self,
        mut stream: TcpStream,
        handshakes: &mut JoinSet<Option<(TcpStream, Accepted)>>,
        oldest_first: &mut VecDeque<AbortHandle>,
    ) {
        oldest_first.retain(|handshake| !handshake.is_finished());
        if oldest_first.len() >= MAX_HANDSHAKES
            && let Some(oldest) = oldest_first.pop_front()
        {
            oldest.abort();
            count(&self.shared.counters.too_many);
        }
        let shared = self.shared.clone();
        oldest_first.push_back(handshakes.spawn(async move {
            let accepted = shared.accept(&mut stream).await;
            match accepted {
                Ok(accepted) => Some((stream, accepted)),
                Err(error) => {
                    tracing::debug!(%error, "connection refused");
                    count(&shared.counters.refused);
                    None
                }
            }
        }));
    }

    /// The peer has proved the key. Replaces its former cable.
    fn admit<S: Sink>(
        &self,
        stream: TcpStream,
        accepted: Accepted,
        cables: &mut JoinSet<()>,
        sink: &Arc<S>,
    ) {
        let end = Arc::new(Notify::new());
        let mut state = self.shared.lock();
        let peer = &accepted.process.node;
        if peer == self.shared.identity.me() {
            drop(state);
            let shared = self.shared.clone();
            cables.spawn(shared.give_way(stream, accepted, sink.clone()));
            return;
        }
        if state.accepted.len() >= MAX_ACCEPTED && !state.accepted.contains_key(peer) {
            count(&self.shared.counters.too_many);
            return;
        }
        if let Some(former) = state.accepted.insert(peer.clone(), end.clone()) {
            former.notify_one();
        }
        if state.newer > 0 {
            // The newer process had not opened the port yet.
            end.notify_one();
        }
        drop(state);
        let shared = self.shared.clone();
        cables.spawn(shared.welcome(stream, accepted, end, sink.clone()));
    }
}

// === impl Shared ===

impl Shared {
    async fn accept(&self, stream: &mut TcpStream) -> Result<Accepted, HandshakeError> {
        self.patience.apply(stream)?;
        let accepted = timeout(self.patience.handshake, self.identity.accept(stream)).await??;
        let local = stream.peer_addr()?.ip().to_canonical().is_loopback();
        if accepted.process.node == *self.identity.me() && !local {
            return Err(HandshakeError::Elsewhere);
        }
        Ok(accepted)
    }

    /// Tells the peer that its cable is connected, and keeps it.
    async fn welcome<S: Sink>(
        self: Arc<Self>,
        mut stream: TcpStream,
        accepted: Accepted,
        end: Arc<Notify>,
        sink: Arc<S>,
    ) {
        let welcomed = timeout(self.patience.handshake, stream.write_all(&accepted.welcome)).await;
        if let Ok(Ok(())) = welcomed {
            self.hold(stream, &accepted.process, &end, &*sink).await;
        }
        let mut state = self.lock();
        let peer = &accepted.process.node;
        let current = state.accepted.get(peer);
        if current.is_some_and(|current| Arc::ptr_eq(current, &end)) {
            state.accepted.remove(peer);
        }
    }

    /// Dials a peer until `end`.
    async fn keep<S: Sink>(
        self: Arc<Self>,
        peer: NodeName,
        at: SocketAddr,
        end: Arc<Notify>,
        sink: Arc<S>,
    ) {
        let mut wait = DIAL_AGAIN;
        // Two processes that replace each other's cable must not do so all the time.
        let mut after_goodbye = DIAL_THE_NEXT;
        loop {
            match self.connect(&peer, at).await {
                Ok((stream, process)) => {
                    let since = Instant::now();
                    let how = self.hold(stream, &process, &end, &*sink).await;
                    if since.elapsed() > DIAL_AGAIN_AT_MOST {
                        after_goodbye = DIAL_THE_NEXT;
                    }
                    wait = match how {
                        End::Unwanted => return,
                        // There is another process of this node, or of the peer.
                        End::Goodbye => {
                            let next = (2 * after_goodbye).min(DIAL_AGAIN_AT_MOST);
                            std::mem::replace(&mut after_goodbye, next)
                        }
                        End::Closed | End::Lost => DIAL_AGAIN,
                    };
                }
                Err(error) => {
                    tracing::debug!(%peer, %at, %error, "no cable");
                    count(&self.counters.not_dialled);
                }
            }
            if timeout(wait, end.notified()).await.is_ok() {
                return;
            }
            wait = (2 * wait).min(DIAL_AGAIN_AT_MOST);
        }
    }

    async fn connect(
        &self,
        peer: &NodeName,
        at: SocketAddr,
    ) -> Result<(TcpStream, Process), HandshakeError> {
        let until = Instant::now() + self.patience.handshake;
        let mut stream = timeout_at(until, TcpStream::connect(at)).await??;
        self.patience.apply(&stream)?;
        let dialled = timeout_at(until, self.identity.dial(&mut stream, peer)).await;
        let process = dialled.map_err(HandshakeError::from).flatten();
        if process.is_err() {
            // The peer may have welcomed us already.
            let _ = stream.try_write(&[GOODBYE]);
        }
        Ok((stream, process?))
    }

    /// Reports a cable, waits for its end, and reports that.
    async fn hold(
        &self,
        mut stream: TcpStream,
        process: &Process,
        end: &Notify,
        sink: &impl Sink,
    ) -> End {
        count(&self.counters.connected);
        self.report_start(process, sink);
        let how = wait(&mut stream, end).await;
        match how {
            End::Closed => count(&self.counters.closed),
            End::Lost => count(&self.counters.lost),
            End::Goodbye | End::Unwanted => {}
        }
        self.report_end(process, how, sink);
        how
    }

    // The sink is called under the lock, so the node hears everything in the ledger's order.
    fn report_start(&self, process: &Process, sink: &impl Sink) {
        let mut state = self.lock();
        if state.ledger.connected(process) {
            let peer = process.node.clone();
            let connected = true;
            sink(Input::Cable { peer, connected });
        }
    }

    fn report_end(&self, process: &Process, how: End, sink: &impl Sink) {
        let mut state = self.lock();
        if state.ledger.ended(process, how == End::Closed) {
            let peer = process.node.clone();
            let connected = false;
            sink(Input::Cable { peer, connected });
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is complete before the sink is called.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for the end of a cable, or says goodbye if `end` comes first.
async fn wait(stream: &mut TcpStream, end: &Notify) -> End {
    let mut byte = [0];
    tokio::select! {
        read = stream.read(&mut byte) => match read {
            Ok(0) => End::Closed,
            Ok(_) => End::Goodbye,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => End::Closed,
            Err(_) => End::Lost,
        },
        () = end.notified() => {
            // It is the only byte that was ever sent, so the kernel has room for it.
            let _ = stream.try_write(&[GOODBYE]);
            End::Unwanted
        }
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

// === impl Patience ===

impl Patience {
    fn apply(self, stream: &TcpStream) -> io::Result<()> {
        let socket = SockRef::from(stream);
        let keepalive = TcpKeepalive::new()
            .with_time(self.idle)
            .with_interval(self.interval);
        socket.set_tcp_keepalive(&keepalive)?;
        socket.set_tcp_user_timeout(Some(self.limit))
    }
}

#[cfg(test)]
mod tests;
