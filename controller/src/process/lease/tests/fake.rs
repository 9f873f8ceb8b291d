//! A strict API server that holds one Lease, and an unreliable network to it that loses, delays
//! and refuses requests.
//!
//! Every request runs in its own task: dropping a call does not stop it, so a write that the
//! candidate has given up may still land, as in a real network.

use std::{
    ops::Range,
    sync::{Arc, Mutex},
    time::Duration,
};

use k8s_openapi::api::coordination::v1::Lease;
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use tokio::{sync::oneshot, time::sleep};

use crate::process::lease::{CallError, LeaseApi};

/// The server. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Server {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    lease: Option<Lease>,
    version: u64,
    writes: usize,
}

/// The connection of one candidate to the server. Clones share its faults.
#[derive(Clone)]
pub(super) struct Link {
    server: Server,
    faults: Arc<Mutex<Faults>>,
    rng: Arc<Mutex<SmallRng>>,
}

/// The faults of a link.
#[derive(Clone, Debug)]
pub(super) struct Faults {
    /// Requests never arrive.
    pub(super) cut: bool,
    /// The chance that an answer is lost after the request was carried out.
    pub(super) lose_answer: f64,
    /// The chance of an error; half of the errors come after the request was carried out.
    pub(super) fail: f64,
    /// The delay in each direction, in milliseconds.
    pub(super) latency: Range<u64>,
}

pub(super) enum Request {
    Get,
    Create(Lease),
    Replace(Lease),
}

// === impl Server ===

impl Server {
    pub(super) fn link(&self, seed: u64) -> Link {
        Link {
            server: self.clone(),
            faults: Arc::default(),
            rng: Arc::new(Mutex::new(SmallRng::seed_from_u64(seed))),
        }
    }

    pub(super) fn lease(&self) -> Option<Lease> {
        self.state.lock().unwrap().lease.clone()
    }

    pub(super) fn writes(&self) -> usize {
        self.state.lock().unwrap().writes
    }

    /// Changes the Lease as a user would.
    pub(super) fn edit(&self, edit: impl FnOnce(&mut Option<Lease>)) {
        let mut state = self.state.lock().unwrap();
        edit(&mut state.lease);
        state.version += 1;
        let version = state.version.to_string();
        if let Some(lease) = &mut state.lease {
            lease.metadata.resource_version = Some(version);
        }
    }

    pub(super) fn answer(&self, request: Request) -> Result<Option<Lease>, CallError> {
        let mut state = self.state.lock().unwrap();
        let (lease, expected) = match request {
            Request::Get => return Ok(state.lease.clone()),
            Request::Create(lease) => {
                assert_eq!(lease.metadata.resource_version, None);
                (lease, None)
            }
            Request::Replace(lease) => {
                let version = lease.metadata.resource_version.clone();
                assert!(version.is_some(), "a replace without a guard");
                (lease, version)
            }
        };
        let current = state.lease.as_ref();
        if current.and_then(|lease| lease.metadata.resource_version.clone()) != expected {
            return Err(CallError::Conflict);
        }
        let (old, new) = (current.and_then(|l| l.spec.as_ref()), lease.spec.as_ref());
        assert!(new.is_some_and(|spec| spec.lease_duration_seconds >= Some(1)));
        assert!(
            new.and_then(|spec| spec.lease_transitions)
                >= old.and_then(|spec| spec.lease_transitions)
        );
        state.version += 1;
        state.writes += 1;
        let mut lease = lease;
        lease.metadata.resource_version = Some(state.version.to_string());
        state.lease = Some(lease.clone());
        Ok(Some(lease))
    }
}

// === impl Link ===

impl Link {
    pub(super) fn set(&self, faults: Faults) {
        *self.faults.lock().unwrap() = faults;
    }

    pub(super) fn with_faults(self, faults: Faults) -> Self {
        self.set(faults);
        self
    }

    async fn call(&self, request: Request) -> Result<Option<Lease>, CallError> {
        let (answer, answered) = oneshot::channel();
        let link = self.clone();
        tokio::spawn(async move {
            if let Some(result) = link.travel(request).await {
                // The caller may have given up.
                let _ = answer.send(result);
            }
        });
        match answered.await {
            Ok(result) => result,
            // Lost on the way: the caller never gets an answer.
            Err(_) => std::future::pending().await,
        }
    }

    async fn travel(&self, request: Request) -> Option<Result<Option<Lease>, CallError>> {
        let failed = || Some(Err(CallError::Failed("the server is ill".into())));
        self.way().await;
        let faults = self.faults.lock().unwrap().clone();
        if faults.cut {
            return None;
        }
        if self.chance(faults.fail / 2.0) {
            return failed();
        }
        let result = self.server.answer(request);
        if self.chance(faults.lose_answer) {
            return None;
        }
        if self.chance(faults.fail / 2.0) {
            return failed();
        }
        self.way().await;
        // The answer can be lost, too.
        (!self.faults.lock().unwrap().cut).then_some(result)
    }

    async fn way(&self) {
        let range = self.faults.lock().unwrap().latency.clone();
        let millis = self.rng.lock().unwrap().random_range(range);
        sleep(Duration::from_millis(millis)).await;
    }

    fn chance(&self, chance: f64) -> bool {
        self.rng.lock().unwrap().random_bool(chance)
    }
}

impl LeaseApi for Link {
    async fn get(&self) -> Result<Option<Lease>, CallError> {
        self.call(Request::Get).await
    }

    async fn create(&self, lease: Lease) -> Result<Lease, CallError> {
        let created = self.call(Request::Create(lease)).await?;
        created.ok_or(CallError::NoVersion)
    }

    async fn replace(&self, lease: Lease) -> Result<Lease, CallError> {
        let replaced = self.call(Request::Replace(lease)).await?;
        replaced.ok_or(CallError::NoVersion)
    }
}

// === impl Faults ===

impl Default for Faults {
    fn default() -> Self {
        Self {
            cut: false,
            lose_answer: 0.0,
            fail: 0.0,
            latency: 1..5,
        }
    }
}
