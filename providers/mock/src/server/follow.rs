//! Makes addresses and the data plane follow the state, in one task.
//!
//! It follows the sequence of changes, opens and closes what they require, and reports whether
//! the ports could be opened. The same task advances phases with the clock, and retries
//! addresses and ports that were not available. `applied` is the last change that the data
//! plane has applied, so that the answer to a `PUT` can include the outcome.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::join_all;
use futures::stream;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use super::Host;
use super::cloud::{self, Cloud};
use super::knock::Knocker;
use super::lifecycle::Phase;
use super::nic::Nic;
use super::record::Record;
use super::writer::Writer;
use crate::api::Problem;
use crate::plane::Config;

/// The pause after a failure to write the state.
const RETRY: Duration = Duration::from_secs(1);

/// The time between two looks at the clock if there is no deadline.
const IDLE: Duration = Duration::from_hours(1);

/// The time between two checks of whether clients arrive: a node port may have been opened.
const KNOCK_AGAIN: Duration = Duration::from_secs(30);

/// The same after a change: kube-proxy may not have applied it yet.
const KNOCK_SOON: Duration = Duration::from_secs(3);

/// How long the follower waits for the first knocks on load balancers that it has opened. If
/// clients arrive, a fraction of a millisecond is enough. Later results are reported later.
const FIRST_KNOCKS: Duration = Duration::from_millis(500);

/// The maximum number of load balancers that are applied at the same time.
const AT_ONCE: usize = 32;

/// The state of the task.
pub(super) struct Follower {
    writer: Writer,
    host: Host,
    /// Load balancers that lack an address or a port, to be retried soon.
    lacking: BTreeSet<String>,
    /// The time of the retry.
    retry: Option<Instant>,
    /// Checks whether clients arrive, if addresses are on an interface.
    knocker: Option<Knocker>,
    /// The time of the next check of all load balancers.
    knock: Instant,
    /// Load balancers that changed recently and are checked earlier, at `knock_young`.
    young: BTreeSet<String>,
    knock_young: Option<Instant>,
}

/// The result of applying a load balancer.
enum Applied {
    /// It is closed, and should be.
    Closed,
    /// It lacks an address or a port that may soon be available.
    Lacking,
    /// It lacks a port, and a retry does not help.
    Settled,
    /// All its ports are open.
    Open,
}

/// The result of opening a load balancer.
enum Opened {
    /// All its ports are open.
    Yes,
    /// An address or a port is not available now.
    Lacking(Problem),
    /// One of its ports belongs to the node.
    Refused(Problem),
}

// === impl Follower ===

impl Follower {
    /// Applies the current state to addresses and data plane, and returns its sequence number.
    pub(super) async fn begin(writer: Writer, host: Host) -> (Self, u64) {
        let (seq, names, sets, held) = {
            let cloud = writer.read();
            let names: Vec<String> = cloud.names().cloned().collect();
            let sets: Vec<_> = cloud
                .target_sets()
                .map(|(name, targets)| (name.clone(), targets.clone()))
                .collect();
            (cloud.position().seq, names, sets, cloud.held())
        };
        for (name, targets) in sets {
            host.plane.set_targets(&name, targets);
        }
        if let Some(nic) = &host.nic {
            nic.keep(&held).await;
        }
        let knocker = host.nic.is_some().then(|| {
            let plane = host.plane.clone();
            Knocker::new(Arc::new(move |name| {
                let plane = plane.clone();
                Box::pin(async move { plane.knock(&name).await })
            }))
        });
        let mut follower = Self {
            writer,
            host,
            knocker,
            lacking: BTreeSet::new(),
            retry: None,
            knock: Instant::now() + KNOCK_AGAIN,
            young: BTreeSet::new(),
            knock_young: None,
        };
        follower.apply(names).await;
        (follower, seq)
    }

