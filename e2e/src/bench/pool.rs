//! Addresses from a pool that is exactly full: the cost of a backlog of Services, then of a
//! restart, then of some of the Services created again. The audit log counts the writes.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::bed::Bed;
use super::contender::BALLAST;
use super::inside::Waits;
use super::lan::CLASS_KEY;
use super::terms::{Contender, NAMESPACE, TO_OTHERS, Values};
use super::usage::Usage;
use super::writes::{Counter, Rows, TASK};
use crate::eventually;

/// One in this many Services is deleted and created again.
const ANEW: u32 = 5;
const LIMIT: Duration = Duration::from_mins(2);

const BACKLOG: Rows = [
    "backlog: patches",
    "backlog: events",
    "backlog: of class and pool, all",
];
const RESTART: Rows = [
    "restart: patches",
    "restart: events",
    "restart: of class and pool, all",
];
const RECREATED: Rows = [
    "anew: patches",
    "anew: events",
    "anew: of class and pool, all",
];

/// The whole life of Services that already exist.
pub(super) async fn life(bed: &Bed<'_>, services: u32) -> Result<Values> {
    let mut counter = Counter::open(bed, Contender::Ballast, services)?;
    let number = services.to_string();
    let observer = bed.user("observe", &["--services", &number]).await?;
    let live = Contender::Ballast.start(bed, TASK).await?;
    observer.result::<serde_json::Value>(LIMIT).await?;
    counter.step(BACKLOG).await?;
    live.stop(bed).await?;

    let start = Instant::now();
    let live = Contender::Ballast.start(bed, TASK).await?;
    bed.ballast.controller_ready(BALLAST).await?;
    let ready = start.elapsed();
    all_looked_at(bed, services).await?;
    let looked = start.elapsed();
    counter.step(RESTART).await?;
    let used = Usage::of(bed.lab, &live.process).await?;

    let anew = (services / ANEW).max(1);
    let number = anew.to_string();
    let flags = ["--services", &number, "--class", CLASS_KEY, "--replace"];
    let waits: Waits = bed.run("load", &flags).await?;
    counter.per(anew);
    let written = counter.step(RECREATED).await?;
    // They are numbered from 0, and the first of them were created again.
    let other = |name: &str| {
        let number = name
            .rsplit('-')
            .next()
            .and_then(|it| it.parse::<u32>().ok());
        number.is_none_or(|number| number >= anew)
    };
    let others = written
        .iter()
        .filter(|it| it.resource == "services" && it.namespace == NAMESPACE && other(&it.name));
    let others = u32::try_from(others.count())?;
    live.stop(bed).await?;

    let mut values = counter.values;
    values.extend([
        ("restart: to ready, s", ready.as_secs_f64()),
        ("restart: to all looked at, s", looked.as_secs_f64()),
        ("restart: resident, MB", used.resident),
        ("restart: resident at most, MB", used.peak),
        ("anew: first deleted to last address, s", waits.seconds),
        ("anew: reply to address p50, ms", waits.p50),
        ("anew: reply to address p95, ms", waits.p95),
        (TO_OTHERS, f64::from(others)),
    ]);
    Ok(values)
}

/// Waits until a new leader has reconciled every Service and has nothing left to do.
async fn all_looked_at(bed: &Bed<'_>, services: u32) -> Result<()> {
    eventually(LIMIT, || async {
        let metrics = bed.ballast.admin(BALLAST, "/metrics").await?;
        let sum = |name: &str| -> u64 {
            let values = metrics.lines().filter(|line| line.starts_with(name));
            values
                .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
                .sum()
        };
        let done = sum("ballast_reconciles_total{");
        let left = sum("ballast_queue_depth ") + sum("ballast_queue_in_flight ");
        ensure!(
            done >= u64::from(services) && left == 0,
            "{done} reconciles, {left} to do"
        );
        Ok(())
    })
    .await
}
