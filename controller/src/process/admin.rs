//! The administrative endpoint: liveness, readiness, metrics.
//!
//! Owns the HTTP server and the register of gates and checks. The start-up code binds and
//! runs the server. A task whose first result the process needs holds a [`Gate`].
//!
//! Invariants:
//! - Ready means that every gate is open; the answer names each that is not. Leadership
//!   is not a gate: a follower is ready.
//! - Checks answer from memory. No request waits for anything but the register's lock.
//! - What clients can make the process hold is bounded ([`LIMITS`]).
//! - A shutdown ends within [`GRACE`], whatever the clients do.

use std::{
    fmt::Write as _,
    future::Future,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use ballast_http::{Limits, serve};
use prometheus_client::{encoding::text::encode, registry::Registry};
use tokio::{net::TcpListener, sync::Notify, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::text::one_line;

/// How long a shutdown waits for requests in progress.
pub const GRACE: Duration = Duration::from_secs(5);

/// Bounds on what clients can make this process hold: every pod of the cluster can reach the
/// server. A kubelet and a few scrapers need less.
const LIMITS: Limits = Limits {
    connections: 32,
    header_size: 8 * 1024,
    header_time: Duration::from_secs(5),
    stall_time: Duration::from_secs(10),
};

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The health of the process. Clones share it.
#[derive(Clone, Default)]
pub struct Health {
    register: Arc<Mutex<Register>>,
    /// Notifies waiters that a gate has opened.
    opened: Arc<Notify>,
}

/// A condition for readiness. It starts closed, and keeps its state when the handle is dropped.
#[derive(Clone)]
pub struct Gate {
    health: Health,
    index: usize,
}

/// The server, bound but not serving yet.
#[derive(Debug)]
pub struct Admin {
    listener: TcpListener,
    address: SocketAddr,
    router: Router,
}

#[derive(Default)]
struct Register {
    gates: Vec<GateState>,
    checks: Vec<Check>,
}

struct GateState {
    name: String,
    /// Why it is closed, in one line; `None` if it is open.
    closed: Option<String>,
}

struct Check {
    name: String,
    run: Arc<dyn Fn() -> Result<(), String> + Send + Sync>,
}

// === impl Health ===

impl Health {
    /// Registers a gate, closed.
    pub fn gate(&self, name: impl Into<String>) -> Gate {
        let name = name.into();
        let mut register = self.lock();
        register.gates.push(GateState {
            name,
            closed: Some(String::new()),
        });
        Gate {
            health: self.clone(),
            index: register.gates.len() - 1,
        }
    }

    /// Registers a liveness check. It returns an error only if nothing but a restart helps. It
    /// is called on every request and must return at once.
    pub fn liveness(
        &self,
        name: impl Into<String>,
        check: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) {
        let name = name.into();
        let run = Arc::new(check);
        self.lock().checks.push(Check { name, run });
    }

    /// The closed gates, one line each.
    pub fn missing(&self) -> Vec<String> {
        let register = self.lock();
        let lines = register.gates.iter().filter_map(|gate| {
            let why = gate.closed.as_deref()?;
            Some(line("waiting for", &gate.name, why))
        });
        lines.collect()
    }

    /// Waits until all gates registered so far are open at the same time.
    pub async fn opened(&self) {
        loop {
            let opened = self.opened.notified();
            tokio::pin!(opened);
            // Subscribed before the check, so that a gate that opens in between is not missed.
            opened.as_mut().enable();
            if self.missing().is_empty() {
                return;
            }
            opened.await;
        }
    }

    /// The failing liveness checks, one line each.
    pub fn failing(&self) -> Vec<String> {
        // Run without the lock, because a check may read a gate.
        let checks: Vec<_> = {
            let register = self.lock();
            let checks = register.checks.iter();
            checks
                .map(|check| (check.name.clone(), Arc::clone(&check.run)))
                .collect()
        };
        let failing = checks.into_iter().filter_map(|(name, run)| {
            let why = run().err()?;
            Some(line("failing", &name, &one_line(&why)))
        });
        failing.collect()
    }

    fn lock(&self) -> MutexGuard<'_, Register> {
        self.register.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Gate ===

impl Gate {
    /// Opens the gate.
    pub fn ready(&self) {
        self.set(None);
        self.health.opened.notify_waiters();
    }

    /// Closes the gate with a reason.
    pub fn not_ready(&self, why: &str) {
        self.set(Some(one_line(why)));
    }

    /// Why it is closed, if a reason was given.
    pub fn trouble(&self) -> Option<String> {
        let register = self.health.lock();
        let why = register.gates.get(self.index)?.closed.as_ref();
        why.filter(|why| !why.is_empty()).cloned()
    }

    fn set(&self, closed: Option<String>) {
        let mut register = self.health.lock();
        let Some(gate) = register.gates.get_mut(self.index) else {
            return;
        };
        if gate.closed == closed {
            return;
        }
        match &closed {
            None => info!(gate = gate.name, "ready"),
            Some(why) => info!(gate = gate.name, why, "not ready"),
        }
        gate.closed = closed;
    }
}

// === impl Admin ===

impl Admin {
    /// Binds the address. Nothing is served before [`Admin::run`].
    pub async fn bind(
        address: SocketAddr,
        health: Health,
        metrics: Arc<Registry>,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let router = Router::new()
            .route("/livez", get(livez))
            .route("/readyz", get(readyz))
            .with_state(health)
            .merge(
                Router::new()
                    .route("/metrics", get(scrape))
                    .with_state(metrics),
            );
        Ok(Self {
            listener,
            address,
            router,
        })
    }

    /// Also serves these routes.
    #[must_use]
    pub fn with(mut self, routes: Router) -> Self {
        self.router = self.router.merge(routes);
        self
    }

    /// The bound address, with the actual port if 0 was requested.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` completes, and then until the requests in progress are answered
    /// or [`GRACE`] has passed.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> io::Result<()> {
        let Self {
            listener,
            address,
            router,
        } = self;
        let stop = CancellationToken::new();
        let serve = serve(listener, router, LIMITS, stop.clone());
        tokio::pin!(serve, shutdown);
        info!(%address, "serving health and metrics");
        tokio::select! {
            () = &mut serve => return Ok(()),
            () = shutdown => stop.cancel(),
        }
        if timeout(GRACE, serve).await.is_err() {
            warn!("clients still connected, leaving");
        }
        Ok(())
    }
}

async fn livez(State(health): State<Health>) -> Response {
    verdict("alive", &health.failing())
}

async fn readyz(State(health): State<Health>) -> Response {
    verdict("ready", &health.missing())
}

async fn scrape(State(metrics): State<Arc<Registry>>) -> Response {
    let mut text = String::new();
    match encode(&mut text, &metrics) {
        Ok(()) => ([(CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(error) => {
            warn!(%error, "cannot encode the metrics");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

fn verdict(good: &str, objections: &[String]) -> Response {
    if objections.is_empty() {
        return format!("{good}\n").into_response();
    }
    let text = objections.join("\n") + "\n";
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

fn line(what: &str, name: &str, why: &str) -> String {
    let mut line = format!("{what}: {}", one_line(name));
    if !why.is_empty() {
        // Writing to a string cannot fail.
        let _ = write!(line, " ({why})");
    }
    line
}

#[cfg(test)]
mod tests;
