//! UDP: one task per socket takes the clients' datagrams, one per client carries the
//! answers back from the listener's own address.
//!
//! A flow is one connected socket to one target. When the target is no longer
//! eligible, or refuses, the client's next datagram opens another
//! flow. A client that never changes its source port therefore moves on, too.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use socket2::{Domain, SockRef, Socket as RawSocket, Type};
use tokio::net::UdpSocket;
use tokio::task::AbortHandle;
use tokio::task::coop::consume_budget;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::balance::Candidate;
use super::balancer::Frontend;
use super::flows::{FlowTable, Timeouts, Upstream};
use super::places::{Place, Share};
use super::plan::Socket;
use super::{Shared, buffer};
use crate::api::Protocol;

/// Time between two searches for idle clients.
const SWEEP: Duration = Duration::from_secs(5);

/// Time between two log lines about dropped clients.
const COMPLAINT_PAUSE: Duration = Duration::from_secs(10);

/// Time for which new clients are dropped without another search for room.
const EVICTION_PAUSE: Duration = Duration::from_millis(100);

/// The most datagrams that one listener receives before it handles other events.
const BURST: usize = 64;

/// The most local ports tried for one flow, if the kernel chooses ports that the node needs.
const PORT_TRIES: usize = 8;

/// A flow's socket and the task that carries its answers.
struct Carrier {
    link: Arc<Link>,
    address: SocketAddr,
    answers: AbortHandle,
    _place: Place,
}

/// What both share.
struct Link {
    socket: UdpSocket,
    started: Instant,
    /// Milliseconds after `started` of the last answer, plus one; 0 is never.
    answered: AtomicU64,
    broken: AtomicBool,
}

/// Everything one socket's task works with.
struct Server {
    listener: Arc<UdpSocket>,
    frontend: Frontend,
    share: Arc<Share>,
    flows: FlowTable<Carrier>,
    full_until: Option<Instant>,
    complained: Option<Instant>,
}

