//! An HTTP/1.1 server that bounds everything a client can make it hold. The mock cloud's API
//! and the controller's admin endpoint use it; it depends on neither.
//!
//! Invariants: there are at most [`Limits::connections`] connections, and one more while a
//! closed one ends; each holds at most [`Limits::header_size`] of an unfinished request; a
//! client that neither finishes a request nor reads its answer is disconnected. The router
//! itself bounds what it holds for a request.
//!
//! When all connections are taken, the server closes the oldest idle one, so idle clients
//! cannot keep others out. A connection is idle when it has no request in progress and its
//! last answer is written. If none is idle, the server closes the oldest one whose answer has
//! taken longer than [`Limits::stall_time`], so slow readers cannot keep others out either.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::response::Response;
use http::Request;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::CancellationToken;

/// The pause after an error of `accept` that does not concern one connection, such as no free
/// descriptor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Bounds on what clients can make the server hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The maximum number of connections at the same time.
    pub connections: usize,
    /// The maximum number of bytes of a request's head; hyper requires at least 8,192.
    pub header_size: usize,
    /// The time to receive the whole head of a request, and so the time a connection may be
    /// idle.
    pub header_time: Duration,
    /// The time a client may take without reading any of an answer. An answer that takes
    /// longer in total can be cut off when all connections are taken.
    pub stall_time: Duration,
}

/// The address that a request came from. Every request has it as an extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Peer(pub IpAddr);

/// The open connections.
#[derive(Debug)]
struct Connections {
    limit: usize,
    /// The time after which an answer in progress protects its connection no longer.
    patience: Duration,
    inner: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    /// By number; the lowest is the oldest.
    open: BTreeMap<u64, Open>,
}

#[derive(Debug)]
struct Open {
    /// The router is handling a request.
    handling: bool,
    /// The body of an answer has not ended.
    answering: bool,
    /// Not everything is written.
    writing: bool,
    /// When the last answer began.
    since: Instant,
    /// Closes the connection at once.
    close: CancellationToken,
}

/// One open connection, until it is dropped.
#[derive(Clone, Debug)]
struct Place {
    number: u64,
    close: CancellationToken,
    connections: Arc<Connections>,
}

/// A request in progress, until it is dropped.
struct Busy(Place);

/// The body of an answer. The request is in progress until the body has ended or is dropped.
struct Answer {
    body: Body,
    _busy: Busy,
}

/// A stream whose writes fail when the other side reads nothing for a while.
struct Impatient<'a> {
    stream: TcpStream,
    place: &'a Place,
    /// As in the table.
    writing: bool,
    stall_time: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
}

/// Serves until the shutdown, then finishes the requests in progress.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    shutdown: CancellationToken,
) {
    let connections = Arc::new(Connections::new(limits));
    accept(listener, router, limits, shutdown, &connections).await;
}

