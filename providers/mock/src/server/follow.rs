//! Keeps addresses and data plane with the state: one task.
//!
//! It follows the sequence of changes, opens and closes what they ask for, and reports
//! back whether the ports could be opened. The same task lets the clock move phases
//! on and retries what could not be had. `applied` says up to which change the data
//! plane is right, so that a `PUT` can answer with the outcome.

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

/// Pause after the state could not be written.
const RETRY: Duration = Duration::from_secs(1);

/// Without deadlines, look at the clock after this long.
const IDLE: Duration = Duration::from_hours(1);

/// Whether clients arrive is found out again after this long: a node port may have come.
const KNOCK_AGAIN: Duration = Duration::from_secs(30);

/// The same of what was opened just now: kube-proxy may not have got to it yet.
const KNOCK_SOON: Duration = Duration::from_secs(3);

/// How long the follower waits for the first knocks at what it has opened: a fraction of a
/// millisecond is enough where clients arrive. The rest is reported later.
const FIRST_KNOCKS: Duration = Duration::from_millis(500);

/// Load balancers that are looked after at once where that takes a while.
const AT_ONCE: usize = 32;

/// The task's own.
pub(super) struct Follower {
    writer: Writer,
    host: Host,
    /// Load balancers that lack an address or a port, to be tried again soon.
    lacking: BTreeSet<String>,
    /// When.
    retry: Option<Instant>,
    /// Where addresses live on an interface: whether clients arrive.
    knocker: Option<Knocker>,
    /// When to find out again.
    knock: Instant,
    /// Load balancers that changed lately, and when to find that out for them.
    young: BTreeSet<String>,
    knock_young: Option<Instant>,
}

/// What became of a load balancer.
enum Applied {
    /// It is not open and should not be.
    Closed,
    /// It lacks something that may be had soon.
    Lacking,
    /// It has all that it can have.
    Settled,
    /// All its ports are open.
    Open,
}

/// What became of a load balancer that shall be open.
enum Opened {
    /// It is.
    Yes,
    /// An address or a port cannot be had now.
    Lacking(Problem),
    /// A port of it belongs to the node.
    Refused(Problem),
}

// === impl Follower ===

impl Follower {
    /// Brings addresses and data plane to the state as it is; returns what that is.
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
            // Kept over changes: a busy cloud must not put off what may be free by now.
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

    /// What the clock brings: phases that end, what may be had by now, and whether clients
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

    /// Load balancers that changed after `done`; all of them if that is too long ago.
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
                // A knock under way says nothing of it any more.
                Applied::Closed | Applied::Lacking | Applied::Settled => knocker.forget(&name),
            }
        }
        self.first_knocks(new).await;
    }

    /// What the last knock found; `None` before the first.
    fn reached(&self, name: &str) -> Option<Result<(), Problem>> {
        match &self.knocker {
            Some(knocker) => knocker.result(name).cloned(),
            None => Some(Ok(())),
        }
    }

    /// Waits a moment for what was opened for the first time, so that a `PUT` is answered
    /// with the outcome.
    async fn first_knocks(&mut self, mut new: BTreeSet<String>) {
        let until = Instant::now() + FIRST_KNOCKS;
        while !new.is_empty() {
            let next = timeout_at(until, next_knock(&mut self.knocker)).await;
            let Ok(name) = next else { return };
            self.report_knock(&name).await;
            new.remove(&name);
        }
    }

    /// A knock has a result, which counts where all ports are open.
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

/// The next load balancer at which a knock has ended.
async fn next_knock(knocker: &mut Option<Knocker>) -> String {
    match knocker {
        Some(knocker) => knocker.next().await,
        None => std::future::pending().await,
    }
}

/// Addresses went from the interface: everything is looked at again.
async fn lost(nic: Option<&Nic>) {
    match nic {
        Some(nic) => nic.lost().notified().await,
        None => std::future::pending().await,
    }
}

/// One load balancer; `reached` is what the last knock found.
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

/// Stores what became of a load balancer, if that is new.
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
        // Nothing can fail in closing.
        let _ = self.plane.apply(name, None);
    }

    /// Opens what can be opened, and says what cannot.
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

/// Which of these are on the interface, and why one is not.
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
