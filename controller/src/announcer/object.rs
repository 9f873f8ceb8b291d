//! The Announcer object of this node: what it says, and the task that writes it.
//!
//! The object is created with its Node as owner, so that it is deleted with the Node. The status
//! is written when it changes, one write at a time, and again after a failure until the latest one
//! is written. Nothing is written while nothing changes.
//!
//! - Nothing is written before the agent has listed its interfaces and this process has read the
//!   object: a restart must not make other nodes believe that this one lost its interfaces or
//!   its addresses. Until the agent has recorded claims, those in the object stay.
//! - Why and since when the node announces an address is known to the process that claimed it.
//!   Another process of the node keeps what the object says about the same claim.
//! - Each status has a serial higher than the last one, and seals that prove that an announcer wrote
//!   it ([`super::trust`]). It is sealed again when the keys change.
//! - During an update an old and a new process of a node write the same object. The old one stops as
//!   soon as it learns of the new one. Otherwise a process writes over a status of another one only
//!   after [`REASSERT`], so that they do not fight. What no announcer wrote is corrected sooner.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ballast_agent::seal::Keyring;
use ballast_agent::seal::object::{Content, ObjectSeal};
use ballast_announce::NodeName;
use ballast_announce::timing::CLAIMS;
use ballast_crds::{Announcer, AnnouncerStatus};
use jiff::Timestamp;
use kube::Resource as _;
use rand::rngs::SmallRng;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{info, warn};

use super::MANAGER;
use super::checks::Finding;
use super::lease::owner;
use super::sealed;
use super::seam::Report;
use super::stores::Stores;
use crate::cluster::writer::{Requests, WriteError, Written};
use crate::process::backoff::Backoff;
use crate::process::causes::causes;

mod contents;

pub use self::contents::{listed, status};

/// A condition: another host uses an address that this node announces.
pub const ADDRESS_CONFLICT: &str = "AddressConflict";
/// A condition: somebody else answers the probes of other nodes.
pub const PROBES_INTERCEPTED: &str = "ProbesIntercepted";
/// A condition: no other host responds.
pub const CUT_OFF: &str = "CutOff";
/// A Service whose address this node announces has no endpoint that serves.
pub const NO_ENDPOINTS: &str = "NoEndpoints";
/// The status of an Announcer has no valid seal.
pub const UNTRUSTED_ANNOUNCER: &str = "UntrustedAnnouncer";
/// What to do about it.
pub const UNTRUSTED_FIX: &str = "Do the announcers there have the same keys? Otherwise somebody has the token of one: replace these pods, and find out who";

/// There are more addresses than an announcer can know.
pub const TOO_MANY_ADDRESSES: &str = "TooManyAddresses";
/// The conditions that follow from the network and from Services. The log has their changes; whoever finds
/// the other ones logs them.
const LOGGED: [&str; 5] = [
    ADDRESS_CONFLICT,
    PROBES_INTERCEPTED,
    CUT_OFF,
    NO_ENDPOINTS,
    TOO_MANY_ADDRESSES,
];

/// After this time a process writes over the status of another process of its node.
const REASSERT: Duration = Duration::from_secs(15);
/// After this time a process writes over a former status of its own. The watch needs a moment after
/// each write; and a write that was given up may still arrive, if it waited in a cut connection.
const CORRECT: Duration = Duration::from_secs(2);
/// The minimum time between two writes.
const SPACING: Duration = Duration::from_millis(200);
/// Until the next try after a failure.
const RETRY: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(5));
/// Bounds of the CRD.
const MOST_INTERFACES: usize = 64;
pub(crate) const MOST_HOLDINGS: usize = 16_384;
// What an announcer knows fits into the list.
const _: () = assert!(MOST_HOLDINGS == CLAIMS);
const MOST_SUCCESSORS: usize = 8;
/// The entries of a list of `problems`.
pub(crate) const MOST_PROBLEMS: usize = 256;
/// The entries that a message of a condition names.
const NAMED: usize = 4;

/// Writes the object.
pub struct ObjectWriter {
    /// Sends the requests.
    pub requests: Requests,
    /// This node.
    pub me: NodeName,
    /// This process.
    pub incarnation: String,
    /// Where the Node and the object are.
    pub stores: Arc<Stores>,
    /// The keys that seal the object; without them it has no seals.
    pub keyring: Option<Arc<Keyring>>,
    /// What the agent reports.
    pub reports: watch::Receiver<Option<Arc<Report>>>,
    /// What should be different on this node. Nothing is written before the first check.
    pub findings: watch::Receiver<Option<Arc<Vec<Finding>>>>,
}

