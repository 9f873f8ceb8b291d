//! Keeps addresses and data plane with the state: one task.
//!
//! It follows the sequence of changes, opens and closes what they ask for, and reports
//! back whether the ports could be opened. The same task lets the clock move phases
//! on and retries what could not be had. `applied` says up to which change the data
//! plane is right, so that a `PUT` can answer with the outcome.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::join_all;
use futures::stream;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::Host;
use super::cloud::{self, Cloud};
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
    /// When to find out again whether clients arrive.
    knock: Instant,
    /// Load balancers that changed lately, and when to find that out for them.
    young: BTreeSet<String>,
    knock_young: Option<Instant>,
}

/// What became of a load balancer that shall be open.
enum Opened {
    /// It is.
    Yes,
    /// An address or a port cannot be had now.
    Lacking(Problem),
    /// It is open, and nobody arrives.
    Unreached(Problem),
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
        let mut follower = Self {
            writer,
            host,
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
        let applied = stream::iter(names).map(|name| {
            let (writer, host) = (&writer, &host);
            async move {
                let lacks = apply(writer, host, &name).await;
                (name, lacks)
            }
        });
        let mut applied = std::pin::pin!(applied.buffer_unordered(AT_ONCE));
        while let Some((name, lacks)) = applied.next().await {
            if lacks {
                self.lacking.insert(name);
            } else {
                self.lacking.remove(&name);
            }
        }
    }
}

/// Addresses went from the interface: everything is looked at again.
async fn lost(nic: Option<&Nic>) {
    match nic {
        Some(nic) => nic.lost().notified().await,
        None => std::future::pending().await,
    }
}

/// One load balancer; says whether it lacks something that may be had soon.
async fn apply(writer: &Writer, host: &Host, name: &str) -> bool {
    let record = {
        let cloud = writer.read();
        let record = cloud.record(name);
        record
            .filter(|record| record.phase == Phase::Active)
            .cloned()
    };
    let Some(record) = record else {
        host.close(name);
        return false;
    };
    let (word, lacks) = match host.open(&record).await {
        Opened::Yes => (cloud::Plane::Open, false),
        Opened::Lacking(problem) => (cloud::Plane::Failed(problem), true),
        Opened::Unreached(problem) | Opened::Refused(problem) => {
            (cloud::Plane::Failed(problem), false)
        }
    };
    if writer.read().report(name, word.clone()).is_empty() {
        return lacks;
    }
    let name = name.to_owned();
    let reported = writer
        .change(move |cloud, _| Ok((cloud.report(&name, word), ())))
        .await;
    if let Err(problem) = reported {
        tracing::warn!(%problem, "the state of a load balancer cannot be stored");
    }
    lacks
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
        if self.nic.is_some()
            && let Err(problem) = self.plane.knock(&record.name).await
        {
            return Opened::Unreached(problem);
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
