//! UDP: one task per socket takes the clients' datagrams, one per client carries the
//! answers back from the listener's own address.
//!
//! A flow is one connected socket to one target. When the target is no longer
//! eligible, or says that nobody listens, the client's next datagram opens another
//! flow: also a client that never changes its source port moves on.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use socket2::{Domain, Socket as RawSocket, Type};
use tokio::net::UdpSocket;
use tokio::task::AbortHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::balance::Candidate;
use super::flows::{FlowTable, Upstream};
use super::plan::Socket;
use super::{Balancer, Cursor};

/// The largest datagram there is.
const DATAGRAM: usize = 65_535;

/// Between two looks for idle clients.
const SWEEP: Duration = Duration::from_secs(5);

/// Between two complaints about a full table.
const COMPLAINT_PAUSE: Duration = Duration::from_secs(10);

/// A flow's socket and what its answers say.
struct Carrier {
    socket: Arc<UdpSocket>,
    news: Arc<News>,
    answers: AbortHandle,
}

#[derive(Debug)]
struct News {
    started: Instant,
    /// Milliseconds after `started` of the last answer, plus one; 0 is never.
    answered: AtomicU64,
    broken: AtomicBool,
}

/// Everything one socket's task works with.
struct Server {
    listener: Arc<UdpSocket>,
    socket: Socket,
    balancer: Arc<Balancer>,
    cursor: Cursor,
    flows: FlowTable<Carrier>,
    complained: Option<Instant>,
}

/// Opens a socket for clients' datagrams.
pub(super) fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = RawSocket::new(Domain::for_address(address), Type::DGRAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // No address reuse: for UDP it would take another program's datagrams away.
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

/// Forwards until the socket is to be closed.
pub(super) async fn serve(
    listener: UdpSocket,
    socket: Socket,
    balancer: Arc<Balancer>,
    closed: CancellationToken,
) {
    let options = &balancer.shared.options;
    let flows = FlowTable::new(options.max_flows, options.flow_idle);
    let mut server = Server {
        listener: Arc::new(listener),
        socket,
        balancer,
        cursor: Cursor::default(),
        flows,
        complained: None,
    };
    let listener = Arc::clone(&server.listener);
    let mut buffer = vec![0; DATAGRAM];
    let mut sweep = interval(SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = closed.cancelled() => return,
            _ = sweep.tick() => server.flows.expire(Instant::now()),
            received = listener.recv_from(&mut buffer) => match received {
                Ok((length, client)) => server.forward(client, &buffer[..length]).await,
                // An earlier answer's ICMP error, reported on this socket.
                Err(error) => tracing::debug!(%socket, %error, "a datagram cannot be received"),
            }
        }
    }
}

// === impl Server ===

impl Server {
    /// Sends one datagram on; one that cannot be sent is lost, as UDP may.
    async fn forward(&mut self, client: SocketAddr, datagram: &[u8]) {
        if self.balancer.shared.knocks.is_one(client) {
            return;
        }
        if !self.balancer.admits(client.ip()) {
            return;
        }
        let now = Instant::now();
        let version = self.balancer.shared.version();
        let avoid = self.flows.refused_by(client).map(str::to_owned);
        let (balancer, socket) = (Arc::clone(&self.balancer), self.socket);
        let eligible = || balancer.eligible(socket);
        if let Some(carrier) = self.flows.current(client, now, version, eligible) {
            carrier.send(datagram);
            return;
        }
        if self.flows.room(now).is_err() {
            self.complain(now);
            return;
        }
        if let Some((target, carrier)) = self.open(client, avoid.as_deref()).await {
            self.balancer.remember(client.ip(), &target.name);
            let carrier = self.flows.insert(client, target, carrier, now, version);
            carrier.send(datagram);
        }
    }

    async fn open(&self, client: SocketAddr, avoid: Option<&str>) -> Option<(Candidate, Carrier)> {
        let mut order = self.balancer.order(self.socket, client.ip(), &self.cursor);
        order.sort_by_key(|candidate| Some(candidate.name.as_str()) == avoid);
        for target in order {
            match Carrier::open(&target, &self.listener, client).await {
                Ok(carrier) => return Some((target, carrier)),
                Err(error) => {
                    tracing::debug!(target = target.name, %error, "a target cannot be reached");
                }
            }
        }
        None
    }

    fn complain(&mut self, now: Instant) {
        if self
            .complained
            .is_none_or(|at| now.duration_since(at) >= COMPLAINT_PAUSE)
        {
            self.complained = Some(now);
            tracing::warn!(
                load_balancer = self.balancer.name, socket = %self.socket,
                limit = self.balancer.shared.options.max_flows,
                "datagrams of new clients are dropped: the listener has as many clients as --max-flows allows"
            );
        }
    }
}

// === impl Carrier ===

impl Carrier {
    async fn open(
        target: &Candidate,
        listener: &Arc<UdpSocket>,
        client: SocketAddr,
    ) -> io::Result<Self> {
        let any: SocketAddr = if target.address.is_ipv6() {
            (Ipv6Addr::UNSPECIFIED, 0).into()
        } else {
            (Ipv4Addr::UNSPECIFIED, 0).into()
        };
        let socket = Arc::new(UdpSocket::bind(any).await?);
        socket.connect(target.address).await?;
        // Until the runtime has seen it once, a new socket takes nothing.
        socket.writable().await?;
        let news = Arc::new(News {
            started: Instant::now(),
            answered: AtomicU64::new(0),
            broken: AtomicBool::new(false),
        });
        let task = tokio::spawn(answers(
            Arc::clone(&socket),
            Arc::clone(listener),
            client,
            Arc::clone(&news),
        ));
        Ok(Self {
            socket,
            news,
            answers: task.abort_handle(),
        })
    }

    fn send(&self, datagram: &[u8]) {
        match self.socket.try_send(datagram) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                self.news.broken.store(true, Ordering::Relaxed);
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
        let millis = self.news.answered.load(Ordering::Relaxed);
        let after = millis.checked_sub(1)?;
        Some(self.news.started + Duration::from_millis(after))
    }

    fn broken(&self) -> bool {
        self.news.broken.load(Ordering::Relaxed)
    }
}

/// Carries answers back until the flow is dropped or its target refuses.
async fn answers(
    from: Arc<UdpSocket>,
    listener: Arc<UdpSocket>,
    client: SocketAddr,
    news: Arc<News>,
) {
    let mut buffer = vec![0; DATAGRAM];
    loop {
        match from.recv(&mut buffer).await {
            Ok(length) => {
                let millis = news.started.elapsed().as_millis();
                let millis = u64::try_from(millis).unwrap_or(u64::MAX - 1) + 1;
                news.answered.store(millis, Ordering::Relaxed);
                if let Err(error) = listener.send_to(&buffer[..length], client).await {
                    tracing::debug!(%client, %error, "an answer cannot be sent");
                }
            }
            Err(error) => {
                tracing::debug!(%client, %error, "a UDP target refuses");
                news.broken.store(true, Ordering::Relaxed);
                return;
            }
        }
    }
}