    /// Runs until shutdown.
    pub(super) async fn run(mut self, applied: watch::Sender<u64>, shutdown: CancellationToken) {
        let mut latest = self.writer.seq();
        loop {
            latest.borrow_and_update();
            let done = *applied.borrow();
            let (seq, names) = self.pending(&self.writer.read(), done);
            self.apply(names.clone()).await;
            if let Some(nic) = &self.host.nic {
                let held = self.writer.read().held();
                nic.keep(&held).await;
                self.young.extend(names);
            }
            applied.send_replace(seq);
            // Kept across changes, so that many changes do not delay the retry.
            let soon = || Instant::now() + self.host.plane.bind_retry();
            self.retry = (!self.lacking.is_empty()).then(|| self.retry.unwrap_or_else(soon));
            let later = || Instant::now() + KNOCK_SOON;
            self.knock_young =
                (!self.young.is_empty()).then(|| self.knock_young.unwrap_or_else(later));
            let wake = self.wake_at();
            tokio::select! {
                () = shutdown.cancelled() => return,
                changed = latest.changed() => if changed.is_err() { return },
                () = sleep_until(wake) => self.on_time().await,
                name = next_knock(&mut self.knocker) => self.report_knock(&name).await,
                () = lost(self.host.nic.as_deref()) => self.knock = Instant::now(),
            }
        }
    }

    /// Does the work that is due: phases that end, retries, and checks of whether clients
    /// arrive.
    async fn on_time(&mut self) {
        let ticked = self.writer.change(|cloud, now| Ok((cloud.tick(now), ())));
        if ticked.await.is_err() {
            tokio::time::sleep(RETRY).await;
        }
        let now = Instant::now();
        let mut due = std::mem::take(&mut self.lacking);
        if self.knock_young.is_some_and(|at| at <= now) {
            self.knock_young = None;
            due.append(&mut self.young);
        }
        if self.host.nic.is_some() && self.knock <= now {
            self.knock = now + KNOCK_AGAIN;
            due.extend(self.writer.read().names().cloned());
        }
        self.apply(due).await;
        self.retry = None;
    }

    fn wake_at(&self) -> Instant {
        let now = Timestamp::now();
        let deadline = self.writer.read().deadline().map_or(IDLE, |at| {
            Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO)
        });
        let knock = self.host.nic.is_some().then_some(self.knock);
        let others = [self.retry, self.knock_young, knock].into_iter().flatten();
        others.fold(Instant::now() + deadline, Instant::min)
    }

    /// Load balancers that changed after `done`; all of them if those changes are no longer
    /// kept.
    fn pending(&self, cloud: &Cloud, done: u64) -> (u64, BTreeSet<String>) {
        let names = match cloud.changes_after(done) {
            Some(changes) => changes.map(|change| change.name.clone()).collect(),
            None => cloud
                .names()
                .cloned()
                .chain(self.host.plane.names())
                .collect(),
        };
        (cloud.position().seq, names)
    }

    async fn apply(&mut self, names: impl IntoIterator<Item = String>) {
        let (writer, host) = (self.writer.clone(), self.host.clone());
        let names: Vec<_> = names
            .into_iter()
            .map(|name| (self.reached(&name), name))
            .collect();
        let applied = stream::iter(names).map(|(reached, name)| {
            let (writer, host) = (&writer, &host);
            async move {
                let applied = apply(writer, host, &name, reached).await;
                (name, applied)
            }
        });
        let mut applied = std::pin::pin!(applied.buffer_unordered(AT_ONCE));
        let mut new = BTreeSet::new();
        while let Some((name, applied)) = applied.next().await {
            if let Applied::Lacking = applied {
                self.lacking.insert(name.clone());
            } else {
                self.lacking.remove(&name);
            }
            let Some(knocker) = &mut self.knocker else {
                continue;
            };
            match applied {
                Applied::Open => {
                    if knocker.result(&name).is_none() {
                        new.insert(name.clone());
                    }
                    knocker.start(&name);
                }
                // The result of a running knock no longer counts.
                Applied::Closed | Applied::Lacking | Applied::Settled => knocker.forget(&name),
            }
        }
        self.first_knocks(new).await;
    }

    /// The result of the last knock; `None` before the first.
    fn reached(&self, name: &str) -> Option<Result<(), Problem>> {
        match &self.knocker {
            Some(knocker) => knocker.result(name).cloned(),
            None => Some(Ok(())),
        }
    }

    /// Waits a short time for load balancers that were opened for the first time, so that the
    /// answer to a `PUT` includes the outcome.
    async fn first_knocks(&mut self, mut new: BTreeSet<String>) {
        let until = Instant::now() + FIRST_KNOCKS;
        while !new.is_empty() {
            let next = timeout_at(until, next_knock(&mut self.knocker)).await;
            let Ok(name) = next else { return };
            self.report_knock(&name).await;
            new.remove(&name);
        }
    }

    /// Reports the result of a knock, if the load balancer is still active.
    async fn report_knock(&mut self, name: &str) {
        let active = {
            let cloud = self.writer.read();
            let record = cloud.record(name);
            record.is_some_and(|record| record.phase == Phase::Active)
        };
        if !active {
            return;
        }
        if let Some(reached) = self.reached(name) {
            report(&self.writer, name, word(reached)).await;
        }
    }
}