/// What the writer knows of the object.
#[derive(Default)]
struct Known {
    /// The status that was written last.
    written: Option<AnnouncerStatus>,
    /// The UID of the Node for which the object was created.
    created: Option<Box<str>>,
    /// The UID of the object.
    uid: Option<String>,
    /// The serial of the last status that this process tried to write.
    serial: i64,
    /// What the seals of the last status prove, and the seals.
    sealed: Option<(Content, Vec<ObjectSeal>)>,
    /// The watch delivered the object after that.
    delivered: bool,
    /// Since when the object has another status than the one that was written last.
    differs: Option<Instant>,
}

/// What to do next.
#[derive(Debug, PartialEq)]
enum Step {
    /// Wait for a change, but not longer than this.
    Wait(Option<Instant>),
    /// Write this status under another serial; before it, create the object for the Node with this
    /// UID.
    Write {
        create: bool,
        status: Box<AnnouncerStatus>,
    },
}

// === impl Known ===

impl Known {
    /// The object is gone. The next one continues with the serials of this one.
    fn forget(&mut self) {
        let serial = self.serial;
        *self = Self {
            serial,
            ..Self::default()
        };
    }
}

// === impl ObjectWriter ===

impl ObjectWriter {
    /// Writes for ever.
    pub async fn run(mut self) {
        let mut rng: SmallRng = rand::make_rng();
        let (mut known, mut failures) = (Known::default(), 0_u32);
        let mut logged = BTreeSet::new();
        let mut changes = self.stores.changes();
        loop {
            changes.mark_unchanged();
            self.reports.mark_unchanged();
            self.findings.mark_unchanged();
            let (create, status) = match self.next(&mut known, Instant::now()) {
                Step::Write { create, status } => (create, status),
                Step::Wait(until) => {
                    let end = until.unwrap_or_else(Instant::now);
                    tokio::select! {
                        // The senders live as long as this task.
                        Ok(()) = changes.changed() => {}
                        Ok(()) = self.reports.changed() => {}
                        Ok(()) = self.findings.changed() => {}
                        () = sleep_until(end), if until.is_some() => {}
                    }
                    continue;
                }
            };
            // Before the write: a node that is cut off cannot write.
            log_changes(&mut logged, &status);
            match self.write(&mut known, create, *status).await {
                Ok(()) => {
                    if failures > 0 {
                        info!("the Announcer object of this node is written again");
                    }
                    failures = 0;
                    sleep(SPACING).await;
                }
                Err(error) => {
                    if failures == 0 {
                        let error = causes(&error);
                        warn!(
                            error,
                            "cannot write the Announcer object of this node; trying again"
                        );
                    }
                    sleep(RETRY.delay(failures, &mut rng)).await;
                    failures = failures.saturating_add(1);
                }
            }
        }
    }

    fn next(&self, known: &mut Known, now: Instant) -> Step {
        let (Some(node), true) = (self.stores.node(&self.me), self.stores.lists_announcers())
        else {
            return Step::Wait(None);
        };
        let object = self.stores.announcer(&self.me);
        match &object {
            Some(_) => known.delivered |= known.created.is_some(),
            // Somebody deleted it.
            None if known.delivered => known.forget(),
            None => {}
        }
        let report = self.reports.borrow().clone();
        let findings = self.findings.borrow().clone();
        let (Some(report), Some(findings)) = (report, findings) else {
            return Step::Wait(None);
        };
        if report.replaced {
            // The newer process writes.
            return Step::Wait(None);
        }
        let counts = self.stores.trusted(&self.me);
        let (untrusted, soon) = self.stores.refused(now);
        let sealed = counts.as_ref().and_then(|object| object.own.as_deref());
        let nothing = AnnouncerStatus::default();
        let before = known.written.as_ref().or(sealed).unwrap_or(&nothing);
        let mut status = status(
            &report,
            &findings,
            &untrusted,
            before,
            sealed,
            &self.incarnation,
            Timestamp::now(),
        );
        if let Some(written) = &known.written {
            status.serial = written.serial;
            status.seals.clone_from(&written.seals);
        }
        let create = known.created.as_ref() != Some(&node.uid);
        if create || known.written.as_ref() != Some(&status) || !self.is_sealed(known) {
            let status = Box::new(status);
            return Step::Write { create, status };
        }
        let theirs = object.as_ref().and_then(|object| object.own.as_deref());
        let Some(theirs) = theirs.filter(|theirs| **theirs != status) else {
            known.differs = None;
            return Step::Wait(soon);
        };
        let ours = theirs.incarnation.as_ref() == Some(&self.incarnation);
        let patience = if ours || counts != object {
            CORRECT
        } else {
            REASSERT
        };
        let due = *known.differs.get_or_insert(now) + patience;
        if now < due {
            let due = soon.map_or(due, |soon| soon.min(due));
            return Step::Wait(Some(due));
        }
        let status = Box::new(status);
        Step::Write { create, status }
    }

