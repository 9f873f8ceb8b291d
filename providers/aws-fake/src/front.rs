//! What stands before the cloud, whether it is the fake or another one behind a proxy: the address,
//! the log of calls, the limits of their rate, and faults.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::Credentials;
use crate::clock::{Clock, Time};
use crate::fault::{Fault, Plan};
use crate::log::{Call, Counts, Log};
use crate::server::{self, Backend, Inner, Shared};
use crate::state::Moment;
use crate::throttle::{Buckets, Throttle};

/// An address that takes calls. It ends when it is dropped.
#[derive(Debug)]
pub struct Front {
    shared: Arc<Shared>,
    address: SocketAddr,
    task: JoinHandle<()>,
}

/// How it is.
#[derive(Debug)]
pub(crate) struct Terms {
    pub(crate) listen: SocketAddr,
    pub(crate) region: String,
    pub(crate) time: Time,
    pub(crate) throttle: Option<Throttle>,
    pub(crate) latency: Duration,
    pub(crate) credentials: Vec<Credentials>,
    pub(crate) log: usize,
}

// === impl Front ===

impl Front {
    pub(crate) async fn start(terms: Terms, backend: Arc<dyn Backend>) -> std::io::Result<Self> {
        let listener = TcpListener::bind(terms.listen).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            backend,
            region: terms.region,
            clock: Clock::new(terms.time),
            credentials: terms.credentials,
            inner: Mutex::new(Inner {
                buckets: terms.throttle.map(Buckets::new),
                plan: Plan::default(),
                log: Log::new(terms.log),
                latency: terms.latency,
            }),
            open: watch::Sender::default(),
            held: watch::Sender::default(),
            released: watch::Sender::default(),
        });
        let task = tokio::spawn(server::serve(listener, Arc::clone(&shared)));
        Ok(Self {
            shared,
            address,
            task,
        })
    }

    pub(crate) fn advance(&self, by: Duration) {
        self.shared.clock.advance(by);
    }

    /// The address of both services, for `AWS_ENDPOINT_URL`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What a client may sign with.
    pub fn credentials(&self) -> &[Credentials] {
        &self.shared.credentials
    }

    /// The region, for `AWS_REGION`.
    pub fn region(&self) -> String {
        self.shared.region.clone()
    }

    /// The time of the fake.
    pub fn now(&self) -> Moment {
        self.shared.clock.now()
    }

    /// Plans a fault.
    pub fn fault(&self, fault: Fault) {
        self.shared.lock().plan.add(fault);
    }

    /// Forgets all faults that are planned, and releases all calls that are held.
    pub fn clear_faults(&self) {
        self.shared.lock().plan.clear();
        self.release();
    }

    /// Whether a fatal fault has happened since.
    pub fn is_down(&self) -> bool {
        self.shared.lock().plan.is_down()
    }

    /// Waits until a call is held.
    pub async fn held(&self) {
        let mut held = self.shared.held.subscribe();
        let _ = held.wait_for(|held| *held > 0).await;
    }

    /// Waits until no request is in progress. After a client was killed, whatever it had asked for
    /// has happened then, or never will.
    pub async fn idle(&self) {
        let mut open = self.shared.open.subscribe();
        let _ = open.wait_for(|open| *open == 0).await;
    }

    /// Releases the calls that are held.
    pub fn release(&self) {
        self.shared
            .released
            .send_modify(|generation| *generation += 1);
    }

    /// Sets the time that each call takes.
    pub fn set_latency(&self, latency: Duration) {
        self.shared.lock().latency = latency;
    }

    /// Sets the limits for the rate of calls, with full buckets.
    pub fn set_throttle(&self, throttle: Option<Throttle>) {
        self.shared.lock().buckets = throttle.map(Buckets::new);
    }

    /// The last calls.
    pub fn calls(&self) -> Vec<Call> {
        self.shared.lock().log.calls()
    }

    /// How many calls there were.
    pub fn counts(&self) -> Counts {
        self.shared.lock().log.counts().clone()
    }

    /// Forgets the calls so far.
    pub fn reset_calls(&self) {
        self.shared.lock().log.reset();
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.task.abort();
    }
}