/// Opens a socket for clients' datagrams.
pub(super) fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = RawSocket::new(Domain::for_address(address), Type::DGRAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // No address reuse: for UDP, two sockets on one port would share its datagrams.
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

/// Forwards until the socket is to be closed.
pub(super) async fn serve(listener: UdpSocket, frontend: Frontend, closed: CancellationToken) {
    let options = &frontend.balancer.shared.options;
    let timeouts = Timeouts {
        new: options.flow_new.min(options.flow_idle),
        established: options.flow_idle,
    };
    let share = frontend.balancer.shared.flows.share(options.max_flows);
    let mut server = Server {
        listener: Arc::new(listener),
        frontend,
        share,
        flows: FlowTable::new(timeouts),
        full_until: None,
        complained: None,
    };
    let listener = Arc::clone(&server.listener);
    let mut sweep = interval(SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        // Readiness alone never yields to other tasks.
        consume_budget().await;
        tokio::select! {
            () = closed.cancelled() => return,
            _ = sweep.tick() => server.flows.expire(Instant::now()),
            ready = listener.readable() => match ready {
                Ok(()) => server.receive(),
                Err(error) => {
                    tracing::error!(socket = %server.frontend.socket, %error, "the runtime has ended");
                    return;
                }
            }
        }
    }
}

/// A socket that is connected to a target, from a port that no program of the node needs.
fn connected(shared: &Shared, to: SocketAddr) -> io::Result<UdpSocket> {
    // Rejected sockets stay open until the end, so that the kernel chooses other ports.
    let mut unfit = Vec::new();
    loop {
        let socket = RawSocket::new(Domain::for_address(to), Type::DGRAM, None)?;
        socket.set_nonblocking(true)?;
        socket.connect(&to.into())?;
        let local = socket.local_addr()?.as_socket();
        let local = local.map(|local| Socket {
            ip: local.ip(),
            protocol: Protocol::Udp,
            port: local.port(),
        });
        let refusal = local.and_then(|local| shared.node_ports().refusal(local));
        if refusal.is_none() {
            return UdpSocket::from_std(socket.into());
        }
        unfit.push(socket);
        if unfit.len() == PORT_TRIES {
            return Err(ErrorKind::AddrNotAvailable.into());
        }
    }
}

// === impl Server ===

impl Server {
    /// Takes what has arrived.
    fn receive(&mut self) {
        let listener = Arc::clone(&self.listener);
        for _ in 0..BURST {
            let received = buffer::with(|buffer| {
                let (length, client) = listener.try_recv_from(buffer)?;
                self.forward(client, &buffer[..length]);
                Ok::<_, io::Error>(())
            });
            match received {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // An earlier answer's ICMP error, reported on this socket.
                Err(error) => {
                    let socket = self.frontend.socket;
                    tracing::debug!(%socket, %error, "cannot receive a datagram");
                }
            }
        }
    }

    /// Sends one datagram on; one that cannot be sent is lost, as UDP may.
    fn forward(&mut self, client: SocketAddr, datagram: &[u8]) {
        let (balancer, frontend) = (&self.frontend.balancer, &self.frontend);
        if balancer.shared.knocks.is_knock(client) || !balancer.admits(client.ip()) {
            return;
        }
        let now = Instant::now();
        let version = balancer.shared.version();
        let refused = self.flows.refused_by(client);
        let avoid = refused.map(|target| Arc::clone(&target.name));
        let still = |target: &Candidate, carrier: &Carrier| {
            frontend.eligible().contains(target)
                && frontend.address(target) == Some(carrier.address)
        };
        if let Some(carrier) = self.flows.current(client, now, version, still) {
            carrier.send(datagram);
            return;
        }
        let Some(place) = self.place(now) else {
            self.complain(now);
            return;
        };
        if let Some((target, carrier)) = self.open(client, avoid.as_deref(), place) {
            self.frontend.balancer.remember(client.ip(), &target);
            carrier.send(datagram);
            self.flows.insert(client, target, carrier, now, version);
        }
    }

    /// A place for a new client; others make room where there is none.
    fn place(&mut self, now: Instant) -> Option<Place> {
        if let Some(place) = self.share.take() {
            return Some(place);
        }
        if self.full_until.is_some_and(|until| now < until) {
            return None;
        }
        let place = self.flows.evict(now).then(|| self.share.take()).flatten();
        self.full_until = place.is_none().then(|| now + EVICTION_PAUSE);
        place
    }

    fn open(
        &self,
        client: SocketAddr,
        avoid: Option<&str>,
        place: Place,
    ) -> Option<(Candidate, Carrier)> {
        let shared = &self.frontend.balancer.shared;
        for target in self.frontend.order(client.ip(), avoid) {
            let address = self.frontend.address(&target)?;
            match connected(shared, address) {
                Ok(socket) => {
                    let carrier = Carrier::new(socket, address, &self.listener, client, place);
                    return Some((target, carrier));
                }
                Err(error) => {
                    tracing::debug!(target = %target.name, %error, "a target cannot be reached");
                }
            }
        }
        None
    }

    fn complain(&mut self, now: Instant) {
        let last = self.complained;
        if last.is_none_or(|at| now.duration_since(at) >= COMPLAINT_PAUSE) {
            self.complained = Some(now);
            tracing::warn!(
                load_balancer = self.frontend.balancer.name, socket = %self.frontend.socket,
                "datagrams of new clients are dropped: there are as many clients as --max-flows and --max-total-flows allow"
            );
        }
    }
}

// === impl Carrier ===

impl Carrier {
    fn new(
        socket: UdpSocket,
        address: SocketAddr,
        listener: &Arc<UdpSocket>,
        client: SocketAddr,
        place: Place,
    ) -> Self {
        let link = Arc::new(Link {
            socket,
            started: Instant::now(),
            answered: AtomicU64::new(0),
            broken: AtomicBool::new(false),
        });
        let task = tokio::spawn(answers(Arc::clone(&link), Arc::clone(listener), client));
        Self {
            link,
            address,
            answers: task.abort_handle(),
            _place: place,
        }
    }

    fn send(&self, datagram: &[u8]) {
        // Not through the runtime, which refuses to send before the first readiness event.
        match SockRef::from(&self.link.socket).send(datagram) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                self.link.broken.store(true, Ordering::Relaxed);
            }
            // A full queue loses the datagram, as a busy network does.
            Ok(_) | Err(_) => {}
        }
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        self.answers.abort();
    }
}

impl Upstream for Carrier {
    fn answered(&self) -> Option<Instant> {
        let millis = self.link.answered.load(Ordering::Relaxed);
        let after = millis.checked_sub(1)?;
        Some(self.link.started + Duration::from_millis(after))
    }

    fn broken(&self) -> bool {
        self.link.broken.load(Ordering::Relaxed)
    }
}

/// Carries answers back until the flow is dropped or its target refuses.
async fn answers(link: Arc<Link>, listener: Arc<UdpSocket>, client: SocketAddr) {
    let to = client.into();
    loop {
        // Readiness alone never yields to other tasks.
        consume_budget().await;
        if link.socket.readable().await.is_err() {
            return;
        }
        let carried = buffer::with(|buffer| {
            let length = link.socket.try_recv(buffer)?;
            link.heard();
            if let Err(error) = SockRef::from(&*listener).send_to(&buffer[..length], &to) {
                tracing::debug!(%client, %error, "an answer cannot be sent");
            }
            Ok::<_, io::Error>(())
        });
        match carried {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => {
                tracing::debug!(%client, %error, "a UDP target refuses");
                link.broken.store(true, Ordering::Relaxed);
                return;
            }
        }
    }
}

// === impl Link ===

impl Link {
    /// The target has answered.
    fn heard(&self) {
        let millis = self.started.elapsed().as_millis();
        let millis = u64::try_from(millis).unwrap_or(u64::MAX - 1) + 1;
        self.answered.store(millis, Ordering::Relaxed);
    }
}
