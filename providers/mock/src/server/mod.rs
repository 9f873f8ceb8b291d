//! The mock cloud's server, which `ballast mock-cloud` runs.
//!
//! Tasks: the HTTP server; the follower, which makes the data plane follow the state
//! (`follow`); one that stores the listeners of the node; with `--interface`, one that prolongs
//! the addresses on it (`nic`); the health checks; and tasks of the data plane per socket and
//! connection. They end with the shutdown token. A thread writes the state (`writer`), and ends after them. The API answers
//! only after the data plane has applied the stored state.

mod answer;
mod args;
mod calls;
mod cloud;
mod follow;
mod guard;
mod http;
mod knock;
mod lifecycle;
mod meter;
mod nic;
mod put;
mod record;
mod store;
mod validate;
mod writer;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ballast_http::{Limits, serve};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use self::args::{ArgsError, ServerArgs, ServerOptions, Span};
pub use self::nic::{InterfaceChoice, NicError};
pub use self::store::StoreError;
pub use crate::plane::{PlaneOptions, ReservedPorts};

use self::answer::Answers;
use self::calls::CallLog;
use self::cloud::{Cloud, Edit, Rules};
use self::follow::Follower;
use self::guard::{Guard, Limiter};
use self::http::App;
use self::nic::Nic;
use self::store::Store;
use self::writer::Writer;
use crate::address::{AddressRange, describe};
use crate::plane::Plane;

/// How long open calls may take to end after the shutdown has begun.
const GRACE: Duration = Duration::from_secs(5);

/// The pause after a failure to write the state.
const RETRY: Duration = Duration::from_secs(1);

/// Bounds on what clients of the API can make the cloud hold. Together with what requests hold
/// (`http`, `answer`) this is at most 80 MiB, less than a third of the memory limit that the
/// chart sets.
const LIMITS: Limits = Limits {
    connections: 256,
    header_size: 16 * 1024,
    header_time: Duration::from_secs(15),
    stall_time: Duration::from_secs(10),
};

/// A server with a bound API and a running data plane.
pub struct Server {
    listener: TcpListener,
    app: Arc<App>,
    follower: Follower,
    /// Stores the listeners of the node.
    memory: JoinHandle<()>,
    applied: watch::Sender<u64>,
    shutdown: CancellationToken,
}

