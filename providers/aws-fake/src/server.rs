//! The HTTP server: one task accepts, one task serves each connection, and all end with their
//! [`crate::Front`].
//!
//! It checks, counts, delays and refuses calls, and never answers one itself: that does the
//! [`Backend`]. Whatever waits, waits outside of the locks.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{Method, Request, Response, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::clock::Clock;
use crate::fault::{Effect, Fate, Plan};
use crate::log::{Log, Outcome};
use crate::state::{Moment, Refusal};
use crate::throttle::Buckets;
use crate::wire::form::Form;
use crate::wire::signature::{self, Credentials, Signed};
use crate::wire::{self, Answer, Service};

/// The largest body of a request. AWS has a limit, too.
const LARGEST: usize = 1 << 20;

/// Who answers calls.
pub(crate) trait Backend: std::fmt::Debug + Send + Sync {
    /// Makes a call. An error closes the connection without an answer.
    fn answer<'a>(&'a self, call: Accepted<'a>, now: Moment) -> Soon<'a>;
}

pub(crate) type Soon<'a> = Pin<Box<dyn Future<Output = io::Result<(Outcome, Answer)>> + Send + 'a>>;

/// A call that may be made.
#[derive(Debug)]
pub(crate) struct Accepted<'a> {
    pub(crate) service: Service,
    pub(crate) action: &'a str,
    pub(crate) form: Form,
    /// The request as it came.
    pub(crate) head: &'a http::request::Parts,
    pub(crate) body: &'a Bytes,
    /// Its ID.
    pub(crate) id: String,
}

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) region: String,
    pub(crate) clock: Clock,
    pub(crate) credentials: Vec<Credentials>,
    pub(crate) inner: Mutex<Inner>,
    /// The number of requests that are neither answered nor given up by their client.
    pub(crate) open: watch::Sender<usize>,
    /// The number of calls that are held.
    pub(crate) held: watch::Sender<usize>,
    /// Changes when held calls are released.
    pub(crate) released: watch::Sender<u64>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) buckets: Option<Buckets>,
    pub(crate) plan: Plan,
    pub(crate) log: Log,
    /// The time that each call takes.
    pub(crate) latency: Duration,
}

/// A request whose signature and action are right.
struct Checked {
    service: Service,
    action: String,
    form: Form,
    /// Its number in the log.
    number: u64,
}

/// Is counted for as long as it lives, and so for no longer than the client waits.
struct Counted<'a>(&'a watch::Sender<usize>);

/// Serves until the task is aborted.
pub(crate) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::task::yield_now().await;
            continue;
        };
        while connections.try_join_next().is_some() {}
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            let service = service_fn(move |request| {
                let shared = Arc::clone(&shared);
                async move { shared.handle(request).await }
            });
            let _ = stream.set_nodelay(true);
            let server = http1::Builder::new();
            // An error means that the connection was closed, often on purpose.
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

