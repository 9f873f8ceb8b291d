//! The Lease of this node: a heartbeat, and the proof that the API server can be reached.
//!
//! Every announcer renews the Lease `announcer-NODE` every 5 s. It is bare: nobody competes for
//! it, and no wall clock is compared. Other announcers count 15 s, on their own clocks, from the
//! last renewal that they saw.
//!
//! - **It outlives the process.** A restart takes less than 15 s, and a deleted Lease would say
//!   no more than one that is not renewed. While an old and a new process of a node overlap, both
//!   renew it. The garbage collector deletes it with its Node.
//! - **This node is connected while its renewals come back.** A renewal counts when the watch of
//!   the Leases delivers it ([`Contact`]). So a watch that is silent, but not closed, is noticed
//!   as well: without that, the Leases of all other nodes would seem to expire.
//!
//! ```text
//!          own renewal delivered             none delivered for 8 s
//! Away ───────────────────────────▶ Connected ─────────────────────▶ Away
//! ```

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Resource as _;
use rand::rngs::SmallRng;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{info, warn};

use super::MANAGER;
use super::facts::NodeObject;
use super::stores::Stores;
use crate::cluster::writer::{Requests, WriteError};
use crate::process::backoff::Backoff;
use crate::process::causes::causes;
use ballast_announce::NodeName;
use ballast_announce::timing::LEASE;

/// The label of the Leases of announcers.
pub const LABELS: &str = "ballast.dev/lease=announcer";
/// How often the Lease is renewed.
const INTERVAL: Duration = Duration::from_secs(5);
/// How long a renewal may take.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Until the next try after a failure.
const RETRY: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(2));
/// What to say while the Node object does not exist.
pub const NO_NODE: &str = "there is no Node with the name of --node-name (NODE_NAME); nothing is written, and this node takes over no addresses";
/// The names of Leases begin with it.
const PREFIX: &str = "announcer-";
/// The maximum length of a node's name: that of a Lease has at most 253 characters.
pub const LONGEST_NODE: usize = 253 - PREFIX.len();
/// This long without a renewal, the API server counts as away. Together with the age of another
/// node's last renewal, at most 5 s, it is less than the duration of a Lease.
const AWAY: Duration = Duration::from_secs(8);
// A node that cannot renew its Lease knows it before others take it for dead.
const _: () = assert!(AWAY.as_millis() + INTERVAL.as_millis() < LEASE.as_millis());

/// Whether the API server can be reached.
#[derive(Clone, Copy, Debug, Default)]
pub struct Contact {
    /// When the watch delivered the last own renewal, while connected.
    renewed: Option<Instant>,
}

/// Renews the Lease.
pub struct Renewal {
    /// Sends the requests.
    pub requests: Requests,
    /// The namespace of the Lease.
    pub namespace: String,
    /// This node.
    pub node: NodeName,
    /// This process.
    pub incarnation: String,
    /// Where the Node object is.
    pub stores: Arc<Stores>,
}

/// The node of a Lease with this name.
pub fn node_of(lease: &str) -> Option<&str> {
    lease.strip_prefix(PREFIX).filter(|node| !node.is_empty())
}

/// The reference that deletes an object with its Node.
pub fn owner(name: &str, uid: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "name": name, "uid": uid})
}

// === impl Contact ===

impl Contact {
    /// The watch delivered a renewal of the own Lease. Returns whether the API server was away
    /// before.
    pub fn renewed(&mut self, now: Instant) -> bool {
        self.renewed.replace(now).is_none()
    }

    /// When it counts as away if no renewal comes; `None` if it is away.
    pub fn deadline(self) -> Option<Instant> {
        self.renewed.map(|renewed| renewed + AWAY)
    }

    /// Returns whether it has just become away.
    pub fn poll(&mut self, now: Instant) -> bool {
        let away = self.deadline().is_some_and(|deadline| deadline <= now);
        if away {
            self.renewed = None;
        }
        away
    }
}

// === impl Renewal ===

impl Renewal {
    /// Renews the Lease for ever, while the Node exists.
    pub async fn run(self) {
        let mut rng: SmallRng = rand::make_rng();
        let mut failures: u32 = 0;
        let mut changes = self.stores.changes();
        let mut missing = false;
        loop {
            let Some(node) = self.stores.node(&self.node) else {
                if self.stores.misses(&self.node) && !std::mem::replace(&mut missing, true) {
                    let node = &self.node;
                    warn!(%node, "{}", NO_NODE);
                }
                // The sender lives as long as the stores.
                let _ = changes.changed().await;
                continue;
            };
            missing = false;
            let begun = Instant::now();
            match self.renew(&node).await {
                Ok(()) => {
                    if failures > 0 {
                        info!(failures, "the Lease of this node is renewed again");
                    }
                    failures = 0;
                    sleep_until(begun + INTERVAL).await;
                }
                Err(error) => {
                    if failures == 0 {
                        let error = causes(&error);
                        warn!(error, "cannot renew the Lease of this node; trying again");
                    }
                    sleep(RETRY.delay(failures, &mut rng)).await;
                    failures = failures.saturating_add(1);
                }
            }
        }
    }

    async fn renew(&self, node: &NodeObject) -> Result<(), WriteError> {
        let path = Lease::url_path(&(), Some(&self.namespace));
        let path = format!("{path}/{PREFIX}{}", self.node);
        let body = self.body(node, Timestamp::now());
        let call = self.requests.apply("lease", &path, MANAGER, &body);
        match timeout(TIMEOUT, call).await {
            Ok(written) => written.map(|_| ()),
            Err(_) => Err(WriteError::Timeout),
        }
    }

    fn body(&self, node: &NodeObject, now: Timestamp) -> Value {
        let (key, value) = LABELS.split_once('=').unwrap_or((LABELS, ""));
        json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {
                "name": format!("{PREFIX}{}", self.node),
                "namespace": self.namespace,
                "labels": {key: value},
                "ownerReferences": [owner(node.name.as_str(), &node.uid)],
            },
            "spec": {
                "holderIdentity": self.incarnation,
                "leaseDurationSeconds": LEASE.as_secs(),
                "renewTime": MicroTime(now),
            },
        })
    }
}
