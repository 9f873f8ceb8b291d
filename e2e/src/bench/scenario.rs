//! The measurements of time, memory and processor time: a backlog, and a load.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use serde::Deserialize;

use super::bed::Bed;
use super::contender::{Live, Task};
use super::inside::{Mode, Waits};
use super::lan;
use super::terms::{Contender, Values};
use super::usage::{self, Machine, Usage};
use crate::{Component, Progress};

/// 100 Services take the reference controller with its defaults 20 s.
const LIMIT: Duration = Duration::from_mins(5);
/// A contender may still send events when every address is published.
const AFTERMATH: Duration = Duration::from_secs(25);

#[derive(Deserialize)]
struct Seen {
    first: f64,
    last: f64,
}

/// The processor time of all processes, until a moment.
struct ProcessorTime {
    machine: Machine,
    api_server: f64,
    etcd: f64,
}

/// Services exist before the contender starts.
pub(crate) async fn backlog(
    bed: &Bed<'_>,
    contender: Contender,
    services: u32,
    task: Task,
) -> Result<Values> {
    let services = services.to_string();
    let observer = bed.user("observe", &["--services", &services]).await?;
    let time = ProcessorTime::open(bed).await?;
    let start = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
    let live = contender.start(bed, task).await?;
    let seen: Seen = observer.result(LIMIT).await?;
    let mut values = Values::from([
        ("start to last address, s", seen.last - start),
        ("first write to last address, s", seen.last - seen.first),
    ]);
    // The raw loop has already ended, so its usage can no longer be read.
    let used = (contender != Contender::Raw).then_some(&live);
    time.close(bed, used, &mut values).await?;
    live.stop(bed).await?;
    Ok(values)
}

/// The contender runs, then Services are created as fast as the API server accepts them.
pub(crate) async fn load(
    bed: &Bed<'_>,
    contender: Contender,
    services: u32,
    concurrency: usize,
) -> Result<Values> {
    let task = Task {
        concurrency,
        mode: Mode::Follow,
    };
    let live = contender.start(bed, task).await?;
    live.idle(bed).await?;
    let time = ProcessorTime::open(bed).await?;
    let services = services.to_string();
    let user = bed.user("load", &["--services", &services]).await?;
    let waits: Waits = user.result(LIMIT).await?;
    let mut values = Values::from([
        ("reply to address p50, ms", waits.p50),
        ("reply to address p95, ms", waits.p95),
        ("reply to address max, ms", waits.max),
        ("created per second", waits.rate),
        ("first create to last address, s", waits.seconds),
    ]);
    time.close(bed, Some(&live), &mut values).await?;
    live.stop(bed).await?;
    Ok(values)
}

/// Creates the Services of a backlog and saves that state: Services without a class, or
/// Services that need an address from the pool with this range.
pub(crate) async fn fill(
    bed: &Bed<'_>,
    services: u32,
    range: Option<&str>,
    progress: Progress,
) -> Result<String> {
    bed.restore("empty").await?;
    let doing = || format!("creating {services} Services, once");
    progress.say(doing());
    let number = services.to_string();
    let mut flags = vec!["--services", &number];
    let mut snapshot = format!("backlog-{services}");
    if let Some(range) = range {
        bed.lab.apply(&lan::manifest(range)).await?;
        flags.extend(["--class", lan::CLASS_KEY]);
        snapshot = format!("pool-{services}");
    }
    let create = bed.run::<serde_json::Value>("create", &flags);
    progress.while_waiting(doing, create).await?;
    bed.save(&snapshot).await?;
    Ok(snapshot)
}

impl ProcessorTime {
    async fn open(bed: &Bed<'_>) -> Result<Self> {
        let (api_server, etcd) = (Component::ApiServer.name(), Component::Etcd.name());
        Ok(Self {
            machine: Machine::now()?,
            api_server: Usage::of(bed.lab, &api_server).await?.cpu,
            etcd: Usage::of(bed.lab, &etcd).await?.cpu,
        })
    }

    /// When the work, and all that it started, is done.
    async fn close(self, bed: &Bed<'_>, live: Option<&Live>, values: &mut Values) -> Result<()> {
        usage::quiet(bed.lab, AFTERMATH).await?;
        let now = Self::open(bed).await?;
        let (api_server, etcd) = (now.api_server - self.api_server, now.etcd - self.etcd);
        let all = now.machine.busy_since(self.machine);
        values.extend([
            ("processor of the API server, s", api_server),
            ("processor of etcd, s", etcd),
        ]);
        let Some(live) = live else {
            return Ok(());
        };
        let of = Usage::of(bed.lab, &live.process).await?;
        values.extend([
            ("resident, MB", of.resident),
            ("resident at most, MB", of.peak),
            ("processor, s", of.cpu),
            ("processor of all else, s", all - api_server - etcd - of.cpu),
        ]);
        Ok(())
    }
}
