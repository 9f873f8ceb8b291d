//! The two ends of the agent: where its inputs go, and what it reports. Plain types; this
//! module knows no socket, and the agent knows no Kubernetes.

use std::fmt;
use std::sync::Arc;

use ballast_agent::seal::Keyring;
pub use ballast_agent::{Announced, Report, ReportedInterface, Source};
use ballast_announce::Input;
use ballast_announce::snapshot::Snapshot;
use futures::future::BoxFuture;
use tokio::sync::watch;

/// The agent, as this module sees it.
#[derive(Clone, Debug)]
pub struct Agent {
    /// Where inputs go.
    pub sink: Sink,
    /// What the agent reports. `None` before it has listed the node's interfaces: nothing is
    /// published until then, so that a restart does not look like a node without interfaces.
    pub reports: watch::Receiver<Option<Arc<Report>>>,
    /// Says what the agent knows and does.
    pub inspector: Inspector,
    /// The keys that all announcers share: they seal messages and Announcer objects.
    pub keyring: Option<Arc<Keyring>>,
}

/// Asks the agent what it knows and does.
#[derive(Clone)]
pub struct Inspector(Arc<dyn Fn() -> BoxFuture<'static, Option<Snapshot>> + Send + Sync>);

/// Takes inputs, in the order in which they are passed. It may wait for the agent's thread, which
/// takes a batch of events at a time.
#[derive(Clone)]
pub struct Sink(Arc<dyn Fn(Input) + Send + Sync>);

// === impl Sink ===

impl Sink {
    /// Inputs go to this function.
    pub fn new(sink: impl Fn(Input) + Send + Sync + 'static) -> Self {
        Self(Arc::new(sink))
    }

    /// Passes one input on.
    pub fn pass(&self, input: Input) {
        (self.0)(input);
    }
}

// === impl Inspector ===

impl Inspector {
    /// Snapshots come from this function.
    pub fn new(
        look: impl Fn() -> BoxFuture<'static, Option<Snapshot>> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(look))
    }

    /// What it knows and does; `None` if it is too busy.
    pub async fn look(&self) -> Option<Snapshot> {
        (self.0)().await
    }
}

impl fmt::Debug for Inspector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Inspector")
    }
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sink")
    }
}
