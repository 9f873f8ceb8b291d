//! Passes on what the API server says: views when they change, and whether it can be reached.
//!
//! The first view is built as soon as all lists are complete. After that a change waits until
//! 50 ms have passed since the last one, so that a burst of changes is one view. A view that is
//! equal to the last one is not passed on.
//!
//! After an outage everything is passed on anew: the agent may have dropped it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ballast_announce::view::View;
use ballast_announce::{Input, NodeName};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};

use super::lease::{Contact, NO_NODE};
use super::metrics::AnnouncerMetrics;
use super::seam::Agent;
use super::stores::Stores;
use super::view::{self, Built};
use crate::process::admin::Gate;

/// The minimum time between two views.
const SPACING: Duration = Duration::from_millis(50);

/// What the health checks need.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Targets {
    /// The health check node ports of each address.
    pub ports: BTreeMap<IpAddr, BTreeSet<u16>>,
    /// The internal addresses of this node.
    pub hosts: Vec<IpAddr>,
}

/// Passes inputs to the agent.
pub struct Publisher {
    /// This node.
    pub me: NodeName,
    /// This process.
    pub incarnation: String,
    /// What the watches delivered.
    pub stores: Arc<Stores>,
    /// Where inputs go.
    pub agent: Agent,
    /// The last view, for the environment checks.
    pub views: watch::Sender<Option<Arc<View>>>,
    /// Where the health checks learn what to check.
    pub targets: watch::Sender<Targets>,
    /// Opened by the first own renewal.
    pub gate: Gate,
    /// Whether the API server can be reached.
    pub metrics: AnnouncerMetrics,
}

/// What was passed on.
#[derive(Default)]
struct Passed {
    contact: Contact,
    view: Option<Arc<View>>,
    built: Option<Instant>,
    /// The names of the node's interfaces in the last report.
    interfaces: BTreeSet<Arc<str>>,
}

// === impl Publisher ===

impl Publisher {
    /// Passes inputs on for ever.
    pub async fn run(mut self) {
        let (mut changes, mut renewals) = (self.stores.changes(), self.stores.own_renewals());
        // Both may have happened before this task began.
        changes.mark_changed();
        let mut passed = Passed::default();
        let mut stale = false;
        if *renewals.borrow_and_update() > 0 {
            self.renewed(&mut passed);
        }
        loop {
            let next = passed
                .built
                .map_or_else(Instant::now, |built| built + SPACING);
            let deadline = passed.contact.deadline();
            let expiry = passed.built.and_then(|_| self.stores.expiry());
            tokio::select! {
                // The senders live as long as this task.
                Ok(()) = renewals.changed() => self.renewed(&mut passed),
                Ok(()) = changes.changed(), if !stale => stale = true,
                Ok(()) = self.agent.reports.changed() => {
                    let now = self.interfaces();
                    stale |= now != passed.interfaces;
                    passed.interfaces = now;
                }
                () = sleep_until(next), if stale => {
                    stale = false;
                    self.build(&mut passed);
                }
                () = sleep_until(expiry.unwrap_or(next)), if !stale && expiry.is_some() => {
                    stale = true;
                }
                () = sleep_until(deadline.unwrap_or(next)), if deadline.is_some() => {
                    self.look(&mut passed);
                }
            }
        }
    }

    fn interfaces(&self) -> BTreeSet<Arc<str>> {
        let report = self.agent.reports.borrow();
        let interfaces = report.iter().flat_map(|report| &report.interfaces);
        interfaces.map(|it| Arc::clone(&it.name)).collect()
    }

    fn build(&self, passed: &mut Passed) {
        if !self.stores.are_ready() {
            return;
        }
        let report = self.agent.reports.borrow().clone();
        let now = Instant::now();
        if self.stores.misses(&self.me) && passed.view.is_none() {
            self.gate.not_ready(NO_NODE);
        }
        let cluster = self.stores.cluster(report.as_deref(), now);
        let Built { view, health } = view::build(&cluster, &self.me);
        passed.built = Some(now);
        let hosts = view.nodes.get(&self.me).map(|node| node.addresses.clone());
        let targets = Targets {
            ports: health,
            hosts: hosts.unwrap_or_default(),
        };
        if passed.view.as_deref() != Some(&view) {
            let (addresses, nodes) = (view.wanted.len(), view.nodes.len());
            debug!(addresses, nodes, "the view of the cluster changed");
            let view = Arc::new(view);
            passed.view = Some(Arc::clone(&view));
            self.views.send_replace(Some(Arc::clone(&view)));
            self.agent.sink.pass(Input::View(view));
        }
        self.targets.send_if_modified(|before| {
            let differs = *before != targets;
            *before = targets;
            differs
        });
    }

    /// The watch delivered a renewal of this node's Lease.
    fn renewed(&self, passed: &mut Passed) {
        self.metrics.renewed();
        if !passed.contact.renewed(Instant::now()) {
            return;
        }
        info!("the API server can be reached");
        self.gate.ready();
        self.metrics.connected(true);
        let sink = &self.agent.sink;
        sink.pass(Input::Api { connected: true });
        for input in self.stores.inputs(&self.me, &self.incarnation) {
            sink.pass(input);
        }
        if let Some(view) = &passed.view {
            sink.pass(Input::View(Arc::clone(view)));
        }
    }

    fn look(&self, passed: &mut Passed) {
        if passed.contact.poll(Instant::now()) {
            // Without a Node the Lease is not renewed, whether or not the API server answers.
            if self.stores.misses(&self.me) {
                let node = &self.me;
                warn!(%node, "{}", NO_NODE);
            } else {
                warn!(
                    "the API server cannot be reached; nothing that depends on it changes until it can"
                );
            }
            self.metrics.connected(false);
            self.agent.sink.pass(Input::Api { connected: false });
        }
    }
}