/// Why the server cannot start or continue.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The address of the API is not available.
    #[error("the API cannot listen on {address}; select another address with --listen")]
    Listen {
        /// The requested address.
        address: SocketAddr,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
    /// The state cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The interface for the addresses cannot be used.
    #[error(transparent)]
    Nic(#[from] NicError),
    /// The system did not start a thread, or the API's socket failed.
    #[error("the mock cloud cannot continue")]
    System(#[from] std::io::Error),
}

/// Runs the server until the token is cancelled, then ends open calls and connections.
pub async fn run(options: ServerOptions, shutdown: CancellationToken) -> Result<(), ServerError> {
    Server::start(options, shutdown).await?.serve().await
}

/// The parts of the host that carry the load balancers.
#[derive(Clone)]
pub(crate) struct Host {
    /// Sockets.
    plane: Plane,
    /// The interface for the addresses, if there is one.
    nic: Option<Arc<Nic>>,
}

/// The given ranges, or the default ones.
fn ranges(given: Vec<AddressRange>, nic: Option<&Nic>) -> Result<Vec<AddressRange>, NicError> {
    match nic {
        _ if !given.is_empty() => Ok(given),
        Some(nic) => nic.ranges(),
        None => Ok("127.77.0.0/16".parse().into_iter().collect()),
    }
}

// === impl Server ===

impl Server {
    /// Binds the API, reads the state, and opens the ports of active load balancers.
    pub async fn start(
        options: ServerOptions,
        shutdown: CancellationToken,
    ) -> Result<Self, ServerError> {
        // Bound first, so that a second server on the same state ends before it reads the
        // state.
        let address = options.listen;
        let listener = TcpListener::bind(address)
            .await
            .map_err(|source| ServerError::Listen { address, source })?;
        let directory = options.state_dir.clone();
        let opened = tokio::task::spawn_blocking(move || Store::open(&directory)).await;
        let (store, mut stored) = opened.map_err(std::io::Error::other)??;
        let listeners = std::mem::take(&mut stored.listeners);
        let nic = match &options.interface {
            Some(choice) => Some(Arc::new(Nic::open(choice, listener.local_addr()?).await?)),
            None => None,
        };
        let ranges = ranges(options.addresses, nic.as_deref())?;
        if let Some(nic) = &nic {
            let (interface, ranges) = (nic.name(), describe(&ranges));
            tracing::info!(interface, ranges, "adding addresses to the interface");
        }
        let rules = Rules {
            ranges,
            max_load_balancers: options.max_load_balancers,
            max_listeners: options.max_listeners,
            provisioning_latency: options.provisioning_latency,
            deletion_latency: options.deletion_latency,
        };
        let writer = Writer::start(store, Cloud::new(rules, stored))?;
        let plane = Plane::start(options.plane, &listeners, shutdown.clone());
        let memory = remember(plane.clone(), writer.clone(), shutdown.clone());
        let memory = tokio::spawn(memory);
        let host = Host { plane, nic };
        let (follower, seq) = Follower::begin(writer.clone(), host.clone()).await;
        let (applied, done) = watch::channel(seq);
        let app = Arc::new(App {
            writer,
            host,
            applied: done,
            calls: Mutex::new(CallLog::default()),
            guard: Guard::new(options.token.as_deref(), options.token_file),
            limiter: Mutex::new(Limiter::new(options.rate_limit)),
            readers: Mutex::default(),
            bodies: Semaphore::new(http::BODIES),
            waiting: Semaphore::new(http::WAITING),
            answers: Answers::new(),
            targets: tokio::sync::Mutex::new(()),
            shutdown: shutdown.clone(),
        });
        Ok(Self {
            listener,
            app,
            follower,
            memory,
            applied,
            shutdown,
        })
    }

    /// The address of the API.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until the token is cancelled.
    pub async fn serve(self) -> Result<(), ServerError> {
        let Self {
            listener,
            app,
            follower,
            memory,
            applied,
            shutdown,
        } = self;
        if let Ok(address) = listener.local_addr() {
            tracing::info!(%address, "the mock cloud is listening");
        }
        let follower = tokio::spawn(follower.run(applied, shutdown.clone()));
        let nic = app.host.nic.clone();
        let served = serve(listener, http::router(app), LIMITS, shutdown.clone());
        let late = async {
            shutdown.cancelled().await;
            tokio::time::sleep(GRACE).await;
        };
        let result = tokio::select! {
            () = served => Ok(()),
            gone = tended(nic.as_deref()) => Err(gone.into()),
            () = late => {
                tracing::warn!("calls were still open after the grace time");
                Ok(())
            }
        };
        // If the server failed, the data plane ends, too.
        shutdown.cancel();
        if follower.await.is_err() {
            tracing::error!("the follower of the state has panicked");
        }
        if memory.await.is_err() {
            tracing::error!("the task that stores the listeners of the node has panicked");
        }
        if let Some(nic) = nic {
            nic.clear().await;
        }
        result
    }
}

/// Stores which listeners of the node were seen, so that the next process knows their ports,
/// also while those programs restart. Ends with the shutdown, after everything is stored.
async fn remember(plane: Plane, writer: Writer, shutdown: CancellationToken) {
    loop {
        let new = shutdown.run_until_cancelled(plane.new_listeners()).await;
        let last = new.is_none();
        let new = new.unwrap_or_else(|| plane.unstored_listeners());
        let edits: Vec<Edit> = new.into_iter().map(Edit::Listener).collect();
        loop {
            let edits = edits.clone();
            let Err(problem) = writer.change(move |_, _| Ok((edits, ()))).await else {
                break;
            };
            tracing::warn!(%problem, "cannot store the listeners of the node");
            if last || shutdown.is_cancelled() {
                return;
            }
            shutdown
                .run_until_cancelled(tokio::time::sleep(RETRY))
                .await;
        }
        if last {
            return;
        }
    }
}

/// Ends when the interface is gone; never ends without an interface.
async fn tended(nic: Option<&Nic>) -> NicError {
    match nic {
        Some(nic) => nic.tend().await,
        None => std::future::pending().await,
    }
}
