//! The mock cloud's server, as `ballast mock-cloud` runs it.
//!
//! Tasks: the HTTP server, the follower that keeps the data plane with the state
//! (`follow`), with `--interface` what prolongs the addresses on it (`nic`), the health
//! checks, and what the data plane spawns per socket and connection; a thread writes the
//! state (`writer`). All end with the shutdown token.
//! The API opens only when the data plane is as the stored state says.

mod answer;
mod args;
mod calls;
mod cloud;
mod follow;
mod guard;
mod http;
mod knock;
mod lifecycle;
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
use tokio_util::sync::CancellationToken;

pub use self::args::{ArgsError, ServerArgs, ServerOptions, Span};
pub use self::nic::{InterfaceChoice, NicError};
pub use self::store::StoreError;
pub use crate::plane::{PlaneOptions, ReservedPorts};

use self::answer::Answers;
use self::calls::CallLog;
use self::cloud::{Cloud, Rules};
use self::follow::Follower;
use self::guard::{Guard, Limiter};
use self::http::App;
use self::nic::Nic;
use self::store::Store;
use self::writer::Writer;
use crate::address::{AddressRange, describe};
use crate::plane::Plane;

/// How long open calls may take to end after the shutdown began.
const GRACE: Duration = Duration::from_secs(5);

/// What clients of the API may make the cloud hold. With all that requests hold
/// (`http`, `answer`) that is at most 80 MiB: less than a third of the memory limit that the
/// chart sets.
const LIMITS: Limits = Limits {
    connections: 256,
    header_size: 16 * 1024,
    header_time: Duration::from_secs(15),
    stall_time: Duration::from_secs(10),
};

/// A server whose API is bound and whose data plane runs.
pub struct Server {
    listener: TcpListener,
    app: Arc<App>,
    follower: Follower,
    applied: watch::Sender<u64>,
    shutdown: CancellationToken,
}

/// Why the server cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The API's port.
    #[error("the API cannot listen on {address}; select another address with --listen")]
    Listen {
        /// What was asked for.
        address: SocketAddr,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// The state.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The interface for the addresses.
    #[error(transparent)]
    Nic(#[from] NicError),
    /// The system gave no thread, or the API's socket failed.
    #[error("the mock cloud cannot continue")]
    System(#[from] std::io::Error),
}

/// Runs the server until the token is cancelled, then ends open calls and connections.
pub async fn run(options: ServerOptions, shutdown: CancellationToken) -> Result<(), ServerError> {
    Server::start(options, shutdown).await?.serve().await
}

/// Where the load balancers of the state become real.
#[derive(Clone)]
pub(crate) struct Host {
    /// Sockets.
    plane: Plane,
    /// Addresses, where they have to be put somewhere.
    nic: Option<Arc<Nic>>,
}

/// The ranges that were given, or those that go without saying.
fn ranges(given: Vec<AddressRange>, nic: Option<&Nic>) -> Result<Vec<AddressRange>, NicError> {
    match nic {
        _ if !given.is_empty() => Ok(given),
        Some(nic) => nic.ranges(),
        None => Ok("127.77.0.0/16".parse().into_iter().collect()),
    }
}

// === impl Server ===

impl Server {
    /// Reads the state, opens the ports of what was active, and binds the API.
    pub async fn start(
        options: ServerOptions,
        shutdown: CancellationToken,
    ) -> Result<Self, ServerError> {
        // First, so that a second server on the same state ends before it reads it.
        let address = options.listen;
        let listener = TcpListener::bind(address)
            .await
            .map_err(|source| ServerError::Listen { address, source })?;
        let directory = options.state_dir.clone();
        let opened = tokio::task::spawn_blocking(move || Store::open(&directory)).await;
        let (store, stored) = opened.map_err(std::io::Error::other)??;
        let nic = match &options.interface {
            Some(choice) => Some(Arc::new(Nic::open(choice, listener.local_addr()?).await?)),
            None => None,
        };
        let ranges = ranges(options.addresses, nic.as_deref())?;
        if let Some(nic) = &nic {
            let (interface, ranges) = (nic.name(), describe(&ranges));
            tracing::info!(interface, ranges, "addresses are put on the interface");
        }
        let rules = Rules {
            ranges,
            max_load_balancers: options.max_load_balancers,
            max_listeners: options.max_listeners,
            provisioning_latency: options.provisioning_latency,
            deletion_latency: options.deletion_latency,
        };
        let writer = Writer::start(store, Cloud::new(rules, stored))?;
        let plane = Plane::start(options.plane, shutdown.clone());
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
            applied,
            shutdown,
        })
    }

    /// Where the API listens.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers until the token is cancelled.
    pub async fn serve(self) -> Result<(), ServerError> {
        let Self {
            listener,
            app,
            follower,
            applied,
            shutdown,
        } = self;
        if let Ok(address) = listener.local_addr() {
            tracing::info!(%address, "the mock cloud listens");
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
        // A server that failed takes the data plane with it.
        shutdown.cancel();
        if follower.await.is_err() {
            tracing::error!("the follower of the state has ended badly");
        }
        if let Some(nic) = nic {
            nic.clear().await;
        }
        result
    }
}

/// Ends when the interface is gone; without one, never.
async fn tended(nic: Option<&Nic>) -> NicError {
    match nic {
        Some(nic) => nic.tend().await,
        None => std::future::pending().await,
    }
}
