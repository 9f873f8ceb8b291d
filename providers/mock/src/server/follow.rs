//! Keeps the data plane with the state: one task.
//!
//! It follows the sequence of changes, opens and closes what they ask for, and reports
//! back whether the ports could be opened. The same task lets the clock move phases
//! on and retries ports that were in use. `applied` says up to which change the data
//! plane is right, so that a `PUT` can answer with the outcome.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::Host;
use super::cloud::{self, Cloud};
use super::lifecycle::Phase;
use super::writer::Writer;
use crate::plane::Config;

/// Pause after the state could not be written.
const RETRY: Duration = Duration::from_secs(1);

/// Without deadlines, look at the clock after this long.
const IDLE: Duration = Duration::from_hours(1);

/// Brings the data plane to the state as it is, without waiting for anything.
pub(super) async fn begin(writer: &Writer, host: &Host) -> u64 {
    let (seq, names, sets) = {
        let cloud = writer.read();
        let names: Vec<String> = cloud.names().cloned().collect();
        let sets: Vec<_> = cloud
            .target_sets()
            .map(|(name, targets)| (name.clone(), targets.clone()))
            .collect();
        (cloud.position().seq, names, sets)
    };
    for (name, targets) in sets {
        host.plane.set_targets(&name, targets);
    }
    if let Some(nic) = &host.nic {
        // All at once: to ask for one takes a while. Who has one is found out again, and
        // said, when its ports are to be opened.
        let wanted = writer.read().held();
        nic.keep(&wanted).await;
        let claims = wanted.into_iter().map(|ip| nic.claim(ip));
        stream::iter(claims).buffer_unordered(CLAIMS).for_each(async |_| {}).await;
    }
    for name in names {
        apply(writer, host, &name).await;
    }
    seq
}

/// Runs until shutdown.
pub(super) async fn run(
    writer: Writer,
    host: Host,
    applied: watch::Sender<u64>,
    shutdown: CancellationToken,
) {
    let mut latest = writer.seq();
    // Kept over changes: a busy cloud must not put off the ports that may be free by now.
    let mut retry: Option<Instant> = None;
    loop {
        latest.borrow_and_update();
        let done = *applied.borrow();
        let (seq, names) = pending(&writer.read(), &host, done);
        for name in names {
            apply(&writer, &host, &name).await;
        }
        if let Some(nic) = &host.nic {
            let wanted = writer.read().held();
            nic.keep(&wanted).await;
        }
        applied.send_replace(seq);
        retry = (!host.plane.failed().is_empty())
            .then(|| retry.unwrap_or_else(|| Instant::now() + host.plane.bind_retry()));
        let wake = wake_at(&writer, retry);
        tokio::select! {
            () = shutdown.cancelled() => return,
            changed = latest.changed() => if changed.is_err() { return },
            () = sleep_until(wake) => {
                on_time(&writer, &host).await;
                retry = None;
            }
        }
    }
}

/// What the clock brings: phases that end, and ports that may be free by now.
async fn on_time(writer: &Writer, host: &Host) {
    let ticked = writer.change(|cloud, now| Ok((cloud.tick(now), ()))).await;
    if ticked.is_err() {
        tokio::time::sleep(RETRY).await;
    }
    for name in host.plane.failed() {
        apply(writer, host, &name).await;
    }
}

fn wake_at(writer: &Writer, retry: Option<Instant>) -> Instant {
    let now = Timestamp::now();
    let deadline = writer.read().deadline().map_or(IDLE, |at| {
        Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO)
    });
    let phase = Instant::now() + deadline;
    retry.map_or(phase, |retry| retry.min(phase))
}

/// Load balancers that changed after `done`; all of them if that is too long ago.
fn pending(cloud: &Cloud, host: &Host, done: u64) -> (u64, BTreeSet<String>) {
    let names = match cloud.changes_since(done, usize::MAX) {
        Some(changes) => changes.into_iter().map(|change| change.name).collect(),
        None => cloud.names().cloned().chain(host.plane.names()).collect(),
    };
    (cloud.position().seq, names)
}

async fn apply(writer: &Writer, host: &Host, name: &str) {
    let config = {
        let cloud = writer.read();
        let record = cloud.record(name);
        record
            .filter(|record| record.phase == Phase::Active)
            .map(|record| Config::new(&record.desired, &record.addresses))
    };
    let active = config.is_some();
    let word = match plane.apply(name, config) {
        Ok(()) => cloud::Plane::Open,
        Err(problem) => cloud::Plane::Failed(problem),
    };
    if !active || writer.read().report(name, word.clone()).is_empty() {
        return;
    }
    let name = name.to_owned();
    let reported = writer
        .change(move |cloud, _| Ok((cloud.report(&name, word), ())))
        .await;
    if let Err(problem) = reported {
        tracing::warn!(%problem, "the state of a load balancer cannot be stored");
    }
}