// === impl Shared ===

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers a request. An error closes the connection without an answer.
    async fn handle(&self, request: Request<Incoming>) -> io::Result<Response<Full<Bytes>>> {
        let _open = Counted::new(&self.open);
        let (head, body) = request.into_parts();
        let service = signature::service(&head.headers).unwrap_or(Service::Elb);
        let body = Limited::new(body, LARGEST).collect().await;
        let body = body.map_err(|_| closed())?.to_bytes();
        let checked = match self.check(service, &head, &body) {
            Ok(checked) => checked,
            Err((number, refusal)) => return Ok(self.refuse(service, number, &refusal)),
        };
        let Checked {
            service,
            action,
            form,
            number,
        } = checked;
        let (fate, latency) = self.begin(service, &action, form.values().is_empty());
        let Fate { delay, effect } = match fate {
            Ok(fate) => fate,
            Err(refusal) => {
                self.clock.wait_until(self.clock.now() + latency).await;
                return Ok(self.refuse(service, number, &refusal));
            }
        };
        self.clock
            .wait_until(self.clock.now() + latency + delay)
            .await;
        match &effect {
            Some(Effect::Refuse(refusal)) => return Ok(self.refuse(service, number, refusal)),
            Some(Effect::DropBefore) => {
                self.lock().log.close(number, Outcome::DroppedBefore);
                return Err(closed());
            }
            Some(Effect::HoldBefore) => self.hold().await,
            _ => {}
        }
        let call = Accepted {
            service,
            action: &action,
            form,
            head: &head,
            body: &body,
            id: request_id(number),
        };
        let (outcome, answer) = self.backend.answer(call, self.clock.now()).await?;
        self.lock().log.close(number, outcome);
        match &effect {
            Some(Effect::DropAfter) => {
                self.lock().log.close(number, Outcome::DroppedAfter);
                return Err(closed());
            }
            Some(Effect::HoldAfter) => self.hold().await,
            _ => {}
        }
        Ok(respond(answer, number))
    }

    /// Checks everything that does not depend on the state, and enters the call in the log.
    fn check(
        &self,
        service: Service,
        head: &http::request::Parts,
        body: &[u8],
    ) -> Result<Checked, (u64, Refusal)> {
        let mut form = Form::parse(service, body);
        let action = match &mut form {
            Ok(form) => wire::action(service, form),
            Err(refusal) => Err(refusal.clone()),
        };
        let mut inner = self.lock();
        let name = action.clone().unwrap_or_default();
        let parameters = (form.as_ref()).map(|form| form.values().clone());
        let at = self.clock.now();
        let number = inner
            .log
            .enter(at, service, name, parameters.unwrap_or_default());
        let refuse = |refusal| (number, refusal);
        check_head(head).map_err(refuse)?;
        let signed = Signed {
            method: &head.method,
            uri: &head.uri,
            headers: &head.headers,
            body,
        };
        signature::check(
            service,
            &self.region,
            &self.credentials,
            Timestamp::now(),
            signed,
        )
        .map_err(refuse)?;
        let action = action.map_err(refuse)?;
        let form = form.map_err(refuse)?;
        Ok(Checked {
            service,
            action,
            form,
            number,
        })
    }

    /// Whether the call may be made now, what happens to it, and how long it takes.
    fn begin(
        &self,
        service: Service,
        action: &str,
        whole: bool,
    ) -> (Result<Fate, Refusal>, Duration) {
        let mut inner = self.lock();
        let latency = inner.latency;
        let fate = inner.plan.next(action);
        let now = self.clock.now();
        let buckets = inner.buckets.as_mut();
        if buckets.is_some_and(|buckets| !buckets.take(service, action, whole, now)) {
            inner.log.throttled();
            return (Err(service.throttled()), latency);
        }
        (Ok(fate), latency)
    }

    fn refuse(&self, service: Service, number: u64, refusal: &Refusal) -> Response<Full<Bytes>> {
        let outcome = Outcome::Refused(refusal.code.clone());
        self.lock().log.close(number, outcome);
        let answer = wire::failure(service, refusal, &request_id(number));
        respond(answer, number)
    }

    async fn hold(&self) {
        let mut released = self.released.subscribe();
        let _held = Counted::new(&self.held);
        let _ = released.changed().await;
    }
}

fn check_head(head: &http::request::Parts) -> Result<(), Refusal> {
    if head.method != Method::POST || head.uri.path() != "/" || head.uri.query().is_some() {
        let message = "This fake takes only POST / with the parameters in the body";
        return Err(Refusal::new("MalformedQueryString", message).status(405));
    }
    let kind = head.headers.get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if kind != "application/x-www-form-urlencoded" {
        let message = format!("The content type '{kind}' is not that of a form");
        return Err(Refusal::new("MalformedQueryString", message).status(415));
    }
    Ok(())
}

fn respond(answer: Answer, number: u64) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(answer.body)));
    let status = http::StatusCode::from_u16(answer.status);
    *response.status_mut() = status.unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    let kind = http::HeaderValue::from_static("text/xml");
    headers.insert(header::CONTENT_TYPE, kind);
    if let Ok(id) = http::HeaderValue::from_str(&request_id(number)) {
        headers.insert("x-amzn-requestid", id);
    }
    response
}

/// The ID of a request, from its number.
fn request_id(number: u64) -> String {
    format!("00000000-0000-4000-8000-{number:012}")
}

fn closed() -> io::Error {
    io::ErrorKind::ConnectionAborted.into()
}

// === impl Counted ===

impl<'a> Counted<'a> {
    fn new(number: &'a watch::Sender<usize>) -> Self {
        number.send_modify(|number| *number += 1);
        Self(number)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|number| *number -= 1);
    }
}