/// The next load balancer with the result of a knock.
async fn next_knock(knocker: &mut Option<Knocker>) -> String {
    match knocker {
        Some(knocker) => knocker.next().await,
        None => std::future::pending().await,
    }
}

/// The interface has lost addresses, so everything is checked again.
async fn lost(nic: Option<&Nic>) {
    match nic {
        Some(nic) => nic.lost().notified().await,
        None => std::future::pending().await,
    }
}

/// Applies one load balancer; `reached` is the result of the last knock.
async fn apply(
    writer: &Writer,
    host: &Host,
    name: &str,
    reached: Option<Result<(), Problem>>,
) -> Applied {
    let record = {
        let cloud = writer.read();
        let record = cloud.record(name);
        record
            .filter(|record| record.phase == Phase::Active)
            .cloned()
    };
    let Some(record) = record else {
        host.close(name);
        return Applied::Closed;
    };
    let (report_now, applied) = match host.open(&record).await {
        Opened::Yes => (reached.map(word), Applied::Open),
        Opened::Lacking(problem) => (Some(cloud::Plane::Failed(problem)), Applied::Lacking),
        Opened::Refused(problem) => (Some(cloud::Plane::Failed(problem)), Applied::Settled),
    };
    if let Some(word) = report_now {
        report(writer, name, word).await;
    }
    applied
}

fn word(reached: Result<(), Problem>) -> cloud::Plane {
    match reached {
        Ok(()) => cloud::Plane::Open,
        Err(problem) => cloud::Plane::Failed(problem),
    }
}

/// Stores the result for a load balancer, if it is new.
async fn report(writer: &Writer, name: &str, word: cloud::Plane) {
    if writer.read().report(name, word.clone()).is_empty() {
        return;
    }
    let name = name.to_owned();
    let reported = writer
        .change(move |cloud, _| Ok((cloud.report(&name, word), ())))
        .await;
    if let Err(problem) = reported {
        tracing::warn!(%problem, "cannot store the state of a load balancer");
    }
}

// === impl Host ===

impl Host {
    fn close(&self, name: &str) {
        // Closing cannot fail.
        let _ = self.plane.apply(name, None);
    }

    /// Opens what can be opened. Returns what cannot.
    async fn open(&self, record: &Record) -> Opened {
        let (present, missing) = match &self.nic {
            Some(nic) => claimed(nic, &record.addresses).await,
            None => (record.addresses.clone(), None),
        };
        let config = Config::new(&record.desired, &present);
        let opened = self.plane.apply(&record.name, Some(config));
        match (missing, opened) {
            (None, Ok(())) => {}
            (None, Err(closed)) if !closed.retry => return Opened::Refused(closed.problem),
            (None, Err(closed)) => return Opened::Lacking(closed.problem),
            (Some(problem), _) => return Opened::Lacking(problem),
        }
        Opened::Yes
    }
}

/// The addresses that are on the interface, and why another one is not.
async fn claimed(nic: &Nic, addresses: &[IpAddr]) -> (Vec<IpAddr>, Option<Problem>) {
    let claims = join_all(addresses.iter().map(|ip| nic.claim(*ip))).await;
    let (mut present, mut missing) = (Vec::new(), None);
    for (ip, claim) in addresses.iter().zip(claims) {
        match claim {
            Ok(()) => present.push(*ip),
            Err(problem) => missing = missing.or(Some(problem)),
        }
    }
    (present, missing)
}