async fn accept(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    shutdown: CancellationToken,
    connections: &Arc<Connections>,
) {
    let mut tasks = JoinSet::new();
    loop {
        // A closed connection holds memory until its task has ended.
        let room = tasks.len() <= limits.connections;
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            Some(_) = tasks.join_next() => continue,
            accepted = listener.accept(), if room => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                // If no place is free, the stream is dropped, which closes it.
                if let Some(place) = connections.admit() {
                    let (router, shutdown) = (router.clone(), shutdown.clone());
                    let peer = Peer(peer.ip().to_canonical());
                    tasks.spawn(async move {
                        connection(stream, peer, router, limits, &place, &shutdown).await;
                        place.leave();
                    });
                }
            }
            Err(error) => {
                tracing::debug!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    while tasks.join_next().await.is_some() {}
}

/// Serves one connection until it ends.
async fn connection(
    stream: TcpStream,
    peer: Peer,
    router: Router,
    limits: Limits,
    place: &Place,
    shutdown: &CancellationToken,
) {
    // If this fails, answers are late; nothing else changes.
    let _ = stream.set_nodelay(true);
    let inner = TowerToHyperService::new(router);
    let service = service_fn(|mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        let busy = place.begin();
        let answered = inner.call(request);
        async move {
            let answer: Result<Response, Infallible> = answered.await;
            answer.map(|answer| answer.map(|body| busy.answer(body)))
        }
    });
    let io = TokioIo::new(Impatient {
        stream,
        place,
        writing: false,
        stall_time: limits.stall_time,
        stalled: None,
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_time)
        .max_buf_size(limits.header_size)
        .serve_connection(io, service);
    tokio::pin!(connection);
    tokio::select! {
        // An error here is the client's doing and needs no handling.
        _ = &mut connection => return,
        () = place.close.cancelled() => return,
        () = shutdown.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    tokio::select! {
        _ = connection => {}
        () = place.close.cancelled() => {}
    }
}

// === impl Connections ===

impl Connections {
    fn new(limits: Limits) -> Self {
        Self {
            limit: limits.connections,
            patience: limits.stall_time,
            inner: Mutex::default(),
        }
    }

    /// Returns a place for one more connection. If all are taken, closes the oldest idle
    /// connection, otherwise the oldest one with a slow reader. Returns `None` if there is
    /// neither.
    fn admit(self: &Arc<Self>) -> Option<Place> {
        let mut table = self.table();
        let now = Instant::now();
        if table.open.len() >= self.limit {
            let slow = |open: &Open| {
                !open.handling && now.saturating_duration_since(open.since) >= self.patience
            };
            let oldest = |may: &dyn Fn(&Open) -> bool| {
                let mut all = table.open.iter();
                all.find(|(_, open)| may(open)).map(|(number, _)| *number)
            };
            let number = oldest(&Open::is_idle).or_else(|| oldest(&slow))?;
            if let Some(open) = table.open.remove(&number) {
                open.close.cancel();
            }
        }
        let number = table.next;
        table.next += 1;
        let close = CancellationToken::new();
        let open = Open {
            handling: false,
            answering: false,
            writing: false,
            since: now,
            close: close.clone(),
        };
        table.open.insert(number, open);
        Some(Place {
            number,
            close,
            connections: Arc::clone(self),
        })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Each change is one insertion, removal or flag, so a panic leaves a valid table.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Open ===

impl Open {
    const fn is_idle(&self) -> bool {
        !self.handling && !self.answering && !self.writing
    }
}

// === impl Place ===

impl Place {
    fn begin(&self) -> Busy {
        self.set(|open| open.handling = true);
        Busy(self.clone())
    }

    fn set(&self, change: impl FnOnce(&mut Open)) {
        // A connection that was closed to make room is not in the table any more.
        if let Some(open) = self.connections.table().open.get_mut(&self.number) {
            change(open);
        }
    }

    fn leave(&self) {
        self.connections.table().open.remove(&self.number);
    }
}

// === impl Busy ===

impl Busy {
    /// The router has answered; the request is in progress until the body has ended.
    fn answer(self, body: Body) -> Body {
        self.0.set(|open| {
            open.handling = false;
            open.answering = true;
            open.since = Instant::now();
        });
        Body::new(Answer { body, _busy: self })
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.set(|open| {
            open.handling = false;
            open.answering = false;
        });
    }
}

// === impl Answer ===

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

// === impl Impatient ===

impl Impatient<'_> {
    fn set_writing(&mut self, writing: bool) {
        if self.writing != writing {
            self.writing = writing;
            self.place.set(|open| open.writing = writing);
        }
    }

    /// Turns a write that waits too long into an error.
    fn judge<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let stall_time = self.stall_time;
        let stalled = self
            .stalled
            .get_or_insert_with(|| Box::pin(sleep(stall_time)));
        let late = stalled.as_mut().poll(context);
        late.map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Impatient<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Impatient<'_> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.set_writing(true);
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.judge(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.set_writing(true);
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.judge(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper flushes when it has written everything that it has.
        self.set_writing(false);
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests;
