//! From the start of a process to the moment when it is ready, in a cluster without Services.

use std::time::Instant;

use anyhow::Result;

use super::bed::Bed;
use super::contender::Task;
use super::inside::Mode;
use super::terms::{Contender, TO_READY, Values};
use super::usage::Usage;

/// Measures one start.
pub(crate) async fn start(bed: &Bed<'_>, contender: Contender) -> Result<Values> {
    // A start has no concurrency to choose.
    let task = Task {
        concurrency: 1,
        mode: Mode::Follow,
    };
    let began = Instant::now();
    let live = contender.start(bed, task).await?;
    live.ready(bed).await?;
    let took = began.elapsed();
    let used = Usage::of(bed.lab, &live.process).await?;
    live.stop(bed).await?;
    Ok(Values::from([
        (TO_READY, took.as_secs_f64() * 1e3),
        ("resident, MB", used.resident),
    ]))
}