    /// Whether the object has a seal with each key.
    fn is_sealed(&self, known: &Known) -> bool {
        let Some(keyring) = &self.keyring else {
            return true;
        };
        let sealed = known.sealed.as_ref();
        sealed.is_some_and(|(content, seals)| keyring.seals_object(content, seals))
    }

    /// Gives the status a serial and seals.
    fn seal(&self, known: &mut Known, status: &mut AnnouncerStatus, now: Timestamp) {
        let Some(keyring) = &self.keyring else {
            return;
        };
        let counts = self.stores.trusted(&self.me);
        let counts = counts.map_or(0, |object| object.serial);
        // Of another process of this node, or of this one before the object was deleted. The time
        // helps only if somebody put an old status into the object while no process ran.
        let before = known.serial.max(counts).saturating_add(1);
        known.serial = before.max(now.as_millisecond());
        status.serial = Some(known.serial);
        let uid = known.uid.as_deref().unwrap_or_default();
        let content = sealed::content(self.me.as_str(), uid, status);
        let seals = keyring.seal_object(&content);
        status.seals = sealed::written(&seals);
        known.sealed = Some((content, seals));
    }

    async fn write(
        &self,
        known: &mut Known,
        create: bool,
        mut status: AnnouncerStatus,
    ) -> Result<(), WriteError> {
        let path = format!("{}/{}", Announcer::url_path(&(), None), self.me);
        if create && let Some(node) = self.stores.node(&self.me) {
            let owner = owner(self.me.as_str(), &node.uid);
            let body = body(self.me.as_str(), json!({"ownerReferences": [owner]}), None);
            let create = self.requests.create("announcer", &path, MANAGER, &body);
            known.uid = create.await?;
            known.created = Some(node.uid.clone());
            known.delivered = false;
        }
        self.seal(known, &mut status, Timestamp::now());
        let body = body(self.me.as_str(), json!({}), Some(&status));
        let path = format!("{path}/status");
        let written = self
            .requests
            .apply("announcer-status", &path, MANAGER, &body)
            .await?;
        known.differs = None;
        let left_out = contents::left_out(&status);
        let before = known.written.as_ref().map_or(0, contents::left_out);
        if left_out > 0 && before == 0 {
            warn!(
                left_out,
                "this node has more addresses than its Announcer object can hold; after a restart it claims the other ones anew"
            );
        }
        match written {
            Written::Version(_) => known.written = Some(status),
            // Deleted since. The next step creates it.
            Written::Gone => known.forget(),
        }
        Ok(())
    }
}

/// The Announcer object of a node, or its status, as it is sent to the API server.
pub(super) fn body(name: &str, mut metadata: Value, status: Option<&AnnouncerStatus>) -> Value {
    metadata["name"] = json!(name);
    let mut body = json!({
        "apiVersion": Announcer::api_version(&()),
        "kind": Announcer::kind(&()),
        "metadata": metadata,
    });
    if let Some(status) = status {
        body["status"] = json!(status);
    }
    body
}

/// Logs which problems began and ended. `logged`: those that the log has. A process that starts logs all that
/// it has.
fn log_changes(logged: &mut BTreeSet<&'static str>, status: &AnnouncerStatus) {
    for kind in LOGGED {
        let Some(it) = status.conditions.iter().find(|it| it.type_ == kind) else {
            continue;
        };
        if it.status == "True" {
            if logged.insert(kind) {
                warn!(condition = kind, "{}", it.message);
            }
        } else if logged.remove(kind) {
            info!(condition = kind, "{}", it.message);
        }
    }
}
